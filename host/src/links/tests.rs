use std::io::Read;
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::*;

const LIMITS: Limits = Limits::DEFAULT;

#[derive(Debug, Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_only_shard_has_no_links() {
    let mut links = connect(1, &LIMITS);
    let [alone] = links.as_mut_slice() else { panic!("{}", links.len()) };
    assert!(alone.may_sleep() && alone.all_drained());
    assert!(alone.arrival().is_none() && alone.hand_on_to(0, 1_000_000).is_none());
}

#[test]
fn every_shard_has_every_other() {
    let links = connect(4, &LIMITS);
    for (shard, links) in links.iter().enumerate() {
        let mut others: Vec<usize> = links.others.iter().map(|o| usize::from(o.shard)).collect();
        others.sort_unstable();
        let all: Vec<usize> = (0..4).filter(|other| *other != shard).collect();
        assert_eq!(others, all);
    }
}

#[test]
fn a_newcomer_goes_on_where_loads_differ_by_more_than_a_quarter() {
    let mut links = connect(3, &LIMITS);
    links[0].share_doors([true, true, false]);
    let common = links[0].common.as_ref().unwrap();
    for (load, n) in common.loads.iter().zip([200, 100, 120]) {
        load.store(n, Ordering::Relaxed);
    }
    assert_eq!(links[0].hand_on_to(0, 200), Some(1));
    assert_eq!(links[0].hand_on_to(2, 200), None, "a door of native clients");
    assert_eq!(links[0].hand_on_to(3, 200), None, "its own door");
    assert_eq!(links[0].hand_on_to(1, 133), None, "100, a quarter, and a handful");
    assert_eq!(links[0].hand_on_to(1, 134), Some(1));
}

const NOW: Instant = Instant::from_nanos(1);

/// Does something with a relay, and a topic of its.
fn with_relay<T>(then: impl FnOnce(&mut Relay<'_, &mut [u8]>, TopicId) -> T) -> T {
    let settings = crate::settings::Settings::default();
    let limits = Limits { connections: 8, topics: 1, blocks: 64, segments: 8, ..LIMITS };
    let sizes = crate::storage::Sizes::of(&limits, &settings);
    let mut lent = crate::storage::Lent::reserve(&sizes, &[]).unwrap();
    let (slots, pool) = lent.lend();
    let mut relay = Relay::new(limits, slots, pool, [1; 32], NOW).unwrap();
    let topic = relay.listen("main").unwrap();
    then(&mut relay, topic)
}

#[test]
fn a_turn_takes_some_and_one_too_many_for_those_who_wait_is_told_so() {
    let mut links = connect(2, &LIMITS);
    links[0].share_doors([true]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut peer, addr) = listener.accept().unwrap();
    with_relay(|relay, topic| {
        for _ in 0..ARRIVALS {
            let stream = stream.try_clone().unwrap();
            links[0].hand_on(1, Arrival { stream, addr, topic, handover: None });
        }
        let load =
            |links: &[Links]| links[0].common.as_ref().unwrap().loads[1].load(Ordering::Relaxed);
        assert_eq!((load(&links), links[0].lost), (ARRIVALS as u32, 0));
        assert_eq!(links[0].hand_on_to(0, 10_000), None, "newcomers stay");
        links[0].hand_on(1, Arrival { stream, addr, topic, handover: None });
        let mut told = [0; 256];
        let len = peer.read(&mut told).unwrap();
        assert_eq!(&told[..len], Refusal::Overloaded.warning().as_bytes());
        for left in (0..ARRIVALS / ARRIVALS_PER_TURN).rev() {
            let came = std::iter::from_fn(|| links[1].arrival()).count();
            assert_eq!(came, ARRIVALS_PER_TURN);
            assert_eq!(links[1].may_sleep(), left == 0);
            links[1].take_in(relay, NOW);
        }
        assert!(links[1].arrival().is_none());
        assert_eq!(links[0].hand_on_to(0, 10_000), Some(1));
        assert_eq!(links[0].lost, 1, "its relay is told at the end of the turn");
        // That relay is no shard, and has nothing for others.
        links[0].others.clear();
        links[0].give_out(relay, NOW);
        assert_eq!((links[0].lost, relay.stats().lost_on_the_way.value()), (0, 1));
    });
}

#[test]
fn who_is_handed_on_arrives_and_wakes_its_shard() {
    let mut links = connect(2, &LIMITS);
    let topic = with_relay(|_, topic| topic);
    let addr = SocketAddr::from(([127, 0, 0, 1], 7));
    let bell = Arc::new(Bell::default());
    links[1].listen(Waker::from(Arc::clone(&bell)));
    assert!(links[1].may_sleep());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [addr.port(), 8, 9];
    for port in ports {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let addr = SocketAddr::new(addr.ip(), port);
        links[0].hand_on(1, Arrival { stream, addr, topic, handover: None });
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    }
    assert!(!links[1].may_sleep(), "somebody waits");
    let came = ports.map(|_| links[1].arrival().unwrap().addr.port());
    assert_eq!(came, ports, "first in, first out");
    assert!(links[1].arrival().is_none() && links[1].may_sleep());
}

#[test]
fn the_last_to_drain_wakes_the_others() {
    let mut links = connect(2, &LIMITS);
    let bell = Arc::new(Bell::default());
    links[0].listen(Waker::from(Arc::clone(&bell)));
    assert!(!links[0].all_drained() && !links[0].all_drained());
    assert!(links[0].may_sleep());
    assert!(links[1].all_drained());
    assert_eq!(bell.0.load(Ordering::SeqCst), 1);
    assert!(links[0].all_drained());
}
