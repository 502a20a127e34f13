//! What records hold, as the transcripts write it.

use serde_json::{Value, json};
use wardline_core::native::{
    Class, ClientControl, Code, ControlBytes, Frame, FrameHeader, FrameKind, FrameWriter, Frames,
    ServerControl, Start, Towards,
};

use crate::{array, bytes, hex, list, number, text};

/// A body by itself: what it holds is what is said, and encodes to it again; or its code is.
pub(crate) fn check(kind: &str, case: &Value) {
    let to_relay = case[0].as_bool().expect("a direction");
    let body = bytes(&case[1]);
    let said = if kind == "frames" {
        frames(to_relay, &body)
    } else {
        control(to_relay, &body).map(|(name, fields)| json!([name, fields]))
    };
    match said {
        Err(code) => assert_eq!(u64::from(code.wire()), number(&case[2]), "{kind} {case}"),
        Ok(held) => {
            assert_eq!(held, case[2], "{kind} {case}");
            let again = if kind == "frames" {
                frames_body(&case[2])
            } else {
                control_body(to_relay, text(&case[2][0]), &case[2][1]).as_bytes().to_vec()
            };
            assert_eq!(again, body, "{kind} {case}");
        }
    }
}

fn frames(to_relay: bool, body: &[u8]) -> Result<Value, Code> {
    let towards = if to_relay { Towards::Relay } else { Towards::Client };
    Frames::check(body, towards).map(frames_json)
}

/// Frames as lists of their fields.
pub(crate) fn frames_json(frames: Frames<'_>) -> Value {
    let fields = |frame: Frame<'_>| {
        let FrameHeader { kind, class, flags, topic, ttl_ms, peer, mid, offset, corr } =
            frame.header;
        let payload = hex(frame.payload);
        json!([kind as u8, class as u8, flags, topic, ttl_ms, peer, mid, offset, corr, payload])
    };
    frames.map(fields).collect()
}

/// A frame's header of its fields.
pub(crate) fn header(fields: &Value) -> FrameHeader {
    let at = |nth: usize| number(&fields[nth]);
    let small = |nth| u32::try_from(at(nth)).expect("32 bits");
    FrameHeader {
        kind: FrameKind::ALL[usize::try_from(at(0)).expect("a kind")],
        class: Class::ALL[usize::try_from(at(1)).expect("a class")],
        flags: u16::try_from(at(2)).expect("16 bits"),
        topic: small(3),
        ttl_ms: small(4),
        peer: at(5),
        mid: at(6),
        offset: at(7),
        corr: at(8),
    }
}

/// The body of those frames.
pub(crate) fn frames_body(frames: &Value) -> Vec<u8> {
    let mut room = vec![0; 70_000];
    let mut writer = FrameWriter::new(&mut room);
    for fields in list(frames) {
        assert!(writer.put(&header(fields), &bytes(&fields[9])), "room");
    }
    writer.written().to_vec()
}

/// A control value's name and fields.
pub(crate) fn control(to_relay: bool, body: &[u8]) -> Result<(&'static str, Value), Code> {
    if to_relay {
        ClientControl::decode(body).map(|value| client_fields(&value))
    } else {
        ServerControl::decode(body).map(|value| server_fields(&value))
    }
}

/// The bytes of a control value.
pub(crate) fn control_body(to_relay: bool, name: &str, fields: &Value) -> ControlBytes {
    let encoded = if to_relay {
        let name_bytes = if fields["name"].is_null() { Vec::new() } else { bytes(&fields["name"]) };
        let topic = str::from_utf8(&name_bytes).expect("UTF-8");
        client_value(name, fields, topic).encode()
    } else {
        let seen = if fields["seen"].is_null() { Vec::new() } else { bytes(&fields["seen"]) };
        server_value(name, fields, &seen).encode()
    };
    encoded.unwrap_or_else(|code| panic!("{code:?}: {name} {fields}"))
}

fn client_fields(value: &ClientControl<'_>) -> (&'static str, Value) {
    match *value {
        ClientControl::Subscribe { ask, name, from, echo, presence } => {
            let from = match from {
                Start::Now => json!(["Now"]),
                Start::Offset { epoch, offset } => json!(["Offset", epoch, offset]),
                Start::Last(count) => json!(["Last", count]),
            };
            let name = hex(name.as_bytes());
            let fields = json!({"ask": ask, "name": name, "from": from, "echo": echo,
                "presence": presence});
            ("Subscribe", fields)
        }
        ClientControl::Unsubscribe { topic } => ("Unsubscribe", json!({"topic": topic})),
        ClientControl::Open { ask, name } => {
            ("Open", json!({"ask": ask, "name": hex(name.as_bytes())}))
        }
        ClientControl::Resolve { ask, identity } => {
            ("Resolve", json!({"ask": ask, "identity": hex(&identity)}))
        }
        ClientControl::Identify { ask, handle } => {
            ("Identify", json!({"ask": ask, "handle": handle}))
        }
        ClientControl::Who { ask, topic, after } => {
            ("Who", json!({"ask": ask, "topic": topic, "after": after}))
        }
        ClientControl::Credit { peer, corr, bytes } => {
            ("Credit", json!({"peer": peer, "corr": corr, "bytes": bytes}))
        }
    }
}

