//! What the relay writes down, and above all what it does not.

use std::net::SocketAddr;

use crate::harness::{Client, Launch, Relay, on_each_engine, wait_until};

/// A word that is in no log by chance.
const CANARY: &str = "quetzalcoatlus";

/// Whatever a client can do to be mentioned, each with a word and terminal sequences in it.
fn misbehave(relay: &Relay, room: &mut [Client; 2]) {
    let dirty = format!("\u{1b}]0;{CANARY}\u{7}\u{1b}[31m{CANARY}\u{9b}31m\u{202e}");
    let [speaker, listener] = room;
    speaker.say(&dirty);
    listener.expect(&speaker.envelope(&dirty));

    let mut offenders = [relay.connect(), relay.connect(), relay.connect()];
    offenders[0].send(&[dirty.as_bytes(), b"\xff\n"].concat());
    offenders[1].send(format!("GET /{dirty} HTTP/1.1\r\nHost: {dirty}\r\n\r\n").as_bytes());
    offenders[2].send(dirty.as_bytes());
    offenders[2].finish_writing();
    offenders[0].rest();
    offenders[1].rest();
    listener.expect(&offenders[2].envelope(&dirty));
    speaker.expect(&offenders[2].envelope(&dirty));

    speaker.say(&dirty.repeat(3000));
    speaker.expect_warning();
    speaker.say("end");
    listener.expect(&speaker.envelope("end"));
}

fn has_terminal_sequences(log: &[u8]) -> bool {
    let c1 = |pair: &[u8]| pair[0] == 0xc2 && (0x80..0xa0).contains(&pair[1]);
    log.iter().any(|&b| b < 0x20 && b != b'\n' && b != b'\t') || log.windows(2).any(c1)
}

#[test]
fn nothing_of_what_clients_say_is_logged_by_default() {
    on_each_engine(|engine| {
        for more in [&[][..], &["-v"], &["-vv"], &["--set", "log.level=trace"]] {
            let relay = Launch::talkative(engine).arguments(more).start();
            misbehave(&relay, &mut relay.room());
            let log = ended(relay);
            let text = String::from_utf8_lossy(&log);
            assert!(!text.contains(CANARY), "{more:?}: {text}");
            assert!(!has_terminal_sequences(&log), "{more:?}: {text}");
        }
    });
}

#[test]
fn what_clients_say_is_escaped_where_the_operator_wants_it_logged() {
    on_each_engine(|engine| {
        for format in ["text", "json"] {
            let relay = Launch::talkative(engine)
                .set("log.messages", "true")
                .arguments(&["-vv", "--log-format", format])
                .start();
            misbehave(&relay, &mut relay.room());
            relay.wait_for_log(CANARY);
            let log = ended(relay);
            let text = String::from_utf8_lossy(&log);
            assert!(!has_terminal_sequences(&log), "{format}: {text}");
        }
    });
}

#[test]
fn a_log_that_is_not_read_by_a_person_is_json_line_by_line() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("log.messages", "true").start();
        misbehave(&relay, &mut relay.room());
        relay.wait_for_log(CANARY);
        let log = String::from_utf8(ended(relay)).expect("UTF-8");
        for line in log.lines() {
            let parsed = serde_json::from_str::<serde_json::Value>(line);
            assert!(parsed.is_ok_and(|value| value.is_object()), "no JSON object: {line}");
        }
    });
}

/// What an agent sends, with one key that may be logged and one that may not.
const MESSAGE: &str = concat!(
    r#"{"_version":"1.0.1","#,
    r#""_payload":{"public":"seen-by-all","private":"for-nobody"},"#,
    r#""_type":{"public":"str","private":"str"}}"#
);

/// The log of a relay that has relayed [`MESSAGE`], with these keys.
fn logged(engine: &'static str, keys: Option<&str>) -> String {
    let mut launch = Launch::talkative(engine).set("log.messages", "true");
    if let Some(keys) = keys {
        launch = launch.set("log.keys", keys);
    }
    let relay = launch.start();
    let [mut speaker, mut listener] = relay.room();
    speaker.say(MESSAGE);
    listener.expect(&speaker.envelope(MESSAGE));
    relay.wait_for_log("1.0.1");
    String::from_utf8(ended(relay)).expect("UTF-8")
}

#[test]
fn of_a_logged_message_only_the_listed_keys_are_kept() {
    on_each_engine(|engine| {
        let log = logged(engine, Some("[\"public\"]"));
        assert!(log.contains("seen-by-all"), "{log}");
        assert!(!log.contains("for-nobody") && !log.contains("private"), "{log}");
    });
}

