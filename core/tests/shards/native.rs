//! Shards of a relay that speaks the native dialect, too: the first is home to all topics.

use std::net::{IpAddr, SocketAddr};

use wardline_core::native::handshake::Solve;
use wardline_core::native::handshake::client::{Answered, Attempt, Connected, Resumption};
use wardline_core::native::{
    ClientControl, Ephemeral, FrameHeader, FrameKind, FrameWriter, Identity, Next, Record, Records,
    ServerControl, SigningKey, Start, digest, flags,
};
use wardline_core::{
    Access, Ban, ConnId, Digest, Entry, EntryBucket, HalfOpen, Homes, Limits, NameBucket, Native,
    NativeSlots, RESERVE, Right, Ring, TopicId,
};

mod handover;

use super::lines::{is_refused, strike};
use super::process::{
    HANDED, NOW, Sent, Shard, accept, carry_into, lend, limits, settle_into, shard as one_of,
};

/// Everybody may do everything.
struct All;

impl Access for All {
    fn may(&self, _: &Identity, _: IpAddr, _: Right, _: &[u8]) -> bool {
        true
    }

    fn version(&self) -> u32 {
        1
    }
}

fn slots(limits: &Limits) -> NativeSlots<'static> {
    NativeSlots {
        conns: lend::<Native>((limits.connections + RESERVE) as usize),
        entries: lend::<Entry>(16),
        entry_buckets: lend::<EntryBucket>(4),
        half_open: lend::<HalfOpen>(16),
        name_buckets: lend::<NameBucket>(4),
        bans: lend::<Ban>(8),
        digests: lend::<Digest>(16),
        scratch: lend::<u8>(NativeSlots::scratch_bytes(limits) as usize),
        text: lend::<u8>(limits.line.envelope_bytes_max as usize * 3 / 2),
        keys: vec![SigningKey::from_seed(&[200; 32])].leak(),
        access: &All,
    }
}

/// A relay of both dialects on two shards, and all that was sent.
pub(super) struct Both {
    pub(super) home: Shard,
    pub(super) far: Shard,
    pub(super) topic: TopicId,
    pub(super) native: TopicId,
    pub(super) sent: [Sent; 2],
}

impl Both {
    pub(super) fn new(limits: Limits) -> Self {
        let [mut home, mut far] = [0, 1].map(|nth| one_of(nth, 2, limits, Homes::First));
        for (relay, seed) in [(&mut home, 9), (&mut far, 10)] {
            relay.speak_native(slots(&limits), [seed; 32], 1_700_000_000_000).expect("it may");
            relay.spread_sessions();
        }
        let [topic, same] = [&mut home, &mut far].map(|relay| relay.listen("main").expect("one"));
        assert_eq!(topic, same, "topics have the same numbers everywhere");
        let native = home.listen_native().expect("a native door");
        assert_eq!(far.listen_native(), Ok(native));
        Self { home, far, topic, native, sent: Default::default() }
    }

    pub(super) fn relay(&mut self, shard: usize) -> &mut Shard {
        if shard == 0 { &mut self.home } else { &mut self.far }
    }

    pub(super) fn line(&mut self, shard: usize) -> ConnId {
        let topic = self.topic;
        let conn = accept(self.relay(shard), topic, HERE);
        self.settle();
        conn
    }

    pub(super) fn say(&mut self, shard: usize, conn: ConnId, line: &[u8]) {
        self.relay(shard).handle_input(NOW, conn, &[line, b"\n"].concat());
    }

    /// A connection that was handed over comes to its shard.
    fn arrive(&mut self) -> Option<(usize, ConnId)> {
        let mut handover = HANDED.with_borrow_mut(Vec::pop)?;
        let shard = usize::from(handover.to);
        let conn = self.relay(shard).handle_handover(NOW, &mut handover).expect("it is taken");
        self.settle();
        Some((shard, conn))
    }

