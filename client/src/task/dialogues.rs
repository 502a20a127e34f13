//! Requests that are open, either way, and who takes what comes from peers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use wardline_core::native::{Frame, FrameKind, flags};

use crate::dialogue::{Credit, Direct, Piece, Request};
use crate::error::Error;

/// Requests of this client that are open.
const OPEN_MAX: usize = 1_024;
/// Requests to this client that are not answered.
const ANSWERING_MAX: usize = 4_096;

/// A request of this client.
#[derive(Debug)]
struct Open {
    peer: u64,
    pieces: mpsc::Sender<Result<Piece, Error>>,
    /// What the peer may still send in pieces.
    credit: u64,
    /// A piece of the answer came.
    begun: bool,
    /// Something for this client was lost since it asked: perhaps a piece.
    holed: bool,
}

/// Dialogues with peers.
#[derive(Debug, Default)]
pub(crate) struct Dialogues {
    open: HashMap<u64, Open>,
    answering: HashMap<(u64, u64), Weak<Credit>>,
    pub(crate) requests: Option<mpsc::Sender<Request>>,
    pub(crate) directs: Option<mpsc::Sender<Direct>>,
}

impl Dialogues {
    /// Whether another request may be made.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.open.len() >= OPEN_MAX {
            self.open.retain(|_, open| !open.pieces.is_closed());
        }
        self.open.len() < OPEN_MAX
    }

    /// A request of this client goes out.
    pub(crate) fn ask(&mut self, mid: u64, peer: u64, pieces: mpsc::Sender<Result<Piece, Error>>) {
        self.open.insert(mid, Open { peer, pieces, credit: 0, begun: false, holed: false });
    }

    /// The peer is to be given so much. False: nobody waits for that answer.
    pub(crate) fn grant(&mut self, mid: u64, bytes: u32) -> bool {
        match self.open.get_mut(&mid) {
            Some(open) => {
                open.credit = open.credit.saturating_add(u64::from(bytes));
                true
            }
            None => false,
        }
    }

    pub(crate) fn forget(&mut self, mid: u64) {
        self.open.remove(&mid);
    }

    /// A request of this client came to nothing. False: it is none that is open.
    pub(crate) fn fail(&mut self, mid: u64, error: Error) -> bool {
        match self.open.remove(&mid) {
            Some(open) => {
                // Full, it ends without the reason; who no longer waits does not want to know.
                let _ = open.pieces.try_send(Err(error));
                true
            }
            None => false,
        }
    }

    /// All of them did.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        for (_, open) in self.open.drain() {
            // As above.
            let _ = open.pieces.try_send(Err(error.clone()));
        }
    }

    /// Something for this client was lost on the way: an answer that comes in pieces may have a
    /// hole, and nobody would see it.
    pub(crate) fn lost(&mut self) {
        for open in self.open.values_mut() {
            open.holed = true;
        }
        let begun: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.begun).map(|(mid, _)| *mid).collect();
        for mid in begun {
            self.fail(mid, Error::Unsure);
        }
    }

    /// A REPLY or STREAM: taken only where the request is open with that peer.
    pub(crate) fn answer(&mut self, frame: &Frame<'_>) {
        let mid = frame.header.corr;
        let Some(open) = self.open.get_mut(&mid).filter(|open| open.peer == frame.header.peer)
        else {
            return;
        };
        let stream = frame.header.kind == FrameKind::Stream;
        let bytes = frame.payload.len() as u64;
        if stream && open.holed {
            self.fail(mid, Error::Unsure);
            return;
        }
        if stream && open.credit < bytes {
            self.fail(mid, Error::Credit);
            return;
        }
        if stream {
            open.begun = true;
            open.credit -= bytes;
        }
        let last = !stream || frame.header.has(flags::END);
        let piece = Piece { payload: frame.payload.to_vec(), last };
        // As many empty pieces as there is room for are more than anybody needs.
        if open.pieces.try_send(Ok(piece)).is_err() || last {
            self.open.remove(&mid);
        }
    }

    /// A request to this client: what its answer may send. None: too many are not answered.
    pub(crate) fn asked(&mut self, peer: u64, mid: u64) -> Option<Arc<Credit>> {
        if self.answering.len() >= ANSWERING_MAX {
            self.answering.retain(|_, credit| credit.strong_count() > 0);
        }
        if self.answering.len() >= ANSWERING_MAX {
            return None;
        }
        let credit = Arc::new(Credit::default());
        self.answering.insert((peer, mid), Arc::downgrade(&credit));
        Some(credit)
    }

    /// A peer gives room for more of an answer.
    pub(crate) fn credit(&mut self, peer: u64, corr: u64, bytes: u32) {
        match self.answering.get(&(peer, corr)).and_then(Weak::upgrade) {
            Some(credit) => credit.grant(bytes),
            None => {
                self.answering.remove(&(peer, corr));
            }
        }
    }

    /// The client is over.
    pub(crate) fn end(&mut self) {
        self.open.clear();
        for (_, credit) in self.answering.drain() {
            if let Some(credit) = credit.upgrade() {
                credit.close();
            }
        }
        self.requests = None;
        self.directs = None;
    }
}
