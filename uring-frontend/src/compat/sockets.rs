//! The sockets of a shard, and what the relay may have done to them.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use wardline_core::{Carrier, ConnId, Event, Gather, Handover, Started};
use wardline_host::bells::{Bell, Bells};
use wardline_host::events::Events;

use super::buffers::{Buffers, SMALL_BYTES};
use crate::sys::compat::{self, Fd, Message, PollOne, Receive, Send};
use crate::sys::{RawPool, unacknowledged};

/// Spare messages that are kept: one for each send of several ranges of a usual turn.
const SPARE_MESSAGES: usize = 64;

/// What came in, or will.
#[derive(Debug)]
pub(super) enum Input {
    /// Nothing is asked for: the peer has finished writing, or the socket is gone.
    None,
    /// A receive waits.
    Waiting(Receive),
    /// It has ended: these bytes, from `at` on, are still to be handed to the relay.
    Come { bytes: Vec<u8>, at: usize },
    /// It has ended with the end of the stream, or an error.
    Over(io::Result<()>),
}

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) conn: ConnId,
    pub(super) fd: Fd,
    pub(super) bell: Bell,
    pub(super) input: Input,
    pub(super) send: Option<Send>,
    /// How many bytes that send was given.
    pub(super) send_bytes: usize,
    /// Its end was looked for and not found.
    pub(super) send_waits: bool,
    /// The socket took less than it was given: nothing is sent to it until this has ended.
    pub(super) full: Option<PollOne>,
    /// The relay does not want to read it.
    pub(super) paused: bool,
    /// The relay is done with it; it goes when nothing of it is under way any more.
    pub(super) closing: bool,
}

impl Socket {
    /// Whether an operation of it is under way.
    fn is_busy(&self) -> bool {
        matches!(self.input, Input::Waiting(_)) || self.send.is_some() || self.full.is_some()
    }
}

/// All of them, by [`ConnId::index`].
#[derive(Debug)]
pub(super) struct Sockets {
    table: Vec<Option<Socket>>,
    rung: Arc<Bells>,
    /// Sockets to be looked at in the next turn, whatever they say themselves.
    pub(super) again: Vec<u32>,
    /// Sockets whose send was started in this turn.
    pub(super) sending: Vec<u32>,
    pub(super) events: Events,
    pub(super) buffers: Buffers,
    messages: Vec<Message>,
}

/// A connection's number in the table and on the lists.
fn number(conn: ConnId) -> u32 {
    u32::try_from(conn.index()).unwrap_or(u32::MAX)
}

impl Sockets {
    /// `numbers`: sockets and doors. The lists are as long as they can get from the start; memory
    /// that is never used is never touched. A receive brings at most `receive_bytes`.
    pub(super) fn new(rung: Arc<Bells>, numbers: usize, receive_bytes: usize) -> Self {
        Self {
            table: Vec::with_capacity(numbers),
            rung,
            again: Vec::with_capacity(2 * numbers),
            sending: Vec::with_capacity(numbers),
            events: Events::default(),
            buffers: Buffers::new(receive_bytes),
            messages: Vec::with_capacity(SPARE_MESSAGES),
        }
    }

    /// Takes the socket of a connection that the relay has taken, and reads it.
    pub(super) fn add(&mut self, conn: ConnId, fd: Fd) {
        let index = conn.index();
        if self.table.len() <= index {
            self.table.resize_with(index + 1, || None);
        }
        let mut socket = Socket {
            conn,
            bell: self.rung.bell(number(conn)),
            fd,
            input: Input::None,
            send: None,
            send_bytes: 0,
            send_waits: false,
            full: None,
            paused: false,
            closing: false,
        };
        socket.receive(Vec::with_capacity(SMALL_BYTES));
        if let Some(place) = self.table.get_mut(index) {
            *place = Some(socket);
        }
    }

    /// The socket of that number, if there still is one.
    pub(super) fn at(&mut self, number: u32) -> Option<&mut Socket> {
        self.table.get_mut(number as usize)?.as_mut()
    }

    fn of(&mut self, conn: ConnId) -> Option<&mut Socket> {
        self.at(number(conn)).filter(|socket| socket.conn == conn)
    }

