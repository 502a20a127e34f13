//! How native clients are told that the relay ends.
#![cfg(unix)]

use std::time::{Duration, Instant};

use rustix::process::Signal;
use wardline_core::native::{Code, ServerControl, Start};

use crate::harness::{Launch, PATIENCE, SHUTDOWN_WARNING, Said, on_each_engine};

#[test]
fn every_client_is_told_and_the_relay_ends() {
    on_each_engine(|engine| {
        for signal in [Signal::TERM, Signal::INT] {
            let mut relay = Launch::of_both(engine).start();
            let mut clients: Vec<_> = (0..20).map(|number| relay.native(number)).collect();
            for client in &mut clients {
                client.subscribe("main", Start::Now);
            }
            let mut line = relay.connect_to(1);
            line.say("here");
            for client in &mut clients {
                client.expect(b"here");
            }
            // A socket that has not said who it is does not matter.
            let mut silent = relay.native_dial(50).stream().expect("it listens");
            relay.signal(signal);
            for client in &mut clients {
                assert_eq!(client.hear(PATIENCE), Some(Said::Close(Code::GoingAway)));
                assert_eq!(client.hear(PATIENCE), Some(Said::End(true)));
                assert!(!client.can_resume(), "there is nothing to come back to");
            }
            line.expect(SHUTDOWN_WARNING);
            let mut said = Vec::new();
            let _ = std::io::Read::read_to_end(&mut silent, &mut said);
            assert!(said.len() <= 24, "{said:02x?}");
            drop((clients, line, silent));
            assert_eq!(relay.wait(PATIENCE).code(), Some(0));
        }
    });
}

#[test]
fn what_was_queued_comes_before_the_end() {
    const MESSAGES: u64 = 200;
    on_each_engine(|engine| {
        let mut relay = Launch::of_both(engine).start();
        let mut late = relay.native_dial(1).receive_buffer(4096).connect();
        late.subscribe("t", Start::Now);
        let (mut speaker, mut witness) = (relay.native(2), relay.native(3));
        witness.subscribe("t", Start::Now);
        speaker.open("t").expect("it may");
        let payload = |nth: u64| [&nth.to_le_bytes()[..], &[b'x'; 16 << 10]].concat();
        for nth in 0..MESSAGES {
            speaker.publish("t", &payload(nth));
            witness.expect(&payload(nth));
        }
        assert!(speaker.barrier());
        relay.signal(Signal::TERM);
        assert_eq!(witness.closed(), Some(Code::GoingAway));
        assert_eq!(speaker.closed(), Some(Code::GoingAway));
        for nth in 0..MESSAGES {
            assert_eq!(late.expect(&payload(nth)).offset, nth);
        }
        assert_eq!(late.closed(), Some(Code::GoingAway));
        drop((late, speaker, witness));
        assert_eq!(relay.wait(PATIENCE).code(), Some(0));
    });
}

#[test]
fn what_is_said_while_it_drains_is_not_taken_and_that_is_known() {
    on_each_engine(|engine| {
        let mut relay = Launch::of_both(engine).start();
        let (mut speaker, mut witness) = (relay.native(2), relay.native(3));
        witness.subscribe("t", Start::Now);
        speaker.open("t").expect("it may");
        let mut said = Vec::new();
        for nth in 0..20_u32 {
            said.push(speaker.publish("t", &nth.to_le_bytes()));
        }
        assert!(speaker.barrier());
        relay.signal(Signal::TERM);
        // Until it is told.
        for nth in 20..900_u32 {
            said.push(speaker.publish("t", &nth.to_le_bytes()));
            if speaker.hear(Duration::from_millis(1)).is_some() {
                break;
            }
        }
        let mut heard = Vec::new();
        loop {
            match witness.hear(PATIENCE) {
                Some(Said::Frame(header, _)) => heard.push(header.mid),
                Some(Said::Close(code)) => {
                    assert_eq!(code, Code::GoingAway);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        // What is settled as taken was heard, in the order in which it was said.
        assert_eq!(heard, said[..heard.len()]);
        assert!(heard.len() >= 20, "what came before the signal");
        for (mid, fate) in speaker.settled() {
            let taken = fate == wardline_core::native::client::Fate::Taken;
            assert!(!taken || heard.contains(&mid), "{mid} was taken and not heard");
        }
        drop((speaker, witness));
        assert_eq!(relay.wait(PATIENCE).code(), Some(0));
    });
}

#[test]
fn a_drain_is_over_when_its_time_is_whoever_does_not_read() {
    on_each_engine(|engine| {
        let mut relay = Launch::of_both(engine).set("limits.drain", "1s").start();
        let mut stuck = relay.native_dial(1).receive_buffer(4096).connect();
        stuck.subscribe("t", Start::Now);
        let mut witness = relay.native(2);
        witness.subscribe("t", Start::Now);
        for _ in 0..256 {
            witness.publish("t", &[b'x'; 16 << 10]);
        }
        assert!(witness.barrier());
        let begun = Instant::now();
        relay.signal(Signal::TERM);
        assert_eq!(witness.closed(), Some(Code::GoingAway));
        drop(witness);
        let status = relay.wait(PATIENCE);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "a drain of 1 s took {took:?}");
        assert_eq!(status.code(), Some(0));
        // What it was sent is in order, as far as it goes.
        let mut next = 0;
        while let Some(said) = stuck.hear(PATIENCE) {
            match said {
                Said::Frame(header, _) => {
                    assert_eq!(header.offset, next);
                    next += 1;
                }
                Said::Control(ServerControl::Gap { from, to, .. }) => {
                    assert_eq!(from, next);
                    next = to;
                }
                Said::Close(code) => assert!(matches!(code, Code::GoingAway | Code::SlowReader)),
                Said::End(_) => break,
                other @ Said::Control(_) => panic!("{other:?}"),
            }
        }
    });
}