    /// Does what there is to be done, rings and all.
    pub(super) fn settle(&mut self) {
        loop {
            settle_into(&mut self.home, &[], &mut self.sent[0]);
            settle_into(&mut self.far, &[], &mut self.sent[1]);
            let has =
                |relay: &Shard, to| [Ring::Log, Ring::Publish].map(|it| relay.link_has(to, it));
            if !has(&self.home, 1).into_iter().chain(has(&self.far, 0)).any(|has| has) {
                break;
            }
            for ring in [Ring::Log, Ring::Publish] {
                carry_into(&mut self.home, &mut self.far, ring, &mut self.sent[1]);
                carry_into(&mut self.far, &mut self.home, ring, &mut self.sent[0]);
            }
        }
        self.home.check();
        self.far.check();
    }

    /// The lines that a connection was sent, as JSON shows them.
    pub(super) fn read_lines(&mut self, shard: usize, conn: ConnId) -> Vec<Vec<u8>> {
        let bytes = self.sent[shard].remove(&conn).unwrap_or_default();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let content = |line: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(line).expect("an envelope");
            value["content"].as_str().expect("content").as_bytes().to_vec()
        };
        lines.map(content).collect()
    }
}

pub(super) const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));

/// A native client.
pub(super) struct Client {
    pub(super) shard: usize,
    pub(super) conn: ConnId,
    pub(super) handle: u64,
    pub(super) resumption: Resumption,
    pub(super) records: Records,
    pub(super) topic: u32,
    pub(super) mid: u64,
    pub(super) frames: Vec<(FrameHeader, Vec<u8>)>,
    pub(super) values: Vec<String>,
}

impl Client {
    /// One at the home.
    pub(super) fn new(both: &mut Both, seed: u8) -> Self {
        Self::at(both, 0, seed)
    }

    /// One that is at home on a shard.
    pub(super) fn at(both: &mut Both, shard: usize, seed: u8) -> Self {
        Self::by(both, (shard, shard), seed, None)
    }

    /// One that is at home on the second of two shards, and comes to the first; with a session that
    /// it wants to go on with, or without.
    pub(super) fn by(
        both: &mut Both,
        (shard, home): (usize, usize),
        seed: u8,
        resume: Option<&Resumption>,
    ) -> Self {
        let native = both.native;
        let conn = accept(both.relay(shard), native, HERE);
        let key = key_at(home, seed);
        let attempt = Attempt {
            key: &key,
            pin: None,
            features: 0,
            recv_max: 65_584,
            resume,
            e_c: Ephemeral::from_entropy([seed; 32]),
            n_c: [seed; 16],
        };
        let (hello, wait) = attempt.hello();
        both.relay(shard).handle_input(NOW, conn, hello.as_bytes());
        both.settle();
        let (shard, conn) = both.arrive().unwrap_or((shard, conn));
        let challenge = both.sent[shard].remove(&conn).expect("an answer");
        let challenged = match wait.answer(&challenge, NOW).expect("a good server") {
            Answered::Challenged(challenged) => challenged,
            Answered::Resumed(connected) => {
                let mut client = Self::of((shard, conn), &connected);
                client.ping(both);
                both.settle();
                return client;
            }
        };
        let Solve::Found(solution) = challenged.puzzle().solve(0, 1 << 20) else {
            panic!("too hard")
        };
        let (auth, wait) = challenged.auth(solution, 1, 1).expect("a good server");
        both.relay(shard).handle_input(NOW, conn, auth.as_bytes());
        both.settle();
        let (shard, conn) = both.arrive().unwrap_or((shard, conn));
        assert_eq!(shard, home, "it is where its identity is at home");
        let mut bytes = both.sent[shard].remove(&conn).expect("an answer");
        let rest = bytes.split_off(112);
        let connected = wait.accept(&bytes, NOW).expect("accepted");
        both.sent[shard].insert(conn, rest);
        Self::of((shard, conn), &connected)
    }

