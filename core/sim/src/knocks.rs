//! Who comes through a proxy, until that has said whose the connection is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wardline_core::{
    ConnId, Duration, Network, PeerFault, Reason, Refusal, Remote, Stats, Verdict, proxy,
};

use crate::places::Place;
use crate::rng::Rng;
use crate::side::{Side, prefix};
use crate::world::World;

/// Where the proxy is.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
/// Who is trusted to be one.
pub(crate) static PROXIES: [Network; 1] = [Network { ip: PROXY, bits: 32 }];

/// What the proxy is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    /// Its header comes, all of it.
    Whole,
    /// What comes is none.
    Wrong,
    /// It breaks off in the middle, or says nothing.
    Never,
}

/// A connection of the proxy that is nobody's yet, or whose client was not taken.
#[derive(Clone, Debug)]
pub(crate) struct Knock {
    pub(crate) conn: ConnId,
    /// Where the proxy is.
    own: SocketAddr,
    /// Whose it is: the proxy's own, or a client's.
    addr: SocketAddr,
    topic: usize,
    header: Vec<u8>,
    done: usize,
    /// Blocks of memory in which the relay keeps that.
    blocks: u32,
    /// Since when.
    kept_ns: u64,
    intent: Intent,
    came_ns: u64,
    /// The frontend has told the relay of its end.
    ended: bool,
    /// Its client was not taken.
    pub(crate) refused: Option<Refusal>,
    /// When, and what it is to be told of that.
    refused_ns: u64,
    words: &'static str,
    /// What it was told.
    told: Vec<u8>,
    /// The relay said that it leaves.
    left: bool,
    /// The relay has finished writing.
    pub(crate) finished: bool,
    /// Nothing of it is left at the frontend.
    pub(crate) gone: bool,
}

impl Knock {
    const fn waits(&self) -> bool {
        self.refused.is_none() && !self.left && !self.ended
    }

    /// Where the relay takes it to be.
    pub(crate) const fn at(&self) -> SocketAddr {
        if self.refused.is_some() { self.addr } else { self.own }
    }

    /// It is sent something: only who is refused is, and that alone.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        self.told.extend(bytes);
        let said = String::from_utf8_lossy(&self.told);
        assert!(self.words.starts_with(said.as_ref()), "told {said:?}: {self:?}");
    }

    /// The relay has finished writing, or closes it: whether all was said by then.
    pub(crate) fn ends(&self, closed: bool, (now_ns, linger): (u64, Duration)) {
        let late = closed && now_ns - self.refused_ns >= linger.as_nanos();
        let whole = self.told == self.words.as_bytes();
        assert!(whole || late || self.ended, "not told all: {self:?}");
    }
}

/// What a client of lines is told that is refused.
fn words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Quarantined(_) => {
            "Warning: Your address is refused for a while. Please come back later.\n"
        }
        Refusal::TooManyFromAddress => "Warning: Your address has too many connections.\n",
        Refusal::Overloaded => "Warning: The relay is overloaded. Please come back later.\n",
        Refusal::ShuttingDown => "Warning: Server is shutting down.\n",
        Refusal::TooManyConnections | Refusal::NoListener => panic!("{refusal:?}, and has a place"),
    }
}

impl World<'_, '_> {
    /// A proxy connects.
    pub(crate) fn knock(&mut self) {
        let side = &mut self.side;
        self.port = self.port.wrapping_add(1).max(1_024);
        let client = (!side.rng.one_in(8)).then(|| {
            let ip = side.rng.pick(&side.plan.addresses);
            SocketAddr::new(ip, self.port)
        });
        let intent = [Intent::Whole, Intent::Wrong, Intent::Never][side.rng.weighted(&[6, 1, 1])];
        let mut header = header(&mut side.rng, client);
        if intent == Intent::Wrong {
            let at = side.rng.below(12) as usize;
            header[at] ^= 1 << side.rng.below(8);
        }
        let topic = side.rng.below(side.topics.len() as u64) as usize;
        let own = SocketAddr::new(PROXY, self.port);
        let remote = Remote { addr: own, topic: side.topics[topic].id };
        let result = self.relay.handle_accept(self.now(), remote);
        self.settled = false;
        let side = &mut self.side;
        match result {
            Ok(conn) => side.knocks.push(Knock {
                conn,
                own,
                addr: client.unwrap_or(own),
                topic,
                header,
                done: 0,
                blocks: 0,
                kept_ns: 0,
                intent,
                came_ns: side.now_ns,
                ended: false,
                refused: None,
                refused_ns: 0,
                words: "",
                told: Vec::new(),
                left: false,
                finished: false,
                gone: false,
            }),
            Err(Refusal::TooManyConnections) => {
                let waiting = side.knocks.iter().filter(|knock| !knock.left).count() as u32;
                let limits = &side.plan.limits;
                let full = self.relay.connections() >= limits.connections;
                // There is one proxy.
                let most = limits.proxy.waiting.min(limits.proxy.waiting_each);
                assert!(full || waiting >= most, "a proxy was refused");
            }
            Err(refusal @ (Refusal::Quarantined(_) | Refusal::TooManyFromAddress)) => {
                panic!("a proxy was charged for its clients: {refusal:?}");
            }
            Err(refusal) => self.refused(refusal, own),
        }
    }

