//! Clients: who writes what, and who reads how.

use std::io::Write;

use wardline_core::Limits;

use crate::rng::Rng;

/// What a client writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines of all lengths, some to the limit.
    Talker,
    /// Many short lines at once.
    Flood,
    /// Hardly anything.
    Listener,
    /// Text that JSON escapes.
    Escapes,
    /// Bytes that are not UTF-8.
    Garbage,
    /// Lines over the limit, some just so.
    LongLines,
    /// One line without an end.
    Endless,
    /// HTTP.
    Http,
    /// Lines that it does not finish.
    HalfLine,
}

impl Kind {
    /// Each of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Talker,
        Self::Flood,
        Self::Listener,
        Self::Escapes,
        Self::Garbage,
        Self::LongLines,
        Self::Endless,
        Self::Http,
        Self::HalfLine,
    ];
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// All there is.
    All,
    /// Some of it.
    Some,
    /// One byte at a time.
    OneByte,
    /// Never.
    Never,
}

impl Reading {
    /// Each of them.
    pub(crate) const ALL: [Self; 4] = [Self::All, Self::Some, Self::OneByte, Self::Never];
}

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// What it writes.
    pub(crate) kind: Kind,
    /// How it reads.
    pub(crate) reading: Reading,
    tag: String,
    lines: u64,
}

impl Client {
    /// One; all that it says carries `tag`.
    #[must_use]
    pub(crate) const fn new(kind: Kind, reading: Reading, tag: String) -> Self {
        Self { kind, reading, tag, lines: 0 }
    }

    /// Writes something to `wire`.
    pub(crate) fn write(&mut self, rng: &mut Rng<'_>, limits: &Limits, wire: &mut Vec<u8>) {
        match self.kind {
            Kind::Talker => self.talk(rng, limits, wire),
            Kind::Flood => {
                for _ in 0..1 + rng.up_to(60) {
                    self.begin(wire);
                    self.end(rng, wire);
                }
            }
            Kind::Listener => {
                if rng.one_in(8) {
                    self.talk(rng, limits, wire);
                }
            }
            Kind::Escapes => self.escapes(rng, wire),
            Kind::Garbage => {
                if rng.one_in(3) {
                    self.begin(wire);
                    for _ in 0..rng.up_to(9) {
                        let byte = rng.below(256) as u8;
                        wire.push(if byte == b'\n' { 0xFF } else { byte });
                    }
                    self.end(rng, wire);
                } else {
                    self.talk(rng, limits, wire);
                }
            }
            Kind::LongLines => {
                if rng.one_in(2) {
                    let over = rng.pick(&[0, 1, 2, 3, 100, 3_000]);
                    self.fill(limits.line.line_bytes_max as usize + over, wire);
                    self.end(rng, wire);
                } else {
                    self.talk(rng, limits, wire);
                }
            }
            Kind::Endless => self.fill(1 + rng.up_to(2_000), wire),
            Kind::Http => {
                let method = rng.pick(&["GET / HTTP/1.1\r\n", "POST /x?y HTTP/1.0\r\nHost: a\r\n"]);
                wire.extend_from_slice(method.as_bytes());
            }
            Kind::HalfLine => {
                self.talk(rng, limits, wire);
                wire.extend_from_slice(self.tag.as_bytes());
                if rng.one_in(3) {
                    self.kind = Kind::Listener;
                }
            }
        }
    }

    fn escapes(&mut self, rng: &mut Rng<'_>, wire: &mut Vec<u8>) {
        self.begin(wire);
        for _ in 0..rng.up_to(30) {
            let piece = rng.pick(&[
                "\"",
                "\\",
                "\u{1}",
                "\t",
                "\r",
                "\u{8}",
                "\u{c}",
                "\u{0}",
                "\u{7f}",
                "é",
                "\u{2028}",
                "😀",
                "x",
                "\u{1f}",
                "{\"a\":1}",
            ]);
            wire.extend_from_slice(piece.as_bytes());
        }
        self.end(rng, wire);
    }

    fn talk(&mut self, rng: &mut Rng<'_>, limits: &Limits, wire: &mut Vec<u8>) {
        for _ in 0..1 + rng.up_to(3) {
            let most = limits.line.line_bytes_max as usize;
            let envelope = limits.line.envelope_bytes_max as usize;
            match rng.below(8) {
                0 => {}
                1 => self.fill(most, wire),
                2 => self.fill(rng.up_to(most), wire),
                3 => self.fill(envelope.saturating_sub(35 + rng.up_to(25)).min(most), wire),
                _ => {
                    self.begin(wire);
                    wire.resize(wire.len() + rng.up_to(20), b'x');
                }
            }
            self.end(rng, wire);
        }
    }

    fn begin(&mut self, wire: &mut Vec<u8>) {
        self.lines += 1;
        // Writing to a vector cannot fail.
        let _ = write!(wire, "{}#{} ", self.tag, self.lines);
    }

    fn fill(&mut self, len: usize, wire: &mut Vec<u8>) {
        let from = wire.len();
        self.begin(wire);
        wire.resize(from + len, b'y');
    }

    #[allow(clippy::unused_self, reason = "reads as the others do")]
    fn end(&self, rng: &mut Rng<'_>, wire: &mut Vec<u8>) {
        wire.extend_from_slice(if rng.one_in(6) { b"\r\n" } else { b"\n" });
    }
}
