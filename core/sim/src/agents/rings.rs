//! Shards beside the one that native clients are on: rings between relays, slow and short, over
//! which lines come and go.

use wardline_core::Ring;

use super::states::State;
use super::world::World;
use crate::rng::Rng;
use crate::wire::{RINGS, Wire};

/// Leaps of time on end in which a ring may carry nothing.
const SKIPS_MAX: u32 = 2;
/// Bytes that are brought at once at least: no more come than there are places for events.
const BROUGHT: usize = 4_000;

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Rings {
    shards: usize,
    wires: Vec<Wire>,
    carry_percent: u32,
    /// Shards that said that what was left is to be brought again.
    pub(crate) wanted: Vec<bool>,
}

impl Rings {
    pub(crate) fn new(shards: usize, record: usize, rng: &mut Rng<'_>) -> Self {
        let mut wire = || Wire::new(record * rng.pick(&[1, 1, 2, 16, 100]));
        let wires = (0..if shards > 1 { shards * shards * 2 } else { 0 }).map(|_| wire()).collect();
        let carry_percent = if shards > 1 { rng.pick(&[100, 100, 60, 20, 5]) } else { 0 };
        Self { shards, wires, carry_percent, wanted: vec![false; shards] }
    }

    fn wire(&mut self, from: usize, to: usize, ring: Ring) -> &mut Wire {
        &mut self.wires[(from * self.shards + to) * 2 + ring as usize]
    }

    /// Each ring: from, to, which.
    fn all(&self) -> impl Iterator<Item = (usize, usize, Ring)> + use<> {
        let shards = if self.wires.is_empty() { 0 } else { self.shards };
        let pairs = (0..shards).flat_map(move |from| (0..shards).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        pairs.flat_map(|(from, to)| RINGS.map(move |ring| (from, to, ring)))
    }
}

impl World<'_, '_> {
    /// Now and then one ring carries something, or a part of it.
    pub(crate) fn carry_some(&mut self) {
        let shards = self.relays.len() as u64;
        if self.side.rng.percent(self.rings.carry_percent) {
            let (from, to) = (self.side.rng.below(shards), self.side.rng.below(shards));
            if from != to {
                let ring = self.side.rng.pick(&RINGS);
                self.give(from as usize, to as usize, ring);
                self.take(from as usize, to as usize, ring, true);
            }
        }
    }

    /// Before time goes on most rings carry what there is. Gives whether anything moved.
    pub(crate) fn carry_all(&mut self) -> bool {
        let mut moved = false;
        for (from, to, ring) in self.rings.all() {
            let skip = !self.side.calm && self.side.rng.one_in(3);
            let wire = self.rings.wire(from, to, ring);
            if skip && wire.skipped < SKIPS_MAX {
                wire.skipped += 1;
                continue;
            }
            wire.skipped = 0;
            moved |= self.give(from, to, ring) > 0;
            let (done, again) = self.take(from, to, ring, false);
            moved |= done > 0 || again;
        }
        moved || self.relays.iter().any(|relay| relay.shard().1 > 1 && relay.link_again())
    }

    /// Whether nothing is on its way between shards.
    pub(crate) fn rings_rest(&mut self) -> bool {
        self.rings.all().all(|(from, to, ring)| {
            let empty = self.rings.wire(from, to, ring).bytes.is_empty();
            empty && !self.relays[from].link_has(to as u8, ring)
        })
    }

    /// A shard puts what it has into a ring; gives how much.
    fn give(&mut self, from: usize, to: usize, ring: Ring) -> usize {
        // What it took must be known before others have it.
        self.drain_one(from);
        let now = self.now();
        let wire = self.rings.wire(from, to, ring);
        let mut room = vec![0; wire.bytes_max - wire.bytes.len()];
        let relay = &mut self.relays[from];
        let len = relay.link_take(now, to as u8, ring, &mut room);
        if relay.link_has(to as u8, ring) {
            self.side.states.hit(match ring {
                Ring::Log => State::LogRingFull,
                Ring::Publish => State::PublishRingFull,
            });
        }
        wire.bytes.extend(&room[..len]);
        self.rings.wanted[from] |= relay.link_again();
        len
    }

    /// A shard takes what a ring has, or a part of it; gives how much, and whether it wants another
    /// turn for the rest.
    fn take(&mut self, from: usize, to: usize, ring: Ring, partly: bool) -> (usize, bool) {
        self.drain_one(to);
        if std::mem::take(&mut self.rings.wanted[to]) {
            for (from, other, ring) in self.rings.all() {
                if other == to {
                    self.rings.wire(from, to, ring).left = 0;
                }
            }
        }
        let mut bytes = std::mem::take(&mut self.rings.wire(from, to, ring).bytes);
        let part = partly && self.side.rng.one_in(3);
        let len = if part { self.side.rng.up_to(bytes.len()) } else { bytes.len() };
        if len > 0 && len <= self.rings.wire(from, to, ring).left {
            self.rings.wire(from, to, ring).bytes = bytes;
            return (0, false);
        }
        let (mut done, mut again) = (0, false);
        while done < len && !again {
            let now = self.now();
            let relay = &mut self.relays[to];
            let end = len.min(done + relay.limits().record_bytes_max().max(BROUGHT));
            let waits = relay.stats().link_waits.value();
            let taken = relay.handle_link(now, from as u8, ring, &bytes[done..end]);
            if relay.stats().link_waits.value() > waits {
                self.side.states.hit(State::RingWaited);
            }
            done += taken.bytes;
            again = taken.again;
            self.drain_one(to);
            self.check();
            if taken.bytes == 0 {
                break;
            }
        }
        bytes.drain(..done);
        let wire = self.rings.wire(from, to, ring);
        wire.bytes = bytes;
        wire.left = if again { 0 } else { len - done };
        (done, again)
    }
}
