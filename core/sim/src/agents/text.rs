//! Clients of lines on the same topics.

use serde_json::Value;

use super::net::Owner;
use super::side::Side;
use super::states::State;
use super::truth::msg_of;

/// A client of lines, which may have had several connections.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) conn: Option<usize>,
    pub(crate) name: usize,
    pub(crate) shard: usize,
    pub(crate) inbuf: Vec<u8>,
    /// What it read: messages, and None where it was told of a gap or came anew.
    pub(crate) read: Vec<Option<usize>>,
    pub(crate) began: bool,
    /// The connection on which it is to hear the last words, and how much it had read before.
    pub(crate) listens: Option<(usize, usize)>,
}

impl Reader {
    pub(crate) fn new(name: usize, shard: usize) -> Self {
        Self {
            conn: None,
            name,
            shard,
            inbuf: Vec::new(),
            read: Vec::new(),
            began: false,
            listens: None,
        }
    }
}

impl Side<'_> {
    /// A line client says something. Gives the message.
    pub(crate) fn text_says(&mut self, text: usize) -> Option<usize> {
        let index = self.texts[text].conn?;
        if !self.conns[index].is_up() || self.conns[index].up.len() > 4_000 {
            return None;
        }
        let header =
            wardline_core::native::FrameHeader::new(wardline_core::native::FrameKind::Publish);
        let len = self.rng.up_to(60);
        let byte = match self.rng.below(20) {
            _ if self.calm => b'x',
            // What is escaped.
            0 => self.rng.pick(b"\"\\\t\x01\x0c\x1f"),
            _ => b'a' + self.rng.below(26) as u8,
        };
        let rest = vec![byte; len];
        let name = self.texts[text].name;
        let msg = self.truth.say(Owner::Text(text), header, Some(name), &rest);
        let mut line = self.truth.msgs[msg].payload.clone();
        line.push(b'\n');
        self.conns[index].up.extend(line);
        self.texts[text].began = true;
        Some(msg)
    }

    /// A line client looks at what has come.
    pub(crate) fn text_reads(&mut self, text: usize, index: usize, most: usize) {
        let conn = &mut self.conns[index];
        let len = most.min(conn.down.len());
        let bytes: Vec<u8> = conn.down.drain(..len).collect();
        if self.texts[text].conn != Some(index) {
            return;
        }
        self.texts[text].inbuf.extend(bytes);
        while let Some(end) = self.texts[text].inbuf.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.texts[text].inbuf.drain(..=end).collect();
            if line.starts_with(b"Warning: ") {
                self.texts[text].read.push(None);
                continue;
            }
            self.text_read(text, index, &line);
        }
    }

    fn text_read(&mut self, text: usize, index: usize, line: &[u8]) {
        let value: Value = serde_json::from_slice(line).expect("an envelope");
        let content = value["content"].as_str().expect("content");
        let addr = value["remote_addr"].as_str().expect("an address").to_owned();
        let payload = match content.strip_prefix("base64:") {
            Some(digits) => {
                self.states.hit(State::Base64);
                decode(digits)
            }
            None => content.as_bytes().to_vec(),
        };
        let from = self.conns.iter().position(|conn| conn.addr.to_string() == addr);
        let from = from.expect("a sender that never was");
        let owner = self.conns[from].owner;
        if let Owner::Agent(agent) = owner
            && self.agents[agent].wild
        {
            return;
        }
        if owner == Owner::Noise {
            return;
        }
        let msg = msg_of(&payload).expect("a line that nobody said");
        let name = self.texts[text].name;
        let said = &mut self.truth.msgs[msg];
        assert_eq!(said.payload, payload, "message {msg} is another");
        assert_eq!(said.name, Some(name), "message {msg} in another topic");
        assert!(said.lines.insert(text), "message {msg} was read twice");
        assert_eq!(said.owner, owner, "message {msg} is forged");
        assert!(!said.forbidden, "message {msg} may not be said");
        self.texts[text].read.push(Some(msg));
        let shard = self.texts[text].shard;
        match owner {
            Owner::Agent(_) => {
                let far = shard != 0;
                self.states.hit(if far { State::FrameAsFarLine } else { State::FrameAsLine });
                self.is_taken(msg);
            }
            // What it said over a connection of before may have taken a while to another shard.
            Owner::Text(of) if of == text => {
                assert!(shard != 0 && from != index, "its own line");
                self.states.hit(State::OwnOfBefore);
            }
            Owner::Text(of) => {
                if self.texts[of].shard != shard {
                    self.states.hit(State::LineAsFarLine);
                }
            }
            Owner::Noise => {}
        }
    }

    /// What line clients read is what native clients read, in the same order.
    pub(crate) fn check_texts(&self) {
        for reader in &self.texts {
            let mut last: Option<(usize, u64, u64)> = None;
            for read in &reader.read {
                let Some(place) = read.map(|msg| self.truth.msgs[msg].place) else {
                    last = None;
                    continue;
                };
                let Some(place) = place else { continue };
                if let Some(last) = last.filter(|last| last.1 == place.1) {
                    assert!(place.2 > last.2, "lines in another order");
                    self.check_between(reader, last, place);
                }
                last = Some(place);
            }
        }
    }

    /// Messages between two that a line client read were its own, or are not known.
    fn check_between(&self, reader: &Reader, from: (usize, u64, u64), to: (usize, u64, u64)) {
        let Some(log) = self.truth.logs.get(&(from.0, from.1)) else { return };
        let text = self.texts.iter().position(|other| std::ptr::eq(other, reader));
        for (number, placed) in log.range(from.2 + 1..to.2) {
            let Some(msg) = placed.msg else { continue };
            let own = text.is_some_and(|text| self.truth.msgs[msg].owner == Owner::Text(text));
            assert!(own, "line client {text:?} was not sent {number}, message {msg}");
        }
    }
}

fn decode(digits: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("no digit of base64"),
    };
    let mut bytes = Vec::new();
    for group in digits.as_bytes().chunks(4) {
        assert_eq!(group.len(), 4, "half a group");
        let len = group.iter().filter(|digit| **digit != b'=').count();
        let digits = &group[..len];
        let bits = digits.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(value(*digit)));
        let bits = bits << (6 * (4 - len));
        bytes.extend(bits.to_be_bytes()[1..len].iter());
    }
    bytes
}
