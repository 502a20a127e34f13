//! The rules of one connection: order, times, ends.

use super::*;
use crate::native::testing::pair::GRANTED;
use crate::time::Duration;

fn at(s: u64) -> Instant {
    NOW.after(Duration::from_secs(s))
}

/// A session on a connection that is ready, and its relay.
fn ready() -> (Session<Lent>, Relay) {
    let (mut session, mut relay) = (session(), Relay::new());
    assert!(!connect(&mut session, &mut relay, NOW));
    settle(&mut session, &mut relay, NOW);
    assert!(session.is_ready());
    (session, relay)
}

/// What the relay has to say is heard.
fn settle(session: &mut Session<Lent>, relay: &mut Relay, now: Instant) {
    let out = std::mem::take(&mut relay.out);
    assert_eq!(feed(session, now, &out, |_, _| {}), Ok(out.len()));
}

#[test]
fn nothing_goes_out_before_taken_and_a_second_one_is_refused() {
    let (mut session, mut relay) = (session(), Relay::new());
    session.enqueue().expect("room");
    connect(&mut session, &mut relay, NOW);
    assert_eq!(session.poll_output(NOW), None);
    assert_eq!(session.frames(1_000, &[0; 48]), Err(Code::BadState));
    assert!(session.control(&ClientControl::Unsubscribe { topic: 1 }).is_err());
    // Byte by byte.
    let out = std::mem::take(&mut relay.out);
    for end in 0..out.len() {
        assert!(matches!(session.handle_input(NOW, &out[..end]), Ok(Got::More(_))), "{end}");
    }
    let Ok(Got::Record(Took::Ready(ready), len)) = session.handle_input(NOW, &out) else {
        panic!("not ready")
    };
    assert_eq!((ready, len), (Ready { resumed: false, lost: None }, out.len()));
    assert_eq!(session.next_unsent(), Some(1_000));
    relay.say_taken();
    let out = std::mem::take(&mut relay.out);
    assert_eq!(session.handle_input(NOW, &out), Err(Code::BadState));
}

#[test]
fn what_comes_before_taken_is_a_fault() {
    for nth in 0..2 {
        let (mut session, mut relay) = (session(), Relay::new());
        connect(&mut session, &mut relay, NOW);
        let taken = relay.out.len();
        relay.records = relay.held.map(|_| pair::full().server.records());
        relay.out.drain(..taken);
        match nth {
            0 => relay.say_direct(),
            _ => relay.control(&ServerControl::Done { ask: 1, next: 0 }),
        }
        let out = std::mem::take(&mut relay.out);
        assert_eq!(session.handle_input(NOW, &out), Err(Code::BadState));
        session.fault(Code::BadState);
        assert!(session.poll_output(NOW).is_some() && session.is_closed());
        assert!(session.resumption().is_none(), "its tag was right: it is the relay's own");
    }
}

#[test]
fn what_somebody_on_the_path_can_change_costs_no_session() {
    for at in 0..32 {
        let (mut session, mut relay) = ready();
        relay.say_direct();
        let mut out = std::mem::take(&mut relay.out);
        out[at] ^= 1;
        // So much that no length waits for more.
        out.resize(2_000, 0);
        let fault = session.handle_input(NOW, &out).expect_err("it was changed");
        session.fault(fault);
        assert!(session.resumption().is_some(), "byte {at}: {fault:?}");
        let close = flush(&mut session, NOW);
        let records = relay.records.as_mut().expect("a connection");
        let Ok(Next::Record(Record::Close(close), 48)) = records.next(NOW, &close) else {
            panic!("no close")
        };
        let code = Code::from_wire(close.code).expect("a code");
        assert!(code.session_survives(), "byte {at}: {code:?}");
        let named = matches!(fault, Code::BadTag | Code::BadSeq);
        assert_eq!(close.detail, if named { 0 } else { fault.wire() }, "byte {at}");
        assert!(connect(&mut session, &mut relay, NOW), "it has its session back");
    }
}

