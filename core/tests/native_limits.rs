//! Limits of native sessions that need several addresses, or several devices of one identity, and
//! what a peer that dies leaves behind: whole relays, driven through their seam.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable;
use wardline_core::native::handshake::client::{Answered, Attempt, Resumption};
use wardline_core::native::handshake::{MAGIC, Solve};
use wardline_core::native::{
    ClientControl, Code, Ephemeral, FrameHeader, FrameKind, FrameWriter, Identity, Next, Record,
    Records, ServerControl, SigningKey, Start, digest,
};
use wardline_core::{
    Access, Carrier, ConnId, Counter, Duration, Event, Gather, Handover, Instant, Limits,
    NativeLimits, NativeSlots, Network, Refusal, Relay, Remote, Right, Slots, Started, Tap,
    TopicId, Verdict, pump,
};

#[path = "native_limits/door.rs"]
mod door;
#[path = "native_limits/proxied.rs"]
mod proxied;
#[path = "native_limits/rates.rs"]
mod rates;
#[path = "native_limits/sessions.rs"]
mod sessions;
#[path = "native_limits/standing.rs"]
mod standing;

use proxied::Way;

type Pool = &'static mut [u8];

const ENROLLED: [u8; 32] = [9; 32];
const STRANGER: [u8; 32] = [10; 32];
/// The server's.
const NEW_KEY: [u8; 32] = [4; 32];
const OLD_KEY: [u8; 32] = [5; 32];
const OLDER_KEY: [u8; 32] = [6; 32];

/// Everybody may do everything; the operator knows the first of the keys.
struct Everybody;

impl Access for Everybody {
    fn may(&self, _: &Identity, _: IpAddr, right: Right, _: &[u8]) -> bool {
        right != Right::Bridge
    }

    fn enrolled(&self, who: &Identity) -> bool {
        *who == SigningKey::from_seed(&ENROLLED).identity()
    }

    fn version(&self) -> u32 {
        1
    }
}

fn lent<T: Zeroable + Clone>(len: usize) -> &'static mut [T] {
    vec![T::zeroed(); len].leak()
}

/// Of a relay with little memory.
fn small(connections: u32) -> Limits {
    Limits { connections, topics: 4, blocks: 512, segments: 16, ..Limits::DEFAULT }
}

/// Sockets that take everything, but for those that are full.
#[derive(Default)]
struct Net {
    down: BTreeMap<ConnId, Vec<u8>>,
    full: BTreeSet<ConnId>,
}

impl Carrier<Pool> for Net {
    fn is_full(&mut self, conn: ConnId) -> bool {
        self.full.contains(&conn)
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &Pool) -> Started {
        let down = self.down.entry(conn).or_default();
        for range in gather.ranges() {
            let from = range.at as usize;
            down.extend(&pool[from..from + range.len as usize]);
        }
        Started::Done(gather.bytes())
    }

    fn cancel_send(&mut self, _: ConnId) {}
    fn pause(&mut self, _: ConnId) {}
    fn resume(&mut self, _: ConnId) {}
    fn finish(&mut self, _: ConnId) {}
    fn event(&mut self, _: Event, _: Option<SocketAddr>) {}

    fn probe(&mut self, _: ConnId) -> Option<u32> {
        Some(0)
    }

    fn close(&mut self, _: ConnId) -> bool {
        true
    }

    fn hand_over(&mut self, _: ConnId, _: Handover) -> bool {
        unreachable!("there is one shard")
    }
}

/// A relay and its sockets.
struct World {
    relay: Relay<'static, Pool>,
    door: TopicId,
    net: Net,
    gather: Gather,
    now: Instant,
    port: u16,
    /// Of its clients; and whom they expect.
    epoch_ms: u64,
    pin: Option<Identity>,
    way: Way,
}

/// A native client that lives.
struct Client {
    conn: ConnId,
    records: Records,
    handle: u64,
    resumption: Resumption,
}

impl World {
    fn new(native: NativeLimits) -> Self {
        Self::sized(native, 80)
    }

