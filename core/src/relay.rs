//! The relay: inputs go in by `handle_*`, decisions come out by `poll_output`.
//!
//! ```text
//!  handle_input -> lines -> log of the topic -> cursors that waited -> ready list
//!                                                                        |
//!  socket <- ranges of the pool <- gather <- Send(conn) <- poll_output <-+
//! ```
//! Each call does bounded work. Bad input from a peer is never an error: it is a decision, with a
//! counter.

mod check;
mod deadlines;
mod door;
mod feed;
mod input;
mod leave;
mod link;
mod link_in;
#[cfg(feature = "native-sessions")]
mod native;
#[cfg(not(feature = "native-sessions"))]
#[path = "relay/no_native.rs"]
mod native;
mod output;
mod patience;
mod pressure;
mod proxied;
mod publish;

use core::net::SocketAddr;

use crate::cursor::Cursor;
use crate::event::{Event, Events};
use crate::fault::{ConfigError, invariant_failed};
use crate::id::{ConnId, Ref, TopicId};
use crate::limits::{Limits, RESERVE};
use crate::prefix::{Network, PrefixBucket, PrefixSlot, Prefixes};
use crate::quarantine::{Ban, Quarantine};
use crate::queue::{By, Queue};
use crate::session::{Flags, Pending, Phase, Sending, Session};
use crate::stats::Stats;
use crate::storage::{Link, Memory, Pool, Range, Slab};
use crate::time::Instant;
use crate::topic::Topic;
use crate::wheel::{Wheel, WheelSlot};

#[cfg(feature = "native-sessions")]
pub use native::{Digest, Entry, EntryBucket, HalfOpen, Handover, NameBucket, Native, NativeSlots};
pub(crate) use patience::Patience;

/// The most ranges in one send.
pub const GATHER_MAX: usize = 32;

/// Where a connection comes from and which listener took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The peer's address.
    pub addr: SocketAddr,
    /// The topic of the listener, as [`Relay::listen`] gave it.
    pub topic: TopicId,
}

/// The tables that the caller lends, each valid as zeros.
#[derive(Debug)]
pub struct Slots<'s> {
    /// `connections + RESERVE` of them.
    pub sessions: &'s mut [Session],
    /// As many.
    pub cursors: &'s mut [Cursor],
    /// As many.
    pub prefixes: &'s mut [PrefixSlot],
    /// At least one; about as many as prefixes.
    pub prefix_buckets: &'s mut [PrefixBucket],
    /// `topics` of them.
    pub topics: &'s mut [Topic],
    /// `blocks + segments` of them.
    pub links: &'s mut [Link],
    /// IPv4 addresses in quarantine, a multiple of 8.
    pub bans_v4: &'s mut [Ban],
    /// IPv6 prefixes in quarantine, a multiple of 8.
    pub bans_v6: &'s mut [Ban],
    /// Neighbourhoods in quarantine, a multiple of 8.
    pub bans_parents: &'s mut [Ban],
    /// At least one; each is a millisecond of the wheel's round.
    pub wheel: &'s mut [WheelSlot],
    /// Events that can wait to be polled.
    pub events: &'s mut [Event],
    /// Where a line that spans receives is made whole: [`Limits::scratch_bytes`].
    pub scratch: &'s mut [u8],
    /// Who is never refused.
    pub exempt: &'s [Network],
    /// Who is shown each message that is taken.
    pub tap: Tap<'s>,
}

/// What is shown each message that is taken: the sender and its line, without its ending. For an
/// operator who asks for message bodies in the log.
#[derive(Default)]
pub struct Tap<'s>(Option<&'s mut Show>);

/// It is handed the sender's address and the line.
pub type Show = dyn FnMut(SocketAddr, &[u8]);

impl<'s> Tap<'s> {
    /// Nobody.
    pub const NONE: Self = Self(None);

    /// That one.
    pub fn new(show: &'s mut Show) -> Self {
        Self(Some(show))
    }
}

impl core::fmt::Debug for Tap<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.0.is_some() { "Tap" } else { "no Tap" })
    }
}

/// What a send is made of, in this order.
#[derive(Clone, Debug, Default)]
pub struct Gather {
    pub(crate) ranges: heapless::Vec<Range, GATHER_MAX>,
    pub(crate) bytes: u32,
    /// There is more for the connection than was put in here.
    pub(crate) more: bool,
}

