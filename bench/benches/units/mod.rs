//! The core as the benches drive it: over its own memory, with sockets that take everything.

// Each bench uses a part of it.
#![allow(dead_code)]

pub(crate) mod ends;
pub(crate) mod hall;

use std::hint::black_box;
use std::net::SocketAddr;

use wardline_core::{
    Carrier, ConnId, Duration, Event, Gather, Handover, Instant, Limits, Next, Pool, Refusal,
    Relay, Remote, Started, TopicId, pump,
};
use wardline_host::settings::Settings;
use wardline_host::storage::{Lent, Sizes};

/// When everything happens.
pub(crate) const NOW: Instant = Instant::from_nanos(1_000_000_000);

/// Sockets that take everything at once.
struct Taker {
    bytes: usize,
}

impl<P: Pool> Carrier<P> for Taker {
    fn is_full(&mut self, _: ConnId) -> bool {
        false
    }

    fn start_send(&mut self, _: ConnId, gather: &Gather, pool: &P) -> Started {
        for range in gather.ranges() {
            black_box(pool.read(*range));
        }
        self.bytes += gather.bytes();
        Started::Done(gather.bytes())
    }

    fn cancel_send(&mut self, _: ConnId) {}

    fn pause(&mut self, _: ConnId) {}

    fn resume(&mut self, _: ConnId) {}

    fn probe(&mut self, _: ConnId) -> Option<u32> {
        Some(0)
    }

    fn finish(&mut self, _: ConnId) {}

    fn close(&mut self, _: ConnId) -> bool {
        true
    }

    fn hand_over(&mut self, _: ConnId, _: Handover) -> bool {
        unreachable!("there is one shard")
    }

    fn event(&mut self, _: Event, _: Option<SocketAddr>) {}
}

fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.line.messages_per_minute = 0;
    limits.line.idle = Duration::ZERO;
    limits
}

/// A relay over its own memory, which lives as long as the benches.
fn relay(limits: Limits) -> (Relay<'static, &'static mut [u8]>, TopicId) {
    let sizes = Sizes::of(&limits, &Settings::default());
    let lent = Box::leak(Box::new(Lent::reserve(&sizes, &[]).expect("memory")));
    let (slots, pool) = lent.lend();
    let mut relay = Relay::new(limits, slots, pool, [7; 32], NOW).expect("a relay");
    let topic = relay.listen("main").expect("a topic");
    (relay, topic)
}

fn join(relay: &mut Relay<'_, &mut [u8]>, topic: TopicId, n: u16) -> ConnId {
    let [high, low] = n.to_be_bytes();
    let addr = SocketAddr::from(([10, 0, high, low], 4_000));
    relay.handle_accept(NOW, Remote { addr, topic }).expect("taken")
}

/// So many equal lines, as one receive brings them.
pub(crate) fn batch(line: &[u8], count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }
    bytes
}

/// A relay with one topic and connections to it: the first `publishers` speak.
pub(crate) struct Room {
    /// The relay.
    pub(crate) relay: Relay<'static, &'static mut [u8]>,
    /// Its topic.
    pub(crate) topic: TopicId,
    /// The connections.
    pub(crate) members: Vec<ConnId>,
    taker: Taker,
    gather: Gather,
}

impl Room {
    /// With so many connections.
    pub(crate) fn of(members: u16) -> Self {
        let (mut relay, topic) = relay(limits());
        let members = (0..members).map(|n| join(&mut relay, topic, n)).collect();
        Self { relay, topic, members, taker: Taker { bytes: 0 }, gather: Gather::new() }
    }

    /// What one of them says.
    pub(crate) fn hear(&mut self, member: usize, bytes: &[u8]) {
        self.relay.handle_input(NOW, self.members[member], bytes);
    }

    /// Sends all that is to be sent.
    pub(crate) fn drain(&mut self) {
        self.drain_at(NOW);
    }

    fn drain_at(&mut self, now: Instant) {
        while pump(&mut self.relay, &mut self.taker, &mut self.gather, now) == Next::Again {}
    }

    /// How many bytes were sent.
    pub(crate) fn sent(&self) -> usize {
        self.taker.bytes
    }

    /// An address that is refused from now on.
    pub(crate) fn ban(&mut self) -> Remote {
        let topic = self.topic;
        let remote = Remote { addr: SocketAddr::from(([192, 0, 2, 7], 9)), topic };
        for _ in 0..100 {
            match self.relay.handle_accept(NOW, remote) {
                Ok(conn) => self.relay.handle_input(NOW, conn, b"\xff\n"),
                Err(Refusal::Quarantined(_)) => return remote,
                Err(refusal) => panic!("{refusal:?}"),
            }
            self.drain();
        }
        panic!("it was never refused");
    }

    /// A stranger comes and goes; not so often that it would be refused.
    pub(crate) fn visit(&mut self, now: Instant, remote: Remote) {
        let conn = self.relay.handle_accept(now, remote).expect("taken");
        self.relay.handle_closed(now, conn);
        self.drain_at(now);
    }
}
