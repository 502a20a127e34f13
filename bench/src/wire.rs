//! The wires of the servers: what stands around a payload, how one joins, what one must answer.
//!
//! Whatever the wire, a payload is the bytes that [`line`](mod@crate::line) makes, and what stands
//! before and behind it depends only on topic, size and sender: so all messages of one publisher
//! have one length, and are checked in one way.
//!
//! | wire | joins by | sends | is sent |
//! |---|---|---|---|
//! | native, direct | the handshake; Subscribe, Open or a handle | a frame | a frame |
//! | plain, envelope | connecting | a line | a line, bare or in JSON |
//! | nats | INFO, CONNECT, SUB, PING, PONG | PUB | MSG, and PING that wants PONG |
//! | resp | SUBSCRIBE, or CLIENT REPLY OFF to send | PUBLISH | message |
//! | mqtt 3.1.1 | CONNECT, CONNACK, SUBSCRIBE, SUBACK | PUBLISH qos 0 | PUBLISH qos 0 |

use std::net::SocketAddr;

use memchr::memmem;
use serde::Serialize;

use crate::line::LineFault;

/// How a server's messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The payload line itself.
    Plain,
    /// The line dialect's JSON envelope.
    Envelope,
    /// The NATS client protocol.
    Nats,
    /// Redis's protocol, version 2.
    Resp,
    /// MQTT 3.1.1, quality of service 0.
    Mqtt,
    /// Wardline's native dialect, on topics.
    Native,
    /// The same, from one peer to another.
    Direct,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It hears the topic.
    Reader,
    /// It sends; where [`Format::publishers_listen`], it hears the others too.
    Publisher,
}

/// The bytes before and behind a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// Before.
    pub head: Vec<u8>,
    /// Behind.
    pub tail: Vec<u8>,
}

const MQTT_CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00";
const MQTT_CONNACK: &[u8] = b"\x20\x02\x00\x00";
/// To the packet number 1, quality of service 0 granted.
const MQTT_SUBACK: &[u8] = b"\x90\x03\x00\x01\x00";
/// The longest INFO that is waited for: 2.9 sends about 400 bytes.
const INFO_BYTES_MAX: usize = 64 * 1024;

impl Format {
    /// Whether publishers hear each other on the connection by which they send. A client of the
    /// other wires would be sent its own messages as well, or may not send on a connection that
    /// listens: there somebody else listens in each publisher's place.
    pub fn publishers_listen(self) -> bool {
        matches!(self, Self::Plain | Self::Envelope)
    }

    /// Whether its messages are sealed in records.
    pub fn is_native(self) -> bool {
        matches!(self, Self::Native | Self::Direct)
    }

    /// Whether a message names its topic; otherwise each topic has its own address.
    pub fn names_topics(self) -> bool {
        !self.publishers_listen()
    }

    /// What a publisher writes around a payload of `size` bytes.
    pub fn sent(self, topic: &str, size: usize) -> Around {
        match self {
            Self::Plain | Self::Envelope | Self::Native | Self::Direct => {
                around(String::new(), "\n")
            }
            Self::Nats => around(format!("PUB {topic} {size}\r\n"), "\r\n"),
            Self::Resp => {
                let topic_len = topic.len();
                let head = format!("*3\r\n$7\r\nPUBLISH\r\n${topic_len}\r\n{topic}\r\n${size}\r\n");
                around(head, "\r\n")
            }
            Self::Mqtt => Around { head: mqtt_publish(topic, size), tail: Vec::new() },
        }
    }

    /// What a reader is sent around a payload of `size` bytes that came from the address `from`.
    pub fn heard(self, topic: &str, size: usize, from: SocketAddr) -> Around {
        match self {
            Self::Plain | Self::Native | Self::Direct => around(String::new(), "\n"),
            Self::Envelope => {
                let tail = format!("\",\"remote_addr\":\"{from}\"}}\n");
                around("{\"content\":\"".to_owned(), &tail)
            }
            Self::Nats => around(format!("MSG {topic} 1 {size}\r\n"), "\r\n"),
            Self::Resp => {
                let topic_len = topic.len();
                let head = format!("*3\r\n$7\r\nmessage\r\n${topic_len}\r\n{topic}\r\n${size}\r\n");
                around(head, "\r\n")
            }
            Self::Mqtt => Around { head: mqtt_publish(topic, size), tail: Vec::new() },
        }
    }

