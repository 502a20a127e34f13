//! Links, inwards: what the other shards of the process say.
//!
//! The log ring waits for nobody. A record of it is appended, or, where memory is short, readers of
//! this shard who do not read are evicted until it can be, a turn after the other; where nobody is
//! left to evict, the readers of its topic are cut and told, and it is passed over. Each turn takes
//! a record, or ends a reader, or waits for the end of a send that was cancelled; readers are
//! finitely many, and nothing that it waits for is another shard's. So it always comes to an end,
//! and two shards cannot wait for each other.

use super::Relay;
use super::input::CHARGE_MIN;
use crate::event::{Event, Reason};
use crate::fault::{PeerFault, invariant_failed};
use crate::id::{Ref, TopicId};
use crate::link::{HEADER, Header, LinkTaken, Replica, Ring, Shape, foreign, kind};
use crate::log::NoRoom;
use crate::prefix::Prefix;
use crate::session::{Farewell, Flags, Phase};
use crate::storage::Pool;
use crate::time::Instant;
use crate::topic::Mirror;

/// The author of what none of this shard's connections wrote.
pub(super) const NOBODY: Ref = Ref(u32::MAX);
/// Turns that a record waits for room, where nobody is left to give way: an engine may hear of its
/// sends a turn later.
const ROOM_TURNS: u64 = 3;

/// Why a record is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// The turn is full, or somebody gave way: the next turn comes at once.
    Again,
    /// Something must be freed, or go out, first.
    Freed,
}

