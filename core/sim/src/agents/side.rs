//! Everything but the relay: sockets, clients, and what they have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use wardline_core::native::{Code, Identity};
use wardline_core::{Access, ConnId, Instant, PeerFault, Reason, Refusal, Right, Stats, home_of};

use super::agent::Agent;
use super::link::Link;
use super::net::{Conn, Owner};
use super::plan::Plan;
use super::rights::Rights;
use super::states::{State, States};
use super::struck::Struck;
use super::text::Reader;
use super::truth::Truth;
use crate::rng::Rng;

/// The names of topics.
pub(crate) const NAMES: [&str; 7] = ["main", "a", "b", "x", "y/z", "ünï", "w"];

/// What stands around a relay.
pub(crate) struct Side<'b> {
    pub(crate) rng: Rng<'b>,
    pub(crate) plan: Plan,
    pub(crate) rights: &'b Rights,
    pub(crate) now_ns: u64,
    pub(crate) step: u64,
    /// Faults are over.
    pub(crate) calm: bool,
    /// The shard whose outputs are taken.
    pub(crate) shard: usize,
    pub(crate) conns: Vec<Conn>,
    /// What an agent thinks of a connection, by the same number.
    pub(crate) links: Vec<Option<Box<Link>>>,
    /// By shard and name.
    pub(crate) names: BTreeMap<(usize, ConnId), usize>,
    /// Connections of proxies whose clients were not taken, and what they were told.
    pub(crate) strays: BTreeMap<(usize, ConnId), Vec<u8>>,
    pub(crate) live: Vec<usize>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) texts: Vec<Reader>,
    pub(crate) truth: Truth,
    pub(crate) states: States,
    pub(crate) hash: u64,
    /// The last leap of time that clients could not keep up with: until when.
    pub(crate) leapt_ns: u64,
    /// Memory was short at some time since.
    pub(crate) short: bool,
    /// Nothing is under way anywhere.
    pub(crate) at_rest: bool,
    /// The epoch of the program that opened a connection.
    pub(crate) epochs: Vec<Option<u64>>,
    /// The number with which a handle's directs began.
    pub(crate) bases: BTreeMap<u64, u64>,
    /// Handles whose client was told Taken.
    pub(crate) heard: BTreeSet<u64>,
    /// How the door last refused somebody.
    pub(crate) refused: Option<Refusal>,
    /// Agents for which there is no room.
    pub(crate) out: BTreeSet<usize>,
    /// Somebody gave way to a newcomer.
    pub(crate) evicted: bool,
    /// When CHALLENGEs were sent in the last second.
    pub(crate) challenges: std::collections::VecDeque<u64>,
    /// HELLOs that were said, to be played back.
    pub(crate) hellos: Vec<Vec<u8>>,
    /// Identities that were struck.
    pub(crate) struck: Struck,
}

