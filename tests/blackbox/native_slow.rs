//! Native readers that lag: they are told what they miss, and nobody else notices.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wardline_core::native::{Code, FrameKind, GapReason, ServerControl, Start};

use crate::harness::{Launch, NativeClient, PATIENCE, Relay, Said, on_each_engine};

/// Little enough that the kernel hides nothing of a lag.
const SMALL_BUFFER_BYTES: usize = 4096;
/// Bytes of a message.
const PAYLOAD_BYTES: usize = 2 << 10;

fn payload(nth: u64) -> Vec<u8> {
    let mut payload = vec![b'x'; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(&nth.to_le_bytes());
    payload
}

/// The number of a message, which is whole.
fn number(heard: &[u8]) -> u64 {
    let nth = u64::from_le_bytes(*heard.first_chunk().expect("a number"));
    assert!(heard == payload(nth), "message {nth} is not what was said");
    nth
}

/// Somebody who does not read, and those who do.
struct Room {
    speaker: NativeClient,
    witnesses: Vec<NativeClient>,
    stuck: NativeClient,
    said: u64,
}

impl Room {
    fn new(relay: &Relay) -> Self {
        let mut stuck = relay.native_dial(1).receive_buffer(SMALL_BUFFER_BYTES).connect();
        stuck.subscribe("t", Start::Now);
        let mut speaker = relay.native(2);
        speaker.open("t").expect("it may");
        let witnesses = (3..6).map(|number| {
            let mut witness = relay.native(number);
            witness.subscribe("t", Start::Now);
            witness
        });
        Self { speaker, witnesses: witnesses.collect(), stuck, said: 0 }
    }

    /// Publishes so many bytes, every witness reading along; the longest that 64 messages took.
    fn publish(&mut self, bytes: usize) -> Duration {
        let mut worst = Duration::ZERO;
        let end = self.said + (bytes / PAYLOAD_BYTES) as u64;
        while self.said < end {
            let begun = Instant::now();
            let first = self.said;
            self.said += 64;
            for nth in first..self.said {
                self.speaker.enqueue("t", &payload(nth));
            }
            self.speaker.flush();
            for witness in &mut self.witnesses {
                for nth in first..self.said {
                    let (header, heard) = witness.frame();
                    assert_eq!((header.offset, number(&heard)), (nth, nth));
                }
            }
            assert!(self.speaker.barrier());
            worst = worst.max(begun.elapsed());
        }
        worst
    }

    /// Reads what the stuck reader was sent, from `next` on up to `end`; how many messages it was
    /// told that it misses. Nothing is missing untold, and nothing comes twice.
    fn read_up(&mut self, mut next: u64, end: u64) -> u64 {
        let mut missed = 0;
        while next < end {
            match self.stuck.hear(PATIENCE) {
                Some(Said::Frame(header, heard)) => {
                    assert_eq!((header.offset, number(&heard)), (next, next));
                    next += 1;
                }
                Some(Said::Control(ServerControl::Gap { from, to, .. })) => {
                    assert!(from == next && to > from, "at {next}: a gap {from}..{to}");
                    missed += to - from;
                    next = to;
                }
                other => panic!("at {next} of {end}: {other:?}"),
            }
        }
        assert_eq!(next, end);
        missed
    }
}

#[test]
fn who_never_reads_is_told_of_a_gap_when_it_reads_again() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).set("pressure.lag_bytes", "1MiB").start();
        let mut room = Room::new(&relay);
        #[cfg(target_os = "linux")]
        let before = crate::harness::process::private_bytes(relay.pid());
        let worst = room.publish(16 << 20);
        #[cfg(target_os = "linux")]
        {
            let grown = crate::harness::process::private_bytes(relay.pid()).saturating_sub(before);
            assert!(grown <= 8 << 20, "it holds {grown} bytes for one reader");
        }
        assert!(worst < Duration::from_secs(8), "64 messages took others {worst:?}");
        let said = room.said;
        let begun = Instant::now();
        let missed = room.read_up(0, said);
        assert!(missed > 0 && missed < said, "{missed} of {said} are missing");
        // It is sent the rest as fast as it reads, although nobody else does anything.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "it took {took:?} to catch up");
        // From now on it has everything.
        room.publish(256 << 10);
        let end = room.said;
        assert_eq!(room.read_up(said, end), 0);
    });
}