    /// One of the proxy's connections goes on, if there is any.
    pub(crate) fn advance_any(&mut self) {
        let count = self.side.knocks.len() as u64;
        if count > 0 {
            let at = self.side.rng.below(count) as usize;
            self.advance(at);
        }
    }

    /// All of them go on, as far as they do; gives whether any did.
    pub(crate) fn advance_all(&mut self) -> bool {
        let mut any = false;
        for at in (0..self.side.knocks.len()).rev() {
            any |= self.advance(at);
        }
        any
    }

    fn advance(&mut self, at: usize) -> bool {
        let now = self.now();
        let side = &mut self.side;
        let knock = &mut side.knocks[at];
        let conn = knock.conn;
        if knock.gone || knock.ended {
            return false;
        }
        if !knock.waits() {
            knock.ended = knock.finished;
            if knock.ended {
                self.relay.handle_eof(now, conn);
                self.settled = false;
            }
            return knock.ended;
        }
        if self.relay.read_budget(conn) == 0 {
            // Its end is still to be told.
            let late = side.now_ns - knock.came_ns >= side.plan.limits.proxy.header.as_nanos();
            assert!(late || !self.settled, "a proxy that is not read: {knock:?}");
            return false;
        }
        let habit = side.plan.habits.receive_bytes.min(side.plan.limits.receive_bytes as usize);
        let piece = if side.calm { usize::MAX } else { 1 + side.rng.up_to(habit) };
        let left = knock.header.len() - knock.done;
        let stays = knock.intent == Intent::Never;
        if stays && (left < 2 || side.rng.one_in(3)) {
            return self.break_off(at);
        }
        let len = piece.min(left - usize::from(stays));
        let bytes = knock.header[knock.done..knock.done + len].to_vec();
        knock.done += len;
        if knock.done < knock.header.len() {
            side.places.hit(Place::HeaderInPieces);
            knock.blocks = knock.done.div_ceil(side.plan.limits.block_bytes as usize) as u32;
            if knock.done == len {
                knock.kept_ns = side.now_ns;
            }
            let settled = std::mem::replace(&mut self.settled, false);
            let before = self.relay.stats().overloaded.value();
            self.relay.handle_input(now, conn, &bytes);
            let ended = self.relay.stats().overloaded.value() - before;
            if ended > 0 && settled && self.relay.read_budget(conn) == 0 {
                self.assert_worst(at, ended as usize - 1);
            }
        } else if knock.intent == Intent::Wrong {
            self.relay.handle_input(now, conn, &bytes);
            self.settled = false;
        } else {
            let room = piece.saturating_sub(len).min(side.plan.limits.receive_bytes as usize);
            self.name(at, bytes, room);
        }
        true
    }

    /// There was no room for the beginning of a header: nobody was to give way for it, but for so
    /// many who just did, which was not enough.
    fn assert_worst(&mut self, at: usize, gave_way: usize) {
        let side = &mut self.side;
        side.places.hit(Place::HeaderNoRoom);
        let weight = |len: usize, since_ns: u64| {
            let ms = (side.now_ns - since_ns) / 1_000_000;
            len as u64 * (ms.min(100) + 1)
        };
        let mine = &side.knocks[at];
        // Who brings something is favoured; who has said nothing whole yet is not.
        let mine = weight(mine.done, mine.kept_ns) * 64 / 8;
        let holds = |peer: &&usize| {
            let peer = &side.peers[**peer];
            let view = &peer.view;
            let since = view.unfinished_ns.max(view.verdict_ns).max(peer.times.resumed);
            let open = view.leaving.is_none() && !peer.gone && !peer.socket.paused;
            open && view.is_heard() && weight(view.waiting_bytes(), since) > mine
        };
        let worse = side.live.iter().filter(holds).count();
        assert!(worse <= gave_way, "a header found no room, and {worse} kept theirs: {mine}");
    }