    /// What a server may ask in between, and what it is answered; empty where nothing is asked.
    pub fn question(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::Nats => (b"PING\r\n", b"PONG\r\n"),
            Self::Plain
            | Self::Envelope
            | Self::Resp
            | Self::Mqtt
            | Self::Native
            | Self::Direct => (b"", b""),
        }
    }

    /// What a new connection says first.
    pub fn greeting(self, role: Role, topic: &str) -> Vec<u8> {
        match (self, role) {
            // A native client's hands are shaken before: crate::native.
            (Self::Plain | Self::Envelope | Self::Native | Self::Direct, _) => Vec::new(),
            (Self::Nats, Role::Reader) => format!("{NATS_CONNECT}SUB {topic} 1\r\nPING\r\n").into(),
            (Self::Nats, Role::Publisher) => format!("{NATS_CONNECT}PING\r\n").into(),
            (Self::Resp, Role::Reader) => {
                format!("*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{topic}\r\n", topic.len()).into()
            }
            // Nobody counts what each PUBLISH would be answered, so nobody pays for it.
            (Self::Resp, Role::Publisher) => {
                b"*1\r\n$4\r\nPING\r\n*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n".to_vec()
            }
            (Self::Mqtt, Role::Reader) => [MQTT_CONNECT, &mqtt_subscribe(topic)].concat(),
            (Self::Mqtt, Role::Publisher) => MQTT_CONNECT.to_vec(),
        }
    }

    /// How many of the bytes that came since the greeting are the server's answer to it, once all
    /// of it is there.
    ///
    /// # Errors
    /// The server answered something else.
    pub fn greeted(
        self,
        role: Role,
        topic: &str,
        bytes: &[u8],
    ) -> Result<Option<usize>, LineFault> {
        match (self, role) {
            (Self::Plain | Self::Envelope | Self::Native | Self::Direct, _) => Ok(Some(0)),
            (Self::Nats, _) => nats_greeted(bytes),
            (Self::Resp, Role::Reader) => {
                let (len, head) = (topic.len(), "*3\r\n$9\r\nsubscribe\r\n");
                exactly(bytes, format!("{head}${len}\r\n{topic}\r\n:1\r\n").as_bytes())
            }
            (Self::Resp, Role::Publisher) => exactly(bytes, b"+PONG\r\n"),
            (Self::Mqtt, Role::Reader) => exactly(bytes, &[MQTT_CONNACK, MQTT_SUBACK].concat()),
            (Self::Mqtt, Role::Publisher) => exactly(bytes, MQTT_CONNACK),
        }
    }
}

const NATS_CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"load\",\"version\":\"1\"}\r\n";

fn around(head: String, tail: &str) -> Around {
    Around { head: head.into_bytes(), tail: tail.as_bytes().to_vec() }
}

/// `INFO {...}`, then perhaps questions, then the answer to the greeting's own.
fn nats_greeted(bytes: &[u8]) -> Result<Option<usize>, LineFault> {
    let (mut at, mut informed) = (0, false);
    loop {
        let rest = &bytes[at..];
        let Some(end) = memmem::find(rest, b"\r\n") else {
            let known = [&b"INFO "[..], b"PING", b"PONG"].iter().any(|word| {
                let len = word.len().min(rest.len());
                word[..len] == rest[..len]
            });
            return if known && rest.len() < INFO_BYTES_MAX { Ok(None) } else { foreign(rest) };
        };
        match &rest[..end] {
            line if line.starts_with(b"INFO ") => informed = true,
            b"PING" => {}
            b"PONG" if informed => return Ok(Some(at + end + 2)),
            _ => return foreign(rest),
        }
        at += end + 2;
    }
}

/// The whole of `wanted`, and nothing else before it.
fn exactly(bytes: &[u8], wanted: &[u8]) -> Result<Option<usize>, LineFault> {
    let len = wanted.len().min(bytes.len());
    if bytes[..len] != wanted[..len] {
        return foreign(bytes);
    }
    Ok((len == wanted.len()).then_some(len))
}

fn foreign<T>(bytes: &[u8]) -> Result<T, LineFault> {
    Err(LineFault::Foreign { text: crate::line::shown(bytes) })
}

/// The packet up to its payload: kind, length, topic.
fn mqtt_publish(topic: &str, size: usize) -> Vec<u8> {
    let mut packet = vec![0x30];
    mqtt_len(&mut packet, 2 + topic.len() + size);
    mqtt_text(&mut packet, topic);
    packet
}

fn mqtt_subscribe(topic: &str) -> Vec<u8> {
    let mut packet = vec![0x82];
    mqtt_len(&mut packet, 2 + 2 + topic.len() + 1);
    packet.extend_from_slice(&[0, 1]);
    mqtt_text(&mut packet, topic);
    packet.push(0);
    packet
}

