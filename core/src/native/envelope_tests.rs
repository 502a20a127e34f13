extern crate std;
use std::vec;
use std::vec::Vec;

use super::super::testing::Rng;
use super::*;

/// The receivers' clock, and when they started.
const NOW_MS: u64 = 1_800_000_000_000;
const START_MS: u64 = NOW_MS - 3_600_000;
const ZERO: Remembered = Remembered::FREE;

fn sender(nth: u8) -> SigningKey {
    SigningKey::from_seed(&[nth; 32])
}

fn me() -> (Identity, u32) {
    (sender(200).identity(), 77)
}

fn frame(kind: FrameKind) -> FrameHeader {
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

fn letter(counter: u64) -> Letter<'static> {
    let (receiver, device) = me();
    Letter {
        audience: Audience::Peer(receiver, device),
        device: 3,
        epoch_ms: NOW_MS - 1_000,
        counter,
        issued_ms: NOW_MS,
        piece: 0,
    }
}

fn payload(key: &SigningKey, frame: &FrameHeader, letter: &Letter<'_>) -> Vec<u8> {
    [make(key, frame, letter, b"text").as_slice(), b"text"].concat()
}

fn expects(frame: &FrameHeader) -> Expected<'_> {
    let topic = (frame.kind == FrameKind::Publish).then_some("main");
    Expected { frame, receiver: me(), topic, sender: None, answers: false }
}

/// A receiver with room for `N` parties, and what it says of one payload after another.
fn opens(
    memory: &mut Memory<&mut [Remembered]>,
    frame: &FrameHeader,
    payload: &[u8],
) -> Result<u64, EnvelopeFault> {
    memory.open(&expects(frame), payload, NOW_MS).map(|fresh| fresh.said().counter)
}

#[test]
fn what_is_made_is_opened_once() {
    for kind in FrameKind::ALL {
        let mut table = [ZERO; 4];
        let mut memory = Memory::new(&mut table[..], START_MS);
        let frame = frame(kind);
        let mut letter = letter(1);
        if kind == FrameKind::Publish {
            letter.audience = Audience::Topic("main");
        }
        let bytes = payload(&sender(1), &frame, &letter);
        let fresh = memory.open(&expects(&frame), &bytes, NOW_MS).expect("fresh");
        let said = *fresh.said();
        assert_eq!(said.sender, sender(1).identity());
        assert_eq!((said.device, said.counter, said.payload), (3, 1, b"text".as_slice()));
        assert_eq!((said.epoch_ms, said.issued_ms), (letter.epoch_ms, letter.issued_ms));
        assert_eq!(opens(&mut memory, &frame, &bytes), Err(EnvelopeFault::Replayed));
        // It can still be shown.
        assert_eq!(*open_history(&expects(&frame), &bytes).expect("shown").said(), said);
    }
}

#[test]
fn the_layout_is_the_pages() {
    let frame = FrameHeader { flags: flags::ENVELOPE | flags::SEALED, ..frame(FrameKind::Request) };
    let bytes = make(&sender(1), &frame, &letter(9), b"text");
    assert_eq!(bytes[..8], [1, 2, 2, 0, 3, 0, 0, 0]);
    assert_eq!(bytes[8..40], *sender(1).identity().as_bytes());
    assert_eq!(bytes[40..72], *me().0.as_bytes());
    let numbers = [72, 80, 88, 96].map(|at| u64_at(&bytes, at));
    assert_eq!(numbers, [NOW_MS - 1_000, 9, NOW_MS, 1_234]);
    assert_eq!(bytes[104..112], [77, 0, 0, 0, 0, 0, 0, 0]);
    let mut label = [0; 32];
    label[0] = 0xF5;
    label[1..21].copy_from_slice(b"wardline v1 envelope");
    let message = [&label[..], &bytes[..112], blake3::hash(b"text").as_bytes()].concat();
    let signature: [u8; 64] = bytes[112..].try_into().expect("64");
    assert!(sender(1).public().verify(&message, &signature));
}

