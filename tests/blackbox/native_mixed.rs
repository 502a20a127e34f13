//! Which dialect is spoken where: by the first byte, or after a silence.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use wardline_core::native::{Code, Start, flags};

use crate::harness::native::alert;
use crate::harness::{Dial, Heard, Launch, NativeDial, PATIENCE, on_each_engine};

/// A socket that waits for an answer no longer than it may take.
fn raw(to: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("no delay");
    stream
}

#[test]
fn the_first_byte_says_which_dialect() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let mixed = relay.address_of(2);
        let mut native = NativeDial::new(mixed, 1).connect();
        native.subscribe("main", Start::Now);
        let mut listener = relay.native(2);
        listener.subscribe("main", Start::Now);
        // Any byte but one begins a line.
        for first in [b"x".as_slice(), b"{", b"\n", b"\0", b" ", "ä".as_bytes(), b"\r\n"] {
            let mut line = Dial::new(mixed).connect();
            line.send(&[first, b" said\n"].concat());
            let text = [first, b" said"].concat();
            let text = text.split(|byte| *byte == b'\n').next().expect("one");
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            for client in [&mut native, &mut listener] {
                assert!(client.expect(text).has(flags::LINE));
                if first.contains(&b'\n') {
                    client.expect(b" said");
                }
            }
        }
        let mut line = Dial::new(mixed).connect();
        line.say("here");
        native.expect(b"here");
        native.publish("main", b"to all");
        assert!(line.line().contains("\"content\":\"to all\""));
    });
}

#[test]
fn a_native_client_may_take_its_time_byte_by_byte() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let dial = NativeDial::new(relay.address_of(2), 1);
        // Longer than a native listener waits for the first byte, and all of it in five seconds:
        // a machine that has other things to do may be late for that, but not each time.
        let attempt = || {
            let mut stream = dial.stream().expect("it listens");
            thread::sleep(Duration::from_millis(2_200));
            let (hello, wait) = dial.hello(None);
            for byte in &hello {
                if stream.write_all(&[*byte]).is_err() {
                    return false;
                }
                thread::sleep(Duration::from_millis(2));
            }
            dial.answer(&mut stream, wait).is_ok()
        };
        assert!((0..3).any(|_| attempt()), "no session");
    });
}

#[test]
fn silence_of_three_seconds_is_a_line_client() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let mut speaker = relay.native(1);
        speaker.open("main").expect("it may");
        let mut late = raw(relay.address_of(2));
        let begun = Instant::now();
        let mut silent = Dial::new(relay.address_of(2)).connect();
        let deadline = begun + PATIENCE;
        while !silent.hears_by(Instant::now() + Duration::from_millis(50)) {
            assert!(Instant::now() < deadline, "it never becomes a reader");
            speaker.publish("main", b"anybody?");
        }
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(2_800), "a reader after {took:?}");
        assert!(took < Duration::from_secs(10), "a reader after {took:?}");
        assert!(matches!(silent.hear(PATIENCE), Heard::Line(line) if line.contains("anybody?")));
        silent.say("I am");
        // Too late for the other dialect: it is told so, as soon as what was said before is read.
        late.write_all(&NativeDial::new(relay.address_of(2), 2).hello(None).0).expect("it reads");
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut late, &mut said).expect("it is closed");
        let at = said.windows(4).position(|bytes| bytes == b"\xF5WDL").expect("an ALERT");
        assert_eq!(said[at + 8..at + 10], Code::WrongDialect.wire().to_le_bytes());
        assert!(at == 0 || said[at - 1] == b'\n', "in the middle of a line");
    });
}

/// From an address that is not exempt: then a point would show.
#[cfg(target_os = "linux")]
#[test]
fn a_native_client_at_a_line_listener_is_told_and_not_charged() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine)
            .set("quarantine.exempt", "[]")
            .set("quarantine.connects_per_minute", "100000")
            .start();
        let lines = relay.address_of(1);
        for _ in 0..200 {
            let mut stream = raw(lines);
            stream.write_all(&NativeDial::new(lines, 1).hello(None).0).expect("it reads");
            assert_eq!(alert(&mut stream), Some(Code::WrongDialect));
        }
        for first in [&b"\xF5"[..], b"\xF5W", b"\xF5WDL"] {
            let mut stream = raw(lines);
            stream.write_all(first).expect("it reads");
            assert_eq!(alert(&mut stream), Some(Code::WrongDialect));
        }
        // It is welcome in both dialects.
        let mut native = relay.native(1);
        native.subscribe("main", Start::Now);
        relay.connect_to(1).say("hello");
        native.expect(b"hello");
    });
}

#[test]
fn a_line_client_at_a_native_listener_is_turned_away() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        for line in [&b"hello\n"[..], b"{\"content\":\"x\"}\n", b"GET / HTTP/1.1\r\n\r\n", b"\0"] {
            let mut stream = raw(relay.address());
            stream.write_all(line).expect("it reads");
            assert_eq!(alert(&mut stream), Some(Code::BadMagic), "{line:?}");
        }
        relay.native(1);
    });
}
