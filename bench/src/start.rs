//! `load start`: how long a server needs until it listens, and what it takes up at rest.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::interrupt::Interrupt;
use crate::process;
use crate::progress::Progress;
use crate::server::{Launch, Server, Spec};
use crate::stats::Spread;

/// How long a server's memory may take until it stands still.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// A measurement of starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// The server.
    pub spec: Spec,
    /// How it is started.
    pub launch: Launch,
    /// How often.
    pub times: usize,
    /// What passes.
    pub budgets: StartBudgets,
}

/// The greatest values that pass; none: whatever it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct StartBudgets {
    /// Median time to listening, in milliseconds.
    pub ms: Option<f64>,
    /// Median resident memory at rest, in bytes.
    pub rss_bytes: Option<u64>,
    /// Size of the program, in bytes.
    pub program_bytes: Option<u64>,
}

/// What starts cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StartReport {
    /// From just before the spawn to the first connection that the server took.
    pub ms: Spread,
    /// Resident at rest.
    pub rss_bytes: Spread,
    /// Private at rest.
    pub private_bytes: Spread,
    /// Size of the program.
    pub program_bytes: u64,
    /// What passes.
    pub budgets: StartBudgets,
}

impl Start {
    /// Starts the server as often as asked for, one after the other.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<StartReport> {
        let program = self.launch.program(&self.spec)?;
        let program_bytes = std::fs::metadata(&program)
            .with_context(|| format!("cannot read {}", program.display()))?
            .len();
        let (mut times_ms, mut at_rest) = (Vec::new(), Vec::new());
        for number in 1..=self.times {
            interrupt.check()?;
            progress.show(&format!("start {number}/{}", self.times));
            let (server, took) = Server::start_timed(&self.launch, &self.spec)?;
            times_ms.push(took.as_secs_f64() * 1e3);
            at_rest.push(process::settled_memory(server.pid(), SETTLE_MAX)?);
            server.stop()?;
        }
        progress.clear();
        Ok(StartReport {
            ms: Spread::of(times_ms),
            rss_bytes: Spread::of(at_rest.iter().map(|memory| memory.rss_bytes as f64)),
            private_bytes: Spread::of(at_rest.iter().map(|memory| memory.private_bytes as f64)),
            program_bytes,
            budgets: self.budgets,
        })
    }
}

impl StartReport {
    /// Whether all budgets that there were have been kept.
    pub fn passed(&self) -> bool {
        self.kept().iter().all(|kept| kept.unwrap_or(true))
    }

    /// Time, resident memory, program: whether each kept its budget.
    fn kept(&self) -> [Option<bool>; 3] {
        let StartBudgets { ms, rss_bytes, program_bytes } = self.budgets;
        [
            ms.map(|budget| self.ms.median <= budget),
            rss_bytes.map(|budget| self.rss_bytes.median <= budget as f64),
            program_bytes.map(|budget| self.program_bytes <= budget),
        ]
    }
}

impl fmt::Display for StartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: f64| bytes / 1e6;
        let [ms, rss, program] = self.kept().map(|kept| match kept {
            None => "",
            Some(true) => ", budget kept",
            Some(false) => ", budget NOT KEPT",
        });
        let spread = self.ms;
        writeln!(
            f,
            "start to listening: {:.2} ms [{:.2} .. {:.2}]{ms}",
            spread.median, spread.min, spread.max
        )?;
        writeln!(
            f,
            "resident at rest:   {:.2} MB, of it private {:.2} MB{rss}",
            mb(self.rss_bytes.median),
            mb(self.private_bytes.median)
        )?;
        writeln!(f, "program:            {:.2} MB{program}", mb(self.program_bytes as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_is_judged() {
        let report = |budgets| StartReport {
            ms: Spread::of([4.0, 5.0, 60.0]),
            rss_bytes: Spread::of([7e6]),
            private_bytes: Spread::of([3e6]),
            program_bytes: 5_000_000,
            budgets,
        };
        let good = StartBudgets {
            ms: Some(5.0),
            rss_bytes: Some(7_000_000),
            program_bytes: Some(5_000_000),
        };
        assert!(report(good).passed());
        assert!(report(StartBudgets::default()).passed());
        assert!(!report(StartBudgets { ms: Some(4.9), ..good }).passed());
        assert!(!report(StartBudgets { rss_bytes: Some(6_999_999), ..good }).passed());
        assert!(!report(StartBudgets { program_bytes: Some(4_999_999), ..good }).passed());
    }
}
