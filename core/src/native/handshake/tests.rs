extern crate std;
use std::vec::Vec;

use super::client::{Answered, Attempt, Ended as ClientEnded};
use super::server::{Answer, AwaitHello, Ended, Wants};
use super::*;
use crate::native::Code;
use crate::native::key::{Ephemeral, Identity, SigningKey};
use crate::native::testing::hex;
use crate::native::testing::pair::{self, GRANTED, HANDLE, NOW, Reply};

/// The vector of PROTOCOL.md 2.2.9, whole.
#[test]
fn the_vector() {
    let full = pair::full();
    let mac_c: [u8; 16] = full.auth.as_bytes()[128..].try_into().expect("16");
    assert_eq!(mac_c, hex("7bf97980419e837defc56ea0ca51382b"));
    let sid = full.client.resumption().sid;
    assert_eq!(sid, hex("0b00000a00000001ce8cb3c2161deabc"));
    assert_eq!(full.server.held().sid, sid);
    assert_eq!(handle_of(&sid), HANDLE);
    let ping = full.client.records().ping([0x0D; 8]).expect("a ping");
    assert_eq!(ping[16..32], hex::<16>("02aea48c83fc748a4b2164d077eccca7"));

    let again = pair::resume(&full);
    assert_eq!(again.hello.proof(), hex("765592e939c803812ad593d42517520b"));
    let rms = full.client.resumption().rms;
    let (_, k_c2s, _) = schedule::resume(&rms, &again.hello, &again.resumed);
    assert_eq!(k_c2s.as_bytes()[..8], hex::<8>("0064a559d17100bc"));
}

pub(super) fn flipped<const N: usize>(bytes: &[u8; N], bit: usize) -> [u8; N] {
    let mut bytes = *bytes;
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

/// How a handshake ended that somebody on the path meddled with.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Server(Ended),
    Client(ClientEnded),
    /// Both are content: what must not be.
    Both,
}

/// A full handshake in which `meddle` sees, and may change, each message by its number.
fn meddled(meddle: impl Fn(usize, &mut [u8])) -> Outcome {
    let key = pair::client_key();
    let (hello, wait_c) = pair::attempt(&key, None).hello();
    let mut bytes = *hello.as_bytes();
    meddle(0, &mut bytes);
    let (challenge, wait_s) = match pair::serve_hello(&bytes, None, 0) {
        Ok(Reply::Challenge(challenge, wait)) => (challenge, wait),
        Ok(Reply::Resumed(..)) => panic!("resumed out of nothing"),
        Err(ended) => return Outcome::Server(ended),
    };
    let mut bytes = *challenge.as_bytes();
    meddle(1, &mut bytes);
    let (auth, wait_c) = match pair::client_auth(wait_c, &bytes) {
        Ok(next) => next,
        Err(ended) => return Outcome::Client(ended),
    };
    let mut bytes = *auth.as_bytes();
    meddle(2, &mut bytes);
    let accept = match pair::serve_auth(wait_s, &bytes) {
        Ok((accept, _)) => accept,
        Err(ended) => return Outcome::Server(ended),
    };
    let mut bytes = *accept.as_bytes();
    meddle(3, &mut bytes);
    match wait_c.accept(&bytes, NOW) {
        Ok(_) => Outcome::Both,
        Err(ended) => Outcome::Client(ended),
    }
}

/// What a flipped bit of a header says, whoever reads it.
pub(super) fn header_code(byte: usize) -> Code {
    match byte {
        0..4 => Code::BadMagic,
        4 => Code::BadState,
        5 => Code::BadVersion,
        _ => Code::BadLength,
    }
}

