//! How many native handshakes a core does: the whole of the relay's work for one, beside the four
//! public-key operations that nobody can leave out.
//!
//! ```text
//! cargo bench -p wardline-bench --bench handshakes              what they take, and the ratios
//! cargo bench -p wardline-bench --bench handshakes -- check     the same; fails below the budget
//! ```
//!
//! A handshake is taken, answered, verified, accepted, and its connection closed, by a whole relay
//! over its own memory. The client's half runs in between and is not timed. Each round does one of
//! each kind in turn, many times; a round's figure is the median of those, so that who else runs on
//! the machine falls on all alike, and the ratio is that of the rounds' pairs.

mod units;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use units::hall::{Hall, Operations};

/// The operations are at least this share of a full handshake.
const SHARE_MIN: f64 = 0.85;
/// Rounds, an odd number: one is the median.
const ROUNDS: usize = 21;
/// Of each kind in a round.
const TIMES: usize = 150;
/// Clients that come in turn.
const CLIENTS: u32 = 64;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (rounds, check) = match words[..] {
        [] => (rounds(ROUNDS, TIMES), false),
        ["check"] => (rounds(ROUNDS, TIMES), true),
        // As a test: that it works at all.
        ["--test", ..] => (rounds(3, 2), false),
        _ => {
            eprintln!("handshakes [check]");
            return ExitCode::FAILURE;
        }
    };
    let share = show(&rounds);
    if check && share < SHARE_MIN {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The medians of a round, in nanoseconds.
struct Round {
    operations: f64,
    full: f64,
    resume: f64,
}

fn rounds(rounds: usize, times: usize) -> Vec<Round> {
    let (mut hall, operations) = (Hall::new(), Operations::new());
    let mut next = 0;
    (0..rounds).map(|_| round(&mut hall, &operations, &mut next, times)).collect()
}

fn round(hall: &mut Hall, operations: &Operations, next: &mut u32, times: usize) -> Round {
    let [mut alone, mut full, mut resume] = [const { Vec::new() }; 3];
    for _ in 0..times {
        *next = (*next + 1) % CLIENTS;
        let client = *next;
        let began = Instant::now();
        operations.run();
        alone.push(began.elapsed());
        hall.take_spent();
        let member = hall.enter(client);
        hall.leave(member);
        full.push(hall.take_spent());
        let member = hall.enter(client);
        hall.lose(&member);
        hall.take_spent();
        let member = hall.come_back(client, &member);
        hall.lose(&member);
        resume.push(hall.take_spent());
    }
    Round { operations: median_of(alone), full: median_of(full), resume: median_of(resume) }
}

fn median_of(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_nanos() as f64
}

/// Median, least and greatest of the rounds.
fn spread(rounds: &[Round], of: impl Fn(&Round) -> f64) -> [f64; 3] {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

/// Tells; gives the operations' share of a full handshake.
fn show(rounds: &[Round]) -> f64 {
    println!("median of {} rounds [least .. most]; the relay's work alone, one core", rounds.len());
    let kinds = [
        ("four operations", spread(rounds, |round| round.operations)),
        ("full handshake", spread(rounds, |round| round.full)),
        ("resume", spread(rounds, |round| round.resume)),
    ];
    for (name, ns) in kinds {
        let [median, least, most] = ns.map(|ns| ns / 1e3);
        let per_second = 1e6 / median;
        println!(
            "  {name:<16} {median:>8.2} us [{least:.2} .. {most:.2}]  {per_second:>9.0} a second"
        );
    }
    let [share, least, most] = spread(rounds, |round| round.operations / round.full);
    let kept = if share >= SHARE_MIN { "kept" } else { "NOT KEPT" };
    println!(
        "operations / full handshake {share:.3} [{least:.3} .. {most:.3}], at least {SHARE_MIN}: \
         {kept}"
    );
    let [resume, least, most] = spread(rounds, |round| round.resume / round.full);
    println!("resume / full handshake     {resume:.3} [{least:.3} .. {most:.3}]");
    share
}
