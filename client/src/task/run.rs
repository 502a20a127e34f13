//! A client's life: connections, and the waits between them.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Weak};
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant as TokioInstant;
use wardline_core::native::Identity;
use wardline_core::native::client::{Backoff, Loss, Session, Slot, UNSURE_MAX};
use wardline_core::{Duration, Instant};

use super::asks::Asks;
use super::connect::{self, Reached, clock_ms};
use super::deliver::Deliveries;
use super::dialogues::Dialogues;
use super::epochs::epoch_ms;
use super::letters::Letters;
use super::link::Link;
use super::outbox::Outbox;
use super::topics::Topics;
use super::{Command, Outgoing, entropy};
use crate::builder::Plan;
use crate::client::{Client, Inner, Shared, Status};
use crate::error::{CloseError, ConnectError, Ended, Error, Refusal};
use crate::event::Report;

/// Commands that can wait for the task.
const COMMANDS_MAX: usize = 64;
/// Messages that can wait for the task.
const FRAMES_MAX: usize = 128;
/// A connection that lasted so long is no reason to come back with patience.
const LASTED: Duration = Duration::from_secs(30);
/// Clocks that are further apart are worth a word.
const CLOCK_APART_MS: u64 = 300_000;
/// How long a client that is to close waits for what is under way.
pub(super) const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Everything that the task owns.
pub(super) struct Task {
    pub(super) plan: Plan,
    pub(super) shared: Arc<Shared>,
    pub(super) inner: Weak<Inner>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) frames: mpsc::Receiver<Outgoing>,
    pub(super) clock: Clock,
    pub(super) session: Session<Box<[Slot]>>,
    pub(super) outbox: Outbox,
    pub(super) topics: Topics,
    pub(super) asks: Asks,
    pub(super) dialogues: Dialogues,
    pub(super) letters: Letters,
    pub(super) deliveries: Deliveries,
    pub(super) pings: Vec<Ping>,
    /// Somebody waits for what was said since the last barrier.
    pub(super) barrier_due: bool,
    /// Since when nothing is read, because something waits to be delivered.
    pub(super) stalled: Option<Instant>,
    /// Handles that were this client's, and the ids that it has given.
    pub(super) handles: Vec<u64>,
    pub(super) mids: Option<(u64, u64)>,
    /// Topics whose reader is to ask again, and when.
    pub(super) retries: Vec<(Instant, usize)>,
    pub(super) closing: Option<Closing>,
    /// What the end of this connection is to the backoff: a cut, until the relay's CLOSE is in.
    pub(super) closed_loss: Loss,
    epoch_ms: u64,
    backoff: Backoff,
}

/// Somebody waits for a PONG.
pub(super) struct Ping {
    /// The message that was the last to be sent when it began to wait.
    pub(super) after: u64,
    /// Of which PING, on this connection; 0: it is yet to be asked for.
    pub(super) number: u64,
    pub(super) done: oneshot::Sender<Result<std::time::Duration, Error>>,
}

/// It is to end.
pub(super) struct Closing {
    pub(super) done: Vec<oneshot::Sender<Result<(), CloseError>>>,
    /// What is under way is waited for until then.
    pub(super) until: Instant,
    /// All that was queued is in the outbox.
    pub(super) drained: bool,
    /// The relay said that it had taken everything.
    pub(super) covered: bool,
    pub(super) refusal: Option<Refusal>,
}

/// The core's time: from the task's beginning.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    origin: TokioInstant,
}

