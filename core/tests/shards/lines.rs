//! Shards of a relay that speaks the line dialect alone.

use std::net::IpAddr;

use wardline_core::{ConnId, Ring, SHARDS_MAX, TopicId, Verdict};

use super::process::{NOW, Shard, accept, carry, limits, process, settle, settle_but};

/// Somebody from that address is struck, so many times.
pub(crate) fn strike(relay: &mut Shard, topic: TopicId, ip: IpAddr, times: u32) {
    let conns: Vec<ConnId> = (0..times).map(|_| accept(relay, topic, ip)).collect();
    for conn in conns {
        relay.handle_input(NOW, conn, b"\xff\n");
        settle(relay);
        relay.handle_closed(NOW, conn);
    }
    settle(relay);
}

pub(crate) fn is_refused(relay: &Shard, ip: IpAddr) -> bool {
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
