//! What is no handshake, and what is no record: it ends a connection and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use wardline_core::native::client::Fate;
use wardline_core::native::handshake::Alert;
use wardline_core::native::handshake::client::Answered;
use wardline_core::native::{Code, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, Start};

use crate::harness::native::{alert, message};
use crate::harness::{Launch, NativeClient, NativeDial, Relay, on_each_engine};

/// The largest payload that the relay takes.
const PAYLOAD_MAX: usize = 64 << 10;

/// What the relay says to these bytes as the first of a connection.
fn said_to(relay: &Relay, bytes: &[u8]) -> Option<Code> {
    let mut stream = NativeDial::new(relay.address(), 1).stream().expect("it listens");
    // It may close before it has read all of it.
    let _ = stream.write_all(bytes);
    alert(&mut stream)
}

fn expect_alive(relay: &Relay) {
    let mut client = relay.native(999);
    client.subscribe("alive", Start::Now);
    client.publish("alive", b"yes");
    client.expect(b"yes");
}

#[test]
fn junk_of_every_first_byte_is_turned_away() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        for first in 0..=255_u8 {
            let junk: Vec<u8> =
                (0..200).map(|i: u8| first.wrapping_add(i.wrapping_mul(7))).collect();
            let mut stream = NativeDial::new(relay.address(), 1).stream().expect("it listens");
            let _ = stream.write_all(&junk);
            // A reset where it had not read all of it.
            let mut said = Vec::new();
            let ended = stream.read_to_end(&mut said);
            assert!(said.is_empty() || said.len() == 24, "{first:02x}: {said:02x?}");
            if ended.is_ok() {
                assert_eq!(said[8..10], Code::BadMagic.wire().to_le_bytes(), "{first:02x}");
            }
        }
        // Of a HELLO, as soon as it can be known.
        let hello = NativeDial::new(relay.address(), 1).hello(None).0;
        for (at, code) in [
            (0, Code::BadMagic),
            (3, Code::BadMagic),
            (4, Code::BadState),
            (5, Code::BadVersion),
            (6, Code::BadLength),
            (7, Code::BadLength),
            (8, Code::BadValue),
            (9, Code::ReservedBits),
        ] {
            let mut wrong = hello.clone();
            wrong[at] ^= 0x40;
            let enough = if at < 8 { 8 } else { wrong.len() };
            assert_eq!(said_to(&relay, &wrong[..enough]), Some(code), "byte {at}");
        }
        expect_alive(&relay);
    });
}

#[test]
fn a_handshake_may_come_in_any_pieces() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let dial = NativeDial::new(relay.address(), 1);
        for at in 1..128 {
            let mut stream = dial.stream().expect("it listens");
            let (hello, wait) = dial.hello(None);
            let (front, rest) = hello.split_at(at);
            stream.write_all(front).expect("it reads");
            thread::sleep(Duration::from_millis(2));
            stream.write_all(rest).expect("it reads");
            dial.answer(&mut stream, wait).unwrap_or_else(|turned| panic!("{at}: {turned:?}"));
        }
        expect_alive(&relay);
    });
}

#[test]
fn messages_of_the_handshake_come_in_their_order() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let dial = NativeDial::new(relay.address(), 1);
        let (hello, wait) = dial.hello(None);
        let twice = [&hello[..], &hello].concat();
        let mut stream = dial.stream().expect("it listens");
        stream.write_all(&twice).expect("it reads");
        let challenge = message(&mut stream).expect("a CHALLENGE");
        assert_eq!((challenge[4], alert(&mut stream)), (2, Some(Code::BadState)));
        // AUTH first, a good one, and one that was said before to somebody else's CHALLENGE.
        let now = wardline_core::Instant::ZERO;
        let answered = wait.answer(&challenge, now).expect("it is good");
        let Answered::Challenged(challenged) = answered else { panic!("nothing to resume") };
        let (auth, _) = challenged.auth(0, 1, 1).expect("no puzzle");
        assert_eq!(said_to(&relay, auth.as_bytes()), Some(Code::BadState));
        let (hello, _) = dial.hello(None);
        let mut stream = dial.stream().expect("it listens");
        stream.write_all(&[&hello[..], auth.as_bytes()].concat()).expect("it reads");
        assert_eq!(message(&mut stream).expect("a CHALLENGE")[4], 2);
        assert_eq!(alert(&mut stream), Some(Code::AuthFailed));
        // Records before there are keys.
        let mut ping = vec![0_u8; RECORD_HEADER_BYTES + 8];
        (ping[0], ping[4]) = (1, 8);
        assert_eq!(said_to(&relay, &ping), Some(Code::BadMagic));
        let (hello, _) = dial.hello(None);
        let mut stream = dial.stream().expect("it listens");
        stream.write_all(&[&hello[..], &ping].concat()).expect("it reads");
        assert_eq!(message(&mut stream).expect("a CHALLENGE")[4], 2);
        assert_eq!(alert(&mut stream), Some(Code::BadMagic));
        expect_alive(&relay);
    });
}

