//! The lines that the load sends, and the check of those that come back.
//!
//! A payload is printable ASCII that needs no escape in JSON, always `size` bytes:
//!
//! ```text
//! 0     1          5               21               37                 size
//! | kind | publisher | sequence      | sent at, ns    | filler           |
//!   m, s   4 hex       16 hex          16 hex           abcd...
//! ```
//!
//! Kind `m` is counted, `s` only finds out whether everybody is there. What stands around a payload
//! is the [`wire`](crate::wire)'s; a line here is all of it, whether or not it ends with `\n`. All
//! lines of one publisher have one length, so a receiver that is only counted is checked by steps:
//! newlines are counted, and the last line is compared whole. Lost, repeated or foreign lines
//! cannot keep both right; single damaged bytes are found where every line is compared.

use std::fmt;
use std::net::SocketAddr;

use memchr::memchr_iter;

use crate::wire::Format;

/// The shortest payload: the fields, and some filler to see damage in.
pub const PAYLOAD_MIN: usize = 48;
/// The most publishers that the four digits can number.
pub const PUBLISHERS_MAX: usize = 0xffff;
/// In place of the next sequence for a receiver that is the publisher: its own lines are a fault.
pub const OWN: u64 = u64::MAX;

const PUBLISHER: std::ops::Range<usize> = 1..5;
const SEQUENCE: std::ops::Range<usize> = 5..21;
const STAMP: std::ops::Range<usize> = 21..37;
/// How much of a line that is not understood is shown.
const SHOWN_BYTES_MAX: usize = 300;

/// How thoroughly received lines are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Lengths, newlines, and the last line whole.
    Counted,
    /// Every byte of every line; and only so the times at which lines were sent are seen.
    Whole,
}

/// Why received bytes are not what they must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineFault {
    /// A line of the load's, but not the next one of its publisher: lost, repeated or reordered.
    Order {
        /// Whose line.
        publisher: usize,
        /// The sequence that had to come.
        expected: u64,
        /// The sequence that came.
        found: u64,
    },
    /// A publisher was sent its own line.
    Own {
        /// Whose line.
        publisher: usize,
    },
    /// Not a line of the load's at all, or a damaged one.
    Foreign {
        /// The beginning of it.
        text: String,
    },
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order { publisher, expected, found } => {
                let what = if found > expected { "lost" } else { "repeated" };
                write!(f, "lines {what}: publisher {publisher}'s {found} came, not {expected}")
            }
            Self::Own { publisher } => write!(f, "publisher {publisher} was sent its own line"),
            Self::Foreign { text } => write!(f, "a line that nobody sent: {text:?}"),
        }
    }
}

impl std::error::Error for LineFault {}

/// What a walk over received bytes found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walked {
    /// Bytes of whole lines; what is behind them is the beginning of one.
    pub bytes: usize,
    /// Whole lines.
    pub lines: u64,
    /// Questions of the server in between; each wants the wire's answer.
    pub questions: u64,
}

/// The payloads of one publisher.
#[derive(Debug, Clone)]
pub struct Stencil {
    line: Vec<u8>,
    head_len: usize,
}

impl Stencil {
    /// Payloads of `size` bytes from one publisher, as it has to send them to a topic.
    ///
    /// # Panics
    ///
    /// When `size` is below [`PAYLOAD_MIN`] or the publisher above [`PUBLISHERS_MAX`].
    pub fn new(format: Format, topic: &str, publisher: usize, size: usize) -> Self {
        assert!(size >= PAYLOAD_MIN && publisher <= PUBLISHERS_MAX);
        let around = format.sent(topic, size);
        let line = [&around.head[..], &payload(publisher, size), &around.tail].concat();
        Self { line, head_len: around.head.len() }
    }

    /// Appends a counted line.
    #[inline]
    pub fn write(&mut self, out: &mut Vec<u8>, sequence: u64, stamp: &[u8; 16]) {
        let payload = &mut self.line[self.head_len..];
        payload[SEQUENCE].copy_from_slice(&hex(sequence));
        payload[STAMP].copy_from_slice(stamp);
        out.extend_from_slice(&self.line);
    }

