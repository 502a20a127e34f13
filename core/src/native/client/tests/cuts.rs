//! A year of bad luck: cuts anywhere, relays that forget, refusals; and what is said of each
//! message is true.

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::native::testing::Rng;
use crate::time::Duration;

/// What a run comes to.
#[derive(Default)]
struct Run {
    fates: BTreeMap<u64, Fate>,
    /// Direct messages that came or were said to be lost: ranges, by the count of the relay's
    /// lives.
    directs: Vec<(u64, u64, u64)>,
    life: u64,
    resumes: u32,
    forgot: u32,
}

impl Run {
    fn feed(&mut self, session: &mut Session<Lent>, now: Instant, bytes: &[u8]) {
        let (life, directs) = (self.life, &mut self.directs);
        let taken = feed(session, now, bytes, |session, took| match took {
            Took::Frames(frames) => {
                for frame in frames {
                    let offset = frame.header.offset;
                    let lost = session.direct(&frame.header).expect("in order");
                    assert_eq!(lost, None, "nothing is lost within a connection");
                    directs.push((life, offset, offset + 1));
                }
            }
            Took::Ready(ready) => {
                if let Some(DirectLost { from, to }) = ready.lost {
                    directs.push((life, from, to));
                }
            }
            Took::Nothing | Took::Pong(..) | Took::Control(_) | Took::Close(_) => {}
        });
        taken.expect("good records");
        while let Some((mid, fate)) = session.poll_settled() {
            assert!(self.fates.insert(mid, fate).is_none(), "{mid} was settled twice");
        }
    }
}

/// A part of `bytes`, any.
fn part<'a>(rng: &mut Rng, bytes: &'a [u8]) -> &'a [u8] {
    &bytes[..rng.below(bytes.len() as u64 + 1) as usize]
}

fn run(seed: u64) -> Run {
    let mut rng = Rng::seeded(seed);
    let refuses = seed % 2 == 1;
    let (mut session, mut relay) = (session(), Relay::new());
    let mut run = Run::default();
    let mut now = NOW;
    let mut said = 0;
    for _ in 0..40 {
        if rng.below(6) == 0 {
            relay.forget();
            (run.life, run.forgot) = (run.life + 1, run.forgot + 1);
        }
        run.resumes += u32::from(connect(&mut session, &mut relay, now));
        relay.refuse = (refuses && rng.below(3) == 0).then(|| rng.below(7));
        for _ in 0..rng.below(8) {
            let out = std::mem::take(&mut relay.out);
            run.feed(&mut session, now, &out);
            for _ in 0..rng.below(9) {
                said += u64::from(session.enqueue().is_some());
            }
            if rng.below(2) == 0 {
                session.barrier();
            }
            let out = flush(&mut session, now);
            relay.take(now, &out);
            for _ in 0..rng.below(3) {
                relay.say_direct();
            }
            now = now.after(Duration::from_millis(rng.below(1_000)));
        }
        // The last that was said, and the cut: each end has read a part.
        for _ in 0..rng.below(5) {
            said += u64::from(session.enqueue().is_some());
        }
        let out = flush(&mut session, now);
        relay.take(now, part(&mut rng, &out));
        let out = std::mem::take(&mut relay.out);
        run.feed(&mut session, now, part(&mut rng, &out));
        session.handle_lost();
        relay.records = None;
    }
    // One connection that holds: everything is settled.
    connect(&mut session, &mut relay, now);
    for _ in 0..4 {
        let out = std::mem::take(&mut relay.out);
        run.feed(&mut session, now, &out);
        session.barrier();
        relay.take(now, &flush(&mut session, now));
    }
    assert!(session.is_settled(), "{:?}", session.counts());
    assert_eq!(run.fates.len() as u64, said);
    judge(&run, &relay);
    // What was sent again stands before what was said later. A refusal that was lost on the way
    // leaves its message to be sent after others that were taken: no order can be had then.
    assert!(refuses || relay.taken.is_sorted(), "out of order");
    run
}

fn judge(run: &Run, relay: &Relay) {
    let mut times: BTreeMap<u64, u32> = BTreeMap::new();
    for mid in &relay.taken {
        *times.entry(*mid).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "something was taken twice");
    for (mid, fate) in &run.fates {
        let taken = times.contains_key(mid);
        match fate {
            Fate::Taken => assert!(taken, "{mid} was not taken"),
            Fate::Refused => assert!(!taken, "{mid} was taken"),
            Fate::Unsure => assert!(run.forgot > 0, "{mid} must be known"),
        }
    }
    // Each direct message of a life came once, or was told to be lost.
    for life in 0..=run.life {
        let ranges = run.directs.iter().filter(|(of, ..)| *of == life);
        let mut next = None;
        for (_, from, to) in ranges {
            assert!(next.is_none_or(|next| next == *from), "{from} after {next:?} in {life}");
            next = Some(*to);
        }
    }
}

#[test]
fn what_is_said_of_each_message_is_true() {
    let (mut resumes, mut fates) = (0, [0; 3]);
    for seed in 0..300 {
        let run = run(seed);
        resumes += run.resumes;
        for fate in run.fates.values() {
            fates[match fate {
                Fate::Taken => 0,
                Fate::Refused => 1,
                Fate::Unsure => 2,
            }] += 1;
        }
    }
    assert!(resumes > 1_000 && fates.iter().all(|count| *count > 1_000), "{resumes} {fates:?}");
}
