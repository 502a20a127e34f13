//! Links between the shards of a process: the rings, who wakes whom, and connections that are
//! handed on. The relay decides what goes into a ring ([`Relay::link_take`]) and what becomes of
//! it ([`Relay::handle_link`]); this carries it.
//!
//! What an engine does, in its loop:
//!
//! 1. at the beginning of a turn, [`Links::take_in`], and it admits each [`Links::arrival`];
//! 2. after the pump, [`Links::give_out`];
//! 3. before it waits, [`Links::may_sleep`]: if not, another turn comes at once. While it waits,
//!    the others wake it by what it gave [`Links::listen`] at its start.
//!
//! And it ends once it has drained and [`Links::all_drained`] says that the others have, too.

mod gate;

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use rtrb::{Consumer, Producer, RingBuffer};
use wardline_core::{Handover, Instant, Limits, Pool, Refusal, Relay, Ring, TopicId};

use gate::Gate;

/// The two rings, by the order in which they are looked at: what must be drained comes first.
const RINGS: [Ring; 2] = [Ring::Log, Ring::Publish];
/// Bytes of a ring at least: some turns of a busy topic.
const RING_BYTES: usize = 256 << 10;
/// Records of the longest kind that fit a ring at least.
const RING_RECORDS: usize = 4;
/// What one ring may bring in a turn, so that none keeps the others waiting.
const TURN_BYTES: usize = 512 << 10;
/// Connections that a shard must have beyond the least loaded one before it hands a newcomer on,
/// beside a quarter of them: a handful is no load.
const HAND_ON_MIN: u32 = 8;

/// Connections that may wait for a shard, and that may wait in one to leave it.
pub const ARRIVALS: usize = 512;
/// Those that are taken in a turn: as many as from a listener.
const ARRIVALS_PER_TURN: usize = 64;
/// Bytes of all of them, at a shard: those that wait for it, and those that leave it.
pub const ARRIVALS_BYTES: usize = 2 * ARRIVALS * (size_of::<Arrival>() + size_of::<Handover>());

/// A connection that another shard accepted.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket, nonblocking.
    pub stream: TcpStream,
    /// Its peer.
    pub addr: SocketAddr,
    /// The topic of the listener that took it; topics have the same numbers on every shard.
    pub topic: TopicId,
    /// What is known of it already, where it comes to the shard of its client.
    pub handover: Option<Box<Handover>>,
}

/// What every shard sees of every other one.
#[derive(Debug)]
struct Common {
    gates: Vec<Gate>,
    /// Connections of each.
    loads: Vec<AtomicU32>,
    arrivals: Vec<Mutex<VecDeque<Arrival>>>,
    /// How many there are for it; spares a lock each turn.
    arrived: Vec<AtomicUsize>,
    /// How many have drained.
    drained: AtomicU32,
}

/// A ring to another shard.
#[derive(Debug)]
struct Outward {
    ring: Producer<u8>,
    /// Its writer waits for room.
    short: Arc<AtomicBool>,
    /// The room that there is and does not do; `usize::MAX` where nothing waits.
    room: usize,
}

/// A ring from another shard.
#[derive(Debug)]
struct Inward {
    ring: Consumer<u8>,
    short: Arc<AtomicBool>,
    /// What was left in it by the last turn: it waits for something of this shard's.
    left: usize,
}

/// One other shard.
#[derive(Debug)]
struct Other {
    shard: u8,
    to: [Outward; 2],
    from: [Inward; 2],
}

/// The links of one shard. Of the only shard of a process they are nothing, and cost nothing.
#[derive(Debug)]
pub struct Links {
    shard: u8,
    others: Vec<Other>,
    common: Option<Arc<Common>>,
    scratch: Box<[u8]>,
    /// Of each listener, whether what it takes may be handed on; beyond, none.
    doors_shared: Box<[bool]>,
    /// Those that arrived in this turn.
    arrived: usize,
    /// Those that were lost on their way, and of whom the relay was not told.
    lost: usize,
    /// A turn is to come at once.
    again: bool,
    drained: bool,
}

/// Bytes of one ring.
#[must_use]
pub fn ring_bytes(limits: &Limits) -> usize {
    RING_BYTES.max(limits.record_bytes_max().saturating_mul(RING_RECORDS))
}

