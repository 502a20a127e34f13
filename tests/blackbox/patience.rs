//! The coalescing budget: `line.coalesce`, and a listener's own.

use std::time::{Duration, Instant};

use crate::harness::{Client, Launch, on_each_engine};

/// Says two lines, one as soon as the other was heard. Gives how long both took, of which the first
/// one waits for nothing.
fn both_take(a: &mut Client, b: &mut Client) -> Duration {
    // Whatever was said before, its patience is over.
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    a.say("one");
    b.expect(&a.envelope("one"));
    a.say("two");
    b.expect(&a.envelope("two"));
    begin.elapsed()
}

#[test]
fn what_is_said_next_waits_for_more_and_nothing_is_lost() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).set("line.coalesce", "50ms").start();
        let [mut a, mut b, mut c] = relay.room();
        let took = both_take(&mut a, &mut b);
        assert!(took >= Duration::from_millis(25), "it took {took:?}");
        for content in ["one", "two"] {
            c.expect(&a.envelope(content));
        }
        for n in 0..2_000 {
            a.say(&format!("number {n}"));
        }
        for reader in [&mut b, &mut c] {
            for n in 0..2_000 {
                reader.expect(&a.envelope(&format!("number {n}")));
            }
        }
    });
}

#[test]
fn a_listener_may_be_patient_while_others_are_not() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .listen("line://127.0.0.1:0/patient?coalesce=50ms")
            .listen("line://127.0.0.1:0/quick")
            .start();
        assert!(relay.urls()[0].ends_with("/patient?coalesce=50ms"), "{:?}", relay.urls());
        let [patient, quick] = [0, 1].map(|listener| {
            let mut pair = [relay.connect_to(listener), relay.connect_to(listener)];
            relay.seat_by(relay.connect_to(listener), &mut pair);
            let [a, b] = &mut pair;
            // On a busy machine one may take long for other reasons; not twenty in a row.
            (0..20).map(|_| both_take(a, b)).min().expect("twenty")
        });
        assert!(patient >= Duration::from_millis(25), "it took {patient:?}");
        assert!(quick < Duration::from_millis(25), "it took {quick:?}");
    });
}
