//! The coalescing budget, to the millisecond: a relay in virtual time, sockets that take all.

use std::net::SocketAddr;

use wardline_core::{
    Carrier, ConfigError, ConnId, Duration, Event, Gather, Handover, Instant, Limits, Next, Pool,
    Relay, Remote, Started, TopicId, pump,
};
use wardline_host::settings::Settings;
use wardline_host::storage::{Lent, Sizes};

const MS: u64 = 1_000_000;

/// What each connection was sent, one entry a send.
#[derive(Default)]
struct Sent(Vec<(ConnId, String)>);

impl<P: Pool> Carrier<P> for Sent {
    fn is_full(&mut self, _: ConnId) -> bool {
        false
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        let bytes: Vec<u8> = gather.ranges().iter().flat_map(|r| pool.read(*r).to_vec()).collect();
        self.0.push((conn, String::from_utf8(bytes).expect("text")));
        Started::Done(gather.bytes())
    }

    fn cancel_send(&mut self, _: ConnId) {}

    fn pause(&mut self, _: ConnId) {}

    fn resume(&mut self, _: ConnId) {}

    fn probe(&mut self, _: ConnId) -> Option<u32> {
        None
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

/// One publisher, some readers, and a clock.
struct Room<'l> {
    relay: Relay<'l, &'l mut [u8]>,
    topic: TopicId,
    readers: Vec<ConnId>,
    speaker: ConnId,
    now_ns: u64,
}

impl Room<'_> {
    /// Runs `case` in a room of `readers` with a patience of so many milliseconds.
    fn of(readers: u16, coalesce_ms: u64, case: impl FnOnce(&mut Room<'_>)) {
        let mut limits = Limits { connections: 64, blocks: 512, segments: 16, ..Limits::DEFAULT };
        limits.line.coalesce = Duration::from_millis(coalesce_ms);
        let mut lent = Lent::reserve(&Sizes::of(&limits, &Settings::default()), &[]).unwrap();
        let (slots, pool) = lent.lend();
        let now = Instant::from_nanos(1_000 * MS);
        let mut relay = Relay::new(limits, slots, pool, [7; 32], now).unwrap();
        let topic = relay.listen("main").unwrap();
        let mut join = |n: u16| {
            let addr = SocketAddr::from(([192, 0, 2, 1], 4_000 + n));
            relay.handle_accept(now, Remote { addr, topic }).unwrap()
        };
        let speaker = join(0);
        let readers = (1..=readers).map(join).collect();
        case(&mut Room { relay, topic, readers, speaker, now_ns: 1_000 * MS });
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ns)
    }

    fn say(&mut self, line: &str) {
        let (now, speaker) = (self.now(), self.speaker);
        self.relay.handle_input(now, speaker, format!("{line}\n").as_bytes());
    }

    /// What is sent now, and until when the relay then waits.
    fn turn(&mut self) -> (Vec<(ConnId, String)>, Option<Instant>) {
        let (mut sent, now) = (Sent::default(), self.now());
        let mut gather = Gather::new();
        loop {
            let next = pump(&mut self.relay, &mut sent, &mut gather, now);
            self.relay.check();
            if let Next::Wait(until) = next {
                return (sent.0, until);
            }
        }
    }

    /// Waits as the relay says; gives what is sent then, and how many ns after `since`.
    fn wait(&mut self, since: u64) -> (Vec<(ConnId, String)>, u64) {
        loop {
            let (sent, until) = self.turn();
            if !sent.is_empty() {
                return (sent, self.now_ns - since);
            }
            self.now_ns = until.expect("a deadline").as_nanos();
        }
    }
}

#[test]
fn what_comes_within_the_patience_goes_out_in_one_send_and_in_time() {
    for coalesce_ms in [1, 2, 10, 50] {
        Room::of(3, coalesce_ms, |room| {
            room.now_ns += 123_456;
            room.say("first");
            assert_eq!(room.turn().0.len(), 3, "nobody waits for the first");
            let flushed = room.now_ns;
            for n in 0..5 {
                room.now_ns += 50_000;
                room.say(&format!("more {n}"));
                assert!(room.turn().0.is_empty());
            }
            let (sent, after_ns) = room.wait(flushed);
            let most = (coalesce_ms * MS).max(2 * MS);
            assert!(after_ns <= most, "{coalesce_ms} ms, and {after_ns} ns passed");
            assert!(after_ns >= coalesce_ms * MS / 2, "{after_ns} ns is no patience");
            assert_eq!(sent.len(), 3, "one send for each reader");
            for reader in &room.readers {
                let (_, text) = sent.iter().find(|(conn, _)| conn == reader).expect("each");
                assert_eq!(text.lines().count(), 5);
            }
        });
    }
}

#[test]
fn who_waits_long_enough_is_sent_to_at_once() {
    Room::of(2, 10, |room| {
        room.say("first");
        assert_eq!(room.turn().0.len(), 2);
        room.now_ns += 10 * MS;
        room.say("second");
        assert_eq!(room.turn().0.len(), 2);
    });
}

#[test]
fn sixteen_kib_do_not_wait() {
    Room::of(2, 50, |room| {
        room.say("first");
        assert_eq!(room.turn().0.len(), 2);
        room.now_ns += MS;
        room.say(&"x".repeat(10_000));
        assert!(room.turn().0.is_empty());
        room.say(&"y".repeat(10_000));
        assert_eq!(room.turn().0.len(), 2);
    });
}

#[test]
fn warnings_do_not_wait() {
    Room::of(2, 50, |room| {
        room.say("first");
        assert_eq!(room.turn().0.len(), 2);
        room.say("second");
        // One of the readers says too long a line: it is told at once, with what waits for it.
        let (now, reader) = (room.now(), room.readers[0]);
        room.relay.handle_input(now, reader, &[b'x'; 70_000]);
        let sent = room.turn().0;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, reader);
        assert!(sent[0].1.contains("Warning: "), "{}", sent[0].1);
    });
}

#[test]
fn who_leaves_lets_the_others_go_on() {
    Room::of(3, 50, |room| {
        room.say("first");
        assert_eq!(room.turn().0.len(), 3);
        room.say("second");
        assert!(room.turn().0.is_empty());
        let (now, reader) = (room.now(), room.readers[1]);
        room.relay.handle_closed(now, reader);
        assert_eq!(room.turn().0.len(), 2, "the timer went with it, so nobody waits for it");
    });
}

#[test]
fn a_topic_may_have_a_patience_of_its_own() {
    Room::of(1, 0, |room| {
        let (topic, ms) = (room.topic, Duration::from_millis);
        assert_eq!(room.relay.set_coalesce(topic, ms(51)), Err(ConfigError::Coalesce));
        room.relay.set_coalesce(topic, ms(20)).unwrap();
        room.say("first");
        assert_eq!(room.turn().0.len(), 1);
        room.say("second");
        assert!(room.turn().0.is_empty());
        room.relay.set_coalesce(topic, ms(0)).unwrap();
        assert_eq!(room.turn().0.len(), 1, "who waited is let go");
    });
}
