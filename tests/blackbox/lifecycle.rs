//! Start, signals, and the end.

use std::net::TcpListener;

use crate::harness::{Client, Launch, Outcome, Relay, on_each_engine, wardline};

#[test]
fn the_start_line_says_where_with_which_engine_and_how_to_try_it() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).start();
        let port = relay.address().port();
        relay.wait_for_log(&format!("nc 127.0.0.1 {port}"));
        let log = relay.log();
        assert!(log.contains(&format!("127.0.0.1:{port}")), "not where: {log}");
        assert!(log.contains(engine), "not with which engine: {log}");
    });
}

#[test]
fn the_ports_file_names_every_listener_in_order() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .listen("line://127.0.0.1:0/b")
            .listen("line://127.0.0.1:0/a")
            .start();
        let text = std::fs::read_to_string(relay.dir().join("ports")).expect("it is there");
        let [b, a] = [relay.address_of(0).port(), relay.address_of(1).port()];
        assert_eq!(text, format!("line://127.0.0.1:{b}/b\nline://127.0.0.1:{a}/a\n"));
        let [mut first, mut second] = [relay.connect_to(0), relay.connect_to(0)];
        relay.seat([&mut first, &mut second]);
    });
}

#[test]
fn the_pid_file_names_the_process() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).arguments(&["--pid-file", "pid"]).start();
        let text = std::fs::read_to_string(relay.dir().join("pid")).expect("it is there");
        assert_eq!(text.trim(), relay.pid().to_string());
    });
}

#[test]
fn a_port_that_is_taken_is_said_with_exit_code_4() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    on_each_engine(|engine| {
        let url = format!("line://{address}");
        let outcome = Outcome::of(wardline().args(["serve", "--engine", engine, "--listen", &url]));
        assert_eq!(outcome.code, Some(4), "{outcome:?}");
        assert!(outcome.said().contains(&address), "which port? {outcome:?}");
        assert!(outcome.said().contains("in use"), "why? {outcome:?}");
        assert!(!outcome.said().contains("panicked"), "{outcome:?}");
    });
}

#[test]
fn plain_wardline_serves() {
    // With a port that is taken, it shows what it would do without doing it.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("line://{}", taken.local_addr().expect("bound"));
    let outcome = Outcome::of(wardline().args(["--listen", &url]));
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
}

#[test]
fn one_listener_that_cannot_be_bound_is_one_too_many() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("line://{}", taken.local_addr().expect("bound"));
    on_each_engine(|engine| {
        let outcome = Outcome::of(wardline().args([
            "serve",
            "--engine",
            engine,
            "--listen",
            "line://127.0.0.1:0",
            "--listen",
            &url,
        ]));
        assert_eq!(outcome.code, Some(4), "{outcome:?}");
    });
}

#[test]
fn a_relay_that_is_killed_and_started_again_can_be_bound_again() {
    on_each_engine(|engine| {
        let first = Launch::new(engine).start();
        let [mut a, _b]: [Client; 2] = first.room();
        let url = first.urls()[0].clone();
        a.say("in the middle of life");
        drop(first);
        let second: Relay = Launch::new(engine).listen(&url).start();
        assert_eq!(second.urls()[0], url);
        let [mut a, mut b]: [Client; 2] = second.room();
        a.say("again");
        b.expect(&a.envelope("again"));
    });
}

/// How it ends when it is told to.
#[cfg(unix)]
mod endings {
    use std::time::{Duration, Instant};

    use rustix::process::Signal;

    use super::*;
    use crate::harness::{End, PATIENCE, SHUTDOWN_WARNING};

    /// The signals that end a relay in order.
    const ENDINGS: [Signal; 2] = [Signal::TERM, Signal::INT];

    #[test]
    fn at_shutdown_every_client_gets_the_warning_and_then_the_end() {
        on_each_engine(|engine| {
            for signal in ENDINGS {
                let mut relay = Launch::new(engine).start();
                let mut room: [Client; 20] = relay.room();
                relay.signal(signal);
                for client in &mut room {
                    client.expect(SHUTDOWN_WARNING);
                    assert_eq!(client.rest(), (Vec::new(), End::Eof));
                }
                drop(room);
                assert_eq!(relay.wait(PATIENCE).code(), Some(0), "{signal:?}");
            }
        });
    }

    #[test]
    fn at_shutdown_what_is_queued_is_delivered_before_the_warning() {
        on_each_engine(|engine| {
            for signal in ENDINGS {
                let mut relay = Launch::talkative(engine).start();
                let [mut speaker, mut witness] = relay.room();
                let mut late = relay.dial().receive_buffer(4096).connect();
                relay.seat([&mut speaker, &mut witness, &mut late]);
                let lines = publish_to(&mut speaker, &mut witness, 4 << 20);
                relay.signal(signal);
                witness.expect(SHUTDOWN_WARNING);
                for line in lines {
                    late.expect(&line);
                }
                late.expect(SHUTDOWN_WARNING);
                late.expect_closed();
                drop((speaker, witness, late));
                assert_eq!(relay.wait(PATIENCE).code(), Some(0), "{signal:?}");
            }
        });
    }

