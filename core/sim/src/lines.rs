//! The splitting of lines, for a fuzzer: one client says something, in receives of any length, and
//! another one reads. What it reads depends on what was said and not on how it was cut.

use std::net::SocketAddr;

use wardline_core::native::handshake::MAGIC;
use wardline_core::{
    Carrier, ConnId, Event, Gather, Handover, Instant, Limits, LineLimits, Pool, Relay, Remote,
    Started, pump,
};

use crate::lent::{Lent, Sizes};
use crate::view::is_http;

const ALERT_BYTES: usize = 24;
const SENDER: &str = "192.0.2.1:4711";
const READER: &str = "[2001:db8::1]:4712";

/// Small, so that a fuzzer reaches every limit; no rate, since time stands still.
const LIMITS: Limits = Limits {
    connections: 2,
    topics: 1,
    block_bytes: 128,
    blocks: 64,
    segment_bytes: 512,
    segments: 8,
    quiet_log_bytes: 512,
    topic_turn_bytes: 1 << 10,
    share_bytes: 64,
    receive_bytes: 512,
    backlog_bytes: 256,
    line: LineLimits {
        line_bytes_max: 100,
        envelope_bytes_max: 400,
        messages_per_minute: 0,
        ..Limits::DEFAULT.line
    },
    ..Limits::DEFAULT
};

/// Takes `bytes` as lengths of receives (the first byte says how many, up to 15) and, after them,
/// what a client says. Says it whole, cut that way, and byte by byte.
///
/// # Panics
/// Where the other client does not read what a naive reading of the dialect says.
pub fn run_lines(bytes: &[u8]) {
    let (count, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let (cuts, said) = rest.split_at(usize::from(count % 16).min(rest.len()));
    let expected = naive(said);
    for cuts in [cuts, &[u8::MAX, u8::MAX], &[1]] {
        let heard = relayed(said, cuts);
        assert_eq!(heard, expected, "cut as {cuts:?}");
    }
}

/// What comes of what was said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    /// The lines that the other one reads.
    lines: Vec<String>,
    /// How many were too long, themselves or in their envelope.
    too_long: u64,
    /// Whether the sender was closed for what it said.
    faulty: bool,
}

/// The dialect, read naively: all at once.
fn naive(said: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut lines: Vec<&[u8]> = said.split(|byte| *byte == b'\n').collect();
    // What follows the last newline is a line only if there is something of it.
    lines.pop_if(|last| last.is_empty());
    for (nth, line) in lines.into_iter().enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > LIMITS.line.line_bytes_max as usize {
            // Of a first one only the beginning is seen: a method is enough.
            if nth == 0 && is_http(&[line, b" HTTP/"].concat()) {
                heard.faulty = true;
                return heard;
            }
            heard.too_long += 1;
            continue;
        }
        let text = match std::str::from_utf8(line) {
            Ok(text) if nth > 0 || !is_http(line) => text,
            Ok(_) | Err(_) => {
                heard.faulty = true;
                return heard;
            }
        };
        let content = serde_json::Value::from(text);
        let envelope = format!("{{\"content\":{content},\"remote_addr\":\"{SENDER}\"}}\n");
        if envelope.len() > LIMITS.line.envelope_bytes_max as usize {
            heard.too_long += 1;
        } else {
            heard.lines.push(envelope);
        }
    }
    heard
}

/// The same by the relay, in receives of the lengths that `cuts` go round in.
fn relayed(said: &[u8], cuts: &[u8]) -> Heard {
    let mut lent = Lent::with(&LIMITS, &SIZES);
    let (slots, _, pool) = lent.slots();
    let now = Instant::from_nanos(1);
    let mut relay = Relay::new(LIMITS, slots, pool, [1; 32], now).expect("limits that fit");
    let topic = relay.listen("main").expect("a topic");
    let mut connect = |addr: &str| {
        let addr: SocketAddr = addr.parse().expect("an address");
        relay.handle_accept(now, Remote { addr, topic }).expect("a place")
    };
    let (sender, reader) = (connect(SENDER), connect(READER));
    let mut wires = Wires::new(sender, reader);
    let mut gather = Gather::new();
    let mut rest = said;
    let mut cuts = cuts.iter().map(|cut| usize::from(*cut).max(1)).cycle();
    let mut cut = cuts.next().unwrap_or(usize::MAX);
    // A byte needs a turn or two; what does not end has gone wrong.
    for _ in 0..1_000 + 4 * said.len() {
        let _ = pump(&mut relay, &mut wires, &mut gather, now);
        relay.check();
        if wires.ended {
            break;
        }
        let budget = relay.read_budget(sender).min(cut).min(rest.len());
        if budget > 0 {
            relay.handle_input(now, sender, &rest[..budget]);
            rest = &rest[budget..];
            cut = cuts.next().unwrap_or(usize::MAX);
        } else if rest.is_empty() || wires.finished {
            relay.handle_eof(now, sender);
        }
    }
    assert!(wires.ended, "the sender finished and is not let go");
    wires.heard(relay.stats())
}

