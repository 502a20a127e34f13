//! How a run ends: faults stop, everything drains, everybody leaves.

use wardline_core::{PeerFault, Reason};

use crate::places::Place;
use crate::world::World;

/// Virtual time in which everything must have drained once the faults are over.
const DRAINED_NS: u64 = 60_000_000_000;
/// How much later than its deadline something may be.
const SLACK_NS: u64 = 3_000_000_000;

impl World<'_, '_> {
    /// Brings the run to its end, and checks it.
    pub(crate) fn end(&mut self) {
        self.settle();
        if self.side.plan.rude_shutdown {
            self.shut_down();
            return;
        }
        self.calm_down();
        self.assert_drained();
        if self.side.plan.idle_end && !self.side.plan.limits.line.idle.is_zero() {
            self.idle_out();
        }
        self.shut_down();
    }

    /// Everybody is honest and quick now, until there is nothing left to do.
    fn calm_down(&mut self) {
        self.be_calm();
        let end = self.side.now_ns + DRAINED_NS;
        while !self.is_drained() {
            assert!(self.side.now_ns < end, "it does not drain: {}", self.undrained());
            self.turn();
        }
    }

    /// From now on everybody is honest and quick, and finishes his line.
    pub(crate) fn be_calm(&mut self) {
        self.side.calm = true;
        for peer in self.open() {
            let peer = &mut self.side.peers[peer];
            let socket = &mut peer.socket;
            let begun = peer.view.is_unfinished() && socket.waiting().is_empty();
            let cut = socket.waiting().last().is_some_and(|last| *last != b'\n');
            if !socket.fin && !socket.reset && (begun || cut) {
                socket.wire.push(b'\n');
            }
        }
    }

    /// A turn of an honest frontend with quick clients; then time goes on to what the relay waits
    /// for, or a little.
    fn turn(&mut self) {
        if self.round() {
            self.quiet = 0;
            self.spun = 0;
            return;
        }
        let next = self.wait.map_or(u64::MAX, wardline_core::Instant::as_nanos);
        let now_ns = &mut self.side.now_ns;
        if next <= *now_ns {
            self.quiet = 0;
            self.spun += 1;
            assert!(self.spun < 100_000, "the relay has something to do and does nothing");
            return;
        }
        // Only once nothing has come of it twice: it may have been resumed after it was served.
        self.quiet += 1;
        self.spun = 0;
        if self.quiet > 1 {
            *now_ns = next.min(*now_ns + 1_000_000_000);
        }
    }

    /// The same without time: gives whether anything happened.
    pub(crate) fn round(&mut self) -> bool {
        self.side.step += 1;
        let mut busy = self.advance_all();
        let sent = self.relay.stats().bytes_out.value();
        for index in 0..self.side.live.len() {
            let peer = self.side.live[index];
            busy |= self.serve(peer);
        }
        self.tell_waits();
        self.settle();
        self.check();
        busy || sent != self.relay.stats().bytes_out.value()
    }

    /// All that an honest frontend and a quick client do for a connection; gives whether there
    /// was anything.
    fn serve(&mut self, index: usize) -> bool {
        let peer = &self.side.peers[index];
        if peer.gone {
            return false;
        }
        let socket = &peer.socket;
        let before = (socket.accepted, socket.waiting().len(), socket.unread, socket.fin_told);
        if socket.finished && !socket.fin {
            self.side.peers[index].socket.fin = true;
        }
        if self.side.peers[index].socket.unread > 0 {
            self.read(index);
        }
        if self.side.peers[index].socket.flight.is_some() {
            self.complete(index);
        }
        if self.side.peers[index].socket.probed {
            self.answer(index);
        }
        if self.side.peers[index].socket.closing {
            self.close_done(index);
            return true;
        }
        if self.side.peers[index].socket.full {
            self.writable(index);
        }
        self.receive(index);
        let peer = &self.side.peers[index];
        let socket = &peer.socket;
        let after = (socket.accepted, socket.waiting().len(), socket.unread, socket.fin_told);
        before != after || peer.gone
    }

    pub(crate) fn is_drained(&self) -> bool {
        let (peers, live) = (&self.side.peers, &self.side.live);
        live.iter().map(|peer| &peers[*peer]).all(|peer| {
            let socket = &peer.socket;
            let quiet = socket.waiting().is_empty() && socket.flight.is_none();
            let ended = !socket.fin && !socket.reset && peer.view.leaving.is_none();
            peer.gone || (quiet && ended && peer.view.is_heard() && peer.view.queue.is_empty())
        }) && self.side.knocks.is_empty()
            && self.relay.memory_used() == (0, 0)
    }