#[test]
fn the_number_of_a_piece_and_its_end_are_signed() {
    let piece = frame(FrameKind::Stream);
    let end = FrameHeader { flags: piece.flags | flags::END, ..piece };
    let numbered = Letter { piece: 7, ..letter(1) };
    let open = |frame: &FrameHeader, bytes: &[u8]| {
        let mut table = [ZERO; 4];
        let mut memory = Memory::new(&mut table[..], START_MS);
        memory.open(&expects(frame), bytes, NOW_MS).map(|fresh| fresh.said().piece)
    };
    for (made, other) in [(piece, end), (end, piece)] {
        let mut bytes = payload(&sender(1), &made, &numbered);
        assert_eq!(open(&made, &bytes), Ok(7));
        assert_eq!(open(&other, &bytes), Err(EnvelopeFault::Kind));
        bytes[108] ^= 1;
        assert_eq!(open(&made, &bytes), Err(EnvelopeFault::Signature));
    }
    for kind in FrameKind::ALL.into_iter().filter(|kind| *kind != FrameKind::Stream) {
        let bytes = payload(&sender(1), &frame(kind), &numbered);
        assert_eq!(open(&frame(kind), &bytes), Err(EnvelopeFault::Form), "{kind:?}");
    }
}

#[test]
fn each_bit_is_needed() {
    let frame = frame(FrameKind::Direct);
    let bytes = payload(&sender(1), &frame, &letter(5));
    let mut table = [ZERO; 4];
    let mut memory = Memory::new(&mut table[..], START_MS);
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let fault = opens(&mut memory, &frame, &wrong).expect_err("changed");
        match bit / 8 {
            0 | 3 | 108..112 => assert_eq!(fault, EnvelopeFault::Form),
            1 => assert_ne!(fault, EnvelopeFault::Signature),
            2 => assert_eq!(fault, EnvelopeFault::Kind),
            40..72 | 104..108 => assert_eq!(fault, EnvelopeFault::Audience),
            96..104 => assert_eq!(fault, EnvelopeFault::Corr),
            72..96 => (),
            _ => assert_eq!(fault, EnvelopeFault::Signature, "{bit}"),
        }
        assert!(open_history(&expects(&frame), &wrong).is_err(), "{bit}");
    }
    // Nothing of that was noted.
    assert_eq!(opens(&mut memory, &frame, &bytes), Ok(5));
    for len in 0..ENVELOPE_BYTES {
        assert_eq!(opens(&mut memory, &frame, &bytes[..len]), Err(EnvelopeFault::Form));
    }
}

#[test]
fn it_is_for_its_frame_its_receiver_and_its_dialogue() {
    let mut table = [ZERO; 4];
    let mut memory = Memory::new(&mut table[..], START_MS);
    let made = frame(FrameKind::Request);
    let bytes = payload(&sender(1), &made, &letter(1));
    let mut opens = |frame: FrameHeader, topic, receiver| {
        let expected = Expected { frame: &frame, receiver, topic, sender: None, answers: false };
        memory.open(&expected, &bytes, NOW_MS).map(drop)
    };
    let plain = FrameHeader { flags: 0, ..made };
    assert_eq!(opens(plain, None, me()), Err(EnvelopeFault::Missing));
    let direct = FrameHeader { kind: FrameKind::Direct, ..made };
    assert_eq!(opens(direct, None, me()), Err(EnvelopeFault::Kind));
    let sealed = FrameHeader { flags: made.flags | flags::SEALED, ..made };
    assert_eq!(opens(sealed, None, me()), Err(EnvelopeFault::Kind));
    let other = FrameHeader { mid: 1_235, ..made };
    assert_eq!(opens(other, None, me()), Err(EnvelopeFault::Corr));
    assert_eq!(opens(made, Some("main"), me()), Err(EnvelopeFault::Audience));
    let somebody = (sender(3).identity(), 77);
    assert_eq!(opens(made, None, somebody), Err(EnvelopeFault::Audience));
    assert_eq!(opens(made, None, (me().0, 78)), Err(EnvelopeFault::Audience));
    assert_eq!(opens(made, None, me()), Ok(()));
    // A topic's name is the audience: another topic's is not.
    let made = frame(FrameKind::Publish);
    let letter = Letter { audience: Audience::Topic("main"), ..letter(2) };
    let bytes = payload(&sender(1), &made, &letter);
    for (topic, want) in [(Some("mair"), false), (None, false), (Some("main"), true)] {
        let expected = Expected { topic, ..expects(&made) };
        let said = memory.open(&expected, &bytes, NOW_MS).map(drop);
        assert_eq!(said, if want { Ok(()) } else { Err(EnvelopeFault::Audience) });
    }
    // Who was asked, and nobody else; that is no message seen.
    let reply = frame(FrameKind::Reply);
    let direct = Letter { audience: Audience::Peer(me().0, me().1), counter: 9, ..letter };
    let bytes = payload(&sender(1), &reply, &direct);
    for (nth, want) in [(2, Err(EnvelopeFault::Sender)), (1, Ok(()))] {
        let expected = Expected { sender: Some(sender(nth).identity()), ..expects(&reply) };
        assert_eq!(memory.open(&expected, &bytes, NOW_MS).map(drop), want);
    }
    // Any device, where none is named.
    let made = frame(FrameKind::Direct);
    let anywhere = Letter { audience: Audience::Peer(me().0, 0), ..letter };
    let bytes = payload(&sender(1), &made, &anywhere);
    let expected = Expected { receiver: (me().0, 1), ..expects(&made) };
    assert!(memory.open(&expected, &bytes, NOW_MS).is_ok());
}

