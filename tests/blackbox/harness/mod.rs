//! What every case needs: a relay of its own, clients, and bounds on every wait.

use std::env;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

mod background;
mod client;
#[cfg(all(target_os = "linux", not(wardline_portable)))]
pub(crate) mod forbidden;
pub(crate) mod native;
#[cfg(target_os = "linux")]
pub(crate) mod process;
mod pulse;
mod relay;
mod vectors;

pub(crate) use background::Background;
pub(crate) use client::{Client, Dial, End, Heard, proxy_header};
pub(crate) use native::{NativeClient, NativeDial, Said, key};
pub(crate) use pulse::Pulse;
pub(crate) use relay::{Launch, Outcome, Relay, wardline};
pub(crate) use vectors::{Vector, vectors};

/// How long a wait may take that should take none: the machine may be shared and slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The warnings whose text is part of the dialect.
pub(crate) const RATE_WARNING: &str =
    "Warning: You are sending messages too quickly. Please slow down.\n";
pub(crate) const IDLE_WARNING: &str = "Warning: You have been disconnected due to inactivity.\n";
pub(crate) const SHUTDOWN_WARNING: &str = "Warning: Server is shutting down.\n";
pub(crate) const SLOW_WARNING: &str =
    "Warning: You were disconnected because you read too slowly.\n";

/// The engines that each case is run on: those that the environment names, else all that the
/// binary has and this system lets run.
pub(crate) fn engines() -> &'static [&'static str] {
    static ENGINES: OnceLock<Vec<&'static str>> = OnceLock::new();
    ENGINES.get_or_init(|| {
        let named = match env::var("WARDLINE_TEST_ENGINES") {
            Ok(named) => named,
            Err(_) => usable_engines().join(","),
        };
        let named: &'static str = String::leak(named);
        let names: Vec<_> = named.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
        assert!(!names.is_empty(), "WARDLINE_TEST_ENGINES names no engine");
        names
    })
}

/// What `wardline engines` says: each engine, and why it cannot run if it cannot.
pub(crate) fn known_engines() -> Vec<(String, Option<String>)> {
    let outcome = Outcome::of(wardline().args(["engines", "--json"]));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let all: Vec<serde_json::Value> = serde_json::from_str(&outcome.stdout).expect("JSON");
    let word = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    all.iter().map(|it| (word(&it["engine"]).expect("a name"), word(&it["why_not"]))).collect()
}

fn usable_engines() -> Vec<String> {
    let (usable, not): (Vec<_>, Vec<_>) =
        known_engines().into_iter().partition(|(_, why_not)| why_not.is_none());
    for (name, why_not) in not {
        // Not by a macro: what those say is only shown of cases that fail.
        let why = why_not.unwrap_or_default();
        let _ = writeln!(io::stderr(), "*** engine {name} is NOT tested: {why} ***");
    }
    usable.into_iter().map(|(name, _)| name).collect()
}

/// Runs `case` on every engine, side by side, and fails if it fails on any.
pub(crate) fn on_each_engine(case: impl Fn(&'static str) + Sync) {
    let case = &case;
    thread::scope(|scope| {
        let runs: Vec<_> =
            engines().iter().map(|&engine| (engine, scope.spawn(move || case(engine)))).collect();
        let failed: Vec<_> = runs
            .into_iter()
            .filter_map(|(engine, run)| run.join().is_err().then_some(engine))
            .collect();
        assert!(failed.is_empty(), "failed on: {}", failed.join(", "));
    });
}

/// Waits until `happened`, and fails with `what` if it does not in [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
