//! A shard: one thread, one relay, its listeners and its sockets.
//!
//! One poll of the shard is one turn: the ends of all operations are handed to the relay, then the
//! relay's word is carried out. What a turn submits goes to the kernel when the thread is about to
//! sleep; the sends of a turn have ended by then, and a last, empty operation behind them begins
//! the next turn.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;
use wardline_core::{ConnId, Duration, Gather, Instant, Next, Relay, Remote, TopicId, pump, send};
use wardline_host::bells::Bell;
use wardline_host::callers::{Caller, Callers};
use wardline_host::clock::Clock;
use wardline_host::links::{Arrival, Links};
use wardline_host::net::{self, AcceptErrors, Tuning};
use wardline_host::orders::Orders;

use super::sockets::{Input, Sockets};
use crate::sys::RawPool;
use crate::sys::compat::{Nop, nop, watch};

/// How long operations may take to end once they were broken off.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// Connections taken from one listener per turn.
const ACCEPTS_PER_TURN: usize = 64;

/// A kernel that is short of memory may not take submissions, and tokio-uring says nothing of it:
/// after so long they are tried again.
const SUBMIT_AGAIN: Duration = Duration::from_secs(1);

/// A listening socket and the topic that it is bound to. The runtime's own epoll watches it, and
/// not the ring: the kernel takes a ring apart some time after its process has gone, and what was
/// asked of it holds its files until then; so who kills a relay would find its port still taken.
#[derive(Debug)]
struct Door {
    listener: AsyncFd<TcpListener>,
    topic: TopicId,
    bell: Bell,
}

/// A shard.
#[derive(Debug)]
pub(super) struct Shard<'s, 'p> {
    relay: Relay<'s, RawPool<'p>>,
    sockets: Sockets,
    doors: Vec<Door>,
    callers: Callers,
    links: Links,
    orders: &'s Orders,
    clock: Clock,
    tuning: Tuning,
    gather: Gather,
    /// Behind everything that was submitted in a turn and does not wait.
    fence: Option<Nop>,
    /// Sockets whose sends stand before the fence.
    fenced: Vec<u32>,
    writable: Vec<ConnId>,
    sleep: Pin<Box<Sleep>>,
    sleep_until: Instant,
    accept_errors: AcceptErrors,
    draining: bool,
    /// It was told to stop at once, and is to have by then.
    stop_by: Option<Instant>,
}

impl<'s, 'p> Shard<'s, 'p> {
    /// Must be made inside of the runtime that it will run on.
    pub(super) fn new(
        relay: Relay<'s, RawPool<'p>>,
        listeners: Vec<(TcpListener, TopicId)>,
        clock: Clock,
        tuning: Tuning,
        orders: &'s Orders,
        links: Links,
    ) -> io::Result<Self> {
        let sockets = relay.limits().connections.saturating_add(wardline_core::RESERVE);
        let callers = Callers::new(sockets, listeners.len());
        let bells = callers.bells();
        let mut doors = Vec::with_capacity(listeners.len());
        for (number, (listener, topic)) in callers.doors().zip(listeners) {
            let listener = watch(listener)?;
            doors.push(Door { listener, topic, bell: bells.bell(number) });
        }
        let (numbers, receive_bytes) = (callers.numbers(), relay.limits().receive_bytes as usize);
        let mut table = Sockets::new(Arc::clone(bells), numbers, receive_bytes);
        table.again.extend(callers.doors());
        Ok(Self {
            relay,
            sockets: table,
            doors,
            callers,
            links,
            orders,
            clock,
            tuning,
            gather: Gather::new(),
            fence: None,
            fenced: Vec::with_capacity(numbers),
            writable: Vec::with_capacity(numbers),
            sleep: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            sleep_until: Instant::NEVER,
            accept_errors: AcceptErrors::default(),
            draining: false,
            stop_by: None,
        })
    }

