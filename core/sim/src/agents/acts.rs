//! What clients do of themselves, step by step.

use wardline_core::native::Code;
use wardline_core::native::{Class, ClientControl, FrameHeader, FrameKind, FrameWriter, digest};

use super::agent::Want;
use super::link::{Ask, Link, Stage};
use super::net::Owner;
use super::side::{NAMES, Side};
use super::states::State;

/// Bytes that a client writes ahead.
const UP_MAX: usize = 20_000;

impl Side<'_> {
    /// The connection over which an agent can say something.
    pub(crate) fn able(&self, agent: usize) -> Option<usize> {
        let index = self.agents[agent].link?;
        let link = self.links[index].as_ref()?;
        let conn = &self.conns[index];
        (link.is_live() && conn.is_up() && !link.closing && !conn.closing).then_some(index)
    }

    /// An agent does something over its connection.
    pub(crate) fn act(&mut self, agent: usize) {
        if self.agents[agent].wild {
            return self.act_wild(agent);
        }
        let Some(index) = self.able(agent) else { return };
        if self.conns[index].up.len() > UP_MAX {
            return;
        }
        let Some(mut link) = self.links[index].take() else { return };
        let close = self.plan.often.close;
        match self.rng.below(100) {
            0..36 => self.publish(agent, index, &mut link),
            36..48 => self.say_to_peer(agent, index, &mut link),
            48..54 => self.say_again(agent, index, &mut link),
            54..66 => self.begin_to_read(agent, index, &mut link),
            66..71 => self.give_up(agent, index, &mut link),
            71..74 => {
                let name = self.rng.below(self.plan.names as u64) as usize;
                self.ask_open(index, &mut link, name);
            }
            74..84 => self.ask(index, &mut link),
            84..86 => {
                let now = self.now();
                let sending = &mut link.records.as_mut().expect("keys").sending;
                if let Ok(record) = sending.rekey(now) {
                    self.conns[index].up.extend(record);
                    self.states.hit(State::Rekeyed);
                }
            }
            86..88 if close > 0 && self.rng.one_in(3) => self.say_close(index, &mut link),
            _ => self.ping(index, &mut link),
        }
        self.links[index] = Some(link);
    }

    /// A topic that is open, if there is one.
    fn some_open(&mut self, link: &Link) -> Option<usize> {
        let open = link.subs.values().filter(|sub| sub.given_up.is_none());
        let open: Vec<usize> = open.map(|sub| sub.name).collect();
        (!open.is_empty()).then(|| self.rng.pick(&open))
    }

    pub(crate) fn publish(&mut self, agent: usize, index: usize, link: &mut Link) {
        let Some(name) = self.some_open(link) else {
            return self.begin_to_read(agent, index, link);
        };
        let many = if self.rng.one_in(3) { 1 + self.rng.up_to(8) } else { 1 };
        let mut msgs = Vec::new();
        for _ in 0..many {
            msgs.push(self.compose(agent, FrameKind::Publish, (Some(name), 0, 0)));
        }
        self.transmit(index, link, &msgs);
    }

    fn some_peer(&mut self, agent: usize) -> Option<u64> {
        let peers = &self.agents[agent].peers;
        match self.rng.below(12) {
            0 => Some(1 + self.rng.below(u64::MAX - 1)),
            1 => {
                let handles: Vec<u64> = self.truth.handles.keys().copied().collect();
                (!handles.is_empty()).then(|| self.rng.pick(&handles))
            }
            2 => self.truth.line_handles.keys().next().copied(),
            // Those that were met last are there most likely.
            _ if peers.is_empty() => None,
            _ => {
                let back = self.rng.below(peers.len().min(4) as u64) as usize;
                Some(peers[peers.len() - 1 - back])
            }
        }
    }

    fn say_to_peer(&mut self, agent: usize, index: usize, link: &mut Link) {
        let Some(peer) = self.some_peer(agent) else { return };
        let kind = self.rng.pick(&[FrameKind::Direct, FrameKind::Request]);
        let msg = self.compose(agent, kind, (None, peer, 0));
        self.transmit(index, link, &[msg]);
    }

    /// Sends something that was sent before: it is not to be taken twice.
    fn say_again(&mut self, agent: usize, index: usize, link: &mut Link) {
        let first = self.truth.msgs.len().saturating_sub(400);
        let epoch = link.epoch_ms;
        let mine: Vec<usize> = (first..self.truth.msgs.len())
            .filter(|msg| {
                let said = &self.truth.msgs[*msg];
                let pending = said.txs.last().is_some_and(|tx| tx.conn == index);
                said.owner == Owner::Agent(agent) && (said.taken || pending) && {
                    let of = said.txs.last().and_then(|tx| self.epochs.get(tx.conn));
                    of.copied().flatten() == Some(epoch)
                }
            })
            .collect();
        if mine.is_empty() {
            return;
        }
        let at = if self.rng.one_in(3) { 0 } else { self.rng.below(mine.len() as u64) as usize };
        // Only while the window of this session is the one that it was taken in.
        if self.truth.msgs[mine[at]].txs.iter().all(|tx| tx.conn == index) {
            self.transmit(index, link, &[mine[at]]);
        }
    }

    fn begin_to_read(&mut self, agent: usize, index: usize, link: &mut Link) {
        let name = self.rng.below(self.plan.names as u64) as usize;
        let known = self.agents[agent].wants.get(&name).and_then(|want| want.at);
        let echo = self.rng.one_in(3);
        let presence = self.rng.one_in(3);
        let at = known.filter(|_| self.rng.one_in(2));
        self.agents[agent].wants.entry(name).or_insert(Want { echo, presence, at });
        self.want(index, link, name);
    }

    fn give_up(&mut self, agent: usize, index: usize, link: &mut Link) {
        let Some(name) = self.some_open(link) else { return };
        let number = link.number(name).expect("it is open");
        self.agents[agent].wants.remove(&name);
        let sub = link.subs.get_mut(&number).expect("it is open");
        sub.given_up = Some(self.step);
        if self.conns[index].flight.is_some() {
            self.states.hit(State::UnsubscribedInFlight);
        }
        self.control(index, link, &ClientControl::Unsubscribe { topic: number });
    }

    fn ask(&mut self, index: usize, link: &mut Link) {
        link.ask += 1;
        let ask = link.ask;
        let peer = self.some_peer(link.agent).unwrap_or(link.handle);
        let (asked, value) = match self.rng.below(5) {
            0 => {
                let who = self.rng.below(self.agents.len() as u64) as usize;
                let identity = *self.agents[who].identity.as_bytes();
                (Ask::Resolve { who, found: Vec::new() }, ClientControl::Resolve { ask, identity })
            }
            1 => (Ask::Identify { handle: peer }, ClientControl::Identify { ask, handle: peer }),
            2 => {
                let (corr, bytes) = (self.rng.below(9), self.rng.below(100) as u32);
                self.truth.credits.insert((link.handle, peer, corr, bytes));
                let value = ClientControl::Credit { peer, corr, bytes };
                return self.control(index, link, &value);
            }
            _ => {
                let Some(name) = self.some_open(link) else { return };
                let topic = link.number(name).expect("it is open");
                let who = Ask::Who { name, topic, found: Vec::new(), pages: 0 };
                (who, ClientControl::Who { ask, topic, after: 0 })
            }
        };
        link.asks.insert(ask, (asked, self.step));
        self.control(index, link, &value);
    }

    /// An agent is done with its session.
    pub(crate) fn say_close(&mut self, index: usize, link: &mut Link) {
        let records = link.records.as_mut().expect("keys");
        let Ok(record) = records.close(Code::Normal, 0, 0, 0) else { return };
        self.conns[index].up.extend(record);
        link.closing = true;
        self.agents[link.agent].resumption = None;
        if self.rng.one_in(2) {
            self.conns[index].fin = true;
        }
    }

    /// A program ends and begins again: it knows nothing.
    pub(crate) fn restart(&mut self, agent: usize) {
        let mid = self.rng.below(1 << 40);
        let who = &mut self.agents[agent];
        who.epoch_ms += 1;
        who.mid = mid;
        who.open.clear();
        who.again.clear();
        who.resumption = None;
        who.wants.clear();
        if let Some(index) = who.link.take()
            && self.rng.one_in(2)
        {
            self.reset(index);
        }
    }

    /// Anything at all, in records that are right.
    fn act_wild(&mut self, agent: usize) {
        let of = |index: &&usize| {
            self.conns[**index].owner == Owner::Agent(agent) && self.conns[**index].is_up()
        };
        let Some(index) = self.live.iter().find(of).copied() else { return };
        let Some(mut link) = self.links[index].take() else { return };
        if matches!(link.stage, Stage::Records) && self.conns[index].up.len() < UP_MAX {
            let bytes = self.wild_record(&mut link);
            self.conns[index].up.extend(bytes);
        }
        self.links[index] = Some(link);
    }

    fn some_bytes(&mut self, most: usize) -> Vec<u8> {
        let len = self.rng.up_to(most);
        (0..len).map(|_| self.rng.below(256) as u8).collect()
    }

    fn wild_record(&mut self, link: &mut Link) -> Vec<u8> {
        let now = self.now();
        let rarely = self.rng.one_in(if self.plan.known_wild { 4 } else { 40 });
        let name = NAMES[self.rng.below(self.plan.names as u64) as usize];
        let some = self.some_bytes(100);
        let wild = self.wild_frames();
        let ask = self.rng.below(9) as u32;
        let numbers: Vec<u32> = self.truth.numbers.values().copied().collect();
        let topic = if numbers.is_empty() { 5 } else { self.rng.pick(&numbers) };
        let from = wardline_core::native::Start::Last(9);
        let records = link.records.as_mut().expect("keys");
        let value = match self.rng.below(12) {
            0 => return records.ping([9; 8]).map_or(Vec::new(), |record| record.to_vec()),
            1 if rarely => return some,
            2 if rarely => return records.pong([1; 8]).map_or(Vec::new(), |it| it.to_vec()),
            3 => return records.sending.rekey(now).map_or(Vec::new(), |it| it.to_vec()),
            4 if rarely => {
                let header = records.sending.control(&some);
                return header.map_or(Vec::new(), |header| [&header[..], &some].concat());
            }
            5 => ClientControl::Subscribe { ask, name, from, echo: true, presence: true },
            6 => ClientControl::Open { ask, name },
            7 => ClientControl::Unsubscribe { topic },
            8 => ClientControl::Who { ask, topic, after: self.rng.below(99) },
            9 => ClientControl::Identify { ask, handle: self.rng.below(u64::MAX) },
            _ => {
                let len = wild.len() as u32;
                let header = records.sending.frames(len, &digest(&wild));
                return header.map_or(Vec::new(), |header| [&header[..], &wild].concat());
            }
        };
        let bytes = value.encode().expect("a value");
        let header = records.sending.control(bytes.as_bytes());
        header.map_or(Vec::new(), |header| [&header[..], bytes.as_bytes()].concat())
    }

    fn wild_frames(&mut self) -> Vec<u8> {
        let mut body = vec![0; 1_024];
        let mut writer = FrameWriter::new(&mut body);
        let numbers: Vec<u32> = self.truth.numbers.values().copied().collect();
        let handles: Vec<u64> = self.truth.handles.keys().copied().collect();
        for _ in 0..=self.rng.up_to(3) {
            let odd = self.rng.one_in(60);
            let kind = self.rng.pick(&FrameKind::ALL);
            let publish = kind == FrameKind::Publish;
            let number = if numbers.is_empty() { 1 } else { self.rng.pick(&numbers) };
            let handle = if handles.is_empty() { 1 } else { self.rng.pick(&handles) };
            let header = FrameHeader {
                kind,
                class: self.rng.pick(&Class::ALL),
                flags: if odd { self.rng.below(64) as u16 } else { 0 },
                topic: if publish { number } else { 0 },
                ttl_ms: 0,
                peer: if publish { 0 } else { handle },
                mid: 1 + self.rng.below(3_000),
                offset: u64::from(odd),
                corr: if kind.is_answer() { 1 + self.rng.below(99) } else { 0 },
            };
            let payload = self.some_bytes(200);
            writer.put(&header, &payload);
        }
        let len = writer.written().len();
        body.truncate(len);
        body
    }
}
