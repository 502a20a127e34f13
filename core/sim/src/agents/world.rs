//! The relay with native sessions and everything around it, one step after the other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wardline_core::{Gather, Homes, Instant, Relay, TopicId};

use super::agent::Agent;
use super::lent::{Lent, Loan};
use super::link::{Link, Stage};
use super::net::{Conn, Owner};
use super::plan::Plan;
use super::proxied::PROXIES;
use super::rights::Rights;
use super::rings::Rings;
use super::side::{NAMES, Side};
use super::states::{State, States};
use super::text::Reader;
use super::truth::Truth;
use crate::rng::Rng;

/// When a run begins.
const BEGIN_NS: u64 = 1_000_000_000;

/// What can happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A client connects.
    Connect,
    /// A client says something.
    Act,
    /// The frontend receives.
    Receive,
    /// A client reads.
    Read,
    /// A socket can take more.
    Writable,
    /// A send under way goes on, or ends.
    Complete,
    /// Time goes on.
    Time,
    /// Something goes wrong.
    Fault,
    /// The relay is asked for outputs.
    Drain,
}

const OPS: [(Op, u32); 9] = [
    (Op::Connect, 25),
    (Op::Act, 160),
    (Op::Receive, 120),
    (Op::Read, 120),
    (Op::Writable, 40),
    (Op::Complete, 60),
    (Op::Time, 40),
    (Op::Fault, 50),
    (Op::Drain, 20),
];

/// A relay in its world.
pub(crate) struct World<'s, 'b> {
    /// The shards of it: a native client is at the home of its identity.
    pub(crate) relays: Vec<Relay<'s, &'s mut [u8]>>,
    pub(crate) rings: Rings,
    pub(crate) side: Side<'b>,
    pub(crate) gather: Gather,
    pub(crate) native: TopicId,
    pub(crate) lines: Vec<TopicId>,
    pub(crate) port: u16,
    /// What each of the shards waits for.
    pub(crate) waits: Vec<Option<Instant>>,
    check_all: bool,
}

/// The relays of all shards, and the topics of their listeners of lines.
fn shards<'s>(
    plan: &Plan,
    lent: &'s mut [Lent],
    rights: &'s Rights,
    seed: [u8; 32],
) -> (Vec<Relay<'s, &'s mut [u8]>>, Vec<TopicId>) {
    let now = Instant::from_nanos(BEGIN_NS);
    let doors = if plan.texts > 0 { plan.names.min(2) } else { 0 };
    let (mut relays, mut lines) = (Vec::new(), Vec::new());
    for (shard, lent) in lent.iter_mut().enumerate() {
        let Loan { slots, native, links, pool } = lent.slots(rights);
        let mut relay = Relay::new(plan.limits, slots, pool, [7; 32], now).expect("a plan");
        if plan.shards > 1 {
            relay.join(shard as u8, links, Homes::First).expect("slots for its links");
        }
        let seed = seed.map(|byte| byte.wrapping_add(shard as u8));
        relay.speak_native(native, seed, 1_700_000_000_000).expect("a native plan");
        relay.trust_proxies(&PROXIES);
        relay.spread_sessions();
        let topics = NAMES[..doors].iter().map(|name| relay.listen(name).expect("a topic"));
        let topics: Vec<TopicId> = topics.collect();
        assert!(shard == 0 || topics == lines, "topics of other numbers");
        lines = topics;
        relays.push(relay);
    }
    (relays, lines)
}

impl<'s, 'b> World<'s, 'b> {
    pub(crate) fn new(
        plan: Plan,
        mut rng: Rng<'b>,
        lent: &'s mut [Lent],
        rights: &'b Rights,
        check_all: bool,
    ) -> Self
    where
        'b: 's,
    {
        let now_ns = BEGIN_NS;
        let seed: [u8; 32] = core::array::from_fn(|_| rng.below(256) as u8);
        let (relays, lines) = shards(&plan, lent, rights, seed);
        let native = relays[0].listen_native().expect("a native door");
        let rings = Rings::new(plan.shards, plan.limits.record_bytes_max(), &mut rng);
        let agents = (0..plan.agents + plan.wild).map(|nth| {
            let identity = if rng.one_in(4) { nth / 2 } else { nth };
            let recv_max = rng.pick(&[1_024, 1_072, 4_096, 65_584]);
            Agent::new(nth, identity, nth >= plan.agents, rng.below(1 << 40), recv_max)
        });
        let agents: Vec<Agent> = agents.collect();
        for agent in &agents {
            if rng.one_in(4) {
                rights.let_bridge(&agent.identity);
            }
            let same = |other: &&Agent| other.identity == agent.identity;
            let wild = agents.iter().filter(same).any(|other| other.wild);
            if rng.one_in(2) && !wild || wild && plan.known_wild {
                rights.enroll(&agent.identity);
            }
        }
        let texts = (0..plan.texts).map(|nth| {
            let shard = (1 + nth + nth / 2) % plan.shards;
            Reader::new(nth % 2 % lines.len().max(1), shard)
        });
        let texts = texts.collect();
        let side = Side {
            rng,
            plan,
            rights,
            now_ns,
            step: 0,
            calm: false,
            shard: 0,
            conns: Vec::new(),
            links: Vec::new(),
            names: Default::default(),
            live: Vec::new(),
            agents,
            texts,
            truth: Truth::default(),
            states: States::default(),
            hash: 0,
            leapt_ns: 0,
            short: false,
            at_rest: false,
            epochs: Vec::new(),
            bases: Default::default(),
            out: Default::default(),
            strays: Default::default(),
            refused: None,
            heard: Default::default(),
            evicted: false,
            challenges: Default::default(),
            hellos: Vec::new(),
            struck: Default::default(),
        };
        let (gather, waits) = (Gather::new(), vec![None; relays.len()]);
        Self { relays, rings, side, gather, native, lines, port: 1_024, waits, check_all }
    }

