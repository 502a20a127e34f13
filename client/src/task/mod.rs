//! The task that owns the socket, and what its handles tell it.
//!
//! ```text
//!   handles --Command--> said.rs --wishes--> asks.rs -----+
//!           --Outgoing-> said.rs --messages-> outbox.rs --+-> turn.rs: records -> link.rs: socket
//!   handles <-Event----- deliver.rs <-------- told.rs <---+-- turn.rs: records <- link.rs
//!                                    run.rs: attempts, waits, the end
//!                                    letters.rs: envelopes, both ways
//! ```

mod asks;
mod connect;
mod deliver;
mod dialogues;
mod epochs;
mod letters;
mod link;
mod outbox;
mod run;
mod said;
mod told;
mod topics;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant as TokioInstant;
use wardline_core::native::{Class, FrameKind, Identity, flags};

use crate::client::Peer;
use crate::dialogue::{Direct, Piece, Request};
use crate::error::{CloseError, ConnectError, Error};
use crate::event::{Event, Reading};
use crate::payload::{Payload, Verdict};

pub(crate) use run::start;

/// What a handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Open {
        topic: Arc<str>,
        done: oneshot::Sender<Result<(), Error>>,
    },
    Subscribe {
        topic: Arc<str>,
        reading: Reading,
        events: mpsc::Sender<Event>,
        done: oneshot::Sender<Result<Joined, Error>>,
    },
    Unsubscribe {
        topic: Arc<str>,
        id: u64,
    },
    Ask {
        question: Question,
        done: oneshot::Sender<Result<Page, Error>>,
    },
    Credit {
        peer: u64,
        corr: u64,
        bytes: u32,
    },
    /// Nobody waits for the answer to that request any more.
    Forget {
        mid: u64,
    },
    TakeRequests(mpsc::Sender<Request>),
    TakeDirects(mpsc::Sender<Direct>),
    Ping {
        done: oneshot::Sender<Result<Duration, Error>>,
    },
    Close {
        done: oneshot::Sender<Result<(), CloseError>>,
    },
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) id: u64,
    pub(crate) epoch: u64,
    pub(crate) next: u64,
    pub(crate) oldest: u64,
}

/// What is asked of the relay.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Resolve(Identity),
    Identify(u64),
    Who(Arc<str>, u64),
}

/// What it answers; `next` 0: that was all.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) peers: Vec<Peer>,
    pub(crate) next: u64,
}

/// Where a frame goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Topic(Arc<str>),
    Peer { handle: u64, kind: FrameKind, corr: u64 },
}

/// Who waits until a message is taken.
#[derive(Debug)]
pub(crate) enum Waiter {
    Taken(oneshot::Sender<Result<(), Error>>),
    /// And wants to know for how many it was queued.
    Verdict(oneshot::Sender<Result<Option<Verdict>, Error>>),
}

impl Waiter {
    /// What became of it. Who no longer waits does not want to know.
    pub(crate) fn tell(self, outcome: Result<(), Error>) {
        match self {
            Self::Taken(done) => drop(done.send(outcome)),
            Self::Verdict(done) => drop(done.send(outcome.map(|()| None))),
        }
    }

    /// It was taken, and so far did it go.
    pub(crate) fn judge(self, verdict: Verdict) {
        match self {
            Self::Taken(done) => drop(done.send(Ok(()))),
            Self::Verdict(done) => drop(done.send(Ok(Some(verdict)))),
        }
    }
}

/// Who waits for the answer to a request: first for its number, then for the pieces.
pub(crate) type Asker = (oneshot::Sender<Result<u64, Error>>, mpsc::Sender<Result<Piece, Error>>);

/// A frame that is to go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: Destination,
    pub(crate) class: Class,
    pub(crate) flags: u16,
    pub(crate) ttl_ms: u32,
    /// When that is over, from when it was said.
    pub(crate) until: Option<TokioInstant>,
    pub(crate) payload: Vec<u8>,
    /// Whose the destination is, as far as that is known: for whom it is signed.
    pub(crate) audience: Option<(Identity, u32)>,
    /// Of a STREAM, which piece of its answer it is, from 0.
    pub(crate) piece: u32,
    /// Who waits until it is taken.
    pub(crate) taken: Option<Waiter>,
    /// Of a REQUEST.
    pub(crate) answer: Option<Asker>,
}

impl Outgoing {
    pub(crate) fn new(to: Destination, payload: Payload) -> Self {
        let Payload { bytes, class, flags, ttl_ms } = payload;
        let (until, audience, piece) = (None, None, 0);
        let (taken, answer) = (None, None);
        Self { to, class, flags, ttl_ms, until, payload: bytes, audience, piece, taken, answer }
    }

    pub(crate) fn to_peer(handle: u64, kind: FrameKind, corr: u64, payload: Payload) -> Self {
        Self::new(Destination::Peer { handle, kind, corr }, payload)
    }

    /// Its time to live begins.
    pub(crate) fn is_said(&mut self) {
        let ttl = Duration::from_millis(u64::from(self.ttl_ms));
        self.until = (self.ttl_ms > 0).then(|| TokioInstant::now() + ttl);
    }

    /// Whether the payload begins with an envelope that the program made.
    pub(crate) const fn is_enveloped(&self) -> bool {
        self.flags & flags::ENVELOPE != 0
    }
}

/// Entropy of the system.
pub(crate) fn entropy<const N: usize>() -> Result<[u8; N], ConnectError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ConnectError::Entropy)?;
    Ok(bytes)
}
