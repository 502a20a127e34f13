//! How a run ends: faults stop, everything drains, a last message reaches everybody, and all leave.

use wardline_core::native::{FrameKind, flags};
use wardline_core::{Refusal, Relay};

use super::net::{Conn, Owner};
use super::reader::Sub;
use super::side::Side;
use super::states::State;
use super::world::World;

/// Virtual time in which everything must have drained once the faults are over: rates may be low.
const DRAINED_NS: u64 = 900_000_000_000;
/// And in which a last message must have reached everybody.
const LAST_NS: u64 = 5_000_000_000;
/// In which somebody has heard it.
const HEARD_NS: u64 = 500_000_000;

impl World<'_, '_> {
    /// Brings the run to its end, and checks it.
    pub(crate) fn end(&mut self) {
        self.be_calm();
        let end = self.side.now_ns + DRAINED_NS;
        while !(self.side.is_drained() && self.rings_rest()) {
            let memory: Vec<_> = self.relays.iter().map(|relay| relay.memory_used()).collect();
            let limits = &self.side.plan.limits;
            let memory = (memory, limits.blocks, limits.segments);
            let late = self.side.now_ns >= end;
            assert!(!late, "it does not drain: {}, {memory:?}", self.side.undrained());
            self.come_back();
            self.round();
        }
        self.last_words();
        self.who_is_there();
        self.side.check_texts();
        self.side.check_order();
        self.side.check_directs();
        self.leave();
        self.count();
    }

    /// From now on everybody is honest and quick.
    fn be_calm(&mut self) {
        let side = &mut self.side;
        side.calm = true;
        side.rights.restore(side.step);
        for index in side.live.clone() {
            let wild = match side.conns[index].owner {
                Owner::Agent(agent) => side.agents[agent].wild,
                Owner::Text(_) => false,
                Owner::Noise => true,
            };
            if wild {
                side.reset(index);
                side.over(index);
            }
            let conn = &mut side.conns[index];
            conn.lazy = false;
            conn.bytes_max = 1 << 20;
        }
    }

    /// Who has no connection gets one.
    fn come_back(&mut self) {
        for index in self.side.live.clone() {
            let Owner::Agent(agent) = self.side.conns[index].owner else { continue };
            let live = self.side.links[index].as_ref().is_some_and(|link| link.is_live());
            if live && self.side.agents[agent].link != Some(index) {
                // Of a program that is no more.
                self.side.reset(index);
                self.side.over(index);
            }
        }
        for agent in 0..self.side.plan.agents {
            let up = |index: &usize| {
                let conn = &self.side.conns[*index];
                conn.owner == Owner::Agent(agent) && conn.is_up() && !self.side.is_over(*index)
            };
            let none = !self.side.live.iter().any(up);
            let now_ns = self.side.now_ns;
            let due = self.side.agents[agent].back_ns <= now_ns;
            if none && due && !self.side.out.contains(&agent) {
                // Whoever fails waits a while before it comes again.
                let backoff = 200_000_000 + self.side.rng.below(2_000_000_000);
                self.side.agents[agent].back_ns = now_ns + backoff;
                self.side.refused = None;
                self.dial(agent, false);
                if matches!(self.side.refused, Some(Refusal::Quarantined(_))) {
                    // As by an ALERT: for longer than is waited for.
                    self.side.out.insert(agent);
                }
            }
        }
        for text in 0..self.side.texts.len() {
            self.connect_text(text);
        }
    }

    /// All that an honest frontend and quick clients do; then time goes on, if nothing happened.
    fn round(&mut self) {
        self.side.step += 1;
        let before = self.moved();
        for index in self.side.live.clone() {
            if !self.side.conns[index].gone {
                self.serve(index);
            }
        }
        self.tell_waits();
        self.drain();
        let carried = self.carry_all();
        self.check();
        if before == self.moved() && !carried {
            let now_ns = self.side.now_ns;
            let next = self.next_wait().map_or(u64::MAX, wardline_core::Instant::as_nanos);
            self.side.now_ns = next.clamp(now_ns + 100_000, now_ns + 100_000_000);
        }
    }

