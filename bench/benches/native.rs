//! The native dialect's wire: what a handshake, a record, a window and a control value cost.
//! Indicative unless the machine is quiet.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wardline_core::Instant;
use wardline_core::native::handshake::client::{Answered, Attempt, AwaitAccept, Connected};
use wardline_core::native::handshake::server::{Answer, AwaitAuth, AwaitHello, Established, Wants};
use wardline_core::native::handshake::{Accept, Auth, Challenge, Granted, Hello};
use wardline_core::native::{
    ClientControl, Ephemeral, Records, SigningKey, Start, Window1024, digest,
};

const NOW: Instant = Instant::from_nanos(1);
const GRANTED: Granted =
    Granted { max_payload: 65_536, idle_ms: 300_000, msgs_per_s: 1_000, bytes_per_s: 1 << 23 };

struct Keys {
    client: SigningKey,
    server: SigningKey,
}

fn keys() -> Keys {
    Keys { client: SigningKey::from_seed(&[3; 32]), server: SigningKey::from_seed(&[4; 32]) }
}

fn attempt(keys: &Keys) -> Attempt<'_> {
    Attempt {
        key: &keys.client,
        pin: None,
        features: 0,
        recv_max: 65_584,
        resume: None,
        e_c: Ephemeral::from_entropy([1; 32]),
        n_c: [5; 16],
    }
}

fn challenge(keys: &Keys, hello: &[u8]) -> (Challenge, AwaitAuth) {
    let admitted = AwaitHello::new().hello(hello).expect("good").address(Answer::Yes);
    let Wants::Full(unproven) = admitted.expect("yes").resume(None) else { unreachable!() };
    let e_s = Ephemeral::from_entropy([2; 32]);
    let budgeted = unproven.budget(Answer::Yes).expect("yes");
    budgeted.challenge(&keys.server.identity(), &e_s, &[6; 16], 0, 7)
}

fn auth(keys: &Keys, challenge: &[u8]) -> (Auth, AwaitAccept) {
    let (_, wait) = attempt(keys).hello();
    let Ok(Answered::Challenged(challenged)) = wait.answer(challenge, NOW) else { unreachable!() };
    challenged.auth(0, 8, 9).expect("good")
}

fn accept(keys: &Keys, wait: AwaitAuth, auth: &[u8]) -> (Accept, Established) {
    let claimed = wait.auth(auth).expect("good").budget(Answer::Yes).expect("yes");
    let verified = claimed.verify().expect("good");
    let allowed = verified.allow(Answer::Yes, Answer::Yes, Answer::Yes).expect("yes");
    allowed.accept(&keys.server, 1 << 56 | 1, GRANTED, NOW).expect("good")
}

fn connection(keys: &Keys) -> (Hello, Challenge, Auth, Accept, Connected, Established) {
    let (hello, _) = attempt(keys).hello();
    let (challenge, wait_s) = challenge(keys, hello.as_bytes());
    let (auth, wait_c) = auth(keys, challenge.as_bytes());
    let (accept, server) = accept(keys, wait_s, auth.as_bytes());
    let client = wait_c.accept(accept.as_bytes(), NOW).expect("good");
    (hello, challenge, auth, accept, client, server)
}

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
    // What the four public-key operations of a server cost by themselves.
    group.bench_function("server: X25519 twice, verify, sign", |b| {
        let other = Ephemeral::from_entropy([1; 32]).public();
        let signature = keys.client.sign(&[7; 64]);
        b.iter(|| {
            let secret = Ephemeral::from_entropy(black_box([2; 32]));
            let public = secret.public();
            let shared = secret.agree(&other);
            let client = keys.client.identity();
            let key = wardline_core::native::PublicKey::new(client.as_bytes()).expect("a key");
            (public, shared, key.verify(&[7; 64], &signature), keys.server.sign(&[8; 64]))
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

criterion_group!(benches, handshake, records, small);
criterion_main!(benches);
