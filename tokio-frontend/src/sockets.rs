//! The sockets of a shard, and what the relay may have done to them.

use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use wardline_core::{Carrier, ConnId, Event, GATHER_MAX, Gather, Handover, Pool, Started};
use wardline_host::bells::{Bell, Bells};
use wardline_host::events::Events;
use wardline_host::links::ARRIVALS;

use crate::probe::Probe;

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) conn: ConnId,
    pub(crate) stream: TcpStream,
    pub(crate) bell: Bell,
    /// It took less than it was given; nothing is sent to it until it says that it can take more.
    pub(crate) full: bool,
    /// The relay does not want to read it.
    pub(crate) paused: bool,
    /// The peer finished writing.
    pub(crate) ended: bool,
}

/// All of them, by [`ConnId::index`].
#[derive(Debug)]
pub(crate) struct Sockets {
    table: Vec<Option<Socket>>,
    ready: Arc<Bells>,
    /// Sockets to be looked at in the next turn, whatever they say themselves.
    pub(crate) again: Vec<u32>,
    pub(crate) events: Events,
    /// Those that go to other shards, and how many were closed instead.
    pub(crate) gone: Vec<(TcpStream, Box<Handover>)>,
    pub(crate) lost: usize,
    probe: Probe,
}

impl Sockets {
    /// `numbers`: sockets and doors. The lists are as long as they can get from the start; memory
    /// that is never used is never touched.
    pub(crate) fn new(ready: Arc<Bells>, numbers: usize) -> Self {
        Self {
            table: Vec::with_capacity(numbers),
            ready,
            again: Vec::with_capacity(2 * numbers),
            events: Events::default(),
            gone: Vec::with_capacity(ARRIVALS),
            lost: 0,
            probe: Probe::default(),
        }
    }

    /// Takes the socket of a connection that the relay has taken.
    pub(crate) fn add(&mut self, conn: ConnId, stream: TcpStream) {
        let index = conn.index();
        if self.table.len() <= index {
            self.table.resize_with(index + 1, || None);
        }
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        let bell = self.ready.bell(number);
        let socket = Socket { conn, stream, bell, full: false, paused: false, ended: false };
        if let Some(place) = self.table.get_mut(index) {
            *place = Some(socket);
        }
        self.again.push(number);
    }

    /// The socket of that number, if there still is one.
    pub(crate) fn at(&mut self, number: u32) -> Option<&mut Socket> {
        self.table.get_mut(number as usize)?.as_mut()
    }

    fn of(&mut self, conn: ConnId) -> Option<&mut Socket> {
        let number = u32::try_from(conn.index()).ok()?;
        self.at(number).filter(|socket| socket.conn == conn)
    }

    fn look_again(&mut self, conn: ConnId) {
        self.again.push(u32::try_from(conn.index()).unwrap_or(u32::MAX));
    }
}

/// Writes what `gather` names; `None` where the socket is full.
fn write<P: Pool>(stream: &TcpStream, gather: &Gather, pool: &P) -> std::io::Result<usize> {
    match gather.ranges() {
        [range] => stream.try_write(pool.read(*range)),
        ranges => {
            let mut slices = [IoSlice::new(&[]); GATHER_MAX];
            for (slice, range) in slices.iter_mut().zip(ranges) {
                *slice = IoSlice::new(pool.read(*range));
            }
            stream.try_write_vectored(slices.get(..ranges.len()).unwrap_or_default())
        }
    }
}

impl<P: Pool> Carrier<P> for Sockets {
    fn is_full(&mut self, conn: ConnId) -> bool {
        self.of(conn).is_none_or(|socket| socket.full)
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        let Some(socket) = self.of(conn) else { return Started::Failed };
        let sent = match write(&socket.stream, gather, pool) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(_) => return Started::Failed,
        };
        if sent < gather.bytes() {
            socket.full = true;
            let mut context = Context::from_waker(socket.bell.waker());
            // After a short write tokio still believes that the socket can take more; the next
            // turn finds out.
            if socket.stream.poll_write_ready(&mut context).is_ready() {
                self.look_again(conn);
            }
        }
        Started::Done(sent)
    }

    fn cancel_send(&mut self, _: ConnId) {
        // A send here is over as soon as it has begun.
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            socket.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            socket.paused = false;
            self.look_again(conn);
        }
    }

    fn probe(&mut self, conn: ConnId) -> Option<u32> {
        let socket = self.of(conn)?;
        let (local, remote) = (socket.stream.local_addr().ok()?, socket.stream.peer_addr().ok()?);
        self.probe.unacknowledged(local, remote)
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            // For TCP this is one call that does not wait.
            let mut context = Context::from_waker(Waker::noop());
            let _: Poll<_> = Pin::new(&mut socket.stream).poll_shutdown(&mut context);
        }
    }

    fn close(&mut self, conn: ConnId) -> bool {
        if self.of(conn).is_some()
            && let Some(place) = self.table.get_mut(conn.index())
        {
            *place = None;
        }
        true
    }

    fn hand_over(&mut self, conn: ConnId, handover: Handover) -> bool {
        if self.of(conn).is_some()
            && let Some(socket) = self.table.get_mut(conn.index()).and_then(Option::take)
        {
            if self.gone.len() < ARRIVALS {
                self.gone.push((socket.stream, Box::new(handover)));
            } else {
                self.lost += 1;
            }
        }
        true
    }

    fn event(&mut self, event: Event, remote: Option<SocketAddr>) {
        self.events.push(event, remote);
    }
}