    /// Bytes that came and went, of all shards.
    fn moved(&self) -> (u64, u64) {
        self.relays.iter().fold((0, 0), |(out, came), relay| {
            let stats = relay.stats();
            (out + stats.bytes_out.value(), came + stats.bytes_in.value())
        })
    }

    fn connections(&self) -> u32 {
        self.relays.iter().map(|relay| relay.connections()).sum()
    }

    fn serve(&mut self, index: usize) {
        let conn = &self.side.conns[index];
        if !conn.down.is_empty() || conn.finished {
            self.read(index);
        }
        if self.side.conns[index].flight.is_some() || self.side.conns[index].closing {
            self.complete(index);
        }
        if self.side.conns[index].gone {
            return;
        }
        if self.side.conns[index].full {
            self.writable(index);
        }
        self.receive(index);
        if let Some(mut link) = self.side.links[index].take() {
            let conn = &self.side.conns[index];
            let able = link.is_live() && conn.is_up() && !link.closing && !conn.closing;
            if able && !link.sent.is_empty() && link.ping.is_none() {
                self.side.ping(index, &mut link);
            }
            self.side.links[index] = Some(link);
        }
    }

    /// One says something on each topic that is read: everybody who reads it has it in 5 s.
    fn last_words(&mut self) {
        // Who is silent at a door of both dialects is nobody's reader yet.
        let spoke =
            |side: &mut Side<'_>, text| side.text_says(text).and_then(|_| side.texts[text].conn);
        let texts = 0..self.side.texts.len();
        let spoke: Vec<_> = texts.map(|text| spoke(&mut self.side, text)).collect();
        let last_ns = self.side.last_ns();
        let end = self.side.now_ns + last_ns;
        while !(self.side.is_drained() && self.rings_rest()) {
            assert!(self.side.now_ns < end, "first words: {}", self.side.undrained());
            self.come_back();
            self.round();
        }
        let mut expected = Vec::new();
        for index in self.side.live.clone() {
            let Owner::Agent(agent) = self.side.conns[index].owner else { continue };
            if self.side.able(agent) != Some(index) {
                continue;
            }
            for name in self.side.open_topics(index) {
                if expected.iter().all(|(known, _)| *known != name) {
                    expected.push((name, self.side.last_word(index, agent, name)));
                }
            }
        }
        for link in self.side.links.iter_mut().flatten() {
            link.subs.values_mut().for_each(|sub| sub.lagged = false);
        }
        for (text, conn) in spoke.into_iter().enumerate() {
            let reader = &mut self.side.texts[text];
            // Who came only now may be silent for too long.
            let listens = conn.filter(|conn| reader.conn == Some(*conn));
            reader.listens = listens.map(|conn| (conn, reader.read.len()));
            let name = reader.name;
            expected.extend(self.side.text_says(text).map(|msg| (name, msg)));
        }
        let (least, end) = (self.side.now_ns + HEARD_NS, self.side.now_ns + last_ns);
        while self.side.now_ns < least || !self.side.missing(&expected).is_empty() {
            let late = self.side.now_ns >= end;
            let missing = self.side.missing(&expected);
            let said: Vec<_> =
                missing.iter().map(|(_, _, msg)| &self.side.truth.msgs[*msg]).collect();
            assert!(!late, "not everybody was reached: {missing:?}, {said:?}");
            self.round();
        }
    }

    /// Each asks who reads what it reads; and then how many.
    fn who_is_there(&mut self) {
        self.side.at_rest = true;
        self.each(|side, index, _| side.ask_who(index));
        self.side.check_presence();
        self.each(|side, index, agent| {
            for name in side.open_topics(index) {
                side.last_word(index, agent, name);
            }
        });
    }

