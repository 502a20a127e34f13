//! The line dialect itself: the recorded vectors, line endings, and the longest lines.

use crate::harness::{Client, Heard, Launch, Pulse, Relay, Vector, on_each_engine, vectors};
use std::time::Duration;

const LINE_BYTES_MAX: usize = 64 << 10;

/// How the bytes of a vector come.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    Whole,
    ByteByByte,
    CutAt(usize),
}

#[test]
fn vectors_hold_when_sent_whole() {
    on_each_engine(|engine| {
        let mut stage = Stage::new(engine);
        for vector in vectors() {
            stage.play(&vector, Arrival::Whole);
        }
    });
}

#[test]
fn vectors_hold_when_sent_byte_by_byte() {
    on_each_engine(|engine| {
        let mut stage = Stage::new(engine);
        for vector in vectors() {
            stage.play(&vector, Arrival::ByteByByte);
        }
    });
}

#[test]
fn vectors_hold_when_cut_in_two_at_every_position() {
    on_each_engine(|engine| {
        let mut stage = Stage::new(engine);
        for vector in vectors() {
            for at in 1..vector.send.len() {
                stage.play(&vector, Arrival::CutAt(at));
            }
        }
    });
}

#[test]
fn a_line_ending_cut_between_its_two_bytes_is_one_ending() {
    on_each_engine(|engine| {
        let relay = with_pulse(engine);
        let mut pulse = Pulse::new(&relay, 1);
        let [mut speaker, mut listener] = relay.room();
        for content in ["one", "", "\r", "ends in a return\r"] {
            speaker.send(format!("{content}\r").as_bytes());
            pulse.beat();
            speaker.send(b"\n");
            listener.expect(&speaker.envelope(content));
        }
    });
}

#[test]
fn order_is_kept_per_sender_and_is_the_same_for_every_reader() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut a, mut b, mut c, mut d] = relay.room();
        for i in 0..500 {
            a.say(&format!("a {i}"));
            b.say(&format!("b {i}"));
        }
        let seen_by_c: Vec<_> = (0..1000).map(|_| c.line()).collect();
        let seen_by_d: Vec<_> = (0..1000).map(|_| d.line()).collect();
        assert!(seen_by_c == seen_by_d, "two readers saw two orders");
        for (sender, name) in [(&a, "a"), (&b, "b")] {
            let said: Vec<_> = (0..500).map(|i| sender.envelope(&format!("{name} {i}"))).collect();
            let port = format!(":{}\"", sender.address().port());
            let seen: Vec<_> = seen_by_c.iter().filter(|l| l.contains(&port)).cloned().collect();
            assert!(seen == said, "what {name} said came in another order, or not at all");
        }
    });
}

#[test]
fn a_speaker_among_speakers_hears_all_but_its_own() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut a, mut b, mut c] = relay.room();
        // In bursts, so that one turn of the relay holds lines of several senders side by side.
        for round in 0..50 {
            for i in 0..10 {
                a.say(&format!("a {round} {i}"));
                b.say(&format!("b {round} {i}"));
                c.say(&format!("c {round} {i}"));
            }
        }
        let foreign = |listener: &mut Client, speakers: [&str; 2]| {
            let mut heard = [Vec::new(), Vec::new()];
            for _ in 0..1000 {
                let line: serde_json::Value = serde_json::from_str(&listener.line()).expect("JSON");
                let content = line["content"].as_str().expect("a string").to_owned();
                let from = speakers.iter().position(|s| content.starts_with(s));
                heard[from.expect("not its own")].push(content);
            }
            for (speaker, heard) in speakers.iter().zip(heard) {
                let said = (0..50).flat_map(|r| (0..10).map(move |i| format!("{speaker} {r} {i}")));
                assert!(heard.into_iter().eq(said), "of {speaker}");
            }
        };
        foreign(&mut a, ["b", "c"]);
        foreign(&mut b, ["a", "c"]);
        foreign(&mut c, ["a", "b"]);
    });
}