    fn sized(native: NativeLimits, connections: u32) -> Self {
        Self::of(Limits { native, ..small(connections) })
    }

    fn of(limits: Limits) -> Self {
        let sessions = limits.connections as usize + 40;
        let slots = Slots {
            sessions: lent(sessions),
            cursors: lent(sessions * 2),
            prefixes: lent(sessions + 10),
            prefix_buckets: lent(16),
            topics: lent(4),
            links: lent((limits.blocks + limits.segments) as usize),
            bans_v4: lent(64),
            bans_v6: lent(8),
            bans_parents: lent(8),
            wheel: lent(256),
            events: vec![Event::None; 1 << 12].leak(),
            scratch: lent(limits.scratch_bytes() as usize),
            exempt: vec![Network { ip: IpAddr::from([127, 0, 0, 0]), bits: 8 }].leak(),
            tap: Tap::NONE,
        };
        let sessions = NativeSlots {
            conns: lent(sessions),
            entries: lent(sessions.max(160) / 2),
            entry_buckets: lent(1),
            half_open: lent(sessions / 2),
            name_buckets: lent(4),
            bans: lent(64),
            digests: lent(16),
            scratch: lent(NativeSlots::scratch_bytes(&limits) as usize),
            text: lent(limits.line.envelope_bytes_max as usize * 2),
            keys: Vec::from([NEW_KEY, OLD_KEY, OLDER_KEY].map(|key| SigningKey::from_seed(&key)))
                .leak(),
            access: &Everybody,
        };
        let now = Instant::from_nanos(1_000_000_000);
        let pool: Pool = lent(limits.pool_bytes() as usize);
        let mut relay = Relay::new(limits, slots, pool, [7; 32], now).expect("limits");
        relay.speak_native(sessions, [8; 32], 1_700_000_000_000).expect("native limits");
        let door = relay.listen_native().expect("a door");
        let (net, gather) = (Net::default(), Gather::new());
        let way = Way::Directly;
        Self { relay, door, net, gather, now, port: 1_000, epoch_ms: 9, pin: None, way }
    }

    fn turn(&mut self) {
        let _ = pump(&mut self.relay, &mut self.net, &mut self.gather, self.now);
        self.relay.check();
    }

    fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        self.relay.handle_input(self.now, conn, bytes);
        self.turn();
    }

    fn connect(&mut self, ip: [u8; 4]) -> ConnId {
        self.try_connect(ip).expect("it is let in")
    }

    /// What a connection was sent since.
    fn had(&mut self, conn: ConnId) -> Vec<u8> {
        self.net.down.remove(&conn).unwrap_or_default()
    }

    /// Says HELLO; the type of the answer, and the code of an ALERT.
    fn hello(&mut self, ip: [u8; 4]) -> (ConnId, u8, u16) {
        let (conn, had) = self.say_hello(ip);
        (conn, had[4], u16::from_le_bytes([had[8], had[9]]))
    }

    fn say_hello(&mut self, ip: [u8; 4]) -> (ConnId, Vec<u8>) {
        let conn = self.connect(ip);
        let key = SigningKey::from_seed(&[3; 32]);
        let (hello, _) = attempt(&key, self.port).hello();
        self.feed(conn, hello.as_bytes());
        let had = self.had(conn);
        assert!(had.starts_with(&MAGIC));
        (conn, had)
    }

    /// Begins a full handshake; the bits that it is to solve, or the code of an ALERT.
    fn begin(&mut self, ip: [u8; 4]) -> (ConnId, Result<u8, u16>) {
        let (conn, had) = self.say_hello(ip);
        let code = u16::from_le_bytes([had[8], had[9]]);
        (conn, if had[4] == CHALLENGE { Ok(had[12]) } else { Err(code) })
    }

    fn join(&mut self, key: &SigningKey, device: u32, ip: [u8; 4]) -> Client {
        self.try_join(key, device, ip).expect("it is let in")
    }

    /// Err: it is in quarantine, for so many milliseconds.
    fn try_join(&mut self, key: &SigningKey, device: u32, ip: [u8; 4]) -> Result<Client, u32> {
        self.ask_in(key, device, ip).map_err(|(code, retry_ms)| {
            assert_eq!(code, Code::Quarantined.wire());
            retry_ms
        })
    }

    /// Err: the code of the ALERT, and when it may come back.
    fn ask_in(&mut self, key: &SigningKey, device: u32, ip: [u8; 4]) -> Result<Client, (u16, u32)> {
        let conn = self.connect(ip);
        let (hello, wait) = Attempt { pin: self.pin, ..attempt(key, self.port) }.hello();
        self.feed(conn, hello.as_bytes());
        let answered = wait.answer(&self.had(conn), self.now).expect("an answer");
        let Answered::Challenged(challenged) = answered else { panic!("it was not challenged") };
        let Solve::Found(solution) = challenged.puzzle().solve(0, 1 << 22) else {
            panic!("a puzzle too hard")
        };
        let (auth, wait) = challenged.auth(solution, device, self.epoch_ms).expect("keys");
        self.feed(conn, auth.as_bytes());
        let had = self.had(conn);
        if had[4] == ALERT {
            let code = u16::from_le_bytes([had[8], had[9]]);
            return Err((code, u32::from_le_bytes([had[12], had[13], had[14], had[15]])));
        }
        let (accept, rest) = had.split_at(112);
        let connected = wait.accept(accept, self.now).expect("it is accepted");
        let mut client = Client {
            conn,
            records: connected.records(),
            handle: connected.handle(),
            resumption: connected.resumption(),
        };
        let told = self.read(&mut client, rest);
        assert!(matches!(told.as_slice(), [Told::Other]), "Taken comes first");
        Ok(client)
    }

    /// Says a value that is none, in a record that is right; it is told so, and gone.
    fn offend(&mut self, mut client: Client) {
        let value = [0xFF; 3];
        let header = client.records.sending.control(&value).expect("a record");
        self.feed(client.conn, &[&header[..], &value].concat());
        let told = self.told(&mut client);
        assert_eq!(told, [Told::Close(Code::BadValue.wire(), 0)]);
        self.relay.handle_closed(self.now, client.conn);
        self.turn();
    }

    /// The client's end breaks: its session waits for it.
    fn cut(&mut self, client: &Client) {
        self.relay.handle_broken(self.now, client.conn);
        self.turn();
    }

    /// Has its session back, over a new connection.
    fn come_back(&mut self, key: &SigningKey, client: &Client) {
        let conn = self.connect([127, 0, 0, 1]);
        let again = Attempt { resume: Some(&client.resumption), ..attempt(key, self.port) };
        let (hello, wait) = again.hello();
        self.feed(conn, hello.as_bytes());
        let answered = wait.answer(&self.had(conn), self.now).expect("an answer");
        let Answered::Resumed(resumed) = answered else { panic!("it was there") };
        let ping = resumed.records().ping([0; 8]).expect("a record");
        self.feed(conn, &ping);
        assert_ne!(self.had(conn), [0; 0], "it has it");
    }

    /// Whether there is a session still that may be resumed.
    fn resumes(&mut self, key: &SigningKey, client: &Client) -> bool {
        self.resumes_from(key, client, [127, 0, 0, 1])
    }

    fn resumes_from(&mut self, key: &SigningKey, client: &Client, ip: [u8; 4]) -> bool {
        let conn = self.connect(ip);
        let again = Attempt { resume: Some(&client.resumption), ..attempt(key, self.port) };
        let (hello, _) = again.hello();
        self.feed(conn, hello.as_bytes());
        let resumed = self.had(conn)[4] == RESUMED;
        self.relay.handle_closed(self.now, conn);
        self.turn();
        resumed
    }

    fn is_free(&self, ip: [u8; 4]) -> bool {
        self.relay.verdict(self.now, IpAddr::from(ip)) == Verdict::Free
    }

    fn read(&self, client: &mut Client, bytes: &[u8]) -> Vec<Told> {
        let (mut rest, mut told) = (bytes, Vec::new());
        while !rest.is_empty() {
            let next = client.records.next(self.now, rest).expect("a record");
            let Next::Record(record, len) = next else { panic!("half a record") };
            told.push(match record {
                Record::Pong => Told::Pong,
                Record::Control(value) => match ServerControl::decode(value).expect("a value") {
                    ServerControl::Nack { mid, code, .. } => Told::Nack(mid, code),
                    ServerControl::Opened { topic, .. } => Told::Opened(topic),
                    ServerControl::Joined { handle, .. } => Told::Joined(handle),
                    ServerControl::Left { handle, .. } => Told::Left(handle),
                    ServerControl::Refused { code, .. } => Told::Refused(code),
                    _ => Told::Other,
                },
                Record::Close(close) => Told::Close(close.code, close.retry_ms),
                _ => Told::Other,
            });
            rest = &rest[len..];
        }
        told
    }

    fn told(&mut self, client: &mut Client) -> Vec<Told> {
        let had = self.had(client.conn);
        self.read(client, &had)
    }

    /// Asks something; all that it is told.
    fn ask(&mut self, client: &mut Client, value: &ClientControl<'_>) -> Vec<Told> {
        let bytes = control(client, value);
        self.feed(client.conn, &bytes);
        self.told(client)
    }

    fn open(&mut self, client: &mut Client) -> u32 {
        self.open_named(client, "t").expect("it is opened")
    }

    /// Err: the code.
    fn open_named(&mut self, client: &mut Client, name: &str) -> Result<u32, u16> {
        let told = self.ask(client, &ClientControl::Open { ask: 1, name });
        match told.as_slice() {
            [Told::Opened(topic)] => Ok(*topic),
            [Told::Refused(code)] => Err(*code),
            _ => panic!("{told:?}"),
        }
    }

    fn say(&mut self, client: &mut Client, header: FrameHeader, count: u64) {
        let mut body = vec![0; 64 << 10];
        let mut writer = FrameWriter::new(&mut body);
        for nth in 0..count {
            assert!(writer.put(&FrameHeader { mid: header.mid + nth, ..header }, b"hello"));
        }
        let body = writer.written();
        let sending = &mut client.records.sending;
        let front = sending.frames(body.len() as u32, &digest(body)).expect("a record");
        let bytes = [&front[..], body].concat();
        self.feed(client.conn, &bytes);
    }
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Pong,
    Nack(u64, u16),
    Opened(u32),
    Refused(u16),
    Joined(u64),
    Left(u64),
    Close(u16, u32),
    Other,
}