    pub(crate) fn undrained(&self) -> String {
        let limits = self.relay.limits();
        let mut said = format!("memory used {:?} {limits:?}", self.relay.memory_used());
        for index in &self.side.live {
            if self.side.peers[*index].gone {
                continue;
            }
            said += &format!("\n  {}", self.side.brief(*index));
        }
        said
    }

    pub(crate) fn assert_drained(&self) {
        let limits = &self.side.plan.limits;
        let told = limits.warnings_per_second > 0 && self.side.short.is_none();
        for peer in self.open() {
            let view = &self.side.peers[peer].view;
            assert!(view.is_whole(), "a stream that ends inside a line");
            assert!(view.gaps.is_empty(), "a gap that was not told");
            assert!(!told || view.refused == 0 || view.warned > 0, "refused and never told");
        }
    }

    /// Nobody says anything any more: everybody is idle in the end.
    fn idle_out(&mut self) {
        let idle = self.side.plan.limits.line.idle.as_nanos();
        let linger = self.side.plan.limits.linger.as_nanos();
        let there = self.open();
        let end = self.side.now_ns + idle * 2 + linger + SLACK_NS;
        while self.side.now_ns < end && self.relay.connections() > 0 {
            self.turn();
        }
        assert_eq!(self.relay.connections(), 0, "idle, and still there: {}", self.undrained());
        // Each last word takes a block for a moment.
        let told = there.len() as u32 * 2 <= self.side.plan.limits.blocks;
        for peer in there {
            let idle = Some(Reason::Fault(PeerFault::Idle));
            assert_eq!(self.reason(peer), idle, "idle, and left: {}", self.side.brief(peer));
            let farewell = self.side.peers[peer].view.farewell;
            assert!(farewell || !told, "idle, and not told: {}", self.side.brief(peer));
        }
    }

    /// The relay shuts down; everybody gets the warning, in bounded time.
    fn shut_down(&mut self) {
        let there = self.begin_shutdown();
        let limits = self.side.plan.limits;
        let rude = self.side.plan.rude_shutdown;
        let span = limits.drain.as_nanos() + limits.linger.as_nanos() * 2 + SLACK_NS;
        let told_by = self.side.now_ns + limits.drain_spread.as_nanos();
        let end = told_by + span;
        // Who stood still meanwhile tells some of it later, and they have as long as any other.
        while rude && self.side.now_ns < end.max(self.last_told() + span) {
            self.step();
            self.settle();
            self.side.now_ns += (span + limits.drain_spread.as_nanos()) / 500;
        }
        if rude {
            self.settle();
            let peers = &self.side.peers;
            let closed = |peer: &usize| peers[*peer].gone || peers[*peer].socket.closing;
            let all = self.side.live.iter().all(closed);
            assert!(all, "the shutdown does not end: {}", self.undrained());
            self.side.calm = true;
        }
        while self.relay.connections() > 0 {
            let late = !rude && self.side.now_ns >= end;
            assert!(!late, "the shutdown does not end: {}", self.undrained());
            self.turn();
        }
        assert_eq!(self.relay.memory_used(), (0, 0), "memory that nobody gave back");
        if !rude {
            self.assert_told(there);
        }
    }

    /// When the last of those who are there began to leave.
    pub(crate) fn last_told(&self) -> u64 {
        let peers = self.side.live.iter().map(|peer| &self.side.peers[*peer]);
        peers.filter_map(|peer| peer.view.leaving.as_ref()).map(|it| it.at_ns).max().unwrap_or(0)
    }

    /// The relay is told to shut down; gives who was there.
    pub(crate) fn begin_shutdown(&mut self) -> Vec<usize> {
        let there = self.open();
        for peer in &there {
            let peer = &self.side.peers[*peer];
            if !peer.view.queue.is_empty() {
                self.side.places.hit(Place::ShutdownWithQueues);
            }
            if peer.socket.flight.is_some() {
                self.side.places.hit(Place::ShutdownInFlight);
            }
        }
        self.side.shutdown = true;
        self.relay.handle_shutdown(self.now());
        self.settled = false;
        there
    }

    /// Everybody who was there was told of the shutdown.
    pub(crate) fn assert_told(&self, there: Vec<usize>) {
        // Each last word takes a block for a moment.
        let told = there.len() as u32 * 2 <= self.side.plan.limits.blocks;
        for peer in there {
            let reason = self.reason(peer);
            let idle = reason == Some(Reason::Fault(PeerFault::Idle));
            assert!(idle || reason == Some(Reason::Shutdown), "left otherwise: {reason:?}");
            let farewell = self.side.peers[peer].view.farewell;
            assert!(farewell || !told, "not told of the shutdown");
        }
    }
}
