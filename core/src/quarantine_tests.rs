extern crate std;
use core::net::IpAddr;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::limits::Limits;

struct Tables {
    v4: Vec<Ban>,
    v6: Vec<Ban>,
    parents: Vec<Ban>,
}

impl Tables {
    fn new(entries: usize) -> Self {
        let table = || vec![Ban::default(); entries];
        Self { v4: table(), v6: table(), parents: table() }
    }

    fn lend(&mut self) -> Quarantine<'_> {
        let limits = Limits::DEFAULT.quarantine;
        Quarantine::new(&mut self.v4, &mut self.v6, &mut self.parents, [9; 32], limits)
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn v4(ip: [u8; 4]) -> Prefix {
    Prefix::of(IpAddr::from(ip))
}

fn strike(quarantine: &mut Quarantine<'_>, now: Instant, prefix: Prefix) -> Charge {
    for _ in 0..10 {
        match quarantine.charge(now, prefix, Offence::BadUtf8, 0, 0) {
            Charge::Noted => {}
            charge @ (Charge::Struck { .. } | Charge::Withheld) => return charge,
        }
    }
    Charge::Noted
}

#[test]
fn points_leak_and_a_hundred_are_a_strike() {
    let mut tables = Tables::new(64);
    let mut quarantine = tables.lend();
    let who = v4([1, 2, 3, 4]);
    for second in 0..1_000 {
        // 15 points every 100 s leak faster than they come.
        let now = at(second * 100 + 1);
        assert_eq!(quarantine.charge(now, who, Offence::BadUtf8, 0, 0), Charge::Noted);
    }
    let now = at(200_000);
    let charges: Vec<_> =
        (0..7).map(|_| quarantine.charge(now, who, Offence::BadUtf8, 0, 0)).collect();
    assert!(charges[..6].iter().all(|charge| *charge == Charge::Noted));
    assert_eq!(charges[6], Charge::Struck { strikes: 1, seconds: 0, to_parent: false });
    // A minute, and up to a quarter more.
    assert!(matches!(quarantine.verdict(now, who), Verdict::Throttled(_)));
    assert_eq!(quarantine.verdict(at(200_080), who), Verdict::Free);
}

#[test]
fn the_more_sessions_an_address_has_the_more_it_takes_to_strike_it() {
    for (good, times) in [(0, 1), (1, 2), (9, 10), (15, 16), (1_000, 16)] {
        let mut tables = Tables::new(64);
        let mut quarantine = tables.lend();
        let mut charge = || quarantine.charge(at(5), v4([1, 2, 3, 4]), Offence::Flapping, 0, good);
        assert!((1..times * 5).all(|_| charge() == Charge::Noted), "{good} sessions");
        assert!(matches!(charge(), Charge::Struck { strikes: 1, .. }), "{good} sessions");
    }
}

#[test]
fn strikes_grow_and_are_forgiven_one_a_day() {
    let mut tables = Tables::new(64);
    let mut quarantine = tables.lend();
    let who = v4([1, 2, 3, 4]);
    let mut now = 1;
    for (strikes, least) in [(1, 0), (2, 240), (3, 960), (4, 3_840), (5, 15_360), (6, 86_400)] {
        let Charge::Struck { strikes: counted, seconds, to_parent: false } =
            strike(&mut quarantine, at(now), who)
        else {
            panic!("no strike {strikes}");
        };
        assert_eq!(counted, strikes);
        assert!(seconds >= least && seconds <= least + least / 4, "{seconds} for {strikes}");
        if seconds > 0 {
            assert!(matches!(quarantine.verdict(at(now), who), Verdict::Refused(_)));
        }
        now += u64::from(seconds) + 1;
    }
    now += 4 * 86_400 + 10;
    assert_eq!(quarantine.verdict(at(now), who), Verdict::Free);
    assert!(matches!(strike(&mut quarantine, at(now), who), Charge::Struck { strikes: 3, .. }));
}

#[test]
#[cfg(feature = "native-sessions")]
fn an_identity_solves_a_puzzle_before_it_is_refused() {
    let mut tables = Tables::new(64);
    let mut identities = [Ban::default(); 8];
    let mut quarantine = tables.lend();
    quarantine.lend_identities(&mut identities);
    let who = Prefix::of_identity(&[7; 16]);
    let verdicts = [1, 2, 3].map(|strikes| {
        let charge = strike(&mut quarantine, at(1), who);
        assert!(matches!(charge, Charge::Struck { strikes: counted, .. } if counted == strikes));
        quarantine.verdict(at(1), who)
    });
    let [Verdict::Throttled(_), Verdict::Puzzled(span), Verdict::Refused(_)] = verdicts else {
        panic!("{verdicts:?}");
    };
    assert!((240..=300).contains(&span.as_secs()));
    // Nobody else, and when it is over it is over.
    assert_eq!(quarantine.verdict(at(1), Prefix::of_identity(&[8; 16])), Verdict::Free);
    assert_eq!(quarantine.verdict(at(2_000), who), Verdict::Free);
}

#[test]
#[cfg(feature = "native-sessions")]
fn a_puzzle_is_not_forgotten_for_the_sake_of_others() {
    let mut tables = Tables::new(64);
    let mut identities = [Ban::default(); 8];
    let mut quarantine = tables.lend();
    quarantine.lend_identities(&mut identities);
    let who = |nth| Prefix::of_identity(&[nth; 16]);
    strike(&mut quarantine, at(1), who(0));
    strike(&mut quarantine, at(1), who(0));
    for nth in 1..100 {
        strike(&mut quarantine, at(1), who(nth));
    }
    assert!(matches!(quarantine.verdict(at(1), who(0)), Verdict::Puzzled(_)));
}

#[test]
fn a_ban_is_never_evicted_and_eight_side_by_side_become_one() {
    let mut tables = Tables::new(8);
    let mut quarantine = tables.lend();
    let now = at(100);
    let banned: Vec<Prefix> = (0..8).map(|n| v4([5, 6, n, 7])).collect();
    for who in &banned {
        let span = Duration::from_secs(1_000);
        let charge = quarantine.refuse(now, *who, Offence::SlowReader, 1_000, span);
        assert!(matches!(charge, Charge::Struck { to_parent: false, .. }));
    }
    // One set, full of bans: ten thousand others cannot push one out.
    for n in 0..10_000_u32 {
        let [a, b, ..] = n.to_be_bytes();
        let _ = quarantine.charge(now, v4([77, a, b, n as u8]), Offence::Flapping, 1_000, 0);
    }
    for who in &banned {
        assert!(matches!(quarantine.verdict(at(1_050), *who), Verdict::Refused(_)));
        assert_eq!(quarantine.verdict(at(1_400), *who), Verdict::Free);
    }

    let mut tables = Tables::new(64);
    let mut quarantine = tables.lend();
    let mut last = Charge::Noted;
    for n in 0..8 {
        let span = Duration::from_secs(500);
        last = quarantine.refuse(now, v4([9, 9, 9, n]), Offence::SlowReader, 1_000, span);
    }
    assert!(matches!(last, Charge::Struck { to_parent: true, .. }));
    assert!(matches!(quarantine.verdict(now, v4([9, 9, 9, 200])), Verdict::Refused(_)));
    assert_eq!(quarantine.verdict(now, v4([9, 9, 8, 200])), Verdict::Free);
}

#[test]
fn never_more_banned_than_a_tenth_of_the_living_or_sixteen() {
    let mut tables = Tables::new(4_096);
    let mut quarantine = tables.lend();
    let span = Duration::from_secs(100);
    let ban = |quarantine: &mut Quarantine<'_>, now, n: u32, live| {
        let [_, a, b, c] = n.to_be_bytes();
        let who = v4([10 + a, b, c, 1]);
        matches!(
            quarantine.refuse(now, who, Offence::SlowReader, live, span),
            Charge::Struck { .. }
        )
    };
    assert_eq!((0..100).filter(|n| ban(&mut quarantine, at(5), *n, 20)).count(), 16);
    assert_eq!((100..400).filter(|n| ban(&mut quarantine, at(6), *n, 500)).count(), 34);
    assert_eq!((500..900).filter(|n| ban(&mut quarantine, at(900), *n, 0)).count(), 16);
}

#[test]
fn an_innocent_is_free_whatever_others_do_and_memory_does_not_grow() {
    let mut tables = Tables::new(256);
    let mut quarantine = tables.lend();
    let innocent = Prefix::of("2001:db8::1".parse().expect("an address"));
    for n in 0..200_000_u32 {
        let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
        let now = at(u64::from(n) / 50);
        let _ = quarantine.charge(now, v4([a, b, c, d]), Offence::Flapping, n, 0);
        assert_eq!(quarantine.verdict(now, innocent), Verdict::Free);
    }
}

#[test]
fn the_end_of_time_does_not_wrap() {
    let mut tables = Tables::new(8);
    let mut quarantine = tables.lend();
    let who = v4([1, 1, 1, 1]);
    for _ in 0..100 {
        let _ = quarantine.charge(Instant::NEVER, who, Offence::BadUtf8, 0, 0);
        let _ = quarantine.refuse(
            Instant::NEVER,
            who,
            Offence::BadUtf8,
            0,
            Duration::from_nanos(u64::MAX),
        );
    }
}
