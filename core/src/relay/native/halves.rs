//! Handshakes that are under way: places of which there are few, for anybody can take one.
//!
//! They stand in two rows, oldest first: those that were challenged, who have proved nothing, and
//! those that were resumed. Where all places are taken the oldest of the first row gives way; to
//! who proves that it has a session the oldest of the second, too.

use super::greet::RETRY_MS;
use super::slots::HalfOpen;
use crate::event::Reason;
use crate::fault::PeerFault;
use crate::id::Ref;
use crate::native::Code;
use crate::native::handshake::server::{Answer, Ended};
use crate::prefix::PrefixSlot;
use crate::relay::Relay;
use crate::session::Flags;
use crate::storage::Pool;

/// One of the rows: its oldest, and its youngest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) first: Ref,
    last: Ref,
}

impl<P: Pool> Relay<'_, P> {
    /// Whether the address may have one more handshake under way, and one more session. Who proves
    /// that it has a session is not held up by others of its address while there is room for all.
    pub(super) fn room_for(&mut self, slot: Ref, proved: bool) -> Answer {
        let session = self.sessions.at(slot);
        let PrefixSlot { conns, half_open, .. } = *self.prefixes.at(session.prefix);
        let halves = &self.natives.halves;
        let plenty = proved && halves.used() < halves.capacity() / 2;
        let free = plenty || half_open < self.limits.native.half_open_per_prefix;
        // Itself among them. Who has a session already comes in place of a connection of before.
        let many = !proved && conns > self.limits.quarantine.connections_per_prefix;
        if (free && !many) || session.flags.has(Flags::EXEMPT) {
            return Answer::Yes;
        }
        let counter = if many {
            &mut self.stats.refused_per_address
        } else {
            &mut self.stats.half_open_refused
        };
        counter.bump();
        Answer::No(Ended { code: Code::TooManyConnections, retry_ms: RETRY_MS })
    }

    /// A place for a handshake.
    pub(super) fn take_half(&mut self, slot: Ref, proved: bool) -> Result<Ref, Ended> {
        if self.natives.halves.used() >= self.natives.halves.capacity() {
            self.make_half(proved);
        }
        let Some(half) = self.natives.halves.take() else {
            self.stats.half_open_full.bump();
            return Err(Ended { code: Code::Overloaded, retry_ms: RETRY_MS });
        };
        let prefix = self.prefixes.at_mut(self.sessions.at(slot).prefix);
        prefix.half_open = prefix.half_open.saturating_add(1);
        self.natives.conn_mut(slot).half = half;
        let older = {
            let row = self.natives.rows.of(proved);
            let first = if row.first.is_none() { half } else { row.first };
            core::mem::replace(row, Row { first, last: half }).last
        };
        if older.is_some() {
            self.natives.halves.at_mut(older).younger = half;
        }
        let item = self.natives.halves.at_mut(half);
        item.conn = slot;
        item.older = older;
        item.proved = u8::from(proved);
        Ok(half)
    }

    /// Has somebody give way.
    fn make_half(&mut self, proved: bool) {
        if cfg!(wardline_mutant = "half_open_stays") {
            return;
        }
        let Rows { challenged, resumed } = self.natives.rows;
        let (half, silently) = match challenged.first.some() {
            Some(half) => (half, false),
            None if proved => (resumed.first, true),
            None => return,
        };
        let Some(half) = half.some() else { return };
        self.stats.half_open_evicted.bump();
        let conn = self.natives.halves.at(half).conn;
        if !self.sessions.at(conn).is_open() {
            // It has had its last words.
            self.drop_half(conn);
        } else if silently {
            // It has keys, and nothing is said to who has not proved that it has them, too.
            self.drop_half(conn);
            self.close(conn, Reason::Fault(PeerFault::Native(Code::Overloaded)));
        } else {
            self.turn_away(conn, Ended { code: Code::Overloaded, retry_ms: RETRY_MS });
        }
    }

    /// Gives back what a handshake kept.
    pub(super) fn drop_half(&mut self, slot: Ref) {
        let half = core::mem::take(&mut self.natives.conn_mut(slot).half);
        if half.is_none() {
            return;
        }
        let HalfOpen { entry, rival, .. } = *self.natives.halves.at(half);
        if entry.is_some() {
            self.unlink_rival(entry, half, rival);
        }
        // Who goes to another shard has left it already.
        if self.natives.conn(slot).moves_to == 0 {
            self.unlink(half);
        }
        let prefix = self.prefixes.at_mut(self.sessions.at(slot).prefix);
        prefix.half_open = prefix.half_open.saturating_sub(1);
        self.natives.halves.at_mut(half).wipe();
        self.natives.halves.give(half);
    }

    /// A connection's handshake, if it has one, leaves its row: nobody has it give way any more.
    pub(super) fn leave_row(&mut self, slot: Ref) {
        if let Some(half) = self.natives.conn(slot).half.some() {
            self.unlink(half);
        }
    }

    fn unlink(&mut self, half: Ref) {
        let HalfOpen { older, younger, proved, .. } = *self.natives.halves.at(half);
        match older.some() {
            Some(older) => self.natives.halves.at_mut(older).younger = younger,
            None => self.natives.rows.of(proved != 0).first = younger,
        }
        match younger.some() {
            Some(younger) => self.natives.halves.at_mut(younger).older = older,
            None => self.natives.rows.of(proved != 0).last = older,
        }
    }
}

/// Both of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rows {
    pub(super) challenged: Row,
    pub(super) resumed: Row,
}

impl Rows {
    const fn of(&mut self, proved: bool) -> &mut Row {
        if proved { &mut self.resumed } else { &mut self.challenged }
    }
}
