//! Relays that are shards of one process, and what travels between them, by hand.

use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable;
use wardline_core::{
    Ban, ConnId, Cursor, Event, Far, Feed, Gather, Instant, Limits, Link, LinkSlots, Output, Peer,
    PrefixBucket, PrefixSlot, RESERVE, Relay, Remote, Ring, SHARDS_MAX, Session, Slots, Tap, Topic,
    TopicId, Verdict, WheelSlot, home_of,
};

const NOW: Instant = Instant::from_nanos(1_000_000_000);
type Shard = Relay<'static, &'static mut [u8]>;

fn lend<T: Clone + Zeroable>(many: usize) -> &'static mut [T] {
    vec![T::zeroed(); many].leak()
}

/// So many relays, and topics that the first of them is home to.
fn process<const TOPICS: usize>(shards: u8, limits: Limits) -> (Vec<Shard>, [TopicId; TOPICS]) {
    let mut homes = (0..).map(|n| format!("topic/{n}"));
    let mut name = || homes.find(|name| home_of(name.as_bytes(), shards) == 0).expect("some");
    let names: [String; TOPICS] = std::array::from_fn(|_| name());
    let mut all: Vec<Shard> = (0..shards).map(|nth| shard(nth, shards, limits)).collect();
    let mut listen = |name: &String| {
        // The same number everywhere.
        let topics = all.iter_mut().map(|relay| relay.listen(name).expect("a topic"));
        topics.last().expect("a shard")
    };
    let topics = names.each_ref().map(&mut listen);
    (all, topics)
}

/// A relay that is one of so many.
fn shard(nth: u8, shards: u8, limits: Limits) -> Shard {
    let sessions = (limits.connections + RESERVE) as usize;
    let topics = limits.topics as usize;
    let slots = Slots {
        sessions: lend::<Session>(sessions),
        cursors: lend::<Cursor>(sessions + topics * usize::from(shards - 1)),
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
        feeds: lend::<Feed>(topics * usize::from(shards)),
        fars: lend::<Far>(topics),
    };
    relay.join(nth, links).expect("slots for links");
    relay
}

fn limits() -> Limits {
    let mut limits = Limits { connections: 16, topics: 2, ..Limits::DEFAULT };
    limits.line.messages_per_minute = 0;
    limits.quarantine.threshold_points = 15;
    limits.quarantine.connects_per_minute = 1_000;
    limits
}

fn settle(relay: &mut Shard) {
    settle_but(relay, &[]);
}

/// Does what a relay wants done, as a frontend whose sockets take everything; but `stuck` ones take
/// nothing, and are full from then on.
fn settle_but(relay: &mut Shard, stuck: &[ConnId]) {
    let mut gather = Gather::new();
    let mut full = Vec::new();
    loop {
        match relay.poll_output() {
            Output::Send(conn) if full.contains(&conn) => {}
            Output::Send(conn) => {
                let stuck = stuck.contains(&conn);
                let bytes = relay.gather(conn, &mut gather);
                relay.handle_sent(NOW, conn, if stuck { 0 } else { bytes }, !stuck);
                if stuck {
                    full.push(conn);
                }
            }
            Output::Wait(Some(at)) if at <= NOW => {}
            Output::Wait(_) => return,
            _ => {}
        }
    }
}

/// Brings what one shard has for a ring to the other.
fn carry(from: &mut Shard, to: &mut Shard, ring: Ring) {
    let mut room = vec![0; from.limits().record_bytes_max()];
    loop {
        let len = from.link_take(NOW, to.shard().0, ring, &mut room);
        if len == 0 {
            return;
        }
        let taken = to.handle_link(NOW, from.shard().0, ring, &room[..len]);
        assert_eq!(taken.bytes, len);
        settle(to);
    }
}

fn accept(relay: &mut Shard, topic: TopicId, ip: IpAddr) -> ConnId {
    let remote = Remote { addr: SocketAddr::new(ip, 7), topic };
    relay.handle_accept(NOW, remote).expect("taken")
}

/// Somebody from that address is struck, so many times.
fn strike(relay: &mut Shard, topic: TopicId, ip: IpAddr, times: u32) {
    let conns: Vec<ConnId> = (0..times).map(|_| accept(relay, topic, ip)).collect();
    for conn in conns {
        relay.handle_input(NOW, conn, b"\xff\n");
        settle(relay);
        relay.handle_closed(NOW, conn);
    }
    settle(relay);
}

