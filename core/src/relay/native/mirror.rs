//! Topics of another shard, as far as native clients of this one have them open. PROTOCOL.md 2.5.
//!
//! ```text
//!  this shard                                      home of all topics
//!  ask waits ---OPEN name---publish ring---> made, or found; a feed of its frames
//!  answered <--- replica <---BEGIN, FRAMES---log ring--- oldest that is kept ... head ...
//!  nobody has it open: SHUT ---publish ring---> the feed goes
//! ```
//! A replica has the slot, the number, the epoch and the offsets that its home gives, so a
//! subscription begins anywhere on any shard as it would at home. A connection whose ask waits is
//! read no further: its value stands at the front of its input and is looked at again.

use super::frames_log;
use super::slots::Asked;
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::link::{Answer, HEADER, Header, OutRun, Shape, kind};
use crate::native::{Code, Frames, ServerControl};
use crate::relay::Relay;
use crate::relay::input::Stop;
use crate::relay::link_in::{Later, NOBODY};
use crate::storage::{Pool, copy};
use crate::topic::{Mirror, Topic};

/// The home of all topics.
const HOME: u8 = 0;
/// What stands before the name where a replica begins: the topic's epoch, and the number up to
/// which the home had come.
const BEGIN: usize = 16;

impl<P: Pool> Relay<'_, P> {
    /// Sees to it that a topic is here that a connection asks for and may have. Gives whether it
    /// can be had; an error says that it has to wait.
    pub(super) fn await_topic(&mut self, slot: Ref, ask: u32, name: &str) -> Result<bool, Stop> {
        if self.links.shard == HOME {
            return Ok(true);
        }
        let conn = self.natives.conn(slot);
        let (asked, asked_at) = (conn.asked(), conn.asked_at);
        let full = conn.sub_count >= self.limits.native.subscriptions;
        let known = self.find_topic(name.as_bytes());
        if let Some(topic) = known.map(|topic| self.topics.at(topic))
            && topic.mirror() == Mirror::Live
        {
            if topic.frames.messages < topic.ready {
                return Err(Stop::Link);
            }
            return Ok(true);
        }
        if asked == Asked::Refused || full {
            return Ok(false);
        }
        let over = known.is_some_and(|topic| self.topics.at(topic).mirror() == Mirror::Over);
        let waits = asked == Asked::Yes && asked_at == self.natives.mirrors_over;
        if over || waits {
            return Err(Stop::Link);
        }
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let run = OutRun { number: ask.into(), ..self.run_of(kind::OPEN, Ref::NONE, slot, len) };
        self.has_room_out(slot, HOME, &run)?;
        self.put_out(HOME, run, &[name.as_bytes()]);
        let over = self.natives.mirrors_over;
        let conn = self.natives.conn_mut(slot);
        conn.asks(ask);
        conn.asked_at = over;
        Err(Stop::Link)
    }

    /// At home: another shard wants the frames of a topic.
    pub(in crate::relay) fn take_open(
        &mut self,
        from: u8,
        header: &Header,
        content: &[u8],
    ) -> Result<(), Later> {
        if self.links.peer(from).answers.is_full() {
            return Err(Later::Freed);
        }
        let Ok(name) = core::str::from_utf8(content) else {
            invariant_failed("a topic of another shard without a name")
        };
        let Some(topic) = self.find_topic(content).or_else(|| self.make_topic(name)) else {
            self.give_answer(from, Answer::of(kind::REFUSED, header));
            return Ok(());
        };
        let feed = self.links.feed_at(topic, from, Shape::Frames);
        if self.links.feed(feed).cursor.is_none() {
            self.make_feed(topic, from, Shape::Frames, 0);
        }
        Ok(())
    }

    /// Puts an answer behind those that wait, for which there is a place.
    pub(super) fn give_answer(&mut self, to: u8, answer: Answer) {
        if !self.links.peer_mut(to).answers.push(answer) {
            invariant_failed("an answer that had a place has none");
        }
    }

    /// At home: it wants them no more.
    pub(in crate::relay) fn take_shut(&mut self, from: u8, header: &Header) {
        let topic = Ref::of(header.topic);
        if header.topic < self.topics.touched() {
            self.drop_feed(topic, from, Shape::Frames);
            self.natives.sweep_soon(self.now);
        }
    }

    /// The record with which a replica begins, with its frame of that number; 0: no room.
    pub(in crate::relay) fn begin_replica(
        &self,
        to: u8,
        topic: Ref,
        number: u64,
        room: &mut [u8],
    ) -> usize {
        let item = self.topics.at(topic);
        let len = BEGIN.saturating_add(item.name().len());
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let Some((front, name)) = rest.get_mut(..len).and_then(|it| it.split_at_mut_checked(BEGIN))
        else {
            return 0;
        };
        Header {
            kind: kind::BEGIN,
            topic: topic.index(),
            author: self.number_of(topic),
            len: len as u32,
            epoch: self.readers_beyond(topic, to),
            number,
            ..Header::default()
        }
        .write(head);
        copy(front, &item.epoch.to_le_bytes());
        copy(front.get_mut(8..).unwrap_or_default(), &item.frames.messages.to_le_bytes());
        copy(name, item.name());
        HEADER.saturating_add(len)
    }

    /// At a replica: it begins.
    pub(in crate::relay) fn take_begin(
        &mut self,
        header: &Header,
        content: &[u8],
    ) -> Result<(), Later> {
        let (slot, now) = (Ref::of(header.topic), self.now);
        let (words, name) = content.split_at_checked(BEGIN).unwrap_or_default();
        let (words, _) = words.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let (epoch, ready) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let known = self.topics.at(slot).name();
        if known.is_empty() {
            let named = core::str::from_utf8(name).ok().and_then(|name| Topic::named(name).ok());
            let Some(topic) = named else { invariant_failed("a replica of a topic of no name") };
            self.topics.claim(slot);
            *self.topics.at_mut(slot) = topic;
            self.settle_home(slot);
            self.enter_name(slot);
        } else if known != name || self.topics.at(slot).opened > 0 {
            // Of an older one, whose readers end.
            return Err(Later::Freed);
        }
        self.learn_numbers(slot, header.author);
        // Its positions may be those of a replica of before, of the same epoch.
        for digest in self.natives.digests.iter_mut().filter(|it| it.topic == slot) {
            *digest = bytemuck::Zeroable::zeroed();
        }
        let item = self.topics.at_mut(slot);
        frames_log::trim(&mut item.frames, &mut self.memory, 0, now);
        item.epoch = epoch;
        item.frames.messages = header.number;
        item.ready = ready;
        item.elsewhere = header.epoch;
        item.set_mirror(Mirror::Live);
        self.links.eased = true;
        self.natives.sweep_soon(now);
        Ok(())
    }

    /// At a replica: frames in the home's order.
    pub(in crate::relay) fn take_frames(
        &mut self,
        header: &Header,
        content: &[u8],
    ) -> Result<(), Later> {
        let topic = Ref::of(header.topic);
        if self.topics.at(topic).mirror() != Mirror::Live {
            return Ok(());
        }
        self.enter_topic(topic)?;
        self.topics.at_mut(topic).elsewhere = header.epoch;
        for frame in Frames::of_shards(content) {
            // A part of them may have found room before.
            let number = self.topics.at(topic).frames.messages;
            if frame.header.offset < number {
                continue;
            }
            if frame.header.offset > number {
                invariant_failed("a replica of frames with a hole");
            }
            let author = self.author_of(header.author, frame.header.peer);
            let len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
            if self.reserve_frames(topic, author, len).is_err() {
                self.stats.log_full.bump();
                if self.topics.at(topic).readers == 0 {
                    // Nobody gives way for what nobody reads: it begins anew behind that.
                    self.begin_behind(topic, frame.header.offset);
                    continue;
                }
                self.others_give_way(topic)?;
                self.lose_mirror(topic);
                return Ok(());
            }
            self.wake_frames(topic, author);
            let log = &mut self.topics.at_mut(topic).frames;
            log.write(&mut self.memory, author, frame.bytes);
            self.frame_ends(topic, len);
            if author != NOBODY
                && let Some(cursor) = self.sub_on(author, topic)
            {
                self.cursors.at_mut(cursor).own_until = self.topics.at(topic).frames.head;
            }
        }
        self.links.peer_mut(HOME).pressed = 0;
        self.charge_topic(topic, header);
        self.stats.from_shards.add(u64::from(header.messages));
        let item = self.topics.at(topic);
        // Who waits for it may be answered.
        self.links.eased |= header.number < item.ready && item.ready <= item.frames.messages;
        Ok(())
    }

    /// Of a replica that nobody reads no more is kept than what comes after that frame.
    fn begin_behind(&mut self, topic: Ref, number: u64) {
        let now = self.now;
        let log = &mut self.topics.at_mut(topic).frames;
        frames_log::trim(log, &mut self.memory, 0, now);
        log.messages = number.saturating_add(1);
    }

    /// Whose a frame is that a slot of ours said: that connection's, if it has the handle still by
    /// which it was said.
    fn author_of(&self, author: u32, peer: u64) -> Ref {
        let slot = Ref(author);
        if slot.is_none() {
            return NOBODY;
        }
        let conn = self.natives.conn(slot);
        if conn.handle == peer || cfg!(wardline_mutant = "far_frame_is_slots") {
            slot
        } else {
            NOBODY
        }
    }

    /// What a session asked another shard is answered.
    pub(in crate::relay) fn take_answer(&mut self, header: &Header, content: &[u8]) {
        let slot = Ref(header.author);
        let value = content.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // Its session may have another connection by now.
        let refused = Code::from_wire(header.messages as u16).filter(|_| header.messages > 0);
        if header.kind == kind::PASSED
            && let Some(code) = refused
        {
            self.give_back(value, header.number, code);
        }
        let session = self.sessions.at(slot);
        if session.generation != header.epoch || !session.is_open() {
            return;
        }
        let there = self.natives.conn(slot).entry.is_some();
        match header.kind {
            kind::PASSED if refused.is_some() => self.is_answered(slot, 1),
            kind::PASSED => self.is_answered(slot, u32::try_from(value).unwrap_or(u32::MAX)),
            kind::REFUSED => self.has_asked(slot, header.number, Asked::Refused),
            kind::TOLD if there => self.take_told(slot, header, content),
            kind::VERDICT if there => {
                self.is_answered(slot, 1);
                let topic = Ref::of(header.topic);
                let (mid, offset) = (header.number, value);
                let readers = self.others_of(slot, topic, header.messages);
                self.tell_native(slot, &ServerControl::Verdict { mid, offset, readers });
            }
            _ => {}
        }
    }

    /// What a connection asked another shard has come to an end.
    pub(super) fn has_asked(&mut self, slot: Ref, ask: u64, end: Asked) {
        let conn = self.natives.conn_mut(slot);
        if conn.waits_for(ask) {
            conn.set_asked(end);
            self.links.eased = true;
        }
    }

    /// Another shard has said what became of so many messages of a connection.
    pub(super) fn is_answered(&mut self, slot: Ref, messages: u32) {
        let conn = self.natives.conn_mut(slot);
        conn.due = conn.due.saturating_sub(messages);
        // Its PING may wait for that.
        self.links.eased |= conn.due == 0 && conn.pinged != 0;
    }

    /// A replica has a hole, or will have one: all that have the topic open are let go, and may
    /// come back to what its home keeps.
    pub(in crate::relay) fn lose_mirror(&mut self, topic: Ref) {
        self.topics.at_mut(topic).set_mirror(Mirror::Over);
        for slot in (0..self.sessions.touched()).map(Ref::of) {
            if self.sub_on(slot, topic).is_some() {
                self.stats.replica_cuts.bump();
                self.let_go(slot);
            }
        }
        self.natives.sweep_soon(self.now);
    }

    /// Gives a replica up that nobody has open, if its home can be told now.
    pub(super) fn give_mirror_up(&mut self, topic: Ref) {
        let item = self.topics.at(topic);
        let busy = item.touched != 0 || item.opened > 0;
        // Not before what was said on the topic has gone home.
        if busy || self.links.peer(HOME).runs.is_full() {
            return;
        }
        let run = OutRun { kind: kind::SHUT, topic, ..OutRun::default() };
        self.put_out(HOME, run, &[]);
        let now = self.now;
        let item = self.topics.at_mut(topic);
        item.set_mirror(Mirror::No);
        frames_log::trim(&mut item.frames, &mut self.memory, 0, now);
        // Who has asked for it, and was not come to yet, asks again.
        self.natives.mirrors_over = self.natives.mirrors_over.wrapping_add(1);
        self.links.eased = true;
        if self.is_forlorn(topic) {
            self.leave_name(topic);
            *self.topics.at_mut(topic) = bytemuck::Zeroable::zeroed();
            self.topics.release();
        }
    }
}
