//! What was said, and what became of it: the naive model.

use std::collections::{BTreeMap, BTreeSet};

use wardline_core::native::{Class, Frame, FrameHeader, FrameKind, digest, flags};

use super::net::Owner;
use super::side::Side;
use super::states::State;

/// One time that a message was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tx {
    pub(crate) conn: usize,
    pub(crate) nth: usize,
    pub(crate) step: u64,
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Msg {
    pub(crate) owner: Owner,
    pub(crate) header: FrameHeader,
    /// The topic's place among the names.
    pub(crate) name: Option<usize>,
    pub(crate) payload: Vec<u8>,
    /// It is one that the relay refuses whoever sends it.
    pub(crate) forbidden: bool,
    /// It is known that it was taken.
    pub(crate) taken: bool,
    pub(crate) txs: Vec<Tx>,
    /// How often it was refused, before it was taken or after.
    pub(crate) nacks: usize,
    /// Topic, life of the topic, number.
    pub(crate) place: Option<(usize, u64, u64)>,
    /// As which number it came to its receiver.
    pub(crate) direct: Option<u64>,
    /// Clients of lines that read it.
    pub(crate) lines: BTreeSet<usize>,
}

/// A frame of a topic, as everybody has to see it.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) digest: [u8; 32],
    pub(crate) msg: Option<usize>,
}

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    pub(crate) msgs: Vec<Msg>,
    /// By topic, and life of the topic.
    pub(crate) logs: BTreeMap<(usize, u64), BTreeMap<u64, Placed>>,
    /// The numbers of topics, by topic and life.
    pub(crate) numbers: BTreeMap<(usize, u64), u32>,
    /// Whose a handle is; and a line client's.
    pub(crate) handles: BTreeMap<u64, usize>,
    pub(crate) line_handles: BTreeMap<u64, usize>,
    /// Holes that were taken for a connection's own: topic, life, number, connection.
    pub(crate) own: Vec<(usize, u64, u64, usize)>,
    /// Credit that was given: from, to, corr, bytes.
    pub(crate) credits: BTreeSet<(u64, u64, u64, u32)>,
    /// Lives of a topic that were seen.
    pub(crate) lives: BTreeMap<usize, BTreeSet<u64>>,
}

/// The message that a payload belongs to.
pub(crate) fn msg_of(payload: &[u8]) -> Option<usize> {
    let rest = payload.strip_prefix(b"m")?;
    let end = rest.iter().position(|byte| *byte == b';')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

impl Truth {
    /// A new message; `rest` follows its number in the payload.
    pub(crate) fn say(
        &mut self,
        owner: Owner,
        header: FrameHeader,
        name: Option<usize>,
        rest: &[u8],
    ) -> usize {
        let nth = self.msgs.len();
        let mut payload = format!("m{nth};").into_bytes();
        payload.extend_from_slice(rest);
        self.msgs.push(Msg {
            owner,
            header,
            name,
            payload,
            forbidden: false,
            taken: false,
            txs: Vec::new(),
            nacks: 0,
            place: None,
            direct: None,
            lines: BTreeSet::new(),
        });
        nth
    }

    /// The header that readers are to see.
    fn expected(&self, msg: usize, frame: &FrameHeader) -> FrameHeader {
        let said = &self.msgs[msg].header;
        FrameHeader {
            flags: said.flags & !flags::VERDICT,
            topic: frame.topic,
            peer: frame.peer,
            offset: frame.offset,
            ..*said
        }
    }
}

impl Side<'_> {
    /// A frame came out of a topic: it is what everybody else saw there, and it is who says so.
    pub(crate) fn placed(&mut self, key: (usize, u64), frame: &Frame<'_>) -> Option<usize> {
        let offset = frame.header.offset;
        let digest = digest(frame.bytes);
        if let Some(known) = self.truth.logs.entry(key).or_default().get(&offset) {
            assert_eq!(known.digest, digest, "two messages of one number: {key:?} {offset}");
            return known.msg;
        }
        let msg = self.who_said(frame);
        if let Some(msg) = msg {
            let said = &mut self.truth.msgs[msg];
            assert_eq!(said.name, Some(key.0), "message {msg} in a topic that it was not said in");
            let place = (key.0, key.1, offset);
            let known = *said.place.get_or_insert(place);
            assert_eq!(known, place, "message {msg} was taken twice {:?}", said);
        }
        let placed = Placed { digest, msg };
        self.truth.logs.entry(key).or_default().insert(offset, placed);
        msg
    }

    /// The message that a frame is. None: it is somebody's who says anything.
    fn who_said(&mut self, frame: &Frame<'_>) -> Option<usize> {
        let header = &frame.header;
        let truth = &mut self.truth;
        if header.has(flags::LINE) {
            let Some(msg) = msg_of(frame.payload) else {
                // Noise at a door of both dialects may be lines, too.
                let noise = self.conns.iter().any(|conn| conn.owner == Owner::Noise);
                assert!(noise, "a line that nobody said");
                return None;
            };
            let Owner::Text(text) = truth.msgs[msg].owner else {
                panic!("message {msg} is of no line client")
            };
            let known = *truth.line_handles.entry(header.peer).or_insert(text);
            assert_eq!(known, text, "a line client of another handle");
            assert!(!truth.handles.contains_key(&header.peer), "a handle of two dialects");
            assert_eq!(truth.msgs[msg].payload, frame.payload, "message {msg} is another");
            assert_eq!((header.mid, header.class), (0, Class::Normal));
            truth.msgs[msg].taken = true;
            let shard = self.texts[text].shard;
            assert_eq!(header.peer >> 56, shard as u64, "a handle of another shard");
            let far = shard != 0;
            self.states.hit(if far { State::FarLineAsFrame } else { State::LineAsFrame });
            return Some(msg);
        }
        let agent = *truth.handles.get(&header.peer).expect("a handle that nobody has");
        if self.agents[agent].wild {
            return None;
        }
        let msg = msg_of(frame.payload).expect("a payload that nobody sent");
        let said = truth.msgs.get(msg).expect("a message that nobody sent");
        assert_eq!(said.owner, Owner::Agent(agent), "message {msg} is forged");
        assert_eq!(said.payload, frame.payload, "message {msg} is another");
        assert_eq!(truth.expected(msg, header), *header, "message {msg} is another");
        assert!(!said.forbidden, "message {msg} may not be said");
        self.is_taken(msg);
        Some(msg)
    }

    /// It is known now that a message was taken.
    pub(crate) fn is_taken(&mut self, msg: usize) {
        let said = &mut self.truth.msgs[msg];
        if std::mem::replace(&mut said.taken, true) {
            return;
        }
        let Owner::Agent(agent) = said.owner else { return };
        let identity = self.agents[agent].identity;
        let right = match said.header.kind {
            FrameKind::Publish => wardline_core::Right::Publish,
            FrameKind::Direct | FrameKind::Request | FrameKind::Reply | FrameKind::Stream => {
                wardline_core::Right::Request
            }
        };
        let first = said.txs.iter().map(|tx| tx.step).min().expect("a message that was not sent");
        let denied = self.rights.denied_since(&identity, right, first);
        assert!(!denied, "message {msg} was taken of somebody who may not say it");
    }
}
