//! Clients that are silent, and lines that are never finished.

use std::time::{Duration, Instant};

use crate::harness::{End, Heard, IDLE_WARNING, Launch, Relay, on_each_engine};

#[test]
fn a_silent_client_in_a_silent_room_is_warned_and_closed() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).set("line.client_timeout_secs", "1").start();
        let begun = Instant::now();
        let mut client = relay.connect();
        client.expect(IDLE_WARNING);
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(950), "warned after {waited:?} already");
        assert_eq!(client.rest(), (Vec::new(), End::Eof));
    });
}

#[test]
fn a_client_that_speaks_is_not_idle_in_a_silent_room() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.client_timeout_secs", "4s").start();
        let mut client = relay.connect();
        let until = Instant::now() + Duration::from_secs(6);
        while Instant::now() < until {
            client.say("");
            assert_eq!(client.hear(Duration::from_millis(150)), Heard::Silence);
        }
        // Once it stops, it is.
        client.expect(IDLE_WARNING);
    });
}

#[test]
fn a_client_that_only_listens_stays_while_the_room_speaks() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.client_timeout_secs", "4").start();
        let [mut speaker, mut listener] = relay.room();
        let until = Instant::now() + Duration::from_secs(6);
        for i in (0..).take_while(|_| Instant::now() < until) {
            speaker.say(&format!("{i}"));
            listener.expect(&speaker.envelope(&format!("{i}")));
            assert_eq!(listener.hear(Duration::from_millis(100)), Heard::Silence);
        }
        listener.expect(IDLE_WARNING);
        listener.expect_closed();
    });
}

#[test]
fn a_client_that_only_listens_is_cut_where_the_operator_wants_the_old_way() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("line.client_timeout_secs", "4")
            .set("line.listening_is_activity", "false")
            .start();
        let [mut speaker, mut listener] = relay.room();
        let deadline = Instant::now() + Duration::from_secs(20);
        for i in 0.. {
            assert!(Instant::now() < deadline, "the listener was never cut");
            speaker.say(&format!("{i}"));
            let heard = listener.line();
            if heard == IDLE_WARNING {
                break;
            }
            assert_eq!(heard, speaker.envelope(&format!("{i}")));
            assert_eq!(speaker.hear(Duration::from_millis(100)), Heard::Silence);
        }
        listener.rest();
    });
}

#[test]
fn nobody_is_idle_where_the_operator_says_never() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).set("line.client_timeout_secs", "0").start();
        stays_for(&relay, Duration::from_secs(3));
    });
}

#[test]
fn a_very_large_idle_time_is_not_a_very_small_one() {
    on_each_engine(|engine| {
        for secs in ["4294967295", "4294967296", "9223372036"] {
            let relay = Launch::new(engine).set("line.client_timeout_secs", secs).start();
            stays_for(&relay, Duration::from_millis(500));
        }
    });
}

#[test]
fn an_unfinished_line_is_closed_and_not_relayed() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("limits.unfinished", "1s").start();
        let [mut speaker, mut listener] = relay.room();
        let begun = Instant::now();
        let mut client = relay.connect();
        client.send(b"never fini");
        client.expect_closed_perhaps_warned();
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(950), "closed after {waited:?} already");
        // Those who have begun nothing are none the worse for the same time.
        speaker.say("end");
        listener.expect(&speaker.envelope("end"));
    });
}

#[test]
fn a_line_that_drips_is_closed_however_lively() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("limits.unfinished", "1s").start();
        let [mut speaker, mut listener] = relay.room();
        let mut client = relay.connect();
        let deadline = Instant::now() + Duration::from_secs(15);
        while client.try_send(b"x").is_ok() {
            assert!(Instant::now() < deadline, "it drips for ever");
            if !matches!(client.hear(Duration::from_millis(100)), Heard::Silence) {
                break;
            }
        }
        client.rest();
        speaker.say("end");
        listener.expect(&speaker.envelope("end"));
    });
}

#[test]
fn an_over_long_line_that_drips_is_closed_too() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("limits.unfinished", "1s")
            .set("line.max_bytes", "1KiB")
            .start();
        let mut client = relay.connect();
        client.send(&[b'x'; 2000]);
        client.expect_warning();
        let deadline = Instant::now() + Duration::from_secs(15);
        while client.try_send(b"x").is_ok() {
            assert!(Instant::now() < deadline, "it drips for ever");
            if matches!(client.hear(Duration::from_millis(100)), Heard::End(..)) {
                break;
            }
        }
    });
}

#[test]
fn a_lively_client_that_finishes_each_line_is_never_unfinished() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("limits.unfinished", "4s").start();
        let [mut speaker, mut listener] = relay.room();
        for i in 0..40 {
            // The end of one line and the beginning of the next come together, always.
            let (begun, content) = (format!("{i}\nbegun "), format!("begun {i}"));
            speaker.send(begun.as_bytes());
            let whole = if i == 0 { "0".to_owned() } else { content };
            listener.expect(&speaker.envelope(&whole));
            assert_eq!(speaker.hear(Duration::from_millis(150)), Heard::Silence);
        }
    });
}

fn stays_for(relay: &Relay, time: Duration) {
    let [mut a, mut b] = relay.room();
    assert_eq!(a.hear(time), Heard::Silence);
    b.say("still here?");
    a.expect(&b.envelope("still here?"));
}
