//! Eight clients in memory, and the frontend that carries bytes to them: the fourth one of the
//! core, after those on sockets and the simulator.

use core::net::SocketAddr;

use wardline_core::{Carrier, ConnId, Event, Gather, Instant, Pool, Relay, Started};

use crate::script::{author, envelope};
use crate::storage::CLIENTS;

/// How a client's socket takes what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// All of it, at once.
    All,
    /// At most so many bytes, then it is full until it is asked again.
    Some(usize),
    /// All of it, but only later: the send is under way meanwhile.
    Later,
    /// At most so many bytes, and no more after them.
    Once(usize),
    /// Nothing: the socket is broken.
    Fails,
    /// Nothing, and the send stays under way until it is cancelled.
    Never,
}

impl Takes {
    /// Whether nothing goes through any more.
    pub const fn is_stuck(self) -> bool {
        matches!(self, Self::Once(_) | Self::Fails | Self::Never)
    }
}

/// A client: what it has read so far, checked byte by byte against what it must read.
#[derive(Debug)]
pub struct Client {
    /// Its connection, while it has one.
    pub conn: Option<ConnId>,
    /// How it takes bytes.
    pub takes: Takes,
    /// The message that it reads next, or reads.
    pub next: u64,
    /// Bytes of that message's envelope, or of the warning, that it has read.
    at: usize,
    /// The warnings that it may be sent now, as they are on the wire.
    pub warning: &'static [u8],
    /// Whether it stands in a warning.
    warned: bool,
    /// Warnings that it has read to the end.
    pub warnings: u32,
    /// Bytes that it has read.
    pub bytes: u64,
    /// Bytes that were not what they had to be.
    pub wrong: u64,
    /// It is not to be read from.
    pub paused: bool,
    /// It was sent its last byte.
    pub finished: bool,
    full: bool,
    under_way: Option<Gather>,
    /// The relay was told that the send under way waits.
    told: bool,
    cancelled: bool,
}

impl Client {
    const NOBODY: Self = Self {
        conn: None,
        takes: Takes::All,
        next: 0,
        at: 0,
        warning: b"",
        warned: false,
        warnings: 0,
        bytes: 0,
        wrong: 0,
        paused: false,
        finished: false,
        full: false,
        under_way: None,
        told: false,
        cancelled: false,
    };

    /// A client that has just connected: it is to read message `next` first.
    pub const fn connected(conn: ConnId, takes: Takes, next: u64) -> Self {
        Self { conn: Some(conn), takes, next, ..Self::NOBODY }
    }

    /// Whether it stands between two messages.
    pub fn is_between(&self) -> bool {
        self.at == 0 && !self.warned
    }

    /// The message that it is to read next, its own left out.
    fn skip_own(&mut self, me: usize) {
        while author(self.next) == me {
            self.next += 1;
        }
    }

    fn read(&mut self, me: usize, mut bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        while let Some(first) = bytes.first() {
            if self.is_between() {
                self.warned = *first == b'W';
                if !self.warned {
                    self.skip_own(me);
                }
            }
            let message = envelope(self.next);
            let whole = if self.warned { self.warning } else { message.as_slice() };
            let expected = whole.get(self.at..).unwrap_or_default();
            let len = expected.len().min(bytes.len());
            let (now, later) = bytes.split_at_checked(len).unwrap_or_default();
            if len == 0 || expected.get(..len) != Some(now) {
                self.wrong += bytes.len() as u64;
                return;
            }
            bytes = later;
            self.at += len;
            if self.at == whole.len() {
                self.at = 0;
                if self.warned {
                    self.warned = false;
                    self.warnings += 1;
                } else {
                    self.next += 1;
                }
            }
        }
    }

    /// Reads the first `most` bytes of a send; gives how many there were.
    fn read_of<P: Pool>(&mut self, me: usize, gather: &Gather, pool: &P, most: usize) -> usize {
        let mut left = most;
        for range in gather.ranges() {
            let bytes = pool.read(*range);
            let bytes = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            self.read(me, bytes);
            left -= bytes.len();
        }
        most - left
    }
}

