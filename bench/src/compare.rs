//! `load compare`: everything there is, in turns, on one machine, in one run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::connects::Connects;
use crate::daemons::Daemons;
use crate::idle::{Idle, IdleReport};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::round::{Pace, Plan};
use crate::server::{Launch, Server};
use crate::stats::{Ratios, Round, Summary, Verdict};
use crate::traffic::Until;
use crate::trips::Trips;

pub mod budgets;
pub mod machine;
pub mod plots;
pub mod table;
pub mod target;
pub mod work;

use machine::Machine;
use target::{Missing, Target};
use work::Work;

/// A comparison: each workload is done by each target, round by round, in turns.
#[derive(Debug, Clone)]
pub struct Compare {
    /// Who takes part; the first is what the others are compared with.
    pub targets: Vec<Target>,
    /// What is done.
    pub cases: Vec<Case>,
    /// How often.
    pub rounds: usize,
    /// How long a round counts.
    pub counted: Duration,
    /// How long it warms up.
    pub warmup: Duration,
    /// How servers are started.
    pub launch: Launch,
    /// The core of the load.
    pub load_core: Option<usize>,
}

/// A workload with its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// The name.
    pub name: String,
    /// What is done.
    pub work: Work,
    /// Only these targets, by label; all of them otherwise.
    pub only: Option<Vec<String>>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// Where.
    pub machine: Machine,
    /// The core that servers were tied to.
    pub server_core: Option<usize>,
    /// The core that the load was tied to.
    pub load_core: Option<usize>,
    /// Rounds of each target and workload.
    pub rounds: usize,
    /// How long a round counted.
    pub counted_secs: f64,
    /// The programs of targets that were given one, by label.
    pub programs: Vec<(String, PathBuf)>,
    /// Who should have taken part and did not.
    pub missing: Vec<Missing>,
    /// By workload.
    pub cases: Vec<CaseReport>,
}

/// One workload's results.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// The workload.
    #[serde(flatten)]
    pub case: Case,
    /// By target.
    pub entries: Vec<Entry>,
}

/// What one target did of one workload.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// The target.
    pub target: String,
    /// What it did.
    pub outcome: Outcome,
    /// Against the first target, where both sent messages.
    pub ratios: Option<Ratios>,
    /// What may be said of that.
    pub verdict: Option<Verdict>,
}

/// What was measured, or why nothing was.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Messages.
    Messages {
        /// Over all rounds.
        summary: Box<Summary>,
        /// Round by round.
        rounds: Vec<Round>,
    },
    /// Connections that did nothing, round by round.
    Idle(Vec<IdleReport>),
    /// Connections that came and went, round by round.
    Connects(Vec<Connects>),
    /// It is not made for this.
    Impossible(String),
    /// It should have done it, and did not.
    Failed(String),
}

/// One round of whatever kind.
enum One {
    Messages(Round),
    Idle(IdleReport),
    Connects(Connects),
}

impl Compare {
    /// Runs everything. A target that fails is out for that workload; the rest go on.
    ///
    /// # Errors
    /// An interrupt.
    pub fn measure(
        &self,
        missing: Vec<Missing>,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<Comparison> {
        let machine = Machine::here();
        let mut cases = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            let done = format!("{}/{} {}", number + 1, self.cases.len(), case.name);
            cases.push(self.case(case, &done, interrupt, progress)?);
        }
        progress.clear();
        Ok(Comparison {
            machine,
            server_core: self.launch.core,
            load_core: self.load_core,
            rounds: self.rounds,
            counted_secs: self.counted.as_secs_f64(),
            programs: self.programs(),
            missing,
            cases,
        })
    }

