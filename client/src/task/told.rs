//! What the relay tells.

use std::time::Duration as StdDuration;

use wardline_core::native::client::{DirectLost, Loss, Ready, Took};
use wardline_core::native::envelope::EnvelopeFault;
use wardline_core::native::{
    Code, Frame, FrameHeader, FrameKind, GapReason, Identity, ServerControl, flags,
};
use wardline_core::{Duration, Instant};

use super::Joined;
use super::asks::{Asked, Wish};
use super::connect::clock_ms;
use super::deliver::Delivery;
use super::letters::{Opened, Place};
use super::outbox::{To, outcome};
use super::run::{Ping, Task};
use crate::client::{Client, Peer};
use crate::dialogue::{Direct, Request};
use crate::envelopes::Signed;
use crate::error::{Error, Refusal};
use crate::event::{Event, LostWhy, Message, Report};
use crate::payload::{Verdict, span};

/// Handles that this client had, of which messages may still come.
const HANDLES_MAX: usize = 8;
/// A topic that the relay has no room for is asked for again after so long, at least.
const RETRY_LEAST: Duration = Duration::from_secs(1);

impl Task {
    /// Acts upon a record.
    ///
    /// # Errors
    /// The relay's fault.
    pub(super) fn took(&mut self, now: Instant, took: Took<'_>) -> Result<(), Code> {
        match took {
            Took::Nothing => {}
            Took::Ready(ready) => self.ready(ready),
            Took::Pong(number, rtt) => self.pong(number, rtt),
            Took::Frames(frames) => {
                for frame in frames {
                    self.frame(&frame)?;
                }
            }
            Took::Control(value) => self.control_came(now, &value),
            Took::Close(close) => {
                let (number, retry_ms) = (close.code, close.retry_ms);
                self.closed_loss = Loss::Closed { number, retry_ms };
                let covered = self.session.is_covered();
                if let Some(closing) = &mut self.closing {
                    closing.covered = covered;
                    let refusal = Refusal::new(close.code, close.retry_ms);
                    closing.refusal = (close.code != 0).then_some(refusal);
                }
            }
        }
        self.settle();
        Ok(())
    }

    fn ready(&mut self, ready: Ready) {
        let first = self.handles.is_empty();
        if !first {
            self.shared.report(if ready.resumed { Report::Resumed } else { Report::Reconnected });
        }
        if let Some(lost) = ready.lost {
            self.direct_lost(lost);
        }
        self.handles.retain(|handle| *handle != self.session.handle());
        self.handles.push(self.session.handle());
        if self.handles.len() > HANDLES_MAX {
            self.handles.remove(0);
        }
        if !ready.resumed && !first {
            self.void_handles();
        }
        let news = if ready.resumed { Event::Resumed } else { Event::Reconnected };
        let (read, open) = self.topics.wanted();
        for place in read {
            let Some(topic) = self.topics.at(place) else { continue };
            topic.asked = true;
            if let Some(reader) = &mut topic.reader
                && reader.epoch.is_some()
            {
                reader.news = Some(news.clone());
            }
            self.asks.wish(Wish::Subscribe(place));
        }
        for place in open {
            self.want_number(place);
        }
        self.barrier_due = true;
    }

    /// Handles learned before a full handshake are void. What was for peers is not sent again: the
    /// handle may be somebody else's by now.
    fn void_handles(&mut self) {
        self.asks.forget_credits();
        self.dialogues.fail_all(&Error::SessionGone);
        for mid in self.outbox.for_peers() {
            self.session.withdraw(mid);
        }
    }

    fn direct_lost(&mut self, lost: DirectLost) {
        self.shared.report(Report::DirectLost { from: lost.from, to: lost.to });
        self.dialogues.lost();
    }

    fn pong(&mut self, number: u64, rtt: Duration) {
        let rtt = StdDuration::from_nanos(rtt.as_nanos());
        let answered = |ping: &mut Ping| ping.number != 0 && ping.number <= number;
        for ping in self.pings.extract_if(.., answered) {
            // Who no longer waits does not want to know.
            let _ = ping.done.send(Ok(rtt));
        }
    }

