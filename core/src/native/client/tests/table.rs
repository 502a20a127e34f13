//! The ring of ids, by table.

use std::vec::Vec;

use super::*;

const START: u64 = 5_000;

fn ring(slots: usize, sent: u64, waiting: u64) -> Unsure<Vec<Slot>> {
    let mut ring = Unsure::new(std::vec![Slot::default(); slots], START);
    for nth in 0..sent + waiting {
        assert_eq!(ring.enqueue(), Some(START + nth));
        if nth < sent {
            assert_eq!(ring.next_unsent(), Some(START + nth));
            ring.sent(START + nth, nth);
        }
    }
    ring
}

fn map(mid: u64, taken: &[u64]) -> [u8; 128] {
    let mut seen = [0; 128];
    for each in taken {
        let age = mid - each;
        seen[(age / 8) as usize] |= 1 << (age % 8);
    }
    seen
}

fn settled(ring: &mut Unsure<Vec<Slot>>) -> Vec<(u64, Fate)> {
    std::iter::from_fn(|| ring.pop()).map(|(mid, fate)| (mid - START, fate)).collect()
}

#[test]
fn what_taken_shows() {
    // Sent, waiting, the highest that was taken, all that were; what settles, what goes out.
    type Case<'a> = (u64, u64, Option<u64>, &'a [u64], &'a [(u64, Fate)], &'a [u64]);
    use Fate::{Taken, Unsure};
    let cases: &[Case<'_>] = &[
        (3, 0, Some(2), &[0, 1, 2], &[(0, Taken), (1, Taken), (2, Taken)], &[]),
        (3, 2, Some(2), &[0, 1, 2], &[(0, Taken), (1, Taken), (2, Taken)], &[3, 4]),
        (3, 2, Some(1), &[0, 1], &[(0, Taken), (1, Taken)], &[2, 3, 4]),
        (4, 1, Some(3), &[0, 3], &[(0, Taken)], &[1, 2, 4]),
        (4, 1, Some(2), &[2], &[], &[0, 1, 3, 4]),
        (2, 1, None, &[], &[(0, Unsure), (1, Unsure)], &[2]),
        (0, 2, None, &[], &[], &[0, 1]),
        (0, 0, None, &[], &[], &[]),
    ];
    for (sent, waiting, mid, taken, fates, goes) in cases {
        let mut ring = ring(8, *sent, *waiting);
        let taken: Vec<u64> = taken.iter().map(|each| START + each).collect();
        match mid.map(|mid| START + mid) {
            Some(mid) => ring.taken(mid, &map(mid, &taken), false),
            None => ring.taken(0, &[0; 128], false),
        }
        .expect("good");
        let case = (sent, waiting, mid);
        assert_eq!(settled(&mut ring), *fates, "{case:?}");
        let mut unsent = Vec::new();
        while let Some(mid) = ring.next_unsent() {
            let after = ring.next_unsent_after(mid);
            unsent.push(mid - START);
            ring.sent(mid, 0);
            assert_eq!(ring.next_unsent(), after);
        }
        assert_eq!(unsent, *goes, "{case:?}");
    }
}

#[test]
fn a_relay_that_is_older_than_all_that_is_under_way() {
    // It took something of this client long ago, and nothing since.
    let mut ring = ring(8, 2, 0);
    ring.taken(START - 1, &map(START - 1, &[START - 1]), true).expect("good");
    assert_eq!((ring.pop(), ring.next_unsent()), (None, Some(START)));
    // It names what was never sent.
    for mid in [START + 2, START + 3, u64::MAX] {
        let mut ring = table::ring(8, 2, 1);
        assert_eq!(ring.taken(mid, &map(mid, &[mid]), true), Err(Code::BadValue));
    }
}

#[test]
fn a_session_that_is_held_and_has_taken_nothing_is_sent_everything() {
    let mut ring = ring(8, 2, 1);
    ring.taken(0, &[0; 128], true).expect("good");
    assert_eq!((ring.pop(), ring.next_unsent(), ring.counts()), (None, Some(START), (0, 3)));
}

