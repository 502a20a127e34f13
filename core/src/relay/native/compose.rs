//! Output of a native connection: records over stretches of logs that lie ready, one tag each.
//! PROTOCOL.md 2.3.1.
//!
//! A batch is what a topic gained, as far as the reader has not had it, cut between frames. Its
//! digest is computed once and found by whoever reads the same stretch; the tag is the reader's.
//! Once it is tagged it is sent before anything else, however many sends that takes.

use super::frames_log::{self, Place};
use super::slots::{BATCHES, Batch, Digest, Stage};
use crate::chain::Chain;
use crate::cursor::{self, Cursor, sub};
use crate::event::{Event, Reason};
use crate::fault::PeerFault;
use crate::id::Ref;
use crate::log::{Log, Walk};
use crate::native::{Code, GapReason, ServerControl, flags};
use crate::relay::{Gather, Relay};
use crate::session::{Flags, Flight, Pending, Phase, Sending};
use crate::storage::{Memory, Pool, Purpose, Range, copy};

/// The most bytes of one batch: who is behind has to have all of it before it can look at any.
const BATCH_BYTES: u32 = 64 << 10;
/// Blocks beyond those of the bodies that it takes to copy them: those that are not full.
const FLAT_BLOCKS: u32 = 3;
/// Bytes that are copied at a time.
const PART: usize = 256;

