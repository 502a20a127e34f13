//! `load`, as a person calls it.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) fn load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_load")).args(args).output().expect("load starts")
}

/// Runs it with `--json` and gives what it wrote, after it succeeded.
pub(crate) fn load_json(args: &[&str]) -> Value {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("figures.json");
    let output = load(&[args, &["--json", file.to_str().expect("a path")]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&fs::read(file).expect("figures")).expect("JSON")
}