#[test]
fn each_bit_of_a_full_handshake_is_needed() {
    assert_eq!(meddled(|_, _| ()), Outcome::Both);
    let mut refused = 0;
    for (message, size) in [128, 112, 144, 112].into_iter().enumerate() {
        for bit in 0..size * 8 {
            let byte = bit / 8;
            let outcome = meddled(|at, bytes| {
                if at == message {
                    bytes[byte] ^= 1 << (bit % 8);
                }
            });
            let to_server = message % 2 == 0;
            match &outcome {
                Outcome::Both => panic!("bit {bit} of message {message} says nothing"),
                Outcome::Server(ended) if byte < 8 => {
                    assert!(to_server);
                    assert_eq!(ended.code, header_code(byte), "{bit} of {message}");
                }
                Outcome::Client(ended) if byte < 8 => {
                    assert!(!to_server);
                    assert_eq!(*ended, ClientEnded::Fault(header_code(byte)), "{bit} of {message}");
                }
                Outcome::Server(ended) => match (message, byte) {
                    (0, 8) => assert_eq!(ended.code, Code::BadValue),
                    (0, 9..12) => assert_eq!(ended.code, Code::ReservedBits),
                    _ => assert_eq!(ended.code, Code::AuthFailed, "{bit} of {message}"),
                },
                Outcome::Client(ended) if message == 3 => {
                    assert_eq!(*ended, ClientEnded::NotProved, "{bit}");
                }
                Outcome::Client(_) => assert_eq!(message, 1, "{bit}"),
            }
            refused += 1;
        }
    }
    assert_eq!(refused, 496 * 8);
}

/// Each message of a good handshake and a good resume, and an ALERT, by type.
fn messages() -> [(Type, Vec<u8>); 6] {
    let full = pair::full();
    let again = pair::resume(&full);
    [
        (Type::Hello, full.hello.as_bytes().to_vec()),
        (Type::Challenge, full.challenge.as_bytes().to_vec()),
        (Type::Auth, full.auth.as_bytes().to_vec()),
        (Type::Accept, full.accept.as_bytes().to_vec()),
        (Type::Resumed, again.resumed.as_bytes().to_vec()),
        (Type::Alert, Alert::new(Code::Overloaded, 5).as_bytes().to_vec()),
    ]
}

#[test]
fn every_split_asks_for_the_rest_and_no_prefix_is_a_message() {
    for (kind, bytes) in messages() {
        assert_eq!(bytes.len(), kind.size());
        for at in 0..=bytes.len() {
            let progress = progress(&bytes[..at], &Type::ALL).expect("good so far");
            let want = match at {
                0..8 => Progress::More(8 - at),
                _ if at < bytes.len() => Progress::More(bytes.len() - at),
                _ => Progress::Whole(kind),
            };
            assert_eq!(progress, want, "{kind:?} at {at}");
        }
        // What was asked for, and then again, comes to the end in two steps.
        let mut have = 0;
        while let Progress::More(more) = progress(&bytes[..have], &[kind]).expect("good") {
            have += more;
        }
        assert_eq!(have, bytes.len());
        // What follows a message is the next one's.
        let longer = [bytes.as_slice(), &[0xEE]].concat();
        assert_eq!(progress(&longer, &[kind]), Ok(Progress::Whole(kind)));
    }
    for len in 0..Auth::SIZE {
        let auth = &messages()[2].1[..len];
        assert_eq!(Auth::decode(auth), Err(Code::BadLength), "{len}");
    }
}

#[test]
fn a_wrong_byte_is_known_at_once() {
    for first in 0..=255_u8 {
        let said = AwaitHello::new().needs(&[first]);
        let want = if first == 0xF5 { Ok(7) } else { Err(Code::BadMagic.into()) };
        assert_eq!(said, want, "{first}");
        assert!(AwaitHello::new().hello(&[first]).is_err());
    }
    let (_, hello) = &messages()[0];
    for at in 0..8 {
        for wrong in 0..=255_u8 {
            let mut bytes = hello[..=at].to_vec();
            bytes[at] = wrong;
            let good = wrong == hello[at] || at == 6;
            assert_eq!(AwaitHello::new().needs(&bytes).is_ok(), good, "{wrong} at {at}");
        }
    }
    for len in 0..=u16::MAX {
        let mut bytes = hello.clone();
        bytes[6..8].copy_from_slice(&len.to_le_bytes());
        let said = AwaitHello::new().needs(&bytes).map_err(|ended| ended.code);
        assert_eq!(said, if len == 128 { Ok(0) } else { Err(Code::BadLength) });
    }
}

