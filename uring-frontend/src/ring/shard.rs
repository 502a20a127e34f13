//! A shard: one thread, one relay, its listeners and its sockets.
//!
//! A turn: hand what completed to the relay, carry out its word, ask for what is to be read next,
//! and enter the kernel once with all of that.

use std::io;
use std::net::{TcpListener, TcpStream};

use rustix::io::Errno;
use rustix::net::SendFlags;
use wardline_core::{
    Carrier, ConnId, Gather, Handover, Instant, Next, Relay, Remote, TopicId, pump, send,
};
use wardline_host::clock::Clock;
use wardline_host::links::{Arrival, Links};
use wardline_host::net::{self, Tuning};
use wardline_host::orders::Orders;

use super::bell::Bell;
use super::doors::Doors;
use super::sockets::{Receiving, Socket, Sockets};
use crate::sys::{Completion, Kind, RawPool, Ring, Wait};

/// The kernel works on about twenty things that came in each time it is entered: with so many
/// completions of that sort there may be more.
const FULL_LOOK: usize = 16;
/// Completions of that sort in one turn, about; then those who wait to be sent something are next.
const TURN_COMPLETIONS: usize = 1_024;
/// Completions that may come at once: as many as the ring's queue holds at most.
const COMPLETIONS: usize = 1 << 14;
/// Receives on end that brought little, until a socket counts as calm.
const CALM_RECEIVES: u8 = 8;

/// Numbers of what is watched.
const BELL: u32 = 0;
const DOORS: u32 = 1;

/// A shard.
#[derive(Debug)]
pub(super) struct Shard<'s, 'p> {
    // First: its operations have ended before anything that they name is dropped.
    sockets: Sockets<'p>,
    relay: Relay<'s, RawPool<'p>>,
    doors: Doors,
    bell: Bell,
    links: Links,
    orders: &'s Orders,
    clock: Clock,
    tuning: Tuning,
    gather: Gather,
    /// Swapped with lists that grow while they are walked.
    walked: Vec<u32>,
    resumed: Vec<ConnId>,
    /// What came in and is yet to be looked at.
    arrived: Vec<Completion>,
    /// When this turn began.
    turn_at: Instant,
    /// The bell was rung.
    rung: bool,
    /// Somebody has filled a small buffer in this turn, and may have more.
    pressed: bool,
    draining: bool,
}

impl<'s, 'p> Shard<'s, 'p> {
    pub(super) fn new(
        relay: Relay<'s, RawPool<'p>>,
        listeners: Vec<(TcpListener, TopicId)>,
        clock: Clock,
        tuning: Tuning,
        orders: &'s Orders,
        links: Links,
    ) -> io::Result<Self> {
        let limits = relay.limits();
        let numbers = limits.connections.saturating_add(wardline_core::RESERVE);
        let doors = Doors::new(listeners)?;
        let bell = Bell::new()?;
        let mut ring = Ring::new(numbers, limits.receive_bytes)?;
        ring.watch(bell.fd(), BELL);
        ring.watch(doors.fd(), DOORS);
        Ok(Self {
            sockets: Sockets::new(ring, numbers as usize, limits),
            relay,
            doors,
            bell,
            links,
            orders,
            clock,
            tuning,
            gather: Gather::new(),
            walked: Vec::with_capacity(numbers as usize),
            resumed: Vec::with_capacity(numbers as usize),
            arrived: Vec::with_capacity(COMPLETIONS),
            turn_at: clock.now(),
            rung: false,
            pressed: false,
            draining: false,
        })
    }