    /// Tells who waits for messages of which it is known what became of them.
    pub(super) fn settle(&mut self) {
        while let Some((mid, fate)) = self.session.poll_settled() {
            if self.outbox.pop(mid, fate, &self.shared) {
                self.dialogues.fail(mid, Error::Unsure);
            }
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), Code> {
        let header = &frame.header;
        if header.kind == FrameKind::Publish {
            self.published(frame);
            return Ok(());
        }
        if let Some(lost) = self.session.direct(header)? {
            self.direct_lost(lost);
        }
        let place = match self.dialogues.asked_of(header) {
            _ if !header.kind.is_answer() => Place::DIRECT,
            Some(sender) => Place { sender, answers: true, ..Place::DIRECT },
            // Nobody asked: dropped.
            None => return Ok(()),
        };
        let opened = match self.letters.open(frame, place, clock_ms()) {
            Ok(opened) => opened,
            Err(fault) => {
                self.untrusted_direct(header, fault);
                return Ok(());
            }
        };
        // Of a request it is for how long its answer is waited for, by the clock of who asks.
        let direct = header.kind == FrameKind::Direct;
        if direct && is_late(header, opened.signed, clock_ms()) {
            let (sender, mid) = (header.peer, header.mid);
            self.shared.report(Report::Late { sender, mid });
            return Ok(());
        }
        match header.kind {
            FrameKind::Publish => {}
            FrameKind::Direct => self.directed(header, &opened),
            FrameKind::Request => self.requested(header, &opened),
            FrameKind::Reply | FrameKind::Stream => {
                if let Err(fault) = self.dialogues.answer(header, &opened) {
                    self.untrusted_direct(header, fault);
                }
            }
        }
        Ok(())
    }

    /// What is for this client alone is kept back.
    fn untrusted_direct(&mut self, header: &FrameHeader, fault: EnvelopeFault) {
        let (sender, mid) = (header.peer, header.mid);
        self.shared.status().untrusted += 1;
        if header.kind.is_answer() {
            self.dialogues.fail(header.corr, Error::Untrusted(fault));
        }
        self.shared.report(Report::Untrusted { sender, mid, fault });
    }

    fn directed(&mut self, header: &FrameHeader, opened: &Opened<'_>) {
        let (sender, mid, flags) = (header.peer, header.mid, header.flags);
        match self.dialogues.directs.clone() {
            Some(taker) if !taker.is_closed() => {
                let (signed, payload) = (opened.signed, opened.payload.to_vec());
                let direct = Direct { sender, mid, flags, signed, payload };
                self.deliveries.give(Delivery::Direct(taker, direct));
            }
            Some(_) | None => self.shared.report(Report::Unwanted { sender }),
        }
    }

    fn requested(&mut self, header: &FrameHeader, opened: &Opened<'_>) {
        let (sender, mid) = (header.peer, header.mid);
        let taker = self.dialogues.requests.clone().filter(|taker| !taker.is_closed());
        let (Some(taker), Some(inner)) = (taker, self.inner.upgrade()) else {
            self.shared.report(Report::Unwanted { sender });
            return;
        };
        let Some(credit) = self.dialogues.asked(sender, mid) else {
            self.shared.report(Report::Unwanted { sender });
            return;
        };
        let (client, payload) = (Client::new(inner), opened.payload.to_vec());
        let (flags, ttl_ms, signed) = (header.flags, header.ttl_ms, opened.signed);
        let request = Request { client, sender, mid, flags, ttl_ms, signed, payload, credit };
        self.deliveries.give(Delivery::Request(taker, request));
    }

    fn published(&mut self, frame: &Frame<'_>) {
        let header = &frame.header;
        let own = self.is_own(frame);
        if own && header.peer == self.session.handle() {
            self.session.echo(header.mid);
        }
        let Some(place) = self.topics.by_number(header.topic) else { return };
        let Some(topic) = self.topics.at(place) else { return };
        let Some(reader) = &mut topic.reader else { return };
        if header.offset < reader.next {
            // It was had before the connection was lost.
            return;
        }
        reader.next = header.offset.saturating_add(1);
        if own && !reader.reading.echo {
            return;
        }
        if reader.events.is_closed() {
            let id = reader.id;
            self.unsubscribe(place, id);
            return;
        }
        let (to, name) = (reader.events.clone(), topic.name.clone());
        let (when, sender) = (reader.when(header.offset), None);
        let place = Place { topic: Some(&name), when, sender, answers: false };
        let (sender, offset) = (header.peer, header.offset);
        let now_ms = clock_ms();
        let event = match self.letters.open(frame, place, now_ms) {
            Ok(Opened { signed, .. }) if is_late(header, signed, now_ms) => {
                Event::Expired { offset, sender }
            }
            Ok(Opened { payload, signed, history }) => Event::Message(Message {
                topic: name.clone(),
                offset,
                sender,
                mid: header.mid,
                class: header.class,
                ttl: span(header.ttl_ms),
                flags: header.flags,
                signed,
                history,
                payload: payload.to_vec(),
            }),
            Err(fault) => {
                self.shared.status().untrusted += 1;
                Event::Untrusted { offset, sender, fault }
            }
        };
        self.deliveries.give(Delivery::Event(to, event));
    }

    fn is_own(&self, frame: &Frame<'_>) -> bool {
        let header = &frame.header;
        let given = self.mids.is_some_and(|(from, to)| from <= header.mid && header.mid <= to);
        given && !header.has(flags::LINE) && self.handles.contains(&header.peer)
    }

    fn control_came(&mut self, now: Instant, value: &ServerControl<'_>) {
        match *value {
            ServerControl::Subscribed { ask, topic, epoch, next, oldest } => {
                self.subscribed(ask, topic, (epoch, next, oldest));
            }
            ServerControl::Opened { ask, topic } => {
                if let Some(Asked::Open(place)) = self.asks.answered(ask) {
                    self.topics.numbered(place, topic, &mut self.asks);
                }
            }
            ServerControl::Refused { ask, code, retry_ms } => {
                self.refused(now, ask, Refusal::new(code, retry_ms));
            }
            ServerControl::Nack { mid, code, retry_ms } => {
                self.nacked(mid, Refusal::new(code, retry_ms));
            }
            ServerControl::Gap { topic, from, to, reason } => self.gap(topic, from, to, reason),
            ServerControl::Identity { ask, handle, identity, device } => {
                let identity = Identity::new(&identity).ok();
                self.asks.peer(ask, Peer { handle, identity, device });
            }
            ServerControl::Done { ask, next } => self.asks.done(ask, next),
            ServerControl::Credit { peer, corr, bytes } => self.dialogues.credit(peer, corr, bytes),
            ServerControl::Verdict { mid, offset, readers } => {
                self.outbox.judge(mid, Verdict { offset, readers });
            }
            ServerControl::Joined { topic, handle } => self.presence(topic, Event::Joined(handle)),
            ServerControl::Left { topic, handle } => self.presence(topic, Event::Left(handle)),
            // Dealt with before.
            ServerControl::Taken { .. } => {}
        }
    }

    /// Somebody came or went, and the topic's reader wants to know.
    fn presence(&mut self, number: u32, event: Event) {
        let place = self.topics.by_number(number);
        let Some(topic) = place.and_then(|place| self.topics.at(place)) else { return };
        if let Some(reader) = topic.reader.as_ref().filter(|reader| reader.reading.presence) {
            self.deliveries.give(Delivery::Event(reader.events.clone(), event));
        }
    }

    fn subscribed(&mut self, ask: u32, number: u32, (epoch, next, oldest): (u64, u64, u64)) {
        let Some(Asked::Subscribe(place, id)) = self.asks.answered(ask) else { return };
        self.topics.numbered(place, number, &mut self.asks);
        let Some(topic) = self.topics.at(place) else { return };
        let Some(reader) = topic.reader.as_mut().filter(|reader| reader.id == id) else {
            // Its reader went before the answer came. A newer one asks for itself.
            if topic.reader.is_none() {
                self.topics.forget_number(place);
                self.asks.wish(Wish::Unsubscribe(number));
            }
            return;
        };
        let events = reader.joined(epoch, next, oldest);
        let to = reader.events.clone();
        let joined = Joined { id, epoch, next, oldest };
        let gone = reader.joining.take().is_some_and(|joining| joining.send(Ok(joined)).is_err());
        for event in events {
            self.deliveries.give(Delivery::Event(to.clone(), event));
        }
        if gone {
            self.unsubscribe(place, id);
        }
    }

    fn refused(&mut self, now: Instant, ask: u32, refusal: Refusal) {
        match self.asks.answered(ask) {
            Some(Asked::Open(place)) => self.not_opened(place, refusal),
            Some(Asked::Subscribe(place, id)) => {
                let Some(topic) = self.topics.at(place) else { return };
                topic.asked = false;
                let Some(reader) = topic.reader.as_mut().filter(|reader| reader.id == id) else {
                    return;
                };
                if let Some(joining) = reader.joining.take() {
                    topic.reader = None;
                    // Who no longer waits does not want to know.
                    let _ = joining.send(Err(Error::Refused(refusal)));
                } else if matches!(refusal.number, 0x40..=0x4F | 0x54) {
                    // It was read before, and there is only no room now.
                    let wait = refusal.retry.unwrap_or_default().as_millis();
                    let wait = Duration::from_millis(u64::try_from(wait).unwrap_or(u64::MAX));
                    self.retries.push((now.after(wait.max(RETRY_LEAST)), place));
                    return;
                } else if let Some(reader) = topic.reader.take() {
                    let lost = Event::Lost(LostWhy::Refused(refusal));
                    self.deliveries.give(Delivery::Event(reader.events, lost));
                }
                self.not_opened(place, refusal);
            }
            Some(Asked::Question(_, done, _)) => {
                // As above.
                let _ = done.send(Err(Error::Refused(refusal)));
            }
            None => {}
        }
    }

    /// A topic may not be published to: nor may what waits for its number.
    fn not_opened(&mut self, place: usize, refusal: Refusal) {
        let Some(topic) = self.topics.at(place) else { return };
        topic.asked = false;
        for opener in topic.openers.drain(..) {
            // As above.
            let _ = opener.send(Err(Error::Refused(refusal)));
        }
        for (_, asker) in topic.askers.drain(..) {
            // As above.
            let _ = asker.send(Err(Error::NotOpened(refusal)));
        }
        let mut next = self.session.next_unsent();
        while let Some(mid) = next {
            next = self.session.next_unsent_after(mid);
            if self.outbox.entry(mid).is_some_and(|entry| entry.to == To::Topic(place)) {
                self.session.withdraw(mid);
                self.outbox.tell(mid, Err(Error::Refused(refusal)), &self.shared);
            }
        }
    }

    fn nacked(&mut self, mid: u64, refusal: Refusal) {
        let outcome = outcome(refusal);
        if let Err(error) = &outcome {
            let waited = self.dialogues.fail(mid, error.clone());
            if let Some(entry) = self.outbox.entry(mid) {
                entry.told |= waited;
            } else if !waited {
                // It had been queued for a peer that is gone.
                self.shared.report(Report::Refused { topic: None, mid, refusal });
            }
        }
        self.outbox.tell(mid, outcome, &self.shared);
    }

    fn gap(&mut self, number: u32, from: u64, to: u64, reason: u8) {
        let place = self.topics.by_number(number);
        let Some(topic) = place.and_then(|place| self.topics.at(place)) else { return };
        let Some(reader) = &mut topic.reader else { return };
        reader.next = reader.next.max(to);
        let known = GapReason::ALL.into_iter().find(|known| *known as u8 == reason);
        // Others do not decode.
        let Some(reason) = known else { return };
        let event = Delivery::Event(reader.events.clone(), Event::Gap { from, to, reason });
        self.deliveries.give(event);
    }
}

/// Whether a message came after its time to live: who signed it says when it went out.
fn is_late(header: &FrameHeader, signed: Option<Signed>, now_ms: u64) -> bool {
    let ends = |signed: Signed| signed.issued_ms.saturating_add(u64::from(header.ttl_ms));
    header.ttl_ms > 0 && signed.is_some_and(|signed| ends(signed) < now_ms)
}

#[cfg(test)]
mod tests {
    use wardline_core::native::{Class, SigningKey};

    use super::*;

    #[test]
    fn what_is_late_is_what_was_signed_too_long_ago() {
        let sender = SigningKey::from_seed(&[1; 32]).identity();
        let issued_ms = 1_000_000;
        let signed = Some(Signed { sender, device: 1, issued_ms, epoch_ms: 3, piece: 0 });
        for (signed, ttl_ms, now_ms, late) in [
            (signed, 500, issued_ms + 500, false),
            (signed, 500, issued_ms + 501, true),
            (signed, 500, issued_ms - 200, false),
            (signed, u32::MAX, issued_ms + 501, false),
            (signed, 0, issued_ms + 501, false),
            (None, 500, issued_ms + 501, false),
        ] {
            let header = FrameHeader {
                kind: FrameKind::Publish,
                class: Class::Normal,
                flags: 0,
                topic: 1,
                ttl_ms,
                peer: 5,
                mid: 9,
                offset: 0,
                corr: 0,
            };
            assert_eq!(is_late(&header, signed, now_ms), late, "{ttl_ms} {now_ms}");
        }
    }
}
