//! Bytes that are no UTF-8, and last lines without their end.

use crate::harness::{Client, Launch, Relay, on_each_engine};

/// What is wrong, and a line's content that has it.
const INVALID: [(&str, &[u8]); 16] = [
    ("a byte order mark of UTF-16", b"\xff\xfe"),
    ("a lone continuation", b"\x80"),
    ("a lone continuation in text", b"abc\xbfdef"),
    ("NUL in two bytes", b"\xc0\x80"),
    ("a slash in two bytes", b"\xc0\xaf"),
    ("overlong in three bytes", b"\xe0\x80\x80"),
    ("overlong in three bytes, at the edge", b"\xe0\x9f\xbf"),
    ("overlong in four bytes", b"\xf0\x80\x80\xaf"),
    ("the first surrogate", b"\xed\xa0\x80"),
    ("the last surrogate", b"\xed\xbf\xbf"),
    ("above the last code point", b"\xf4\x90\x80\x80"),
    ("a lead byte that never was", b"\xf5\x80\x80\x80"),
    ("two bytes, cut off", b"caf\xc3"),
    ("three bytes, cut off by the line's end", b"\xe2\x82"),
    ("four bytes, cut off by the line's end", b"\xf0\x9f\x98"),
    ("a lead byte in the place of a continuation", b"\xe2\xc3\xa9"),
];

#[test]
fn each_kind_of_invalid_utf8_closes_the_connection_and_is_not_relayed() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let mut room: [Client; 2] = relay.room();
        for (what, content) in INVALID {
            let mut offender = relay.connect();
            offender.send(&[content, b"\n"].concat());
            offender.expect_closed_perhaps_warned();
            nothing_was_relayed(&mut room, what);
        }
    });
}

#[test]
fn invalid_utf8_after_a_kib_of_text_is_found() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let mut room: [Client; 2] = relay.room();
        for length in [15, 16, 31, 63, 64, 127, 1000, 5000, 60_000] {
            for (what, content) in INVALID {
                let mut offender = relay.connect();
                offender.send(&[&vec![b'x'; length], content, b"\n"].concat());
                offender.expect_closed_perhaps_warned();
                nothing_was_relayed(&mut room, what);
            }
        }
    });
}

#[test]
fn what_came_before_an_invalid_line_is_relayed_and_what_comes_after_is_not() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut speaker, mut listener] = relay.room();
        let mut offender = relay.connect();
        offender.send(b"before\n\xff\nafter\n");
        listener.expect(&offender.envelope("before"));
        offender.rest();
        speaker.say("end");
        listener.expect(&speaker.envelope("end"));
    });
}

#[test]
fn valid_text_of_every_length_of_code_point_passes() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut speaker, mut listener] = relay.room();
        let edges = "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}";
        for length in [0, 1, 2, 3, 15, 63, 1000, 4000] {
            let content = "é".repeat(length) + edges;
            speaker.say(&content);
            listener.expect(&speaker.envelope(&content));
        }
    });
}

#[test]
fn a_last_line_without_its_end_counts_when_the_writer_has_finished() {
    on_each_engine(|engine| {
        let relay: Relay = Launch::talkative(engine).start();
        let [mut listener] = relay.room();
        for content in ["partial", "with a return\r", "é"] {
            let mut speaker = relay.connect();
            speaker.say("whole");
            speaker.send(content.as_bytes());
            speaker.finish_writing();
            listener.expect(&speaker.envelope("whole"));
            let line = listener.line();
            // The return belongs to an ending that never came: either reading of it is fair.
            let bare = speaker.envelope(content.trim_end_matches('\r'));
            assert!(line == speaker.envelope(content) || line == bare, "{line:?}");
        }
    });
}

#[test]
fn a_finished_writer_without_a_partial_line_says_nothing_more() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut listener, mut speaker] = relay.room();
        let mut finisher = relay.connect();
        finisher.say("done");
        finisher.finish_writing();
        listener.expect(&finisher.envelope("done"));
        speaker.say("end");
        listener.expect(&speaker.envelope("end"));
    });
}

#[test]
fn an_invalid_last_line_without_its_end_is_not_relayed() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let mut room: [Client; 2] = relay.room();
        for (what, content) in INVALID {
            let mut offender = relay.connect();
            offender.send(content);
            offender.finish_writing();
            offender.expect_closed_perhaps_warned();
            nothing_was_relayed(&mut room, what);
        }
    });
}

/// The offender was closed, so its line was judged before this one was sent.
fn nothing_was_relayed([speaker, listener]: &mut [Client; 2], what: &str) {
    speaker.say(what);
    listener.expect(&speaker.envelope(what));
}