fn attempt(key: &SigningKey, nth: u16) -> Attempt<'_> {
    let [low, high] = nth.to_le_bytes();
    let mut entropy = [5; 32];
    (entropy[0], entropy[1]) = (low, high);
    Attempt {
        key,
        pin: None,
        features: 0,
        recv_max: 65_584,
        resume: None,
        e_c: Ephemeral::from_entropy(entropy),
        n_c: core::array::from_fn(|at| entropy[at]),
    }
}

fn control(client: &mut Client, value: &ClientControl<'_>) -> Vec<u8> {
    let value = value.encode().expect("a value");
    let header = client.records.sending.control(value.as_bytes()).expect("a record");
    [&header[..], value.as_bytes()].concat()
}

fn subscribe(presence: bool) -> ClientControl<'static> {
    reading("t", presence)
}

fn reading(name: &str, presence: bool) -> ClientControl<'_> {
    ClientControl::Subscribe { ask: 1, name, from: Start::Now, echo: false, presence }
}

fn publish(topic: u32, mid: u64) -> FrameHeader {
    FrameHeader { topic, mid, ..FrameHeader::new(FrameKind::Publish) }
}

fn direct(peer: u64, mid: u64) -> FrameHeader {
    FrameHeader { kind: FrameKind::Direct, topic: 0, peer, ..publish(0, mid) }
}

const CHALLENGE: u8 = 2;
const RESUMED: u8 = 5;
const ALERT: u8 = 0x7F;

