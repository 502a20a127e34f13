//! What the relay reports, and whether the model agrees.

use std::rc::Rc;

use wardline_core::{LagRule, NotRelayed, PeerFault, Reason};

use crate::places::Place;
use crate::side::{Side, prefix};
use crate::view::{Entry, Leaving};

impl Side<'_> {
    pub(crate) fn published(&mut self, sender: usize, topic: usize, number: Option<u64>) {
        let nth = self.published;
        self.published += 1;
        let now_ns = self.now_ns;
        let limits = self.plan.limits;
        let view = &mut self.peers[sender].view;
        assert!(view.topic == topic, "published on a topic that it is not on");
        let envelope = view.judged(&limits, Ok(()), now_ns).expect("it was relayed");
        let envelope: Rc<[u8]> = envelope.into();
        if self.is_away(topic) {
            assert_eq!(number, None, "a number, away from home");
            self.sent(sender, topic, nth, envelope);
            return;
        }
        let mut others = (0_u32, 0_u32);
        for reader in &self.live {
            let view = &self.peers[*reader].view;
            if *reader != sender && view.topic == topic && view.is_there(nth) {
                others.0 += 1;
                others.1 += u32::from(view.leaving.is_none());
            }
        }
        let Some(number) = number else {
            assert_eq!(others.1, 0, "a message that nobody could read, and somebody was there");
            return;
        };
        self.sent(sender, topic, nth, Rc::clone(&envelope));
        assert!(
            others.0 > 0 || self.shards > 1,
            "a message with a number, and nobody else was there"
        );
        self.note_run(sender, topic, envelope.len());
        let topic_view = &mut self.topics[topic];
        assert_eq!(number, topic_view.next, "a number out of order");
        topic_view.next += 1;
        topic_view.head += envelope.len() as u64;
        let entry = Entry { number, end: topic_view.head, bytes: envelope };
        for reader in &self.live {
            let view = &mut self.peers[*reader].view;
            if *reader != sender && view.topic == topic && view.is_there(nth) {
                view.push(entry.clone(), now_ns);
                *self.heard.entry(*reader).or_default() += 1;
            }
        }
    }

    fn offend(&mut self) {
        self.offences += 1;
        self.shared.borrow_mut().offences += 1;
    }

    /// Looks for a reader for which the reference's slowdown holds this sender back.
    pub(crate) fn note_slowdown(&mut self, sender: usize) {
        let line = &self.plan.limits.line;
        let steps = [line.throttle, line.flow_control];
        let Some(least) = steps.iter().flatten().map(|step| step.threshold_messages).min() else {
            return;
        };
        let topic = self.peers[sender].view.topic;
        let lags = |reader: &usize| {
            let reader = &self.peers[*reader];
            reader.slow && reader.view.topic == topic && reader.view.queue.len() as u64 > least
        };
        if self.live.iter().any(lags) {
            self.places.hit(Place::Slowdown);
        }
    }

    /// Looks for a sender whose own run goes on over links while it is behind.
    fn note_run(&mut self, sender: usize, topic: usize, len: usize) {
        let limits = &self.plan.limits;
        let link = u64::from(limits.block_bytes.max(limits.segment_bytes));
        let (author, before) = self.topics[topic].run;
        let before = if author == sender { before } else { 0 };
        let after = before + len as u64;
        self.topics[topic].run = (sender, after);
        let behind = !self.peers[sender].view.queue.is_empty();
        if behind && before <= link && after > link {
            self.places.hit(Place::OwnRunAcrossLinks);
        }
        if behind && author != sender && self.peers[sender].view.last_number.is_some() {
            self.places.hit(Place::BetweenOwn);
        }
    }

    pub(crate) fn not_relayed(&mut self, sender: usize, why: NotRelayed) {
        let now_ns = self.now_ns;
        let limits = self.plan.limits;
        let none = self.peers[sender].view.judged(&limits, Err(why), now_ns);
        assert!(none.is_none(), "refused and relayed");
        self.offend();
        self.places.hit(match why {
            NotRelayed::Rate => Place::Rate,
            NotRelayed::LineTooLong => Place::LineTooLong,
            NotRelayed::EnvelopeTooLong => Place::EnvelopeTooLong,
            NotRelayed::BadUtf8 => Place::BadUtf8,
            NotRelayed::WrongDialect => Place::WrongDialect,
        });
    }

    pub(crate) fn gapped(&mut self, reader: usize, from: u64, to: u64) {
        let now_ns = self.now_ns;
        let peer = &mut self.peers[reader];
        let topic = &self.topics[peer.view.topic];
        assert_eq!(self.plan.limits.lag_rule, LagRule::Gap, "a gap, and the rule is another");
        assert!(from < to && to == topic.next, "a gap from {from} to {to} of {}", topic.next);
        assert!(peer.view.leaving.is_none(), "a gap for a connection that had left");
        self.places.hit(Place::Gap);
        if std::mem::take(&mut self.peers[reader].pressed) {
            self.places.hit(Place::JumpInFlight);
        } else {
            self.due_pressure(reader, "a gap");
        }
        let peer = &mut self.peers[reader];
        peer.view.gapped(from, to);
        peer.times.gap = now_ns;
    }

    /// Whether there was a reason to act against a slow reader.
    fn due_pressure(&mut self, reader: usize, what: &str) {
        let limits = self.plan.limits;
        let peer = &self.peers[reader];
        assert!(peer.was_slow, "{what} for a prompt reader");
        // The relay does not know yet what a send under way has come to.
        let before = peer.socket.flight.as_ref().map_or(u64::MAX, |flight| flight.from);
        let lag = self.topics[peer.view.topic].head - peer.view.last_end.min(before);
        let blind = self.plan.habits.blind;
        let (since, span) = if blind && peer.times.sent > 0 {
            (peer.times.sent, limits.progress_blind)
        } else {
            (peer.times.acknowledged, limits.progress)
        };
        let since = since.max(peer.times.came);
        // What came in at this very moment may have come after the decision.
        let still = since == self.now_ns || self.now_ns - since >= span.as_nanos();
        let far = lag > limits.lag_allowance() / 2;
        let threshold = limits.line.disconnect_threshold_messages.is_some();
        let paced = limits.lag_rule == LagRule::Pace;
        if still && !far {
            self.places.hit(Place::NoProgress);
        }
        if still || far || threshold || paced {
            return;
        }
        let said = format!("{what}, lag {lag}: {} {limits:?}", self.brief(reader));
        // A jump that was due may end as a cut, where there is no memory to tell it.
        assert!(!self.peers[reader].view.gaps.is_empty(), "{said}");
        self.doubt(self.settled, said);
    }

    pub(crate) fn leaving(&mut self, index: usize, reason: Reason) {
        let now_ns = self.now_ns;
        let limits = self.plan.limits;
        let peer = &self.peers[index];
        let topic = &self.topics[peer.view.topic];
        assert!(peer.view.leaving.is_none(), "it left twice");
        let mut owed = None;
        let since = |then: u64| now_ns.saturating_sub(then);
        match reason {
            Reason::Peer => {
                let ended = peer.socket.fin_told && !peer.socket.broken && !peer.gone;
                assert!(ended || peer.socket.broken || peer.gone, "it left of itself, and had not");
                let heard = peer.view.waiting_bytes() == 0;
                assert!(
                    !ended || heard || self.short.is_some(),
                    "it left before its lines were taken"
                );
                owed = ended.then_some(topic.next);
            }
            Reason::Shutdown => {
                assert!(self.shutdown, "a shutdown that nobody asked for");
                owed = Some(topic.next);
            }
            Reason::Fault(PeerFault::BadUtf8 | PeerFault::WrongDialect) => {}
            Reason::Fault(PeerFault::Unfinished) => {
                let span = limits.unfinished.as_nanos();
                let long = peer.view.is_unfinished() && since(peer.view.unfinished_ns) >= span;
                // What came in at this very moment came after the decision.
                let just = peer.times.heard == now_ns || peer.times.ended == now_ns;
                assert!(long || just, "no line: {}", self.brief(index));
                self.places.hit(Place::Unfinished);
                self.offend();
            }
            Reason::Fault(PeerFault::Idle) => {
                self.places.hit(Place::Idle);
                let idle = limits.line.idle.as_nanos();
                let mut last = peer.times.heard;
                if limits.line.listening_is_activity {
                    let blind = self.plan.habits.blind;
                    last = last.max(if blind { peer.times.sent } else { peer.times.taken });
                }
                let just = last == now_ns || peer.times.acknowledged == now_ns;
                let idle_long = just || since(last) >= idle;
                assert!(idle > 0 && idle_long, "it was not idle: {}", self.brief(index));
            }
            Reason::Fault(PeerFault::SlowReader) => {
                self.places.hit(Place::Cut);
                self.offend();
                if !self.peers[index].pressed {
                    self.due_pressure(index, "a cut");
                }
            }
            Reason::Fault(PeerFault::Overloaded) => self.places.hit(Place::Overloaded),
            Reason::Fault(PeerFault::Evicted) => {}
            Reason::Fault(PeerFault::Native(code)) => panic!("{code:?} to a client of lines"),
            Reason::Fault(PeerFault::NoProxyHeader) | Reason::Refused(_) => {
                panic!("{reason:?} to who was taken")
            }
        }
        let leaving = Leaving { reason, at_ns: now_ns, step: self.settled, owed };
        self.peers[index].view.leaving = Some(leaving);
    }

    pub(crate) fn struck(&mut self, index: usize, seconds: u32) {
        self.places.hit(Place::Struck);
        let view = &mut self.peers[index].view;
        view.rate.strike(self.now_ns, seconds);
        if seconds > 0 {
            let prefix = prefix(view.addr.ip());
            let until = self.now_ns + u64::from(seconds - 1) * 1_000_000_000;
            let known = self.banned.entry(prefix).or_insert(until);
            *known = until.max(*known);
        }
    }
}
