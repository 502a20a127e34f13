//! The budgets of the project: what may cost how much, and against whom.

use std::fmt;

use serde::Serialize;

use super::target::Target;
use super::{Case, CaseReport, Comparison, Outcome};
use crate::server::{Kind, Spec};
use crate::stats::{LATENCY_MAX, RATE_MIN, ROUNDS_MIN, Ratios, Round, Spread};

/// The label of the target with a coalescing budget, and of the same without.
const COALESCE: &str = "coalesce=10ms";
const COALESCE_NOT: &str = "coalesce=0";
/// The label of two shards, and of the same with one.
const SHARDS_2: &str = "shards=2";
const SHARDS_1: &str = "shards=1";
/// Workloads that more than one budget is about.
const IDLE: &str = "idle-10000";
const PAIRS: &str = "1to1-x500-w1";
const COALESCED: &str = "1to1000-at1000";
const SHARDED: &str = "2to200";
/// Workloads on which the engines are held against each other.
const ENGINES_ON: [&str; 7] =
    ["1to1", "1to10", "1to100", "1to1000", "1to100-1k", "1to100-w1", PAIRS];

/// Labels: of the engine that is judged, and of its native dialect, on topics and between peers.
const ENGINE: &str = "{}";
const NATIVE: &str = "native-{}";
const DIRECT: &str = "direct-{}";
/// Messages between 500 pairs of peers; apart from [`PAIRS`], so that each has rounds of its own.
const DIRECT_PAIRS: &str = "direct-1to1-x500-w1";
const TRIPS: &str = "rtt";
const REQUESTS: &str = "rtt-request";
const DAEMONS: &str = "daemons-200-at100";
/// One frame a record: reported apart, and no budget.
const ONE_FRAME: [&str; 2] = ["1to1-f1", "1to100-f1"];

/// What is compared with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// CPU per delivery, with that of the first of these, or the better of them.
    Cpu(&'static [&'static str]),
    /// Median latency, with that of this one.
    P50(&'static str),
    /// 99th percentile of latency, in milliseconds.
    P99Ms,
    /// Resident megabytes.
    ResidentMb,
    /// Private bytes of an idle connection.
    IdleBytes,
}

/// One budget.
#[derive(Debug, Clone, Copy)]
struct Budget {
    case: &'static str,
    /// Whose, by label.
    of: &'static str,
    what: Of,
    most: f64,
}

impl Budget {
    /// Whether it is asked of the portable engine too, where that is the one that is judged.
    fn is_of_tokio(&self) -> bool {
        // There it is the one that is judged.
        let twice = self.of == "direct-tokio";
        (!twice && !self.of.contains(ENGINE))
            || match self.what {
                Of::Cpu(NATS_REDIS | ["nats"] | ["redis"]) => true,
                Of::Cpu(["blind"]) => self.of == DIRECT,
                Of::P50(_) | Of::P99Ms | Of::ResidentMb => true,
                Of::Cpu(_) | Of::IdleBytes => false,
            }
    }
}

/// The label of one, where this engine is judged.
fn named(label: &str, engine: &str) -> String {
    label.replace(ENGINE, engine)
}

