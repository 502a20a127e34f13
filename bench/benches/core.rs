//! The units of the core, without a system call: lines, the log, whole turns, the bucket, the
//! quarantine.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wardline_core::line::{Envelope, Suffix, is_plain};
use wardline_core::{
    Bucket, Carrier, ConnId, Duration, Event, Gather, Instant, Limits, Next, Pool, Rate, Refusal,
    Relay, Remote, Started, TopicId, pump,
};
use wardline_host::settings::Settings;
use wardline_host::storage::{Lent, Sizes};

/// Messages that come in together: the window of the end-to-end runs.
const BATCH: u64 = 256;
const NOW: Instant = Instant::from_nanos(1_000_000_000);

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

    fn event(&mut self, _: Event) {}
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

fn batch(line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..BATCH {
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
    }
    bytes
}

fn lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("line");
    let suffix = Suffix::new(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    for (name, line) in [
        ("plain 64 B", "x".repeat(64)),
        ("json 64 B", "{\"a\":\"bcdefgh\",\"i\":12}".repeat(3)[..64].to_owned()),
        ("plain 16 KiB", "x".repeat(16 << 10)),
        ("control bytes 4 KiB", "\u{1}".repeat(4 << 10)),
    ] {
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function(format!("look for escapes, {name}"), |b| {
            b.iter(|| is_plain(black_box(line.as_bytes())));
        });
        let mut out = vec![0; Envelope::new(line.as_bytes(), &suffix).len()];
        group.bench_function(format!("measure and write the envelope, {name}"), |b| {
            b.iter(|| {
                let envelope = Envelope::new(black_box(line.as_bytes()), &suffix);
                envelope.fill(&mut out);
            });
        });
    }
    group.finish();
}

/// Input of a publisher with one reader: split, check, wrap, append; and what the reader is sent.
fn log(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    let (mut relay, topic) = relay(limits());
    let publisher = join(&mut relay, topic, 1);
    join(&mut relay, topic, 2);
    let input = batch(&[b'x'; 64]);
    let mut taker = Taker { bytes: 0 };
    let mut gather = Gather::new();
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("append 256 lines of 64 B, gather and send them to one", |b| {
        b.iter(|| {
            relay.handle_input(NOW, publisher, &input);
            while pump(&mut relay, &mut taker, &mut gather, NOW) == Next::Again {}
        });
    });
    group.finish();
    assert!(taker.bytes > 0, "nothing was sent");
}

/// A whole turn by number of readers: what is left of it per delivery.
fn turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    let input = batch(&[b'x'; 64]);
    for readers in [1_u16, 10, 100, 1_000] {
        let (mut relay, topic) = relay(limits());
        let publisher = join(&mut relay, topic, 0);
        for n in 0..readers {
            join(&mut relay, topic, n + 1);
        }
        let mut taker = Taker { bytes: 0 };
        let mut gather = Gather::new();
        group.throughput(Throughput::Elements(BATCH * u64::from(readers)));
        group.bench_function(format!("256 messages to {readers}"), |b| {
            b.iter(|| {
                relay.handle_input(NOW, publisher, &input);
                while pump(&mut relay, &mut taker, &mut gather, NOW) == Next::Again {}
            });
        });
        assert!(taker.bytes > 0, "nothing was sent");
    }
    // Everybody speaks: each reader is sent the runs of the others and not its own.
    let members = 10_u16;
    let (mut relay, topic) = relay(limits());
    let members: Vec<ConnId> = (0..members).map(|n| join(&mut relay, topic, n)).collect();
    let mut taker = Taker { bytes: 0 };
    let mut gather = Gather::new();
    let input = b"0123456789abcdef0123456789abcdef\n";
    group.throughput(Throughput::Elements(10 * 9));
    group.bench_function("10 say one line each, to the 9 others", |b| {
        b.iter(|| {
            for member in &members {
                relay.handle_input(NOW, *member, input);
            }
            while pump(&mut relay, &mut taker, &mut gather, NOW) == Next::Again {}
        });
    });
    group.finish();
    assert!(taker.bytes > 0, "nothing was sent");
}

fn bucket(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate");
    group.throughput(Throughput::Elements(1));
    group.bench_function("take from a bucket", |b| {
        let rate = Rate::per_second(1_000);
        b.iter_batched_ref(
            Bucket::default,
            |bucket| black_box(bucket.take(rate, black_box(NOW), 1)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn quarantine(c: &mut Criterion) {
    let mut group = c.benchmark_group("quarantine");
    group.throughput(Throughput::Elements(1));
    let (mut relay, topic) = relay(limits());
    let mut taker = Taker { bytes: 0 };
    let mut gather = Gather::new();
    let remote = Remote { addr: SocketAddr::from(([192, 0, 2, 7], 9)), topic };
    let mut refused = false;
    for _ in 0..100 {
        match relay.handle_accept(NOW, remote) {
            Ok(conn) => relay.handle_input(NOW, conn, b"\xff\n"),
            Err(Refusal::Quarantined(_)) => {
                refused = true;
                break;
            }
            Err(refusal) => panic!("{refusal:?}"),
        }
        while pump(&mut relay, &mut taker, &mut gather, NOW) == Next::Again {}
    }
    assert!(refused, "it was never refused");
    group.bench_function("refuse a banned address", |b| {
        b.iter(|| black_box(relay.handle_accept(NOW, black_box(remote))).is_err());
    });
    let remote = Remote { addr: SocketAddr::from(([192, 0, 3, 7], 9)), topic };
    group.bench_function("take a stranger and see it go", |b| {
        b.iter(|| {
            let conn = relay.handle_accept(NOW, black_box(remote));
            if let Ok(conn) = conn {
                relay.handle_closed(NOW, conn);
                while pump(&mut relay, &mut taker, &mut gather, NOW) == Next::Again {}
            }
        });
    });
    group.finish();
}

criterion_group!(benches, lines, log, turns, bucket, quarantine);
criterion_main!(benches);