/// Links for `shards` shards, each with each other. `limits` are those of each.
#[must_use]
pub fn connect(shards: u8, limits: &Limits) -> Vec<Links> {
    if shards < 2 {
        return vec![Links::alone()];
    }
    let each = || 0..shards;
    let common = Arc::new(Common {
        gates: each().map(|_| Gate::new()).collect(),
        loads: each().map(|_| AtomicU32::new(0)).collect(),
        arrivals: each().map(|_| Mutex::new(VecDeque::with_capacity(ARRIVALS))).collect(),
        arrived: each().map(|_| AtomicUsize::new(0)).collect(),
        drained: AtomicU32::new(0),
    });
    let scratch = limits.record_bytes_max().max(64 << 10);
    let mut all: Vec<Links> = each()
        .map(|shard| Links {
            shard,
            others: Vec::new(),
            common: Some(Arc::clone(&common)),
            scratch: vec![0; scratch].into(),
            doors_shared: Box::default(),
            arrived: 0,
            lost: 0,
            again: false,
            drained: false,
        })
        .collect();
    let bytes = ring_bytes(limits);
    for one in each() {
        for two in each().skip(usize::from(one) + 1) {
            let (one_to, two_from) = (pair(bytes), pair(bytes));
            let ([a, b], [c, d]) = (one_to, two_from);
            let (to_two, from_one) = ([a.0, b.0], [a.1, b.1]);
            let (to_one, from_two) = ([c.0, d.0], [c.1, d.1]);
            all[usize::from(one)].others.push(Other { shard: two, to: to_two, from: from_two });
            all[usize::from(two)].others.push(Other { shard: one, to: to_one, from: from_one });
        }
    }
    all
}

/// Both rings in one direction.
fn pair(bytes: usize) -> [(Outward, Inward); 2] {
    RINGS.map(|_| {
        let (to, from) = RingBuffer::new(bytes);
        let short = Arc::new(AtomicBool::new(false));
        let outward = Outward { ring: to, short: Arc::clone(&short), room: usize::MAX };
        (outward, Inward { ring: from, short, left: 0 })
    })
}