    pub(crate) fn now(&self) -> Instant {
        self.side.now()
    }

    /// One step of disorder.
    pub(crate) fn step(&mut self) {
        self.side.step += 1;
        let weights = OPS.map(|(_, weight)| weight);
        let (op, _) = OPS[self.side.rng.weighted(&weights)];
        crate::trace::note_agents(self.side.step, self.side.now_ns, op);
        self.apply(op);
        if self.side.rng.percent(self.side.plan.drain) {
            self.drain();
        }
        self.carry_some();
        self.check();
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect => self.connect(),
            Op::Act => {
                let side = &mut self.side;
                let all = side.agents.len() + side.texts.len();
                let who = side.rng.below(all as u64) as usize;
                match who.checked_sub(side.agents.len()) {
                    None => side.act(who),
                    Some(text) => {
                        let _ = side.text_says(text);
                    }
                }
            }
            Op::Receive => {
                let able =
                    |conn: &Conn| !conn.closing && (conn.reset || conn.fin || !conn.up.is_empty());
                for _ in 0..=self.side.rng.up_to(7) {
                    if let Some(index) = self.side.any(able) {
                        self.receive(index);
                    }
                }
            }
            Op::Read => {
                let able = |conn: &Conn| !conn.lazy && (!conn.down.is_empty() || conn.finished);
                for _ in 0..=self.side.rng.up_to(2) {
                    if let Some(index) = self.side.any(able) {
                        self.read(index);
                    }
                }
            }
            Op::Writable => {
                if let Some(index) = self.side.any(|conn| conn.full && conn.room() > 0) {
                    self.writable(index);
                }
            }
            Op::Complete => {
                if let Some(index) = self.side.any(|conn| conn.flight.is_some() || conn.closing) {
                    self.complete(index);
                }
            }
            Op::Time => self.time(),
            Op::Fault => self.fault(),
            Op::Drain => self.drain(),
        }
    }

    /// A newcomer at one of the doors.
    pub(crate) fn connect(&mut self) {
        let side = &mut self.side;
        let all = side.agents.len() + side.texts.len();
        let who = side.rng.below(all as u64) as usize;
        if let Some(text) = who.checked_sub(side.agents.len()) {
            return self.connect_text(text);
        }
        let up = |index: &usize| {
            side.conns[*index].owner == Owner::Agent(who)
                && side.conns[*index].is_up()
                && side.links[*index].as_ref().is_some_and(|link| !link.is_over())
        };
        let racing = side.live.iter().any(up);
        if racing && side.rng.below(1_000) >= u64::from(side.plan.often.race) / 2 {
            return;
        }
        if racing {
            side.states.hit(State::Raced);
        }
        self.dial(who, racing);
    }

    /// Opens a connection.
    pub(crate) fn open(&mut self, door: TopicId, owner: Owner) -> Option<usize> {
        let shard = match owner {
            Owner::Text(text) => self.side.texts[text].shard,
            Owner::Agent(agent) if self.side.rng.one_in(3) => self.side.home_of(agent),
            Owner::Agent(_) => self.side.rng.below(self.relays.len() as u64) as usize,
            Owner::Noise => self.side.rng.below(self.relays.len() as u64) as usize,
        };
        self.port = self.port.wrapping_add(1).max(1_024);
        let side = &mut self.side;
        let host = match owner {
            Owner::Agent(agent) => agent as u64 % side.plan.hosts,
            Owner::Text(text) => text as u64 % side.plan.hosts,
            Owner::Noise => side.rng.below(side.plan.hosts),
        };
        let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1 + host as u8));
        let addr = SocketAddr::new(ip, self.port);
        let stats = self.relays[shard].stats();
        let (flaps, evicted) = (stats.flapping, stats.evicted_for_newcomer);
        let accepted = self.accept(shard, addr, door);
        let (relay, side) = (&self.relays[shard], &mut self.side);
        let id = match accepted {
            Ok(id) => id,
            Err(refusal) => {
                side.turned_off(refusal, (shard, ip), door == self.native);
                return None;
            }
        };
        let flapped = relay.stats().flapping != flaps;
        side.evicted |= relay.stats().evicted_for_newcomer != evicted;
        let bytes_max = 1 + side.rng.up_to(side.plan.socket_bytes);
        let mut conn = Conn::new((id, addr), owner, bytes_max, side.now_ns);
        conn.shard = shard;
        conn.flapped = flapped;
        conn.lazy = !side.calm && side.rng.below(10_000) < u64::from(side.plan.often.lazy) / 4;
        let index = side.conns.len();
        side.conns.push(conn);
        side.links.push(None);
        side.epochs.push(None);
        side.live.push(index);
        side.names.insert((shard, id), index);
        Some(index)
    }

    pub(crate) fn dial(&mut self, agent: usize, racing: bool) {
        let mixed = !self.lines.is_empty() && self.side.rng.one_in(4);
        let door = if mixed { self.lines[0].mixed() } else { self.native };
        let Some(index) = self.open(door, Owner::Agent(agent)) else { return };
        let side = &mut self.side;
        if mixed {
            side.states.hit(State::MixedNative);
        }
        // What comes over one that is half closed is heard, too.
        let mine = |other: &usize| {
            let conn = &side.conns[*other];
            *other != index && conn.owner == Owner::Agent(agent) && !conn.reset
        };
        let others: Vec<usize> = side.live.iter().copied().filter(mine).collect();
        let overlaps = !others.is_empty();
        for other in others {
            if let Some(link) = &mut side.links[other] {
                link.racing = true;
            }
        }
        let entropy: [u8; 32] = core::array::from_fn(|_| side.rng.below(256) as u8);
        let (epoch_ms, resume) = side.comes_with(agent);
        if racing && resume.is_none() {
            side.states.hit(State::TakenOver);
        }
        side.epochs[index] = Some(epoch_ms);
        let link = Link {
            agent,
            stage: Stage::Hello,
            entropy,
            resume,
            resumed: false,
            epoch_ms,
            tried: side.step,
            racing: racing || overlaps,
            challenged: false,
            bits: 0,
            inbuf: Vec::new(),
            records: None,
            handle: 0,
            max_payload: 0,
            live: false,
            live_ns: 0,
            took: 0,
            direct: 0,
            subs: Default::default(),
            asks: Default::default(),
            ask: 0,
            sent: Vec::new(),
            verdicts: Default::default(),
            ping: None,
            pings: 0,
            ponged: 0,
            closing: false,
            nth: 0,
        };
        let hello = side.hello_of(&link);
        if side.hellos.len() < 50 {
            side.hellos.push(hello.clone());
        }
        side.conns[index].up.extend(hello);
        side.links[index] = Some(Box::new(link));
    }

    pub(crate) fn connect_text(&mut self, text: usize) {
        let side = &mut self.side;
        if side.texts[text].conn.is_some_and(|index| !side.conns[index].gone) {
            return;
        }
        let name = side.texts[text].name;
        let mixed = side.rng.one_in(3);
        let door = if mixed { self.lines[name].mixed() } else { self.lines[name] };
        let Some(index) = self.open(door, Owner::Text(text)) else { return };
        if mixed {
            self.side.states.hit(State::MixedLine);
        }
        let reader = &mut self.side.texts[text];
        reader.conn = Some(index);
        reader.inbuf.clear();
        reader.read.push(None);
    }

    fn time(&mut self) {
        self.carry_all();
        self.tell_waits();
        let next = self.next_wait();
        let side = &mut self.side;
        let tick = side.plan.tick_ms * 1_000_000;
        let next = next.map_or(0, |wait| wait.as_nanos().saturating_sub(side.now_ns));
        side.now_ns += match side.rng.below(8) {
            0 => 1 + side.rng.below(1_000),
            1 => next.min(tick * 10),
            _ => side.rng.below(tick),
        };
    }

    pub(crate) fn check(&mut self) {
        if self.check_all || self.side.step.is_multiple_of(8) {
            self.relays.iter().for_each(Relay::check);
        }
        let limits = self.side.plan.limits;
        for relay in &self.relays {
            let (blocks, segments) = relay.memory_used();
            assert!(blocks <= limits.blocks && segments <= limits.segments, "more than there is");
            self.side.short |= blocks * 2 >= limits.blocks;
            assert_eq!(relay.stats().events_dropped.value(), 0, "events were dropped");
        }
    }

    /// When the first of the shards wants to be asked again.
    pub(crate) fn next_wait(&self) -> Option<Instant> {
        self.waits.iter().copied().flatten().min()
    }
}