/// All clients, by the index of [`crate::script::address`].
#[derive(Debug)]
pub struct Clients {
    each: [Client; CLIENTS],
    /// Times that the relay wanted something of a connection that no client has.
    pub strangers: u64,
    /// Sends that the relay cancelled.
    pub cancelled: u64,
}

impl Clients {
    /// Nobody is connected.
    pub const fn new() -> Self {
        Self { each: [const { Client::NOBODY }; CLIENTS], strangers: 0, cancelled: 0 }
    }

    /// Each client with its index.
    pub fn iter(&mut self) -> impl Iterator<Item = (usize, &mut Client)> {
        self.each.iter_mut().enumerate()
    }

    /// The client of that index.
    pub fn at(&mut self, index: usize) -> Option<&mut Client> {
        self.each.get_mut(index)
    }

    fn of(&mut self, conn: ConnId) -> Option<(usize, &mut Client)> {
        let found = self.each.iter_mut().enumerate().find(|(_, client)| client.conn == Some(conn));
        self.strangers += u64::from(found.is_none());
        found
    }

    /// A socket that was full can take more, unless it takes nothing. Gives whose.
    pub fn writable(&mut self) -> Option<ConnId> {
        let client = self.each.iter_mut().find(|c| c.full && !c.takes.is_stuck())?;
        client.full = false;
        client.conn
    }

    /// Ends a send that is under way, or says that it waits; gives whether there was one.
    pub fn complete<P: Pool>(&mut self, relay: &mut Relay<'_, P>, now: Instant) -> bool {
        for (me, client) in self.iter() {
            if client.takes.is_stuck() && !client.cancelled {
                let waits =
                    client.under_way.is_some() && !core::mem::replace(&mut client.told, true);
                if let Some(conn) = client.conn.filter(|_| waits) {
                    relay.handle_send_waits(now, conn);
                    return true;
                }
                continue;
            }
            let (Some(conn), Some(gather)) = (client.conn, client.under_way.take()) else {
                continue;
            };
            let cancelled = core::mem::take(&mut client.cancelled);
            // What a cancelled send had got through to: some odd number of bytes.
            let most = if cancelled { gather.bytes().min(33) } else { gather.bytes() };
            let taken = client.read_of(me, &gather, relay.pool(), most);
            relay.handle_sent(now, conn, taken, false);
            return true;
        }
        false
    }
}

impl<P: Pool> Carrier<P> for Clients {
    fn is_full(&mut self, conn: ConnId) -> bool {
        self.of(conn).is_none_or(|(_, client)| client.full)
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        let Some((me, client)) = self.of(conn) else { return Started::Failed };
        match client.takes {
            Takes::All => Started::Done(client.read_of(me, gather, pool, gather.bytes())),
            Takes::Some(most) => {
                let taken = client.read_of(me, gather, pool, most.min(gather.bytes()));
                client.full = taken < gather.bytes();
                Started::Done(taken)
            }
            Takes::Once(most) => {
                client.takes = Takes::Once(0);
                client.full = true;
                Started::Done(client.read_of(me, gather, pool, most))
            }
            Takes::Fails => Started::Failed,
            Takes::Later | Takes::Never => {
                client.under_way = Some(gather.clone());
                client.told = false;
                Started::UnderWay
            }
        }
    }

    fn cancel_send(&mut self, conn: ConnId) {
        self.cancelled += 1;
        if let Some((_, client)) = self.of(conn) {
            client.cancelled = true;
        }
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some((_, client)) = self.of(conn) {
            client.paused = true;
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some((_, client)) = self.of(conn) {
            client.paused = false;
        }
    }

    fn probe(&mut self, conn: ConnId) -> Option<u32> {
        // What a client took, it has read.
        self.of(conn).map(|_| 0)
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some((_, client)) = self.of(conn) {
            client.finished = true;
        }
    }

    fn close(&mut self, conn: ConnId) -> bool {
        if let Some((_, client)) = self.of(conn) {
            client.conn = None;
        }
        true
    }

    fn event(&mut self, _event: Event, _remote: Option<SocketAddr>) {}
}
