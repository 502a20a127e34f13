//! The memory that a relay is lent: taken once, at the start, and touched only when used.

use std::fmt;

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_slice_box;
use wardline_core::native::SigningKey;
use wardline_core::{
    Access, Ban, Cursor, Digest, Entry, EntryBucket, Event, Far, Feed, HalfOpen, Limits, Link,
    LinkSlots, NameBucket, Native, NativeSlots, Network, Peer, PrefixBucket, PrefixSlot, RESERVE,
    Session, Slots, Tap, Topic, WheelSlot,
};

use crate::settings::Settings;

/// Neighbourhoods (/24, /48) in quarantine.
const BANS_PARENTS: usize = 1_024;

/// Milliseconds of one round of the wheel. Longer deadlines are looked at once a round: with all
/// of the default connections idle that is a thousand looks a second, each some nanoseconds.
const WHEEL_SLOTS: usize = 16_384;

/// Events that can wait within a turn; more are counted as dropped.
const EVENTS: usize = 1_024;

/// Bans are looked for in sets of so many.
const BAN_SET: usize = 8;

/// Topics that native clients have open, all together.
const SUBSCRIPTIONS: usize = 65_536;

/// Stretches of logs whose digests are remembered.
const DIGESTS: usize = 256;

/// How many slots of each kind are lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sessions, and as many prefixes and buckets of prefixes.
    pub sessions: usize,
    /// Cursors: one for each session, and one for each topic and other shard.
    pub cursors: usize,
    /// Topics.
    pub topics: usize,
    /// Links: one for each block and segment.
    pub links: usize,
    /// IPv4 addresses in quarantine.
    pub bans_v4: usize,
    /// IPv6 networks in quarantine.
    pub bans_v6: usize,
    /// Neighbourhoods in quarantine.
    pub bans_parents: usize,
    /// Identities in quarantine.
    pub bans_identities: usize,
    /// Slots of the wheel.
    pub wheel: usize,
    /// Events.
    pub events: usize,
    /// Shards, where there is more than one.
    pub peers: usize,
    /// Feeds: one for each topic and shard, and one more for frames.
    pub feeds: usize,
    /// Topics of other shards.
    pub fars: usize,
    /// Native connections: none, or as many as sessions.
    pub natives: usize,
    /// Native sessions that live or can be resumed, and as many buckets.
    pub entries: usize,
    /// Handshakes that can be under way.
    pub half_open: usize,
    /// Buckets of topics by name.
    pub names: usize,
    /// Digests that readers share.
    pub digests: usize,
    /// Bytes where native records are made whole.
    pub native_scratch: usize,
    /// Bytes where native payloads are made text.
    pub native_text: usize,
    /// Bytes of the scratch area.
    pub scratch: usize,
    /// Bytes of the pool.
    pub pool: usize,
}

impl Sizes {
    /// What a relay needs that is built to these settings.
    #[must_use]
    pub fn of(limits: &Limits, settings: &Settings) -> Self {
        Self::of_shard(limits, settings, 1)
    }

    /// What each of so many shards needs: see [`per_shard`].
    #[must_use]
    pub fn of_shard(limits: &Limits, settings: &Settings, shards: u8) -> Self {
        let part = |all: u32| all.div_ceil(u32::from(shards.max(1))) as usize;
        let (shards, topics) = (usize::from(shards.max(1)), limits.topics as usize);
        let linked = if shards > 1 { topics } else { 0 };
        let sessions = limits.connections as usize + RESERVE as usize;
        let bans = |entries: u32| (entries as usize).next_multiple_of(BAN_SET);
        let native = settings.speaks_native();
        // Lines, and frames, too.
        let shapes = if native { 2 } else { 1 };
        let only = |size: usize| if native { size } else { 0 };
        let entries = part(settings.native.resume_entries) + sessions;
        Self {
            sessions,
            cursors: sessions + topics * (shards - 1) * shapes + only(SUBSCRIPTIONS),
            natives: only(sessions),
            entries: only(entries),
            half_open: only(settings.native.half_open as usize),
            names: only(topics),
            digests: only(DIGESTS),
            native_scratch: only(bytes(NativeSlots::scratch_bytes(limits))),
            native_text: only(limits.line.envelope_bytes_max as usize / 2 * 3 + 3),
            topics,
            links: limits.blocks as usize + limits.segments as usize,
            bans_v4: bans(settings.quarantine.entries_v4),
            bans_v6: bans(settings.quarantine.entries_v6),
            bans_parents: BANS_PARENTS,
            bans_identities: only(bans(settings.quarantine.entries_identities)),
            wheel: WHEEL_SLOTS,
            events: EVENTS,
            peers: if shards > 1 { shards } else { 0 },
            feeds: linked * shards * shapes,
            fars: linked,
            scratch: bytes(limits.scratch_bytes()),
            pool: bytes(limits.pool_bytes()),
        }
    }

