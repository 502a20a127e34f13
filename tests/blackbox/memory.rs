//! Memory, processor and descriptors of the process, as the kernel counts them.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use crate::harness::{Client, Heard, Launch, Outcome, Relay, process, wardline};
use crate::harness::{on_each_engine, wait_until};

#[test]
fn sixty_four_mib_without_a_newline_leave_memory_flat() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut a, mut b] = relay.room();
        // Pages that the first over-long line of a relay touches are not growth.
        let mut first = relay.connect();
        first.say(&"x".repeat(200_000));
        first.expect_warning();
        drop(first);

        let mut attacker = relay.connect();
        relay.seat([&mut attacker]);
        skip_to(&mut a, &mut b, "begin");
        let before = process::resident_bytes(relay.pid());
        let chunk = vec![b'x'; 1 << 20];
        for i in 0..64 {
            attacker.send(&chunk);
            let content = format!("meanwhile {i}");
            a.say(&content);
            b.expect(&a.envelope(&content));
            let grown = process::resident_bytes(relay.pid()).saturating_sub(before);
            assert!(grown < 2 << 20, "grown by {grown} bytes after {} MiB", i + 1);
        }
        attacker.say("");
        attacker.say("a line like any other");
        b.expect(&attacker.envelope("a line like any other"));

        a.say("end");
        let end = a.envelope("end");
        let heard = std::iter::repeat_with(|| attacker.line()).take_while(|line| *line != end);
        let warnings = heard.filter(|line| line.starts_with("Warning: ")).count();
        assert_eq!(warnings, 1, "one line, one warning");
    });
}

#[test]
fn unfinished_lines_that_come_and_go_use_the_same_memory_again() {
    const LINES: usize = 100;
    const PART_BYTES: usize = 60_000;
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut a, mut b] = relay.room();
        let private = || process::private_bytes(relay.pid());
        let (at_rest, empty) = (process::descriptors(relay.pid()), private());
        let mut most = 0;
        let mut round = || {
            let mut clients: Vec<_> = (0..LINES).map(|_| relay.connect()).collect();
            // All have come in, or those of this round would still come when it is over.
            relay.seat(&mut clients);
            for client in &mut clients {
                client.send(&[b'x'; PART_BYTES]);
            }
            // It takes turns to read them all, and nine tenths are a sign. Pages once touched
            // stay, so that this is a wait in the first round alone: the one to compare with.
            let held = (LINES * PART_BYTES / 10 * 9) as u64;
            wait_until("what was sent to be held", || private() >= empty + held);
            skip_to(&mut a, &mut b, "and somebody speaks");
            most = most.max(private());
            for client in clients {
                client.abort();
            }
            wait_until("descriptors to be closed", || process::descriptors(relay.pid()) <= at_rest);
            most
        };
        let first = round();
        for i in 0..10 {
            let grown = round() - first;
            assert!(grown < 2 << 20, "round {i} needs {grown} bytes more than the first");
        }
    });
}

#[test]
fn unfinished_lines_cannot_take_the_memory_that_others_need() {
    // More than what the speaker has to say, and less: who holds much is not who hoards.
    for part_bytes in [30_000, 10_000] {
        on_each_engine(|engine| {
            let relay = Launch::talkative(engine).set("limits.blocks", "1MiB").start();
            let [mut a, mut b] = relay.room();
            // Who has said something whole comes before those who have not.
            a.say("a word");
            b.expect(&a.envelope("a word"));
            let mut hoarders: Vec<_> = (0..200).map(|_| relay.connect()).collect();
            for hoarder in &mut hoarders {
                // Closing the one that hoards is the relay's right.
                let _ = hoarder.try_send(&vec![b'x'; part_bytes]);
            }
            // Each takes more than one receive, and memory to keep the first half in.
            for length in [16_384, 20_000, 30_000, 60_000].repeat(5) {
                let long = "y".repeat(length);
                a.say(&long);
                b.expect(&a.envelope(&long));
            }
        });
    }
}

