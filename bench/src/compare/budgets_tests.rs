use super::*;
use crate::compare::machine::Machine;
use crate::compare::{Entry, Missing};
use crate::stats::Summary;

fn rounds_of(cpu: u64, elapsed_ns: u64, count: usize) -> Outcome {
    let round = Round {
        server_cpu_ns: cpu * 1000,
        elapsed_ns,
        deliveries: 1000,
        p50_ns: 10,
        p99_ns: 100,
        ..Round::default()
    };
    let rounds = vec![round; count];
    Outcome::Messages { summary: Box::new(Summary::of(&rounds)), rounds }
}

fn comparison(entries: Vec<(&str, Outcome)>) -> Comparison {
    let entry = |(target, outcome): (&str, Outcome)| Entry {
        target: target.to_owned(),
        outcome,
        ratios: None,
        verdict: None,
    };
    let name = "1to100".to_owned();
    let case = Case { work: name.parse().unwrap(), name, only: None };
    let missing: Vec<Missing> = Vec::new();
    Comparison {
        machine: Machine::here(),
        server_core: None,
        load_core: None,
        rounds: 10,
        counted_secs: 1.0,
        programs: Vec::new(),
        missing,
        cases: vec![CaseReport::new(case, entries.into_iter().map(entry).collect())],
    }
}

fn line(entries: Vec<(&str, Outcome)>, base: &'static [&'static str], most: f64) -> Line {
    judge(&comparison(entries), &cpu("1to100", base, most), "ring")
}

#[test]
fn the_better_of_two_peers_is_the_measure() {
    let entries = |ring: u64| {
        vec![
            ("blind", rounds_of(17, 1000, 10)),
            ("ring", rounds_of(ring, 1000, 10)),
            ("nats", rounds_of(150, 5000, 10)),
            ("redis", rounds_of(120, 5000, 10)),
        ]
    };
    let kept = line(entries(20), NATS_REDIS, 1.0 / 6.0);
    assert!(kept.kept() && kept.budget.ends_with("redis"), "{kept:?}");
    let dear = line(entries(21), NATS_REDIS, 1.0 / 6.0);
    assert!(dear.counts && !dear.kept(), "{dear:?}");
}

#[test]
fn whoever_naps_does_not_count_whatever_it_is_compared_with() {
    let entries = vec![
        ("blind", rounds_of(17, 1000, 10)),
        ("ring", rounds_of(5, 1300, 10)),
        ("redis", rounds_of(120, 5000, 10)),
    ];
    let naps = line(entries, &["redis"], 1.0 / 3.0);
    assert!(!naps.counts && !naps.kept(), "{naps:?}");
    assert!(naps.why_not[0].contains("blind's"), "{naps:?}");
}

#[test]
fn native_is_seen_beside_lines_and_round_trips_by_their_latency() {
    let entries = || {
        vec![
            ("blind", rounds_of(17, 1000, 10)),
            ("ring", rounds_of(20, 1300, 10)),
            ("native-ring", rounds_of(22, 1400, 10)),
        ]
    };
    let native = judge(&comparison(entries()), &native("1to100", 1.15), "ring");
    assert!(native.kept() && native.budget == "1to100: native-ring, CPU / ring", "{native:?}");
    assert!(!line(entries(), &["blind"], 9.0).counts, "0.77 of blind's deliveries");
    let trips = Budget { case: "1to100", of: NATIVE, what: Of::P50("blind"), most: 1.1 };
    let trips = judge(&comparison(entries()), &trips, "ring");
    assert!(trips.kept() && trips.measured.is_some_and(|p50| p50.median == 1.0), "{trips:?}");
    let direct = Budget { case: "1to100", of: DIRECT, what: Of::ResidentMb, most: 16.0 };
    let direct = judge(&comparison(entries()), &direct, "ring");
    assert_eq!(direct.why_not, ["direct-ring is not here"]);
}

#[test]
fn few_rounds_and_absent_targets_do_not_count() {
    let few =
        line(vec![("blind", rounds_of(17, 9, 3)), ("ring", rounds_of(17, 9, 3))], &["blind"], 1.1);
    assert!(!few.counts && few.measured.is_some(), "{few:?}");
    let absent = line(vec![("blind", rounds_of(17, 9, 10))], &["blind"], 1.1);
    assert!(absent.measured.is_none() && !absent.kept(), "{absent:?}");
    let failed = vec![("ring", Outcome::Failed("cut".to_owned()))];
    assert!(line(failed, &["blind"], 1.1).why_not[0].contains("failed: cut"));
}

#[test]
fn every_budget_is_measured_by_some_workload_and_target() {
    let engine = Target::named("ring");
    let (targets, cases) = (targets(&engine), cases(&engine));
    let has = |case: &Case, label: &str| {
        targets.iter().any(|target| target.label == label)
            && case.only.as_ref().is_some_and(|only| only.iter().any(|name| name == label))
    };
    for Budget { case, of, what, .. } in BUDGETS {
        let case = cases.iter().find(|known| known.name == case).expect(case);
        assert!(has(case, &named(of, "ring")), "{}: {of:?}", case.name);
        let bases = match what {
            Of::Cpu(bases) => bases.to_vec(),
            Of::P50(base) => vec![base],
            Of::P99Ms | Of::ResidentMb | Of::IdleBytes => Vec::new(),
        };
        assert!(bases.iter().all(|base| has(case, &named(base, "ring"))), "{}", case.name);
    }
    for case in &cases {
        for label in case.only.iter().flatten() {
            assert!(targets.iter().any(|target| target.label == *label), "{label}");
        }
    }
    for name in ENGINES_ON {
        let case = cases.iter().find(|known| known.name == name).expect(name);
        assert!(has(case, "ring") && has(case, "tokio"), "{name}");
    }
}

#[test]
fn the_table_says_yes_or_no_of_each() {
    let comparison =
        comparison(vec![("blind", rounds_of(20, 1000, 10)), ("ring", rounds_of(21, 1000, 10))]);
    let judged = Judged::of(&comparison, "ring");
    assert_eq!(judged.lines.len(), BUDGETS.len() + ENGINES_ON.len());
    let text = judged.to_string();
    assert!(text.contains("| 1to100: ring, CPU / blind | 1.100 | 1.050 |"), "{text}");
    assert!(!judged.passed(), "most was not measured");
    // The portable engine has budgets of its own, and is not held against itself.
    let tokio = Judged::of(&comparison, "tokio").to_string();
    assert!(tokio.contains("tokio, CPU / blind | 1.250"), "{tokio}");
    assert!(tokio.contains("rtt: direct-tokio, p50 / blind"), "{tokio}");
    assert!(!tokio.contains("native-tokio"), "{tokio}");
    assert!(!tokio.contains("tokio, CPU / tokio") && !tokio.contains("| 1024.000"), "{tokio}");
}