    /// The last bytes of a header, and up to `room` of what follows it.
    fn name(&mut self, at: usize, mut bytes: Vec<u8>, room: usize) {
        let now = self.now();
        let Knock { conn, addr, topic, .. } = self.side.knocks[at].clone();
        let mut client = self.newcomer(topic);
        let mut wire = Vec::new();
        if !self.side.calm {
            client.write(&mut self.side.rng, &self.side.plan.limits, &mut wire);
        }
        let follows = wire.drain(..room.min(wire.len())).collect::<Vec<u8>>();
        bytes.extend(&follows);
        let joined = self.taken();
        let before = *self.relay.stats();
        if addr.ip() != PROXY {
            *self.connects.entry(prefix(addr.ip())).or_default() += 1;
        }
        let others = self.side.conns_of(addr.ip());
        let expected = self.expected(at, others);
        self.relay.handle_input(now, conn, &bytes);
        self.settled = false;
        self.fed += follows.len();
        let known = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        assert_eq!(self.relay.remote(conn), Some(known), "the address that its proxy said");
        let exempt = self.side.plan.exempt || addr.ip() == PROXY;
        let struck = !exempt && matches!(self.relay.verdict(now, addr.ip()), Verdict::Refused(_));
        let refusal = self.refusal_since(&before);
        match (refusal, expected) {
            // Its connect was one too many.
            (
                Some(Refusal::Quarantined(_)),
                Some(Refusal::Overloaded | Refusal::TooManyFromAddress) | None,
            ) => assert!(struck, "it is not in quarantine"),
            // What follows may have been an offence.
            (None, None) => assert!(!struck || !follows.is_empty(), "let in, in quarantine"),
            _ => assert_eq!(refusal, expected, "{addr}"),
        }
        if let Some(refusal) = refusal {
            self.turned_off(at, refusal, others);
            if self.relay.stats().warnings_dropped != before.warnings_dropped {
                self.side.knocks[at].words = "";
                self.side.doubt(self.side.step, format!("no last words for {addr}"));
            }
            return self.refused(refusal, addr);
        }
        self.side.places.hit(Place::Proxied);
        self.side.knocks.remove(at);
        let peer = self.welcome(conn, addr, topic, joined, client);
        let peer = &mut self.side.peers[peer];
        peer.socket.wire = wire;
        if !follows.is_empty() {
            peer.view.hears(&follows, now.as_nanos());
        }
    }

    /// How a newcomer that has a place is refused, unless it is struck for coming just now.
    /// `others`: connections of its address.
    fn expected(&self, at: usize, others: usize) -> Option<Refusal> {
        let addr = self.side.knocks[at].addr;
        let limits = &self.side.plan.limits;
        let verdict = self.relay.verdict(self.now(), addr.ip());
        let exempt = self.side.plan.exempt || addr.ip() == PROXY;
        let (blocks, segments) = self.relay.memory_used();
        let full = |used: u32, all: u32| all > 0 && used * 100 / all >= 70;
        // What it kept of its header is given back before.
        let kept = self.side.knocks[at].blocks;
        if self.side.shutdown {
            Some(Refusal::ShuttingDown)
        } else if !exempt && matches!(verdict, Verdict::Refused(_)) {
            Some(Refusal::Quarantined(Duration::ZERO))
        } else if full(blocks - kept, limits.blocks) || full(segments, limits.segments) {
            Some(Refusal::Overloaded)
        } else {
            let most = limits.quarantine.connections_per_prefix;
            let crowded = self.relay.connections() >= limits.connections / 10 * 7;
            let full = !exempt && crowded && others as u32 >= most;
            full.then_some(Refusal::TooManyFromAddress)
        }
    }

    /// A newcomer was not taken: what it is told of that.
    fn turned_off(&mut self, at: usize, refusal: Refusal, others: usize) {
        self.side.places.hit(Place::ProxiedRefused);
        let side = &mut self.side;
        let limits = &side.plan.limits;
        let most = limits.quarantine.connections_per_prefix + limits.native.half_open_per_prefix;
        let knock = &mut side.knocks[at];
        knock.refused = Some(refusal);
        knock.refused_ns = side.now_ns;
        knock.words = if others as u32 >= most { "" } else { words(refusal) };
    }

    /// How a newcomer was refused; how long it is, is told later.
    fn refusal_since(&self, before: &Stats) -> Option<Refusal> {
        let stats = self.relay.stats();
        if stats.refused_quarantined != before.refused_quarantined {
            Some(Refusal::Quarantined(Duration::ZERO))
        } else if stats.refused_per_address != before.refused_per_address {
            Some(Refusal::TooManyFromAddress)
        } else if stats.refused_other == before.refused_other {
            assert_eq!(stats.refused_full, before.refused_full, "it had a place");
            None
        } else if self.side.shutdown {
            Some(Refusal::ShuttingDown)
        } else {
            Some(Refusal::Overloaded)
        }
    }

