//! Addresses that offend. On Linux every address of 127/8 is ours to come from.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use wardline_core::native::Code;

use crate::harness::native::{Turned, alert};
use crate::harness::{Client, Launch, NativeDial, PATIENCE, Relay, SLOW_WARNING, on_each_engine};

const OFFENDER: u8 = 5;

#[test]
fn an_address_that_offends_is_refused_and_a_new_port_does_not_help() {
    on_each_engine(|engine| {
        let relay = strict(engine).set("quarantine.connects_per_minute", "100000").start();
        let mut host = host(&relay);
        for offence in 1.. {
            assert!(offence <= 200, "200 offences and still welcome");
            let mut offender = relay.connect_from(OFFENDER);
            offender.send(b"\xff\n");
            offender.rest();
            if !is_welcome(&relay, OFFENDER, &mut host) {
                break;
            }
        }
        for _ in 0..10 {
            assert!(!is_welcome(&relay, OFFENDER, &mut host), "a reconnect escapes");
        }
        for innocent in [6, 7] {
            assert!(is_welcome(&relay, innocent, &mut host), "127.0.0.{innocent} did nothing");
        }
    });
}

#[test]
fn over_long_lines_count_as_offences_too() {
    on_each_engine(|engine| {
        let relay = strict(engine)
            .set("quarantine.connects_per_minute", "100000")
            .set("line.max_bytes", "100B")
            .start();
        let mut host = host(&relay);
        let line = "x".repeat(101) + "\n";
        for _ in 0..200 {
            let mut offender = relay.connect_from(OFFENDER);
            if offender.try_send(line.repeat(10).as_bytes()).is_err() {
                break;
            }
            let _ = offender.hear(Duration::from_secs(5));
            if !is_welcome(&relay, OFFENDER, &mut host) {
                return;
            }
        }
        assert!(!is_welcome(&relay, OFFENDER, &mut host), "2000 offences and still welcome");
    });
}

#[test]
fn an_address_that_flaps_is_refused() {
    on_each_engine(|engine| {
        let relay = strict(engine).start();
        let mut host = host(&relay);
        let deadline = Instant::now() + PATIENCE;
        while is_welcome(&relay, OFFENDER, &mut host) {
            assert!(Instant::now() < deadline, "it comes and goes as it likes");
        }
        assert!(is_welcome(&relay, 6, &mut host), "127.0.0.6 did nothing");
    });
}

#[test]
fn who_is_connected_already_is_not_hurt_by_a_neighbour_of_the_same_address() {
    on_each_engine(|engine| {
        let relay = strict(engine).set("quarantine.connects_per_minute", "100000").start();
        let mut host = host(&relay);
        let mut quiet = relay.connect_from(OFFENDER);
        relay.seat_by(relay.connect_from(7), [&mut quiet]);
        for _ in 0..200 {
            let Ok(mut offender) = relay.dial().from([127, 0, 0, OFFENDER].into()).try_connect()
            else {
                break;
            };
            let _ = offender.try_send(b"\xff\n");
            offender.rest();
        }
        assert!(!is_welcome(&relay, OFFENDER, &mut host), "200 offences and still welcome");
        quiet.say("I was here before");
        let said = quiet.envelope("I was here before");
        while host.line() != said {}
    });
}

#[test]
fn loopback_is_exempt_by_default() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let mut host = host(&relay);
        for _ in 0..300 {
            let mut offender = relay.connect_from(OFFENDER);
            offender.send(b"\xff\n");
            offender.rest();
        }
        assert!(is_welcome(&relay, OFFENDER, &mut host), "loopback was refused");
    });
}

#[test]
fn what_the_operator_exempts_is_exempt() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .set("quarantine.exempt", "[\"127.0.0.6/32\"]")
            .set("quarantine.connects_per_minute", "100000")
            .start();
        let mut host = host(&relay);
        for address in [OFFENDER, 6] {
            for _ in 0..100 {
                let mut offender = relay.connect_from(address);
                let _ = offender.try_send(b"\xff\n");
                offender.rest();
            }
        }
        assert!(!is_welcome(&relay, OFFENDER, &mut host), "100 offences and still welcome");
        assert!(is_welcome(&relay, 6, &mut host), "127.0.0.6 is exempt");
    });
}