/// What the two clients read, and how it ends.
#[derive(Debug)]
struct Wires {
    sender: ConnId,
    reader: ConnId,
    told: Vec<u8>,
    read: Vec<u8>,
    finished: bool,
    ended: bool,
}

impl Wires {
    const fn new(sender: ConnId, reader: ConnId) -> Self {
        Self { sender, reader, told: Vec::new(), read: Vec::new(), finished: false, ended: false }
    }

    fn heard(self, stats: &wardline_core::Stats) -> Heard {
        // Who begins like a native client is answered like one.
        let alert = if self.told.starts_with(&MAGIC) { ALERT_BYTES } else { 0 };
        let told = String::from_utf8(self.told[alert..].to_vec()).expect("warnings are ASCII");
        assert!(told.is_empty() || told.ends_with('\n'), "half a warning");
        assert!(told.lines().all(|line| line.starts_with("Warning: ")), "told {told:?}");
        let read = String::from_utf8(self.read).expect("envelopes are UTF-8");
        assert!(read.is_empty() || read.ends_with('\n'), "half a line");
        let faulty = stats.bad_utf8.value() + stats.wrong_dialect.value();
        Heard {
            lines: read.split_inclusive('\n').map(str::to_owned).collect(),
            too_long: stats.line_too_long.value() + stats.envelope_too_long.value(),
            faulty: faulty > 0,
        }
    }
}

impl<P: Pool> Carrier<P> for Wires {
    fn is_full(&mut self, _conn: ConnId) -> bool {
        false
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        let wire = if conn == self.reader { &mut self.read } else { &mut self.told };
        for range in gather.ranges() {
            wire.extend_from_slice(pool.read(*range));
        }
        Started::Done(gather.bytes())
    }

    fn cancel_send(&mut self, _conn: ConnId) {
        panic!("no send is ever under way");
    }

    fn pause(&mut self, _conn: ConnId) {}

    fn resume(&mut self, _conn: ConnId) {}

    fn probe(&mut self, _conn: ConnId) -> Option<u32> {
        Some(0)
    }

    fn finish(&mut self, conn: ConnId) {
        assert_eq!(conn, self.sender, "the reader did nothing");
        self.finished = true;
    }

    fn close(&mut self, conn: ConnId) -> bool {
        assert_eq!(conn, self.sender, "the reader did nothing");
        self.ended = true;
        true
    }

    fn hand_over(&mut self, _: ConnId, _: Handover) -> bool {
        unreachable!("there is one shard")
    }

    fn event(&mut self, _event: Event, _remote: Option<SocketAddr>) {}
}

/// The memory of a relay for two.
const SIZES: Sizes =
    Sizes { shards: 1, shapes: 1, more_cursors: 0, bans: 8, wheel: 8, events: 8, exempt: false };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line() {
        let long = "x".repeat(101);
        let escaped = "\u{1}".repeat(80);
        for said in [
            "",
            "a",
            "a\n",
            "a\r\nb\n\r\n\n c",
            "\r",
            &format!("{long}\nok\n"),
            &format!("{long}\r\nok"),
            &format!("{}\r\n{}", &long[1..], &long[1..]),
            &format!("{escaped}\nok\n"),
            &"many\n".repeat(300),
            &format!("ok\n{}", long.repeat(9)),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &format!("GET /{long}"),
            &format!("ok\nGET /{long}\nok\n"),
            "ok\nGET / HTTP/1.1\r\n",
            "é\u{1F600}\n\"\\\t\u{7f}\n",
        ] {
            for cuts in [&[0][..], &[3, 1, 2, 5], &[1, 100]] {
                run_lines(&[cuts, said.as_bytes()].concat());
            }
        }
        // What another dialect begins with is no line, on a relay that speaks none but this too.
        run_lines(b"\x01\x01\xF5WDLok\nnever\n");
        run_lines(b"\x00\xF5");
        run_lines(b"\x01\x05fine\nnot \xFF fine\nnever\n");
        assert_eq!(naive(b"a\n\xFF\nb\n").lines.len(), 1);
        assert!(naive(b"a\n\xFF\nb\n").faulty);
    }

    /// A client that is closed and has ended its own stream already is not waited for.
    #[test]
    fn an_end_that_comes_with_a_fault() {
        let mut lent = Lent::with(&LIMITS, &SIZES);
        let (slots, _, pool) = lent.slots();
        let now = Instant::from_nanos(1);
        let mut relay = Relay::new(LIMITS, slots, pool, [1; 32], now).expect("limits that fit");
        let topic = relay.listen("main").expect("a topic");
        let addr = SENDER.parse().expect("an address");
        let sender = relay.handle_accept(now, Remote { addr, topic }).expect("a place");
        relay.handle_input(now, sender, b"\xFF\n");
        relay.handle_eof(now, sender);
        let mut wires = Wires::new(sender, sender);
        for _ in 0..4 {
            let _ = pump(&mut relay, &mut wires, &mut Gather::new(), now);
            relay.check();
        }
        assert!(wires.read.starts_with(b"Warning: "), "its farewell");
        assert!(wires.ended, "and no time had to pass");
    }
}
