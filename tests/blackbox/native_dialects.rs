//! Both dialects on one topic: what is said in one of them is heard in the other.

use std::thread;

use serde_json::Value;
use wardline_core::native::client::Fate;
use wardline_core::native::{Code, Start, flags};

use crate::harness::{Client, Dial, Launch, NativeClient, Relay, on_each_engine, wait_until};

/// Somebody of each dialect on `main`, who have heard each other.
fn pair(relay: &Relay) -> (NativeClient, Client) {
    let mut native = relay.native(1);
    native.subscribe("main", Start::Now);
    let mut line = relay.connect_to(1);
    line.say("here");
    let header = native.expect(b"here");
    assert!(header.has(flags::LINE));
    (native, line)
}

/// What line clients are sent when a native client says `content`.
fn envelope(from: &NativeClient, content: &str) -> String {
    format!("{{\"content\":{},\"remote_addr\":\"{}\"}}\n", Value::from(content), from.address())
}

#[test]
fn a_native_message_reaches_line_readers_as_one_line() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let (mut reader, mut line) = pair(&relay);
        let mut speaker = relay.native(2);
        speaker.open("main").expect("it may");
        let texts = [
            "hello",
            "",
            "two\nlines\r\nand a half",
            "a NUL \0, an ESC \x1b, a tab \t, a quote \", a backslash \\",
            "separators \u{2028}\u{2029}\u{85} and \u{feff}\u{202e} äöü \u{1f980}",
            "\",\"remote_addr\":\"1.1.1.1:1\"}\n{\"content\":\"x\",\"remote_addr\":\"1.1.1.1:1\"}",
            "{\"remote_addr\":\"10.0.0.1:1\"}",
            "Warning: Server is shutting down.\n",
        ];
        for text in texts {
            speaker.publish("main", text.as_bytes());
            let heard = line.line();
            assert_eq!(heard, envelope(&speaker, text));
            let value: Value = serde_json::from_str(&heard).expect("JSON");
            assert_eq!(value["content"], *text);
            assert_eq!(value["remote_addr"], speaker.address().to_string());
            let header = reader.expect(text.as_bytes());
            assert_eq!((header.peer, header.flags), (speaker.handle(), 0));
        }
    });
}

#[test]
fn what_is_no_text_reaches_line_readers_as_base64() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let (mut reader, mut line) = pair(&relay);
        let mut speaker = relay.native(2);
        speaker.open("main").expect("it may");
        let cases: [(&[u8], &str); 5] = [
            (b"\xff", "base64:/w=="),
            (b"\xff\xfe", "base64://4="),
            (b"\xff\xfe\x00", "base64://4A"),
            (b"\xed\xa0\x80\n", "base64:7aCACg=="),
            (b"cut \xc3", "base64:Y3V0IMM="),
        ];
        for (bytes, shown) in cases {
            speaker.publish("main", bytes);
            line.expect(&envelope(&speaker, shown));
            reader.expect(bytes);
        }
        let all: Vec<u8> = (0..=255).collect();
        speaker.publish("main", &all);
        let heard: Value = serde_json::from_str(&line.line()).expect("JSON");
        let shown = heard["content"].as_str().expect("text");
        assert!(shown.starts_with("base64:AAECAwQF") && shown.ends_with("+fr7/P3+/w=="), "{shown}");
        assert_eq!(shown.len(), "base64:".len() + 344);
        reader.expect(&all);
    });
}

#[test]
fn what_is_too_long_for_a_line_is_for_nobody_while_lines_are_read() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let (mut reader, mut line) = pair(&relay);
        let mut speaker = relay.native(2);
        speaker.open("main").expect("it may");
        for long in [vec![b'x'; 64 << 10], vec![0xFF; 50 << 10], vec![1; 11 << 10]] {
            let mid = speaker.publish("main", &long);
            assert_eq!(speaker.nacked(mid), Code::TooLarge);
            assert!(speaker.barrier());
            assert_eq!(speaker.settled(), [(mid, Fate::Refused)]);
        }
        speaker.publish("main", b"short");
        line.expect(&envelope(&speaker, "short"));
        reader.expect(b"short");
        drop(line);
        // Once no line is read, they are frames and nothing else.
        let long = vec![0xFF; 64 << 10];
        wait_until("the line client to be gone", || {
            let mid = speaker.publish("main", &long);
            assert!(speaker.barrier());
            speaker.settled() == [(mid, Fate::Taken)]
        });
        reader.expect(&long);
    });
}

