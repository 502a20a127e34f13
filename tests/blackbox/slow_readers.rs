//! Readers that lag: what becomes of them, and that nobody else notices.

use std::time::{Duration, Instant};

use crate::harness::{Client, End, Heard, Launch, PATIENCE, Relay, SLOW_WARNING, on_each_engine};

/// Little enough that the kernel hides nothing of a lag.
const SMALL_BUFFER_BYTES: usize = 4096;

#[test]
fn who_never_reads_is_cut_and_nobody_else_is_delayed_or_short_of_a_message() {
    on_each_engine(|engine| {
        let launch = Launch::talkative(engine).set("pressure.lag_bytes", "1MiB");
        let case = NeverReads { published_bytes: 16 << 20, held_bytes_max: 8 << 20 };
        case.run(&launch.start());
    });
}

#[test]
fn who_never_reads_is_cut_with_default_settings_too() {
    on_each_engine(|engine| {
        let case = NeverReads { published_bytes: 40 << 20, held_bytes_max: 20 << 20 };
        case.run(&Launch::talkative(engine).start());
    });
}

#[test]
fn ten_that_never_read_do_not_use_up_a_small_pool() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("limits.segments", "1MiB")
            .set("limits.blocks", "1MiB")
            .set("line.max_out_bytes", "64KiB")
            .start();
        let mut stuck: Vec<_> = (0..10).map(|_| stuck(&relay)).collect();
        let [mut speaker, witness] = relay.room();
        relay.seat(&mut stuck);
        let room = Room { speaker: &mut speaker, witnesses: &mut [witness] };
        let (lines, _) = room.publish(16 << 20, 4 << 10);
        for reader in &mut stuck {
            expect_prefix_and_cut(reader, &lines);
        }
    });
}

/// Where nobody can say what was acknowledged, it takes half a minute: not tried then.
#[cfg(all(target_os = "linux", not(wardline_portable)))]
#[test]
fn who_acknowledges_nothing_is_cut_long_before_its_allowance_is_used() {
    use crate::harness::{process, wait_until};

    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("pressure.progress", "3s").start();
        let clients = || process::established(relay.address().port());
        let mut stuck = stuck(&relay);
        let [mut speaker, witness] = relay.room();
        relay.seat([&mut stuck]);
        wait_until("the ushers to have left", || clients() == 3);
        let room = Room { speaker: &mut speaker, witnesses: &mut [witness] };
        let (lines, _) = room.publish(6 << 20, 4 << 10);
        wait_until("the stuck reader to be cut", || clients() == 2);
        expect_prefix_and_cut(&mut stuck, &lines);
    });
}

#[test]
fn a_slow_but_living_reader_is_never_cut_and_misses_nothing() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("pressure.progress", "5s").start();
        let [mut speaker] = relay.room();
        let mut slow = stuck(&relay);
        relay.seat([&mut slow]);
        let body = "x".repeat(1000);
        let mut expected = String::new();
        let mut count = 0;
        let mut publish = |speaker: &mut Client, expected: &mut String| {
            let content = format!("{count} {body}");
            count += 1;
            speaker.say(&content);
            expected.push_str(&speaker.envelope(&content));
        };
        // Behind from the beginning, so that something always waits for it.
        for _ in 0..170 {
            publish(&mut speaker, &mut expected);
        }
        let mut heard = Vec::new();
        let begun = Instant::now();
        for tick in 0..80 {
            if tick % 2 == 0 {
                publish(&mut speaker, &mut expected);
            }
            heard.extend(slow.some(2048, PATIENCE));
            let due = Duration::from_millis(100) * (tick + 1);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        while heard.len() < expected.len() {
            let more = slow.some(64 << 10, PATIENCE);
            assert!(!more.is_empty(), "cut after {} of {} bytes", heard.len(), expected.len());
            heard.extend(more);
        }
        assert!(heard == expected.as_bytes(), "what it heard is not what was said");
        speaker.say("still there");
        slow.expect(&speaker.envelope("still there"));
    });
}

