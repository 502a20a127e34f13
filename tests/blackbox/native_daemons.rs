//! Many daemons that are asked now and then: each answers, at once, and the relay stays small.
#![cfg(target_os = "linux")]

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use wardline_core::native::FrameKind;

use crate::harness::{Launch, PATIENCE, Said, on_each_engine, process};

const DAEMONS: u64 = 200;
const REQUESTS: u64 = 300;
/// A hundred a second.
const EVERY: Duration = Duration::from_millis(10);

#[test]
fn two_hundred_daemons_answer_a_hundred_requests_a_second() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).start();
        let mut daemons: Vec<_> = (0..DAEMONS).map(|number| relay.native(number)).collect();
        let handles: Vec<_> = daemons.iter().map(|daemon| daemon.handle()).collect();
        let over = &AtomicBool::new(false);
        let mut took: Vec<Duration> = thread::scope(|scope| {
            // A thread for some of them: each waits for its own.
            for daemon in &mut daemons {
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        match daemon.hear(Duration::from_millis(500)) {
                            Some(Said::Frame(header, payload)) => {
                                assert_eq!(header.kind, FrameKind::Request);
                                let to = (header.peer, header.mid);
                                daemon.send_to(FrameKind::Reply, to, &payload);
                            }
                            None => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
            let mut asker = relay.native(DAEMONS);
            let begun = Instant::now();
            let took = (0..REQUESTS).map(|nth| {
                let due = EVERY * u32::try_from(nth).expect("few");
                thread::sleep(due.saturating_sub(begun.elapsed()));
                let asked = Instant::now();
                let peer = handles[(nth * 7 % DAEMONS) as usize];
                let question = format!("question {nth}");
                let mid = asker.send_to(FrameKind::Request, (peer, 0), question.as_bytes());
                match asker.hear(PATIENCE) {
                    Some(Said::Frame(header, answer)) => {
                        assert_eq!((header.kind, header.peer), (FrameKind::Reply, peer));
                        assert_eq!((header.corr, &answer[..]), (mid, question.as_bytes()));
                    }
                    other => panic!("no answer to {nth}: {other:?}"),
                }
                asked.elapsed()
            });
            let took = took.collect();
            over.store(true, Ordering::Relaxed);
            took
        });
        let resident = process::resident_bytes(relay.pid());
        took.sort_unstable();
        let [median, p99, most] =
            [took.len() / 2, took.len() * 99 / 100, took.len() - 1].map(|nth| took[nth]);
        // Not by a macro: what those say is only shown of cases that fail.
        let _ = writeln!(
            io::stderr(),
            "{engine}: {DAEMONS} daemons, {REQUESTS} answers: median {median:?}, p99 {p99:?}, \
             most {most:?}; {} KiB resident",
            resident >> 10
        );
        assert!(resident < 16 << 20, "{resident} bytes are resident");
        // Machines for tests are shared, and the other tests run beside this one: what is asked of
        // the slowest is said by `load`, not here. Who holds answers back has no quick ones.
        let quick = took[took.len() / 10];
        assert!(quick < Duration::from_millis(20), "a tenth in {quick:?}");
    });
}