#[test]
fn who_does_not_go_on_is_closed_in_time() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let hello = NativeDial::new(relay.address(), 1).hello(None).0;
        let hello_bytes = hello.len();
        thread::scope(|scope| {
            // Nothing for 2 s; half a HELLO, or a HELLO and no AUTH, for 5 s.
            for (bytes, seconds) in
                [(&hello[..0], 2), (&hello[..1], 5), (&hello[..64], 5), (&hello, 5)]
            {
                let relay = &relay;
                scope.spawn(move || {
                    let begun = Instant::now();
                    let dial = NativeDial::new(relay.address(), 1);
                    let mut stream = dial.stream().expect("it listens");
                    stream.write_all(bytes).expect("it reads");
                    let mut said = Vec::new();
                    stream.read_to_end(&mut said).expect("no reset");
                    let took = begun.elapsed();
                    // CHALLENGE, where HELLO was whole; then what was wrong.
                    let challenge = if bytes.len() == hello_bytes { 112 } else { 0 };
                    let alert = Alert::decode(&said[challenge..]).expect("an ALERT");
                    assert_eq!(alert.code(), Code::HandshakeTimeout.wire());
                    let due = Duration::from_secs(seconds);
                    let early = due.saturating_sub(Duration::from_millis(300));
                    let late = due + Duration::from_secs(3);
                    assert!((early..late).contains(&took), "{} bytes: {took:?}", bytes.len());
                });
            }
        });
        expect_alive(&relay);
    });
}

/// How much of 1 GiB a connection takes before it ends.
fn pour(stream: &mut TcpStream) -> usize {
    let chunk = vec![0xF5; 1 << 20];
    (0..1 << 10).take_while(|_| stream.write_all(&chunk).is_ok()).count() << 20
}

#[cfg(target_os = "linux")]
#[test]
fn a_gibibyte_of_junk_costs_no_memory() {
    use crate::harness::process;

    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        expect_alive(&relay);
        let before = process::private_bytes(relay.pid());
        let dial = NativeDial::new(relay.address(), 1);
        for bytes in [&b"junk"[..], b"\xF5WDL", &dial.hello(None).0] {
            let mut stream = dial.stream().expect("it listens");
            let _ = stream.write_all(bytes);
            pour(&mut stream);
        }
        // The same after a handshake, under a header that is as good as can be without a key.
        for _ in 0..5 {
            let mut client = relay.native(1);
            client.write(&header(0x10, u32::try_from(PAYLOAD_MAX).expect("it fits"), 0));
            pour(&mut client.into_stream());
        }
        let grown = process::private_bytes(relay.pid()).saturating_sub(before);
        assert!(grown < 2 << 20, "it grew by {grown} bytes");
        expect_alive(&relay);
    });
}

/// The header of a record, under no key.
fn header(kind: u8, len: u32, seq: u64) -> Vec<u8> {
    let mut header = vec![0; RECORD_HEADER_BYTES];
    header[0] = kind;
    header[4..8].copy_from_slice(&len.to_le_bytes());
    header[8..16].copy_from_slice(&seq.to_le_bytes());
    header
}

#[test]
fn a_record_has_the_length_that_its_type_has() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let most = u32::try_from(PAYLOAD_MAX + FRAME_HEADER_BYTES).expect("it fits");
        for (kind, len, code) in [
            (0x10, 0, Code::BadLength),
            (0x10, 47, Code::BadLength),
            (0x10, most + 1, Code::TooLarge),
            (0x10, u32::MAX, Code::TooLarge),
            (0x05, 0, Code::BadLength),
            (0x05, 257, Code::BadLength),
            (0x01, 7, Code::BadLength),
            (0x03, 17, Code::BadLength),
            (0x04, 1, Code::BadLength),
            (0x00, 8, Code::BadState),
            (0x06, 8, Code::BadState),
        ] {
            let mut client = relay.native(1);
            client.write(&header(kind, len, 0));
            // Somebody on the path may have made it so: no session ends by it.
            assert_eq!(client.closed(), Some(Code::BadTag), "type {kind:x}, {len} bytes");
            assert_eq!(client.detail(), Some(code), "type {kind:x}, {len} bytes");
            assert!(client.can_resume());
        }
        // The largest of all.
        let mut client = relay.native(1);
        client.subscribe("t", Start::Now);
        let payload: Vec<u8> = (0..PAYLOAD_MAX).map(|i| (i % 251) as u8).collect();
        client.publish("t", &payload);
        client.expect(&payload);
        client.close();
        expect_alive(&relay);
    });
}

