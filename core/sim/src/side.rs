//! Everything but the relay: the frontend's sockets, the clients behind them, and the model. It
//! is the carrier of the relay's pump.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use wardline_core::{ConnId, Range, Reason, TopicId};

use crate::knocks::Knock;
use crate::peer::{Cut, Flight, Peer};
use crate::places::{Place, Places};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::shared::Shared;
use crate::view::At;

/// What the model knows of a topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicView {
    /// Its name at the relay.
    pub(crate) id: TopicId,
    /// The number of its next message.
    pub(crate) next: u64,
    /// Bytes of all messages that have a number.
    pub(crate) head: u64,
    /// Who wrote the last one, and how many bytes on end.
    pub(crate) run: (usize, u64),
}

/// The frontend, the network, the clients and the model.
#[derive(Debug)]
pub(crate) struct Side<'b> {
    /// Where chance comes from.
    pub(crate) rng: Rng<'b>,
    /// What was decided at the start.
    pub(crate) plan: Plan,
    /// Every connection there was.
    pub(crate) peers: Vec<Peer>,
    /// Those that are not gone.
    pub(crate) live: Vec<usize>,
    /// Those of a proxy that are nobody's yet.
    pub(crate) knocks: Vec<Knock>,
    /// All by their names.
    pub(crate) names: BTreeMap<ConnId, usize>,
    /// Topics.
    pub(crate) topics: Vec<TopicView>,
    /// Messages that the relay said it took.
    pub(crate) published: u64,
    /// Virtual time.
    pub(crate) now_ns: u64,
    /// Steps done.
    pub(crate) step: u64,
    /// The last step after which all events were known.
    pub(crate) settled: u64,
    /// Where it has been.
    pub(crate) places: Places,
    /// Everything observed, in one number.
    pub(crate) hash: u64,
    /// The last step in which blocks were short.
    pub(crate) short: Option<u64>,
    /// What may only have been if blocks were short in this step.
    pub(crate) doubts: Vec<(u64, String)>,
    /// Until when the quarantine said it would refuse an address.
    pub(crate) banned: BTreeMap<IpAddr, u64>,
    /// Offences, by neighbourhood.
    pub(crate) offences: u64,
    /// Whether the relay was told to shut down.
    pub(crate) shutdown: bool,
    /// Which shard this is, and of how many.
    pub(crate) shard: usize,
    pub(crate) shards: usize,
    /// What all shards know.
    pub(crate) shared: Rc<RefCell<Shared>>,
    /// When it was last stuck: it could do nothing before.
    pub(crate) woke_ns: u64,
    /// Messages that readers were due, since the roll call began.
    pub(crate) heard: BTreeMap<usize, u64>,
    /// Faults are over: sockets take what they can, at once.
    pub(crate) calm: bool,
}

