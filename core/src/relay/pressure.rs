//! Pressure: how far a reader may fall behind, and what happens then.
//!
//! Lag is what a reader's socket would not take, so it counts only while a send of that reader was
//! short or did not complete at once. Whether anybody lags too far is asked only of the cursors in
//! a topic's oldest link.

use super::Relay;
use super::door::FULL_STRANGERS;
use crate::event::{Event, Reason};
use crate::fault::PeerFault;
use crate::id::{Ref, TopicId};
use crate::limits::{LagRule, Slowdown};
use crate::line::{self, Text};
use crate::link::SHARDS_MAX;
use crate::log::number_at;
use crate::quarantine::Offence;
use crate::rate::Rate;
use crate::session::{Farewell, Flags, Pending, Phase, Sending};
use crate::storage::{Pool, Purpose};
use crate::time::{Duration, Instant};

/// Readers in a topic's oldest link that are looked at per turn, or to find one that gives way.
const LOOKED_AT: usize = 16;
/// Feeds that may stand before them: at most one for each shard.
const PASSED_OVER: usize = SHARDS_MAX as usize;
/// How long the reference's disconnect threshold must be exceeded, on end.
const DISCONNECT_AFTER: Duration = Duration::from_secs(5);
/// Three readers of an address that are cut within ten minutes are an offence.
const CUTS: Rate = Rate { period: Duration::from_secs(300), burst: 2 };
/// A level is left this many percent of the allowance lower than it was entered.
const HYSTERESIS: u64 = 15;

/// Milliseconds after which a byte that is held by choice costs no more: so that who holds 10 KiB
/// costs more within some milliseconds than who brings a whole line, and a short line that is half
/// sent never costs more than a backlog that is full.
const HOLD_MS_MAX: u64 = 100;

/// How much less the one that brings bytes now counts than one that holds as many.
const ASKER_FAVOUR: u64 = 8;
/// How much more those count whose first line is yet to end: a burst of them looks like anybody's
/// first half, but for who has said something whole before.
const STRANGER_DISFAVOUR: u64 = 64;
/// Connections with input that are compared to find the one that gives way, and slots looked at to
/// find those.
const HAND_CANDIDATES: u32 = 64;
const HAND_STEPS: u32 = 1_024;

