//! The relay and everything around it, one step after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use wardline_core::{ConnId, Gather, Homes, Instant, Reason, Relay};

use crate::knocks::PROXIES;
use crate::lent::Lent;
use crate::peer::Peer;
use crate::places::{Place, Places};
use crate::plan::{OPS, Op, Plan};
use crate::rng::Rng;
use crate::shared::Shared;
use crate::side::{Side, TopicView};

/// Bytes fed before the events must be taken.
const FED_MAX: usize = 8_000;

/// A relay in its world.
#[derive(Debug)]
pub(crate) struct World<'s, 'b> {
    pub(crate) relay: Relay<'s, &'s mut [u8]>,
    pub(crate) side: Side<'b>,
    pub(crate) gather: Gather,
    /// Names of connections that are gone.
    pub(crate) old: Vec<ConnId>,
    pub(crate) port: u16,
    /// All events are known: nothing was handed over since the relay said that it waits.
    pub(crate) settled: bool,
    /// When it wants to be asked again.
    pub(crate) wait: Option<Instant>,
    pub(crate) fed: usize,
    pub(crate) connects: BTreeMap<IpAddr, u64>,
    blocks_were_out: bool,
    segments_were_out: bool,
    blocks_before: u32,
    /// Turns on end in which nothing happened.
    pub(crate) quiet: u32,
    /// The same, while the relay said that there was something to do.
    pub(crate) spun: u32,
    /// Bytes that went through the relay, when that was last looked at.
    moved: u64,
    /// Whether every step is checked, or every sixteenth.
    check_all: bool,
    /// Time is to go on, for all shards together.
    pub(crate) wants_time: bool,
    /// What other shards brought, and was not taken, is to be brought again.
    pub(crate) wants_links: bool,
}

impl<'s, 'b> World<'s, 'b> {
    /// A world by `plan`.
    pub(crate) fn new(
        plan: Plan,
        rng: Rng<'b>,
        lent: &'s mut Lent,
        check_all: bool,
        (shard, shards, shared): (usize, usize, Rc<RefCell<Shared>>),
    ) -> Self {
        let limits = plan.limits;
        let now_ns = 1_000_000_000;
        let (slots, links, pool) = lent.slots();
        let now = Instant::from_nanos(now_ns);
        let mut relay = Relay::new(limits, slots, pool, [7; 32], now).expect("a plan that works");
        if shards > 1 {
            relay.join(shard as u8, links, Homes::ByName).expect("slots for its links");
        }
        relay.trust_proxies(&PROXIES);
        let topics = Self::topics(&plan).into_iter().map(|name| {
            let id = relay.listen(name).expect("a topic");
            TopicView { id, next: 0, head: 0, run: (usize::MAX, 0) }
        });
        let topics = topics.collect();
        let side = Side {
            rng,
            plan,
            peers: Vec::new(),
            live: Vec::new(),
            knocks: Vec::new(),
            names: BTreeMap::new(),
            topics,
            published: 0,
            now_ns,
            step: 0,
            settled: 0,
            places: Places::default(),
            hash: 0,
            short: None,
            doubts: Vec::new(),
            banned: BTreeMap::new(),
            offences: 0,
            shutdown: false,
            shard,
            shards,
            shared,
            woke_ns: 0,
            heard: BTreeMap::new(),
            calm: false,
        };
        Self {
            relay,
            side,
            gather: Gather::new(),
            old: Vec::new(),
            port: 1_024,
            settled: true,
            wait: None,
            fed: 0,
            connects: BTreeMap::new(),
            blocks_were_out: false,
            segments_were_out: false,
            blocks_before: 0,
            quiet: 0,
            spun: 0,
            moved: 0,
            check_all,
            wants_time: false,
            wants_links: false,
        }
    }

