//! Newcomers whose connection is a proxy's: what their native client is told, and how they are
//! counted, is as if they had come by themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wardline_core::native::Code;
use wardline_core::proxy::SIGNATURE;
use wardline_core::{ConnId, Duration, Instant, Network, Refusal, Remote, Stats, TopicId, Verdict};

use super::side::Side;
use super::states::State;
use super::world::World;

/// Where the proxy is.
const PROXY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// Who is trusted to be one.
pub(super) static PROXIES: [Network; 1] = [Network { ip: IpAddr::V4(PROXY), bits: 32 }];

impl World<'_, '_> {
    /// Has a shard take a newcomer from there, at a listener of that topic.
    pub(super) fn accept(
        &mut self,
        shard: usize,
        addr: SocketAddr,
        topic: TopicId,
    ) -> Result<ConnId, Refusal> {
        let now = Instant::from_nanos(self.side.now_ns);
        if !self.side.rng.percent(self.side.plan.proxied) {
            return self.relays[shard].handle_accept(now, Remote { addr, topic });
        }
        let own = SocketAddr::new(IpAddr::V4(PROXY), addr.port());
        let taken = self.relays[shard].handle_accept(now, Remote { addr: own, topic });
        let charged = matches!(taken, Err(Refusal::Quarantined(_) | Refusal::TooManyFromAddress));
        assert!(!charged, "a proxy was charged for its clients: {taken:?}");
        let conn = taken?;
        let before = *self.relays[shard].stats();
        match self.name(shard, conn, addr, &before) {
            Some(refusal) => {
                let named = self.relays[shard].remote(conn) == Some(addr);
                let verdict = self.relays[shard].verdict(now, addr.ip());
                let words = if named { words(refusal, topic, verdict) } else { Vec::new() };
                self.side.strays.insert((shard, conn), Vec::new());
                self.hear_out(shard, conn, words.len());
                // It goes as it is told so.
                let dropped = self.relays[shard].stats().warnings_dropped;
                let dropped = dropped != before.warnings_dropped;
                self.side.assert_told((shard, conn), addr, &words, dropped);
                self.relays[shard].handle_closed(now, conn);
                self.side.states.hit(State::ProxiedRefused);
                Err(refusal)
            }
            None => {
                self.side.states.hit(State::Proxied);
                Ok(conn)
            }
        }
    }

    /// Whoever was not taken reads until it was told so much, or is gone.
    fn hear_out(&mut self, shard: usize, conn: ConnId, len: usize) {
        // A turn may be over before it is its turn.
        for _ in 0..100 {
            self.drain_one(shard);
            let told = self.side.strays[&(shard, conn)].len();
            if told >= len || self.relays[shard].remote(conn).is_none() {
                break;
            }
        }
    }

    /// The proxy says for whom it connects; gives why that one was not taken.
    fn name(
        &mut self,
        shard: usize,
        conn: ConnId,
        addr: SocketAddr,
        before: &Stats,
    ) -> Option<Refusal> {
        let now = Instant::from_nanos(self.side.now_ns);
        let (relay, rng) = (&mut self.relays[shard], &mut self.side.rng);
        let header = header(addr);
        let mut rest = &header[..];
        while !rest.is_empty() && relay.read_budget(conn) > 0 {
            let most = relay.read_budget(conn).min(rest.len());
            let (piece, left) = rest.split_at(1 + rng.up_to(most - 1));
            relay.handle_input(now, conn, piece);
            rest = left;
        }
        let stats = relay.stats();
        if stats.proxied != before.proxied {
            assert_eq!(relay.remote(conn), Some(addr), "the address that its proxy said");
        }
        if stats.refused_quarantined != before.refused_quarantined {
            Some(Refusal::Quarantined(Duration::ZERO))
        } else if stats.refused_per_address != before.refused_per_address {
            Some(Refusal::TooManyFromAddress)
        } else if stats.refused_other != before.refused_other || stats.proxied == before.proxied {
            Some(Refusal::Overloaded)
        } else {
            None
        }
    }
}

impl Side<'_> {
    /// Somebody who has a place was refused, and is told so by these words; unless its address has
    /// many such places, or there is no block.
    fn assert_told(
        &mut self,
        stray: (usize, ConnId),
        addr: SocketAddr,
        words: &[u8],
        dropped: bool,
    ) {
        let limits = &self.plan.limits;
        let most = limits.quarantine.connections_per_prefix + limits.native.half_open_per_prefix;
        let same = |index: &&usize| {
            let conn = &self.conns[**index];
            conn.addr.ip() == addr.ip() && conn.shard == stray.0 && !conn.gone
        };
        let crowded = self.live.iter().filter(same).count() as u32 >= most;
        let told = &self.strays[&stray];
        let silent = told.is_empty() && (crowded || dropped);
        assert!(told == words || silent, "{addr} was told {told:?} and not {words:?}");
    }
}

/// What a client is told that is refused and has a place: of lines, or at a door of both dialects,
/// a warning, else an ALERT. PROTOCOL.md 2.2.1.
fn words(refusal: Refusal, door: TopicId, verdict: Verdict) -> Vec<u8> {
    let (code, retry_ms, text) = match (refusal, verdict) {
        (Refusal::Quarantined(_), Verdict::Refused(span)) => {
            let text = "Your address is refused for a while. Please come back later.";
            (Code::Quarantined, span.as_millis() as u32, text)
        }
        (Refusal::TooManyFromAddress, _) => {
            (Code::TooManyConnections, 0, "Your address has too many connections.")
        }
        (Refusal::Overloaded, _) => {
            (Code::Overloaded, 0, "The relay is overloaded. Please come back later.")
        }
        _ => panic!("{refusal:?}, {verdict:?}"),
    };
    if !door.is_native() {
        return format!("Warning: {text}\n").into();
    }
    let code = code.wire().to_le_bytes();
    [b"\xF5WDL\x7F\x01\x18\0", &code[..], b"\x01\x01", &retry_ms.to_le_bytes(), &[0; 8]].concat()
}

fn header(addr: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = addr.ip() else { panic!("all are of IPv4") };
    let port = addr.port().to_be_bytes();
    [&SIGNATURE[..], b"\x21\x11\0\x0C", &ip.octets(), &PROXY.octets(), &port, &[0, 1]].concat()
}