    fn case(
        &self,
        case: &Case,
        done: &str,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<CaseReport> {
        let takes_part =
            |target: &&Target| case.only.as_ref().is_none_or(|only| only.contains(&target.label));
        let targets: Vec<&Target> = self.targets.iter().filter(takes_part).collect();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; targets.len()];
        for (target, outcome) in targets.iter().zip(&mut outcomes) {
            let why = case.work.impossible(target.format());
            *outcome = why.map(|why| Outcome::Impossible(why.to_owned()));
        }
        let rounds = self.rounds_of(&case.work);
        for round in 0..rounds {
            for turn in 0..targets.len() {
                let at = turn_of(round, turn, targets.len());
                let target = targets[at];
                if matches!(outcomes[at], Some(Outcome::Impossible(_) | Outcome::Failed(_))) {
                    continue;
                }
                let number = round + 1;
                progress.show(&format!("{done}, round {number}/{rounds}: {}", target.label));
                match self.one(target, &case.work, interrupt, progress) {
                    Ok(one) => {
                        let slow = too_slow(&case.work, &one);
                        add(&mut outcomes[at], one);
                        outcomes[at] = slow.map(Outcome::Impossible).or(outcomes[at].take());
                    }
                    Err(error) => {
                        interrupt.check()?;
                        eprintln!("load: {done}: {} FAILED: {error:#}", target.label);
                        outcomes[at] = Some(Outcome::Failed(format!("{error:#}")));
                    }
                }
            }
        }
        let entries = targets.iter().zip(outcomes).filter_map(|(target, outcome)| {
            let target = target.label.clone();
            Some(Entry { target, outcome: outcome?, ratios: None, verdict: None })
        });
        Ok(CaseReport::new(case.clone(), entries.collect()))
    }

    fn programs(&self) -> Vec<(String, PathBuf)> {
        let given = self.targets.iter().filter_map(|target| {
            let program = target.spec.program.clone()?;
            Some((target.label.clone(), program))
        });
        given.collect()
    }

    /// Idle connections take long, and their memory is the same to a few bytes each time.
    fn rounds_of(&self, work: &Work) -> usize {
        if matches!(work, Work::Idle { .. }) { self.rounds.div_ceil(4) } else { self.rounds }
    }