    /// The names of its topics.
    pub(crate) fn topics(plan: &Plan) -> Vec<&'static str> {
        ["main", "a", "b", "c"].into_iter().take(plan.topics).collect()
    }

    /// Messages that the relay took or was brought.
    pub(crate) fn taken(&self) -> u64 {
        let stats = self.relay.stats();
        stats.published.value() + stats.from_shards.value()
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.side.now_ns)
    }

    /// One step of disorder.
    pub(crate) fn step(&mut self) -> Op {
        self.side.step += 1;
        let weights = self.side.plan.weights;
        let op = OPS[self.side.rng.weighted(&weights)];
        crate::trace::note(self.side.step, self.side.now_ns, op);
        self.apply(op);
        let drain = self.side.plan.habits.drain_percent;
        if self.fed > FED_MAX {
            self.settle();
        } else if self.side.rng.percent(drain) {
            self.drain();
        }
        self.check();
        op
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect => self.connect(),
            Op::Write => self.write(),
            Op::Receive if !self.side.knocks.is_empty() && self.side.rng.one_in(2) => {
                self.advance_any();
            }
            Op::Receive => {
                if let Some(peer) = self.any(|peer| !peer.socket.closing) {
                    self.receive(peer);
                }
            }
            Op::Read => {
                if let Some(peer) = self.any(|peer| peer.socket.unread > 0) {
                    self.read(peer);
                }
            }
            Op::Writable => {
                if let Some(peer) = self.any(|peer| peer.socket.full && peer.socket.room() > 0) {
                    self.writable(peer);
                }
            }
            Op::Complete => {
                if let Some(peer) = self.any(|peer| peer.socket.flight.is_some()) {
                    self.complete(peer);
                }
            }
            Op::Fin => {
                // Sometimes one whose lines wait, and who has nothing more to say.
                let waits = self.side.rng.one_in(2);
                let wanted = |peer: &Peer| {
                    !waits || (!peer.view.is_heard() && peer.socket.waiting().is_empty())
                };
                if let Some(peer) = self.any(wanted).or_else(|| self.any(|_| true)) {
                    self.side.peers[peer].socket.fin = true;
                }
            }
            Op::Reset => {
                if let Some(peer) = self.any(|peer| !peer.socket.reset) {
                    let socket = &mut self.side.peers[peer].socket;
                    socket.reset = true;
                    socket.unread = 0;
                    self.side.places.hit(Place::Reset);
                }
            }
            Op::Time if self.side.shards > 1 => self.wants_time = true,
            Op::Time => self.time(),
            Op::Backwards => self.backwards(),
            Op::Spurious => self.relay.handle_timeout(self.now()),
            Op::Stale => self.stale(),
            Op::CloseDone => {
                if let Some(peer) = self.any(|peer| peer.socket.closing) {
                    self.close_done(peer);
                }
            }
            Op::Answer => {
                if let Some(peer) = self.any(|peer| peer.socket.probed) {
                    self.answer(peer);
                }
            }
            Op::Drain => self.drain(),
        }
    }

    /// Readers gave way to what a ring brought: who was ending may have been one of them.
    pub(crate) fn excuse(&mut self) {
        for index in &self.side.live {
            let view = &mut self.side.peers[*index].view;
            view.excused |= view.leaving.is_some();
        }
    }

    /// One of the connections for which `wanted` holds.
    pub(crate) fn any(&mut self, wanted: impl Fn(&Peer) -> bool) -> Option<usize> {
        let side = &mut self.side;
        let count = side.live.len();
        let start = side.rng.below(count as u64) as usize;
        (0..count)
            .map(|offset| side.live[(start + offset) % count])
            .find(|peer| !side.peers[*peer].gone && wanted(&side.peers[*peer]))
    }

    pub(crate) fn check(&mut self) {
        if self.check_all || self.side.step.is_multiple_of(16) {
            self.relay.check();
        }
        let limits = self.side.plan.limits;
        let (blocks, segments) = self.relay.memory_used();
        assert!(blocks <= limits.blocks && segments <= limits.segments, "more than there is");
        let out = blocks == limits.blocks;
        if out && !self.blocks_were_out {
            self.side.places.hit(Place::BlocksOut);
        }
        self.resolve_doubts(blocks);
        self.blocks_were_out = out;
        let out = segments == limits.segments && segments > 0;
        if out && !self.segments_were_out {
            self.side.places.hit(Place::SegmentsOut);
        }
        self.segments_were_out = out;
        let stats = self.relay.stats();
        assert_eq!(stats.events_dropped.value(), 0, "events were dropped");
    }

    /// Whether blocks may have been short since the last check: what was taken before and after,
    /// and what came and went in between.
    fn resolve_doubts(&mut self, blocks: u32) {
        let stats = self.relay.stats();
        let moved = stats.bytes_appended.value() * 3 / 2
            + stats.bytes_in.value()
            + stats.bytes_out.value()
            + stats.link_bytes.value() * 3 / 2
            + stats.warnings.value() * 100;
        let limits = &self.side.plan.limits;
        let begun = u64::from(limits.line.envelope_bytes_max);
        let between = (moved - self.moved + begun) / u64::from(limits.block_bytes - 16);
        let most = u64::from(self.blocks_before + blocks) + between + self.side.live.len() as u64;
        self.moved = moved;
        self.blocks_before = blocks;
        let short = most + 4 >= u64::from(limits.blocks) / 2;
        if short {
            self.side.short = Some(self.side.step);
        }
        if let Some((since, doubt)) = self.side.doubts.drain(..).next() {
            let short = self.side.short.is_some_and(|step| step >= since);
            assert!(short, "with at most {most} of {} blocks taken: {doubt}", limits.blocks);
        }
    }

    /// Adds what only the counters tell to the places.
    pub(crate) fn count_places(&mut self) {
        let stats = *self.relay.stats();
        let places = &mut self.side.places;
        for _ in 0..stats.log_full.value().min(50) {
            places.hit(Place::LogFull);
        }
        for _ in 0..stats.coalesced.value() {
            places.hit(Place::Coalesced);
        }
        for _ in 0..stats.link_full.value().min(50) {
            places.hit(Place::LinkFull);
        }
        for _ in 0..stats.replica_cuts.value() {
            places.hit(Place::ReplicaCut);
        }
        for _ in 0..stats.evicted_for_memory.value() {
            places.hit(Place::EvictedForMemory);
        }
    }

    /// Those that are not ending.
    pub(crate) fn open(&self) -> Vec<usize> {
        let peers = &self.side.peers;
        let open = |peer: &usize| !peers[*peer].gone && peers[*peer].view.leaving.is_none();
        self.side.live.iter().copied().filter(open).collect()
    }

    /// Why a connection left, if it has.
    pub(crate) fn reason(&self, peer: usize) -> Option<Reason> {
        self.side.peers[peer].view.leaving.map(|leaving| leaving.reason)
    }
}
