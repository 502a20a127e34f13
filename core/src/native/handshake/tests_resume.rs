use super::client::{Answered, Attempt, Ended as ClientEnded};
use super::server::{Answer, AwaitHello, FirstRecord, Wants};
use super::tests::{flipped, header_code};
use super::*;
use crate::native::record::{Next, Record};
use crate::native::testing::pair::{self, GRANTED, HANDLE, NOW, Reply};
use crate::native::{Code, Key};

/// A server's side of one resume, with its own nonce.
fn resumes(hello: &Hello, held: &server::Held, n_s: u8) -> (Resumed, server::Waiting) {
    let admitted = AwaitHello::new().hello(hello.as_bytes()).expect("a HELLO");
    let admitted = admitted.address(Answer::Yes).expect("yes");
    assert_eq!(admitted.wants(), Some(held.sid));
    let Wants::Resume(proven) = admitted.resume(Some(held)) else { panic!("not proved") };
    assert_eq!(*proven.sid(), held.sid);
    proven.answer(Answer::Yes, HANDLE, &[n_s; 16], GRANTED, NOW).expect("yes")
}

#[test]
fn each_bit_of_a_resume_is_needed() {
    let full = pair::full();
    let again = pair::resume(&full);
    let held = full.server.held();
    let resumption = full.client.resumption();
    let key = pair::client_key();
    for bit in 0..Hello::SIZE * 8 {
        let bytes = flipped(again.hello.as_bytes(), bit);
        match pair::serve_hello(&bytes, Some(&held), 0) {
            Ok(Reply::Resumed(..)) => panic!("bit {bit} of HELLO says nothing"),
            // As if it had wanted nothing back: the same HELLO goes on, and does not come far.
            Ok(Reply::Challenge(challenge, wait_s)) => {
                let (_, wait_c) = pair::attempt(&key, Some(&resumption)).hello();
                let (auth, _) = pair::client_auth(wait_c, challenge.as_bytes()).expect("auth");
                let ended = pair::serve_auth(wait_s, auth.as_bytes()).expect_err("meddled");
                assert_eq!(ended.code, Code::AuthFailed, "{bit}");
            }
            Err(ended) => match bit / 8 {
                byte @ 0..8 => assert_eq!(ended.code, header_code(byte)),
                8 => assert_eq!(ended.code, Code::BadValue),
                9..12 => assert_eq!(ended.code, Code::ReservedBits),
                _ => panic!("bit {bit}: {ended:?}"),
            },
        }
    }
    for bit in 0..Resumed::SIZE * 8 {
        let (_, wait) = pair::attempt(&key, Some(&resumption)).hello();
        let bytes = flipped(again.resumed.as_bytes(), bit);
        let ended = wait.answer(&bytes, NOW).expect_err("meddled");
        match bit / 8 {
            byte @ 0..8 => assert_eq!(ended, ClientEnded::Fault(header_code(byte))),
            _ => assert_eq!(ended, ClientEnded::NotProved, "{bit}"),
        }
    }
}

#[test]
fn a_stolen_session_id_is_worth_nothing() {
    let full = pair::full();
    let held = full.server.held();
    let key = pair::client_key();
    let mut stolen = full.client.resumption();
    stolen.rms = Key::new([9; 32]);
    let (hello, _) = pair::attempt(&key, Some(&stolen)).hello();
    assert!(matches!(
        pair::serve_hello(hello.as_bytes(), Some(&held), 0),
        Ok(Reply::Challenge(..))
    ));
    // Nor is one that is held by a slot of zeros, or none.
    let nobody = server::Held { sid: [0; 16], rms: Key::new([0; 32]), recv_max: 0 };
    let zeros = client::Resumption { sid: [0; 16], rms: nobody.rms, ..stolen };
    let (hello, _) = pair::attempt(&key, Some(&zeros)).hello();
    let admitted = AwaitHello::new().hello(hello.as_bytes()).expect("a HELLO");
    let admitted = admitted.address(Answer::Yes).expect("yes");
    assert_eq!(admitted.wants(), None);
    assert!(matches!(admitted.resume(Some(&nobody)), Wants::Full(_)));
    // A client whose resume comes to nothing goes on with the same HELLO.
    let resumption = full.client.resumption();
    let (hello, wait_c) = pair::attempt(&key, Some(&resumption)).hello();
    let Ok(Reply::Challenge(challenge, wait_s)) = pair::serve_hello(hello.as_bytes(), None, 0)
    else {
        panic!("no challenge")
    };
    let (auth, wait_c) = pair::client_auth(wait_c, challenge.as_bytes()).expect("auth");
    let (accept, _) = pair::serve_auth(wait_s, auth.as_bytes()).expect("accept");
    let connected = wait_c.accept(accept.as_bytes(), NOW).expect("connected");
    assert!(!connected.is_first_seen());
    assert_ne!(connected.resumption().sid, resumption.sid);
}