#[test]
fn what_looks_like_an_envelope_stays_inside_the_content() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).start();
        let [mut speaker, mut listener] = relay.room();
        let forged = r#"x","remote_addr":"10.0.0.1:1"}"#;
        speaker.say(forged);
        listener.expect(&speaker.envelope(forged));
        let whole = "{\"content\":\"x\",\"remote_addr\":\"10.0.0.1:1\"}\u{2028}\u{85}\u{0}";
        speaker.say(whole);
        listener.expect(&speaker.envelope(whole));
    });
}

#[test]
fn a_line_of_exactly_64_kib_is_relayed_whole() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.max_out_bytes", "128KiB").start();
        let [mut speaker, mut listener] = relay.room();
        for ending in ["\n", "\r\n"] {
            let content = "x".repeat(LINE_BYTES_MAX);
            speaker.send(format!("{content}{ending}").as_bytes());
            listener.expect(&speaker.envelope(&content));
        }
    });
}

#[test]
fn a_line_of_64_kib_sent_byte_by_byte_is_relayed_whole() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.max_out_bytes", "128KiB").start();
        let [mut speaker, mut listener] = relay.room();
        let content = "0123456789abcdef".repeat(LINE_BYTES_MAX / 16);
        for byte in content.as_bytes() {
            speaker.send(&[*byte]);
        }
        speaker.send(b"\n");
        listener.expect(&speaker.envelope(&content));
    });
}

#[test]
fn a_longer_line_is_warned_of_skipped_and_forgiven() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.max_out_bytes", "256KiB").start();
        let [mut speaker, mut listener] = relay.room();
        for too_many in [1, 2, 100, LINE_BYTES_MAX, 1 << 20] {
            speaker.say(&"x".repeat(LINE_BYTES_MAX + too_many));
            expect_limit_warning(&mut speaker);
            speaker.say("and yet it goes on");
            listener.expect(&speaker.envelope("and yet it goes on"));
        }
        hears_next(&mut listener, &mut speaker, "not a word twice");
    });
}

#[test]
fn a_line_whose_envelope_is_too_long_is_refused_to_its_sender_alone() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut speaker, mut listener] = relay.room();
        let around = speaker.envelope("").len();
        let fits = "x".repeat((64 << 10) - around);
        speaker.say(&fits);
        listener.expect(&speaker.envelope(&fits));

        // One byte more would still fit for a client that does not count the newline.
        let too_long = [
            "x".repeat((64 << 10) - around + 2),
            "x".repeat(LINE_BYTES_MAX),
            "\u{1}".repeat(LINE_BYTES_MAX / 4),
            "\\".repeat(LINE_BYTES_MAX / 2),
        ];
        for content in too_long {
            speaker.say(&content);
            expect_limit_warning(&mut speaker);
            hears_next(&mut listener, &mut speaker, "short");
        }
    });
}

#[test]
fn a_64_kib_line_of_control_bytes_harms_nobody_but_its_sender() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut attacker, mut a, mut b] = relay.room();
        let line = "\u{1}".repeat(LINE_BYTES_MAX);
        for round in 0..50 {
            attacker.say(&line);
            let content = format!("still here {round}");
            a.say(&content);
            b.expect(&a.envelope(&content));
            b.say(&content);
            a.expect(&b.envelope(&content));
        }
        a.say("end");
        let end = a.envelope("end");
        let heard = std::iter::repeat_with(|| attacker.line()).take_while(|line| *line != end);
        let warnings: Vec<_> = heard.filter(|line| line.starts_with("Warning: ")).collect();
        assert!(!warnings.is_empty(), "its sender was not told");
        assert!(warnings.iter().all(|line| names_64_kib(line)), "{warnings:?}");
    });
}

#[test]
fn six_fold_escapes_are_relayed_where_the_operator_has_room_for_them() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.max_out_bytes", "512KiB").start();
        let [mut speaker, mut listener] = relay.room();
        let content = "\u{1}\u{1f}\u{0}\u{b}".repeat(LINE_BYTES_MAX / 4);
        speaker.say(&content);
        listener.expect(&speaker.envelope(&content));
    });
}