const fn cpu(case: &'static str, base: &'static [&'static str], most: f64) -> Budget {
    Budget { case, of: ENGINE, what: Of::Cpu(base), most }
}

const fn tokio(case: &'static str, most: f64) -> Budget {
    Budget { case, of: "tokio", what: Of::Cpu(&["blind"]), most }
}

const fn native(case: &'static str, most: f64) -> Budget {
    Budget { case, of: NATIVE, what: Of::Cpu(&[ENGINE]), most }
}

const fn direct(case: &'static str, what: Of, most: f64) -> Budget {
    Budget { case, of: DIRECT, what, most }
}

const NATS_REDIS: &[&str] = &["nats", "redis"];

/// All of them but those of the engines against each other, which are [`ENGINES_ON`].
const BUDGETS: [Budget; 28] = [
    cpu("1to100", &["blind"], 1.10),
    cpu("1to100", NATS_REDIS, 1.0 / 6.0),
    cpu("1to1000", &["blind"], 1.00),
    cpu("1to1000", NATS_REDIS, 1.0 / 6.0),
    cpu("1to10", &["blind"], 1.35),
    cpu("1to10", NATS_REDIS, 1.0 / 4.0),
    cpu("1to1", &["blind"], 1.35),
    cpu("1to1", &["nats"], 1.0 / 2.0),
    cpu("1to100-1k", &["redis"], 1.0 / 3.0),
    cpu("1to100-w1", &["blind"], 1.05),
    tokio("1to100", 1.25),
    tokio("1to10", 1.50),
    tokio("1to1", 1.60),
    cpu(PAIRS, &["tokio"], 0.90),
    Budget { case: COALESCED, of: COALESCE, what: Of::Cpu(&[COALESCE_NOT]), most: 1.0 / 6.0 },
    Budget { case: COALESCED, of: COALESCE, what: Of::P99Ms, most: 12.0 },
    Budget { case: SHARDED, of: SHARDS_2, what: Of::Cpu(&[SHARDS_1]), most: 1.15 },
    Budget { case: IDLE, of: ENGINE, what: Of::IdleBytes, most: 1024.0 },
    Budget { case: IDLE, of: "tokio", what: Of::IdleBytes, most: 2048.0 },
    native("1to1", 1.40),
    native("1to100", 1.15),
    direct(DIRECT_PAIRS, Of::Cpu(&["direct-tokio"]), 0.90),
    direct(DIRECT_PAIRS, Of::Cpu(&["blind"]), 1.15),
    Budget { case: DIRECT_PAIRS, of: "direct-tokio", what: Of::Cpu(&["blind"]), most: 1.15 },
    direct(TRIPS, Of::P50("blind"), 1.10),
    direct(REQUESTS, Of::P50("blind"), 1.10),
    direct(DAEMONS, Of::P99Ms, 1.0),
    direct(DAEMONS, Of::ResidentMb, 16.0),
];

/// Who takes part, when this engine is judged.
pub fn targets(engine: &Target) -> Vec<Target> {
    let mut targets = vec![Target::named("blind"), engine.clone()];
    for name in ["tokio", "nats", "redis"] {
        let target = Target::named(name);
        if target.engine != engine.engine || target.engine.is_empty() {
            targets.push(target);
        }
    }
    for (label, kind) in [(NATIVE, Kind::Native), (DIRECT, Kind::Direct)] {
        let label = named(label, &engine.label);
        let spec = Spec { kind, ..engine.spec.clone() };
        targets.push(Target { label, spec, ..engine.clone() });
    }
    if engine.engine != "tokio" {
        targets.push(Target::named("direct-tokio"));
    }
    targets.push(Target::named("blind-ring"));
    let own = || engine.clone();
    targets.push(own().with(COALESCE_NOT, Some("line.coalesce=0s"), None));
    targets.push(own().with(COALESCE, Some("line.coalesce=10ms"), None));
    targets.push(own().with(SHARDS_1, None, Some(1)));
    targets.push(own().with(SHARDS_2, None, Some(2)));
    targets
}

/// What they do.
pub fn cases(engine: &Target) -> Vec<Case> {
    let engine = engine.label.as_str();
    let of_work = |name: &str, work: &str, only: &[&str]| {
        let mut only: Vec<String> = only.iter().map(|label| named(label, engine)).collect();
        only.dedup();
        let work = work.parse().unwrap_or_else(|error| panic!("{error}"));
        Case { name: name.to_owned(), work, only: Some(only) }
    };
    let case = |name: &str, only: &[&str]| of_work(name, name, only);
    let all = ["blind", ENGINE, "tokio", "nats", "redis"];
    let with_native = ["blind", ENGINE, "tokio", NATIVE, "nats", "redis"];
    let trips = ["blind", "blind-ring", ENGINE, "tokio", DIRECT, "direct-tokio"];
    let mut cases = vec![
        case("1to1", &with_native),
        case("1to10", &all),
        case("1to100", &with_native),
        case("1to1000", &all),
        case("1to100-1k", &["blind", ENGINE, "tokio", "redis"]),
        case("1to100-w1", &["blind", ENGINE, "tokio"]),
        case(PAIRS, &["tokio", ENGINE]),
        of_work(DIRECT_PAIRS, PAIRS, &["blind", "blind-ring", DIRECT, "direct-tokio"]),
        case(TRIPS, &trips),
        case(REQUESTS, &["blind", "blind-ring", DIRECT, "direct-tokio"]),
        case(DAEMONS, &[DIRECT, "direct-tokio"]),
        case(COALESCED, &[COALESCE_NOT, COALESCE]),
        case(SHARDED, &[SHARDS_1, SHARDS_2]),
        case(IDLE, &["blind", ENGINE, "tokio"]),
    ];
    cases.extend(ONE_FRAME.map(|name| case(name, &[ENGINE, NATIVE])));
    cases
}

/// All budgets, judged.
#[derive(Debug, Clone, Serialize)]
pub struct Judged {
    /// In the order of the budgets.
    pub lines: Vec<Line>,
}

/// A budget, and what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// In words.
    pub budget: String,
    /// The most that keeps it.
    pub most: f64,
    /// What was measured; nothing if it could not be.
    pub measured: Option<Spread>,
    /// Whether the figure may be quoted.
    pub counts: bool,
    /// Why not.
    pub why_not: Vec<String>,
}

