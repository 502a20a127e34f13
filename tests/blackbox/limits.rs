//! What happens when the lent slots are all taken.

use std::time::{Duration, Instant};

use crate::harness::{Client, Heard, Launch, Outcome, PATIENCE, Relay, on_each_engine, wardline};

/// How long one is listened to while others may have said more.
const LITTLE: Duration = Duration::from_millis(20);

#[test]
fn a_full_relay_serves_no_more_than_its_slots_and_takes_somebody_when_one_is_free() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("limits.connections", "8").start();
        let room: [_; 4] = relay.room();
        let mut crowd: Vec<_> = (0..40).filter_map(|_| relay.dial().try_connect().ok()).collect();
        // Of those who came too many, each was told and closed, or took the place of another.
        let deadline = Instant::now() + PATIENCE;
        while crowd.len() > 8 {
            assert!(Instant::now() < deadline, "{} are connected, 8 may", crowd.len());
            crowd.retain_mut(|c| !matches!(c.hear(Duration::from_millis(5)), Heard::End(..)));
        }
        drop(crowd);
        let mut open = Vec::from(room);
        let newcomer = come_in(&relay, &mut open);
        open.push(newcomer);
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

/// Somebody who was let in, as soon as a slot is free: all who are there have heard of it. Who is
/// not there any more is left out.
fn come_in(relay: &Relay, room: &mut Vec<Client>) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no slot was given back");
        let mut newcomer = relay.connect();
        let content = format!("it is {}", newcomer.address());
        let _ = newcomer.try_send(format!("{content}\n").as_bytes());
        let line = newcomer.envelope(&content);
        let (mut inside, mut refused) = (Vec::new(), false);
        // Once one has heard it, all who are there will.
        while !refused && (inside.is_empty() || !room.is_empty()) {
            assert!(Instant::now() < deadline, "neither let in nor refused");
            for mut client in std::mem::take(room) {
                match next_is(&mut client, &line) {
                    Heard::Line(_) => inside.push(client),
                    Heard::Silence => room.push(client),
                    Heard::End(..) => {}
                }
            }
            refused = inside.is_empty() && matches!(newcomer.hear(LITTLE), Heard::End(..));
        }
        if !refused {
            *room = inside;
            return newcomer;
        }
    }
}

/// That line, whatever comes before it; or that it has not come yet, or never will.
fn next_is(client: &mut Client, line: &str) -> Heard {
    loop {
        match client.hear(LITTLE) {
            Heard::Line(said) if said != line => {}
            other => return other,
        }
    }
}
