//! The units of the core, without a system call: lines, the log, whole turns, the bucket, the
//! quarantine.

mod units;

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use units::{NOW, Room, batch};
use wardline_core::line::{Envelope, Suffix, is_plain};
use wardline_core::{Bucket, Duration, Rate, Remote};

/// Messages that come in together: the window of the end-to-end runs.
const BATCH: u64 = 256;

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
    let mut room = Room::of(2);
    let input = batch(&[b'x'; 64], BATCH);
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("append 256 lines of 64 B, gather and send them to one", |b| {
        b.iter(|| {
            room.hear(0, &input);
            room.drain();
        });
    });
    group.finish();
    assert!(room.sent() > 0, "nothing was sent");
}

/// A whole turn by number of readers: what is left of it per delivery.
fn turns(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn");
    let input = batch(&[b'x'; 64], BATCH);
    for readers in [1_u16, 10, 100, 1_000] {
        let mut room = Room::of(readers + 1);
        group.throughput(Throughput::Elements(BATCH * u64::from(readers)));
        group.bench_function(format!("256 messages to {readers}"), |b| {
            b.iter(|| {
                room.hear(0, &input);
                room.drain();
            });
        });
        assert!(room.sent() > 0, "nothing was sent");
    }
    // Everybody speaks: each reader is sent the runs of the others and not its own.
    let mut room = Room::of(10);
    let input = b"0123456789abcdef0123456789abcdef\n";
    group.throughput(Throughput::Elements(10 * 9));
    group.bench_function("10 say one line each, to the 9 others", |b| {
        b.iter(|| {
            for member in 0..10 {
                room.hear(member, input);
            }
            room.drain();
        });
    });
    group.finish();
    assert!(room.sent() > 0, "nothing was sent");
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
    let mut room = Room::of(0);
    let banned = room.ban();
    group.bench_function("refuse a banned address", |b| {
        b.iter(|| black_box(room.relay.handle_accept(NOW, black_box(banned))).is_err());
    });
    let addr = SocketAddr::from(([192, 0, 3, 7], 9));
    let remote = Remote { addr, topic: room.topic };
    group.bench_function("take a stranger and see it go", |b| {
        // Whoever comes too often is refused, and that is another figure.
        let mut now = NOW;
        b.iter(|| {
            now = now.after(Duration::from_secs(60));
            room.visit(now, black_box(remote));
        });
    });
    group.finish();
}

criterion_group!(benches, lines, log, turns, bucket, quarantine);
criterion_main!(benches);
