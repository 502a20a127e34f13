//! What of a message is logged, where message bodies are logged at all.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use serde_json::value::RawValue;

/// Which message bodies are logged, and how much of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageLog {
    /// Whether any are.
    pub enabled: bool,
    /// Keys of `_payload` and `_type` that are kept; `None` keeps the whole message.
    pub keys: Option<Vec<String>>,
}

impl MessageLog {
    /// What of a message is logged.
    ///
    /// Where keys are set and the message is a JSON object, that is `_version` and, of the objects
    /// `_payload` and `_type`, the members with these keys; numbers and nested values stay as they
    /// were written. A message that is no object is logged whole: it has no keys.
    #[must_use]
    pub fn shown<'m>(&self, message: &'m str) -> Cow<'m, str> {
        let Some(keys) = &self.keys else { return Cow::Borrowed(message) };
        let Some(members) = object(message) else { return Cow::Borrowed(message) };
        let mut out = String::from("{");
        if let Some(version) = members.get("_version") {
            push_member(&mut out, "_version", version.get());
        }
        for part in ["_payload", "_type"] {
            let Some(inner) = members.get(part).and_then(|raw| object(raw.get())) else { continue };
            let mut kept = String::from("{");
            for (key, value) in inner.iter().filter(|(key, _)| keys.iter().any(|k| k == *key)) {
                push_member(&mut kept, key, value.get());
            }
            kept.push('}');
            push_member(&mut out, part, &kept);
        }
        out.push('}');
        Cow::Owned(out)
    }
}

impl MessageLog {
    /// Writes a message to the log, as far as it is shown: what a relay's tap is given.
    pub fn log(&self, sender: SocketAddr, line: &[u8]) {
        if let Some(line) = str::from_utf8(line).ok().filter(|_| self.enabled) {
            let content = &*self.shown(line);
            tracing::info!(target: "wardline::messages", addr = %sender, content, "message");
        }
    }
}

/// The members of a JSON object, values as they are written.
fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

fn push_member(out: &mut String, key: &str, value: &str) {
    if out.len() > 1 {
        out.push(',');
    }
    // Writing to a string does not fail.
    let _ = write!(out, "{}:{value}", serde_json::Value::from(key));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#" {"_version":"1","_payload":{"x":1.50,"y":[1, 2],"z":{"x":1}},
        "_type":{"x":"float","y":"list"},"secret":7}"#;

    fn log(keys: &[&str]) -> MessageLog {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        MessageLog { enabled: true, keys: Some(keys) }
    }

    #[test]
    fn no_filter_logs_the_whole() {
        let all = MessageLog { enabled: true, keys: None };
        assert!(matches!(all.shown(MESSAGE), Cow::Borrowed(MESSAGE)));
    }

    #[test]
    fn only_the_listed_keys_are_kept() {
        let cases = [
            (&["x"][..], r#"{"_version":"1","_payload":{"x":1.50},"_type":{"x":"float"}}"#),
            (
                &["y", "z", "missing"],
                r#"{"_version":"1","_payload":{"y":[1, 2],"z":{"x":1}},"_type":{"y":"list"}}"#,
            ),
            (&[], r#"{"_version":"1","_payload":{},"_type":{}}"#),
            (&["_version", "secret"], r#"{"_version":"1","_payload":{},"_type":{}}"#),
        ];
        for (keys, shown) in cases {
            assert_eq!(log(keys).shown(MESSAGE), shown, "{keys:?}");
        }
    }

    #[test]
    fn parts_that_are_missing_or_no_objects_are_left_out() {
        let cases = [
            ("{}", "{}"),
            (r#"{"secret":1}"#, "{}"),
            (r#"{"_payload":"secret","_type":null}"#, "{}"),
            (r#"{"_payload":["secret"]}"#, "{}"),
            (r#"{"_version":{"deep":[1]}}"#, r#"{"_version":{"deep":[1]}}"#),
            (r#"{"_type":{"x":2},"_version":null}"#, r#"{"_version":null,"_type":{"x":2}}"#),
            (r#"{"_payload":{"\u0078":1}}"#, r#"{"_payload":{"x":1}}"#),
        ];
        for (message, shown) in cases {
            assert_eq!(log(&["x"]).shown(message), shown, "{message}");
        }
    }

    #[test]
    fn what_is_no_object_has_no_keys() {
        let deep = "{\"a\":".repeat(100_000);
        for message in ["hello", "", "[1]", "7", "\"{}\"", "{broken", "{} {}", deep.as_str()] {
            assert_eq!(log(&[]).shown(message), message);
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let depth = 100_000;
        let deep = format!("{{\"_version\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(log(&[]).shown(&deep), deep);
    }

    #[test]
    fn a_quote_in_a_key_stays_inside() {
        let message = r#"{"_payload":{"a\"b":1}}"#;
        assert_eq!(log(&["a\"b"]).shown(message), message);
    }
}