    /// Appends a line that only asks whether everybody is there.
    pub fn write_sync(&mut self, out: &mut Vec<u8>, round: u64) {
        let begin = out.len();
        self.write(out, round, &hex(0));
        out[begin + self.head_len] = b's';
    }
}

fn payload(publisher: usize, size: usize) -> Vec<u8> {
    let mut payload: Vec<u8> = (b'a'..=b'z').cycle().take(size).collect();
    payload[0] = b'm';
    payload[PUBLISHER].copy_from_slice(&hex(publisher as u64)[12..]);
    payload
}

/// What received lines must look like, for all publishers.
#[derive(Debug, Clone)]
pub struct Lines {
    head_len: usize,
    /// What the server may ask between two lines; empty where it asks nothing.
    question: &'static [u8],
    /// Newlines within a line: of an only publisher's the same in all.
    newlines: usize,
    /// A whole line of each publisher, into which the next sequence is written for comparing.
    expected: Vec<Vec<u8>>,
    line_len_max: usize,
    /// What one walk counts of each publisher; kept for its memory only.
    hops: Vec<Hop>,
}

/// The lines of one publisher in what was received.
#[derive(Debug, Clone, Copy, Default)]
struct Hop {
    lines: u64,
    last_at: usize,
}

impl Lines {
    /// The lines of publishers that send to `topic` from these addresses, with payloads of `size`
    /// bytes.
    pub fn new(format: Format, topic: &str, publishers: &[SocketAddr], size: usize) -> Self {
        let (mut expected, mut head_len) = (Vec::new(), 0);
        for (publisher, &from) in publishers.iter().enumerate() {
            let around = format.heard(topic, size, from);
            head_len = around.head.len();
            expected.push([&around.head[..], &payload(publisher, size), &around.tail].concat());
        }
        let line_len_max = expected.iter().map(Vec::len).max().unwrap_or(0);
        // Neither a payload nor an address has one, so all publishers' lines have as many.
        let newlines = expected.first().map_or(0, |line| memchr_iter(b'\n', line).count());
        let question = format.question().0;
        Self { head_len, question, newlines, expected, line_len_max, hops: Vec::new() }
    }

    /// The longest line that can come, with its newline.
    pub fn line_len_max(&self) -> usize {
        self.line_len_max
    }

    /// Checks the whole lines at the beginning of `chunk` and advances `next`, the sequence that
    /// must come next of each publisher. At [`Depth::Whole`], `sent` is called with the time of
    /// sending and the number of lines for each run of lines that were sent together.
    pub fn walk(
        &mut self,
        chunk: &[u8],
        next: &mut [u64],
        depth: Depth,
        sent: impl FnMut(u64, u64),
    ) -> Result<Walked, LineFault> {
        match depth {
            Depth::Whole => self.walk_whole(chunk, next, sent),
            Depth::Counted => {
                let one = self.expected.len() == 1;
                let walked = if one { self.stride(chunk, next) } else { self.hop(chunk, next) };
                // Where there is none, something is wrong or was asked, and this says what.
                let Some(counted) = walked else {
                    return self.walk_whole(chunk, next, |_, _| {});
                };
                let rest = &chunk[counted.bytes..];
                if !self.may_ask(rest) {
                    return Ok(counted);
                }
                let more = self.walk_whole(rest, next, |_, _| {})?;
                Ok(Walked {
                    bytes: counted.bytes + more.bytes,
                    lines: counted.lines + more.lines,
                    questions: more.questions,
                })
            }
        }
    }

