//! Links, outwards: what this relay has to say to the other shards of its process.
//!
//! A feed is the cursor by which another shard reads a log of ours; the session that stands for
//! that shard owns all of its feeds, so that an append wakes them as it wakes any reader. What a
//! shard publishes to a topic of another waits in blocks of its own. Neither gaps. What keeps them
//! bounded: a topic that other shards read takes nothing in while one of them lags by more than an
//! eighth of the pool, or all of them together by more than a quarter, and nobody who publishes
//! away is read while [`OUT_BYTES_MAX`] wait.

use super::Relay;
use super::input::Stop;
use crate::event::{Event, Reason};
use crate::fault::{ConfigError, PeerFault, invariant_failed};
use crate::id::Ref;
use crate::line::Envelope;
use crate::link::{
    Answer, BanNote, Far, Feed, HEADER, Header, Homes, LinkSlots, NOTE, NOTES, Notes,
    OUT_BYTES_MAX, OutRun, Peer, Replica, Ring, SHARDS_MAX, Shape, TICK, TICKS_MAX, kind,
};
use crate::quarantine::Charge;
use crate::queue::{By, Queue};
use crate::session::{Farewell, Phase};
use crate::storage::{Pool, Purpose};
use crate::time::Instant;

/// The other shards, as a relay sees them. Without any, nothing here is touched.
#[derive(Debug)]
pub(crate) struct Links<'s> {
    pub(super) shard: u8,
    pub(super) shards: u8,
    /// Feeds of one shape: those of frames follow those of lines.
    rows: u32,
    pub(super) homes: Homes,
    pub(super) peers: &'s mut [Peer],
    pub(super) feeds: &'s mut [Feed],
    pub(super) fars: &'s mut [Far],
    /// Blocks that hold what waits for other shards.
    pub(super) out_blocks: u32,
    /// Connections whose backlog waits for a link.
    pub(super) stalled: Queue,
    /// Other shards lag too far behind logs of ours: topics that others read take nothing in.
    pub(super) full: bool,
    /// Something went out: who waited for a link may be gone on with.
    pub(super) eased: bool,
    /// What a ring brought found no room: how many links had been freed then, and the turn.
    pub(super) blocked: Option<(u64, u64)>,
}