#[test]
fn every_message_in_every_state() {
    let full = pair::full();
    let resumption = full.client.resumption();
    let key = pair::client_key();
    for (kind, bytes) in messages() {
        // The server: nothing has come.
        let said = AwaitHello::new().hello(&bytes).map(drop).map_err(|ended| ended.code);
        assert_eq!(said, if kind == Type::Hello { Ok(()) } else { Err(Code::BadState) });
        // The server: CHALLENGE is out.
        let Ok(Reply::Challenge(_, wait)) = pair::serve_hello(full.hello.as_bytes(), None, 0)
        else {
            panic!("no challenge")
        };
        let said = pair::serve_auth(wait, &bytes).map(drop).map_err(|ended| ended.code);
        assert_eq!(said, if kind == Type::Auth { Ok(()) } else { Err(Code::BadState) });
        // The client: HELLO is out, with and without something to resume.
        for resume in [None, Some(&resumption)] {
            let (_, wait) = pair::attempt(&key, resume).hello();
            let good = match wait.answer(&bytes, NOW) {
                Ok(Answered::Challenged(_)) => kind == Type::Challenge,
                Ok(Answered::Resumed(_)) => kind == Type::Resumed && resume.is_some(),
                Err(ClientEnded::Alert(_)) => kind == Type::Alert,
                Err(ended) => {
                    assert_eq!(ended, ClientEnded::Fault(Code::BadState));
                    matches!(kind, Type::Hello | Type::Auth | Type::Accept)
                        || (kind == Type::Resumed && resume.is_none())
                }
            };
            assert!(good, "{kind:?}, {resume:?}");
        }
        // The client: AUTH is out.
        let (_, wait) = pair::attempt(&key, None).hello();
        let (_, wait) = pair::client_auth(wait, full.challenge.as_bytes()).expect("auth");
        let good = match wait.accept(&bytes, NOW) {
            Ok(_) => kind == Type::Accept,
            Err(ClientEnded::Alert(_)) => kind == Type::Alert,
            Err(ended) => {
                assert_eq!(ended, ClientEnded::Fault(Code::BadState));
                !matches!(kind, Type::Accept | Type::Alert)
            }
        };
        assert!(good, "{kind:?}");
        // Either, once it is done: no handshake begins again, and no ALERT ends it.
        for mut records in [full.client.records(), full.server.records()] {
            assert_eq!(records.next(NOW, &bytes), Err(Code::ReservedBits));
            assert_eq!(records.next(NOW, &bytes), Err(Code::BadState));
        }
    }
}

#[test]
fn types_that_do_not_exist_are_refused() {
    for number in 0..=255_u8 {
        let mut bytes = messages()[0].1.clone();
        bytes[4] = number;
        let known = Type::ALL.iter().find(|kind| **kind as u8 == number);
        assert_eq!(progress(&bytes[..5], &Type::ALL).is_ok(), known.is_some());
        assert_eq!(AwaitHello::new().needs(&bytes).is_ok(), number == 1);
    }
}

/// AUTH as somebody makes it who knows the page and keeps none of its rules.
fn forged_auth(hello: &Hello, challenge: &Challenge, signer: &SigningKey, auth: &Auth) -> Auth {
    let mut auth = *auth;
    let dh = Ephemeral::from_entropy([1; 32]).agree(&challenge.e_s()).expect("contributory");
    let early = schedule::Early::new(&dh, hello, challenge);
    auth.set_sig_c(&signer.sign(&schedule::client_signs(hello, challenge, &auth)));
    auth.set_mac_c(&early.mac_c(hello, challenge, &auth).to_bytes());
    auth
}

