//! What a native client is sent: messages of topics in order without unannounced holes, and what
//! peers send.

use std::collections::BTreeMap;

use wardline_core::native::{FRAME_HEADER_BYTES, Frame, FrameKind, GapReason, Start, flags};

use super::agent::Want;
use super::link::Link;
use super::net::Owner;
use super::side::Side;
use super::states::State;
use super::truth::msg_of;

/// A topic that a connection has open.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub(crate) name: usize,
    pub(crate) reads: bool,
    pub(crate) epoch: u64,
    pub(crate) echo: bool,
    pub(crate) presence: bool,
    /// The next number that may come.
    pub(crate) pos: u64,
    /// The number from which its own is left out.
    pub(crate) from: u64,
    /// A gap that must come first: from, to, why.
    pub(crate) expected: Option<(u64, u64, GapReason)>,
    /// It was told that it lagged, since the last words were said.
    pub(crate) lagged: bool,
    /// When it was given up.
    pub(crate) given_up: Option<u64>,
    /// When it was asked for.
    pub(crate) asked: u64,
    /// When that was answered.
    pub(crate) told: u64,
    /// Who came and went.
    pub(crate) present: BTreeMap<u64, bool>,
}

impl Sub {
    /// Of a topic that is open and not read.
    pub(crate) fn open(name: usize) -> Self {
        Self {
            name,
            reads: false,
            epoch: 0,
            echo: false,
            presence: false,
            pos: 0,
            from: 0,
            expected: None,
            lagged: false,
            given_up: None,
            asked: 0,
            told: 0,
            present: BTreeMap::new(),
        }
    }

    /// What follows from the answer to a Subscribe.
    pub(crate) fn read(&mut self, from: Start, epoch: u64, next: u64, oldest: u64) {
        assert!(oldest <= next, "the oldest is not there yet");
        self.reads = true;
        self.epoch = epoch;
        self.from = next;
        self.given_up = None;
        self.present.clear();
        self.expected = None;
        let mut gap = |from: u64, why| {
            self.expected = (from < oldest).then_some((from, oldest, why));
            oldest
        };
        self.pos = match from {
            Start::Now => next,
            Start::Last(many) => next.saturating_sub(many.into()).max(oldest),
            Start::Offset { epoch: of, .. } if of != epoch => gap(0, GapReason::Epoch),
            Start::Offset { offset, .. } if offset < oldest => gap(offset, GapReason::Retention),
            Start::Offset { offset, .. } => offset.min(next),
        };
        if let Some((from, ..)) = self.expected {
            self.pos = from;
        }
    }
}