    /// Runs until it has drained, or was told to stop.
    pub(super) fn run(mut self) -> impl Future<Output = ()> {
        self.callers.listen(self.orders, &self.links);
        std::future::poll_fn(move |context| self.turn(context))
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let over = self.fence.as_mut().is_some_and(|fence| fence.poll(context).is_ready());
        let waited_for = over || self.sleep.is_elapsed() || !self.callers.is_empty();
        if !waited_for && (self.fence.is_some() || self.sockets.again.is_empty()) {
            // The runtime polls this also when it is about to look at the ring.
            return Poll::Pending;
        }
        let now = self.clock.now();
        if over {
            self.fence = None;
            self.sends_ended(now);
        }
        self.links.take_in(&mut self.relay, now);
        if self.take_in(now) && self.stop_by.is_none() {
            self.hang_up(now);
        }
        let next = pump(&mut self.relay, &mut self.sockets, &mut self.gather, now);
        self.sockets.events.report(&self.relay);
        self.links.give_out(&mut self.relay, now);
        if self.draining && self.relay.connections() == 0 && self.links.all_drained() {
            return Poll::Ready(());
        }
        if self.has_stopped(now) {
            return Poll::Ready(());
        }
        self.callers.register(context.waker());
        let inputs = !self.sockets.again.is_empty() || !self.callers.is_empty();
        let again = next == Next::Again || inputs || !self.links.may_sleep();
        if self.fence.is_none() && (again || !self.sockets.sending.is_empty()) {
            let mut fence = nop();
            // Not woken at once but after the kernel has seen what was submitted.
            let _: Poll<()> = fence.poll(context);
            self.fence = Some(fence);
            std::mem::swap(&mut self.fenced, &mut self.sockets.sending);
        }
        let until = match next {
            Next::Wait(until) if !again => until.unwrap_or(Instant::NEVER),
            Next::Wait(_) | Next::Again => Instant::NEVER,
        };
        let retry = if self.fence.is_some() { now.after(SUBMIT_AGAIN) } else { Instant::NEVER };
        let stop = self.stop_by.unwrap_or(Instant::NEVER);
        self.sleep_till(until.min(retry).min(stop), context);
        Poll::Pending
    }

    /// Breaks every connection off. The operations of each end by that, and only then may what they
    /// name be dropped: tokio-uring frees the buffer of a receive that was given up when its
    /// runtime ends, before it has the kernel cancel it.
    fn hang_up(&mut self, now: Instant) {
        self.doors.clear();
        self.stop_by = Some(now.after(STOP_PATIENCE));
        for number in 0..self.callers.doors().start {
            if let Some(conn) = self.sockets.hang_up(number) {
                self.relay.handle_broken(now, conn);
            }
        }
    }

    /// Whether it was told to stop and nothing is under way any more. What is, though there was
    /// time, is never dropped.
    fn has_stopped(&mut self, now: Instant) -> bool {
        let Some(by) = self.stop_by else { return false };
        let busy = self.relay.connections() > 0;
        if busy && now >= by {
            self.sockets.leak();
        }
        !busy || now >= by
    }

    /// What was submitted before the fence is over: so are these sends.
    fn sends_ended(&mut self, now: Instant) {
        for at in 0..self.fenced.len() {
            let Some(number) = self.fenced.get(at).copied() else { break };
            let mut unheard = Context::from_waker(Waker::noop());
            if !self.send_ended(number, &mut unheard, now) {
                self.wait_for_send(number, now);
            }
        }
        self.fenced.clear();
    }

    /// Tells the relay of a send's end; gives whether there was one to tell of.
    fn send_ended(&mut self, number: u32, context: &mut Context<'_>, now: Instant) -> bool {
        let Some((conn, sent, wanted)) = self.sockets.ended_send(number, context) else {
            return false;
        };
        match sent {
            Ok(sent) => self.relay.handle_sent(now, conn, sent, sent == wanted),
            Err(_) => self.relay.handle_send_failed(now, conn),
        }
        self.forget(number, conn, now);
        true
    }

    /// No kernel is known in which such a send waits; where one does, its end rings the bell.
    #[cold]
    fn wait_for_send(&mut self, number: u32, now: Instant) {
        let Some(socket) = self.sockets.at(number) else { return };
        let (conn, waker) = (socket.conn, socket.bell.waker().clone());
        socket.send_waits = socket.send.is_some();
        if socket.send_waits && !self.send_ended(number, &mut Context::from_waker(&waker), now) {
            self.relay.handle_send_waits(now, conn);
        }
    }

    /// Hands everything that came in to the relay. Gives whether to stop at once.
    fn take_in(&mut self, now: Instant) -> bool {
        self.callers.begin_turn(&mut self.sockets.again, now);
        let mut stop = false;
        while let Some(caller) = self.callers.answer() {
            match caller {
                Caller::Socket { number, rang } => self.look_at(number, rang, now),
                Caller::Door(at) => self.open_door(at, now),
                Caller::Control => stop |= self.obey(now),
            }
        }
        while let Some(arrival) = self.links.arrival() {
            // This engine hands nothing over.
            let Arrival { stream, addr, topic, .. } = arrival;
            self.admit(stream, addr, topic, now);
        }
        for at in 0..self.writable.len() {
            if let Some(conn) = self.writable.get(at).copied() {
                send(&mut self.relay, &mut self.sockets, &mut self.gather, now, conn);
            }
        }
        self.writable.clear();
        stop
    }

    /// A socket has something to say, or is looked at again.
    fn look_at(&mut self, number: u32, rang: bool, now: Instant) {
        let Some(socket) = self.sockets.at(number) else { return };
        if rang {
            socket.bell.answered();
        }
        let conn = socket.conn;
        let mut context = Context::from_waker(socket.bell.waker());
        if let Input::Waiting(receive) = &mut socket.input
            && let Poll::Ready((received, bytes)) = receive.poll(&mut context)
        {
            socket.input = come(received, bytes);
        }
        if let Some(poll) = &mut socket.full
            && poll.poll(&mut context).is_ready()
        {
            socket.full = None;
            if !socket.closing {
                self.writable.push(conn);
            }
        }
        if socket.send_waits {
            self.wait_for_send(number, now);
        }
        match self.sockets.at(number) {
            Some(socket) if socket.closing => self.forget(number, conn, now),
            Some(socket) if !socket.paused => self.hand_over(number, now),
            Some(_) | None => {}
        }
    }

