//! The client against the relay itself: `WARDLINE_RELAY=target/verify/wardline cargo test -p
//! wardline-client -- --ignored`. In between stands a wire that can be cut.

mod envelopes;
#[path = "../common/heard.rs"]
mod heard;
mod struck;
mod told;

use std::fs;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use heard::{event, message, text};
use wardline_client::{
    Builder, Client, Code, Error, Event, From, GapReason, LostWhy, Policy, Report, Server,
    SigningKey, Subscription, keys,
};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("it hangs");
    });
}

/// Both of two, side by side.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut had_a, mut had_b) = (None, None);
    poll_fn(|cx| {
        if had_a.is_none() {
            had_a = ready(a.as_mut().poll(cx));
        }
        if had_b.is_none() {
            had_b = ready(b.as_mut().poll(cx));
        }
        match (had_a.take(), had_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            waits => {
                (had_a, had_b) = waits;
                Poll::Pending
            }
        }
    })
    .await
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A relay's process.
struct Relay {
    child: Child,
    dir: tempfile::TempDir,
    native: SocketAddr,
    line: SocketAddr,
}

impl Relay {
    fn start() -> Self {
        Self::with(&[])
    }

    /// With settings of its own.
    fn with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        keys::generate(&dir.path().join("server.key")).unwrap();
        let (child, [native, line]) = Self::spawn(dir.path(), ["127.0.0.1:0", "127.0.0.1:0"], more);
        Self { child, dir, native, line }
    }

    fn spawn(dir: &Path, at: [&str; 2], more: &[&str]) -> (Child, [SocketAddr; 2]) {
        let program = std::env::var_os("WARDLINE_RELAY").expect("WARDLINE_RELAY names the relay");
        let ports = dir.join("ports");
        let _ = fs::remove_file(&ports);
        let mut child = Command::new(program)
            .args(["serve", "-q", "--key"])
            .arg(dir.join("server.key"))
            .args(["-l", &format!("native://{}", at[0]), "-l", &format!("line://{}/main", at[1])])
            .args(["--set", "native.messages_per_second=1000000"])
            .args(["--set", "native.identity_messages_per_second=0"])
            .args(more.iter().flat_map(|setting| ["--set", *setting]))
            .args(["--set", "native.handshakes_per_second=1000", "--ports-file"])
            .arg(&ports)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let text = loop {
            match fs::read_to_string(&ports) {
                Ok(text) if text.lines().count() == 2 => break text,
                Ok(_) | Err(_) => thread::sleep(Duration::from_millis(5)),
            }
            assert!(child.try_wait().unwrap().is_none(), "the relay does not start");
        };
        let addr = |scheme: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(scheme)).unwrap();
            line.split('/').next().unwrap().parse().unwrap()
        };
        (child, [addr("native://"), addr("line://")])
    }

    /// `kill -9`, and another one at the same place.
    fn start_again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let at = [self.native.to_string(), self.line.to_string()];
        self.child = Self::spawn(self.dir.path(), [&at[0], &at[1]], &[]).0;
    }

    async fn client(&self, seed: u8) -> Client {
        self.trusting(seed, Policy::OPEN).await
    }

    async fn trusting(&self, seed: u8, policy: Policy) -> Client {
        connect(self.native, seed, policy).await
    }
}

/// A client to be, of whoever is there.
fn builder(url: &str, seed: u8) -> Builder {
    Client::builder(url).key(key(seed)).server(Server::FirstUse)
}