    fn of((shard, conn): (usize, ConnId), connected: &Connected) -> Self {
        let (records, topic, mid) = (connected.records(), 0, 1);
        let (handle, resumption) = (connected.handle(), connected.resumption());
        Self {
            shard,
            conn,
            handle,
            resumption,
            records,
            topic,
            mid,
            frames: Vec::new(),
            values: Vec::new(),
        }
    }

    pub(super) fn ask(&mut self, both: &mut Both, value: &ClientControl<'_>) {
        let value = value.encode().expect("a value");
        let header = self.records.sending.control(value.as_bytes()).expect("open");
        both.relay(self.shard).handle_input(
            NOW,
            self.conn,
            &[&header[..], value.as_bytes()].concat(),
        );
        both.settle();
        self.hear(both);
    }

    /// Reads the topic that listeners of lines are bound to.
    pub(super) fn subscribe(&mut self, both: &mut Both, echo: bool, from: Start) {
        self.read(both, "main", echo, from);
    }

    pub(super) fn read(&mut self, both: &mut Both, name: &str, echo: bool, from: Start) {
        self.topic = 0;
        let value = ClientControl::Subscribe { ask: 1, name, from, echo, presence: false };
        self.ask(both, &value);
        assert_ne!(self.topic, 0, "subscribed");
    }

    pub(super) fn say(&mut self, both: &mut Both, payload: &[u8], flags: u16) {
        let topic = self.topic;
        let header = FrameHeader { flags, topic, ..FrameHeader::new(FrameKind::Publish) };
        self.transmit(both, header, payload);
    }

    pub(super) fn say_to(&mut self, both: &mut Both, kind: FrameKind, peer: u64, payload: &[u8]) {
        self.transmit(both, FrameHeader { peer, ..FrameHeader::new(kind) }, payload);
    }

    pub(super) fn ping(&mut self, both: &mut Both) {
        let ping = self.records.ping([7; 8]).expect("open");
        both.relay(self.shard).handle_input(NOW, self.conn, &ping);
    }

    fn transmit(&mut self, both: &mut Both, header: FrameHeader, payload: &[u8]) {
        let header = FrameHeader { mid: self.mid, ..header };
        self.mid += 1;
        let mut body = vec![0; payload.len() + 48];
        let mut writer = FrameWriter::new(&mut body);
        assert!(writer.put(&header, payload));
        let len = u32::try_from(body.len()).expect("short");
        let record = self.records.sending.frames(len, &digest(&body)).expect("open");
        both.relay(self.shard).handle_input(NOW, self.conn, &[&record[..], &body].concat());
    }

    pub(super) fn hear(&mut self, both: &mut Both) {
        let bytes = both.sent[self.shard].remove(&self.conn).unwrap_or_default();
        let mut rest = &bytes[..];
        while let Next::Record(record, len) = self.records.next(NOW, rest).expect("a record") {
            match record {
                Record::Control(value) => {
                    let value = ServerControl::decode(value).expect("a value");
                    if let ServerControl::Subscribed { topic, .. } = value {
                        self.topic = topic;
                    }
                    self.values.push(format!("{value:?}"));
                }
                Record::Frames(frames) => {
                    let frames = frames.into_iter();
                    self.frames.extend(frames.map(|it| (it.header, it.payload.to_vec())));
                }
                Record::Pong => self.values.push("pong".to_owned()),
                other => panic!("{other:?}"),
            }
            rest = &rest[len..];
        }
        assert!(rest.is_empty(), "half a record");
    }

    /// What it heard, with numbers that follow one another.
    pub(super) fn heard(&mut self) -> Vec<Vec<u8>> {
        let frames = std::mem::take(&mut self.frames);
        assert!(frames.is_sorted_by(|(a, _), (b, _)| a.topic != b.topic || a.offset < b.offset));
        frames.into_iter().map(|(_, payload)| payload).collect()
    }
}

