//! The handshake of a connection, from its first byte to its session. PROTOCOL.md 2.2.5.

use super::entries::Found;
use super::slots::Stage;
use crate::access::Right;
use crate::event::Reason;
use crate::fault::{PeerFault, Refusal};
use crate::id::{Dialects, Ref};
use crate::native::handshake::server::{
    Admitted, Answer, AwaitHello, Ended, FirstRecord, Held, Unproven, Verified, Wants,
};
use crate::native::handshake::{Alert, Granted, MAGIC, handle_of};
use crate::native::{Code, Ephemeral, Identity, Next};
use crate::prefix::{Prefix, PrefixSlot};
use crate::quarantine::{Offence, Verdict};
use crate::rate::Rate;
use crate::relay::Relay;
use crate::session::{Farewell, Flags, Pending};
use crate::storage::{Pool, Purpose};
use crate::time::Duration;

/// Whether the first bytes of a connection are a native client's, which no line can begin with.
pub(in crate::relay) fn is_hello(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic)
}

/// When who asked too often may ask again.
pub(super) const RETRY_MS: u32 = 1_000;
/// Fullness of memory from which a puzzle is asked, in percent.
const FULL_PUZZLE: u32 = 85;

/// What became of the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'b> {
    /// So many more are needed.
    More(usize),
    /// So many were a message.
    Took(usize),
    /// A session's first record, of so many bytes, which is yet to be acted upon.
    First(Next<'b>),
    /// The connection is ending.
    Gone,
}

