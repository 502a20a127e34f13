extern crate std;
use std::vec;
use std::vec::Vec;

use super::super::testing::Rng;
use super::*;

fn publish() -> FrameHeader {
    FrameHeader { topic: 0x0100_0001, mid: 1, ..FrameHeader::new(FrameKind::Publish) }
}

fn to_peer(kind: FrameKind) -> FrameHeader {
    let corr = u64::from(kind.is_answer());
    FrameHeader { kind, topic: 0, peer: 0x0100_0000_0A00_000B, corr, ..publish() }
}

fn one(header: &FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut room = vec![0; FRAME_HEADER_BYTES + payload.len()];
    let mut writer = FrameWriter::new(&mut room);
    assert!(writer.put(header, payload));
    room
}

fn to_relay(header: &FrameHeader) -> Result<(), Code> {
    Frames::check(&one(header, &[7; 200]), Towards::Relay).map(drop)
}

fn to_client(header: &FrameHeader) -> Result<(), Code> {
    Frames::check(&one(header, &[7; 200]), Towards::Client).map(drop)
}

#[test]
fn the_layout_is_the_pages() {
    let header = FrameHeader {
        kind: FrameKind::Stream,
        class: Class::Bulk,
        flags: 0x0201,
        topic: 0x1413_1211,
        ttl_ms: 0x2423_2221,
        peer: 0x3837_3635_3433_3231,
        mid: 0x4847_4645_4443_4241,
        offset: 0x5857_5655_5453_5251,
        corr: 0x6867_6665_6463_6261,
    };
    let mut want = vec![4, 3, 2, 1, 4, 3, 1, 2];
    want.extend((0x11..=0x14).chain(0x21..=0x24));
    for first in [0x31, 0x41, 0x51, 0x61] {
        want.extend(first..first + 8);
    }
    assert_eq!(header.to_bytes(0x0102_0304).as_slice(), want);
}

#[test]
fn what_is_written_is_read() {
    let mut rng = Rng::seeded(3);
    for _ in 0..500 {
        let mut room = vec![0; 4_096];
        let mut writer = FrameWriter::new(&mut room);
        let mut wrote = Vec::new();
        loop {
            let kind = FrameKind::ALL[rng.below(5) as usize];
            let base = if kind == FrameKind::Publish { publish() } else { to_peer(kind) };
            let header = FrameHeader {
                class: Class::ALL[rng.below(4) as usize],
                flags: rng.below(2) as u16 * flags::SEALED,
                ttl_ms: rng.number() as u32,
                mid: 1 + rng.below(MID_END - 1),
                ..base
            };
            let payload = vec![rng.number() as u8; rng.below(300) as usize];
            if !writer.put(&header, &payload) {
                break;
            }
            wrote.push((header, payload));
        }
        let body = writer.written().to_vec();
        assert!(room[body.len()..].iter().all(|byte| *byte == 0), "half a frame is written");
        let frames = Frames::check(&body, Towards::Relay).expect("good");
        assert_eq!(frames.as_bytes(), body);
        let read: Vec<_> = frames.map(|frame| (frame.header, frame.payload.to_vec())).collect();
        assert_eq!(read, wrote);
        let bytes: Vec<u8> = frames.flat_map(|frame| frame.bytes.to_vec()).collect();
        assert_eq!(bytes, body);
    }
}

#[test]
fn frames_fill_their_record_exactly() {
    let body = [one(&publish(), &[1; 10]), one(&publish(), &[])].concat();
    assert!(Frames::check(&body, Towards::Relay).is_ok());
    for len in 0..body.len() {
        // One whole frame is whole; everything else is cut.
        let want = if len == 58 { Ok(()) } else { Err(Code::BadLength) };
        assert_eq!(Frames::check(&body[..len], Towards::Relay).map(drop), want, "{len}");
    }
    for len in [11_u32, 57, 59, 200, 1 << 31, u32::MAX - 47, u32::MAX] {
        let mut body = body.clone();
        body[..4].copy_from_slice(&len.to_le_bytes());
        let said = Frames::check(&body, Towards::Relay).map(drop);
        // 58 would swallow the second frame: 10 + 48.
        assert!(said.is_err(), "{len}");
    }
    let mut swallowed = body;
    swallowed[..4].copy_from_slice(&58_u32.to_le_bytes());
    assert_eq!(Frames::check(&swallowed, Towards::Relay).expect("one frame").count(), 1);
}