#[test]
fn clocks_and_epochs() {
    let frame = frame(FrameKind::Direct);
    for (issued, good) in [
        (NOW_MS - 300_001, false),
        (NOW_MS - 300_000, true),
        (NOW_MS + 300_000, true),
        (NOW_MS + 300_001, false),
        (0, false),
        (u64::MAX, false),
    ] {
        let mut table = [ZERO; 4];
        let mut memory = Memory::new(&mut table[..], START_MS);
        let bytes = payload(&sender(1), &frame, &Letter { issued_ms: issued, ..letter(1) });
        let want = if good { Ok(1) } else { Err(EnvelopeFault::Clock) };
        assert_eq!(opens(&mut memory, &frame, &bytes), want, "{issued}");
    }
    let mut table = [ZERO; 4];
    let mut memory = Memory::new(&mut table[..], START_MS);
    let mut at = |epoch_ms, counter| {
        let bytes = payload(&sender(1), &frame, &Letter { epoch_ms, ..letter(counter) });
        opens(&mut memory, &frame, &bytes)
    };
    assert_eq!(at(NOW_MS + 300_001, 1), Err(EnvelopeFault::Epoch));
    assert_eq!(at(NOW_MS, 7), Ok(7));
    assert_eq!(at(NOW_MS - 1, 8), Err(EnvelopeFault::Epoch), "an epoch only grows");
    assert_eq!(at(NOW_MS, 6), Ok(6));
    assert_eq!(at(NOW_MS, 7), Err(EnvelopeFault::Replayed));
    assert_eq!(at(NOW_MS, 0), Err(EnvelopeFault::Stale));
    assert_eq!(at(NOW_MS, 2_000), Ok(2_000));
    assert_eq!(at(NOW_MS, 976), Err(EnvelopeFault::Stale));
    assert_eq!(at(NOW_MS, 977), Ok(977));
    assert_eq!(at(NOW_MS + 300_000, 7), Ok(7), "a new epoch counts anew");
    assert_eq!(at(NOW_MS, 9), Err(EnvelopeFault::Epoch));
}

#[test]
fn an_epoch_for_each_start() {
    assert_eq!(next_epoch(0, NOW_MS), Some(NOW_MS));
    assert_eq!(next_epoch(NOW_MS, NOW_MS), Some(NOW_MS + 1));
    assert_eq!(next_epoch(NOW_MS + 299_999, NOW_MS), Some(NOW_MS + 300_000));
    assert_eq!(next_epoch(NOW_MS + 300_000, NOW_MS), None);
    assert_eq!(next_epoch(u64::MAX, NOW_MS), None);
}