fn server_fields(value: &ServerControl<'_>) -> (&'static str, Value) {
    match *value {
        ServerControl::Taken { mid, seen, direct } => {
            ("Taken", json!({"mid": mid, "seen": hex(seen), "direct": direct}))
        }
        ServerControl::Subscribed { ask, topic, epoch, next, oldest } => (
            "Subscribed",
            json!({"ask": ask, "topic": topic, "epoch": epoch, "next": next, "oldest": oldest}),
        ),
        ServerControl::Opened { ask, topic } => ("Opened", json!({"ask": ask, "topic": topic})),
        ServerControl::Refused { ask, code, retry_ms } => {
            ("Refused", json!({"ask": ask, "code": code, "retry_ms": retry_ms}))
        }
        ServerControl::Nack { mid, code, retry_ms } => {
            ("Nack", json!({"mid": mid, "code": code, "retry_ms": retry_ms}))
        }
        ServerControl::Verdict { mid, offset, readers } => {
            ("Verdict", json!({"mid": mid, "offset": offset, "readers": readers}))
        }
        ServerControl::Gap { topic, from, to, reason } => {
            ("Gap", json!({"topic": topic, "from": from, "to": to, "reason": reason}))
        }
        ServerControl::Identity { ask, handle, identity, device } => {
            let identity = hex(&identity);
            let fields =
                json!({"ask": ask, "handle": handle, "identity": identity, "device": device});
            ("Identity", fields)
        }
        ServerControl::Done { ask, next } => ("Done", json!({"ask": ask, "next": next})),
        ServerControl::Joined { topic, handle } => {
            ("Joined", json!({"topic": topic, "handle": handle}))
        }
        ServerControl::Left { topic, handle } => {
            ("Left", json!({"topic": topic, "handle": handle}))
        }
        ServerControl::Credit { peer, corr, bytes } => {
            ("Credit", json!({"peer": peer, "corr": corr, "bytes": bytes}))
        }
    }
}

fn client_value<'a>(name: &str, fields: &Value, topic_name: &'a str) -> ClientControl<'a> {
    let small = |key: &str| u32::try_from(number(&fields[key])).expect("32 bits");
    let large = |key: &str| number(&fields[key]);
    let yes = |key: &str| fields[key].as_bool().expect("yes or no");
    let (ask, topic) = (small("ask"), small("topic"));
    match name {
        "Subscribe" => {
            let from = &fields["from"];
            let from = match text(&from[0]) {
                "Now" => Start::Now,
                "Offset" => Start::Offset { epoch: number(&from[1]), offset: number(&from[2]) },
                "Last" => Start::Last(u32::try_from(number(&from[1])).expect("32 bits")),
                other => panic!("{other}"),
            };
            let (echo, presence) = (yes("echo"), yes("presence"));
            ClientControl::Subscribe { ask, name: topic_name, from, echo, presence }
        }
        "Unsubscribe" => ClientControl::Unsubscribe { topic },
        "Open" => ClientControl::Open { ask, name: topic_name },
        "Resolve" => ClientControl::Resolve { ask, identity: array(&fields["identity"]) },
        "Identify" => ClientControl::Identify { ask, handle: large("handle") },
        "Who" => ClientControl::Who { ask, topic, after: large("after") },
        "Credit" => ClientControl::Credit {
            peer: large("peer"),
            corr: large("corr"),
            bytes: small("bytes"),
        },
        other => panic!("{other}"),
    }
}

fn server_value<'a>(name: &str, fields: &Value, seen: &'a [u8]) -> ServerControl<'a> {
    let small = |key: &str| u32::try_from(number(&fields[key])).expect("32 bits");
    let large = |key: &str| number(&fields[key]);
    let code = || u16::try_from(large("code")).expect("16 bits");
    let (ask, topic, handle) = (small("ask"), small("topic"), large("handle"));
    let (mid, retry_ms) = (large("mid"), small("retry_ms"));
    match name {
        "Taken" => ServerControl::Taken { mid, seen, direct: large("direct") },
        "Subscribed" => ServerControl::Subscribed {
            ask,
            topic,
            epoch: large("epoch"),
            next: large("next"),
            oldest: large("oldest"),
        },
        "Opened" => ServerControl::Opened { ask, topic },
        "Refused" => ServerControl::Refused { ask, code: code(), retry_ms },
        "Nack" => ServerControl::Nack { mid, code: code(), retry_ms },
        "Verdict" => {
            ServerControl::Verdict { mid, offset: large("offset"), readers: small("readers") }
        }
        "Gap" => ServerControl::Gap {
            topic,
            from: large("from"),
            to: large("to"),
            reason: u8::try_from(large("reason")).expect("8 bits"),
        },
        "Identity" => ServerControl::Identity {
            ask,
            handle,
            identity: array(&fields["identity"]),
            device: small("device"),
        },
        "Done" => ServerControl::Done { ask, next: large("next") },
        "Joined" => ServerControl::Joined { topic, handle },
        "Left" => ServerControl::Left { topic, handle },
        "Credit" => ServerControl::Credit {
            peer: large("peer"),
            corr: large("corr"),
            bytes: small("bytes"),
        },
        other => panic!("{other}"),
    }
}
