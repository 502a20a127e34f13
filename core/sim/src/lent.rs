//! The memory that a relay is lent.

use bytemuck::Zeroable;
use wardline_core::{
    Ban, Cursor, Event, Far, Feed, Limits, Link, LinkSlots, Network, Peer, PrefixBucket,
    PrefixSlot, RESERVE, Session, Slots, Tap, Topic, WheelSlot,
};

use crate::plan::Plan;

/// The memory that a relay is lent.
#[derive(Debug)]
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
    peers: Vec<Peer>,
    feeds: Vec<Feed>,
    fars: Vec<Far>,
}

/// What of it the limits do not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) shards: usize,
    /// What of a topic each other shard may be fed: lines, or frames, too.
    pub(crate) shapes: usize,
    /// Cursors beyond one a session and those of other shards.
    pub(crate) more_cursors: usize,
    /// Slots of each table of the quarantine.
    pub(crate) bans: usize,
    pub(crate) wheel: usize,
    /// Events that fit the ring: more than come of what is fed before they are taken.
    pub(crate) events: usize,
    /// Whether the quarantine exempts everybody.
    pub(crate) exempt: bool,
}

/// Events between two moments at which a simulation takes them.
pub(crate) const EVENTS: usize = 1 << 14;

impl Lent {
    /// What a plan asks for.
    #[must_use]
    pub(crate) fn new(plan: &Plan, shards: usize) -> Self {
        let Plan { bans, wheel, exempt, .. } = *plan;
        let sizes =
            Sizes { shards, shapes: 1, more_cursors: 0, bans, wheel, events: EVENTS, exempt };
        Self::with(&plan.limits, &sizes)
    }

    /// What a relay of these limits needs.
    #[must_use]
    pub(crate) fn with(limits: &Limits, sizes: &Sizes) -> Self {
        let Sizes { shards, shapes, .. } = *sizes;
        let sessions = (limits.connections + RESERVE) as usize;
        let topics = limits.topics as usize;
        let linked = if shards > 1 { topics } else { 0 };
        let cursors = sessions + topics * (shards - 1) * shapes + sizes.more_cursors;
        let everywhere = |ip| Network { ip, bits: 0 };
        let all = ["0.0.0.0", "::"].map(|ip| everywhere(ip.parse().expect("an address")));
        Self {
            sessions: vec![Session::zeroed(); sessions],
            cursors: vec![Cursor::zeroed(); cursors],
            prefixes: vec![PrefixSlot::zeroed(); sessions],
            buckets: vec![PrefixBucket::zeroed(); 16],
            topics: vec![Topic::zeroed(); topics],
            links: vec![Link::zeroed(); (limits.blocks + limits.segments) as usize],
            bans: core::array::from_fn(|_| vec![Ban::zeroed(); sizes.bans]),
            wheel: vec![WheelSlot::zeroed(); sizes.wheel],
            events: vec![Event::None; sizes.events],
            scratch: vec![0; limits.scratch_bytes() as usize],
            exempt: if sizes.exempt { all.to_vec() } else { Vec::new() },
            pool: vec![0xA5; limits.pool_bytes() as usize],
            peers: vec![Peer::zeroed(); if shards > 1 { shards } else { 0 }],
            feeds: vec![Feed::zeroed(); linked * shards * shapes],
            fars: vec![Far::zeroed(); linked],
        }
    }

    /// The tables, those of links, and the pool.
    pub(crate) fn slots(&mut self) -> (Slots<'_>, LinkSlots<'_>, &mut [u8]) {
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
        let links =
            LinkSlots { peers: &mut self.peers, feeds: &mut self.feeds, fars: &mut self.fars };
        (slots, links, &mut self.pool)
    }
}