#[test]
fn readers_of_both_dialects_on_both_shards_see_one_order() {
    let mut both = Both::new(limits());
    let (mut witness, mut speaker) = (Client::new(&mut both, 1), Client::new(&mut both, 2));
    witness.subscribe(&mut both, true, Start::Now);
    speaker.subscribe(&mut both, false, Start::Now);
    let mut far_speaker = Client::at(&mut both, 1, 3);
    let mut far_reader = Client::at(&mut both, 1, 4);
    far_speaker.subscribe(&mut both, false, Start::Now);
    far_reader.subscribe(&mut both, false, Start::Now);
    assert_eq!(speaker.topic, far_reader.topic, "a topic's number is the same everywhere");
    let (near, far) = (both.line(0), both.line(1));
    let (near_witness, far_witness) = (both.line(0), both.line(1));
    let odd = "\u{1}\u{8}\t\u{b}\u{c}\r \"\\u0041\\\" é😀 \u{7f}";
    let said = |who: &str, n: usize| format!("{who} {n} {odd}\",\"remote_addr\":\"x").into_bytes();
    let mut all = Vec::new();
    for n in 0..60 {
        // Some at a time, so that they come between each other.
        let words = ["native", "near", "far", "far again", "away"].map(|who| said(who, n));
        speaker.say(&mut both, &words[0], 0);
        far_speaker.say(&mut both, &words[4], 0);
        both.say(0, near, &words[1]);
        both.say(1, far, &words[2]);
        both.say(1, far, &words[3]);
        if n % 3 == 0 {
            both.settle();
        }
        all.extend(words);
    }
    both.settle();
    witness.hear(&mut both);
    let order = witness.heard();
    let mut sorted = order.clone();
    sorted.sort();
    all.sort();
    assert_eq!(sorted, all, "each once");
    let but = |who: &str| -> Vec<Vec<u8>> {
        order.iter().filter(|said| !said.starts_with(who.as_bytes())).cloned().collect()
    };
    for (shard, conn, own) in
        [(0, near, "near"), (1, far, "far"), (0, near_witness, "-"), (1, far_witness, "-")]
    {
        assert_eq!(both.read_lines(shard, conn), but(own), "{own} on {shard}");
    }
    speaker.hear(&mut both);
    assert_eq!(speaker.heard(), but("native"));
    for (client, own) in [(&mut far_speaker, "away"), (&mut far_reader, "-")] {
        client.hear(&mut both);
        assert_eq!(client.heard(), but(own), "{own} on 1");
    }
}

#[test]
fn a_topic_made_by_a_native_client_is_the_same_on_all_shards() {
    let mut limits = limits();
    limits.topics = 6;
    let mut both = Both::new(limits);
    let (mut near, mut far) = (Client::new(&mut both, 1), Client::at(&mut both, 1, 2));
    // Home has topics that the other has not.
    for name in ["a", "b", "c"] {
        near.read(&mut both, name, true, Start::Now);
        near.say(&mut both, name.as_bytes(), 0);
    }
    far.read(&mut both, "c", true, Start::Last(1));
    assert_eq!((near.topic, far.heard()), (far.topic, vec![b"c".to_vec()]));
    far.say(&mut both, b"d", 0);
    both.settle();
    near.hear(&mut both);
    far.hear(&mut both);
    assert_eq!(near.heard(), [&b"a"[..], b"b", b"c", b"d"]);
    assert_eq!(far.heard(), [b"d"]);
    // The first one to ask for it is not at home.
    far.read(&mut both, "e", true, Start::Now);
    far.say(&mut both, b"e", 0);
    both.settle();
    near.read(&mut both, "e", true, Start::Last(9));
    assert_eq!((near.topic, near.heard()), (far.topic, vec![b"e".to_vec()]));
    // There is no place for more.
    far.topic = 0;
    far.values.clear();
    let value = ClientControl::Open { ask: 7, name: "f" };
    far.ask(&mut both, &value);
    assert!(far.values[0].starts_with("Refused { ask: 7"), "{:?}", far.values);
}