#[test]
fn what_is_missing_can_be_shown_twice() {
    // The second of three is missing, and the connection is lost before it goes out again.
    let mut ring = ring(8, 3, 0);
    let (mid, taken) = (START + 2, [START, START + 2]);
    for _ in 0..2 {
        ring.taken(mid, &map(mid, &taken), false).expect("good");
        assert_eq!(ring.next_unsent(), Some(START + 1));
    }
    // A relay that holds nothing: it was known to be missing, so it is not unsure.
    ring.taken(0, &[0; 128], false).expect("good");
    assert_eq!(ring.next_unsent(), Some(START + 1));
    assert_eq!(settled(&mut ring), [(0, Fate::Taken)]);
}

#[test]
fn a_whole_window_is_known_to_its_last_bit() {
    for missing in [0, 1, 7, 8, 511, 1_022] {
        let mut ring = ring(UNSURE_MAX, 1_024, 0);
        assert_eq!((ring.room(), ring.enqueue()), (0, None));
        let mid = START + 1_023;
        let taken: Vec<u64> = (START..=mid).filter(|each| *each != START + missing).collect();
        ring.taken(mid, &map(mid, &taken), false).expect("good");
        assert_eq!(ring.counts(), (0, 1));
        assert_eq!(ring.next_unsent(), Some(START + missing));
        assert_eq!(ring.next_unsent_after(START + missing), None);
        assert_eq!(settled(&mut ring).len() as u64, missing);
        ring.sent(START + missing, 0);
        ring.covered(START + missing + 1);
        assert_eq!(settled(&mut ring).len() as u64, 1_024 - missing);
        assert!(ring.is_empty());
    }
    // More slots than the window spans are of no use.
    let mut ring = Unsure::new(std::vec![Slot::default(); 5_000], START);
    assert_eq!(std::iter::from_fn(|| ring.enqueue()).count(), UNSURE_MAX);
    let mut none = Unsure::new([], START);
    assert_eq!((none.room(), none.enqueue(), none.next_unsent()), (0, None, None));
}

#[test]
fn pongs_closes_and_refusals() {
    let mut ring = ring(8, 4, 2);
    assert!(ring.settle_one(START + 1, Fate::Refused));
    assert!(!ring.settle_one(START + 1, Fate::Taken), "it was settled");
    assert!(!ring.settle_one(START + 6, Fate::Taken) && !ring.settle_one(0, Fate::Taken));
    assert_eq!(ring.pop(), None);
    ring.covered(START + 2);
    assert_eq!(settled(&mut ring), [(0, Fate::Taken), (1, Fate::Refused)]);
    // What was not sent is not covered, whatever the number.
    ring.covered(u64::MAX);
    assert_eq!(settled(&mut ring), [(2, Fate::Taken), (3, Fate::Taken)]);
    assert_eq!(ring.counts(), (0, 2));
    // One that waits is withdrawn: it is passed over.
    assert!(ring.settle_one(START + 4, Fate::Refused));
    assert_eq!(ring.next_unsent(), Some(START + 5));
    ring.sent(START + 5, 9);
    ring.closed(9);
    assert_eq!(settled(&mut ring), [(4, Fate::Refused)]);
    ring.closed(10);
    assert_eq!(settled(&mut ring), [(5, Fate::Taken)]);
}

#[test]
fn ids_begin_within_their_half_and_end() {
    for entropy in [0, 1, u64::MAX, 1 << 62, (1 << 62) - 1, (1 << 63) + 5] {
        let mut ring = Unsure::new([Slot::default(); 2], entropy);
        let first = ring.enqueue().expect("room");
        assert!((1..1 << 62).contains(&first), "{first:x}");
        assert_eq!(ring.enqueue(), Some(first + 1));
        assert_eq!(ring.enqueue(), None);
    }
}