#[test]
fn kinds_classes_and_flags() {
    for kind in 0..=255_u8 {
        let mut bytes = one(&publish(), &[]);
        bytes[4] = kind;
        let said = Frames::check(&bytes, Towards::Relay).map(drop);
        assert_eq!(said.is_ok(), kind == 0, "{kind}");
        let mut bytes = one(&publish(), &[]);
        bytes[5] = kind;
        let said = Frames::check(&bytes, Towards::Relay).map(drop);
        assert_eq!(said, if kind < 4 { Ok(()) } else { Err(Code::BadValue) }, "{kind}");
    }
    for bit in 0..16 {
        let flag = 1_u16 << bit;
        for kind in FrameKind::ALL {
            let base = if kind == FrameKind::Publish { publish() } else { to_peer(kind) };
            let header = FrameHeader { flags: flag, ..base };
            let allowed = match flag {
                flags::END => kind == FrameKind::Stream,
                flags::VERDICT => kind == FrameKind::Publish,
                flags::LINE => false,
                _ => flag < 64,
            };
            let want = if allowed { Ok(()) } else { Err(Code::ReservedBits) };
            assert_eq!(to_relay(&header), want, "{flag} {kind:?}");
            let header = FrameHeader { peer: 5, ..header };
            let want = match flag {
                flags::VERDICT => Err(Code::ReservedBits),
                // A line has no number, and goes to a topic.
                flags::LINE if kind == FrameKind::Publish => Err(Code::BadValue),
                flags::LINE => Err(Code::ReservedBits),
                _ => want,
            };
            assert_eq!(to_client(&header), want, "{flag} {kind:?}");
        }
    }
    let line = FrameHeader { flags: flags::LINE, peer: 5, mid: 0, ..publish() };
    assert_eq!(to_client(&line), Ok(()));
    let line = FrameHeader { flags: flags::LINE, mid: 0, ..to_peer(FrameKind::Direct) };
    assert_eq!(to_client(&line), Err(Code::ReservedBits));
}

#[test]
fn fields_that_are_zero_and_fields_that_are_not() {
    for kind in FrameKind::ALL {
        let publishes = kind == FrameKind::Publish;
        let good = if publishes { publish() } else { to_peer(kind) };
        assert_eq!(to_relay(&good), Ok(()));
        let from = FrameHeader { peer: 5, offset: u64::MAX, ..good };
        assert_eq!(to_client(&from), Ok(()));
        assert_eq!(to_client(&FrameHeader { peer: 0, ..from }), Err(Code::BadValue));
        let mut bad = vec![
            FrameHeader { offset: 1, ..good },
            FrameHeader { mid: 0, ..good },
            FrameHeader { mid: MID_END, ..good },
            FrameHeader { mid: u64::MAX, ..good },
            FrameHeader { peer: u64::from(publishes), ..good },
            FrameHeader { corr: u64::from(!kind.is_answer()), ..good },
        ];
        if kind.is_answer() {
            bad.push(FrameHeader { corr: MID_END, ..good });
        }
        if publishes {
            bad.push(FrameHeader { topic: 0, ..good });
            bad.push(FrameHeader { topic: 0xFF00_0000, ..good });
        } else {
            bad.push(FrameHeader { topic: 1, ..good });
        }
        for header in bad {
            assert_eq!(to_relay(&header), Err(Code::BadValue), "{header:?}");
        }
        for mid in [1, MID_END - 1] {
            assert_eq!(to_relay(&FrameHeader { mid, ..good }), Ok(()));
        }
        for ttl_ms in [0, 1, u32::MAX] {
            assert_eq!(to_relay(&FrameHeader { ttl_ms, ..good }), Ok(()));
        }
    }
}

#[test]
fn an_envelope_fits_or_is_none() {
    let header = FrameHeader { flags: flags::ENVELOPE, ..publish() };
    for (len, want) in [(0, Err(Code::BadLength)), (175, Err(Code::BadLength)), (176, Ok(()))] {
        let body = one(&header, &vec![0; len]);
        assert_eq!(Frames::check(&body, Towards::Relay).map(drop), want, "{len}");
    }
}

#[test]
fn the_last_frame_is_checked_before_the_first_is_handed_out() {
    let good = one(&publish(), &[1; 10]);
    let bad = one(&FrameHeader { mid: 0, ..publish() }, &[]);
    let body = [good.clone(), good, bad].concat();
    assert_eq!(Frames::check(&body, Towards::Relay), Err(Code::BadValue));
}