#[test]
fn a_relay_in_which_nothing_happens_uses_no_processor_time() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let mut room: [Client; 50] = relay.room();
        let mut stuck = relay.dial().receive_buffer(4096).connect();
        relay.seat([&mut stuck]);
        // One that is full, one that is half way through a line, one that has finished writing.
        let [speaker, half, finished, ..] = &mut room;
        let line = "x".repeat(60_000);
        for _ in 0..20 {
            speaker.say(&line);
        }
        half.send(b"half a li");
        finished.finish_writing();
        wait_until("it to rest", || {
            let before = process::processor_time(relay.pid());
            std::thread::sleep(Duration::from_millis(300));
            process::processor_time(relay.pid()) - before < Duration::from_millis(5)
        });
        let before = process::processor_time(relay.pid());
        std::thread::sleep(Duration::from_secs(2));
        let used = process::processor_time(relay.pid()) - before;
        assert!(used < Duration::from_millis(100), "it used {used:?} in 2 s of rest");
    });
}

#[test]
fn at_rest_it_is_small() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).start();
        let [mut a, mut b] = relay.room();
        a.say("hello");
        b.expect(&a.envelope("hello"));
        let resident = process::resident_bytes(relay.pid());
        // An unoptimised program with its symbols is larger than what is shipped.
        let most = if cfg!(debug_assertions) { 32 << 20 } else { 8 << 20 };
        assert!(resident <= most, "resident at rest: {resident} bytes");
    });
}

#[test]
fn the_process_stays_within_what_plan_prints() {
    let settings = [
        ("limits.connections", "300"),
        ("limits.topics", "16"),
        ("limits.blocks", "2MiB"),
        ("limits.segments", "4MiB"),
    ];
    on_each_engine(|engine| {
        let mut plan = wardline();
        plan.args(["plan", "--engine", engine]);
        let mut launch = Launch::talkative(engine);
        for (key, value) in settings {
            plan.args(["--set", &format!("{key}={value}")]);
            launch = launch.set(key, value);
        }
        let outcome = Outcome::of(&mut plan);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let planned = planned_total(&outcome.stdout);

        let relay = launch.start();
        let most = use_everything(&relay);
        assert!(most <= planned, "{most} bytes were resident, planned are {planned}");
        // A plan that is far too large helps nobody either.
        assert!(planned <= 64 << 20, "a pool of 6 MiB, and {planned} bytes are planned");
    });
}

/// Fills the connections, the pool and the unfinished lines; the most resident memory seen.
fn use_everything(relay: &Relay) -> u64 {
    let [mut speaker, mut witness] = relay.room();
    let mut stuck: Vec<_> = (0..50).map(|_| relay.dial().receive_buffer(4096).connect()).collect();
    let mut hoarders: Vec<_> = (0..200).map(|_| relay.connect()).collect();
    for hoarder in &mut hoarders {
        // Where memory for input is short, the largest goes: more than the speaker's lines.
        let _ = hoarder.try_send(&[b'x'; 20_000]);
    }
    skip_to(&mut speaker, &mut witness, "begin");
    let line = "x".repeat(12_000);
    let mut most = 0;
    for i in 0..700 {
        speaker.say(&line);
        witness.expect(&speaker.envelope(&line));
        if i % 16 == 0 {
            most = most.max(process::resident_bytes(relay.pid()));
        }
    }
    stuck.retain_mut(|client| matches!(client.hear(Duration::ZERO), Heard::Silence));
    most.max(process::resident_bytes(relay.pid()))
}

/// The figure in the line of the plan that sums it up.
fn planned_total(plan: &str) -> u64 {
    let line = plan
        .lines()
        .find(|line| ["total", "in all"].iter().any(|sum| line.trim_start().starts_with(sum)))
        .unwrap_or_else(|| panic!("no total in the plan:\n{plan}"));
    let words: Vec<_> = line.split_whitespace().collect();
    let figure = |number: &str, unit: &str| -> Option<u64> {
        let scale = match unit {
            "B" | "bytes" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        let number: f64 = number.replace([',', '_'], "").parse().ok()?;
        Some((number * f64::from(scale)).ceil() as u64)
    };
    words
        .windows(2)
        .find_map(|pair| figure(pair[0], pair[1]))
        .unwrap_or_else(|| panic!("no figure with a unit in {line:?}"))
}

/// Has `listener` read all that was said in the room before this.
fn skip_to(speaker: &mut Client, listener: &mut Client, content: &str) {
    speaker.say(content);
    let line = speaker.envelope(content);
    let deadline = Instant::now() + Duration::from_secs(30);
    while listener.line() != line {
        assert!(Instant::now() < deadline, "the room does not stop talking");
    }
}
