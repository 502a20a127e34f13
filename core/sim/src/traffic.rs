//! What comes in: bytes, ends, resets, time, and completions that come too late.

use wardline_core::Instant;

use crate::client::Reading;
use crate::peer::Peer;
use crate::places::Place;
use crate::world::World;

/// Bytes that a client writes ahead.
const WIRE_MAX: usize = 16_000;

impl World<'_, '_> {
    pub(crate) fn write(&mut self) {
        let able = |peer: &Peer| {
            let socket = &peer.socket;
            !socket.fin && !socket.reset && socket.waiting().len() < WIRE_MAX
        };
        let Some(peer) = self.any(able) else { return };
        let side = &mut self.side;
        let peer = &mut side.peers[peer];
        peer.client.write(&mut side.rng, &side.plan.limits, &mut peer.socket.wire);
    }

    /// The frontend receives from a socket, if it may.
    pub(crate) fn receive(&mut self, index: usize) {
        let now = self.now();
        let side = &mut self.side;
        let peer = &mut side.peers[index];
        let (conn, socket) = (peer.conn, &mut peer.socket);
        if socket.closing {
            return;
        }
        if socket.reset {
            return self.broken(index);
        }
        let overrun = socket.paused && socket.overrun > 0;
        if socket.paused && !overrun {
            return;
        }
        let budget = self.relay.read_budget(conn);
        let most = if overrun || socket.finished {
            side.plan.limits.receive_bytes as usize
        } else {
            budget
        };
        let waiting = socket.waiting().len();
        let len = waiting.min(most);
        if len > 0 {
            let habit = side.plan.habits.receive_bytes;
            let len = if side.calm { len } else { len.min(1 + side.rng.up_to(habit)) };
            if overrun {
                socket.overrun -= 1;
                side.places.hit(Place::Overrun);
            }
            let bytes = socket.receive(len);
            peer.times.heard = now.as_nanos();
            if peer.view.leaving.is_none() {
                peer.view.hears(&bytes, now.as_nanos());
            }
            self.relay.handle_input(now, conn, &bytes);
            self.fed += bytes.len();
            self.settled = false;
        } else if waiting == 0 && socket.fin && !socket.fin_told && !overrun {
            socket.fin_told = true;
            peer.times.ended = now.as_nanos();
            if peer.view.leaving.is_none() {
                if peer.view.is_unfinished() {
                    side.places.hit(Place::PartialLastLine);
                }
                if !peer.view.is_heard() {
                    side.places.hit(Place::BacklogAtEof);
                }
                peer.view.finishes();
            }
            self.relay.handle_eof(now, conn);
            self.settled = false;
        }
    }

    /// The frontend sees that a socket was reset.
    pub(crate) fn broken(&mut self, index: usize) {
        let now = self.now();
        let peer = &mut self.side.peers[index];
        let conn = peer.conn;
        if peer.socket.flight.is_none() && self.side.rng.one_in(2) {
            self.relay.handle_closed(now, conn);
            self.gone(index);
        } else if !peer.socket.broken {
            peer.socket.broken = true;
            self.relay.handle_broken(now, conn);
        }
        self.settled = false;
    }

    /// The relay was told that a connection is closed.
    pub(crate) fn gone(&mut self, index: usize) {
        self.side.forget(index);
        let taken = self.taken();
        let peer = &mut self.side.peers[index];
        peer.view.left = Some(taken);
        self.old.push(peer.conn);
    }

    /// A client reads.
    pub(crate) fn read(&mut self, index: usize) {
        let side = &mut self.side;
        let peer = &mut side.peers[index];
        let socket = &mut peer.socket;
        let len = match peer.client.reading {
            _ if side.calm => socket.unread,
            Reading::All => socket.unread,
            Reading::Some => side.rng.up_to(socket.unread),
            Reading::OneByte => 1.min(socket.unread),
            Reading::Never => 0,
        };
        if len == 0 {
            return;
        }
        // The relay knows nothing yet of what a send under way has come to.
        let untold = socket.flight.as_ref().map_or(0, |flight| flight.taken);
        let told = socket.unread > untold;
        let sent = socket.read(len);
        peer.times.taken = peer.times.taken.max(sent.unwrap_or(0));
        if told {
            peer.times.acknowledged = side.now_ns;
        }
    }

    pub(crate) fn time(&mut self) {
        self.tell_waits();
        self.settle();
        self.side.now_ns += self.leap();
        if self.side.rng.one_in(3) {
            self.relay.handle_timeout(self.now());
            self.settled = false;
        }
    }

    /// How far time goes on.
    pub(crate) fn leap(&mut self) -> u64 {
        let side = &mut self.side;
        let leap = side.plan.habits.leap_ms * 1_000_000;
        let next = self.wait.map_or(0, |wait| wait.as_nanos().saturating_sub(side.now_ns));
        match side.rng.below(12) {
            0 => 1 + side.rng.below(1_000),
            1 => leap * 10,
            2 => next.saturating_sub(1),
            3 | 4 => next,
            _ => side.rng.below(leap),
        }
    }

    /// Sends that the relay wants cancelled end, and sockets that it wants closed are.
    pub(crate) fn end_cancelled(&mut self) {
        for index in 0..self.side.live.len() {
            let peer = self.side.live[index];
            let socket = &self.side.peers[peer].socket;
            let cancelled = socket.flight.as_ref().is_some_and(|flight| flight.cancelled);
            if self.side.peers[peer].gone {
                continue;
            }
            if socket.closing {
                self.close_done(peer);
            } else if cancelled {
                self.complete(peer);
            }
        }
    }

    /// An input with a clock that went back: no time has passed, then.
    pub(crate) fn backwards(&mut self) {
        let back = self.side.rng.below(self.side.now_ns);
        let then = Instant::from_nanos(back);
        self.side.places.hit(Place::ClockBack);
        self.relay.handle_timeout(self.now());
        self.relay.handle_timeout(then);
        self.settled = false;
    }

    /// Completions of connections that are gone. Nothing may come of it.
    pub(crate) fn stale(&mut self) {
        if self.old.is_empty() {
            return;
        }
        let now = self.now();
        let conn = self.side.rng.pick(&self.old);
        let reused = self.side.live.iter().any(|peer| {
            let peer = &self.side.peers[*peer];
            !peer.gone && peer.conn.index() == conn.index()
        });
        self.side.places.hit(if reused { Place::LateReused } else { Place::LateFree });
        let whole = self.side.rng.one_in(2);
        let late = self.relay.stats().late.value();
        match self.side.rng.below(8) {
            0 => self.relay.handle_input(now, conn, b"stale\n"),
            1 => self.relay.handle_eof(now, conn),
            2 => self.relay.handle_send_failed(now, conn),
            3 => self.relay.handle_probe(now, conn, Some(0)),
            4 => self.relay.handle_closed(now, conn),
            5 => self.relay.handle_broken(now, conn),
            _ => self.relay.handle_sent(now, conn, self.side.rng.up_to(300), whole),
        }
        assert_eq!(self.relay.stats().late.value(), late + 1, "{conn} is gone and was found");
        assert_eq!(self.relay.read_budget(conn), 0, "{conn} is gone and may be read");
        assert_eq!(self.relay.gather(conn, &mut self.gather), 0, "{conn} is gone and is sent to");
        self.settled = false;
    }
}