impl<P: Pool> Relay<'_, P> {
    /// Whether it is to be closed, for it could not be told something.
    pub(in crate::relay) fn is_doomed(&self, slot: Ref) -> bool {
        self.natives.conn(slot).doomed != 0
    }

    /// Whether a native connection has anything to be sent.
    pub(in crate::relay) fn has_native_output(&self, slot: Ref) -> bool {
        if !self.sessions.at(slot).output.is_empty() {
            return true;
        }
        let mut next = self.natives.conn(slot).subs;
        while let Some(cursor) = next.some() {
            let item = self.cursors.at(cursor);
            if item.is_due() {
                return true;
            }
            next = item.sub_next;
        }
        false
    }

    /// Bytes that a native connection has not had.
    pub(in crate::relay) fn native_lag(&self, slot: Ref) -> u64 {
        let mut lag = u64::from(self.sessions.at(slot).output.len());
        let mut next = self.natives.conn(slot).subs;
        while let Some(cursor) = next.some() {
            let item = self.cursors.at(cursor);
            if item.is_behind() {
                let head = self.topics.at(item.topic).frames.head;
                lag = lag.saturating_add(head.saturating_sub(item.pos));
            }
            next = item.sub_next;
        }
        lag
    }

    /// What to send now: what was tagged before, then what there is.
    pub(in crate::relay) fn compose_native(
        &mut self,
        slot: Ref,
        most: u32,
        out: &mut Gather,
    ) -> Flight {
        let conn = self.natives.conn(slot);
        if conn.batch_count == 0 && conn.stage() == Stage::Live {
            out.more = self.seal_batches(slot, most);
        } else {
            out.more = conn.batch_count > 0;
        }
        let mut flight = Flight::default();
        let conn = self.natives.conn(slot);
        let session = self.sessions.at(slot);
        let mut own = Own { ranges: session.output.ranges(&self.memory), rest: Range::default() };
        for batch in conn.batches.iter().take(usize::from(conn.batch_count)) {
            let (sent, whole) = own.push(batch.own, most, out);
            flight.control = flight.control.saturating_add(sent);
            if !whole {
                return flight;
            }
            let log = &self.topics.at(self.cursors.at(batch.cursor).topic).frames;
            let mut walk = walk_of(slot, self.cursors.at(batch.cursor));
            let mut left = batch.body;
            while left > 0
                && let Some(piece) = walk.piece(&self.memory, log)
            {
                let len = piece.len.min(left).min(most.saturating_sub(out.bytes));
                let range = self.memory.range(piece.link, piece.offset, len);
                if len == 0 || !out.push(range) {
                    return flight;
                }
                flight.log = flight.log.saturating_add(len);
                left = left.saturating_sub(len);
                walk.step(len);
            }
        }
        let (sent, _) = own.push(u32::MAX, most, out);
        flight.control = flight.control.saturating_add(sent);
        flight
    }

    /// Tags batches of the topics that have something, one after the other in turn. Gives whether
    /// there is more.
    fn seal_batches(&mut self, slot: Ref, most: u32) -> bool {
        let conn = self.natives.conn(slot);
        let open = self.sessions.at(slot).is_open();
        let mut more = false;
        let mut due: heapless::Vec<Ref, BATCHES> = heapless::Vec::new();
        let mut after = Ref::NONE;
        for (from, until) in [(conn.turn, Ref::NONE), (conn.subs, conn.turn)] {
            let mut next = from;
            while let Some(cursor) = next.some().filter(|cursor| *cursor != until) {
                let item = self.cursors.at(cursor);
                next = item.sub_next;
                if item.is_due() {
                    match due.push(cursor) {
                        Ok(()) => after = next,
                        Err(_) => more = true,
                    }
                }
            }
        }
        self.natives.conn_mut(slot).turn = after;
        for cursor in due {
            let tagged =
                self.natives.conn(slot).batches.iter().map(|batch| batch.body).sum::<u32>();
            let waits = self.sessions.at(slot).output.len().saturating_add(tagged);
            // Who ends over it has no cursors any more.
            let there = self.is_sent_to(slot) && self.sessions.at(slot).is_open() == open;
            if waits >= most || !there {
                return there;
            }
            more |= self.seal(slot, cursor, most.saturating_sub(waits));
        }
        more
    }

    /// Not where it came to its end: its cursors are gone.
    fn is_sent_to(&self, slot: Ref) -> bool {
        let there = matches!(self.sessions.at(slot).phase(), Phase::Open | Phase::Leaving);
        there && !self.is_doomed(slot)
    }

    /// Tags a batch of one topic. Gives whether that is not all that the reader has not had of it.
    fn seal(&mut self, slot: Ref, cursor: Ref, room: u32) -> bool {
        if !self.may_still_read(slot, cursor) {
            self.detach(slot, false);
            self.end_native(slot, Code::Refused, 0);
            return false;
        }
        self.tell_frames_gap(slot, cursor);
        if !self.is_sent_to(slot) {
            return false;
        }
        let bridges = self.cursors.at(cursor).sub & sub::BRIDGES != 0;
        if bridges {
            self.skip_bridged(slot, cursor);
        }
        let body_max = self.natives.conn(slot).records.sending.body_max();
        let most = body_max.min(BATCH_BYTES).min(room.max(self.limits.slow_send_bytes));
        let which = if bridges { Which::NotBridged } else { Which::All };
        let Some((len, plain)) = self.stretch(slot, cursor, most, body_max, which) else {
            self.skip_frame(slot, cursor);
            return true;
        };
        if len == 0 {
            if self.cursors.at(cursor).is_behind() {
                // All that stands there is its own, or came over a bridge and it is one.
                self.advance_native(slot, cursor, 0);
            }
            return self.cursors.at(cursor).is_due();
        }
        let digest = self.digest(slot, cursor, len, plain);
        self.rekey_if_due(slot);
        let header = self.natives.conn_mut(slot).records.sending.frames(len, &digest);
        let Ok(header) = header else {
            self.fault(slot, Code::Internal);
            return false;
        };
        self.say(slot, &header);
        if !self.is_sent_to(slot) {
            return false;
        }
        let output = self.sessions.at(slot).output.len();
        let conn = self.natives.conn_mut(slot);
        let count = usize::from(conn.batch_count);
        let before = conn.batches.iter().take(count).map(|batch| batch.own).sum::<u32>();
        if let Some(batch) = conn.batches.get_mut(count) {
            *batch = Batch { own: output.saturating_sub(before), body: len, cursor };
            conn.batch_count = conn.batch_count.saturating_add(1);
        }
        self.stats.batches.bump();
        let item = self.cursors.at(cursor);
        let head = self.topics.at(item.topic).frames.head;
        head.saturating_sub(item.pos) > u64::from(len)
    }

    /// How many bytes a batch has from where a cursor stands, at most `most` but at least a frame;
    /// and whether they are all that stands there. None: the first frame is over `body_max`.
    /// It ends before a frame that is not one of `which`.
    fn stretch(
        &self,
        slot: Ref,
        cursor: Ref,
        most: u32,
        body_max: u32,
        which: Which,
    ) -> Option<(u32, bool)> {
        let item = self.cursors.at(cursor);
        let log = &self.topics.at(item.topic).frames;
        if !item.is_behind() {
            return Some((0, true));
        }
        let mut walk = walk_of(slot, item);
        let plain = walk.pos >= walk.own_until;
        // Before that it reads what was there when it came, its slot's former owner's too.
        let end = if item.pos < item.own_from { item.own_from } else { log.head };
        let all = end.saturating_sub(item.pos);
        if plain && all <= u64::from(most) && which == Which::All {
            return Some((u32::try_from(all).unwrap_or(0), true));
        }
        let mut len = 0_u64;
        let mut until = walk.pos;
        while walk.pos < end {
            if walk.pos >= until {
                let Some(piece) = walk.piece(&self.memory, log) else { break };
                until = walk.pos.saturating_add(u64::from(piece.len));
                if walk.pos >= end {
                    break;
                }
            }
            let at = Place { link: walk.link, pos: walk.pos };
            let (frame, bits) = frames_log::frame_front(&self.memory, log, at);
            if !which.holds(bits) {
                break;
            }
            let alone = len == 0 && frame <= u64::from(body_max);
            if len.saturating_add(frame) > u64::from(most) && !alone {
                if len == 0 {
                    return None;
                }
                break;
            }
            len = len.saturating_add(frame);
            walk.pos = walk.pos.saturating_add(frame);
            if len >= u64::from(most) {
                break;
            }
        }
        Some((u32::try_from(len).unwrap_or(0), plain))
    }

    /// D of what a batch holds; of what others read too it is computed once.
    fn digest(&mut self, slot: Ref, cursor: Ref, len: u32, plain: bool) -> [u8; 32] {
        let item = *self.cursors.at(cursor);
        let topic = self.topics.at(item.topic);
        let digests = self.natives.digests.len() as u64;
        let place = u64::from(item.topic.0).wrapping_mul(31).wrapping_add(item.pos);
        let place = usize::try_from(place.checked_rem(digests).unwrap_or(0)).unwrap_or(0);
        let known =
            Digest { topic: item.topic, len, epoch: topic.epoch, from: item.pos, digest: [0; 32] };
        if plain
            && let Some(found) = self.natives.digests.get(place)
            && found.is_of(&known)
        {
            self.stats.digests_shared.bump();
            return found.digest;
        }
        let mut hasher = blake3::Hasher::new();
        let mut walk = walk_of(slot, &item);
        let mut left = len;
        while left > 0
            && let Some(piece) = walk.piece(&self.memory, &topic.frames)
        {
            let here = piece.len.min(left);
            hasher.update(self.memory.bytes(piece.link, piece.offset, here));
            left = left.saturating_sub(here);
            walk.step(here);
        }
        let digest = *hasher.finalize().as_bytes();
        if plain && let Some(room) = self.natives.digests.get_mut(place) {
            *room = Digest { digest, ..known };
        }
        digest
    }

    /// What came over a bridge is not handed to one: its numbers are left out, as its own are.
    fn skip_bridged(&mut self, slot: Ref, cursor: Ref) {
        let most = BATCH_BYTES.max(self.limits.native.payload_bytes_max);
        let run = self.stretch(slot, cursor, most, u32::MAX, Which::Bridged);
        if let Some((len, _)) = run.filter(|(len, _)| *len > 0) {
            self.stats.bridged_left_out.bump();
            self.advance_native(slot, cursor, len);
        }
    }

    /// A frame that the reader cannot take is told as a gap.
    fn skip_frame(&mut self, slot: Ref, cursor: Ref) {
        let item = *self.cursors.at(cursor);
        let log = &self.topics.at(item.topic).frames;
        let mut walk = walk_of(slot, &item);
        if walk.piece(&self.memory, log).is_none() {
            return;
        }
        let at = Place { link: walk.link, pos: walk.pos };
        let len = frames_log::frame_len(&self.memory, log, at);
        let number = frames_log::frame_number(&self.memory, log, at);
        self.advance_native(slot, cursor, u32::try_from(len).unwrap_or(u32::MAX));
        let (topic, to) = (self.number_of(item.topic), number.saturating_add(1));
        let reason = GapReason::TooLarge as u8;
        self.stats.gaps.bump();
        self.stats.gap_messages.bump();
        self.tell_native(slot, &ServerControl::Gap { topic, from: number, to, reason });
        self.mark(slot, Pending::SEND);
    }

    /// What a reader missed is told before it reads on.
    fn tell_frames_gap(&mut self, slot: Ref, cursor: Ref) {
        let item = *self.cursors.at(cursor);
        let Some(from) = item.gap_from.checked_sub(1) else { return };
        self.cursors.at_mut(cursor).gap_from = 0;
        let to = self.number_here(&item);
        if from < to {
            let (topic, reason) = (self.number_of(item.topic), GapReason::Lag as u8);
            self.tell_native(slot, &ServerControl::Gap { topic, from, to, reason });
        }
    }

    /// The number of the frame that a cursor stands before.
    fn number_here(&self, item: &Cursor) -> u64 {
        let log = &self.topics.at(item.topic).frames;
        if item.is_behind() {
            let at =
                frames_log::settle(&self.memory, log, Place { link: item.link, pos: item.pos });
            frames_log::frame_number(&self.memory, log, at)
        } else {
            log.messages
        }
    }

    /// A send has ended: so much of it was taken.
    pub(in crate::relay) fn sent_native(&mut self, slot: Ref, taken: u32) {
        self.peers_sent(slot, taken);
        let mut left = taken;
        while left > 0 && self.natives.conn(slot).batch_count > 0 {
            let Some(batch) = self.natives.conn_mut(slot).batches.first_mut() else { break };
            let own = left.min(batch.own);
            batch.own = batch.own.saturating_sub(own);
            left = left.saturating_sub(own);
            let body = left.min(batch.body);
            batch.body = batch.body.saturating_sub(body);
            left = left.saturating_sub(body);
            let (cursor, over) = (batch.cursor, batch.own == 0 && batch.body == 0);
            self.pop_own(slot, own);
            if body > 0 {
                self.advance_native(slot, cursor, body);
            }
            if over {
                let conn = self.natives.conn_mut(slot);
                conn.batches.rotate_left(1);
                if let Some(last) = conn.batches.last_mut() {
                    *last = Batch::default();
                }
                conn.batch_count = conn.batch_count.saturating_sub(1);
            }
        }
        self.pop_own(slot, left);
        self.drop_ended(slot);
        if self.sessions.at(slot).output.is_empty() {
            self.natives.conn_mut(slot).answers = 0;
            let flags = self.sessions.at(slot).flags;
            // It may have waited for just that.
            if flags.has(Flags::BACKLOG) && !flags.has(Flags::QUEUED) {
                self.queue(slot);
            }
        }
    }

    fn pop_own(&mut self, slot: Ref, len: u32) {
        let mut output = self.sessions.at(slot).output;
        output.pop(&mut self.memory, Purpose::Output, len);
        self.sessions.at_mut(slot).output = output;
    }

    /// Moves a cursor over `len` bytes of what it is sent; at the head it waits.
    fn advance_native(&mut self, slot: Ref, cursor: Ref, len: u32) {
        let item = *self.cursors.at(cursor);
        let topic = self.topics.at_mut(item.topic);
        let mut walk = walk_of(slot, &item);
        let mut left = len;
        let at_head = loop {
            let Some(piece) = walk.piece(&self.memory, &topic.frames) else { break true };
            if left == 0 {
                break false;
            }
            let step = piece.len.min(left);
            walk.step(step);
            left = left.saturating_sub(step);
        };
        self.cursors.at_mut(cursor).pos = walk.pos;
        if at_head {
            let waiting = &mut topic.frames_waiting;
            cursor::leave(&mut self.cursors, &mut self.memory, waiting, cursor);
            cursor::wait(&mut self.cursors, waiting, cursor);
        } else {
            cursor::relink(&mut self.cursors, &mut self.memory, cursor, walk.link);
        }
        self.trim_frames(item.topic);
    }

    /// Copies what was tagged and is not sent yet out of the logs: cursors are about to leave it.
    /// Gives whether there was memory for that.
    fn flatten(&mut self, slot: Ref) -> bool {
        let conn = *self.natives.conn(slot);
        let mut flat = Chain::EMPTY;
        let bodies = conn.bodies_before(u32::MAX);
        // Or none of it: what is moved half way cannot be gone through any more.
        let room = self.limits.blocks_for(bodies).saturating_add(FLAT_BLOCKS);
        let mut whole = conn.batch_count == 0 || room <= self.memory.blocks_free();
        for batch in conn.batches.iter().take(usize::from(conn.batch_count)) {
            whole = whole && self.move_own(slot, batch.own, &mut flat);
            let item = self.cursors.at(batch.cursor);
            let log = &self.topics.at(item.topic).frames;
            let mut walk = walk_of(slot, item);
            whole = whole && copy_log(&mut self.memory, log, &mut walk, batch.body, &mut flat);
            if whole {
                self.advance_native(slot, batch.cursor, batch.body);
            }
        }
        if !whole {
            flat.clear(&mut self.memory, Purpose::Output);
            return false;
        }
        let rest = self.sessions.at(slot).output;
        flat.join(&mut self.memory, rest);
        self.sessions.at_mut(slot).output = flat;
        let before = conn.peers_from.checked_sub(1).map_or(0, |from| conn.bodies_before(from));
        let conn = self.natives.conn_mut(slot);
        conn.peers_from = conn.peers_from.saturating_add(before);
        conn.batches = [Batch::default(); BATCHES];
        conn.batch_count = 0;
        true
    }

    /// Moves the front of a connection's own bytes to the end of another chain.
    fn move_own(&mut self, slot: Ref, len: u32, to: &mut Chain) -> bool {
        let mut left = len;
        while left > 0 {
            let mut part = [0_u8; PART];
            let room = part.get_mut(..(left as usize).min(PART)).unwrap_or_default();
            let here = self.sessions.at(slot).output.copy_to(&self.memory, room);
            let moved = part.get(..here).unwrap_or_default();
            if here == 0 || to.push(&mut self.memory, Purpose::Output, moved).is_err() {
                return false;
            }
            let here = u32::try_from(here).unwrap_or(u32::MAX);
            self.pop_own(slot, here);
            left = left.saturating_sub(here);
        }
        true
    }

    /// What [`Relay::jump`] does for a native connection: its cursors go to the heads of their
    /// logs, or are dropped where it is ending; after the send under way, which is cancelled.
    pub(in crate::relay) fn jump_native(&mut self, slot: Ref) {
        // What was tagged is moved, and its own bytes with it: not while they are being read.
        let tagged =
            self.natives.conn(slot).batch_count > 0 && !cfg!(wardline_mutant = "jump_moves_tagged");
        let session = self.sessions.at_mut(slot);
        if session.sending() == Sending::InFlight && (session.flight.log > 0 || tagged) {
            session.flags.set(Flags::JUMP);
            self.mark(slot, Pending::CANCEL);
        } else {
            self.jump_or_drop_native(slot);
        }
    }

    pub(in crate::relay) fn jump_or_drop_native(&mut self, slot: Ref) {
        if !self.flatten(slot) {
            self.stats.cut.bump();
            self.close(slot, Reason::Fault(PeerFault::SlowReader));
            return;
        }
        if self.sessions.at(slot).phase() == Phase::Leaving {
            self.unstall(slot);
            self.drop_subs(slot);
            self.proceed(slot);
            return;
        }
        let mut next = self.natives.conn(slot).subs;
        while let Some(cursor) = next.some() {
            next = self.cursors.at(cursor).sub_next;
            if self.cursors.at(cursor).is_behind() {
                self.skip_to_head(slot, cursor);
            }
        }
        if self.sessions.at(slot).sending() == Sending::No {
            self.mark(slot, Pending::SEND);
        }
        self.arm(slot);
    }

    fn skip_to_head(&mut self, slot: Ref, cursor: Ref) {
        let item = *self.cursors.at(cursor);
        let (from, to) = (self.number_here(&item), self.topics.at(item.topic).frames.messages);
        let topic = self.topics.at_mut(item.topic);
        let waiting = &mut topic.frames_waiting;
        cursor::leave(&mut self.cursors, &mut self.memory, waiting, cursor);
        cursor::wait(&mut self.cursors, waiting, cursor);
        self.trim_frames(item.topic);
        if from < to && !cfg!(wardline_mutant = "frames_gap_untold") {
            let reader = self.cursors.at_mut(cursor);
            if reader.gap_from == 0 {
                reader.gap_from = from.saturating_add(1);
            }
        }
        self.stats.gaps.bump();
        self.stats.gap_messages.add(to.saturating_sub(from));
        let conn = self.id(slot);
        self.tell(Event::Gap { conn, from, to });
    }
}