    /// Each table by name: how many slots, and how large one is.
    #[must_use]
    pub fn tables(&self) -> [(&'static str, usize, usize); 25] {
        [
            ("sessions", self.sessions, size_of::<Session>()),
            ("cursors", self.cursors, size_of::<Cursor>()),
            ("prefixes", self.sessions, size_of::<PrefixSlot>()),
            ("prefix buckets", self.sessions, size_of::<PrefixBucket>()),
            ("topics", self.topics, size_of::<Topic>()),
            ("links", self.links, size_of::<Link>()),
            ("quarantine IPv4", self.bans_v4, size_of::<Ban>()),
            ("quarantine IPv6", self.bans_v6, size_of::<Ban>()),
            ("quarantine networks", self.bans_parents, size_of::<Ban>()),
            ("quarantine identities", self.bans_identities, size_of::<Ban>()),
            ("timer wheel", self.wheel, size_of::<WheelSlot>()),
            ("events", self.events, size_of::<Event>()),
            ("shards", self.peers, size_of::<Peer>()),
            ("feeds", self.feeds, size_of::<Feed>()),
            ("topics elsewhere", self.fars, size_of::<Far>()),
            ("native connections", self.natives, size_of::<Native>()),
            ("native sessions", self.entries, size_of::<Entry>()),
            ("native session buckets", self.entries, size_of::<EntryBucket>()),
            ("handshakes", self.half_open, size_of::<HalfOpen>()),
            ("topic names", self.names, size_of::<NameBucket>()),
            ("digests", self.digests, size_of::<Digest>()),
            ("native scratch", self.native_scratch, 1),
            ("native text", self.native_text, 1),
            ("scratch", self.scratch, 1),
            ("pool", self.pool, 1),
        ]
    }
}

/// The memory itself.
pub struct Lent {
    sessions: Box<[Session]>,
    cursors: Box<[Cursor]>,
    prefixes: Box<[PrefixSlot]>,
    prefix_buckets: Box<[PrefixBucket]>,
    topics: Box<[Topic]>,
    links: Box<[Link]>,
    bans_v4: Box<[Ban]>,
    bans_v6: Box<[Ban]>,
    bans_parents: Box<[Ban]>,
    bans_identities: Box<[Ban]>,
    wheel: Box<[WheelSlot]>,
    events: Box<[Event]>,
    peers: Box<[Peer]>,
    feeds: Box<[Feed]>,
    fars: Box<[Far]>,
    natives: Box<[Native]>,
    entries: Box<[Entry]>,
    entry_buckets: Box<[EntryBucket]>,
    half_open: Box<[HalfOpen]>,
    names: Box<[NameBucket]>,
    digests: Box<[Digest]>,
    native_scratch: Box<[u8]>,
    native_text: Box<[u8]>,
    scratch: Box<[u8]>,
    pool: Box<[u8]>,
    exempt: Box<[Network]>,
}

/// All that a relay is lent.
#[derive(Debug)]
pub struct Loan<'s> {
    /// What every relay has.
    pub slots: Slots<'s>,
    /// What one of several has.
    pub links: LinkSlots<'s>,
    /// What one that speaks the native dialect has.
    pub native: Option<NativeSlots<'s>>,
    /// The byte memory.
    pub pool: &'s mut [u8],
}

