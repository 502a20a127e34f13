//! What a person finds at the prompt.

use crate::harness::{Outcome, wardline};

const COMMANDS: [&str; 14] = [
    "serve",
    "check",
    "plan",
    "engines",
    "keygen",
    "pub",
    "sub",
    "req",
    "reply",
    "who",
    "rtt",
    "bench",
    "completions",
    "man",
];

fn run(arguments: &[&str]) -> Outcome {
    Outcome::of(wardline().args(arguments))
}

#[test]
fn help_of_every_command_has_an_example() {
    let calls = COMMANDS.iter().map(|command| vec![*command, "--help"]).chain([vec!["--help"]]);
    for call in calls {
        let outcome = run(&call);
        assert_eq!(outcome.code, Some(0), "{call:?}: {outcome:?}");
        assert!(outcome.stdout.to_lowercase().contains("example"), "{call:?}: {}", outcome.stdout);
        let shown = outcome.stdout.lines().any(|line| {
            let line = line.trim_start().trim_start_matches("$ ");
            line.starts_with("wardline")
        });
        assert!(shown, "{call:?} shows no call: {}", outcome.stdout);
    }
}

#[test]
fn help_names_every_command_and_every_flag_of_serve() {
    let help = run(&["--help"]).stdout;
    for command in COMMANDS {
        assert!(help.contains(command), "{command} is not in: {help}");
    }
    let help = run(&["serve", "--help"]).stdout;
    let flags = [
        "--config",
        "--test-config",
        "--listen",
        "--key",
        "--engine",
        "--shards",
        "--set",
        "--pid-file",
        "--ports-file",
        "--log-format",
        "-v",
        "-q",
    ];
    for flag in flags {
        assert!(help.contains(flag), "{flag} is not in: {help}");
    }
}

#[test]
fn the_version_is_the_packages() {
    for flag in ["-V", "--version"] {
        let outcome = run(&[flag]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stdout.contains(env!("CARGO_PKG_VERSION")), "{outcome:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_wrong() {
    let wrong: [(&[&str], &str); 5] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["serve", "--lisen", "line://127.0.0.1:0"], "--lisen"),
        (&["srve"], "srve"),
        (&["completions", "tcsh-of-old"], "tcsh-of-old"),
        (&["serve", "--config"], "--config"),
    ];
    for (call, culprit) in wrong {
        let outcome = run(call);
        assert_eq!(outcome.code, Some(2), "{call:?}: {outcome:?}");
        assert!(outcome.stderr.contains(culprit), "{call:?}: {outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{call:?}: {outcome:?}");
    }
}

#[test]
fn there_are_completions_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let outcome = run(&["completions", shell]);
        assert_eq!(outcome.code, Some(0), "{shell}: {outcome:?}");
        for word in ["wardline", "check", "ports-file", "keygen", "known-hosts"] {
            assert!(outcome.stdout.contains(word), "{shell}: no {word}");
        }
    }
}

#[test]
fn there_is_a_manual_page() {
    let outcome = run(&["man"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains(".TH"), "{}", outcome.stdout);
    for word in ["wardline", "serve", "check", "plan", "reply", "bench"] {
        assert!(outcome.stdout.contains(word), "no {word}");
    }
}

#[test]
fn plan_prints_a_table_that_adds_up_to_a_total() {
    let outcome = run(&["plan"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let with_figures = |line: &&str| {
        ["KiB", "MiB", "GiB", " B"].iter().any(|unit| line.contains(unit))
            && line.chars().any(|c| c.is_ascii_digit())
    };
    let rows = outcome.stdout.lines().filter(with_figures).count();
    assert!(rows >= 4, "{rows} rows with figures:\n{}", outcome.stdout);
    let sum = ["total", "in all"].iter().any(|sum| outcome.stdout.contains(sum));
    assert!(sum, "{}", outcome.stdout);
}

#[test]
fn plan_follows_the_settings() {
    let plans = ["16MiB", "64MiB"].map(|size| {
        let outcome = run(&["plan", "--set", &format!("limits.segments={size}")]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stdout
    });
    assert_ne!(plans[0], plans[1]);
    assert!(plans[0].contains("16"), "{}", plans[0]);
}
