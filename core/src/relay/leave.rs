//! The end of a connection: last bytes, last words, end of stream, close.
//!
//! ```text
//!  Open --leave--> Leaving --sent--> Finished --their end--> Closing --closed--> Free
//!     \______________\_________________\____close, deadline____^
//! ```

use super::Relay;
use crate::event::{Event, Reason};
use crate::fault::PeerFault;
use crate::id::Ref;
use crate::line::warning;
use crate::session::{Farewell, Flags, Pending, Phase, Sending};
use crate::storage::{Pool, Purpose};
use crate::time::{Duration, Instant};

/// The steps of a shutdown.
const DRAIN_TICK: Duration = Duration::from_millis(100);

/// A shutdown that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// The next session that it gets to, and when.
    next: u32,
    at: Instant,
}

impl<P: Pool> Relay<'_, P> {
    /// Begins to end every connection: each is sent what is queued for it and a warning. Where
    /// there are many, not all in the same moment: they would all be back in the same moment,
    /// wherever they go. Done when [`Relay::connections`] is 0.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.enter(now);
        if self.draining.is_none() {
            self.draining = Some(Drain { next: 0, at: now });
        }
    }

    /// When a shutdown goes on; never, where there is none, or everybody was told.
    pub(super) fn drain_at(&self) -> Instant {
        self.draining.map_or(Instant::NEVER, |drain| drain.at)
    }

    /// Whether there is a shutdown of which everybody was told.
    pub(in crate::relay) fn everybody_leaves(&self) -> bool {
        self.draining.is_some_and(|drain| drain.at == Instant::NEVER)
    }

    pub(super) fn drain_some(&mut self) {
        let Some(Drain { next, at }) = self.draining.filter(|drain| drain.at <= self.now) else {
            return;
        };
        let (all, spread) = (self.sessions.touched(), self.limits.drain_spread);
        let tick = DRAIN_TICK.min(spread);
        // So many that the last are told in time.
        let ticks = spread.as_nanos().checked_div(tick.as_nanos()).unwrap_or(1).max(1);
        let share = u32::try_from(u64::from(all).div_ceil(ticks)).unwrap_or(u32::MAX);
        // Who comes late to it, for the process stood still, has more to do.
        let late = self.now.since(at).as_nanos().checked_div(tick.as_nanos()).unwrap_or(0);
        let steps = u32::try_from(late.saturating_add(1)).unwrap_or(u32::MAX);
        let many = share.max(self.limits.drain_at_once).saturating_mul(steps);
        let end = next.saturating_add(many).min(all);
        for index in next..end {
            let slot = Ref::of(index);
            match self.sessions.at(slot).phase() {
                Phase::Open => self.leave(slot, Reason::Shutdown, Farewell::Shutdown, true),
                // Nobody is there yet to be told.
                Phase::Proxied => self.close(slot, Reason::Shutdown),
                Phase::Free | Phase::Leaving | Phase::Finished | Phase::Closing | Phase::Link => {}
            }
        }
        let rest = end < all && !cfg!(wardline_mutant = "drain_forgets_the_rest");
        let at = if rest { at.after(tick.times(u64::from(steps))) } else { Instant::NEVER };
        self.draining = Some(Drain { next: end.max(next), at });
    }

    /// Begins to end a connection. `flush`: it is sent what is queued for it first; else its
    /// cursor is dropped, after the message that was begun.
    pub(super) fn leave(&mut self, slot: Ref, reason: Reason, farewell: Farewell, flush: bool) {
        let conn = self.id(slot);
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if !session.is_open() {
            return;
        }
        session.set_phase(Phase::Leaving);
        let native = session.flags.has(Flags::NATIVE);
        self.leave_patience(slot);
        if native {
            self.native_leaves(slot, farewell);
        }
        let session = self.sessions.at_mut(slot);
        session.set_farewell(farewell);
        let span = if flush { self.limits.drain } else { self.limits.linger };
        session.close_at = now.after(span);
        self.end_input(slot);
        self.tell(Event::Leaving { conn, reason });
        self.mark(slot, Pending::FLOW);
        if flush {
            // What it is owed is bounded by its deadline now: a gap would drop it untold.
            self.sessions.at_mut(slot).flags.clear(Flags::JUMP);
            self.links.gave_way();
        } else if native {
            self.jump_native(slot);
        } else {
            self.jump(slot);
        }
        self.proceed(slot);
        self.arm(slot);
    }

    fn end_input(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        let mut input = session.input;
        session.flags.clear(Flags::BACKLOG);
        session.flags.clear(Flags::SKIPPING);
        self.stats.bytes_discarded.add(u64::from(input.len()));
        input.clear(&mut self.memory, Purpose::Input);
        self.sessions.at_mut(slot).input = input;
    }

    /// Goes on with the end of a connection: its log, its last words, its end of stream.
    pub(super) fn proceed(&mut self, slot: Ref) {
        let session = self.sessions.at(slot);
        let native = session.flags.has(Flags::NATIVE);
        if session.phase() != Phase::Leaving || session.flags.has(Flags::JUMP) {
            return;
        }
        if session.cursor.is_some() {
            let early = cfg!(wardline_mutant = "farewell_before_flush");
            if self.cursors.at(session.cursor).is_behind() && !early {
                self.mark(slot, Pending::SEND);
                return;
            }
            self.unstall(slot);
            self.drop_cursor(slot);
        }
        if native {
            if self.has_native_output(slot) {
                self.mark(slot, Pending::SEND);
                return;
            }
            self.unstall(slot);
            self.drop_subs(slot);
            self.last_words(slot);
        }
        if !self.tell_gap(slot) {
            self.stats.warnings_dropped.bump();
        }
        let session = self.sessions.at_mut(slot);
        // Now or never: after its last words there is nothing.
        session.gap_to = session.gap_from;
        let words = if native { "" } else { words_of(session.farewell()) };
        session.set_farewell(Farewell::None);
        let mut output = session.output;
        if !words.is_empty() {
            if output.push(&mut self.memory, Purpose::Output, words.as_bytes()).is_ok() {
                self.stats.warnings.bump();
            } else {
                self.stats.warnings_dropped.bump();
            }
        }
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.output = output;
        if !output.is_empty() || session.sending() == Sending::InFlight {
            self.mark(slot, Pending::SEND);
            return;
        }
        session.set_sending(Sending::No);
        session.set_phase(Phase::Finished);
        session.close_at = now.after(self.limits.linger);
        let ended = session.flags.has(Flags::EOF);
        if ended {
            // Both ends have ended: nothing is to be waited for.
            session.set_phase(Phase::Closing);
            self.mark(slot, Pending::CLOSE);
            return;
        }
        self.mark(slot, Pending::FINISH);
        self.mark(slot, Pending::FLOW);
        self.arm(slot);
    }

    /// Closes a connection without another word.
    pub(super) fn close(&mut self, slot: Ref, reason: Reason) {
        let conn = self.id(slot);
        let session = self.sessions.at_mut(slot);
        match session.phase() {
            Phase::Free | Phase::Closing | Phase::Link => return,
            Phase::Open | Phase::Proxied => {
                self.end_input(slot);
                self.tell(Event::Leaving { conn, reason });
            }
            Phase::Leaving | Phase::Finished => {}
        }
        self.leave_patience(slot);
        self.end_wait(slot);
        let session = self.sessions.at_mut(slot);
        session.set_phase(Phase::Closing);
        // Nothing is to be told any more: its cursor goes with it, it does not jump.
        session.flags.clear(Flags::JUMP);
        let in_flight = session.sending() == Sending::InFlight;
        let native = session.flags.has(Flags::NATIVE);
        if native {
            self.native_lost(slot);
        }
        if !in_flight || cfg!(wardline_mutant = "freed_in_flight") {
            // Nothing of it is read by the kernel: give back what it holds now, not later.
            let session = self.sessions.at_mut(slot);
            session.set_sending(Sending::No);
            let mut output = session.output;
            output.clear(&mut self.memory, Purpose::Output);
            self.sessions.at_mut(slot).output = output;
            self.unstall(slot);
            self.drop_cursor(slot);
        }
        if native && !in_flight {
            self.drop_subs(slot);
        }
        self.mark(slot, Pending::CLOSE);
    }

    /// Moves the cursor of a connection to the head, or drops it where the connection is ending;
    /// after the send under way, which is cancelled.
    pub(super) fn jump(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        if session.cursor.is_none() {
            return;
        }
        let from_log = session.flight.begun > 0 || session.flight.log > 0;
        if session.sending() == Sending::InFlight
            && from_log
            && !cfg!(wardline_mutant = "jump_in_flight")
        {
            session.flags.set(Flags::JUMP);
            self.mark(slot, Pending::CANCEL);
        } else {
            self.jump_or_drop(slot);
        }
    }

    /// What [`Relay::jump`] does once nothing of the log is under way.
    pub(super) fn jump_or_drop(&mut self, slot: Ref) {
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            return self.jump_or_drop_native(slot);
        }
        if !self.keep_begun(slot) {
            // Half a message cannot be followed by anything, not even by a farewell.
            self.stats.cut.bump();
            self.close(slot, Reason::Fault(PeerFault::SlowReader));
            return;
        }
        if self.sessions.at(slot).phase() == Phase::Leaving {
            self.unstall(slot);
            self.drop_cursor(slot);
            self.proceed(slot);
        } else {
            self.gap(slot);
        }
    }

    /// Copies the rest of a message that was begun to the front of the connection's own bytes: the
    /// cursor is about to leave it. Gives whether there was memory for that.
    fn keep_begun(&mut self, slot: Ref) -> bool {
        let session = self.sessions.at(slot);
        let Some(cursor) = session.cursor.some() else { return true };
        if self.cursors.at(cursor).begun == 0 || cfg!(wardline_mutant = "begun_is_lost") {
            return true;
        }
        let topic = session.topic;
        let Some(mut walk) = self.walk(slot) else { return true };
        let mut front = crate::chain::Chain::EMPTY;
        let mut ended = false;
        while !ended {
            let log = &self.topics.at(topic).log;
            let Some(piece) = walk.piece(&self.memory, log) else { break };
            let bytes = self.memory.bytes(piece.link, piece.offset, piece.len);
            let end = memchr::memchr(b'\n', bytes).map(|at| at.saturating_add(1));
            ended = end.is_some();
            // Not by the scratch area: that may be in use, for a line that made it leave.
            let mut part = [0_u8; 256];
            let len = end.unwrap_or(bytes.len()).min(part.len());
            ended = ended && len == end.unwrap_or(0);
            crate::storage::copy(&mut part, bytes.get(..len).unwrap_or_default());
            let part = part.get(..len).unwrap_or_default();
            if front.push(&mut self.memory, Purpose::Output, part).is_err() {
                front.clear(&mut self.memory, Purpose::Output);
                return false;
            }
            walk.step(u32::try_from(len).unwrap_or(u32::MAX));
        }
        let rest = self.sessions.at(slot).output;
        front.join(&mut self.memory, rest);
        self.sessions.at_mut(slot).output = front;
        self.cursors.at_mut(cursor).begun = 0;
        self.cursors.at_mut(cursor).pos = walk.pos;
        crate::cursor::relink(&mut self.cursors, &mut self.memory, cursor, walk.link);
        true
    }

    /// When a connection that is ending is closed whatever it still has to take.
    pub(super) fn closes_at(&self, slot: Ref) -> Instant {
        let session = self.sessions.at(slot);
        match session.phase() {
            Phase::Leaving | Phase::Finished | Phase::Link | Phase::Proxied => session.close_at,
            Phase::Free | Phase::Open | Phase::Closing => Instant::NEVER,
        }
    }
}

/// The last words of the line dialect.
const fn words_of(farewell: Farewell) -> &'static str {
    match farewell {
        Farewell::None => "",
        Farewell::Slow => warning::SLOW,
        Farewell::Idle => warning::IDLE,
        Farewell::Shutdown => warning::SHUTDOWN,
        Farewell::Utf8 => warning::UTF8,
        Farewell::Http => warning::HTTP,
        Farewell::Unfinished => warning::UNFINISHED,
        Farewell::Overloaded => warning::OVERLOADED,
    }
}
