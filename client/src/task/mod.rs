//! The task that owns the socket, and what its handles tell it.
//!
//! ```text
//!   handles --Command--> said.rs --wishes--> asks.rs -----+
//!           --Outgoing-> said.rs --messages-> outbox.rs --+-> turn.rs: records -> link.rs: socket
//!   handles <-Event----- deliver.rs <-------- told.rs <---+-- turn.rs: records <- link.rs
//!                                    run.rs: attempts, waits, the end
//! ```

mod asks;
mod connect;
mod deliver;
mod dialogues;
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
use wardline_core::native::{FrameKind, Identity};

use crate::client::Peer;
use crate::dialogue::{Direct, Piece, Request};
use crate::error::{CloseError, ConnectError, Error};
use crate::event::{Event, From};

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
        from: From,
        echo: bool,
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

impl Destination {
    pub(crate) const fn direct(handle: u64) -> Self {
        Self::Peer { handle, kind: FrameKind::Direct, corr: 0 }
    }
}

/// Who waits for the answer to a request: first for its number, then for the pieces.
pub(crate) type Asker = (oneshot::Sender<Result<u64, Error>>, mpsc::Sender<Result<Piece, Error>>);

/// A frame that is to go out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) to: Destination,
    pub(crate) flags: u16,
    pub(crate) ttl_ms: u32,
    pub(crate) payload: Vec<u8>,
    /// Who waits until it is taken.
    pub(crate) taken: Option<oneshot::Sender<Result<(), Error>>>,
    /// Of a REQUEST.
    pub(crate) answer: Option<Asker>,
}

impl Outgoing {
    pub(crate) const fn new(to: Destination, payload: Vec<u8>) -> Self {
        Self { to, flags: 0, ttl_ms: 0, payload, taken: None, answer: None }
    }
}

/// Entropy of the system.
pub(crate) fn entropy<const N: usize>() -> Result<[u8; N], ConnectError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| ConnectError::Entropy)?;
    Ok(bytes)
}
