//! The native dialect's wire: what a handshake, a record, a window and a control value cost.
//! Indicative unless the machine is quiet.

mod units;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use units::ends::{NOW, accept, auth, challenge, connection, keys};
use units::hall::{Hall, Operations};
use wardline_core::native::{ClientControl, Records, Start, Window1024, digest};

fn handshake(c: &mut Criterion) {
    let keys = keys();
    let (hello, challenged, authed, accepted, ..) = connection(&keys);
    let mut group = c.benchmark_group("native/handshake");
    group.bench_function("server: HELLO to CHALLENGE", |b| {
        b.iter(|| challenge(&keys, black_box(hello.as_bytes())));
    });
    group.bench_function("server: AUTH to ACCEPT", |b| {
        b.iter_batched(
            || challenge(&keys, hello.as_bytes()).1,
            |wait| accept(&keys, wait, black_box(authed.as_bytes())),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("client: CHALLENGE to AUTH", |b| {
        b.iter(|| auth(&keys, black_box(challenged.as_bytes())));
    });
    group.bench_function("client: ACCEPT", |b| {
        b.iter_batched(
            || auth(&keys, challenged.as_bytes()).1,
            |wait| wait.accept(black_box(accepted.as_bytes()), NOW).expect("good"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The relay's whole work for a handshake, the clients' left out, and what of it are the four
/// public-key operations. `--bench handshakes` has the ratio, in pairs.
fn relay(c: &mut Criterion) {
    let mut group = c.benchmark_group("native/relay");
    let operations = Operations::new();
    group.bench_function("X25519 twice, verify, sign: alone", |b| b.iter(|| operations.run()));
    let mut hall = Hall::new();
    group.bench_function("a full handshake, and CLOSE", |b| {
        b.iter_custom(|times| {
            hall.take_spent();
            for nth in 0..times {
                let member = hall.enter(nth as u32 % 64);
                hall.leave(member);
            }
            hall.take_spent()
        });
    });
    let mut member = hall.enter(0);
    group.bench_function("a resume, and its loss", |b| {
        b.iter_custom(|times| {
            hall.lose(&member);
            hall.take_spent();
            for _ in 0..times {
                member = hall.come_back(0, &member);
                hall.lose(&member);
            }
            let spent = hall.take_spent();
            member = hall.come_back(0, &member);
            spent
        });
    });
    group.finish();
}

fn records(c: &mut Criterion) {
    let keys = keys();
    let (.., client, server) = connection(&keys);
    let mut group = c.benchmark_group("native/record");
    for bytes in [64_usize, 1_024, 16_384, 65_536] {
        let body = frame(bytes);
        let body_digest = digest(&body);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("digest and header, {bytes} bytes"), |b| {
            let mut sending = client.records().sending;
            b.iter(|| sending.frames(bytes as u32, &digest(black_box(&body))).expect("room"));
        });
        group.bench_function(format!("header, digest at hand, {bytes} bytes"), |b| {
            let mut sending = client.records().sending;
            b.iter(|| sending.frames(bytes as u32, black_box(&body_digest)).expect("room"));
        });
        let header = client.records().sending.frames(bytes as u32, &body_digest).expect("room");
        let record = [header.as_slice(), &body].concat();
        group.bench_function(format!("receive, {bytes} bytes"), |b| {
            let fresh: Records = server.records();
            b.iter(|| {
                let mut records = fresh;
                records.next(NOW, black_box(&record)).is_ok()
            });
        });
    }
    group.finish();
}

/// One PUBLISH of `bytes` in all.
fn frame(bytes: usize) -> Vec<u8> {
    let mut body = vec![0; bytes];
    body[..4].copy_from_slice(&((bytes - 48) as u32).to_le_bytes());
    (body[8], body[24]) = (1, 1);
    body
}

fn small(c: &mut Criterion) {
    let mut group = c.benchmark_group("native");
    group.bench_function("window: check and mark the next", |b| {
        let mut window = Window1024::NEW;
        let mut number = 0;
        b.iter(|| {
            number += 1;
            let sight = window.check(black_box(number));
            window.mark(number);
            sight
        });
    });
    let value = ClientControl::Subscribe {
        ask: 7,
        name: "agents/everybody",
        from: Start::Now,
        echo: true,
        presence: false,
    };
    let bytes = value.encode().expect("good");
    group.bench_function("control value: decode", |b| {
        b.iter(|| ClientControl::decode(black_box(bytes.as_bytes())).is_ok());
    });
    group.finish();
}

criterion_group!(benches, handshake, relay, records, small);
criterion_main!(benches);
