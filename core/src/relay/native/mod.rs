//! Native sessions: identity, integrity, topics by name, peers, and what outlives a connection.
//! PROTOCOL.md 2.
//!
//! ```text
//!  bytes -> greet (handshake) -> intake (records) -> frames -> publish -> logs of both dialects
//!                 |                    |                \----> peers -> own output of the peer
//!              entries              control -> topics, peers
//!                                                     compose: own bytes | header | log | ...
//! ```
//! A connection that speaks it has no cursor of its own but one for each topic that it has open;
//! its topic is the *lobby*, a topic without a name on which nothing is ever said, and by which
//! native input is shared out over turns. A record's header is tagged when it is put into the
//! connection's own output, and its number is spent then; so what was put there goes out in that
//! order, with the bodies of batches between, straight out of the logs. A [`slots::Batch`] says
//! where.

mod away;
mod check;
mod compose;
mod control;
mod entries;
mod far;
mod frames_log;
mod greet;
mod halves;
mod handover;
mod intake;
mod last_words;
mod lost;
mod mirror;
mod ordinary;
mod peers;
mod publish;
mod returned;
mod said;
mod slots;
mod standing;
mod topics;

pub use handover::Handover;
pub use slots::{Digest, Entry, EntryBucket, HalfOpen, NameBucket, Native};

use core::net::IpAddr;

pub(super) use self::frames_log::{oldest_frame, whole_frames};
pub(super) use self::greet::is_hello;
use super::Relay;
use crate::access::{Access, Right};
use crate::fault::{ConfigError, invariant_failed};
use crate::id::{Dialects, Ref, TopicId};
use crate::link::{Homes, home_of};
use crate::native::{Identity, SigningKey};
use crate::quarantine::Ban;
use crate::rate::Bucket;
use crate::storage::{Pool, Slab};
use crate::time::{Duration, Instant};

/// Keys that a relay can have at once: the old one and the new one, and some to spare.
const KEYS_MAX: usize = 4;
/// How often what was kept for a while is looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// The tables of native sessions, each valid as zeros, and who the relay is.
pub struct NativeSlots<'s> {
    /// As many as sessions.
    pub conns: &'s mut [Native],
    /// Sessions that live or can be resumed.
    pub entries: &'s mut [Entry],
    /// At least one; about as many as entries.
    pub entry_buckets: &'s mut [EntryBucket],
    /// Handshakes that can be under way.
    pub half_open: &'s mut [HalfOpen],
    /// At least one; about as many as topics.
    pub name_buckets: &'s mut [NameBucket],
    /// Identities in quarantine, a multiple of 8. None: what they do is charged to their addresses.
    pub bans: &'s mut [Ban],
    /// At least one: digests that readers of the same stretch share.
    pub digests: &'s mut [Digest],
    /// Where a record that spans receives is made whole: [`NativeSlots::scratch_bytes`].
    pub scratch: &'s mut [u8],
    /// Where what is not text is made text for line clients: half as much again as an envelope.
    pub text: &'s mut [u8],
    /// Who the relay is, the first one first; at least one.
    pub keys: &'s [SigningKey],
    /// Who may do what.
    pub access: &'s dyn Access,
}

impl core::fmt::Debug for NativeSlots<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NativeSlots")
    }
}

impl NativeSlots<'_> {
    /// Bytes of `scratch`: one record, or a backlog, whichever is more.
    #[must_use]
    pub const fn scratch_bytes(limits: &crate::Limits) -> u64 {
        let record = limits.native.record_bytes_max();
        let wait = limits.backlog_bytes as u64;
        if record > wait { record } else { wait }
    }
}

