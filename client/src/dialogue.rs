//! Messages to one peer, requests and their answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use wardline_core::native::{FrameKind, Identity, flags};

use crate::client::Client;
use crate::envelopes::Signed;
use crate::error::Error;
use crate::payload::{Payload, span};
use crate::task::{Command, Outgoing, Waiter};

/// How much of an answer may be under way: what a peer may send before it is told that it was
/// read. Half of what a relay queues for one client.
pub(crate) const CREDIT_BYTES: u32 = 128 * 1_024;
/// The longest answer that [`Client::request`] puts together from pieces.
pub(crate) const REPLY_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// The longest piece of an answer: several fit into what may be under way.
const PIECE_BYTES_MAX: usize = 32 * 1_024;

/// Pieces of which it is not yet known whether they were taken.
const PIECES_UNDER_WAY: usize = 64;
/// How long the asker's room for another piece is waited for, where it named no deadline.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message from one peer to this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// The handle of who sent it.
    pub sender: u64,
    /// The sender's number for it.
    pub mid: u64,
    /// The frame's flags.
    pub flags: u16,
    /// Who signed it, verified here. None: it came without an envelope, or none is opened.
    pub signed: Option<Signed>,
    /// What it says.
    pub payload: Vec<u8>,
}

/// The direct messages to a client: [`Client::directs`].
#[derive(Debug)]
pub struct Directs {
    /// Who has this keeps the client alive.
    pub(crate) _client: Client,
    pub(crate) incoming: mpsc::Receiver<Direct>,
}

impl Directs {
    /// The next one. None: the client is over.
    pub async fn recv(&mut self) -> Option<Direct> {
        self.incoming.recv().await
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The handle of who answered.
    pub sender: u64,
    /// Who signed it, verified here; of an answer in pieces, all of them.
    pub signed: Option<Signed>,
    /// The answer; of one that came in pieces, all of them.
    pub payload: Vec<u8>,
}

/// An answer as it comes in, in one piece or in many: [`Client::request_stream`].
#[derive(Debug)]
pub struct Answer {
    pub(crate) client: Client,
    pub(crate) peer: u64,
    pub(crate) mid: u64,
    pub(crate) pieces: mpsc::Receiver<Result<Piece, Error>>,
    pub(crate) deadline: Instant,
    /// Bytes that were read and not yet given back to the peer.
    pub(crate) owed: u32,
    /// Who signed the last piece that was read.
    pub(crate) signed: Option<Signed>,
    pub(crate) over: bool,
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) payload: Vec<u8>,
    pub(crate) signed: Option<Signed>,
    pub(crate) last: bool,
}

impl Answer {
    /// Who was asked.
    #[must_use]
    pub const fn peer(&self) -> u64 {
        self.peer
    }

    /// Who signed the pieces that were read, verified here: the same device all of them. None:
    /// none was read yet, or they came without envelopes.
    #[must_use]
    pub const fn signed(&self) -> Option<Signed> {
        self.signed
    }

    /// The next piece. None: that was all.
    ///
    /// # Errors
    /// The request was refused, its time is over, or the session with it.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.over {
            return Ok(None);
        }
        let piece = match timeout_at(self.deadline, self.pieces.recv()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(error))) => {
                self.over = true;
                // Where its time to live is the deadline, both end at once.
                let both = matches!(error, Error::Expired) && Instant::now() >= self.deadline;
                return Err(if both { Error::Deadline } else { error });
            }
            Ok(None) => {
                self.over = true;
                return Err(self.client.ended_error());
            }
            Err(_) => {
                self.over = true;
                return Err(Error::Deadline);
            }
        };
        self.over = piece.last;
        self.signed = piece.signed;
        if !piece.last {
            let bytes = u32::try_from(piece.payload.len()).unwrap_or(u32::MAX);
            self.owed = self.owed.saturating_add(bytes);
            if self.owed >= CREDIT_BYTES / 2 {
                let (peer, corr, bytes) = (self.peer, self.mid, self.owed);
                self.owed = 0;
                self.client.command(Command::Credit { peer, corr, bytes }).await?;
            }
        }
        Ok(Some(piece.payload))
    }

    /// All pieces together.
    pub(crate) async fn whole(mut self) -> Result<Reply, Error> {
        let mut payload = Vec::new();
        while let Some(piece) = self.next().await? {
            let bytes = payload.len() + piece.len();
            if bytes > REPLY_BYTES_MAX {
                return Err(Error::TooLarge { bytes, max: REPLY_BYTES_MAX });
            }
            if payload.is_empty() {
                payload = piece;
            } else {
                payload.extend_from_slice(&piece);
            }
        }
        Ok(Reply { sender: self.peer, signed: self.signed, payload })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.client.try_command(Command::Forget { mid: self.mid });
    }
}

/// How much of a stream a peer takes.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    bytes: AtomicU64,
    more: Notify,
}

impl Credit {
    pub(crate) fn grant(&self, bytes: u32) {
        let add = |had: u64| Some(had.saturating_add(u64::from(bytes)));
        // Never refused: the closure always gives a value.
        let _ = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        self.more.notify_one();
    }

    /// Nobody waits any more: the client is over.
    pub(crate) fn close(&self) {
        self.bytes.store(u64::MAX, Ordering::Release);
        self.more.notify_one();
    }

    /// Takes `bytes`, once there are so many.
    async fn take(&self, bytes: u64) {
        let sub = |had: u64| had.checked_sub(bytes);
        while self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, sub).is_err() {
            self.more.notified().await;
        }
    }
}

