//! Lists of connections that have something to be done: intrusive, first in first out.

use crate::id::Ref;
use crate::session::Session;
use crate::storage::Slab;

/// Which of a session's two links a queue runs through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Ready,
    Backlog,
}

impl By {
    fn link(self, session: &mut Session) -> &mut Ref {
        match self {
            Self::Ready => &mut session.ready_next,
            Self::Backlog => &mut session.backlog_next,
        }
    }
}

/// A queue; all zeros is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    first: Ref,
    last: Ref,
    by: By,
}

impl Queue {
    pub(crate) const fn new(by: By) -> Self {
        Self { first: Ref::NONE, last: Ref::NONE, by }
    }

    pub(crate) const fn first(&self) -> Option<Ref> {
        self.first.some()
    }

    /// The caller sees to it that a connection is at most once in the queues of one link.
    pub(crate) fn push(&mut self, sessions: &mut Slab<'_, Session>, slot: Ref) {
        *self.by.link(sessions.at_mut(slot)) = Ref::NONE;
        match self.last.some() {
            Some(last) => *self.by.link(sessions.at_mut(last)) = slot,
            None => self.first = slot,
        }
        self.last = slot;
    }

    pub(crate) fn pop(&mut self, sessions: &mut Slab<'_, Session>) -> Option<Ref> {
        let slot = self.first.some()?;
        self.first = core::mem::take(self.by.link(sessions.at_mut(slot)));
        if self.first.is_none() {
            self.last = Ref::NONE;
        }
        Some(slot)
    }

    /// Moves all of `other` to the end.
    pub(crate) fn append(&mut self, sessions: &mut Slab<'_, Session>, other: &mut Self) {
        if other.first.is_none() {
            return;
        }
        match self.last.some() {
            Some(last) => *self.by.link(sessions.at_mut(last)) = other.first,
            None => self.first = other.first,
        }
        self.last = other.last;
        other.first = Ref::NONE;
        other.last = Ref::NONE;
    }
}
