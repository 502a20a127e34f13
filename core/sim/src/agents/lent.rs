//! The memory that a relay with native sessions is lent.

use bytemuck::Zeroable;
use wardline_core::native::SigningKey;
use wardline_core::{
    Access, Ban, Cursor, Digest, Entry, EntryBucket, Event, HalfOpen, Link, NameBucket, Native,
    NativeSlots, Network, PrefixBucket, PrefixSlot, RESERVE, Session, Slots, Tap, Topic, WheelSlot,
};

use super::plan::Plan;

/// Its tables.
pub(crate) struct Lent {
    sessions: Vec<Session>,
    cursors: Vec<Cursor>,
    prefixes: Vec<PrefixSlot>,
    buckets: Vec<PrefixBucket>,
    topics: Vec<Topic>,
    links: Vec<Link>,
    bans: [Vec<Ban>; 3],
    wheel: Vec<WheelSlot>,
    events: Vec<Event>,
    scratch: Vec<u8>,
    exempt: Vec<Network>,
    pool: Vec<u8>,
    conns: Vec<Native>,
    entries: Vec<Entry>,
    entry_buckets: Vec<EntryBucket>,
    half_open: Vec<HalfOpen>,
    name_buckets: Vec<NameBucket>,
    digests: Vec<Digest>,
    whole: Vec<u8>,
    text: Vec<u8>,
    keys: Vec<SigningKey>,
}

impl Lent {
    /// What a plan asks for.
    #[must_use]
    pub(crate) fn new(plan: &Plan) -> Self {
        let limits = &plan.limits;
        let sessions = (limits.connections + RESERVE) as usize;
        let everybody =
            ["0.0.0.0", "::"].map(|ip| Network { ip: ip.parse().expect("an address"), bits: 0 });
        Self {
            sessions: vec![Session::zeroed(); sessions],
            cursors: vec![Cursor::zeroed(); sessions + plan.subs],
            prefixes: vec![PrefixSlot::zeroed(); sessions],
            buckets: vec![PrefixBucket::zeroed(); 16],
            topics: vec![Topic::zeroed(); limits.topics as usize],
            links: vec![Link::zeroed(); (limits.blocks + limits.segments) as usize],
            bans: core::array::from_fn(|_| vec![Ban::zeroed(); 8]),
            wheel: vec![WheelSlot::zeroed(); 256],
            events: vec![Event::None; 1 << 14],
            scratch: vec![0; limits.scratch_bytes() as usize],
            exempt: everybody.to_vec(),
            pool: vec![0xA5; limits.pool_bytes() as usize],
            conns: vec![Native::zeroed(); sessions],
            entries: vec![Entry::zeroed(); plan.entries],
            entry_buckets: vec![EntryBucket::zeroed(); 3],
            half_open: vec![HalfOpen::zeroed(); plan.half_open],
            name_buckets: vec![NameBucket::zeroed(); 3],
            digests: vec![Digest::zeroed(); plan.digests],
            whole: vec![0; NativeSlots::scratch_bytes(limits) as usize],
            text: vec![0; limits.line.envelope_bytes_max as usize * 3 / 2],
            keys: (0..2).map(|nth| SigningKey::from_seed(&[200 + nth; 32])).collect(),
        }
    }

    /// The tables, those of native sessions, and the pool.
    pub(crate) fn slots<'s>(
        &'s mut self,
        access: &'s dyn Access,
    ) -> (Slots<'s>, NativeSlots<'s>, &'s mut [u8]) {
        let [v4, v6, parents] = &mut self.bans;
        let slots = Slots {
            sessions: &mut self.sessions,
            cursors: &mut self.cursors,
            prefixes: &mut self.prefixes,
            prefix_buckets: &mut self.buckets,
            topics: &mut self.topics,
            links: &mut self.links,
            bans_v4: v4,
            bans_v6: v6,
            bans_parents: parents,
            wheel: &mut self.wheel,
            events: &mut self.events,
            scratch: &mut self.scratch,
            exempt: &self.exempt,
            tap: Tap::default(),
        };
        let native = NativeSlots {
            conns: &mut self.conns,
            entries: &mut self.entries,
            entry_buckets: &mut self.entry_buckets,
            half_open: &mut self.half_open,
            name_buckets: &mut self.name_buckets,
            digests: &mut self.digests,
            scratch: &mut self.whole,
            text: &mut self.text,
            keys: &self.keys,
            access,
        };
        (slots, native, &mut self.pool)
    }
}
