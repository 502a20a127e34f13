//! What the naive model knows of one connection: the bytes that it said, the queue of what it is
//! owed, and which warnings are due.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use wardline_core::{Limits, NotRelayed, PeerFault, Reason};

use crate::bucket::Guess;

const RATE: &str = "Warning: You are sending messages too quickly. Please slow down.\n";
const IDLE: &str = "Warning: You have been disconnected due to inactivity.\n";
const SHUTDOWN: &str = "Warning: Server is shutting down.\n";
const SLOW: &str = "Warning: You were disconnected because you read too slowly.\n";

/// A message on its way to a reader.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its number in the topic.
    pub(crate) number: u64,
    /// Where it ends, in bytes of the topic.
    pub(crate) end: u64,
    /// The envelope.
    pub(crate) bytes: Rc<[u8]>,
}

/// A connection that is ending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    /// Why.
    pub(crate) reason: Reason,
    /// Since when.
    pub(crate) at_ns: u64,
    /// The step after which that was decided.
    pub(crate) step: u64,
    /// It is owed the messages before this one; `None`: nothing any more.
    pub(crate) owed: Option<u64>,
}

/// Where the stream to a reader was cut by a send that did not take all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Between two lines.
    Boundary,
    /// Inside a message.
    Message,
    /// Inside a message that was begun by an earlier send.
    Begun,
    /// Inside the connection's own bytes.
    Control,
}

/// The model of a connection.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Its peer.
    pub(crate) addr: SocketAddr,
    /// Its topic.
    pub(crate) topic: usize,
    /// How many messages the relay had taken when it came.
    pub(crate) joined: u64,
    /// The same for when it was gone.
    pub(crate) left: Option<u64>,
    input: VecDeque<u8>,
    skips: bool,
    spoke: bool,
    /// Its rate.
    pub(crate) rate: Guess,
    /// What it is owed, in order.
    pub(crate) queue: VecDeque<Entry>,
    front_done: usize,
    begun_in: u64,
    text: Vec<u8>,
    /// The last message that it had any of.
    pub(crate) last_number: Option<u64>,
    /// Where that ends in its topic.
    pub(crate) last_end: u64,
    /// Gaps that it is yet to be told.
    pub(crate) gaps: VecDeque<(u64, u64)>,
    due_rate: u64,
    due_line: u64,
    due_envelope: u64,
    /// Warnings that it was sent.
    pub(crate) warned: u64,
    /// Lines of it that were refused.
    pub(crate) refused: u64,
    /// Whether it is ending.
    pub(crate) leaving: Option<Leaving>,
    /// Whether it was sent its last words.
    pub(crate) farewell: bool,
    /// Since when a line of it is unfinished.
    pub(crate) unfinished_ns: u64,
    /// Since when its queue is not empty.
    pub(crate) queued_ns: u64,
    /// When it was last told a verdict.
    pub(crate) verdict_ns: u64,
    /// Bytes of it that were heard, at all.
    pub(crate) heard_bytes: u64,
    /// What it was owed could not be kept for it.
    pub(crate) excused: bool,
}

impl View {
    /// One that came just now.
    #[must_use]
    pub(crate) fn new(addr: SocketAddr, topic: usize, joined: u64, rate: Guess, head: u64) -> Self {
        Self {
            addr,
            topic,
            joined,
            left: None,
            input: VecDeque::new(),
            skips: false,
            spoke: false,
            rate,
            queue: VecDeque::new(),
            front_done: 0,
            begun_in: 0,
            text: Vec::new(),
            last_number: None,
            last_end: head,
            gaps: VecDeque::new(),
            due_rate: 0,
            due_line: 0,
            due_envelope: 0,
            warned: 0,
            refused: 0,
            leaving: None,
            farewell: false,
            unfinished_ns: 0,
            queued_ns: 0,
            verdict_ns: 0,
            heard_bytes: 0,
            excused: false,
        }
    }

    /// Whether it is a member of its topic at the `nth` message that the relay took.
    #[must_use]
    pub(crate) fn is_there(&self, nth: u64) -> bool {
        self.joined <= nth && self.left.is_none_or(|left| nth < left)
    }