impl Lent {
    /// Reserves it; nothing is touched, so that a page costs memory once it is used.
    ///
    /// # Errors
    /// The operator's or the system's: so much cannot be had.
    pub fn reserve(sizes: &Sizes, exempt: &[Network]) -> Result<Self, LentError> {
        Ok(Self {
            sessions: zeroed("sessions", sizes.sessions)?,
            cursors: zeroed("cursors", sizes.cursors)?,
            prefixes: zeroed("prefixes", sizes.sessions)?,
            prefix_buckets: zeroed("prefix buckets", sizes.sessions)?,
            topics: zeroed("topics", sizes.topics)?,
            links: zeroed("links", sizes.links)?,
            bans_v4: zeroed("quarantine IPv4", sizes.bans_v4)?,
            bans_v6: zeroed("quarantine IPv6", sizes.bans_v6)?,
            bans_parents: zeroed("quarantine networks", sizes.bans_parents)?,
            bans_identities: zeroed("quarantine identities", sizes.bans_identities)?,
            wheel: zeroed("timer wheel", sizes.wheel)?,
            events: vec![Event::None; sizes.events].into_boxed_slice(),
            peers: zeroed("shards", sizes.peers)?,
            feeds: zeroed("feeds", sizes.feeds)?,
            fars: zeroed("topics elsewhere", sizes.fars)?,
            natives: zeroed("native connections", sizes.natives)?,
            entries: zeroed("native sessions", sizes.entries)?,
            entry_buckets: zeroed("native session buckets", sizes.entries)?,
            half_open: zeroed("handshakes", sizes.half_open)?,
            names: zeroed("topic names", sizes.names)?,
            digests: zeroed("digests", sizes.digests)?,
            native_scratch: zeroed("native scratch", sizes.native_scratch)?,
            native_text: zeroed("native text", sizes.native_text)?,
            scratch: zeroed("scratch", sizes.scratch)?,
            pool: zeroed("pool", sizes.pool)?,
            exempt: exempt.into(),
        })
    }

    /// Lends it: the tables, and the byte memory. Nobody is shown the messages until the caller
    /// sets `tap`.
    pub fn lend(&mut self) -> (Slots<'_>, &mut [u8]) {
        let Loan { slots, pool, .. } = self.lend_all(None);
        (slots, pool)
    }

    /// The same, with the tables of links between shards, and those of native sessions where there
    /// is somebody to be.
    pub fn lend_all<'s>(&'s mut self, who: Option<(&'s [SigningKey], &'s dyn Access)>) -> Loan<'s> {
        let slots = Slots {
            sessions: &mut self.sessions,
            cursors: &mut self.cursors,
            prefixes: &mut self.prefixes,
            prefix_buckets: &mut self.prefix_buckets,
            topics: &mut self.topics,
            links: &mut self.links,
            bans_v4: &mut self.bans_v4,
            bans_v6: &mut self.bans_v6,
            bans_parents: &mut self.bans_parents,
            wheel: &mut self.wheel,
            events: &mut self.events,
            scratch: &mut self.scratch,
            exempt: &self.exempt,
            tap: Tap::NONE,
        };
        let links =
            LinkSlots { peers: &mut self.peers, feeds: &mut self.feeds, fars: &mut self.fars };
        let native = who.filter(|_| !self.natives.is_empty()).map(|(keys, access)| NativeSlots {
            conns: &mut self.natives,
            entries: &mut self.entries,
            entry_buckets: &mut self.entry_buckets,
            half_open: &mut self.half_open,
            name_buckets: &mut self.names,
            bans: &mut self.bans_identities,
            digests: &mut self.digests,
            scratch: &mut self.native_scratch,
            text: &mut self.native_text,
            keys,
            access,
        });
        Loan { slots, links, native, pool: &mut self.pool }
    }
}

/// The limits of one of several shards: an equal part of the connections and of the pool. All else
/// is each one's own.
#[must_use]
pub fn per_shard(limits: &Limits, shards: u8) -> Limits {
    let part = |all: u32| all.div_ceil(u32::from(shards.max(1)));
    Limits {
        connections: part(limits.connections),
        blocks: part(limits.blocks),
        segments: part(limits.segments),
        ..*limits
    }
}

impl fmt::Debug for Lent {
    /// Without what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sessions, pool) = (self.sessions.len(), self.pool.len());
        f.debug_struct("Lent").field("sessions", &sessions).field("pool", &pool).finish()
    }
}

/// Memory that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LentError {
    what: &'static str,
    bytes: usize,
}

impl fmt::Display for LentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, bytes } = self;
        write!(f, "cannot reserve {bytes} bytes for {what}; see `wardline plan`")
    }
}

impl std::error::Error for LentError {}