/// Native sessions, as a relay keeps them. Without any, nothing here is touched.
pub(super) struct Natives<'s> {
    pub(super) conns: &'s mut [Native],
    pub(super) entries: Slab<'s, Entry>,
    pub(super) entry_buckets: &'s mut [EntryBucket],
    pub(super) halves: Slab<'s, HalfOpen>,
    rows: halves::Rows,
    pub(super) name_buckets: &'s mut [NameBucket],
    pub(super) digests: &'s mut [Digest],
    pub(super) scratch: &'s mut [u8],
    pub(super) text: &'s mut [u8],
    keys: &'s [SigningKey],
    identities: heapless::Vec<Identity, KEYS_MAX>,
    access: &'s dyn Access,
    pub(super) lobby: Ref,
    pub(super) subs: u32,
    pub(super) subs_max: u32,
    pub(super) handshakes: Bucket,
    /// The sessions without a connection, oldest first, and what is left of those that are over.
    lost: lost::Row,
    spent: lost::Row,
    pub(super) sweep_at: Instant,
    /// The turn in which what is kept for nobody yet was given up.
    pub(super) dropped_turn: u64,
    /// The turn in which topics that nobody has open were forgotten.
    room_turn: u64,
    /// The wall clock, and when it said so.
    wall: (Instant, u64),
    /// The number of the first topic; the same on all shards: its home's.
    pub(super) serial_base: u32,
    /// Replicas of frames that were given up.
    pub(super) mirrors_over: u32,
    /// Each identity has a home: see [`Relay::spread_sessions`].
    pub(super) spread: bool,
    seed: [u8; 32],
    entropy: Entropy,
}

impl core::fmt::Debug for Natives<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Natives({} sessions)", self.entries.used())
    }
}

/// Nobody may do anything.
struct Nobody;

impl Access for Nobody {
    fn may(&self, _: &Identity, _: IpAddr, _: Right, _: &[u8]) -> bool {
        false
    }

    fn version(&self) -> u32 {
        1
    }
}

impl<'s> Natives<'s> {
    pub(super) fn none() -> Self {
        Self {
            conns: &mut [],
            entries: Slab::new(&mut []),
            entry_buckets: &mut [],
            halves: Slab::new(&mut []),
            rows: halves::Rows::default(),
            name_buckets: &mut [],
            digests: &mut [],
            scratch: &mut [],
            text: &mut [],
            keys: &[],
            identities: heapless::Vec::new(),
            access: &Nobody,
            lobby: Ref::NONE,
            subs: 0,
            subs_max: 0,
            handshakes: Bucket::default(),
            lost: lost::Row::default(),
            spent: lost::Row::default(),
            sweep_at: Instant::NEVER,
            dropped_turn: 0,
            room_turn: 0,
            wall: (Instant::ZERO, 0),
            serial_base: 0,
            mirrors_over: 0,
            spread: false,
            seed: [0; 32],
            entropy: Entropy { key: [0; 32] },
        }
    }

    pub(super) fn conn(&self, slot: Ref) -> &Native {
        match self.conns.get(slot.index() as usize) {
            Some(conn) => conn,
            None => invariant_failed("no such native connection"),
        }
    }

    pub(super) fn conn_mut(&mut self, slot: Ref) -> &mut Native {
        match self.conns.get_mut(slot.index() as usize) {
            Some(conn) => conn,
            None => invariant_failed("no such native connection"),
        }
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        let (then, ms) = self.wall;
        if ms == 0 { 0 } else { ms.saturating_add(now.since(then).as_millis()) }
    }

    /// What was kept for a while is to be looked through.
    pub(super) fn sweep_soon(&mut self, now: Instant) {
        if self.sweep_at == Instant::NEVER {
            self.sweep_at = now.after(SWEEP);
        }
    }
}

/// Bytes that nobody can foretell: BLAKE3 under a key that each draw replaces, so that who learns
/// it later learns nothing of what was drawn before.
struct Entropy {
    key: [u8; 32],
}

impl Entropy {
    fn draw(&mut self) -> [u8; 32] {
        let mut reader = blake3::Hasher::new_keyed(&self.key).update(b"draw").finalize_xof();
        let mut drawn = [0; 32];
        reader.fill(&mut self.key);
        reader.fill(&mut drawn);
        drawn
    }

    fn draw_u64(&mut self) -> u64 {
        let drawn = self.draw();
        drawn.first_chunk().map_or(0, |front| u64::from_le_bytes(*front))
    }
}