    /// Has each agent that is there do something, and waits until nothing is under way.
    fn each(&mut self, act: impl Fn(&mut Side<'_>, usize, usize)) {
        for index in self.side.live.clone() {
            let Owner::Agent(agent) = self.side.conns[index].owner else { continue };
            if self.side.able(agent) == Some(index) {
                act(&mut self.side, index, agent);
            }
        }
        let end = self.side.now_ns + 60_000_000_000;
        while !(self.side.is_drained() && self.rings_rest()) {
            assert!(self.side.now_ns < end, "who is there? {}", self.side.undrained());
            self.come_back();
            self.round();
        }
    }

    /// Everybody leaves, and nothing is left.
    fn leave(&mut self) {
        for index in self.side.live.clone() {
            let side = &mut self.side;
            match side.links[index].take() {
                Some(mut link) if link.is_live() && !link.closing => {
                    side.say_close(index, &mut link);
                    side.links[index] = Some(link);
                }
                link => {
                    side.links[index] = link;
                    side.conns[index].fin = true;
                }
            }
        }
        let end = self.side.now_ns + 60_000_000_000;
        while self.connections() > 0 || !self.rings_rest() {
            let late = self.side.now_ns >= end;
            assert!(!late, "{} are still there", self.connections());
            self.round();
        }
        // What was kept for a while is forgotten.
        for _ in 0..3 {
            self.side.now_ns += 90_000_000_000_000;
            self.drain();
            while self.carry_all() {}
        }
        for relay in &self.relays {
            relay.check();
            assert_eq!(relay.memory_used(), (0, 0), "memory that nobody needs");
        }
    }

    /// Adds what only the counters tell.
    fn count(&mut self) {
        let states = &mut self.side.states;
        for stats in self.relays.iter().map(Relay::stats) {
            for (state, counter) in [
                (State::Held, stats.native_held),
                (State::Evicted, stats.sessions_evicted),
                (State::Expired, stats.sessions_expired),
                (State::LogFull, stats.log_full),
                (State::DigestShared, stats.digests_shared),
                (State::BridgedLeftOut, stats.bridged_left_out),
                (State::HalfEvicted, stats.half_open_evicted),
            ] {
                states.hits(state, counter.value());
            }
        }
    }
}

impl Side<'_> {
    /// Whose identity was struck by another of its devices is slow for a while.
    fn last_ns(&self) -> u64 {
        if self.plan.known_wild { LAST_NS * 12 } else { LAST_NS }
    }

    pub(crate) fn is_over(&self, index: usize) -> bool {
        self.links[index].as_ref().is_none_or(|link| link.is_over())
    }

