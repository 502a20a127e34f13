//! One round: a server, connections to it, a warm-up that is not counted, and what is.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::interrupt::Interrupt;
use crate::process::{self, CpuTime};
use crate::server::Server;
use crate::stats::Round;
use crate::traffic::{Phase, Traffic, Until, Workload};

/// How long the server is left alone before its CPU time is read: it sleeps by then, and the
/// kernel brings a thread's account up to date when it goes to sleep.
pub(crate) const REST: Duration = Duration::from_millis(5);

/// How the load is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as the workload's window allows.
    Window(Until),
    /// So many messages a second for so long, whatever the window is.
    Rate(f64, Duration),
}

/// How rounds are done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The work.
    pub workload: Workload,
    /// How long the uncounted part is.
    pub warmup: Duration,
    /// How the counted part is sent.
    pub pace: Pace,
    /// The core that the server is tied to.
    pub server_core: Option<usize>,
    /// The core that this program is tied to.
    pub load_core: Option<usize>,
}

impl Plan {
    /// Does one round with a server that runs.
    pub fn measure(&self, server: &Server, interrupt: &Interrupt) -> Result<Round> {
        let pid = server.pid();
        let mut traffic = Traffic::connect(server.place(), self.workload, interrupt)?;
        match self.pace {
            Pace::Window(_) => drop(traffic.run(Until::Elapsed(self.warmup))?),
            Pace::Rate(per_second, _) => drop(traffic.run_at(per_second, self.warmup)?),
        }
        traffic.rest(REST)?;
        let watch = Watch::begin(pid, [self.server_core, self.load_core])?;
        let (phase, kept) = match self.pace {
            Pace::Window(until) => (traffic.run(until)?, None),
            Pace::Rate(per_second, planned) => {
                let open = traffic.run_at(per_second, planned)?;
                (open.phase, Some(open.kept))
            }
        };
        let Phase { elapsed, messages, deliveries } = phase;
        traffic.rest(REST)?;
        let latency = traffic.latency();
        Ok(Round { messages, deliveries, rate_kept: kept, ..watch.end(elapsed, latency)? })
    }
}

/// What is spent from one moment to another. At both the server sleeps.
#[derive(Debug)]
pub struct Watch {
    pid: u32,
    cores: [Option<usize>; 2],
    server: CpuTime,
    load: CpuTime,
    busy: [Option<u64>; 2],
}

impl Watch {
    /// From now on; `cores` are the server's, which it is tied to, and the load's.
    ///
    /// # Errors
    /// The server is gone.
    pub fn begin(pid: u32, cores: [Option<usize>; 2]) -> Result<Self> {
        if let Some(core) = cores[0] {
            process::pin(pid, core)?;
        }
        let (server, load) = (process::cpu_time(pid)?, process::cpu_time(std::process::id())?);
        Ok(Self { pid, cores, server, load, busy: busy(cores)? })
    }

    /// Until now. Messages are counted by whoever sent them.
    ///
    /// # Errors
    /// The server is gone.
    pub fn end(self, elapsed: Duration, latency: &Histogram<u64>) -> Result<Round> {
        let server_spent = process::cpu_between(&self.server, &process::cpu_time(self.pid)?);
        let load = process::cpu_time(std::process::id())?;
        let load_spent = process::cpu_between(&self.load, &load);
        let busy_after = busy(self.cores)?;
        let others = |at: usize, own_ns: u64| {
            let between = busy_after[at]? - self.busy[at]?;
            Some(between.saturating_sub(own_ns))
        };
        Ok(Round {
            server_cpu_ns: server_spent.ns,
            server_cpu_exact: server_spent.exact,
            load_cpu_ns: load_spent.ns,
            server_core_others_ns: others(0, server_spent.ns),
            load_core_others_ns: others(1, load_spent.ns),
            elapsed_ns: elapsed.as_nanos() as u64,
            p50_ns: latency.value_at_quantile(0.5),
            p99_ns: latency.value_at_quantile(0.99),
            max_ns: latency.max(),
            memory: process::memory(self.pid)?,
            ..Round::default()
        })
    }
}

fn busy(cores: [Option<usize>; 2]) -> Result<[Option<u64>; 2]> {
    let [server, load] = cores.map(|core| core.map(process::core_busy_ns).transpose());
    Ok([server?, load?])
}
