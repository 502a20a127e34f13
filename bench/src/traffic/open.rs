//! Traffic at a fixed rate, whatever the server does: an open loop.
//!
//! Every message has a moment at which it is due, and carries that moment, not the one at which it
//! was written. A server that stops for a second is seen with all the messages that were due in
//! that second, and not with one late one: coordinated omission does not happen. What the load
//! itself is late by is in the figures too.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{BATCH_BYTES_MAX, Phase, Started, Traffic, WAIT_MAX};
use crate::line::hex;

/// What was sent may take so much longer than planned until it is all received, and the rate still
/// counts as kept.
const LATE_MAX: f64 = 1.05;
/// That, and this: the last messages of a short phase are under way at its end in any case.
const LATE_MAX_MORE: Duration = Duration::from_millis(50);

/// Deliveries that may be due and not received: with more, messages wait with the load, which costs
/// them their latency as well and the server no memory.
const UNDELIVERED_MAX: u64 = 300_000;

/// What a phase at a fixed rate did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// From the first send to the last receive.
    pub phase: Phase,
    /// Everything was received about when it was due; otherwise the server, or the load, was too
    /// slow for the rate.
    pub kept: bool,
}

impl Traffic {
    /// Sends so many messages a second, all publishers in turn, for so long; then waits until
    /// everybody got everything.
    ///
    /// # Errors
    /// Messages that were lost, and a phase without any message.
    pub fn run_at(&mut self, per_second: f64, planned: Duration) -> Result<Open> {
        // The kernel may let a wait end 50 us late otherwise.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let mut total = (per_second * planned.as_secs_f64()).round() as u64;
        ensure!(total > 0, "{per_second} messages a second for {planned:?} are none");
        let apart_ns = 1e9 / per_second;
        let mut phase = Started::now(self);
        // Whoever takes twice as long as planned is too slow, and need not take even longer.
        let give_up = phase.began + planned * 2 + LATE_MAX_MORE;
        let mut given_up = false;
        let (mut written, first_ns) = (0, self.clock.elapsed().as_nanos() as u64);
        let due_ns = |message: u64| first_ns + (message as f64 * apart_ns) as u64;
        loop {
            let now_ns = self.clock.elapsed().as_nanos() as u64;
            if written < total && Instant::now() > give_up {
                (total, given_up) = (written, true);
            }
            let mut held = self.due() - self.delivered() > UNDELIVERED_MAX;
            while written < total && due_ns(written) <= now_ns && !held {
                held = !self.write_due(written, due_ns(written))?;
                written += u64::from(!held);
            }
            self.write_all()?;
            if written == total && self.delivered() == self.due() {
                break;
            }
            let next_ns = if written < total && !held { due_ns(written) } else { u64::MAX };
            let now_ns = self.clock.elapsed().as_nanos() as u64;
            let wait = Duration::from_nanos(next_ns.saturating_sub(now_ns)).min(WAIT_MAX);
            self.turn(wait)?;
            phase.check(self, Instant::now())?;
        }
        let phase = phase.end(self)?;
        let kept = !given_up && phase.elapsed <= planned.mul_f64(LATE_MAX) + LATE_MAX_MORE;
        Ok(Open { phase, kept })
    }

    /// Puts a message where its publisher writes from; not if that one has a lot to write already.
    fn write_due(&mut self, message: u64, due_ns: u64) -> Result<bool> {
        let publishers = self.workload.publishers as u64;
        let number = (message % publishers) as usize;
        let topics = self.topics.len() as u64;
        let topic = &mut self.topics[(message / publishers % topics) as usize];
        let publisher = &mut topic.publishers[number];
        if publisher.out.len() > BATCH_BYTES_MAX {
            return Ok(false);
        }
        publisher.stencil.write(&mut publisher.out, topic.tally.sent(number), &hex(due_ns));
        topic.tally.add_sent(number, 1);
        Ok(true)
    }

    /// Writes what publishers have, but for those whose socket is full.
    fn write_all(&mut self) -> Result<()> {
        for topic in 0..self.topics.len() {
            for number in 0..self.workload.publishers {
                let publisher = &self.topics[topic].publishers[number];
                if !publisher.out.is_empty() && !publisher.blocked {
                    self.write(topic, number)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupt;
    use crate::traffic::{Place, Workload};
    use crate::wire::Format;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    /// Carries bytes from its second connection to its first, and stops once for `nap`.
    fn relay_that_naps(nap: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut to, _) = listener.accept().unwrap();
            let (mut from, _) = listener.accept().unwrap();
            let (mut bytes, mut carried, mut awake) = ([0; 65_536], 0, true);
            while let Ok(got) = from.read(&mut bytes) {
                if got == 0 || to.write_all(&bytes[..got]).is_err() {
                    return;
                }
                carried += got;
                if awake && carried > 20_000 {
                    awake = false;
                    std::thread::sleep(nap);
                }
            }
        });
        addr
    }

    #[test]
    fn a_nap_is_seen_with_all_that_was_due_in_it() {
        let addr = relay_that_naps(Duration::from_millis(400));
        let place = Place { addrs: vec![addr], format: Format::Plain };
        let workload =
            Workload { topics: 1, publishers: 1, readers: 1, window: 1, size: 64, frames: 0 };
        let mut traffic = Traffic::connect(&place, workload, &Interrupt::default()).unwrap();
        let open = traffic.run_at(1000.0, Duration::from_secs(1)).unwrap();
        assert_eq!((open.phase.messages, open.phase.deliveries), (1000, 1000));
        // A window of one would have seen one late message in a thousand; 400 were due in the nap,
        // the first of them for all of it.
        let late = traffic.latency().count_between(200_000_000, u64::MAX >> 1);
        assert!(late >= 150, "only {late} of 1000 waited for half the nap");
        assert!(traffic.latency().value_at_quantile(0.99) > 300_000_000);
    }

    #[test]
    fn a_rate_that_cannot_be_kept_is_not_kept() {
        // 20,000 a second, and nothing moves for half a second of the quarter that is planned.
        let addr = relay_that_naps(Duration::from_millis(500));
        let place = Place { addrs: vec![addr], format: Format::Plain };
        let workload =
            Workload { topics: 1, publishers: 1, readers: 1, window: 1, size: 1024, frames: 0 };
        let mut traffic = Traffic::connect(&place, workload, &Interrupt::default()).unwrap();
        let open = traffic.run_at(20_000.0, Duration::from_millis(250)).unwrap();
        assert!(!open.kept, "{open:?}");
        assert_eq!(open.phase.messages, open.phase.deliveries);
    }
}