/// Which frames a stretch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Bridged,
    NotBridged,
}

impl Which {
    const fn holds(self, bits: u16) -> bool {
        match self {
            Self::All => true,
            Self::Bridged => bits & flags::BRIDGED != 0,
            Self::NotBridged => bits & flags::BRIDGED == 0,
        }
    }
}

impl Cursor {
    /// Whether a native reader has something to be sent, or to be told.
    const fn is_due(&self) -> bool {
        self.sub & sub::READS != 0
            && self.sub & sub::ENDED == 0
            && (self.is_behind() || self.gap_from != 0)
    }
}

impl Digest {
    fn is_of(&self, known: &Self) -> bool {
        let len = self.len == known.len || cfg!(wardline_mutant = "digest_of_another");
        len && (self.topic, self.epoch, self.from) == (known.topic, known.epoch, known.from)
    }
}

/// A walk from where a native cursor stands: over everything, or over everything but its own.
fn walk_of(slot: Ref, item: &Cursor) -> Walk {
    let all = item.sub & sub::ECHO != 0
        || item.pos < item.own_from
        || cfg!(wardline_mutant = "own_frames_sent");
    let own_until = if all { 0 } else { item.own_until };
    Walk { link: item.link, pos: item.pos, own: slot, own_until }
}

/// The own bytes of a connection, handed out piece by piece.
struct Own<I> {
    ranges: I,
    rest: Range,
}