    /// Looks whether the send of a socket has ended, and with what; `None` while it has not.
    pub(super) fn ended_send(
        &mut self,
        number: u32,
        context: &mut Context<'_>,
    ) -> Option<(ConnId, io::Result<usize>, usize)> {
        let Self { table, messages, .. } = self;
        let socket = table.get_mut(number as usize)?.as_mut()?;
        let Poll::Ready((sent, message)) = socket.send.as_mut()?.poll(context) else {
            return None;
        };
        (socket.send, socket.send_waits) = (None, false);
        if let Some(message) = message
            && messages.len() < SPARE_MESSAGES
        {
            messages.push(message);
        }
        let sent = match sent {
            Err(error) if is_full(&error) => Ok(0),
            sent => sent,
        };
        if sent.as_ref().is_ok_and(|sent| *sent < socket.send_bytes) {
            let mut poll = compat::poll_writable(&socket.fd);
            // It has just been submitted: it has not ended.
            let _: Poll<_> = poll.poll(&mut Context::from_waker(socket.bell.waker()));
            socket.full = Some(poll);
        }
        Some((socket.conn, sent, socket.send_bytes))
    }

    /// Lets a socket go that the relay is done with, if nothing of it is under way any more; gives
    /// whether it went.
    pub(super) fn let_go(&mut self, number: u32) -> bool {
        let Self { table, buffers, .. } = self;
        let Some(place) = table.get_mut(number as usize) else { return false };
        if !place.as_ref().is_some_and(|socket| socket.closing && !socket.is_busy()) {
            return false;
        }
        if let Some(Socket { input: Input::Come { bytes, .. }, .. }) = place.take() {
            buffers.take_back(bytes);
        }
        true
    }

    /// Has the operations of a socket end, if there is one of that number; gives whose it is.
    pub(super) fn hang_up(&mut self, number: u32) -> Option<ConnId> {
        let socket = self.at(number)?;
        // One that was reset needs no more.
        let _ = rustix::net::shutdown(socket.fd.as_fd(), rustix::net::Shutdown::Both);
        Some(socket.conn)
    }

    /// Never drops what the kernel may still write to.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.table));
    }
}

impl Socket {
    /// Has the next bytes written to that buffer.
    pub(super) fn receive(&mut self, buffer: Vec<u8>) {
        let mut receive = compat::receive(&self.fd, buffer);
        // It has just been submitted: it has not ended.
        let _: Poll<_> = receive.poll(&mut Context::from_waker(self.bell.waker()));
        self.input = Input::Waiting(receive);
    }
}

/// Whether a send has failed only for now.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl<'p> Carrier<RawPool<'p>> for Sockets {
    fn is_full(&mut self, conn: ConnId) -> bool {
        self.of(conn).is_none_or(|socket| socket.full.is_some())
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &RawPool<'p>) -> Started {
        let Self { table, messages, sending, .. } = self;
        let socket = table.get_mut(conn.index()).and_then(Option::as_mut);
        let Some(socket) = socket.filter(|socket| socket.conn == conn) else {
            return Started::Failed;
        };
        assert!(socket.send.is_none(), "one send at a time");
        let message = || messages.pop().unwrap_or_else(Message::new);
        // Nobody is woken by its end: it is looked for when the turn's submissions are over.
        socket.send = Some(compat::send(&socket.fd, gather, pool, message));
        socket.send_bytes = gather.bytes();
        sending.push(number(conn));
        Started::UnderWay
    }

    fn cancel_send(&mut self, _: ConnId) {
        // Its end comes with the next turn, whatever the peer does.
    }

    fn pause(&mut self, conn: ConnId) {
        // What comes by the receive that waits is kept until it is wanted.
        if let Some(socket) = self.of(conn) {
            socket.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            socket.paused = false;
            self.again.push(number(conn));
        }
    }

    fn probe(&mut self, conn: ConnId) -> Option<u32> {
        unacknowledged(self.of(conn)?.fd.as_fd())
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            // Whoever is gone already is told by its receive.
            let _ = SockRef::from(&*socket.fd).shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, conn: ConnId) -> bool {
        let Some(socket) = self.of(conn) else { return true };
        socket.closing = true;
        if self.let_go(number(conn)) {
            return true;
        }
        // An operation keeps the file open, and a receive or poll may wait for ever: this ends it.
        if let Some(socket) = self.of(conn) {
            let _ = SockRef::from(&*socket.fd).shutdown(Shutdown::Both);
        }
        false
    }

    fn hand_over(&mut self, conn: ConnId, _: Handover) -> bool {
        // A receive that is under way cannot be taken back, so sessions are not spread.
        self.close(conn)
    }

    fn event(&mut self, event: Event, remote: Option<SocketAddr>) {
        self.events.push(event, remote);
    }
}