    /// Counts the lines of an only publisher. `None` changed nothing.
    fn stride(&mut self, chunk: &[u8], next: &mut [u64]) -> Option<Walked> {
        let line_len = self.expected[0].len();
        let lines = chunk.len() / line_len;
        if lines == 0 {
            return Some(Walked::default());
        }
        let bytes = lines * line_len;
        let newlines = memchr_iter(b'\n', &chunk[..bytes]).count();
        let last = next[0].checked_add(lines as u64 - 1)?;
        if newlines != lines * self.newlines
            || !self.is_expected(&chunk[bytes - line_len..bytes], 0, last)
        {
            return None;
        }
        next[0] = last + 1;
        Some(Walked { bytes, lines: lines as u64, questions: 0 })
    }

    /// Counts the lines of many publishers, from one line's beginning to the next one's.
    /// `None` changed nothing.
    fn hop(&mut self, chunk: &[u8], next: &mut [u64]) -> Option<Walked> {
        let mut hops = std::mem::take(&mut self.hops);
        hops.clear();
        hops.resize(self.expected.len(), Hop::default());
        let mut walked = Walked::default();
        while let Some(publisher) = self.publisher(&chunk[walked.bytes..]) {
            let end = walked.bytes + self.expected[publisher].len();
            if end > chunk.len() {
                break;
            }
            let hop = &mut hops[publisher];
            (hop.lines, hop.last_at) = (hop.lines + 1, walked.bytes);
            walked.bytes = end;
            walked.lines += 1;
        }
        let newlines = memchr_iter(b'\n', &chunk[..walked.bytes]).count();
        let mut good = newlines as u64 == walked.lines * self.newlines as u64
            && self.check_beginning(&chunk[walked.bytes..]).is_ok();
        for (publisher, hop) in hops.iter().enumerate().filter(|(_, hop)| hop.lines > 0) {
            let line = &chunk[hop.last_at..hop.last_at + self.expected[publisher].len()];
            let last = next[publisher].checked_add(hop.lines - 1);
            good &= last.is_some_and(|last| self.is_expected(line, publisher, last));
        }
        if good {
            next.iter_mut().zip(&hops).for_each(|(next, hop)| *next += hop.lines);
        }
        self.hops = hops;
        good.then_some(walked)
    }

    fn walk_whole(
        &mut self,
        chunk: &[u8],
        next: &mut [u64],
        mut sent: impl FnMut(u64, u64),
    ) -> Result<Walked, LineFault> {
        let mut walked = Walked::default();
        let (mut run_stamp, mut run_lines) = ([0; 16], 0);
        let stamp_at = self.head_len + STAMP.start;
        loop {
            let rest = &chunk[walked.bytes..];
            if self.asks(rest) {
                walked.bytes += self.question.len();
                walked.questions += 1;
                continue;
            }
            let Some(publisher) = self.publisher(rest) else {
                self.check_beginning(rest)?;
                break;
            };
            let Some(line) = rest.get(..self.expected[publisher].len()) else { break };
            if !self.is_expected(line, publisher, next[publisher]) {
                return Err(self.fault(rest, publisher, next[publisher]));
            }
            next[publisher] += 1;
            walked.bytes += line.len();
            walked.lines += 1;
            let stamp = &line[stamp_at..stamp_at + 16];
            if stamp != run_stamp {
                report(&run_stamp, run_lines, &mut sent);
                run_stamp.copy_from_slice(stamp);
                run_lines = 0;
            }
            run_lines += 1;
        }
        report(&run_stamp, run_lines, &mut sent);
        Ok(walked)
    }

    /// Reads lines that ask whether everybody is there: `rounds` gets each publisher's last one.
    pub fn walk_sync(&self, chunk: &[u8], rounds: &mut [u64]) -> Result<Walked, LineFault> {
        let mut walked = Walked::default();
        loop {
            let rest = &chunk[walked.bytes..];
            if self.asks(rest) {
                walked.bytes += self.question.len();
                walked.questions += 1;
                continue;
            }
            let Some(publisher) = self.publisher(rest) else {
                self.check_beginning(rest)?;
                return Ok(walked);
            };
            let expected = &self.expected[publisher];
            let Some(line) = rest.get(..expected.len()) else { return Ok(walked) };
            let payload = &line[self.head_len..];
            let foreign = || LineFault::Foreign { text: shown(line) };
            let round = unhex(&payload[SEQUENCE]).ok_or_else(foreign)?;
            let fields = self.head_len..self.head_len + STAMP.end;
            let same = line[..fields.start] == expected[..fields.start]
                && line[fields.end..] == expected[fields.end..];
            if !same || payload[0] != b's' || round <= rounds[publisher] {
                return Err(foreign());
            }
            rounds[publisher] = round;
            walked.bytes += line.len();
            walked.lines += 1;
        }
    }

