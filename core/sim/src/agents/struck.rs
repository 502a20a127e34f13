//! Identities that were struck: who has to solve the harder puzzle, and where it is set.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wardline_core::Access as _;

use super::link::Link;
use super::net::Owner;
use super::side::Side;
use super::states::State;

/// The harder puzzle, which nobody else is set.
pub(crate) const PUZZLE_BITS: u8 = 7;
/// The least that the second level lasts, and the most that it may.
const LEAST_NS: u64 = 240_000_000_000;
const MOST_NS: u64 = 301_000_000_000;
/// Strikes are heard of late, by as much at most, and their ends are told in whole seconds.
const LATE_NS: u64 = 10_000_000_000;

/// Since when everybody at an address is set the harder puzzle, and until when at least; by the
/// shard that asked for it, and later by others.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since_ns: u64,
    until_ns: u64,
    shard: usize,
}

impl Asked {
    /// Whether it is known to a shard for sure by then.
    fn is_known(&self, shard: usize, then_ns: u64) -> bool {
        let late_ns = if shard == self.shard { 0 } else { LATE_NS };
        then_ns > self.since_ns + late_ns
    }
}

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Struck {
    /// When an identity was struck the second time, until it is struck again.
    puzzled: BTreeMap<[u8; 32], u64>,
    /// When one was last.
    last_ns: Option<u64>,
    /// Where somebody was asked for the harder puzzle, as far as it was seen.
    asked: BTreeMap<IpAddr, Asked>,
}

impl Side<'_> {
    /// The identity of a connection was struck.
    pub(crate) fn identity_struck(&mut self, index: usize, strikes: u8) {
        let Owner::Agent(agent) = self.conns[index].owner else { panic!("an identity of nobody") };
        let who = self.agents[agent].identity;
        assert!(self.agents[agent].wild, "who is honest was struck");
        if strikes == 2 {
            self.struck.puzzled.insert(*who.as_bytes(), self.now_ns);
            self.struck.last_ns = Some(self.now_ns);
        } else {
            self.struck.puzzled.remove(who.as_bytes());
        }
    }

    /// An AUTH was answered by PUZZLE_REQUIRED, though it had solved what it was set.
    pub(crate) fn puzzle_wanted(&mut self, index: usize) {
        self.states.hit(State::PuzzleWanted);
        let Owner::Agent(agent) = self.conns[index].owner else { panic!("noise has no keys") };
        let who = self.agents[agent].identity;
        assert!(self.plan.strict && self.rights.enrolled(&who), "no identity that is charged");
        let then_ns = self.struck.puzzled.get(who.as_bytes()).copied().unwrap_or(self.now_ns);
        let ip = self.conns[index].addr.ip();
        let until_ns = then_ns + LEAST_NS - LATE_NS;
        let now_ns = self.now_ns;
        let (opened_ns, shard) = (self.conns[index].opened_ns, self.conns[index].shard);
        let mut asked = Asked { since_ns: now_ns, until_ns, shard };
        if let Some(known) = self.struck.asked.get(&ip)
            && now_ns < known.until_ns
        {
            // The shard that set it its puzzle may be another one.
            let set_by = if self.plan.shards > 1 { usize::MAX } else { shard };
            let known_then = known.is_known(set_by, opened_ns);
            assert!(!known_then, "connection {index}: the puzzle was to be set already");
            asked = Asked { until_ns: until_ns.max(known.until_ns), ..*known };
        }
        self.struck.asked.insert(ip, asked);
    }

    /// Somebody was set a puzzle.
    pub(crate) fn puzzle_set(&mut self, index: usize, bits: u8) {
        let conn = &self.conns[index];
        let asked = self.struck.asked.get(&conn.addr.ip()).copied();
        if let Some(asked) = asked
            && asked.is_known(conn.shard, conn.opened_ns)
            && self.now_ns < asked.until_ns
        {
            assert!(bits >= PUZZLE_BITS, "connection {index}: {bits} bits, after who was struck");
        }
        let due = self.struck.last_ns.is_some_and(|then_ns| conn.opened_ns < then_ns + MOST_NS);
        assert!(due || bits < PUZZLE_BITS || conn.meddled, "connection {index}: {bits} bits");
    }

    /// Somebody was let in by a full handshake.
    pub(crate) fn let_in(&mut self, index: usize, link: &Link) {
        let who = self.agents[link.agent].identity;
        let Some(then_ns) = self.struck.puzzled.get(who.as_bytes()).copied() else { return };
        let conn = &self.conns[index];
        if conn.opened_ns > then_ns && self.now_ns < then_ns + LEAST_NS - LATE_NS {
            assert!(link.bits >= PUZZLE_BITS, "connection {index}: it was struck, and let in");
            self.states.hit(State::PuzzleSolved);
        }
    }

    /// Whether an attempt may have been told that it has to solve a harder puzzle.
    pub(crate) fn may_be_puzzled(&self, link: &Link) -> bool {
        let who = &self.agents[link.agent].identity;
        let able = self.plan.strict && link.challenged && self.rights.enrolled(who);
        able && link.bits < PUZZLE_BITS
    }
}
