//! What a client is told: messages of topics, and what happened to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use wardline_core::native::envelope::EnvelopeFault;
use wardline_core::native::{Class, GapReason, Start, flags};

use crate::client::Client;
use crate::envelopes::Signed;
use crate::error::{ConnectError, Ended, Refusal};
use crate::task::Command;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With what comes.
    Now,
    /// At a message of the topic, of its life called `epoch`.
    Offset {
        /// Which life of the topic: [`Subscription::epoch`].
        epoch: u64,
        /// The first message wanted.
        offset: u64,
    },
    /// With so many of those retained.
    Last(u32),
}

impl From {
    pub(crate) const fn start(self) -> Start {
        match self {
            Self::Now => Start::Now,
            Self::Offset { epoch, offset } => Start::Offset { epoch, offset },
            Self::Last(count) => Start::Last(count),
        }
    }
}

/// How a topic is read: [`Client::subscribe_with`](crate::Client::subscribe_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub(crate) from: From,
    pub(crate) echo: bool,
    pub(crate) presence: bool,
}

impl Reading {
    /// From there on, without this client's own messages.
    #[must_use]
    pub const fn new(from: From) -> Self {
        Self { from, echo: false, presence: false }
    }

    /// This client's own messages come, too.
    #[must_use]
    pub const fn echo(self) -> Self {
        Self { echo: true, ..self }
    }

    /// Who begins and ceases to read the topic is told: [`Event::Joined`] and [`Event::Left`].
    /// Needs the right to know who reads it (`who`).
    #[must_use]
    pub const fn presence(self) -> Self {
        Self { presence: true, ..self }
    }
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic's name.
    pub topic: Arc<str>,
    /// Its number in the topic's life.
    pub offset: u64,
    /// The handle of who sent it: [`Client::identify`] says who that is.
    pub sender: u64,
    /// The sender's number for it; 0 of one who speaks the line dialect.
    pub mid: u64,
    /// How urgent it is, by its sender's word.
    pub class: Class,
    /// How long its sender says that it is worth anything, from when it was said. None: for ever.
    pub ttl: Option<Duration>,
    /// The frame's flags, as PROTOCOL.md 2.4.1 has them.
    pub flags: u16,
    /// Who signed it, verified here. None: it came without an envelope, or the client's policy is
    /// to open none.
    pub signed: Option<Signed>,
    /// It was said before the subscription began, and `From` brought it; or it is signed, and came
    /// too late to say that it is new. It may be shown, and is not to be acted upon: nothing says
    /// that it was not had before.
    pub history: bool,
    /// What it says, without the envelope where that was opened.
    pub payload: Vec<u8>,
}

impl Message {
    /// Whether the sender speaks the line dialect and is **not authenticated**.
    #[must_use]
    pub const fn is_line(&self) -> bool {
        self.flags & flags::LINE != 0
    }

    /// Whether it came in an envelope: one that was opened, or, where the client's policy is to
    /// open none, that the payload begins with.
    #[must_use]
    pub const fn has_envelope(&self) -> bool {
        self.flags & flags::ENVELOPE != 0
    }
}

/// What a subscription is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Message),
    /// Messages that were not delivered.
    Gap {
        /// The first.
        from: u64,
        /// The first that is not missing.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// A message that is not to be trusted, and is kept back: [`Policy`](crate::Policy).
    Untrusted {
        /// Its number in the topic's life.
        offset: u64,
        /// The handle that the relay says it is from.
        sender: u64,
        /// Why.
        fault: EnvelopeFault,
    },
    /// A message that came after its time to live, by its envelope and this clock, and is kept
    /// back. Of one that is not signed nobody knows when it was said: it is a
    /// [`Message`](Self::Message).
    Expired {
        /// Its number in the topic's life.
        offset: u64,
        /// The handle that the relay says it is from.
        sender: u64,
    },
    /// Somebody reads the topic from now on; whose handle that is, [`Client::identify`] says. Only
    /// with [`Reading::presence`].
    Joined(u64),
    /// The owner of that handle reads it no longer.
    Left(u64),
    /// The connection was lost, and the session goes on. The topic is read on where it was left.
    /// Who came and went meanwhile is not told: [`Client::who`] says who is there.
    Resumed,
    /// The connection was lost, and there is a new session. The topic is read on where it was
    /// left; handles that were known are void.
    Reconnected,
    /// What came meanwhile cannot be had back, or be numbered.
    Lost(LostWhy),
}