    /// Whether a line is this publisher's with this sequence, whenever it was sent.
    #[inline]
    fn is_expected(&mut self, line: &[u8], publisher: usize, sequence: u64) -> bool {
        let expected = &mut self.expected[publisher];
        let head_len = self.head_len;
        expected[head_len + SEQUENCE.start..head_len + SEQUENCE.end]
            .copy_from_slice(&hex(sequence));
        line.len() == expected.len()
            && line[..head_len + STAMP.start] == expected[..head_len + STAMP.start]
            && line[head_len + STAMP.end..] == expected[head_len + STAMP.end..]
    }

    /// Whether a whole question begins here.
    fn asks(&self, rest: &[u8]) -> bool {
        !self.question.is_empty() && rest.starts_with(self.question)
    }

    /// Whether a question begins here, as far as one can see. No line begins like one: that is
    /// between `PING` and `MSG`.
    fn may_ask(&self, rest: &[u8]) -> bool {
        let len = self.question.len().min(rest.len());
        len > 0 && self.question[..len] == rest[..len]
    }

    /// Who sent the line that begins here, once that much of it is there and it is one of ours.
    #[inline]
    fn publisher(&self, rest: &[u8]) -> Option<usize> {
        let digits = rest.get(self.head_len + PUBLISHER.start..self.head_len + PUBLISHER.end)?;
        let publisher = unhex(digits)? as usize;
        (publisher < self.expected.len()).then_some(publisher)
    }

    /// An incomplete line must begin like one of ours.
    fn check_beginning(&self, rest: &[u8]) -> Result<(), LineFault> {
        if self.publisher(rest).is_some() {
            return Ok(());
        }
        let known = self.head_len.min(rest.len());
        if self.may_ask(rest) && rest.len() < self.question.len() {
            return Ok(());
        }
        let short = rest.len() < self.head_len + PUBLISHER.end;
        if short && self.expected.iter().any(|line| line[..known] == rest[..known]) {
            return Ok(());
        }
        Err(LineFault::Foreign { text: shown(rest) })
    }

    /// What is wrong with a line that is not the expected one.
    fn fault(&mut self, rest: &[u8], publisher: usize, expected: u64) -> LineFault {
        let line = &rest[..self.expected[publisher].len()];
        let digits = &line[self.head_len + SEQUENCE.start..self.head_len + SEQUENCE.end];
        match unhex(digits) {
            Some(found) if self.is_expected(line, publisher, found) => match expected {
                OWN => LineFault::Own { publisher },
                _ => LineFault::Order { publisher, expected, found },
            },
            _ => LineFault::Foreign { text: shown(rest) },
        }
    }
}

fn report(stamp: &[u8; 16], lines: u64, sent: &mut impl FnMut(u64, u64)) {
    if let Some(stamp_ns) = unhex(stamp)
        && lines > 0
    {
        sent(stamp_ns, lines);
    }
}

/// The beginning of what is not understood, for people.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES_MAX)]).into_owned()
}

/// Sixteen lower-case hexadecimal digits.
#[inline]
pub fn hex(value: u64) -> [u8; 16] {
    const PAIRS: [[u8; 2]; 256] = {
        let digits = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        pair.copy_from_slice(&PAIRS[byte as usize]);
    }
    digits
}

/// The value of at most sixteen lower-case hexadecimal digits.
#[inline]
fn unhex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
