//! Newcomers: who is taken, who is refused, and whether that is right.

use std::net::SocketAddr;

use wardline_core::{ConnId, Instant, Refusal, Remote};

use crate::bucket::Guess;
use crate::client::{Client, Kind, Reading};
use crate::peer::{Peer, Socket, Times};
use crate::places::Place;
use crate::side::prefix;
use crate::view::View;
use crate::world::World;

impl World<'_, '_> {
    pub(crate) fn connect(&mut self) {
        let living = self.side.live.iter().filter(|peer| !self.side.peers[**peer].gone).count();
        if living + self.side.knocks.len() >= self.side.plan.clients {
            return;
        }
        let proxied = self.side.plan.proxied_percent;
        if proxied > 0 && self.side.rng.percent(proxied) {
            return self.knock();
        }
        let side = &mut self.side;
        let ip = side.rng.pick(&side.plan.addresses);
        self.port = self.port.wrapping_add(1).max(1_024);
        let addr = SocketAddr::new(ip, self.port);
        let topic = side.rng.below(side.topics.len() as u64) as usize;
        let remote = Remote { addr, topic: side.topics[topic].id };
        let now = Instant::from_nanos(side.now_ns);
        let before = *self.relay.stats();
        let result = self.relay.handle_accept(now, remote);
        self.settled = false;
        *self.connects.entry(prefix(ip)).or_default() += 1;
        let after = self.relay.stats();
        if after.evicted_for_newcomer != before.evicted_for_newcomer {
            self.side.places.hit(Place::EvictedAtDoor);
        }
        match result {
            Ok(conn) => {
                let joined = self.taken();
                let client = self.newcomer(topic);
                self.welcome(conn, addr, topic, joined, client);
            }
            Err(refusal) => self.refused(refusal, addr),
        }
    }

    /// Who comes next, if he is taken.
    pub(crate) fn newcomer(&mut self, topic: usize) -> Client {
        let side = &mut self.side;
        let kind = Kind::ALL[side.rng.weighted(&side.plan.kinds)];
        let reading = Reading::ALL[side.rng.weighted(&side.plan.readings)];
        let tag = format!("{}.{}", ["main", "a", "b", "c"][topic], side.peers.len());
        Client::new(kind, reading, tag)
    }

    pub(crate) fn welcome(
        &mut self,
        conn: ConnId,
        addr: SocketAddr,
        topic: usize,
        joined: u64,
        client: Client,
    ) -> usize {
        let side = &mut self.side;
        side.observe(conn.to_bits());
        let until = side.banned.get(&prefix(addr.ip())).copied().unwrap_or(0);
        assert!(until <= side.now_ns, "{addr} is banned, and was taken");
        assert!(!side.shutdown, "taken after the shutdown");
        let peer = side.peers.len();
        let rate = side.plan.limits.line.messages_per_minute;
        let rate = Guess::new(rate, !side.plan.exempt, side.now_ns);
        let bytes_max = side.plan.habits.socket_bytes;
        let bytes_max = 1 + side.rng.up_to(bytes_max);
        let now_ns = side.now_ns;
        side.peers.push(Peer {
            conn,
            client,
            socket: Socket::new(bytes_max),
            view: View::new(addr, topic, joined, rate, side.topics[topic].head),
            times: Times { came: now_ns, heard: now_ns, ..Times::default() },
            slow: false,
            late_ns: None,
            was_slow: false,
            pressed: false,
            gone: false,
        });
        let away = |topic: usize| !side.shared.borrow().orders[topic].away[side.shard].is_empty();
        if side.is_away(topic) && away(topic) {
            side.places.hit(Place::JoinedBetween);
        }
        side.live.push(peer);
        assert!(side.names.insert(conn, peer).is_none(), "{conn} was there before");
        peer
    }

    pub(crate) fn refused(&mut self, refusal: Refusal, addr: SocketAddr) {
        let side = &mut self.side;
        side.places.hit(Place::Refused);
        let limits = &side.plan.limits;
        let (blocks, segments) = self.relay.memory_used();
        let full = |used: u32, all: u32| all > 0 && used * 100 / all >= 70;
        let due = match refusal {
            Refusal::Quarantined(_) => {
                side.places.hit(Place::Quarantined);
                // A neighbour's may be enough, if there are many.
                let most = u64::from(limits.quarantine.connects_per_minute);
                let flaps = self.connects.values().any(|connects| *connects > most);
                !side.plan.exempt && (flaps || side.shards > 1 || side.offences > 0)
            }
            Refusal::TooManyConnections => self.relay.connections() >= limits.connections,
            Refusal::TooManyFromAddress => {
                side.conns_of(addr.ip()) as u32 >= limits.quarantine.connections_per_prefix
            }
            Refusal::Overloaded => full(blocks, limits.blocks) || full(segments, limits.segments),
            Refusal::ShuttingDown => side.shutdown,
            Refusal::NoListener => false,
        };
        assert!(due, "{addr} was refused without a cause: {refusal:?}");
    }
}