impl Side<'_> {
    /// The shard at which an agent's sessions are.
    pub(crate) fn home_of(&self, agent: usize) -> usize {
        let identity = &self.agents[agent].identity;
        home_of(identity.as_bytes(), self.plan.shards as u8).into()
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.now_ns)
    }

    /// Whether it is a proxy's whose client was not taken.
    pub(crate) fn is_stray(&self, conn: ConnId) -> bool {
        self.strays.contains_key(&(self.shard, conn))
    }

    /// The connection of that name, which is there.
    pub(crate) fn named(&self, conn: ConnId) -> usize {
        let index = *self.names.get(&(self.shard, conn)).expect("a connection that never was");
        assert!(!self.conns[index].gone, "an output for a connection that is gone");
        index
    }

    /// Folds something that was observed into the run's number.
    pub(crate) fn observe(&mut self, what: u64) {
        let mixed = (self.hash ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash = mixed ^ (mixed >> 29);
    }

    /// A socket took bytes.
    pub(crate) fn accept(&mut self, index: usize, bytes: &[u8]) {
        self.observe(bytes.len() as u64 ^ (index as u64) << 32);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.observe(u64::from_le_bytes(word));
        }
        let conn = &mut self.conns[index];
        if !conn.reset {
            conn.down.extend(bytes);
        }
    }

    /// Nothing of a connection is under way at its shard any more.
    pub(crate) fn let_go(&mut self, index: usize) {
        if self.conns[index].handover.is_some() {
            self.conns[index].moves = true;
        } else {
            self.forget(index);
        }
    }

    /// A connection is no more.
    pub(crate) fn forget(&mut self, index: usize) {
        self.conns[index].gone = true;
        self.conns[index].flight = None;
        self.live.retain(|live| *live != index);
    }

    /// Of those that are there, one for which `wanted` holds.
    pub(crate) fn any(&mut self, wanted: impl Fn(&Conn) -> bool) -> Option<usize> {
        let count = self.live.len();
        let start = self.rng.below(count as u64) as usize;
        (0..count)
            .map(|offset| self.live[(start + offset) % count])
            .find(|index| wanted(&self.conns[*index]))
    }

    /// The relay ends a connection: whether it has a reason to.
    pub(crate) fn leaves(&mut self, index: usize, reason: Reason) {
        self.at_rest = false;
        let conn = &self.conns[index];
        assert!(conn.leaving.is_none(), "it leaves twice");
        let honest = match conn.owner {
            Owner::Agent(agent) => !self.agents[agent].wild,
            Owner::Text(_) | Owner::Noise => false,
        };
        if honest {
            let due = self.is_due(index, reason);
            assert!(due, "connection {index} ends without a cause: {reason:?}");
        }
        self.conns[index].leaving = Some(reason);
    }

    fn is_due(&mut self, index: usize, reason: Reason) -> bool {
        let conn = &self.conns[index];
        let late = self.leapt_ns + 1_000_000_000 >= conn.opened_ns;
        let native = &self.plan.limits.native;
        match reason {
            Reason::Fault(PeerFault::NoProxyHeader) => false,
            // It said nothing at a door of both dialects, which made it a client of lines.
            Reason::Refused(refusal) => {
                let address =
                    matches!(refusal, Refusal::Quarantined(_) | Refusal::TooManyFromAddress);
                address && self.plan.strict && self.is_new(index)
            }
            Reason::Shutdown => true,
            Reason::Peer => conn.reset || conn.fin || conn.broken || self.said_close(index),
            Reason::Fault(PeerFault::Native(code)) => match code {
                Code::Superseded => {
                    self.states.hit(State::Superseded);
                    true
                }
                Code::Idle => {
                    self.states.hit(State::Silent);
                    self.now_ns - conn.heard_ns >= native.silence.as_nanos() - 2_000_000
                        || self.now_ns - conn.heard_ns > native.ping.as_nanos() && late
                }
                Code::HandshakeTimeout => {
                    self.states.hit(State::HandshakeTimeout);
                    let least = native.first_byte.min(native.handshake);
                    self.now_ns - conn.opened_ns >= least.as_nanos()
                }
                // A stranger's handshake is refused; its client sees why.
                Code::Refused => {
                    let withdrawn = self.is_withdrawn(index);
                    self.conns[index].withdrawn = withdrawn;
                    withdrawn || self.is_new(index)
                }
                Code::Rate | Code::TooManySessions | Code::Overloaded | Code::PuzzleRequired => {
                    self.is_new(index)
                }
                Code::TooManyConnections if self.evicted => true,
                Code::Quarantined | Code::TooManyConnections => {
                    self.plan.strict && self.is_new(index)
                }
                // Whatever it was that somebody on the path did.
                Code::BadTag | Code::BadSeq => conn.meddled,
                _ => conn.meddled && self.is_new(index),
            },
            Reason::Fault(PeerFault::SlowReader) => {
                self.states.hit(State::Cut);
                conn.slow
            }
            Reason::Fault(PeerFault::Overloaded) => {
                self.states.hit(State::Overloaded);
                true
            }
            Reason::Fault(PeerFault::Evicted) => true,
            Reason::Fault(PeerFault::Unfinished) => {
                let span = self.plan.limits.unfinished.as_nanos();
                conn.meddled || self.now_ns - conn.opened_ns >= span
            }
            // It was silent at a door of both dialects for too long.
            Reason::Fault(PeerFault::WrongDialect) => {
                self.now_ns - conn.opened_ns >= native.decide.as_nanos()
            }
            Reason::Fault(PeerFault::BadUtf8 | PeerFault::Idle) => conn.meddled,
        }
    }

    /// The door refused somebody: whether it has a reason to.
    pub(crate) fn turned_off(
        &mut self,
        refusal: Refusal,
        (shard, ip): (usize, IpAddr),
        native: bool,
    ) {
        self.refused = Some(refusal);
        if matches!(refusal, Refusal::Quarantined(_)) {
            assert!(self.plan.strict, "the quarantine of nobody");
            let stranger = |index: &&usize| {
                let conn = &self.conns[**index];
                (conn.shard, conn.addr.ip()) == (shard, ip) && self.is_new(**index)
            };
            let strangers = self.live.iter().filter(stranger).count() as u32;
            let most = self.plan.limits.native.half_open_per_prefix;
            assert!(!native || strangers >= most, "{ip} has {strangers} strangers of {most}");
        }
    }

    /// Whether an attempt may have been refused for its address, or what its identity did.
    pub(crate) fn may_be_refused(&self, link: &Link) -> bool {
        let who = self.agents[link.agent].identity;
        let wild = self.agents.iter().any(|agent| agent.identity == who && agent.wild);
        self.plan.strict && (wild || (link.challenged && !self.rights.enrolled(&who)))
    }

    /// A full handshake began. All addresses are of one neighbourhood.
    pub(crate) fn challenged(&mut self) {
        let now_ns = self.now_ns;
        self.challenges.push_back(now_ns);
        while self.challenges.front().is_some_and(|then| then + 1_000_000_000 <= now_ns) {
            self.challenges.pop_front();
        }
        let native = &self.plan.limits.native;
        let rate = native.handshakes_per_parent_second.min(native.handshakes_total_per_second);
        // Each shard counts for itself.
        let most = (rate as usize * 3 + 1) * self.plan.shards;
        let began = self.challenges.len();
        assert!(!self.plan.strict || began <= most, "{began} handshakes in a second of {rate}");
    }

    /// There was no place for a handshake: all were promised to who had proved something, or is
    /// about to go to its shard.
    pub(crate) fn no_place(&self) {
        let may_wait = |index: &&usize| {
            let conn = &self.conns[**index];
            let goes = |link: &Link| {
                link.challenged && !link.live && self.home_of(link.agent) != conn.shard
            };
            let back = |link: &Link| link.resume.is_some() && !link.live;
            let may_wait = |link: &Link| back(link) || goes(link);
            conn.owner == Owner::Noise
                || self.links[**index].as_ref().is_some_and(|link| may_wait(link))
        };
        let waits = self.live.iter().filter(may_wait).count();
        let all = self.plan.half_open;
        assert!(waits >= all, "{waits} wait for a session, and no place of {all} was had");
    }

    /// What the relay made of somebody from an address that was refused before.
    pub(crate) fn heard_refused(&mut self, index: usize, before: &Stats, after: &Stats) {
        if after.resumes != before.resumes {
            self.states.hit(State::ResumedRefused);
        }
        if after.handshakes != before.handshakes {
            let Owner::Agent(agent) = self.conns[index].owner else { return };
            let known = self.rights.enrolled(&self.agents[agent].identity);
            assert!(known, "connection {index}: a stranger of a refused address was let in");
            self.states.hit(State::KnownRefused);
        }
        if after.refused_quarantined != before.refused_quarantined {
            self.states.hit(State::StrangerRefused);
        }
    }

    fn is_new(&self, index: usize) -> bool {
        self.links[index].as_ref().is_none_or(|link| !link.is_live())
    }

    /// Whether its client may not read now what it read before.
    fn is_withdrawn(&self, index: usize) -> bool {
        let Some(link) = &self.links[index] else { return false };
        let who = self.agents[link.agent].identity;
        let denied = |right| self.rights.denied_after(&who, right, u64::MAX);
        denied(Right::Subscribe) || denied(Right::Connect)
    }

    fn said_close(&self, index: usize) -> bool {
        self.links[index].as_ref().is_some_and(|link| link.closing)
    }

    /// Whether somebody may have been denied something since a step.
    pub(crate) fn may_be_denied(&self, who: &Identity, right: Right, step: u64) -> bool {
        self.rights.denied_after(who, right, step)
    }
}
