//! The sockets of a shard, and what the relay may have done to them.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;

use wardline_core::{
    Carrier, ConnId, Duration, Event, GATHER_MAX, Gather, Handover, Instant, Limits, Started,
};
use wardline_host::events::Events;
use wardline_host::links::ARRIVALS;

use crate::sys::{Kind, RawPool, Ring, unacknowledged};

/// How long a socket rests that takes nothing although it has room.
const REST: Duration = Duration::from_millis(10);

/// How a socket is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// It is not.
    No,
    /// Again and again, in small pieces: what most are read by, for it costs nothing to go on.
    Stream,
    /// Once, as much as the relay takes at a time.
    Once,
}

/// A connection's socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) conn: ConnId,
    pub(super) stream: TcpStream,
    /// Bytes of the send that was started.
    pub(super) given: u32,
    /// What the kernel says of it: bytes that were taken, or an error below zero.
    pub(super) taken: i32,
    pub(super) receiving: Receiving,
    /// The receive that is under way was cancelled.
    pub(super) cancelled: bool,
    /// It brings much at once, or was paused: the relay says how much each receive may bring.
    pub(super) bulk: bool,
    /// Receives on end that brought little.
    pub(super) calm: u8,
    /// It is in the list of those to be read.
    pub(super) listed: bool,
    /// The relay does not want to read it.
    pub(super) paused: bool,
    /// The peer finished writing.
    pub(super) ended: bool,
    /// It took less than it was given; nothing is sent to it until it says that it can take more.
    pub(super) full: bool,
    /// It said that it can take more, and has taken nothing since.
    pub(super) hoped: bool,
    /// A send was started, and the relay was not told what became of it.
    pub(super) sending: bool,
    /// To be closed, once nothing of it is under way.
    pub(super) closing: bool,
    /// Or rather to go to another shard then.
    moves: bool,
}

const _: () = assert!(size_of::<Option<Socket>>() <= 32);

impl Socket {
    /// Whether a receive is to be asked for.
    pub(super) const fn is_to_be_read(&self) -> bool {
        !self.paused && !self.ended && !self.closing && matches!(self.receiving, Receiving::No)
    }

    /// Whether an operation is under way.
    pub(super) const fn is_busy(&self) -> bool {
        self.full || self.sending || !matches!(self.receiving, Receiving::No)
    }
}

/// All of them, by [`ConnId::index`], and the ring that their operations are under way in.
#[derive(Debug)]
pub(super) struct Sockets<'p> {
    // Before the sockets: their operations end before they are closed.
    pub(super) ring: Ring<'p>,
    table: Vec<Option<Socket>>,
    /// Sockets that a receive is to be asked for, once the relay has said what it wants.
    pub(super) to_read: Vec<u32>,
    /// Those for which there is something, and was no buffer.
    pub(super) starved: VecDeque<u32>,
    /// Sends since the last look at the completions.
    pub(super) started: Vec<u32>,
    /// The relay is to be told soon what became of one of them.
    pub(super) hurry: bool,
    /// Sockets that the relay does not want to read.
    paused: usize,
    /// Bytes of them.
    started_bytes: u64,
    /// The most of those; more wait for the next turn.
    started_bytes_max: u64,
    /// The most in one send, and in one after a send that took less than it was given: what is as
    /// long is not all that there is to be sent.
    send_bytes: usize,
    slow_send_bytes: usize,
    /// Connections to which it is time to send, now that their sockets can take more, or that
    /// others were heard.
    pub(super) put_off: Vec<ConnId>,
    /// Sockets that took nothing although they have room, for the kernel is short of memory: they
    /// are full, and are asked for room once they have rested.
    resting: Vec<ConnId>,
    rest_until: Option<Instant>,
    /// Those that go to other shards; and of which nothing is under way any more.
    moving: Vec<(ConnId, Box<Handover>)>,
    pub(super) gone: Vec<(TcpStream, Box<Handover>)>,
    /// How many were closed instead.
    pub(super) lost: usize,
    pub(super) events: Events,
}

