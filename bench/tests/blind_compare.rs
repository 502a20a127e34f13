//! `load compare`, as a person calls it, with the blind relays.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(args).output().expect("load starts")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn the_blind_relays_are_compared_in_a_hurry() {
    let dir = TempDir::new().expect("a temporary directory");
    let json = dir.path().join("figures.json");
    let plots = dir.path().join("plots");
    let output = load(&[
        "compare",
        "--quick",
        "--no-pin",
        "--targets",
        "blind,blind,blind-ring",
        "--json",
        json.to_str().expect("a path"),
        "--plots",
        plots.to_str().expect("a path"),
    ]);
    let text = said(&output);
    if !output.status.success() && text.contains("NOT ON THIS MACHINE: blind-ring") {
        // A kernel that forbids io_uring: that was said, and asking by name made it a failure.
        return;
    }
    assert!(output.status.success(), "{text}");
    for word in ["1to100: 1 -> 100, 64 bytes", "blind#2", "CPU us each", "messages a second"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let figures: Value = serde_json::from_slice(&fs::read(json).expect("figures")).expect("JSON");
    let cases = figures["cases"].as_array().expect("workloads");
    assert_eq!(cases.len(), 5);
    for case in &cases[..4] {
        for entry in case["entries"].as_array().expect("targets") {
            let rounds = entry.pointer("/outcome/messages/rounds").and_then(Value::as_array);
            let rounds = rounds.unwrap_or_else(|| panic!("{} failed: {entry}", case["name"]));
            assert_eq!(rounds.len(), 2);
            for round in rounds {
                let readers = case["work"]["workload"]["readers"].as_u64();
                let [sent, got] = ["messages", "deliveries"].map(|name| round[name].as_u64());
                assert_eq!(got, Some(sent.expect("messages") * readers.expect("readers")));
                assert!(round["server_cpu_ns"].as_u64().is_some_and(|ns| ns > 0));
            }
        }
    }
    let figure = fs::read_to_string(plots.join("cost.svg")).expect("a figure");
    assert!(figure.contains("blind-ring"), "{figure}");
}

#[test]
fn rooms_and_round_trips_are_measured() {
    let dir = TempDir::new().expect("a temporary directory");
    let json = dir.path().join("figures.json");
    let path = json.to_str().expect("a path");
    let mut args = vec!["compare", "--no-pin", "--targets", "blind", "--rounds", "2"];
    args.extend(["--seconds", "0.05", "--warmup", "0.01", "--json", path]);
    args.extend(["--workloads", "1to1-x3-w1,2to1-x2-w1,rtt,rtt-request-1k,daemons-5-at50"]);
    let output = load(&args);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("not possible: it knows no requests"), "{text}");
    let figures: Value = serde_json::from_slice(&fs::read(json).expect("figures")).expect("JSON");
    let cases = figures["cases"].as_array().expect("workloads");
    // Those that two who send hear from each other; a trip is two messages and counts once.
    for (case, deliveries) in cases.iter().zip([1.0, 2.0, 0.5, 0.5]) {
        let rounds = case.pointer("/entries/0/outcome/messages/rounds").and_then(Value::as_array);
        for round in rounds.unwrap_or_else(|| panic!("{} failed: {text}", case["name"])) {
            let [sent, got] = ["messages", "deliveries"].map(|name| round[name].as_f64());
            assert!(got.is_some_and(|got| got > 0.0), "{}", case["name"]);
            assert_eq!(got, sent.map(|sent| sent * deliveries), "{}", case["name"]);
            assert!(round["server_cpu_ns"].as_u64().is_some_and(|ns| ns > 0));
        }
    }
}

#[test]
fn what_is_asked_for_by_name_has_to_be_here() {
    // The blind relay does not understand wardline's flags.
    let not_wardline = format!("tokio={}", env!("CARGO_BIN_EXE_load"));
    let targets = format!("blind,{not_wardline}");
    let output = load(&["compare", "--quick", "--no-pin", "--targets", &targets]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("NOT ON THIS MACHINE: tokio:"), "{text}");
    for wrong in [
        &["--targets", "kafka"][..],
        &["--workloads", "lots"],
        &["--rounds", "0"],
        &["--budgets", "--engine", "nats"],
        &["--engine", "ring"],
    ] {
        let output = load(&[&["compare", "--no-pin"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
    }
}

#[test]
fn an_interrupt_leaves_no_process_behind() {
    let dir = TempDir::new().expect("a temporary directory");
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["compare", "--no-pin", "--targets", "blind", "--workloads", "1to10"])
        .args(["--seconds", "60"])
        // Its servers keep their files there, and are known by it.
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("load starts");
    let servers = || -> Vec<String> {
        let place = dir.path().to_str().expect("a path");
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let lines = processes.filter_map(|process| {
            let line = fs::read_to_string(process.path().join("cmdline")).ok()?;
            line.contains(place).then(|| line.replace('\0', " "))
        });
        lines.collect()
    };
    let end = Instant::now() + Duration::from_secs(20);
    while servers().is_empty() {
        assert!(Instant::now() < end, "no server was started");
        std::thread::sleep(Duration::from_millis(5));
    }
    // It is in the middle of its work, or about to begin.
    std::thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_raw(load.id() as i32).expect("a number");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let status = load.wait().expect("an end");
    assert_eq!(status.code(), Some(1));
    assert_eq!(servers(), Vec::<String>::new(), "left behind");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "files left behind");
}
