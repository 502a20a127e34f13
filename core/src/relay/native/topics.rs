//! The topics that a native connection has open, as readers of their logs of frames.
//! PROTOCOL.md 2.4.3, 2.5.

use super::frames_log::{self, Place};
use super::slots::Stage;
use crate::access::Right;
use crate::cursor::{self, Cursor, sub};
use crate::id::Ref;
use crate::native::{Code, GapReason, ServerControl, Start};
use crate::relay::Relay;
use crate::relay::input::Stop;
use crate::storage::Pool;
use crate::topic::{Mirror, Topic, WATCHERS_MAX};

/// When who found a table full may ask again.
const RETRY_MS: u32 = 1_000;
/// What it costs of a turn to look at a topic whether anybody needs it, in bytes.
const SWEEP_COST: u32 = 16;
/// Serials of topics' numbers.
const SERIALS: u32 = 0x00FF_FFFF;

impl<P: Pool> Relay<'_, P> {
    /// The number of a topic: its home, which is the first shard, and a serial that is never 0.
    pub(super) fn number_of(&self, topic: Ref) -> u32 {
        let serial = topic.index().wrapping_add(self.natives.serial_base);
        serial.checked_rem(SERIALS).unwrap_or(0).saturating_add(1)
    }

    /// Has topics the numbers that their home gives them, which says one of them.
    pub(super) fn learn_numbers(&mut self, topic: Ref, number: u32) {
        let serial = number.saturating_sub(1);
        let base = serial.saturating_add(SERIALS).saturating_sub(topic.index() % SERIALS);
        self.natives.serial_base = base % SERIALS;
    }

    /// The topic of that number that a connection has open.
    pub(super) fn sub_of(&self, slot: Ref, number: u32) -> Option<Ref> {
        let serial = (number & SERIALS).checked_sub(1)?;
        let base = self.natives.serial_base.checked_rem(SERIALS).unwrap_or(0);
        let index = serial.checked_add(SERIALS)?.saturating_sub(base);
        let topic = Ref::of(index.checked_rem(SERIALS).unwrap_or(0));
        if number >> 24 != 0 {
            return None;
        }
        let target = self.natives.conn(slot).target;
        if target.is_some() && self.cursors.at(target).topic == topic {
            return Some(target);
        }
        self.sub_on(slot, topic)
    }

    pub(super) fn sub_on(&self, slot: Ref, topic: Ref) -> Option<Ref> {
        let mut next = self.natives.conn(slot).subs;
        while let Some(cursor) = next.some() {
            let item = self.cursors.at(cursor);
            if item.topic == topic && item.sub & sub::ENDED == 0 {
                return Some(cursor);
            }
            next = item.sub_next;
        }
        None
    }

    /// Whether a connection reads a topic.
    pub(super) fn reads(&self, slot: Ref, topic: Ref) -> bool {
        let cursor = self.sub_on(slot, topic);
        cursor.is_some_and(|cursor| self.cursors.at(cursor).sub & sub::READS != 0)
    }

    /// The same question as [`Relay::may`], about a topic that there is.
    pub(super) fn may_on(&self, slot: Ref, right: Right, topic: Ref) -> bool {
        self.may(slot, right, self.topics.at(topic).name())
    }

    fn name_bucket(&self, name: &[u8]) -> usize {
        let hash = blake3::keyed_hash(&self.natives.seed, name);
        let front = hash.as_bytes().first_chunk().map_or(0, |front| u64::from_le_bytes(*front));
        let buckets = self.natives.name_buckets.len() as u64;
        usize::try_from(front.checked_rem(buckets).unwrap_or(0)).unwrap_or(0)
    }

    pub(super) fn find_topic(&self, name: &[u8]) -> Option<Ref> {
        let mut next = self.natives.name_buckets.get(self.name_bucket(name))?.0;
        while let Some(topic) = next.some() {
            if self.topics.at(topic).name() == name {
                return Some(topic);
            }
            next = self.topics.at(topic).name_next;
        }
        None
    }

    /// Has native clients find a topic by its name.
    pub(in crate::relay) fn enter_name(&mut self, topic: Ref) {
        if self.natives.lobby.is_none() {
            return;
        }
        let bucket = self.name_bucket(self.topics.at(topic).name());
        let epoch = self.natives.entropy.draw_u64();
        let Some(first) = self.natives.name_buckets.get_mut(bucket) else { return };
        let next = core::mem::replace(&mut first.0, topic);
        let item = self.topics.at_mut(topic);
        item.name_next = next;
        item.epoch = epoch;
    }

    pub(super) fn leave_name(&mut self, topic: Ref) {
        let bucket = self.name_bucket(self.topics.at(topic).name());
        let after = self.topics.at(topic).name_next;
        let Some(first) = self.natives.name_buckets.get_mut(bucket) else { return };
        if first.0 == topic {
            first.0 = after;
            return;
        }
        let mut at = first.0;
        while let Some(here) = at.some() {
            at = self.topics.at(here).name_next;
            if at == topic {
                self.topics.at_mut(here).name_next = after;
                return;
            }
        }
    }

    /// A topic of a name that none has.
    pub(super) fn make_topic(&mut self, name: &str) -> Option<Ref> {
        let topic = Topic::named(name).ok()?;
        let slot = self.topics.take().or_else(|| {
            self.make_room_for_topics();
            self.topics.take()
        })?;
        *self.topics.at_mut(slot) = topic;
        self.enter_name(slot);
        Some(slot)
    }

    /// A topic's number, for who may publish to it, and for who may ask who reads it.
    pub(super) fn open(&mut self, slot: Ref, ask: u32, name: &str) -> Result<(), Stop> {
        let may = |right| self.may(slot, right, name.as_bytes());
        let allowed =
            may(Right::Publish) || may(Right::Who) || cfg!(wardline_mutant = "open_unasked");
        if !allowed {
            self.refuse_ask(slot, ask, Code::Forbidden, 0);
            return Ok(());
        }
        let there = self.await_topic(slot, ask, name)?;
        match there.then(|| self.take_sub(slot, name)).flatten() {
            Some(cursor) => {
                let topic = self.number_of(self.cursors.at(cursor).topic);
                self.tell_native(slot, &ServerControl::Opened { ask, topic });
            }
            None => self.refuse_ask(slot, ask, Code::Overloaded, RETRY_MS),
        }
        Ok(())
    }

    /// The place of a connection on a topic, made where there is none.
    fn take_sub(&mut self, slot: Ref, name: &str) -> Option<Ref> {
        let known = self.find_topic(name.as_bytes());
        if let Some(cursor) = known.and_then(|topic| self.sub_on(slot, topic)) {
            return Some(cursor);
        }
        let conn = self.natives.conn(slot);
        let full = conn.sub_count >= self.limits.native.subscriptions;
        if full || self.natives.subs >= self.natives.subs_max {
            return None;
        }
        let topic = known.or_else(|| self.make_topic(name))?;
        let Some(cursor) = self.cursors.take() else {
            self.natives.sweep_soon(self.now);
            return None;
        };
        let conn = self.natives.conn_mut(slot);
        let next = core::mem::replace(&mut conn.subs, cursor);
        conn.sub_count = conn.sub_count.saturating_add(1);
        *self.cursors.at_mut(cursor) = Cursor::of_topic(slot, topic, next);
        let item = self.topics.at_mut(topic);
        item.opened = item.opened.saturating_add(1);
        self.natives.subs = self.natives.subs.saturating_add(1);
        Some(cursor)
    }

    pub(super) fn subscribe(
        &mut self,
        slot: Ref,
        ask: u32,
        name: &str,
        from: Start,
        (echo, presence): (bool, bool),
    ) -> Result<(), Stop> {
        let may = |right| self.may(slot, right, name.as_bytes());
        if !may(Right::Subscribe) || (presence && !may(Right::Who)) {
            self.refuse_ask(slot, ask, Code::Forbidden, 0);
            return Ok(());
        }
        let there = self.await_topic(slot, ask, name)?;
        self.waits_for_notes()?;
        let known = self.find_topic(name.as_bytes());
        if known.is_some_and(|topic| self.reads(slot, topic)) {
            self.refuse_ask(slot, ask, Code::BadState, 0);
            return Ok(());
        }
        let watchers = known.map_or(0, |topic| self.topics.at(topic).watchers as usize);
        let full = presence && watchers >= WATCHERS_MAX;
        // Asked first: who is refused takes no place.
        let Some(cursor) = (there && !full).then(|| self.take_sub(slot, name)).flatten() else {
            self.refuse_ask(slot, ask, Code::Overloaded, RETRY_MS);
            return Ok(());
        };
        let topic = self.cursors.at(cursor).topic;
        let number = self.number_of(topic);
        let item = self.topics.at(topic);
        let (oldest, oldest_number) = frames_log::oldest(&self.memory, &item.frames);
        let (epoch, next) = (item.epoch, item.frames.messages);
        let (start, gap) = self.start_of(topic, from, oldest_number);
        let place = if start == oldest_number {
            oldest
        } else {
            frames_log::seek(&self.memory, &self.topics.at(topic).frames, start)
        };
        let place = if start >= next { None } else { place };
        // First: what it is told may find no memory, and end it.
        self.sit_down_to_frames(cursor, place, (echo, presence));
        self.ask_rights(slot, cursor);
        let value =
            ServerControl::Subscribed { ask, topic: number, epoch, next, oldest: oldest_number };
        self.tell_native(slot, &value);
        if let Some((from, reason)) = gap
            && from < oldest_number
        {
            let to = oldest_number;
            let reason = reason as u8;
            self.tell_native(slot, &ServerControl::Gap { topic: number, from, to, reason });
        }
        if !self.sessions.at(slot).is_open() {
            return Ok(());
        }
        if place.is_some() {
            self.mark(slot, crate::session::Pending::SEND);
        }
        self.cursors.at_mut(cursor).sub |= sub::TOLD;
        if self.is_watched(topic) {
            self.tell_presence(topic, slot, true);
        }
        Ok(())
    }

    /// With which number a subscription begins, and what it misses before.
    fn start_of(&self, topic: Ref, from: Start, oldest: u64) -> (u64, Option<(u64, GapReason)>) {
        let item = self.topics.at(topic);
        let next = item.frames.messages;
        match from {
            Start::Now => (next, None),
            Start::Last(many) => (next.saturating_sub(u64::from(many)).max(oldest), None),
            Start::Offset { epoch, .. } if epoch != item.epoch => {
                (oldest, Some((0, GapReason::Epoch)))
            }
            Start::Offset { offset, .. } if offset < oldest => {
                (oldest, Some((offset, GapReason::Retention)))
            }
            Start::Offset { offset, .. } => (offset.min(next), None),
        }
    }

    /// Puts a cursor where its reading begins: at a place, or at the head.
    fn sit_down_to_frames(
        &mut self,
        cursor: Ref,
        place: Option<Place>,
        (echo, presence): (bool, bool),
    ) {
        let topic = self.cursors.at(cursor).topic;
        let item = self.topics.at_mut(topic);
        item.readers = item.readers.saturating_add(1);
        if presence {
            item.watch(cursor);
        }
        let head = item.frames.head;
        let reader = self.cursors.at_mut(cursor);
        reader.sub = sub::READS
            | if echo { sub::ECHO } else { 0 }
            | if presence { sub::PRESENCE } else { 0 };
        reader.rights = 0;
        reader.own_from = head;
        reader.own_until = head;
        cursor::wait(&mut self.cursors, &mut item.frames_waiting, cursor);
        if let Some(Place { link, pos }) = place {
            let waiting = &mut item.frames_waiting;
            cursor::stand(&mut self.cursors, &mut self.memory, waiting, cursor, (link, pos));
        }
        self.readers_changed(topic);
    }

    pub(super) fn unsubscribe(&mut self, slot: Ref, number: u32) {
        let Some(cursor) = self.sub_of(slot, number) else { return };
        let Cursor { topic, sub: wants, .. } = *self.cursors.at(cursor);
        // Now, not once what is under way has come to its end: it may have begun anew by then.
        if wants & sub::TOLD != 0 && self.is_watched(topic) {
            self.tell_presence(topic, slot, false);
        }
        self.cursors.at_mut(cursor).sub |= sub::ENDED;
        let conn = self.natives.conn_mut(slot);
        if conn.target == cursor {
            conn.target = Ref::NONE;
        }
        self.drop_ended(slot);
    }

    /// Drops what a connection gave up and is not being sent any more.
    pub(super) fn drop_ended(&mut self, slot: Ref) {
        let mut next = self.natives.conn(slot).subs;
        while let Some(cursor) = next.some() {
            let item = self.cursors.at(cursor);
            next = item.sub_next;
            let conn = self.natives.conn(slot);
            let batches = conn.batches.iter().take(usize::from(conn.batch_count));
            let busy = batches.map(|batch| batch.cursor).any(|of| of == cursor);
            let busy = busy && !cfg!(wardline_mutant = "sub_dropped_in_flight");
            if item.sub & sub::ENDED != 0 && !busy {
                self.drop_sub(slot, cursor);
            }
        }
    }

    /// Drops every topic that a connection has open.
    pub(in crate::relay) fn drop_subs(&mut self, slot: Ref) {
        self.natives.conn_mut(slot).batch_count = 0;
        while let Some(cursor) = self.natives.conn(slot).subs.some() {
            self.drop_sub(slot, cursor);
        }
    }

    fn drop_sub(&mut self, slot: Ref, cursor: Ref) {
        let Cursor { topic, sub_next, sub: wants, .. } = *self.cursors.at(cursor);
        self.unlink_sub(slot, cursor, sub_next);
        if wants & sub::READS != 0 {
            let item = self.topics.at_mut(topic);
            let waiting = &mut item.frames_waiting;
            cursor::leave(&mut self.cursors, &mut self.memory, waiting, cursor);
            item.readers = item.readers.saturating_sub(1);
            item.unwatch(cursor);
        }
        self.cursors.give(cursor);
        self.natives.subs = self.natives.subs.saturating_sub(1);
        let item = self.topics.at_mut(topic);
        item.opened = item.opened.saturating_sub(1);
        self.readers_changed(topic);
        self.trim_frames(topic);
        self.natives.sweep_soon(self.now);
    }

    /// Who watches topics that a connection reads is told that it is gone, while its session is
    /// still known.
    pub(super) fn tell_left(&mut self, slot: Ref) {
        let mut next = self.natives.conn(slot).subs;
        while let Some(cursor) = next.some() {
            let item = *self.cursors.at(cursor);
            next = item.sub_next;
            let known = item.sub & (sub::TOLD | sub::ENDED) == sub::TOLD;
            if known && self.is_watched(item.topic) {
                self.tell_presence(item.topic, slot, false);
            }
        }
    }

    fn unlink_sub(&mut self, slot: Ref, cursor: Ref, after: Ref) {
        let conn = self.natives.conn_mut(slot);
        conn.sub_count = conn.sub_count.saturating_sub(1);
        if conn.turn == cursor {
            conn.turn = Ref::NONE;
        }
        if conn.target == cursor {
            conn.target = Ref::NONE;
        }
        if conn.subs == cursor {
            conn.subs = after;
            return;
        }
        let mut at = conn.subs;
        while let Some(here) = at.some() {
            at = self.cursors.at(here).sub_next;
            if at == cursor {
                self.cursors.at_mut(here).sub_next = after;
                return;
            }
        }
    }

    /// Who asked for it, and may know it, is told that somebody came to a topic or left it. That is
    /// charged to who did.
    fn tell_presence(&mut self, topic: Ref, who: Ref, came: bool) {
        let entry = self.natives.conn(who).entry;
        let handle = if entry.is_some() { self.handle_of_entry(entry) } else { 0 };
        self.tell_presence_away(topic, handle, came);
        let told = self.tell_watchers(topic, who, handle, came);
        self.charge_deliveries(who, told);
    }

    /// Whether somebody may want to know who comes to a topic. Of other shards that is not known.
    fn is_watched(&self, topic: Ref) -> bool {
        self.topics.at(topic).watchers > 0 || self.links.shards > 1
    }

    /// Tells those of this shard. Gives how many they were.
    pub(super) fn tell_watchers(&mut self, topic: Ref, who: Ref, handle: u64, came: bool) -> u32 {
        let number = self.number_of(topic);
        let value = if came {
            ServerControl::Joined { topic: number, handle }
        } else {
            ServerControl::Left { topic: number, handle }
        };
        let item = self.topics.at(topic);
        let (watching, count) = (item.watching, item.watchers as usize);
        let mut told = 0_u32;
        for cursor in watching.into_iter().take(count) {
            let Cursor { session: other, sub: wants, .. } = *self.cursors.at(cursor);
            let lives = wants & sub::ENDED == 0 && self.natives.conn(other).stage() == Stage::Live;
            if other == who || !lives {
                continue;
            }
            self.ask_rights(other, cursor);
            if self.cursors.at(cursor).may_watch == 0 {
                continue;
            }
            told = told.saturating_add(1);
            if self.sessions.at(other).output.len() > self.limits.native.direct_bytes {
                // Who watches and does not read cannot be told all that it asked for.
                self.natives.conn_mut(other).doomed = 1;
                self.mark(other, crate::session::Pending::SEND);
            }
            self.tell_peer(other, &value);
        }
        told
    }

    /// Frees what of a topic's frames nobody reads and nobody wants to keep.
    pub(in crate::relay) fn trim_frames(&mut self, topic: Ref) {
        let limits = &self.limits.native;
        // A wish: it is given up before anybody's allowance shrinks.
        let full = self.memory.fullness() >= super::publish::FULL_RETENTION;
        let bytes = if full { 0 } else { u64::from(limits.retention_bytes) };
        let since = self.now.before(limits.retention);
        let log = &mut self.topics.at_mut(topic).frames;
        frames_log::trim(log, &mut self.memory, bytes, since);
    }

    /// Gives up what is kept for nobody yet, of all topics; once a turn. Gives whether it did.
    pub(super) fn drop_retention(&mut self) -> bool {
        if core::mem::replace(&mut self.natives.dropped_turn, self.turn) == self.turn {
            return false;
        }
        let now = self.now;
        for topic in (0..self.topics.touched()).map(Ref::of) {
            let log = &mut self.topics.at_mut(topic).frames;
            frames_log::trim(log, &mut self.memory, 0, now);
        }
        true
    }

    /// Trims what topics keep, and forgets topics that nobody needs. Gives whether some still keep
    /// something that will be too old.
    pub(super) fn sweep_topics(&mut self) -> bool {
        let mut keeps = false;
        for slot in (0..self.topics.touched()).map(Ref::of) {
            self.trim_frames(slot);
            if self.topics.at(slot).mirror() != Mirror::No {
                self.give_mirror_up(slot);
                keeps |= self.topics.at(slot).mirror() != Mirror::No;
                continue;
            }
            keeps |= !self.topics.at(slot).frames.is_empty();
            if self.is_forlorn(slot) && self.topics.at(slot).frames.is_empty() {
                self.forget_topic(slot);
            }
        }
        keeps
    }

    /// Forgets the topics that nobody has open, with all that they keep, which is a wish; once a
    /// turn. Who asked for that pays for it.
    fn make_room_for_topics(&mut self) {
        if core::mem::replace(&mut self.natives.room_turn, self.turn) == self.turn {
            return;
        }
        let cost = self.topics.touched().saturating_mul(SWEEP_COST);
        let lobby = self.topics.at_mut(self.natives.lobby);
        lobby.taken = lobby.taken.saturating_add(cost);
        let now = self.now;
        for slot in (0..self.topics.touched()).map(Ref::of) {
            if self.is_forlorn(slot) {
                let log = &mut self.topics.at_mut(slot).frames;
                frames_log::trim(log, &mut self.memory, 0, now);
                self.forget_topic(slot);
            }
        }
    }

    /// Whether nobody has a topic open. What it keeps may be wanted still.
    pub(super) fn is_forlorn(&self, slot: Ref) -> bool {
        let item = self.topics.at(slot);
        let needed = item.opened > 0 || item.cursors > 0 || item.bound != 0;
        let busy = item.touched != 0 || item.queued > 0;
        !needed && !busy && !item.name().is_empty()
    }

    fn forget_topic(&mut self, slot: Ref) {
        self.leave_name(slot);
        *self.topics.at_mut(slot) = bytemuck::Zeroable::zeroed();
        self.topics.give(slot);
    }
}