/// Keys that nobody alone can sign with: small order in all encodings, and not canonical.
pub(crate) fn bad_keys() -> Vec<[u8; 32]> {
    let mut keys = Vec::new();
    let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let order_8_other = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    let mut small = [hex(order_8), hex(order_8_other), [0; 32], [0; 32], [0; 32]].to_vec();
    // The identity, the point of order 2 (y = -1), those of order 4 (y = 0).
    small[2][0] = 1;
    small[3] = [0xFF; 32];
    small[3][0] = 0xEC;
    small[3][31] = 0x7F;
    // All y that are p or more, which begin with some low byte.
    for low in 0xED..=0xFF_u8 {
        let mut key = [0xFF; 32];
        key[0] = low;
        key[31] = 0x7F;
        small.push(key);
    }
    for key in small {
        let mut negative = key;
        negative[31] |= 0x80;
        keys.extend([key, negative]);
    }
    keys
}

#[test]
fn bad_keys_are_refused_at_every_entry() {
    let full = pair::full();
    let serve = || match pair::serve_hello(full.hello.as_bytes(), None, 0) {
        Ok(Reply::Challenge(_, wait)) => wait,
        _ => panic!("no challenge"),
    };
    let key = pair::client_key();
    for bad in bad_keys() {
        assert!(Identity::new(&bad).is_err(), "{bad:x?}");
        // The client's, in AUTH, everything else as it should be.
        let auth = Auth::new(0, &bad, 8, 65_584, 9);
        let auth = forged_auth(&full.hello, &full.challenge, &key, &auth);
        let ended = pair::serve_auth(serve(), auth.as_bytes()).expect_err("a bad key");
        assert_eq!(ended.code, Code::AuthFailed);
        // The server's, in CHALLENGE.
        let e_s = full.challenge.e_s();
        let challenge = Challenge::new(0, 0, &e_s, &[6; 16], &bad, 7);
        let (_, wait) = pair::attempt(&key, None).hello();
        let ended = pair::client_auth(wait, challenge.as_bytes()).expect_err("a bad key");
        assert!(matches!(ended, ClientEnded::ServerKey(_)), "{ended:?}");
    }
    // The same forger with its own key is taken: it is the key that is refused above.
    let auth = Auth::new(0, key.identity().as_bytes(), 8, 65_584, 9);
    let auth = forged_auth(&full.hello, &full.challenge, &key, &auth);
    assert_eq!(auth, full.auth);
    assert!(pair::serve_auth(serve(), auth.as_bytes()).is_ok());
    // Another's signature for it is not.
    let auth = forged_auth(&full.hello, &full.challenge, &SigningKey::from_seed(&[9; 32]), &auth);
    assert_eq!(
        pair::serve_auth(serve(), auth.as_bytes()).expect_err("not its own").code,
        Code::AuthFailed
    );
}

/// X25519 points of small order, and encodings of them that are not canonical (RFC 7748, 6.1; the
/// list of Curve25519's page).
fn small_x25519() -> Vec<[u8; 32]> {
    let mut points: Vec<[u8; 32]> = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ]
    .map(hex)
    .to_vec();
    for mut point in points.clone() {
        point[31] |= 0x80;
        points.push(point);
    }
    points
}