fn is_refused(relay: &Shard, ip: IpAddr) -> bool {
    matches!(relay.verdict(NOW, ip), Verdict::Refused(_))
}

#[test]
fn a_ban_does_not_wait_for_a_publish_ring_that_stalls() {
    let (mut shards, [topic]) = process(2, limits());
    let [home, other] = &mut shards[..] else { panic!("two of them") };
    let offender = [127, 0, 0, 5].into();
    strike(home, topic, offender, 2);
    assert!(is_refused(home, offender) && !is_refused(other, offender));
    // The other way is taken only as far as it always is.
    carry(home, other, Ring::Log);
    assert!(is_refused(other, offender));
    assert_eq!(other.stats().bans_from_shards.value(), 1);
    assert!(!home.link_has(1, Ring::Publish) && !home.link_has(1, Ring::Log));
}

#[test]
fn many_who_are_slowed_do_not_keep_a_ban_from_being_told() {
    let (mut shards, [topic]) = process(2, limits());
    let [home, other] = &mut shards[..] else { panic!("two of them") };
    let (first, last) = ([127, 0, 0, 5].into(), [127, 0, 0, 6].into());
    strike(home, topic, first, 2);
    // Each is another neighbourhood's.
    for n in 0..60 {
        strike(home, topic, [10, 0, n, 1].into(), 1);
    }
    strike(home, topic, last, 2);
    carry(home, other, Ring::Log);
    assert!(is_refused(other, first) && is_refused(other, last));
    let (told, untold) = (other.stats().bans_from_shards, home.stats().bans_untold);
    assert_eq!((told.value(), untold.value()), (32, 30));
}

#[test]
fn other_shards_do_not_stand_before_readers_who_lag() {
    let mut limits = limits();
    limits.lag_bytes = 1_000;
    let (mut shards, [topic]) = process(SHARDS_MAX, limits);
    let (home, others) = shards.split_first_mut().expect("shards");
    let stuck = [1, 2, 3, 4].map(|n| accept(home, topic, [127, 0, 0, n].into()));
    let speaker = accept(home, topic, [127, 0, 0, 9].into());
    // They come after the readers, so they are looked at before them.
    for other in others {
        accept(other, topic, [127, 0, 0, 1].into());
        carry(other, home, Ring::Publish);
    }
    home.handle_input(NOW, speaker, b"hello\n");
    settle_but(home, &stuck);
    assert_eq!(home.stats().cut.value(), 0);
    home.handle_input(NOW, speaker, &[&[b'x'; 2_000][..], b"\n"].concat());
    settle_but(home, &stuck);
    assert_eq!(home.stats().cut.value(), 4, "each of them lags too far");
}

#[test]
fn all_shards_together_lag_by_a_quarter_of_the_pool_at_most() {
    let mut limits = limits();
    limits.connections = 8;
    let (mut shards, [topic]) = process(6, limits);
    let (home, others) = shards.split_first_mut().expect("shards");
    let speaker = accept(home, topic, [127, 0, 0, 9].into());
    for other in others.iter_mut() {
        accept(other, topic, [127, 0, 0, 1].into());
        carry(other, home, Ring::Publish);
    }
    // Nobody takes what the log ring would bring.
    let line = [&[b'x'; 8_000][..], b"\n"].concat();
    while home.read_budget(speaker) >= line.len() {
        home.handle_input(NOW, speaker, &line);
        settle(home);
        home.check();
    }
    let lag = home.stats().bytes_appended.value();
    let most = limits.pool_bytes() / 4 / others.len() as u64;
    assert!(most < limits.pool_bytes() / 8, "else one alone is enough");
    assert!(lag <= most + 2 * line.len() as u64, "{lag} bytes, and {most} are enough");
    assert!(lag > most / 2);
    // What they take lets the speaker go on.
    for other in others.iter_mut() {
        carry(home, other, Ring::Log);
    }
    settle(home);
    assert!(home.read_budget(speaker) >= line.len());
    for other in others.iter_mut() {
        carry(home, other, Ring::Log);
    }
    let whole = others.iter().all(|other| other.stats().bytes_appended.value() > lag);
    assert!(whole, "a line that waited came after it");
}
