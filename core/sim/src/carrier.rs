//! The frontend as the relay's pump sees it.

use std::net::SocketAddr;

use wardline_core::{
    Carrier, ConnId, Event, GATHER_MAX, Gather, Handover, LagRule, PeerFault, Pool, Reason, Started,
};

use crate::knocks::PROXIES;
use crate::peer::Flight;
use crate::places::Place;
use crate::side::Side;

impl<P: Pool> Carrier<P> for Side<'_> {
    fn is_full(&mut self, conn: ConnId) -> bool {
        if self.knock_of(conn).is_some() {
            return false;
        }
        let peer = self.named(conn);
        self.peers[peer].socket.full
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        let ranges = gather.ranges();
        let bytes: Vec<u8> = ranges.iter().flat_map(|range| pool.read(*range)).copied().collect();
        if let Some(knock) = self.knock_of(conn) {
            knock.hears(&bytes);
            return Started::Done(bytes.len());
        }
        let index = self.named(conn);
        let limits = self.plan.limits;
        let most = limits.send_bytes.max(limits.slow_send_bytes) as usize;
        assert_eq!(bytes.len(), gather.bytes(), "a gather that is not as long as it says");
        assert!(!bytes.is_empty() && bytes.len() <= most, "a send of {} bytes", bytes.len());
        if ranges.len() == GATHER_MAX {
            self.places.hit(Place::GatherFull);
        }
        let (step, now_ns) = (self.step, self.now_ns);
        let peer = &mut self.peers[index];
        peer.times.started = now_ns;
        let from = peer.view.last_end;
        let socket = &mut peer.socket;
        assert!(socket.flight.is_none(), "two sends at once");
        assert!(!socket.closing && !socket.finished, "a send after the end");
        socket.sends += 1;
        let flight = Flight {
            ranges: ranges.to_vec(),
            bytes,
            from,
            taken: 0,
            step,
            waits: false,
            told_ns: 0,
            cancelled: false,
        };
        let habits = &self.plan.habits;
        if !self.calm && self.rng.percent(habits.under_way_percent) {
            self.peers[index].socket.flight = Some(flight);
            self.peers[index].was_slow = true;
            return Started::UnderWay;
        }
        if socket.reset {
            socket.broken = true;
            self.places.hit(Place::SendFailed);
            return Started::Failed;
        }
        let mut taken = socket.room().min(flight.bytes.len());
        if !self.calm && self.rng.percent(habits.short_percent) {
            taken = self.rng.up_to(taken);
        }
        self.peers[index].socket.full = taken < flight.bytes.len();
        self.accept(index, &flight.bytes[..taken]);
        self.ended(index, &flight, taken, true);
        Started::Done(taken)
    }

    fn cancel_send(&mut self, conn: ConnId) {
        let index = self.named(conn);
        let peer = &mut self.peers[index];
        peer.pressed = true;
        let flight = peer.socket.flight.as_mut();
        flight.expect("a send that is not under way was cancelled").cancelled = true;
    }

    fn pause(&mut self, conn: ConnId) {
        if let Some(knock) = self.knock_of(conn) {
            assert!(knock.refused.is_some(), "a proxy is not read");
            return;
        }
        let index = self.named(conn);
        let overrun = self.plan.habits.overrun;
        let peer = &mut self.peers[index];
        assert!(!peer.socket.paused, "paused twice");
        peer.socket.paused = true;
        peer.socket.overrun = u32::from(overrun && peer.view.leaving.is_none());
        if peer.view.leaving.is_none() {
            self.places.hit(Place::Backlog);
            self.note_slowdown(index);
        }
    }

    fn resume(&mut self, conn: ConnId) {
        if self.knock_of(conn).is_some() {
            return;
        }
        let index = self.named(conn);
        let now_ns = self.now_ns;
        let peer = &mut self.peers[index];
        assert!(peer.socket.paused, "resumed, and was not paused");
        peer.socket.paused = false;
        peer.times.resumed = now_ns;
    }

    fn probe(&mut self, conn: ConnId) -> Option<u32> {
        let index = self.named(conn);
        self.places.hit(Place::Probe);
        let now_ns = self.now_ns;
        let times = &mut self.peers[index].times;
        times.answered = now_ns;
        if times.acknowledged.max(times.sent) >= times.probed {
            times.probed = now_ns;
        }
        // Of what the relay was told that it was sent.
        let socket = &self.peers[index].socket;
        let untold = socket.flight.as_ref().map_or(0, |flight| flight.taken);
        let unread = socket.unread.saturating_sub(untold) as u32;
        (!self.plan.habits.blind).then_some(unread)
    }

    fn finish(&mut self, conn: ConnId) {
        let time = (self.now_ns, self.plan.limits.linger);
        if let Some(knock) = self.knock_of(conn) {
            assert!(!std::mem::replace(&mut knock.finished, true), "finished twice");
            knock.ends(false, time);
            return;
        }
        let index = self.named(conn);
        self.verify(index);
        self.assert_paid(index);
        let socket = &mut self.peers[index].socket;
        assert!(socket.flight.is_none(), "the end of the stream with a send under way");
        assert!(!std::mem::replace(&mut socket.finished, true), "finished twice");
    }

    fn close(&mut self, conn: ConnId) -> bool {
        let time = (self.now_ns, self.plan.limits.linger);
        if let Some(knock) = self.knock_of(conn) {
            assert!(!std::mem::replace(&mut knock.gone, true), "closed twice");
            knock.ends(true, time);
            return true;
        }
        let index = self.named(conn);
        self.verify(index);
        let now_ns = self.now_ns;
        let limits = self.plan.limits;
        let peer = &self.peers[index];
        assert!(!peer.socket.closing, "closed twice");
        let leaving = peer.view.leaving.expect("it is closed and has not left");
        let flush = leaving.owed.is_some();
        let span = if flush { limits.drain } else { limits.linger };
        let late = now_ns - leaving.at_ns >= span.as_nanos();
        let evicted = leaving.reason == Reason::Fault(PeerFault::Evicted);
        let broken = peer.socket.broken;
        if late {
            self.places.hit(Place::Lingered);
        } else if !peer.socket.finished && !broken && !evicted {
            self.assert_paid(index);
        }
        let slow = !self.calm && self.rng.percent(self.plan.habits.slow_close_percent);
        let peer = &mut self.peers[index];
        peer.socket.closing = true;
        if peer.socket.flight.is_some() || slow {
            return false;
        }
        self.forget(index);
        true
    }

    fn hand_over(&mut self, _: ConnId, _: Handover) -> bool {
        unreachable!("no session is native")
    }

    fn event(&mut self, event: Event, remote: Option<SocketAddr>) {
        let known = |side: &Self, conn: ConnId| side.names[&conn];
        if let Some(conn) = event.conn() {
            assert_eq!(remote, self.place_of(conn), "{event:?}");
        }
        match event {
            Event::None => panic!("an event of nothing"),
            Event::Leaving { conn, reason } if self.knock_leaves(conn, reason) => {
                self.observe(10 ^ conn.to_bits());
            }
            Event::Proxied { conn } => self.observe(11 ^ conn.to_bits()),
            Event::Leaving { conn, reason } => {
                let index = known(self, conn);
                self.observe(1 ^ conn.to_bits());
                self.leaving(index, reason);
            }
            Event::Published { conn, topic, number } => {
                let index = known(self, conn);
                let topic = self.topics.iter().position(|known| known.id == topic);
                self.observe(2 ^ number.unwrap_or(u64::MAX));
                self.published(index, topic.expect("a topic"), number);
            }
            Event::NotRelayed { conn, why } => {
                let index = known(self, conn);
                self.observe(3);
                self.not_relayed(index, why);
            }
            Event::Gap { conn, from, to } => {
                let index = known(self, conn);
                self.observe(4 ^ (from << 20) ^ (to << 40));
                self.gapped(index, from, to);
            }
            Event::Paced { conn, .. } => {
                let index = known(self, conn);
                self.observe(5);
                assert_eq!(self.plan.limits.lag_rule, LagRule::Pace, "paced under another rule");
                self.places.hit(Place::Pace);
                assert!(self.peers[index].was_slow, "paced for a prompt reader");
            }
            Event::Ordered { shard, topic, number, messages } => {
                self.observe(7 ^ number.unwrap_or(u64::MAX));
                let topic = self.topics.iter().position(|known| known.id == topic);
                self.ordered(usize::from(shard), topic.expect("a topic"), number, messages);
            }
            Event::ReplicaBegins { topic, number } => {
                self.observe(8 ^ (number << 8));
                let topic = self.topics.iter().position(|known| known.id == topic);
                self.replica_begins(topic.expect("a topic"), number);
            }
            Event::Replicated { topic, number, messages } => {
                self.observe(9 ^ (number << 8));
                let topic = self.topics.iter().position(|known| known.id == topic);
                self.replicated(topic.expect("a topic"), number, messages);
            }
            Event::LinkDead { shard } => self.link_dead(usize::from(shard)),
            Event::LinkLost { shard } => self.link_lost(usize::from(shard)),
            Event::Struck { conn, seconds, .. } => {
                let index = known(self, conn);
                self.observe(6 ^ u64::from(seconds));
                let ip = self.peers[index].view.addr.ip();
                let exempt = self.plan.exempt || PROXIES[0].contains(ip);
                assert!(!exempt, "who is exempt was struck");
                self.struck(index, seconds);
            }
        }
    }
}
