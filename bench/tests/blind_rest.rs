//! `load idle` and `load start` against the blind relay. Alone in this file, since pages that
//! another process of the same program maps count as shared while it runs.

#![cfg(target_os = "linux")]

mod common;

use common::{load, load_json};
use serde_json::Value;

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