impl<'s, P: Pool> Relay<'s, P> {
    /// Has the relay speak the native dialect too. Before anything else is done with it. `seed` is
    /// where its secrets of the moment come from: unpredictable, and not that of [`Relay::new`].
    /// `unix_ms` is the wall clock now, which clients are shown to warn of a wrong one.
    ///
    /// Cursors that were lent beyond what line clients need are the native clients' subscriptions.
    ///
    /// # Errors
    /// The operator's: limits out of bounds, fewer slots lent than they say, no key, or one of
    /// several shards of which not the first is home to all topics.
    #[allow(clippy::needless_pass_by_value, reason = "it is taken apart")]
    pub fn speak_native(
        &mut self,
        slots: NativeSlots<'s>,
        seed: [u8; 32],
        unix_ms: u64,
    ) -> Result<(), ConfigError> {
        self.limits.check_native()?;
        let linked = self.links.shards > 1;
        if linked && self.links.homes != Homes::First {
            return Err(ConfigError::NativeShards);
        }
        let (sessions, entries) = (self.sessions.capacity(), slots.entries.len());
        let scratch = NativeSlots::scratch_bytes(&self.limits);
        let text = (self.limits.line.envelope_bytes_max as usize).saturating_mul(3) / 2;
        if slots.conns.len() < sessions as usize
            || slots.entry_buckets.is_empty()
            || slots.half_open.is_empty()
            || slots.name_buckets.is_empty()
            || slots.digests.is_empty()
            || entries == 0
            || entries > LINE_SLOT as usize
            || (slots.scratch.len() as u64) < scratch
            || slots.text.len() < text
            || self.topics.touched() > u32::from(linked)
        {
            return Err(ConfigError::SlotsMissing);
        }
        let identities = slots.keys.iter().take(KEYS_MAX).map(SigningKey::identity).collect();
        let lobby = if linked { Ref::of(0) } else { self.take_lobby()? };
        // Each topic may come to have two cursors for each other shard.
        let others = u32::from(self.links.shards).saturating_sub(1);
        let feeds = self.limits.topics.saturating_mul(others).saturating_mul(2);
        // What waits for others has a quarter of the blocks, and must hold any message.
        let frame = self.limits.blocks_for(self.limits.link_content_max());
        if linked && frame > self.limits.blocks / 4 {
            return Err(ConfigError::NativeBytes);
        }
        let mut entropy = Entropy { key: seed };
        self.quarantine.lend_identities(slots.bans);
        self.natives = Natives {
            conns: slots.conns,
            entries: Slab::new(slots.entries),
            entry_buckets: slots.entry_buckets,
            halves: Slab::new(slots.half_open),
            name_buckets: slots.name_buckets,
            digests: slots.digests,
            scratch: slots.scratch,
            text: slots.text,
            keys: slots.keys,
            identities,
            access: slots.access,
            lobby,
            subs_max: self.cursors.capacity().saturating_sub(sessions).saturating_sub(feeds),
            wall: (self.now, unix_ms),
            serial_base: (entropy.draw_u64() >> 40) as u32,
            seed: entropy.draw(),
            entropy,
            ..Natives::none()
        };
        if self.natives.identities.is_empty() {
            return Err(ConfigError::NativeKey);
        }
        Ok(())
    }

    /// The frontend hands connections over ([`Carrier::hand_over`](crate::Carrier)): sessions are
    /// on all shards, each at the home of its identity ([`home_of`]), and any shard may take native
    /// clients. Else all are on the first one, and it alone takes them. The same for all shards.
    pub const fn spread_sessions(&mut self) {
        self.natives.spread = true;
    }

    /// The shard that has the sessions of an identity.
    fn home_of_identity(&self, identity: &Identity) -> u8 {
        if self.natives.spread { home_of(identity.as_bytes(), self.links.shards) } else { 0 }
    }

    /// What a listener of the native dialect is bound to.
    ///
    /// # Errors
    /// The operator's: [`Relay::speak_native`] was not called.
    pub fn listen_native(&self) -> Result<TopicId, ConfigError> {
        if self.natives.lobby.is_none() {
            return Err(ConfigError::NativeKey);
        }
        Ok(TopicId { slot: self.natives.lobby, dialects: Dialects::Native })
    }

    /// Sessions that live or wait for their clients, and what is left of others for a while.
    #[must_use]
    pub fn sessions_held(&self) -> u32 {
        self.natives.entries.used()
    }

    /// Whether a session's owner may do something: the one place where that is asked.
    fn may(&self, slot: Ref, right: Right, topic: &[u8]) -> bool {
        let entry = self.natives.conn(slot).entry;
        if entry.is_none() {
            return false;
        }
        let from = self.sessions.at(slot).remote().ip();
        self.natives.access.may(&self.natives.entries.at(entry).identity, from, right, topic)
    }
}

/// Handles with this bit name connections of the line dialect, which have no session.
const LINE_SLOT: u32 = 1 << 23;