    #[test]
    fn a_drain_is_over_when_its_time_is_whoever_does_not_read() {
        on_each_engine(|engine| {
            let mut relay = Launch::talkative(engine).set("limits.drain", "1s").start();
            let [mut speaker, mut witness] = relay.room();
            let mut stuck = relay.dial().receive_buffer(4096).connect();
            relay.seat([&mut speaker, &mut witness, &mut stuck]);
            publish_to(&mut speaker, &mut witness, 8 << 20);
            let begun = Instant::now();
            relay.signal(ENDINGS[0]);
            witness.expect(SHUTDOWN_WARNING);
            witness.expect_closed();
            let status = relay.wait(PATIENCE);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(8), "a drain of 1 s took {took:?}");
            assert_eq!(status.code(), Some(0));
        });
    }

    #[test]
    fn many_are_not_all_told_in_the_same_moment() {
        on_each_engine(|engine| {
            let mut relay = Launch::talkative(engine).start();
            let mut clients: Vec<Client> = (0..600).map(|_| relay.connect()).collect();
            relay.seat(&mut clients);
            let begun = Instant::now();
            relay.signal(ENDINGS[0]);
            for client in &mut clients {
                client.expect(SHUTDOWN_WARNING);
                client.expect_closed();
            }
            // 256 at once, and again 100 ms later, and the rest 100 ms after that.
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(200), "all were told within {took:?}");
            assert_eq!(relay.wait(PATIENCE).code(), Some(0));
        });
    }

    #[test]
    fn a_second_signal_ends_the_drain_at_once() {
        on_each_engine(|engine| {
            for signal in ENDINGS {
                let mut relay = Launch::talkative(engine).set("limits.drain", "60s").start();
                let [mut speaker, mut witness] = relay.room();
                let mut stuck = relay.dial().receive_buffer(4096).connect();
                relay.seat([&mut speaker, &mut witness, &mut stuck]);
                publish_to(&mut speaker, &mut witness, 8 << 20);
                relay.signal(signal);
                witness.expect(SHUTDOWN_WARNING);
                assert!(relay.is_running(), "it did not wait for the one that still has to read");
                relay.signal(signal);
                relay.wait(PATIENCE);
            }
        });
    }

    #[test]
    fn nobody_comes_in_while_it_drains() {
        on_each_engine(|engine| {
            let relay = Launch::talkative(engine).set("limits.drain", "60s").start();
            let [mut speaker, mut witness] = relay.room();
            let mut stuck = relay.dial().receive_buffer(4096).connect();
            relay.seat([&mut speaker, &mut witness, &mut stuck]);
            publish_to(&mut speaker, &mut witness, 8 << 20);
            relay.signal(ENDINGS[0]);
            witness.expect(SHUTDOWN_WARNING);
            if let Ok(mut newcomer) = relay.dial().try_connect() {
                newcomer.expect_closed_perhaps_warned();
            }
        });
    }

    /// Publishes so many bytes in lines of 16 KiB, has `witness` read them all, and returns them as
    /// others receive them: then all of them stand in the relay for those who have not read.
    fn publish_to(speaker: &mut Client, witness: &mut Client, bytes: usize) -> Vec<String> {
        let body = "x".repeat(16 << 10);
        (0..bytes >> 14)
            .map(|i| {
                let content = format!("{i} {body}");
                speaker.say(&content);
                let line = speaker.envelope(&content);
                witness.expect(&line);
                line
            })
            .collect()
    }
}

/// Signals that only code for Unix can tell apart.
#[cfg(all(unix, not(wardline_portable)))]
mod signals {
    use std::time::Duration;

    use rustix::process::Signal;

    use super::*;
    use crate::harness::{Heard, PATIENCE, SHUTDOWN_WARNING, wait_until};

    #[test]
    fn usr2_takes_no_new_connections_and_keeps_the_old() {
        on_each_engine(|engine| {
            let mut relay = Launch::talkative(engine).start();
            let [mut a, mut b] = relay.room();
            relay.signal(Signal::USR2);
            // The signal is acted on when the door is closed: by refusing, or by closing at once.
            wait_until("the door to be closed", || match relay.dial().try_connect() {
                Err(_) => true,
                Ok(mut newcomer) => {
                    matches!(newcomer.hear(Duration::from_millis(300)), Heard::End(..))
                }
            });
            for i in 0..100 {
                a.say(&format!("{i}"));
                b.expect(&a.envelope(&format!("{i}")));
            }
            assert!(relay.is_running());
            relay.signal(Signal::TERM);
            a.expect(SHUTDOWN_WARNING);
            b.expect(SHUTDOWN_WARNING);
            drop((a, b));
            assert_eq!(relay.wait(PATIENCE).code(), Some(0));
        });
    }

    #[test]
    fn quit_dumps_the_counters_to_the_log_and_goes_on() {
        on_each_engine(|engine| {
            let relay = Launch::talkative(engine).start();
            let [mut a, mut b] = relay.room();
            for i in 0..37 {
                a.say(&format!("{i}"));
                b.expect(&a.envelope(&format!("{i}")));
            }
            let before = relay.log().len();
            relay.signal(Signal::QUIT);
            // 37, and what the usher said.
            wait_until("the counters in the log", || {
                let log = relay.log();
                let dump = log[before..].to_lowercase();
                dump.contains("connections") && (37..=60).any(|n| has_number(&dump, n))
            });
            a.say("and on it goes");
            b.expect(&a.envelope("and on it goes"));
        });
    }

    fn has_number(text: &str, number: u32) -> bool {
        let number = number.to_string();
        text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits == number)
    }
}
