//! Several shards are one relay.

use std::collections::HashMap;
use std::io::Write;
use std::thread;

use crate::harness::{Client, Launch, Relay, on_each_engine};

/// Lines of each client.
const LINES: usize = 400;

#[test]
fn all_readers_of_all_shards_see_one_order() {
    on_each_engine(|engine| {
        for shards in [2, 3] {
            let relay = Launch::talkative(engine).shards(shards).start();
            let clients = everywhere(&relay, shards, 3);
            let addresses: Vec<String> =
                clients.iter().map(|client| client.address().to_string()).collect();
            let lines = (clients.len() - 1) * LINES;
            let talks: Vec<_> = clients
                .into_iter()
                .map(|client| thread::spawn(move || talk(client, lines)))
                .collect();
            let heard: Vec<_> =
                talks.into_iter().map(|talk| talk.join().expect("it hears all")).collect();
            assert_one_order(&addresses, &heard);
        }
    });
}

/// Clients on each shard, all of them in the room.
fn everywhere(relay: &Relay, shards: usize, each: usize) -> Vec<Client> {
    let dial = |n: usize| relay.dial_shard(n % shards).connect();
    let mut clients: Vec<Client> = (0..shards * each).map(dial).collect();
    relay.seat(&mut clients);
    clients
}

/// Says its lines while it hears those of all others.
fn talk(mut client: Client, lines: usize) -> Vec<String> {
    let mut writer = client.writer();
    let said: String = (0..LINES).map(|n| format!("line {n}\n")).collect();
    let talks = thread::spawn(move || {
        // In pieces, so that they come between each other.
        for piece in said.as_bytes().chunks(97) {
            writer.write_all(piece).expect("it is read");
            thread::yield_now();
        }
    });
    let heard = (0..lines).map(|_| client.line()).collect();
    talks.join().expect("all was said");
    heard
}

/// Each heard all lines of all others, each sender's in order, and what any two heard both they
/// heard in the same order.
fn assert_one_order(addresses: &[String], heard: &[Vec<String>]) {
    let sender = |line: &str| {
        let envelope: serde_json::Value = serde_json::from_str(line).expect("an envelope");
        let address = envelope["remote_addr"].as_str().expect("a sender");
        addresses.iter().position(|known| known == address).expect("one of them")
    };
    for (me, lines) in heard.iter().enumerate() {
        let mut next: HashMap<usize, usize> = HashMap::new();
        for line in lines {
            let from = sender(line);
            let next = next.entry(from).or_default();
            assert!(line.contains(&format!("\"line {next}\"")), "{line} is not line {next}");
            *next += 1;
        }
        assert_eq!(next.len(), addresses.len() - 1, "somebody was not heard");
        assert!(!next.contains_key(&me), "its own lines");
    }
    let (first, others) = heard.split_first().expect("somebody");
    for (other, lines) in (1..).zip(others) {
        let common = |lines: &[String]| -> Vec<String> {
            let both = |line: &&String| !matches!(sender(line), who if who == 0 || who == other);
            lines.iter().filter(both).cloned().collect()
        };
        assert!(common(first) == common(lines), "two orders, 0 and {other}");
    }
}

#[test]
fn who_never_reads_on_one_shard_does_not_disturb_the_others() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .shards(2)
            .set("pressure.lag_bytes", "1MiB")
            .set("limits.segments", "8MiB")
            .start();
        for (here, there) in [(0, 1), (1, 0)] {
            let mut stuck = relay.dial_shard(there).receive_buffer(4096).connect();
            let mut speaker = relay.dial_shard(here).connect();
            let mut witnesses = [here, here, there].map(|shard| relay.dial_shard(shard).connect());
            let all = witnesses.iter_mut().chain([&mut speaker, &mut stuck]);
            relay.seat(all);
            let body = "x".repeat(4 << 10);
            for n in 0..4_000 {
                let content = format!("{n} {body}");
                speaker.say(&content);
                let line = speaker.envelope(&content);
                for witness in &mut witnesses {
                    witness.expect(&line);
                }
            }
            let (heard, _) = stuck.rest();
            let whole = heard.iter().filter(|byte| **byte == b'\n').count();
            assert!(whole < 4_000, "who never read was sent everything");
        }
    });
}

#[test]
fn a_line_reaches_who_joined_before_on_any_shard() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("quarantine.connects_per_minute", "100000")
            .shards(3)
            .start();
        let mut host = relay.dial_shard(0).connect();
        relay.seat([&mut host]);
        // Each says something; who has heard it answers, and the answer must come.
        for n in 0..60 {
            let mut guest = relay.dial_shard(n % 3).connect();
            guest.say("who is there?");
            let asked = guest.envelope("who is there?");
            while host.line() != asked {}
            host.say(&format!("guest {n}"));
            let answer = host.envelope(&format!("guest {n}"));
            while guest.line() != answer {}
        }
    });
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn a_drain_reaches_every_shard() {
    use crate::harness::SHUTDOWN_WARNING;
    use rustix::process::Signal;

    on_each_engine(|engine| {
        let mut relay = Launch::talkative(engine).shards(3).start();
        let mut clients = everywhere(&relay, 3, 2);
        relay.signal(Signal::TERM);
        for client in &mut clients {
            let (rest, _) = client.rest();
            let rest = String::from_utf8(rest).expect("UTF-8");
            assert!(rest.ends_with(SHUTDOWN_WARNING), "not told: {rest:?}");
        }
        drop(clients);
        assert_eq!(relay.wait(crate::harness::PATIENCE).code(), Some(0));
    });
}