/// Why a topic could not be read on where it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostWhy {
    /// It begins anew, as `epoch`: the relay was started again, or the topic had been forgotten.
    Epoch {
        /// Its life until now.
        was: u64,
        /// Its life from now on.
        is: u64,
        /// The first message of the old life that did not come, if there was any.
        next: u64,
    },
    /// The relay does not let it be read any more. The last event of its subscription.
    Refused(Refusal),
}

/// The messages of a topic, in its order, as they come. Dropped: the topic is read no longer.
///
/// Where it is full (256 events, or what the builder says), the client reads nothing more from its
/// socket until it is read: see the crate's documentation.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) client: Client,
    pub(crate) topic: Arc<str>,
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) next: u64,
    pub(crate) oldest: u64,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Subscription {
    /// The next event. None: the client is over ([`Client::ended`]), or the relay does not let the
    /// topic be read any more ([`LostWhy::Refused`]).
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Which life of the topic it began in.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The number that the topic's next message had when the subscription began.
    #[must_use]
    pub const fn next_offset(&self) -> u64 {
        self.next
    }

    /// The oldest message that was retained when the subscription began.
    #[must_use]
    pub const fn oldest_offset(&self) -> u64 {
        self.oldest
    }

    /// Reads it no longer, and returns once the relay was told.
    pub async fn unsubscribe(self) {
        let command = Command::Unsubscribe { topic: self.topic.clone(), id: self.id };
        // Where the client is over, nothing is read any more.
        let _ = self.client.command(command).await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Where there is no room, the task sees it at the topic's next message.
        self.client.try_command(Command::Unsubscribe { topic: self.topic.clone(), id: self.id });
    }
}

/// What happened to a client, and to what nobody waits for.
#[derive(Clone, Debug)]
pub enum Report {
    /// The connection was lost without a CLOSE: cut, silent, or a fault on the way.
    Cut,
    /// The relay closed the connection; the client comes back.
    Closed(Refusal),
    /// An attempt to come back came to nothing; the next one is made in so long.
    NotReached(ConnectError, Duration),
    /// The session goes on.
    Resumed,
    /// There is a new session: handles that were known are void.
    Reconnected,
    /// A message that was sent without waiting was not taken.
    Refused {
        /// Its topic; None: it was for a peer.
        topic: Option<Arc<str>>,
        /// Its number.
        mid: u64,
        /// Why.
        refusal: Refusal,
    },
    /// Nobody knows whether a message that was sent without waiting was taken. Not sent again.
    Unsure {
        /// Its topic; None: it was for a peer.
        topic: Option<Arc<str>>,
        /// Its number.
        mid: u64,
    },
    /// A message that was sent without waiting waited for longer than its time to live, and was not
    /// sent.
    Expired {
        /// Its topic; None: it was for a peer.
        topic: Option<Arc<str>>,
        /// Its number.
        mid: u64,
    },
    /// A message to a peer was not sent: the session in which its handle was known is gone.
    SessionGone {
        /// Its number.
        mid: u64,
    },
    /// Messages to this client were lost on the way: these of its direct messages, requests and
    /// answers.
    DirectLost {
        /// The first.
        from: u64,
        /// The first that was not lost.
        to: u64,
    },
    /// A message, request or answer to this client came that is not to be trusted, and was kept
    /// back.
    Untrusted {
        /// The handle that the relay says it is from.
        sender: u64,
        /// The sender's number for it.
        mid: u64,
        /// Why.
        fault: EnvelopeFault,
    },
    /// A signed message or request to this client came after its time to live, and was kept back.
    Late {
        /// The handle that the relay says it is from.
        sender: u64,
        /// The sender's number for it.
        mid: u64,
    },
    /// A message or request to this client came, and nobody here takes such.
    Unwanted {
        /// Who sent it.
        sender: u64,
    },
    /// The relay's clock is ahead of this one by so many milliseconds (less than 0: behind): one
    /// of them is wrong.
    Clock(i64),
    /// The client is over.
    Ended(Ended),
}

/// The reports of a client: the last 256 of them wait to be read.
#[derive(Debug)]
pub struct Reports {
    pub(crate) reports: broadcast::Receiver<Report>,
    pub(crate) over: bool,
}

impl Reports {
    /// The next report, and how many before it were dropped because nobody read them. None: the
    /// client is over, and all were read.
    pub async fn recv(&mut self) -> Option<(Report, u64)> {
        let mut dropped = 0;
        while !self.over {
            match self.reports.recv().await {
                Ok(report) => {
                    self.over = matches!(report, Report::Ended(_));
                    return Some((report, dropped));
                }
                Err(broadcast::error::RecvError::Lagged(count)) => dropped += count,
                Err(broadcast::error::RecvError::Closed) => self.over = true,
            }
        }
        None
    }
}