impl Gather {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: heapless::Vec::new(), bytes: 0, more: false }
    }

    /// The ranges of the pool.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Bytes in all.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Whether there is more to be sent, once this was, although it is less than a send may have.
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        self.more
    }

    /// Whether there was room; a range that follows another without a hole is made one with it.
    #[must_use]
    pub(crate) fn push(&mut self, range: Range) -> bool {
        if range.len == 0 {
            return true;
        }
        match self.ranges.last_mut() {
            Some(last) if last.at.saturating_add(last.len) == range.at => {
                last.len = last.len.saturating_add(range.len);
            }
            Some(_) | None => {
                if self.ranges.push(range).is_err() {
                    return false;
                }
            }
        }
        self.bytes = self.bytes.saturating_add(range.len);
        true
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
        self.bytes = 0;
        self.more = false;
    }
}

/// What the frontend is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// There is something to send to the connection, and no send of it is under way. Once its
    /// socket can take more, call [`Relay::gather`].
    Send(ConnId),
    /// Cancel the send under way. Its end is reported by [`Relay::handle_sent`] all the same.
    CancelSend(ConnId),
    /// Read no more from the connection.
    Pause(ConnId),
    /// Read from it again.
    Resume(ConnId),
    /// Say by [`Relay::handle_probe`] how much the peer has not acknowledged.
    Probe(ConnId),
    /// End the stream to the peer; read on until its own end, and report that.
    Finish(ConnId),
    /// Close the socket; [`Relay::handle_closed`] follows once nothing of it is under way.
    Close(ConnId),
    /// The connection is another shard's: [`Relay::take_handover`] gives what goes with its socket.
    /// To this relay it is closed: [`Relay::handle_closed`] follows once nothing of it is under
    /// way, and then the socket goes to [`Relay::handle_handover`] there.
    Handover(ConnId),
    /// Something for the operator.
    Event(Event),
    /// The turn is over: nothing more until there is input, or this time has come.
    Wait(Option<Instant>),
}

/// A relay: one shard's worth of connections, topics and memory.
#[derive(Debug)]
pub struct Relay<'s, P> {
    limits: Limits,
    stats: Stats,
    now: Instant,
    /// Counts turns: a turn ends where `poll_output` says [`Output::Wait`].
    turn: u64,
    sessions: Slab<'s, Session>,
    cursors: Slab<'s, Cursor>,
    topics: Slab<'s, Topic>,
    memory: Memory<'s, P>,
    prefixes: Prefixes<'s>,
    quarantine: Quarantine<'s>,
    wheel: Wheel<'s>,
    events: Events<'s>,
    scratch: &'s mut [u8],
    known: door::Known<'s>,
    tap: Tap<'s>,
    /// Connections with something pending.
    ready: Queue,
    /// Connections whose backlog is gone on with in this turn; first in the next one, for this one
    /// was full; after those; and when memory has come free.
    backlog: Queue,
    unserved: Queue,
    deferred: Queue,
    starved: Queue,
    /// Topics that this turn appended to.
    touched: Ref,
    /// `memory.freed` when the starved were last let go.
    freed_seen: u64,
    /// The turn in which readers were last evicted for memory.
    evicted_turn: u64,
    /// The shutdown, once there is one.
    draining: Option<leave::Drain>,
    /// Where the search for the largest input begins.
    hand: u32,
    /// The other shards of the process, if there are any.
    links: link::Links<'s>,
    /// Native sessions, if it has any.
    natives: native::Natives<'s>,
}

