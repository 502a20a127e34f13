//! The command line of `load compare`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::{cores, refuse, seconds};
use crate::compare::budgets::{self, Judged};
use crate::compare::target::{self, Target};
use crate::compare::work::{DEFAULT, QUICK};
use crate::compare::{Case, Compare, Comparison, plots};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::report::write_json;
use crate::server::Launch;
use crate::stats::ROUNDS_MIN;

pub(crate) const HELP: &str = "\
Targets: blind, blind-ring (no protocol at all: epoll, and io_uring); tokio, ring, tokio-uring
(Wardline's engines); native-ring, native-tokio (the native dialect on topics, each record
authenticated); direct-ring, direct-tokio (from peer to peer); nats, redis, mosquitto (others'
relays, if they are on this machine). NAME or NAME=PROGRAM. Those that were not named and are not
here are left out, and that is said.

Workloads are words: 1to100 is one publisher to a hundred readers, 64 bytes, 256 in flight;
-1k or -48b another size, -w32 another window, -at5000 so many messages a second instead (latency is
then counted from when a message was due), -x500 so many topics, -f1 one frame in each native
record; idle-10000, connects-2000; rtt there and back again, rtt-request by REQUEST and REPLY;
daemons-200-at100 so many daemons, asked so often a second.

Each round starts each target anew, as `load run` does, and each round begins with another one.
The first target is what the ratios are to.

Examples:
  load compare                                    everything, about ten minutes
  load compare --quick                            a minute
  load compare --targets blind,tokio,redis --workloads 1to100,1to100-w1 --rounds 10
  load compare --budgets --json budgets.json      the project's budgets; exit status 1 if not kept
  load compare --dialect native                   the native dialect beside lines
  load compare --plots figures                    cost.svg and latency.svg";

/// Rounds, counted seconds and warm-up: as usual, in a hurry, for the budgets.
const USUAL: (usize, f64, f64) = (3, 0.5, 0.15);
const HURRY: (usize, f64, f64) = (2, 0.1, 0.05);
const BUDGETS: (usize, f64, f64) = (ROUNDS_MIN, 1.0, 0.25);

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Who takes part, the first being what the others are compared with [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "budgets")]
    targets: Option<Vec<Target>>,
    /// Of which dialect, where no targets and workloads are named.
    #[arg(long, value_enum, default_value_t = Dialect::Line)]
    dialect: Dialect,
    /// What is done [default: a set of eighteen].
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "budgets")]
    workloads: Option<Vec<String>>,
    /// A few workloads, shortly: to see that it works.
    #[arg(long, conflicts_with = "budgets")]
    quick: bool,
    /// Instead: what the project's budgets are about, and a table that says which are kept.
    #[arg(long)]
    budgets: bool,
    /// The engine whose budgets they are.
    #[arg(long, value_name = "NAME", default_value = "ring", requires = "budgets")]
    engine: String,
    /// The `wardline` program [default: beside this one, then target/release/wardline].
    #[arg(long, value_name = "PATH")]
    server_bin: Option<PathBuf>,
    /// One more setting for wardline, as `a.b=c`; may be repeated.
    #[arg(long = "set", value_name = "A.B=C")]
    settings: Vec<String>,
    /// How often each target does each workload [default: 3; for budgets 10].
    #[arg(long)]
    rounds: Option<usize>,
    /// How long a round counts [default: 0.5; for budgets 1].
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds of the same work before a round counts [default: 0.15; for budgets 0.25].
    #[arg(long)]
    warmup: Option<f64>,
    /// The core for the servers.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    server_core: usize,
    /// The core for the load.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    load_core: usize,
    /// Leave all on whatever core the kernel likes.
    #[arg(long)]
    no_pin: bool,
    /// Write all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw figures into this directory.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// Whom a comparison is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dialect {
    /// Everybody.
    Line,
    /// Wardline's native dialect, beside its lines.
    Native,
}

/// Who takes part where it is about the native dialect, and what they do.
const NATIVE: [&str; 6] =
    ["ring", "native-ring", "direct-ring", "tokio", "native-tokio", "direct-tokio"];
const NATIVE_DOES: [&str; 7] =
    ["1to1", "1to1-w1", "1to10", "1to100", "1to100-w1", "1to100-1k-w32", "1to1-x500-w1"];

