//! What another implementation said and heard, replayed through both of our halves: the same bytes
//! at each step, or the same refusal at the same byte.
//!
//! The transcripts are made by tests/python/transcripts.py, which was written from PROTOCOL.md
//! alone and describes their form.

mod bodies;
mod ends;
mod half;
mod letters;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const TEXT: &str = include_str!("../data/transcripts.jsonl");

/// The fewest of each kind, so that a file that lost some is seen.
const AT_LEAST: [(&str, usize); 10] = [
    ("full", 30),
    ("resumed", 28),
    ("rekeyed", 18),
    ("puzzled", 25),
    ("refused", 210),
    ("refused record", 170),
    ("records", 50),
    ("frames", 12),
    ("control", 20),
    ("envelopes", 12),
];

/// Ends that must have been met at the server: in the handshake, and in records.
const ENDS_AT_SERVER: [u64; 18] = [
    0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x19, 0x20, 0x21, 0x22, 0x30, 0x31, 0x41, 0x42, 0x44, 0x45,
    // In bodies by themselves as well: what they hold, and how long it is.
    0x12, 0x19,
];

/// The same at the client, where some are words.
const WORDS_AT_CLIENT: [&str; 8] = [
    "alert",
    "features",
    "not contributory",
    "not proved",
    "own key",
    "puzzle",
    "server key",
    "wrong server",
];

fn all() -> Vec<Value> {
    TEXT.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn of_kind<'a>(all: &'a [Value], kinds: &'a [&str]) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(|one| kinds.contains(&text(&one["kind"])))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}

fn number(value: &Value) -> u64 {
    if value.is_null() { 0 } else { value.as_u64().unwrap_or_else(|| panic!("{value}")) }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = text(value);
    assert!(text.len().is_multiple_of(2), "{text}");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Fixed bytes; zeros where the transcript leaves them out.
fn array<const N: usize>(value: &Value) -> [u8; N] {
    if value.is_null() { [0; N] } else { bytes(value).try_into().expect("so many bytes") }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn connections_are_replayed() {
    let all = all();
    let names: BTreeMap<&str, &Value> = all.iter().map(|one| (text(&one["name"]), one)).collect();
    let kinds = ["full", "resumed", "rekeyed", "puzzled", "refused", "refused record", "records"];
    let mut replayed = 0;
    for one in of_kind(&all, &kinds) {
        let mut connections = Vec::new();
        if !one["before"].is_null() {
            for halves in list(&names[text(&one["before"])]["connections"]) {
                connections.push((halves, list(&halves["steps"]).to_vec()));
            }
            let (_, steps) = connections.last_mut().expect("a connection to go on with");
            steps.extend_from_slice(list(&one["steps"]));
        }
        for halves in list(&one["connections"]) {
            connections.push((halves, list(&halves["steps"]).to_vec()));
        }
        ends::replay(&format!("{} / {}", text(&one["kind"]), text(&one["name"])), &connections);
        replayed += 1;
    }
    assert!(replayed > 500, "{replayed}");
}

#[test]
fn bodies_hold_what_they_hold() {
    let all = all();
    let mut cases = 0;
    for one in of_kind(&all, &["frames", "control"]) {
        for case in list(&one["cases"]) {
            bodies::check(text(&one["kind"]), case);
            cases += 1;
        }
    }
    assert!(cases > 600, "{cases}");
}

#[test]
fn envelopes_are_believed_or_not() {
    let all = all();
    let letters: usize = of_kind(&all, &["envelopes"]).map(letters::replay).sum();
    assert!(letters > 180, "{letters}");
}

#[test]
fn there_are_enough_of_each_kind() {
    let all = all();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut numbers: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut words: BTreeSet<&str> = BTreeSet::new();
    for one in &all {
        *kinds.entry(text(&one["kind"])).or_default() += 1;
        let connections = list(&one["connections"]).iter().flat_map(|each| list(&each["steps"]));
        for step in connections.chain(list(&one["steps"])) {
            let end = &step["end"];
            numbers.extend(end.as_u64().map(|code| (text(&step["at"]), code)));
            words.extend(end.as_str());
        }
        words.extend(list(&one["letters"]).iter().map(|letter| text(&letter["result"])));
    }
    let names: BTreeSet<(&str, &str)> =
        all.iter().map(|one| (text(&one["kind"]), text(&one["name"]))).collect();
    assert_eq!(names.len(), all.len(), "two of the same name");
    assert_eq!(kinds.len(), AT_LEAST.len(), "{kinds:?}");
    for (kind, least) in AT_LEAST {
        assert!(kinds[kind] >= least, "{kind}: {}", kinds[kind]);
    }
    for code in ENDS_AT_SERVER {
        assert!(numbers.contains(&("server", code)), "{code:x}");
    }
    for word in WORDS_AT_CLIENT.into_iter().chain(letters::WORDS) {
        assert!(words.contains(word), "{word}");
    }
}