impl Links {
    /// Those of the only shard of a process.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            shard: 0,
            others: Vec::new(),
            common: None,
            scratch: Box::default(),
            doors_shared: Box::default(),
            arrived: 0,
            lost: 0,
            again: false,
            drained: false,
        }
    }

    /// Of each of the shard's listeners, whether it shares it with others, or takes connections for
    /// them at it: what those take may be handed on. Nothing else is, of those that are not named
    /// neither.
    pub fn share_doors(&mut self, doors: impl IntoIterator<Item = bool>) {
        self.doors_shared = doors.into_iter().collect();
    }

    /// Which shard this is.
    #[must_use]
    pub fn shard(&self) -> u8 {
        self.shard
    }

    /// Has the shard woken by `waker` when others have something for it.
    pub fn listen(&self, waker: Waker) {
        if let Some(common) = &self.common {
            common.gates[usize::from(self.shard)].listen(waker);
        }
    }

    /// Brings the relay what the others have put into their rings. At the beginning of a turn.
    pub fn take_in<P: Pool>(&mut self, relay: &mut Relay<'_, P>, now: Instant) {
        let Some(common) = &self.common else { return };
        common.gates[usize::from(self.shard)].awake();
        self.again = false;
        self.arrived = 0;
        // None of them is always first: it would have the turn's room for itself.
        self.others.rotate_left(1);
        for (nth, ring) in RINGS.into_iter().enumerate() {
            for other in &mut self.others {
                let inward = &mut other.from[nth];
                let (taken, again) = inward.take(&mut self.scratch, |bytes| {
                    let taken = relay.handle_link(now, other.shard, ring, bytes);
                    (taken.bytes, taken.again)
                });
                self.again |= again;
                if taken {
                    fence(Ordering::SeqCst);
                    let short = &inward.short;
                    if short.load(Ordering::Relaxed) && short.swap(false, Ordering::Relaxed) {
                        common.gates[usize::from(other.shard)].wake();
                    }
                }
            }
        }
    }

    /// Puts what the relay has for the other shards into their rings. After the pump.
    ///
    /// # Panics
    /// Where a shard has given no sign of life for ten seconds while something waits for it: its
    /// connections hang, and so do the topics that it orders. Whoever supervises the process starts
    /// it anew.
    pub fn give_out<P: Pool>(&mut self, relay: &mut Relay<'_, P>, now: Instant) {
        let Some(common) = &self.common else { return };
        common.loads[usize::from(self.shard)].store(relay.connections(), Ordering::Relaxed);
        for _ in 0..std::mem::take(&mut self.lost) {
            relay.handle_lost_on_the_way();
        }
        for other in &mut self.others {
            let mut given = false;
            for (outward, ring) in other.to.iter_mut().zip(RINGS) {
                given |= outward.give(relay, now, other.shard, ring, &mut self.scratch);
            }
            if given {
                common.gates[usize::from(other.shard)].wake();
            }
        }
        self.again |= relay.link_again();
        assert!(
            relay.stats().links_dead.value() == 0,
            "a shard has given no sign of life for ten seconds while others wait for it"
        );
    }

    /// Whether the shard may wait for its sockets; else another turn is to come at once. From here
    /// on until the next [`Links::take_in`] the others wake it.
    #[must_use]
    pub fn may_sleep(&mut self) -> bool {
        let Some(common) = &self.common else { return true };
        if self.again {
            return false;
        }
        for outward in self.others.iter().flat_map(|other| &other.to) {
            if outward.room != usize::MAX {
                outward.short.store(true, Ordering::Relaxed);
            }
        }
        let me = usize::from(self.shard);
        let others = &self.others;
        common.gates[me].try_sleep(|| {
            let all = self.drained
                && common.drained.load(Ordering::SeqCst) as usize >= common.gates.len();
            all || common.arrived[me].load(Ordering::Relaxed) > 0
                || others.iter().any(|other| {
                    other.from.iter().any(|inward| inward.ring.slots() > inward.left)
                        || other.to.iter().any(|outward| outward.ring.slots() > outward.room)
                })
        })
    }

    /// Whether what another shard has said waits for something of this shard's.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.others.iter().flat_map(|other| &other.from).any(|inward| inward.left > 0)
    }

    /// The next connection that another shard accepted and handed on, of those that are taken in
    /// this turn: who came first is first.
    #[must_use]
    pub fn arrival(&mut self) -> Option<Arrival> {
        let common = self.common.as_ref()?;
        let me = usize::from(self.shard);
        if self.arrived >= ARRIVALS_PER_TURN || common.arrived[me].load(Ordering::Acquire) == 0 {
            return None;
        }
        self.arrived += 1;
        let mut waiting = common.arrivals[me].lock().unwrap_or_else(PoisonError::into_inner);
        let arrival = waiting.pop_front();
        common.arrived[me].store(waiting.len(), Ordering::Release);
        arrival
    }

    /// The shard that a connection is to be handed on to which the listener number `door` has just
    /// accepted, if this one has a quarter more of them than another, and that one has come to
    /// those who wait for it. `mine`: connections here.
    #[must_use]
    pub fn hand_on_to(&self, door: usize, mine: u32) -> Option<u8> {
        let common = self.common.as_ref()?;
        if !self.doors_shared.get(door).copied().unwrap_or(false) {
            return None;
        }
        let load = |shard: u8| common.loads[usize::from(shard)].load(Ordering::Relaxed);
        let least = self.others.iter().map(|other| other.shard).min_by_key(|shard| load(*shard))?;
        let most = load(least).saturating_add(load(least) / 4).saturating_add(HAND_ON_MIN);
        let waits = common.arrived[usize::from(least)].load(Ordering::Relaxed);
        (mine > most && waits < ARRIVALS / 2).then_some(least)
    }

    /// Hands connections over that go to the shards of their clients, each with its socket.
    pub fn hand_over(
        &mut self,
        topic: Option<TopicId>,
        gone: impl IntoIterator<Item = (TcpStream, Box<Handover>)>,
    ) {
        for (stream, handover) in gone {
            let (to, addr) = (handover.to, handover.addr);
            tracing::debug!(%addr, "handed over to shard-{to}");
            if let Some(topic) = topic {
                self.hand_on(to, Arrival { stream, addr, topic, handover: Some(handover) });
            }
        }
    }

    /// Connections were lost before they were handed over.
    pub fn lose(&mut self, connections: usize) {
        if connections > 0 {
            self.lost += connections;
            tracing::debug!(connections, code = "overloaded", "closed, and not handed over");
        }
    }

    /// Hands a connection on. One too many for those who wait is told so, and closed.
    pub fn hand_on(&mut self, to: u8, arrival: Arrival) {
        let Some(common) = &self.common else { return };
        let to = usize::from(to);
        let mut waiting = common.arrivals[to].lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= ARRIVALS {
            drop(waiting);
            self.lost += 1;
            return turn_off(&arrival, to);
        }
        // Until it says so itself: else all that come now would go to the same one.
        common.loads[to].fetch_add(1, Ordering::Relaxed);
        waiting.push_back(arrival);
        common.arrived[to].store(waiting.len(), Ordering::Release);
        drop(waiting);
        common.gates[to].wake();
    }

    /// This shard has drained: whether all have. It goes on with its turns until then, since others
    /// may have something for it; the last one wakes them.
    #[must_use]
    pub fn all_drained(&mut self) -> bool {
        let Some(common) = &self.common else { return true };
        // Who arrived is told, too.
        if common.arrived[usize::from(self.shard)].load(Ordering::Acquire) > 0 {
            return false;
        }
        let shards = u32::try_from(common.gates.len()).unwrap_or(u32::MAX);
        if !std::mem::replace(&mut self.drained, true)
            && common.drained.fetch_add(1, Ordering::SeqCst) + 1 == shards
        {
            common.gates.iter().for_each(Gate::wake);
        }
        common.drained.load(Ordering::SeqCst) >= shards
    }
}