fn zeroed<T: Zeroable>(what: &'static str, count: usize) -> Result<Box<[T]>, LentError> {
    let bytes = count.saturating_mul(size_of::<T>());
    try_zeroed_slice_box(count).map_err(|()| LentError { what, bytes })
}

/// More than an address can name cannot be reserved, and the attempt says so.
fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use wardline_core::{Instant, Relay};

    use super::*;

    #[test]
    fn a_relay_is_content_with_what_is_lent() {
        let settings = Settings::default();
        let limits =
            Limits { connections: 9, topics: 3, blocks: 64, segments: 8, ..Limits::DEFAULT };
        let mut lent = Lent::reserve(&Sizes::of(&limits, &settings), &[]).unwrap();
        let (slots, pool) = lent.lend();
        let now = Instant::from_nanos(1);
        let mut relay = Relay::new(limits, slots, pool, [7; 32], now).unwrap();
        for name in ["a", "b", "c"] {
            relay.listen(name).unwrap();
        }
        assert!(relay.listen("d").is_err());
    }

    #[test]
    fn the_tables_are_as_large_as_is_said() {
        let limits = Limits { connections: 5, blocks: 64, segments: 8, ..Limits::DEFAULT };
        let mut settings = Settings::default();
        settings.quarantine.entries_v4 = 9;
        let sizes = Sizes::of(&limits, &settings);
        assert_eq!((sizes.sessions, sizes.links, sizes.bans_v4), (37, 72, 16));
        let mut lent = Lent::reserve(&sizes, &settings.quarantine.exempt).unwrap();
        let key = [SigningKey::from_seed(&[1; 32])];
        struct Nobody;
        impl Access for Nobody {
            fn may(
                &self,
                _: &wardline_core::native::Identity,
                _: std::net::IpAddr,
                _: wardline_core::Right,
                _: &[u8],
            ) -> bool {
                false
            }

            fn version(&self) -> u32 {
                1
            }
        }
        let Loan { slots, links, native, pool } = lent.lend_all(Some((&key, &Nobody)));
        let native = native.expect("the default listeners take native clients");
        let tables = [
            size_of_val(slots.sessions),
            size_of_val(slots.cursors),
            size_of_val(slots.prefixes),
            size_of_val(slots.prefix_buckets),
            size_of_val(slots.topics),
            size_of_val(slots.links),
            size_of_val(slots.bans_v4),
            size_of_val(slots.bans_v6),
            size_of_val(slots.bans_parents),
            size_of_val(native.bans),
            size_of_val(slots.wheel),
            size_of_val(slots.events),
            size_of_val(links.peers),
            size_of_val(links.feeds),
            size_of_val(links.fars),
            size_of_val(native.conns),
            size_of_val(native.entries),
            size_of_val(native.entry_buckets),
            size_of_val(native.half_open),
            size_of_val(native.name_buckets),
            size_of_val(native.digests),
            size_of_val(native.scratch),
            size_of_val(native.text),
            size_of_val(slots.scratch),
            size_of_val(pool),
        ];
        for ((name, count, each), bytes) in sizes.tables().into_iter().zip(tables) {
            assert_eq!(count * each, bytes, "{name}");
        }
        assert_eq!(slots.exempt.len(), 2);
    }

    #[test]
    fn each_shard_has_its_part_of_what_is_native() {
        let (limits, settings) = (Limits::DEFAULT, Settings::default());
        let [alone, one] = [1, 2].map(|shards| Sizes::of_shard(&limits, &settings, shards));
        assert_eq!(one.natives, one.sessions);
        let kept = settings.native.resume_entries as usize;
        assert_eq!((alone.entries, one.entries), (kept + one.sessions, kept / 2 + one.sessions));
        // Lines, and frames, of each topic for the other one.
        let feeds = limits.topics as usize * 2;
        assert_eq!((one.feeds, alone.feeds), (feeds * 2, 0));
        assert_eq!(one.cursors, one.sessions + feeds + SUBSCRIPTIONS);
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        let sizes =
            Sizes { pool: usize::MAX >> 1, ..Sizes::of(&Limits::DEFAULT, &Settings::default()) };
        let wrong = Lent::reserve(&sizes, &[]).unwrap_err().to_string();
        assert!(wrong.starts_with("cannot reserve ") && wrong.contains("for pool"), "{wrong}");
    }
}
