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
use crate::cursor::{self, Cursor};
use crate::event::{Event, Reason};
use crate::fault::{ConfigError, PeerFault, invariant_failed};
use crate::id::Ref;
use crate::line::Envelope;
use crate::link::{
    BanNote, FEED_BYTES, Far, Feed, HEADER, Header, Homes, LinkSlots, OUT_BYTES_MAX, OutRun, Peer,
    Replica, Ring, SHARDS_MAX, TICK, TICKS_MAX, kind, session_at,
};
use crate::log::{Log, run, run_after};
use crate::quarantine::Charge;
use crate::queue::{By, Queue};
use crate::session::{Farewell, Phase};
use crate::storage::{Memory, Pool, Purpose};
use crate::time::Instant;

/// The other shards, as a relay sees them. Without any, nothing here is touched.
#[derive(Debug)]
pub(crate) struct Links<'s> {
    pub(super) shard: u8,
    pub(super) shards: u8,
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
    pub(super) fn feed_at(&self, topic: Ref, shard: u8) -> Ref {
        let row = topic.index().saturating_mul(u32::from(self.shards));
        Ref::of(row.saturating_add(u32::from(shard)))
    }

    /// The topic of a feed.
    fn topic_of(&self, feed: Ref) -> Ref {
        Ref::of(feed.index().checked_div(u32::from(self.shards)).unwrap_or(0))
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
        let feeds = topics.saturating_mul(usize::from(shards));
        let sessions = self.limits.connections.saturating_add(crate::limits::RESERVE) as usize;
        let others = usize::from(shards).saturating_sub(1);
        let cursors = sessions.saturating_add(topics.saturating_mul(others));
        let short = slots.feeds.len() < feeds
            || slots.fars.len() < topics
            || (self.cursors.capacity() as usize) < cursors;
        if short || self.sessions.used() > 0 || self.topics.touched() > 0 {
            return Err(ConfigError::SlotsMissing);
        }
        self.links.shard = shard;
        self.links.shards = shards;
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
        let told = self.links.far(topic).replica() != Replica::No;
        if told != self.is_wanted(topic) {
            self.links.list_control(home, topic);
        }
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
        let peer = self.links.peer(home);
        if peer.dead != 0 {
            let reason = Reason::Fault(PeerFault::Overloaded);
            self.stats.overloaded.bump();
            self.leave(slot, reason, Farewell::Overloaded, false);
            return Err(Stop::Gone);
        }
        let len = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
        let mut out = peer.out;
        let most = OUT_BYTES_MAX.min(self.limits.pool_bytes() / 8);
        let waiting = u64::from(out.len());
        if waiting > 0 && waiting.saturating_add(u64::from(len)) > most {
            return Err(Stop::Link);
        }
        // Blocks alone, and no more than a quarter of them: else what waits for one shard would
        // hold what is needed to take in from it, and two shards could wait for each other.
        let blocks = self.limits.blocks_for(len);
        let quarter = self.limits.blocks / 4;
        let over = self.links.out_blocks.saturating_add(blocks) > quarter;
        if over || !self.has_run(home, topic, slot, len) {
            return Err(Stop::Link);
        }
        if self.memory.blocks_free() < blocks {
            return Err(Stop::Memory);
        }
        let before = self.memory.blocks_used();
        let memory = &mut self.memory;
        envelope.write(|bytes| {
            if out.push(memory, Purpose::Output, bytes).is_err() {
                invariant_failed("a block that was free is not");
            }
        });
        let taken = memory.blocks_used().saturating_sub(before);
        self.links.out_blocks = self.links.out_blocks.saturating_add(taken);
        self.links.peer_mut(home).out = out;
        self.note_run(home, topic, slot, len);
        let far = self.links.far_mut(topic);
        far.sent = far.sent.saturating_add(1);
        self.stats.link_bytes.add(u64::from(len));
        Ok(true)
    }

    /// A topic of ours takes nothing in while those that replicate it lag too far: they must not be
    /// left behind without a bound.
    pub(super) fn waits_for_feeds(&self, topic: Ref) -> Result<(), Stop> {
        let full = self.links.full && !cfg!(wardline_mutant = "feed_lag_unbounded");
        if full && self.topics.at(topic).feeds > 0 { Err(Stop::Link) } else { Ok(()) }
    }

    /// The run of what goes to a home that a message may be added to.
    fn same_run(&mut self, home: u8, topic: Ref, author: Ref, len: u32) -> Option<&mut OutRun> {
        let most = self.limits.line.envelope_bytes_max;
        let generation = self.sessions.at(author).generation;
        let last = self.links.peer_mut(home).runs.last_mut()?;
        let same = (last.topic, last.author, last.generation) == (topic, author, generation);
        (same && last.bytes.saturating_add(len) <= most).then_some(last)
    }

    /// Whether who wrote a message that goes to a home can be noted.
    fn has_run(&mut self, home: u8, topic: Ref, author: Ref, len: u32) -> bool {
        self.same_run(home, topic, author, len).is_some() || !self.links.peer(home).runs.is_full()
    }

    fn note_run(&mut self, home: u8, topic: Ref, author: Ref, len: u32) {
        if let Some(last) = self.same_run(home, topic, author, len) {
            last.bytes = last.bytes.saturating_add(len);
            last.messages = last.messages.saturating_add(1);
            return;
        }
        let generation = self.sessions.at(author).generation;
        let run = OutRun { topic, author, generation, messages: 1, bytes: len };
        if !self.links.peer_mut(home).runs.push(run) {
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
        let note = BanNote { key, seconds, strikes: u32::from(strikes) };
        for other in self.others() {
            if !self.links.peer_mut(other).note_ban(note) {
                self.stats.bans_untold.bump();
            }
        }
    }

    /// A topic was appended to: those of its feeds that are behind have something to say.
    pub(super) fn list_feeds(&mut self, topic: Ref) {
        if self.topics.at(topic).feeds == 0 {
            return;
        }
        for other in self.others() {
            let feed = self.links.feed_at(topic, other);
            let Some(cursor) = self.links.feed(feed).cursor.some() else { continue };
            if self.cursors.at(cursor).is_behind() {
                self.links.list(other, feed);
                self.count_lag(other, feed);
            }
        }
    }

    /// Counts how far a feed lags, into its shard's lag.
    fn count_lag(&mut self, shard: u8, feed: Ref) {
        let topic = self.links.topic_of(feed);
        let lag = match self.links.feed(feed).cursor.some() {
            Some(cursor) if self.cursors.at(cursor).is_behind() => {
                self.topics.at(topic).log.head.saturating_sub(self.cursors.at(cursor).pos)
            }
            Some(_) | None => 0,
        };
        let before = core::mem::replace(&mut self.links.feed_mut(feed).lag, lag);
        let peer = self.links.peer_mut(shard);
        peer.lag = peer.lag.saturating_add(lag).saturating_sub(before);
        let pool = self.limits.pool_bytes();
        let lags = self.links.peers.iter().map(|peer| peer.lag);
        let (most, all) =
            lags.fold((0_u64, 0_u64), |(most, all), lag| (most.max(lag), all.saturating_add(lag)));
        let full = most > pool / 8 || all > pool / 4;
        // Who waited for that may be gone on with.
        self.links.eased |= self.links.full && !full;
        self.links.full = full;
    }

    /// Whether there is something for a ring. Asked after each turn.
    #[must_use]
    pub fn link_has(&self, to: u8, ring: Ring) -> bool {
        let peer = self.links.peer(to);
        match ring {
            Ring::Publish => peer.control_first.is_some() || !peer.runs.is_empty(),
            Ring::Log => {
                let notes = (peer.lost | peer.ping | peer.pong) != 0 || !peer.bans.is_empty();
                notes || peer.feeds_first.is_some()
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
            self.drop_feed(topic, shard);
        }
        while self.links.unlist(shard).is_some() {}
        let peer = self.links.peer_mut(shard);
        peer.dead = 1;
        peer.lost = 1;
        self.links.eased = true;
    }

    pub(super) fn drop_feed(&mut self, topic: Ref, shard: u8) {
        let at = self.links.feed_at(topic, shard);
        let Some(cursor) = core::mem::take(&mut self.links.feed_mut(at).cursor).some() else {
            return;
        };
        let item = self.topics.at_mut(topic);
        cursor::leave(&mut self.cursors, &mut self.memory, &mut item.waiting, cursor);
        self.cursors.give(cursor);
        item.cursors = item.cursors.saturating_sub(1);
        item.feeds = item.feeds.saturating_sub(1);
        item.log.trim(&mut self.memory);
        self.links.feed_mut(at).start = 0;
        self.count_lag(shard, at);
    }

    /// Another shard has readers of a topic of ours: from here on it is sent what is appended.
    pub(super) fn make_feed(&mut self, topic: Ref, shard: u8, epoch: u32) {
        self.drop_feed(topic, shard);
        let Some(cursor) = self.cursors.take() else {
            invariant_failed("fewer cursors than feeds");
        };
        let session = self.links.peer(shard).session;
        let item = self.topics.at_mut(topic);
        item.cursors = item.cursors.saturating_add(1);
        item.feeds = item.feeds.saturating_add(1);
        let number = item.log.messages;
        *self.cursors.at_mut(cursor) = Cursor::new(session, item.log.head);
        cursor::wait(&mut self.cursors, &mut item.waiting, cursor);
        let at = self.links.feed_at(topic, shard);
        let Feed { next, listed, .. } = *self.links.feed(at);
        let feed = Feed { cursor, next, listed, start: 1, epoch, number, lag: 0 };
        *self.links.feed_mut(at) = feed;
        self.links.list(shard, at);
    }

    /// The next record of a publish ring; 0: there is none, or no room for it.
    fn next_publish(&mut self, to: u8, room: &mut [u8]) -> usize {
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        while let Some(topic) = self.links.unlist_control(to) {
            if let Some(header) = self.control(topic) {
                header.write(head);
                return HEADER;
            }
        }
        let peer = self.links.peer_mut(to);
        let Some(run) = peer.runs.front().copied() else { return 0 };
        let Some(rest) = rest.get_mut(..run.bytes as usize) else { return 0 };
        let _ = peer.runs.pop();
        let (mut out, before) = (peer.out, self.memory.blocks_used());
        out.copy_to(&self.memory, rest);
        out.pop(&mut self.memory, Purpose::Output, run.bytes);
        let given = before.saturating_sub(self.memory.blocks_used());
        self.links.out_blocks = self.links.out_blocks.saturating_sub(given);
        self.links.peer_mut(to).out = out;
        let far = self.links.far_mut(run.topic);
        far.emitted = far.emitted.saturating_add(u64::from(run.messages));
        Header {
            kind: kind::LINES,
            topic: run.topic.index(),
            author: run.author.0,
            messages: run.messages,
            len: run.bytes,
            epoch: run.generation,
            ..Header::default()
        }
        .write(head);
        HEADER.saturating_add(run.bytes as usize)
    }

    /// What the home of a topic is to be told of our readers, if anything.
    fn control(&mut self, topic: Ref) -> Option<Header> {
        let wanted = self.is_wanted(topic);
        let far = self.links.far_mut(topic);
        let told = far.replica() != Replica::No;
        if wanted == told {
            return None;
        }
        let header = Header { topic: topic.index(), ..Header::default() };
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

    /// What a feed has to say, as far as there is room and it is its turn; and whether that was
    /// not all.
    fn serve(&mut self, to: u8, at: Ref, room: &mut [u8]) -> (usize, bool) {
        let topic = self.links.topic_of(at);
        let feed = *self.links.feed(at);
        let mut done = 0_usize;
        let Some(cursor) = feed.cursor.some() else { return (0, false) };
        if feed.start != 0 {
            let Some((head, _)) = room.split_at_mut_checked(HEADER) else { return (0, true) };
            let (topic, epoch, number) = (topic.index(), feed.epoch, feed.number);
            Header { kind: kind::START, topic, epoch, number, ..Header::default() }.write(head);
            self.links.feed_mut(at).start = 0;
            done = HEADER;
        }
        let mut more = false;
        while self.cursors.at(cursor).is_behind() {
            let rest = room.get_mut(done..).unwrap_or_default();
            let len = if done < FEED_BYTES { self.feed_run(to, at, cursor, rest) } else { 0 };
            more = len == 0;
            if more {
                break;
            }
            done = done.saturating_add(len);
        }
        self.count_lag(to, at);
        (done, more)
    }

    /// One record: messages of one author, whole ones. 0: no room.
    fn feed_run(&mut self, to: u8, at: Ref, cursor: Ref, room: &mut [u8]) -> usize {
        let topic = self.links.topic_of(at);
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let most = rest.len().min(self.limits.line.envelope_bytes_max as usize);
        let rest = rest.get_mut(..most).unwrap_or_default();
        let log = &self.topics.at(topic).log;
        let Cursor { link, pos, .. } = *self.cursors.at(cursor);
        let (len, author) = copy_run(&self.memory, log, link, pos, rest);
        let copied = rest.get(..len).unwrap_or_default();
        let len = memchr::memrchr(b'\n', copied).map_or(0, |end| end.saturating_add(1));
        if len == 0 {
            return 0;
        }
        let whole = copied.get(..len).unwrap_or_default();
        let messages = memchr::memchr_iter(b'\n', whole).count();
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        let len_u32 = u32::try_from(len).unwrap_or(u32::MAX);
        let own = !cfg!(wardline_mutant = "author_not_translated");
        let author = if own { session_at(author, to) } else { author.0 & 0x00FF_FFFF };
        let number = self.links.feed(at).number;
        Header {
            kind: kind::LOG,
            topic: topic.index(),
            author,
            messages,
            len: len_u32,
            epoch: 0,
            number,
        }
        .write(head);
        self.links.feed_mut(at).number = number.saturating_add(u64::from(messages));
        self.move_feed(topic, cursor, len_u32);
        self.stats.link_bytes.add(len as u64);
        HEADER.saturating_add(len)
    }

    /// Moves the cursor of a feed `len` bytes on; at the head it waits.
    fn move_feed(&mut self, topic: Ref, cursor: Ref, len: u32) {
        let item = self.topics.at_mut(topic);
        let Cursor { mut link, pos, .. } = *self.cursors.at(cursor);
        let pos = pos.saturating_add(u64::from(len));
        if pos >= item.log.head {
            cursor::leave(&mut self.cursors, &mut self.memory, &mut item.waiting, cursor);
            cursor::wait(&mut self.cursors, &mut item.waiting, cursor);
        } else {
            while pos >= end_of(&self.memory, link) {
                link = self.memory.at(link).next;
            }
            self.cursors.at_mut(cursor).pos = pos;
            cursor::relink(&mut self.cursors, &mut self.memory, cursor, link);
        }
        item.log.trim(&mut self.memory);
    }
}

fn end_of<P: Pool>(memory: &Memory<'_, P>, link: Ref) -> u64 {
    let link = memory.at(link);
    link.base.saturating_add(u64::from(link.used))
}

/// Copies what one author wrote from `pos` on, over links, as far as `room` goes. Gives how many
/// bytes, and the author.
fn copy_run<P: Pool>(
    memory: &Memory<'_, P>,
    log: &Log,
    mut link: Ref,
    mut pos: u64,
    room: &mut [u8],
) -> (usize, Ref) {
    let mut done = 0_usize;
    let mut author = Ref::NONE;
    while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let item = memory.at(link);
        let offset = u32::try_from(pos.saturating_sub(item.base)).unwrap_or(u32::MAX);
        if offset >= item.used {
            if link == log.newest {
                break;
            }
            link = item.next;
            continue;
        }
        let (end, of) = run(memory, link, run_after(memory, link, offset));
        if done > 0 && of != author {
            break;
        }
        author = of;
        let bytes = memory.bytes(link, offset, end.saturating_sub(offset));
        let len = crate::storage::copy(rest, bytes);
        done = done.saturating_add(len);
        pos = pos.saturating_add(len as u64);
    }
    (done, author)
}
