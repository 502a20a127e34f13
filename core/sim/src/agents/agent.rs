//! A native client: what it does by itself. Its logic is naive, and nobody else's.

use std::collections::BTreeMap;

use wardline_core::native::handshake::SessionId;
use wardline_core::native::handshake::client::Resumption;
use wardline_core::native::{
    Class, ClientControl, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameWriter, Identity,
    SigningKey, Start, digest, flags,
};

use super::link::{Ask, Link, Pinging, Sent};
use super::net::Owner;
use super::side::{NAMES, Side};
use super::truth::Tx;

/// How somebody wants a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    pub(crate) echo: bool,
    pub(crate) presence: bool,
    /// The life of the topic and the next number that it is to have.
    pub(crate) at: Option<(u64, u64)>,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) key: SigningKey,
    pub(crate) identity: Identity,
    pub(crate) device: u32,
    pub(crate) epoch_ms: u64,
    pub(crate) recv_max: u32,
    /// It says anything.
    pub(crate) wild: bool,
    pub(crate) mid: u64,
    /// Sent, and nothing known of it.
    pub(crate) open: BTreeMap<u64, usize>,
    /// Not taken, as a later connection was told: to be sent again.
    pub(crate) again: Vec<usize>,
    pub(crate) resumption: Option<Resumption>,
    /// When its session began, and until when it must be there after somebody on the path ended
    /// its connection, unless the agent asks for another one.
    pub(crate) born_ns: u64,
    pub(crate) kept: Option<(SessionId, u64, usize)>,
    /// The connection that was told Taken last.
    pub(crate) link: Option<usize>,
    pub(crate) wants: BTreeMap<usize, Want>,
    /// Handles of peers.
    pub(crate) peers: Vec<u64>,
    /// When it may connect again.
    pub(crate) back_ns: u64,
}

impl Agent {
    pub(crate) fn new(nth: usize, identity: usize, wild: bool, mid: u64, recv_max: u32) -> Self {
        let key = SigningKey::from_seed(&[1 + identity as u8; 32]);
        Self {
            identity: key.identity(),
            key,
            device: nth as u32,
            epoch_ms: 1_000,
            recv_max,
            wild,
            mid,
            open: BTreeMap::new(),
            again: Vec::new(),
            resumption: None,
            born_ns: 0,
            kept: None,
            link: None,
            wants: BTreeMap::new(),
            peers: Vec::new(),
            back_ns: 0,
        }
    }
}

