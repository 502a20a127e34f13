//! Native senders that keep to the rate that they were told, and one that does not.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Launch, PATIENCE, on_each_engine};

/// What the log says of a strike.
const STRUCK: &str = "address struck";

#[test]
fn who_stays_over_its_rate_is_struck_after_ten_seconds_and_nobody_else() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine)
            .set("quarantine.exempt", "[]")
            .set("quarantine.threshold_points", "5")
            .set("native.bytes_per_second", "256KiB")
            .start();
        let (mut pushy, mut even) = (relay.native(1), relay.native(2));
        pushy.open("t").expect("it may");
        even.open("t").expect("it may");
        let begun = Instant::now();
        thread::scope(|scope| {
            // Eighteen seconds' worth, as fast as the socket takes it.
            scope.spawn(move || {
                for _ in 0..80 {
                    pushy.publish("t", &[b'x'; 60 << 10]);
                }
                // Slowed, and nothing is dropped: what waits is taken in its time.
                thread::sleep(Duration::from_secs(15));
                assert!(pushy.settled().is_empty());
            });
            let mut struck_after = None;
            let mut nth = 0;
            while begun.elapsed() < Duration::from_secs(16) {
                even.publish("t", &[b'y'; 4_000]);
                nth += 1;
                if nth % 100 == 0 {
                    assert!(even.barrier(), "it is heard");
                }
                if struck_after.is_none() && relay.log().contains(STRUCK) {
                    struck_after = Some(begun.elapsed());
                }
                // Fifty a second at most: 200 KB.
                let due = begun + Duration::from_millis(20) * nth;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let after = struck_after.expect("it is struck");
            assert!(after >= Duration::from_secs(10) && after < PATIENCE, "after {after:?}");
            assert_eq!(relay.log().matches(STRUCK).count(), 1, "{}", relay.log());
        });
    });
}
