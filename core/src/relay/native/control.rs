//! What a native client asks, and how it is answered. PROTOCOL.md 2.5.

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
const FOUND: usize = 16;
/// What such a question costs of a turn, in bytes.
pub(super) const WHO_COST: u32 = 4 << 10;
/// Where the shard stands in a handle, and in the place where a Who goes on.
const SHARD_AT: u32 = 56;

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
            ClientControl::Resolve { ask, identity } => self.resolve(slot, ask, &identity)?,
            ClientControl::Identify { ask, handle } => self.identify(slot, ask, handle)?,
            ClientControl::Who { ask, topic, after } => self.who(slot, ask, topic, after)?,
            ClientControl::Credit { peer, corr, bytes } => self.credit(slot, peer, corr, bytes)?,
        }
        self.stats.controls.bump();
        Ok(())
    }

    pub(super) fn refuse_ask(&mut self, slot: Ref, ask: u32, code: Code, retry_ms: u32) {
        self.stats.asks_refused.bump();
        self.tell_native(slot, &ServerControl::Refused { ask, code: code.wire(), retry_ms });
    }

    /// The live sessions of an identity.
    fn resolve(&mut self, slot: Ref, ask: u32, identity: &[u8; 32]) -> Result<(), Stop> {
        let known = Identity::new(identity).ok();
        let Some(identity) = known.filter(|_| self.may(slot, Right::Request, b"")) else {
            self.refuse_ask(slot, ask, Code::Forbidden, 0);
            return Ok(());
        };
        let home = self.home_of_identity(&identity);
        let question = Question::Resolve(identity);
        if home != self.links.shard {
            return self.ask_away(slot, home, ask, &question);
        }
        self.answer_here(slot, ask, &question);
        Ok(())
    }

    /// Whose a handle is that a message came with.
    fn identify(&mut self, slot: Ref, ask: u32, handle: u64) -> Result<(), Stop> {
        if self.line_of(handle).is_some() || self.is_far_line(handle) {
            let nobody = [0; 32];
            let value = ServerControl::Identity { ask, handle, identity: nobody, device: 0 };
            self.tell_native(slot, &value);
            return Ok(());
        }
        let question = Question::Identify(handle);
        if let Some(shard) = self.away_of(handle) {
            return self.ask_away(slot, shard, ask, &question);
        }
        self.answer_here(slot, ask, &question);
        Ok(())
    }

    /// Who reads a topic, some at a time: of one shard after the other.
    fn who(&mut self, slot: Ref, ask: u32, number: u32, after: u64) -> Result<(), Stop> {
        let topic = self.sub_of(slot, number).map(|cursor| self.cursors.at(cursor).topic);
        let may = topic.is_some_and(|topic| self.may_on(slot, Right::Who, topic));
        let Some(topic) = topic.filter(|_| may) else {
            self.refuse_ask(slot, ask, Code::Forbidden, 0);
            return Ok(());
        };
        let question = Question::Who(topic, after);
        if let Some(shard) = self.away_of(after) {
            return self.ask_away(slot, shard, ask, &question);
        }
        // It costs more than what was received for it says.
        let lobby = self.topics.at_mut(self.natives.lobby);
        lobby.taken = lobby.taken.saturating_add(WHO_COST);
        self.answer_here(slot, ask, &question);
        Ok(())
    }

    fn answer_here(&mut self, slot: Ref, ask: u32, question: &Question) {
        let found = self.find_sessions(question);
        self.tell_found(slot, ask, question, found);
    }

    /// What a question is answered with.
    pub(super) fn tell_found(&mut self, slot: Ref, ask: u32, question: &Question, found: Found) {
        let Found { sessions, next } = found;
        let none = sessions.is_empty();
        for Session { handle, identity, device } in sessions {
            self.tell_native(slot, &ServerControl::Identity { ask, handle, identity, device });
        }
        match question {
            Question::Identify(_) if none => self.refuse_ask(slot, ask, Code::NoRoute, 0),
            Question::Identify(_) => {}
            Question::Resolve(_) | Question::Who(..) => {
                self.tell_native(slot, &ServerControl::Done { ask, next });
            }
        }
    }

    /// Those of this shard that a question is about.
    pub(super) fn find_sessions(&self, question: &Question) -> Found {
        match question {
            Question::Identify(handle) => {
                let mut found = Found::default();
                if let Ok(entry) = self.entry_of(*handle) {
                    found.push(self.session_of(entry));
                }
                found
            }
            Question::Resolve(identity) => self.find_identity(identity),
            Question::Who(topic, after) => self.find_readers(*topic, *after),
        }
    }

    fn session_of(&self, entry: Ref) -> Session {
        let item = self.natives.entries.at(entry);
        let (identity, device) = (*item.identity.as_bytes(), item.device);
        Session { handle: self.handle_of_entry(entry), identity, device }
    }

    fn find_identity(&self, identity: &Identity) -> Found {
        let (mut found, mut at) = (Found::default(), None);
        for _ in 0..RESOLVE_STEPS {
            let Some(entry) = self.next_entry(identity, at) else { break };
            at = Some(entry);
            if self.natives.entries.at(entry).conn.is_some() && !found.is_full() {
                found.push(self.session_of(entry));
            }
        }
        found
    }

    fn find_readers(&self, topic: Ref, after: u64) -> Found {
        let mut found = Found::default();
        let shard = u64::from(self.links.shard);
        let last = self.links.shard.saturating_add(1) >= self.links.shards;
        // Then the next shard, where there is one.
        found.next = if last { 0 } else { shard.saturating_add(1) << SHARD_AT };
        let from = u32::try_from(after & !(0xFF << SHARD_AT)).unwrap_or(u32::MAX);
        let end = self.sessions.touched();
        for (steps, index) in (from..end).enumerate() {
            if found.is_full() || steps as u64 >= u64::from(WHO_STEPS) {
                found.next = (shard << SHARD_AT) | u64::from(index);
                break;
            }
            let other = Ref::of(index);
            let conn = self.natives.conn(other);
            // One that is ending has no session any more.
            let lives = conn.stage() == Stage::Live && conn.entry.is_some();
            if lives && self.reads(other, topic) {
                found.push(self.session_of(conn.entry));
            }
        }
        found
    }
}

/// A question about sessions, of those that one shard has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// Whose a handle is.
    Identify(u64),
    /// An identity's.
    Resolve(Identity),
    /// Readers of a topic: from where on, with the shard as in a handle.
    Who(Ref, u64),
}

/// What is told of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) handle: u64,
    pub(super) identity: [u8; 32],
    pub(super) device: u32,
}

/// Those that were found, and where it goes on; 0: that is all.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) sessions: heapless::Vec<Session, FOUND>,
    pub(super) next: u64,
}

impl Found {
    fn is_full(&self) -> bool {
        self.sessions.is_full()
    }

    pub(super) fn push(&mut self, session: Session) {
        // Nobody asks for more than there is room for.
        let _ = self.sessions.push(session);
    }
}
