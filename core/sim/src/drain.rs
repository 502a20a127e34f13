//! What goes out: the relay's outputs, and the sends that they begin.

use wardline_core::{Carrier, Instant, Next, Output, pump, send};

use crate::places::Place;
use crate::world::World;

impl World<'_, '_> {
    pub(crate) fn writable(&mut self, index: usize) {
        let now = self.now();
        let peer = &mut self.side.peers[index];
        peer.socket.full = false;
        peer.socket.put_off = false;
        let conn = peer.conn;
        if peer.socket.closing {
            return;
        }
        self.settled = false;
        send(&mut self.relay, &mut self.side, &mut self.gather, now, conn);
    }

    /// Tells the relay which sends wait for their peers: those that did not end in their step.
    pub(crate) fn tell_waits(&mut self) {
        let now = self.now();
        for index in 0..self.side.live.len() {
            let peer = &mut self.side.peers[self.side.live[index]];
            let Some(flight) = &mut peer.socket.flight else { continue };
            if flight.step < self.side.step && !flight.waits && !peer.gone {
                flight.waits = true;
                flight.told_ns = now.as_nanos();
                peer.slow = true;
                peer.was_slow = true;
                self.relay.handle_send_waits(now, peer.conn);
                self.settled = false;
            }
        }
    }

    pub(crate) fn answer(&mut self, index: usize) {
        let now = self.now();
        let conn = self.side.peers[index].conn;
        self.side.peers[index].socket.probed = false;
        let answer = Carrier::<&mut [u8]>::probe(&mut self.side, conn);
        self.relay.handle_probe(now, conn, answer);
        self.settled = false;
    }

    /// A send under way goes on as far as its socket lets it, and ends if it is to.
    pub(crate) fn complete(&mut self, index: usize) {
        let now = self.now();
        let Some(mut flight) = self.side.peers[index].socket.flight.take() else { return };
        let conn = self.side.peers[index].conn;
        let left = flight.bytes.len() - flight.taken;
        let socket = &self.side.peers[index].socket;
        let (reset, calm) = (socket.reset, self.side.calm);
        let mut more = left.min(socket.room());
        if flight.cancelled && self.side.rng.one_in(2) || reset {
            more = 0;
        } else if !calm && self.side.rng.percent(self.side.plan.habits.short_percent) {
            more = self.side.rng.up_to(more);
        }
        let from = flight.ranges.iter().flat_map(|range| self.pool(*range).iter().copied());
        let moved = from.zip(&flight.bytes).any(|(there, then)| there != *then);
        assert!(!moved, "the memory of a send under way was written to");
        self.side.accept(index, &flight.bytes[flight.taken..flight.taken + more]);
        flight.taken += more;
        let whole = flight.taken == flight.bytes.len();
        let partly = flight.taken > 0 && !self.side.plan.habits.wait_all;
        if !(whole || flight.cancelled || reset || partly) {
            self.side.peers[index].socket.flight = Some(flight);
            return;
        }
        self.settled = false;
        if reset && !flight.cancelled {
            self.side.peers[index].socket.broken = true;
            self.side.places.hit(Place::SendFailed);
            self.relay.handle_send_failed(now, conn);
            return;
        }
        let at_once = flight.step + 1 >= self.side.step || (calm && whole);
        self.count(&flight, at_once);
        self.side.ended(index, &flight, flight.taken, at_once);
        self.relay.handle_sent(now, conn, flight.taken, at_once);
    }

    fn count(&mut self, flight: &crate::peer::Flight, at_once: bool) {
        let places = &mut self.side.places;
        if flight.cancelled {
            places.hit(match flight.taken {
                0 => Place::CancelledEmpty,
                taken if taken == flight.bytes.len() => Place::CancelledWhole,
                _ => Place::CancelledPartly,
            });
        } else if !at_once {
            places.hit(Place::SendWaited);
        }
    }

    fn pool(&self, range: wardline_core::Range) -> &[u8] {
        let from = range.at as usize;
        &self.relay.pool()[from..from + range.len as usize]
    }

