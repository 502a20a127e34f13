//! The frontend: what it receives, sends and closes, as far as the sockets let it.

use wardline_core::{Next, Verdict, pump, send};

use super::link::Stage;
use super::net::Owner;
use super::states::State;
use super::world::World;

impl World<'_, '_> {
    /// The frontend receives.
    pub(crate) fn receive(&mut self, index: usize) {
        let now = self.now();
        let side = &mut self.side;
        let conn = &mut side.conns[index];
        if conn.closing || conn.gone {
            return;
        }
        let id = conn.id;
        let relay = &mut self.relays[conn.shard];
        if conn.reset {
            if conn.flight.is_none() && side.rng.one_in(2) {
                relay.handle_closed(now, id);
                side.forget(index);
                self.bury(index);
            } else if !conn.broken {
                conn.broken = true;
                relay.handle_broken(now, id);
            }
            return;
        }
        if conn.paused {
            return;
        }
        let budget = relay.read_budget(id);
        let most = if conn.finished { 64_000 } else { budget };
        let mut len = conn.up.len().min(most);
        if !side.calm && len > 0 {
            len = len.min(1 + side.rng.up_to(side.plan.receive_bytes));
        }
        let conn = &mut side.conns[index];
        if len > 0 {
            let bytes: Vec<u8> = conn.up.drain(..len).collect();
            conn.heard_ns = side.now_ns;
            let before = *relay.stats();
            let ip = conn.addr.ip();
            let refused = matches!(relay.verdict(now, ip), Verdict::Refused(_));
            relay.handle_input(now, id, &bytes);
            conn.flapped |= relay.stats().flapping != before.flapping;
            let after = *relay.stats();
            if refused {
                side.heard_refused(index, &before, &after);
            }
            if after.puzzles_wanted != before.puzzles_wanted {
                side.puzzle_wanted(index);
            }
            if after.challenges != before.challenges {
                side.challenged();
            }
            if after.half_open_full != before.half_open_full {
                side.no_place();
            }
            let conn = &side.conns[index];
            if relay.stats().link_full != before.link_full {
                let native = matches!(conn.owner, Owner::Agent(_));
                side.states.hit(if native { State::LinkFullNative } else { State::LinkFull });
            }
        } else if conn.up.is_empty() && conn.fin && !conn.fin_told {
            conn.fin_told = true;
            relay.handle_eof(now, id);
        }
    }

    /// A client reads.
    pub(crate) fn read(&mut self, index: usize) {
        let side = &mut self.side;
        let most = match side.rng.below(4) {
            _ if side.calm => usize::MAX,
            0 => side.rng.up_to(60),
            1 => 1,
            _ => usize::MAX,
        };
        match side.conns[index].owner {
            Owner::Agent(_) => side.client_reads(index, most),
            Owner::Text(text) => side.text_reads(text, index, most),
            Owner::Noise => side.conns[index].down.clear(),
        }
        let conn = &mut side.conns[index];
        if conn.finished && conn.down.is_empty() && !conn.reset {
            conn.fin = true;
            if let Some(link) = &mut side.links[index] {
                link.stage = Stage::Over;
            }
        }
    }

    pub(crate) fn writable(&mut self, index: usize) {
        let now = self.now();
        let conn = &mut self.side.conns[index];
        conn.full = false;
        if !conn.closing {
            let (id, shard) = (conn.id, conn.shard);
            self.side.shard = shard;
            send(&mut self.relays[shard], &mut self.side, &mut self.gather, now, id);
        }
    }

