//! A shard: one thread, one relay, its listeners and its sockets.
//!
//! One poll of the shard is one turn: everything that came in is handed to the relay, then the
//! relay's word is carried out. Writes go to the sockets directly, out of the log; only a socket
//! that is full is waited for.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use wardline_core::{ConnId, Gather, Handover, Instant, Next, Relay, Remote, TopicId, pump, send};
use wardline_host::bells::Bell;
use wardline_host::callers::{Caller, Callers};
use wardline_host::clock::Clock;
use wardline_host::links::{Arrival, Links};
use wardline_host::net::{self, AcceptErrors, Tuning};
use wardline_host::orders::Orders;

use crate::sockets::Sockets;

/// Connections taken from one listener per turn.
const ACCEPTS_PER_TURN: usize = 64;

/// A listening socket and the topic that it is bound to.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) socket: TcpListener,
    pub(crate) topic: TopicId,
    bell: Bell,
}

/// A shard.
#[derive(Debug)]
pub(crate) struct Shard<'s> {
    relay: Relay<'s, &'s mut [u8]>,
    sockets: Sockets,
    doors: Vec<Door>,
    callers: Callers,
    links: Links,
    orders: &'s Orders,
    clock: Clock,
    tuning: Tuning,
    gather: Gather,
    buffer: Vec<u8>,
    writable: Vec<ConnId>,
    sleep: Pin<Box<Sleep>>,
    sleep_until: Instant,
    accept_errors: AcceptErrors,
    draining: bool,
}

impl<'s> Shard<'s> {
    /// Must be made inside of the runtime that it will run on.
    pub(crate) fn new(
        relay: Relay<'s, &'s mut [u8]>,
        doors: Vec<(TcpListener, TopicId)>,
        clock: Clock,
        tuning: Tuning,
        orders: &'s Orders,
        links: Links,
    ) -> Self {
        let limits = relay.limits();
        let sockets = limits.connections.saturating_add(wardline_core::RESERVE);
        let buffer = vec![0; limits.receive_bytes as usize];
        let callers = Callers::new(sockets, doors.len());
        let (bells, numbers) = (callers.bells(), callers.numbers());
        let door = |(number, (socket, topic))| Door { socket, topic, bell: bells.bell(number) };
        let doors = callers.doors().zip(doors).map(door).collect();
        let mut table = Sockets::new(Arc::clone(bells), numbers);
        table.again.extend(callers.doors());
        Self {
            relay,
            sockets: table,
            doors,
            callers,
            links,
            orders,
            clock,
            tuning,
            gather: Gather::new(),
            buffer,
            writable: Vec::with_capacity(numbers),
            sleep: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            sleep_until: Instant::NEVER,
            accept_errors: AcceptErrors::default(),
            draining: false,
        }
    }

