//! What happens when the lent slots are all taken.

use std::time::{Duration, Instant};

use crate::harness::{Heard, Launch, Outcome, PATIENCE, on_each_engine, wardline};

#[test]
fn a_full_relay_serves_no_more_than_its_slots_and_takes_somebody_when_one_is_free() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("limits.connections", "8").start();
        let mut room: [_; 4] = relay.room();
        let mut crowd: Vec<_> = (0..40).filter_map(|_| relay.dial().try_connect().ok()).collect();
        // Of those who came too many, each was told and closed, or took the place of another.
        let deadline = Instant::now() + PATIENCE;
        while crowd.len() > 8 {
            assert!(Instant::now() < deadline, "{} are connected, 8 may", crowd.len());
            crowd.retain_mut(|c| !matches!(c.hear(Duration::from_millis(5)), Heard::End(..)));
        }
        drop(crowd);
        let open = room.iter_mut().filter_map(|client| {
            let heard = client.hear(Duration::from_millis(50));
            (!matches!(heard, Heard::End(..))).then_some(client)
        });
        let mut open: Vec<_> = open.collect();
        let mut newcomer = connect_when_free(&relay);
        open.push(&mut newcomer);
        assert!(open.len() >= 2, "everybody who was there was thrown out");
        for i in 0..open.len() {
            let content = format!("{i} is here");
            open[i].say(&content);
            let line = open[i].envelope(&content);
            for other in (0..open.len()).filter(|&other| other != i) {
                while open[other].line() != line {}
            }
        }
    });
}

#[test]
fn more_topics_than_there_may_be_are_a_mistake_of_the_settings() {
    on_each_engine(|engine| {
        let mut command = wardline();
        command.args(["serve", "--engine", engine, "--set", "limits.topics=1"]);
        for topic in ["a", "b"] {
            command.args(["--listen", &format!("line://127.0.0.1:0/{topic}")]);
        }
        let outcome = Outcome::of(&mut command);
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
    });
}

fn connect_when_free(relay: &crate::harness::Relay) -> crate::harness::Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no slot was given back");
        let mut client = relay.connect();
        if client.hear(Duration::from_millis(200)) == Heard::Silence {
            return client;
        }
    }
}