/// The requests to a client: [`Client::requests`].
#[derive(Debug)]
pub struct Requests {
    /// Who has this keeps the client alive.
    pub(crate) _client: Client,
    pub(crate) incoming: mpsc::Receiver<Request>,
}

impl Requests {
    /// The next one. None: the client is over.
    pub async fn recv(&mut self) -> Option<Request> {
        self.incoming.recv().await
    }
}

/// A request of a peer. Dropped, it is not answered: the peer's deadline tells it.
#[derive(Debug)]
pub struct Request {
    pub(crate) client: Client,
    pub(crate) sender: u64,
    pub(crate) mid: u64,
    pub(crate) flags: u16,
    pub(crate) ttl_ms: u32,
    pub(crate) signed: Option<Signed>,
    pub(crate) payload: Vec<u8>,
    pub(crate) credit: Arc<Credit>,
}

impl Request {
    /// The handle of who asks.
    #[must_use]
    pub const fn sender(&self) -> u64 {
        self.sender
    }

    /// The asker's number for it.
    #[must_use]
    pub const fn mid(&self) -> u64 {
        self.mid
    }

    /// The frame's flags.
    #[must_use]
    pub const fn flags(&self) -> u16 {
        self.flags
    }

    /// Who signed it, verified here. None: it came without an envelope, or none is opened.
    #[must_use]
    pub const fn signed(&self) -> Option<Signed> {
        self.signed
    }

    /// How long the asker waits, from when its request went out. None: it did not say.
    #[must_use]
    pub const fn patience(&self) -> Option<Duration> {
        span(self.ttl_ms)
    }

    /// What is asked.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Answers, in one piece: queued and sent. Whether it was taken, [`Client::reports`] tells.
    ///
    /// # Errors
    /// It is too large, or the client is over.
    pub async fn reply(self, payload: impl Into<Payload>) -> Result<(), Error> {
        let asker = self.asker().await?;
        self.client.queue(self.answer(FrameKind::Reply, payload.into(), asker)).await
    }

    /// Answers in pieces, as fast as the asker reads them.
    #[must_use]
    pub const fn stream(self) -> Pieces {
        Pieces { request: self, asker: None, next: 0, under_way: VecDeque::new(), failed: None }
    }

    /// For whom the answer is signed: for who signed the request, or else for whom the relay says
    /// that it is from.
    async fn asker(&self) -> Result<Option<(Identity, u32)>, Error> {
        match self.signed {
            _ if !self.client.signs() => Ok(None),
            Some(signed) => Ok(Some((signed.sender, signed.device))),
            None => self.client.owner(self.sender).await.map(Some),
        }
    }

    fn answer(
        &self,
        kind: FrameKind,
        payload: Payload,
        audience: Option<(Identity, u32)>,
    ) -> Outgoing {
        let frame = Outgoing::to_peer(self.sender, kind, self.mid, payload);
        Outgoing { audience, ..frame }
    }
}

/// An answer that goes out in pieces. It must be ended: dropped before, the asker waits until its
/// deadline. It is ended only where every piece was taken: nobody is left with half an answer that
/// looks whole. Where this client signs, the pieces' numbers and the end are signed with them: nor
/// can who relays them make that of it.
#[derive(Debug)]
pub struct Pieces {
    request: Request,
    /// For whom it is signed, once that is known.
    asker: Option<(Identity, u32)>,
    /// The number of the next piece.
    next: u32,
    under_way: VecDeque<oneshot::Receiver<Result<(), Error>>>,
    /// A piece was not taken: there is a hole, and nothing may follow.
    failed: Option<Error>,
}

impl Pieces {
    /// Sends so much more, once the asker has room for it.
    ///
    /// # Errors
    /// The asker gave no room for as long as it said that it waits (60 s, where it did not say); a
    /// piece was not taken, and the answer cannot be ended any more; or the client is over.
    pub async fn send(&mut self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        for piece in payload.as_ref().chunks(PIECE_BYTES_MAX) {
            self.piece(0, piece).await?;
        }
        Ok(())
    }

    /// That was all. Returns once all of it was taken.
    ///
    /// # Errors
    /// As [`Pieces::send`].
    pub async fn end(mut self) -> Result<(), Error> {
        self.settle(0).await?;
        self.piece(flags::END, &[]).await?;
        self.settle(0).await
    }

    async fn piece(&mut self, flags: u16, piece: &[u8]) -> Result<(), Error> {
        self.settle(PIECES_UNDER_WAY - 1).await?;
        let patience = self.request.patience().unwrap_or(PATIENCE);
        let credit = self.request.credit.take(piece.len() as u64);
        timeout(patience, credit).await.map_err(|_| Error::Deadline)?;
        if self.asker.is_none() {
            self.asker = self.request.asker().await?;
        }
        let (taken, answer) = oneshot::channel();
        let payload = Payload { flags, ..Payload::new(piece) };
        let mut frame = self.request.answer(FrameKind::Stream, payload, self.asker);
        frame.taken = Some(Waiter::Taken(taken));
        frame.piece = self.next;
        self.next = self.next.saturating_add(1);
        self.under_way.push_back(answer);
        self.request.client.queue(frame).await
    }

    /// Takes note of the pieces that were taken, until so many are under way.
    async fn settle(&mut self, most: usize) -> Result<(), Error> {
        while self.failed.is_none() {
            let waits = self.under_way.len() > most;
            let Some(first) = self.under_way.front_mut() else { break };
            let ended = || Err(self.request.client.ended_error());
            let told = match first.try_recv() {
                Ok(told) => told,
                Err(TryRecvError::Empty) if waits => first.await.unwrap_or_else(|_| ended()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Closed) => ended(),
            };
            self.under_way.pop_front();
            self.failed = told.err();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }
}
