//! What became of messages: taken or refused, as a PONG, a CLOSE or a later connection says.

use wardline_core::native::{Close, Code, FrameKind};
use wardline_core::{PeerFault, Reason, Right};

use super::link::{Link, Pinging, Stage};
use super::side::Side;
use super::states::State;
use super::told::WINDOW;

impl Side<'_> {
    /// Which messages were taken: exactly the others are sent again.
    pub(crate) fn taken(
        &mut self,
        index: usize,
        link: &mut Link,
        mid: u64,
        seen: &[u8],
        direct: u64,
    ) {
        link.live = true;
        link.live_ns = self.now_ns;
        link.direct = direct;
        self.lost_directs(link);
        let fresh = self.heard.insert(link.handle);
        if !link.resumed {
            self.bases.entry(link.handle).or_insert(direct);
        }
        let program = link.epoch_ms == self.agents[link.agent].epoch_ms;
        if !program {
            return;
        }
        let agent = &mut self.agents[link.agent];
        if let Some(old) = agent.link.replace(index)
            && old != index
            && !self.conns[old].gone
        {
            // One is enough for the client.
            self.reset(old);
        }
        let agent = &mut self.agents[link.agent];
        let open: Vec<(u64, usize)> = agent.open.iter().map(|(mid, msg)| (*mid, *msg)).collect();
        agent.open.clear();
        agent.again.clear();
        for (of, msg) in open {
            let bit = |age: u64| seen[(age / 8) as usize] & (1 << (age % 8)) != 0;
            match mid.checked_sub(of) {
                // The relay holds nothing: nobody knows.
                _ if mid == 0 && fresh => {}
                Some(age) if age >= WINDOW => self.states.hit(State::BelowWindow),
                Some(age) if bit(age) => {
                    self.states.hit(State::TakenAcross);
                    self.is_taken_so_far(msg);
                }
                // The newest may have come back, and nobody knows of what was below its window.
                None | Some(_) if self.agents[link.agent].mid >= of + WINDOW => {
                    self.states.hit(State::BelowWindow);
                }
                None | Some(_) => self.not_taken(link, msg),
            }
        }
        self.go_on(index, link);
    }

    /// The relay has a message. A shard may refuse it yet, until a PONG says that it did not.
    fn is_taken_so_far(&mut self, msg: usize) {
        let publish = self.truth.msgs[msg].header.kind == FrameKind::Publish;
        if publish || self.plan.shards == 1 {
            self.is_taken(msg);
        }
    }

    /// What peers sent and a connection of before did not bring is lost, and counted.
    pub(crate) fn lost_directs(&mut self, link: &Link) {
        let before = self.links.iter().flatten().filter(|other| other.handle == link.handle);
        let Some(before) =
            before.filter(|other| other.live || other.is_over()).map(|it| it.direct).max()
        else {
            return;
        };
        assert!(link.racing || link.direct >= before, "numbers of directs went back");
        if link.direct > before {
            self.states.hit(State::DirectLost);
        }
    }

    pub(crate) fn not_taken(&mut self, link: &Link, msg: usize) {
        let said = &self.truth.msgs[msg];
        // What was queued for a peer may have come back.
        let publish = said.header.kind == FrameKind::Publish;
        let known = if publish { said.taken } else { said.direct.is_some() } && !link.racing;
        assert!(
            !known,
            "message {msg} was taken and is not seen {:?} {}",
            self.truth.msgs[msg], link.resumed
        );
        if !self.truth.msgs[msg].taken {
            self.agents[link.agent].again.push(msg);
        }
    }

    /// All that was sent before a PING was seen to.
    pub(crate) fn ponged(&mut self, index: usize, link: &mut Link) {
        let Pinging { records, over, step } = link.ping.take().expect("the PONG of no PING");
        link.ponged = step;
        self.settled(index, link, records, true);
        for (topic, given_up) in over {
            if link.subs.get(&topic).is_some_and(|sub| sub.given_up == given_up) {
                link.subs.remove(&topic);
            }
        }
    }

    /// All that went out in the first `records` records was taken or refused.
    /// `ponged`: its PONG says so, not its CLOSE.
    pub(crate) fn settled(&mut self, index: usize, link: &mut Link, records: u64, ponged: bool) {
        let all = std::mem::take(&mut link.sent);
        let (over, rest): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|sent| sent.record < records);
        link.sent = rest;
        let mut by_msg: std::collections::BTreeMap<usize, Vec<Option<Code>>> = Default::default();
        for sent in over {
            by_msg.entry(sent.msg).or_default().push(sent.nacked);
        }
        for (msg, outcomes) in by_msg {
            let taken = outcomes.iter().filter(|code| code.is_none()).count();
            let before = self.truth.msgs[msg].txs.iter().any(|tx| tx.conn != index);
            assert!(taken <= 1, "message {msg} was taken {taken} times");
            let said = &self.truth.msgs[msg];
            let mid = said.header.mid;
            // One that was queued for a peer may have come back after its second was refused.
            let topic = said.header.kind == FrameKind::Publish;
            let refused = topic && outcomes.contains(&Some(Code::Duplicate));
            assert!(!refused || taken == 1 || before || said.taken, "{msg} is no duplicate");
            if taken == 1 {
                link.took += 1;
                if ponged {
                    self.is_taken(msg);
                } else {
                    self.is_taken_so_far(msg);
                }
                let asked = link.verdicts.get(&mid);
                // A CLOSE does not wait for other shards.
                let due = ponged || self.plan.shards == 1;
                assert!(!due || asked != Some(&false), "no verdict of message {msg} {outcomes:?}");
            }
            if link.sent.iter().all(|sent| sent.msg != msg) {
                link.verdicts.remove(&mid);
                self.agents[link.agent].open.remove(&mid);
            }
        }
        self.at_the_rate(link);
    }

    /// Nobody sends faster than it may.
    pub(crate) fn at_the_rate(&self, link: &Link) {
        let rate = u64::from(self.plan.limits.native.messages_per_second);
        let span = self.now_ns - link.live_ns;
        let most = rate * 2 + rate * span / 1_000_000_000 + 2;
        assert!(rate == 0 || link.took <= most, "{} messages in {span} ns", link.took);
    }

    /// Somebody on the path ended a connection: its session waits for its client.
    pub(crate) fn keeps(&mut self, index: usize, link: &Link) {
        let native = &self.plan.limits.native;
        let lost_ns = self.conns[index].meddled_ns + native.resume.as_nanos();
        let agent = &mut self.agents[link.agent];
        let over_ns = agent.born_ns + native.resume_total.as_nanos();
        let kept = agent.resumption.filter(|_| !link.racing);
        agent.kept = kept.map(|kept| (kept.sid, lost_ns.min(over_ns), index));
    }

    /// A session was not to be had back.
    pub(crate) fn not_held(&mut self, index: usize, link: &Link) {
        self.states.hit(State::NotHeld);
        let agent = &self.agents[link.agent];
        let Some((sid, until_ns, lost)) = agent.kept else { return };
        // It may have ended by something else before.
        let by_path = match self.conns[lost].leaving {
            Some(Reason::Fault(PeerFault::Native(code))) => code.session_survives(),
            Some(reason) => reason == Reason::Peer,
            None => false,
        };
        let same = link.resume.is_some_and(|resume| resume.sid == sid);
        let full = self.plan.entries < 64 || self.short;
        let withdrawn = |right| self.rights.denied_after(&agent.identity, right, 0);
        let denied = withdrawn(Right::Connect) || withdrawn(Right::Subscribe);
        let excused = full || denied || link.racing || agent.wild || self.conns[index].meddled;
        assert!(
            !same || !by_path || excused || self.now_ns >= until_ns,
            "a bit that was flipped ended a session"
        );
    }

    /// The relay's CLOSE.
    pub(crate) fn closed(&mut self, index: usize, link: &mut Link, close: Close) {
        let agent = &self.agents[link.agent];
        let (wild, program) = (agent.wild, link.epoch_ms == agent.epoch_ms);
        let code = Code::from_wire(close.code).expect("a code that is none");
        if !wild {
            let due = match code {
                Code::Normal => link.closing,
                Code::GoingAway | Code::Idle | Code::Superseded | Code::Overloaded => true,
                Code::TooManyConnections => self.evicted,
                // Or its replica found no room.
                Code::SlowReader => {
                    let evicted = Reason::Fault(PeerFault::Evicted);
                    let conn = &self.conns[index];
                    conn.slow || conn.leaving == Some(evicted)
                }
                // What it may was taken from it meanwhile.
                Code::Refused => {
                    let who = self.agents[link.agent].identity;
                    self.may_be_denied(&who, Right::Subscribe, 0)
                        || self.may_be_denied(&who, Right::Connect, 0)
                }
                // Whatever it was that somebody on the path did: the session is there.
                Code::BadTag | Code::BadSeq => self.conns[index].meddled,
                _ => false,
            };
            assert!(due, "connection {index} was closed without a cause: {code:?}");
            assert!(close.taken <= link.records.expect("keys").sending.sent());
            // After its own CLOSE it did not hear of refusals any more.
            if link.live && !link.closing {
                self.settled(index, link, close.taken, false);
            }
        }
        let records = link.records.as_mut().expect("keys");
        if !link.closing {
            self.states.hit(State::ClosedByRelay);
            if let Ok(record) = records.close(Code::Normal, 0, 0, 0) {
                self.conns[index].up.extend(record);
            }
        } else {
            self.states.hit(State::ClosedByClient);
        }
        let survives = code.session_survives() && !link.closing;
        if program && matches!(code, Code::BadTag | Code::BadSeq) {
            self.keeps(index, link);
        }
        let agent = &mut self.agents[link.agent];
        if program && !survives && code != Code::Superseded {
            agent.resumption = None;
        }
        link.stage = Stage::Over;
        if !self.conns[index].reset {
            self.conns[index].fin = true;
        }
    }
}