/// A client that reads `t` and has said two things there, of which `tamper` makes the bytes that
/// the relay gets.
/// Gives what its CLOSE says besides.
fn tampered(
    relay: &Relay,
    tamper: impl Fn(&NativeClient, &[u8], &[u8]) -> Vec<u8>,
    code: Code,
) -> Option<Code> {
    let mut witness = relay.native(2);
    witness.subscribe("t", Start::Now);
    let mut client = relay.native(1);
    client.open("t").expect("it may");
    let handle = client.handle();
    // A relay that has taken nothing yet has nothing to say about what it took.
    client.publish("t", b"zero");
    assert!(client.barrier());
    assert_eq!(client.settled().len(), 1);
    let [one, two] = [&b"one"[..], b"two"].map(|payload| {
        client.enqueue("t", payload);
        client.seal().expect("a record")
    });
    let bytes = tamper(&client, &one, &two);
    client.write(&bytes);
    assert_eq!(client.closed(), Some(code));
    let detail = client.detail();
    // The session is there, and each message is heard once.
    assert!(client.can_resume());
    client.reconnect(true).expect("it is back");
    assert!(client.is_resumed() && client.handle() == handle);
    client.open("t").expect("it may");
    client.flush();
    assert!(client.barrier());
    let fates: Vec<Fate> = client.settled().into_iter().map(|(_, fate)| fate).collect();
    assert_eq!(fates, [Fate::Taken; 2]);
    client.publish("t", b"three");
    for payload in [&b"zero"[..], b"one", b"two", b"three"] {
        assert_eq!(witness.expect(payload).peer, handle);
    }
    // What is taken of the session now is that of before.
    client.close();
    detail
}

#[test]
fn a_record_that_was_changed_or_is_out_of_its_place_ends_the_connection_and_not_the_session() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let replayed = |_: &NativeClient, one: &[u8], _: &[u8]| [one, one].concat();
        assert_eq!(tampered(&relay, replayed, Code::BadSeq), None);
        let dropped = |_: &NativeClient, _: &[u8], two: &[u8]| two.to_vec();
        assert_eq!(tampered(&relay, dropped, Code::BadSeq), None);
        let reordered = |_: &NativeClient, one: &[u8], two: &[u8]| [two, one].concat();
        assert_eq!(tampered(&relay, reordered, Code::BadSeq), None);
        let reflected = |client: &NativeClient, _: &[u8], _: &[u8]| client.first_record().to_vec();
        assert_eq!(tampered(&relay, reflected, Code::BadSeq), None);
        // With the number that would be right: only the key is the other direction's.
        let renumbered = |client: &NativeClient, one: &[u8], _: &[u8]| {
            let mut record = client.first_record().to_vec();
            record[8..16].copy_from_slice(&one[8..16]);
            record
        };
        assert_eq!(tampered(&relay, renumbered, Code::BadTag), None);
        for at in (0..16).chain([16, 31, 32, 32 + 24, 32 + FRAME_HEADER_BYTES + 2]) {
            let flipped = |_: &NativeClient, one: &[u8], two: &[u8]| {
                // So much that no length waits for more.
                let mut bytes = [one, two, &[0; 300]].concat();
                bytes[at] ^= 1;
                bytes
            };
            let (code, detail) = match at {
                0 => (Code::BadTag, Some(Code::BadState)),
                1..4 => (Code::BadTag, Some(Code::ReservedBits)),
                6 | 7 => (Code::BadTag, Some(Code::TooLarge)),
                8..16 => (Code::BadSeq, None),
                _ => (Code::BadTag, None),
            };
            assert_eq!(tampered(&relay, flipped, code), detail, "byte {at}");
        }
        // The second of two that came together: the first is taken.
        let second = |_: &NativeClient, one: &[u8], two: &[u8]| {
            let mut bytes = [one, two].concat();
            *bytes.last_mut().expect("some") ^= 1;
            bytes
        };
        assert_eq!(tampered(&relay, second, Code::BadTag), None);
    });
}