impl Side<'_> {
    /// Notes something that was observed.
    pub(crate) fn observe(&mut self, number: u64) {
        let mixed = (self.hash ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.hash = mixed ^ (mixed >> 29);
    }

    fn observe_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.observe(u64::from_le_bytes(word));
        }
    }

    /// The connection of a name that the relay used just now.
    pub(crate) fn named(&self, conn: ConnId) -> usize {
        let found = self.names.get(&conn).copied();
        let found = found.unwrap_or_else(|| panic!("{conn} was never there"));
        assert!(!self.peers[found].gone, "{conn} is gone");
        found
    }

    /// The socket of a connection takes `len` bytes of a send, from `from` on.
    pub(crate) fn accept(&mut self, peer: usize, bytes: &[u8]) {
        self.observe_bytes(bytes);
        let socket = &mut self.peers[peer].socket;
        socket.unseen.extend_from_slice(bytes);
        socket.accepted += bytes.len() as u64;
        socket.unread += bytes.len();
    }

    /// A send ended after `taken` of its bytes: notes what kind of place that is.
    pub(crate) fn ended(&mut self, peer: usize, flight: &Flight, taken: usize, at_once: bool) {
        let whole = taken == flight.bytes.len();
        let prompt = whole && at_once;
        let now_ns = self.now_ns;
        self.observe(taken as u64);
        self.peers[peer].slow = !prompt;
        self.peers[peer].was_slow |= !prompt;
        if !whole {
            self.cut_at(flight, taken);
            let socket = &mut self.peers[peer].socket;
            let cut = Cut { at: socket.accepted, nth: socket.sends };
            socket.cuts.push(cut);
        }
        if taken > 0 {
            let Peer { times, socket, .. } = &mut self.peers[peer];
            times.sent = now_ns;
            socket.ends.push_back((socket.accepted, now_ns));
        }
    }

    fn cut_at(&mut self, flight: &Flight, taken: usize) {
        if taken == 0 {
            self.places.hit(Place::CutAtNothing);
            return;
        }
        let mut left = taken;
        let mut links = 0;
        for range in &flight.ranges {
            let mut from = *range;
            while from.len > 0 {
                let (here, rest) = self.within_link(from);
                links += 1;
                if left < here.len as usize {
                    match links {
                        1 => {}
                        2 => self.places.hit(Place::CutInSecondLink),
                        _ => self.places.hit(Place::CutInThirdLink),
                    }
                    return;
                }
                left -= here.len as usize;
                if left == 0 {
                    let place =
                        if rest.len > 0 { Place::CutAtLinkEnd } else { Place::CutAtRangeEnd };
                    self.places.hit(place);
                    let end = here.at + here.len;
                    if rest.len == 0 && self.is_link_end(end) {
                        self.places.hit(Place::CutAtLinkEnd);
                    }
                    return;
                }
                from = rest;
            }
        }
    }

    fn is_link_end(&self, at: u32) -> bool {
        let limits = &self.plan.limits;
        let base = limits.block_bytes * limits.blocks;
        if at <= base {
            at.is_multiple_of(limits.block_bytes)
        } else {
            (at - base).is_multiple_of(limits.segment_bytes)
        }
    }

    /// The part of a range that is in one link, and the rest.
    fn within_link(&self, range: Range) -> (Range, Range) {
        let limits = &self.plan.limits;
        let base = limits.block_bytes * limits.blocks;
        let (from, size) =
            if range.at < base { (0, limits.block_bytes) } else { (base, limits.segment_bytes) };
        let left = size - (range.at - from) % size;
        let len = range.len.min(left);
        (Range { at: range.at, len }, Range { at: range.at + len, len: range.len - len })
    }

    /// Compares what a socket took with what the model says is due. Only once the relay's events
    /// are all known.
    pub(crate) fn verify(&mut self, peer: usize) {
        let Peer { socket, view, .. } = &mut self.peers[peer];
        let bytes = std::mem::take(&mut socket.unseen);
        let mut rest = &bytes[..];
        let nth = socket.sends;
        for cut in std::mem::take(&mut socket.cuts) {
            let len = (cut.at - socket.seen) as usize;
            view.receives(&rest[..len], cut.nth);
            rest = &rest[len..];
            socket.seen = cut.at;
            self.places.hit(match view.stands_at(cut.nth) {
                At::Boundary => Place::CutAtBoundary,
                At::Message => Place::CutInMessage,
                At::Begun => Place::CutInBegun,
                At::Control => Place::CutInControl,
            });
        }
        socket.seen += rest.len() as u64;
        let before = view.warned;
        view.receives(rest, nth);
        if view.warned > before && view.last_number.is_some() && !view.queue.is_empty() {
            self.places.hit(Place::WarningBetween);
        }
        let socket = &mut self.peers[peer].socket;
        socket.unseen = bytes;
        socket.unseen.clear();
    }

    /// The same for all of them.
    pub(crate) fn verify_all(&mut self) {
        for index in 0..self.live.len() {
            let peer = self.live[index];
            if !self.peers[peer].socket.unseen.is_empty() {
                self.verify(peer);
            }
            let peer = &mut self.peers[peer];
            peer.was_slow = peer.slow || peer.socket.flight.is_some();
        }
        let nth = self.published;
        let peers = &self.peers;
        self.live.retain(|peer| peers[*peer].view.left.is_none_or(|left| nth < left));
    }

    /// A connection in a line, for failures.
    pub(crate) fn brief(&self, index: usize) -> String {
        let Peer { conn, socket, view, times, slow, client, .. } = &self.peers[index];
        let flight = socket.flight.as_ref().map(|flight| (flight.bytes.len(), flight.taken));
        format!(
            "{conn} at {} topic {} {:?} {:?} {:?} slow {slow} short {:?} {times:?} since {:?} \
             leaving {:?} queue {} input {} farewell {} text {:?} flight {flight:?} \
             unread {}/{} full {} wire {} fin {}/{} reset {} paused {} finished {} closing {}",
            self.now_ns,
            view.topic,
            (self.plan.habits.blind, self.plan.habits.wait_all, self.plan.habits.by_hand),
            client.kind,
            client.reading,
            self.short,
            (view.unfinished_ns, view.verdict_ns, view.queued_ns),
            view.leaving,
            view.queue.len(),
            view.waiting_bytes(),
            view.farewell,
            view.text_begun(),
            socket.unread,
            socket.bytes_max,
            socket.full,
            socket.waiting().len(),
            socket.fin,
            socket.fin_told,
            socket.reset,
            socket.paused,
            socket.finished,
            socket.closing,
        )
    }

    /// Something that may only be if memory was short, since that step.
    pub(crate) fn doubt(&mut self, since: u64, what: String) {
        self.doubts.push((since, what));
    }

    /// Whether a connection that is ending was owed nothing any more.
    pub(crate) fn assert_paid(&mut self, index: usize) {
        let view = &self.peers[index].view;
        let Some(leaving) = view.leaving else { panic!("it ends and has not left") };
        if view.excused {
            return;
        }
        if !view.is_whole() {
            // Only if no block was free for the rest of the line; that is told later.
            self.doubt(leaving.step, format!("it ends inside a line: {}", self.brief(index)));
            return;
        }
        let owed = leaving.owed.unwrap_or(0);
        let missing = view.queue.front().filter(|entry| entry.number < owed);
        if missing.is_some() {
            let said = format!("it ends, not paid: {}", self.brief(index));
            // A gap that could not be told, for want of a block, ends it at once.
            assert!(!view.gaps.is_empty(), "{said}");
            self.doubt(leaving.step, said);
            return;
        }
        let silent = matches!(leaving.reason, Reason::Peer);
        if !(silent || view.farewell) {
            self.doubt(leaving.step, format!("no last words: {}", self.brief(index)));
        }
    }
}

impl Side<'_> {
    /// A connection is closed: nothing of it is left at the frontend.
    pub(crate) fn forget(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        peer.gone = true;
        peer.socket.unseen.clear();
        peer.socket.cuts.clear();
    }
}

/// Who is counted together: an IPv4 address, or the first half of an IPv6 one.
#[must_use]
pub(crate) fn prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}
