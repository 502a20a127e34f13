//! Connections that are cut while much is said: what was lost is known, and nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wardline_core::native::client::Fate;
use wardline_core::native::{GapReason, ServerControl, Start};

use crate::harness::{Launch, NativeClient, PATIENCE, Relay, Said, on_each_engine};

/// How often an agent tries to come back.
const TRIES: u32 = 5;
const CLIENTS: u64 = 200;
const TOPICS: u64 = 10;
/// What each of them says.
const MESSAGES: u32 = 40;

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
        let topic = format!("topic {}", number % TOPICS);
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
    fn run(mut self, done: &AtomicUsize) -> Self {
        let deadline = Instant::now() + 2 * PATIENCE;
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
        while done.load(Ordering::SeqCst) < CLIENTS as usize {
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

/// What all of them heard of a topic, and what nobody did.
fn check_topic(agents: &[&Agent], end: u64) {
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
    assert_eq!((unheard, taken), (holes, end as usize), "what is missing is told");
    let said: usize = agents.iter().map(|agent| agent.fates.len()).sum();
    assert_eq!(said, agents.len() * MESSAGES as usize);
}

/// Runs all of them; how many messages were missed, because retention did not hold them.
fn storm(engine: &'static str, retention: &str) -> u64 {
    let relay = Launch::of_both(engine)
        .set("native.retention_bytes", retention)
        .set("native.handshakes_total_per_second", "100000")
        .start();
    let agents: Vec<_> = (0..CLIENTS).map(|number| Agent::new(&relay, number)).collect();
    let done = &AtomicUsize::new(0);
    let mut agents: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            agents.into_iter().map(|agent| scope.spawn(|| agent.run(done))).collect();
        running.into_iter().map(|agent| agent.join().expect("it ends well")).collect()
    });
    let mut clerk = relay.native(CLIENTS);
    for topic in 0..TOPICS {
        let end = clerk.subscribe(&format!("topic {topic}"), Start::Now).next;
        for agent in agents.iter_mut().filter(|agent| agent.number % TOPICS == topic) {
            agent.read_up(end);
        }
        let of_topic = agents.iter().filter(|agent| agent.number % TOPICS == topic);
        check_topic(&Vec::from_iter(of_topic), end);
    }
    let (resumed, renewed) = agents
        .iter()
        .fold((0, 0), |(resumed, renewed), it| (resumed + it.resumed, renewed + it.renewed));
    assert!(resumed > 100 && renewed > 50, "{resumed} resumed, {renewed} renewed");
    agents.iter().map(|agent| agent.missed).sum()
}

#[test]
fn what_retention_holds_is_missed_by_nobody_who_is_cut() {
    on_each_engine(|engine| {
        assert_eq!(storm(engine, "4MiB"), 0, "a topic is smaller than what is kept");
    });
}

#[test]
fn what_retention_did_not_hold_is_told() {
    on_each_engine(|engine| {
        storm(engine, "4KiB");
    });
}
