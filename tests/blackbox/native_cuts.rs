//! Connections that are cut while much is said: what was lost is known, and nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use wardline_core::native::client::Fate;
use wardline_core::native::{GapReason, ServerControl, Start};

use crate::harness::{Client, Heard, Launch, NativeClient, PATIENCE, Relay, Said, on_each_engine};

/// How often an agent tries to come back.
const TRIES: u32 = 5;
/// Agents of a large storm, and of a small one.
const MANY: u64 = 1_000;
const FEW: u64 = 200;
const TOPICS: u64 = 50;
/// What each of them says.
const MESSAGES: u32 = 15;
/// What a client of lines says, where there is one.
const LINES: usize = 400;
/// How long an agent that has said everything listens before it looks whether all others have.
const LOOK: Duration = Duration::from_millis(100);

/// The first of them is that of the listeners of lines.
fn topic_name(number: u64) -> String {
    match number % TOPICS {
        0 => "main".to_owned(),
        topic => format!("topic {topic}"),
    }
}

/// Somebody who says things on a topic, reads it, and is cut now and then.
struct Agent {
    number: u64,
    topic: String,
    client: NativeClient,
    dice: u64,
    epoch: u64,
    /// The oldest message that was there when it subscribed last.
    oldest: u64,
    /// The next message that it is to be sent, or told of.
    next: u64,
    heard: Vec<(u64, Vec<u8>)>,
    missed: u64,
    said: BTreeMap<u64, Vec<u8>>,
    fates: Vec<(Vec<u8>, Fate)>,
    resumed: u32,
    renewed: u32,
}

impl Agent {
    fn new(relay: &Relay, number: u64) -> Self {
        let topic = topic_name(number);
        let mut client = relay.native(number);
        let place = client.subscribe(&topic, Start::Now);
        assert_eq!(place.next, 0, "nothing was said yet");
        Self {
            number,
            topic,
            client,
            dice: number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            epoch: place.epoch,
            oldest: place.oldest,
            next: 0,
            heard: Vec::new(),
            missed: 0,
            said: BTreeMap::new(),
            fates: Vec::new(),
            resumed: 0,
            renewed: 0,
        }
    }

    /// A number below `end`, by chance; the same in each run.
    fn throw(&mut self, end: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % end
    }

    /// Says all it has to say, cut by chance, and reads on until all others have, too.
    fn run(mut self, done: &AtomicUsize, all: u64) -> Self {
        let deadline = Instant::now() + 4 * PATIENCE;
        for nth in 0..MESSAGES {
            self.enqueue(nth);
            if nth == 0 {
                // A relay that has taken nothing yet has nothing to say about what it took.
                self.client.flush();
                assert!(self.client.barrier(), "agent {}: closed", self.number);
                continue;
            }
            match self.throw(12) {
                0 => self.cut(),
                1 => {}
                _ => self.client.flush(),
            }
            self.listen();
        }
        self.client.flush();
        assert!(self.client.barrier(), "agent {}: closed", self.number);
        self.note_fates();
        assert_eq!(self.client.unsettled(), 0, "all is known");
        done.fetch_add(1, Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < all as usize {
            if let Some(said) = self.client.hear(LOOK) {
                self.take(said);
            }
            self.listen();
            assert!(Instant::now() < deadline, "others never end");
        }
        self
    }

    fn enqueue(&mut self, nth: u32) {
        let len = 100 + self.throw(800) as usize;
        let mut payload = format!("{} {nth} ", self.number).into_bytes();
        payload.resize(len, b'.');
        let mid = self.client.enqueue(&self.topic, &payload);
        self.said.insert(mid, payload);
    }

    /// Ends the connection with a reset, perhaps in the middle of a record, and comes back.
    fn cut(&mut self) {
        if self.throw(2) == 0
            && let Some(record) = self.client.seal()
        {
            let len = self.throw(record.len() as u64 + 1) as usize;
            self.client.write(&record[..len]);
        }
        self.client.abort();
        while let Some(said) = self.client.hear(Duration::ZERO) {
            self.take(said);
        }
        let resume = self.throw(3) > 0;
        // On a machine that is busy with other tests a handshake may take too long, and a client
        // tries again.
        let mut tries = 0;
        while let Err(turned) = self.client.reconnect(resume) {
            tries += 1;
            assert!(tries < TRIES, "agent {} cannot come back: {turned:?}", self.number);
        }
        assert_eq!(self.client.is_resumed(), resume, "a session that was lost a moment ago");
        *(if resume { &mut self.resumed } else { &mut self.renewed }) += 1;
        let from = Start::Offset { epoch: self.epoch, offset: self.next };
        let place = self.client.subscribe(&self.topic, from);
        assert_eq!(place.epoch, self.epoch, "the topic's life goes on");
        self.oldest = place.oldest;
        self.client.flush();
    }

    fn listen(&mut self) {
        while let Some(said) = self.client.hear(Duration::ZERO) {
            self.take(said);
        }
        self.note_fates();
    }

    fn note_fates(&mut self) {
        for (mid, fate) in self.client.settled() {
            let payload = self.said.remove(&mid).expect("it said that, and hears of it once");
            self.fates.push((payload, fate));
        }
    }

    fn take(&mut self, said: Said) {
        match said {
            Said::Frame(header, payload) => {
                assert_eq!(header.offset, self.next, "agent {}: twice, or a hole", self.number);
                self.next += 1;
                self.heard.push((header.offset, payload));
            }
            Said::Control(ServerControl::Gap { from, to, reason, .. }) => {
                assert_eq!(reason, GapReason::Retention as u8);
                assert_eq!((from, to), (self.next, self.oldest), "what was kept is not missing");
                self.missed += to - from;
                self.next = to;
            }
            Said::Control(ServerControl::Nack { .. }) => {}
            other => panic!("agent {}: {other:?}", self.number),
        }
    }

    /// Reads what is left of the topic.
    fn read_up(&mut self, end: u64) {
        while self.next < end {
            match self.client.hear(PATIENCE) {
                Some(said) => self.take(said),
                None => panic!("agent {}: at {} of {end}", self.number, self.next),
            }
        }
    }
}

/// Clients of lines on `main`: who says something, from another shard than that of the agents, and
/// two who hear everything, one on each shard.
struct Texts {
    speaker: Client,
    witnesses: [Client; 2],
}

/// What each of the lines begins with.
const LINE: &str = "\t\"line\" ";
/// What ends what they hear.
const END: &str = "the end";

impl Texts {
    fn new(relay: &Relay) -> Self {
        let [mut speaker, mut near, mut far] =
            [1, 0, 1].map(|shard| relay.dial_shard(shard).connect());
        relay.seat_by(relay.dial_shard(0).connect(), [&mut speaker, &mut near, &mut far]);
        Self { speaker, witnesses: [near, far] }
    }