    fn one(
        &self,
        target: &Target,
        work: &Work,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<One> {
        let mut launch = target.launch(&self.launch);
        let pace = match *work {
            Work::Window { .. } => Pace::Window(Until::Elapsed(self.counted)),
            Work::Rate { per_second, .. } => Pace::Rate(per_second, self.counted),
            Work::Idle { connections } => {
                let spec = target.spec.clone();
                let idle = Idle { spec, launch, connections, budget_bytes: None };
                return Ok(One::Idle(idle.measure(interrupt, progress)?));
            }
            Work::Connects { connections } => {
                let server = Server::start(&launch, &target.spec)?;
                let measured = Connects::measure(&server, connections, interrupt);
                let connects = measured.with_context(|| server.said("took connections"))?;
                server.stop()?;
                return Ok(One::Connects(connects));
            }
            Work::Trips { request, size } => {
                let trips = Trips { request, size, warmup: self.warmup, counted: self.counted };
                let done = |server: &Server| trips.measure(server, self.cores(), interrupt);
                return Self::round(&launch, target, done);
            }
            Work::Daemons { daemons, per_second } => {
                let (warmup, counted) = (self.warmup, self.counted);
                let daemons = Daemons { daemons, per_second, warmup, counted };
                let done = |server: &Server| daemons.measure(server, self.cores(), interrupt);
                return Self::round(&launch, target, done);
            }
        };
        let workload = *work.workload().context("a workload without messages")?;
        launch.topics = workload.topics;
        let plan = Plan {
            workload,
            warmup: self.warmup,
            pace,
            server_core: self.launch.core,
            load_core: self.load_core,
        };
        Self::round(&launch, target, |server| plan.measure(server, interrupt))
    }

    /// A round with a server that is started for it.
    fn round(
        launch: &Launch,
        target: &Target,
        measure: impl FnOnce(&Server) -> Result<Round>,
    ) -> Result<One> {
        let server = Server::start(launch, &target.spec)?;
        let round = measure(&server).with_context(|| server.said("was under load"))?;
        server.stop()?;
        Ok(One::Messages(round))
    }

    /// The server's, and the load's.
    fn cores(&self) -> [Option<usize>; 2] {
        [self.launch.core, self.load_core]
    }
}

/// Whose turn it is: everybody begins a round now and then, and follows everybody else, so that
/// what changes slowly (heat, a neighbour on the machine) falls on all.
fn turn_of(round: usize, turn: usize, targets: usize) -> usize {
    let at = (turn + round / 2) % targets;
    if round.is_multiple_of(2) { at } else { targets - 1 - at }
}

/// Shorter rounds are not judged by: a pause of the machine would be taken for the server's.
const SLOW_NS_MIN: u64 = 1_000_000_000;

/// A rate is out of reach for whoever does not do half of it: its latency says nothing then.
fn too_slow(work: &Work, one: &One) -> Option<String> {
    let (Work::Rate { workload, per_second }, One::Messages(round)) = (work, one) else {
        return None;
    };
    let asked = per_second * (workload.readers + workload.publishers - 1) as f64;
    let (did, kept) = (round.rate(), round.rate_kept == Some(true));
    let slow = !kept && did < asked / 2.0 && round.elapsed_ns >= SLOW_NS_MIN;
    slow.then(|| format!("too slow for this rate: {did:.0} of {asked:.0} deliveries/s"))
}

fn add(outcome: &mut Option<Outcome>, one: One) {
    match (outcome, one) {
        (Some(Outcome::Messages { rounds, summary }), One::Messages(round)) => {
            rounds.push(round);
            **summary = Summary::of(rounds);
        }
        (Some(Outcome::Idle(reports)), One::Idle(report)) => reports.push(report),
        (Some(Outcome::Connects(reports)), One::Connects(report)) => reports.push(report),
        (outcome, One::Messages(round)) => {
            let summary = Box::new(Summary::of(std::slice::from_ref(&round)));
            *outcome = Some(Outcome::Messages { summary, rounds: vec![round] });
        }
        (outcome, One::Idle(report)) => *outcome = Some(Outcome::Idle(vec![report])),
        (outcome, One::Connects(report)) => *outcome = Some(Outcome::Connects(vec![report])),
    }
}

impl CaseReport {
    /// The entries of a workload, compared with the first that did it.
    pub fn new(case: Case, mut entries: Vec<Entry>) -> Self {
        let first = entries.iter().position(|entry| entry.rounds().is_some());
        let base = first.and_then(|at| entries[at].rounds()).map(<[Round]>::to_vec);
        for (at, entry) in entries.iter_mut().enumerate() {
            let (Some(base), Some(rounds)) = (&base, entry.rounds()) else { continue };
            if Some(at) != first {
                let ratios = Ratios::of(base, rounds);
                entry.verdict = Some(Verdict::of(&ratios, rounds.len(), None));
                entry.ratios = Some(ratios);
            }
        }
        Self { case, entries }
    }

    /// The entry of a target.
    pub fn entry(&self, target: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.target == target)
    }
}

impl Entry {
    /// Its rounds, if it sent messages.
    pub fn rounds(&self) -> Option<&[Round]> {
        match &self.outcome {
            Outcome::Messages { rounds, .. } => Some(rounds),
            Outcome::Idle(_)
            | Outcome::Connects(_)
            | Outcome::Impossible(_)
            | Outcome::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_long_is_too_slow() {
        let work: Work = "1to10-at1000".parse().unwrap();
        let round = |deliveries, elapsed_ns, kept| {
            let rate_kept = Some(kept);
            One::Messages(Round { deliveries, elapsed_ns, rate_kept, ..Round::default() })
        };
        assert!(too_slow(&work, &round(4_000, 1_000_000_000, false)).is_some());
        assert_eq!(too_slow(&work, &round(6_000, 1_000_000_000, false)), None);
        assert_eq!(too_slow(&work, &round(1_000, 300_000_000, false)), None, "a pause");
        let window: Work = "1to10".parse().unwrap();
        assert_eq!(too_slow(&window, &round(1, 2_000_000_000, false)), None);
    }

    #[test]
    fn everybody_has_a_turn_in_every_round_and_is_first_in_some() {
        let mut firsts = Vec::new();
        for round in 0..10 {
            let mut order: Vec<_> = (0..5).map(|turn| turn_of(round, turn, 5)).collect();
            firsts.push(order[0]);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), 5);
    }
}