#[test]
fn an_address_has_so_many_handshakes_under_way() {
    let mut world = World::new(NativeLimits { half_open_per_prefix: 2, ..NativeLimits::DEFAULT });
    let (first, kind, _) = world.hello([10, 0, 0, 1]);
    assert_eq!((kind, world.hello([10, 0, 0, 1]).1), (CHALLENGE, CHALLENGE));
    let (_, kind, code) = world.hello([10, 0, 0, 1]);
    assert_eq!((kind, code), (ALERT, Code::TooManyConnections.wire()));
    assert_eq!(world.hello([10, 0, 0, 2]).1, CHALLENGE);
    for _ in 0..5 {
        assert_eq!(world.hello([127, 0, 0, 1]).1, CHALLENGE, "an exempt address");
    }
    assert_eq!(world.relay.stats().half_open_refused.value(), 1);
    world.relay.handle_closed(world.now, first);
    world.turn();
    assert_eq!(world.hello([10, 0, 0, 1]).1, CHALLENGE);
    // Who has come to the end of it does not count any more.
    let key = SigningKey::from_seed(&ENROLLED);
    for device in 0..4 {
        world.join(&key, device, [10, 0, 0, 3]);
    }
    assert_eq!(world.relay.stats().half_open_refused.value(), 1);
}

#[test]
fn an_identity_is_one_whatever_devices_it_has() {
    let mut world = World::new(NativeLimits {
        messages_per_second: 0,
        bytes_per_second: 0,
        identity_messages_per_second: 100,
        ..NativeLimits::DEFAULT
    });
    let (key, other) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    let mut devices: Vec<Client> =
        (0..3).map(|device| world.join(&key, device, [10, 0, 0, 1])).collect();
    let mut somebody = world.join(&other, 0, [10, 0, 0, 1]);
    let published = |world: &World| world.relay.stats().published.value();
    for device in &mut devices[..2] {
        let topic = world.open(device);
        world.say(device, publish(topic, 1), 150);
    }
    assert_eq!(published(&world), 198, "two seconds' worth, of both together, each Open counted");
    assert!(world.relay.stats().identity_held.value() > 0);
    let topic = world.open(&mut somebody);
    world.say(&mut somebody, publish(topic, 1), 150);
    assert_eq!(published(&world), 348, "somebody else is not slowed");
    // The one that had the buckets goes: what was spent stays spent.
    for device in devices.drain(..2).rev() {
        let mut device = device;
        let close = device.records.close(Code::Normal, 0, 0, 0).expect("a record");
        world.feed(device.conn, &close);
        world.relay.handle_closed(world.now, device.conn);
        world.turn();
    }
    let last = &mut devices[0];
    let topic = world.open(last);
    world.say(last, publish(topic, 1), 150);
    assert_eq!(published(&world), 348);
    for _ in 0..60 {
        world.now = world.now.after(Duration::from_millis(10));
        world.turn();
    }
    let more = published(&world) - 348;
    assert!((58..=61).contains(&more), "{more} in 600 ms at 100 a second");
}

#[test]
fn what_was_queued_for_who_dies_comes_back_after_its_pong_too() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let (key, other) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    let mut sender = world.join(&key, 0, [10, 0, 0, 1]);
    let peer = world.join(&other, 0, [10, 0, 0, 2]);
    world.net.full.insert(peer.conn);
    world.say(&mut sender, direct(peer.handle, 11), 3);
    let ping = sender.records.ping([1; 8]).expect("a record");
    world.feed(sender.conn, &ping);
    assert_eq!(world.told(&mut sender), [Told::Pong]);
    world.say(&mut sender, direct(peer.handle, 12), 1);
    assert_eq!(world.told(&mut sender), [Told::Nack(12, Code::Duplicate.wire())]);
    world.relay.handle_broken(world.now, peer.conn);
    world.turn();
    let busy = |mid| Told::Nack(mid, Code::Busy.wire());
    assert_eq!(world.told(&mut sender), [busy(11), busy(12), busy(13)]);
    assert_eq!(world.relay.stats().directs_returned.value(), 3);
    // Nothing is marked any more.
    let mut peer = world.join(&other, 0, [10, 0, 0, 2]);
    world.say(&mut sender, direct(peer.handle, 12), 1);
    assert_eq!(world.told(&mut sender), []);
    assert_eq!(world.told(&mut peer), [Told::Other]);
}