impl<I: Iterator<Item = Range>> Own<I> {
    /// Puts `len` of them into a gather, or as many as there are; gives how many, and whether no
    /// room was missing.
    fn push(&mut self, len: u32, most: u32, out: &mut Gather) -> (u32, bool) {
        let mut done = 0_u32;
        while done < len {
            if self.rest.len == 0 {
                match self.ranges.next() {
                    Some(range) => self.rest = range,
                    None => return (done, true),
                }
            }
            let left = len.saturating_sub(done);
            let here = self.rest.len.min(left).min(most.saturating_sub(out.bytes));
            if here == 0 || !out.push(Range { len: here, ..self.rest }) {
                return (done, false);
            }
            self.rest.at = self.rest.at.saturating_add(here);
            self.rest.len = self.rest.len.saturating_sub(here);
            done = done.saturating_add(here);
        }
        (done, true)
    }
}

/// Copies what a walk goes over to the end of a chain.
fn copy_log<P: Pool>(
    memory: &mut Memory<'_, P>,
    log: &Log,
    walk: &mut Walk,
    len: u32,
    to: &mut Chain,
) -> bool {
    let mut left = len;
    while left > 0 {
        let Some(piece) = walk.piece(memory, log) else { return false };
        let mut part = [0_u8; PART];
        let len = piece.len.min(left).min(PART as u32);
        let here = copy(&mut part, memory.bytes(piece.link, piece.offset, len));
        if to.push(memory, Purpose::Output, part.get(..here).unwrap_or(&[])).is_err() {
            return false;
        }
        let here = u32::try_from(here).unwrap_or(u32::MAX);
        walk.step(here);
        left = left.saturating_sub(here);
    }
    true
}
