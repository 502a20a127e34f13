//! Both ends of connections, driven by the steps of a transcript.

use serde_json::{Value, json};
use wardline_core::Instant;
use wardline_core::native::handshake::server::FirstRecord;
use wardline_core::native::{Code, Next, Record, Records, SigningKey};

use crate::half::{Came, Client, Connection, Kept, Server};
use crate::{array, bodies, bytes, hex, list, number, text};

/// Connections one after the other: each its halves' script, and its steps.
pub(crate) fn replay(name: &str, connections: &[(&Value, Vec<Value>)]) {
    let mut kept = Kept::default();
    for (nth, (script, steps)) in connections.iter().enumerate() {
        let key = SigningKey::from_seed(&array(&script["client"]["seed"]));
        let before = std::mem::take(&mut kept);
        kept = Kept { client: before.client, server: before.server };
        let mut ends = Ends {
            script,
            client: Client::new(&script["client"], &key, &before),
            server: Server::new(),
            connections: [None, None],
            given: [None, None],
            unacted: [0, 0],
            blame: [None, None],
            kept: &mut kept,
            place: String::new(),
        };
        for (step, values) in steps.iter().enumerate() {
            ends.place = format!("{name}: connection {nth}, step {step}");
            ends.step(values);
        }
    }
}

struct Ends<'a> {
    script: &'a Value,
    client: Client<'a>,
    server: Server,
    connections: [Option<Connection>; 2],
    /// What each gave last.
    given: [Option<Vec<u8>>; 2],
    /// Records that were handed out and held nothing good.
    unacted: [u64; 2],
    /// What the CLOSE of each is to say, since something was wrong.
    blame: [Option<(Code, u16)>; 2],
    kept: &'a mut Kept,
    place: String,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Ends<'_> {
    fn step(&mut self, step: &Value) {
        let at = if text(&step["at"]) == "client" { CLIENT } else { SERVER };
        let now = Instant::from_nanos(number(&step["now_ms"]) * 1_000_000);
        let (out, said) = if !step["do"].is_null() {
            (self.say(at, list(&step["do"]), now), json!({}))
        } else {
            let input = match &step["in"] {
                Value::Null => self.given[1 - at].clone().expect("the other end gave something"),
                input => bytes(input),
            };
            if self.connections[at].is_some() {
                (Vec::new(), self.take(at, &input, now))
            } else {
                self.shake(at, &input, now)
            }
        };
        let want = step["out"].as_str().unwrap_or("");
        assert_eq!(hex(&out), want, "{}", self.place);
        for field in ["session", "end", "alert", "takes"] {
            assert_eq!(said[field], step[field], "{}: {field}", self.place);
        }
        self.given[at] = (!out.is_empty()).then_some(out);
    }

    /// A message of the handshake comes.
    fn shake(&mut self, at: usize, input: &[u8], now: Instant) -> (Vec<u8>, Value) {
        let Came { out, session, end } = if at == CLIENT {
            let script = &self.script["client"];
            self.client.take(script, input, now, &mut self.kept.client)
        } else {
            let script = &self.script["server"];
            self.server.take(script, input, now, &mut self.kept.server)
        };
        let mut said = end.unwrap_or_else(|| json!({}));
        if let Some((connection, sid)) = session {
            self.connections[at] = Some(connection);
            said["session"] = hex(&sid).into();
        }
        (out, said)
    }

    fn records(&mut self, at: usize) -> &mut Records {
        match &mut self.connections[at] {
            Some(Connection::Open(records)) => records,
            Some(Connection::Waiting(_)) | None => panic!("{}: not open", self.place),
        }
    }

    /// An end says something.
    fn say(&mut self, at: usize, what: &[Value], now: Instant) -> Vec<u8> {
        if text(&what[0]) == "hello" {
            return self.client.hello();
        }
        let (unacted, blame) = (self.unacted[at], self.blame[at]);
        let records = self.records(at);
        let with = |header: [u8; 32], body: &[u8]| [header.as_slice(), body].concat();
        let said = match text(&what[0]) {
            "ping" => records.ping(array(&what[1])).map(|record| record.to_vec()),
            "pong" => records.pong(array(&what[1])).map(|record| record.to_vec()),
            "rekey" => records.sending.rekey(now).map(|record| record.to_vec()),
            "control" => {
                let value = bodies::control_body(at == CLIENT, text(&what[1]), &what[2]);
                let header = records.sending.control(value.as_bytes());
                header.map(|header| with(header, value.as_bytes()))
            }
            "frames" => {
                let body = bodies::frames_body(&what[1]);
                let len = u32::try_from(body.len()).expect("short");
                let digest = wardline_core::native::digest(&body);
                records.sending.frames(len, &digest).map(|header| with(header, &body))
            }
            "close" => {
                let field = |nth| what.get(nth).map_or(0, number);
                let code = u16::try_from(field(1)).ok().and_then(Code::from_wire).expect("a code");
                let detail = u16::try_from(field(2)).expect("16 bits");
                let retry_ms = u32::try_from(field(3)).expect("32 bits");
                let owed = blame.unwrap_or((code, detail));
                assert_eq!((code, detail), owed, "{}: what it says of a fault", self.place);
                records.close(code, detail, retry_ms, unacted).map(|record| record.to_vec())
            }
            other => panic!("{other}"),
        };
        said.unwrap_or_else(|code| panic!("{}: {code:?}", self.place))
    }

    /// Records come, byte by byte. A fault must be the last byte's.
    fn take(&mut self, at: usize, input: &[u8], now: Instant) -> Value {
        let (mut takes, mut from) = (Vec::new(), 0);
        for end in 1..=input.len() {
            match self.next(at, &input[from..end], now) {
                Ok(None) => {}
                Ok(Some((taken, len))) => {
                    assert_eq!(len, end - from, "{}: a record's length", self.place);
                    from = end;
                    takes.push(taken);
                }
                Err(code) => {
                    assert_eq!(end, input.len(), "{}: {code:?} so early", self.place);
                    if let Some(Connection::Open(records)) = &self.connections[at] {
                        self.blame[at] = Some(records.receiving.blame(code));
                    }
                    return json!({"takes": takes, "end": code.wire()});
                }
            }
        }
        assert_eq!(from, input.len(), "{}: half a record", self.place);
        json!({ "takes": takes })
    }

    /// What is there at an end, if it is a whole record.
    fn next(
        &mut self,
        at: usize,
        bytes: &[u8],
        now: Instant,
    ) -> Result<Option<(Value, usize)>, Code> {
        let next = match self.connections[at].as_mut().expect("a connection") {
            Connection::Open(records) => records.next(now, bytes)?,
            Connection::Waiting(parked) => {
                let waiting = parked.unpark().expect("it was parked");
                match waiting.record(now, bytes)? {
                    FirstRecord::More(waiting, _) => {
                        *parked = waiting.park();
                        return Ok(None);
                    }
                    FirstRecord::Proved(session, next) => {
                        self.connections[at] = Some(Connection::Open(session.records()));
                        next
                    }
                }
            }
        };
        let Next::Record(record, len) = next else { return Ok(None) };
        let taken = match record {
            Record::Ping(ping) => json!(["ping", hex(&ping)]),
            Record::Pong => json!(["pong"]),
            Record::Close(close) => {
                json!(["close", [close.code, close.detail, close.retry_ms, close.taken]])
            }
            Record::Rekeyed => json!(["rekey"]),
            Record::Control(body) => {
                let value = bodies::control(at == SERVER, body);
                let (name, fields) = value.inspect_err(|_| self.unacted[at] = 1)?;
                json!(["control", name, fields])
            }
            Record::Frames(frames) => json!(["frames", bodies::frames_json(frames)]),
            Record::Dropped => json!(["dropped"]),
        };
        Ok(Some((taken, len)))
    }
}
