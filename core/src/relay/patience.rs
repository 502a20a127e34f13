//! The coalescing budget: once a topic was sent from, its readers wait a little for what comes
//! next, so that it goes out in one send each instead of many.
//!
//! Whoever waits stands in a list of the topic, behind the log like any reader; nothing else
//! changes. The list is let go as a whole: when the patience is over, when enough waits, when
//! memory is short, or when one of it leaves. What is a connection's own (warnings, the rest of a
//! message that was begun) never waits.

use super::{Relay, mark};
use crate::fault::ConfigError;
use crate::id::{Ref, TopicId};
use crate::limits::COALESCE_MAX;
use crate::queue::Queue;
use crate::session::{Flags, Pending, Session};
use crate::storage::{Pool, Slab};
use crate::time::{Duration, Instant};
use crate::topic::Topic;
use crate::wheel::Wheel;

/// Bytes that do not wait any longer: a send of so many is cheap for each of them.
const ENOUGH_BYTES: u64 = 16 << 10;
/// A deadline is looked at up to a tick of the wheel later; so much is taken off beforehand.
const TICK: Duration = Duration::from_millis(1);

/// The readers of a topic that wait for more to come.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
pub(crate) struct Patience {
    /// How long; zero: never.
    span: Duration,
    /// When the topic was last sent from.
    flushed_at: Instant,
    /// Who waits, the last one first.
    first: Ref,
    /// Where the first to wait stands in the log.
    from: u64,
}

impl Patience {
    /// A patience of at most `coalesce`.
    pub(super) fn of(coalesce: Duration) -> Self {
        let ns = coalesce.as_nanos();
        let span = ns.saturating_sub(TICK.as_nanos()).max(ns / 2);
        Self { span: Duration::from_nanos(span), ..bytemuck::Zeroable::zeroed() }
    }

    fn over_at(&self) -> Instant {
        self.flushed_at.after(self.span)
    }

    /// Whether who is woken now waits. If not, this is the time from which others will.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let waits = !self.span.is_zero() && now < self.over_at();
        if !waits {
            self.flushed_at = now;
        }
        waits
    }

    /// Has a reader wait that stands at `pos`. Gives whether it does: not one that is ending.
    pub(super) fn add(&mut self, sessions: &mut Slab<'_, Session>, slot: Ref, pos: u64) -> bool {
        let session = sessions.at_mut(slot);
        if !session.is_open() {
            return false;
        }
        if !session.flags.has(Flags::PATIENT) {
            session.flags.set(Flags::PATIENT);
            self.from = if self.first.is_none() { pos } else { self.from.min(pos) };
            session.patient_next = core::mem::replace(&mut self.first, slot);
        }
        true
    }

    /// Sees to it that the list is let go in time.
    pub(super) fn await_end(&self, wheel: &mut Wheel<'_>, sessions: &mut Slab<'_, Session>) {
        if self.first.is_some() {
            wheel.arm(sessions, self.first, self.over_at());
        }
    }

    /// Lets everybody go.
    pub(super) fn release(
        &mut self,
        sessions: &mut Slab<'_, Session>,
        ready: &mut Queue,
        now: Instant,
    ) {
        self.flushed_at = now;
        while let Some(slot) = self.first.some() {
            let session = sessions.at_mut(slot);
            self.first = core::mem::take(&mut session.patient_next);
            session.flags.clear(Flags::PATIENT);
            mark(sessions, ready, slot, Pending::SEND);
        }
    }

    /// Who waits, the last one first; for [`Relay::check`].
    pub(super) const fn first(&self) -> Ref {
        self.first
    }
}

impl Topic {
    /// Whether so much waits that nobody should wait for more.
    fn has_enough(&self) -> bool {
        self.log.head.saturating_sub(self.patience.from) >= ENOUGH_BYTES
    }
}

impl<P: Pool> Relay<'_, P> {
    /// How long readers of a topic that was just sent from may wait for more to come, so that it
    /// goes out together; instead of [`LineLimits::coalesce`](crate::LineLimits::coalesce).
    ///
    /// # Errors
    /// The operator's: over 50 ms.
    pub fn set_coalesce(&mut self, topic: TopicId, coalesce: Duration) -> Result<(), ConfigError> {
        if coalesce > COALESCE_MAX {
            return Err(ConfigError::Coalesce);
        }
        self.release_patient(topic.slot);
        self.topics.at_mut(topic.slot).patience = Patience::of(coalesce);
        Ok(())
    }

    /// Whether a reader that has just been sent to, and has more to read, waits for yet more.
    pub(super) fn bides(&mut self, slot: Ref) -> bool {
        let session = self.sessions.at(slot);
        let topic_slot = session.topic;
        if self.topics.at(topic_slot).patience.span.is_zero() {
            return false;
        }
        let urgent = !session.is_open()
            || session.flags.has(Flags::STALLED)
            || !session.output.is_empty()
            || session.has_gap();
        let Some(cursor) = session.cursor.some().filter(|_| !urgent) else { return false };
        let cursor = *self.cursors.at(cursor);
        let topic = self.topics.at_mut(topic_slot);
        let waits = topic.log.head.saturating_sub(cursor.pos);
        let now = self.now;
        if cursor.begun != 0 || waits >= ENOUGH_BYTES || now >= topic.patience.over_at() {
            return false;
        }
        let alone = topic.patience.first.is_none();
        let added = topic.patience.add(&mut self.sessions, slot, cursor.pos);
        if added && alone {
            topic.patience.await_end(&mut self.wheel, &mut self.sessions);
        }
        added
    }

    /// When the list that a connection waits in is let go.
    pub(super) fn patient_until(&self, slot: Ref) -> Instant {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::PATIENT) && !cfg!(wardline_mutant = "patient_for_ever") {
            self.topics.at(session.topic).patience.over_at()
        } else {
            Instant::NEVER
        }
    }

    /// Lets the readers of a topic go on that wait for more.
    pub(super) fn release_patient(&mut self, topic: Ref) {
        let now = self.now;
        let patience = &mut self.topics.at_mut(topic).patience;
        if patience.first.is_none() {
            return;
        }
        self.stats.coalesced.bump();
        patience.release(&mut self.sessions, &mut self.ready, now);
    }

    /// The same for every topic: memory is short.
    pub(super) fn release_all_patient(&mut self) {
        for topic in (0..self.topics.touched()).map(Ref::of) {
            self.release_patient(topic);
        }
    }

    /// The same, where enough waits.
    pub(super) fn release_if_enough(&mut self, topic: Ref) {
        let waiting = self.topics.at(topic);
        if waiting.patience.first.is_some() && waiting.has_enough() {
            self.release_patient(topic);
        }
    }

    /// The same, where one of them leaves.
    pub(super) fn leave_patience(&mut self, slot: Ref) {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::PATIENT) {
            self.release_patient(session.topic);
        }
    }
}
