//! The recorded behaviour of the reference relay.

use serde_json::Value;

/// What a client sends, and what others and it itself receive for that.
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) send: Vec<u8>,
    pub(crate) others: Vec<u8>,
    pub(crate) sender: Vec<u8>,
    pub(crate) close_after_send: bool,
}

impl Vector {
    /// What the others receive from a sender with this port.
    pub(crate) fn others_from(&self, port: u16) -> String {
        let text = String::from_utf8(self.others.clone()).expect("envelopes are UTF-8");
        text.replace(":PORT\"", &format!(":{port}\""))
    }
}

/// Every vector of `tests/data/line-vectors.json`.
pub(crate) fn vectors() -> Vec<Vector> {
    let file = recorded();
    let vectors = file["vectors"].as_array().expect("a list");
    assert!(vectors.len() >= 10, "the file has lost vectors");
    vectors
        .iter()
        .map(|v| Vector {
            name: v["name"].as_str().expect("a name").to_owned(),
            send: bytes(&v["send_hex"]),
            others: bytes(&v["others_hex"]),
            sender: bytes(&v["sender_hex"]),
            close_after_send: v["close_after_send"].as_bool().expect("a flag"),
        })
        .collect()
}

/// The recorded warning of this name.
fn recorded_warning(name: &str) -> String {
    recorded()["warnings"][name].as_str().expect("a warning").to_owned()
}

fn recorded() -> Value {
    serde_json::from_str(include_str!("../../data/line-vectors.json")).expect("JSON")
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hex digits");
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_warnings_used_here_are_the_recorded_ones() {
    assert_eq!(recorded_warning("rate"), super::RATE_WARNING);
    assert_eq!(recorded_warning("idle"), super::IDLE_WARNING);
    assert_eq!(recorded_warning("shutdown"), super::SHUTDOWN_WARNING);
}
