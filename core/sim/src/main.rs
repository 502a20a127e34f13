//! `sim`: runs seeds of the simulator, two at a time, and says what they came to.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::panic::PanicHookInfo;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wardline_sim::{
    AGENT_OPS_DEFAULT, AgentsReport, MUTANTS, OPS_DEFAULT, Place, Places, Report, State,
    run_agents, run_seed, trace,
};

/// How often each place must be reached, over so many seeds, half of which are of lines.
const LEAST: u64 = 50;
const LEAST_SEEDS: u64 = 3_000;
/// And each state of native sessions, over so many seeds.
const LEAST_STATES: u64 = 1;
const LEAST_AGENTS: u64 = 1_000;

const USAGE: &str = "\
sim: honest, slow and hostile clients in virtual time, against a naive model

  --seeds N          run N seeds (default 3000)
  --first N          begin at seed N (default 0)
  --seed N           run that seed alone
  --agents           native sessions alone
  --lines            lines alone
  --ops N            steps of a seed (default 2000, of agents 3000)
  --jobs N           threads (default 2)
  --no-places        do not ask for each place to be reached
  --quiet            print failures only
  --list-mutants     print the planted bugs, one a line
  --check-mutants F  fail unless the files F name just these bugs
";

/// Which simulation: of lines, of native sessions, or half of the seeds each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Both,
    Lines,
    Agents,
}

/// What both came to.
#[derive(Clone, Debug, Default)]
struct Total {
    lines: Report,
    agents: AgentsReport,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    first: u64,
    seeds: u64,
    ops: Option<u64>,
    jobs: u64,
    which: Which,
    places: bool,
    quiet: bool,
}

fn main() -> ExitCode {
    let mut asked = Asked {
        first: 0,
        seeds: LEAST_SEEDS,
        ops: None,
        jobs: 2,
        which: Which::Both,
        places: true,
        quiet: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse().ok());
        let known = match word.as_str() {
            "--seeds" => number().map(|seeds| Asked { seeds, ..asked }),
            "--first" => number().map(|first| Asked { first, ..asked }),
            "--seed" => number().map(|first| Asked { first, seeds: 1, ..asked }),
            "--ops" => number().map(|ops| Asked { ops: Some(ops), ..asked }),
            "--agents" => Some(Asked { which: Which::Agents, ..asked }),
            "--lines" => Some(Asked { which: Which::Lines, ..asked }),
            "--jobs" => number().map(|jobs| Asked { jobs, ..asked }),
            "--no-places" => Some(Asked { places: false, ..asked }),
            "--quiet" => Some(Asked { quiet: true, ..asked }),
            "--list-mutants" => {
                MUTANTS.iter().for_each(|(name, _)| println!("{name}"));
                return ExitCode::SUCCESS;
            }
            "--check-mutants" => return check_mutants(words),
            _ => None,
        };
        let Some(known) = known else {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        };
        asked = known;
    }
    std::panic::set_hook(Box::new(failed));
    run(asked)
}

/// Runs the seeds, and says whether that is well.
fn run(asked: Asked) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs.max(1) {
            scope.spawn(|| work(asked, &next, &total, began));
        }
    });
    let Total { lines, agents } = total.into_inner().expect("no thread has failed");
    let seconds = began.elapsed().as_secs_f64();
    if !asked.quiet {
        if asked.which != Which::Agents {
            table(&lines.places);
        }
        if asked.which != Which::Lines {
            for (state, meaning) in State::ALL {
                println!("{:>10}  {}", agents.states.count(state), meaning.trim());
            }
        }
        println!(
            "{} seeds, {} steps, {} messages, {:.0} virtual hours, in {seconds:.1} s; hash {:016x}",
            asked.seeds,
            lines.steps + agents.steps,
            lines.messages + agents.messages,
            (lines.virtual_ns + agents.virtual_ns) as f64 / 3.6e12,
            lines.hash.wrapping_add(agents.hash),
        );
    }
    if !asked.places {
        return ExitCode::SUCCESS;
    }
    let missed: Vec<Place> = lines.places.missed(LEAST).collect();
    let enough = asked.which != Which::Agents && asked.seeds >= LEAST_SEEDS;
    if enough && !missed.is_empty() {
        eprintln!("reached fewer than {LEAST} times: {missed:?}");
        return ExitCode::FAILURE;
    }
    let missed: Vec<State> = agents.states.missed(LEAST_STATES).collect();
    let half = if asked.which == Which::Agents { 1 } else { 2 };
    let enough = asked.which != Which::Lines && asked.seeds / half >= LEAST_AGENTS;
    if enough && !missed.is_empty() {
        eprintln!("hit fewer than {LEAST_STATES} times: {missed:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn work(asked: Asked, next: &AtomicU64, total: &Mutex<Total>, began: Instant) {
    let mut told = Duration::ZERO;
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= asked.seeds {
            return;
        }
        // Of both each has half of the seeds; which one a seed is of follows from it alone.
        let seed = asked.first + nth;
        let agents = match asked.which {
            Which::Both => seed % 2 == 1,
            Which::Lines => false,
            Which::Agents => true,
        };
        let mut both = Total::default();
        if agents {
            both.agents = run_agents(seed, asked.ops.unwrap_or(AGENT_OPS_DEFAULT));
        } else {
            both.lines = run_seed(seed, asked.ops.unwrap_or(OPS_DEFAULT));
        }
        let mut total = total.lock().expect("no thread has failed");
        total.add(&both);
        let now = began.elapsed();
        if !asked.quiet && now >= told + Duration::from_secs(5) {
            told = now;
            let messages = total.lines.messages + total.agents.messages;
            eprintln!("{nth} of {} seeds, {messages} messages", asked.seeds);
        }
    }
}

