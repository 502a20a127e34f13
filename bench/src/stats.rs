//! Medians, ratios and the verdict: what the rounds say together.

use serde::Serialize;

use crate::process::Memory;

/// Paired rounds below which nothing is decided.
pub const ROUNDS_MIN: usize = 10;
/// A ratio counts only at this share of the limit's deliveries per second at least.
pub const RATE_MIN: f64 = 0.85;
/// A ratio counts only at this multiple of the limit's p50 and p99 at most.
pub const LATENCY_MAX: f64 = 1.25;

/// What one server did in one round.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Round {
    /// CPU time of the server while the lines were counted.
    pub server_cpu_ns: u64,
    /// That time is in nanoseconds; otherwise a thread ended and it is in steps of 10 ms.
    pub server_cpu_exact: bool,
    /// CPU time of the load in the same time.
    pub load_cpu_ns: u64,
    /// Busy time of the server's core that was not the server's: other programs, or the host's
    /// other guests. Where there is much of it, the round is noisy.
    pub server_core_others_ns: Option<u64>,
    /// The same of the load's core.
    pub load_core_others_ns: Option<u64>,
    /// From the first send to the last receive.
    pub elapsed_ns: u64,
    /// Lines sent.
    pub messages: u64,
    /// Lines received by all together.
    pub deliveries: u64,
    /// Median latency at the sampled readers.
    pub p50_ns: u64,
    /// The latency that one line in a hundred exceeded.
    pub p99_ns: u64,
    /// The longest latency.
    pub max_ns: u64,
    /// The server's memory at the end, with everybody still connected.
    pub memory: Memory,
    /// At a fixed rate: whether it was kept.
    pub rate_kept: Option<bool>,
}

impl Round {
    /// CPU nanoseconds of the server for each delivery.
    pub fn cpu_per_delivery(&self) -> f64 {
        self.server_cpu_ns as f64 / self.deliveries as f64
    }

    /// Deliveries per second.
    pub fn rate(&self) -> f64 {
        self.deliveries as f64 * 1e9 / self.elapsed_ns as f64
    }
}

/// A median with the least and the greatest value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value, or the mean of the two middle ones.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// The spread of some values.
    ///
    /// # Panics
    ///
    /// Without any value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "nothing was measured");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }
}

/// What a server did over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// CPU nanoseconds of the server for each delivery.
    pub cpu_ns_per_delivery: Spread,
    /// Deliveries per second.
    pub deliveries_per_sec: Spread,
    /// Median latency.
    pub p50_ns: Spread,
    /// 99th percentile of latency.
    pub p99_ns: Spread,
    /// Longest latency.
    pub max_ns: Spread,
    /// Resident bytes.
    pub rss_bytes: Spread,
    /// Private bytes.
    pub private_bytes: Spread,
    /// Share of the time that the server was on a CPU.
    pub server_busy: Spread,
    /// The same of the load.
    pub load_busy: Spread,
    /// Share of the time that others were on the server's core.
    pub server_core_others: Spread,
    /// The same of the load's core.
    pub load_core_others: Spread,
}

impl Summary {
    /// The summary of at least one round.
    pub fn of(rounds: &[Round]) -> Self {
        let over = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let share = |ns: u64, round: &Round| ns as f64 / round.elapsed_ns as f64;
        let others = |value: fn(&Round) -> Option<u64>| {
            Spread::of(rounds.iter().map(|round| share(value(round).unwrap_or(0), round)))
        };
        Self {
            cpu_ns_per_delivery: over(Round::cpu_per_delivery),
            deliveries_per_sec: over(Round::rate),
            p50_ns: over(|round| round.p50_ns as f64),
            p99_ns: over(|round| round.p99_ns as f64),
            max_ns: over(|round| round.max_ns as f64),
            rss_bytes: over(|round| round.memory.rss_bytes as f64),
            private_bytes: over(|round| round.memory.private_bytes as f64),
            server_busy: over(|round| round.server_cpu_ns as f64 / round.elapsed_ns as f64),
            load_busy: over(|round| round.load_cpu_ns as f64 / round.elapsed_ns as f64),
            server_core_others: others(|round| round.server_core_others_ns),
            load_core_others: others(|round| round.load_core_others_ns),
        }
    }
}

/// The second server against the first: spreads of the ratios of each round's pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratios {
    /// CPU for each delivery.
    pub cpu: Spread,
    /// Deliveries per second.
    pub rate: Spread,
    /// Median latency.
    pub p50: Spread,
    /// 99th percentile of latency.
    pub p99: Spread,
}

