//! What a run says: a table for people, JSON for programs.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::run::Run;
use crate::stats::{Ratios, Round, Spread, Summary, Verdict};
use crate::traffic::{Until, Workload};

/// How servers are told apart that have one name.
const LETTERS: [char; 2] = ['A', 'B'];

/// All rounds of one server.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Which server.
    pub server: String,
    /// What it did, over all rounds.
    pub summary: Summary,
    /// What it did, round by round.
    pub rounds: Vec<Round>,
}

impl Measured {
    /// Sums up at least one round.
    pub fn new(server: String, rounds: Vec<Round>) -> Self {
        Self { server, summary: Summary::of(&rounds), rounds }
    }
}

/// A whole run's result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The work.
    pub workload: Workload,
    /// The core that servers were tied to.
    pub server_core: Option<usize>,
    /// The core that the load was tied to.
    pub load_core: Option<usize>,
    /// How long a round counted, in words.
    pub counted: String,
    /// The limit, then what was compared with it; or only one.
    pub servers: Vec<Measured>,
    /// The second server against the first.
    pub ratios: Option<Ratios>,
    /// What may be said of the ratios.
    pub verdict: Option<Verdict>,
}

impl Report {
    /// The result of a run that measured one server or two.
    pub fn new(run: &Run, servers: Vec<Measured>) -> Self {
        let ratios = match &servers[..] {
            [a, b] => Some(Ratios::of(&a.rounds, &b.rounds)),
            _ => None,
        };
        let verdict = ratios.map(|ratios| Verdict::of(&ratios, run.rounds, run.budget));
        let counted = match run.until {
            Until::Elapsed(time) => format!("{} s", time.as_secs_f64()),
            Until::Messages(count) => format!("{count} messages of each publisher"),
        };
        let (server_core, load_core) = (run.launch.core, run.load_core);
        let workload = run.workload;
        Self { workload, server_core, load_core, counted, servers, ratios, verdict }
    }

    /// Whether the budget, if there was one, was kept.
    pub fn passed(&self) -> bool {
        self.verdict.as_ref().is_none_or(|verdict| verdict.passed)
    }

    fn write_rounds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>5}  {:<12} {:>15} {:>13} {:>9} {:>9} {:>9} {:>8} {:>11} {:>23}",
            "round",
            "server",
            "CPU ns/delivery",
            "deliveries/s",
            "p50 us",
            "p99 us",
            "max us",
            "RSS MB",
            "private MB",
            "busy server+oth load+oth",
        )?;
        for number in 0..self.servers[0].rounds.len() {
            for (measured, letter) in self.servers.iter().zip(LETTERS) {
                let kind = measured.server.split('=').next().unwrap_or_default();
                let name = format!("{letter} {kind}");
                write_round(f, number + 1, &name, &measured.rounds[number])?;
            }
        }
        Ok(())
    }

    fn write_summaries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (Measured { server, summary, .. }, letter) in self.servers.iter().zip(LETTERS) {
            writeln!(f, "\n{letter} {server}: median [least .. greatest]")?;
            let rows = [
                ("CPU ns/delivery", summary.cpu_ns_per_delivery, 1.0, 1),
                ("deliveries/s", summary.deliveries_per_sec, 1.0, 0),
                ("p50 us", summary.p50_ns, 1e3, 1),
                ("p99 us", summary.p99_ns, 1e3, 1),
                ("max us", summary.max_ns, 1e3, 1),
                ("RSS MB", summary.rss_bytes, 1e6, 2),
                ("private MB", summary.private_bytes, 1e6, 2),
                ("busy server %", summary.server_busy, 0.01, 0),
                ("  + others %", summary.server_core_others, 0.01, 0),
                ("busy load %", summary.load_busy, 0.01, 0),
                ("  + others %", summary.load_core_others, 0.01, 0),
            ];
            for (name, spread, unit, digits) in rows {
                write_spread(f, name, spread, unit, digits)?;
            }
        }
        Ok(())
    }

    fn write_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(ratios), Some(verdict)) = (&self.ratios, &self.verdict) else { return Ok(()) };
        let [a, b] = &self.servers[..] else { return Ok(()) };
        writeln!(f, "\nB {} / A {}: median of the rounds' ratios", b.server, a.server)?;
        write_spread(f, "CPU", ratios.cpu, 1.0, 3)?;
        write_spread(f, "deliveries/s", ratios.rate, 1.0, 3)?;
        write_spread(f, "p50", ratios.p50, 1.0, 3)?;
        write_spread(f, "p99", ratios.p99, 1.0, 3)?;
        let Spread { median, min, max } = ratios.cpu;
        write!(f, "\nverdict: CPU {median:.2} x [{min:.2} .. {max:.2}], ")?;
        if verdict.counts {
            write!(f, "counts")?;
        } else {
            write!(f, "does not count ({})", verdict.why_not.join("; "))?;
        }
        match verdict.budget {
            Some(budget) if verdict.passed => writeln!(f, "; budget {budget} x: kept"),
            Some(budget) => writeln!(f, "; budget {budget} x: NOT KEPT"),
            None => writeln!(f),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload { publishers, readers, window, size, .. } = self.workload;
        write!(f, "{publishers} -> {readers}, {size} bytes, window {window}, ")?;
        write!(f, "{} rounds of {}", self.servers[0].rounds.len(), self.counted)?;
        match (self.server_core, self.load_core) {
            (Some(server), Some(load)) => {
                writeln!(f, "; server on core {server}, load on core {load}\n")?;
            }
            _ => writeln!(f, "; nothing tied to a core\n")?,
        }
        self.write_rounds(f)?;
        self.write_summaries(f)?;
        if self.servers.iter().flat_map(|s| &s.rounds).any(|round| !round.server_cpu_exact) {
            writeln!(f, "\n(~: a thread of the server ended meanwhile; CPU in steps of 10 ms)")?;
        }
        self.write_verdict(f)
    }
}

fn write_round(f: &mut fmt::Formatter<'_>, number: usize, name: &str, r: &Round) -> fmt::Result {
    let percent = |ns: u64| 100.0 * ns as f64 / r.elapsed_ns as f64;
    let busy = |own: u64, others: Option<u64>| {
        let others = others.map_or("-".to_owned(), |ns| format!("{:.0}%", percent(ns)));
        format!("{:.0}%+{others}", percent(own))
    };
    writeln!(
        f,
        "{number:>5}  {name:<12} {:>14.1}{} {:>13.0} {:>9.1} {:>9.1} {:>9.1} {:>8.2} {:>11.2} \
         {:>14} {:>8}",
        r.cpu_per_delivery(),
        if r.server_cpu_exact { " " } else { "~" },
        r.rate(),
        r.p50_ns as f64 / 1e3,
        r.p99_ns as f64 / 1e3,
        r.max_ns as f64 / 1e3,
        r.memory.rss_bytes as f64 / 1e6,
        r.memory.private_bytes as f64 / 1e6,
        busy(r.server_cpu_ns, r.server_core_others_ns),
        busy(r.load_cpu_ns, r.load_core_others_ns),
    )
}

fn write_spread(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    spread: Spread,
    unit: f64,
    digits: usize,
) -> fmt::Result {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| value / unit);
    writeln!(f, "  {name:<16} {median:>12.digits$}  [{min:.digits$} .. {max:.digits$}]")
}

/// Writes a result as JSON.
pub fn write_json(path: &Path, result: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