    /// A socket that was to be closed is.
    pub(crate) fn close_done(&mut self, index: usize) {
        let now = self.now();
        if self.side.peers[index].socket.flight.is_some() {
            // Its send is cancelled; the end of that is reported or not, before the close is.
            if self.side.rng.one_in(2) {
                let flight = self.side.peers[index].socket.flight.as_mut();
                flight.expect("a send under way").cancelled = true;
                self.complete(index);
            }
            self.side.peers[index].socket.flight = None;
        }
        let conn = self.side.peers[index].conn;
        self.relay.handle_closed(now, conn);
        self.gone(index);
        self.settled = false;
    }

    /// Takes outputs, as this seed does.
    pub(crate) fn drain(&mut self) {
        if self.side.plan.habits.by_hand && !self.side.calm {
            self.by_hand();
        } else {
            let now = self.now();
            let most = u64::from(self.relay.limits().turn_sent_bytes);
            let before = self.relay.stats().bytes_out.value();
            let next = pump(&mut self.relay, &mut self.side, &mut self.gather, now);
            let short = self.relay.stats().bytes_out.value() - before < most;
            match next {
                Next::Wait(at) => self.wait = at,
                Next::Again => self.wait = Some(now),
            }
            self.settled = short;
            self.wants_links |= short && next == Next::Again;
        }
        self.after_drain();
    }

    pub(crate) fn after_drain(&mut self) {
        let taken = self.taken();
        for index in 0..self.side.live.len() {
            let peer = &mut self.side.peers[self.side.live[index]];
            if peer.gone && peer.view.left.is_none() {
                peer.view.left = Some(taken);
                self.old.push(peer.conn);
            }
        }
        if self.settled {
            self.fed = 0;
            self.forget_knocks();
            self.side.verify_all();
            self.side.settled = self.side.step;
            self.side.assert_unheard();
            if self.side.step.is_multiple_of(8) {
                self.assert_in_time();
            }
            assert_eq!(self.side.published, taken, "messages without an event");
        }
    }

    /// Takes outputs one by one, and leaves some undone for a while.
    fn by_hand(&mut self) {
        let now = self.now();
        self.settled = false;
        self.relay.handle_timeout(now);
        for _ in 0..1 + self.side.rng.up_to(200) {
            let output = self.relay.poll_output();
            if let Output::Wait(at) = output {
                self.wait = at;
                self.wants_links |= at.is_some_and(|at| at <= now);
                self.settled = true;
                return;
            }
            self.hand(output, now);
        }
    }

    fn hand(&mut self, output: Output, now: Instant) {
        let Self { relay, side, gather, .. } = self;
        let carrier: &mut dyn Carrier<&mut [u8]> = side;
        match output {
            Output::Send(conn) => {
                if carrier.is_full(conn) {
                    return;
                }
                if side.knock_of(conn).is_none() && side.rng.one_in(4) {
                    let peer = side.named(conn);
                    side.peers[peer].socket.full = true;
                    side.peers[peer].socket.put_off = true;
                } else {
                    send(relay, side, gather, now, conn);
                }
            }
            Output::CancelSend(conn) => carrier.cancel_send(conn),
            Output::Pause(conn) => carrier.pause(conn),
            Output::Resume(conn) => carrier.resume(conn),
            Output::Probe(conn) => {
                let peer = side.named(conn);
                side.peers[peer].socket.probed = true;
            }
            Output::Finish(conn) => carrier.finish(conn),
            Output::Close(conn) => {
                if carrier.close(conn) {
                    relay.handle_closed(now, conn);
                }
            }
            Output::Event(event) => {
                carrier.event(event, event.conn().and_then(|conn| relay.remote(conn)));
            }
            Output::Handover(_) => unreachable!("only native connections go"),
            Output::Wait(_) => {}
        }
    }

    /// Drains until all events are known.
    pub(crate) fn settle(&mut self) {
        let mut turns = 0_u64;
        loop {
            self.drain();
            if self.settled {
                return;
            }
            turns += 1;
            assert!(turns < 10_000_000, "the relay does not come to rest");
        }
    }
}