impl<'p> Sockets<'p> {
    /// The lists are as long as they can get from the start; memory that is never used is never
    /// touched.
    pub(super) fn new(ring: Ring<'p>, sockets: usize, limits: &Limits) -> Self {
        Self {
            ring,
            table: Vec::with_capacity(sockets),
            to_read: Vec::with_capacity(sockets),
            starved: VecDeque::with_capacity(sockets),
            started: Vec::with_capacity(sockets),
            hurry: false,
            paused: 0,
            started_bytes: 0,
            started_bytes_max: limits.turn_sent_bytes.into(),
            send_bytes: limits.send_bytes as usize,
            slow_send_bytes: limits.slow_send_bytes as usize,
            put_off: Vec::with_capacity(sockets),
            resting: Vec::with_capacity(sockets),
            rest_until: None,
            moving: Vec::with_capacity(ARRIVALS),
            gone: Vec::with_capacity(ARRIVALS),
            lost: 0,
            events: Events::default(),
        }
    }

    /// Whether something may wait for the ends of the sends of this turn, of which nobody hears
    /// before the next one: who is paused for memory, or for good. `links`: another shard does.
    pub(super) fn somebody_waits(&self, links: bool) -> bool {
        (self.paused > 0 || links) && !self.started.is_empty()
    }

    /// Takes the socket of a connection that the relay has taken.
    pub(super) fn add(&mut self, conn: ConnId, stream: TcpStream) {
        let index = conn.index();
        if self.table.len() <= index {
            self.table.resize_with(index + 1, || None);
        }
        let socket = Socket {
            conn,
            stream,
            given: 0,
            taken: 0,
            receiving: Receiving::No,
            cancelled: false,
            bulk: false,
            calm: 0,
            listed: false,
            paused: false,
            ended: false,
            full: false,
            hoped: false,
            sending: false,
            closing: false,
            moves: false,
        };
        if let Some(place) = self.table.get_mut(index) {
            *place = Some(socket);
        }
        self.read_later(conn);
    }

    /// The socket at that place of the table, if there still is one.
    pub(super) fn at(&mut self, index: usize) -> Option<&mut Socket> {
        self.table.get_mut(index)?.as_mut()
    }

    pub(super) fn of(&mut self, conn: ConnId) -> Option<&mut Socket> {
        self.at(conn.index()).filter(|socket| socket.conn == conn)
    }

    /// Has a receive asked for, if it still is to be then.
    pub(super) fn read_later(&mut self, conn: ConnId) {
        let Some(socket) = self.of(conn) else { return };
        if !socket.listed && socket.is_to_be_read() {
            socket.listed = true;
            self.to_read.push(number(conn));
        }
    }

    /// The same, once there are buffers again.
    pub(super) fn await_buffer(&mut self, conn: ConnId) {
        let Some(socket) = self.of(conn) else { return };
        if !socket.listed && socket.is_to_be_read() {
            socket.listed = true;
            self.starved.push_back(number(conn));
        }
    }

    /// Asks for one receive each for those that found no buffer, in their order and as many as
    /// there are buffers: of more, most would find none again, each time that they are asked. Gives
    /// whether there was one. `budget`: what the relay takes of a connection.
    pub(super) fn receive_starved(&mut self, budget: impl Fn(ConnId) -> usize) -> bool {
        let (mut small, mut large) = self.ring.buffers();
        let small_bytes = self.ring.small_bytes();
        let some = !self.starved.is_empty();
        while small > 0
            && large > 0
            && let Some(index) = self.starved.pop_front()
        {
            let Self { ring, table, .. } = self;
            let Some(Some(socket)) = table.get_mut(index as usize) else { continue };
            socket.listed = false;
            if !socket.is_to_be_read() {
                continue;
            }
            let conn = socket.conn;
            let bytes = match budget(conn) {
                0 => {
                    // Its pause, or its end, is still to come.
                    self.read_later(conn);
                    continue;
                }
                bytes if socket.bulk => bytes,
                // Not more than one buffer, so that there is one for each.
                bytes => bytes.min(small_bytes),
            };
            let of = if bytes > small_bytes { &mut large } else { &mut small };
            *of -= 1;
            ring.receive_once(socket.stream.as_fd(), conn, bytes);
            socket.cancelled = false;
            socket.receiving = Receiving::Once;
        }
        some
    }

    /// Asks for a receive of at most `budget` bytes, or of small pieces without end.
    pub(super) fn receive(&mut self, index: usize, budget: usize) {
        let Self { ring, table, .. } = self;
        let Some(Some(socket)) = table.get_mut(index) else { return };
        socket.cancelled = false;
        if socket.bulk || budget <= ring.small_bytes() {
            ring.receive_once(socket.stream.as_fd(), socket.conn, budget);
            socket.receiving = Receiving::Once;
        } else {
            ring.receive_stream(socket.stream.as_fd(), socket.conn);
            socket.receiving = Receiving::Stream;
        }
    }

