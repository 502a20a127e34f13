//! Several shards of one process: their worlds, and the rings between them, which are slow, short
//! and sometimes stuck.

use wardline_core::{Instant, Ring, Verdict};

use crate::lent::Lent;
use crate::places::Place;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::wire::{RINGS, Wire};
use crate::world::World;
use crate::{Places, Report};

/// Leaps of time on end in which a link may carry nothing, unless its shard is stuck.
const SKIPS_MAX: u32 = 2;
/// Turns in which a log ring must have been drained, whatever others do.
const DRAIN_TURNS_MAX: u32 = 20_000;
/// Virtual time in which everything must have drained once the faults are over.
const DRAINED_NS: u64 = 60_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// The longest leap of time, in nanoseconds for each millisecond of an ordinary one.
const LEAPS_MAX: u64 = 20_000_000;

/// The shards, and what is between them.
#[derive(Debug)]
struct Cluster<'s, 'b> {
    worlds: Vec<World<'s, 'b>>,
    wires: Vec<Wire>,
    rng: Rng<'b>,
    carry_percent: u32,
    /// Who does nothing, until when.
    stuck: Option<(usize, u64)>,
    quiet: u32,
    spun: u32,
}

/// Runs a seed as `shards` shards.
pub(crate) fn run(mut rng: Rng<'_>, ops: u64, check_all: bool, shards: usize) -> Report {
    let mut plan = Plan::draw(&mut rng);
    plan.clients = (plan.clients / shards).max(4);
    plan.topics = plan.topics.max(2);
    let limits = &mut plan.limits;
    let most = limits.blocks / 4 * limits.block_bytes;
    limits.line.envelope_bytes_max = limits.line.envelope_bytes_max.min(most);
    // Nobody says frames here: so rings are made for lines, and are full at times.
    limits.native.payload_bytes_max = 1;
    let mut lent: Vec<Lent> = (0..shards).map(|_| Lent::new(&plan, shards)).collect();
    let mut cluster = Cluster::new(&plan, rng, &mut lent, check_all);
    for _ in 0..ops {
        cluster.step();
    }
    cluster.end();
    cluster.report()
}

impl<'s, 'b> Cluster<'s, 'b> {
    fn new(plan: &Plan, mut rng: Rng<'b>, lent: &'s mut [Lent], check_all: bool) -> Self {
        let shards = lent.len();
        let shared = Shared::new(&World::topics(plan), shards);
        let mut worlds = Vec::new();
        for (shard, lent) in lent.iter_mut().enumerate() {
            let own = Rng::seeded(rng.below(u64::MAX));
            let shared = std::rc::Rc::clone(&shared);
            worlds.push(World::new(plan.clone(), own, lent, check_all, (shard, shards, shared)));
        }
        let record = plan.limits.record_bytes_max();
        let wire = |rng: &mut Rng<'b>| Wire::new(record * rng.pick(&[1, 1, 2, 16, 100]));
        let wires = (0..shards * shards * RINGS.len()).map(|_| wire(&mut rng)).collect();
        let carry_percent = rng.pick(&[100, 100, 60, 20, 5]);
        Self { worlds, wires, rng, carry_percent, stuck: None, quiet: 0, spun: 0 }
    }

    fn now_ns(&self) -> u64 {
        self.worlds[0].side.now_ns
    }

    fn is_stuck(&self, shard: usize) -> bool {
        self.stuck.is_some_and(|(stuck, _)| stuck == shard)
    }

    fn awake(&mut self) -> usize {
        let shards = self.worlds.len();
        let drawn = self.rng.below(shards as u64) as usize;
        if self.is_stuck(drawn) { (drawn + 1) % shards } else { drawn }
    }

    fn step(&mut self) {
        if self.stuck.is_some_and(|(_, until)| until <= self.now_ns()) {
            self.wake();
        }
        match self.rng.below(800) {
            0 if self.stuck.is_none() => {
                let shard = self.awake();
                self.worlds[shard].settle();
                self.worlds[shard].side.places.hit(Place::Stuck);
                let span = self.rng.pick(&[5_000_000, 200_000_000, 3 * SECOND_NS]);
                self.stuck = Some((shard, self.now_ns() + span));
            }
            1 if self.stuck.is_none() && self.rng.one_in(2) => self.die_for_a_while(),
            _ => self.ordinary(),
        }
        if self.rng.percent(self.carry_percent) {
            let (from, to) = (self.awake(), self.awake());
            if from != to {
                let ring = self.rng.pick(&RINGS);
                self.give(from, to, ring);
                self.take(from, to, ring, true);
            }
        }
    }

