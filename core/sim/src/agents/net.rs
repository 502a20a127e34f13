//! The network: sockets with little room between clients and relay, and the relay's frontend.

use std::collections::VecDeque;
use std::net::SocketAddr;

use wardline_core::{Carrier, ConnId, Event, Gather, Handover, Pool, Range, Reason, Started};

use super::side::Side;
use super::states::State;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A native client.
    Agent(usize),
    /// A client of lines.
    Text(usize),
    /// Somebody who writes bytes that mean nothing, or plays back what others said.
    Noise,
}

/// A send under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) ranges: Vec<Range>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) taken: usize,
    pub(crate) step: u64,
    pub(crate) waits: bool,
    pub(crate) cancelled: bool,
}

/// A connection, from outside.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) addr: SocketAddr,
    pub(crate) shard: usize,
    pub(crate) owner: Owner,
    /// What it holds for the client at most, and what the client has not read.
    pub(crate) bytes_max: usize,
    pub(crate) down: VecDeque<u8>,
    /// What the client wrote and the frontend did not receive.
    pub(crate) up: VecDeque<u8>,
    pub(crate) full: bool,
    pub(crate) flight: Option<Flight>,
    pub(crate) fin: bool,
    pub(crate) fin_told: bool,
    pub(crate) reset: bool,
    pub(crate) broken: bool,
    pub(crate) paused: bool,
    pub(crate) finished: bool,
    pub(crate) closing: bool,
    pub(crate) gone: bool,
    pub(crate) leaving: Option<Reason>,
    /// A send of it was short, or under way for a while.
    pub(crate) slow: bool,
    /// Bytes of it were changed on the path.
    pub(crate) meddled: bool,
    pub(crate) meddled_ns: u64,
    /// Its address was charged for a connect too many.
    pub(crate) flapped: bool,
    /// It ended for what its client may not do any more.
    pub(crate) withdrawn: bool,
    pub(crate) opened_ns: u64,
    pub(crate) heard_ns: u64,
    /// The client reads nothing for now.
    pub(crate) lazy: bool,
    /// It goes to another shard.
    pub(crate) handover: Option<Handover>,
    /// Nothing of it is under way any more, and it is not there yet.
    pub(crate) moves: bool,
}

impl Conn {
    /// A new one.
    pub(crate) fn new(
        (id, addr): (ConnId, SocketAddr),
        owner: Owner,
        bytes_max: usize,
        now_ns: u64,
    ) -> Self {
        Self {
            id,
            addr,
            shard: 0,
            owner,
            bytes_max,
            down: VecDeque::new(),
            up: VecDeque::new(),
            full: false,
            flight: None,
            fin: false,
            fin_told: false,
            reset: false,
            broken: false,
            paused: false,
            finished: false,
            closing: false,
            gone: false,
            leaving: None,
            slow: false,
            meddled: false,
            meddled_ns: 0,
            flapped: false,
            withdrawn: false,
            opened_ns: now_ns,
            heard_ns: now_ns,
            lazy: false,
            handover: None,
            moves: false,
        }
    }

    /// How much it can take.
    pub(crate) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.down.len())
    }

    /// Whether the client still has an end of it.
    pub(crate) fn is_up(&self) -> bool {
        !self.reset && !self.fin && !self.gone
    }
}

