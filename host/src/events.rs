//! What happened, as lines of the log.

use std::net::SocketAddr;

use wardline_core::{Event, Pool, Reason, Relay};

/// Events of one turn that need no memory; the relay's ring holds about as many.
const WAITING_MAX: usize = 1_024;

/// What happened in a turn and the operator is yet to be told: the carrier learns of it while the
/// relay is at work, and the log is written once it is not.
#[derive(Debug)]
pub struct Events {
    waiting: Vec<(Event, Option<SocketAddr>)>,
    /// What happened and will not be told, for too much did in one turn.
    untold: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { waiting: Vec::with_capacity(WAITING_MAX), untold: 0 }
    }
}

impl Events {
    /// Takes an event down. `addr` is that of the connection that it speaks of: by the time that it
    /// is told the relay may have forgotten it.
    pub fn push(&mut self, event: Event, addr: Option<SocketAddr>) {
        if self.waiting.len() == WAITING_MAX {
            self.untold += 1;
            return;
        }
        self.waiting.push((event, addr));
    }

    /// Tells what was taken down.
    pub fn report<P: Pool>(&mut self, relay: &Relay<'_, P>) {
        for (event, addr) in self.waiting.drain(..) {
            log(relay, event, addr);
        }
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            tracing::warn!(code = "events", untold, "more happened in one turn than is told");
        }
    }
}

/// Logs an event. No byte of a client stands in it.
fn log<P: Pool>(relay: &Relay<'_, P>, event: Event, addr: Option<SocketAddr>) {
    let addr = addr.map_or_else(String::new, |addr| addr.to_string());
    match event {
        Event::None
        | Event::Published { .. }
        | Event::NotRelayed { .. }
        | Event::Ordered { .. }
        | Event::ReplicaBegins { .. }
        | Event::Replicated { .. } => {}
        Event::LinkDead { shard } => {
            tracing::error!(code = "shard_dead", "shard-{shard} gives no sign of life");
        }
        Event::LinkLost { shard } => {
            tracing::error!(
                code = "shard_lost",
                "shard-{shard} took this one for dead: readers of its topics are cut"
            );
        }
        Event::Leaving { conn, reason: Reason::Peer } => {
            tracing::debug!(%conn, addr, code = "closed", "connection ends");
        }
        Event::Leaving { conn, reason: Reason::Shutdown } => {
            tracing::debug!(%conn, addr, code = "shutdown", "connection ends");
        }
        Event::Leaving { conn, reason: Reason::Fault(fault) } => {
            let code = fault.code();
            tracing::info!(%conn, addr, code, "connection ends: {}", fault.sentence());
        }
        Event::Leaving { conn, reason: Reason::Refused(refusal) } => {
            tracing::debug!(%conn, addr, code = refusal.code(), "refused");
        }
        Event::Proxied { conn } => {
            tracing::debug!(%conn, addr, code = "proxied", "a proxy said whose connection it is");
        }
        Event::Gap { conn, from, to } => {
            tracing::info!(%conn, addr, code = "gap", from, to, "messages dropped");
        }
        Event::Paced { conn, topic } => {
            let topic = String::from_utf8_lossy(relay.topic_name(topic)).into_owned();
            tracing::info!(%conn, addr, code = "pace", topic, "senders are slowed");
        }
        Event::Struck { conn, strikes, seconds, identity } => {
            let what = if identity { "identity" } else { "address" };
            tracing::warn!(
                %conn, addr, code = "quarantine", strikes, seconds,
                "{what} struck"
            );
        }
    }
}