impl Side<'_> {
    /// The epoch that an agent comes with, and what it would go on with.
    pub(crate) fn comes_with(&mut self, agent: usize) -> (u64, Option<Resumption>) {
        let who = &mut self.agents[agent];
        let (mut epoch_ms, mut resume) = (who.epoch_ms, who.resumption);
        if !self.calm && self.rng.one_in(60) {
            // A program of before.
            epoch_ms -= 1;
            resume = None;
        } else if !self.calm && self.rng.one_in(12) {
            resume = None;
        }
        who.kept = who.kept.filter(|_| resume.is_some());
        (epoch_ms, resume)
    }

    /// Puts a control value out.
    pub(crate) fn control(&mut self, index: usize, link: &mut Link, value: &ClientControl<'_>) {
        let Ok(bytes) = value.encode() else { return };
        let Ok(header) = link.records.as_mut().expect("keys").sending.control(bytes.as_bytes())
        else {
            return;
        };
        let up = &mut self.conns[index].up;
        up.extend(header);
        up.extend(bytes.as_bytes());
    }

    /// Asks whether all that was sent was seen to.
    pub(crate) fn ping(&mut self, index: usize, link: &mut Link) {
        if link.ping.is_some() || link.closing {
            return;
        }
        link.pings += 1;
        let bytes = link.pings.to_le_bytes();
        let records = link.records.as_mut().expect("keys");
        let sent = records.sending.sent();
        let Ok(record) = records.ping(bytes) else { return };
        let over = link.subs.iter().filter(|(_, sub)| sub.given_up.is_some());
        let over = over.map(|(number, sub)| (*number, sub.given_up)).collect();
        link.ping = Some(Pinging { records: sent, over, step: self.step });
        self.conns[index].up.extend(record);
    }

    /// Sends messages as one record.
    pub(crate) fn transmit(&mut self, index: usize, link: &mut Link, msgs: &[usize]) {
        let mut body = vec![0; 64 << 10];
        let mut writer = FrameWriter::new(&mut body);
        let most = link.max_payload as usize + FRAME_HEADER_BYTES;
        let mut sent = Vec::new();
        for msg in msgs {
            let said = &self.truth.msgs[*msg];
            let topic = match said.name {
                Some(name) => match link.number(name) {
                    Some(number) => number,
                    None => continue,
                },
                None => 0,
            };
            let len = FRAME_HEADER_BYTES + said.payload.len();
            if writer.written().len() + len > most {
                break;
            }
            assert!(writer.put(&FrameHeader { topic, ..said.header }, &said.payload));
            sent.push(*msg);
        }
        let len = writer.written().len();
        body.truncate(len);
        if sent.is_empty() {
            return;
        }
        let sending = &mut link.records.as_mut().expect("keys").sending;
        let record = sending.sent();
        let Ok(header) = sending.frames(len as u32, &digest(&body)) else { return };
        let up = &mut self.conns[index].up;
        up.extend(header);
        up.extend(&body);
        for msg in sent {
            let said = &mut self.truth.msgs[msg];
            said.txs.push(Tx { conn: index, nth: link.nth, step: self.step });
            link.nth += 1;
            let sub =
                said.name.and_then(|name| link.number(name)).map(|number| &link.subs[&number]);
            let epoch = sub.filter(|sub| sub.reads).map(|sub| sub.epoch);
            link.sent.push(Sent { msg, nacked: None, record, step: self.step, epoch });
            if said.header.flags & flags::VERDICT != 0 {
                link.verdicts.entry(said.header.mid).or_insert(false);
            }
            let agent = &mut self.agents[link.agent];
            if !said.taken {
                agent.open.insert(said.header.mid, msg);
            }
        }
    }

    /// Asks for a topic again, as it was wanted.
    pub(crate) fn want(&mut self, index: usize, link: &mut Link, name: usize) {
        let want = self.agents[link.agent].wants[&name];
        let from = match want.at {
            Some((epoch, offset)) => Start::Offset { epoch, offset },
            None => match self.rng.below(4) {
                0 => Start::Last(self.rng.below(6) as u32),
                1 => Start::Offset { epoch: 7, offset: 3 },
                _ => Start::Now,
            },
        };
        self.subscribe(index, link, name, from, (want.echo, want.presence));
    }

    pub(crate) fn subscribe(
        &mut self,
        index: usize,
        link: &mut Link,
        name: usize,
        from: Start,
        (echo, presence): (bool, bool),
    ) {
        link.ask += 1;
        let ask = link.ask;
        let after =
            link.subs.values().any(|sub| sub.name == name && sub.reads && sub.given_up.is_none())
                || link
                    .asks
                    .values()
                    .any(|(ask, _)| matches!(ask, Ask::Subscribe { name: of, .. } if *of == name));
        link.asks.insert(ask, (Ask::Subscribe { name, from, echo, presence, after }, self.step));
        let value = ClientControl::Subscribe { ask, name: NAMES[name], from, echo, presence };
        self.control(index, link, &value);
    }

    pub(crate) fn ask_open(&mut self, index: usize, link: &mut Link, name: usize) {
        link.ask += 1;
        let ask = link.ask;
        link.asks.insert(ask, (Ask::Open { name }, self.step));
        self.control(index, link, &ClientControl::Open { ask, name: NAMES[name] });
    }

    /// A connection lives: everything goes on over it.
    pub(crate) fn go_on(&mut self, index: usize, link: &mut Link) {
        let names: Vec<usize> = self.agents[link.agent].wants.keys().copied().collect();
        for name in names {
            self.want(index, link, name);
        }
        let again = self.agents[link.agent].again.clone();
        for msg in again {
            if let Some(name) = self.truth.msgs[msg].name
                && !self.agents[link.agent].wants.contains_key(&name)
            {
                self.ask_open(index, link, name);
            }
        }
        self.send_again(index, link);
    }

    /// Sends what was not taken and can be sent by now.
    pub(crate) fn send_again(&mut self, index: usize, link: &mut Link) {
        let all = std::mem::take(&mut self.agents[link.agent].again);
        for msg in all {
            let ready = self.truth.msgs[msg].name.is_none_or(|name| link.number(name).is_some());
            if ready && !link.closing {
                self.states.hit(super::states::State::SentAgain);
                self.transmit(index, link, &[msg]);
            } else {
                self.agents[link.agent].again.push(msg);
            }
        }
    }

    /// A message of an agent, to a topic or to a peer.
    pub(crate) fn compose(
        &mut self,
        agent: usize,
        kind: FrameKind,
        (name, peer, corr): (Option<usize>, u64, u64),
    ) -> usize {
        let rng = &mut self.rng;
        let most = if rng.one_in(20) { 1_015 } else { self.plan.payload };
        let len = if rng.one_in(10) { most } else { rng.up_to(most) };
        let fill = if rng.one_in(5) { 0xFF } else { b'a' + rng.below(26) as u8 };
        let mut rest = vec![fill; len];
        let mut bits = 0;
        if rng.one_in(6) {
            bits |= flags::SEALED;
        }
        if kind == FrameKind::Publish && rng.one_in(3) {
            bits |= flags::VERDICT;
        }
        let mut forbidden = false;
        let who = &mut self.agents[agent];
        let bridges = self.rights.bridges(&who.identity);
        let often = if bridges { 4 } else { 40 };
        if rng.one_in(often) && !self.calm {
            bits |= flags::BRIDGED;
            forbidden = !bridges;
        }
        who.mid += if rng.one_in(30) { 1 + rng.below(900) } else { 1 };
        let nth = self.truth.msgs.len();
        if rng.one_in(25) && nth < 100_000 && !self.calm {
            // An envelope, its sender's place after the first eight bytes.
            let front = format!("m{nth};").len();
            rest = vec![b'e'; 176];
            bits |= flags::ENVELOPE;
            let own = rng.one_in(2);
            let sender = if own { *who.identity.as_bytes() } else { [9; 32] };
            // A bridge passes on what others said.
            forbidden |= !own && bits & flags::BRIDGED == 0;
            rest[8 - front..40 - front].copy_from_slice(&sender);
        }
        let header = FrameHeader {
            kind,
            class: if self.calm { Class::Normal } else { rng.pick(&Class::ALL) },
            flags: bits,
            topic: 0,
            ttl_ms: rng.below(3) as u32 * 1_000,
            peer,
            mid: who.mid,
            offset: 0,
            corr,
        };
        let msg = self.truth.say(Owner::Agent(agent), header, name, &rest);
        self.truth.msgs[msg].forbidden = forbidden;
        msg
    }
}