impl<'s, P: Pool> Relay<'s, P> {
    /// A relay to these limits, in memory that the caller lends. `seed` keys the tables that
    /// strangers write to; it must be unpredictable.
    ///
    /// # Errors
    /// The operator's: limits that contradict themselves, or less memory than they say.
    #[allow(clippy::needless_pass_by_value, reason = "it is taken apart")]
    pub fn new(
        limits: Limits,
        slots: Slots<'s>,
        pool: P,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, ConfigError> {
        limits.check()?;
        let sessions = limits.connections.saturating_add(RESERVE) as usize;
        let links = limits.blocks.saturating_add(limits.segments) as usize;
        let bans = |bans: &[Ban]| bans.is_empty() || bans.len() < 8;
        if slots.sessions.len() < sessions
            || slots.cursors.len() < sessions
            || slots.prefixes.len() < sessions
            || slots.prefix_buckets.is_empty()
            || slots.topics.len() < limits.topics as usize
            || slots.links.len() < links
            || bans(slots.bans_v4)
            || bans(slots.bans_v6)
            || bans(slots.bans_parents)
            || slots.wheel.len() < 2
            || slots.events.is_empty()
            || (slots.scratch.len() as u64) < limits.scratch_bytes()
        {
            return Err(ConfigError::SlotsMissing);
        }
        if pool.size() < limits.pool_bytes() {
            return Err(ConfigError::PoolMissing);
        }
        Ok(Self {
            stats: Stats::default(),
            now,
            turn: 1,
            sessions: Slab::new(slots.sessions),
            cursors: Slab::new(slots.cursors),
            topics: Slab::new(slots.topics),
            memory: Memory::new(
                slots.links,
                pool,
                (limits.blocks, limits.block_bytes),
                (limits.segments, limits.segment_bytes),
            ),
            prefixes: Prefixes::new(slots.prefixes, slots.prefix_buckets, seed),
            quarantine: Quarantine::new(
                slots.bans_v4,
                slots.bans_v6,
                slots.bans_parents,
                seed,
                limits.quarantine,
            ),
            wheel: Wheel::new(slots.wheel, now),
            events: Events::new(slots.events),
            scratch: slots.scratch,
            known: door::Known { exempt: slots.exempt, ..Default::default() },
            tap: slots.tap,
            ready: Queue::new(By::Ready),
            backlog: Queue::new(By::Backlog),
            unserved: Queue::new(By::Backlog),
            deferred: Queue::new(By::Backlog),
            starved: Queue::new(By::Backlog),
            touched: Ref::NONE,
            freed_seen: 0,
            evicted_turn: 0,
            draining: None,
            hand: 0,
            links: link::Links::none(),
            natives: native::Natives::none(),
            limits,
        })
    }

    /// The topic of that name, made where there is none: what a listener of the line dialect is
    /// bound to.
    ///
    /// # Errors
    /// The operator's: a name that topics may not have, or no slot left.
    pub fn listen(&mut self, name: &str) -> Result<TopicId, ConfigError> {
        let mut topic = Topic::named(name)?;
        topic.patience = Patience::of(self.limits.line.coalesce);
        let known = (0..self.topics.touched())
            .map(Ref::of)
            .find(|slot| self.topics.at(*slot).name() == name.as_bytes());
        if let Some(slot) = known {
            return Ok(TopicId::new(slot));
        }
        let slot = self.topics.take().ok_or(ConfigError::Full)?;
        topic.bound = 1;
        *self.topics.at_mut(slot) = topic;
        self.settle_home(slot);
        self.enter_name(slot);
        Ok(TopicId::new(slot))
    }

    /// What it was built to.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Its counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The byte memory, to read the ranges of a [`Gather`] from.
    pub fn pool(&self) -> &P {
        self.memory.pool()
    }

    /// Connections that it knows, those that are ending too.
    #[must_use]
    pub fn connections(&self) -> u32 {
        let others = u32::from(self.links.shards).saturating_sub(1);
        self.sessions.used().saturating_sub(others)
    }

    /// Blocks and segments taken.
    #[must_use]
    pub fn memory_used(&self) -> (u32, u32) {
        (self.memory.blocks_used(), self.memory.segments_used())
    }

    /// Where the peer of a connection is.
    #[must_use]
    pub fn remote(&self, conn: ConnId) -> Option<SocketAddr> {
        self.find(conn).map(|slot| self.sessions.at(slot).remote())
    }

    /// The name of a topic.
    #[must_use]
    pub fn topic_name(&self, topic: TopicId) -> &[u8] {
        self.topics.at(topic.slot).name()
    }

    /// How much the next receive of a connection may bring; 0: do not read it.
    #[must_use]
    pub fn read_budget(&self, conn: ConnId) -> usize {
        let Some(slot) = self.find(conn) else { return 0 };
        let session = self.sessions.at(slot);
        match session.phase() {
            Phase::Open if session.flags.has(Flags::BACKLOG) => 0,
            Phase::Open | Phase::Proxied => {
                // Not less where blocks are short: a line that comes whole needs none.
                self.share(session.topic) as usize
            }
            Phase::Finished => self.limits.receive_bytes as usize,
            Phase::Free | Phase::Leaving | Phase::Closing | Phase::Link => 0,
        }
    }

    /// What the frontend is to do next. Call it until it says [`Output::Wait`], after the inputs
    /// of a turn were handed over: what came in together goes out together.
    #[must_use]
    pub fn poll_output(&mut self) -> Output {
        loop {
            if let Some(event) = self.events.pop() {
                return Output::Event(event);
            }
            if let Some(slot) = self.backlog.pop(&mut self.sessions) {
                self.continue_input(slot);
                continue;
            }
            if let Some(slot) = self.ready.first() {
                if let Some(output) = self.next_of(slot) {
                    return output;
                }
                continue;
            }
            if self.settle() {
                continue;
            }
            self.turn = self.turn.wrapping_add(1);
            self.backlog.append(&mut self.sessions, &mut self.unserved);
            self.backlog.append(&mut self.sessions, &mut self.deferred);
            let again = self.backlog.first().is_some() || self.links.unblocked(self.memory.freed);
            if again {
                return Output::Wait(Some(self.now));
            }
            let next = self.wheel.next();
            return Output::Wait(match self.natives.sweep_at.min(self.drain_at()) {
                Instant::NEVER => next,
                at => Some(next.map_or(at, |next| next.min(at))),
            });
        }
    }

    /// The next thing of the connection at the head of the ready list; leaves the list with the
    /// last.
    fn next_of(&mut self, slot: Ref) -> Option<Output> {
        let session = self.sessions.at_mut(slot);
        let conn = ConnId::new(slot, session.generation);
        if session.phase() == Phase::Free {
            session.pending = Pending::default();
        }
        if session.pending.take(Pending::CANCEL) {
            if session.sending() == Sending::InFlight {
                self.stats.sends_cancelled.bump();
                return Some(Output::CancelSend(conn));
            }
            return None;
        }
        if session.pending.take(Pending::FLOW) {
            return self.flow(slot, conn);
        }
        if session.pending.take(Pending::PROBE) {
            return Some(Output::Probe(conn));
        }
        if session.pending.take(Pending::SEND) {
            return self.offer(slot).then_some(Output::Send(conn));
        }
        if session.pending.take(Pending::FINISH) {
            return Some(Output::Finish(conn));
        }
        if session.pending.take(Pending::CLOSE) {
            return Some(Output::Close(conn));
        }
        if session.pending.take(Pending::HANDOVER) {
            return Some(Output::Handover(conn));
        }
        let first = self.ready.pop(&mut self.sessions);
        if first != Some(slot) {
            invariant_failed("the ready list changed under a connection");
        }
        self.sessions.at_mut(slot).flags.clear(Flags::READY);
        self.release_if_free(slot);
        None
    }

    /// Whether to read a connection, if the frontend has not been told so yet.
    fn flow(&mut self, slot: Ref, conn: ConnId) -> Option<Output> {
        let session = self.sessions.at_mut(slot);
        let pause = match session.phase() {
            Phase::Open => session.flags.has(Flags::BACKLOG),
            Phase::Finished | Phase::Proxied => false,
            Phase::Free | Phase::Leaving | Phase::Closing | Phase::Link => true,
        };
        if pause == session.flags.has(Flags::PAUSED) {
            return None;
        }
        if pause {
            session.flags.set(Flags::PAUSED);
            Some(Output::Pause(conn))
        } else {
            session.flags.clear(Flags::PAUSED);
            Some(Output::Resume(conn))
        }
    }

    /// What is done once per turn, when all else is; gives whether it made work.
    fn settle(&mut self) -> bool {
        while let Some(slot) = self.touched.some() {
            let topic = self.topics.at_mut(slot);
            self.touched = core::mem::take(&mut topic.touched_next);
            topic.touched = 0;
            self.release_if_enough(slot);
            self.press(slot);
            self.list_feeds(slot);
        }
        self.drain_some();
        let freed = self.memory.freed;
        if freed != self.freed_seen || self.links.eased {
            self.freed_seen = freed;
            if core::mem::take(&mut self.links.eased)
                && let Some(blocked) = &mut self.links.blocked
            {
                // Whatever it waits for may have come.
                blocked.0 = u64::MAX;
            }
            self.deferred.append(&mut self.sessions, &mut self.links.stalled);
            if !cfg!(wardline_mutant = "starved_for_ever") {
                self.deferred.append(&mut self.sessions, &mut self.starved);
            }
        }
        self.ready.first().is_some()
    }

    /// Notes that something is pending for a connection.
    fn mark(&mut self, slot: Ref, what: Pending) {
        mark(&mut self.sessions, &mut self.ready, slot, what);
    }

    fn tell(&mut self, event: Event) {
        if !self.events.push(event) {
            self.stats.events_dropped.bump();
        }
    }

    /// The slot that a name is of, while it is.
    fn find(&self, conn: ConnId) -> Option<Ref> {
        let session = self.sessions.find(conn.slot())?;
        let same = session.generation == conn.generation() || cfg!(wardline_mutant = "stale_id");
        (same && session.is_connection()).then_some(conn.slot())
    }

    /// The same for a completion, which counts where it came too late.
    fn find_or_late(&mut self, conn: ConnId) -> Option<Ref> {
        let found = self.find(conn);
        if found.is_none() {
            self.stats.late.bump();
        }
        found
    }

    fn id(&self, slot: Ref) -> ConnId {
        ConnId::new(slot, self.sessions.at(slot).generation)
    }

    /// Time goes on; it never goes back.
    fn enter(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}

/// Notes that something is pending for a connection, where only its parts are at hand.
fn mark(sessions: &mut Slab<'_, Session>, ready: &mut Queue, slot: Ref, what: Pending) {
    let session = sessions.at_mut(slot);
    session.pending.set(what);
    if !session.flags.has(Flags::READY) {
        session.flags.set(Flags::READY);
        ready.push(sessions, slot);
    }
}