    /// It said something.
    pub(crate) fn hears(&mut self, bytes: &[u8], now_ns: u64) {
        self.heard_bytes += bytes.len() as u64;
        let mut bytes = bytes;
        if self.skips {
            match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => bytes = &bytes[at + 1..],
                None => return,
            }
            self.skips = false;
        }
        let whole = self.input.back().is_none_or(|last| *last == b'\n');
        if bytes.contains(&b'\n') || (whole && !bytes.is_empty()) {
            self.unfinished_ns = now_ns;
        }
        self.input.extend(bytes);
    }

    /// It finished writing: a last line counts without its ending.
    pub(crate) fn finishes(&mut self) {
        if self.input.back().is_some_and(|last| *last != b'\n') {
            self.input.push_back(b'\n');
        }
    }

    /// Whether everything that it said has had its verdict, but for an unfinished line.
    #[must_use]
    pub(crate) fn is_heard(&self) -> bool {
        !self.input.contains(&b'\n')
    }

    /// Whether it is in the middle of a line.
    #[must_use]
    pub(crate) fn is_unfinished(&self) -> bool {
        self.skips || self.input.back().is_some_and(|last| *last != b'\n')
    }

    /// Bytes not yet judged.
    #[must_use]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.input.len()
    }

    /// The next line that it said, without its ending. `None`: it is not whole yet.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        let mut line: Vec<u8> = self.input.drain(..=end).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }

    /// The relay judged its next line: `Ok` is relayed. Gives the envelope in that case.
    pub(crate) fn judged(
        &mut self,
        limits: &Limits,
        verdict: Result<(), NotRelayed>,
        now_ns: u64,
    ) -> Option<Vec<u8>> {
        assert!(self.leaving.is_none(), "a line of a connection that had left: {verdict:?}");
        self.verdict_ns = now_ns;
        let most = limits.line.line_bytes_max as usize;
        let first = !std::mem::replace(&mut self.spoke, true);
        if verdict.is_err() {
            self.refused += 1;
        }
        let Some(line) = self.next_line() else {
            assert!(!self.skips, "a verdict on a line that is being skipped: {verdict:?}");
            let hopeless = self.input.len() > most + 1
                || (self.input.len() > most && self.input.back() != Some(&b'\r'));
            let begin: Vec<u8> = self.input.iter().copied().collect();
            let due = self.naive(limits, &begin, first).map(|_| ());
            assert_eq!((verdict, hopeless), (due, true), "no whole line was said");
            self.input.clear();
            self.skips = true;
            self.due_line += 1;
            return None;
        };
        let expected = self.naive(limits, &line, first);
        match (verdict, expected) {
            (Ok(()), Ok(envelope)) => {
                assert!(self.rate.taken(now_ns), "a message over the rate was taken");
                return Some(envelope);
            }
            (Err(NotRelayed::Rate), Ok(_)) => {
                assert!(self.rate.denied(now_ns), "a message within the rate was denied");
                self.due_rate += 1;
            }
            (Err(said), Err(expected)) if said == expected => match said {
                NotRelayed::LineTooLong => self.due_line += 1,
                NotRelayed::EnvelopeTooLong => self.due_envelope += 1,
                NotRelayed::Rate | NotRelayed::BadUtf8 | NotRelayed::WrongDialect => {}
            },
            (said, expected) => panic!(
                "the verdict on {:?} is {said:?}, and should be {expected:?}",
                String::from_utf8_lossy(&line)
            ),
        }
        None
    }

    fn naive(&self, limits: &Limits, line: &[u8], first: bool) -> Result<Vec<u8>, NotRelayed> {
        if line.len() > limits.line.line_bytes_max as usize {
            // Of a line that is not kept, its beginning must do.
            let long = first && is_http(&[line, b" HTTP/"].concat());
            let verdict = if long { NotRelayed::WrongDialect } else { NotRelayed::LineTooLong };
            return Err(verdict);
        }
        if first && is_http(line) {
            return Err(NotRelayed::WrongDialect);
        }
        let Ok(text) = std::str::from_utf8(line) else { return Err(NotRelayed::BadUtf8) };
        let content = serde_json::Value::from(text);
        let sender = SocketAddr::new(self.addr.ip().to_canonical(), self.addr.port());
        let envelope = format!("{{\"content\":{content},\"remote_addr\":\"{sender}\"}}\n");
        if envelope.len() > limits.line.envelope_bytes_max as usize {
            return Err(NotRelayed::EnvelopeTooLong);
        }
        Ok(envelope.into_bytes())
    }

    /// A message for it.
    pub(crate) fn push(&mut self, entry: Entry, now_ns: u64) {
        if self.queue.is_empty() {
            self.queued_ns = now_ns;
        }
        self.queue.push_back(entry);
    }

    /// It is told that messages are gone.
    pub(crate) fn gapped(&mut self, from: u64, to: u64) {
        let had = self.last_number.map_or(0, |last| last + 1);
        assert!(from >= had, "a gap from {from} on, though it has had all before {had}");
        let last = self.queue.back().map_or(0, |entry| entry.number);
        assert!(last < to, "a gap to {to}, and message {last} is before its end");
        self.queue.retain(|entry| entry.number < from);
        self.gaps.push_back((from, to));
    }

    /// Whether what it was sent ends with a line.
    #[must_use]
    pub(crate) fn is_whole(&self) -> bool {
        self.front_done == 0 && self.text.is_empty()
    }

    /// The warning that it was sent a part of.
    #[must_use]
    pub(crate) fn text_begun(&self) -> String {
        show(&self.text)
    }

    /// Where what it was sent ends, after its send number `nth`.
    #[must_use]
    pub(crate) fn stands_at(&self, nth: u64) -> At {
        if !self.text.is_empty() {
            At::Control
        } else if self.front_done == 0 {
            At::Boundary
        } else if self.begun_in < nth {
            At::Begun
        } else {
            At::Message
        }
    }

    /// The socket took `bytes` of its send number `nth`.
    pub(crate) fn receives(&mut self, mut bytes: &[u8], nth: u64) {
        while let Some(first) = bytes.first() {
            assert!(!self.farewell, "bytes after the last words: {:?}", show(bytes));
            if self.front_done == 0 && (*first == b'W' || !self.text.is_empty()) {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let len = end.map_or(bytes.len(), |end| end + 1);
                self.text.extend_from_slice(&bytes[..len]);
                bytes = &bytes[len..];
                if end.is_some() {
                    let text = std::mem::take(&mut self.text);
                    self.warning(&text);
                }
                continue;
            }
            let Some(front) = self.queue.front() else {
                panic!("bytes that nobody sent: {:?}", show(bytes));
            };
            let due = &front.bytes[self.front_done..];
            let len = due.len().min(bytes.len());
            assert!(
                due[..len] == bytes[..len],
                "message {}: {:?} is due, {:?} was sent",
                front.number,
                show(due),
                show(bytes)
            );
            if self.front_done == 0 {
                self.begun_in = nth;
            }
            self.last_number = Some(front.number);
            self.front_done += len;
            if self.front_done == front.bytes.len() {
                self.last_end = front.end;
                self.front_done = 0;
                self.queue.pop_front();
            }
            bytes = &bytes[len..];
        }
    }

    fn warning(&mut self, text: &[u8]) {
        let text = std::str::from_utf8(text).expect("a warning is UTF-8");
        self.warned += 1;
        if text == RATE {
            self.due_rate = self.due_rate.checked_sub(1).expect("a rate warning without a denial");
            return;
        }
        if text.contains(" over the limit of ") {
            let due =
                if text.contains("envelope") { &mut self.due_envelope } else { &mut self.due_line };
            *due = due.checked_sub(1).expect("a warning about a length that was not refused");
            return;
        }
        if text.starts_with("Warning: You read too slowly. Messages ") {
            // One warning for a hole, however often it grew before it could be told.
            let (from, mut to) = self.gaps.pop_front().expect("a gap that was not reported");
            while !text.contains(&format!(" {from} to {} of ", to - 1)) {
                let (next, further) = self.gaps.pop_front().expect("a gap that names too much");
                // Between the two may stand only what is its own.
                assert!(next >= to, "{text:?} names what was not dropped");
                to = further;
            }
            let before = self.queue.front().is_some_and(|entry| entry.number < to);
            assert!(!before, "messages before the gap were not sent");
            return;
        }
        let reason = self.leaving.map(|leaving| leaving.reason);
        let due = match text {
            IDLE => reason == Some(Reason::Fault(PeerFault::Idle)),
            SHUTDOWN => reason == Some(Reason::Shutdown),
            SLOW => {
                reason == Some(Reason::Fault(PeerFault::SlowReader))
                    || reason == Some(Reason::Fault(PeerFault::Evicted))
            }
            _ => match reason {
                Some(Reason::Fault(
                    PeerFault::BadUtf8
                    | PeerFault::WrongDialect
                    | PeerFault::Unfinished
                    | PeerFault::Overloaded,
                )) => text.starts_with("Warning: "),
                Some(_) | None => false,
            },
        };
        assert!(due, "{text:?} is not due: {reason:?}");
        self.farewell = true;
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned()
}

/// Whether a line is the first one of an HTTP request, told naively.
pub(crate) fn is_http(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let Some((method, rest)) = line.split_once(' ') else { return false };
    let proper = method.chars().all(|letter| letter.is_ascii_uppercase());
    proper && (3..=16).contains(&method.len()) && format!(" {rest}").contains(" HTTP/")
}