impl Line {
    /// Whether it counts and keeps the budget.
    pub fn kept(&self) -> bool {
        self.counts && self.measured.is_some_and(|measured| measured.median <= self.most)
    }
}

impl Judged {
    /// Judges a comparison of [`targets`] and [`cases`].
    pub fn of(comparison: &Comparison, engine: &str) -> Self {
        let judged = BUDGETS.iter().filter(|budget| engine != "tokio" || budget.is_of_tokio());
        let mut lines: Vec<Line> = judged.map(|budget| judge(comparison, budget, engine)).collect();
        if engine != "tokio" {
            let budgets = ENGINES_ON.iter().map(|case| cpu(case, &["tokio"], 1.03));
            lines.extend(budgets.map(|budget| judge(comparison, &budget, engine)));
        }
        Self { lines }
    }

    /// Whether all budgets were kept by figures that count.
    pub fn passed(&self) -> bool {
        self.lines.iter().all(Line::kept)
    }
}

fn judge(comparison: &Comparison, budget: &Budget, engine: &str) -> Line {
    let Budget { case, of, what, most } = *budget;
    let label = named(of, engine);
    let label = label.as_str();
    let report = comparison.cases.iter().find(|report| report.case.name == case);
    let found = report.ok_or_else(|| format!("no {case}")).and_then(|report| match what {
        Of::Cpu(bases) => {
            let bases: Vec<String> = bases.iter().map(|base| named(base, engine)).collect();
            cpu_ratio(report, label, &bases, of == NATIVE)
        }
        Of::P50(base) => p50_ratio(report, label, base),
        Of::P99Ms => of_each(report, label, |round| round.p99_ns as f64 / 1e6),
        Of::ResidentMb => of_each(report, label, |round| round.memory.rss_bytes as f64 / 1e6),
        Of::IdleBytes => idle(report, label),
    });
    let (what, bases) = match what {
        Of::Cpu(bases) => ("CPU / ", named(&bases.join(" or "), engine)),
        Of::P50(base) => ("p50 / ", base.to_owned()),
        Of::P99Ms => ("p99 ms", String::new()),
        Of::ResidentMb => ("MB resident", String::new()),
        Of::IdleBytes => ("bytes each", String::new()),
    };
    let of = label;
    match found {
        Ok((measured, why_not, base)) => Line {
            budget: format!("{case}: {of}, {what}{base}"),
            most,
            measured: Some(measured),
            counts: why_not.is_empty(),
            why_not,
        },
        Err(why) => Line {
            budget: format!("{case}: {of}, {what}{bases}"),
            most,
            measured: None,
            counts: false,
            why_not: vec![why],
        },
    }
}

/// A figure, why it does not count, and what it was compared with.
type Found = Result<(Spread, Vec<String>, String), String>;

fn rounds<'r>(report: &'r CaseReport, target: &str) -> Result<&'r [Round], String> {
    let entry = report.entry(target).ok_or_else(|| format!("{target} is not here"))?;
    match &entry.outcome {
        Outcome::Messages { rounds, .. } => Ok(rounds),
        Outcome::Failed(why) => Err(format!("{target} failed: {why}")),
        Outcome::Impossible(why) => Err(format!("{target}: {why}")),
        Outcome::Idle(_) | Outcome::Connects(_) => Err(format!("{target} sent nothing")),
    }
}