/// A client of that address. The next messages are signed after it began: clocks have milliseconds.
async fn connect(addr: SocketAddr, seed: u8, policy: Policy) -> Client {
    let client = builder(&format!("native://{addr}"), seed)
        .envelopes(policy)
        .connect()
        .await
        .expect("connected");
    tokio::time::sleep(Duration::from_millis(5)).await;
    client
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What passes bytes on until it is cut.
struct Wire {
    addr: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(relay: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let kept = streams.clone();
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(relay).unwrap();
                let ends = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                kept.lock().unwrap().extend(ends);
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || pass_on(from, to));
                }
            }
        });
        Self { addr, streams }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut room = [0; 4_096];
    loop {
        match from.read(&mut room) {
            Ok(got) if got > 0 && to.write_all(&room[..got]).is_ok() => {}
            Ok(_) | Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn topics_and_lines() {
    run(async {
        let relay = Relay::start();
        let (alice, bob) = (relay.client(11).await, relay.client(12).await);
        let mut main = bob.subscribe("main", From::Now, false).await.unwrap();
        let mut own = alice.subscribe("main", From::Now, true).await.unwrap();
        alice.publish_taken("main", "one").await.unwrap();
        bob.publish_taken("main", "own").await.unwrap();
        let mut line = TcpStream::connect(relay.line).unwrap();
        line.write_all(b"a line\n").unwrap();
        assert_eq!(text(&mut main).await, "one");
        let Event::Message(message) = event(&mut main).await else { panic!() };
        assert!(message.is_line() && message.offset == 2, "{message:?}");
        assert!(String::from_utf8(message.payload).unwrap().contains("a line"));
        for wanted in ["one", "own", "a line"] {
            assert!(text(&mut own).await.contains(wanted));
        }
        // From before, on another connection.
        let carol = relay.client(13).await;
        let mut last = carol.subscribe("main", From::Last(2), false).await.unwrap();
        assert_eq!(text(&mut last).await, "own");
        for client in [alice, bob, carol] {
            client.close().await.unwrap();
        }
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn peers() {
    run(async {
        let relay = Relay::start();
        let (alice, bob) = (relay.client(11).await, relay.client(12).await);
        let mut directs = bob.directs().await.unwrap();
        let mut requests = bob.requests().await.unwrap();
        let found = alice.resolve(bob.identity()).await.unwrap();
        assert_eq!((found.len(), found[0].handle), (1, bob.handle()));
        let to = found[0].handle;
        assert_eq!(alice.identify(to).await.unwrap().unwrap().identity, Some(bob.identity()));
        let _read = bob.subscribe("chat", From::Now, false).await.unwrap();
        assert_eq!(alice.who("chat").await.unwrap().len(), 1);
        alice.direct_taken(to, "hello").await.unwrap();
        assert_eq!(directs.recv().await.unwrap().payload, b"hello");
        let answering = tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                if request.payload() == b"pieces" {
                    let mut pieces = request.stream();
                    pieces.send(vec![7; 1_000_000]).await.unwrap();
                    pieces.end().await.unwrap();
                } else {
                    request.reply("pong").await.unwrap();
                }
            }
        });
        let ten = Duration::from_secs(10);
        assert_eq!(alice.request(to, "ping", ten).await.unwrap().payload, b"pong");
        let whole = alice.request(to, "pieces", ten).await.unwrap();
        assert_eq!(whole.payload, vec![7; 1_000_000]);
        let error = alice.direct_taken(77, "x").await.unwrap_err();
        assert_eq!(error.code(), Some(Code::NoRoute));
        answering.abort();
        alice.close().await.unwrap();
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn cuts_lose_nothing_and_double_nothing() {
    run(async {
        let relay = Relay::start();
        let (in_wire, out_wire) = (Wire::to(relay.native), Wire::to(relay.native));
        let connect = |wire: &Wire, seed| {
            let url = format!("native://{}", wire.addr);
            async move { builder(&url, seed).connect().await.unwrap() }
        };
        let (alice, bob) = (connect(&in_wire, 11).await, connect(&out_wire, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let sending = tokio::spawn(async move {
            for nth in 0..3_000 {
                if nth % 1_000 == 300 {
                    in_wire.cut();
                }
                alice.publish("chat", nth.to_string()).await.unwrap();
            }
            alice.close().await
        });
        let (mut next, mut resumed) = (0, 0);
        while next < 3_000 {
            match event(&mut chat).await {
                Event::Message(message) => {
                    assert_eq!(String::from_utf8(message.payload).unwrap(), next.to_string());
                    next += 1;
                    if next % 1_000 == 600 {
                        out_wire.cut();
                    }
                }
                Event::Resumed => resumed += 1,
                other => panic!("{other:?} after {next}"),
            }
        }
        sending.await.unwrap().unwrap();
        assert!(resumed >= 1, "{resumed}");
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn a_request_outlives_a_resume() {
    run(async {
        let relay = Relay::start();
        let wire = Wire::to(relay.native);
        let url = format!("native://{}", wire.addr);
        let alice = builder(&url, 11).connect().await.unwrap();
        let bob = relay.client(12).await;
        let mut reports = alice.reports();
        let mut requests = bob.requests().await.unwrap();
        let (asker, to) = (alice.clone(), bob.handle());
        let ten = Duration::from_secs(10);
        let asking = tokio::spawn(async move { asker.request(to, "x", ten).await });
        let request = requests.recv().await.unwrap();
        wire.cut();
        while !matches!(reports.recv().await.unwrap().0, Report::Resumed) {}
        request.reply("y").await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap().payload, b"y");
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn sixty_topics_return_together() {
    run(async {
        let relay = Relay::start();
        let wire = Wire::to(relay.native);
        let url = format!("native://{}", wire.addr);
        let (alice, bob) = (builder(&url, 11).connect().await.unwrap(), relay.client(12).await);
        let mut reads = Vec::new();
        for nth in 0..60 {
            let topic = format!("topic-{nth}");
            reads.push(alice.subscribe(&topic, From::Now, false).await.unwrap());
            bob.publish_taken(&topic, "before").await.unwrap();
        }
        wire.cut();
        for nth in 0..60 {
            bob.publish_taken(&format!("topic-{nth}"), "after").await.unwrap();
        }
        for read in &mut reads {
            // The cut came before or after the first of them was through.
            let mut texts = Vec::new();
            while texts.last().is_none_or(|last| last != b"after") {
                match event(read).await {
                    Event::Message(message) => texts.push(message.payload),
                    other => assert_eq!(other, Event::Resumed),
                }
            }
            assert_eq!(texts, [&b"before"[..], b"after"]);
        }
        alice.close().await.unwrap();
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn a_relay_that_was_killed_knows_nothing() {
    run(async {
        let mut relay = Relay::start();
        let (alice, bob) = (relay.client(11).await, relay.client(12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        alice.publish_taken("chat", "one").await.unwrap();
        assert_eq!(text(&mut chat).await, "one");
        let was = chat.epoch();
        let mut reports = alice.reports();
        relay.start_again();
        assert_eq!(event(&mut chat).await, Event::Reconnected);
        let lost = event(&mut chat).await;
        let epoch = matches!(lost, Event::Lost(LostWhy::Epoch { was: before, next: 1, .. })
            if before == was);
        assert!(epoch, "{lost:?}");
        // What she sent before she knew would be unsure.
        while !matches!(reports.recv().await.unwrap().0, Report::Reconnected) {}
        alice.publish_taken("chat", "two").await.unwrap();
        let mut next = event(&mut chat).await;
        if matches!(next, Event::Gap { reason: GapReason::Epoch, .. }) {
            next = event(&mut chat).await;
        }
        assert!(matches!(&next, Event::Message(message) if message.payload == b"two"), "{next:?}");
        alice.close().await.unwrap();
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn the_same_device_takes_the_session_over() {
    run(async {
        let relay = Relay::start();
        let url = format!("native://{}", relay.native);
        let connect = || builder(&url, 11).device(5).connect();
        let first = connect().await.unwrap();
        first.publish_taken("chat", "one").await.unwrap();
        let second = connect().await.unwrap();
        second.publish_taken("chat", "two").await.unwrap();
        while first.ended().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let error = first.publish_taken("chat", "x").await.unwrap_err();
        assert_eq!(error.code(), Some(Code::Superseded), "{error}");
        assert!(matches!(error, Error::Ended(_)));
        second.close().await.unwrap();
    });
}