/// Seven bits a byte, the low ones first, the eighth where more follow.
fn mqtt_len(packet: &mut Vec<u8>, len: usize) {
    assert!(len < 1 << 28, "a packet of {len} bytes");
    let mut left = len;
    while left >= 0x80 {
        packet.push(left as u8 & 0x7f | 0x80);
        left >>= 7;
    }
    packet.push(left as u8);
}

fn mqtt_text(packet: &mut Vec<u8>, text: &str) {
    packet.extend_from_slice(&(text.len() as u16).to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"INFO {\"server_id\":\"NA\",\"max_payload\":1048576} \r\n";

    /// What each wire answers to a greeting, and something that it would not.
    fn answers() -> Vec<(Format, Role, Vec<u8>, Vec<u8>)> {
        let nats = [INFO, b"PING\r\nPONG\r\n"].concat();
        let nats_err = [INFO, b"-ERR 'Authorization Violation'\r\n"].concat();
        let subscribed = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nmain\r\n:1\r\n".to_vec();
        let redis_err = b"-NOAUTH Authentication required.\r\n".to_vec();
        vec![
            (Format::Nats, Role::Reader, nats.clone(), nats_err.clone()),
            (Format::Nats, Role::Publisher, nats, nats_err),
            (Format::Resp, Role::Reader, subscribed, redis_err.clone()),
            (Format::Resp, Role::Publisher, b"+PONG\r\n".to_vec(), redis_err),
            (
                Format::Mqtt,
                Role::Reader,
                b"\x20\x02\0\0\x90\x03\0\x01\0".to_vec(),
                b"\x20\x02\0\0\x90\x03\0\x01\x80".to_vec(),
            ),
            (Format::Mqtt, Role::Publisher, b"\x20\x02\0\0".to_vec(), b"\x20\x02\0\x05".to_vec()),
        ]
    }

    #[test]
    fn an_answer_is_taken_whole_wherever_it_is_cut() {
        for (format, role, answer, _) in answers() {
            for cut in 0..answer.len() {
                let taken = format.greeted(role, "main", &answer[..cut]);
                assert_eq!(taken, Ok(None), "{format:?} {role:?} cut at {cut}");
            }
            let followed = [&answer[..], b"PING\r\nwhatever follows"].concat();
            assert_eq!(format.greeted(role, "main", &followed), Ok(Some(answer.len())));
        }
    }

    #[test]
    fn another_answer_is_a_fault_and_never_a_wait() {
        for (format, role, _, wrong) in answers() {
            assert!(format.greeted(role, "main", &wrong).is_err(), "{format:?} {role:?}");
        }
        assert!(Format::Nats.greeted(Role::Reader, "main", b"HTTP/1.1 400").is_err());
        assert!(Format::Nats.greeted(Role::Reader, "main", b"PONG\r\n").is_err(), "no INFO");
        let endless = [b"INFO ".to_vec(), vec![b' '; INFO_BYTES_MAX]].concat();
        assert!(Format::Nats.greeted(Role::Reader, "main", &endless).is_err());
    }

    #[test]
    fn messages_are_what_the_protocols_say() {
        let from = SocketAddr::from(([127, 0, 0, 1], 9));
        let whole = |around: Around| [&around.head[..], b"<5 5>", &around.tail].concat();
        let sent = |format: Format| whole(format.sent("main", 5));
        let heard = |format: Format| whole(format.heard("main", 5, from));
        assert_eq!(sent(Format::Nats), b"PUB main 5\r\n<5 5>\r\n");
        assert_eq!(heard(Format::Nats), b"MSG main 1 5\r\n<5 5>\r\n");
        assert_eq!(sent(Format::Resp), b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nmain\r\n$5\r\n<5 5>\r\n");
        assert_eq!(heard(Format::Resp), b"*3\r\n$7\r\nmessage\r\n$4\r\nmain\r\n$5\r\n<5 5>\r\n");
        assert_eq!(sent(Format::Mqtt), b"\x30\x0b\0\x04main<5 5>");
        assert_eq!(heard(Format::Mqtt), sent(Format::Mqtt));
        assert_eq!(
            heard(Format::Envelope),
            b"{\"content\":\"<5 5>\",\"remote_addr\":\"127.0.0.1:9\"}\n"
        );
    }

    #[test]
    fn mqtt_lengths_take_one_to_four_bytes() {
        for (len, bytes) in [
            (127, &[0x7f][..]),
            (128, &[0x80, 0x01]),
            (16_383, &[0xff, 0x7f]),
            (16_384, &[0x80, 0x80, 0x01]),
            (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        ] {
            let mut packet = Vec::new();
            mqtt_len(&mut packet, len);
            assert_eq!(packet, bytes, "{len}");
        }
        assert_eq!(mqtt_subscribe("ab"), b"\x82\x07\0\x01\0\x02ab\0");
    }
}
