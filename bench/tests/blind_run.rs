//! The whole of `load`, as a person calls it, against the blind relay.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::process::Command;

use common::{load, load_json};
use serde_json::Value;
use tempfile::TempDir;

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer}"))
}

#[test]
fn two_publishers_and_five_readers_for_a_second() {
    let figures = load_json(&[
        "run",
        "--server",
        "blind",
        "--publishers",
        "2",
        "--readers",
        "5",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--no-pin",
    ]);
    let round = "/servers/0/rounds/0";
    let messages = number(&figures, &format!("{round}/messages"));
    let deliveries = number(&figures, &format!("{round}/deliveries"));
    assert!(messages > 100, "only {messages} messages in a second");
    // To five readers and to the other publisher.
    assert_eq!(deliveries, messages * 6);
    assert!(number(&figures, &format!("{round}/server_cpu_ns")) > 0);
    assert!(number(&figures, &format!("{round}/p50_ns")) > 0);
    assert!(number(&figures, &format!("{round}/memory/private_bytes")) > 0);
    let elapsed = number(&figures, &format!("{round}/elapsed_ns"));
    assert!(elapsed >= 1_000_000_000, "{elapsed} ns");
}

#[test]
fn a_bounded_round_sends_exactly_that_much() {
    for (publishers, window, size) in
        [(3, "1", "48"), (3, "30", "1024"), (1, "100000", "64"), (1, "16", "65000")]
    {
        let publishers_text = publishers.to_string();
        let figures = load_json(&[
            "run",
            "--server",
            "blind",
            "--publishers",
            &publishers_text,
            "--readers",
            "4",
            "--messages",
            "500",
            "--window",
            window,
            "--size",
            size,
            "--warmup",
            "0.05",
            "--no-pin",
        ]);
        let messages = number(&figures, "/servers/0/rounds/0/messages");
        assert_eq!(messages, 500 * publishers);
        let others = 4 + publishers - 1;
        assert_eq!(number(&figures, "/servers/0/rounds/0/deliveries"), messages * others);
    }
}

#[test]
fn pairs_give_ratios_and_a_verdict() {
    let args = [
        "run",
        "--a",
        "blind",
        "--b",
        "blind",
        "--readers",
        "3",
        "--seconds",
        "0.1",
        "--rounds",
        "2",
        "--no-pin",
    ];
    let figures = load_json(&args);
    for ratio in ["cpu", "rate", "p50", "p99"] {
        let median = figures.pointer(&format!("/ratios/{ratio}/median")).and_then(Value::as_f64);
        assert!(median.is_some_and(|median| median > 0.0), "{ratio}: {median:?}");
    }
    assert_eq!(figures.pointer("/verdict/counts"), Some(&Value::Bool(false)), "only two rounds");
    // No two runs can be a thousand times apart, and none is within a thousandth.
    assert_eq!(load(&[&args[..], &["--budget", "1000"]].concat()).status.code(), Some(0));
    let over = load(&[&args[..], &["--budget", "0.001"]].concat());
    assert_eq!(over.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&over.stdout).contains("NOT KEPT"));
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let wrong =
        load(&["run", "--server", "blind", "--publishers", "2", "--window", "100000", "--no-pin"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
}

#[test]
fn a_server_that_does_not_start_is_quoted() {
    let program = format!("wardline={}", env!("CARGO_BIN_EXE_load"));
    // The blind relay does not understand wardline's flags, and that is said.
    let output = load(&["run", "--server", &program, "--no-pin"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ended at once") && said.contains("serve"), "{said}");
}

#[test]
fn lines_that_nobody_sent_fail_the_run() {
    let dir = TempDir::new().expect("a temporary directory");
    let ports = dir.path().join("ports");
    let mut blind = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["blind", "--listen", "127.0.0.1:0", "--ports-file"])
        .arg(&ports)
        .spawn()
        .expect("blind starts");
    let url = loop {
        if let Ok(text) = fs::read_to_string(&ports) {
            break text.trim().to_owned();
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    let pid = blind.id().to_string();
    let attached = |kind: &str| {
        load(&[
            "run",
            "--attach",
            &url,
            "--pid",
            &pid,
            "--server",
            kind,
            "--readers",
            "2",
            "--messages",
            "100",
            "--warmup",
            "0",
            "--no-pin",
        ])
    };
    let right = attached("blind");
    let wrong = attached("wardline");
    blind.kill().and_then(|()| blind.wait()).expect("blind ends");
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains("a line that nobody sent"), "{said}");
}
