//! Many clients at once, and many that come and go.

use std::io::{self, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Client, Heard, Launch, on_each_engine};

#[test]
fn five_hundred_and_one_clients_hear_everything_and_nobody_is_punished() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).start();
        let mut speaker = relay.connect();
        let mut crowd: Vec<_> = (0..500).map(|_| relay.connect()).collect();
        relay.seat(crowd.iter_mut().chain([&mut speaker]));
        for i in 0..20 {
            speaker.say(&format!("{i}"));
        }
        for client in &mut crowd {
            for i in 0..20 {
                client.expect(&speaker.envelope(&format!("{i}")));
            }
        }
        // Nothing else came to anybody, and all are still there: each answers, and is heard.
        for client in &mut crowd {
            client.say("here");
            let here = client.envelope("here");
            speaker.expect(&here);
        }
        for at in [0, 250, 499] {
            for other in (0..500).filter(|&other| other != at) {
                let here = crowd[other].envelope("here");
                crowd[at].expect(&here);
            }
        }
    });
}

#[test]
fn five_hundred_speak_at_once_and_all_hear_all() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).start();
        let mut crowd: Vec<_> = (0..500).map(|_| relay.connect()).collect();
        relay.seat(&mut crowd);
        for client in &mut crowd {
            client.say("all at once");
        }
        let mut said: Vec<_> = crowd.iter().map(|c| c.envelope("all at once")).collect();
        said.sort();
        for client in &mut crowd {
            let mut heard: Vec<_> = (0..499).map(|_| client.line()).collect();
            heard.push(client.envelope("all at once"));
            heard.sort();
            assert!(heard == said, "{} heard another set", client.address());
        }
    });
}

#[test]
fn a_room_of_many_trips_no_threshold_by_being_many() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .set("line.throttle_threshold", "20")
            .set("line.throttle_delay", "1s")
            .set("line.flow_control_threshold", "30")
            .set("line.flow_control_delay", "5s")
            .set("line.disconnect_threshold", "40")
            .start();
        let mut speaker = relay.connect();
        let mut crowd: Vec<_> = (0..100).map(|_| relay.connect()).collect();
        relay.seat(crowd.iter_mut().chain([&mut speaker]));
        let begun = Instant::now();
        for i in 0..60 {
            speaker.say(&format!("{i}"));
        }
        for client in &mut crowd {
            for i in 0..60 {
                client.expect(&speaker.envelope(&format!("{i}")));
            }
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "it was throttled: 60 lines took {took:?}");
        for client in &mut crowd {
            assert_eq!(client.hear(Duration::from_millis(1)), Heard::Silence);
        }
    });
}

#[test]
fn errors_of_one_client_do_not_starve_others() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut a, mut b] = relay.room();
        let long_winded = relay.connect();
        let (mut warnings, mut errors) = (long_winded.writer(), long_winded.writer());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let ending = Ending(&done);
            // Warnings are read and thrown away, so that only the errors press.
            scope.spawn(move || io::copy(&mut warnings, &mut io::sink()));
            scope.spawn(|| {
                let line = [&[b'x'; 70_000][..], b"\n"].concat();
                while !done.load(Relaxed) {
                    if errors.write_all(&line).is_err() {
                        break;
                    }
                }
                // Ends the other thread too.
                let _ = errors.shutdown(Shutdown::Both);
            });
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let mut offender = relay.connect();
                    let _ = offender.try_send(b"\xff\xfe\n");
                    offender.rest();
                }
            });
            // Who starves does so all the time; who was only late is not late each time.
            let worst = (0..3).map(|_| ping_pong(&mut a, &mut b, 100)).min().expect("three");
            drop(ending);
            assert!(worst < Duration::from_secs(2), "one answer took {worst:?}");
        });
    });
}

/// Tells the threads of a case to end, when it fails too.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Round trips between two clients; the longest.
fn ping_pong(a: &mut Client, b: &mut Client, rounds: u32) -> Duration {
    let mut worst = Duration::ZERO;
    for i in 0..rounds {
        let begun = Instant::now();
        a.say(&format!("{i}"));
        b.expect(&a.envelope(&format!("{i}")));
        b.say(&format!("{i}"));
        a.expect(&b.envelope(&format!("{i}")));
        worst = worst.max(begun.elapsed());
    }
    worst
}

#[test]
fn resets_in_the_middle_of_lines_harm_nobody() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut a, mut b] = relay.room();
        for round in 0..200 {
            let mut guest = relay.connect();
            guest.send(b"a whole line\nand the beginning of an");
            guest.abort();
            let content = format!("{round}");
            a.say(&content);
            let said = a.envelope(&content);
            // Of the guest, what came before the reset may be heard.
            while b.line() != said {}
        }
    });
}

#[cfg(target_os = "linux")]
#[test]
fn two_thousand_that_come_and_go_leave_nothing_behind() {
    use crate::harness::{process, wait_until};

    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut host] = relay.room();
        let mut come_and_go = |count: usize| {
            for i in 0..count {
                let mut guest = relay.connect();
                match i % 4 {
                    0 => {
                        guest.say("hello");
                        let hello = guest.envelope("hello");
                        // The last words of those who left in the middle of a line come too.
                        while host.line() != hello {}
                    }
                    1 => guest.send(b"in the middle of a li"),
                    2 => {
                        guest.send(b"in the middle of a li");
                        guest.abort();
                    }
                    _ => guest.abort(),
                }
            }
        };
        let at_rest = process::descriptors(relay.pid());
        let back = || process::descriptors(relay.pid()) <= at_rest;
        come_and_go(200);
        wait_until("descriptors to be closed", back);
        let before = process::private_bytes(relay.pid());
        come_and_go(2000);
        wait_until("descriptors to be closed", back);
        let grown = process::private_bytes(relay.pid()).saturating_sub(before);
        assert!(grown < 1 << 20, "grown by {grown} bytes");
    });
}