impl Clock {
    pub(super) fn now(&self) -> Instant {
        let since = self.origin.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// The core's time of a point of the runtime's.
    pub(super) fn of(&self, at: TokioInstant) -> Instant {
        let since = at.saturating_duration_since(self.origin).as_nanos();
        Instant::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// The runtime's time of a point that is at most a day ahead.
    pub(super) fn at(&self, instant: Instant) -> TokioInstant {
        let most = self.now().after(Duration::from_secs(24 * 3_600));
        self.origin + std::time::Duration::from_nanos(instant.min(most).as_nanos())
    }
}

/// How a connection ended, as far as the client goes on from it.
pub(super) enum Over {
    /// It comes back, if the loss allows it.
    Lost(Loss),
    /// It was to end.
    Closed,
}

/// Connects for the first time, and leaves the connection to a task of its own.
pub(crate) async fn start(plan: Plan) -> Result<Client, ConnectError> {
    let clock = Clock { origin: TokioInstant::now() };
    let epoch_ms = epoch_ms(&plan)?;
    let mut backoff = Backoff::NEW;
    let first = connect::reach(&plan, plan.pin, None, epoch_ms, || clock.now()).await;
    let reached = match first {
        // It is known now, and set the puzzle that it has to solve when it comes again: once, for
        // anybody can say so.
        Err(error) if connect::is_puzzle_wanted(&error) => {
            let jitter = u64::from_le_bytes(entropy()?);
            // Not as late as it is told to: who calls waits for that.
            let loss = Loss::Alert { retry_ms: 0 };
            let wait = backoff.wait(loss, jitter).unwrap_or(Duration::ZERO);
            tokio::time::sleep_until(clock.at(clock.now().after(wait))).await;
            connect::reach(&plan, plan.pin, None, epoch_ms, || clock.now()).await?
        }
        first => first?,
    };
    note(&plan, plan.pin, &reached)?;
    let status = Status {
        server: reached.connected.server(),
        handle: reached.connected.handle(),
        max_payload: reached.connected.granted().max_payload,
        connected: true,
        untrusted: 0,
        ended: None,
    };
    let own = (plan.key.identity(), plan.device);
    let letters = Letters::new(plan.policy, own, epoch_ms, clock_ms());
    let shared = Shared::new(own, epoch_ms, (plan.events_max, plan.policy), status);
    let (commands_in, commands) = mpsc::channel(COMMANDS_MAX);
    let (frames_in, frames) = mpsc::channel(FRAMES_MAX);
    let inner = Inner { commands: commands_in, frames: frames_in, shared: shared.clone() };
    let inner = Arc::new(inner);
    let slots = vec![Slot::default(); UNSURE_MAX].into_boxed_slice();
    let task = Task {
        plan,
        shared,
        inner: Arc::downgrade(&inner),
        commands,
        frames,
        clock,
        session: Session::new(slots, u64::from_le_bytes(entropy()?)),
        outbox: Outbox::default(),
        topics: Topics::default(),
        asks: Asks::default(),
        dialogues: Dialogues::default(),
        letters,
        deliveries: Deliveries::default(),
        pings: Vec::new(),
        barrier_due: false,
        stalled: None,
        handles: Vec::new(),
        mids: None,
        retries: Vec::new(),
        closing: None,
        closed_loss: Loss::Cut,
        epoch_ms,
        backoff,
    };
    tokio::spawn(task.run(reached));
    Ok(Client::new(inner))
}

/// A server that has proved who it is, and was not known, is noted.
fn note(plan: &Plan, pin: Option<Identity>, reached: &Reached) -> Result<(), ConnectError> {
    match &plan.known {
        Some(known) if pin.is_none() => {
            Ok(known.note(&plan.url.address(), reached.connected.server())?)
        }
        Some(_) | None => Ok(()),
    }
}

impl Task {
    async fn run(mut self, first: Reached) {
        let mut reached = first;
        let ended = loop {
            let began = self.clock.now();
            let mut link = self.connected(reached);
            let mut sleep = Box::pin(tokio::time::sleep_until(self.clock.at(began)));
            let over = poll_fn(|cx| self.poll_turn(cx, &mut link, &mut sleep)).await;
            drop(link);
            let loss = match over {
                Over::Lost(loss) => loss,
                Over::Closed => break Ended::Closed,
            };
            if self.clock.now().since(began) >= LASTED {
                self.backoff.rest();
            }
            self.lost(loss);
            reached = match self.come_back(loss).await {
                Ok(reached) => reached,
                Err(ended) => break ended,
            };
        };
        // What had come is read before its streams end.
        self.end(ended).finish().await;
    }

    /// A handshake came to its end.
    fn connected(&mut self, reached: Reached) -> Link {
        let Reached { stream, connected, rest } = reached;
        self.session.handle_connected(self.clock.now(), &connected);
        self.closed_loss = Loss::Cut;
        let offset = connected.clock_offset_ms(clock_ms()).unwrap_or(0);
        if offset.unsigned_abs() > CLOCK_APART_MS {
            self.shared.report(Report::Clock(offset));
        }
        let mut status = self.shared.status();
        status.server = connected.server();
        status.handle = connected.handle();
        status.max_payload = connected.granted().max_payload;
        status.connected = true;
        drop(status);
        Link::new(stream, &rest, self.session.record_bytes_max())
    }

    /// The connection is gone.
    fn lost(&mut self, loss: Loss) {
        self.session.handle_lost();
        self.topics.lost();
        self.asks.lost();
        self.retries.clear();
        self.barrier_due = false;
        for ping in &mut self.pings {
            ping.number = 0;
        }
        self.shared.status().connected = false;
        match loss {
            Loss::Closed { number, retry_ms } => {
                self.shared.report(Report::Closed(Refusal::new(number, retry_ms)));
            }
            Loss::Cut | Loss::Alert { .. } | Loss::NotReached => self.shared.report(Report::Cut),
        }
    }

    /// Waits and tries, until there is a connection or the end.
    async fn come_back(&mut self, mut loss: Loss) -> Result<Reached, Ended> {
        let pin = Some(self.shared.status().server);
        loop {
            // No entropy is no reason not to come back: then all come at once.
            let jitter = entropy().map(u64::from_le_bytes).unwrap_or(0);
            let Some(wait) = self.backoff.wait(loss, jitter) else {
                return Err(match loss {
                    Loss::Closed { number, retry_ms } => {
                        Ended::Close(Refusal::new(number, retry_ms))
                    }
                    Loss::Cut | Loss::Alert { .. } | Loss::NotReached => Ended::Gone,
                });
            };
            self.wait_until(self.clock.now().after(wait)).await?;
            let (clock, epoch_ms) = (self.clock, self.epoch_ms);
            let mut resume = self.session.resumption().copied();
            let reached = {
                let now = || clock.now();
                let attempt = connect::reach(&self.plan, pin, resume.as_ref(), epoch_ms, now);
                self.deliveries.meanwhile(attempt).await
            };
            if let Some(resume) = &mut resume {
                resume.rms.wipe();
            }
            match reached {
                Ok(reached) => return Ok(reached),
                Err(error) => {
                    loss = connect::loss(&error);
                    let next = self.backoff_hint();
                    self.shared.report(Report::NotReached(error, next));
                }
            }
        }
    }

    /// About how long the next wait is.
    fn backoff_hint(&self) -> std::time::Duration {
        let mut next = self.backoff;
        let wait = next.wait(Loss::NotReached, 0).unwrap_or_default();
        std::time::Duration::from_nanos(wait.as_nanos())
    }

    /// Takes what handles say, and nothing else.
    async fn wait_until(&mut self, until: Instant) -> Result<(), Ended> {
        let mut sleep = Box::pin(tokio::time::sleep_until(self.clock.at(until)));
        poll_fn(|cx| {
            loop {
                let now = self.clock.now();
                // Before what is said: there is room for as much as is given up.
                self.expire(now);
                self.settle();
                self.poll_said(cx, now);
                self.settle();
                // What is parked goes out meanwhile; it is not what is waited for.
                let _ = self.deliveries.poll(cx);
                if let Some(closing) = &self.closing {
                    // Where nothing is under way, there is nothing to come back for.
                    let nothing = closing.drained && self.session.is_settled();
                    if nothing || now >= closing.until {
                        return Poll::Ready(Err(Ended::Closed));
                    }
                }
                // The waits of a client that closes are short.
                let at = self.closing.as_ref().map_or(until, |closing| closing.until.min(until));
                sleep.as_mut().reset(self.clock.at(at.min(self.outbox.expiry())));
                if now >= until {
                    return Poll::Ready(Ok(()));
                }
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// It is over, for good. Handles learn why before they learn that.
    fn end(mut self, ended: Ended) -> Deliveries {
        let mut status = self.shared.status();
        status.connected = false;
        status.ended = Some(ended);
        drop(status);
        let (unsure, unsent) = self.session.counts();
        self.outbox.fail_waiters(&Error::Ended(ended));
        self.dialogues.fail_all(&Error::Ended(ended));
        if let Some(closing) = self.closing.take() {
            let clean = unsure == 0 && unsent == 0 && closing.covered;
            let error = CloseError { unsure, unsent, refusal: closing.refusal };
            for done in closing.done {
                // Who no longer waits does not want to know.
                let _ = done.send(if clean { Ok(()) } else { Err(error) });
            }
        }
        self.dialogues.end();
        self.topics.end();
        self.shared.report(Report::Ended(ended));
        self.deliveries
    }
}
