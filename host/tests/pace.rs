//! Senders are slowed for a reader who does not keep up, for a while, and then it is cut: a relay
//! in virtual time, and one socket that takes what the test says.

use std::net::SocketAddr;

use wardline_core::{
    Carrier, ConnId, Duration, Event, Gather, Handover, Instant, LagRule, Limits, Next, PeerFault,
    Pool, Reason, Relay, Remote, Started, pump, send,
};
use wardline_host::settings::Settings;
use wardline_host::storage::{Lent, Sizes};

const MS: u64 = 1_000_000;
const PROGRESS_MS: u64 = 500;
const PACE_MS: u64 = 10_000;

/// The reader's socket, and what the operator is told of it.
struct Socket {
    reader: ConnId,
    room: usize,
    paced: usize,
    left: Option<Reason>,
}

impl<P: Pool> Carrier<P> for Socket {
    fn is_full(&mut self, conn: ConnId) -> bool {
        conn == self.reader && self.room == 0
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, _: &P) -> Started {
        if conn != self.reader {
            return Started::Done(gather.bytes());
        }
        let taken = self.room.min(gather.bytes());
        self.room -= taken;
        Started::Done(taken)
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

    fn event(&mut self, event: Event, _: Option<SocketAddr>) {
        match event {
            Event::Paced { conn, .. } if conn == self.reader => self.paced += 1,
            Event::Leaving { conn, reason } if conn == self.reader => self.left = Some(reason),
            _ => {}
        }
    }
}

/// What becomes in `for_ms` of a reader whose socket takes `bytes` at each of `at_ms` after senders
/// were slowed for it: how often they were, why it left, and when.
fn slowed(at_ms: &[u64], bytes: usize, for_ms: u64) -> (usize, Option<Reason>, u64) {
    let limits = Limits {
        connections: 8,
        blocks: 512,
        segments: 16,
        lag_rule: LagRule::Pace,
        progress: Duration::from_millis(PROGRESS_MS),
        pace: Duration::from_millis(PACE_MS),
        ..Limits::DEFAULT
    };
    let mut lent = Lent::reserve(&Sizes::of(&limits, &Settings::default()), &[]).unwrap();
    let (slots, pool) = lent.lend();
    let mut now_ns = 1_000 * MS;
    let now = Instant::from_nanos(now_ns);
    let mut relay = Relay::new(limits, slots, pool, [7; 32], now).unwrap();
    let topic = relay.listen("main").unwrap();
    let mut join = |port: u16| {
        let addr = SocketAddr::from(([192, 0, 2, 1], port));
        relay.handle_accept(now, Remote { addr, topic }).unwrap()
    };
    let (speaker, reader) = (join(1), join(2));
    let mut socket = Socket { reader, room: 10, paced: 0, left: None };
    let mut gather = Gather::new();
    relay.handle_input(now, speaker, "0123456789\n".repeat(60).as_bytes());
    let mut slowed_ns = None;
    let mut taken = 0;
    loop {
        let now = Instant::from_nanos(now_ns);
        let next = pump(&mut relay, &mut socket, &mut gather, now);
        relay.check();
        if socket.paced > 0 {
            slowed_ns.get_or_insert(now_ns);
        }
        let since_ms = slowed_ns.map_or(0, |at| (now_ns - at) / MS);
        if socket.left.is_some() || since_ms >= for_ms {
            return (socket.paced, socket.left, since_ms);
        }
        if slowed_ns.is_some() && at_ms.get(taken).is_some_and(|at| since_ms >= *at) {
            taken += 1;
            socket.room = bytes;
            send(&mut relay, &mut socket, &mut gather, now, reader);
        } else if let Next::Wait(_) = next {
            now_ns += 10 * MS;
        }
    }
}

const SLOW: Option<Reason> = Some(Reason::Fault(PeerFault::SlowReader));

#[test]
fn who_takes_nothing_is_cut_when_the_time_is_over() {
    let (paced, left, after_ms) = slowed(&[], 0, 60_000);
    assert_eq!((paced, left), (1, SLOW));
    assert!((PACE_MS..PACE_MS + 100).contains(&after_ms), "{after_ms}");
}

#[test]
fn a_little_taken_at_the_beginning_is_no_second_time() {
    let (paced, left, after_ms) = slowed(&[200, 400], 30, 60_000);
    assert_eq!((paced, left), (1, SLOW));
    assert!((PACE_MS..PACE_MS + 100).contains(&after_ms), "{after_ms}");
}

#[test]
fn who_goes_on_reading_stays() {
    let often: Vec<u64> = (0..60).map(|nth| nth * PROGRESS_MS / 2).collect();
    assert_eq!(slowed(&often, 30, PACE_MS + 3_000), (1, None, PACE_MS + 3_000));
}