#[test]
fn a_subscription_begins_anywhere_on_any_shard() {
    let mut both = Both::new(limits());
    let mut near = Client::new(&mut both, 1);
    near.subscribe(&mut both, true, Start::Now);
    for n in 0..200 {
        near.say(&mut both, format!("{n}").as_bytes(), 0);
    }
    both.settle();
    let mut far = Client::at(&mut both, 1, 2);
    far.subscribe(&mut both, true, Start::Last(3));
    assert_eq!(far.heard(), [&b"197"[..], b"198", b"199"]);
    let told: Vec<&String> =
        far.values.iter().filter(|value| value.starts_with("Subscribed")).collect();
    assert!(told[0].contains("next: 200, oldest: 0"), "{told:?}");
    let epoch = told[0].split("epoch: ").nth(1).and_then(|rest| rest.split(',').next());
    let epoch = epoch.and_then(|epoch| epoch.parse().ok()).expect("an epoch");
    let mut later = Client::at(&mut both, 1, 3);
    later.subscribe(&mut both, true, Start::Offset { epoch, offset: 198 });
    assert_eq!(later.heard(), [b"198", b"199"]);
    let mut now = Client::at(&mut both, 1, 4);
    now.subscribe(&mut both, true, Start::Now);
    assert!(now.heard().is_empty());
}

#[test]
fn a_pong_of_another_shard_follows_all_that_came_before() {
    let mut both = Both::new(limits());
    let mut far = Client::at(&mut both, 1, 2);
    far.hear(&mut both);
    // A question that waits, and more behind it.
    let value = ClientControl::Open { ask: 1, name: "main" };
    let value = value.encode().expect("a value");
    let header = far.records.sending.control(value.as_bytes()).expect("open");
    let ping = far.records.ping([7; 8]).expect("open");
    let (conn, bytes) = (far.conn, [&header[..], value.as_bytes(), &ping].concat());
    both.far.handle_input(NOW, conn, &bytes);
    settle_into(&mut both.far, &[], &mut both.sent[1]);
    assert_eq!(both.sent[1].remove(&conn), None, "nothing is answered yet");
    both.settle();
    far.values.clear();
    far.hear(&mut both);
    assert_eq!(far.values.len(), 2, "{:?}", far.values);
    assert!(far.values[0].starts_with("Opened") && far.values[1] == "pong");
}

#[test]
fn a_line_of_another_shard_names_its_sender_and_its_dialect() {
    let mut both = Both::new(limits());
    let mut reader = Client::new(&mut both, 1);
    reader.subscribe(&mut both, true, Start::Now);
    let mut peers = Vec::new();
    for n in 0..3 {
        // The same slot, somebody else each time; all of it in one turn of the ring.
        let conn = accept(&mut both.far, both.topic, HERE);
        let index = conn.index() as u64 + 1;
        both.say(1, conn, format!("{n}").as_bytes());
        both.far.handle_closed(NOW, conn);
        settle_into(&mut both.far, &[], &mut both.sent[1]);
        peers.push((1_u64 << 56, (1 << 23) | index));
    }
    both.settle();
    reader.hear(&mut both);
    let frames = std::mem::take(&mut reader.frames);
    let found: Vec<(u64, u64)> =
        frames.iter().map(|(it, _)| (it.peer & (0xFF << 56), it.peer & 0x00FF_FFFF)).collect();
    assert_eq!(found, peers);
    assert!(frames.iter().all(|(it, _)| it.flags == flags::LINE && it.topic == reader.topic));
    let mut handles: Vec<u64> = frames.iter().map(|(it, _)| it.peer).collect();
    handles.dedup();
    assert_eq!(handles.len(), 3, "three connections");
    reader.values.clear();
    reader.ask(&mut both, &ClientControl::Identify { ask: 5, handle: handles[0] });
    let nobody =
        ServerControl::Identity { ask: 5, handle: handles[0], identity: [0; 32], device: 0 };
    assert_eq!(reader.values, [format!("{nobody:?}")]);
    // A shard that there is none of.
    reader.ask(&mut both, &ClientControl::Identify { ask: 6, handle: handles[0] + (1 << 56) });
    assert!(reader.values[1].starts_with("Refused"), "{:?}", reader.values);
}