/// All figures, for programs.
#[derive(Serialize)]
struct All<'c> {
    #[serde(flatten)]
    comparison: &'c Comparison,
    budgets: Option<&'c Judged>,
}

impl CompareArgs {
    /// Compares; false if something of ours failed or a budget was not kept.
    pub(crate) fn run(self, progress: &Progress) -> Result<bool> {
        let (mut wanted, by_name) = self.wanted().unwrap_or_else(|error| refuse(&error));
        let mut compare = self.compare().unwrap_or_else(|error| refuse(&error));
        target::number(&mut wanted);
        let interrupt = Interrupt::install()?;
        let (here, missing) =
            target::present(&wanted, &compare.launch, compare.load_core, &interrupt, progress)?;
        for missing in &missing {
            eprintln!("load: {missing}");
        }
        if by_name && !missing.is_empty() {
            bail!("not everything that was asked for by name is on this machine");
        }
        if here.is_empty() {
            bail!("nothing to compare is on this machine");
        }
        compare.targets = here;
        let comparison = compare.measure(missing, &interrupt, progress)?;
        print!("{comparison}");
        let judged = self.budgets.then(|| Judged::of(&comparison, &self.engine));
        if let Some(judged) = &judged {
            print!("{judged}");
        }
        if let Some(path) = &self.json {
            write_json(path, &All { comparison: &comparison, budgets: judged.as_ref() })?;
        }
        if let Some(dir) = &self.plots {
            for path in plots::write(&comparison, dir)? {
                println!("figure: {}", path.display());
            }
        }
        let is_ours = |label: &str| {
            compare.targets.iter().any(|target| target.label == label && target.is_ours())
        };
        Ok(comparison.passed(is_ours) && judged.is_none_or(|judged| judged.passed()))
    }

    /// The targets, and whether they were asked for by name.
    fn wanted(&self) -> Result<(Vec<Target>, bool)> {
        if self.budgets {
            return Ok((budgets::targets(&self.engine()?), false));
        }
        match &self.targets {
            Some(targets) if targets.is_empty() => bail!("--targets names nobody"),
            Some(targets) => Ok((targets.clone(), true)),
            None if self.dialect == Dialect::Native => {
                Ok((NATIVE.map(Target::named).to_vec(), false))
            }
            None => Ok((target::ALL.map(|(name, ..)| Target::named(name)).to_vec(), false)),
        }
    }

    fn engine(&self) -> Result<Target> {
        match self.engine.parse::<Target>() {
            Ok(target) if !target.engine.is_empty() => Ok(target),
            _ => bail!("--engine is tokio, ring or tokio-uring"),
        }
    }

    fn compare(&self) -> Result<Compare> {
        let (rounds, counted, warmup) = match (self.budgets, self.quick) {
            (true, _) => BUDGETS,
            (false, true) => HURRY,
            (false, false) => USUAL,
        };
        let rounds = self.rounds.unwrap_or(rounds);
        let counted = seconds("--seconds", self.seconds.unwrap_or(counted))?;
        if rounds == 0 || counted.is_zero() {
            bail!("no rounds, or rounds of no time, measure nothing");
        }
        let warmup = seconds("--warmup", self.warmup.unwrap_or(warmup))?;
        let (server_core, load_core) = cores(self.no_pin, self.server_core, self.load_core)?;
        let launch = Launch {
            server_bin: self.server_bin.clone(),
            engine: String::new(),
            settings: self.settings.clone(),
            core: server_core,
            unlimited: true,
            topics: 1,
            shards: None,
        };
        let cases = self.cases()?;
        Ok(Compare { targets: Vec::new(), cases, rounds, counted, warmup, launch, load_core })
    }

    fn cases(&self) -> Result<Vec<Case>> {
        if self.budgets {
            return Ok(budgets::cases(&self.engine()?));
        }
        let names: Vec<&str> = match &self.workloads {
            Some(names) => names.iter().map(String::as_str).collect(),
            None if self.quick => QUICK.to_vec(),
            None if self.dialect == Dialect::Native => NATIVE_DOES.to_vec(),
            None => DEFAULT.to_vec(),
        };
        let case = |name: &str| match name.parse() {
            Ok(work) => Ok(Case { name: name.to_owned(), work, only: None }),
            Err(error) => bail!("{error}"),
        };
        names.into_iter().map(case).collect()
    }
}