#[test]
fn pings_keep_time_and_are_barriers() {
    let (mut session, mut relay) = ready();
    assert_eq!(session.deadline(), at(30));
    assert_eq!(session.poll_output(at(29)), None);
    let ping = flush(&mut session, at(30));
    assert_eq!(ping.len(), 40);
    // One under way; the next is asked for meanwhile.
    session.enqueue().expect("room");
    assert_eq!(session.barrier(), 2);
    let sent = flush(&mut session, at(31));
    assert_eq!(sent.len(), 32 + 48 + 5);
    assert_eq!(session.deadline(), at(90));
    relay.take(at(31), &ping);
    let out = std::mem::take(&mut relay.out);
    let mut pongs = Vec::new();
    let mut note = |_: &mut Session<Lent>, took: Took<'_>| {
        if let Took::Pong(number, rtt) = took {
            pongs.push((number, rtt));
        }
    };
    feed(&mut session, at(32), &out, &mut note).expect("good");
    assert_eq!(session.poll_settled(), None, "it was sent after the PING");
    relay.take(at(32), &sent);
    relay.take(at(32), &flush(&mut session, at(32)));
    let out = std::mem::take(&mut relay.out);
    feed(&mut session, at(35), &out, &mut note).expect("good");
    assert_eq!(pongs, [(1, Duration::from_secs(2)), (2, Duration::from_secs(3))]);
    assert_eq!(session.poll_settled(), Some((1_000, Fate::Taken)));
    assert!(session.is_settled());
    // The relay's PINGs are answered.
    let ping = relay.records.as_mut().expect("a connection").ping([9; 8]).expect("a PING");
    feed(&mut session, at(36), &ping, |_, _| {}).expect("good");
    let pong = flush(&mut session, at(36));
    let next = relay.records.as_mut().expect("a connection").next(at(36), &pong);
    assert_eq!(next, Ok(Next::Record(Record::Pong, 40)));
}

#[test]
fn silence_ends_it_unless_nobody_listened() {
    let (mut session, _relay) = ready();
    assert_eq!(session.ended(at(89)), None);
    assert_eq!(session.ended(at(90)), Some(End::Silent));
    session.not_reading(at(60));
    assert_eq!(session.ended(at(90)), None);
    assert_eq!(session.ended(at(150)), Some(End::Silent));
    session.handle_lost();
    assert_eq!((session.ended(at(150)), session.deadline()), (None, Instant::NEVER));
    assert!(session.resumption().is_some());
}

#[test]
fn a_ping_before_taken_covers_nothing() {
    let (mut session, mut relay) = ready();
    session.enqueue().expect("room");
    flush(&mut session, NOW);
    session.handle_lost();
    // The message was lost on the way; the resume's PING is answered before `Taken` is read.
    assert!(connect(&mut session, &mut relay, NOW));
    settle(&mut session, &mut relay, NOW);
    assert_eq!((session.poll_settled(), session.next_unsent()), (None, Some(1_000)));
    // Once more, where the relay has taken something.
    let first = flush(&mut session, NOW);
    relay.take(NOW, &first);
    session.enqueue().expect("room");
    flush(&mut session, NOW);
    assert!(connect(&mut session, &mut relay, NOW));
    settle(&mut session, &mut relay, NOW);
    assert_eq!(session.poll_settled(), Some((1_000, Fate::Taken)));
    assert_eq!(session.poll_settled(), None);
    assert_eq!(session.next_unsent(), Some(1_001));
}

#[test]
fn a_session_that_was_never_ready_is_not_the_one_of_before() {
    let (mut session, mut relay) = ready();
    session.enqueue().expect("room");
    let sent = flush(&mut session, NOW);
    relay.take(NOW, &sent);
    // The relay is started anew, and the first connection to it is cut before `Taken` is read.
    relay.forget();
    assert!(!connect(&mut session, &mut relay, NOW));
    session.handle_lost();
    assert!(connect(&mut session, &mut relay, NOW), "that session is resumed");
    let out = std::mem::take(&mut relay.out);
    let mut resumed = None;
    feed(&mut session, NOW, &out, |_, took| {
        if let Took::Ready(ready) = took {
            resumed = Some(ready.resumed);
        }
    })
    .expect("good");
    // Whoever used it does not know that session, and nobody knows of the message.
    assert_eq!(resumed, Some(false));
    assert_eq!(session.poll_settled(), Some((1_000, Fate::Unsure)));
}

/// Resumes, and hears `Taken` from a relay whose window is gone: the fates, and what goes out.
fn resumed_by_a_relay_that_forgot_its_window(
    session: &mut Session<Lent>,
    relay: &mut Relay,
) -> (Vec<(u64, Fate)>, Option<u64>) {
    relay.window = Window1024::NEW;
    session.handle_lost();
    assert!(connect(session, relay, NOW), "it is resumed");
    settle(session, relay, NOW);
    (std::iter::from_fn(|| session.poll_settled()).collect(), session.next_unsent())
}

