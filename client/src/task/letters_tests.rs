//! Envelopes both ways, by table: what a client makes of a frame, by its policy and by when the
//! frame was said.

use wardline_core::native::FrameKind;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const START_MS: u64 = NOW_MS - 1_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn letters(policy: Policy) -> Letters {
    Letters::new(policy, (key(2).identity(), 7), START_MS, START_MS)
}

fn header(kind: FrameKind) -> FrameHeader {
    let publishes = kind == FrameKind::Publish;
    FrameHeader {
        flags: flags::ENVELOPE,
        topic: u32::from(publishes),
        peer: 5,
        mid: 1_234,
        corr: if kind.is_answer() { 4_321 } else { 0 },
        ..FrameHeader::new(kind)
    }
}

/// What somebody signs at a time, under a number.
fn signed(header: &FrameHeader, audience: Audience<'_>, counter: u64, at_ms: u64) -> Vec<u8> {
    let letters = Letters::new(Policy::OPEN.sign(), (key(1).identity(), 3), START_MS, START_MS);
    let envelope = letters.make(&key(1), header, (audience, (counter, 0)), b"text", at_ms);
    [envelope.as_slice(), b"text"].concat()
}

fn open(
    letters: &mut Letters,
    header: FrameHeader,
    payload: &[u8],
    place: Place<'_>,
) -> Result<(Vec<u8>, bool, bool), EnvelopeFault> {
    let frame = Frame { header, payload, bytes: payload };
    let opened = letters.open(&frame, place, NOW_MS)?;
    if let Some(signed) = opened.signed {
        assert_eq!((signed.sender, signed.device), (key(1).identity(), 3));
    }
    Ok((opened.payload.to_vec(), opened.signed.is_some(), opened.history))
}

fn topic(when: When) -> Place<'static> {
    Place { topic: Some("main"), when, sender: None, answers: false }
}

const MAIN: Audience<'_> = Audience::Topic("main");
const TEXT: &[u8] = b"text";

#[test]
fn a_policy_says_what_is_opened_and_what_is_demanded() {
    let header = header(FrameKind::Publish);
    let plain = FrameHeader { flags: 0, ..header };
    let (good, mut wrong) = (signed(&header, MAIN, 1, NOW_MS), signed(&header, MAIN, 1, NOW_MS));
    *wrong.last_mut().unwrap() ^= 1;
    let now = topic(When::Now);
    // As it came; opened and verified; opened where it has to be; and what it is otherwise.
    let off = &mut letters(Policy::OFF);
    assert_eq!(open(off, header, &wrong, now), Ok((wrong.clone(), false, false)));
    for policy in [Policy::OPEN, Policy::OPEN.sign(), Policy::OFF.sign()] {
        let letters = &mut letters(policy);
        assert_eq!(open(letters, plain, TEXT, now), Ok((TEXT.to_vec(), false, false)));
        assert_eq!(open(letters, header, &wrong, now), Err(EnvelopeFault::Signature));
        assert_eq!(open(letters, header, &good, now), Ok((TEXT.to_vec(), true, false)));
        assert_eq!(open(letters, header, &good, now), Err(EnvelopeFault::Replayed));
    }
    for policy in [Policy::OFF.demand(), Policy::OPEN.sign().demand()] {
        let letters = &mut letters(policy);
        for when in [When::Now, When::Missed, When::Before] {
            assert_eq!(open(letters, plain, TEXT, topic(when)), Err(EnvelopeFault::Missing));
        }
        assert_eq!(open(letters, header, &good, now), Ok((TEXT.to_vec(), true, false)));
    }
}

#[test]
fn what_is_said_when() {
    use EnvelopeFault::{BeforeFloor, Clock};
    let header = header(FrameKind::Publish);
    let shown = Ok((TEXT.to_vec(), true, true));
    let fresh = Ok((TEXT.to_vec(), true, false));
    // Signed at that time, and what a client makes of it: now, after a loss, from before.
    for (at_ms, wanted) in [
        (NOW_MS, [fresh.clone(), fresh.clone(), shown.clone()]),
        (START_MS + 1, [fresh.clone(), fresh, shown.clone()]),
        (START_MS, [Err(BeforeFloor), Err(BeforeFloor), shown.clone()]),
        (NOW_MS - 300_001, [Err(Clock), shown.clone(), shown.clone()]),
        (NOW_MS + 300_001, [Err(Clock), shown.clone(), shown]),
    ] {
        let payload = signed(&header, MAIN, 1, at_ms);
        for (when, wanted) in [When::Now, When::Missed, When::Before].into_iter().zip(wanted) {
            let letters = &mut letters(Policy::OPEN);
            assert_eq!(open(letters, header, &payload, topic(when)), wanted, "{at_ms} {when:?}");
            if when == When::Before {
                // It was only shown: nothing is remembered of it, and shown it can be again.
                assert_eq!(open(letters, header, &payload, topic(when)), wanted);
            }
        }
    }
    // History is verified, too.
    let mut payload = signed(&header, MAIN, 1, NOW_MS - 1_000_000);
    payload[180 - 1] ^= 1;
    for when in [When::Missed, When::Before] {
        let said = open(&mut letters(Policy::OPEN), header, &payload, topic(when));
        assert_eq!(said, Err(EnvelopeFault::Signature), "{when:?}");
    }
}

#[test]
fn answers_are_of_who_was_asked() {
    let header = header(FrameKind::Reply);
    let mine = Audience::Peer(key(2).identity(), 7);
    let of =
        |seed: u8| Place { sender: Some(key(seed).identity()), answers: true, ..Place::DIRECT };
    // Its sender's clock may be behind: it cannot have been seen before the start.
    for at_ms in [NOW_MS, START_MS - 5_000] {
        let payload = signed(&header, mine, 1, at_ms);
        let letters = &mut letters(Policy::OPEN);
        assert_eq!(open(letters, header, &payload, of(9)), Err(EnvelopeFault::Sender));
        assert!(open(letters, header, &payload, of(1)).is_ok());
        assert_eq!(open(letters, header, &payload, of(1)), Err(EnvelopeFault::Replayed));
    }
    // For somebody else, or another of this one's devices.
    for audience in [Audience::Peer(key(3).identity(), 7), Audience::Peer(key(2).identity(), 8)] {
        let payload = signed(&header, audience, 1, NOW_MS);
        let said = open(&mut letters(Policy::OPEN), header, &payload, of(1));
        assert_eq!(said, Err(EnvelopeFault::Audience));
    }
}

#[test]
fn numbers_are_never_the_same() {
    let mut letters = letters(Policy::OPEN.sign());
    let numbers: Vec<u64> = (0..1_000).map(|_| letters.number()).collect();
    assert!(numbers.is_sorted() && numbers[0] == 1 && numbers[999] == 1_000);
}