    fn lines() -> impl Iterator<Item = String> {
        (0..LINES).map(|nth| format!("{LINE}{nth} \\"))
    }

    /// Says all there is to say, while everybody reads; gives what each of them heard. `come`
    /// counts the lines that have come to the second of them.
    fn run(self, come: &AtomicUsize) -> [Vec<String>; 3] {
        let mut writer = self.speaker.writer();
        let [near, far] = self.witnesses;
        thread::scope(|scope| {
            scope.spawn(move || {
                for line in Self::lines() {
                    writer.write_all(format!("{line}\n").as_bytes()).expect("it is read");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let others = [(self.speaker, None), (near, Some(come)), (far, None)];
            let reading = others.map(|(client, come)| scope.spawn(move || heard_by(client, come)));
            reading.map(|reading| reading.join().expect("it hears all"))
        })
    }
}

/// What a client of lines hears until the end; `come` counts those of [`Texts`].
fn heard_by(mut client: Client, come: Option<&AtomicUsize>) -> Vec<String> {
    let mut heard = Vec::new();
    let deadline = Instant::now() + 5 * PATIENCE;
    while heard.last().is_none_or(|last| last != END) {
        match client.hear(PATIENCE) {
            Heard::Line(line) => {
                let line: serde_json::Value = serde_json::from_str(&line).expect("an envelope");
                let said = line["content"].as_str().expect("content");
                if let Some(come) = come.filter(|_| said.starts_with(LINE)) {
                    come.fetch_add(1, Ordering::SeqCst);
                }
                heard.push(said.to_owned());
            }
            Heard::Silence => assert!(Instant::now() < deadline, "the end never comes"),
            end @ Heard::End(..) => panic!("{end:?}"),
        }
    }
    heard
}

/// What all of them heard of a topic, and what nobody did. `lines`: what clients of lines said.
/// Gives what is known of it, by its number.
fn check_topic<'a>(agents: &[&'a Agent], end: u64, lines: &[String]) -> BTreeMap<u64, &'a [u8]> {
    let mut all: BTreeMap<u64, &[u8]> = BTreeMap::new();
    for agent in agents {
        assert_eq!(agent.heard.len() as u64 + agent.missed, end, "agent {}", agent.number);
        for (offset, payload) in &agent.heard {
            let before = all.insert(*offset, payload);
            assert!(before.is_none_or(|before| before == payload), "{offset} is two messages");
        }
    }
    let holes = end as usize - all.len();
    let heard: BTreeSet<&[u8]> = all.values().copied().collect();
    assert_eq!(heard.len(), all.len(), "a message was taken twice");
    let fates = agents.iter().flat_map(|agent| &agent.fates);
    let (mut unheard, mut taken) = (0, 0);
    for (payload, fate) in fates {
        let is_heard = heard.contains(&payload[..]);
        match fate {
            Fate::Taken => {
                unheard += usize::from(!is_heard);
                taken += 1;
            }
            Fate::Refused => assert!(!is_heard, "it was refused, and heard"),
            Fate::Unsure => panic!("the relay knows what it took"),
        }
    }
    unheard += lines.iter().filter(|line| !heard.contains(line.as_bytes())).count();
    taken += lines.len();
    assert_eq!((unheard, taken), (holes, end as usize), "what is missing is told");
    let said: usize = agents.iter().map(|agent| agent.fates.len()).sum();
    assert_eq!(said, agents.len() * MESSAGES as usize);
    all
}

/// Clients of lines on both shards heard everything, in the order in which agents did.
fn check_texts(heard: &[Vec<String>; 3], known: &BTreeMap<u64, &[u8]>, end: u64) {
    let [speaker, near, far] = heard;
    assert_eq!(near.len() as u64, end, "each message once");
    assert!(near == far, "two orders");
    for (offset, payload) in known {
        assert_eq!(near[*offset as usize].as_bytes(), *payload, "{offset} is two messages");
    }
    let own: BTreeSet<String> = Texts::lines().collect();
    let others: Vec<&String> = near.iter().filter(|line| !own.contains(*line)).collect();
    assert!(speaker.iter().eq(others), "its own lines, or another order");
    assert!(near.iter().filter(|line| own.contains(*line)).cloned().eq(Texts::lines()));
}

/// Runs all of them; how many messages were missed, because retention did not hold them.
fn storm(engine: &'static str, retention: &str, (shards, clients): (usize, u64)) -> u64 {
    let mut launch = Launch::of_both(engine)
        .set("native.retention_bytes", retention)
        .set("native.handshakes_total_per_second", "100000");
    if shards > 1 {
        launch = launch.shards(shards);
    }
    let relay = launch.start();
    let texts = (shards > 1).then(|| Texts::new(&relay));
    let mut agents: Vec<Agent> = Vec::new();
    for number in 0..clients {
        agents.push(Agent::new(&relay, number));
        if number % 100 == 99 {
            // Whoever was made first has been asked meanwhile whether it is there.
            agents.iter_mut().for_each(Agent::listen);
        }
    }
    let (done, come) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    let (mut agents, mut clerk, heard) = thread::scope(|scope| {
        let texts = texts.map(|texts| scope.spawn(|| texts.run(come)));
        let running = agents.into_iter().map(|agent| run_in(scope, agent, (done, clients)));
        let running: Vec<_> = running.collect();
        let agents = running.into_iter().map(|agent| agent.join().expect("it ends well"));
        let agents: Vec<_> = agents.collect();
        let mut clerk = relay.native(clients);
        if texts.is_some() {
            let deadline = Instant::now() + 4 * PATIENCE;
            while come.load(Ordering::SeqCst) < LINES {
                assert!(Instant::now() < deadline, "not all lines have come");
                thread::sleep(Duration::from_millis(10));
            }
            clerk.open("main").expect("it may");
            clerk.publish("main", END.as_bytes());
            assert!(clerk.barrier());
        }
        (agents, clerk, texts.map(|texts| texts.join().expect("they hear all")))
    });
    let lines = Texts::lines().chain([END.to_owned()]).filter(|_| heard.is_some());
    let mut lines: Vec<String> = lines.collect();
    for topic in 0..TOPICS {
        let end = clerk.subscribe(&topic_name(topic), Start::Now).next;
        for agent in agents.iter_mut().filter(|agent| agent.number % TOPICS == topic) {
            agent.read_up(end);
        }
        let of_topic = agents.iter().filter(|agent| agent.number % TOPICS == topic);
        let known = check_topic(&Vec::from_iter(of_topic), end, &std::mem::take(&mut lines));
        if let Some(heard) = heard.as_ref().filter(|_| topic == 0) {
            check_texts(heard, &known, end);
        }
    }
    let (resumed, renewed) = agents
        .iter()
        .fold((0, 0), |(resumed, renewed), it| (resumed + it.resumed, renewed + it.renewed));
    let (more, some) = (clients as u32 / 2, clients as u32 / 5);
    assert!(resumed > more && renewed > some, "{resumed} resumed, {renewed} renewed");
    agents.iter().map(|agent| agent.missed).sum()
}

/// Runs an agent. There are many: they need no large stacks.
fn run_in<'scope>(
    scope: &'scope Scope<'scope, '_>,
    agent: Agent,
    (done, all): (&'scope AtomicUsize, u64),
) -> ScopedJoinHandle<'scope, Agent> {
    let builder = thread::Builder::new().stack_size(256 << 10);
    builder.spawn_scoped(scope, move || agent.run(done, all)).expect("a thread")
}

/// A large storm on each engine. One such case after the other: among many thousands of threads
/// some wait for longer than a handshake may take.
fn large_storms(shards: usize) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    on_each_engine(|engine| {
        let missed = storm(engine, "4MiB", (shards, MANY));
        assert_eq!(missed, 0, "a topic is smaller than what is kept");
    });
}

#[test]
fn what_retention_holds_is_missed_by_nobody_who_is_cut() {
    large_storms(1);
}

#[test]
fn what_retention_did_not_hold_is_told() {
    on_each_engine(|engine| {
        storm(engine, "4KiB", (1, FEW));
    });
}

#[test]
fn what_retention_holds_is_missed_by_nobody_on_two_shards() {
    large_storms(2);
}

#[test]
fn what_retention_did_not_hold_is_told_on_two_shards() {
    on_each_engine(|engine| {
        storm(engine, "4KiB", (2, FEW));
    });
}
