//! What a native client asks, and how it is answered. PROTOCOL.md 2.5.

use super::entries::Lost;
use super::slots::Stage;
use crate::access::Right;
use crate::id::Ref;
use crate::native::{ClientControl, Code, Identity, ServerControl};
use crate::quarantine::Offence;
use crate::relay::Relay;
use crate::relay::input::Stop;
use crate::storage::Pool;

/// Connections that one question about a topic looks at, and answers that it gives at most.
const WHO_STEPS: u32 = 256;
/// Sessions of an identity that one question looks at, those without a connection too.
const RESOLVE_STEPS: u32 = 256;
const WHO_ANSWERS: u32 = 16;
/// What such a question costs of a turn, in bytes.
const WHO_COST: u32 = 4 << 10;

impl<P: Pool> Relay<'_, P> {
    /// What a connection asks. Where that has to wait for another shard, nothing of it was done.
    pub(super) fn take_control(&mut self, slot: Ref, value: &[u8]) -> Result<(), Stop> {
        let value = match ClientControl::decode(value) {
            Ok(value) => value,
            Err(code) => {
                // The record that held it was not acted upon.
                self.natives.conn_mut(slot).verified = 1;
                self.offend_identity(slot, Offence::Frame);
                self.fault(slot, code);
                return Ok(());
            }
        };
        match value {
            ClientControl::Subscribe { ask, name, from, echo, presence } => {
                self.subscribe(slot, ask, name, from, (echo, presence))?;
            }
            ClientControl::Unsubscribe { topic } => self.unsubscribe(slot, topic),
            ClientControl::Open { ask, name } => self.open(slot, ask, name)?,
            ClientControl::Resolve { ask, identity } => self.resolve(slot, ask, &identity),
            ClientControl::Identify { ask, handle } => self.identify(slot, ask, handle),
            ClientControl::Who { ask, topic, after } => self.who(slot, ask, topic, after),
            ClientControl::Credit { peer, corr, bytes } => self.credit(slot, peer, corr, bytes),
        }
        self.stats.controls.bump();
        Ok(())
    }

    pub(super) fn refuse_ask(&mut self, slot: Ref, ask: u32, code: Code, retry_ms: u32) {
        self.stats.asks_refused.bump();
        self.tell_native(slot, &ServerControl::Refused { ask, code: code.wire(), retry_ms });
    }

    /// The live sessions of an identity.
    fn resolve(&mut self, slot: Ref, ask: u32, identity: &[u8; 32]) {
        if !self.may(slot, Right::Request, b"") {
            return self.refuse_ask(slot, ask, Code::Forbidden, 0);
        }
        let Ok(identity) = Identity::new(identity) else {
            return self.refuse_ask(slot, ask, Code::Forbidden, 0);
        };
        let (mut at, mut told) = (None, 0);
        for _ in 0..RESOLVE_STEPS {
            let Some(entry) = self.next_entry(&identity, at) else { break };
            at = Some(entry);
            if self.natives.entries.at(entry).conn.is_some() && told < WHO_ANSWERS {
                told = u32::saturating_add(told, 1);
                self.tell_identity(slot, ask, entry);
            }
        }
        self.tell_native(slot, &ServerControl::Done { ask, next: 0 });
    }

    fn tell_identity(&mut self, slot: Ref, ask: u32, entry: Ref) {
        let handle = self.handle_of_entry(entry);
        let item = self.natives.entries.at(entry);
        let (identity, device) = (*item.identity.as_bytes(), item.device);
        self.tell_native(slot, &ServerControl::Identity { ask, handle, identity, device });
    }

    /// Whose a handle is that a message came with.
    fn identify(&mut self, slot: Ref, ask: u32, handle: u64) {
        if self.line_of(handle).is_some() || self.is_far_line(handle) {
            let nobody = [0; 32];
            let value = ServerControl::Identity { ask, handle, identity: nobody, device: 0 };
            return self.tell_native(slot, &value);
        }
        match self.entry_of(handle) {
            Ok(entry) => self.tell_identity(slot, ask, entry),
            Err(Lost::NoRoute | Lost::Busy) => self.refuse_ask(slot, ask, Code::NoRoute, 0),
        }
    }

    /// Who reads a topic, some at a time.
    fn who(&mut self, slot: Ref, ask: u32, number: u32, after: u64) {
        let topic = self.sub_of(slot, number).map(|cursor| self.cursors.at(cursor).topic);
        let may = topic.is_some_and(|topic| self.may_on(slot, Right::Who, topic));
        let Some(topic) = topic.filter(|_| may) else {
            return self.refuse_ask(slot, ask, Code::Forbidden, 0);
        };
        // It costs more than what was received for it says.
        let lobby = self.topics.at_mut(self.natives.lobby);
        lobby.taken = lobby.taken.saturating_add(WHO_COST);
        let (mut told, mut next) = (0, 0);
        let from = u32::try_from(after).unwrap_or(u32::MAX);
        let end = self.sessions.touched();
        for (steps, index) in (from..end).enumerate() {
            if told == WHO_ANSWERS || steps as u64 >= u64::from(WHO_STEPS) {
                next = u64::from(index);
                break;
            }
            let other = Ref::of(index);
            let conn = self.natives.conn(other);
            // One that is ending has no session any more.
            let lives = conn.stage() == Stage::Live && conn.entry.is_some();
            if lives && self.reads(other, topic) {
                self.tell_identity(slot, ask, conn.entry);
                told = u32::saturating_add(told, 1);
            }
        }
        self.tell_native(slot, &ServerControl::Done { ask, next });
    }
}