#[test]
fn lines_of_another_shard_are_kept_for_who_comes_later() {
    let mut both = Both::new(limits());
    let mut opener = Client::new(&mut both, 1);
    opener.subscribe(&mut both, true, Start::Now);
    let far = both.line(1);
    for n in 0..5 {
        both.say(1, far, format!("line {n}").as_bytes());
    }
    both.settle();
    let mut late = Client::new(&mut both, 2);
    late.subscribe(&mut both, false, Start::Last(3));
    assert_eq!(late.heard(), [&b"line 2"[..], b"line 3", b"line 4"]);
}

#[test]
fn who_publishes_natively_waits_while_other_shards_lag_and_is_gone_on_with() {
    let mut limits = limits();
    limits.native.bytes_per_second = 0;
    limits.native.messages_per_second = 0;
    limits.native.deliveries_per_second = 0;
    limits.native.retention_bytes = 0;
    let mut both = Both::new(limits);
    let mut speaker = Client::new(&mut both, 1);
    speaker.subscribe(&mut both, false, Start::Now);
    let far = both.line(1);
    let payload = [b'x'; 8_000];
    let mut said = 0_u64;
    // Nobody takes what the log ring would bring.
    while both.home.read_budget(speaker.conn) >= payload.len() {
        speaker.say(&mut both, &payload, 0);
        said += 1;
        settle_into(&mut both.home, &[], &mut both.sent[0]);
        both.home.check();
        assert!(said < 100_000, "it never waits");
    }
    let most = limits.pool_bytes() / 8 + u64::from(limits.topic_turn_bytes) + 16_384;
    assert!((said - 2) * 8_000 <= most, "{said} lines wait, {most} bytes are enough");
    assert_eq!(both.sent[1].len(), 0);
    // What is taken lets the speaker go on.
    both.settle();
    assert!(both.home.read_budget(speaker.conn) >= payload.len());
    assert_eq!(both.read_lines(1, far).len() as u64, said);
}

#[test]
fn bans_go_both_ways() {
    let mut both = Both::new(limits());
    let (native, line) = ([127, 0, 0, 5].into(), [127, 0, 0, 6].into());
    for _ in 0..40 {
        let remote = wardline_core::Remote { addr: SocketAddr::new(native, 7), topic: both.native };
        let Ok(conn) = both.home.handle_accept(NOW, remote) else { break };
        both.home.handle_input(NOW, conn, b"GET / HTTP/1.1\r\n\r\n");
        settle_into(&mut both.home, &[], &mut both.sent[0]);
        both.home.handle_closed(NOW, conn);
    }
    let topic = both.topic;
    strike(&mut both.far, topic, line, 2);
    assert!(is_refused(&both.home, native) && !is_refused(&both.far, native));
    assert!(is_refused(&both.far, line) && !is_refused(&both.home, line));
    both.settle();
    assert!(is_refused(&both.far, native), "an offence at a native door");
    assert!(is_refused(&both.home, line), "native doors are shut, too");
}