#[test]
fn agreements_that_do_not_depend_on_both_are_refused() {
    let key = pair::client_key();
    let full = pair::full();
    for point in small_x25519() {
        assert!(Ephemeral::from_entropy([1; 32]).agree(&point).is_none(), "{point:x?}");
        let hello = Hello::new(0, &point, &[5; 16], &[0; 32]);
        let Ok(Reply::Challenge(_, wait)) = pair::serve_hello(hello.as_bytes(), None, 0) else {
            panic!("no challenge")
        };
        let ended = pair::serve_auth(wait, full.auth.as_bytes()).expect_err("not contributory");
        assert_eq!(ended.code, Code::AuthFailed);
        let server = full.challenge.server_id();
        let challenge = Challenge::new(0, 0, &point, &[6; 16], &server, 7);
        let (_, wait) = pair::attempt(&key, None).hello();
        let ended = pair::client_auth(wait, challenge.as_bytes()).expect_err("not contributory");
        assert_eq!(ended, ClientEnded::NotContributory);
    }
}

#[test]
fn nobody_is_his_own_server() {
    let full = pair::full();
    // The client sees it.
    let server = pair::server_key();
    let (_, wait) = pair::attempt(&server, None).hello();
    let ended = pair::client_auth(wait, full.challenge.as_bytes()).expect_err("itself");
    assert_eq!(ended, ClientEnded::OwnKey);
    // The server sees it, whatever the client does: a stolen server key is no client's.
    let Ok(Reply::Challenge(_, wait)) = pair::serve_hello(full.hello.as_bytes(), None, 0) else {
        panic!("no challenge")
    };
    let auth = Auth::new(0, server.identity().as_bytes(), 8, 65_584, 9);
    let auth = forged_auth(&full.hello, &full.challenge, &server, &auth);
    let ended = pair::serve_auth(wait, auth.as_bytes()).expect_err("itself");
    assert_eq!(ended.code, Code::AuthFailed);
}

fn challenge_of(features: u32, bits: u8, versions: (u8, u8)) -> [u8; 112] {
    let full = pair::full();
    let (e_s, server) = (full.challenge.e_s(), full.challenge.server_id());
    let mut bytes = *Challenge::new(features, bits, &e_s, &[6; 16], &server, 7).as_bytes();
    (bytes[13], bytes[14]) = versions;
    bytes
}

#[test]
fn the_clients_rules() {
    let key = pair::client_key();
    let answer = |attempt: Attempt<'_>, bytes: &[u8; 112]| {
        let (_, wait) = attempt.hello();
        wait.answer(bytes, NOW).map(drop)
    };
    let server = pair::server_key().identity();
    let other = SigningKey::from_seed(&[7; 32]).identity();
    let plain = || pair::attempt(&key, None);
    // Pins.
    let good = challenge_of(0, 22, (1, 1));
    assert_eq!(answer(Attempt { pin: Some(server), ..plain() }, &good), Ok(()));
    assert_eq!(
        answer(Attempt { pin: Some(other), ..plain() }, &good),
        Err(ClientEnded::WrongServer { expected: other, shown: *server.as_bytes() })
    );
    // Who has a session to resume knows the server, too.
    let resumption = client::Resumption { server: other, ..pair::full().client.resumption() };
    assert!(matches!(
        answer(pair::attempt(&key, Some(&resumption)), &good),
        Err(ClientEnded::WrongServer { .. })
    ));
    // Features: a subset of what was offered.
    let offered = || Attempt { features: 0b101, ..plain() };
    assert_eq!(answer(offered(), &challenge_of(0b100, 0, (1, 1))), Ok(()));
    assert_eq!(
        answer(offered(), &challenge_of(0b110, 0, (1, 1))),
        Err(ClientEnded::Features(0b010))
    );
    // Puzzles and versions.
    for bits in 0..=255_u8 {
        let want = if bits > 22 { Err(ClientEnded::Puzzle(bits)) } else { Ok(()) };
        assert_eq!(answer(plain(), &challenge_of(0, bits, (1, 1))), want);
    }
    for (low, high) in [(1, 1), (0, 1), (1, 9), (2, 9), (0, 0), (2, 1)] {
        let good = low <= 1 && high >= 1;
        let want = if good { Ok(()) } else { Err(ClientEnded::Version(low, high)) };
        assert_eq!(answer(plain(), &challenge_of(0, 0, (low, high))), want);
    }
    // What is believed only at the end.
    let full = pair::full();
    assert!(full.client.is_first_seen());
    assert_eq!((full.client.server(), full.client.handle()), (server, HANDLE));
    assert_eq!(full.client.granted(), GRANTED);
    assert_eq!(full.client.clock_offset_ms(10), Some(-3));
    assert_eq!(full.client.clock_offset_ms(0), Some(7));
    assert_eq!(full.client.clock_offset_ms(u64::MAX), Some(i64::MIN));
}

