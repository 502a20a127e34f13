//! What the handles say.

use std::task::{Context, Poll};

use wardline_core::Instant;

use super::asks::Wish;
use super::outbox::{Entry, To};
use super::run::{CLOSE_MAX, Closing, Ping, Task};
use super::topics::Reader;
use super::{Command, Destination, Outgoing};
use crate::error::Error;

impl Task {
    /// Takes commands, and messages while there is room. True: there was something.
    pub(super) fn poll_said(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut any = false;
        // Messages first: a PING stands behind what was said before it.
        while self.session.room() > 0 && self.outbox.has_room() && !self.is_drained() {
            match self.frames.poll_recv(cx) {
                Poll::Ready(Some(frame)) => self.enqueue(frame),
                Poll::Ready(None) => {
                    self.begin_close(now);
                    if let Some(closing) = &mut self.closing {
                        closing.drained = true;
                    }
                }
                Poll::Pending => break,
            }
            any = true;
        }
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            match command {
                Some(command) => self.command(now, command),
                None => {
                    // The last handle is gone.
                    self.begin_close(now);
                    break;
                }
            }
            any = true;
        }
        any
    }

    fn is_drained(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.drained)
    }

    fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Open { topic, done } => match self.topics.place(&topic) {
                Ok(place) => {
                    if self.topics.number(place).is_some() {
                        // Who no longer waits does not want to know.
                        let _ = done.send(Ok(()));
                        return;
                    }
                    if let Some(topic) = self.topics.at(place) {
                        topic.openers.push(done);
                    }
                    self.want_number(place);
                }
                Err(error) => drop(done.send(Err(error))),
            },
            Command::Subscribe { topic, reading, events, done } => {
                let reader = Reader::new(self.topics.reader_id(), reading, events, Some(done));
                match self.topics.place(&topic) {
                    Ok(place) => self.subscribe(place, reader),
                    Err(error) => refuse(reader, error),
                }
            }
            Command::Unsubscribe { topic, id } => {
                if let Some(place) = self.topics.find(&topic) {
                    self.unsubscribe(place, id);
                }
            }
            Command::Ask { question, done } => self.asks.wish(Wish::Question(question, done)),
            Command::Credit { peer, corr, bytes } => {
                if self.dialogues.grant(corr, bytes) {
                    self.asks.wish(Wish::Credit { peer, corr, bytes });
                }
            }
            Command::Forget { mid } => self.forget(mid),
            Command::TakeRequests(taker) => self.dialogues.requests = Some(taker),
            Command::TakeDirects(taker) => self.dialogues.directs = Some(taker),
            Command::Ping { done } => {
                self.pings.retain(|ping| !ping.done.is_closed());
                let after = self.mids.map_or(0, |(_, last)| last);
                self.pings.push(Ping { after, number: 0, done });
            }
            Command::Close { done } => {
                self.begin_close(now);
                if let Some(closing) = &mut self.closing {
                    closing.done.push(done);
                }
            }
        }
    }

    fn subscribe(&mut self, place: usize, reader: Reader) {
        let Some(topic) = self.topics.at(place) else { return };
        match &topic.reader {
            // Its owner is gone, and the relay was not yet told.
            Some(before) if before.events.is_closed() => {
                let id = before.id;
                self.unsubscribe(place, id);
                self.subscribe(place, reader);
            }
            Some(_) => refuse(reader, Error::AlreadySubscribed),
            None => {
                topic.reader = Some(reader);
                topic.asked = true;
                if self.session.is_ready() {
                    self.asks.wish(Wish::Subscribe(place));
                }
            }
        }
    }

    /// A topic is read no longer.
    pub(super) fn unsubscribe(&mut self, place: usize, id: u64) {
        let Some(topic) = self.topics.at(place) else { return };
        if topic.reader.as_ref().is_none_or(|reader| reader.id != id) {
            return;
        }
        topic.reader = None;
        // Where the answer to the Subscribe is not yet here, that is when it is told.
        if let Some(number) = self.topics.forget_number(place) {
            self.asks.wish(Wish::Unsubscribe(number));
        }
    }

    /// A topic is to be published to.
    pub(super) fn want_number(&mut self, place: usize) {
        let ready = self.session.is_ready();
        let Some(topic) = self.topics.at(place) else { return };
        if topic.number.is_none() && !topic.asked && ready {
            topic.asked = true;
            self.asks.wish(Wish::Open(place));
        }
    }

    /// Nobody waits for the answer to a request any more. Where it did not go out, it never does;
    /// what went out is looked at again before it would go out once more.
    fn forget(&mut self, mid: u64) {
        self.dialogues.forget(mid);
        if let Some(entry) = self.outbox.entry(mid)
            && !entry.out
        {
            entry.told = true;
            self.session.withdraw(mid);
        }
    }

    /// A message that waits is not sent: who waits for it is told, or for the answer to it.
    pub(super) fn give_up(&mut self, mid: u64, error: Error) {
        self.session.withdraw(mid);
        if self.dialogues.fail(mid, error.clone())
            && let Some(entry) = self.outbox.entry(mid)
        {
            entry.told = true;
        }
        self.outbox.tell(mid, Err(error), &self.shared);
    }

    /// Gives up what waits for longer than it is worth.
    pub(super) fn expire(&mut self, now: Instant) {
        for mid in self.outbox.expired(now) {
            self.give_up(mid, Error::Expired);
        }
    }

    fn enqueue(&mut self, frame: Outgoing) {
        let signs = self.plan.policy.signs && !frame.is_enveloped();
        let Outgoing { to, class, flags, ttl_ms, until, payload, audience, piece, taken, answer } =
            frame;
        if answer.as_ref().is_some_and(|(number, _)| number.is_closed()) {
            // Who asked has given up before it came here.
            return;
        }
        let (to, name) = match to {
            Destination::Topic(name) => match self.topics.place(&name) {
                Ok(place) => (To::Topic(place), Some(name)),
                Err(error) => {
                    if let Some(taken) = taken {
                        taken.tell(Err(error));
                    }
                    return;
                }
            },
            Destination::Peer { handle, kind, corr } => (To::Peer { handle, kind, corr }, None),
        };
        if answer.is_some() && !self.dialogues.has_room() {
            if let Some((number, _)) = answer {
                // Who no longer waits does not want to know.
                let _ = number.send(Err(Error::TooMany));
            }
            return;
        }
        // There is room: it was asked for before the message was taken.
        let Some(mid) = self.session.enqueue() else { return };
        self.mids = Some((self.mids.map_or(mid, |(first, _)| first), mid));
        if let (Some((number, pieces)), To::Peer { handle, .. }) = (answer, to) {
            let who = audience.map(|(identity, _)| identity);
            self.dialogues.ask(mid, (handle, who), pieces);
            // Who no longer waits has it forgotten before it goes out.
            let _ = number.send(Ok(mid));
        }
        debug_assert!(!signs || name.is_some() || audience.is_some(), "signed for nobody");
        let letter = signs.then(|| (self.letters.number(), piece));
        let (topic, told, out) = (name, false, false);
        let until = until.map(|until| self.clock.of(until));
        let entry = Entry {
            to,
            topic,
            class,
            flags,
            ttl_ms,
            until,
            payload,
            audience,
            letter,
            taken,
            told,
            out,
        };
        self.outbox.push(mid, entry);
    }

    /// No more is taken from handles but what is queued, and then it ends.
    pub(super) fn begin_close(&mut self, now: Instant) {
        if self.closing.is_none() {
            self.frames.close();
            self.deliveries.leave();
            self.closing = Some(Closing {
                done: Vec::new(),
                until: now.after(CLOSE_MAX),
                drained: false,
                covered: false,
                refusal: None,
            });
        }
    }
}

fn refuse(reader: Reader, error: Error) {
    if let Some(joining) = reader.joining {
        // Who no longer waits does not want to know.
        let _ = joining.send(Err(error));
    }
}
