//! The door: who is taken, who gives way, and what is left of who is gone.

use core::net::IpAddr;

use super::{Relay, Remote};
use crate::cursor::{self, Cursor};
use crate::event::{Event, Reason};
use crate::fault::{PeerFault, Refusal, invariant_failed};
use crate::id::{ConnId, Dialects, Ref, TopicId};
use crate::limits::RESERVE;
use crate::prefix::{Network, Prefix, PrefixSlot};
use crate::quarantine::{Charge, Offence, THROTTLE, Verdict};
use crate::rate::Rate;
use crate::session::{Farewell, Flags, Pending, Phase};
use crate::storage::{Pool, Purpose};
use crate::time::{Duration, Instant};

/// Connections of an address that are looked at to find one that gives way.
const VICTIM_STEPS: u32 = 64;
/// Fullness from which no strangers are taken and every allowance is halved, in percent.
pub(super) const FULL_STRANGERS: u32 = 70;

/// Addresses that are not as others.
#[derive(Debug, Default)]
pub(super) struct Known<'s> {
    /// Who is not subject to the quarantine.
    pub(super) exempt: &'s [Network],
    /// Who says for whom he connects.
    pub(super) proxies: &'s [Network],
    /// Connections of theirs for which that is yet to be said.
    pub(super) waiting: u32,
}

/// What the door found of somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vetted {
    /// Its address is not subject to the quarantine.
    pub(super) exempt: bool,
    /// For how long it is throttled.
    pub(super) throttled: Duration,
}