#[test]
fn topics_that_nobody_has_open_give_way_to_new_ones() {
    let mut world = World::new(NativeLimits { subscriptions: 3, ..NativeLimits::DEFAULT });
    let (key, other) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    let mut one = world.join(&key, 0, [10, 0, 0, 1]);
    let mut two = world.join(&other, 0, [10, 0, 0, 2]);
    let full = Err(Code::Overloaded.wire());
    // Four, with the lobby. What was said there is kept for a minute, if there is room for it.
    for (mid, name) in [(1, "a"), (2, "b"), (3, "c")] {
        let topic = world.open_named(&mut one, name).expect("it is opened");
        world.say(&mut one, publish(topic, mid), 1);
        assert_eq!(world.ask(&mut one, &ClientControl::Unsubscribe { topic }), []);
    }
    for name in ["d", "e", "f"] {
        assert!(world.open_named(&mut two, name).is_ok(), "{name}");
    }
    // What somebody has open stays, and who may open no more makes no room.
    assert_eq!(world.open_named(&mut one, "g"), full);
    let topic = world.open_named(&mut two, "f").expect("it is open");
    assert_eq!(world.open_named(&mut two, "g"), full);
    assert_eq!(world.ask(&mut two, &ClientControl::Unsubscribe { topic }), []);
    assert!(world.open_named(&mut one, "g").is_ok());
    assert_eq!(world.open_named(&mut two, "h"), full);
}

#[test]
fn who_comes_and_goes_pays_for_those_who_are_told() {
    let limits = NativeLimits { deliveries_per_second: 10, ..NativeLimits::DEFAULT };
    let mut world = World::new(limits);
    let (key, other) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    let mut watchers: Vec<Client> =
        (0..3).map(|device| world.join(&key, device, [10, 0, 0, 1])).collect();
    for watcher in &mut watchers {
        assert_eq!(world.ask(watcher, &subscribe(true)), [Told::Other]);
    }
    let mut guest = world.join(&other, 0, [10, 0, 0, 2]);
    let topic = world.open(&mut guest);
    let mut both = Vec::new();
    for _ in 0..8 {
        both.extend(control(&mut guest, &subscribe(false)));
        both.extend(control(&mut guest, &ClientControl::Unsubscribe { topic }));
    }
    world.told(&mut watchers[0]);
    world.feed(guest.conn, &both);
    // Ten in a second: the fourth is one too many, and it is read no further.
    let (came, left) = (Told::Joined(guest.handle), Told::Left(guest.handle));
    assert_eq!(world.told(&mut watchers[0]), [came, left, came, left]);
    for _ in 0..100 {
        world.now = world.now.after(Duration::from_millis(10));
        world.turn();
    }
    assert_eq!(world.told(&mut watchers[0]), [came, left].repeat(6));
}

#[test]
fn a_subscription_that_is_refused_takes_no_place() {
    let mut world = World::new(NativeLimits { subscriptions: 1, ..NativeLimits::DEFAULT });
    for nth in 0..64 {
        let key = SigningKey::from_seed(&[20 + nth; 32]);
        let mut watcher = world.join(&key, 0, [127, 0, 0, 1]);
        assert_eq!(world.ask(&mut watcher, &reading("t", true)), [Told::Other]);
    }
    let mut late = world.join(&SigningKey::from_seed(&STRANGER), 0, [127, 0, 0, 1]);
    let full = [Told::Refused(Code::Overloaded.wire())];
    assert_eq!(world.ask(&mut late, &reading("t", true)), full, "64 watch it");
    // Its one place is free.
    assert_eq!(world.ask(&mut late, &reading("u", false)), [Told::Other]);
    assert_eq!(world.ask(&mut late, &reading("t", false)), full);
    assert_eq!(world.ask(&mut late, &reading("u", false)), [Told::Refused(Code::BadState.wire())]);
}
