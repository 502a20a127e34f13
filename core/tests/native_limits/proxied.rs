//! Who comes through a proxy, and what proxies may say, at doors of both dialects.

use std::net::{Ipv4Addr, Ipv6Addr};

use wardline_core::proxy::{HEADER_BYTES_MAX, SIGNATURE};
use wardline_core::{ProxyLimits, QuarantineLimits};

use super::*;

/// How clients come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Directly,
    /// Through a proxy that says who they are.
    Proxied,
}

const PROXY: [u8; 4] = [203, 0, 113, 9];

impl World {
    pub(super) fn by(mut self, way: Way) -> Self {
        static PROXIES: [Network; 1] =
            [Network { ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), bits: 32 }];
        self.relay.trust_proxies(&PROXIES);
        self.way = way;
        self
    }

    pub(super) fn try_connect(&mut self, ip: [u8; 4]) -> Result<ConnId, Refusal> {
        self.port += 1;
        let addr = SocketAddr::new(IpAddr::from(ip), self.port);
        match self.way {
            Way::Directly => self.accept(addr),
            Way::Proxied => {
                let conn = self.accept(SocketAddr::new(IpAddr::from(PROXY), self.port))?;
                self.name(conn, ip).map(|()| conn)
            }
        }
    }

    pub(super) fn accept(&mut self, addr: SocketAddr) -> Result<ConnId, Refusal> {
        self.relay.handle_accept(self.now, Remote { addr, topic: self.door })
    }

    /// A proxy says for whom it connects; Err: and that one is not taken.
    pub(super) fn name(&mut self, conn: ConnId, ip: [u8; 4]) -> Result<(), Refusal> {
        let before = *self.relay.stats();
        let addr = SocketAddr::new(IpAddr::from(ip), self.port);
        self.relay.handle_input(self.now, conn, &header(addr));
        assert_eq!(self.relay.remote(conn), Some(addr));
        self.turn();
        let stats = self.relay.stats();
        let refusal = if stats.refused_quarantined != before.refused_quarantined {
            Refusal::Quarantined(Duration::ZERO)
        } else if stats.refused_per_address != before.refused_per_address {
            Refusal::TooManyFromAddress
        } else {
            return Ok(());
        };
        let (had, alert) = (self.had(conn), refusal.alert());
        if self.is_gone(conn) {
            assert!(had.is_empty(), "closed at once");
        } else {
            assert_eq!(had.get(..10), alert.as_bytes().get(..10), "it is told so");
            self.relay.handle_closed(self.now, conn);
            self.turn();
        }
        Err(refusal)
    }

    /// A proxy connects and has said nothing yet.
    fn proxy(&mut self) -> ConnId {
        self.port += 1;
        self.accept(SocketAddr::new(IpAddr::from(PROXY), self.port)).expect("a proxy is taken")
    }

    fn is_gone(&self, conn: ConnId) -> bool {
        self.relay.remote(conn).is_none()
    }

    fn charged(&self) -> u64 {
        self.relay.stats().offence_points.value()
    }

    /// Opens a door of one of the kinds.
    fn open_door(&mut self, door: Door) {
        match door {
            Door::Native => {}
            Door::Line => self.door = self.relay.listen("main").expect("a topic"),
            Door::Mixed => self.door = self.relay.listen("main").expect("a topic").mixed(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Line,
    Native,
    Mixed,
}

const DOORS: [Door; 3] = [Door::Line, Door::Native, Door::Mixed];
const CLIENT: [u8; 4] = [10, 0, 0, 7];

fn header(client: SocketAddr) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    match client.ip() {
        IpAddr::V4(ip) => {
            bytes.extend([0x21, 0x11, 0, 12]);
            bytes.extend(ip.octets());
            bytes.extend(PROXY);
        }
        IpAddr::V6(ip) => {
            bytes.extend([0x21, 0x21, 0, 36]);
            bytes.extend(ip.octets());
            bytes.extend([0xFE; 16]);
        }
    }
    bytes.extend(client.port().to_be_bytes());
    bytes.extend([1, 2]);
    bytes
}

fn local() -> Vec<u8> {
    [&SIGNATURE[..], b"\x20\0\0\0"].concat()
}

fn proxied() -> World {
    World::sized(NativeLimits::DEFAULT, 100).by(Way::Proxied)
}

#[test]
fn a_header_may_be_cut_anywhere_and_what_follows_is_the_clients() {
    for door in DOORS {
        for fill in [0, 1, HEADER_BYTES_MAX - 28] {
            let addr = SocketAddr::new(IpAddr::from(CLIENT), 4_711);
            let mut bytes = header(addr);
            bytes[14..16].copy_from_slice(&(12 + fill as u16).to_be_bytes());
            bytes.resize(bytes.len() + fill, b'\n');
            let header_len = bytes.len();
            let key = SigningKey::from_seed(&[3; 32]);
            let (hello, _) = attempt(&key, 1).hello();
            bytes.extend(if door == Door::Line { &b"one\ntwo\n"[..] } else { hello.as_bytes() });
            for cut in (0..=bytes.len()).step_by(if fill > 1 { 7 } else { 1 }) {
                let mut world = proxied();
                world.open_door(door);
                let conn = world.proxy();
                world.feed(conn, &bytes[..cut]);
                let named = world.relay.remote(conn) == Some(addr);
                assert_eq!(named, cut >= header_len, "{door:?} cut at {cut}");
                world.feed(conn, &bytes[cut..]);
                assert_eq!(world.relay.remote(conn), Some(addr), "{door:?} cut at {cut}");
                if door == Door::Line {
                    assert_eq!(world.relay.stats().published.value(), 2, "cut at {cut}");
                } else {
                    assert_eq!(world.had(conn)[4], CHALLENGE, "{door:?} cut at {cut}");
                }
                assert_eq!(world.relay.stats().proxied.value(), 1);
            }
        }
    }
}

#[test]
fn byte_by_byte_a_header_has_five_seconds_in_all() {
    for door in DOORS {
        let mut world = proxied();
        world.open_door(door);
        let (slow, silent) = (world.proxy(), world.proxy());
        let bytes = header(SocketAddr::new(IpAddr::from(CLIENT), 1));
        for byte in &bytes[..24] {
            assert!(!world.is_gone(slow) && !world.is_gone(silent));
            world.now = world.now.after(Duration::from_millis(200));
            world.feed(slow, &[*byte]);
        }
        world.now = world.now.after(Duration::from_millis(210));
        world.turn();
        assert!(world.is_gone(slow) && world.is_gone(silent), "{door:?}");
        assert_eq!(world.relay.stats().no_proxy_header.value(), 2);
        assert_eq!((world.charged(), world.relay.memory_used().0), (0, 0));
        assert!(world.is_free(PROXY) && world.is_free(CLIENT));
    }
}

#[test]
fn what_is_no_header_ends_at_once_unanswered_and_uncharged() {
    let named = header(SocketAddr::new(IpAddr::from(CLIENT), 1));
    let with = |at: usize, byte: u8| {
        let mut bytes = named.clone();
        bytes[at] = byte;
        bytes
    };
    let over = u16::try_from(HEADER_BYTES_MAX - 15).expect("it is short").to_be_bytes();
    let too_long = [&SIGNATURE[..], &[0x21, 0x11], &over].concat();
    let longest = [&SIGNATURE[..], &[0x20, 0, 0xFF, 0xFF]].concat();
    let key = SigningKey::from_seed(&[3; 32]);
    let hello = attempt(&key, 1).hello().0;
    let wrong: [&[u8]; 10] = [
        b"PROXY TCP4 10.0.0.7 203.0.113.9 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"hello\n",
        hello.as_bytes(),
        &with(12, 0x11),
        &with(12, 0x22),
        &with(13, 0x41),
        &with(15, 11),
        &too_long,
        &longest,
    ];
    for door in DOORS {
        let mut world = proxied();
        world.open_door(door);
        for (nth, bytes) in wrong.iter().cycle().take(40).enumerate() {
            let conn = world.proxy();
            world.feed(conn, bytes);
            assert!(world.is_gone(conn) && world.had(conn).is_empty(), "{door:?} {nth}");
            assert_eq!(world.relay.stats().no_proxy_header.value(), nth as u64 + 1);
        }
        assert_eq!(world.charged(), 0);
        world.connect(CLIENT);
    }
}

#[test]
fn what_a_proxy_says_of_itself_or_of_another_is_never_charged() {
    for door in DOORS {
        let mut world = proxied();
        world.open_door(door);
        let own = [
            local(),
            [&SIGNATURE[..], b"\x21\0\0\0"].concat(),
            [&SIGNATURE[..], b"\x21\x12\0\0"].concat(),
            [&SIGNATURE[..], b"\x21\x31\0\x01\0"].concat(),
            header(SocketAddr::new(IpAddr::from(PROXY), 9)),
            header(SocketAddr::new(IpAddr::V6(Ipv4Addr::from(PROXY).to_ipv6_mapped()), 9)),
        ];
        for bytes in own.iter().cycle().take(300) {
            let conn = world.proxy();
            world.feed(conn, bytes);
            assert_eq!(world.relay.remote(conn).map(|addr| addr.ip()), Some(IpAddr::from(PROXY)));
            // What it then does wrong, too.
            world.feed(conn, if door == Door::Line { b"\xFF\n" } else { b"\xF5WDL\x02\x01\x80\0" });
            world.relay.handle_closed(world.now, conn);
            world.turn();
        }
        assert_eq!(world.charged(), 0, "{door:?}");
        assert_eq!(world.relay.stats().refused_quarantined.value(), 0);
    }
}

#[test]
fn what_a_client_does_is_charged_to_it_however_its_address_is_written() {
    let mapped = Ipv4Addr::from(CLIENT).to_ipv6_mapped();
    for client in [IpAddr::from(CLIENT), IpAddr::V6(mapped)] {
        let mut world = proxied();
        for port in 0..8 {
            let conn = world.proxy();
            world.feed(conn, &header(SocketAddr::new(client, port)));
            world.feed(conn, b"\xF5WDL\x02\x01\x80\x00");
            world.relay.handle_closed(world.now, conn);
            world.turn();
        }
        assert!(!world.is_free(CLIENT), "{client}");
        assert!(world.is_free(PROXY) && world.is_free([10, 0, 0, 8]));
    }
    // The first half of an address of IPv6 is one client's.
    let mut world = proxied();
    world.open_door(Door::Line);
    for host in 0..30_u16 {
        let conn = world.proxy();
        let ip = Ipv6Addr::new(0x2001, 0xDB8, 1, 2, host, 0, 0, 1);
        world.feed(conn, &header(SocketAddr::new(IpAddr::V6(ip), 9)));
        world.relay.handle_closed(world.now, conn);
        world.turn();
    }
    let ip = Ipv6Addr::new(0x2001, 0xDB8, 1, 2, 0, 0, 0, 1);
    assert!(world.relay.verdict(world.now, IpAddr::V6(ip)) != Verdict::Free, "it flaps");
}

#[test]
fn nobody_else_is_believed() {
    let mut world = proxied();
    let conn = world.accept(SocketAddr::new(IpAddr::from(CLIENT), 5)).expect("it is let in");
    world.feed(conn, &header(SocketAddr::new(IpAddr::from([10, 0, 0, 8]), 1)));
    let had = world.had(conn);
    assert_eq!((had[4], u16::from_le_bytes([had[8], had[9]])), (ALERT, Code::BadMagic.wire()));
    assert!(world.charged() > 0 && world.relay.stats().proxied.value() == 0);
}

#[test]
fn so_many_are_waited_for() {
    let proxy = ProxyLimits { waiting: 3, ..Limits::DEFAULT.proxy };
    let mut world = World::of(Limits { proxy, ..small(100) }).by(Way::Proxied);
    let waiting = [world.proxy(), world.proxy(), world.proxy()];
    let own = SocketAddr::new(IpAddr::from(PROXY), 1);
    assert_eq!(world.accept(own), Err(Refusal::TooManyConnections));
    world.feed(waiting[0], &local());
    world.proxy();
    world.relay.handle_eof(world.now, waiting[1]);
    world.turn();
    world.proxy();
    world.relay.handle_closed(world.now, waiting[2]);
    world.turn();
    world.proxy();
    assert_eq!(world.accept(own), Err(Refusal::TooManyConnections));
    assert_eq!(
        world.relay.stats().no_proxy_header.value(),
        0,
        "who said nothing did nothing wrong"
    );
}

/// A relay of lines, with so many connections and blocks of input.
fn tight(connections: u32, input_blocks: u32) -> World {
    let limits = Limits {
        connections,
        topics: 4,
        blocks: input_blocks * 2,
        segments: 64,
        ..Limits::DEFAULT
    };
    let mut world = World::of(limits).by(Way::Directly);
    world.open_door(Door::Line);
    world
}

#[test]
fn who_is_waited_for_is_no_client_of_its_proxy() {
    let mut world = tight(40, 256);
    let crowd: Vec<ConnId> = (0..8).map(|_| world.connect([10, 0, 9, 9])).collect();
    // More than that wait, for a moment, and are clients of many addresses then.
    let waiting: Vec<ConnId> = (0..10).map(|_| world.proxy()).collect();
    for (conn, host) in waiting.into_iter().zip(1..) {
        assert_eq!(world.name(conn, [10, 0, 1, host]), Ok(()));
    }
    for host in 1..=22 {
        world.connect([10, 0, 2, host]);
    }
    assert_eq!(world.relay.connections(), 40);
    for host in 1..=6 {
        // Directly, or by the proxy: it is the crowd that gives way.
        if host % 2 == 0 {
            world.connect([10, 0, 3, host]);
        } else {
            let conn = world.proxy();
            world.turn();
            assert_eq!(world.name(conn, [10, 0, 3, host]), Ok(()));
        }
        world.turn();
        let gone = crowd.iter().filter(|conn| world.is_gone(**conn)).count();
        assert_eq!((gone, world.relay.connections()), (usize::from(host), 40));
    }
}

#[test]
fn a_full_relay_goes_on_waiting_for_who_is_to_be_named() {
    let mut world = World::sized(NativeLimits::DEFAULT, 20).by(Way::Proxied);
    let key = SigningKey::from_seed(&STRANGER);
    let mut own = world.join(&key, 0, PROXY);
    world.way = Way::Directly;
    for _ in 0..14 {
        world.connect([10, 0, 0, 1]);
    }
    let waiting: Vec<ConnId> = (0..5).map(|_| world.proxy()).collect();
    for host in 2..9 {
        world.connect([10, 0, 0, host]);
        world.turn();
    }
    assert!(!waiting.iter().any(|conn| world.is_gone(*conn)));
    assert_eq!(
        (world.relay.stats().evicted_for_newcomer.value(), world.told(&mut own).len()),
        (7, 0)
    );
}

#[test]
fn a_header_in_pieces_is_kept_in_place_of_what_others_hold() {
    let mut world = tight(40, 32);
    for host in 1..=32 {
        let conn = world.connect([10, 0, 0, host]);
        world.feed(conn, b"half a line that is yet to end");
    }
    world.now = world.now.after(Duration::from_millis(200));
    let bytes = header(SocketAddr::new(IpAddr::from(CLIENT), 5));
    let conn = world.proxy();
    for byte in &bytes {
        world.feed(conn, &[*byte]);
    }
    assert_eq!(world.relay.remote(conn).map(|addr| addr.ip()), Some(IpAddr::from(CLIENT)));
    assert_eq!(world.relay.stats().overloaded.value(), 1, "somebody gave way");
}

#[test]
fn a_header_that_takes_long_gives_way_to_who_brings_something_now() {
    let mut world = tight(200, 32);
    let bytes = header(SocketAddr::new(IpAddr::from(CLIENT), 5));
    let waiting: Vec<ConnId> = (0..32).map(|_| world.proxy()).collect();
    for conn in &waiting {
        world.feed(*conn, &bytes[..20]);
    }
    world.now = world.now.after(Duration::from_millis(200));
    let client = world.connect([10, 0, 0, 1]);
    world.feed(client, b"one ");
    world.feed(client, b"line\n");
    assert_eq!(world.relay.stats().published.value(), 1);
    let gone = waiting.iter().filter(|conn| world.is_gone(**conn)).count();
    assert_eq!((gone, world.relay.stats().overloaded.value()), (1, 1));
    assert_eq!((world.relay.stats().no_proxy_header.value(), world.charged()), (0, 0));
}

#[test]
fn who_is_refused_holds_no_more_places_than_an_address_may() {
    let quarantine = QuarantineLimits { connections_per_prefix: 20, ..Limits::DEFAULT.quarantine };
    let mut world = World::of(Limits { quarantine, ..small(200) }).by(Way::Proxied);
    world.have_refused(CLIENT);
    world.open_door(Door::Line);
    let mut told = 0;
    for port in 0..150 {
        // It reads nothing to its end.
        let conn = world.proxy();
        world.feed(conn, &header(SocketAddr::new(IpAddr::from(CLIENT), port)));
        told += usize::from(!world.had(conn).is_empty());
    }
    assert_eq!(world.relay.stats().refused_quarantined.value(), 150);
    // And some who read their last words.
    let most = 20 + NativeLimits::DEFAULT.half_open_per_prefix;
    assert_eq!((world.relay.connections(), told), (most, most as usize));
}

#[test]
fn who_waited_side_by_side_stand_in_the_rows_of_their_own_addresses() {
    let mut world = proxied();
    let (one, two) = ([10, 0, 8, 1], [10, 0, 8, 2]);
    let first = world.proxy();
    assert_eq!(world.name(first, one), Ok(()));
    let [a, b] = [world.proxy(), world.proxy()];
    for (conn, ip) in [(a, one), (b, two)] {
        assert_eq!(world.name(conn, ip), Ok(()));
        world.relay.check();
    }
    for conn in [a, first, b] {
        world.relay.handle_closed(world.now, conn);
        world.turn();
        world.relay.check();
    }
}

#[test]
fn one_proxy_leaves_the_others_their_places() {
    let proxy = ProxyLimits { waiting: 4, waiting_each: 2, ..Limits::DEFAULT.proxy };
    let mut world = World::of(Limits { proxy, ..small(100) }).by(Way::Proxied);
    let waiting = [world.proxy(), world.proxy()];
    let own = SocketAddr::new(IpAddr::from(PROXY), 1);
    assert_eq!(world.accept(own), Err(Refusal::TooManyConnections));
    world.relay.check();
    world.feed(waiting[0], &local());
    world.proxy();
    assert_eq!(world.accept(own), Err(Refusal::TooManyConnections));
    world.relay.check();
}

#[test]
fn at_the_end_of_a_relay_nobody_is_waited_for() {
    let mut world = proxied();
    let (half, late) = (world.proxy(), world.proxy());
    world.feed(half, &local()[..9]);
    world.relay.handle_shutdown(world.now);
    // Its header is whole before the relay comes to it.
    world.relay.handle_input(world.now, late, &header(SocketAddr::new(IpAddr::from(CLIENT), 1)));
    world.turn();
    assert!(world.is_gone(half));
    let had = world.had(late);
    assert_eq!((had[4], u16::from_le_bytes([had[8], had[9]])), (ALERT, Code::GoingAway.wire()));
}
