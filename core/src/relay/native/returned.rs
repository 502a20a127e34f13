//! What peers said to a connection that ends before it was sent: their senders are told.
//! PROTOCOL.md 2.4.4.
//!
//! ```text
//!   output   | rest of a record | record | peer's record | header | record | peer's record |
//!                               ^ peers_from             body, in a log
//! ```
//! Nobody keeps a list: the records stand in the connection's own output, and are gone through
//! once, at its end. Of where records begin in it only one place is kept up, and only while peers
//! have something there.

use super::peers::retry_of;
use super::slots::Native;
use crate::id::Ref;
use crate::native::{Code, FRAME_HEADER_BYTES, FrameKind, RECORD_HEADER_BYTES};
use crate::relay::Relay;
use crate::session::Sending;
use crate::storage::{Pool, Purpose};

/// A record of frames.
const FRAMES: u8 = 0x10;
/// Messages that are gone through before their senders are told, while there is no memory for that.
const TOLD: usize = 64;
/// The header of a record, and of the first frame in it.
const FRONT: usize = RECORD_HEADER_BYTES + FRAME_HEADER_BYTES;

impl Native {
    /// Bytes of logs that go out before the own byte at that place.
    pub(super) fn bodies_before(&self, at: u32) -> u32 {
        let (mut own, mut bodies) = (0_u32, 0_u32);
        for batch in self.batches.iter().take(usize::from(self.batch_count)) {
            own = own.saturating_add(batch.own);
            if own > at {
                break;
            }
            bodies = bodies.saturating_add(batch.body);
        }
        bodies
    }

    /// Whether the own bytes up to that place end with the header of a batch.
    fn is_header_end(&self, at: u32) -> bool {
        let mut own = 0_u32;
        self.batches.iter().take(usize::from(self.batch_count)).any(|batch| {
            own = own.saturating_add(batch.own);
            own == at
        })
    }

    /// Of so many bytes that go out, those that are its own.
    fn own_of(&self, bytes: u32) -> u32 {
        let (mut left, mut own) = (bytes, 0_u32);
        for batch in self.batches.iter().take(usize::from(self.batch_count)) {
            let here = left.min(batch.own);
            own = own.saturating_add(here);
            left = left.saturating_sub(here);
            left = left.saturating_sub(left.min(batch.body));
        }
        own.saturating_add(left)
    }
}

/// What stands at the front of an output.
struct Front {
    /// Own bytes of the record.
    len: u32,
    /// Who said it, and which message it is; of a peer's record.
    said: Option<(u64, u64)>,
}

impl<P: Pool> Relay<'_, P> {
    /// So many bytes of a connection's output were sent, and are yet to be taken off it.
    pub(super) fn peers_sent(&mut self, slot: Ref, taken: u32) {
        let conn = self.natives.conn(slot);
        let Some(from) = conn.peers_from.checked_sub(1) else { return };
        let own = conn.own_of(taken);
        let from = if own > from { self.first_whole(slot, own) } else { from };
        let any = from < self.sessions.at(slot).output.len();
        let from = from.saturating_sub(own).saturating_add(1);
        self.natives.conn_mut(slot).peers_from = if any { from } else { 0 };
    }

    /// The place of the first record that begins at or after `own`, as far as peers matter.
    fn first_whole(&self, slot: Ref, own: u32) -> u32 {
        let conn = self.natives.conn(slot);
        let mut at = conn.peers_from.saturating_sub(1);
        let mut rest = self.sessions.at(slot).output.after(&self.memory, at);
        while at < own {
            let mut front = [0_u8; FRONT];
            let there = rest.copy_to(&self.memory, &mut front);
            let Some(record) = front_of(conn, at, front.get(..there).unwrap_or_default()) else {
                return u32::MAX;
            };
            at = at.saturating_add(record.len);
            rest = rest.after(&self.memory, record.len);
        }
        at
    }

    /// The senders of what peers said and nothing was sent of are told that it came to nothing.
    /// Of what a send under way has, nobody knows how far it goes: it counts as sent. Once
    /// everybody was told of a shutdown nobody is told this, for everybody leaves.
    ///
    /// `over`: nothing of the output is sent any more. Then it goes as it is gone through, so that
    /// there is memory for telling it, which takes less.
    pub(super) fn return_queued(&mut self, slot: Ref, over: bool) {
        if self.natives.conn(slot).peers_from == 0 {
            return;
        }
        let session = self.sessions.at(slot);
        let in_flight = session.sending() == Sending::InFlight;
        let sent = if in_flight { session.flight.control } else { 0 };
        let sent = if cfg!(wardline_mutant = "returned_though_sent") { 0 } else { sent };
        let conn = *self.natives.conn(slot);
        let mut at = self.first_whole(slot, sent);
        self.natives.conn_mut(slot).peers_from = 0;
        if self.everybody_leaves() {
            return;
        }
        let lives = self.entry_of(conn.handle).is_ok();
        let why = if lives { Code::Busy } else { Code::NoRoute };
        let goes = over && !in_flight;
        let mut told: heapless::Vec<(u64, u64), TOLD> = heapless::Vec::new();
        let mut rest = self.sessions.at(slot).output;
        let mut skip = at;
        loop {
            if goes {
                rest.pop(&mut self.memory, Purpose::Output, skip);
                self.sessions.at_mut(slot).output = rest;
            } else {
                rest = rest.after(&self.memory, skip);
            }
            let mut front = [0_u8; FRONT];
            let there = rest.copy_to(&self.memory, &mut front);
            let record = front_of(&conn, at, front.get(..there).unwrap_or_default());
            if let Some(of) = record.as_ref().and_then(|record| record.said) {
                // There is room: it is emptied below.
                let _ = told.push(of);
            }
            skip = record.as_ref().map_or(0, |record| record.len);
            at = at.saturating_add(skip);
            if record.is_none() || told.is_full() || self.memory.blocks_free() > 0 {
                for (peer, mid) in core::mem::take(&mut told) {
                    self.give_back(peer, mid, why);
                }
            }
            if record.is_none() {
                break;
            }
        }
    }

    /// A message came to nothing after it was taken: it may be sent again.
    pub(super) fn give_back(&mut self, peer: u64, mid: u64, code: Code) {
        if let Some(shard) = self.away_of(peer) {
            return self.give_back_away(shard, peer, mid, code);
        }
        let Some(entry) = self.entry_that_was(peer) else { return };
        let item = self.natives.entries.at_mut(entry);
        if !cfg!(wardline_mutant = "returned_stays_marked") {
            item.window.unmark(mid);
        }
        self.stats.directs_returned.bump();
        if let Some(conn) = item.conn.some() {
            self.nack(conn, mid, code, retry_of(code));
        }
    }
}

/// The record that begins there.
fn front_of(conn: &Native, at: u32, front: &[u8]) -> Option<Front> {
    let (header, frame) = front.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*word))
    };
    let first = word(header, 0)?;
    let (kind, body) = (first as u8, (first >> 32) as u32);
    let ends = at.saturating_add(RECORD_HEADER_BYTES as u32);
    if kind == FRAMES && conn.is_header_end(ends) {
        return Some(Front { len: RECORD_HEADER_BYTES as u32, said: None });
    }
    let len = (RECORD_HEADER_BYTES as u32).saturating_add(body);
    let topics = frame.get(4).is_none_or(|kind| *kind == FrameKind::Publish as u8);
    let said = if kind == FRAMES && !topics { word(frame, 16).zip(word(frame, 24)) } else { None };
    Some(Front { len, said })
}