    fn waits(&self, index: usize) -> Option<&'static str> {
        let conn = &self.conns[index];
        let busy = |conn: &Conn| !conn.up.is_empty() || conn.paused || conn.flight.is_some();
        match conn.owner {
            Owner::Noise => Some("noise"),
            _ if conn.reset || conn.fin || conn.finished || conn.closing => Some("it ends"),
            _ if busy(conn) => Some("input"),
            _ if !conn.down.is_empty() || conn.full => Some("output"),
            Owner::Text(_) => None,
            Owner::Agent(agent) => {
                let link = self.links[index].as_ref()?;
                let again = &self.agents[agent].again;
                if !link.is_live() {
                    Some("it does not live")
                } else if link.ping.is_some() || !link.sent.is_empty() || !link.asks.is_empty() {
                    Some("answers")
                } else if again.iter().any(|msg| self.is_open_for(*msg, index)) {
                    Some("messages to be sent again")
                } else {
                    None
                }
            }
        }
    }

    fn is_open_for(&self, msg: usize, index: usize) -> bool {
        let link = self.links[index].as_ref();
        let name = self.truth.msgs[msg].name;
        link.is_some_and(|link| name.is_none_or(|name| link.number(name).is_some()))
    }

    /// Whether nothing is under way, and everybody is there.
    fn is_drained(&self) -> bool {
        let there = |agent: usize| self.out.contains(&agent) || self.able(agent).is_some();
        (0..self.plan.agents).all(there)
            && self.live.iter().all(|index| self.waits(*index).is_none())
    }

    fn undrained(&self) -> String {
        let waits = |index: &usize| self.waits(*index).map(|why| (*index, why));
        let waits: Vec<_> = self.live.iter().filter_map(waits).collect();
        let there = |agent: &usize| !self.out.contains(agent) && self.able(*agent).is_none();
        let away: Vec<usize> = (0..self.plan.agents).filter(there).collect();
        format!("{waits:?}, agents away: {away:?}, {:?}", self.refused)
    }

    /// Who reads a topic and does not have the last message of it: connection, topic, message.
    fn missing(&self, expected: &[(usize, usize)]) -> Vec<(usize, usize, usize)> {
        let mut missing = Vec::new();
        for index in &self.live {
            let Some(link) = self.links[*index].as_ref().filter(|link| link.is_live()) else {
                continue;
            };
            for sub in link.subs.values().filter(|sub| sub.reads && sub.given_up.is_none()) {
                for (_, msg) in expected.iter().filter(|(name, _)| *name == sub.name) {
                    let said = &self.truth.msgs[*msg];
                    let own = said.txs.iter().any(|tx| tx.conn == *index);
                    let come = said.place.is_some_and(|place| sub.pos > place.2);
                    // Its number is known once somebody native has heard it.
                    let told = said.place.is_none() && sub.lagged;
                    if !(self.is_unsaid(*msg) || come || told || (own && !sub.echo)) {
                        missing.push((*index, sub.name, *msg));
                    }
                }
            }
        }
        for (text, reader) in self.texts.iter().enumerate() {
            let Some((index, before)) = reader
                .listens
                .filter(|(index, _)| reader.conn == Some(*index) && self.conns[*index].is_up())
            else {
                continue;
            };
            let told = reader.read[before..].contains(&None);
            for (name, msg) in expected.iter().filter(|(name, _)| *name == reader.name && !told) {
                let said = &self.truth.msgs[*msg];
                let own = said.owner == Owner::Text(text);
                if !(self.is_unsaid(*msg) || own || said.lines.contains(&text)) {
                    missing.push((index, *name, *msg));
                }
            }
        }
        missing
    }

    /// Whether who said a message is gone: memory may have been too short for that.
    fn is_unsaid(&self, msg: usize) -> bool {
        let said = &self.truth.msgs[msg];
        let lost = |conn: usize| !self.conns[conn].is_up() || self.is_over(conn);
        match said.owner {
            // What anybody heard, everybody hears.
            Owner::Text(_) => !said.taken && said.lines.is_empty(),
            Owner::Agent(_) | Owner::Noise => said.txs.iter().all(|tx| lost(tx.conn)),
        }
    }

    /// Topics that a connection has open.
    fn open_topics(&self, index: usize) -> Vec<usize> {
        let link = self.links[index].as_ref();
        let subs = link.into_iter().flat_map(|link| link.subs.values());
        subs.filter(|sub| sub.given_up.is_none()).map(|sub| sub.name).collect()
    }

    /// Somebody says something short, whose number is known, whoever reads it.
    fn last_word(&mut self, index: usize, agent: usize, name: usize) -> usize {
        let msg = self.compose(agent, FrameKind::Publish, (Some(name), 0, 0));
        self.truth.msgs[msg].payload.truncate(60);
        self.truth.msgs[msg].header.flags |= flags::VERDICT;
        let mut link = self.links[index].take().expect("it is able");
        self.transmit(index, &mut link, &[msg]);
        self.links[index] = Some(link);
        msg
    }

    fn ask_who(&mut self, index: usize) {
        let Some(mut link) = self.links[index].take() else { return };
        let subs: Vec<(u32, usize)> = link
            .subs
            .iter()
            .filter(|(_, sub)| sub.given_up.is_none())
            .map(|(number, sub)| (*number, sub.name))
            .collect();
        for (topic, name) in subs {
            link.ask += 1;
            let ask = link.ask;
            let who = super::link::Ask::Who { name, topic, found: Vec::new(), pages: 0 };
            link.asks.insert(ask, (who, self.step));
            let value = wardline_core::native::ClientControl::Who { ask, topic, after: 0 };
            self.control(index, &mut link, &value);
        }
        self.links[index] = Some(link);
    }

    /// Who came and did not leave is there; and who came later than somebody who watches, it knows.
    fn check_presence(&self) {
        let links = || self.live.iter().filter_map(|index| self.links[*index].as_deref());
        for link in links() {
            let who = self.agents[link.agent].identity;
            let told = |sub: &Sub| sub.given_up.is_none() && !self.missed_presence(&who, sub.asked);
            for (topic, sub) in link.subs.iter().filter(|(_, sub)| told(sub)) {
                for (handle, _) in sub.present.iter().filter(|(_, here)| **here) {
                    let there = links().any(|other| {
                        let reads = other.subs.get(topic).is_some_and(|sub| sub.reads);
                        other.handle == *handle && other.is_live() && reads
                    });
                    assert!(there, "handle {handle:x} came to {} and is not there", sub.name);
                }
                for other in links().filter(|other| sub.presence && other.is_live()) {
                    let later =
                        |of: &&Sub| of.reads && of.given_up.is_none() && of.asked > sub.told;
                    let came = other.subs.get(topic).filter(later).is_some();
                    let known = sub.present.get(&other.handle) == Some(&true);
                    let own = other.handle == link.handle;
                    assert!(own || known || !came, "nobody was told of {:x}", other.handle);
                }
            }
        }
    }

    /// What was taken for somebody's own is; and each sender's messages stand as it sent them.
    fn check_order(&self) {
        for (name, epoch, number, conn) in &self.truth.own {
            let log = self.truth.logs.get(&(*name, *epoch));
            let Some(msg) = log.and_then(|log| log.get(number)).map(|placed| placed.msg) else {
                continue;
            };
            let msg = msg.expect("somebody else's");
            let said = &self.truth.msgs[msg];
            // Or said over a connection of before by the same session, if it took a while.
            let handle = |conn: usize| self.links[conn].as_ref().map(|link| link.handle);
            let own =
                said.txs.iter().any(|tx| tx.conn == *conn || handle(tx.conn) == handle(*conn));
            let bridges = self.links[*conn]
                .as_ref()
                .is_some_and(|link| self.rights.bridges(&self.agents[link.agent].identity));
            let bridged = bridges && said.header.flags & flags::BRIDGED != 0;
            assert!(own || bridged, "message {msg} was kept from connection {conn}");
        }
        for log in self.truth.logs.values() {
            let mut last: std::collections::BTreeMap<usize, usize> = Default::default();
            for msg in log.values().filter_map(|placed| placed.msg) {
                let txs = &self.truth.msgs[msg].txs;
                let [tx] = txs.as_slice() else { continue };
                let before = last.insert(tx.conn, tx.nth);
                assert!(before.is_none_or(|before| before < tx.nth), "message {msg} was overtaken");
            }
            let mut last: std::collections::BTreeMap<usize, usize> = Default::default();
            for msg in log.values().filter_map(|placed| placed.msg) {
                let Owner::Text(text) = self.truth.msgs[msg].owner else { continue };
                let before = last.insert(text, msg);
                assert!(before.is_none_or(|before| before < msg), "line {msg} was overtaken");
            }
        }
    }

    /// What was taken for a peer was numbered, whether it arrived or not.
    fn check_directs(&self) {
        for index in &self.live {
            let Some(link) = self.links[*index].as_ref().filter(|link| link.is_live()) else {
                continue;
            };
            let Some(base) = self.bases.get(&link.handle) else { continue };
            let to =
                |said: &&super::truth::Msg| said.name.is_none() && said.header.peer == link.handle;
            let all = self.truth.msgs.iter().filter(to);
            let taken = all.clone().filter(|said| said.taken).count() as u64;
            // What came back may have been sent again, and numbered again.
            let sent = all.map(|said| said.txs.len() as u64).sum::<u64>();
            let numbered = link.direct - base;
            assert!(taken <= numbered, "{taken} were taken, {numbered} numbered");
            let wild = self.plan.wild > 0;
            assert!(wild || numbered <= sent, "{numbered} were numbered, {sent} sent");
        }
    }
}