    /// Runs until it has drained, or was told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.orders.listen(self.bell.waker());
        self.links.listen(self.bell.waker());
        loop {
            let now = self.clock.now();
            self.links.take_in(&mut self.relay, now);
            self.take_in(now)?;
            // The turn has begun: what other shards sent is to be taken here.
            if std::mem::take(&mut self.rung) {
                self.bell.answered();
                if self.obey(now) {
                    return Ok(());
                }
            }
            let next = pump(&mut self.relay, &mut self.sockets, &mut self.gather, now);
            self.ask();
            self.sockets.events.report(&self.relay);
            let gone = self.sockets.gone.drain(..);
            self.links.hand_over(self.relay.listen_native().ok(), gone);
            self.links.lose(std::mem::take(&mut self.sockets.lost));
            self.links.give_out(&mut self.relay, now);
            if self.draining && self.relay.connections() == 0 && self.links.all_drained() {
                return Ok(());
            }
            let wait = self.wait(next, now);
            // About to wait: other shards are to be told here that they have to ring.
            self.sockets.ring.enter(wait)?;
        }
    }

    /// Hands everything that came in to the relay.
    fn take_in(&mut self, now: Instant) -> io::Result<()> {
        self.pressed = false;
        let before = std::mem::replace(&mut self.turn_at, now);
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut all = 0;
        loop {
            while let Some(completion) = self.sockets.ring.next() {
                match completion.tag().kind() {
                    Some(Kind::Send) => self.note_short(&completion),
                    Some(_) | None => arrived.push(completion),
                }
            }
            let taken = self.sockets.ring.is_taken();
            if taken {
                // First, so that the log is as short as can be when it grows again.
                self.settle_sends(before);
            }
            let seen = arrived.len();
            for completion in arrived.drain(..) {
                self.complete(completion, now);
            }
            all += seen;
            let enough = all >= TURN_COMPLETIONS;
            let Self { sockets, relay, .. } = self;
            let more = !enough && sockets.receive_starved(|conn| relay.read_budget(conn));
            if taken && !more && (seen < FULL_LOOK || self.pressed || enough) {
                break;
            }
            // Where the kernel takes nothing for long, this is an error.
            self.sockets.ring.enter(Wait::No)?;
        }
        self.arrived = arrived;
        while let Some(conn) = self.sockets.end_rest(now) {
            self.release(conn, now);
        }
        self.resume_sends(now);
        self.admit(now);
        Ok(())
    }

    /// A send took less than it was given.
    fn note_short(&mut self, completion: &Completion) {
        let tag = completion.tag();
        let socket = self.sockets.at(tag.index()).filter(|socket| tag.is_of(socket.conn));
        let Some(socket) = socket.filter(|socket| socket.sending) else {
            tracing::error!(code = "late", "a send has ended that was not started");
            return;
        };
        socket.taken = match completion.result {
            Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
            Err(error) => error.raw_os_error().saturating_neg(),
        };
    }

    /// Tells the relay what became of the sends that were started in the last turn, which was then.
    fn settle_sends(&mut self, then: Instant) {
        for at in 0..self.sockets.started.len() {
            let Some(index) = self.sockets.started.get(at).copied() else { break };
            let Some(socket) = self.sockets.at(index as usize) else { continue };
            if !std::mem::replace(&mut socket.sending, false) {
                continue;
            }
            let (conn, given, closing) = (socket.conn, socket.given as usize, socket.closing);
            match usize::try_from(socket.taken) {
                Ok(taken) => {
                    socket.hoped &= taken == 0;
                    if taken < given {
                        self.sockets.await_room(conn);
                    }
                    self.relay.handle_sent(then, conn, taken, true);
                }
                Err(_) => self.send_failed(conn, then),
            }
            if closing {
                self.release(conn, then);
            }
        }
        self.sockets.begin_turn();
    }

    /// A send took nothing.
    fn send_failed(&mut self, conn: ConnId, then: Instant) {
        let Some(socket) = self.sockets.of(conn) else { return };
        match Errno::from_raw_os_error(socket.taken.saturating_neg()) {
            Errno::AGAIN if !socket.hoped => {
                self.sockets.await_room(conn);
                self.relay.handle_sent(then, conn, 0, false);
            }
            // It is not its peer that it waits for, but memory of the kernel's.
            Errno::AGAIN | Errno::NOMEM | Errno::NOBUFS => {
                self.sockets.rest(conn, self.turn_at);
                self.relay.handle_sent(then, conn, 0, false);
            }
            Errno::INTR => self.relay.handle_sent(then, conn, 0, false),
            _ => self.relay.handle_send_failed(then, conn),
        }
    }

    /// Sends that were too much for the last turn, and to who has room again.
    fn resume_sends(&mut self, now: Instant) {
        if self.sockets.put_off.is_empty() {
            return;
        }
        std::mem::swap(&mut self.resumed, &mut self.sockets.put_off);
        for at in 0..self.resumed.len() {
            let Some(conn) = self.resumed.get(at).copied() else { break };
            if !self.sockets.is_full(conn) {
                send(&mut self.relay, &mut self.sockets, &mut self.gather, now, conn);
            }
        }
        self.resumed.clear();
    }

    /// Something that was asked of the kernel has come to something.
    fn complete(&mut self, completion: Completion, now: Instant) {
        let tag = completion.tag();
        match tag.kind() {
            Some(Kind::Watch) => self.notice(tag.number(), completion.more),
            Some(Kind::Stream | Kind::Once) => self.received(completion, now),
            Some(Kind::Room) => self.has_room(&completion, now),
            Some(Kind::Send | Kind::Cancel) | None => {}
        }
    }

    /// Something that is watched has something to say.
    fn notice(&mut self, number: u32, more: bool) {
        let Self { sockets, doors, bell, .. } = self;
        let fd = match number {
            BELL => {
                self.rung = true;
                bell.fd()
            }
            _ => {
                doors.knocked = true;
                doors.fd()
            }
        };
        if !more {
            sockets.ring.watch(fd, number);
        }
    }

    fn received(&mut self, completion: Completion, now: Instant) {
        let Self { sockets, relay, pressed, .. } = self;
        let tag = completion.tag();
        let Some(socket) = sockets.at(tag.index()).filter(|socket| tag.is_of(socket.conn)) else {
            // Its slot is in use again, or free: that cannot be, but its buffer goes back.
            tracing::error!(code = "late", "a completion of a connection that is gone");
            sockets.ring.received(completion, |_| ());
            return;
        };
        let conn = socket.conn;
        let result = completion.result;
        if !completion.more {
            socket.receiving = Receiving::No;
        }
        let small = sockets.ring.small_bytes();
        if let Ok(bytes @ 1..) = result {
            sockets.ring.received(completion, |bytes| relay.handle_input(now, conn, bytes));
            let Some(socket) = sockets.of(conn) else { return };
            *pressed |= !socket.bulk && bytes == small;
            judge(socket, bytes, small);
            if socket.bulk && socket.receiving == Receiving::Stream {
                sockets.stop_receiving(conn);
            }
            sockets.read_later(conn);
        } else {
            sockets.ring.received(completion, |_| ());
            self.stopped(conn, result, now);
        }
        self.release(conn, now);
    }

    /// A receive brought nothing.
    fn stopped(&mut self, conn: ConnId, result: Result<usize, Errno>, now: Instant) {
        let Some(socket) = self.sockets.of(conn) else { return };
        match result {
            Ok(_) if !socket.closing => {
                socket.ended = true;
                self.relay.handle_eof(now, conn);
            }
            Ok(_) => {}
            Err(Errno::NOBUFS) => self.sockets.await_buffer(conn),
            Err(Errno::CANCELED | Errno::INTR | Errno::AGAIN) => self.sockets.read_later(conn),
            Err(_) if !socket.closing => {
                socket.ended = true;
                self.relay.handle_broken(now, conn);
            }
            Err(_) => {}
        }
    }

    /// A socket that was full can take more.
    fn has_room(&mut self, completion: &Completion, now: Instant) {
        let tag = completion.tag();
        let socket = self.sockets.at(tag.index()).filter(|socket| tag.is_of(socket.conn));
        let Some(socket) = socket else { return };
        socket.full = false;
        socket.hoped = true;
        let conn = socket.conn;
        self.sockets.put_off.push(conn);
        self.release(conn, now);
    }

    /// Lets go of a connection that is to be closed, once nothing of it is under way.
    fn release(&mut self, conn: ConnId, now: Instant) {
        if self.sockets.of(conn).is_some_and(|socket| socket.closing && !socket.is_busy()) {
            self.sockets.remove(conn);
            self.relay.handle_closed(now, conn);
        }
    }

    /// Asks for what is to be read next.
    fn ask(&mut self) {
        if self.sockets.to_read.is_empty() {
            return;
        }
        std::mem::swap(&mut self.walked, &mut self.sockets.to_read);
        for at in 0..self.walked.len() {
            let Some(index) = self.walked.get(at).copied() else { break };
            let Some(socket) = self.sockets.at(index as usize) else { continue };
            socket.listed = false;
            let conn = socket.conn;
            if !socket.is_to_be_read() {
                continue;
            }
            match self.relay.read_budget(conn) {
                // Its pause, or its end, is still to come.
                0 => self.sockets.read_later(conn),
                budget => self.sockets.receive(index as usize, budget),
            }
        }
        self.walked.clear();
    }

    fn wait(&mut self, next: Next, now: Instant) -> Wait {
        let again = self.sockets.hurry
            || self.sockets.somebody_waits(self.links.waits())
            || !self.sockets.put_off.is_empty()
            || !self.sockets.to_read.is_empty()
            || !self.sockets.starved.is_empty()
            || (self.doors.knocked && self.doors.rest_until().is_none());
        let until = match next {
            Next::Again => return Wait::No,
            Next::Wait(_) if again || !self.links.may_sleep() => return Wait::No,
            Next::Wait(until) => until,
        };
        let until = [until, self.doors.rest_until(), self.sockets.rest_until()];
        let until = until.into_iter().flatten().min();
        until.map_or(Wait::Some, |until| {
            Wait::AtMost(std::time::Duration::from_nanos(until.since(now).as_nanos()))
        })
    }

    fn admit(&mut self, now: Instant) {
        let Self { sockets, relay, doors, tuning, links, .. } = self;
        doors.open(now, |door, stream, addr, topic| {
            match links.hand_on_to(door, relay.connections()) {
                None => take(sockets, relay, *tuning, (stream, Remote { addr, topic }), None, now),
                Some(to) => {
                    tracing::debug!(%addr, "handed on to shard-{to}");
                    links.hand_on(to, Arrival { stream, addr, topic, handover: None });
                }
            }
        });
        while let Some(Arrival { stream, addr, topic, handover }) = links.arrival() {
            take(sockets, relay, *tuning, (stream, Remote { addr, topic }), handover, now);
        }
    }

    /// Gives whether to stop at once.
    fn obey(&mut self, now: Instant) -> bool {
        let told = self.orders.obey(&mut self.relay, now);
        if told.close_doors {
            self.doors.close();
        }
        self.draining |= told.drain;
        told.stop
    }
}

/// Whether a socket is one that brings much at once, from what it has just brought.
fn judge(socket: &mut Socket, bytes: usize, small: usize) {
    if bytes >= small {
        socket.bulk = true;
        socket.calm = 0;
    } else if socket.bulk {
        socket.calm = socket.calm.saturating_add(1);
        socket.bulk = socket.calm < CALM_RECEIVES;
    }
}

/// Takes a connection, or refuses it.
fn take<'p>(
    sockets: &mut Sockets<'p>,
    relay: &mut Relay<'_, RawPool<'p>>,
    tuning: Tuning,
    arrival: (TcpStream, Remote),
    handover: Option<Box<Handover>>,
    now: Instant,
) {
    let taken = net::admit(relay, tuning, arrival, handover, now, |stream, warning| {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(stream, warning, flags);
    });
    if let Some((conn, stream)) = taken {
        sockets.add(conn, stream);
    }
}