#[test]
fn a_resume_that_holds_nothing() {
    use Fate::{Taken, Unsure};
    // Nothing of the session was taken, and it is the one that everything went out in: it goes out
    // again, for a relay that held the session held its window, too.
    let (mut session, mut relay) = ready();
    session.enqueue().expect("room");
    flush(&mut session, NOW);
    let after = resumed_by_a_relay_that_forgot_its_window(&mut session, &mut relay);
    assert_eq!(after, (Vec::new(), Some(1_000)));
    // Something of it was taken, and the client knows it, in whichever way: the relay that says
    // nothing was has lost its window. What is unsure is told, and not sent again.
    let knows: [fn(&mut Session<Lent>, &mut Relay); 5] = [
        |_, relay| relay.control(&ServerControl::Nack { mid: 1_000, code: 0x53, retry_ms: 0 }),
        |_, relay| relay.control(&ServerControl::Verdict { mid: 1_000, offset: 0, readers: 0 }),
        |session, _| session.echo(1_000),
        |session, relay| {
            session.barrier();
            relay.take(NOW, &flush(session, NOW));
        },
        |session, relay| {
            // `Taken` itself said it, on a connection before.
            relay.window.mark(1_000);
            session.handle_lost();
            assert!(connect(session, relay, NOW));
        },
    ];
    for (nth, know) in knows.into_iter().enumerate() {
        let (mut session, mut relay) = ready();
        session.enqueue().expect("room");
        let sent = flush(&mut session, NOW);
        relay.take(NOW, &sent);
        know(&mut session, &mut relay);
        settle(&mut session, &mut relay, NOW);
        session.enqueue().expect("room");
        flush(&mut session, NOW);
        let after = resumed_by_a_relay_that_forgot_its_window(&mut session, &mut relay);
        assert_eq!(after, (std::vec![(1_000, Taken), (1_001, Unsure)], None), "{nth}");
        // A relay that lost it once is believed no more the second time.
        session.enqueue().expect("room");
        flush(&mut session, NOW);
        let after = resumed_by_a_relay_that_forgot_its_window(&mut session, &mut relay);
        assert_eq!(after, (std::vec![(1_002, Unsure)], None), "{nth}");
    }
}

#[test]
fn a_resume_before_taken_was_ever_read_sends_what_waits() {
    let (mut session, mut relay) = (session(), Relay::new());
    session.enqueue().expect("room");
    assert!(!connect(&mut session, &mut relay, NOW));
    session.handle_lost();
    assert!(connect(&mut session, &mut relay, NOW));
    settle(&mut session, &mut relay, NOW);
    // Nothing was ever sent, so nothing is unsure.
    assert_eq!((session.poll_settled(), session.next_unsent()), (None, Some(1_000)));
    // And once more, now that the relay of this session is known: sent, and not taken.
    flush(&mut session, NOW);
    session.handle_lost();
    assert!(connect(&mut session, &mut relay, NOW));
    settle(&mut session, &mut relay, NOW);
    assert_eq!((session.poll_settled(), session.next_unsent()), (None, Some(1_000)));
}

#[test]
fn keys_are_changed_in_time() {
    let (mut session, mut relay) = ready();
    let mut rekeyed = 0;
    for minute in 1..=200 {
        let now = at(minute * 60);
        session.enqueue().expect("room");
        let mut out = Vec::new();
        while let Some(small) = session.poll_output(now) {
            rekeyed += usize::from(small.as_bytes().len() == 32);
            out.extend_from_slice(small.as_bytes());
        }
        out.extend_from_slice(&flush(&mut session, now));
        // The relay's own key is as old.
        let records = relay.records.as_mut().expect("a connection");
        if records.sending.rekey_due(now) {
            let rekey = records.sending.rekey(now).expect("a REKEY");
            relay.out.extend_from_slice(&rekey);
        }
        relay.take(now, &out);
        settle(&mut session, &mut relay, now);
        while session.poll_settled().is_some() {}
    }
    assert_eq!(rekeyed, 3);
    assert_eq!(relay.taken.len(), 200);
}