#[test]
fn the_server_asks_in_its_order_and_a_no_ends_it() {
    let full = pair::full();
    let no = Answer::No(Ended { code: Code::Rate, retry_ms: 77 });
    let ended = |result: Result<(), Ended>| result.expect_err("a no");
    let greeted = || AwaitHello::new().hello(full.hello.as_bytes()).expect("a HELLO");
    assert_eq!(ended(greeted().address(no).map(drop)), Ended { code: Code::Rate, retry_ms: 77 });
    let Wants::Full(unproven) = greeted().address(Answer::Yes).expect("yes").resume(None) else {
        panic!("nothing to resume")
    };
    assert_eq!(ended(unproven.budget(no).map(drop)).code, Code::Rate);
    let claimed = || match pair::serve_hello(full.hello.as_bytes(), None, 0) {
        Ok(Reply::Challenge(_, wait)) => wait.auth(full.auth.as_bytes()).expect("an AUTH"),
        _ => panic!("no challenge"),
    };
    assert_eq!(ended(claimed().budget(no).map(drop)).code, Code::Rate);
    let verified = || claimed().budget(Answer::Yes).expect("yes").verify().expect("good");
    assert_eq!(verified().client(), pair::client_key().identity());
    assert_eq!((verified().device(), verified().epoch_ms()), (8, 9));
    let (yes, a, b, c) = (
        Answer::Yes,
        Answer::no(Code::Refused),
        Answer::no(Code::Quarantined),
        Answer::no(Code::TooManySessions),
    );
    for (answers, want) in [
        ([a, b, c], Code::Refused),
        ([yes, b, c], Code::Quarantined),
        ([yes, yes, c], Code::TooManySessions),
    ] {
        let [permission, ban, sessions] = answers;
        let said = verified().allow(permission, ban, sessions);
        assert_eq!(ended(said.map(drop)).code, want);
    }
    // Our own faults are not the client's.
    let allowed = || verified().allow(yes, yes, yes).expect("yes");
    let wrong_key = allowed().accept(&SigningKey::from_seed(&[9; 32]), HANDLE, GRANTED, NOW);
    assert_eq!(ended(wrong_key.map(drop)).code, Code::Internal);
    let no_handle = allowed().accept(&pair::server_key(), 0, GRANTED, NOW);
    assert_eq!(ended(no_handle.map(drop)).code, Code::Internal);
    let alert = Ended { code: Code::Rate, retry_ms: 77 }.alert();
    let read = Alert::decode(alert.as_bytes()).expect("an ALERT");
    assert_eq!((read.code(), read.retry_ms(), read.versions()), (0x40, 77, [1, 1]));
}

#[test]
fn which_key_of_the_server_answers() {
    let keys: Vec<Identity> =
        (4..8).map(|seed| SigningKey::from_seed(&[seed; 32]).identity()).collect();
    let stranger = SigningKey::from_seed(&[9; 32]).identity();
    for (hint, want) in [(Some(keys[2]), 2), (Some(keys[0]), 0), (Some(stranger), 0), (None, 0)] {
        let key = pair::client_key();
        let (hello, _) = Attempt { pin: hint, ..pair::attempt(&key, None) }.hello();
        let admitted = AwaitHello::new().hello(hello.as_bytes()).expect("a HELLO");
        let Wants::Full(unproven) = admitted.address(Answer::Yes).expect("yes").resume(None) else {
            panic!("nothing to resume")
        };
        assert_eq!(unproven.budget(Answer::Yes).expect("yes").key_wanted(&keys), want);
    }
}

