//! One turn of the task: what came, what is to go out, and what time it is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;
use wardline_core::native::client::{End, Got, Loss, UNSURE_MAX};
use wardline_core::native::envelope::ENVELOPE_BYTES;
use wardline_core::native::{ClientControl, Code, FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use wardline_core::{Duration, Instant};

use super::asks::{Asked, Wish};
use super::connect::clock_ms;
use super::link::{AHEAD_BYTES, Broken, Link};
use super::outbox::To;
use super::run::{Over, Task};
use super::{Page, Question};
use crate::error::{Error, Refusal};
use crate::event::Reading;

/// Frames that go out together stand in records of about so much.
const RECORD_BYTES: usize = 16 * 1_024;
/// How long calls wait for an answer while nothing is read.
const NOT_READ_MAX: Duration = Duration::from_secs(10);
/// Turns before the thread's other tasks have theirs.
const TURNS_MAX: usize = 32;

/// What became of a message that was to be written.
enum Put {
    Written,
    /// It is not to be sent.
    Withdrawn,
    /// Not in this record, or not yet.
    Later,
}

impl Task {
    /// Goes on with a connection until it is over.
    pub(super) fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        sleep: &mut Pin<Box<Sleep>>,
    ) -> Poll<Over> {
        for _ in 0..TURNS_MAX {
            let now = self.clock.now();
            let mut went_on = self.poll_said(cx, now);
            self.expire(now);
            match self.poll_input(cx, now, link) {
                Ok(any) => went_on |= any,
                Err(loss) => return Poll::Ready(self.over(loss)),
            }
            self.close_when_done(now);
            if self.fill(now, link).is_err() {
                // Our own fault: a record that cannot be made. The session goes on.
                return Poll::Ready(self.over(Loss::Cut));
            }
            let waited = link.waiting();
            match link.poll_write(cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(self.over(Loss::Cut)),
                Poll::Ready(Ok(())) if self.session.is_closed() => link.poll_shut(cx),
                Poll::Ready(Ok(())) => went_on |= waited > 0,
                Poll::Pending => {}
            }
            if let Some(end) = self.session.ended(now) {
                let loss = match end {
                    End::Clean | End::Unanswered => self.closed_loss,
                    End::Silent => Loss::Cut,
                };
                return Poll::Ready(self.over(loss));
            }
            sleep.as_mut().reset(self.clock.at(self.deadline(link)));
            went_on |= sleep.as_mut().poll(cx).is_ready();
            if !went_on {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// A connection that was to end is no loss.
    fn over(&self, loss: Loss) -> Over {
        let asked = self.closing.is_some() && self.session.is_closed();
        if asked { Over::Closed } else { Over::Lost(loss) }
    }

    /// Reads and acts, unless something waits to be delivered.
    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        link: &mut Link,
    ) -> Result<bool, Loss> {
        if self.deliveries.is_stalled() && self.deliveries.poll(cx).is_pending() {
            self.stall(now);
            return Ok(false);
        }
        self.stalled = None;
        let mut any = false;
        while !self.deliveries.is_stalled() && !self.session.is_over() {
            if link.wants_more() {
                match link.poll_read(cx) {
                    Poll::Ready(Ok(())) => any = true,
                    Poll::Ready(Err(Broken::Eof | Broken::Error)) => return Err(self.closed_loss),
                    Poll::Pending => break,
                }
            }
            let (took, len) = match self.session.handle_input(now, link.arrived()) {
                Ok(Got::Record(took, len)) => (took, len),
                Ok(Got::More(missing)) => {
                    link.missing = missing;
                    continue;
                }
                Err(code) => {
                    self.fault(now, link, code);
                    return Err(Loss::Cut);
                }
            };
            any = true;
            if let Err(code) = self.took(now, took) {
                self.fault(now, link, code);
                return Err(Loss::Cut);
            }
            link.take(len);
            if link.waiting() >= AHEAD_BYTES {
                // What is owed goes out before more is taken in.
                break;
            }
        }
        Ok(any)
    }

    /// The relay is told what was wrong, as far as its socket takes it at once.
    fn fault(&mut self, now: Instant, link: &mut Link, code: Code) {
        self.session.fault(code);
        while let Some(small) = self.session.poll_output(now) {
            link.output.extend_from_slice(small.as_bytes());
        }
        link.write_now();
    }

    /// Nothing is read, because somebody does not read: that is not the relay's silence.
    fn stall(&mut self, now: Instant) {
        self.session.not_reading(now);
        let since = *self.stalled.get_or_insert(now);
        if now.since(since) >= NOT_READ_MAX {
            self.stalled = Some(now);
            for ping in self.pings.drain(..) {
                // Who no longer waits does not want to know.
                let _ = ping.done.send(Err(Error::NotRead));
            }
            self.asks.fail_questions(&Error::NotRead);
            self.outbox.fail_waiters(&Error::NotRead);
            self.dialogues.fail_all(&Error::NotRead);
        }
    }

    /// A client that is to end does so once nothing is under way, or its time is over.
    fn close_when_done(&mut self, now: Instant) {
        if let Some(closing) = &self.closing
            && !self.session.is_closed()
            && ((closing.drained && self.session.is_settled()) || now >= closing.until)
        {
            self.session.close(Code::Normal);
        }
    }

    /// Writes what is to go out, as long as little waits.
    fn fill(&mut self, now: Instant, link: &mut Link) -> Result<(), Code> {
        self.owed(now, link);
        while link.waiting() < AHEAD_BYTES && self.say(now, link)? {}
        while link.waiting() < AHEAD_BYTES && self.record(now, link)? {}
        if self.closing.is_some() {
            self.barrier_due |= !self.session.is_settled();
        }
        let full = self.session.room() < UNSURE_MAX / 2 || self.outbox.is_half_full();
        if self.session.is_ready() {
            self.ask_for_pongs();
            if (self.barrier_due || full) && !self.session.is_settled() {
                self.session.barrier();
            }
            self.barrier_due = false;
        }
        self.settle();
        self.owed(now, link);
        Ok(())
    }

    /// Who waits for a PONG is given the number of a PING that goes out after all that was to be
    /// sent when it began to wait.
    fn ask_for_pongs(&mut self) {
        let next = self.session.next_unsent();
        for ping in self.pings.iter_mut().filter(|ping| ping.number == 0) {
            if next.is_none_or(|next| next > ping.after) {
                ping.number = self.session.barrier();
            }
        }
    }

    fn owed(&mut self, now: Instant, link: &mut Link) {
        while let Some(small) = self.session.poll_output(now) {
            link.output.extend_from_slice(small.as_bytes());
        }
    }

    /// Says one wish. False: there is none to be said now.
    fn say(&mut self, now: Instant, link: &mut Link) -> Result<bool, Code> {
        if !self.session.is_ready() {
            return Ok(false);
        }
        let due = |(at, _): &mut (Instant, usize)| *at <= now;
        for (_, place) in self.retries.extract_if(.., due) {
            self.asks.wish(Wish::Subscribe(place));
        }
        let Some(wish) = self.asks.next(now) else { return Ok(false) };
        match wish {
            Wish::Unsubscribe(topic) => {
                self.control(link, &ClientControl::Unsubscribe { topic })?;
            }
            Wish::Credit { peer, corr, bytes } => {
                self.control(link, &ClientControl::Credit { peer, corr, bytes })?;
            }
            Wish::Open(place) => {
                let Some(topic) = self.topics.at(place) else { return Ok(true) };
                let name = topic.name.clone();
                let ask = self.asks.ask(Asked::Open(place));
                self.control(link, &ClientControl::Open { ask, name: &name })?;
            }
            Wish::Subscribe(place) => {
                let Some(topic) = self.topics.at(place) else { return Ok(true) };
                let Some(reader) = &topic.reader else {
                    // It went meanwhile; who wants to publish asks again.
                    topic.asked = false;
                    return Ok(true);
                };
                let (name, from) = (topic.name.clone(), reader.start());
                let Reading { echo, presence, .. } = reader.reading;
                let ask = self.asks.ask(Asked::Subscribe(place, reader.id));
                let value = ClientControl::Subscribe { ask, name: &name, from, echo, presence };
                self.control(link, &value)?;
            }
            Wish::Question(question, done) => return self.question(link, question, done),
        }
        Ok(true)
    }

    fn question(
        &mut self,
        link: &mut Link,
        question: Question,
        done: tokio::sync::oneshot::Sender<Result<Page, Error>>,
    ) -> Result<bool, Code> {
        if done.is_closed() {
            return Ok(true);
        }
        let topic = match &question {
            Question::Who(name, _) => {
                let place = match self.topics.place(name) {
                    Ok(place) => place,
                    Err(error) => {
                        // Who no longer waits does not want to know.
                        let _ = done.send(Err(error));
                        return Ok(true);
                    }
                };
                let Some(number) = self.topics.number(place) else {
                    if let Some(topic) = self.topics.at(place) {
                        topic.askers.push((question, done));
                    }
                    self.want_number(place);
                    return Ok(true);
                };
                number
            }
            Question::Resolve(_) | Question::Identify(_) => 0,
        };
        let asked = Asked::Question(question.clone(), done, Page::default());
        let ask = self.asks.ask(asked);
        let value = match question {
            Question::Resolve(identity) => {
                ClientControl::Resolve { ask, identity: *identity.as_bytes() }
            }
            Question::Identify(handle) => ClientControl::Identify { ask, handle },
            Question::Who(_, after) => ClientControl::Who { ask, topic, after },
        };
        self.control(link, &value)?;
        Ok(true)
    }

    /// Writes one record of messages. False: there is nothing more to be sent now.
    fn record(&mut self, now: Instant, link: &mut Link) -> Result<bool, Code> {
        let start = link.output.len();
        let body = start + RECORD_HEADER_BYTES;
        let (mut next, mut last, mut skipped) = (self.session.next_unsent(), None, false);
        while let Some(mid) = next {
            if link.output.len() < body {
                link.output.resize(body, 0);
            }
            match self.frame_out(now, mid, body, &mut link.output) {
                Put::Written => last = Some(mid),
                Put::Withdrawn => skipped = true,
                Put::Later => break,
            }
            next = self.session.next_unsent_after(mid);
        }
        let Some(last) = last else {
            link.output.truncate(start);
            return Ok(skipped);
        };
        let header = self.session.frames(last, &link.output[body..])?;
        link.output[start..body].copy_from_slice(&header);
        Ok(true)
    }

    /// Writes a message to the record whose body begins at `body`.
    fn frame_out(&mut self, now: Instant, mid: u64, body: usize, output: &mut Vec<u8>) -> Put {
        let payload_max = self.session.granted().map_or(0, |granted| granted.max_payload);
        let Some(entry) = self.outbox.entry(mid) else {
            debug_assert!(false, "a message without its bytes");
            self.session.withdraw(mid);
            return Put::Withdrawn;
        };
        if entry.until.is_some_and(|until| until <= now) {
            self.give_up(mid, Error::Expired);
            return Put::Withdrawn;
        }
        if entry.is_request() && !self.dialogues.is_waited_for(mid) {
            entry.told = true;
            self.session.withdraw(mid);
            return Put::Withdrawn;
        }
        let place = match entry.to {
            To::Topic(place) => Some(place),
            To::Peer { .. } => None,
        };
        let Some(number) = place.map_or(Some(0), |place| self.topics.number(place)) else {
            self.want_number(place.unwrap_or(0));
            return Put::Later;
        };
        let envelope = if entry.letter.is_some() { ENVELOPE_BYTES } else { 0 };
        let len = match u32::try_from(envelope + entry.payload.len()) {
            Ok(len) if len <= payload_max => len,
            // This relay takes less than the one before.
            Ok(_) | Err(_) => {
                let refusal = Refusal::new(Code::TooLarge.wire(), 0);
                self.session.withdraw(mid);
                self.outbox.tell(mid, Err(Error::Refused(refusal)), &self.shared);
                return Put::Withdrawn;
            }
        };
        let whole = FRAME_HEADER_BYTES + envelope + entry.payload.len();
        // Nor more than this relay takes in one record.
        let most = RECORD_BYTES.min(FRAME_HEADER_BYTES + payload_max as usize);
        if output.len() > body && output.len() - body + whole > most {
            return Put::Later;
        }
        self.barrier_due |= entry.taken.is_some() || entry.is_request();
        entry.out = true;
        let header = entry.header(mid, number, now);
        output.extend_from_slice(&header.to_bytes(len));
        if let Some(letter) = entry.letter() {
            // Signed as it goes out, and once more should it go out again: it may have waited long.
            let key = &self.plan.key;
            let envelope = self.letters.make(key, &header, letter, &entry.payload, clock_ms());
            output.extend_from_slice(&envelope);
        }
        output.extend_from_slice(&entry.payload);
        Put::Written
    }

    /// When something is to be done although nothing comes.
    fn deadline(&self, link: &Link) -> Instant {
        let mut at = self.session.deadline();
        if self.session.is_ready() && link.waiting() < AHEAD_BYTES {
            let retries = self.retries.iter().map(|(at, _)| *at);
            at = retries.fold(at.min(self.asks.deadline()), Instant::min);
        }
        if let Some(since) = self.stalled {
            at = at.min(since.after(NOT_READ_MAX));
        }
        at = at.min(self.outbox.expiry());
        match &self.closing {
            Some(closing) if !self.session.is_closed() => at.min(closing.until),
            Some(_) | None => at,
        }
    }

    fn control(&mut self, link: &mut Link, value: &ClientControl<'_>) -> Result<(), Code> {
        let (header, body) = self.session.control(value)?;
        link.output.extend_from_slice(&header);
        link.output.extend_from_slice(body.as_bytes());
        Ok(())
    }
}
