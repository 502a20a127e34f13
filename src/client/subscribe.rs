//! `wardline sub`: what is said on a topic, as it comes.

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use wardline_client::{Client, Event, GapReason, LostWhy, Subscription};

use super::args::SubArgs;
use super::connect::connect_trusting;
use super::reports::Listening;
use super::show::{Out, Read, Shape, handle};
use super::{Ending, First, first, leave, run, words};
use crate::exit::Failure;

/// Reads a topic until it is told to end.
pub(crate) fn subscribe(args: &SubArgs) -> Result<(), Failure> {
    run(work(args))
}

async fn work(args: &SubArgs) -> Result<(), Failure> {
    let ends = args.timeout.map(|timeout| Instant::now() + timeout);
    let connected = connect_trusting(&args.common, false, args.signed_only);
    let client = match ends {
        Some(ends) => tokio::time::timeout_at(ends, connected)
            .await
            .map_err(|_| Failure::TimedOut("no connection in time".to_owned()))??,
        None => connected.await?,
    };
    let _listening = Listening::to(&client);
    let (topic, who) = (&args.topic, client.identity());
    let doing = format!("read {topic}");
    let reading = wardline_client::Reading::new(args.from);
    let reading = if args.presence { reading.presence() } else { reading };
    let right = match args.presence {
        true => format!("subscribe={topic} who={topic}"),
        false => format!("subscribe={topic}"),
    };
    let subscribed = client.subscribe_with(topic, reading).await;
    let mut messages = subscribed.map_err(|error| words::failed(&error, &doing, &right, &who))?;
    let out = Out::new(Shape::of(args.raw, args.common.json));
    let mut reading = Reading { epoch: messages.epoch(), left: args.count, out };
    let mut ending = Ending::catch();
    reading.begin(&messages)?;
    let end = async {
        match ends {
            Some(ends) => first(ending.asked(), sleep_until(ends)).await,
            None => {
                ending.asked().await;
                First::A(())
            }
        }
    };
    let read = first(reading.read(&client, &mut messages), end).await;
    leave(client).await;
    match read {
        First::A(done) => done,
        First::B(First::A(())) => Ok(()),
        First::B(First::B(())) => reading.ended_by_time(),
    }
}

struct Reading {
    epoch: u64,
    /// Messages that are still wanted; `None`: all.
    left: Option<u64>,
    out: Out,
}

impl Reading {
    fn begin(&self, messages: &Subscription) -> Result<(), Failure> {
        let (topic, next, oldest) =
            (messages.topic(), messages.next_offset(), messages.oldest_offset());
        eprintln!("wardline: reading {topic}");
        if self.out.shape() == Shape::Json {
            let epoch = self.epoch.to_string();
            let said = json!({ "topic": topic, "epoch": epoch, "next": next, "oldest": oldest });
            let _ = self.out.json(&json!({ "subscribed": said }))?;
        }
        Ok(())
    }

    async fn read(&mut self, client: &Client, messages: &mut Subscription) -> Result<(), Failure> {
        while let Some(event) = messages.recv().await {
            if self.show(&event)? == Read::Over || self.left == Some(0) {
                return Ok(());
            }
        }
        let why = client.ended().map_or_else(|| "the client is over".to_owned(), |e| e.to_string());
        Err(Failure::Runtime(why))
    }

    fn show(&mut self, event: &Event) -> Result<Read, Failure> {
        match event {
            Event::Message(message) => {
                self.left = self.left.map(|left| left.saturating_sub(1));
                self.out.message(self.epoch, message)
            }
            Event::Gap { from, to, reason } => {
                let why = reason_words(*reason);
                let last = to.saturating_sub(1);
                self.note(
                    &json!({ "gap": { "from": from, "to": to, "reason": why } }),
                    &format!("messages {from} to {last} are missing: {why}"),
                )
            }
            Event::Lost(LostWhy::Epoch { was, is, next }) => {
                self.epoch = *is;
                let (was, is) = (was.to_string(), is.to_string());
                self.note(
                    &json!({ "epoch": { "was": was, "is": is, "next": next } }),
                    &format!("the topic begins anew; what came after message {next} may be lost"),
                )
            }
            Event::Lost(LostWhy::Refused(refusal)) => {
                Err(Failure::Runtime(format!("the topic may not be read any more: {refusal}")))
            }
            Event::Untrusted { offset, sender, fault } => {
                let (sender, why) = (handle(*sender), fault.sentence());
                self.note(
                    &json!({ "untrusted": { "offset": offset, "sender": sender, "why": why } }),
                    &format!("message {offset} of {sender} is kept back: {why}"),
                )
            }
            Event::Expired { offset, sender } => {
                let sender = handle(*sender);
                self.note(
                    &json!({ "expired": { "offset": offset, "sender": sender } }),
                    &format!("message {offset} of {sender} came after its time to live"),
                )
            }
            Event::Joined(who) => self.came_or_went("joined", *who),
            Event::Left(who) => self.came_or_went("left", *who),
            // The reports say it.
            Event::Resumed | Event::Reconnected => Ok(Read::On),
        }
    }

    fn came_or_went(&self, what: &str, who: u64) -> Result<Read, Failure> {
        let who = handle(who);
        self.note(&json!({ what: { "handle": who } }), &format!("{what}: {who}"))
    }

    /// What is no message: an object among objects, or words beside payloads.
    fn note(&self, object: &Value, words: &str) -> Result<Read, Failure> {
        if self.out.shape() == Shape::Json {
            return self.out.json(object);
        }
        eprintln!("wardline: {words}");
        Ok(Read::On)
    }

    /// Who wanted so many messages did not get them; who only wanted to listen so long did.
    fn ended_by_time(&self) -> Result<(), Failure> {
        match self.left {
            Some(left) => Err(Failure::TimedOut(format!("{left} messages did not come in time"))),
            None => Ok(()),
        }
    }
}

fn reason_words(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Lag => "lag",
        GapReason::Retention => "retention",
        GapReason::Epoch => "epoch",
        GapReason::TooLarge => "too large",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(left: Option<u64>) -> Reading {
        Reading { epoch: 1, left, out: Out::new(Shape::Lines) }
    }

    #[test]
    fn time_is_a_failure_only_where_messages_are_missing() {
        assert!(reading(None).ended_by_time().is_ok());
        let failure = reading(Some(3)).ended_by_time().unwrap_err();
        assert_eq!(failure.code(), 124);
        assert_eq!(failure.to_string(), "3 messages did not come in time");
    }

    #[test]
    fn a_topic_that_begins_anew_has_its_new_epoch() {
        let mut reading = reading(None);
        let anew = Event::Lost(LostWhy::Epoch { was: 1, is: 2, next: 7 });
        assert_eq!(reading.show(&anew).unwrap(), Read::On);
        assert_eq!(reading.epoch, 2);
        let gap = Event::Gap { from: 7, to: 9, reason: GapReason::Lag };
        assert_eq!(reading.show(&gap).unwrap(), Read::On);
        let refused = wardline_client::Refusal { number: 0x51, retry: None };
        assert!(reading.show(&Event::Lost(LostWhy::Refused(refused))).is_err());
    }
}