#[cfg(target_os = "linux")]
#[test]
fn who_is_refused_by_one_shard_is_refused_by_all() {
    use std::time::{Duration, Instant};

    use crate::harness::{Heard, PATIENCE};

    const OFFENDER: [u8; 4] = [127, 0, 0, 5];
    const INNOCENT: [u8; 4] = [127, 0, 0, 6];

    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("quarantine.exempt", "[]")
            .set("quarantine.connects_per_minute", "100000")
            .shards(2)
            .start();
        // Whether a newcomer is refused with the warning that says so.
        let is_refused = |shard: usize, from: [u8; 4], within: Duration| {
            let Ok(mut client) = relay.dial_shard(shard).from(from.into()).try_connect() else {
                return true;
            };
            match client.hear(within) {
                Heard::Line(line) => line.contains("refused for a while"),
                Heard::End(..) => true,
                Heard::Silence => false,
            }
        };
        for offence in 0.. {
            assert!(offence < 200, "200 offences and still welcome");
            let mut offender = relay.dial_shard(0).from(OFFENDER.into()).connect();
            let _ = offender.try_send(b"\xff\n");
            let (said, _) = offender.rest();
            if String::from_utf8_lossy(&said).contains("refused for a while") {
                break;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let soon = Duration::from_millis(150);
        while !is_refused(1, OFFENDER, soon) {
            assert!(Instant::now() < deadline, "the other shard does not know of it");
        }
        assert!(is_refused(0, OFFENDER, PATIENCE));
        assert!(!is_refused(0, INNOCENT, soon) && !is_refused(1, INNOCENT, soon));
    });
}

#[cfg(all(target_os = "linux", not(wardline_portable)))]
#[test]
fn newcomers_go_where_there_are_fewer() {
    use rustix::process::Signal;

    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).shards(2).start();
        let mut crowd: Vec<_> = (0..100).map(|_| relay.dial_shard(0).connect()).collect();
        // Who hears what is said has come in: a connection alone does not say so.
        relay.seat_by(relay.dial_shard(1).connect(), &mut crowd);
        let more: Vec<_> = (0..40).map(|_| relay.connect()).collect();
        let mut last = relay.connect();
        relay.seat([&mut last]);
        relay.signal(Signal::QUIT);
        relay.wait_for_log("connections=100/");
        drop((crowd, more));
    });
}

#[cfg(all(target_os = "linux", not(wardline_portable)))]
mod broken {
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    use rustix::process::Signal;

    use super::*;
    use crate::harness::{PATIENCE, engines, forbidden};

    /// Says something again and again until the process has ended, as it must. What the ring to the
    /// other shard holds waits for nobody; so it is much.
    fn talk_until_the_end(relay: &mut Relay, mut speaker: Client) {
        let deadline = Instant::now() + PATIENCE;
        let line = [&[b'x'; 8_000][..], b"\n"].concat();
        while relay.is_running() {
            assert!(Instant::now() < deadline, "it goes on as if nothing had happened");
            let _ = speaker.try_send(&line);
            thread::sleep(Duration::from_millis(20));
        }
        // Whoever is left is let go.
        let _ = speaker.rest();
    }

    #[test]
    fn a_shard_that_fails_ends_the_process_with_a_message() {
        // Only a ring can be made to fail for one shard from outside.
        if !engines().contains(&"ring") {
            eprintln!("SKIPPED: the ring engine cannot run here");
            return;
        }
        let launch = Launch::talkative("ring").shards(2);
        let mut relay = launch.spawned_by(forbidden::enter_of_many_eperm).start();
        let speaker = relay.dial_shard(0).connect();
        // So many that they are not sent to by one call; or taken in by one, which ends it before.
        let crowd: Vec<_> = (0..100).map(|_| relay.dial_shard(1).try_connect()).collect();
        talk_until_the_end(&mut relay, speaker);
        assert_eq!(relay.wait(PATIENCE).code(), Some(1));
        let log = relay.log();
        assert!(log.contains("wardline: engine ring: Operation not permitted"), "no word of it");
        assert!(!log.contains("no sign of life"), "it was waited for");
        drop(crowd);
    }

    #[test]
    fn a_shard_that_is_gone_without_a_word_is_not_waited_for() {
        on_each_engine(|engine| {
            let launch = Launch::talkative(engine).shards(2);
            let mut relay = launch.spawned_by(forbidden::shutdown_kills_thread).start();
            let mut speaker = relay.dial_shard(0).connect();
            let [mut reader, mut last] = [1, 1].map(|shard| relay.dial_shard(shard).connect());
            relay.seat([&mut speaker, &mut reader, &mut last]);
            // Its stream is ended, which that thread does not live to tell.
            let _ = last.try_send(b"\xff\n");
            talk_until_the_end(&mut relay, speaker);
            let status = relay.wait(PATIENCE);
            // What fails by a panic is not unwound.
            assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
            assert!(relay.log().contains("no sign of life for ten seconds"), "no word of it");
        });
    }
}