impl Links<'_> {
    pub(super) fn none() -> Self {
        Self {
            shard: 0,
            shards: 1,
            rows: 0,
            homes: Homes::ByName,
            peers: &mut [],
            feeds: &mut [],
            fars: &mut [],
            out_blocks: 0,
            stalled: Queue::new(By::Backlog),
            full: false,
            eased: false,
            blocked: None,
        }
    }

    /// Whether what a ring brought may find room now. Said once: then it is brought again.
    pub(super) fn unblocked(&mut self, freed: u64) -> bool {
        let told = self.blocked.take_if(|(seen, _)| *seen != freed).is_some();
        told && !cfg!(wardline_mutant = "blocked_for_ever")
    }

    /// What a ring brought finds no room. Others of this turn may have before, and since then some
    /// may have been made: what is `freed` counts from the first of them on.
    pub(super) fn block(&mut self, freed: u64, turn: u64) {
        let seen = self.blocked.map_or(freed, |(seen, _)| seen);
        self.blocked = Some((seen, turn));
    }

    /// A reader that was giving way has ended, or gives way no more: what waits may be for another
    /// one to do so.
    pub(super) fn gave_way(&mut self) {
        self.eased |= self.blocked.is_some();
    }

    pub(super) fn peer(&self, shard: u8) -> &Peer {
        match self.peers.get(usize::from(shard)) {
            Some(peer) => peer,
            None => invariant_failed("no such shard"),
        }
    }

    pub(super) fn peer_mut(&mut self, shard: u8) -> &mut Peer {
        match self.peers.get_mut(usize::from(shard)) {
            Some(peer) => peer,
            None => invariant_failed("no such shard"),
        }
    }

    /// The feed of a topic to a shard, as the place in the table.
    pub(super) fn feed_at(&self, topic: Ref, shard: u8, shape: Shape) -> Ref {
        let first = if shape == Shape::Lines { 0 } else { self.rows };
        let row = topic.index().saturating_mul(u32::from(self.shards));
        Ref::of(first.saturating_add(row).saturating_add(u32::from(shard)))
    }

    /// The topic of a feed, and what of it is fed.
    pub(super) fn topic_of(&self, feed: Ref) -> (Ref, Shape) {
        let (at, shape) = match feed.index().checked_sub(self.rows) {
            Some(at) => (at, Shape::Frames),
            None => (feed.index(), Shape::Lines),
        };
        (Ref::of(at.checked_div(u32::from(self.shards)).unwrap_or(0)), shape)
    }

    /// Each other shard, with each shape that a feed to it may have.
    pub(super) fn others_by_shape(&self) -> impl Iterator<Item = (u8, Shape)> + use<> {
        let (mine, shards) = (self.shard, self.shards);
        let last = if self.homes == Homes::First { shards } else { 0 };
        let lines = (0..shards).map(|shard| (shard, Shape::Lines));
        let frames = (0..last).map(|shard| (shard, Shape::Frames));
        lines.chain(frames).filter(move |(shard, _)| *shard != mine)
    }

    pub(super) fn feed(&self, feed: Ref) -> &Feed {
        match self.feeds.get(feed.index() as usize) {
            Some(feed) => feed,
            None => invariant_failed("no such feed"),
        }
    }

    pub(super) fn feed_mut(&mut self, feed: Ref) -> &mut Feed {
        match self.feeds.get_mut(feed.index() as usize) {
            Some(feed) => feed,
            None => invariant_failed("no such feed"),
        }
    }

    pub(super) fn far(&self, topic: Ref) -> &Far {
        match self.fars.get(topic.index() as usize) {
            Some(far) => far,
            None => invariant_failed("no such topic of another shard"),
        }
    }

    pub(super) fn far_mut(&mut self, topic: Ref) -> &mut Far {
        match self.fars.get_mut(topic.index() as usize) {
            Some(far) => far,
            None => invariant_failed("no such topic of another shard"),
        }
    }

    /// Puts a feed into the row of those that have something to say, once.
    pub(super) fn list(&mut self, shard: u8, feed: Ref) {
        if core::mem::replace(&mut self.feed_mut(feed).listed, 1) != 0 {
            return;
        }
        self.feed_mut(feed).next = Ref::NONE;
        let last = core::mem::replace(&mut self.peer_mut(shard).feeds_last, feed);
        match last.some() {
            Some(last) => self.feed_mut(last).next = feed,
            None => self.peer_mut(shard).feeds_first = feed,
        }
    }

    fn unlist(&mut self, shard: u8) -> Option<Ref> {
        let feed = self.peer(shard).feeds_first.some()?;
        let next = core::mem::take(&mut self.feed_mut(feed).next);
        self.feed_mut(feed).listed = 0;
        let peer = self.peer_mut(shard);
        peer.feeds_first = next;
        if next.is_none() {
            peer.feeds_last = Ref::NONE;
        }
        Some(feed)
    }

    /// The home of a topic may have to be told whether we read it.
    fn list_control(&mut self, home: u8, topic: Ref) {
        if core::mem::replace(&mut self.far_mut(topic).listed, 1) != 0 {
            return;
        }
        self.far_mut(topic).next = Ref::NONE;
        let last = core::mem::replace(&mut self.peer_mut(home).control_last, topic);
        match last.some() {
            Some(last) => self.far_mut(last).next = topic,
            None => self.peer_mut(home).control_first = topic,
        }
    }

    fn unlist_control(&mut self, home: u8) -> Option<Ref> {
        let topic = self.peer(home).control_first.some()?;
        let next = core::mem::take(&mut self.far_mut(topic).next);
        self.far_mut(topic).listed = 0;
        let peer = self.peer_mut(home);
        peer.control_first = next;
        if next.is_none() {
            peer.control_last = Ref::NONE;
        }
        Some(topic)
    }
}