#[test]
fn a_resume_is_proved_by_its_first_record_and_by_nothing_else() {
    let full = pair::full();
    let held = full.server.held();
    let key = pair::client_key();
    let resumption = full.client.resumption();
    let (hello, wait) = pair::attempt(&key, Some(&resumption)).hello();
    let (resumed, waiting) = resumes(&hello, &held, 0xA1);
    // Somebody plays the HELLO back: it gets a RESUMED, for which it has no keys.
    let (_, replayed) = resumes(&hello, &held, 0xA2);
    let Ok(Answered::Resumed(client)) = wait.answer(resumed.as_bytes(), NOW) else {
        panic!("not resumed")
    };
    assert_eq!(client.resumption().sid, held.sid);
    assert_eq!(client.clock_offset_ms(0), None);
    let mut records = client.records();
    let ping = records.ping([1; 8]).expect("a ping");
    // The client's PING, played to the other connection, moves nothing.
    assert!(matches!(replayed.record(NOW, &ping), Err(Code::BadTag)));
    // Piece by piece; parked in a slot in between.
    let mut waiting = waiting;
    for at in 0..ping.len() {
        let mut slot = waiting.park();
        waiting = slot.unpark().expect("parked");
        assert!(slot.unpark().is_none(), "its keys are left in the slot");
        match waiting.record(NOW, &ping[..at]) {
            Ok(FirstRecord::More(next, missing)) => {
                assert_eq!(missing, if at < 32 { 32 - at } else { 40 - at });
                waiting = next;
            }
            other => panic!("{other:?} at {at}"),
        }
    }
    let Ok(FirstRecord::Proved(session, next)) = waiting.record(NOW, &ping) else {
        panic!("not proved")
    };
    assert_eq!(next, Next::Record(Record::Ping([1; 8]), 40));
    assert_eq!(*session.sid(), held.sid);
    // It answers, and the client takes the answer.
    let pong = session.records().pong([1; 8]).expect("a pong");
    assert_eq!(records.next(NOW, &pong), Ok(Next::Record(Record::Pong, 40)));
    // Permission is asked again.
    let admitted = AwaitHello::new().hello(hello.as_bytes()).expect("a HELLO");
    let Wants::Resume(proven) = admitted.address(Answer::Yes).expect("yes").resume(Some(&held))
    else {
        panic!("not proved")
    };
    let no = proven.answer(Answer::no(Code::Refused), HANDLE, &[1; 16], GRANTED, NOW);
    assert_eq!(no.map(drop).expect_err("a no").code, Code::Refused);
}