impl<P: Pool> Carrier<P> for Side<'_> {
    fn is_full(&mut self, conn: ConnId) -> bool {
        if self.is_stray(conn) {
            return false;
        }
        let index = self.named(conn);
        self.conns[index].full
    }

    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started {
        let ranges = gather.ranges();
        let bytes: Vec<u8> = ranges.iter().flat_map(|range| pool.read(*range)).copied().collect();
        if let Some(told) = self.strays.get_mut(&(self.shard, conn)) {
            told.extend(&bytes);
            return Started::Done(bytes.len());
        }
        let index = self.named(conn);
        let limits = &self.plan.limits;
        let most = limits.send_bytes.max(limits.slow_send_bytes) as usize;
        assert_eq!(bytes.len(), gather.bytes(), "a gather that is not as long as it says");
        assert!(!bytes.is_empty() && bytes.len() <= most, "a send of {} bytes", bytes.len());
        let under_way = !self.calm && self.rng.percent(self.plan.under_way);
        let short = !self.calm && self.rng.percent(self.plan.short);
        let step = self.step;
        let conn = &mut self.conns[index];
        assert!(conn.flight.is_none(), "two sends at once");
        assert!(!conn.closing && !conn.finished, "a send after the end");
        let ranges = ranges.to_vec();
        if under_way {
            conn.slow = true;
            conn.flight =
                Some(Flight { ranges, bytes, taken: 0, step, waits: false, cancelled: false });
            return Started::UnderWay;
        }
        if conn.reset {
            conn.broken = true;
            return Started::Failed;
        }
        let mut taken = conn.room().min(bytes.len());
        if short {
            taken = self.rng.up_to(taken);
        }
        let conn = &mut self.conns[index];
        conn.full = taken < bytes.len();
        conn.slow |= conn.full;
        self.accept(index, &bytes[..taken]);
        Started::Done(taken)
    }

    fn cancel_send(&mut self, conn: ConnId) {
        let index = self.named(conn);
        let flight = self.conns[index].flight.as_mut();
        flight.expect("a send that is not under way was cancelled").cancelled = true;
    }

    fn pause(&mut self, conn: ConnId) {
        if self.is_stray(conn) {
            return;
        }
        let index = self.named(conn);
        assert!(!std::mem::replace(&mut self.conns[index].paused, true), "paused twice");
    }

    fn resume(&mut self, conn: ConnId) {
        if self.is_stray(conn) {
            return;
        }
        let index = self.named(conn);
        assert!(std::mem::replace(&mut self.conns[index].paused, false), "it was not paused");
    }

    fn probe(&mut self, conn: ConnId) -> Option<u32> {
        let index = self.named(conn);
        let conn = &self.conns[index];
        let untold = conn.flight.as_ref().map_or(0, |flight| flight.taken);
        (!self.plan.blind).then_some(conn.down.len().saturating_sub(untold) as u32)
    }

    fn finish(&mut self, conn: ConnId) {
        if self.is_stray(conn) {
            return;
        }
        let index = self.named(conn);
        let conn = &mut self.conns[index];
        assert!(conn.flight.is_none(), "the end of the stream with a send under way");
        assert!(!std::mem::replace(&mut conn.finished, true), "finished twice");
    }

    fn close(&mut self, conn: ConnId) -> bool {
        if self.is_stray(conn) {
            return true;
        }
        let index = self.named(conn);
        let slow = !self.calm && self.rng.percent(self.plan.slow_close);
        let conn = &mut self.conns[index];
        assert!(!std::mem::replace(&mut conn.closing, true), "closed twice");
        if conn.flight.is_some() || slow {
            return false;
        }
        self.let_go(index);
        true
    }

    fn hand_over(&mut self, conn: ConnId, handover: Handover) -> bool {
        let index = self.named(conn);
        self.states.hit(State::HandedOver);
        let from = self.conns[index].shard;
        assert!(usize::from(handover.to) != from, "handed over to itself");
        assert_eq!(handover.addr, self.conns[index].addr);
        self.conns[index].handover = Some(handover);
        // Whatever becomes of its client meanwhile, it comes to its session.
        if let Owner::Agent(agent) = self.conns[index].owner
            && self.links[index].as_ref().is_some_and(|link| link.challenged)
        {
            self.agents[agent].kept = None;
        }
        Carrier::<P>::close(self, conn)
    }

    fn event(&mut self, event: Event, remote: Option<SocketAddr>) {
        if let Some(conn) = event.conn() {
            if self.is_stray(conn) {
                return self.observe(9);
            }
            let conn = &self.conns[self.names[&(self.shard, conn)]];
            assert_eq!(remote, (!conn.gone).then_some(conn.addr), "{event:?}");
        }
        match event {
            Event::Leaving { conn, reason } => {
                let index = self.names[&(self.shard, conn)];
                self.observe(1 ^ conn.to_bits());
                self.leaves(index, reason);
            }
            Event::Published { .. } => self.observe(2),
            Event::NotRelayed { .. } => self.observe(3),
            Event::Proxied { .. } => self.observe(10),
            Event::Gap { from, to, .. } => self.observe(4 ^ (from << 20) ^ (to << 40)),
            Event::Ordered { messages, .. } => self.observe(5 ^ u64::from(messages) << 8),
            Event::ReplicaBegins { number, .. } => self.observe(6 ^ number << 8),
            Event::Replicated { number, messages, .. } => {
                self.observe(7 ^ number << 8 ^ u64::from(messages) << 40);
            }
            Event::Struck { conn, strikes, seconds, identity } if self.plan.strict => {
                self.observe(8 ^ u64::from(seconds) << 8);
                if identity {
                    self.identity_struck(self.names[&(self.shard, conn)], strikes);
                }
            }
            Event::None
            | Event::Paced { .. }
            | Event::LinkDead { .. }
            | Event::LinkLost { .. }
            | Event::Struck { .. } => panic!("{event:?}"),
        }
    }
}