impl<'s, P: Pool> Relay<'s, P> {
    /// Makes the relay number `shard` of as many as `slots` has peers for; `homes` is the same for
    /// all of them. Before anything else is done with it; [`Relay::listen`] is then called with the
    /// same names in the same order on each, so that topics have the same numbers everywhere. Where
    /// the first is home to all, one of the topics is the lobby of native clients, on each of them.
    ///
    /// # Errors
    /// The operator's: more shards than [`SHARDS_MAX`], or fewer slots lent than that takes.
    #[allow(clippy::needless_pass_by_value, reason = "it is taken apart")]
    pub fn join(
        &mut self,
        shard: u8,
        slots: LinkSlots<'s>,
        homes: Homes,
    ) -> Result<(), ConfigError> {
        let shards = u8::try_from(slots.peers.len()).unwrap_or(u8::MAX);
        if shards > SHARDS_MAX || shard >= shards {
            return Err(ConfigError::Shards);
        }
        // What waits for others has a quarter of the blocks, and must hold any message.
        let blocks = self.limits.blocks_for(self.limits.line.envelope_bytes_max);
        if shards > 1 && blocks > self.limits.blocks / 4 {
            return Err(ConfigError::EnvelopeBytes);
        }
        let topics = self.limits.topics as usize;
        let shapes = if homes == Homes::First { 2 } else { 1 };
        let rows = topics.saturating_mul(usize::from(shards));
        let feeds = rows.saturating_mul(shapes);
        let sessions = self.limits.connections.saturating_add(crate::limits::RESERVE) as usize;
        let others = usize::from(shards).saturating_sub(1);
        let cursors = sessions.saturating_add(topics.saturating_mul(others).saturating_mul(shapes));
        let short = slots.feeds.len() < feeds
            || slots.fars.len() < topics
            || (self.cursors.capacity() as usize) < cursors;
        if short || self.sessions.used() > 0 || self.topics.touched() > 0 {
            return Err(ConfigError::SlotsMissing);
        }
        self.links.shard = shard;
        self.links.shards = shards;
        self.links.rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.links.homes = homes;
        self.links.peers = slots.peers;
        self.links.feeds = slots.feeds;
        self.links.fars = slots.fars;
        for other in self.others() {
            let Some(slot) = self.sessions.take() else { return Err(ConfigError::SlotsMissing) };
            self.sessions.at_mut(slot).set_phase(Phase::Link);
            self.sessions.at_mut(slot).close_at = Instant::NEVER;
            self.links.peer_mut(other).session = slot;
        }
        if homes == Homes::First {
            let _ = self.take_lobby()?;
        }
        Ok(())
    }

    /// The topic on which nothing is said: where native input is shared out.
    pub(super) fn take_lobby(&mut self) -> Result<Ref, ConfigError> {
        let lobby = self.topics.take().ok_or(ConfigError::Full)?;
        self.topics.at_mut(lobby).bound = 1;
        Ok(lobby)
    }