#[test]
fn a_line_reaches_native_readers_as_of_somebody_unknown() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let (mut reader, mut line) = pair(&relay);
        let mut other = relay.connect_to(1);
        let mut peers = Vec::new();
        for (nth, text) in ["one", "zwei ä\u{2028}", ""].into_iter().enumerate() {
            let speaker = if nth == 1 { &mut other } else { &mut line };
            speaker.say(text);
            let header = reader.expect(text.as_bytes());
            assert_eq!((header.flags, header.mid, header.corr), (flags::LINE, 0, 0));
            peers.push(header.peer);
        }
        assert!(peers[0] != 0 && peers[0] == peers[2] && peers[0] != peers[1], "{peers:x?}");
        for peer in &peers {
            assert_eq!(reader.identify(*peer), Ok([0; 32]));
        }
        assert_ne!(reader.identify(reader.handle()), Ok([0; 32]));
        drop(other);
        wait_until("a handle that leads nowhere", || {
            reader.identify(peers[1]) == Err(Code::NoRoute)
        });
        assert_eq!(reader.identify(peers[0]), Ok([0; 32]));
        // A direct message has nowhere to go.
        let kind = wardline_core::native::FrameKind::Direct;
        let mid = reader.send_to(kind, (peers[0], 0), b"psst");
        assert_eq!(reader.nacked(mid), Code::NoRoute);
        line.say("still there");
        reader.expect(b"still there");
    });
}

#[test]
fn both_dialects_hear_one_order() {
    const EACH: usize = 300;
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let (mut reader, mut line) = pair(&relay);
        thread::scope(|scope| {
            for who in 0..2 {
                let relay = &relay;
                scope.spawn(move || {
                    let mut speaker = relay.native(10 + who);
                    speaker.open("main").expect("it may");
                    for i in 0..EACH {
                        speaker.publish("main", format!("native {who} {i}").as_bytes());
                    }
                    assert!(speaker.barrier());
                });
                scope.spawn(move || {
                    let mut speaker = Dial::new(relay.address_of(1)).connect();
                    for i in 0..EACH {
                        speaker.say(&format!("line {who} {i}"));
                    }
                    speaker.finish_writing();
                    speaker.rest();
                });
            }
            let mut next: u64 = 1;
            let heard: Vec<String> = (0..4 * EACH)
                .map(|_| {
                    let (header, payload) = reader.frame();
                    assert_eq!(header.offset, next);
                    next += 1;
                    String::from_utf8(payload).expect("text")
                })
                .collect();
            for text in &heard {
                let line: Value = serde_json::from_str(&line.line()).expect("JSON");
                assert_eq!(line["content"], **text);
            }
            for name in ["native 0", "native 1", "line 0", "line 1"] {
                let of: Vec<_> = heard.iter().filter(|text| text.starts_with(name)).collect();
                let said = (0..EACH).map(|i| format!("{name} {i}"));
                assert!(of.into_iter().cloned().eq(said), "{name} is out of order");
            }
        });
    });
}

#[test]
fn a_native_client_that_comes_later_has_lines_that_were_kept() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let (_reader, mut line) = pair(&relay);
        for i in 0..10 {
            line.say(&format!("line {i}"));
        }
        let next = || relay.native(3).subscribe("main", Start::Now).next;
        wait_until("all of them to be said", || next() == 11);
        let mut late = relay.native(4);
        let place = late.subscribe("main", Start::Last(4));
        assert_eq!((place.next, place.oldest), (11, 0));
        for i in 6..10 {
            let header = late.expect(format!("line {i}").as_bytes());
            assert!(header.has(flags::LINE) && header.offset == i + 1, "{header:?}");
        }
    });
}
