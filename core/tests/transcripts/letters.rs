//! Envelopes: made by our half where an honest one would make them, and taken or not by our other.

use bytemuck::Zeroable;
use serde_json::Value;
use wardline_core::native::envelope::{
    Audience, EnvelopeFault, Expected, Letter, Memory, Remembered, make,
};
use wardline_core::native::{FrameHeader, Identity, SigningKey};

use crate::{array, bytes, list, number, text};

/// What a receiver says of an envelope, all of which must be met.
pub(crate) const WORDS: [&str; 12] = [
    "fresh",
    "missing",
    "form",
    "kind",
    "corr",
    "audience",
    "clock",
    "epoch",
    "replayed",
    "stale",
    "before what is known",
    "signature",
];

const fn word(fault: EnvelopeFault) -> &'static str {
    match fault {
        EnvelopeFault::Missing => "missing",
        EnvelopeFault::Form => "form",
        EnvelopeFault::Kind => "kind",
        EnvelopeFault::Corr => "corr",
        EnvelopeFault::Audience => "audience",
        EnvelopeFault::Clock => "clock",
        EnvelopeFault::Epoch => "epoch",
        EnvelopeFault::Replayed => "replayed",
        EnvelopeFault::Stale => "stale",
        EnvelopeFault::BeforeFloor => "before what is known",
        EnvelopeFault::Signature => "signature",
        EnvelopeFault::Sender => "sender",
        EnvelopeFault::Piece => "piece",
    }
}

/// One receiver, and all that comes to it; how many that were.
pub(crate) fn replay(one: &Value) -> usize {
    let receiver = &one["receiver"];
    let identity = Identity::new(&array(&receiver["identity"])).expect("a key");
    let device = u32::try_from(number(&receiver["device"])).expect("32 bits");
    let entries = usize::try_from(number(&receiver["entries"])).expect("few");
    let mut table = vec![Remembered::zeroed(); entries];
    let mut memory = Memory::new(&mut table, number(&receiver["start_ms"]));
    for (nth, letter) in list(&one["letters"]).iter().enumerate() {
        let place = format!("{}, letter {nth}", text(&one["name"]));
        let frame = crate::bodies::header(&letter["frame"]);
        let sealed = bytes(&letter["sealed"]);
        let said = bytes(&letter["payload"]);
        if !letter["made"].is_null() {
            assert_eq!(remade(identity, &frame, letter, &said), sealed, "{place}");
        }
        let comes = if letter["comes"].is_null() { sealed } else { bytes(&letter["comes"]) };
        let expected = Expected {
            frame: &frame,
            receiver: (identity, device),
            topic: letter["topic"].as_str(),
            sender: None,
            answers: letter["answers"].as_bool().expect("yes or no"),
        };
        let result = memory.open(&expected, &comes, number(&letter["now_ms"]));
        let result = match result {
            Ok(fresh) => {
                assert_eq!(fresh.said().payload, said, "{place}");
                "fresh"
            }
            Err(fault) => word(fault),
        };
        assert_eq!(result, text(&letter["result"]), "{place}");
    }
    list(&one["letters"]).len()
}

/// The envelope and its payload, as our half makes them.
fn remade(receiver: Identity, frame: &FrameHeader, letter: &Value, payload: &[u8]) -> Vec<u8> {
    let made = &letter["made"];
    let small = |key: &str| u32::try_from(number(&made[key])).expect("32 bits");
    let peer = Audience::Peer(receiver, small("to_device"));
    let letter = Letter {
        audience: made["topic"].as_str().map_or(peer, Audience::Topic),
        device: small("device"),
        epoch_ms: number(&made["epoch_ms"]),
        counter: number(&made["counter"]),
        issued_ms: number(&made["issued_ms"]),
        piece: small("piece"),
    };
    let key = SigningKey::from_seed(&array(&made["seed"]));
    [make(&key, frame, &letter, payload).as_slice(), payload].concat()
}
