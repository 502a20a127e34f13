//! The core with native sessions, as the benches drive it: a relay over its own memory, and the
//! clients' halves in the same program, whose work is done outside of what is timed or counted.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time;

use wardline_core::native::handshake::client::{Answered, Attempt, Connected, Resumption};
use wardline_core::native::handshake::{Accept, Challenge, Resumed};
use wardline_core::native::{
    ClientControl, Code, Ephemeral, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameWriter,
    Next as NextRecord, Record, Records, ServerControl, SigningKey, Start, digest,
};
use wardline_core::{
    Carrier, ConnId, Duration, Event, Gather, Handover, Instant, Limits, Next, Pool, Relay, Remote,
    Started, TopicId, pump, send,
};
use wardline_host::access::{Keyring, Open, Rules};
use wardline_host::settings::Settings;
use wardline_host::storage::{Lent, Sizes};

use super::NOW;

/// Sockets that take everything at once, but for one that takes nothing until it is told to. What
/// one of them takes is kept where somebody listens.
struct Sockets {
    bytes: usize,
    stuck: Option<ConnId>,
    heard: Option<(ConnId, Vec<u8>)>,
}

impl<P: Pool> Carrier<P> for Sockets {
    fn is_full(&mut self, conn: ConnId) -> bool {
        self.stuck == Some(conn)
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        for range in gather.ranges() {
            let bytes = black_box(pool.read(*range));
            if let Some((_, heard)) = self.heard.as_mut().filter(|(who, _)| *who == conn) {
                heard.extend_from_slice(bytes);
            }
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

/// Without what would have a bench measure a limit.
fn limits() -> Limits {
    let mut limits = Limits::DEFAULT;
    limits.quarantine.connects_per_minute = 1_000_000;
    limits.native.messages_per_second = 0;
    limits.native.bytes_per_second = 0;
    limits.native.identity_messages_per_second = 0;
    limits.native.identity_bytes_per_second = 0;
    limits.native.deliveries_per_second = 0;
    limits.native.handshakes_per_second = 1_000_000;
    limits.native.handshakes_per_parent_second = 1_000_000;
    limits.native.handshakes_total_per_second = 1_000_000;
    limits.native.ping = Duration::from_secs(100_000);
    limits.native.silence = Duration::from_secs(200_000);
    limits
}

fn secret(number: u32, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    digest(&seed)
}

/// A client that has a session.
pub(crate) struct Member {
    /// Its connection.
    pub(crate) conn: ConnId,
    /// By which peers reach it.
    pub(crate) handle: u64,
    records: Records,
    resumption: Resumption,
    mid: u64,
}

/// A relay with a native door.
pub(crate) struct Hall {
    relay: Relay<'static, &'static mut [u8]>,
    door: TopicId,
    sockets: Sockets,
    gather: Gather,
    now: Instant,
    /// Connections so far: each comes from an address of its own.
    came: u32,
    /// Time within the relay, and the sockets that take what it says.
    spent: time::Duration,
}

impl Hall {
    /// With nobody in it, to rules that let everybody in.
    pub(crate) fn new() -> Self {
        let limits = limits();
        let mut settings = Settings::default();
        settings.server.listen = vec!["native://127.0.0.1:0".parse().expect("a listener")];
        settings.native.open = Open::Always;
        let lent = Lent::reserve(&Sizes::of(&limits, &settings), &[]).expect("memory");
        let rules = Rules::from_settings(&settings.native).expect("rules");
        let access = Box::leak(Box::new(Keyring::new(rules)));
        let keys = Box::leak(Box::new([SigningKey::from_seed(&[4; 32])]));
        let loan = Box::leak(Box::new(lent)).lend_all(Some((keys, access)));
        let mut relay = Relay::new(limits, loan.slots, loan.pool, [7; 32], NOW).expect("a relay");
        let native = loan.native.expect("tables");
        relay.speak_native(native, [8; 32], 1_700_000_000_000).expect("a native relay");
        let door = relay.listen_native().expect("a door");
        let sockets = Sockets { bytes: 0, stuck: None, heard: None };
        let spent = time::Duration::ZERO;
        Self { relay, door, sockets, gather: Gather::new(), now: NOW, came: 0, spent }
    }

    /// One connection more, and what it says first; gives what it is answered.
    fn connect(&mut self, hello: &[u8]) -> (ConnId, Vec<u8>) {
        let [_, b, c, d] = self.came.to_be_bytes();
        let addr = SocketAddr::from(([10, b, c, d], 4_000));
        self.came += 1;
        self.now = self.now.after(Duration::from_millis(1));
        let remote = Remote { addr, topic: self.door };
        let began = time::Instant::now();
        let conn = self.relay.handle_accept(self.now, remote).expect("taken");
        self.sockets.heard = Some((conn, Vec::with_capacity(1_024)));
        self.relay.handle_input(self.now, conn, hello);
        self.drain();
        self.spent += began.elapsed();
        (conn, self.heard())
    }

    /// What the last one to be listened to was told.
    fn heard(&mut self) -> Vec<u8> {
        self.sockets.heard.as_mut().map(|(_, heard)| std::mem::take(heard)).unwrap_or_default()
    }

    /// What one says, and what it is answered.
    fn ask(&mut self, conn: ConnId, bytes: &[u8]) -> Vec<u8> {
        self.sockets.heard = Some((conn, Vec::with_capacity(1_024)));
        let began = time::Instant::now();
        self.hear(conn, bytes);
        self.drain();
        self.spent += began.elapsed();
        self.heard()
    }

    /// A full handshake of client `number`, to the relay's `Taken`.
    pub(crate) fn enter(&mut self, number: u32) -> Member {
        let key = SigningKey::from_seed(&secret(number, 1));
        let (hello, wait) = attempt(&key, self.came, None).hello();
        let (conn, challenge) = self.connect(hello.as_bytes());
        assert_eq!(challenge.len(), Challenge::SIZE, "{challenge:02x?}");
        let Ok(Answered::Challenged(challenged)) = wait.answer(&challenge, self.now) else {
            panic!("no CHALLENGE: {challenge:02x?}");
        };
        let (auth, wait) = challenged.auth(0, 1, 1).expect("an answer");
        let said = self.ask(conn, auth.as_bytes());
        let (accept, rest) = said.split_at(Accept::SIZE);
        let connected = wait.accept(accept, self.now).expect("the relay's proof");
        self.member(conn, &connected, connected.records(), rest)
    }

    /// The same session on a new connection.
    pub(crate) fn come_back(&mut self, number: u32, before: &Member) -> Member {
        let key = SigningKey::from_seed(&secret(number, 1));
        let (hello, wait) = attempt(&key, self.came, Some(&before.resumption)).hello();
        let (conn, resumed) = self.connect(hello.as_bytes());
        assert_eq!(resumed.len(), Resumed::SIZE, "{resumed:02x?}");
        let Ok(Answered::Resumed(connected)) = wait.answer(&resumed, self.now) else {
            panic!("not resumed: {resumed:02x?}");
        };
        let mut records = connected.records();
        // A session that is had back is proved by its first record.
        let ping = records.ping([7; 8]).expect("a record");
        let said = self.ask(conn, &ping);
        self.member(conn, &connected, records, &said)
    }

    fn member(
        &mut self,
        conn: ConnId,
        connected: &Connected,
        mut records: Records,
        said: &[u8],
    ) -> Member {
        let (mut rest, mut taken) = (said, false);
        while let Ok(NextRecord::Record(record, len)) = records.next(self.now, rest) {
            if let Record::Control(value) = record {
                taken |= matches!(ServerControl::decode(value), Ok(ServerControl::Taken { .. }));
            }
            rest = &rest[len..];
        }
        assert!(taken && rest.is_empty(), "no Taken: {said:02x?}");
        let (handle, resumption) = (connected.handle(), connected.resumption());
        Member { conn, handle, records, resumption, mid: 1 }
    }

    /// It says CLOSE, is answered, and goes.
    pub(crate) fn leave(&mut self, mut member: Member) {
        let close = member.records.close(Code::Normal, 0, 0, 0).expect("a record");
        let said = self.ask(member.conn, &close);
        assert!(!said.is_empty(), "CLOSE was not answered");
        self.lose(&member);
    }

    /// Its connection is gone; its session waits, if it said no CLOSE.
    pub(crate) fn lose(&mut self, member: &Member) {
        let began = time::Instant::now();
        self.relay.handle_closed(self.now, member.conn);
        self.drain();
        self.spent += began.elapsed();
    }

    /// The relay's time since this was asked last.
    pub(crate) fn take_spent(&mut self) -> time::Duration {
        std::mem::take(&mut self.spent)
    }

    /// Has a member read a topic.
    pub(crate) fn subscribe(&mut self, member: &mut Member, name: &str) {
        let from = Start::Now;
        let ask = ClientControl::Subscribe { ask: 1, name, from, echo: false, presence: false };
        let said = self.ask_control(member, &ask);
        assert!(matches!(said, Said::Subscribed), "{said:?}");
    }

    /// Has a member publish to a topic: by this number.
    pub(crate) fn open(&mut self, member: &mut Member, name: &str) -> u32 {
        match self.ask_control(member, &ClientControl::Open { ask: 2, name }) {
            Said::Opened(topic) => topic,
            said => panic!("{said:?}"),
        }
    }

    fn ask_control(&mut self, member: &mut Member, ask: &ClientControl<'_>) -> Said {
        let value = ask.encode().expect("a value");
        let header = member.records.sending.control(value.as_bytes()).expect("a record");
        let said = self.ask(member.conn, &[&header, value.as_bytes()].concat());
        let Ok(NextRecord::Record(record, _)) = member.records.next(self.now, &said) else {
            return Said::Else;
        };
        match record {
            Record::Control(value) => match ServerControl::decode(value) {
                Ok(ServerControl::Subscribed { .. }) => Said::Subscribed,
                Ok(ServerControl::Opened { topic, .. }) => Said::Opened(topic),
                _ => Said::Else,
            },
            _ => Said::Else,
        }
    }

    /// What a connection says.
    pub(crate) fn hear(&mut self, conn: ConnId, bytes: &[u8]) {
        self.relay.handle_input(self.now, conn, bytes);
    }

    /// Sends all that is to be sent.
    pub(crate) fn drain(&mut self) {
        let Self { relay, sockets, gather, now, .. } = self;
        while pump(relay, sockets, gather, *now) == Next::Again {}
    }

    /// Some time goes by.
    pub(crate) fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    /// Nobody is listened to any more: what is sent is only looked at.
    pub(crate) fn listen_to_nobody(&mut self) {
        self.sockets.heard = None;
    }

    /// A socket that takes nothing any more, until [`Hall::unstick`].
    pub(crate) fn stick(&mut self, member: &Member) {
        self.sockets.stuck = Some(member.conn);
    }

    /// It takes everything that waits for it, and then nothing again.
    pub(crate) fn catch_up(&mut self, member: &Member) {
        self.sockets.stuck = None;
        let Self { relay, sockets, gather, now, .. } = self;
        send(relay, sockets, gather, *now, member.conn);
        self.drain();
        self.stick(member);
    }

    /// How many bytes were sent.
    pub(crate) fn sent(&self) -> usize {
        self.sockets.bytes
    }
}

/// What a member was answered.
#[derive(Debug)]
enum Said {
    Subscribed,
    Opened(u32),
    Else,
}

fn attempt<'a>(key: &'a SigningKey, nth: u32, resume: Option<&'a Resumption>) -> Attempt<'a> {
    let e_c = Ephemeral::from_entropy(secret(nth, 2));
    let nonce = secret(nth, 3);
    let n_c = *nonce.first_chunk().expect("16 of 32");
    Attempt { key, pin: None, features: 0, recv_max: 1 << 20, resume, e_c, n_c }
}

impl Member {
    /// A record with so many frames of 64 bytes each for a topic.
    pub(crate) fn publish(&mut self, topic: u32, frames: usize) -> Vec<u8> {
        self.record((FrameKind::Publish, topic, 0), frames)
    }

    /// A record with one frame for a peer.
    pub(crate) fn direct(&mut self, peer: u64) -> Vec<u8> {
        self.record((FrameKind::Direct, 0, peer), 1)
    }

    /// A PING.
    pub(crate) fn ping(&mut self, nonce: u64) -> Vec<u8> {
        // The answer is not shown to it, so it has none under way.
        let mut records = self.records;
        let ping = records.ping(nonce.to_le_bytes()).expect("a record").to_vec();
        self.records.sending = records.sending;
        ping
    }

    fn record(&mut self, to: (FrameKind, u32, u64), frames: usize) -> Vec<u8> {
        let body = body(&mut self.mid, to, frames);
        let len = u32::try_from(body.len()).expect("a body");
        let header = self.records.sending.frames(len, &digest(&body)).expect("a record");
        [&header[..], &body].concat()
    }
}

/// So many frames of 64 bytes each, to a topic or a peer; `mid` is the first one's.
pub(crate) fn body(mid: &mut u64, to: (FrameKind, u32, u64), frames: usize) -> Vec<u8> {
    const PAYLOAD: [u8; 64] = [b'x'; 64];
    let (kind, topic, peer) = to;
    let mut body = vec![0; frames * (FRAME_HEADER_BYTES + PAYLOAD.len())];
    let mut writer = FrameWriter::new(&mut body);
    for _ in 0..frames {
        let header = FrameHeader { topic, peer, mid: *mid, ..FrameHeader::new(kind) };
        *mid += 1;
        assert!(writer.put(&header, &PAYLOAD), "it fits");
    }
    body
}

/// What the four public-key operations of a full handshake cost a relay, and nothing else: X25519
/// twice, a strict verification with the key as it comes, and a signature.
pub(crate) struct Operations {
    relay: SigningKey,
    client: [u8; 32],
    theirs: [u8; 32],
    signature: [u8; 64],
}

impl Operations {
    /// Of some keys.
    pub(crate) fn new() -> Self {
        let client = SigningKey::from_seed(&secret(0, 1));
        Self {
            relay: SigningKey::from_seed(&[4; 32]),
            client: *client.identity().as_bytes(),
            theirs: Ephemeral::from_entropy(secret(0, 2)).public(),
            signature: client.sign(&[7; 64]),
        }
    }

    /// Does all four once.
    pub(crate) fn run(&self) {
        let secret = Ephemeral::from_entropy(black_box([2; 32]));
        let public = secret.public();
        let shared = secret.agree(black_box(&self.theirs));
        let key = wardline_core::native::PublicKey::new(black_box(&self.client)).expect("a key");
        let verified = key.verify(black_box(&[7; 64]), black_box(&self.signature));
        assert!(verified && shared.is_some(), "keys that fit");
        black_box((public, shared, self.relay.sign(black_box(&[8; 64]))));
    }
}
