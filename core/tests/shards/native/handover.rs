//! Connections that go to the shard of their client, and who would have them not arrive.

use wardline_core::native::Code;
use wardline_core::native::handshake::Alert;
use wardline_core::{Duration, Handover, Instant, Network, Output, Refusal};

use super::*;

const FAR: usize = 1;
const ACCEPT_BYTES: usize = 112;

/// How an identity begins a connection.
fn attempt<'k>(key: &'k SigningKey, n: u8, resume: Option<&'k Resumption>) -> Attempt<'k> {
    let (e_c, n_c) = (Ephemeral::from_entropy([n; 32]), [n; 16]);
    Attempt { key, pin: None, features: 0, recv_max: 65_584, resume, e_c, n_c }
}

/// HELLO at the first shard, and its CHALLENGE; then AUTH, yet to be said.
fn challenge(both: &mut Both, conn: ConnId, key: &SigningKey, n: u8) -> Vec<u8> {
    let (hello, wait) = attempt(key, n, None).hello();
    both.home.handle_input(NOW, conn, hello.as_bytes());
    both.settle();
    let challenge = both.sent[0].remove(&conn).expect("an answer");
    let Ok(Answered::Challenged(challenged)) = wait.answer(&challenge, NOW) else {
        panic!("no CHALLENGE")
    };
    let Solve::Found(solution) = challenged.puzzle().solve(0, 1 << 20) else { panic!("too hard") };
    let (auth, _wait) = challenged.auth(solution, 1, 1).expect("a good server");
    auth.as_bytes().to_vec()
}

/// Somebody who is at home on the second shard has said AUTH at the first one.
fn handed(both: &mut Both, conn: ConnId, n: u8) -> Handover {
    let auth = challenge(both, conn, &key_at(FAR, n), n);
    both.home.handle_input(NOW, conn, &auth);
    settle_into(&mut both.home, &[], &mut both.sent[0]);
    HANDED.with_borrow_mut(Vec::pop).expect("handed over")
}

/// The code of the ALERT that a connection was sent last.
fn alert(both: &mut Both, shard: usize, conn: ConnId) -> Option<Code> {
    let sent = both.sent[shard].remove(&conn)?;
    Code::from_wire(Alert::decode(&sent).expect("an ALERT").code())
}

#[test]
fn a_proxy_that_speaks_for_itself_is_not_asked_again_where_it_goes() {
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
    const NAMED: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x05\x7f\0\0\x01\x10\x00\x20\x00";
    const OTHER: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x09\x09\x09\x09\x7f\0\0\x01\x10\x00\x20\x00";
    static PROXIES: [Network; 1] = [Network { ip: HERE, bits: 8 }];
    for header in [LOCAL, NAMED] {
        let mut both = Both::new(limits());
        both.home.trust_proxies(&PROXIES);
        both.far.trust_proxies(&PROXIES);
        let native = both.native;
        let conn = accept(&mut both.home, native, HERE);
        both.home.handle_input(NOW, conn, header);
        let mut handover = handed(&mut both, conn, 9);
        let from = handover.addr;
        let conn = both.far.handle_handover(NOW, &mut handover).expect("taken");
        both.settle();
        assert!(both.sent[FAR][&conn].len() > ACCEPT_BYTES);
        assert_eq!(both.far.sessions_held(), 1);
        // What it says now is a record, and no word about where it is.
        both.far.handle_input(NOW, conn, OTHER);
        both.settle();
        assert_eq!(both.far.remote(conn), Some(from));
    }
}

#[test]
fn nobody_is_handed_over_where_sessions_are_not_spread() {
    let mut both = Both::new(limits());
    let client = Client::at(&mut both, FAR, 1);
    let limits = limits();
    let mut alone = one_of(0, 2, limits, Homes::First);
    alone.speak_native(slots(&limits), [9; 32], 1_700_000_000_000).expect("it may");
    let native = alone.listen_native().expect("a door");
    let conn = accept(&mut alone, native, HERE);
    let key = key_at(FAR, 1);
    let (hello, wait) = attempt(&key, 9, Some(&client.resumption)).hello();
    alone.handle_input(NOW, conn, hello.as_bytes());
    let mut sent = Sent::new();
    settle_into(&mut alone, &[], &mut sent);
    let answer = wait.answer(&sent[&conn], NOW);
    assert!(matches!(answer, Ok(Answered::Challenged(_))), "it begins anew");
}

#[test]
fn who_has_proved_who_it_is_does_not_give_way_while_it_moves() {
    let mut limits = limits();
    limits.connections = 40;
    let mut both = Both::new(limits);
    let native = both.native;
    let conn = accept(&mut both.home, native, HERE);
    let auth = challenge(&mut both, conn, &key_at(FAR, 9), 9);
    // As many as there are places, in the same turn.
    let others: Vec<ConnId> =
        (0..17).map(|n| accept(&mut both.home, native, [10, 0, n, 1].into())).collect();
    both.home.handle_input(NOW, conn, &auth);
    for (conn, n) in others.into_iter().zip(50..) {
        let key = key_at(0, 20);
        both.home.handle_input(NOW, conn, attempt(&key, n, None).hello().0.as_bytes());
        both.home.check();
    }
    settle_into(&mut both.home, &[], &mut both.sent[0]);
    let (shard, conn) = both.arrive().expect("it moves");
    assert!(shard == FAR && both.sent[FAR][&conn].len() > ACCEPT_BYTES);
}