/// Where nobody can say what was acknowledged, it takes half a minute: not tried then.
#[cfg(all(target_os = "linux", not(wardline_portable)))]
#[test]
fn who_acknowledges_nothing_is_cut_and_goes_on_where_it_was() {
    use crate::harness::{process, wait_until};

    on_each_engine(|engine| {
        let relay = Launch::of_both(engine)
            .set("pressure.progress", "3s")
            .set("native.retention_bytes", "1MiB")
            .start();
        let mut room = Room::new(&relay);
        let handle = room.stuck.handle();
        let clients = || process::established(relay.address().port());
        wait_until("all five to stand", || clients() == 5);
        room.publish(8 << 20);
        wait_until("the stuck reader to be cut", || clients() == 4);
        // It has what was under way, and the word of it if there was room for that.
        let mut next = 0;
        loop {
            match room.stuck.hear(PATIENCE) {
                Some(Said::Frame(header, heard)) => {
                    assert_eq!((header.offset, number(&heard)), (next, next));
                    next += 1;
                }
                Some(Said::Control(ServerControl::Gap { from, to, .. })) => {
                    assert_eq!(from, next);
                    next = to;
                }
                Some(Said::Close(code)) => assert_eq!(code, Code::SlowReader),
                Some(Said::End(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(next < room.said, "it was cut");
        room.stuck.reconnect(true).expect("the session is there");
        assert!(room.stuck.is_resumed() && room.stuck.handle() == handle);
        // The topic's life is known to those who read it.
        let epoch = relay.native(8).subscribe("t", Start::Now).epoch;
        let from = Start::Offset { epoch, offset: next };
        let place = room.stuck.subscribe("t", from);
        assert_eq!(place.next, room.said);
        let end = room.said;
        let missed = room.read_up(next, end);
        assert_eq!(missed, place.oldest.saturating_sub(next), "what was kept came");
        assert!(end - place.oldest >= 300, "1 MiB is kept");
    });
}

#[test]
fn ten_that_never_read_do_not_use_up_a_small_pool() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine)
            .set("limits.segments", "2MiB")
            .set("limits.blocks", "2MiB")
            .set("native.retention_bytes", "0")
            .start();
        let mut stuck: Vec<_> = (0..10)
            .map(|i| relay.native_dial(20 + i).receive_buffer(SMALL_BUFFER_BYTES).connect())
            .collect();
        for (nth, client) in stuck.iter_mut().enumerate() {
            // Some of them on a topic of their own.
            client.subscribe("t", Start::Now);
            client.subscribe(&format!("own {nth}"), Start::Now);
        }
        let mut room = Room::new(&relay);
        let mut elsewhere = relay.native(50);
        for nth in 0..10 {
            elsewhere.open(&format!("own {nth}")).expect("it may");
        }
        for _ in 0..8 {
            assert!(room.publish(2 << 20) < Duration::from_secs(8));
            for nth in 0..10 {
                for _ in 0..64 {
                    elsewhere.enqueue(&format!("own {nth}"), &payload(nth));
                }
                elsewhere.flush();
                assert!(elsewhere.barrier());
            }
        }
        let said = room.said;
        for (nth, client) in stuck.iter_mut().enumerate() {
            read_or_cut(client, &[("t", said), (&format!("own {nth}"), 8 * 64)]);
        }
        read_or_cut(&mut room.stuck, &[("t", said)]);
    });
}

/// Reads all that was said on topics, or all up to a cut: nothing is missing untold.
fn read_or_cut(client: &mut NativeClient, said: &[(&str, u64)]) {
    let mut left: BTreeMap<u32, (u64, u64)> =
        said.iter().map(|(name, end)| (client.number(name), (0, *end))).collect();
    while left.values().any(|(next, end)| next < end) {
        let (topic, from, to) = match client.hear(PATIENCE) {
            Some(Said::Frame(header, _)) => (header.topic, header.offset, header.offset + 1),
            Some(Said::Control(ServerControl::Gap { topic, from, to, .. })) => (topic, from, to),
            Some(Said::Close(code)) => return assert_eq!(code, Code::SlowReader),
            Some(Said::End(_)) => return,
            other => panic!("{other:?}"),
        };
        let (next, end) = left.get_mut(&topic).expect("a topic that it reads");
        assert_eq!(from, *next, "a hole, or twice");
        *next = to;
        assert!(next <= end);
    }
}

#[test]
fn a_message_that_is_larger_than_a_reader_takes_is_told_as_a_gap() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let mut small = relay.native_dial(1).recv_max(1024).connect();
        small.subscribe("t", Start::Now);
        let mut large = relay.native(2);
        large.subscribe("t", Start::Now);
        // The most that fits has a header too.
        let lengths = [10, 1024 - 48, 1024 - 47, 4096, 10, 60_000, 10];
        for length in lengths {
            large.publish("t", &vec![b'x'; length]);
        }
        for (offset, length) in (0..).zip(lengths) {
            assert_eq!(large.frame().1.len(), length);
            if length <= 1024 - 48 {
                let (header, payload) = small.frame();
                assert_eq!((header.offset, payload.len()), (offset, length));
                continue;
            }
            let Some(Said::Control(ServerControl::Gap { from, to, reason, .. })) =
                small.hear(PATIENCE)
            else {
                panic!("no gap at {offset}");
            };
            assert_eq!((from, to, reason), (offset, offset + 1, GapReason::TooLarge as u8));
        }
        // A peer is told so by a NACK.
        let kind = FrameKind::Direct;
        let mid = large.send_to(kind, (small.handle(), 0), &[b'x'; 1024 - 47]);
        assert_eq!(large.nacked(mid), Code::TooLarge);
        large.send_to(kind, (small.handle(), 0), &[b'x'; 1024 - 48]);
        small.expect(&[b'x'; 1024 - 48]);
    });
}