impl<P: Pool> Relay<'_, P> {
    /// A ring from another shard brought `bytes`, which begin with a record. The caller brings what
    /// was not taken again, with what came after it; `bytes` are to be at least
    /// [`Limits::record_bytes_max`](crate::Limits::record_bytes_max) where the ring holds so many.
    ///
    /// A record names its author by the slot alone: a shard's own messages come back in the order
    /// in which they went out, so a count of them tells whether the slot has changed hands since.
    pub fn handle_link(&mut self, now: Instant, from: u8, ring: Ring, bytes: &[u8]) -> LinkTaken {
        self.enter(now);
        let mut done = 0_usize;
        while let Some(rest) = bytes.get(done..)
            && let Some(header) = Header::read(rest)
        {
            if header.len > self.limits.link_content_max() {
                invariant_failed("a record over the limit");
            }
            let end = HEADER.saturating_add(header.len as usize);
            let Some(content) = rest.get(HEADER..end) else { break };
            self.is_alive(from);
            let taken = match ring {
                Ring::Publish => self.take_publish(from, &header, content),
                Ring::Log => self.take_log(from, &header, content),
            };
            match taken {
                Ok(()) => done = done.saturating_add(end),
                Err(Later::Again) => return LinkTaken { bytes: done, again: true },
                Err(Later::Freed) => {
                    self.stats.link_waits.bump();
                    self.links.block(self.memory.freed, self.turn);
                    return LinkTaken { bytes: done, again: false };
                }
            }
        }
        LinkTaken { bytes: done, again: false }
    }

    pub(super) fn topic_of(&self, header: &Header, home: Option<u8>) -> Ref {
        let topic = Ref::of(header.topic);
        if header.topic >= self.topics.touched() || self.topics.at(topic).home() != home {
            invariant_failed("a record of a topic that is not there, or not at home");
        }
        topic
    }

    fn take_publish(&mut self, from: u8, header: &Header, content: &[u8]) -> Result<(), Later> {
        match header.kind {
            kind::LINES => self.take_messages(from, header, content)?,
            kind::SUBSCRIBE => {
                let topic = self.topic_of(header, None);
                self.make_feed(topic, from, Shape::Lines, header.epoch);
                self.count_readers(topic, from, header.messages);
            }
            kind::UNSUBSCRIBE => {
                let topic = self.topic_of(header, None);
                self.drop_feed(topic, from, Shape::Lines);
                self.count_readers(topic, from, header.messages);
            }
            kind::READERS => {
                let topic = self.topic_of(header, None);
                self.count_readers(topic, from, header.messages);
            }
            kind::OPEN => self.take_open(from, header, content)?,
            kind::SHUT => self.take_shut(from, header),
            kind::SAID => self.take_said(from, header, content)?,
            kind::PASS => self.take_pass(from, header, content)?,
            kind::ASK => self.take_ask(from, header, content)?,
            kind::CREDIT => self.take_credit(header, content),
            _ => invariant_failed("a record of no kind, in a publish ring"),
        }
        Ok(())
    }

    fn take_log(&mut self, from: u8, header: &Header, content: &[u8]) -> Result<(), Later> {
        match header.kind {
            kind::START => {
                let topic = self.topic_of(header, Some(from));
                let far = self.links.far_mut(topic);
                if far.replica() == Replica::Asked && far.epoch == header.epoch {
                    far.set_replica(Replica::Live);
                    let log = &mut self.topics.at_mut(topic).log;
                    log.skip_to(&mut self.memory, header.number);
                    if self.limits.report_messages {
                        let (topic, number) = (TopicId::new(topic), header.number);
                        self.tell(Event::ReplicaBegins { topic, number });
                    }
                }
            }
            kind::LOG => {
                let topic = self.topic_of(header, Some(from));
                if self.links.far(topic).replica() == Replica::Live {
                    self.take_replica(topic, header, content)?;
                }
            }
            kind::BAN => {
                let Some(key) = Prefix::from_bytes(content) else {
                    invariant_failed("a ban of no address");
                };
                let strikes = u8::try_from(header.author).unwrap_or(u8::MAX);
                if strikes == 0 {
                    self.puzzle_from(key, header.messages);
                } else {
                    self.stats.bans_from_shards.bump();
                    self.quarantine.adopt(self.now, key, strikes, header.messages);
                }
            }
            kind::BEGIN => self.take_begin(header, content)?,
            kind::FRAMES => self.take_frames(header, content)?,
            kind::REFUSED | kind::VERDICT | kind::PASSED | kind::TOLD => {
                self.take_answer(header, content);
            }
            kind::RETURNED => self.take_returned(content),
            kind::PRESENCE => self.take_presence(content),
            kind::LOST => self.lost(from),
            kind::PING => self.links.peer_mut(from).pong = 1,
            kind::PONG => {}
            _ => invariant_failed("a record of no kind, in a log ring"),
        }
        Ok(())
    }

    /// Begins to take in for a topic, if its turn has room.
    pub(super) fn enter_topic(&mut self, topic: Ref) -> Result<(), Later> {
        let turn = self.turn;
        let most = self.limits.topic_turn_bytes;
        let item = self.topics.at_mut(topic);
        item.enter(turn);
        // Where backlogs of ours wait, they get the other half.
        let most = if item.queued > 0 { most.div_ceil(2) } else { most };
        if item.taken < most { Ok(()) } else { Err(Later::Again) }
    }

    /// The topic of ours that a record is for, if its turn has room, and other shards that read it
    /// do not lag too far.
    pub(super) fn enter_home(&mut self, header: &Header) -> Result<Ref, Later> {
        let topic = self.topic_of(header, None);
        self.enter_topic(topic)?;
        let waits = self.topics.at(topic).feeds > 0 && self.links.full;
        if waits { Err(Later::Freed) } else { Ok(topic) }
    }

    pub(super) fn charge_topic(&mut self, topic: Ref, header: &Header) {
        let item = self.topics.at_mut(topic);
        let least = header.messages.saturating_mul(CHARGE_MIN);
        item.taken = item.taken.saturating_add(header.len.max(least));
        if item.touched == 0 {
            item.touched = 1;
            item.touched_next = core::mem::replace(&mut self.touched, topic);
        }
    }

    /// At home: lines of another shard's connection get their place in the order.
    fn take_messages(&mut self, from: u8, header: &Header, content: &[u8]) -> Result<(), Later> {
        let topic = self.enter_home(header)?;
        let item = self.topics.at(topic);
        let number = (item.cursors > 0).then_some(item.log.messages);
        let put = if item.speaks_native() && !cfg!(wardline_mutant = "far_line_is_no_frame") {
            self.append_far_lines(topic, from, header, content)
        } else if number.is_some() {
            self.append(topic, foreign(from, header.author), content)
        } else {
            self.stats.published_to_nobody.add(u64::from(header.messages));
            Ok(())
        };
        if let Err(NoRoom) = put {
            self.stats.log_full.bump();
            return Err(if self.evict_for_memory() { Later::Again } else { Later::Freed });
        }
        self.charge_topic(topic, header);
        self.stats.from_shards.add(u64::from(header.messages));
        if self.limits.report_messages {
            let messages = header.messages;
            let topic = TopicId::new(topic);
            self.tell(Event::Ordered { shard: from, topic, number, messages });
        }
        Ok(())
    }

    /// Appends whole messages of one author, and wakes those who wait for them.
    pub(super) fn append(&mut self, topic: Ref, author: Ref, content: &[u8]) -> Result<(), NoRoom> {
        let len = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let item = self.topics.at_mut(topic);
        let log = &mut item.log;
        log.reserve(&mut self.memory, self.limits.quiet_log_bytes, author, len)?;
        if item.waiting.is_some() {
            self.wake_waiting(topic, author);
        }
        let log = &mut self.topics.at_mut(topic).log;
        log.write_lines(&mut self.memory, author, content);
        self.stats.bytes_appended.add(u64::from(len));
        Ok(())
    }

    /// At a replica: messages in the home's order.
    fn take_replica(&mut self, topic: Ref, header: &Header, content: &[u8]) -> Result<(), Later> {
        self.enter_topic(topic)?;
        // A part of them may have found room before.
        let done = self.topics.at(topic).log.messages.checked_sub(header.number);
        let done = done.and_then(|done| u32::try_from(done).ok()).unwrap_or(u32::MAX);
        let Some(left) = header.messages.checked_sub(done).filter(|left| *left > 0) else {
            invariant_failed("a replica with a hole");
        };
        let content = content.get(nth_end(content, done)..).unwrap_or_default();
        let (theirs, own) = self.split_author(topic, header.author, left);
        let (before, after) =
            content.split_at_checked(nth_end(content, theirs)).unwrap_or((content, &[]));
        let ours = left.saturating_sub(theirs);
        for (author, content, messages) in [(NOBODY, before, theirs), (own, after, ours)] {
            if messages > 0 {
                self.take_part(topic, author, content, messages)?;
                if header.author != 0 {
                    let far = self.links.far_mut(topic);
                    far.returned = far.returned.saturating_add(u64::from(messages));
                }
            }
        }
        self.charge_topic(topic, header);
        Ok(())
    }

    /// Messages of one author come to a replica.
    fn take_part(
        &mut self,
        topic: Ref,
        author: Ref,
        content: &[u8],
        messages: u32,
    ) -> Result<(), Later> {
        let number = self.topics.at(topic).log.messages;
        if self.topics.at(topic).cursors == 0 {
            // Its readers have left, and the home does not know it yet.
            self.pass_over(topic, messages);
        } else if self.append(topic, author, content).is_err() {
            self.stats.log_full.bump();
            self.make_room(topic, messages)?;
        } else if author != NOBODY && !cfg!(wardline_mutant = "replica_own_until_stays") {
            let cursor = self.sessions.at(author).cursor;
            self.cursors.at_mut(cursor).own_until = self.topics.at(topic).log.head;
        }
        let home = self.home_shard(topic);
        self.links.peer_mut(home).pressed = 0;
        self.stats.from_shards.add(u64::from(messages));
        if self.limits.report_messages {
            let topic = TopicId::new(topic);
            self.tell(Event::Replicated { topic, number, messages });
        }
        Ok(())
    }

    /// The shard that gives a topic its order.
    pub(super) fn home_shard(&self, topic: Ref) -> u8 {
        self.topics.at(topic).home().unwrap_or(self.links.shard)
    }

    fn pass_over(&mut self, topic: Ref, messages: u32) {
        let log = &mut self.topics.at_mut(topic).log;
        log.skip_to(&mut self.memory, log.messages.saturating_add(u64::from(messages)));
    }

    /// Of so many messages that a slot of ours wrote: how many at their front are nobody's, for it
    /// has changed hands since; the others are that connection's.
    fn split_author(&self, topic: Ref, author: u32, messages: u32) -> (u32, Ref) {
        let all = (messages, NOBODY);
        if author == 0 {
            return all;
        }
        let slot = Ref(author);
        if author > self.sessions.touched() {
            invariant_failed("a record of a connection that never was");
        }
        let session = self.sessions.at(slot);
        if session.cursor.is_none() || session.topic != topic {
            return all;
        }
        let joined = if cfg!(wardline_mutant = "slot_is_name") { 0 } else { session.joined };
        let older = joined.saturating_sub(self.links.far(topic).returned);
        match u32::try_from(older) {
            Ok(older) if older < messages => (older, slot),
            Ok(_) | Err(_) => all,
        }
    }

    /// No room for what a log ring brings, and it is not to wait: once there was nobody left to
    /// give way but the readers of its topic, the record is done with.
    fn make_room(&mut self, topic: Ref, messages: u32) -> Result<(), Later> {
        self.others_give_way(topic)?;
        self.abandon(topic);
        self.pass_over(topic, messages);
        Ok(())
    }

    /// There is no room for what a log ring brings for a topic: who does not read gives way. Comes
    /// to its end where nobody is left but the readers of that topic.
    pub(super) fn others_give_way(&mut self, topic: Ref) -> Result<(), Later> {
        match self.evict_a_laggard() {
            Some(true) => return Err(Later::Again),
            // Somebody gives way already, once a send has ended that was cancelled.
            Some(false) => return Err(Later::Freed),
            None => {}
        }
        let (home, turn) = (self.home_shard(topic), self.turn);
        let tried = match self.links.peer(home).pressed.checked_sub(1) {
            Some(since) => turn.wrapping_sub(since),
            None => {
                self.links.peer_mut(home).pressed = turn.wrapping_add(1);
                self.release_all_patient();
                0
            }
        };
        if tried < ROOM_TURNS {
            // What came in may go out first.
            return Err(Later::Again);
        }
        self.links.peer_mut(home).pressed = 0;
        Ok(())
    }

    /// A reader that does not read, of any topic, gives way. None: there is none. `false`: one is
    /// about to, and its memory is not free yet.
    fn evict_a_laggard(&mut self) -> Option<bool> {
        let mut victim = None;
        for topic in (0..self.topics.touched()).map(Ref::of) {
            let natives = self.standing_in(self.topics.at(topic).frames.oldest);
            for slot in self.slowest(topic).iter().chain(&natives).copied() {
                let session = self.sessions.at(slot);
                let ends = session.flags.has(Flags::JUMP) || session.phase() == Phase::Closing;
                if ends {
                    return Some(false);
                }
                if session.flags.has(Flags::STALLED) {
                    victim = Some(slot);
                }
            }
        }
        let slot = victim?;
        self.stats.evicted_for_memory.bump();
        self.stats.cut_bytes.add(self.lag(slot));
        self.let_go(slot);
        Some(true)
    }

    /// Ends a reader that cannot have what it is owed.
    pub(super) fn let_go(&mut self, slot: Ref) {
        let reason = Reason::Fault(PeerFault::Evicted);
        let session = self.sessions.at(slot);
        match session.phase() {
            Phase::Open => self.leave(slot, reason, Farewell::Slow, false),
            // It was to have everything first.
            Phase::Leaving if !session.flags.has(Flags::JUMP) => self.close(slot, reason),
            Phase::Leaving | Phase::Finished | Phase::Closing => {}
            // These read nothing.
            Phase::Proxied | Phase::Free | Phase::Link => {}
        }
    }

    /// Every reader of a topic is cut, and told: there is a hole before them.
    fn abandon(&mut self, topic: Ref) {
        for slot in (0..self.sessions.touched()).map(Ref::of) {
            let session = self.sessions.at(slot);
            if session.topic != topic || session.cursor.is_none() {
                continue;
            }
            let there = matches!(session.phase(), Phase::Open | Phase::Leaving);
            if there {
                self.stats.replica_cuts.bump();
            }
            self.let_go(slot);
        }
    }

    /// Another shard took this one for dead, and dropped what it was to be sent: the readers of its
    /// topics are cut and told. Whoever comes after is served again.
    fn lost(&mut self, home: u8) {
        self.stats.links_lost.bump();
        self.tell(Event::LinkLost { shard: home });
        for topic in (0..self.topics.touched()).map(Ref::of) {
            if self.topics.at(topic).home() != Some(home) {
                continue;
            }
            if self.topics.at(topic).mirror() == Mirror::Live {
                self.lose_mirror(topic);
            }
            if self.links.far(topic).replica() == Replica::No {
                continue;
            }
            if !cfg!(wardline_mutant = "lost_is_not_told") {
                self.abandon(topic);
            }
            self.links.far_mut(topic).set_replica(Replica::No);
            self.readers_changed(topic);
        }
    }
}

/// Where the first `messages` of some end.
fn nth_end(content: &[u8], messages: u32) -> usize {
    match messages.checked_sub(1) {
        None => 0,
        Some(last) => memchr::memchr_iter(b'\n', content)
            .nth(last as usize)
            .map_or(content.len(), |end| end.saturating_add(1)),
    }
}
