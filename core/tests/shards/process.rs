//! Relays that are shards of one process, and what travels between them, by hand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable;
use wardline_core::{
    Ban, ConnId, Cursor, Event, Far, Feed, Gather, Handover, Homes, Instant, Limits, Link,
    LinkSlots, Output, Peer, Pool, PrefixBucket, PrefixSlot, RESERVE, Relay, Remote, Ring, Session,
    Slots, Tap, Topic, TopicId, WheelSlot, home_of,
};

pub(crate) const NOW: Instant = Instant::from_nanos(1_000_000_000);
const SPARE: usize = 16;
pub(crate) type Shard = Relay<'static, &'static mut [u8]>;

pub(crate) fn lend<T: Clone + Zeroable>(many: usize) -> &'static mut [T] {
    vec![T::zeroed(); many].leak()
}

/// So many relays, and topics that the first of them is home to.
pub(crate) fn process<const TOPICS: usize>(
    shards: u8,
    limits: Limits,
) -> (Vec<Shard>, [TopicId; TOPICS]) {
    let mut homes = (0..).map(|n| format!("topic/{n}"));
    let mut name = || homes.find(|name| home_of(name.as_bytes(), shards) == 0).expect("some");
    let names: [String; TOPICS] = std::array::from_fn(|_| name());
    let mut all: Vec<Shard> =
        (0..shards).map(|nth| shard(nth, shards, limits, Homes::ByName)).collect();
    let mut listen = |name: &String| {
        // The same number everywhere.
        let topics = all.iter_mut().map(|relay| relay.listen(name).expect("a topic"));
        topics.last().expect("a shard")
    };
    let topics = names.each_ref().map(&mut listen);
    (all, topics)
}

/// A relay that is one of so many.
pub(crate) fn shard(nth: u8, shards: u8, limits: Limits, homes: Homes) -> Shard {
    let sessions = (limits.connections + RESERVE) as usize;
    let topics = limits.topics as usize;
    let slots = Slots {
        sessions: lend::<Session>(sessions),
        // Some to spare are the subscriptions of native clients.
        cursors: lend::<Cursor>(sessions + topics * usize::from(shards - 1) * 2 + SPARE),
        prefixes: lend::<PrefixSlot>(sessions),
        prefix_buckets: lend::<PrefixBucket>(16),
        topics: lend::<Topic>(topics),
        links: lend::<Link>((limits.blocks + limits.segments) as usize),
        bans_v4: lend::<Ban>(512),
        bans_v6: lend::<Ban>(64),
        bans_parents: lend::<Ban>(64),
        wheel: lend::<WheelSlot>(64),
        events: vec![Event::None; 4_096].leak(),
        scratch: lend::<u8>(limits.scratch_bytes() as usize),
        exempt: &[],
        tap: Tap::NONE,
    };
    let pool = lend::<u8>(limits.pool_bytes() as usize);
    let mut relay = Relay::new(limits, slots, pool, [7; 32], NOW).expect("limits that agree");
    let links = LinkSlots {
        peers: lend::<Peer>(shards.into()),
        feeds: lend::<Feed>(topics * usize::from(shards) * 2),
        fars: lend::<Far>(topics),
    };
    relay.join(nth, links, homes).expect("slots for links");
    relay
}

pub(crate) fn limits() -> Limits {
    let mut limits = Limits { connections: 16, topics: 2, ..Limits::DEFAULT };
    limits.line.messages_per_minute = 0;
    limits.quarantine.threshold_points = 15;
    limits.quarantine.connects_per_minute = 1_000;
    limits
}

pub(crate) fn settle(relay: &mut Shard) {
    settle_but(relay, &[]);
}

std::thread_local! {
    /// Connections that are on their way to another shard.
    pub(crate) static HANDED: RefCell<Vec<Handover>> = const { RefCell::new(Vec::new()) };
}

/// What each connection was sent.
pub(crate) type Sent = HashMap<ConnId, Vec<u8>>;

/// Does what a relay wants done, as a frontend whose sockets take everything; but `stuck` ones take
/// nothing, and are full from then on.
pub(crate) fn settle_but(relay: &mut Shard, stuck: &[ConnId]) {
    settle_into(relay, stuck, &mut Sent::new());
}

/// The same, and keeps what was sent.
pub(crate) fn settle_into(relay: &mut Shard, stuck: &[ConnId], sent: &mut Sent) {
    let mut gather = Gather::new();
    let mut full = Vec::new();
    loop {
        match relay.poll_output() {
            Output::Send(conn) if full.contains(&conn) => {}
            Output::Send(conn) => {
                let stuck = stuck.contains(&conn);
                let bytes = relay.gather(conn, &mut gather);
                if !stuck {
                    let pieces = gather.ranges().iter().flat_map(|range| relay.pool().read(*range));
                    sent.entry(conn).or_default().extend(pieces);
                }
                relay.handle_sent(NOW, conn, if stuck { 0 } else { bytes }, !stuck);
                if stuck {
                    full.push(conn);
                }
            }
            Output::Handover(conn) => {
                let handover = relay.take_handover(NOW, conn).expect("what goes with it");
                relay.handle_closed(NOW, conn);
                HANDED.with_borrow_mut(|handed| handed.push(handover));
            }
            Output::Wait(Some(at)) if at <= NOW => {}
            Output::Wait(_) => return,
            _ => {}
        }
    }
}

/// Brings what one shard has for a ring to the other.
pub(crate) fn carry(from: &mut Shard, to: &mut Shard, ring: Ring) {
    carry_into(from, to, ring, &mut Sent::new());
}

/// The same, and keeps what the other one sent.
pub(crate) fn carry_into(from: &mut Shard, to: &mut Shard, ring: Ring, sent: &mut Sent) {
    let mut room = vec![0; from.limits().record_bytes_max()];
    loop {
        let len = from.link_take(NOW, to.shard().0, ring, &mut room);
        if len == 0 {
            return;
        }
        let taken = to.handle_link(NOW, from.shard().0, ring, &room[..len]);
        assert_eq!(taken.bytes, len);
        settle_into(to, &[], sent);
    }
}

pub(crate) fn accept(relay: &mut Shard, topic: TopicId, ip: IpAddr) -> ConnId {
    let remote = Remote { addr: SocketAddr::new(ip, 7), topic };
    relay.handle_accept(NOW, remote).expect("taken")
}
