//! Output: what a connection is sent, straight out of the log, and what it took of it.
//!
//! Order in one send: the rest of a message that was begun, then the connection's own bytes, then
//! the log. So a warning never stands inside a message.

use super::{Gather, Relay};
use crate::cursor;
use crate::event::Reason;
use crate::fault::PeerFault;
use crate::id::{ConnId, Ref};
use crate::log::{Log, Piece, Walk};
use crate::session::{Flags, Flight, Pending, Phase, Sending};
use crate::storage::{Pool, Purpose, copy};
use crate::time::Instant;

/// Pieces from which small ones are made contiguous.
const STAGE_PIECES: usize = 4;
/// The average piece below which that costs less than a longer gather.
const STAGE_PIECE_BYTES: usize = 1 << 10;
/// Fullness of memory from which nothing is made contiguous, in percent.
const STAGE_FULLNESS: u32 = 50;
/// The most that is made contiguous at once.
const STAGE_BYTES_MAX: usize = 16 << 10;

impl<P: Pool> Relay<'_, P> {
    /// Whether there is something to send to a connection now; moves it over what is its own.
    pub(super) fn offer(&mut self, slot: Ref) -> bool {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::NATIVE) && self.is_doomed(slot) {
            self.close(slot, Reason::Fault(PeerFault::Overloaded));
            return false;
        }
        let alive = matches!(session.phase(), Phase::Open | Phase::Leaving);
        if !alive || session.sending() != Sending::No {
            return false;
        }
        if let Some(cursor) = session.cursor.some() {
            let cursor = self.cursors.at(cursor);
            if cursor.is_behind() && cursor.pos < cursor.own_until {
                self.advance(slot, 0);
            }
        }
        if !self.has_output(slot) {
            self.unstall(slot);
            self.proceed(slot);
            return false;
        }
        self.sessions.at_mut(slot).set_sending(Sending::Offered);
        true
    }

    fn has_output(&self, slot: Ref) -> bool {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::NATIVE) {
            return self.has_native_output(slot);
        }
        !session.output.is_empty()
            || session.has_gap()
            || (session.cursor.is_some() && self.cursors.at(session.cursor).is_behind())
    }

    /// What to send to a connection now, as ranges of the pool, in order. Gives how many bytes; 0:
    /// there is nothing any more. After it the send is under way until [`Relay::handle_sent`].
    pub fn gather(&mut self, conn: ConnId, out: &mut Gather) -> usize {
        out.clear();
        let Some(slot) = self.find(conn) else { return 0 };
        let session = self.sessions.at(slot);
        if session.sending() != Sending::Offered {
            return 0;
        }
        if !self.tell_gap(slot) {
            // It cannot be told what it missed, so it cannot stay.
            let session = self.sessions.at_mut(slot);
            session.set_sending(Sending::No);
            if session.is_open() {
                self.cut(slot);
            } else {
                self.close(slot, Reason::Fault(PeerFault::SlowReader));
            }
            return 0;
        }
        let session = self.sessions.at(slot);
        let slow = session.flags.has(Flags::STALLED);
        let most = if slow { self.limits.slow_send_bytes } else { self.limits.send_bytes };
        let native = session.flags.has(Flags::NATIVE);
        if session.output.is_empty() {
            self.stage(slot, most);
        }
        let flight = if native {
            self.compose_native(slot, most, out)
        } else {
            self.compose(slot, most, out)
        };
        if self.sessions.at(slot).sending() != Sending::Offered {
            // It came to its end over that.
            out.clear();
            return 0;
        }
        let session = self.sessions.at_mut(slot);
        session.flight = flight;
        if flight.total() == 0 {
            session.set_sending(Sending::No);
            if native && self.has_native_output(slot) {
                // What was looked at was its own; there is more.
                self.mark(slot, Pending::SEND);
            }
            self.proceed(slot);
            return 0;
        }
        session.set_sending(Sending::InFlight);
        flight.total() as usize
    }

    fn compose(&self, slot: Ref, most: u32, out: &mut Gather) -> Flight {
        let session = self.sessions.at(slot);
        let log = &self.topics.at(session.topic).log;
        let mut walk = self.walk(slot);
        let mut flight = Flight::default();
        let begun = session.cursor.is_some() && self.cursors.at(session.cursor).begun != 0;
        if begun && !session.output.is_empty() && !cfg!(wardline_mutant = "warning_inside") {
            let Some(walk) = &mut walk else { return flight };
            let whole;
            (flight.begun, whole) = self.compose_begun(walk, log, most, out);
            if !whole {
                return flight;
            }
        }
        for range in session.output.ranges(&self.memory) {
            let room = most.saturating_sub(out.bytes);
            let len = range.len.min(room);
            if len == 0 || !out.push(crate::storage::Range { len, ..range }) {
                return flight;
            }
            flight.control = flight.control.saturating_add(len);
            if len < range.len {
                return flight;
            }
        }
        let Some(mut walk) = walk else { return flight };
        while let Some(piece) = walk.piece(&self.memory, log) {
            let len = piece.len.min(most.saturating_sub(out.bytes));
            let range = self.memory.range(piece.link, piece.offset, len);
            if len == 0 || !out.push(range) {
                break;
            }
            flight.log = flight.log.saturating_add(len);
            walk.step(len);
        }
        flight
    }

    /// The rest of the message that a cursor stands in; gives whether that is all of it.
    fn compose_begun(
        &self,
        walk: &mut Walk,
        log: &Log,
        most: u32,
        out: &mut Gather,
    ) -> (u32, bool) {
        let mut begun = 0_u32;
        while let Some(piece) = walk.piece(&self.memory, log) {
            let bytes = self.memory.bytes(piece.link, piece.offset, piece.len);
            let end = memchr::memchr(b'\n', bytes).map(|at| at.saturating_add(1));
            let len = u32::try_from(end.unwrap_or(bytes.len())).unwrap_or(u32::MAX);
            let room = most.saturating_sub(out.bytes);
            let range = self.memory.range(piece.link, piece.offset, len.min(room));
            if room == 0 || !out.push(range) {
                return (begun, false);
            }
            begun = begun.saturating_add(len.min(room));
            if len > room {
                return (begun, false);
            }
            walk.step(len);
            if end.is_some() {
                return (begun, true);
            }
        }
        (begun, false)
    }

    /// A walk from where the cursor of a connection stands, if it is behind.
    pub(super) fn walk(&self, slot: Ref) -> Option<Walk> {
        let session = self.sessions.at(slot);
        let cursor = self.cursors.at(session.cursor.some()?);
        cursor.is_behind().then_some(Walk {
            link: cursor.link,
            pos: cursor.pos,
            own: slot,
            own_until: cursor.own_until,
        })
    }

    /// Where what a reader is to be sent lies in many small pieces between its own, they are made
    /// contiguous in blocks first, whole messages only.
    fn stage(&mut self, slot: Ref, most: u32) {
        let Some(start) = self.walk(slot) else { return };
        let stalled = self.sessions.at(slot).flags.has(Flags::STALLED);
        // Who does not keep up, and everybody when blocks run short, has no bytes of its own.
        if start.pos >= start.own_until || stalled || self.memory.fullness() >= STAGE_FULLNESS {
            return;
        }
        let log = &self.topics.at(self.sessions.at(slot).topic).log;
        let room_max = STAGE_BYTES_MAX.min(most as usize).min(self.scratch.len());
        let mut walk = start;
        let (mut pieces, mut bytes) = (0_usize, 0_usize);
        while let Some(piece) = walk.piece(&self.memory, log) {
            let after = bytes.saturating_add(piece.len as usize);
            if after > room_max {
                break;
            }
            let from = self.memory.bytes(piece.link, piece.offset, piece.len);
            if let Some(room) = self.scratch.get_mut(bytes..after) {
                copy(room, from);
            }
            bytes = after;
            pieces = pieces.saturating_add(1);
            walk.step(piece.len);
        }
        if pieces < STAGE_PIECES || bytes >= pieces.saturating_mul(STAGE_PIECE_BYTES) {
            return;
        }
        let staged = self.scratch.get(..bytes).unwrap_or_default();
        let whole = memchr::memrchr(b'\n', staged).map_or(0, |at| at.saturating_add(1));
        let staged = staged.get(..whole).unwrap_or_default();
        let mut output = self.sessions.at(slot).output;
        if output.push(&mut self.memory, Purpose::Output, staged).is_ok() {
            self.sessions.at_mut(slot).output = output;
            self.advance(slot, u32::try_from(whole).unwrap_or(u32::MAX));
        }
    }

    /// Moves the cursor of a connection over `len` bytes of what it is sent, and over what is its
    /// own after them; at the head it waits.
    fn advance(&mut self, slot: Ref, len: u32) {
        let session = self.sessions.at(slot);
        let (topic, cursor) = (session.topic, session.cursor);
        let Some(mut walk) = self.walk(slot) else { return };
        let topic = self.topics.at_mut(topic);
        let mut left = len;
        let mut last: Option<Piece> = None;
        let at_head = loop {
            let Some(piece) = walk.piece(&self.memory, &topic.log) else { break true };
            if left == 0 {
                break false;
            }
            let step = piece.len.min(left);
            walk.step(step);
            left = left.saturating_sub(step);
            last = Some(Piece { len: step, ..piece });
        };
        if let Some(piece) = last {
            let end = piece.offset.saturating_add(piece.len).saturating_sub(1);
            let ended = self.memory.bytes(piece.link, end, 1).first() == Some(&b'\n');
            self.cursors.at_mut(cursor).begun = u8::from(!ended);
        }
        self.cursors.at_mut(cursor).pos = walk.pos;
        if at_head {
            cursor::leave(&mut self.cursors, &mut self.memory, &mut topic.waiting, cursor);
            cursor::wait(&mut self.cursors, &mut topic.waiting, cursor);
        } else {
            cursor::relink(&mut self.cursors, &mut self.memory, cursor, walk.link);
        }
        if !cfg!(wardline_mutant = "log_never_freed") {
            topic.log.trim(&mut self.memory);
        }
    }

    /// The send under way has ended: the socket took `bytes` of it. `at_once`: it did not have to
    /// wait for the peer.
    pub fn handle_sent(&mut self, now: Instant, conn: ConnId, bytes: usize, at_once: bool) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        let session = self.sessions.at_mut(slot);
        if session.sending() != Sending::InFlight {
            self.stats.late.bump();
            return;
        }
        let flight = core::mem::take(&mut session.flight);
        let taken = u32::try_from(bytes).unwrap_or(u32::MAX).min(flight.total());
        let taken = taken.saturating_sub(u32::from(cfg!(wardline_mutant = "sent_one_less")));
        session.set_sending(Sending::No);
        self.stats.sends.bump();
        self.stats.bytes_out.add(u64::from(taken));
        if taken > 0 {
            session.sent_bytes = session.sent_bytes.saturating_add(u64::from(taken));
            session.sent_at = self.now;
        }
        if session.flags.has(Flags::NATIVE) {
            self.sent_native(slot, taken);
        } else {
            self.sent_lines(slot, taken, flight);
        }
        if self.sessions.at_mut(slot).flags.take(Flags::JUMP) {
            // What another shard said may have waited for this one to give way.
            self.links.eased = true;
            self.jump_or_drop(slot);
        }
        let prompt = at_once && taken == flight.total();
        if !prompt {
            self.stats.sends_slow.bump();
        }
        // Who has taken everything in the end owes nothing: what waits next begins anew.
        if prompt || !self.has_output(slot) {
            self.unstall(slot);
        } else {
            self.stall(slot);
        }
        if self.has_output(slot) && !cfg!(wardline_mutant = "rest_is_forgotten") {
            if !self.bides(slot) {
                self.mark(slot, Pending::SEND);
            }
        } else {
            self.proceed(slot);
        }
    }

    fn sent_lines(&mut self, slot: Ref, taken: u32, flight: Flight) {
        let begun = taken.min(flight.begun);
        let control = taken.saturating_sub(begun).min(flight.control);
        let log = taken.saturating_sub(begun).saturating_sub(control);
        if begun > 0 {
            self.advance(slot, begun);
        }
        if control > 0 {
            let mut output = self.sessions.at(slot).output;
            output.pop(&mut self.memory, Purpose::Output, control);
            self.sessions.at_mut(slot).output = output;
        }
        if log > 0 {
            self.advance(slot, log);
        }
    }

    /// The send under way waits for the peer: it did not complete at once. A frontend whose sends
    /// stay under way says so once it has looked for their ends and not found this one; else
    /// nobody knows that the reader is slow before its send ends, which may be never.
    pub fn handle_send_waits(&mut self, now: Instant, conn: ConnId) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        if self.sessions.at(slot).sending() == Sending::InFlight {
            self.stall(slot);
        }
    }

    /// The send under way has failed: the socket is broken. It is over.
    pub fn handle_send_failed(&mut self, now: Instant, conn: ConnId) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            // While it is known what the socket had: some of that may have gone out.
            self.native_lost(slot);
        }
        let session = self.sessions.at_mut(slot);
        session.flight = Flight::default();
        session.set_sending(Sending::No);
        session.flags.clear(Flags::JUMP);
        self.close(slot, Reason::Peer);
    }

    /// The socket cannot be read any more, but that a send may be under way: it is closed.
    pub fn handle_broken(&mut self, now: Instant, conn: ConnId) {
        self.enter(now);
        if let Some(slot) = self.find_or_late(conn) {
            self.close(slot, Reason::Peer);
        }
    }
}