/// A figure of each round, which counts where the rate was kept.
fn of_each(report: &CaseReport, of: &str, value: impl Fn(&Round) -> f64) -> Found {
    let rounds = rounds(report, of)?;
    Ok((Spread::of(rounds.iter().map(value)), of_rates(rounds), String::new()))
}

fn p50_ratio(report: &CaseReport, of: &str, base: &str) -> Found {
    let (theirs, mine) = (rounds(report, base)?, rounds(report, of)?);
    Ok((Ratios::of(theirs, mine).p50, too_few(mine), base.to_owned()))
}

fn too_few(rounds: &[Round]) -> Vec<String> {
    let few = rounds.len() < ROUNDS_MIN;
    if few { vec![format!("{} rounds of {ROUNDS_MIN}", rounds.len())] } else { Vec::new() }
}

/// `beside_base`: that the work was done is seen beside whom the price is compared with. Else it is
/// seen beside the blind relay, where that can do it.
fn cpu_ratio(report: &CaseReport, of: &str, bases: &[String], beside_base: bool) -> Found {
    let mine = rounds(report, of)?;
    let mut best: Option<(&str, &[Round], f64)> = None;
    for base in bases {
        let theirs = rounds(report, base)?;
        let median = Spread::of(theirs.iter().map(Round::cpu_per_delivery)).median;
        if best.is_none_or(|(.., least)| median < least) {
            best = Some((base, theirs, median));
        }
    }
    let (base, theirs, _) = best.ok_or("nobody to compare with")?;
    let ratios = Ratios::of(theirs, mine);
    let mut why_not = match rounds(report, "blind") {
        Ok(blind) if !beside_base => not_the_same(&Ratios::of(blind, mine), "blind's"),
        _ if mine.iter().any(|round| round.rate_kept.is_some()) => of_rates(mine),
        _ => not_the_same(&ratios, &format!("{base}'s")),
    };
    why_not.extend(too_few(mine));
    Ok((ratios.cpu, why_not, base.to_owned()))
}

fn not_the_same(ratios: &Ratios, whose: &str) -> Vec<String> {
    let mut why_not = Vec::new();
    if ratios.rate.median < RATE_MIN {
        why_not.push(format!("deliveries/s {:.2} x {whose}", ratios.rate.median));
    }
    for (name, ratio) in [("p50", ratios.p50), ("p99", ratios.p99)] {
        if ratio.median > LATENCY_MAX {
            why_not.push(format!("{name} {:.2} x {whose}", ratio.median));
        }
    }
    why_not
}

/// At a fixed rate the work was done if the rate was kept, in most rounds.
fn of_rates(rounds: &[Round]) -> Vec<String> {
    let late = rounds.iter().filter(|round| round.rate_kept == Some(false)).count();
    if late * 2 > rounds.len() {
        vec![format!("rate not kept in {late} of {} rounds", rounds.len())]
    } else {
        Vec::new()
    }
}

fn idle(report: &CaseReport, of: &str) -> Found {
    let entry = report.entry(of).ok_or_else(|| format!("{of} is not here"))?;
    match &entry.outcome {
        Outcome::Idle(reports) => {
            let bytes = reports.iter().map(|report| report.bytes_per_connection);
            Ok((Spread::of(bytes), Vec::new(), String::new()))
        }
        Outcome::Failed(why) => Err(format!("{of} failed: {why}")),
        Outcome::Impossible(_) | Outcome::Messages { .. } | Outcome::Connects(_) => {
            Err(format!("{of} was not idle"))
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| budget | most | measured | spread | counts | kept |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for line in &self.lines {
            let Line { budget, most, measured, counts, why_not } = line;
            write!(f, "| {budget} | {most:.3} | ")?;
            match measured {
                Some(Spread { median, min, max }) => {
                    write!(f, "{median:.3} | {min:.3} .. {max:.3} | ")?;
                }
                None => write!(f, "- | - | ")?,
            }
            let counts =
                if *counts { "yes".to_owned() } else { format!("no: {}", why_not.join("; ")) };
            writeln!(f, "{counts} | {} |", if line.kept() { "yes" } else { "NO" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
