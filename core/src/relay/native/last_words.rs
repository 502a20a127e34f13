//! The end of a native connection, its deadlines, and what is swept up after it.
//! PROTOCOL.md 2.3.4.

use super::slots::Stage;
use crate::event::Reason;
use crate::fault::PeerFault;
use crate::id::Ref;
use crate::native::Code;
use crate::quarantine::Offence;
use crate::relay::Relay;
use crate::session::{Farewell, Flags};
use crate::storage::Pool;
use crate::time::Instant;

impl<P: Pool> Relay<'_, P> {
    /// A record, or what it holds, was wrong.
    pub(super) fn fault(&mut self, slot: Ref, code: Code) {
        self.stats.record_faults.bump();
        self.detach(slot, code.session_survives());
        self.end_native(slot, code, 0);
    }

    /// Begins to end a native connection; its last record says why.
    pub(super) fn end_native(&mut self, slot: Ref, code: Code, retry_ms: u32) {
        let conn = self.natives.conn_mut(slot);
        if conn.last_code == 0 {
            conn.last_code = code.wire().saturating_add(1);
            conn.last_retry_ms = retry_ms;
        }
        let reason = if code == Code::Normal {
            Reason::Peer
        } else if code == Code::GoingAway {
            Reason::Shutdown
        } else {
            Reason::Fault(PeerFault::Native(code))
        };
        self.leave(slot, reason, Farewell::None, false);
    }

    /// A connection begins to end: its session is told by what.
    pub(in crate::relay) fn native_leaves(&mut self, slot: Ref, farewell: Farewell) {
        let code = match farewell {
            Farewell::None | Farewell::Http | Farewell::Utf8 => Code::Normal,
            Farewell::Slow => Code::SlowReader,
            Farewell::Idle | Farewell::Unfinished => Code::Idle,
            Farewell::Shutdown => Code::GoingAway,
            Farewell::Overloaded => Code::Overloaded,
        };
        let conn = self.natives.conn_mut(slot);
        if conn.last_code == 0 {
            conn.last_code = code.wire().saturating_add(1);
        }
        self.detach(slot, code.session_survives());
    }

    /// The last record of a connection, once everything before it was put out.
    pub(in crate::relay) fn last_words(&mut self, slot: Ref) {
        let conn = self.natives.conn_mut(slot);
        let live = conn.stage() == Stage::Live;
        self.no_stranger(slot);
        let conn = self.natives.conn_mut(slot);
        conn.set_stage(Stage::Over);
        let code = conn.last_code.checked_sub(1).and_then(Code::from_wire).unwrap_or(Code::Normal);
        let (detail, retry_ms) = (conn.last_detail, conn.last_retry_ms);
        if !live {
            return;
        }
        self.rekey_if_due(slot);
        let conn = self.natives.conn_mut(slot);
        // The frames of one record may have waited, and were not all taken.
        let waited = (conn.verified > 0 || conn.control > 0)
            && !cfg!(wardline_mutant = "close_counts_waiting");
        let unacted = u64::from(waited);
        if let Ok(record) = conn.records.close(code, detail, retry_ms, unacted) {
            self.say(slot, &record);
        }
    }

    /// The socket ended without a word, or is to: its session waits for its client.
    pub(in crate::relay) fn native_lost(&mut self, slot: Ref) {
        self.detach(slot, true);
        self.drop_half(slot);
        self.return_queued(slot, true);
        let conn = self.natives.conn(slot);
        if conn.stage() == Stage::Hello && conn.last_code == 0 {
            self.knock_unheard(slot);
        }
        self.no_stranger(slot);
        let conn = self.natives.conn_mut(slot);
        conn.set_stage(Stage::Over);
        conn.batch_count = 0;
    }

    /// It left, or was too slow, before anybody could know what it wanted: a connect all the same.
    fn knock_unheard(&mut self, slot: Ref) {
        let session = self.sessions.at(slot);
        if !session.flags.has(Flags::EXEMPT) {
            self.knock(self.prefixes.at(session.prefix).key);
        }
    }

    /// Nothing of a connection is under way any more.
    pub(in crate::relay) fn forget_native(&mut self, slot: Ref) {
        self.native_lost(slot);
        self.drop_subs(slot);
        self.natives.conn_mut(slot).wipe();
    }

    /// When a native connection is looked at for its own reasons.
    pub(in crate::relay) fn native_deadline(&self, slot: Ref) -> Instant {
        let session = self.sessions.at(slot);
        let limits = &self.limits.native;
        let conn = self.natives.conn(slot);
        match conn.stage() {
            Stage::Hello | Stage::Auth | Stage::Waiting => self.handshake_ends(slot),
            // Who is not read cannot be heard.
            Stage::Live if session.flags.has(Flags::BACKLOG) => Instant::NEVER,
            Stage::Live if conn.records.receiving.is_pinging() => {
                session.heard_at.after(limits.silence)
            }
            Stage::Live => session.heard_at.after(limits.ping),
            Stage::None | Stage::Over => Instant::NEVER,
        }
    }

    /// Acts on that deadline. Gives whether the connection is ending.
    pub(in crate::relay) fn expire_native(&mut self, slot: Ref) -> bool {
        if self.native_deadline(slot) > self.now {
            return false;
        }
        let conn = self.natives.conn_mut(slot);
        if conn.stage() != Stage::Live {
            if self.sessions.at(slot).flags.has(Flags::UNDECIDED) {
                self.decide_line(slot);
                return !self.sessions.at(slot).is_open();
            }
            if conn.stage() != Stage::Waiting {
                if conn.stage() == Stage::Hello {
                    self.knock_unheard(slot);
                }
                self.turn_away(slot, Code::HandshakeTimeout.into());
                return true;
            }
            // It has keys, but nothing is said before it has proved itself.
            self.stats.handshakes_refused.bump();
            self.offend(slot, Offence::HandshakeTimeout);
            self.close(slot, Reason::Fault(PeerFault::Native(Code::HandshakeTimeout)));
            return true;
        }
        if conn.records.receiving.is_pinging() {
            self.stats.idle.bump();
            self.detach(slot, true);
            self.end_native(slot, Code::Idle, 0);
            return true;
        }
        self.rekey_if_due(slot);
        let conn = self.natives.conn_mut(slot);
        conn.pings = conn.pings.wrapping_add(1);
        let nonce = conn.pings.to_le_bytes();
        if let Ok(record) = conn.records.ping(nonce) {
            self.say(slot, &record);
        }
        false
    }

    /// Looks through what is kept for a while, once a second at most.
    pub(in crate::relay) fn sweep(&mut self) {
        if self.now < self.natives.sweep_at {
            return;
        }
        self.natives.sweep_at = Instant::NEVER;
        let waits = self.sweep_entries();
        let keeps = self.sweep_topics();
        if waits || keeps {
            self.natives.sweep_soon(self.now);
        }
    }
}