#[test]
fn the_disconnect_threshold_closes_the_laggard_and_refuses_its_address() {
    on_each_engine(|engine| {
        let relay = strict(engine).set("line.disconnect_threshold", "50").start();
        let [mut speaker, mut witness] = [relay.connect_from(6), relay.connect_from(7)];
        let mut laggard =
            relay.dial().from([127, 0, 0, OFFENDER].into()).receive_buffer(4096).connect();
        relay.seat_by(relay.connect_from(8), [&mut speaker, &mut witness, &mut laggard]);
        let body = "x".repeat(4 << 10);
        for i in 0..1000 {
            let content = format!("{i} {body}");
            speaker.say(&content);
            witness.expect(&speaker.envelope(&content));
        }
        // It must stay above for five seconds on end.
        let deadline = Instant::now() + PATIENCE;
        while is_welcome(&relay, OFFENDER, &mut witness) {
            assert!(Instant::now() < deadline, "the laggard's address is still welcome");
            std::thread::sleep(Duration::from_millis(500));
        }
        let (heard, _) = laggard.rest();
        let whole = heard.iter().filter(|&&b| b == b'\n').count();
        assert!(whole < 1000, "the laggard was served to the end");
        assert!(is_welcome(&relay, 9, &mut witness), "127.0.0.9 did nothing");
        let tail = String::from_utf8_lossy(&heard[heard.len().saturating_sub(100)..]).into_owned();
        assert!(!tail.contains("Warning") || tail.ends_with(SLOW_WARNING), "{tail:?}");
    });
}

#[test]
fn a_native_client_is_refused_in_its_own_words() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine)
            .set("quarantine.exempt", "[]")
            .set("quarantine.connects_per_minute", "100000")
            .start();
        let offender = IpAddr::from([127, 0, 0, OFFENDER]);
        let dial = || relay.native_dial(1).from(offender);
        for offence in 1.. {
            assert!(offence <= 200, "200 offences and still welcome");
            let mut stream = dial().stream().expect("it listens");
            let _ = stream.write_all(b"nonsense");
            assert_eq!(alert(&mut stream), Some(Code::BadMagic));
            match dial().try_connect() {
                Ok(client) => client.close(),
                Err(turned) => {
                    assert!(matches!(turned, Turned::Alert(Code::Quarantined)), "{turned:?}");
                    break;
                }
            }
        }
        relay.native_dial(2).from([127, 0, 0, 6].into()).connect().close();
        // Where both dialects are taken, nobody knows yet which one it speaks.
        let mixed = relay.address_of(2);
        let mut stream = NativeDial::new(mixed, 1).from(offender).stream().expect("it listens");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.starts_with("Warning: Your address is refused"), "{said:?}");
    });
}

#[test]
fn a_relay_that_is_full_tells_a_native_client_so() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).set("limits.connections", "3").start();
        let there: Vec<_> = (1..=3).map(|number| relay.native(number)).collect();
        let mut late = relay.native_dial(4).stream().expect("it listens");
        assert_eq!(alert(&mut late), Some(Code::TooManyConnections));
        drop(there);
    });
}

fn strict(engine: &'static str) -> Launch {
    Launch::talkative(engine).set("quarantine.exempt", "[]")
}

/// A member of the room from an address that does nothing wrong.
fn host(relay: &Relay) -> Client {
    let mut host = relay.connect_from(2);
    relay.seat_by(relay.connect_from(3), [&mut host]);
    host
}

/// Whether a newcomer from this address is let in: its line then comes to the host.
fn is_welcome(relay: &Relay, address: u8, host: &mut Client) -> bool {
    let Ok(mut newcomer) = relay.dial().from([127, 0, 0, address].into()).try_connect() else {
        return false;
    };
    let content = format!("here is {}", newcomer.address());
    newcomer.is_let_in(&content, host)
}
