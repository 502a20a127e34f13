//! From one session to another: DIRECT, REQUEST, REPLY, STREAM, and credit. PROTOCOL.md 2.4.

use super::LINE_SLOT;
use super::entries::{Lost, handle};
use super::publish::Outcome;
use crate::access::Right;
use crate::id::Ref;
use crate::native::{Code, FRAME_HEADER_BYTES, Frame, FrameHeader, ServerControl, flags};
use crate::relay::Relay;
use crate::relay::input::Stop;
use crate::session::{Flags, Phase};
use crate::storage::{Pool, Purpose};

/// When who found a peer busy may try again.
const RETRY_MS: u32 = 100;
/// Of its allowance in bytes, in percent, from which a peer that does not read is sent no more.
const LAG_BUSY: u64 = 75;

impl<P: Pool> Relay<'_, P> {
    /// A frame with a peer goes to that one, wherever it is.
    pub(super) fn pass_on(&mut self, slot: Ref, frame: &Frame<'_>) -> Result<Outcome, Stop> {
        if !self.may(slot, Right::Request, b"") {
            return Ok(Outcome::Refused(Code::Forbidden, 0));
        }
        if let Some(shard) = self.away_of(frame.header.peer) {
            return self.pass_away(slot, shard, frame);
        }
        let from = self.handle_of_entry(self.natives.conn(slot).entry);
        Ok(match self.pass(from, frame) {
            Ok(()) => Outcome::Taken,
            Err(code) => Outcome::Refused(code, retry_of(code)),
        })
    }

    /// What a session says goes into its peer's own output, as a record of its own.
    pub(super) fn pass(&mut self, from: u64, frame: &Frame<'_>) -> Result<(), Code> {
        let (entry, peer) = self.route(frame.header.peer).map_err(|lost| match lost {
            Lost::NoRoute => Code::NoRoute,
            Lost::Busy => Code::Busy,
        })?;
        let len = FRAME_HEADER_BYTES.saturating_add(frame.payload.len());
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        if len > self.natives.conn(peer).records.sending.body_max() {
            return Err(Code::TooLarge);
        }
        if frame.header.has(flags::BRIDGED) && self.may(peer, Right::Bridge, b"") {
            return Err(Code::Forbidden);
        }
        let waits = self.sessions.at(peer).output.len().saturating_add(len);
        if waits > self.limits.native.direct_bytes || self.is_far_behind(peer) {
            return Err(Code::Busy);
        }
        let header = FrameHeader {
            peer: from,
            offset: self.natives.entries.at(entry).direct,
            ..frame.header
        };
        let header = header.to_bytes(u32::try_from(frame.payload.len()).unwrap_or(u32::MAX));
        // Room first: what was tagged must go out.
        let blocks = self.limits.blocks_for(len).saturating_add(2);
        // And some for those who are told something else.
        let spare = self.limits.blocks / 8;
        if self.memory.blocks_free() < blocks.saturating_add(spare) || self.is_doomed(peer) {
            return Err(Code::Overloaded);
        }
        self.rekey_if_due(peer);
        let digest = digest_of(&header, frame.payload);
        let Ok(record) = self.natives.conn_mut(peer).records.sending.frames(len, &digest) else {
            return Err(Code::Busy);
        };
        let item = self.natives.entries.at_mut(entry);
        let step = u64::from(!cfg!(wardline_mutant = "direct_not_numbered"));
        item.direct = item.direct.saturating_add(step);
        self.stats.directs.bump();
        let mut output = self.sessions.at(peer).output;
        let conn = self.natives.conn_mut(peer);
        if conn.peers_from == 0 {
            conn.peers_from = output.len().saturating_add(1);
        }
        let mut said = true;
        for part in [&record[..], &header, frame.payload] {
            said = said && output.push(&mut self.memory, Purpose::Output, part).is_ok();
        }
        self.sessions.at_mut(peer).output = output;
        if said {
            self.mark(peer, crate::session::Pending::SEND);
            Ok(())
        } else {
            crate::fault::invariant_failed("a block that was free is not");
        }
    }

    fn is_far_behind(&self, peer: Ref) -> bool {
        let stalled = self.sessions.at(peer).flags.has(Flags::STALLED);
        let most = self.limits.lag_allowance().saturating_mul(LAG_BUSY) / 100;
        stalled && self.lag(peer) > most
    }

    /// How much of a stream its reader will take.
    pub(super) fn credit(
        &mut self,
        slot: Ref,
        peer: u64,
        corr: u64,
        bytes: u32,
    ) -> Result<(), Stop> {
        let from = self.handle_of_entry(self.natives.conn(slot).entry);
        if !self.may(slot, Right::Request, b"") {
            self.stats.credits_dropped.bump();
        } else if let Some(shard) = self.away_of(peer) {
            return self.credit_away(slot, shard, from, (peer, corr, bytes));
        } else {
            self.give_credit(from, (peer, corr, bytes));
        }
        Ok(())
    }

    /// A session of this shard is told how much another one will take.
    pub(super) fn give_credit(&mut self, from: u64, (peer, corr, bytes): (u64, u64, u32)) {
        let Ok((_, other)) = self.route(peer) else {
            self.stats.credits_dropped.bump();
            return;
        };
        let waits = self.sessions.at(other).output.len();
        let short = self.memory.blocks_free() < self.limits.blocks / 8;
        if short || waits > self.limits.native.direct_bytes {
            self.stats.credits_dropped.bump();
            return;
        }
        self.tell_peer(other, &ServerControl::Credit { peer: from, corr, bytes });
    }

    /// The handle of a connection of the line dialect, by which its messages name it.
    pub(super) fn line_handle(&self, slot: Ref) -> u64 {
        let generation = self.sessions.at(slot).generation;
        handle(self.links.shard, generation, LINE_SLOT | slot.0)
    }

    /// The connection of the line dialect that a handle names, while it is there.
    pub(super) fn line_of(&self, of: u64) -> Option<Ref> {
        let slot = (of & 0x00FF_FFFF) as u32;
        let slot = Ref(slot.checked_sub(LINE_SLOT)?);
        let session = self.sessions.find(slot)?;
        let lives = session.phase() == Phase::Open && !session.flags.has(Flags::NATIVE);
        (lives && self.line_handle(slot) == of).then_some(slot)
    }
}

/// When who was refused for that may try again.
pub(super) const fn retry_of(code: Code) -> u32 {
    if matches!(code, Code::Busy | Code::Overloaded) { RETRY_MS } else { 0 }
}

fn digest_of(header: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(payload);
    *hasher.finalize().as_bytes()
}