impl Total {
    fn add(&mut self, other: &Self) {
        let Self { lines, agents } = other;
        self.lines.places.add(&lines.places);
        self.lines.hash = self.lines.hash.wrapping_add(lines.hash);
        self.lines.steps += lines.steps;
        self.lines.messages += lines.messages;
        self.lines.virtual_ns += lines.virtual_ns;
        self.agents.states.add(&agents.states);
        self.agents.hash = self.agents.hash.wrapping_add(agents.hash);
        self.agents.steps += agents.steps;
        self.agents.messages += agents.messages;
        self.agents.virtual_ns += agents.virtual_ns;
    }
}

fn table(places: &Places) {
    for (place, meaning) in Place::ALL {
        println!("{:>10}  {}", places.count(place), meaning.trim());
    }
}

/// Says which seed failed, how, and how to see it again; then ends the process.
fn failed(info: &PanicHookInfo<'_>) {
    // Of threads that fail together one tells, and ends them all.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let (seed, steps) = trace::last();
    let Some((seed, ops, agents)) = seed else {
        eprintln!("{info}");
        std::process::exit(1);
    };
    eprintln!("seed {seed} failed: {info}\nthe last steps:");
    for (step, now_ns, op) in steps {
        eprintln!("  {step:>7}  {:>12.6} s  {op:?}", now_ns as f64 / 1e9);
    }
    let which = if agents { "--agents" } else { "--lines" };
    let last = shortest(seed, ops, which);
    eprintln!(
        "replay: cargo run --profile verify -p wardline-sim -- --seed {seed} {which} --ops {last}"
    );
    std::process::exit(1);
}

/// The fewest steps with which a seed still fails, found by halves in processes of their own.
fn shortest(seed: u64, ops: u64, which: &str) -> u64 {
    let Ok(program) = std::env::current_exe() else { return ops };
    if std::env::var_os("WARDLINE_SIM_SHORTEN").is_some() {
        return ops;
    }
    let fails = |ops: u64| {
        let words = ["--seed", &seed.to_string(), "--ops", &ops.to_string()].map(str::to_owned);
        let run = Command::new(&program)
            .args(words)
            .args([which, "--jobs", "1", "--quiet"])
            .env("WARDLINE_SIM_SHORTEN", "no")
            .stderr(Stdio::null())
            .status();
        run.is_ok_and(|status| !status.success())
    };
    let (mut passes, mut fails_at) = (0, ops);
    while passes + 1 < fails_at {
        let middle = passes.midpoint(fails_at);
        if fails(middle) {
            fails_at = middle;
        } else {
            passes = middle;
        }
    }
    fails_at
}

/// Compares the planted bugs that files name with the list.
fn check_mutants(files: impl Iterator<Item = String>) -> ExitCode {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            eprintln!("cannot read {file}");
            return ExitCode::FAILURE;
        };
        for piece in text.split("wardline_mutant = \"").skip(1) {
            let name = piece.split('"').next().unwrap_or_default();
            named.insert(name.to_owned(), file.clone());
        }
    }
    let mut good = true;
    for (name, _) in MUTANTS {
        if named.remove(*name).is_none() {
            eprintln!("{name} is listed and planted nowhere");
            good = false;
        }
    }
    for (name, file) in named {
        eprintln!("{name} is planted in {file} and not listed");
        good = false;
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
