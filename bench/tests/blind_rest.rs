//! `load idle` and `load start` against the blind relay. Alone in this file, since pages that
//! another process of the same program maps count as shared while it runs.

#![cfg(target_os = "linux")]

mod common;

use common::{load, load_json};
use serde_json::Value;

const TRIES: usize = 4;

#[test]
fn idle_connections_and_starts_are_measured() {
    // The system may take a few pages away meanwhile that nobody uses, and so many connections have
    // no more than that: then it is measured again.
    let measured = (0..TRIES).any(|_| {
        let figures = load_json(&["idle", "--server", "blind", "--connections", "2000"]);
        let bytes = figures.pointer("/bytes_per_connection").and_then(Value::as_f64);
        bytes.expect("a figure") > 0.0 && bytes.expect("a figure") < 4096.0
    });
    assert!(measured, "no figure between 0 and a page");
    let over = (0..TRIES).any(|_| {
        let over = load(&["idle", "--server", "blind", "--connections", "2000", "--budget", "1"]);
        over.status.code() == Some(1)
    });
    assert!(over, "never over its budget");
    let figures = load_json(&["start", "--server", "blind", "--times", "2"]);
    let ms = figures.pointer("/ms/median").and_then(Value::as_f64);
    assert!(ms.is_some_and(|ms| ms > 0.0), "{ms:?}");
    let over = load(&["start", "--server", "blind", "--times", "1", "--budget-program", "1kB"]);
    assert_eq!(over.status.code(), Some(1));
}
