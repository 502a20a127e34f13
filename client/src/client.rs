//! The handle of a client: what a program calls. All of it goes to the one task that owns the
//! socket.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use wardline_core::native::envelope::ENVELOPE_BYTES;
use wardline_core::native::{Code, FrameKind, Identity, SigningKey, flags, is_topic_name};

use crate::builder::Builder;
use crate::dialogue::{Answer, CREDIT_BYTES, Directs, Reply, Requests};
use crate::envelopes::Policy;
use crate::error::{CloseError, ConnectError, Ended, Error, Refusal};
use crate::event::{From, Reading, Report, Reports, Subscription};
use crate::payload::{Payload, Recipient, Verdict, millis};
use crate::task::{Command, Destination, Joined, Outgoing, Question, Waiter};

/// Pieces of an answer that can wait to be read, whatever their size.
const PIECES_MAX: usize = 1_024;
/// Pages of readers that [`Client::who`] asks for, 16 sessions each.
const PAGES_MAX: usize = 4_096;

/// A session of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its handle, for [`Client::direct`] and [`Client::request`].
    pub handle: u64,
    /// Whose it is. None: it speaks the line dialect and is **not authenticated**.
    pub identity: Option<Identity>,
    /// Which device.
    pub device: u32,
}

/// A client of a relay. Cloned, it is the same client; it ends when it is closed, or when the last
/// clone and the last of its subscriptions and streams are dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) frames: mpsc::Sender<Outgoing>,
    pub(crate) shared: Arc<Shared>,
}

/// What the task shows its handles.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) device: u32,
    pub(crate) epoch_ms: u64,
    pub(crate) events_max: usize,
    pub(crate) policy: Policy,
    pub(crate) reports: broadcast::Sender<Report>,
    status: Mutex<Status>,
}

/// What changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) server: Identity,
    pub(crate) handle: u64,
    pub(crate) max_payload: u32,
    pub(crate) connected: bool,
    /// What was kept back because it is not to be trusted.
    pub(crate) untrusted: u64,
    pub(crate) ended: Option<Ended>,
}

impl Shared {
    pub(crate) fn new(
        (identity, device): (Identity, u32),
        epoch_ms: u64,
        (events_max, policy): (usize, Policy),
        status: Status,
    ) -> Arc<Self> {
        // Reports that wait for who reads them slowly; more are counted as dropped.
        let reports = broadcast::Sender::new(256);
        let status = Mutex::new(status);
        Arc::new(Self { identity, device, epoch_ms, events_max, policy, reports, status })
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        // Nothing panics while it holds it; and if, each field is whole.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn report(&self, report: Report) {
        // Nobody has to listen.
        let _ = self.reports.send(report);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.inner.shared.status())
    }
}

impl Client {
    /// Connects to the relay at `url` (`native://HOST:PORT`) as the owner of `key`. The server is
    /// the one that was met there before, by the `known_hosts` of this user
    /// ([`state`](crate::state)); one that is met for the first time is believed, and noted. To
    /// know it beforehand, or by another file: [`Client::builder`].
    ///
    /// # Errors
    /// There is no relay, it is not the expected one, or it says no; there is no home for a file of
    /// known servers. Nothing is tried twice.
    pub async fn connect(url: &str, key: SigningKey) -> Result<Self, ConnectError> {
        Self::builder(url).key(key).connect().await
    }

