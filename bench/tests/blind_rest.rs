//! `load idle` and `load start` against the blind relay. Alone in this file, since pages that
//! another process of the same program maps count as shared while it runs.

#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(args).output().expect("load starts")
}

/// Runs it with `--json` and gives what it wrote, after it succeeded.
fn load_json(args: &[&str]) -> Value {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("figures.json");
    let output = load(&[args, &["--json", file.to_str().expect("a path")]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&fs::read(file).expect("figures")).expect("JSON")
}

#[test]
fn idle_connections_and_starts_are_measured() {
    let figures = load_json(&["idle", "--server", "blind", "--connections", "500"]);
    let bytes = figures.pointer("/bytes_per_connection").and_then(Value::as_f64);
    assert!(bytes.is_some_and(|bytes| bytes > 0.0 && bytes < 4096.0), "{bytes:?}");
    let over = load(&["idle", "--server", "blind", "--connections", "500", "--budget", "1"]);
    assert_eq!(over.status.code(), Some(1));
    let figures = load_json(&["start", "--server", "blind", "--times", "2"]);
    let ms = figures.pointer("/ms/median").and_then(Value::as_f64);
    assert!(ms.is_some_and(|ms| ms > 0.0), "{ms:?}");
    let over = load(&["start", "--server", "blind", "--times", "1", "--budget-program", "1kB"]);
    assert_eq!(over.status.code(), Some(1));
}