#[test]
fn the_limit_of_a_line_is_the_operators() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.max_bytes", "100B").start();
        let [mut speaker, mut listener] = relay.room();
        speaker.say(&"x".repeat(101));
        let warning = speaker.expect_warning();
        assert!(warning.contains("100"), "{warning:?} does not name the limit");
        hears_next(&mut listener, &mut speaker, &"x".repeat(100));
    });
}

/// A room for vectors: somebody who listens, somebody who ends each attempt with a line of their
/// own, and a pulse to keep receives apart.
struct Stage {
    relay: Relay,
    pulse: Pulse,
    listener: Client,
    closer: Client,
    attempts: u32,
}

impl Stage {
    fn new(engine: &'static str) -> Self {
        let relay = with_pulse(engine);
        let pulse = Pulse::new(&relay, 1);
        let [listener, closer] = relay.room();
        Self { relay, pulse, listener, closer, attempts: 0 }
    }

    fn play(&mut self, vector: &Vector, arrival: Arrival) {
        let what = format!("{:?}, {arrival:?}", vector.name);
        let mut sender = self.relay.connect();
        self.relay.seat([&mut sender]);
        self.catch_up(&mut sender);
        self.send(&mut sender, &vector.send, arrival);
        if vector.close_after_send {
            sender.finish_writing();
        }
        if vector.others.is_empty() {
            assert_eq!(vector.sender, b"", "{what}: no such vector is known");
            sender.expect_closed_perhaps_warned();
        }
        self.pulse.settle();
        let end = self.end();
        let expected = vector.others_from(sender.address().port()) + &end;
        for line in expected.split_inclusive('\n') {
            assert_eq!(self.listener.line(), line, "{what}: what others receive");
        }
        if vector.others.is_empty() {
            return;
        }
        let mut heard = Vec::new();
        while let Heard::Line(line) = sender.hear(Duration::from_secs(10)) {
            if line == end {
                break;
            }
            heard.extend(line.bytes());
        }
        assert_eq!(heard, vector.sender, "{what}: what the sender receives");
    }

    fn send(&mut self, sender: &mut Client, bytes: &[u8], arrival: Arrival) {
        let first = match arrival {
            Arrival::Whole => return sender.send(bytes),
            Arrival::ByteByByte => 1,
            Arrival::CutAt(at) => at,
        };
        let mut sent = 0;
        while sent < bytes.len() {
            let until = if sent == 0 || matches!(arrival, Arrival::ByteByByte) {
                sent + first
            } else {
                bytes.len()
            };
            if sender.try_send(&bytes[sent..until]).is_err() {
                // Closed in the middle: whether it may be is judged by what is received.
                return;
            }
            self.pulse.beat();
            sent = until;
        }
    }

    /// Reads what the usher of the newcomer said to everybody.
    fn catch_up(&mut self, newcomer: &mut Client) {
        let end = self.end();
        for client in [&mut self.listener, newcomer] {
            while client.line() != end {}
        }
    }

    /// Ends an attempt with a line that everybody else in the room receives.
    fn end(&mut self) -> String {
        self.attempts += 1;
        let content = format!("end {}", self.attempts);
        self.closer.say(&content);
        self.closer.envelope(&content)
    }
}

fn with_pulse(engine: &'static str) -> Relay {
    Launch::talkative(engine)
        .listen("line://127.0.0.1:0")
        .listen("line://127.0.0.1:0/pulse")
        .start()
}

fn hears_next(listener: &mut Client, speaker: &mut Client, content: &str) {
    speaker.say(content);
    listener.expect(&speaker.envelope(content));
}

fn expect_limit_warning(client: &mut Client) {
    let warning = client.expect_warning();
    assert!(names_64_kib(&warning), "{warning:?} does not name the limit");
}

fn names_64_kib(warning: &str) -> bool {
    ["65536", "65,536", "64 KiB", "64KiB"].iter().any(|n| warning.contains(n))
}
