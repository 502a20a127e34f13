extern crate std;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::native::bytes::put;
use crate::native::testing::{Rng, pair, pair::NOW};
use crate::native::{FrameHeader, FrameKind, FrameWriter};

/// Both ends of a connection, right after its handshake.
fn ends() -> (Records, Records) {
    let full = pair::full();
    (full.client.records(), full.server.records())
}

fn record(header: [u8; 32], body: &[u8]) -> Vec<u8> {
    [header.as_slice(), body].concat()
}

/// A body of one PUBLISH of `len` bytes in all.
fn frames(len: usize) -> Vec<u8> {
    let header = FrameHeader { topic: 1, mid: 1, ..FrameHeader::new(FrameKind::Publish) };
    let mut body = vec![0; len];
    let mut writer = FrameWriter::new(&mut body);
    assert!(writer.put(&header, &vec![7; len - FRAME_HEADER_BYTES]));
    body
}

fn send_frames(from: &mut Records, body: &[u8]) -> Result<Vec<u8>, Code> {
    let len = u32::try_from(body.len()).expect("short");
    from.sending.frames(len, &digest(body)).map(|header| record(header, body))
}

/// One of each kind that may come at any time, from `from`.
fn each_kind(from: &mut Records) -> Vec<Vec<u8>> {
    let body = frames(100);
    vec![
        from.ping([1; 8]).expect("a ping").to_vec(),
        record(from.sending.control(b"value").expect("a value"), b"value"),
        send_frames(from, &body).expect("frames"),
        from.sending.rekey(NOW).expect("a rekey").to_vec(),
        from.pong([9; 8]).expect("a pong").to_vec(),
        from.close(Code::Normal, 0, 0, 0).expect("a close").to_vec(),
    ]
}

