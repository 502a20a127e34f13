//! What a client shows: payloads for people, for other programs, and as JSON.

use std::io::{self, IsTerminal, Stdout, Write};

use serde_json::{Value, json};
use wardline_client::{Message, Peer, Signed};
use wardline_host::logging::escaped;

use super::args::CLASSES;
use crate::exit::Failure;

/// How payloads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A line each; harmless, where a person sees it.
    Lines,
    /// As they are, with nothing added.
    Raw,
    /// An object each.
    Json,
}

impl Shape {
    pub(crate) fn of(raw: bool, json: bool) -> Self {
        match (raw, json) {
            (_, true) => Self::Json,
            (true, false) => Self::Raw,
            (false, false) => Self::Lines,
        }
    }
}

/// Whether anybody still reads.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    On,
    /// Who reads only the beginning, as `head` does, has what it wants.
    Over,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Out {
    shape: Shape,
    is_terminal: bool,
    out: Stdout,
}

impl Out {
    pub(crate) fn new(shape: Shape) -> Self {
        let out = io::stdout();
        Self { shape, is_terminal: out.is_terminal(), out }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// A message of a topic.
    pub(crate) fn message(&self, epoch: u64, message: &Message) -> Result<Read, Failure> {
        match self.shape {
            Shape::Json => self.json(&message_json(epoch, message)),
            Shape::Raw | Shape::Lines => self.payload(&message.payload),
        }
    }

    /// A payload by itself, as a line or as it is.
    pub(crate) fn payload(&self, payload: &[u8]) -> Result<Read, Failure> {
        let mut bytes = match self.shape {
            Shape::Lines if self.is_terminal => harmless(payload).into_bytes(),
            Shape::Lines | Shape::Raw | Shape::Json => payload.to_vec(),
        };
        if self.shape != Shape::Raw {
            bytes.push(b'\n');
        }
        self.write(&bytes)
    }

    /// A text of perhaps several lines, which ends as lines do.
    pub(crate) fn lines(&self, text: &[u8]) -> Result<Read, Failure> {
        for line in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
            if self.payload(line)? == Read::Over {
                return Ok(Read::Over);
            }
        }
        Ok(Read::On)
    }

    /// An object, a line.
    pub(crate) fn json(&self, value: &Value) -> Result<Read, Failure> {
        self.write(format!("{value}\n").as_bytes())
    }

    /// Words of this program.
    pub(crate) fn words(&self, words: &str) -> Result<Read, Failure> {
        self.write(words.as_bytes())
    }

    fn write(&self, bytes: &[u8]) -> Result<Read, Failure> {
        let mut out = self.out.lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(Read::On),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Read::Over),
            Err(error) => Err(Failure::Runtime(format!("cannot write: {error}"))),
        }
    }
}

/// A handle, as it is shown and read: 16 hexadecimal digits.
pub(crate) fn handle(handle: u64) -> String {
    format!("{handle:016x}")
}

/// A payload as members of an object: text where it is text, else hexadecimal digits.
pub(crate) fn with_payload(mut object: Value, payload: &[u8]) -> Value {
    match std::str::from_utf8(payload) {
        Ok(text) => object["payload"] = Value::from(text),
        Err(_) => {
            let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            object["payload_hex"] = Value::from(digits);
        }
    }
    object
}

/// A session of somebody.
pub(crate) fn peer_json(peer: &Peer) -> Value {
    json!({
        "handle": handle(peer.handle),
        "identity": peer.identity.as_ref().map(ToString::to_string),
        "device": peer.device,
    })
}

/// Who signed something.
pub(crate) fn signed_json(signed: &Signed) -> Value {
    json!({
        "identity": signed.sender.to_string(),
        "device": signed.device,
        "issued_ms": signed.issued_ms,
    })
}

// Numbers of 64 bits that may be large stand as text: most who read JSON have doubles only.
fn message_json(epoch: u64, message: &Message) -> Value {
    let object = json!({
        "topic": &*message.topic,
        "from": format!("offset:{epoch}:{}", message.offset),
        "offset": message.offset,
        "sender": handle(message.sender),
        "mid": message.mid.to_string(),
        "class": CLASSES[message.class as usize],
        "ttl_ms": message.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        "line": message.is_line(),
        "envelope": message.has_envelope(),
        "signed": message.signed.as_ref().map(signed_json),
        "history": message.history,
    });
    with_payload(object, &message.payload)
}

/// A payload that can neither move a cursor nor colour a terminal.
fn harmless(payload: &[u8]) -> String {
    let mut shown = String::new();
    for part in payload.utf8_chunks() {
        shown.push_str(&escaped(part.valid()));
        shown.extend(part.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_does_nothing_to_a_terminal() {
        let cases: [(&[u8], &str); 4] = [
            (b"plain \xc3\xa9", "plain é"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"a\nb\r", "a\\nb\\r"),
            (b"\xff\xfe x", "\\xff\\xfe x"),
        ];
        for (payload, shown) in cases {
            assert_eq!(harmless(payload), shown);
        }
    }

    #[test]
    fn a_message_is_an_object() {
        use std::time::Duration;
        use wardline_client::Class;

        let message = Message {
            topic: "t".into(),
            offset: 5,
            sender: 0xAB,
            mid: u64::MAX >> 1,
            class: Class::Bulk,
            ttl: Some(Duration::from_secs(5)),
            flags: 0,
            signed: None,
            history: true,
            payload: b"\xff\x00".to_vec(),
        };
        let shown = message_json(9, &message);
        assert_eq!(shown["from"], "offset:9:5");
        assert_eq!(shown["sender"], "00000000000000ab");
        assert_eq!(shown["mid"], "9223372036854775807");
        assert_eq!((&shown["class"], &shown["ttl_ms"]), (&json!("bulk"), &json!(5_000)));
        assert_eq!((&shown["signed"], &shown["history"]), (&Value::Null, &json!(true)));
        assert_eq!((&shown["payload_hex"], &shown["payload"]), (&json!("ff00"), &Value::Null));
        let text = message_json(9, &Message { payload: b"\"x\n".to_vec(), ..message });
        assert_eq!(text["payload"], "\"x\n");
        assert_eq!(text.to_string().lines().count(), 1);
    }

    #[test]
    fn shapes() {
        assert_eq!(Shape::of(false, false), Shape::Lines);
        assert_eq!(Shape::of(true, false), Shape::Raw);
        assert_eq!(Shape::of(false, true), Shape::Json);
    }
}
