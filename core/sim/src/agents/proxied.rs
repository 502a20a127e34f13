//! Newcomers whose connection is a proxy's: what their native client is told, and how they are
//! counted, is as if they had come by themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use wardline_core::proxy::SIGNATURE;
use wardline_core::{ConnId, Duration, Instant, Network, Refusal, Remote, TopicId};

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
        match self.name(shard, conn, addr) {
            Some(refusal) => {
                // It goes as it is told so.
                self.side.strays.insert((shard, conn));
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

    /// The proxy says for whom it connects; gives why that one was not taken.
    fn name(&mut self, shard: usize, conn: ConnId, addr: SocketAddr) -> Option<Refusal> {
        let now = Instant::from_nanos(self.side.now_ns);
        let (relay, rng) = (&mut self.relays[shard], &mut self.side.rng);
        let before = *relay.stats();
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

fn header(addr: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = addr.ip() else { panic!("all are of IPv4") };
    let port = addr.port().to_be_bytes();
    [&SIGNATURE[..], b"\x21\x11\0\x0C", &ip.octets(), &PROXY.octets(), &port, &[0, 1]].concat()
}