impl<P: Pool> Relay<'_, P> {
    /// A send was short, or did not complete at once.
    pub(super) fn stall(&mut self, slot: Ref) {
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if session.cursor.is_none() && !session.flags.has(Flags::NATIVE) {
            return;
        }
        if session.flags.has(Flags::STALLED) {
            self.arm(slot);
            return;
        }
        session.flags.set(Flags::STALLED);
        session.stalled_at = now;
        let topic = session.topic;
        let topic = self.topics.at_mut(topic);
        topic.stalled = topic.stalled.saturating_add(1);
        self.arm(slot);
        self.touch_if_stalled(slot);
    }

    /// A send completed at once, or the connection does not read its topic any more.
    pub(super) fn unstall(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        if !session.flags.take(Flags::STALLED) {
            return;
        }
        let paced = session.flags.take(Flags::PACING);
        session.pressed_at = Instant::ZERO;
        let topic = session.topic;
        let topic = self.topics.at_mut(topic);
        topic.stalled = topic.stalled.saturating_sub(1);
        topic.pacing = topic.pacing.saturating_sub(u32::from(paced));
        if topic.stalled == 0 {
            topic.hold = Duration::ZERO;
        }
    }

    fn touch_if_stalled(&mut self, slot: Ref) {
        let topic_slot = self.sessions.at(slot).topic;
        let topic = self.topics.at_mut(topic_slot);
        if topic.touched == 0 {
            topic.touched = 1;
            topic.touched_next = core::mem::replace(&mut self.touched, topic_slot);
        }
    }

    /// Looks at the slowest readers of a topic, once per turn that appended to it.
    pub(super) fn press(&mut self, topic_slot: Ref) {
        self.press_native(topic_slot);
        let topic = self.topics.at(topic_slot);
        if topic.stalled == 0 || topic.log.is_empty() {
            return;
        }
        let mut queued_most = 0_u64;
        for slot in self.slowest(topic_slot).iter().copied() {
            let session = self.sessions.at(slot);
            let flags = session.flags;
            // One that is ending has its own deadline.
            if session.is_open() && flags.has(Flags::STALLED) && !flags.has(Flags::JUMP) {
                queued_most = queued_most.max(self.queued(slot));
                self.judge(slot);
            }
        }
        self.hold(topic_slot, queued_most);
    }

    /// The same, of its native readers.
    fn press_native(&mut self, topic: Ref) {
        let lobby = self.natives.lobby;
        if lobby.is_none() || self.topics.at(lobby).stalled == 0 {
            return;
        }
        for slot in self.standing_in(self.topics.at(topic).frames.oldest).iter().copied() {
            let session = self.sessions.at(slot);
            let flags = session.flags;
            let asked = session.is_open() && flags.has(Flags::STALLED) && !flags.has(Flags::JUMP);
            if asked && self.lag(slot) > self.allowance() {
                self.lags(slot);
            }
        }
    }

    /// Some of the readers that stand in a topic's oldest link.
    pub(super) fn slowest(&self, topic: Ref) -> heapless::Vec<Ref, LOOKED_AT> {
        self.standing_in(self.topics.at(topic).log.oldest)
    }

    /// Some of the readers that stand in a link. Other shards are not among them: they do not gap,
    /// and are bounded otherwise.
    pub(super) fn standing_in(&self, link: Ref) -> heapless::Vec<Ref, LOOKED_AT> {
        let mut found = heapless::Vec::new();
        let mut next = link.some().map_or(Ref::NONE, |link| self.memory.at(link).cursors);
        for _ in 0..LOOKED_AT.saturating_add(PASSED_OVER) {
            let Some(cursor) = next.some() else { break };
            let cursor = self.cursors.at(cursor);
            next = cursor.next();
            let is_feed = self.sessions.at(cursor.session).phase() == Phase::Link;
            if !is_feed && found.push(cursor.session).is_err() {
                break;
            }
        }
        found
    }

    /// Bytes of its topics that a reader has not had.
    pub(super) fn lag(&self, slot: Ref) -> u64 {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::NATIVE) {
            return self.native_lag(slot);
        }
        let Some(cursor) = session.cursor.some() else { return 0 };
        let cursor = self.cursors.at(cursor);
        if cursor.is_behind() {
            self.topics.at(session.topic).log.head.saturating_sub(cursor.pos)
        } else {
            0
        }
    }

    /// Messages of its topic that a reader has not had; its own, if they are among them, too.
    fn queued(&self, slot: Ref) -> u64 {
        let line = &self.limits.line;
        let asked = line.throttle.is_some()
            || line.flow_control.is_some()
            || line.disconnect_threshold_messages.is_some();
        match self.walk(slot) {
            Some(walk) if asked => {
                let messages = self.topics.at(self.sessions.at(slot).topic).log.messages;
                messages.saturating_sub(number_at(&self.memory, walk.link, walk.pos))
            }
            Some(_) | None => 0,
        }
    }

    /// How far a reader may lag now.
    fn allowance(&self) -> u64 {
        let allowance = self.limits.lag_allowance();
        if self.memory.fullness() >= FULL_STRANGERS { allowance / 2 } else { allowance }
    }

    /// Looks at one reader whose socket did not take what it was sent.
    fn judge(&mut self, slot: Ref) {
        let allowance = self.allowance();
        let lag = self.lag(slot);
        if let Some(threshold) = self.limits.line.disconnect_threshold_messages {
            self.judge_threshold(slot, threshold);
        }
        if lag > allowance {
            self.lags(slot);
        } else if self.has_recovered(slot) {
            self.end_pacing(slot);
        }
    }

    /// The reference's disconnect threshold, exceeded for 5 s on end.
    fn judge_threshold(&mut self, slot: Ref, threshold: u64) {
        let over = self.queued(slot) > threshold;
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if session.flags.has(Flags::PACING) {
            return;
        }
        if !over {
            session.pressed_at = Instant::ZERO;
        } else if session.pressed_at == Instant::ZERO {
            session.pressed_at = now;
            self.arm(slot);
        } else if now.since(session.pressed_at) >= DISCONNECT_AFTER {
            self.banish(slot, Offence::SlowReader);
            self.cut(slot);
        }
    }

    /// The time that a pressed reader was given is over: it is looked at again.
    pub(super) fn repress(&mut self, slot: Ref) {
        if !self.sessions.at(slot).flags.has(Flags::PACING) {
            self.judge(slot);
        } else if self.has_recovered(slot) {
            self.end_pacing(slot);
        } else {
            self.pace(slot);
        }
    }

    /// Whether a reader for which senders were slowed lags no more, and not for having been sent
    /// nothing.
    fn has_recovered(&self, slot: Ref) -> bool {
        let session = self.sessions.at(slot);
        let lag = self.lag(slot);
        let far = self.allowance().saturating_mul(100_u64.saturating_sub(HYSTERESIS)) / 100;
        let own = !session.output.is_empty() || session.has_gap();
        let waits = lag > 0 || own || session.sending() == Sending::InFlight;
        // What it took before it was found to take nothing is no sign of better times.
        let since = session.pressed_at.max(session.stalled_at);
        !waits || (lag < far && session.sent_at > since)
    }

    fn end_pacing(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        if session.flags.take(Flags::PACING) {
            session.pressed_at = Instant::ZERO;
            let topic = session.topic;
            let topic = self.topics.at_mut(topic);
            topic.pacing = topic.pacing.saturating_sub(1);
        }
    }

    /// A reader lags beyond its allowance, or acknowledged nothing for too long: its topic's rule.
    pub(super) fn lags(&mut self, slot: Ref) {
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            // It is told what it misses and goes on, as long as it reads at all.
            return self.jump_native(slot);
        }
        match self.limits.lag_rule {
            LagRule::Cut => self.cut(slot),
            LagRule::Gap if self.lag(slot) == 0 => self.cut(slot),
            LagRule::Gap => self.jump(slot),
            LagRule::Pace => self.pace(slot),
        }
    }

    fn pace(&mut self, slot: Ref) {
        let conn = self.id(slot);
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if session.flags.has(Flags::PACING) {
            if now.since(session.pressed_at) >= self.limits.pace {
                self.cut(slot);
            }
            return;
        }
        session.flags.set(Flags::PACING);
        session.pressed_at = now;
        let topic = session.topic;
        let id = TopicId::new(topic);
        let topic = self.topics.at_mut(topic);
        topic.pacing = topic.pacing.saturating_add(1);
        topic.hold = topic.hold.max(self.limits.pace_delay);
        self.stats.paced.bump();
        self.tell(Event::Paced { conn, topic: id });
        self.arm(slot);
    }

    /// How long each sender of a topic waits after a message.
    fn hold(&mut self, topic: Ref, queued: u64) {
        let asked = |slowdown: Option<Slowdown>| match slowdown {
            Some(slowdown) if queued > slowdown.threshold_messages => slowdown.delay,
            Some(_) | None => Duration::ZERO,
        };
        let line = &self.limits.line;
        let mut hold = asked(line.throttle).max(asked(line.flow_control));
        let topic = self.topics.at_mut(topic);
        if topic.pacing > 0 {
            hold = hold.max(self.limits.pace_delay);
        }
        // The last of the laggards may have been cut just now.
        topic.hold = if topic.stalled == 0 { Duration::ZERO } else { hold };
    }

    pub(super) fn cut(&mut self, slot: Ref) {
        if !self.sessions.at(slot).is_open() {
            return;
        }
        self.stats.cut.bump();
        self.stats.cut_bytes.add(self.lag(slot));
        let prefix = self.sessions.at(slot).prefix;
        if !self.prefixes.at_mut(prefix).cuts.take(CUTS, self.now, 1) {
            self.offend(slot, Offence::SlowReader);
        }
        self.leave(slot, Reason::Fault(PeerFault::SlowReader), Farewell::Slow, false);
    }

    /// Moves the cursor of a reader to the head and tells it which messages are gone.
    pub(super) fn gap(&mut self, slot: Ref) {
        let Some(walk) = self.walk(slot) else { return };
        let session = self.sessions.at(slot);
        let (topic, cursor) = (session.topic, session.cursor);
        let from = number_at(&self.memory, walk.link, walk.pos);
        let from = from.saturating_add(u64::from(cfg!(wardline_mutant = "gap_is_short")));
        let topic = self.topics.at_mut(topic);
        let to = topic.log.messages;
        crate::cursor::leave(&mut self.cursors, &mut self.memory, &mut topic.waiting, cursor);
        crate::cursor::wait(&mut self.cursors, &mut topic.waiting, cursor);
        topic.log.trim(&mut self.memory);
        let conn = self.id(slot);
        if from < to {
            let session = self.sessions.at_mut(slot);
            // It was not sent anything since the last jump if it is yet to be told of that one: the
            // two are one hole.
            session.gap_from = if session.has_gap() { session.gap_from } else { from };
            session.gap_to = to;
            self.stats.gaps.bump();
            self.stats.gap_messages.add(to.saturating_sub(from));
            self.tell(Event::Gap { conn, from, to });
        }
        // It begins anew: what it owes is what it is sent from now on.
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.stalled_at = now;
        if session.sending() == Sending::No {
            self.mark(slot, Pending::SEND);
        }
        self.arm(slot);
    }

    /// Puts what a reader missed into words, as late as can be, so that a hole is told once however
    /// often it grew. Gives whether there was memory for them.
    pub(super) fn tell_gap(&mut self, slot: Ref) -> bool {
        let session = self.sessions.at_mut(slot);
        if !session.has_gap() {
            return true;
        }
        let mut text = Text::<112>::new();
        line::gap(&mut text, session.gap_from, session.gap_to);
        let mut output = session.output;
        if output.push(&mut self.memory, Purpose::Output, text.as_bytes()).is_err() {
            return false;
        }
        let session = self.sessions.at_mut(slot);
        session.output = output;
        session.gap_from = 0;
        session.gap_to = 0;
        self.stats.warnings.bump();
        true
    }

    /// Memory is short: of the topic that holds most, the readers that pin it give way. At most
    /// once per turn. Gives whether one did.
    pub(super) fn evict_for_memory(&mut self) -> bool {
        if self.evicted_turn == self.turn {
            return false;
        }
        self.evicted_turn = self.turn;
        let most = (0..self.topics.touched()).map(Ref::of).max_by_key(|slot| {
            let topic = self.topics.at(*slot);
            topic.log.links.saturating_add(topic.frames.links)
        });
        let Some(topic) = most else { return false };
        let mut evicted = false;
        let natives = self.standing_in(self.topics.at(topic).frames.oldest);
        let lines = self.slowest(topic);
        for slot in lines.iter().chain(&natives).copied() {
            let session = self.sessions.at(slot);
            if session.flags.has(Flags::STALLED) && session.is_open() {
                self.stats.evicted_for_memory.bump();
                self.stats.cut_bytes.add(self.lag(slot));
                self.leave(slot, Reason::Fault(PeerFault::Evicted), Farewell::Slow, false);
                evicted = true;
            }
        }
        evicted
    }

    /// Blocks for input are short: of some connections the one that holds most for longest gives
    /// way, the asker itself if none does more. Gives whether there may be room now.
    pub(super) fn relieve(&mut self, asker: Ref, asker_len: usize) -> bool {
        // The asker is at it; the others sit there. Between equals it stays.
        let mut worst = (self.hold_weight(asker, asker_len as u64) / ASKER_FAVOUR, asker);
        let slots = self.sessions.touched();
        let mut candidates = 0_u32;
        for _ in 0..HAND_STEPS.min(slots) {
            self.hand = self.hand.saturating_add(1).checked_rem(slots.max(1)).unwrap_or(0);
            let slot = Ref::of(self.hand);
            let session = self.sessions.at(slot);
            let weight = self.hold_weight(slot, u64::from(session.input.len()));
            if !session.is_living() || weight == 0 || slot == asker {
                continue;
            }
            if weight > worst.0 {
                worst = (weight, slot);
            }
            candidates = candidates.saturating_add(1);
            if candidates == HAND_CANDIDATES {
                break;
            }
        }
        let unheard = cfg!(wardline_mutant = "header_relieves_nobody")
            && self.sessions.at(asker).phase() == Phase::Proxied;
        if worst.1 == asker || unheard {
            return false;
        }
        self.stats.overloaded.bump();
        let reason = Reason::Fault(PeerFault::Overloaded);
        if self.sessions.at(worst.1).is_open() {
            self.leave(worst.1, reason, Farewell::Overloaded, false);
        } else {
            // Nobody is there yet to be told.
            self.close(worst.1, reason);
        }
        true
    }

    /// What a connection that holds `len` bytes of input costs the others: bytes by time, so that
    /// many who hold a little for long do not push one out who brings more and is done. Whose
    /// whole lines wait for the relay does not hold them by choice.
    fn hold_weight(&self, slot: Ref, len: u64) -> u64 {
        let session = self.sessions.at(slot);
        let chosen = !session.input.is_empty() && !session.flags.has(Flags::BACKLOG);
        let since = session.unfinished_since;
        let ms = if chosen { self.now.since(since).as_millis() } else { 0 };
        let stranger = if session.flags.has(Flags::SPOKE) { 1 } else { STRANGER_DISFAVOUR };
        len.saturating_mul(ms.min(HOLD_MS_MAX).saturating_add(1)).saturating_mul(stranger)
    }
}