impl Ratios {
    /// The ratios `b / a`, round by round.
    ///
    /// # Panics
    ///
    /// When the rounds are not pairs.
    pub fn of(a: &[Round], b: &[Round]) -> Self {
        assert_eq!(a.len(), b.len(), "rounds without a partner");
        let over = |value: fn(&Round) -> f64| {
            Spread::of(a.iter().zip(b).map(|(a, b)| value(b) / value(a)))
        };
        Self {
            cpu: over(Round::cpu_per_delivery),
            rate: over(Round::rate),
            p50: over(|round| round.p50_ns as f64),
            p99: over(|round| round.p99_ns as f64),
        }
    }
}

/// Whether a CPU ratio may be quoted, and whether it keeps its budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Enough rounds, and the work was really done: rate and latencies are the limit's, nearly.
    pub counts: bool,
    /// Why it does not count.
    pub why_not: Vec<String>,
    /// The median CPU ratio that is allowed.
    pub budget: Option<f64>,
    /// Whether the run passes. A smoke of fewer than [`ROUNDS_MIN`] rounds is judged by CPU alone;
    /// otherwise a ratio that does not count passes no budget.
    pub passed: bool,
}

impl Verdict {
    /// Judges the ratios of so many paired rounds.
    pub fn of(ratios: &Ratios, rounds: usize, budget: Option<f64>) -> Self {
        let mut why_not = Vec::new();
        if ratios.rate.median < RATE_MIN {
            why_not.push(format!("deliveries/s {:.2} x < {RATE_MIN} x", ratios.rate.median));
        }
        for (name, ratio) in [("p50", ratios.p50), ("p99", ratios.p99)] {
            if ratio.median > LATENCY_MAX {
                why_not.push(format!("{name} {:.2} x > {LATENCY_MAX} x", ratio.median));
            }
        }
        let same_work = why_not.is_empty();
        if rounds < ROUNDS_MIN {
            why_not.push(format!("{rounds} rounds of {ROUNDS_MIN}"));
        }
        let within = budget.is_none_or(|budget| ratios.cpu.median <= budget);
        let judged = budget.is_none() || rounds < ROUNDS_MIN || same_work;
        Self { counts: why_not.is_empty(), why_not, budget, passed: within && judged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(cpu: u64, elapsed_ns: u64, p50_ns: u64, p99_ns: u64) -> Round {
        let deliveries = 1000;
        let server_cpu_ns = cpu * deliveries;
        Round { server_cpu_ns, elapsed_ns, deliveries, p50_ns, p99_ns, ..Round::default() }
    }

    #[test]
    fn medians_of_odd_and_even() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Spread { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of([7.0]).median, 7.0);
    }

    #[test]
    fn ratios_are_taken_within_each_pair() {
        // The machine was twice as slow in the second round; the ratios do not see it.
        let a = [round(20, 1000, 10, 100), round(40, 2000, 20, 200), round(20, 1000, 10, 100)];
        let b = [round(22, 1000, 11, 100), round(44, 2000, 22, 200), round(30, 2000, 11, 100)];
        let ratios = Ratios::of(&a, &b);
        assert_eq!(ratios.cpu, Spread { median: 1.1, min: 1.1, max: 1.5 });
        assert_eq!(ratios.rate, Spread { median: 1.0, min: 0.5, max: 1.0 });
        assert_eq!((ratios.p50.median, ratios.p99.median), (1.1, 1.0));
        assert_eq!(a[0].rate(), 1e9);
    }

    #[test]
    fn a_relay_that_naps_does_not_count() {
        let judge = |b: Round, rounds: usize, budget| {
            let a = vec![round(20, 1000, 10, 100); rounds];
            Verdict::of(&Ratios::of(&a, &vec![b; rounds]), rounds, budget)
        };
        let good = judge(round(22, 1100, 12, 120), 10, Some(1.25));
        assert!(good.counts && good.passed, "{good:?}");
        let dear = judge(round(26, 1000, 10, 100), 10, Some(1.25));
        assert!(dear.counts && !dear.passed, "{dear:?}");
        for naps in [round(5, 1200, 10, 100), round(5, 1000, 13, 100), round(5, 1000, 10, 126)] {
            let verdict = judge(naps, 10, Some(1.25));
            assert!(!verdict.counts && !verdict.passed && verdict.why_not.len() == 1);
        }
        let smoke = judge(round(20, 1200, 10, 100), 3, Some(1.25));
        assert!(!smoke.counts && smoke.passed, "{smoke:?}");
        let shown = judge(round(20, 1200, 10, 100), 10, None);
        assert!(!shown.counts && shown.passed, "without a budget nothing fails: {shown:?}");
    }
}