    /// Who was stuck goes on.
    fn wake(&mut self) {
        let now_ns = self.now_ns();
        if let Some((stuck, _)) = self.stuck.take() {
            self.worlds[stuck].side.woke_ns = now_ns;
        }
    }

    fn ordinary(&mut self) {
        let shard = self.awake();
        self.worlds[shard].step();
        if std::mem::take(&mut self.worlds[shard].wants_time) {
            let leap = self.worlds[shard].leap();
            // To what this one waits for, but not far beyond what others do.
            let most = self.worlds[shard].side.plan.habits.leap_ms * LEAPS_MAX;
            self.leap(leap.min(most));
            if self.rng.one_in(3) {
                let now = self.worlds[shard].now();
                self.worlds[shard].relay.handle_timeout(now);
                self.worlds[shard].settled = false;
            }
        }
    }

    /// Time goes on for all.
    fn leap(&mut self, leap: u64) {
        for from in 0..self.worlds.len() {
            for to in 0..self.worlds.len() {
                if from == to || self.is_stuck(from) || self.is_stuck(to) {
                    continue;
                }
                for ring in RINGS {
                    let skip = self.rng.one_in(3);
                    let wire = self.wire(from, to, ring);
                    if skip && wire.skipped < SKIPS_MAX {
                        wire.skipped += 1;
                    } else {
                        wire.skipped = 0;
                        self.give(from, to, ring);
                        self.take(from, to, ring, false);
                    }
                }
            }
        }
        for shard in 0..self.worlds.len() {
            if !self.is_stuck(shard) {
                if self.rng.one_in(4) {
                    self.drain_log_rings(shard);
                }
                self.worlds[shard].tell_waits();
                self.worlds[shard].settle();
            }
        }
        for world in &mut self.worlds {
            world.side.now_ns += leap;
        }
    }

    fn wire_at(&self, from: usize, to: usize, ring: Ring) -> usize {
        (from * self.worlds.len() + to) * RINGS.len() + ring as usize
    }

    fn wire(&mut self, from: usize, to: usize, ring: Ring) -> &mut Wire {
        let nth = self.wire_at(from, to, ring);
        &mut self.wires[nth]
    }

    /// A shard puts what it has into a ring; gives how much.
    fn give(&mut self, from: usize, to: usize, ring: Ring) -> usize {
        // What it took must be known before others have it.
        self.worlds[from].settle();
        let wire = self.wire(from, to, ring);
        let mut room = vec![0; wire.bytes_max - wire.bytes.len()];
        let world = &mut self.worlds[from];
        let len = world.relay.link_take(world.now(), to as u8, ring, &mut room);
        if world.relay.link_has(to as u8, ring) {
            world.side.places.hit(match ring {
                Ring::Log => Place::LogRingFull,
                Ring::Publish => Place::PublishRingFull,
            });
        }
        world.settled &= len == 0;
        world.wants_links |= world.relay.link_again();
        world.check();
        self.wire(from, to, ring).bytes.extend(&room[..len]);
        len
    }

    /// A shard takes what a ring has, or a part of it; gives how much, and whether it wants
    /// another turn for the rest.
    fn take(&mut self, from: usize, to: usize, ring: Ring, partly: bool) -> (usize, bool) {
        // Who leaves is known before others must give way.
        self.worlds[to].settle();
        if std::mem::take(&mut self.worlds[to].wants_links) {
            self.bring_all_again(to);
        }
        let mut bytes = std::mem::take(&mut self.wire(from, to, ring).bytes);
        let part = partly && self.rng.one_in(3);
        let len = if part { self.rng.up_to(bytes.len()) } else { bytes.len() };
        if len > 0 && len <= self.wire(from, to, ring).left {
            self.wire(from, to, ring).bytes = bytes;
            return (0, false);
        }
        let world = &mut self.worlds[to];
        let (mut done, mut again) = (0, false);
        // No more at once than there are places for events.
        while done < len && !again {
            let end = len.min(done + world.relay.limits().record_bytes_max().max(4_000));
            let now = world.now();
            let harsh = |world: &World<'_, '_>| {
                let stats = world.relay.stats();
                stats.replica_cuts.value() + stats.evicted_for_memory.value()
            };
            let (waits, before) = (world.relay.stats().link_waits.value(), harsh(world));
            let taken = world.relay.handle_link(now, from as u8, ring, &bytes[done..end]);
            if world.relay.stats().link_waits.value() > waits {
                world.side.places.hit(Place::LinkWaited);
            }
            if harsh(world) > before {
                world.excuse();
            }
            done += taken.bytes;
            again = taken.again;
            world.settled = false;
            world.settle();
            world.check();
            if taken.bytes == 0 {
                break;
            }
        }
        bytes.drain(..done);
        let wire = self.wire(from, to, ring);
        wire.bytes = bytes;
        wire.left = if again { 0 } else { len - done };
        (done, again)
    }