impl Side<'_> {
    pub(crate) fn frame(&mut self, index: usize, link: &mut Link, frame: &Frame<'_>) {
        self.observe(frame.header.offset ^ frame.header.mid << 8);
        if frame.header.kind == FrameKind::Publish {
            self.message(index, link, frame);
        } else {
            self.direct(index, link, frame);
        }
    }

    fn message(&mut self, index: usize, link: &mut Link, frame: &Frame<'_>) {
        let offset = frame.header.offset;
        let sub = link.subs.get_mut(&frame.header.topic).expect("a frame of a topic not open");
        assert!(sub.reads, "a frame of a topic that is not read");
        assert!(sub.expected.is_none(), "a gap was not told");
        assert!(offset >= sub.pos, "{} again at {}", offset, sub.pos);
        let bridges = self.rights.bridges(&self.agents[link.agent].identity);
        let bridged = frame.header.has(flags::BRIDGED);
        assert!(!bridges || !bridged, "a bridge was handed what came over one");
        let sub = self.hole(index, sub, offset, bridges);
        let (key, echo, from) = ((sub.name, sub.epoch), sub.echo, sub.from);
        sub.pos = offset + 1;
        let presence = sub.presence;
        let msg = self.placed(key, frame);
        if let Some(msg) = msg {
            let txs = &self.truth.msgs[msg].txs;
            let own = !txs.is_empty() && txs.iter().all(|tx| tx.conn == index) && offset >= from;
            assert!(echo || !own, "message {msg} is its own");
            if own {
                self.states.hit(State::Echo);
            }
        }
        let agent = &mut self.agents[link.agent];
        if !frame.header.has(flags::LINE) && !agent.peers.contains(&frame.header.peer) {
            agent.peers.push(frame.header.peer);
        }
        if agent.wants.contains_key(&key.0) {
            let at = Some((key.1, offset + 1));
            agent.wants.insert(key.0, Want { echo, presence, at });
        }
    }

    /// Numbers before `to` did not come: they can only be its own, or have come over a bridge.
    fn hole<'l>(&mut self, index: usize, sub: &'l mut Sub, to: u64, bridges: bool) -> &'l mut Sub {
        for number in sub.pos..to {
            let own = !sub.echo && number >= sub.from;
            assert!(own || bridges, "connection {index} was not sent {number} of {}", sub.name);
            self.truth.own.push((sub.name, sub.epoch, number, index));
            self.states.hit(State::OwnLeftOut);
        }
        sub.pos = to;
        sub
    }

    pub(crate) fn gap(
        &mut self,
        index: usize,
        link: &mut Link,
        (topic, from, to, reason): (u32, u64, u64, u8),
    ) {
        let sub = link.subs.get_mut(&topic).expect("a gap of a topic not open");
        assert!(sub.reads && from >= sub.pos, "a gap from {from} at {}", sub.pos);
        let reason = GapReason::ALL[usize::from(reason)];
        let known = (from, to, reason);
        let bridges = self.rights.bridges(&self.agents[link.agent].identity);
        let sub = self.hole(index, sub, from, bridges);
        let recv_max = self.agents[link.agent].recv_max as usize;
        let payload_max = self.plan.limits.native.payload_bytes_max as usize;
        match reason {
            GapReason::Epoch | GapReason::Retention => {
                let expected = sub.expected.take();
                assert_eq!(expected, Some(known), "a gap that nobody expected");
                let epoch = reason == GapReason::Epoch;
                self.states.hit(if epoch { State::GapEpoch } else { State::GapRetention });
            }
            GapReason::Lag => {
                assert!(sub.expected.is_none() && self.conns[index].slow, "it does not lag");
                sub.lagged = true;
                self.states.hit(State::GapLag);
            }
            GapReason::TooLarge => {
                let one = to == from + 1 && recv_max < payload_max + FRAME_HEADER_BYTES;
                assert!(sub.expected.is_none() && one, "nothing is too large");
                let key = (sub.name, sub.epoch);
                let placed = self.truth.logs.get(&key).and_then(|log| log.get(&from));
                if let Some(msg) = placed.and_then(|placed| placed.msg) {
                    let len = self.truth.msgs[msg].payload.len() + FRAME_HEADER_BYTES;
                    assert!(len > recv_max, "{len} bytes are not too large");
                }
                self.states.hit(State::GapTooLarge);
            }
        }
        sub.pos = to;
        if let Some(want) = self.agents[link.agent].wants.get_mut(&sub.name) {
            want.at = Some((sub.epoch, to));
        }
    }

    fn direct(&mut self, index: usize, link: &mut Link, frame: &Frame<'_>) {
        let header = &frame.header;
        assert_eq!(header.offset, link.direct, "a direct message of another number");
        link.direct += 1;
        let from = *self.truth.handles.get(&header.peer).expect("a handle that nobody has");
        let agent = &mut self.agents[link.agent];
        if !agent.peers.contains(&header.peer) {
            agent.peers.push(header.peer);
        }
        if self.agents[from].wild {
            return;
        }
        let msg = msg_of(frame.payload).expect("a payload that nobody sent");
        let said = &self.truth.msgs[msg];
        assert_eq!(said.owner, Owner::Agent(from), "message {msg} is forged");
        assert_eq!(said.payload, frame.payload, "message {msg} is another");
        assert_eq!(said.header.peer, link.handle, "message {msg} was for somebody else");
        let sent = (said.header.kind, said.header.mid, said.header.corr, said.header.class);
        assert_eq!(sent, (header.kind, header.mid, header.corr, header.class), "another message");
        assert_eq!((said.header.flags, said.header.ttl_ms), (header.flags, header.ttl_ms));
        assert!(!said.forbidden, "message {msg} may not be said");
        let bridges = self.rights.bridges(&self.agents[link.agent].identity);
        assert!(!bridges || !header.has(flags::BRIDGED), "a bridge was handed what came over one");
        assert!(said.direct.is_none(), "message {msg} was taken twice");
        assert!(said.nacks < said.txs.len(), "message {msg} was refused and is here");
        self.truth.msgs[msg].direct = Some(header.offset);
        self.is_taken(msg);
        match header.kind {
            FrameKind::Publish | FrameKind::Direct => self.states.hit(State::Direct),
            FrameKind::Reply => self.answer_to(link, msg, State::Reply),
            FrameKind::Stream if header.has(flags::END) => {
                self.answer_to(link, msg, State::StreamEnd);
            }
            FrameKind::Stream => self.answer_to(link, msg, State::Direct),
            FrameKind::Request => self.reply(index, link, header.peer, header.mid),
        }
    }

    /// An answer comes from whom it was asked.
    fn answer_to(&mut self, link: &Link, msg: usize, state: State) {
        self.states.hit(state);
        let corr = self.truth.msgs[msg].header.corr;
        let asked = self.truth.msgs.iter().any(|said| {
            said.header.kind == FrameKind::Request
                && said.header.mid == corr
                && said.owner == Owner::Agent(link.agent)
        });
        assert!(asked, "an answer to nothing");
    }

    fn reply(&mut self, index: usize, link: &mut Link, peer: u64, corr: u64) {
        if link.closing || self.conns[index].fin {
            return;
        }
        let kind = self.rng.pick(&[FrameKind::Reply, FrameKind::Stream]);
        let msg = self.compose(link.agent, kind, (None, peer, corr));
        if kind == FrameKind::Stream && self.rng.one_in(2) {
            self.truth.msgs[msg].header.flags |= flags::END;
        }
        self.transmit(index, link, &[msg]);
    }
}
