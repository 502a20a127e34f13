//! How fast a sender may be.

use std::time::{Duration, Instant};

use crate::harness::{Heard, Launch, Pulse, RATE_WARNING, on_each_engine};

#[test]
fn a_burst_of_the_whole_minute_passes_and_what_is_over_it_is_warned_of() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).set("line.rate_limit_msgs_per_minute", "5").start();
        let [mut speaker, mut other, mut listener] = relay.room();
        for i in 1..=6 {
            speaker.say(&format!("{i}"));
        }
        speaker.expect(RATE_WARNING);
        for i in 1..=5 {
            listener.expect(&speaker.envelope(&format!("{i}")));
        }
        // The sixth was refused before this was said, and the bucket is the speaker's alone.
        other.say("mine is full");
        listener.expect(&other.envelope("mine is full"));
        speaker.expect(&other.envelope("mine is full"));
    });
}

#[test]
fn the_default_is_300_in_a_burst() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).start();
        let [mut speaker, mut other, mut listener] = relay.room();
        let begun = Instant::now();
        for i in 0..400 {
            speaker.say(&format!("{i}"));
        }
        speaker.expect(RATE_WARNING);
        other.say("end");
        let end = other.envelope("end");
        let heard = std::iter::repeat_with(|| listener.line()).take_while(|l| *l != end);
        let heard: Vec<_> = heard.collect();
        // Five a second come back while it speaks.
        let most = 301 + 5 * begun.elapsed().as_secs() + 5;
        let first: Vec<_> = (0..300).map(|i| speaker.envelope(&format!("{i}"))).collect();
        assert!(heard.starts_with(&first), "{} of 300 passed", heard.len());
        assert!(heard.len() as u64 <= most, "{} passed, {most} may", heard.len());
    });
}

#[test]
fn there_are_at_most_ten_warnings_a_second() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .set("line.rate_limit_msgs_per_minute", "60")
            .listen("line://127.0.0.1:0")
            .listen("line://127.0.0.1:0/pulse")
            .start();
        let mut pulse = Pulse::new(&relay, 1);
        let [mut speaker, mut other] = relay.room();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2500) {
            speaker.send(b"too much\n".repeat(20).as_slice());
            std::thread::sleep(Duration::from_millis(5));
        }
        pulse.settle();
        other.say("end");
        let end = other.envelope("end");
        let mut warnings = 0;
        loop {
            let line = speaker.line();
            if line == end {
                break;
            }
            assert_eq!(line, RATE_WARNING);
            warnings += 1;
        }
        // Ten at once, then ten in each second.
        let most = 10 * (begun.elapsed().as_secs() + 2);
        assert!((5..=most).contains(&warnings), "{warnings} warnings, at most {most} may be");
    });
}

#[test]
fn refused_messages_that_are_never_read_about_fill_nothing() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).set("line.rate_limit_msgs_per_minute", "5").start();
        let [mut a, mut b] = relay.room();
        let mut flooder = relay.dial().receive_buffer(4096).connect();
        for _ in 0..200 {
            if flooder.try_send(&b"flood\n".repeat(1000)).is_err() {
                break;
            }
        }
        a.say("we");
        // The flood had its five, and nothing else of it comes.
        let said = a.envelope("we");
        let before = std::iter::repeat_with(|| b.line()).take_while(|l| *l != said).count();
        assert!(before <= 6, "{before} of the flood passed");
    });
}

#[test]
fn with_zero_there_is_no_limit() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine).set("line.rate_limit_msgs_per_minute", "0").start();
        let [mut speaker, mut listener] = relay.room();
        let mut writer = speaker.writer();
        let flood = std::thread::spawn(move || {
            for i in 0..10_000 {
                std::io::Write::write_all(&mut writer, format!("{i}\n").as_bytes()).expect("write");
            }
        });
        for i in 0..10_000 {
            listener.expect(&speaker.envelope(&format!("{i}")));
        }
        flood.join().expect("all was written");
        listener.say("end");
        assert_eq!(speaker.hear(Duration::from_secs(20)), Heard::Line(listener.envelope("end")));
    });
}
