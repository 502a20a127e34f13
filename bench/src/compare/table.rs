//! A comparison as a table, for people.

use std::fmt;

use super::{CaseReport, Comparison, Entry, Outcome};
use crate::stats::{Round, Spread, Summary};

impl Comparison {
    /// Whether ours did all that they were asked for.
    pub fn passed(&self, is_ours: impl Fn(&str) -> bool) -> bool {
        let failed = |entry: &&Entry| matches!(entry.outcome, Outcome::Failed(_));
        let mut failures = self.cases.iter().flat_map(|case| &case.entries).filter(failed);
        !failures.any(|entry| is_ours(&entry.target))
    }

    /// The greatest share of a core that others took while messages were counted; above a few
    /// percent the figures say as much about them.
    fn disturbed(&self) -> f64 {
        let entries = self.cases.iter().flat_map(|case| &case.entries);
        let rounds = entries.filter_map(Entry::rounds).flatten();
        rounds.map(others_share).fold(0.0, f64::max)
    }
}

fn others_share(round: &Round) -> f64 {
    let others = [round.server_core_others_ns, round.load_core_others_ns];
    let most = others.into_iter().flatten().max().unwrap_or(0);
    most as f64 / round.elapsed_ns as f64
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        match (self.server_core, self.load_core) {
            (Some(server), Some(load)) => {
                writeln!(
                    f,
                    "servers on core {server}, load on core {load}; medians [least .. most]"
                )?;
            }
            _ => writeln!(f, "nothing tied to a core; medians [least .. most]")?,
        }
        for (label, program) in &self.programs {
            writeln!(f, "{label} is {}", program.display())?;
        }
        for missing in &self.missing {
            writeln!(f, "{missing}")?;
        }
        for case in &self.cases {
            writeln!(f, "\n{}: {}", case.case.name, case.case.work)?;
            case.write(f)?;
        }
        let disturbed = self.disturbed();
        if disturbed > 0.05 {
            let percent = disturbed * 100.0;
            writeln!(
                f,
                "\nin the worst round others took {percent:.0} % of a core: indicative only"
            )?;
        }
        Ok(())
    }
}

impl CaseReport {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut headed = false;
        for entry in &self.entries {
            let name = &entry.target;
            match &entry.outcome {
                Outcome::Messages { summary, rounds } => {
                    if !headed {
                        write_head(f)?;
                        headed = true;
                    }
                    write_messages(f, entry, summary, rounds)?;
                }
                Outcome::Idle(reports) => {
                    let bytes =
                        Spread::of(reports.iter().map(|report| report.bytes_per_connection));
                    write!(f, "  {name:<14} {:>9.0} bytes a connection", bytes.median)?;
                    writeln!(f, " [{:.0} .. {:.0}]", bytes.min, bytes.max)?;
                }
                Outcome::Connects(reports) => {
                    let rate = Spread::of(reports.iter().map(|report| report.per_second()));
                    let cpu = Spread::of(reports.iter().map(|report| report.cpu_ns() / 1e3));
                    write!(f, "  {name:<14} {:>9.1} CPU us each ", cpu.median)?;
                    write!(f, "[{:.1} .. {:.1}], ", cpu.min, cpu.max)?;
                    writeln!(f, "{:.0}/s [{:.0} .. {:.0}]", rate.median, rate.min, rate.max)?;
                }
                Outcome::Impossible(why) => writeln!(f, "  {name:<14} not possible: {why}")?,
                Outcome::Failed(why) => writeln!(f, "  {name:<14} FAILED: {why}")?,
            }
        }
        Ok(())
    }
}

fn write_head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  {:<14} {:>26} {:>7} {:>13} {:>9} {:>9} {:>9} {:>6}",
        "target",
        "CPU ns/delivery",
        "x first",
        "deliveries/s",
        "p50 us",
        "p99 us",
        "max us",
        "busy"
    )
}

fn write_messages(
    f: &mut fmt::Formatter<'_>,
    entry: &Entry,
    summary: &Summary,
    rounds: &[Round],
) -> fmt::Result {
    let Spread { median, min, max } = summary.cpu_ns_per_delivery;
    let ratio = entry.ratios.map_or(1.0, |ratios| ratios.cpu.median);
    write!(
        f,
        "  {:<14} {:>26} {ratio:>7.2} {:>13.0} {:>9.1} {:>9.1} {:>9.1} {:>5.0}%",
        entry.target,
        format!("{median:.1} [{min:.1} .. {max:.1}]"),
        summary.deliveries_per_sec.median,
        summary.p50_ns.median / 1e3,
        summary.p99_ns.median / 1e3,
        summary.max_ns.median / 1e3,
        summary.server_busy.median * 100.0,
    )?;
    let late = rounds.iter().filter(|round| round.rate_kept == Some(false)).count();
    if late > 0 {
        write!(f, "  rate not kept in {late} of {}", rounds.len())?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Case;
    use crate::compare::machine::Machine;

    fn comparison(outcome: Outcome) -> Comparison {
        let round = Round {
            server_cpu_ns: 20_000,
            elapsed_ns: 1_000_000,
            deliveries: 1000,
            p50_ns: 10,
            p99_ns: 20,
            rate_kept: Some(false),
            ..Round::default()
        };
        let summary = Box::new(Summary::of(std::slice::from_ref(&round)));
        let messages = Outcome::Messages { summary, rounds: vec![round] };
        let entry = |target: &str, outcome| Entry {
            target: target.to_owned(),
            outcome,
            ratios: None,
            verdict: None,
        };
        let name = "1to100-at1000".to_owned();
        let case = Case { work: name.parse().unwrap(), name, only: None };
        let entries = vec![entry("blind", messages), entry("tokio", outcome)];
        Comparison {
            machine: Machine::here(),
            server_core: None,
            load_core: None,
            rounds: 1,
            counted_secs: 0.5,
            programs: Vec::new(),
            missing: Vec::new(),
            cases: vec![CaseReport::new(case, entries)],
        }
    }

    #[test]
    fn what_failed_is_shown_and_counts() {
        let failed = comparison(Outcome::Failed("it was cut".to_owned()));
        let text = failed.to_string();
        assert!(text.contains("FAILED: it was cut") && text.contains("20.0 [20.0"), "{text}");
        assert!(text.contains("rate not kept in 1 of 1"), "{text}");
        assert!(!failed.passed(|_| true) && failed.passed(|target| target == "blind"));
        let cannot = comparison(Outcome::Impossible("no topics".to_owned()));
        assert!(cannot.passed(|_| true));
    }
}