#[test]
fn a_home_answers_no_more_of_those_that_others_verified_than_it_may() {
    let mut limits = limits();
    limits.native.handshakes_total_per_second = 2;
    let mut both = Both::new(limits);
    let native = both.native;
    for n in 1..=4 {
        let conn = accept(&mut both.home, native, HERE);
        let mut handover = handed(&mut both, conn, n);
        let conn = both.far.handle_handover(NOW, &mut handover).expect("taken");
        both.settle();
        assert!(both.sent[FAR][&conn].len() > ACCEPT_BYTES);
    }
    assert_eq!(both.far.sessions_held(), 4);
    // Its own shard has had as many, too; this one comes through a third.
    let mut third = Both::new(super::limits());
    let conn = accept(&mut third.home, native, HERE);
    let mut handover = handed(&mut third, conn, 5);
    let conn = both.far.handle_handover(NOW, &mut handover).expect("taken");
    both.settle();
    assert_eq!(alert(&mut both, FAR, conn), Some(Code::Rate));
    assert_eq!(both.far.sessions_held(), 4);
}

#[test]
fn a_handshake_has_no_more_time_for_having_moved() {
    let mut both = Both::new(limits());
    let client = Client::at(&mut both, FAR, 1);
    let native = both.native;
    let handshake = both.far.limits().native.handshake;
    let conn = accept(&mut both.home, native, HERE);
    let later = NOW.after(Duration::from_nanos(handshake.as_nanos() * 3 / 4));
    let key = key_at(FAR, 1);
    let (hello, _wait) = attempt(&key, 9, Some(&client.resumption)).hello();
    let (front, rest) = hello.as_bytes().split_at(10);
    both.home.handle_input(NOW, conn, front);
    both.home.handle_input(later, conn, rest);
    settle_into(&mut both.home, &[], &mut both.sent[0]);
    let mut handover = HANDED.with_borrow_mut(Vec::pop).expect("handed over");
    both.sent[FAR].clear();
    let conn = both.far.handle_handover(later, &mut handover).expect("taken");
    let ends = |relay: &mut Shard, at: Instant| {
        relay.handle_timeout(at);
        let mut ends = false;
        loop {
            match relay.poll_output() {
                Output::Close(of) => ends |= of == conn,
                Output::Wait(_) => return ends,
                _ => {}
            }
        }
    };
    let soon = Duration::from_nanos(handshake.as_nanos() - 50_000_000);
    assert!(!ends(&mut both.far, NOW.after(soon)), "in time");
    assert!(ends(&mut both.far, NOW.after(handshake)), "too late");
}

#[test]
fn what_moves_is_counted_where_it_came_in_and_taken_once() {
    let mut both = Both::new(limits());
    let client = Client::at(&mut both, FAR, 1);
    let native = both.native;
    let before = [*both.home.stats(), *both.far.stats()];
    let conn = accept(&mut both.home, native, HERE);
    let key = key_at(FAR, 1);
    let (hello, _wait) = attempt(&key, 9, Some(&client.resumption)).hello();
    both.home.handle_input(NOW, conn, hello.as_bytes());
    both.settle();
    let (shard, _) = both.arrive().expect("it moves");
    assert_eq!(shard, FAR);
    let [home, far] = [*both.home.stats(), *both.far.stats()];
    let said = hello.as_bytes().len() as u64;
    assert_eq!(home.bytes_in.value() - before[0].bytes_in.value(), said);
    assert_eq!(far.bytes_in.value(), before[1].bytes_in.value());
    assert_eq!(home.accepted.value() - home.closed.value(), u64::from(both.home.connections()));
    assert_eq!(far.accepted.value() - far.closed.value(), u64::from(both.far.connections()));
    // The keys of who was taken are gone.
    let conn = accept(&mut both.home, native, HERE);
    let mut handover = handed(&mut both, conn, 9);
    both.far.handle_handover(NOW, &mut handover).expect("taken");
    let held = both.far.sessions_held();
    let conn = both.far.handle_handover(NOW, &mut handover).expect("taken");
    both.settle();
    assert_ne!(alert(&mut both, FAR, conn), None, "nobody");
    assert_eq!(both.far.sessions_held(), held);
}

#[test]
fn an_address_has_no_more_sessions_on_a_shard_for_coming_in_at_another() {
    let mut limits = limits();
    limits.quarantine.connections_per_prefix = 3;
    let mut both = Both::new(limits);
    let native = both.native;
    for n in 0..5 {
        let conn = accept(&mut both.home, native, HERE);
        let mut handover = handed(&mut both, conn, n);
        both.settle();
        let taken = both.far.handle_handover(NOW, &mut handover);
        assert_eq!(taken.err(), (n >= 3).then_some(Refusal::TooManyFromAddress), "{n}");
        both.settle();
    }
    assert_eq!(both.far.sessions_held(), 3);
}

#[test]
fn who_has_proved_who_it_is_does_not_wait_behind_strangers_where_it_goes() {
    let mut limits = limits();
    limits.native.half_open_per_prefix = 2;
    let mut both = Both::new(limits);
    let native = both.native;
    let conn = accept(&mut both.home, native, HERE);
    let mut handover = handed(&mut both, conn, 9);
    // As many of its address as may be silent there.
    for _ in 0..2 {
        let _ = accept(&mut both.far, native, HERE);
    }
    let conn = both.far.handle_handover(NOW, &mut handover).expect("taken");
    both.settle();
    assert!(both.sent[FAR][&conn].len() > ACCEPT_BYTES);
}
