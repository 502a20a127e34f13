//! What the relay tells a native client, and what follows from it.

use wardline_core::Right;
use wardline_core::native::{Code, FrameKind, Identity, ServerControl, flags};

use super::link::{Ask, Link, Sent};
use super::net::Owner;
use super::reader::Sub;
use super::side::Side;
use super::states::State;

/// What who is told who comes and goes must be allowed.
const WATCHING: [Right; 3] = [Right::Connect, Right::Subscribe, Right::Who];
/// Numbers that a window spans.
pub(crate) const WINDOW: u64 = 1_024;

impl Side<'_> {
    pub(crate) fn told(&mut self, index: usize, link: &mut Link, value: &[u8]) {
        let value = ServerControl::decode(value).expect("a value that is none");
        let first = matches!(value, ServerControl::Taken { .. });
        assert_eq!(first, !link.live, "Taken is first, and once");
        match value {
            ServerControl::Taken { mid, seen, direct } => {
                self.taken(index, link, mid, seen, direct);
            }
            ServerControl::Subscribed { ask, topic, epoch, next, oldest } => {
                self.subscribed(link, ask, topic, (epoch, next, oldest));
                self.send_again(index, link);
            }
            ServerControl::Opened { ask, topic } => {
                let Some((Ask::Open { name }, step)) = link.asks.remove(&ask) else {
                    panic!("an answer to nothing")
                };
                let who = self.agents[link.agent].identity;
                let denied = |right| self.rights.denied_since(&who, right, step);
                let due = !denied(Right::Publish) || !denied(Right::Who);
                assert!(due, "it may neither publish nor know who reads");
                let sub = link.subs.entry(topic).or_insert_with(|| Sub::open(name));
                let other = sub.name != name && sub.given_up.is_some();
                if other || sub.given_up.is_some_and(|given_up| given_up <= step) {
                    *sub = Sub::open(name);
                }
                assert_eq!(sub.name, name, "a topic's number is another's");
                self.send_again(index, link);
            }
            ServerControl::Refused { ask, code, .. } => self.asked_in_vain(link, ask, code),
            ServerControl::Nack { mid, code, .. } => self.nacked(link, mid, code),
            ServerControl::Verdict { mid, offset, readers } => {
                self.verdict(link, mid, offset, readers);
            }
            ServerControl::Gap { topic, from, to, reason } => {
                self.gap(index, link, (topic, from, to, reason));
            }
            ServerControl::Identity { ask, handle, identity, device } => {
                self.identified(link, ask, handle, (identity, device));
            }
            ServerControl::Done { ask, next } => self.done(index, link, ask, next),
            ServerControl::Joined { topic, handle } => self.presence(link, topic, handle, true),
            ServerControl::Left { topic, handle } => self.presence(link, topic, handle, false),
            ServerControl::Credit { peer, corr, bytes } => {
                let wild = self.truth.handles.get(&peer).is_some_and(|of| self.agents[*of].wild);
                let given = self.truth.credits.contains(&(peer, link.handle, corr, bytes));
                assert!(given || wild, "credit that nobody gave");
                self.states.hit(State::Credit);
            }
        }
    }

    fn subscribed(
        &mut self,
        link: &mut Link,
        ask: u32,
        topic: u32,
        (epoch, next, oldest): (u64, u64, u64),
    ) {
        let Some((Ask::Subscribe { name, from, echo, presence, .. }, step)) =
            link.asks.remove(&ask)
        else {
            panic!("an answer to nothing")
        };
        let number = *self.truth.numbers.entry((name, epoch)).or_insert(topic);
        assert_eq!(number, topic, "a topic of two numbers");
        let lives = self.truth.lives.entry(name).or_default();
        if lives.insert(epoch) && lives.len() > 1 {
            self.states.hit(State::MadeAgain);
        }
        let sub = link.subs.entry(topic).or_insert_with(|| Sub::open(name));
        if sub.name != name && sub.given_up.is_some() {
            *sub = Sub::open(name);
        }
        assert_eq!(sub.name, name, "a topic's number is another's");
        assert!(!sub.reads || sub.given_up.is_some(), "subscribed twice");
        // It may have been given up since it was asked for.
        let given_up = sub.given_up.filter(|given_up| *given_up > step);
        sub.read(from, epoch, next, oldest);
        sub.given_up = given_up;
        sub.echo = echo;
        sub.presence = presence;
        sub.asked = step;
        sub.told = self.step;
        if sub.pos < next {
            self.states.hit(State::CaughtUp);
        }
        let at = sub.expected.map_or(sub.pos, |(_, to, _)| to);
        if let Some(want) = self.agents[link.agent].wants.get_mut(&name) {
            want.at = Some((epoch, at));
        }
    }

    fn asked_in_vain(&mut self, link: &mut Link, ask: u32, code: u16) {
        self.states.hit(State::AskRefused);
        let (asked, step) = link.asks.remove(&ask).expect("an answer to nothing");
        let who = self.agents[link.agent].identity;
        let denied = |right| self.may_be_denied(&who, right, step);
        let code = Code::from_wire(code).expect("a code that is none");
        let due = match (&asked, code) {
            (Ask::Subscribe { presence, .. }, Code::Forbidden) => {
                denied(Right::Subscribe) || (*presence && denied(Right::Who))
            }
            (Ask::Subscribe { after, .. }, Code::BadState) => *after,
            (Ask::Open { .. }, Code::Forbidden) => denied(Right::Publish) && denied(Right::Who),
            (Ask::Subscribe { .. } | Ask::Open { .. }, Code::Overloaded) => {
                let limits = &self.plan.limits;
                let topics = limits.topics as usize <= self.plan.names;
                self.plan.subs < 200 || limits.native.subscriptions < 10 || topics
            }
            (Ask::Resolve { .. }, Code::Forbidden) => denied(Right::Request),
            (Ask::Identify { .. }, Code::NoRoute) => true,
            (Ask::Who { topic, .. }, Code::Forbidden) => {
                let there = link.subs.get(topic).is_some_and(|sub| sub.given_up.is_none());
                denied(Right::Who) || !there
            }
            _ => false,
        };
        assert!(due, "{asked:?} was refused without a cause: {code:?}");
        if let Ask::Subscribe { name, .. } = asked
            && code != Code::BadState
        {
            self.agents[link.agent].wants.remove(&name);
        }
    }

    fn nacked(&mut self, link: &mut Link, mid: u64, code: u16) {
        let truth = &self.truth;
        let mut of = link.sent.iter_mut();
        let sent = of.find(|sent| truth.msgs[sent.msg].header.mid == mid && sent.nacked.is_none());
        let code = Code::from_wire(code).expect("a code that is none");
        let Some(sent) = sent else { return self.returned(link, mid, code) };
        sent.nacked = Some(code);
        let (msg, step) = (sent.msg, sent.step);
        let said = &self.truth.msgs[msg];
        let publish = said.header.kind == FrameKind::Publish;
        let right = if publish { Right::Publish } else { Right::Request };
        let who = self.agents[link.agent].identity;
        let (due, state) = match code {
            Code::Forbidden => {
                let gone = said.name.is_some_and(|name| link.number(name).is_none());
                let to_bridge = !publish && said.header.flags & flags::BRIDGED != 0;
                let due =
                    said.forbidden || gone || to_bridge || self.may_be_denied(&who, right, step);
                (due, State::NackForbidden)
            }
            Code::NoRoute => (!publish, State::NackNoRoute),
            Code::Busy => (true, State::NackBusy),
            Code::Duplicate => (said.txs.len() > 1, State::NackDuplicate),
            Code::Stale => {
                let agent = &self.agents[link.agent];
                let other = link.epoch_ms != agent.epoch_ms;
                (other || agent.mid >= mid + WINDOW, State::NackStale)
            }
            Code::TooLarge => (true, State::NackTooLarge),
            Code::Overloaded => (!publish, State::NackOverloaded),
            _ => (false, State::NackBusy),
        };
        assert!(due, "message {msg} was refused without a cause: {code:?}");
        // It is one of another that was not refused by then.
        let said = &self.truth.msgs[msg];
        let first = code != Code::Duplicate || said.nacks + 1 < said.txs.len();
        assert!(first, "message {msg} is no duplicate");
        self.states.hit(state);
        self.refused_once_more(msg);
    }

    /// What was queued for a peer comes back, for its connection ended: a PONG said before that it
    /// was taken.
    fn returned(&mut self, link: &Link, mid: u64, code: Code) {
        let own = Owner::Agent(link.agent);
        let mut all = self.truth.msgs.iter().enumerate().rev();
        let msg = all.find(|(_, said)| said.header.mid == mid && said.owner == own);
        let (msg, said) = msg.expect("a NACK of what was not sent");
        let peer = said.header.kind != FrameKind::Publish && !said.txs.is_empty();
        // An answer to the second may be the one to the first, and what is left is any.
        let ended = matches!(code, Code::NoRoute | Code::Busy);
        // What its connection ended before: a peer's shard refuses for other reasons, too.
        let judged = matches!(code, Code::TooLarge | Code::Overloaded | Code::Forbidden);
        let judged = judged && self.plan.shards > 1;
        let due = peer && (said.nacks > 0 || ended || judged);
        assert!(due, "message {msg} came back without a cause: {code:?}");
        self.states.hit(State::Returned);
        self.refused_once_more(msg);
    }

    /// What was refused as often as it was sent nobody has.
    fn refused_once_more(&mut self, msg: usize) {
        let said = &mut self.truth.msgs[msg];
        said.nacks += 1;
        assert!(said.nacks <= said.txs.len(), "message {msg} was refused too often");
        let peer = said.header.kind != FrameKind::Publish;
        let had = peer && said.direct.is_some();
        assert!(!had || said.nacks < said.txs.len(), "message {msg} was had and refused");
    }

    fn verdict(&mut self, link: &mut Link, mid: u64, offset: u64, readers: u32) {
        let told = link.verdicts.insert(mid, true);
        assert_eq!(told, Some(false), "a verdict that nobody asked for");
        let truth = &self.truth;
        let of = |sent: &&Sent| truth.msgs[sent.msg].header.mid == mid && sent.nacked.is_none();
        let sent = link.sent.iter().find(of).expect("a verdict of what was not sent");
        let (msg, step) = (sent.msg, sent.step);
        let name = self.truth.msgs[msg].name.expect("a topic");
        if let Some(epoch) = sent.epoch {
            let place = (name, epoch, offset);
            let known = *self.truth.msgs[msg].place.get_or_insert(place);
            assert_eq!(known, place, "message {msg} was taken twice");
        }
        self.is_taken(msg);
        // One that reads it anew while the end of before is under way counts twice.
        assert!(readers as usize <= self.conns.len() * 2, "more readers than connections");
        let who = self.agents[link.agent].identity;
        if self.rights.denied_since(&who, Right::Who, step) {
            assert_eq!(readers, 0, "it may not know that");
            self.states.hit(State::VerdictBlind);
        } else if self.at_rest {
            self.readers_are_all(name, readers);
        }
        self.states.hit(State::Verdict);
    }

    fn identified(
        &mut self,
        link: &mut Link,
        ask: u32,
        handle: u64,
        (identity, device): ([u8; 32], u32),
    ) {
        let (asked, _) = link.asks.get_mut(&ask).expect("an answer to nothing");
        let mut agents = self.agents.iter();
        let of = agents.position(|of| *of.identity.as_bytes() == identity && of.device == device);
        match asked {
            Ask::Identify { handle: of } => assert_eq!(*of, handle),
            Ask::Resolve { who, found } => {
                let who = self.agents[*who].identity;
                assert_eq!(identity, *who.as_bytes(), "somebody else's session");
                found.push(handle);
            }
            Ask::Who { found, .. } => found.push(handle),
            Ask::Subscribe { .. } | Ask::Open { .. } => panic!("an answer of another kind"),
        }
        if matches!(asked, Ask::Identify { .. }) {
            link.asks.remove(&ask);
        }
        if identity == [0; 32] {
            let known = self.truth.line_handles.contains_key(&handle);
            // Of another shard nothing is known but how its handles look.
            let far = (0..self.plan.shards as u64).contains(&(handle >> 56));
            let far = far && handle & 1 << 23 != 0;
            assert!(known || far, "a line client of no handle");
            if far {
                self.states.hit(State::FarIdentified);
            }
            return;
        }
        let of = of.expect("an identity that nobody has");
        let known = *self.truth.handles.entry(handle).or_insert(of);
        assert_eq!(known, of, "a handle of somebody else");
    }

    fn done(&mut self, index: usize, link: &mut Link, ask: u32, next: u64) {
        let (asked, step) = link.asks.remove(&ask).expect("an answer to nothing");
        match asked {
            Ask::Resolve { found, .. } => {
                assert_eq!(next, 0);
                self.agents[link.agent].peers.extend(found);
            }
            Ask::Who { name, topic, found, pages } => {
                let unique: std::collections::BTreeSet<_> = found.iter().collect();
                assert!(unique.len() == found.len() || pages > 0, "somebody twice on a page");
                if next == 0 {
                    self.agents[link.agent].peers.extend(&found);
                    self.who_is_all(link, (name, topic), &found);
                    return;
                }
                self.states.hit(State::WhoPages);
                link.ask += 1;
                let ask = link.ask;
                let who = Ask::Who { name, topic, found, pages: pages + 1 };
                link.asks.insert(ask, (who, step));
                let value = wardline_core::native::ClientControl::Who { ask, topic, after: next };
                self.control(index, link, &value);
            }
            other => panic!("an end of what is one answer: {other:?}"),
        }
    }

    /// When everything is at rest, how many read a topic is known: one of lines may be there that
    /// has said nothing yet.
    fn readers_are_all(&mut self, name: usize, readers: u32) {
        let reads = |link: &Link| {
            let mut subs = link.subs.values();
            subs.any(|sub| sub.name == name && sub.reads && sub.given_up.is_none())
        };
        let others = self.live.iter().filter_map(|index| self.links[*index].as_deref());
        let natives = others.filter(|other| other.is_live() && reads(other)).count();
        let lines = self.texts.iter().filter(|text| text.name == name && text.conn.is_some());
        let most = natives + lines.count();
        let counted = readers as usize;
        assert!((natives..=most).contains(&counted), "{counted} of {natives} to {most} readers");
        self.states.hit(State::ReadersCounted);
    }

    /// When everything is at rest, who reads a topic is known.
    fn who_is_all(&self, link: &Link, (name, topic): (usize, u32), found: &[u64]) {
        if !self.at_rest {
            return;
        }
        let mut expected: Vec<u64> = Vec::new();
        let others = self.live.iter().filter_map(|index| self.links[*index].as_deref());
        for other in others.chain([link]) {
            let reads = |sub: &Sub| sub.name == name && sub.reads && sub.given_up.is_none();
            if other.is_live() && other.subs.get(&topic).is_some_and(reads) {
                expected.push(other.handle);
            }
        }
        let mut found = found.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "who reads {name}");
    }

    fn presence(&mut self, link: &mut Link, topic: u32, handle: u64, came: bool) {
        self.states.hit(if came { State::Joined } else { State::Left });
        let Some(sub) = link.subs.get_mut(&topic) else { panic!("of a topic not open") };
        assert!(sub.presence, "nobody asked who comes and goes");
        assert!(handle != link.handle && handle != 0, "of nobody, or of itself");
        let before = sub.present.insert(handle, came);
        let (asked, name) = (sub.asked, sub.name);
        let who = self.agents[link.agent].identity;
        let denied = WATCHING.map(|right| self.rights.denied_since(&who, right, link.ponged));
        assert!(!denied.contains(&true), "it may not know who comes and goes");
        let all = before != Some(came) || self.missed_presence(&who, asked);
        assert!(all, "handle {handle:x} twice on {name}");
    }

    /// Whether somebody may not have been told who came and went since a step.
    pub(crate) fn missed_presence(&self, who: &Identity, step: u64) -> bool {
        WATCHING.iter().any(|right| self.may_be_denied(who, *right, step))
    }
}