/// Tells a connection that there is no place for it, as far as its socket takes that.
fn turn_off(arrival: &Arrival, to: usize) {
    let Arrival { stream, addr, topic, .. } = arrival;
    let refusal = Refusal::Overloaded;
    let _ = stream.set_nonblocking(true);
    let _ = if topic.is_native() {
        (&mut &*stream).write(refusal.alert().as_bytes())
    } else {
        (&mut &*stream).write(refusal.warning().as_bytes())
    };
    tracing::debug!(%addr, code = refusal.code(), "refused: too many wait for shard-{to}");
}

impl Inward {
    /// Brings what is in the ring to `handle`, which gives how many bytes it took and whether it
    /// wants another turn. Gives whether any were taken, and whether another turn is wanted.
    fn take(
        &mut self,
        scratch: &mut [u8],
        mut handle: impl FnMut(&[u8]) -> (usize, bool),
    ) -> (bool, bool) {
        let mut all = 0;
        let mut wanted = false;
        loop {
            let there = self.ring.slots();
            self.left = there;
            if there == 0 || wanted {
                break;
            }
            if all >= TURN_BYTES {
                wanted = true;
                break;
            }
            let len = there.min(scratch.len());
            let Ok(chunk) = self.ring.read_chunk(len) else { break };
            let (front, back) = chunk.as_slices();
            scratch[..front.len()].copy_from_slice(front);
            scratch[front.len()..len].copy_from_slice(back);
            let (bytes, again) = handle(&scratch[..len]);
            chunk.commit(bytes);
            all += bytes;
            wanted = again;
            if bytes == 0 {
                break;
            }
        }
        self.left = self.ring.slots().min(self.left);
        (all > 0, wanted)
    }
}

impl Outward {
    /// Puts what a relay has for the ring into it. Gives whether there was anything.
    fn give<P: Pool>(
        &mut self,
        relay: &mut Relay<'_, P>,
        now: Instant,
        to: u8,
        ring: Ring,
        scratch: &mut [u8],
    ) -> bool {
        self.room = usize::MAX;
        let mut given = false;
        while relay.link_has(to, ring) {
            let room = self.ring.slots();
            let len = room.min(scratch.len());
            let len = relay.link_take(now, to, ring, &mut scratch[..len]);
            if len == 0 {
                // What is next does not fit: its reader says when there is more room.
                self.room = room;
                break;
            }
            let fits = self.ring.push_entire_slice(&scratch[..len]);
            assert!(fits.is_ok(), "room that was there is gone");
            given = true;
        }
        given
    }
}

#[cfg(all(test, not(wardline_loom)))]
mod tests;