    /// A socket took less than it was given.
    pub(super) fn await_room(&mut self, conn: ConnId) {
        let Self { ring, table, .. } = self;
        let Some(Some(socket)) = table.get_mut(conn.index()) else { return };
        if !socket.closing && !std::mem::replace(&mut socket.full, true) {
            ring.await_room(socket.stream.as_fd(), conn);
        }
    }

    /// A socket took nothing although it has room: who asks it again at once asks for ever.
    pub(super) fn rest(&mut self, conn: ConnId, now: Instant) {
        let Some(socket) = self.of(conn) else { return };
        if !socket.closing && !std::mem::replace(&mut socket.full, true) {
            self.resting.push(conn);
            self.rest_until.get_or_insert(now.after(REST));
        }
    }

    /// When those that rest are to be asked again.
    pub(super) const fn rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// Asks those that have rested for room. Gives one that is to be closed instead.
    pub(super) fn end_rest(&mut self, now: Instant) -> Option<ConnId> {
        if self.rest_until.is_none_or(|at| at > now) {
            return None;
        }
        while let Some(conn) = self.resting.pop() {
            let Self { ring, table, .. } = self;
            let socket = table.get_mut(conn.index()).and_then(Option::as_mut);
            let Some(socket) = socket.filter(|socket| socket.conn == conn) else { continue };
            if socket.closing {
                socket.full = false;
                return Some(conn);
            }
            ring.await_room(socket.stream.as_fd(), conn);
        }
        self.rest_until = None;
        None
    }

    /// Stops the receive that is under way, if there is one; it completes all the same.
    pub(super) fn stop_receiving(&mut self, conn: ConnId) {
        let Some(socket) = self.of(conn) else { return };
        let kind = match socket.receiving {
            Receiving::No => return,
            Receiving::Stream => Kind::Stream,
            Receiving::Once => Kind::Once,
        };
        if !std::mem::replace(&mut socket.cancelled, true) {
            self.ring.cancel(kind, conn);
        }
    }

    /// Closes a socket of which nothing is under way, or has it go to another shard.
    pub(super) fn remove(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn)
            && let (was_paused, moves) = (socket.paused, socket.moves)
            && let Some(place) = self.table.get_mut(conn.index())
        {
            let socket = place.take();
            self.paused -= usize::from(was_paused);
            if moves
                && let Some(at) = self.moving.iter().position(|(of, _)| *of == conn)
                && let Some(socket) = socket
            {
                self.gone.push((socket.stream, self.moving.swap_remove(at).1));
            }
        }
    }

    /// What was started is over: what is started from here on is of another turn.
    pub(super) fn begin_turn(&mut self) {
        self.started.clear();
        self.hurry = false;
        self.started_bytes = 0;
    }
}

fn number(conn: ConnId) -> u32 {
    u32::try_from(conn.index()).unwrap_or(u32::MAX)
}