    /// A client that is to be told more before it connects.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(crate) const fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Who this client is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.shared.identity
    }

    /// Which of its devices.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.inner.shared.device
    }

    /// Which start of that device: what a program that names its device keeps, and gives to
    /// [`Builder::epoch_ms`] when it starts again.
    #[must_use]
    pub fn epoch_ms(&self) -> u64 {
        self.inner.shared.epoch_ms
    }

    /// Who the relay is.
    #[must_use]
    pub fn server(&self) -> Identity {
        self.inner.shared.status().server
    }

    /// This client's own handle. A new connection may have another.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.inner.shared.status().handle
    }

    /// The largest payload that this client can send: what the relay takes, less the envelope
    /// where it signs.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        let max = usize::try_from(self.inner.shared.status().max_payload).unwrap_or(usize::MAX);
        max.saturating_sub(if self.signs() { ENVELOPE_BYTES } else { 0 })
    }

    pub(crate) fn signs(&self) -> bool {
        self.inner.shared.policy.signs
    }

    /// How many messages, requests and answers were kept back because they are not to be trusted.
    #[must_use]
    pub fn untrusted(&self) -> u64 {
        self.inner.shared.status().untrusted
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.shared.status().connected
    }

    /// Why the client is over, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.inner.shared.status().ended
    }

    /// What happens to the client, from now on.
    #[must_use]
    pub fn reports(&self) -> Reports {
        let over = self.ended().is_some();
        Reports { reports: self.inner.shared.reports.subscribe(), over }
    }

    /// Has the relay give a topic's number. Publishing does so by itself.
    ///
    /// # Errors
    /// The relay lets this client neither publish there nor know who reads it, or the client is
    /// over.
    pub async fn open(&self, topic: &str) -> Result<(), Error> {
        let topic = name(topic)?;
        self.ask(|done| Command::Open { topic, done }).await?
    }

    /// Publishes: queued here, and sent. Waits only where the queue is full, or there is no
    /// connection. Whether the relay took it, [`Client::reports`] tells where it did not.
    ///
    /// # Errors
    /// It is too large, or the client is over.
    pub async fn publish(&self, topic: &str, payload: impl Into<Payload>) -> Result<(), Error> {
        let to = Destination::Topic(name(topic)?);
        self.queue(Outgoing::new(to, payload.into())).await
    }

    /// Publishes, and waits until the relay has taken it, if need be over a new connection.
    ///
    /// # Errors
    /// The relay's no with its code; [`Error::Unsure`] where the relay no longer knows;
    /// [`Error::Expired`] where it waited for longer than its [`Payload::ttl`]; or the client is
    /// over.
    pub async fn publish_taken(
        &self,
        topic: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), Error> {
        let to = Destination::Topic(name(topic)?);
        self.queue_taken(Outgoing::new(to, payload.into())).await
    }

    /// Publishes, and waits until the relay has taken it and says for how many readers it queued
    /// it. None: it was taken, and the connection was lost before the relay said more.
    ///
    /// # Errors
    /// As [`Client::publish_taken`].
    pub async fn publish_verdict(
        &self,
        topic: &str,
        payload: impl Into<Payload>,
    ) -> Result<Option<Verdict>, Error> {
        let mut frame = Outgoing::new(Destination::Topic(name(topic)?), payload.into());
        frame.flags |= flags::VERDICT;
        let (verdict, answer) = oneshot::channel();
        frame.taken = Some(Waiter::Verdict(verdict));
        self.queue(frame).await?;
        answer.await.map_err(|_| self.ended_error())?
    }

    /// Reads a topic. `echo`: this client's own messages, too. Where the connection is lost, the
    /// topic is read on where it was left.
    ///
    /// # Errors
    /// The relay does not let this client read there, the topic is read already, or the client is
    /// over.
    pub async fn subscribe(
        &self,
        topic: &str,
        from: From,
        echo: bool,
    ) -> Result<Subscription, Error> {
        self.subscribe_with(topic, Reading { echo, ..Reading::new(from) }).await
    }

    /// Reads a topic as [`Reading`] says.
    ///
    /// # Errors
    /// As [`Client::subscribe`]; to be told who reads it, this client must be allowed to know.
    pub async fn subscribe_with(
        &self,
        topic: &str,
        reading: Reading,
    ) -> Result<Subscription, Error> {
        let topic = name(topic)?;
        let (sender, events) = mpsc::channel(self.inner.shared.events_max);
        let begin =
            |done| Command::Subscribe { topic: topic.clone(), reading, events: sender, done };
        let Joined { id, epoch, next, oldest } = self.ask(begin).await??;
        Ok(Subscription { client: self.clone(), topic, id, epoch, next, oldest, events })
    }

    /// The sessions of an identity.
    ///
    /// # Errors
    /// The relay's no, or the client is over.
    pub async fn resolve(&self, identity: Identity) -> Result<Vec<Peer>, Error> {
        let question = Question::Resolve(identity);
        let mut page = self.ask(|done| Command::Ask { question, done }).await??;
        // Whoever runs the relay shall not have us talk to somebody else.
        page.peers.retain(|peer| peer.identity == Some(identity));
        Ok(page.peers)
    }

    /// Who reads a topic. This client must be allowed to know (`who`).
    ///
    /// # Errors
    /// [`Error::NotOpened`] where the relay does not give it the topic's number, by which it is
    /// asked (PROTOCOL.md 2.5.2); the relay's no, or the client is over.
    pub async fn who(&self, topic: &str) -> Result<Vec<Peer>, Error> {
        let topic = name(topic)?;
        let mut peers = Vec::new();
        let mut after = 0;
        for _ in 0..PAGES_MAX {
            let question = Question::Who(topic.clone(), after);
            let page = self.ask(|done| Command::Ask { question, done }).await??;
            peers.extend(page.peers);
            after = page.next;
            if after == 0 {
                return Ok(peers);
            }
        }
        Err(Error::TooMany)
    }

    /// Whose a handle is. None: nobody's.
    ///
    /// # Errors
    /// The relay's no, or the client is over.
    pub async fn identify(&self, handle: u64) -> Result<Option<Peer>, Error> {
        let question = Question::Identify(handle);
        match self.ask(|done| Command::Ask { question, done }).await? {
            Ok(page) => Ok(page.peers.first().copied()),
            Err(error) if error.code() == Some(Code::NoRoute) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a message to one peer, a handle or a [`Peer`]: queued here, and sent.
    ///
    /// # Errors
    /// It is too large, or the client is over. Where this client signs and is given a handle alone:
    /// it is nobody's.
    pub async fn direct(
        &self,
        to: impl Into<Recipient>,
        payload: impl Into<Payload>,
    ) -> Result<(), Error> {
        self.queue(self.to_peer(to.into(), FrameKind::Direct, payload.into()).await?).await
    }

    /// Sends a message to one peer, and waits until the relay has queued it for that peer.
    ///
    /// # Errors
    /// As [`Client::publish_taken`]; [`Error::SessionGone`] where the handle is void.
    pub async fn direct_taken(
        &self,
        to: impl Into<Recipient>,
        payload: impl Into<Payload>,
    ) -> Result<(), Error> {
        self.queue_taken(self.to_peer(to.into(), FrameKind::Direct, payload.into()).await?).await
    }

    /// Asks a peer, a handle or a [`Peer`], and waits for its answer, at most until `deadline` is
    /// over. A signed answer is taken only from the identity that was asked, where that is known.
    ///
    /// # Errors
    /// The relay's no, [`Error::Deadline`], [`Error::Untrusted`], or as [`Client::publish_taken`].
    pub async fn request(
        &self,
        to: impl Into<Recipient>,
        payload: impl Into<Payload>,
        deadline: Duration,
    ) -> Result<Reply, Error> {
        self.request_stream(to, payload, deadline).await?.whole().await
    }

    /// Asks a peer whose answer may come in pieces; all of them within `deadline`.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub async fn request_stream(
        &self,
        to: impl Into<Recipient>,
        payload: impl Into<Payload>,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        let ends = Instant::now() + deadline;
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let (number, sent) = oneshot::channel();
        let to = to.into();
        let asking = self.to_peer(to, FrameKind::Request, payload.into());
        let mut frame = timeout_at(ends, asking).await.map_err(|_| Error::Deadline)??;
        if frame.ttl_ms == 0 {
            frame.ttl_ms = millis(deadline);
        }
        frame.answer = Some((number, sender));
        timeout_at(ends, self.queue(frame)).await.map_err(|_| Error::Deadline)??;
        let mid = timeout_at(ends, sent).await.map_err(|_| Error::Deadline)?;
        let mid = mid.map_err(|_| self.ended_error())??;
        let client = self.clone();
        let (peer, signed) = (to.handle, None);
        self.command(Command::Credit { peer, corr: mid, bytes: CREDIT_BYTES }).await?;
        Ok(Answer { client, peer, mid, pieces, deadline: ends, owed: 0, signed, over: false })
    }

    /// The requests to this client, from now on; who took them before gets no more. Without it
    /// they are dropped, and reported.
    ///
    /// # Errors
    /// The client is over.
    pub async fn requests(&self) -> Result<Requests, Error> {
        let (sender, incoming) = mpsc::channel(self.inner.shared.events_max);
        self.command(Command::TakeRequests(sender)).await?;
        Ok(Requests { _client: self.clone(), incoming })
    }

    /// The direct messages to this client, from now on; who took them before gets no more.
    /// Without it they are dropped, and reported.
    ///
    /// # Errors
    /// The client is over.
    pub async fn directs(&self) -> Result<Directs, Error> {
        let (sender, incoming) = mpsc::channel(self.inner.shared.events_max);
        self.command(Command::TakeDirects(sender)).await?;
        Ok(Directs { _client: self.clone(), incoming })
    }

    /// How long the relay takes to answer. All that was published before is taken or refused when
    /// this returns, as far as there was room to send it: 1,024 messages can be under way.
    ///
    /// # Errors
    /// The client is over.
    pub async fn ping(&self) -> Result<Duration, Error> {
        self.ask(|done| Command::Ping { done }).await?
    }

    /// Closes: sends what is queued, waits until the relay has taken or refused it (up to 10 s),
    /// and says goodbye both ways. For all clones. What comes meanwhile and finds its subscription
    /// full is dropped.
    ///
    /// # Errors
    /// The relay did not say that it took everything: what is unsure.
    pub async fn close(self) -> Result<(), CloseError> {
        let over = CloseError { unsure: 0, unsent: 0, refusal: None };
        match self.ask(|done| Command::Close { done }).await {
            Ok(closed) => closed,
            Err(Error::Ended(Ended::Closed)) => Ok(()),
            Err(Error::Ended(Ended::Close(refusal))) => {
                Err(CloseError { refusal: Some(refusal), ..over })
            }
            Err(_) => Err(over),
        }
    }

    /// Why a call came to nothing where the task does not answer.
    pub(crate) fn ended_error(&self) -> Error {
        Error::Ended(self.ended().unwrap_or(Ended::Gone))
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), Error> {
        self.inner.commands.send(command).await.map_err(|_| self.ended_error())
    }

    /// A command that may be lost where there is no room.
    pub(crate) fn try_command(&self, command: Command) {
        let _ = self.inner.commands.try_send(command);
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        self.command(command(done)).await?;
        answer.await.map_err(|_| self.ended_error())
    }

    /// A message to one peer, and, where it is signed, for whom.
    async fn to_peer(
        &self,
        to: Recipient,
        kind: FrameKind,
        payload: Payload,
    ) -> Result<Outgoing, Error> {
        let mut frame = Outgoing::to_peer(to.handle, kind, 0, payload);
        frame.audience = match to.who {
            None if self.signs() && !frame.is_enveloped() => Some(self.owner(to.handle).await?),
            who => who,
        };
        Ok(frame)
    }

    /// Whose a handle is, by the relay's word.
    pub(crate) async fn owner(&self, handle: u64) -> Result<(Identity, u32), Error> {
        let peer = self.identify(handle).await?;
        let who = peer.and_then(|peer| Some((peer.identity?, peer.device)));
        who.ok_or(Error::Refused(Refusal::new(Code::NoRoute.wire(), 0)))
    }

    pub(crate) async fn queue(&self, mut frame: Outgoing) -> Result<(), Error> {
        frame.is_said();
        let own = if frame.is_enveloped() && self.signs() { ENVELOPE_BYTES } else { 0 };
        let (bytes, max) = (frame.payload.len(), self.max_payload().saturating_add(own));
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        self.inner.frames.send(frame).await.map_err(|_| self.ended_error())
    }

    async fn queue_taken(&self, mut frame: Outgoing) -> Result<(), Error> {
        let (taken, answer) = oneshot::channel();
        frame.taken = Some(Waiter::Taken(taken));
        self.queue(frame).await?;
        answer.await.map_err(|_| self.ended_error())?
    }
}

/// A topic's name.
fn name(topic: &str) -> Result<Arc<str>, Error> {
    if is_topic_name(topic) { Ok(topic.into()) } else { Err(Error::TopicName) }
}