#[test]
fn topics_of_native_clients_alone_are_nothing_to_other_shards() {
    let mut limits = limits();
    limits.topics = 4;
    let mut both = Both::new(limits);
    let mut client = Client::new(&mut both, 1);
    let far = both.line(1);
    for name in ["a", "b"] {
        let from = Start::Now;
        let value = ClientControl::Subscribe { ask: 1, name, from, echo: true, presence: false };
        client.ask(&mut both, &value);
        client.say(&mut both, name.as_bytes(), 0);
        both.settle();
    }
    client.hear(&mut both);
    assert_eq!(client.heard(), [b"a", b"b"]);
    assert!(both.read_lines(1, far).is_empty());
    assert_eq!(both.far.stats().from_shards.value(), 0);
}

#[test]
fn peers_on_two_shards_reach_each_other() {
    let mut both = Both::new(limits());
    let (mut near, mut far) = (Client::new(&mut both, 1), Client::at(&mut both, 1, 2));
    far.hear(&mut both);
    far.values.clear();
    far.say_to(&mut both, FrameKind::Request, near.handle, b"are you there?");
    far.ping(&mut both);
    settle_into(&mut both.far, &[], &mut both.sent[1]);
    assert_eq!(both.sent[1].remove(&far.conn), None, "nobody knows yet what becomes of it");
    both.settle();
    near.hear(&mut both);
    let (asked, payload) = near.frames.pop().expect("a question");
    assert_eq!((asked.peer, asked.mid, &payload[..]), (far.handle, 1, &b"are you there?"[..]));
    far.hear(&mut both);
    assert_eq!(far.values, ["pong"]);
    let header =
        FrameHeader { peer: asked.peer, corr: asked.mid, ..FrameHeader::new(FrameKind::Reply) };
    near.transmit(&mut both, header, b"yes");
    both.settle();
    far.hear(&mut both);
    assert_eq!(far.frames[0].0.corr, 1);
    // Nobody has that handle: its NACK comes before the PONG.
    far.values.clear();
    far.say_to(&mut both, FrameKind::Direct, near.handle + (1 << 24), b"who?");
    far.ping(&mut both);
    both.settle();
    far.hear(&mut both);
    assert_eq!(far.values.len(), 2, "{:?}", far.values);
    assert!(far.values[0].starts_with("Nack { mid: 2") && far.values[1] == "pong");
}

#[test]
fn what_was_queued_for_a_peer_of_another_shard_comes_back_when_it_ends() {
    let mut both = Both::new(limits());
    let (near, mut far) = (Client::new(&mut both, 1), Client::at(&mut both, 1, 2));
    far.hear(&mut both);
    far.values.clear();
    far.say_to(&mut both, FrameKind::Direct, near.handle, b"too late");
    settle_into(&mut both.far, &[], &mut both.sent[1]);
    // It comes, and the socket takes nothing any more.
    let mut room = vec![0; both.far.limits().record_bytes_max()];
    let len = both.far.link_take(NOW, 0, Ring::Publish, &mut room);
    assert_eq!(both.home.handle_link(NOW, 1, Ring::Publish, &room[..len]).bytes, len);
    both.home.handle_closed(NOW, near.conn);
    both.settle();
    far.hear(&mut both);
    assert!(far.values[0].starts_with("Nack { mid: 1"), "{:?}", far.values);
    assert_eq!(both.home.stats().notes_lost.value(), 0);
}

/// A key whose identity is at home on a shard.
pub(super) fn key_at(home: usize, seed: u8) -> SigningKey {
    let mut keys = (0..=255).map(|nth| {
        let mut secret = [seed; 32];
        secret[31] = nth;
        SigningKey::from_seed(&secret)
    });
    let at_home = |key: &SigningKey| {
        usize::from(wardline_core::home_of(key.identity().as_bytes(), 2)) == home
    };
    keys.find(at_home).expect("one of them")
}