    /// A send under way goes on as far as its socket lets it, and ends if it is to; a socket that
    /// was to be closed is.
    pub(crate) fn complete(&mut self, index: usize) {
        let now = self.now();
        if let Some(mut flight) = self.side.conns[index].flight.take() {
            let side = &mut self.side;
            let conn = &side.conns[index];
            let left = flight.bytes.len() - flight.taken;
            let (id, reset, closing) = (conn.id, conn.reset, conn.closing);
            let relay = &mut self.relays[conn.shard];
            let mut more = left.min(conn.room());
            if flight.cancelled && side.rng.one_in(2) || reset {
                more = 0;
            } else if !side.calm && side.rng.percent(side.plan.short) {
                more = side.rng.up_to(more);
            }
            let mut there = flight.ranges.iter().flat_map(|range| {
                let from = range.at as usize;
                &relay.pool()[from..from + range.len as usize]
            });
            let moved = flight.bytes.iter().any(|then| there.next() != Some(then));
            assert!(!moved, "the memory of a send under way was written to");
            side.accept(index, &flight.bytes[flight.taken..flight.taken + more]);
            flight.taken += more;
            let whole = flight.taken == flight.bytes.len();
            let over = whole || flight.cancelled || reset || flight.taken > 0 || closing;
            if !over {
                side.conns[index].flight = Some(flight);
                return;
            }
            if flight.cancelled {
                side.states.hit(State::Cancelled);
            }
            if reset && !flight.cancelled {
                side.conns[index].broken = true;
                relay.handle_send_failed(now, id);
            } else {
                let at_once = flight.step + 1 >= side.step || (side.calm && whole);
                relay.handle_sent(now, id, flight.taken, at_once);
            }
        }
        let conn = &self.side.conns[index];
        if conn.closing && conn.flight.is_none() && !conn.gone && !conn.moves {
            self.relays[conn.shard].handle_closed(now, conn.id);
            self.side.let_go(index);
            if self.side.conns[index].gone {
                self.bury(index);
            }
        }
        if self.side.conns[index].moves {
            self.arrive(index);
        }
    }

    /// A connection comes to the shard that it was handed to.
    fn arrive(&mut self, index: usize) {
        let now = self.now();
        let conn = &mut self.side.conns[index];
        conn.moves = false;
        let mut handover = conn.handover.take().expect("it moves");
        let (shard, ip) = (usize::from(handover.to), conn.addr.ip());
        self.drain_one(shard);
        let relay = &mut self.relays[shard];
        let evicted = relay.stats().evicted_for_newcomer;
        let taken = relay.handle_handover(now, &mut handover);
        self.side.evicted |= relay.stats().evicted_for_newcomer != evicted;
        match taken {
            Ok(id) => {
                let conn = &mut self.side.conns[index];
                (conn.id, conn.shard) = (id, shard);
                (conn.closing, conn.paused, conn.full) = (false, false, false);
                self.side.names.insert((shard, id), index);
            }
            Err(refusal) => {
                self.side.turned_off(refusal, (shard, ip), true);
                self.side.forget(index);
                self.bury(index);
            }
        }
    }

    /// A client sees that its connection is gone; what is in its socket it may read, or not.
    pub(crate) fn bury(&mut self, index: usize) {
        let side = &mut self.side;
        if !side.conns[index].reset && side.rng.one_in(2) {
            match side.conns[index].owner {
                Owner::Agent(_) => side.client_reads(index, usize::MAX),
                Owner::Text(text) => side.text_reads(text, index, usize::MAX),
                Owner::Noise => {}
            }
        }
        if let Some(link) = &mut side.links[index] {
            link.stage = Stage::Over;
            link.live = false;
        }
    }

    /// Tells the relay which sends wait for their peers.
    pub(crate) fn tell_waits(&mut self) {
        let now = self.now();
        for nth in 0..self.side.live.len() {
            let conn = &mut self.side.conns[self.side.live[nth]];
            let step = self.side.step;
            if let Some(flight) = &mut conn.flight
                && flight.step < step
                && !flight.waits
            {
                flight.waits = true;
                self.relays[conn.shard].handle_send_waits(now, conn.id);
            }
        }
    }

    /// Takes outputs of all shards.
    pub(crate) fn drain(&mut self) {
        for shard in 0..self.relays.len() {
            self.drain_one(shard);
        }
    }

    /// Takes outputs of one of them.
    pub(crate) fn drain_one(&mut self, shard: usize) {
        let now = self.now();
        let held = self.side.live.clone();
        self.side.shard = shard;
        let relay = &mut self.relays[shard];
        self.waits[shard] = match pump(relay, &mut self.side, &mut self.gather, now) {
            Next::Wait(at) => at,
            Next::Again => {
                self.rings.wanted[shard] = true;
                Some(now)
            }
        };
        for index in held {
            if self.side.conns[index].gone {
                self.bury(index);
            }
        }
    }
}