    /// A connection that the relay is done with goes once nothing of it is under way any more.
    fn forget(&mut self, number: u32, conn: ConnId, now: Instant) {
        if self.sockets.let_go(number) {
            self.relay.handle_closed(now, conn);
        }
    }

    /// Hands what came in to the relay, as much as it will have now, and asks for more.
    fn hand_over(&mut self, number: u32, now: Instant) {
        let Some(socket) = self.sockets.at(number) else { return };
        let conn = socket.conn;
        match std::mem::replace(&mut socket.input, Input::None) {
            Input::Waiting(receive) => socket.input = Input::Waiting(receive),
            Input::None => {}
            Input::Over(Ok(())) => self.relay.handle_eof(now, conn),
            Input::Over(Err(_)) => self.relay.handle_broken(now, conn),
            Input::Come { bytes, at } => {
                let budget = self.relay.read_budget(conn);
                let rest = bytes.get(at..).unwrap_or_default();
                let part = rest.get(..budget).unwrap_or(rest);
                if !part.is_empty() {
                    self.relay.handle_input(now, conn, part);
                }
                let at = at.saturating_add(part.len());
                if at < bytes.len() {
                    // More next turn; or its pause, or its end, is still to come.
                    socket.input = Input::Come { bytes, at };
                    self.sockets.again.push(number);
                    return;
                }
                let len = bytes.len();
                let next = self.sockets.buffers.after(bytes, len);
                if let Some(socket) = self.sockets.at(number) {
                    socket.receive(next);
                }
            }
        }
    }

    fn open_door(&mut self, at: usize, now: Instant) {
        let Some(door) = self.doors.get(at) else { return };
        door.bell.answered();
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(door) = self.doors.get(at) else { return };
            let topic = door.topic;
            let mut context = Context::from_waker(door.bell.waker());
            let Poll::Ready(ready) = door.listener.poll_read_ready(&mut context) else { return };
            let accepted = ready.and_then(|mut ready| {
                let accepted = ready.get_inner().accept();
                if accepted.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock) {
                    ready.clear_ready();
                }
                accepted
            });
            match accepted {
                Ok((stream, addr)) => match self.links.hand_on_to(at, self.relay.connections()) {
                    None => self.admit(stream, addr, topic, now),
                    Some(to) => {
                        tracing::debug!(%addr, "handed on to shard-{to}");
                        self.links.hand_on(to, Arrival { stream, addr, topic, handover: None });
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    if let Some(until) = self.accept_errors.rest_until(&error, now) {
                        self.callers.rest_doors(until);
                        return;
                    }
                }
            }
        }
        self.sockets.again.push(self.callers.door(at));
    }

    fn admit(&mut self, stream: TcpStream, addr: SocketAddr, topic: TopicId, now: Instant) {
        let arrival = (stream, Remote { addr, topic });
        let taken =
            net::admit(&mut self.relay, self.tuning, arrival, None, now, |mut stream, warning| {
                let _ = stream.set_nonblocking(true);
                let _ = io::Write::write(&mut stream, warning);
            });
        if let Some((conn, stream)) = taken {
            self.sockets.add(conn, Rc::new(stream.into()));
        }
    }

    /// Gives whether to stop at once.
    fn obey(&mut self, now: Instant) -> bool {
        let told = self.orders.obey(&mut self.relay, now);
        if told.close_doors {
            self.doors.clear();
        }
        self.draining |= told.drain;
        told.stop
    }

    /// Sleeps until then, or until a socket rings. A sleep that ends too early costs a turn, one
    /// that is set anew costs more; so it is only ever moved to an earlier time.
    fn sleep_till(&mut self, until: Instant, context: &mut Context<'_>) {
        let until = until.min(self.callers.doors_open_at().unwrap_or(Instant::NEVER));
        let over = self.sleep.is_elapsed();
        if until == Instant::NEVER || (!over && self.sleep_until <= until) {
            return;
        }
        let Some(at) = self.clock.std_instant(until) else { return };
        self.sleep.as_mut().reset(at.into());
        self.sleep_until = until;
        if self.sleep.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }
}

/// What a receive brought.
fn come(received: io::Result<usize>, bytes: Vec<u8>) -> Input {
    match received {
        Ok(0) => Input::Over(Ok(())),
        Ok(_) => Input::Come { bytes, at: 0 },
        // Nothing: the next receive is asked for at once.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Input::Come { bytes, at: 0 },
        Err(error) => Input::Over(Err(error)),
    }
}
