//! The memory that a relay with native sessions is lent.

use bytemuck::Zeroable;
use wardline_core::native::SigningKey;
use wardline_core::{
    Access, Ban, Digest, Entry, EntryBucket, HalfOpen, LinkSlots, NameBucket, Native, NativeSlots,
    RESERVE, Slots,
};

use super::plan::Plan;
use crate::lent::{self, EVENTS, Sizes};

/// Its tables, beside those of any relay.
pub(crate) struct Lent {
    relay: lent::Lent,
    bans: Vec<Ban>,
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

/// All that one relay is lent.
pub(crate) struct Loan<'s> {
    pub(crate) slots: Slots<'s>,
    pub(crate) native: NativeSlots<'s>,
    pub(crate) links: LinkSlots<'s>,
    pub(crate) pool: &'s mut [u8],
}

impl Lent {
    /// What a plan asks for.
    #[must_use]
    pub(crate) fn new(plan: &Plan) -> Self {
        let limits = &plan.limits;
        let sessions = (limits.connections + RESERVE) as usize;
        let sizes = Sizes {
            shards: plan.shards,
            shapes: 2,
            more_cursors: plan.subs,
            bans: 8,
            wheel: 256,
            events: EVENTS,
            exempt: !plan.strict,
        };
        Self {
            relay: lent::Lent::with(limits, &sizes),
            bans: vec![Ban::zeroed(); 8],
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

    /// The tables, those of native sessions and of links, and the pool.
    pub(crate) fn slots<'s>(&'s mut self, access: &'s dyn Access) -> Loan<'s> {
        let (slots, links, pool) = self.relay.slots();
        let native = NativeSlots {
            conns: &mut self.conns,
            entries: &mut self.entries,
            entry_buckets: &mut self.entry_buckets,
            half_open: &mut self.half_open,
            name_buckets: &mut self.name_buckets,
            bans: &mut self.bans,
            digests: &mut self.digests,
            scratch: &mut self.whole,
            text: &mut self.text,
            keys: &self.keys,
            access,
        };
        Loan { slots, native, links, pool }
    }
}