impl<'p> Carrier<RawPool<'p>> for Sockets<'p> {
    /// So it seems, too, where enough was sent in this turn: others are to be heard.
    fn is_full(&mut self, conn: ConnId) -> bool {
        if self.of(conn).is_none_or(|socket| socket.full) {
            return true;
        }
        if self.started_bytes < self.started_bytes_max {
            return false;
        }
        self.put_off.push(conn);
        true
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &RawPool<'p>) -> Started {
        let Self { ring, table, .. } = self;
        let socket = table.get_mut(conn.index()).and_then(Option::as_mut);
        let Some(socket) = socket.filter(|socket| socket.conn == conn && !socket.closing) else {
            return Started::Failed;
        };
        ring.send(socket.stream.as_fd(), conn, pool, gather.ranges());
        socket.sending = true;
        let slow = i64::from(socket.taken) < i64::from(socket.given);
        let most = if slow { self.slow_send_bytes } else { self.send_bytes };
        let all =
            gather.bytes() < most && gather.ranges().len() < GATHER_MAX && !gather.is_followed();
        // Unless the kernel says otherwise, all of it.
        socket.given = u32::try_from(gather.bytes()).unwrap_or(u32::MAX);
        socket.taken = i32::try_from(gather.bytes()).unwrap_or(i32::MAX);
        self.started.push(number(conn));
        // Something may follow from its end: the rest of what there is to be sent, the connection's
        // own end, or memory for who waits.
        self.hurry |= !all;
        self.started_bytes += gather.bytes() as u64;
        Started::UnderWay
    }

    fn cancel_send(&mut self, _: ConnId) {
        // A send is over once it was submitted; what became of it is said in the next turn.
        self.hurry = true;
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn)
            && !std::mem::replace(&mut socket.paused, true)
        {
            self.paused += 1;
        }
        self.stop_receiving(conn);
    }

    fn resume(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            let was_paused = std::mem::replace(&mut socket.paused, false);
            socket.bulk = true;
            socket.calm = 0;
            self.paused -= usize::from(was_paused);
        }
        self.read_later(conn);
    }

    fn probe(&mut self, conn: ConnId) -> Option<u32> {
        unacknowledged(self.of(conn)?.stream.as_fd())
    }

    fn finish(&mut self, conn: ConnId) {
        if let Some(socket) = self.of(conn) {
            // It may have been reset; then a receive says so.
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, conn: ConnId) -> bool {
        let Some(socket) = self.of(conn) else { return true };
        if !socket.is_busy() {
            self.remove(conn);
            return true;
        }
        socket.closing = true;
        let (sending, full) = (socket.sending, socket.full);
        self.hurry |= sending;
        self.stop_receiving(conn);
        if full {
            self.ring.cancel(Kind::Room, conn);
        }
        false
    }

    fn hand_over(&mut self, conn: ConnId, handover: Handover) -> bool {
        let full = self.moving.len() + self.gone.len() >= ARRIVALS;
        if let Some(socket) = self.of(conn) {
            socket.moves = !full;
            if full {
                self.lost += 1;
            } else {
                self.moving.push((conn, Box::new(handover)));
            }
        }
        self.close(conn)
    }

    fn event(&mut self, event: Event, remote: Option<SocketAddr>) {
        self.events.push(event, remote);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use rustix::io::Errno;

    use super::*;
    use crate::sys::Wait;

    /// Has a crowd asked for a receive each, of which most find no buffer; then those again. Gives
    /// how many found none the first time, and after that.
    fn starve(bulk: bool) -> [usize; 2] {
        const CROWD: u32 = 40;
        const BYTES: u32 = 65_536;
        let mut sockets = Sockets::new(Ring::new(CROWD, BYTES).unwrap(), 0, &Limits::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peers = Vec::new();
        for slot in 0..CROWD {
            let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.write_all(&[b'x'; 40_000]).unwrap();
            peers.push(peer);
            let conn = ConnId::from_bits(u64::from(slot) + 1);
            sockets.add(conn, listener.accept().unwrap().0);
            sockets.of(conn).unwrap().bulk = bulk;
        }
        for index in std::mem::take(&mut sockets.to_read) {
            sockets.at(index as usize).unwrap().listed = false;
            sockets.receive(index as usize, BYTES as usize);
        }
        let (mut heard, mut without) = ([false; CROWD as usize], [0, 0]);
        for round in 0.. {
            sockets.ring.enter(Wait::No).unwrap();
            while let Some(completion) = sockets.ring.next() {
                let index = completion.tag().index();
                let (conn, result, more) =
                    (sockets.at(index).unwrap().conn, completion.result, completion.more);
                sockets.ring.received(completion, |_| ());
                if !more {
                    sockets.of(conn).unwrap().receiving = Receiving::No;
                }
                if result == Err(Errno::NOBUFS) {
                    without[round.min(1)] += 1;
                    sockets.await_buffer(conn);
                } else {
                    heard[index] |= result.unwrap() > 0;
                }
            }
            if !sockets.receive_starved(|_| BYTES as usize) {
                break;
            }
        }
        assert!(heard.iter().all(|heard| *heard), "somebody was forgotten");
        without
    }

    #[test]
    fn who_found_no_buffer_is_asked_again_only_once_there_is_one() {
        let [first, later] = starve(true);
        assert!(first > 25 && later == 0, "{first} found no large buffer, and {later} again");
        let [first, later] = starve(false);
        assert!(first > 20 && later == 0, "{first} found no small buffer, and {later} again");
    }
}