#[test]
fn a_first_record_is_no_larger_than_a_control_value() {
    let full = pair::full();
    let (held, key) = (full.server.held(), pair::client_key());
    let resumption = full.client.resumption();
    let header = |kind: u8, len: u32| {
        let mut header = [0; 16];
        header[0] = kind;
        header[4..8].copy_from_slice(&len.to_le_bytes());
        header
    };
    let (hello, wait) = pair::attempt(&key, Some(&resumption)).hello();
    // From the header, whose rest need not be there.
    for (kind, len) in [(0x10, 257), (0x10, GRANTED.max_payload + 48), (0x10, u32::MAX), (5, 257)] {
        let (_, waiting) = resumes(&hello, &held, 0xA2);
        let front = header(kind, len);
        let said = waiting.record(NOW, &front);
        assert!(matches!(said, Err(Code::TooLarge)), "{kind:x} of {len}");
    }
    for (kind, len) in [(0x10, 256), (5, 256)] {
        let (_, waiting) = resumes(&hello, &held, 0xA2);
        let front = header(kind, len);
        let said = waiting.record(NOW, &front);
        assert!(matches!(said, Ok(FirstRecord::More(_, 16))), "{kind:x} of {len}");
    }
    // Afterwards it takes what it granted.
    let (resumed, waiting) = resumes(&hello, &held, 0xA1);
    let Ok(Answered::Resumed(client)) = wait.answer(resumed.as_bytes(), NOW) else {
        panic!("not resumed")
    };
    let mut records = client.records();
    let ping = records.ping([1; 8]).expect("a ping");
    let mut slot = waiting.park();
    let waiting = slot.unpark().expect("parked");
    let Ok(FirstRecord::Proved(session, _)) = waiting.record(NOW, &ping) else {
        panic!("not proved")
    };
    let mut front = header(0x10, GRANTED.max_payload + 48);
    front[8] = 1;
    assert_eq!(session.records().next(NOW, &front), Ok(Next::More(16)));
    front[4] += 1;
    assert_eq!(session.records().next(NOW, &front), Err(Code::TooLarge));
}

#[test]
fn of_two_resumes_that_race_each_has_its_own_keys() {
    let full = pair::full();
    let held = full.server.held();
    let key = pair::client_key();
    let resumption = full.client.resumption();
    let (hello_a, wait_a) = pair::attempt(&key, Some(&resumption)).hello();
    let attempt_b = Attempt { n_c: [0xBB; 16], ..pair::attempt(&key, Some(&resumption)) };
    let (hello_b, wait_b) = attempt_b.hello();
    let (resumed_a, waiting_a) = resumes(&hello_a, &held, 0xA1);
    let (resumed_b, waiting_b) = resumes(&hello_b, &held, 0xA2);
    // Answers that were swapped are refused.
    let (_, swapped) = pair::attempt(&key, Some(&resumption)).hello();
    let ended = swapped.answer(resumed_b.as_bytes(), NOW).expect_err("the other's");
    assert_eq!(ended, ClientEnded::NotProved);
    let connect = |answered: Result<Answered<'_>, ClientEnded>| match answered {
        Ok(Answered::Resumed(client)) => client.records().ping([2; 8]).expect("a ping"),
        other => panic!("{other:?}"),
    };
    let ping_a = connect(wait_a.answer(resumed_a.as_bytes(), NOW));
    let ping_b = connect(wait_b.answer(resumed_b.as_bytes(), NOW));
    assert!(matches!(waiting_a.record(NOW, &ping_b), Err(Code::BadTag)));
    // Both secrets are good, so either may prove itself; which is first is not said here.
    assert!(matches!(waiting_b.record(NOW, &ping_b), Ok(FirstRecord::Proved(..))));
    let (_, waiting_a) = resumes(&hello_a, &held, 0xA1);
    assert!(matches!(waiting_a.record(NOW, &ping_a), Ok(FirstRecord::Proved(..))));
}

#[test]
fn a_resume_without_a_handle_is_refused() {
    let full = pair::full();
    let key = pair::client_key();
    let resumption = full.client.resumption();
    let (hello, wait) = pair::attempt(&key, Some(&resumption)).hello();
    let mut resumed = Resumed::new(0, &[1; 16], GRANTED);
    let (mac_s, ..) = schedule::resume(&resumption.rms, &hello, &resumed);
    resumed.set_mac_s(&mac_s.to_bytes());
    let ended = wait.answer(resumed.as_bytes(), NOW).expect_err("no handle");
    assert_eq!(ended, ClientEnded::Fault(Code::BadValue));
    // The server's own fault, told as such.
    let admitted = AwaitHello::new().hello(hello.as_bytes()).expect("a HELLO");
    let held = full.server.held();
    let Wants::Resume(proven) = admitted.address(Answer::Yes).expect("yes").resume(Some(&held))
    else {
        panic!("not proved")
    };
    let said = proven.answer(Answer::Yes, 0, &[1; 16], GRANTED, NOW);
    assert_eq!(said.map(drop).expect_err("no handle").code, Code::Internal);
}
