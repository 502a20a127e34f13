//! `load run`: rounds of the same work against one server, or two in turns.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::process;
use crate::progress::Progress;
use crate::report::{Measured, Report};
use crate::round::{Pace, Plan};
use crate::server::{Launch, Server, Spec};
use crate::stats::Round;
use crate::traffic::{Until, Workload};
use crate::wire::Format;

/// A server to measure.
#[derive(Debug, Clone)]
pub enum Target {
    /// One that is started anew for every round.
    Started(Spec),
    /// One that runs already.
    Attached {
        /// Where it listens.
        addr: SocketAddr,
        /// Its process.
        pid: u32,
        /// How its lines look.
        format: Format,
    },
}

impl Target {
    /// How its lines look.
    pub fn format(&self) -> Format {
        match self {
            Self::Started(spec) => spec.kind.format(),
            Self::Attached { format, .. } => *format,
        }
    }

    fn server(&self, launch: &Launch) -> Result<Server> {
        match self {
            Self::Started(spec) => Server::start(launch, spec),
            Self::Attached { addr, pid, format } => {
                Server::attach(*addr, *format, *pid, launch.core)
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(Spec { kind, program: None }) => write!(f, "{kind}"),
            Self::Started(Spec { kind, program: Some(path) }) => {
                write!(f, "{kind}={}", path.display())
            }
            Self::Attached { addr, pid, .. } => write!(f, "process {pid} at {addr}"),
        }
    }
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The limit, then what is compared with it; or only one server.
    pub targets: Vec<Target>,
    /// The work.
    pub workload: Workload,
    /// How long the uncounted part of a round is.
    pub warmup: Duration,
    /// How long the counted part is.
    pub until: Until,
    /// How many rounds.
    pub rounds: usize,
    /// How servers are started.
    pub launch: Launch,
    /// The core of the load.
    pub load_core: Option<usize>,
    /// The greatest median CPU ratio that passes.
    pub budget: Option<f64>,
}

impl Run {
    /// Runs all rounds; the order of the servers is swapped every round, so that what changes
    /// slowly (heat, a neighbour on the machine) falls on both.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<Report> {
        process::raise_descriptors_max()?;
        if let Some(core) = self.load_core {
            process::pin_self(core)?;
        }
        let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); self.targets.len()];
        for number in 0..self.rounds {
            for turn in 0..self.targets.len() {
                let at = if number % 2 == 0 { turn } else { self.targets.len() - 1 - turn };
                let target = &self.targets[at];
                let last = match rounds[at].last() {
                    Some(round) => format!(", was {:.1} ns", round.cpu_per_delivery()),
                    None => String::new(),
                };
                let total = self.rounds;
                progress.show(&format!("round {}/{total}: {target}{last}", number + 1));
                let round = self.round(target, interrupt);
                rounds[at].push(round.with_context(|| format!("{target}"))?);
            }
        }
        progress.clear();
        let targets = self.targets.iter().zip(rounds);
        let measured = targets.map(|(target, rounds)| Measured::new(target.to_string(), rounds));
        Ok(Report::new(self, measured.collect()))
    }

    fn round(&self, target: &Target, interrupt: &Interrupt) -> Result<Round> {
        let server = target.server(&self.launch)?;
        let plan = Plan {
            workload: self.workload,
            warmup: self.warmup,
            pace: Pace::Window(self.until),
            server_core: self.launch.core,
            load_core: self.load_core,
        };
        let measured = plan.measure(&server, interrupt);
        let round = measured.with_context(|| server.said("was under load"))?;
        server.stop()?;
        Ok(round)
    }
}