#[test]
fn a_client_that_takes_too_little_is_refused_once_it_is_known() {
    let full = pair::full();
    let key = pair::client_key();
    for (recv_max, good) in [(0, false), (1_023, false), (1_024, true), (u32::MAX, true)] {
        let Ok(Reply::Challenge(_, wait)) = pair::serve_hello(full.hello.as_bytes(), None, 0)
        else {
            panic!("no challenge")
        };
        let auth = Auth::new(0, key.identity().as_bytes(), 8, recv_max, 9);
        let auth = forged_auth(&full.hello, &full.challenge, &key, &auth);
        let said = pair::serve_auth(wait, auth.as_bytes()).map(drop).map_err(|ended| ended.code);
        assert_eq!(said, if good { Ok(()) } else { Err(Code::BadValue) });
    }
}

#[test]
fn puzzles_are_solved_piece_by_piece_and_checked_before_all_that_costs() {
    for bits in 0..=12_u8 {
        let puzzle = Puzzle::new(&[6; 16], &[bits; 32], bits);
        let (mut from, mut pieces) = (0, 0);
        let piecewise = loop {
            match puzzle.solve(from, 100) {
                Solve::Found(solution) => break solution,
                Solve::More(next) => from = next,
            }
            pieces += 1;
        };
        assert_eq!(puzzle.solve(0, u32::MAX), Solve::Found(piecewise), "{bits}, {pieces}");
        assert!(puzzle.is_solved_by(piecewise));
        assert!((0..piecewise).all(|solution| !puzzle.is_solved_by(solution)));
    }
    let hardest = Puzzle::new(&[6; 16], &[1; 32], 255);
    assert_eq!(hardest.solve(u64::MAX, 3), Solve::More(2));
    assert!(!hardest.is_reasonable());

    let key = pair::client_key();
    let (hello, wait_c) = pair::attempt(&key, None).hello();
    let Ok(Reply::Challenge(challenge, wait_s)) = pair::serve_hello(hello.as_bytes(), None, 10)
    else {
        panic!("no challenge")
    };
    let (auth, _) = pair::client_auth(wait_c, challenge.as_bytes()).expect("auth");
    let wrong = Auth::new(auth.solution() + 1, &auth.client_id(), 8, 65_584, 9);
    let Ok(Reply::Challenge(_, wait_wrong)) = pair::serve_hello(hello.as_bytes(), None, 10) else {
        panic!("no challenge")
    };
    let ended = wait_wrong.auth(wrong.as_bytes()).expect_err("not solved");
    assert_eq!(ended.code, Code::PuzzleRequired);
    assert!(pair::serve_auth(wait_s, auth.as_bytes()).is_ok());
    // A client whose program solved nothing does not say so to the server.
    let (_, wait) = pair::attempt(&key, None).hello();
    let Ok(Answered::Challenged(challenged)) = wait.answer(challenge.as_bytes(), NOW) else {
        panic!("no challenge")
    };
    let ended = challenged.auth(auth.solution() + 1, 8, 9).expect_err("not solved");
    assert_eq!(ended, ClientEnded::Fault(Code::PuzzleRequired));
}

#[test]
fn a_forged_alert_is_a_hint_and_no_more() {
    let key = pair::client_key();
    for number in [0_u16, 0x11, 0x40, 0x7F, 0xFFFF] {
        let mut bytes = *Alert::new(Code::Normal, u32::MAX).as_bytes();
        bytes[8..10].copy_from_slice(&number.to_le_bytes());
        let (_, wait) = pair::attempt(&key, None).hello();
        match wait.answer(&bytes, NOW) {
            Err(ClientEnded::Alert(alert)) => assert_eq!(alert.code(), number),
            other => panic!("{other:?}"),
        }
        bytes[20] = 1;
        let (_, wait) = pair::attempt(&key, None).hello();
        let ended = wait.answer(&bytes, NOW).expect_err("reserved");
        assert_eq!(ended, ClientEnded::Fault(Code::ReservedBits));
    }
}