impl<P: Pool> Relay<'_, P> {
    /// A connection at a native listener, or at one of both dialects.
    pub(in crate::relay) fn await_hello(&mut self, slot: Ref, topic: Ref, takes: Dialects) {
        let lobby = self.natives.lobby;
        let session = self.sessions.at_mut(slot);
        session.topic = lobby;
        session.flags.set(Flags::NATIVE);
        let conn = self.natives.conn_mut(slot);
        conn.set_stage(Stage::Hello);
        conn.born_at = self.now;
        let prefix = self.prefixes.at_mut(self.sessions.at(slot).prefix);
        prefix.strangers = prefix.strangers.saturating_add(1);
        if takes == Dialects::Mixed {
            let conn = self.natives.conn_mut(slot);
            // Where it will be if it speaks the line dialect.
            conn.target = topic;
            self.sessions.at_mut(slot).flags.set(Flags::UNDECIDED);
        }
    }

    /// The first byte of a connection at a listener of both dialects. PROTOCOL.md 2.1.
    pub(in crate::relay) fn decide(&mut self, slot: Ref, first: u8) {
        if is_hello(&[first]) {
            self.sessions.at_mut(slot).flags.clear(Flags::UNDECIDED);
            let conn = self.natives.conn_mut(slot);
            conn.target = Ref::NONE;
            // From now on it has as long as any other.
            conn.born_at = self.now;
        } else {
            self.decide_line(slot);
        }
    }

    /// It speaks the line dialect, or nothing, which is the same: a stranger, like any other at a
    /// listener of lines.
    pub(super) fn decide_line(&mut self, slot: Ref) {
        let topic = core::mem::take(&mut self.natives.conn_mut(slot).target);
        self.no_stranger(slot);
        self.natives.conn_mut(slot).wipe();
        let session = self.sessions.at_mut(slot);
        session.flags.clear(Flags::UNDECIDED);
        session.flags.clear(Flags::NATIVE);
        match self.look_at_line(slot) {
            Ok(throttled) => {
                self.sessions.at_mut(slot).throttle(self.now, throttled);
                self.sit_down(slot, topic);
                self.arm(slot);
            }
            Err(refusal) => self.turn_off(slot, refusal, refusal.warning().as_bytes()),
        }
    }

    /// What the door asks of a client of lines; for how long it is throttled.
    fn look_at_line(&mut self, slot: Ref) -> Result<Duration, Refusal> {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::EXEMPT) {
            return Ok(Duration::ZERO);
        }
        let (prefix, ip) = (session.prefix, session.remote().ip());
        let others = self.prefixes.at(prefix).conns.saturating_sub(1);
        self.has_room(prefix, others, false)?;
        self.inspect(ip)
    }

    /// A connection has a session now, or will have none.
    pub(super) fn no_stranger(&mut self, slot: Ref) {
        if self.natives.conn(slot).stage().is_stranger() {
            let prefix = self.prefixes.at_mut(self.sessions.at(slot).prefix);
            prefix.strangers = prefix.strangers.saturating_sub(1);
        }
    }

    /// The first byte of the native dialect came where it is not taken, or too late: the client is
    /// told so in its own way, and not charged.
    pub(in crate::relay) fn wrong_dialect(&mut self, slot: Ref) {
        self.stats.wrong_dialect.bump();
        // It is no native connection, and where nobody is there may be no place for one.
        let mut output = self.sessions.at(slot).output;
        let alert = Alert::new(Code::WrongDialect, 0);
        if output.push(&mut self.memory, Purpose::Output, alert.as_bytes()).is_ok() {
            self.sessions.at_mut(slot).output = output;
            self.mark(slot, Pending::SEND);
        } else {
            self.stats.warnings_dropped.bump();
        }
        self.leave(slot, Reason::Fault(PeerFault::WrongDialect), Farewell::None, false);
    }

    /// The next step of a handshake.
    pub(super) fn greet<'b>(&mut self, slot: Ref, bytes: &'b [u8]) -> Step<'b> {
        let step = match self.natives.conn(slot).stage() {
            Stage::Hello => self.hello(slot, bytes),
            Stage::Auth => self.auth(slot, bytes),
            Stage::Waiting => self.first_record(slot, bytes),
            Stage::None | Stage::Live | Stage::Over => return Step::Gone,
        };
        step.unwrap_or_else(|ended| {
            self.turn_away(slot, ended);
            Step::Gone
        })
    }

    /// Ends a handshake: the stranger is told by an ALERT, and its address is charged.
    pub(super) fn turn_away(&mut self, slot: Ref, ended: Ended) {
        self.stats.handshakes_refused.bump();
        let form = [
            Code::BadMagic,
            Code::BadVersion,
            Code::BadLength,
            Code::BadState,
            Code::ReservedBits,
            Code::BadValue,
        ];
        if ended.code == Code::AuthFailed {
            self.offend(slot, Offence::Signature);
        } else if ended.code == Code::HandshakeTimeout {
            self.offend(slot, Offence::HandshakeTimeout);
        } else if form.contains(&ended.code) {
            self.offend(slot, Offence::Handshake);
        }
        self.say(slot, ended.alert().as_bytes());
        self.drop_half(slot);
        self.end_native(slot, ended.code, 0);
    }

    /// A connection ends for a newcomer's sake, and is told so, unless it may speak lines or must
    /// be told nothing yet.
    pub(in crate::relay) fn give_way(&mut self, slot: Ref) {
        let undecided = self.sessions.at(slot).flags.has(Flags::UNDECIDED);
        match self.natives.conn(slot).stage() {
            Stage::Hello | Stage::Auth if !undecided => {
                let code = Code::TooManyConnections;
                self.turn_away(slot, Ended { code, retry_ms: RETRY_MS });
            }
            Stage::Live => {
                self.detach(slot, true);
                self.end_native(slot, Code::TooManyConnections, RETRY_MS);
            }
            Stage::None | Stage::Hello | Stage::Auth | Stage::Waiting | Stage::Over => {
                self.close(slot, Reason::Fault(PeerFault::Evicted));
            }
        }
    }

    fn hello<'b>(&mut self, slot: Ref, bytes: &'b [u8]) -> Result<Step<'b>, Ended> {
        let wait = AwaitHello::new();
        let missing = wait.needs(bytes)?;
        if missing > 0 {
            return Ok(Step::More(missing));
        }
        let admitted = wait.hello(bytes.get(..HELLO_BYTES).unwrap_or_default())?;
        // What its address may depends on whether it proves something.
        let admitted = admitted.address(Answer::Yes)?;
        let away = admitted.wants().and_then(|sid| self.away_of(handle_of(&sid)));
        // Where sessions are not on all shards, no other one has it, whatever a stranger says.
        let away = away.filter(|_| self.natives.spread);
        if let Some(shard) = away
            && bytes.len() == HELLO_BYTES
        {
            // Nothing was answered yet: it begins there.
            return Ok(self.hand_over(slot, shard, bytes));
        }
        self.answer(slot, admitted)?;
        Ok(Step::Took(HELLO_BYTES))
    }

    /// RESUMED to who proves that it has a session's secret, wherever it comes from, else
    /// CHALLENGE.
    fn answer(&mut self, slot: Ref, admitted: Admitted) -> Result<(), Ended> {
        let entry = admitted.wants().and_then(|sid| self.entry_of(handle_of(&sid)).ok());
        let held: Option<Held> = entry.map(|entry| self.natives.entries.at(entry).held());
        match (admitted.resume(held.as_ref()), entry) {
            (Wants::Resume(proven), Some(entry)) => {
                let identity = self.natives.entries.at(entry).identity;
                let from = self.sessions.at(slot).remote().ip();
                let may = self.natives.access.may(&identity, from, Right::Connect, b"");
                let answer = if !may {
                    Answer::no(Code::Refused)
                } else if let banned @ Answer::No(_) = self.ban_of(slot, &identity, None) {
                    banned
                } else if self.is_full_but(&identity, entry) {
                    Answer::no(Code::TooManySessions)
                } else {
                    Answer::Yes
                };
                let answer = answer.and_then(|| self.room_for(slot, true));
                if cfg!(wardline_mutant = "resume_is_a_connect") {
                    self.begin_anew(slot);
                }
                let n_s = self.draw_nonce();
                let (handle, granted) = (self.handle_of_entry(entry), self.granted());
                let (resumed, waiting) = proven.answer(answer, handle, &n_s, granted, self.now)?;
                let half = self.take_half(slot, true)?;
                let item = self.natives.halves.at_mut(half);
                item.resume = waiting.park();
                item.entry = entry;
                let rivals = &mut self.natives.entries.at_mut(entry).rivals;
                item.rival = core::mem::replace(rivals, half);
                self.natives.conn_mut(slot).set_stage(Stage::Waiting);
                self.say(slot, resumed.as_bytes());
                Ok(())
            }
            (Wants::Full(unproven), _) => self.challenge(slot, unproven),
            // Not reached: what was proved was held.
            (Wants::Resume(_), None) => Err(Code::Internal.into()),
        }
    }

    fn challenge(&mut self, slot: Ref, unproven: Unproven) -> Result<(), Ended> {
        let room = self.room_for(slot, false);
        let answer = room.and_then(|| {
            self.begin_anew(slot);
            self.handshake_budget(slot)
        });
        let budgeted = unproven.budget(answer)?;
        let half = self.take_half(slot, false)?;
        let key = budgeted.key_wanted(&self.natives.identities);
        let Some(identity) = self.natives.identities.get(key).copied() else {
            return Err(Code::Internal.into());
        };
        let e_s = Ephemeral::from_entropy(self.natives.entropy.draw());
        let n_s = self.draw_nonce();
        let time_ms = self.natives.unix_ms(self.now);
        let bits = self.puzzle_bits(slot);
        let (challenge, wait) = budgeted.challenge(&identity, &e_s, &n_s, bits, time_ms);
        let item = self.natives.halves.at_mut(half);
        item.auth = wait.park();
        item.key = u8::try_from(key).unwrap_or(0);
        self.natives.conn_mut(slot).set_stage(Stage::Auth);
        self.stats.challenges.bump();
        self.say(slot, challenge.as_bytes());
        Ok(())
    }

    /// A full handshake begins, which counts as a connect. One from an address that was struck
    /// solves a puzzle first; whether it is refused is decided once it says who it is.
    fn begin_anew(&mut self, slot: Ref) {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::EXEMPT) {
            return;
        }
        let prefix = self.prefixes.at(session.prefix).key;
        if let Verdict::Refused(span) | Verdict::Throttled(span) = self.knock(prefix) {
            self.sessions.at_mut(slot).throttle(self.now, span);
        }
    }

    /// Whether somebody who claims to be that one may try from its address: from one that is
    /// refused, only who is known to the operator. That costs a stranger's puzzle, and nobody's
    /// signature is checked for it.
    fn address_takes(&mut self, slot: Ref, client_id: &[u8; 32]) -> Answer {
        let session = self.sessions.at(slot);
        let prefix = self.prefixes.at(session.prefix).key;
        let Verdict::Refused(span) = self.quarantine.verdict(self.now, prefix) else {
            return Answer::Yes;
        };
        let known = Identity::new(client_id).is_ok_and(|who| self.natives.access.enrolled(&who));
        let known = known && !cfg!(wardline_mutant = "known_is_refused")
            || cfg!(wardline_mutant = "refused_is_let_in");
        if known || session.flags.has(Flags::EXEMPT) {
            return Answer::Yes;
        }
        self.stats.refused_quarantined.bump();
        let retry_ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        Answer::No(Ended { code: Code::Quarantined, retry_ms })
    }

    /// Whether the address, its neighbourhood, and the shard may begin a handshake now.
    fn handshake_budget(&mut self, slot: Ref) -> Answer {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::EXEMPT) {
            return Answer::Yes;
        }
        let (now, limits) = (self.now, self.limits.native);
        let at = session.prefix;
        let PrefixSlot { key, handshakes, .. } = *self.prefixes.at(at);
        let mine = handshakes.after(twice(limits.handshakes_per_second), now, 1);
        let all = self.all_handshakes();
        let all = self.natives.handshakes.after(all, now, 1);
        if let (Some(mine), Some(all)) = (mine, all)
            // Asked last, for it counts at once.
            && self.parent_may(key)
        {
            self.prefixes.at_mut(at).handshakes = mine;
            self.natives.handshakes = all;
            return Answer::Yes;
        }
        Answer::No(Ended { code: Code::Rate, retry_ms: RETRY_MS })
    }

    /// Whether the shard may answer one more that another shard has verified: anybody can make keys
    /// of which all are at home here, and no shard is to sign for the strangers of all.
    pub(super) fn home_budget(&mut self, slot: Ref) -> Answer {
        let all = self.natives.handshakes.after(self.all_handshakes(), self.now, 1);
        match all {
            _ if self.sessions.at(slot).flags.has(Flags::EXEMPT) => Answer::Yes,
            Some(all) => {
                self.natives.handshakes = all;
                Answer::Yes
            }
            None => Answer::No(Ended { code: Code::Rate, retry_ms: RETRY_MS }),
        }
    }

    fn parent_may(&mut self, key: Prefix) -> bool {
        let rate = twice(self.limits.native.handshakes_per_parent_second);
        self.quarantine.parent_may(self.now, key, rate) || cfg!(wardline_mutant = "parent_may_all")
    }

    const fn all_handshakes(&self) -> Rate {
        twice(self.limits.native.handshakes_total_per_second)
    }

    /// What a stranger is to solve. Who is exempt has to only where memory is short.
    fn puzzle_bits(&self, slot: Ref) -> u8 {
        let limits = &self.limits.native;
        let session = self.sessions.at(slot);
        let exempt = session.flags.has(Flags::EXEMPT);
        let struck = session.throttled_until > self.now;
        let besieged = self.is_besieged() && !exempt;
        let mut bits = limits.puzzle_bits;
        if struck || besieged || self.memory.fullness() >= FULL_PUZZLE {
            bits = bits.max(limits.puzzle_bits_loaded);
        }
        // Of an identity that came from there: see `ask_puzzle`.
        if self.prefixes.at(session.prefix).puzzle_until > self.now && !exempt {
            bits = bits.max(limits.puzzle_bits_struck);
        }
        bits
    }

    /// Whether strangers took more than half of what there is for handshakes: time, or places.
    fn is_besieged(&self) -> bool {
        let all = self.all_handshakes();
        let halves = &self.natives.halves;
        let left = self.natives.handshakes.left(all, self.now);
        left < all.burst / 2 || halves.used() > halves.capacity() / 2
    }

    fn auth<'b>(&mut self, slot: Ref, bytes: &'b [u8]) -> Result<Step<'b>, Ended> {
        let half = self.natives.conn(slot).half;
        let Some(wait) = self.natives.halves.at_mut(half).auth.unpark() else {
            return Err(Code::Internal.into());
        };
        let missing = wait.needs(bytes)?;
        if missing > 0 {
            self.natives.halves.at_mut(half).auth = wait.park();
            return Ok(Step::More(missing));
        }
        let claimed = match wait.auth(bytes.get(..AUTH_BYTES).unwrap_or_default()) {
            Err(ended) if ended.code == Code::PuzzleRequired => {
                // Only here: who is told so later has solved what it was set.
                self.offend(slot, Offence::Puzzle);
                return Err(ended);
            }
            claimed => claimed?,
        };
        // What CHALLENGE was paid for is the larger part; this is the rest of it.
        let answer = self.address_takes(slot, &claimed.client_id());
        let verified = claimed.budget(answer)?.verify()?;
        self.stats.handshakes.bump();
        let home = self.home_of_identity(&verified.client());
        if home != self.links.shard {
            if bytes.len() > AUTH_BYTES {
                // Nobody has keys for what comes before ACCEPT.
                return Err(Code::BadState.into());
            }
            self.natives.halves.at_mut(half).verified = verified.park();
            return Ok(self.hand_over(slot, home, &[]));
        }
        let key = self.natives.halves.at(half).key;
        self.accept(slot, key, verified)?;
        Ok(Step::Took(AUTH_BYTES))
    }

    /// Somebody has proved who it is: whether it may have a session, and that.
    pub(super) fn accept(&mut self, slot: Ref, nth: u8, verified: Verified) -> Result<(), Ended> {
        let (identity, device) = (verified.client(), verified.device());
        let from = self.sessions.at(slot).remote().ip();
        let may = self.natives.access.may(&identity, from, Right::Connect, b"");
        let permission = if may { Answer::Yes } else { Answer::no(Code::Refused) };
        let found = self.find_entry(&identity, device, verified.epoch_ms());
        let sessions = match found {
            Found::New | Found::Same(_) => Answer::Yes,
            Found::Refused(code) => Answer::no(code),
        };
        let solved = Some(verified.puzzle_bits());
        let ban = if may { self.ban_of(slot, &identity, solved) } else { Answer::Yes };
        let allowed = verified.allow(permission, ban, sessions)?;
        let entry = match found {
            // Whoever had it leaves under the handle by which it was known.
            Found::Same(entry) => {
                if !cfg!(wardline_mutant = "left_under_new_handle") {
                    self.supersede(entry);
                }
                entry
            }
            Found::New => {
                self.make_entry(&identity, device).ok_or(Ended::from(Code::Overloaded))?
            }
            Found::Refused(code) => return Err(code.into()),
        };
        self.renew_handle(entry);
        let handle = self.handle_of_entry(entry);
        let keys = self.natives.keys;
        let Some(key) = keys.get(usize::from(nth)) else { return Err(Code::Internal.into()) };
        let granted = self.granted();
        let accepted = allowed.accept(key, handle, granted, self.now);
        let (accept, established) = match accepted {
            Ok(accepted) => accepted,
            Err(ended) => {
                self.free_entry_if_new(entry);
                return Err(ended);
            }
        };
        self.say(slot, accept.as_bytes());
        if !self.sessions.at(slot).is_open() {
            // There was no memory for that.
            self.free_entry_if_new(entry);
            return Ok(());
        }
        self.settle_entry(entry, &established);
        self.natives.entries.at_mut(entry).key = nth;
        self.count_key(entry);
        let records = established.records();
        self.go_live(slot, entry, records);
        Ok(())
    }

    fn first_record<'b>(&mut self, slot: Ref, bytes: &'b [u8]) -> Result<Step<'b>, Ended> {
        let half = self.natives.conn(slot).half;
        let Some(waiting) = self.natives.halves.at_mut(half).resume.unpark() else {
            return Err(Code::Internal.into());
        };
        let entry = self.natives.halves.at(half).entry;
        match waiting.record(self.now, bytes) {
            Ok(FirstRecord::More(waiting, missing)) => {
                self.natives.halves.at_mut(half).resume = waiting.park();
                Ok(Step::More(missing))
            }
            Ok(FirstRecord::Proved(..)) if self.is_over(entry) || self.is_one_too_many(entry) => {
                // It was promised a session that nobody can have any more; there may be a new one.
                // Or others of its identity came to live since. It is told when it asks again.
                self.close(slot, Reason::Fault(PeerFault::Native(Code::Superseded)));
                Ok(Step::Gone)
            }
            Ok(FirstRecord::Proved(session, next)) => {
                self.stats.resumes.bump();
                self.count_key(entry);
                self.go_live(slot, entry, session.records());
                Ok(Step::First(next))
            }
            Err(_) => {
                // It may be anybody who plays something back: nothing is said, nothing changes.
                self.offend(slot, Offence::Record);
                self.close(slot, Reason::Fault(PeerFault::Native(Code::BadTag)));
                Ok(Step::Gone)
            }
        }
    }

    /// Counts who knows the server by a key of before, so that the operator knows when nobody does.
    fn count_key(&mut self, entry: Ref) {
        match self.natives.entries.at(entry).key {
            0 => {}
            1 => self.stats.second_key_sessions.bump(),
            2 => self.stats.third_key_sessions.bump(),
            _ => self.stats.fourth_key_sessions.bump(),
        }
    }

    /// What a client is granted.
    fn granted(&self) -> Granted {
        let limits = &self.limits.native;
        let ms = limits.silence.as_millis();
        Granted {
            max_payload: limits.payload_bytes_max,
            idle_ms: u32::try_from(ms).unwrap_or(u32::MAX),
            msgs_per_s: limits.messages_per_second,
            bytes_per_s: limits.bytes_per_second,
        }
    }

    fn draw_nonce(&mut self) -> [u8; 16] {
        let drawn = self.natives.entropy.draw();
        drawn.first_chunk().copied().unwrap_or_default()
    }

    /// When a handshake that is under way must be over.
    pub(super) fn handshake_ends(&self, slot: Ref) -> crate::time::Instant {
        let conn = self.natives.conn(slot);
        let limits = &self.limits.native;
        let session = self.sessions.at(slot);
        let silent = conn.stage() == Stage::Hello && session.input.is_empty();
        let span = if session.flags.has(Flags::UNDECIDED) {
            limits.decide
        } else if silent {
            limits.first_byte
        } else {
            limits.handshake
        };
        conn.born_at.after(span.max(Duration::from_millis(1)))
    }
}

/// So many a second, and two seconds' worth at once.
const fn twice(units: u32) -> Rate {
    Rate { burst: units.saturating_mul(2), ..Rate::per_second(units) }
}

/// Sizes on the wire.
pub(super) const HELLO_BYTES: usize = crate::native::handshake::Hello::SIZE;
const AUTH_BYTES: usize = crate::native::handshake::Auth::SIZE;