#[test]
fn a_client_is_handed_to_the_home_of_its_identity() {
    for (came, home) in [(0, 1), (1, 0)] {
        let mut both = Both::new(limits());
        let mut client = Client::by(&mut both, (came, home), 1, None);
        assert_eq!((client.shard, client.handle >> 56), (home, home as u64));
        client.subscribe(&mut both, true, Start::Now);
        client.say(&mut both, b"I am here", 0);
        both.settle();
        client.hear(&mut both);
        assert_eq!(client.heard(), [b"I am here"]);
        assert_eq!(both.relay(came).connections(), 0, "nothing is left of it");
        assert_eq!(both.relay(came).stats().handed_over.value(), 1);
        // It comes back to the other one again, while its old connection is there still.
        let resumption = client.resumption;
        let mut again = Client::by(&mut both, (came, home), 1, Some(&resumption));
        assert_eq!((again.shard, again.handle), (home, client.handle));
        again.hear(&mut both);
        assert!(again.values[0].starts_with("Taken { mid: 1,"), "{:?}", again.values);
        assert_eq!(both.relay(home).stats().resumes.value(), 1);
        assert_eq!(both.relay(home).stats().superseded.value(), 1);
        // And from nothing, as another program of its would: its session is taken over.
        let third = Client::by(&mut both, (came, home), 1, None);
        assert_ne!(third.handle, client.handle);
        assert_eq!(both.relay(home).stats().superseded.value(), 2);
        assert_eq!(both.relay(came).connections(), 0);
    }
}

#[test]
fn who_reads_and_whose_a_handle_is_can_be_asked_on_any_shard() {
    let mut both = Both::new(limits());
    let mut near = Client::new(&mut both, 1);
    let mut far = Client::at(&mut both, 1, 2);
    near.subscribe(&mut both, true, Start::Now);
    far.subscribe(&mut both, true, Start::Now);
    let handles = [near.handle, far.handle];
    for client in [&mut near, &mut far] {
        for (handle, (home, seed)) in handles.iter().zip([(0, 1), (1, 2)]) {
            let identity = *key_at(home, seed).identity().as_bytes();
            let told = |ask| {
                format!(
                    "{:?}",
                    ServerControl::Identity { ask, handle: *handle, identity, device: 1 }
                )
            };
            client.values.clear();
            client.ask(&mut both, &ClientControl::Identify { ask: 1, handle: *handle });
            client.ask(&mut both, &ClientControl::Resolve { ask: 2, identity });
            let done = "Done { ask: 2, next: 0 }".to_owned();
            assert_eq!(client.values, [told(1), told(2), done], "{handle:x}");
        }
        client.values.clear();
        let topic = client.topic;
        client.ask(&mut both, &ClientControl::Who { ask: 3, topic, after: 0 });
        client.ask(&mut both, &ClientControl::Who { ask: 4, topic, after: 1 << 56 });
        let ends = ["Done { ask: 3, next: 72057594037927936 }", "Done { ask: 4, next: 0 }"];
        assert!(client.values[0].contains(&format!("handle: {}", handles[0])));
        assert!(client.values[2].contains(&format!("handle: {}", handles[1])));
        assert_eq!([&client.values[1], &client.values[3]], ends);
    }
}

#[test]
fn who_comes_and_goes_is_told_on_all_shards() {
    let mut both = Both::new(limits());
    let (mut near, mut far) = (Client::new(&mut both, 1), Client::at(&mut both, 1, 2));
    for client in [&mut near, &mut far] {
        let (name, from) = ("main", Start::Now);
        let value = ClientControl::Subscribe { ask: 1, name, from, echo: true, presence: true };
        client.ask(&mut both, &value);
    }
    let joined = ServerControl::Joined { topic: near.topic, handle: far.handle };
    near.values.clear();
    near.hear(&mut both);
    assert_eq!(near.values, [format!("{joined:?}")]);
    near.values.clear();
    both.far.handle_closed(NOW, far.conn);
    both.settle();
    near.hear(&mut both);
    let left = ServerControl::Left { topic: near.topic, handle: far.handle };
    assert_eq!(near.values, [format!("{left:?}")]);
}