impl<P: Pool> Relay<'_, P> {
    /// A connection was accepted.
    ///
    /// # Errors
    /// The door's: the frontend closes the socket, after it has tried to say so.
    pub fn handle_accept(&mut self, now: Instant, remote: Remote) -> Result<ConnId, Refusal> {
        self.enter(now);
        let admitted = self.admit(remote);
        self.count_admitted(admitted)
    }

    pub(super) fn count_admitted(
        &mut self,
        admitted: Result<ConnId, Refusal>,
    ) -> Result<ConnId, Refusal> {
        match admitted {
            Ok(_) => self.stats.accepted.bump(),
            Err(refusal) => self.count_refusal(refusal),
        }
        admitted
    }

    fn count_refusal(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Quarantined(_) => self.stats.refused_quarantined.bump(),
            Refusal::TooManyConnections => self.stats.refused_full.bump(),
            Refusal::TooManyFromAddress => self.stats.refused_per_address.bump(),
            Refusal::Overloaded | Refusal::ShuttingDown | Refusal::NoListener => {
                self.stats.refused_other.bump();
            }
        }
    }

    /// What the quarantine says of an address now, for who asks; it costs the address nothing.
    #[must_use]
    pub fn verdict(&self, now: Instant, ip: IpAddr) -> Verdict {
        self.quarantine.verdict(self.now.max(now), Prefix::of(ip))
    }

    fn admit(&mut self, remote: Remote) -> Result<ConnId, Refusal> {
        self.has_place(remote.topic)?;
        if self.is_proxy(remote.addr.ip()) {
            return self.admit_proxy(remote);
        }
        self.admit_client(remote)
    }

    /// Whether a listener's clients are taken at all, and there is a slot.
    pub(super) fn has_place(&self, listener: TopicId) -> Result<(), Refusal> {
        self.serves(listener)?;
        // Each that has a slot may be of a prefix of its own, and then there is none to spare.
        if self.sessions.used() >= self.sessions.capacity() {
            return Err(Refusal::TooManyConnections);
        }
        Ok(())
    }

    /// Somebody of whom it is known where it is.
    pub(super) fn admit_client(&mut self, remote: Remote) -> Result<ConnId, Refusal> {
        let ip = remote.addr.ip();
        let vetted = self.vet(ip, remote.topic)?;
        let prefix = self.prefixes.find_or_make(Prefix::of(ip));
        self.may_join(prefix, vetted, remote.topic)?;
        let slot = self.take_slot(prefix, remote, Phase::Open)?;
        self.let_in(slot, remote.topic, vetted);
        Ok(self.id(slot))
    }

    /// Somebody who has proved to another shard who it is. What an address may that has done so is
    /// known there; here it is one connection more of it.
    #[cfg(feature = "native-sessions")]
    pub(super) fn admit_proved(&mut self, remote: Remote) -> Result<ConnId, Refusal> {
        let ip = remote.addr.ip();
        let exempt = self.is_exempt(ip);
        self.has_memory()?;
        let prefix = self.prefixes.find_or_make(Prefix::of(ip));
        let most = self.limits.quarantine.connections_per_prefix;
        if !exempt && self.prefixes.at(prefix).conns >= most {
            return Err(Refusal::TooManyFromAddress);
        }
        let slot = self.take_slot(prefix, remote, Phase::Open)?;
        self.let_in(slot, remote.topic, Vetted { exempt, throttled: Duration::ZERO });
        Ok(self.id(slot))
    }

    /// A proxy that speaks for itself is not refused for what its clients do, nor for looking often
    /// whether the relay is there.
    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.known.exempt.iter().chain(self.known.proxies).any(|net| net.contains(ip))
    }

    /// Whether a listener's clients are taken at all.
    pub(super) fn serves(&self, listener: TopicId) -> Result<(), Refusal> {
        let known = self.topics.find(listener.slot).is_some_and(|topic| topic.bound != 0);
        let native = listener.dialects != Dialects::Line;
        if !known || (native && self.natives.lobby.is_none()) {
            return Err(Refusal::NoListener);
        }
        if self.draining.is_some() {
            return Err(Refusal::ShuttingDown);
        }
        Ok(())
    }

    /// Whether somebody from that address is taken, and how.
    pub(super) fn vet(&mut self, ip: IpAddr, listener: TopicId) -> Result<Vetted, Refusal> {
        let exempt = self.is_exempt(ip);
        let throttled = if exempt {
            Duration::ZERO
        } else if listener.dialects == Dialects::Line {
            self.inspect(ip)?
        } else {
            self.glance(ip)?
        };
        self.has_memory()?;
        Ok(Vetted { exempt, throttled })
    }

    pub(super) fn has_memory(&self) -> Result<(), Refusal> {
        if self.memory.fullness() >= FULL_STRANGERS { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    /// Whether who was vetted is not one too many of its address.
    pub(super) fn may_join(
        &self,
        prefix: Ref,
        vetted: Vetted,
        listener: TopicId,
    ) -> Result<(), Refusal> {
        if vetted.exempt {
            return Ok(());
        }
        let others = self.prefixes.at(prefix).conns;
        self.has_room(prefix, others, listener.dialects != Dialects::Line)
    }

    /// A slot for a connection, which is nobody's yet.
    pub(super) fn take_slot(
        &mut self,
        prefix: Ref,
        remote: Remote,
        phase: Phase,
    ) -> Result<Ref, Refusal> {
        self.make_way(prefix)?;
        let slot = self.sessions.take().ok_or(Refusal::TooManyConnections)?;
        let session = self.sessions.at_mut(slot);
        session.set_phase(phase);
        session.set_remote(remote.addr);
        self.enlist(slot, prefix);
        Ok(slot)
    }

    /// A connection that was taken begins.
    pub(super) fn let_in(&mut self, slot: Ref, listener: TopicId, vetted: Vetted) {
        let session = self.sessions.at_mut(slot);
        session.heard_at = self.now;
        session.acknowledged_at = self.now;
        if vetted.exempt {
            session.flags.set(Flags::EXEMPT);
        }
        session.throttle(self.now, vetted.throttled);
        if listener.dialects == Dialects::Line {
            self.sit_down(slot, listener.slot);
        } else {
            self.await_hello(slot, listener.slot, listener.dialects);
        }
        self.arm(slot);
    }

    /// Somebody who has a place already is refused, and told so by `words`; but where its address
    /// has too many places, and many of those read their last words, it is closed at once.
    pub(super) fn turn_off(&mut self, slot: Ref, refusal: Refusal, words: &[u8]) {
        self.count_refusal(refusal);
        let conns = self.prefixes.at(self.sessions.at(slot).prefix).conns;
        let most = self.limits.quarantine.connections_per_prefix;
        if conns > most.saturating_add(self.limits.native.half_open_per_prefix) {
            return self.close(slot, Reason::Refused(refusal));
        }
        let mut output = self.sessions.at(slot).output;
        let all = words.len().saturating_sub(cfg!(wardline_mutant = "last_word_cut").into());
        let words = words.get(..all).unwrap_or_default();
        if output.push(&mut self.memory, Purpose::Output, words).is_err() {
            self.stats.warnings_dropped.bump();
        }
        self.sessions.at_mut(slot).output = output;
        self.leave(slot, Reason::Refused(refusal), Farewell::None, false);
    }

    /// Has a connection of the line dialect read its topic.
    pub(super) fn sit_down(&mut self, slot: Ref, on: Ref) {
        let Some(cursor) = self.cursors.take() else {
            invariant_failed("fewer cursors than sessions");
        };
        let far = self.topics.at(on).home().is_some();
        let joined = if far { self.links.far(on).sent } else { 0 };
        let session = self.sessions.at_mut(slot);
        session.topic = on;
        session.cursor = cursor;
        session.joined = joined;
        let topic = self.topics.at_mut(on);
        topic.cursors = topic.cursors.saturating_add(1);
        *self.cursors.at_mut(cursor) = Cursor::new(slot, topic.log.head);
        cursor::wait(&mut self.cursors, &mut topic.waiting, cursor);
        self.readers_changed(on);
    }

    /// What the quarantine says of a stranger; gives for how long it is throttled.
    pub(super) fn inspect(&mut self, ip: IpAddr) -> Result<Duration, Refusal> {
        match self.knock(Prefix::of(ip)) {
            Verdict::Refused(span) => Err(Refusal::Quarantined(span)),
            Verdict::Throttled(span) | Verdict::Puzzled(span) => Ok(span),
            Verdict::Free => Ok(Duration::ZERO),
        }
    }

    /// Somebody who may have a session already is heard even from an address that is refused
    /// (PROTOCOL.md 2.2.5), while few of that address are waited for.
    fn glance(&mut self, ip: IpAddr) -> Result<Duration, Refusal> {
        let prefix = Prefix::of(ip);
        if let Verdict::Refused(span) = self.quarantine.verdict(self.now, prefix) {
            let slot = self.prefixes.find_or_make(prefix);
            if self.prefixes.at(slot).strangers >= self.limits.native.half_open_per_prefix {
                return Err(Refusal::Quarantined(span));
            }
        }
        Ok(Duration::ZERO)
    }

    /// An address begins something new, and nobody has proved anything: what the quarantine says
    /// of it now. One that is refused is not charged for asking.
    pub(super) fn knock(&mut self, prefix: Prefix) -> Verdict {
        if let refused @ Verdict::Refused(_) = self.quarantine.verdict(self.now, prefix) {
            return refused;
        }
        let slot = self.prefixes.find_or_make(prefix);
        let rate = Rate::per_minute(self.limits.quarantine.connects_per_minute);
        if self.prefixes.connect(slot, rate, self.now) {
            self.stats.flapping.bump();
            let good = self.prefixes.at(slot).good;
            self.charge(slot, Offence::Flapping, good);
        }
        self.quarantine.verdict(self.now, prefix)
    }

    /// Whether an address that has `others` connections may have one more. A native one that is too
    /// many may yet be a session that comes back, in place of a connection of before: only who
    /// begins anew is one too many ([`Relay::room_for`]), and few are waited for.
    pub(super) fn has_room(&self, prefix: Ref, others: u32, native: bool) -> Result<(), Refusal> {
        let most = self.limits.quarantine.connections_per_prefix;
        let full = if native {
            let PrefixSlot { strangers, good, .. } = *self.prefixes.at(prefix);
            // What has ended and is not read to its end has a place for a while, and no session.
            strangers >= self.limits.native.half_open_per_prefix
                || others.saturating_sub(good) >= most
        } else {
            self.connections() >= (self.limits.connections / 10).saturating_mul(7)
        };
        if full && others >= most { Err(Refusal::TooManyFromAddress) } else { Ok(()) }
    }

    /// Sees to a free slot. When connections are full, one of the prefix that holds most gives way,
    /// unless the newcomer's own holds as many. Those that wait to be named are nobody's, are few,
    /// and do not wait for long.
    fn make_way(&mut self, prefix: Ref) -> Result<(), Refusal> {
        let used = self.connections();
        let mine = self.prefixes.at(prefix).own();
        if used < self.limits.connections {
            return Ok(());
        }
        let Some(heaviest) = self.prefixes.heaviest() else {
            return Err(Refusal::TooManyConnections);
        };
        let heavy = self.prefixes.at(heaviest);
        if heavy.own() <= mine.saturating_add(1) {
            return Err(Refusal::TooManyConnections);
        }
        let victim = self.victim(heavy.youngest).ok_or(Refusal::TooManyConnections)?;
        self.stats.evicted_for_newcomer.bump();
        let spare = self.sessions.capacity().saturating_sub(self.sessions.used());
        // While it is told, it has its slot still.
        if self.sessions.at(victim).flags.has(Flags::NATIVE) && spare > RESERVE / 2 {
            self.give_way(victim);
        } else {
            self.close(victim, Reason::Fault(PeerFault::Evicted));
        }
        Ok(())
    }

    /// Who gives way of an address: the youngest that is over or has proved nothing, else the
    /// youngest that the operator does not know.
    fn victim(&self, youngest: Ref) -> Option<Ref> {
        let (mut next, mut proved) = (youngest, None);
        for _ in 0..VICTIM_STEPS {
            let Some(slot) = next.some() else { break };
            let session = self.sessions.at(slot);
            next = session.older;
            let waits = cfg!(wardline_mutant = "who_waits_is_its_proxys")
                && session.phase() == Phase::Proxied;
            if session.phase() == Phase::Finished || waits {
                return Some(slot);
            }
            if !session.is_open() {
                continue;
            }
            if !session.flags.has(Flags::NATIVE) || !self.has_session(slot) {
                return Some(slot);
            }
            if proved.is_none() && !self.is_known(slot) {
                proved = Some(slot);
            }
        }
        proved
    }

    pub(super) fn enlist(&mut self, slot: Ref, prefix: Ref) {
        let waits = self.sessions.at(slot).phase() == Phase::Proxied;
        self.prefixes.join(prefix, waits);
        let old = core::mem::replace(&mut self.prefixes.at_mut(prefix).youngest, slot);
        if old.is_some() {
            self.sessions.at_mut(old).younger = slot;
        }
        let session = self.sessions.at_mut(slot);
        session.prefix = prefix;
        session.older = old;
        session.younger = Ref::NONE;
    }

    pub(super) fn delist(&mut self, slot: Ref) {
        let (prefix, older, younger) = {
            let session = self.sessions.at(slot);
            (session.prefix, session.older, session.younger)
        };
        if older.is_some() {
            self.sessions.at_mut(older).younger = younger;
        }
        match younger.some() {
            Some(younger) => self.sessions.at_mut(younger).older = older,
            None => self.prefixes.at_mut(prefix).youngest = older,
        }
        self.prefixes.part(prefix);
    }

    /// The socket is closed and nothing of it is under way any more: the slot is free. A frontend
    /// may say so at any time, if the peer is gone and nothing is under way.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        if self.sessions.at(slot).is_living() {
            self.tell(Event::Leaving { conn, reason: Reason::Peer });
        }
        self.end_wait(slot);
        self.stats.closed.bump();
        self.unstall(slot);
        self.drop_cursor(slot);
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            self.forget_native(slot);
        }
        self.wheel.disarm(&mut self.sessions, slot);
        let session = self.sessions.at_mut(slot);
        let (mut input, mut output) = (session.input, session.output);
        input.clear(&mut self.memory, Purpose::Input);
        if !cfg!(wardline_mutant = "block_leaked") {
            output.clear(&mut self.memory, Purpose::Output);
        }
        self.delist(slot);
        let session = self.sessions.at_mut(slot);
        session.input = input;
        session.output = output;
        session.pending = Pending::default();
        session.set_phase(Phase::Free);
        self.release_if_free(slot);
    }

    /// Gives the slot of a connection back that is gone and in no list any more. Until then late
    /// completions find a slot that is nobody's.
    pub(super) fn release_if_free(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        let listed = session.flags.has(Flags::READY) || session.flags.has(Flags::QUEUED);
        if session.phase() == Phase::Free && !listed {
            session.wipe();
            self.sessions.give(slot);
        }
    }

    /// Takes the cursor of a connection out of its topic; gives what then nobody needs back.
    pub(super) fn drop_cursor(&mut self, slot: Ref) {
        self.leave_patience(slot);
        let session = self.sessions.at_mut(slot);
        let topic = session.topic;
        let Some(cursor) = core::mem::take(&mut session.cursor).some() else { return };
        let item = self.topics.at_mut(topic);
        cursor::leave(&mut self.cursors, &mut self.memory, &mut item.waiting, cursor);
        self.cursors.give(cursor);
        item.cursors = item.cursors.saturating_sub(1);
        item.log.trim(&mut self.memory);
        self.links.gave_way();
        self.readers_changed(topic);
    }

    /// Charges the address of a connection.
    pub(super) fn offend(&mut self, slot: Ref, offence: Offence) {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::EXEMPT) {
            return;
        }
        let prefix = session.prefix;
        // Who offends does not speak for its address.
        let own = session.flags.has(Flags::NATIVE) && self.has_session(slot);
        let good = self.prefixes.at(prefix).good.saturating_sub(u32::from(own));
        let charge = self.charge(prefix, offence, good);
        self.struck(slot, charge, false);
    }

    /// Refuses the address of a connection for a while.
    pub(super) fn banish(&mut self, slot: Ref, offence: Offence) {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::EXEMPT) {
            return;
        }
        let key = self.prefixes.at(session.prefix).key;
        let span = self.limits.quarantine.cooldown;
        let live = self.prefixes.live();
        let charge = self.quarantine.refuse(self.now, key, offence, live, span);
        self.count_charge(charge);
        self.spread(key, charge);
        self.struck(slot, charge, false);
    }

    fn charge(&mut self, prefix: Ref, offence: Offence, good: u32) -> Charge {
        self.stats.offence_points.add(u64::from(offence.points()));
        let live = self.prefixes.live();
        let key = self.prefixes.at(prefix).key;
        let charge = self.quarantine.charge(self.now, key, offence, live, good);
        self.count_charge(charge);
        self.spread(key, charge);
        charge
    }

    pub(super) fn count_charge(&mut self, charge: Charge) {
        match charge {
            Charge::Noted => {}
            Charge::Withheld => self.stats.strikes_withheld.bump(),
            Charge::Struck { to_parent, .. } => {
                self.stats.strikes.bump();
                if to_parent {
                    self.stats.strikes_to_parent.bump();
                }
            }
        }
    }

    pub(super) fn struck(&mut self, slot: Ref, charge: Charge, identity: bool) {
        if let Charge::Struck { strikes, seconds, .. } = charge {
            let span = Duration::from_secs(u64::from(seconds)).max(THROTTLE);
            self.sessions.at_mut(slot).throttle(self.now, span);
            let conn = self.id(slot);
            self.tell(Event::Struck { conn, strikes, seconds, identity });
        }
    }
}