#[test]
fn a_handshake_that_waits_lies_in_a_slot() {
    let full = pair::full();
    let Ok(Reply::Challenge(_, wait)) = pair::serve_hello(full.hello.as_bytes(), None, 0) else {
        panic!("no challenge")
    };
    let mut slot = wait.park();
    let wait = slot.unpark().expect("parked");
    assert!(slot.unpark().is_none());
    assert!(pair::serve_auth(wait, full.auth.as_bytes()).is_ok());
    let mut zeros: server::ParkedAuth = bytemuck::Zeroable::zeroed();
    assert!(zeros.unpark().is_none());
    let mut zeros: server::ParkedResume = bytemuck::Zeroable::zeroed();
    assert!(zeros.unpark().is_none());
}

#[test]
fn secrets_are_not_printed() {
    let full = pair::full();
    let again = pair::resume(&full);
    let texts = [
        std::format!("{:?}", full.client),
        std::format!("{:?} {:?}", full.server, full.server.held()),
        std::format!("{:?} {:?}", again.client, again.waiting),
        std::format!("{:?} {:?}", pair::client_key(), Ephemeral::from_entropy([1; 32])),
    ];
    let rms = *full.client.resumption().rms.as_bytes();
    for text in texts {
        assert!(text.contains(".."), "{text}");
        for secret in [[3; 32], [1; 32], rms] {
            assert!(!text.contains(&std::format!("{secret:?}")));
            let hex: std::string::String =
                secret.iter().map(|byte| std::format!("{byte:02x}")).collect();
            assert!(!text.contains(&hex));
        }
    }
}

/// ACCEPT as somebody makes it who has the ephemeral secret of a CHALLENGE, signed by `signer`.
fn forged_accept(full: &pair::Full, signer: &SigningKey, handle: u64) -> Accept {
    let (hello, challenge, auth) = (&full.hello, &full.challenge, &full.auth);
    let dh = Ephemeral::from_entropy([2; 32]).agree(&hello.e_c()).expect("contributory");
    let early = schedule::Early::new(&dh, hello, challenge);
    let mut accept = Accept::new(handle, GRANTED);
    accept.set_sig_s(&signer.sign(&schedule::server_signs(hello, challenge, auth, &accept)));
    accept.set_mac_s(&early.mac_s(hello, challenge, auth, &accept).to_bytes());
    accept
}

#[test]
fn who_shows_the_servers_key_and_has_it_not_is_refused() {
    let full = pair::full();
    let key = pair::client_key();
    let says = |accept: &Accept| {
        let (_, wait) = pair::attempt(&key, None).hello();
        let (_, wait) = pair::client_auth(wait, full.challenge.as_bytes()).expect("auth");
        wait.accept(accept.as_bytes(), NOW).map(drop)
    };
    let (server, other) = (pair::server_key(), SigningKey::from_seed(&[9; 32]));
    assert_eq!(says(&forged_accept(&full, &other, HANDLE)), Err(ClientEnded::NotProved));
    assert_eq!(says(&forged_accept(&full, &key, HANDLE)), Err(ClientEnded::NotProved));
    // Its tags are those of the server itself: it is the signature that is refused above.
    assert_eq!(forged_accept(&full, &server, HANDLE), full.accept);
    assert_eq!(says(&full.accept), Ok(()));
    // Nobody's handle, well proved.
    let nobody = forged_accept(&full, &server, 0);
    assert_eq!(says(&nobody), Err(ClientEnded::Fault(Code::BadValue)));
}