    /// The relay of a shard has said that what waits in the rings to it is to be brought again.
    fn bring_all_again(&mut self, to: usize) {
        for from in 0..self.worlds.len() {
            for ring in RINGS {
                self.wire(from, to, ring).left = 0;
            }
        }
    }

    /// Whatever the others do, a shard gets its log rings empty: it waits for nobody but itself.
    fn drain_log_rings(&mut self, to: usize) {
        for from in 0..self.worlds.len() {
            let mut turns = 0;
            while from != to && !self.wire(from, to, Ring::Log).bytes.is_empty() {
                let (done, _) = self.take(from, to, Ring::Log, false);
                if done == 0 {
                    self.worlds[to].end_cancelled();
                }
                turns += 1;
                assert!(turns < DRAIN_TURNS_MAX, "a log ring is not drained");
            }
        }
    }

    /// A shard does nothing for long: the others wait for it no longer than they said.
    fn die_for_a_while(&mut self) {
        let victim = self.awake();
        self.worlds[victim].settle();
        self.stuck = Some((victim, u64::MAX));
        self.worlds[0].side.shared.borrow_mut().stuck[victim] = true;
        let mut waited = vec![0; self.worlds.len()];
        for _ in 0..14 {
            for _ in 0..self.rng.up_to(20) {
                self.ordinary();
            }
            for (shard, waited) in waited.iter_mut().enumerate() {
                if shard == victim {
                    continue;
                }
                // What it had said before is a sign of life, whenever that is taken.
                let said =
                    |ring: &Ring| !self.wires[self.wire_at(victim, shard, *ring)].bytes.is_empty();
                let silent = !RINGS.iter().any(said);
                let mut has = false;
                for ring in RINGS {
                    let moved = self.give(shard, victim, ring);
                    has |= moved == 0 && self.worlds[shard].relay.link_has(victim as u8, ring);
                }
                *waited = if has && silent { *waited + 1 } else { 0 };
            }
            self.leap(SECOND_NS + 2_000_000);
            for shard in 0..self.worlds.len() {
                if shard != victim {
                    self.worlds[shard].settle();
                }
            }
        }
        for (shard, waited) in waited.into_iter().enumerate() {
            let dead = self.worlds[shard].relay.stats().links_dead.value() > 0;
            assert!(waited < 13 || dead, "shard {victim} is stuck, and {shard} waits on");
        }
        self.wake();
    }

    /// Brings the run to its end, and checks it.
    fn end(&mut self) {
        self.wake();
        if self.worlds[0].side.plan.rude_shutdown {
            self.shut_down(true);
            return;
        }
        for world in &mut self.worlds {
            world.settle();
            world.be_calm();
        }
        self.until_drained();
        for world in &self.worlds {
            world.assert_drained();
        }
        self.assert_bans();
        self.call_the_roll();
        self.shut_down(false);
    }

    fn until_drained(&mut self) {
        let end = self.now_ns() + DRAINED_NS;
        while !self.is_drained() {
            assert!(self.now_ns() < end, "it does not drain: {}", self.undrained());
            self.turn();
        }
    }

    fn is_drained(&self) -> bool {
        let shards = self.worlds.len();
        let has = |world: &World<'_, '_>, to: usize| {
            to != world.side.shard && RINGS.iter().any(|ring| world.relay.link_has(to as u8, *ring))
        };
        self.wires.iter().all(|wire| wire.bytes.is_empty())
            && self.worlds.iter().all(|world| world.is_drained())
            && self.worlds.iter().all(|world| (0..shards).all(|to| !has(world, to)))
    }

    fn undrained(&self) -> String {
        let wires: Vec<usize> = self.wires.iter().map(|wire| wire.bytes.len()).collect();
        let worlds: Vec<String> = self.worlds.iter().map(World::undrained).collect();
        format!("wires {wires:?}\n{}", worlds.join("\n"))
    }