#[test]
fn a_close_counts_what_was_taken_and_says_what_survives() {
    for (code, survives) in [
        (Code::Normal, false),
        (Code::GoingAway, false),
        (Code::Idle, true),
        (Code::BadTag, true),
        (Code::SlowReader, true),
        (Code::Superseded, false),
    ] {
        let (mut session, mut relay) = ready();
        session.enqueue().expect("room");
        let first = flush(&mut session, NOW);
        session.enqueue().expect("room");
        let second = flush(&mut session, NOW);
        relay.take(NOW, &first);
        relay.close(code, 5);
        let out = std::mem::take(&mut relay.out);
        let mut closes = 0;
        feed(&mut session, NOW, &out, |_, took| {
            assert!(matches!(took, Took::Close(close) if close.code == code.wire()));
            closes += 1;
        })
        .expect("good");
        assert_eq!(closes, 1);
        assert_eq!(session.poll_settled(), Some((1_000, Fate::Taken)));
        assert_eq!((session.poll_settled(), session.counts()), (None, (1, 0)));
        assert_eq!(session.resumption().is_some(), survives, "{code:?}");
        assert!(session.is_over());
        assert!(!session.is_covered(), "the second message was not taken");
        // The answer says the same, so that it does not end what survives.
        let answer = flush(&mut session, NOW);
        assert_eq!(session.ended(NOW), Some(End::Clean));
        let records = relay.records.as_mut().expect("a connection");
        assert!(matches!(records.next(NOW, &second), Ok(Next::Record(Record::Dropped, _))));
        let Ok(Next::Record(Record::Close(close), _)) = records.next(NOW, &answer) else {
            panic!("no CLOSE")
        };
        assert_eq!(close.code, code.wire());
        assert!(records.is_clean());
    }
}

#[test]
fn who_closes_first_waits_for_the_answer() {
    let (mut session, mut relay) = ready();
    session.enqueue().expect("room");
    let sent = flush(&mut session, NOW);
    session.close(Code::Normal);
    assert!(!session.is_ready() && !session.is_closed());
    let close = flush(&mut session, NOW);
    assert!(session.is_closed() && session.poll_output(at(60)).is_none());
    assert_eq!(session.deadline(), at(2));
    assert_eq!((session.ended(at(1)), session.ended(at(2))), (None, Some(End::Unanswered)));
    assert!(session.resumption().is_none());
    relay.take(NOW, &sent);
    relay.take(NOW, &close);
    assert!(!session.is_covered());
    settle(&mut session, &mut relay, at(1));
    assert!(session.is_covered());
    assert_eq!(session.ended(at(1)), Some(End::Clean));
    assert_eq!(session.poll_settled(), Some((1_000, Fate::Taken)));
    assert!(session.is_settled());
}

#[test]
fn refusals_and_echoes_settle_one_message() {
    let (mut session, mut relay) = ready();
    for _ in 0..5 {
        session.enqueue().expect("room");
    }
    flush(&mut session, NOW);
    for (mid, code) in [(1_001, Code::Busy), (1_002, Code::Duplicate), (1_003, Code::Stale)] {
        relay.control(&ServerControl::Nack { mid, code: code.wire(), retry_ms: 0 });
    }
    // Of what is long settled, or was never said.
    relay.control(&ServerControl::Nack { mid: 3, code: 0x54, retry_ms: 0 });
    settle(&mut session, &mut relay, NOW);
    session.echo(1_000);
    session.echo(1_004);
    session.echo(9_999);
    let fates: Vec<_> = std::iter::from_fn(|| session.poll_settled()).collect();
    use Fate::{Refused, Taken, Unsure};
    let wanted = [Taken, Refused, Taken, Unsure, Taken];
    assert!(fates.iter().map(|(_, fate)| *fate).eq(wanted), "{fates:?}");
    assert_eq!(GRANTED.max_payload, 65_536);
}

#[test]
fn numbers_of_a_peers_frames_go_forward() {
    let (mut session, _relay) = ready();
    let frame = |offset| FrameHeader { kind: FrameKind::Direct, topic: 0, offset, ..publish(1) };
    assert_eq!(session.direct(&frame(0)), Ok(None));
    assert_eq!(session.direct(&frame(1)), Ok(None));
    assert_eq!(session.direct(&frame(4)), Ok(Some(DirectLost { from: 2, to: 4 })));
    assert_eq!(session.direct(&frame(4)), Err(Code::BadValue));
    assert_eq!(session.direct(&frame(5)), Ok(None));
}