    /// Which shard this is, and of how many.
    #[must_use]
    pub const fn shard(&self) -> (u8, u8) {
        (self.links.shard, self.links.shards)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = u8> + use<P> {
        let mine = self.links.shard;
        (0..self.links.shards).filter(move |shard| *shard != mine)
    }

    /// Where the order of a new topic is made.
    pub(super) fn settle_home(&mut self, topic: Ref) {
        let shards = self.links.shards;
        let home = self.links.homes.home_of(self.topics.at(topic).name(), shards);
        if shards > 1 && home != self.links.shard {
            self.topics.at_mut(topic).home = home.saturating_add(1);
        }
    }

    /// The readers of a topic of another shard came or went: its home may have to know.
    pub(super) fn readers_changed(&mut self, topic: Ref) {
        let Some(home) = self.topics.at(topic).home() else { return };
        let far = self.links.far(topic);
        let told = far.replica() != Replica::No;
        if told != self.is_wanted(topic) || far.told != self.countable(topic) {
            self.links.list_control(home, topic);
        }
    }

    /// Readers of a topic that its home is to know of: how many there are matters to those who
    /// speak the native dialect.
    fn countable(&self, topic: Ref) -> u32 {
        let counted = self.links.homes == Homes::First;
        if counted { self.topics.at(topic).own_readers() } else { 0 }
    }

    fn is_wanted(&self, topic: Ref) -> bool {
        self.topics.at(topic).cursors > 0
    }

    /// A message for a topic whose log is asked for by others, or is another's. Gives whether that
    /// was all: it is on its way to its home.
    pub(super) fn publish_away(
        &mut self,
        slot: Ref,
        envelope: &Envelope<'_>,
    ) -> Result<bool, Stop> {
        let topic = self.sessions.at(slot).topic;
        let Some(home) = self.topics.at(topic).home() else {
            return self.waits_for_feeds(topic).map(|()| false);
        };
        let len = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
        let run = self.run_of(kind::LINES, topic, slot, len);
        self.has_room_out(slot, home, &run)?;
        let mut out = self.links.peer(home).out;
        let before = self.memory.blocks_used();
        let memory = &mut self.memory;
        envelope.write(|bytes| {
            if out.push(memory, Purpose::Output, bytes).is_err() {
                invariant_failed("a block that was free is not");
            }
        });
        self.links.peer_mut(home).out = out;
        self.note_run(home, run, before);
        let far = self.links.far_mut(topic);
        far.sent = far.sent.saturating_add(1);
        Ok(true)
    }

    /// One message of a connection, as a run for another shard.
    pub(super) fn run_of(&self, kind: u32, topic: Ref, author: Ref, bytes: u32) -> OutRun {
        let generation = self.sessions.at(author).generation;
        OutRun { kind, topic, author, generation, messages: 1, bytes, number: 0 }
    }

    /// Whether what a connection has for another shard may wait for that one.
    pub(super) fn has_room_out(&mut self, slot: Ref, to: u8, run: &OutRun) -> Result<(), Stop> {
        let peer = self.links.peer(to);
        if peer.dead != 0 {
            let reason = Reason::Fault(PeerFault::Overloaded);
            self.stats.overloaded.bump();
            self.leave(slot, reason, Farewell::Overloaded, false);
            return Err(Stop::Gone);
        }
        let most = OUT_BYTES_MAX.min(self.limits.pool_bytes() / 8);
        let waiting = u64::from(peer.out.len());
        if waiting > 0 && waiting.saturating_add(u64::from(run.bytes)) > most {
            return Err(Stop::Link);
        }
        // Blocks alone, and no more than a quarter of them: else what waits for one shard would
        // hold what is needed to take in from it, and two shards could wait for each other.
        let blocks = self.limits.blocks_for(run.bytes);
        let quarter = self.limits.blocks / 4;
        let over = self.links.out_blocks.saturating_add(blocks) > quarter;
        if over || (self.same_run(to, run).is_none() && self.links.peer(to).runs.is_full()) {
            return Err(Stop::Link);
        }
        if self.memory.blocks_free() < blocks {
            return Err(Stop::Memory);
        }
        Ok(())
    }

    /// Puts bytes for which there is room behind what waits for another shard.
    #[cfg(feature = "native-sessions")]
    pub(super) fn put_out(&mut self, to: u8, run: OutRun, parts: &[&[u8]]) {
        let before = self.memory.blocks_used();
        let mut out = self.links.peer(to).out;
        for part in parts {
            if out.push(&mut self.memory, Purpose::Output, part).is_err() {
                invariant_failed("a block that was free is not");
            }
        }
        self.links.peer_mut(to).out = out;
        self.note_run(to, run, before);
    }

    /// A topic of ours takes nothing in while those that replicate it lag too far: they must not be
    /// left behind without a bound.
    pub(super) fn waits_for_feeds(&self, topic: Ref) -> Result<(), Stop> {
        let full = self.links.full && !cfg!(wardline_mutant = "feed_lag_unbounded");
        if full && self.topics.at(topic).feeds > 0 { Err(Stop::Link) } else { Ok(()) }
    }

    /// The run of what goes to a home that a message may be added to.
    pub(super) fn same_run(&mut self, home: u8, run: &OutRun) -> Option<&mut OutRun> {
        let most = match run.kind {
            kind::LINES => self.limits.line.envelope_bytes_max,
            kind::SAID | kind::PASS => self.limits.link_content_max(),
            _ => return None,
        };
        let last = self.links.peer_mut(home).runs.last_mut()?;
        let of = |run: &OutRun| (run.kind, run.topic, run.author, run.generation);
        let same = of(last) == of(run) && last.number == run.number;
        (same && last.bytes.saturating_add(run.bytes) <= most).then_some(last)
    }

    /// A run, or more of one, was written, when so many blocks were used `before`.
    fn note_run(&mut self, home: u8, run: OutRun, before: u32) {
        let taken = self.memory.blocks_used().saturating_sub(before);
        self.links.out_blocks = self.links.out_blocks.saturating_add(taken);
        self.stats.link_bytes.add(u64::from(run.bytes));
        if let Some(last) = self.same_run(home, &run) {
            last.bytes = last.bytes.saturating_add(run.bytes);
            last.messages = last.messages.saturating_add(run.messages);
        } else if !self.links.peer_mut(home).runs.push(run) {
            invariant_failed("a run that had a place has none");
        }
    }

    /// The other shards are told of a strike.
    pub(super) fn spread(&mut self, key: crate::prefix::Prefix, charge: Charge) {
        let Charge::Struck { strikes, seconds, to_parent } = charge else { return };
        if cfg!(wardline_mutant = "ban_stays_home") {
            return;
        }
        let key = if to_parent { key.parent() } else { key };
        self.note_bans(BanNote { key, seconds, strikes: u32::from(strikes) });
    }

    /// Every other shard is to be told that.
    pub(super) fn note_bans(&mut self, note: BanNote) {
        for other in self.others() {
            if !self.links.peer_mut(other).note_ban(note) {
                self.stats.bans_untold.bump();
            }
        }
    }

    /// Whether there is something for a ring. Asked after each turn.
    #[must_use]
    pub fn link_has(&self, to: u8, ring: Ring) -> bool {
        let peer = self.links.peer(to);
        match ring {
            Ring::Publish => peer.control_first.is_some() || !peer.runs.is_empty(),
            Ring::Log => {
                let notes = (peer.lost | peer.ping | peer.pong) != 0;
                let notes = notes || !peer.bans.is_empty() || !peer.answers.is_empty();
                let notes = notes || NOTES.iter().any(|of| !peer.notes(*of).is_empty());
                notes || peer.unsure != 0 || peer.feeds_first.is_some()
            }
        }
    }

    /// Fills `room` with whole records for a ring of another shard; gives how many bytes. Fewer
    /// than there are to be had only where the next record does not fit:
    /// [`Limits::record_bytes_max`](crate::Limits::record_bytes_max) always do. After it
    /// [`Relay::link_again`] says whether a turn is to follow.
    pub fn link_take(&mut self, now: Instant, to: u8, ring: Ring, room: &mut [u8]) -> usize {
        self.enter(now);
        let mut done = 0_usize;
        while let Some(rest) = room.get_mut(done..) {
            let len = match ring {
                Ring::Publish => self.next_publish(to, rest),
                Ring::Log => self.next_log(to, rest),
            };
            if len == 0 {
                break;
            }
            done = done.saturating_add(len);
        }
        self.watch(to, done > 0);
        done
    }

    /// Whether a turn is to follow at once: what was taken out let others go on.
    #[must_use]
    pub fn link_again(&self) -> bool {
        let recent = |seen: (u64, u64)| self.turn.wrapping_sub(seen.1) <= 1;
        let waits = self.links.stalled.first().is_some();
        self.links.eased && (waits || self.links.blocked.is_some_and(recent))
    }

    /// A shard that does not take what waits for it is looked at each second.
    fn watch(&mut self, to: u8, moved: bool) {
        let has = self.link_has(to, Ring::Log) || self.link_has(to, Ring::Publish);
        if moved {
            self.links.eased = true;
        }
        let now = self.now;
        let slot = self.links.peer(to).session;
        let session = self.sessions.at_mut(slot);
        if !has {
            session.close_at = Instant::NEVER;
            self.links.peer_mut(to).ticks = 0;
        } else if session.close_at == Instant::NEVER {
            session.close_at = now.after(TICK);
            self.arm(slot);
        }
    }

    /// A sign of life.
    pub(super) fn is_alive(&mut self, shard: u8) {
        let peer = self.links.peer_mut(shard);
        peer.ticks = 0;
        peer.dead = 0;
    }

    /// A shard has not taken what waits for it for a second more.
    pub(super) fn tick(&mut self, slot: Ref) {
        let Some(shard) = self.others().find(|shard| self.links.peer(*shard).session == slot)
        else {
            return;
        };
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if session.close_at > now {
            return;
        }
        session.close_at = now.after(TICK);
        let peer = self.links.peer_mut(shard);
        peer.ping = 1;
        peer.ticks = peer.ticks.saturating_add(1);
        if peer.ticks == TICKS_MAX && !cfg!(wardline_mutant = "dead_is_waited_for") {
            self.give_up(shard);
        }
    }

    /// A shard is dead: it stops nobody any more. Should it live after all, it is told that its
    /// replicas have holes.
    fn give_up(&mut self, shard: u8) {
        self.stats.links_dead.bump();
        self.tell(Event::LinkDead { shard });
        for topic in (0..self.topics.touched()).map(Ref::of) {
            for (_, shape) in self.links.others_by_shape().filter(|(other, _)| *other == shard) {
                self.drop_feed(topic, shard, shape);
            }
        }
        while self.links.unlist(shard).is_some() {}
        let peer = self.links.peer_mut(shard);
        peer.dead = 1;
        peer.lost = 1;
        self.links.eased = true;
    }

    /// The next record of a publish ring; 0: there is none, or no room for it.
    fn next_publish(&mut self, to: u8, room: &mut [u8]) -> usize {
        if room.len() < HEADER {
            return 0;
        }
        while let Some(topic) = self.links.unlist_control(to) {
            if let Some(header) = self.control(topic) {
                header.write(room);
                return HEADER;
            }
        }
        let peer = self.links.peer_mut(to);
        let Some(run) = peer.runs.front().copied() else { return 0 };
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let Some(rest) = rest.get_mut(..run.bytes as usize) else { return 0 };
        let _ = peer.runs.pop();
        let (mut out, before) = (peer.out, self.memory.blocks_used());
        out.copy_to(&self.memory, rest);
        out.pop(&mut self.memory, Purpose::Output, run.bytes);
        let given = before.saturating_sub(self.memory.blocks_used());
        self.links.out_blocks = self.links.out_blocks.saturating_sub(given);
        self.links.peer_mut(to).out = out;
        if run.kind == kind::LINES {
            let far = self.links.far_mut(run.topic);
            far.emitted = far.emitted.saturating_add(u64::from(run.messages));
        }
        Header {
            kind: run.kind,
            topic: run.topic.index(),
            author: run.author.0,
            messages: run.messages,
            len: run.bytes,
            epoch: run.generation,
            number: run.number,
        }
        .write(head);
        HEADER.saturating_add(run.bytes as usize)
    }

    /// An answer as a record; 0: no room for it.
    fn write_answer(&mut self, answer: &Answer, room: &mut [u8]) -> usize {
        if answer.kind == kind::TOLD {
            return self.write_told(answer, room);
        }
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let Some(rest) = rest.get_mut(..8) else { return 0 };
        crate::storage::copy(rest, &answer.value.to_le_bytes());
        let Answer { kind, asker: author, generation: epoch, topic, .. } = *answer;
        let (number, messages) = (answer.about, answer.count);
        Header { kind, topic, author, messages, len: 8, epoch, number }.write(head);
        HEADER.saturating_add(8)
    }

    /// As many notes for a shard as there is room for, as a record.
    fn next_notes(&mut self, to: u8, of: Notes, room: &mut [u8]) -> usize {
        let kind = match of {
            Notes::Returned => kind::RETURNED,
            Notes::Presence => kind::PRESENCE,
        };
        let mut notes = *self.links.peer(to).notes(of);
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let most = rest.len().min(self.limits.link_content_max() as usize);
        let most = most.min(notes.len() as usize);
        let whole = most.saturating_sub(most % NOTE);
        if whole == 0 {
            return 0;
        }
        notes.copy_to(&self.memory, rest.get_mut(..whole).unwrap_or_default());
        let len = whole as u32;
        notes.pop(&mut self.memory, Purpose::Output, len);
        *self.links.peer_mut(to).notes_mut(of) = notes;
        Header { kind, len, ..Header::default() }.write(head);
        HEADER.saturating_add(whole)
    }

    /// What the home of a topic is to be told of our readers, if anything.
    fn control(&mut self, topic: Ref) -> Option<Header> {
        let (wanted, messages) = (self.is_wanted(topic), self.countable(topic));
        let far = self.links.far_mut(topic);
        let told = far.replica() != Replica::No;
        let before = core::mem::replace(&mut far.told, messages);
        let header = Header { topic: topic.index(), messages, ..Header::default() };
        if wanted == told {
            return (before != messages).then_some(Header { kind: kind::READERS, ..header });
        }
        if !wanted {
            far.set_replica(Replica::No);
            return Some(Header { kind: kind::UNSUBSCRIBE, ..header });
        }
        far.set_replica(Replica::Asked);
        far.epoch = far.epoch.wrapping_add(1);
        // What is put into the ring after this comes back, and nothing else.
        far.returned = far.emitted;
        Some(Header { kind: kind::SUBSCRIBE, epoch: far.epoch, ..header })
    }

    /// The next record of a log ring; 0: there is none, or no room for it.
    fn next_log(&mut self, to: u8, room: &mut [u8]) -> usize {
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let peer = self.links.peer_mut(to);
        let notes = [
            (kind::LOST, &mut peer.lost),
            (kind::PING, &mut peer.ping),
            (kind::PONG, &mut peer.pong),
        ];
        for (kind, due) in notes {
            if core::mem::take(due) != 0 {
                Header { kind, ..Header::default() }.write(head);
                return HEADER;
            }
        }
        if let Some(note) = peer.bans.front() {
            let len = note.key.as_bytes().len();
            let Some(rest) = rest.get_mut(..len) else { return 0 };
            crate::storage::copy(rest, note.key.as_bytes());
            let (messages, author) = (note.seconds, note.strikes);
            let len = len as u32;
            Header { kind: kind::BAN, messages, author, len, ..Header::default() }.write(head);
            let _ = peer.bans.pop();
            return HEADER.saturating_add(len as usize);
        }
        if let Some(answer) = peer.answers.front().copied() {
            let len = self.write_answer(&answer, room);
            if len > 0 {
                let _ = self.links.peer_mut(to).answers.pop();
            }
            return len;
        }
        // Behind answers, which are looked up when they go out: so who left is no longer there.
        if core::mem::take(&mut peer.unsure) != 0 {
            Header { kind: kind::PRESENCE, ..Header::default() }.write(head);
            return HEADER;
        }
        if let Some(of) = NOTES.into_iter().find(|of| !peer.notes(*of).is_empty()) {
            return self.next_notes(to, of, room);
        }
        while let Some(feed) = self.links.peer(to).feeds_first.some() {
            let (len, more) = self.serve(to, feed, room);
            if more && len == 0 {
                // No room: it is first again.
                return 0;
            }
            let _ = self.links.unlist(to);
            if more {
                self.links.list(to, feed);
            }
            if len > 0 {
                return len;
            }
        }
        0
    }
}