    /// A turn of all shards with quick clients and quick links; then time goes on.
    fn turn(&mut self) {
        let mut busy = false;
        for shard in 0..self.worlds.len() {
            busy |= self.worlds[shard].round();
            for to in 0..self.worlds.len() {
                for ring in RINGS {
                    if to != shard {
                        busy |= self.give(shard, to, ring) > 0;
                    }
                }
            }
            for from in 0..self.worlds.len() {
                for ring in RINGS {
                    if from != shard {
                        let (done, again) = self.take(from, shard, ring, false);
                        busy |= done > 0 || again;
                    }
                }
            }
            busy |= self.worlds[shard].relay.link_again();
        }
        if busy {
            (self.quiet, self.spun) = (0, 0);
            return;
        }
        let waits = self.worlds.iter().map(|world| world.wait.map_or(u64::MAX, Instant::as_nanos));
        let next = waits.min().unwrap_or(u64::MAX);
        let now_ns = self.now_ns();
        if next <= now_ns {
            self.quiet = 0;
            self.spun += 1;
            assert!(self.spun < 100_000, "a shard has something to do and does nothing");
            return;
        }
        self.quiet += 1;
        self.spun = 0;
        if self.quiet > 1 {
            for world in &mut self.worlds {
                world.side.now_ns = next.min(now_ns + SECOND_NS);
            }
        }
    }

    /// A ban of one shard is a ban of all.
    fn assert_bans(&mut self) {
        let shards = &self.worlds;
        let untold: u64 = shards.iter().map(|world| world.relay.stats().bans_untold.value()).sum();
        let known: usize = shards.iter().map(|world| world.side.banned.len()).sum();
        let mut hits = 0;
        for world in shards {
            for (ip, until) in &world.side.banned {
                let on = *until > world.side.now_ns + SECOND_NS;
                if !on || untold > 0 || known > 8 || world.side.plan.bans < 64 {
                    continue;
                }
                for other in shards {
                    let verdict = other.relay.verdict(other.now(), *ip);
                    let refused = matches!(verdict, Verdict::Refused(_));
                    assert!(refused, "{ip} is banned at {}, not at all", world.side.shard);
                    hits += 1;
                }
            }
        }
        for world in &mut self.worlds {
            for _ in 0..world.relay.stats().bans_from_shards.value() {
                world.side.places.hit(Place::BanAdopted);
            }
        }
        self.worlds[0].side.observe(hits);
    }

    /// Everybody says something, and all others on the topic must be sent it.
    fn call_the_roll(&mut self) {
        let mut said = vec![Vec::new(); 4];
        for world in &mut self.worlds {
            for peer in world.open() {
                let topic = world.side.peers[peer].view.topic;
                if !world.side.peers[peer].socket.fin && world.side.may_say(peer) {
                    let line = format!("here is {peer} of {}\n", world.side.shard);
                    world.side.peers[peer].socket.wire.extend_from_slice(line.as_bytes());
                    said[topic].push((world.side.shard, peer));
                }
            }
            world.side.heard.clear();
        }
        self.turn();
        self.until_drained();
        // Who was cut or refused meanwhile has said nothing.
        for said in &mut said {
            said.retain(|(shard, peer)| {
                let peer = &self.worlds[*shard].side.peers[*peer];
                !peer.gone && peer.view.leaving.is_none() && peer.view.refused == 0
            });
        }
        for world in &self.worlds {
            for peer in world.open() {
                let topic = world.side.peers[peer].view.topic;
                let others = said[topic].iter().filter(|who| **who != (world.side.shard, peer));
                let due = others.count() as u64;
                let heard = world.side.heard.get(&peer).copied().unwrap_or(0);
                let brief = || world.side.brief(peer);
                assert!(heard >= due, "{heard} of {due} were heard by {}", brief());
            }
        }
    }

    fn shut_down(&mut self, rude: bool) {
        let limits = self.worlds[0].side.plan.limits;
        let span = limits.drain.as_nanos() + limits.linger.as_nanos() * 2 + 3 * SECOND_NS;
        let spread = limits.drain_spread.as_nanos();
        let end = self.now_ns() + spread + span;
        let mut there = Vec::new();
        for world in &mut self.worlds {
            there.push(world.begin_shutdown());
        }
        while rude && self.now_ns() < end {
            self.ordinary();
            self.leap((spread + span) / 500);
        }
        for world in &mut self.worlds {
            world.settle();
            world.be_calm();
        }
        while self.worlds.iter().any(|world| world.relay.connections() > 0) {
            let late = !rude && self.now_ns() >= end;
            assert!(!late, "the shutdown does not end: {}", self.undrained());
            self.turn();
        }
        self.until_drained();
        for (world, there) in self.worlds.iter().zip(there) {
            if !rude {
                world.assert_told(there);
            }
        }
    }

    fn report(&mut self) -> Report {
        let mut report = Report { places: Places::default(), ..Report::default() };
        for world in &mut self.worlds {
            world.count_places();
            report.places.add(&world.side.places);
            report.hash = report.hash.rotate_left(7) ^ world.side.hash;
            report.steps += world.side.step;
            report.messages += world.relay.stats().published.value();
            report.virtual_ns = world.side.now_ns;
        }
        report
    }
}