#[test]
fn with_no_keys_listed_none_is_kept() {
    on_each_engine(|engine| {
        let log = logged(engine, Some("[]"));
        for word in ["seen-by-all", "for-nobody", "private"] {
            assert!(!log.contains(word), "{log}");
        }
    });
}

#[test]
fn without_a_list_the_whole_message_is_logged() {
    on_each_engine(|engine| {
        let log = logged(engine, None);
        assert!(log.contains("seen-by-all") && log.contains("for-nobody"), "{log}");
    });
}

#[test]
fn what_is_no_agents_message_keeps_nothing_under_a_filter() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("log.messages", "true")
            .set("log.keys", "[\"public\"]")
            .start();
        let [mut speaker, mut listener] = relay.room();
        let nested = format!(r#"{{"_payload":{{"deep":{{"public":"{CANARY}"}}}},"{CANARY}":1}}"#);
        for line in [&nested, MESSAGE] {
            speaker.say(line);
            listener.expect(&speaker.envelope(line));
        }
        relay.wait_for_log("seen-by-all");
        assert!(!relay.log().contains(CANARY), "{}", relay.log());
    });
}

#[test]
fn each_refusal_is_in_the_log_with_the_address() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).arguments(&["-v"]).start();
        let offences: [&[u8]; 2] = [b"\xff\n", b"GET / HTTP/1.1\r\n\r\n"];
        for offence in offences {
            let mut offender = relay.connect();
            offender.send(offence);
            offender.rest();
            relay.wait_for_log(&offender.address().to_string());
        }
    });
}

/// Whoever resets a connection takes the address with it: the socket does not know it any more.
#[test]
fn a_connection_that_was_reset_is_in_the_log_with_the_address() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).arguments(&["-v"]).start();
        let ends = |address: SocketAddr| {
            let line = move |log: &str| {
                let ended = |line: &&str| line.contains("connection ends");
                log.lines().filter(ended).any(|line| line.contains(&address.to_string()))
            };
            wait_until(&format!("the end of {address} in the log"), || line(&relay.log()));
        };
        let silent = relay.connect_to(1);
        let address = silent.address();
        silent.abort();
        ends(address);

        let [mut speaker, mut listener] = [relay.connect_to(1), relay.connect_to(1)];
        relay.seat_by(relay.connect_to(1), [&mut listener]);
        speaker.say("hello");
        listener.expect(&speaker.envelope("hello"));
        for client in [speaker, listener] {
            let address = client.address();
            client.abort();
            ends(address);
        }

        let mut native = relay.native(1);
        let address = native.address();
        native.abort();
        ends(address);
    });
}

#[test]
fn quiet_is_quiet_and_loud_is_louder() {
    on_each_engine(|engine| {
        let lines = ["-q", "-v"].map(|flag| {
            let relay = Launch::talkative(engine).arguments(&[flag]).start();
            let [mut a, mut b] = relay.room();
            a.say("hello");
            b.expect(&a.envelope("hello"));
            String::from_utf8_lossy(&ended(relay)).lines().count()
        });
        assert!(lines[0] < lines[1], "{lines:?} lines with -q and -v");
    });
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn usr1_reopens_the_log_file() {
    use rustix::process::Signal;
    use std::fs;

    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("log.file", "relay.log")
            .set("log.messages", "true")
            .start();
        let path = relay.dir().join("relay.log");
        let moved = relay.dir().join("relay.log.1");
        let has = |path: &std::path::Path, word: &str| {
            fs::read_to_string(path).is_ok_and(|text| text.contains(word))
        };
        let [mut a, mut b] = relay.room();
        a.say("before the move");
        b.expect(&a.envelope("before the move"));
        wait_until("the first line in the file", || has(&path, "before the move"));
        fs::rename(&path, &moved).expect("it can be moved");
        relay.signal(Signal::USR1);
        wait_until("a new file", || path.exists());
        a.say("after the move");
        b.expect(&a.envelope("after the move"));
        wait_until("the next line in the new file", || has(&path, "after the move"));
        assert!(has(&moved, "before the move") && !has(&moved, "after the move"));
    });
}

/// The whole log, once the relay has ended in order and written the last of it.
fn ended(mut relay: Relay) -> Vec<u8> {
    relay.end();
    relay.log_bytes()
}