    /// Runs until it has drained, or was told to stop.
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + use<'s> {
        self.callers.listen(self.orders, &self.links);
        std::future::poll_fn(move |context| self.turn(context))
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        self.links.take_in(&mut self.relay, now);
        if self.take_in(now) {
            return Poll::Ready(());
        }
        let next = pump(&mut self.relay, &mut self.sockets, &mut self.gather, now);
        self.sockets.events.report(&self.relay);
        self.hand_over();
        self.links.give_out(&mut self.relay, now);
        if self.draining && self.relay.connections() == 0 && self.links.all_drained() {
            return Poll::Ready(());
        }
        self.callers.register(context.waker());
        let again = next == Next::Again
            || !self.sockets.again.is_empty()
            || !self.callers.is_empty()
            || !self.links.may_sleep();
        if again {
            // Not woken at once but after a look at the sockets: they must not starve.
            let mut later = std::pin::pin!(tokio::task::yield_now());
            let _: Poll<()> = later.as_mut().poll(context);
        } else if let Next::Wait(until) = next {
            self.sleep_till(until, context);
        }
        Poll::Pending
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
            self.welcome(arrival, now);
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
        if socket.full {
            let mut context = Context::from_waker(socket.bell.waker());
            match socket.stream.poll_write_ready(&mut context) {
                Poll::Ready(_) => {
                    socket.full = false;
                    self.writable.push(socket.conn);
                }
                Poll::Pending => {}
            }
        }
        if !socket.paused && !socket.ended {
            self.read(number, now);
        }
    }

    fn read(&mut self, number: u32, now: Instant) {
        let Some(socket) = self.sockets.at(number) else { return };
        let conn = socket.conn;
        let budget = self.relay.read_budget(conn).min(self.buffer.len());
        let Some(room) = self.buffer.get_mut(..budget) else { return };
        if room.is_empty() {
            // Its pause, or its end, is still to come.
            self.sockets.again.push(number);
            return;
        }
        let mut context = Context::from_waker(socket.bell.waker());
        let mut buffer = ReadBuf::new(room);
        match Pin::new(&mut socket.stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                let bytes = buffer.filled();
                if bytes.is_empty() {
                    socket.ended = true;
                    self.relay.handle_eof(now, conn);
                    return;
                }
                // A full buffer: there may be more, but the others come first. Else the socket is
                // asked to ring when there is.
                let more =
                    bytes.len() == budget || socket.stream.poll_read_ready(&mut context).is_ready();
                self.relay.handle_input(now, conn, bytes);
                if more {
                    self.sockets.again.push(number);
                }
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => {
                self.sockets.again.push(number);
            }
            Poll::Ready(Err(_)) => {
                socket.ended = true;
                self.relay.handle_broken(now, conn);
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
            match door.socket.poll_accept(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, addr))) => {
                    match self.links.hand_on_to(at, self.relay.connections()) {
                        None => self.admit(stream, Remote { addr, topic }, None, now),
                        Some(to) => self.hand_on(to, stream, Remote { addr, topic }),
                    }
                }
                Poll::Ready(Err(error)) => {
                    if let Some(until) = self.accept_errors.rest_until(&error, now) {
                        self.callers.rest_doors(until);
                        return;
                    }
                }
            }
        }
        self.sockets.again.push(self.callers.door(at));
    }

    /// Another shard has fewer connections.
    fn hand_on(&mut self, to: u8, stream: TcpStream, remote: Remote) {
        let Remote { addr, topic } = remote;
        match stream.into_std() {
            Ok(stream) => {
                tracing::debug!(%addr, "handed on to shard-{to}");
                self.links.hand_on(to, Arrival { stream, addr, topic, handover: None });
            }
            Err(error) => tracing::debug!(%addr, %error, "lost while it was handed on"),
        }
    }

    /// Connections go to the shards of their clients.
    fn hand_over(&mut self) {
        let Sockets { gone, lost, .. } = &mut self.sockets;
        let gone = gone.drain(..).filter_map(|(stream, handover)| match stream.into_std() {
            Ok(stream) => Some((stream, handover)),
            Err(error) => {
                let addr = handover.addr;
                tracing::debug!(%addr, %error, "lost while it was handed over");
                *lost += 1;
                None
            }
        });
        self.links.hand_over(self.relay.listen_native().ok(), gone);
        self.links.lose(std::mem::take(lost));
    }

    /// A connection that another shard has accepted.
    fn welcome(&mut self, arrival: Arrival, now: Instant) {
        let Arrival { stream, addr, topic, handover } = arrival;
        match TcpStream::from_std(stream) {
            Ok(stream) => self.admit(stream, Remote { addr, topic }, handover, now),
            Err(error) => {
                tracing::debug!(%addr, %error, "lost while it was handed on");
                self.links.lose(usize::from(handover.is_some()));
            }
        }
    }

    fn admit(
        &mut self,
        stream: TcpStream,
        remote: Remote,
        handover: Option<Box<Handover>>,
        now: Instant,
    ) {
        let (relay, arrival) = (&mut self.relay, (stream, remote));
        let taken = net::admit(relay, self.tuning, arrival, handover, now, |stream, warning| {
            let _ = stream.try_write(warning);
        });
        if let Some((conn, stream)) = taken {
            self.sockets.add(conn, stream);
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
    fn sleep_till(&mut self, until: Option<Instant>, context: &mut Context<'_>) {
        let until = match (until, self.callers.doors_open_at()) {
            (Some(until), Some(doors)) => until.min(doors),
            (until, doors) => until.or(doors).unwrap_or(Instant::NEVER),
        };
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