#[test]
fn a_restart_admits_no_replay() {
    let frame = frame(FrameKind::Direct);
    let bytes = payload(&sender(1), &frame, &letter(1));
    let mut table = [ZERO; 4];
    assert_eq!(opens(&mut Memory::new(&mut table[..], START_MS), &frame, &bytes), Ok(1));
    let mut table = [ZERO; 4];
    let mut restarted = Memory::new(&mut table[..], NOW_MS);
    assert_eq!(opens(&mut restarted, &frame, &bytes), Err(EnvelopeFault::BeforeFloor));
    // What answers a request that this program made is from after its start.
    let reply = FrameHeader { kind: FrameKind::Reply, corr: 4_321, ..frame };
    let bytes = payload(&sender(1), &reply, &letter(1));
    let mut expected = expects(&reply);
    assert!(restarted.open(&expected, &bytes, NOW_MS).is_err());
    expected.answers = true;
    assert!(restarted.open(&expected, &bytes, NOW_MS).is_ok());
    assert_eq!(restarted.open(&expected, &bytes, NOW_MS).map(drop), Err(EnvelopeFault::Replayed));
    // Only answers are: a DIRECT is none, whatever the caller says.
    let bytes = payload(&sender(2), &frame, &letter(1));
    let expected = Expected { answers: true, ..expects(&frame) };
    assert_eq!(
        restarted.open(&expected, &bytes, NOW_MS).map(drop),
        Err(EnvelopeFault::BeforeFloor)
    );
}

#[test]
fn an_answer_from_a_slow_clock_opens_no_door_to_older_messages() {
    let (direct, reply) = (frame(FrameKind::Direct), frame(FrameKind::Reply));
    let slow = |counter| Letter { issued_ms: NOW_MS - 1_000, ..letter(counter) };
    let old = payload(&sender(1), &direct, &slow(1));
    let answer = payload(&sender(1), &reply, &slow(2));
    let mut table = [ZERO; 4];
    let mut restarted = Memory::new(&mut table[..], NOW_MS - 500);
    let expected = Expected { answers: true, ..expects(&reply) };
    assert!(restarted.open(&expected, &answer, NOW_MS).is_ok());
    // The program may have acted upon it before it was started anew.
    assert_eq!(opens(&mut restarted, &direct, &old), Err(EnvelopeFault::BeforeFloor));
}

#[test]
fn a_full_table_admits_no_replay() {
    for (places, answers) in (0..4).flat_map(|places| [(places, false), (places, true)]) {
        let kind = if answers { FrameKind::Stream } else { FrameKind::Direct };
        let frame = frame(kind);
        let mut table = vec![ZERO; places];
        let mut memory = Memory::new(&mut table[..], START_MS);
        let expected = Expected { answers, ..expects(&frame) };
        let mut opens = |bytes: &[u8]| memory.open(&expected, bytes, NOW_MS).map(drop);
        let mut rng = Rng::seeded(places as u64);
        let mut taken = Vec::new();
        for round in 0..300_u64 {
            let from = sender(1 + rng.below(6) as u8);
            let issued_ms = NOW_MS - 2_000 + 4 * round;
            let bytes = payload(&from, &frame, &Letter { issued_ms, ..letter(1 + round) });
            // Clocks that go forwards are never refused for the table's sake.
            assert_eq!(opens(&bytes), Ok(()), "{places} places, {round}");
            taken.push(bytes);
            // Nothing that was taken is taken again.
            for _ in 0..3 {
                let old = &taken[rng.below(taken.len() as u64) as usize];
                assert!(opens(old).is_err(), "{places} places, {round}");
            }
        }
        assert!(memory.dropped_ms > START_MS);
    }
}

#[test]
fn who_signs_with_a_bad_key_signs_nothing() {
    let frame = frame(FrameKind::Direct);
    let mut table = [ZERO; 4];
    let mut memory = Memory::new(&mut table[..], START_MS);
    for bad in crate::native::handshake::tests::bad_keys() {
        let mut bytes = payload(&sender(1), &frame, &letter(1));
        bytes[8..40].copy_from_slice(&bad);
        // R = identity, S = 0: what a lax verifier takes of a key of small order.
        bytes[112..176].fill(0);
        bytes[112] = 1;
        assert_eq!(opens(&mut memory, &frame, &bytes), Err(EnvelopeFault::Signature));
    }
    // Another sender's signature.
    let mut bytes = payload(&sender(1), &frame, &letter(1));
    bytes[8..40].copy_from_slice(sender(2).identity().as_bytes());
    assert_eq!(opens(&mut memory, &frame, &bytes), Err(EnvelopeFault::Signature));
}