#[test]
fn records_come_as_they_went() {
    let (mut client, mut server) = ends();
    let body = frames(100);
    let all = each_kind(&mut client);
    server.receiving.pinging = true;
    server.receiving.ping = [9; 8];
    for (nth, bytes) in all.iter().enumerate() {
        let next = server.next(NOW, bytes).expect("good");
        let Next::Record(got, len) = next else { panic!("{next:?}") };
        assert_eq!(len, bytes.len());
        match (nth, got) {
            (0, Record::Ping(ping)) => assert_eq!(ping, [1; 8]),
            (1, Record::Control(value)) => assert_eq!(value, b"value"),
            (2, Record::Frames(frames)) => assert_eq!(frames.as_bytes(), body),
            (3, Record::Rekeyed) | (4, Record::Pong) => (),
            (5, Record::Close(close)) => {
                assert_eq!(close, Close { code: 0, detail: 0, retry_ms: 0, taken: 0 });
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((server.receiving.taken(), client.sending.sent()), (6, 6));
    assert!(server.receiving.is_over() && !server.is_clean());
    let answer = server.close(Code::Normal, 0, 0, 0).expect("a close");
    let Ok(Next::Record(Record::Close(close), 48)) = client.next(NOW, &answer) else {
        panic!("no close")
    };
    assert_eq!(close.taken, 6);
    assert!(server.is_clean() && client.is_clean());
}

#[test]
fn every_split_asks_for_the_rest_and_changes_nothing() {
    let (mut client, server) = ends();
    for bytes in each_kind(&mut client).into_iter().take(1) {
        for at in 0..bytes.len() {
            let mut server = server;
            let more = if at < 32 { 32 - at } else { bytes.len() - at };
            assert_eq!(server.next(NOW, &bytes[..at]), Ok(Next::More(more)), "{at}");
            assert!(matches!(server.next(NOW, &bytes), Ok(Next::Record(_, 40))), "{at}");
        }
    }
    // A whole stream, cut at every place, and byte by byte.
    let (mut client, server) = ends();
    let stream: Vec<u8> = each_kind(&mut client).concat();
    for cut in 0..=stream.len() {
        let mut server = server;
        server.receiving.pinging = true;
        server.receiving.ping = [9; 8];
        let mut at = 0;
        let mut records = 0;
        for have in [cut, stream.len()] {
            while let Ok(Next::Record(_, len)) = server.next(NOW, &stream[at..have]) {
                at += len;
                records += 1;
            }
        }
        assert_eq!((at, records), (stream.len(), 6), "{cut}");
    }
}

#[test]
fn each_bit_of_a_record_is_needed() {
    let (mut client, server) = ends();
    let body = frames(60);
    let mut records = vec![
        client.ping([1; 8]).expect("a ping").to_vec(),
        record(client.sending.control(b"v").expect("a value"), b"v"),
        send_frames(&mut client, &body).expect("frames"),
        client.sending.rekey(NOW).expect("a rekey").to_vec(),
    ];
    records.push(client.close(Code::Normal, 0, 0, 0).expect("a close").to_vec());
    let mut at = server;
    for bytes in records {
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let mut server = at;
            match server.next(NOW, &wrong) {
                // A length that grew asks for more, which then does not fit the tag.
                Ok(Next::More(more)) => {
                    assert!((4..8).contains(&(bit / 8)), "{bit}");
                    wrong.extend(vec![0; more]);
                    assert_eq!(server.next(NOW, &wrong), Err(Code::BadTag), "{bit}");
                }
                Ok(Next::Record(..)) => panic!("{bit} says nothing"),
                Err(code) => match bit / 8 {
                    1..4 => assert_eq!(code, Code::ReservedBits),
                    8..16 => assert_eq!(code, Code::BadSeq),
                    16.. => assert_eq!(code, Code::BadTag),
                    _ => assert!(matches!(
                        code,
                        Code::BadState | Code::BadLength | Code::TooLarge | Code::BadTag
                    )),
                },
            }
            assert!(server.receiving.is_over());
            // Whatever it was, it ends no session.
            let said = server.next(NOW, &bytes).expect_err("it is over");
            assert!(server.receiving.blame(said).0.session_survives(), "{bit}");
            assert_eq!(server.receiving.keyed.seq, at.receiving.keyed.seq);
            assert_eq!(server.next(NOW, &bytes), Err(Code::BadState), "after a fault");
        }
        assert!(matches!(at.next(NOW, &bytes), Ok(Next::Record(..))));
    }
}

#[test]
fn a_close_names_what_a_right_tag_covers_and_else_the_tag() {
    let (mut client, server) = ends();
    let ping = client.ping([1; 8]).expect("a ping").to_vec();
    let wrong = |at: usize, to: u8| {
        let mut bytes = ping.clone();
        bytes[at] = to;
        bytes
    };
    let tag = Code::BadTag;
    let mut own = frames(64);
    own[4] = 9;
    let own = send_frames(&mut ends().0, &own).expect("a record");
    for (bytes, fault, blame) in [
        (wrong(0, 9), Code::BadState, (tag, 0x13)),
        (wrong(1, 1), Code::ReservedBits, (tag, 0x14)),
        (wrong(4, 9), Code::BadLength, (tag, 0x12)),
        (wrong(7, 1), Code::TooLarge, (tag, 0x15)),
        (wrong(8, 1), Code::BadSeq, (Code::BadSeq, 0)),
        (wrong(16, ping[16] ^ 1), tag, (tag, 0)),
        (own, Code::BadValue, (Code::BadValue, 0)),
    ] {
        let mut server = server;
        assert_eq!(server.next(NOW, &bytes), Err(fault));
        assert_eq!(server.receiving.blame(fault), blame);
    }
}

#[test]
fn all_types_in_every_state() {
    for kind in 0..=255_u8 {
        for state in 0..4 {
            let (_, mut server) = ends();
            match state {
                0 => (),
                1 => drop(server.close(Code::Normal, 0, 0, 0)),
                2 => server.receiving.over = true,
                _ => drop(server.ping([3; 8])),
            }
            // With a tag that is right, as only the other end can make it.
            let body: Vec<u8> = match kind {
                1 | 2 => vec![3; 8],
                3 => vec![0; 16],
                4 => vec![],
                5 => vec![1],
                _ => frames(64),
            };
            let mut front = [0; 16];
            front[0] = kind;
            front[4] = u8::try_from(body.len()).expect("short");
            let tag = server.receiving.keyed.tag(&front, &digest(&body)).to_bytes();
            let bytes = [front.as_slice(), &tag, &body].concat();
            let said = server.next(NOW, &bytes);
            let known = Kind::from_wire(kind);
            match (state, known) {
                (2, _) | (_, None) => assert_eq!(said, Err(Code::BadState), "{kind} in {state}"),
                (1, Some(Kind::Close)) => {
                    assert!(matches!(said, Ok(Next::Record(Record::Close(_), 48))));
                    assert!(server.is_clean());
                }
                (1, Some(_)) => {
                    assert_eq!(said, Ok(Next::Record(Record::Dropped, bytes.len())));
                    assert_eq!(server.receiving.taken(), 0);
                }
                (0, Some(Kind::Pong)) => assert_eq!(said, Err(Code::BadState)),
                (_, Some(_)) => {
                    assert!(matches!(said, Ok(Next::Record(_, _))), "{kind} in {state}: {said:?}");
                    assert_eq!(server.receiving.taken(), 1);
                }
            }
        }
    }
}

#[test]
fn lengths_at_and_over_their_ends() {
    let (client, server) = ends();
    let most = 65_536 + 48;
    assert_eq!(server.receiving.record_bytes_max(), 65_584 + 32);
    for (kind, lengths) in [
        (1_u8, vec![(0, false), (7, false), (8, true), (9, false)]),
        (2, vec![(0, false), (8, true), (16, false)]),
        (3, vec![(0, false), (15, false), (16, true), (17, false)]),
        (4, vec![(0, true), (1, false)]),
        (5, vec![(0, false), (1, true), (256, true), (257, false)]),
        (0x10, vec![(0, false), (47, false), (48, true), (most, true)]),
    ] {
        for (len, good) in lengths {
            let mut server = server;
            let mut front = [0; 16];
            front[0] = kind;
            put(&mut front, 4, &u32::to_le_bytes(len));
            let said = server.next(NOW, &front);
            let want = if good { Ok(Next::More(16)) } else { Err(Code::BadLength) };
            assert_eq!(said, want, "{kind} {len}");
        }
        // More than the largest is known by the header alone, whatever the type.
        for len in [most + 1, 1 << 31, u32::MAX] {
            let mut server = server;
            let mut front = [0; 16];
            front[0] = kind;
            put(&mut front, 4, &len.to_le_bytes());
            assert_eq!(server.next(NOW, &front), Err(Code::TooLarge), "{kind} {len}");
        }
    }
    // Nobody sends what the other would refuse.
    let mut sending = client.sending;
    assert_eq!(sending.frames(most + 1, &[0; 32]), Err(Code::TooLarge));
    assert_eq!(sending.frames(47, &[0; 32]), Err(Code::BadLength));
    assert_eq!(sending.control(&[]), Err(Code::BadLength));
    assert_eq!(sending.control(&[0; 257]), Err(Code::BadLength));
    assert_eq!(sending.sent(), 0);
    assert!(sending.frames(most, &[0; 32]).is_ok());
    // A limit below a control value's does not refuse control values.
    let keys = Directions { k_c2s: Key::new([1; 32]), k_s2c: Key::new([2; 32]) };
    let mut server = Records::new(Side::Server, keys, [3; 16], (0, 1_024), NOW);
    let mut client = Records::new(Side::Client, keys, [3; 16], (0, 1_024), NOW);
    let value = record(client.sending.control(&[5; 256]).expect("a value"), &[5; 256]);
    assert!(matches!(server.next(NOW, &value), Ok(Next::Record(Record::Control(_), 288))));
}

#[test]
fn replayed_dropped_reordered_and_reflected() {
    let (mut client, mut server) = ends();
    let one = client.ping([1; 8]).expect("a ping");
    let two = record(client.sending.control(b"2").expect("a value"), b"2");
    let three = record(client.sending.control(b"3").expect("a value"), b"3");
    // Dropped: the second comes first, and the first N are cut off.
    for bytes in [two.as_slice(), &three] {
        assert_eq!(ends().1.next(NOW, bytes), Err(Code::BadSeq));
    }
    // Replayed.
    let mut again = server;
    assert!(again.next(NOW, &one).is_ok());
    assert_eq!(again.next(NOW, &one), Err(Code::BadSeq));
    // Reordered.
    assert!(server.next(NOW, &one).is_ok());
    let mut reordered = server;
    assert_eq!(reordered.next(NOW, &three), Err(Code::BadSeq));
    assert!(server.next(NOW, &two).is_ok());
    assert!(server.next(NOW, &three).is_ok());
    // Reflected: what a server sent, sent back to it, and the client's to itself.
    let back = server.ping([1; 8]).expect("a ping");
    let (mut fresh_client, mut fresh_server) = ends();
    assert_eq!(fresh_server.next(NOW, &back), Err(Code::BadTag));
    assert_eq!(fresh_client.next(NOW, &one), Err(Code::BadTag));
    // Another connection's of the same session.
    let full = pair::full();
    let again = pair::resume(&full);
    let other = again.client.records().ping([1; 8]).expect("a ping");
    assert_eq!(full.server.records().next(NOW, &other), Err(Code::BadTag));
    // A body with another digest handed in is no record of that body.
    let body = frames(64);
    let header = ends().0.sending.frames(64, &digest(b"other")).expect("a header");
    assert_eq!(ends().1.next(NOW, &record(header, &body)), Err(Code::BadTag));
}

#[test]
fn closes_answer_each_other() {
    let (mut client, mut server) = ends();
    let ping = client.ping([1; 8]).expect("a ping");
    let value = record(client.sending.control(b"v").expect("a value"), b"v");
    let rekey = client.sending.rekey(NOW).expect("a rekey");
    let after = record(client.sending.control(b"w").expect("a value"), b"w");
    assert!(server.next(NOW, &ping).is_ok());
    let close = server.close(Code::GoingAway, 3, 5_000, 1).expect("a close");
    assert_eq!(server.close(Code::Normal, 0, 0, 0), Err(Code::BadState));
    assert_eq!(server.pong([1; 8]), Err(Code::BadState));
    assert_eq!(server.sending.frames(48, &[0; 32]), Err(Code::BadState));
    assert_eq!(server.sending.rekey(NOW), Err(Code::BadState));
    // What was under way is checked, not taken; a key that changes changes.
    for bytes in [value.as_slice(), &rekey, &after] {
        let said = server.next(NOW, bytes);
        assert_eq!(said, Ok(Next::Record(Record::Dropped, bytes.len())));
    }
    assert_eq!(server.receiving.taken(), 1);
    // The one record that it was handed it had not acted upon.
    let Ok(Next::Record(Record::Close(said), _)) = client.next(NOW, &close) else {
        panic!("no close")
    };
    assert_eq!(said, Close { code: 1, detail: 3, retry_ms: 5_000, taken: 0 });
    assert_eq!(client.next(NOW, &close), Err(Code::BadState));
    let answer = client.close(Code::Normal, 0, 0, 0).expect("a close");
    assert!(matches!(server.next(NOW, &answer), Ok(Next::Record(Record::Close(_), 48))));
    assert!(client.is_clean() && server.is_clean());
}

#[test]
fn a_stream_that_was_cut_is_not_clean() {
    let (mut client, mut server) = ends();
    let close = server.close(Code::Normal, 0, 0, 0).expect("a close");
    assert_eq!(server.next(NOW, &[0xEE; 32]), Err(Code::ReservedBits));
    assert!(!server.is_clean(), "a fault is no CLOSE");
    client.receiving.taken = 1;
    let lie = client.close(Code::Normal, 0, 0, 0).expect("a close");
    let (_, mut server) = ends();
    assert!(server.close(Code::Normal, 0, 0, 0).is_ok());
    // One record was sent, the CLOSE, so the first count that is too high is 2.
    assert!(matches!({ server }.next(NOW, &lie), Ok(Next::Record(..))));
    client = ends().0;
    client.receiving.taken = 2;
    let lie = client.close(Code::Normal, 0, 0, 0).expect("a close");
    assert_eq!(server.next(NOW, &lie), Err(Code::BadValue));
    assert!(!server.is_clean());
    assert!(matches!(client.next(NOW, &close), Ok(Next::Record(Record::Close(_), 48))));
    assert!(client.is_clean());
}

#[test]
fn a_close_cannot_count_what_was_not_sent() {
    let (mut client, mut server) = ends();
    client.receiving.taken = 1;
    let close = client.close(Code::Normal, 0, 0, 0).expect("a close");
    assert_eq!(server.next(NOW, &close), Err(Code::BadValue));
    assert_eq!(server.receiving.taken(), 0);
    assert_eq!(server.next(NOW, &close), Err(Code::BadState));
}

#[test]
fn pongs_answer_pings() {
    let (mut client, mut server) = ends();
    let ping = client.ping([1; 8]).expect("a ping");
    assert_eq!(client.ping([2; 8]), Err(Code::BadState), "one at a time");
    assert!(server.next(NOW, &ping).is_ok());
    let mut wrong = server;
    let wrong = wrong.pong([2; 8]).expect("a pong");
    assert_eq!({ client }.next(NOW, &wrong), Err(Code::BadState));
    let pong = server.pong([1; 8]).expect("a pong");
    assert_eq!(client.next(NOW, &pong), Ok(Next::Record(Record::Pong, 40)));
    let twice = server.pong([1; 8]).expect("a pong");
    assert_eq!(client.next(NOW, &twice), Err(Code::BadState));
}

#[test]
fn keys_change_in_time_and_numbers_go_on() {
    let (mut client, mut server) = ends();
    let before = client.sending.keyed;
    let hour = NOW.after(KEY_AGE_MAX);
    assert!(!client.sending.rekey_due(NOW));
    assert!(client.sending.rekey_due(hour));
    let rekey = client.sending.rekey(hour).expect("a rekey");
    assert!(!client.sending.rekey_due(hour));
    assert_eq!(server.next(hour, &rekey), Ok(Next::Record(Record::Rekeyed, 32)));
    let mut expected = [0; 32];
    let parts: [&[u8]; 2] = [before.key.as_bytes(), &before.sid];
    derive("wardline 2026-11 v1 rekey", &parts, &mut expected);
    assert_eq!(*client.sending.keyed.key.as_bytes(), expected);
    assert_eq!(*server.receiving.keyed.key.as_bytes(), expected);
    assert_eq!(client.sending.sent(), 1);
    // Under the old key nothing is taken any more.
    let mut old = client;
    old.sending.keyed.key = before.key;
    let value = record(old.sending.control(b"v").expect("a value"), b"v");
    assert_eq!({ server }.next(hour, &value), Err(Code::BadTag));
    let value = record(client.sending.control(b"v").expect("a value"), b"v");
    assert!(server.next(hour, &value).is_ok());
    // Too old, with what somebody on the path can add; a moment earlier it is taken.
    let late = hour.after(KEY_AGE_MAX).after(Duration::from_secs(90));
    let value = record(client.sending.control(b"v").expect("a value"), b"v");
    assert!({ server }.next(late, &value).is_ok());
    let later = late.after(Duration::from_nanos(1));
    assert_eq!({ server }.next(later, &value), Err(Code::BadState));
}

#[test]
fn a_key_serves_for_2_to_the_32_records() {
    let (mut client, mut server) = ends();
    for (used, due) in [(KEY_RECORDS_MAX - (1 << 20) - 1, false), (KEY_RECORDS_MAX - 1, true)] {
        client.sending.keyed.seq = used;
        server.receiving.keyed.seq = used;
        assert_eq!(client.sending.rekey_due(NOW), due);
    }
    // The last place is the REKEY's.
    assert_eq!(client.sending.control(b"v"), Err(Code::BadState));
    // Somebody who does not keep to it is refused.
    let mut bad = client;
    bad.sending.keyed.from = 1;
    let value = record(bad.sending.control(b"v").expect("a value"), b"v");
    assert!({ server }.next(NOW, &value).is_ok());
    bad.sending.keyed.from = 2;
    let next = record(bad.sending.control(b"v").expect("a value"), b"v");
    let mut strict = server;
    assert!(strict.next(NOW, &value).is_ok());
    assert_eq!(strict.next(NOW, &next), Err(Code::BadState));
    let rekey = client.sending.rekey(NOW).expect("a rekey");
    assert!(server.next(NOW, &rekey).is_ok());
    let value = record(client.sending.control(b"v").expect("a value"), b"v");
    assert!(server.next(NOW, &value).is_ok());
}

#[test]
fn numbers_end() {
    let (mut client, mut server) = ends();
    for at in [SEQ_END - 1, SEQ_END] {
        for keyed in [&mut client.sending.keyed, &mut server.receiving.keyed] {
            (keyed.seq, keyed.from) = (at, at);
        }
        let said = client.sending.control(b"v");
        if at == SEQ_END {
            assert_eq!(said, Err(Code::BadSeq));
            let mut front = [0; 16];
            (front[0], front[4]) = (4, 0);
            put(&mut front, 8, &at.to_le_bytes());
            assert_eq!(server.next(NOW, &front), Err(Code::BadSeq));
        } else {
            assert!(server.next(NOW, &record(said.expect("the last"), b"v")).is_ok());
        }
    }
}

#[test]
fn frames_that_break_a_rule_end_the_connection_before_any_acts() {
    let (mut client, mut server) = ends();
    let mut body = frames(100);
    body.extend(frames(48));
    body[100 + 4] = 9;
    let bytes = send_frames(&mut client, &body).expect("a record");
    assert_eq!(server.next(NOW, &bytes), Err(Code::BadValue));
    assert_eq!(server.receiving.taken(), 0);
    // The relay's direction has other zero fields: a client refuses its own frames.
    let body = frames(64);
    let bytes = send_frames(&mut server, &body).expect("a record");
    assert_eq!(client.next(NOW, &bytes), Err(Code::BadValue));
}

#[test]
fn noise_is_never_a_record() {
    let mut rng = Rng::seeded(11);
    let (_, server) = ends();
    for _ in 0..20_000 {
        let mut bytes = vec![0; 200];
        rng.fill(&mut bytes);
        if rng.below(2) == 0 {
            // A good header but for its tag.
            bytes[..16].fill(0);
            bytes[0] = Kind::ALL[rng.below(6) as usize] as u8;
            bytes[4] = rng.number() as u8;
        }
        let mut server = server;
        assert!(!matches!(server.next(NOW, &bytes), Ok(Next::Record(..))));
    }
}

#[test]
fn keys_are_wiped() {
    let (mut client, _) = ends();
    client.wipe();
    assert!(client.sending.keyed.key.is_none() && client.receiving.keyed.key.is_none());
    assert_eq!(digest(&[]), [0; 32]);
    assert_ne!(digest(&[0]), [0; 32]);
}
