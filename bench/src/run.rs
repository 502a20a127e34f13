//! `load run`: rounds of the same work against one server, or two in turns.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::line::Format;
use crate::process;
use crate::progress::Progress;
use crate::report::{Measured, Report};
use crate::server::{Launch, Server, Spec};
use crate::stats::Round;
use crate::traffic::{Phase, Traffic, Until, Workload};

/// How long the server is left alone before its CPU time is read: it sleeps by then, and the
/// kernel brings a thread's account up to date when it goes to sleep.
const REST: Duration = Duration::from_millis(5);

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
            Self::Attached { addr, pid, .. } => Server::attach(*addr, *pid, launch.core),
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
        let measured = self.round_with(&server, target.format(), interrupt);
        let round = measured.with_context(|| server.said("was under load"))?;
        server.stop()?;
        Ok(round)
    }

    fn round_with(&self, server: &Server, format: Format, stop: &Interrupt) -> Result<Round> {
        let (pid, own) = (server.pid(), std::process::id());
        let mut traffic = Traffic::connect(server.addr(), pid, format, self.workload, stop)?;
        traffic.run(Until::Elapsed(self.warmup))?;
        traffic.rest(REST)?;
        if let Some(core) = self.launch.core {
            process::pin(pid, core)?;
        }
        let cores = [self.launch.core, self.load_core];
        let (server_before, load_before) = (process::cpu_time(pid)?, process::cpu_time(own)?);
        let cores_before = busy(cores)?;
        let Phase { elapsed, messages, deliveries } = traffic.run(self.until)?;
        traffic.rest(REST)?;
        let server_spent = process::cpu_between(&server_before, &process::cpu_time(pid)?);
        let load_spent = process::cpu_between(&load_before, &process::cpu_time(own)?);
        let cores_after = busy(cores)?;
        let others = |at: usize, own_ns: u64| {
            let between = cores_after[at]? - cores_before[at]?;
            Some(between.saturating_sub(own_ns))
        };
        let latency = traffic.latency();
        Ok(Round {
            server_cpu_ns: server_spent.ns,
            server_cpu_exact: server_spent.exact,
            load_cpu_ns: load_spent.ns,
            server_core_others_ns: others(0, server_spent.ns),
            load_core_others_ns: others(1, load_spent.ns),
            elapsed_ns: elapsed.as_nanos() as u64,
            messages,
            deliveries,
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
            memory: process::memory(pid)?,
        })
    }
}

fn busy(cores: [Option<usize>; 2]) -> Result<[Option<u64>; 2]> {
    let [server, load] = cores.map(|core| core.map(process::core_busy_ns).transpose());
    Ok([server?, load?])
}