#[test]
fn under_gap_a_reader_that_lagged_is_told_what_is_gone_and_goes_on() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("pressure.lag_rule", "gap")
            .set("pressure.lag_bytes", "1MiB")
            .start();
        let [mut speaker, witness] = relay.room();
        let mut stuck = stuck(&relay);
        relay.seat([&mut stuck, &mut speaker]);
        let mut witnesses = [witness];
        let room = Room { speaker: &mut speaker, witnesses: &mut witnesses };
        let (lines, _) = room.publish(8 << 20, 2 << 10);
        // It reads again while it is spoken to.
        let later: Vec<_> = (0..5).map(|i| format!("later {i}")).collect();
        for content in &later {
            speaker.say(content);
        }
        let mut heard = Vec::new();
        let mut told = 0;
        let mut after_a_warning = false;
        let last = speaker.envelope(&later[4]);
        while heard.last() != Some(&last) {
            let line = stuck.line();
            let is_warning = line.starts_with("Warning: ");
            assert!(!(is_warning && after_a_warning), "one hole is told once: {line:?}");
            after_a_warning = is_warning;
            if is_warning {
                told += dropped(&line).unwrap_or_else(|| panic!("which? {line:?}"));
            } else {
                heard.push(line);
            }
        }
        let tail: Vec<_> = later.iter().map(|content| speaker.envelope(content)).collect();
        assert!(heard.ends_with(&tail), "what is said after it reads again comes whole");
        let early = &heard[..heard.len() - tail.len()];
        let mut all = lines.iter();
        assert!(early.iter().all(|line| all.any(|l| l == line)), "out of order, or twice");
        let gone = lines.len() - early.len();
        assert!(gone > 0, "8 MiB went by within an allowance of 1 MiB");
        assert_eq!(told, gone as u64, "how many messages are gone");
        speaker.say("and on");
        stuck.expect(&speaker.envelope("and on"));
    });
}

#[test]
fn under_pace_senders_are_slowed_and_everybody_gets_everything() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("pressure.lag_rule", "pace")
            .set("pressure.lag_bytes", "256KiB")
            .set("pressure.pace", "60s")
            .start();
        let [mut speaker, mut witness] = relay.room();
        let mut slow = stuck(&relay);
        relay.seat([&mut slow, &mut witness, &mut speaker]);
        let body = "x".repeat(16 << 10);
        // More than the system's buffers hold, which may be 4 MiB.
        let contents: Vec<_> = (0..512).map(|i| format!("{i} {body}")).collect();
        let expected: String = contents.iter().map(|c| speaker.envelope(c)).collect();
        let expected = expected.as_bytes();
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                // About 1 MiB a second.
                let mut heard = Vec::new();
                while heard.len() < expected.len() {
                    let more = slow.some(32 << 10, PATIENCE);
                    assert!(!more.is_empty(), "the slow reader was cut");
                    std::thread::sleep(Duration::from_micros(more.len() as u64));
                    heard.extend(more);
                }
                heard == expected
            });
            let begun = Instant::now();
            let speaking = scope.spawn(move || {
                for content in &contents {
                    speaker.say(content);
                }
                begun.elapsed()
            });
            for line in expected.split_inclusive(|&b| b == b'\n') {
                witness.expect(std::str::from_utf8(line).expect("UTF-8"));
            }
            let took = begun.elapsed();
            speaking.join().expect("all was said");
            assert!(reading.join().expect("it read"), "the slow reader heard something else");
            assert!(took > Duration::from_secs(1), "nobody was slowed: 8 MiB in {took:?}");
        });
    });
}

#[test]
fn the_references_throttle_slows_senders_while_somebody_lags_and_only_then() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("line.throttle_threshold", "5")
            .set("line.throttle_delay", "200ms")
            .start();
        let [mut speaker, mut witness] = relay.room();
        let mut slow = stuck(&relay);
        relay.seat([&mut slow, &mut witness, &mut speaker]);
        // What the kernel takes is not queued here, and how much that is differs: so much is said
        // until it shows, for six lines.
        let body = "x".repeat(60_000);
        let mut said = Vec::new();
        let mut slowed = 0;
        while slowed < 6 {
            assert!(said.len() < 150, "9 MB are waiting, and nobody is slowed");
            let begun = Instant::now();
            said.extend(answered(&mut speaker, &mut witness, 1, &body));
            slowed += u32::from(begun.elapsed() > Duration::from_millis(150));
        }
        for line in &said {
            slow.expect(line);
        }
        // The last delays may still run for these.
        answered(&mut speaker, &mut slow, 2, "somebody has caught up");
        let mut took: Vec<_> = (0..30)
            .map(|_| {
                let begun = Instant::now();
                answered(&mut speaker, &mut slow, 1, "nobody lags");
                begun.elapsed()
            })
            .collect();
        took.sort_unstable();
        assert!(took[15] < Duration::from_millis(150), "{took:?}: still slowed");
    });
}

