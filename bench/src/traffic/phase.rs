//! A phase of traffic: when it ends, what it did, and whether anything happens in it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::Traffic;

/// With no byte from the server for so long while lines are due, the run has failed.
pub(super) const STALL_MAX: Duration = Duration::from_secs(10);

/// When publishers stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After so long.
    Elapsed(Duration),
    /// After so many lines of each publisher.
    Messages(u64),
}

/// What a phase did, from its first send to its last receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// How long it took.
    pub elapsed: Duration,
    /// Lines that were sent.
    pub messages: u64,
    /// Lines that were received, by all together.
    pub deliveries: u64,
}

/// What is remembered of a phase while it runs.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) began: Instant,
    delivered: u64,
    sent: Vec<u64>,
    /// When something came last, and how much there was then.
    heard: (Instant, u64),
}

impl Started {
    /// A phase begins.
    pub(super) fn now(traffic: &mut Traffic) -> Self {
        traffic.latency.reset();
        let (began, delivered) = (Instant::now(), traffic.delivered());
        Self { began, delivered, sent: traffic.sent(), heard: (began, delivered) }
    }

    /// How many lines a publisher sent since.
    pub(super) fn sent_since(&self, traffic: &Traffic, topic: usize, publisher: usize) -> u64 {
        let before = self.sent[topic * traffic.workload.publishers + publisher];
        traffic.topics[topic].tally.sent(publisher) - before
    }

    /// Fails once nothing came for too long.
    pub(super) fn check(&mut self, traffic: &Traffic, now: Instant) -> Result<()> {
        let delivered = traffic.delivered();
        if self.heard.1 != delivered {
            self.heard = (now, delivered);
        } else if now - self.heard.0 > STALL_MAX {
            bail!(traffic.stalled());
        }
        Ok(())
    }

    /// It is over: what was done, if nobody misses anything.
    pub(super) fn end(self, traffic: &Traffic) -> Result<Phase> {
        let elapsed = self.began.elapsed();
        if let Some(missing) = traffic.missing() {
            bail!(missing);
        }
        let sent = traffic.sent();
        let messages = sent.iter().zip(&self.sent).map(|(sent, before)| sent - before);
        let deliveries = traffic.delivered() - self.delivered;
        Ok(Phase { elapsed, messages: messages.sum(), deliveries })
    }
}