    /// A proxy breaks off in the middle of its header.
    fn break_off(&mut self, at: usize) -> bool {
        let now = self.now();
        let side = &mut self.side;
        if side.calm || !side.rng.one_in(4) {
            // It just stays there.
            return false;
        }
        let knock = &mut side.knocks[at];
        knock.ended = true;
        match side.rng.below(3) {
            0 => self.relay.handle_eof(now, knock.conn),
            1 => self.relay.handle_broken(now, knock.conn),
            _ => {
                knock.gone = true;
                self.relay.handle_closed(now, knock.conn);
            }
        }
        self.settled = false;
        true
    }

    /// Forgets who is gone, once all events are known.
    pub(crate) fn forget_knocks(&mut self) {
        let (old, knocks) = (&mut self.old, &mut self.side.knocks);
        old.extend(knocks.iter().filter(|knock| knock.gone && knock.left).map(|knock| knock.conn));
        knocks.retain(|knock| !(knock.gone && knock.left));
    }
}

impl Side<'_> {
    /// The connection of that name, if it is nobody's yet.
    pub(crate) fn knock_of(&mut self, conn: ConnId) -> Option<&mut Knock> {
        self.knocks.iter_mut().find(|knock| knock.conn == conn)
    }

    /// Where a connection is that is not gone, as the relay is to tell.
    pub(crate) fn place_of(&mut self, conn: ConnId) -> Option<SocketAddr> {
        let (addr, gone) = match self.knock_of(conn) {
            Some(knock) => (knock.at(), knock.gone),
            None => {
                let peer = &self.peers[self.names[&conn]];
                (peer.view.addr, peer.gone)
            }
        };
        (!gone).then_some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }

    /// How many connections an address has, those that are ending and those that were not taken,
    /// too.
    pub(crate) fn conns_of(&self, ip: IpAddr) -> usize {
        let there = |peer: &&usize| {
            let peer = &self.peers[**peer];
            !peer.gone && prefix(peer.view.addr.ip()) == prefix(ip)
        };
        let refused = |knock: &&Knock| {
            knock.refused.is_some() && !knock.gone && prefix(knock.addr.ip()) == prefix(ip)
        };
        let there = self.live.iter().filter(there).count();
        there + self.knocks.iter().filter(refused).count()
    }

    /// Such a connection leaves: whether there is a reason. Gives whether it was one.
    pub(crate) fn knock_leaves(&mut self, conn: ConnId, reason: Reason) -> bool {
        let (now_ns, step, shutdown) = (self.now_ns, self.step, self.shutdown);
        let span = self.plan.limits.proxy.header.as_nanos();
        let Some(knock) = self.knock_of(conn) else { return false };
        assert!(!std::mem::replace(&mut knock.left, true), "it left twice");
        let said = format!("{reason:?} at {now_ns}: {knock:?}");
        let mut doubtful = false;
        let due = match reason {
            Reason::Peer => knock.ended,
            Reason::Shutdown => shutdown,
            Reason::Refused(refusal) => {
                knock.refused.is_some_and(|known| known.code() == refusal.code())
            }
            Reason::Fault(PeerFault::NoProxyHeader) => {
                let late = now_ns - knock.came_ns >= span;
                late || knock.intent == Intent::Wrong || (knock.ended && knock.done > 0)
            }
            Reason::Fault(PeerFault::Overloaded) => {
                doubtful = true;
                true
            }
            Reason::Fault(_) => false,
        };
        assert!(due, "{said}");
        if reason == Reason::Fault(PeerFault::NoProxyHeader) {
            self.places.hit(Place::NoProxyHeader);
        }
        if doubtful {
            self.doubt(step, said);
        }
        true
    }
}

/// A header of one of the kinds that there are.
fn header(rng: &mut Rng<'_>, client: Option<SocketAddr>) -> Vec<u8> {
    let mut bytes = proxy::SIGNATURE.to_vec();
    let mut rest = Vec::new();
    match client {
        Some(SocketAddr::V4(addr)) => {
            bytes.extend([0x21, 0x11]);
            rest.extend(addr.ip().octets());
            rest.extend([198, 51, 100, 1]);
        }
        Some(SocketAddr::V6(addr)) => {
            bytes.extend([0x21, 0x21]);
            rest.extend(addr.ip().octets());
            rest.extend([0xFE; 16]);
        }
        None => bytes.extend(rng.pick(&[[0x20, 0x00], [0x20, 0x11], [0x21, 0x00], [0x21, 0x31]])),
    }
    if let Some(addr) = client {
        rest.extend(addr.port().to_be_bytes());
        rest.extend(8_888_u16.to_be_bytes());
    }
    let most = proxy::HEADER_BYTES_MAX - 16 - rest.len();
    let more = rng.pick(&[0, 0, 0, 7, 60, most]);
    rest.resize(rest.len() + more, b'\n');
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}