/// Says `content` so many times, each time when the one before has been read; the lines.
fn answered(
    speaker: &mut Client,
    witness: &mut Client,
    count: usize,
    content: &str,
) -> Vec<String> {
    let line = speaker.envelope(content);
    for _ in 0..count {
        speaker.say(content);
        witness.expect(&line);
    }
    vec![line; count]
}

/// Somebody who does not read while so much is said.
struct NeverReads {
    published_bytes: usize,
    held_bytes_max: u64,
}

impl NeverReads {
    fn run(&self, relay: &Relay) {
        let mut stuck = stuck(relay);
        let [mut speaker, a, b, c] = relay.room();
        let mut witnesses = [a, b, c];
        relay.seat([&mut stuck]);
        #[cfg(target_os = "linux")]
        let before = crate::harness::process::private_bytes(relay.pid());
        let room = Room { speaker: &mut speaker, witnesses: &mut witnesses };
        let (lines, worst) = room.publish(self.published_bytes, 2 << 10);
        #[cfg(target_os = "linux")]
        {
            let grown = crate::harness::process::private_bytes(relay.pid()).saturating_sub(before);
            assert!(grown <= self.held_bytes_max, "it holds {grown} bytes for one reader");
        }
        let _ = self.held_bytes_max;
        assert!(worst < Duration::from_secs(8), "64 lines took others {worst:?}");
        expect_prefix_and_cut(&mut stuck, &lines);
        speaker.say("and on");
        for witness in &mut witnesses {
            witness.expect(&speaker.envelope("and on"));
        }
    }
}

/// Somebody who speaks, and those who read at once.
struct Room<'a> {
    speaker: &'a mut Client,
    witnesses: &'a mut [Client],
}

impl Room<'_> {
    /// Publishes so many bytes in lines of this size, every witness reading along; the lines as
    /// others receive them, and the longest that 64 of them took.
    fn publish(self, bytes: usize, line_bytes: usize) -> (Vec<String>, Duration) {
        // What an usher said to those who came later is not of interest.
        self.speaker.say("begin");
        let begin = self.speaker.envelope("begin");
        for witness in &mut *self.witnesses {
            while witness.line() != begin {}
        }
        let body = "x".repeat(line_bytes);
        let mut lines = vec![begin];
        let mut worst = Duration::ZERO;
        while lines.len() * line_bytes < bytes {
            let begun = Instant::now();
            let first = lines.len();
            for i in first..first + 64 {
                let content = format!("{i} {body}");
                lines.push(self.speaker.envelope(&content));
                self.speaker.say(&content);
            }
            for witness in &mut *self.witnesses {
                for line in &lines[first..] {
                    witness.expect(line);
                }
            }
            worst = worst.max(begun.elapsed());
        }
        (lines, worst)
    }
}

fn stuck(relay: &Relay) -> Client {
    relay.dial().receive_buffer(SMALL_BUFFER_BYTES).connect()
}

/// Reads what came: a proper prefix of the lines, and then either the warning, which stands at the
/// beginning of a line, or a cut at the socket, which may be anywhere.
fn expect_prefix_and_cut(reader: &mut Client, lines: &[String]) {
    for (count, line) in lines.iter().enumerate() {
        match reader.hear(PATIENCE) {
            Heard::Line(heard) if heard == *line => {}
            Heard::Line(heard) => {
                assert_eq!(heard, SLOW_WARNING, "after {count} lines");
                let (rest, _) = reader.rest();
                assert!(rest.is_empty(), "bytes after the warning");
                return;
            }
            Heard::End(End::Eof | End::Reset, part) => {
                assert!(line.as_bytes().starts_with(&part), "after {count} lines: {part:?}");
                return;
            }
            Heard::Silence => panic!("not cut, after {count} lines"),
        }
    }
    panic!("not cut: it received all of {} lines", lines.len());
}

/// How many messages a warning names: `Messages FIRST to LAST`.
fn dropped(warning: &str) -> Option<u64> {
    let digits = warning.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let numbers: Vec<u64> = digits.filter_map(|digits| digits.parse().ok()).collect();
    let [first, last] = numbers[..] else { return None };
    (last + 1).checked_sub(first)
}
