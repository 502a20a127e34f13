//! Native traffic of each kind, shortly, through a relay in a thread of this process.

#![cfg(all(target_os = "linux", not(wardline_portable)))]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wardline_bench::daemons::Daemons;
use wardline_bench::interrupt::Interrupt;
use wardline_bench::round::{Pace, Plan};
use wardline_bench::server::Server;
use wardline_bench::stats::Round;
use wardline_bench::traffic::{Until, Workload};
use wardline_bench::trips::Trips;
use wardline_bench::wire::Format;
use wardline_core::native::SigningKey;
use wardline_core::{Limits, Relay};
use wardline_host::access::{Keyring, Rules};
use wardline_host::clock::{self, Clock};
use wardline_host::links::Links;
use wardline_host::net::{Tuning, bind_all};
use wardline_host::orders::Orders;
use wardline_host::settings::Settings;
use wardline_host::signals::Control;
use wardline_host::storage::{Lent, Sizes};

const SHORT: Duration = Duration::from_millis(50);

/// Does something with a relay that speaks the native dialect, without limits of rate.
fn with_relay(work: impl FnOnce(SocketAddr)) {
    let mut limits = Limits { connections: 64, ..Limits::DEFAULT };
    limits.native.messages_per_second = 0;
    limits.native.bytes_per_second = 0;
    let mut settings = Settings::default();
    settings.server.listen = vec!["native://127.0.0.1:0".parse().expect("a URL")];
    let tuning = Tuning::for_limits(&limits);
    let bound = bind_all(&settings.server.listen, &tuning).expect("a port");
    let addr = bound[0].addr;
    let doors: Vec<TcpListener> = bound.into_iter().map(|listener| listener.socket).collect();
    let orders = Arc::new(Orders::default());
    let access = Keyring::new(Rules::from_settings(&settings.native).expect("rules"));
    thread::scope(|scope| {
        let told = Arc::clone(&orders);
        let served = scope.spawn(|| {
            let sizes = Sizes::of(&limits, &settings);
            let mut lent = Lent::reserve(&sizes, &settings.quarantine.exempt).expect("memory");
            let keys = [SigningKey::from_seed(&[4; 32])];
            let loan = lent.lend_all(Some((&keys, &access)));
            let clock = Clock::start();
            let seed = || clock::seed().expect("random bytes");
            let relay = Relay::new(limits, loan.slots, loan.pool, seed(), clock.now());
            let mut relay = relay.expect("a relay");
            let native = loan.native.expect("tables");
            relay.speak_native(native, seed(), clock::unix_ms()).expect("a native relay");
            let door = relay.listen_native().expect("a door");
            let doors = doors.into_iter().map(|socket| (socket, door)).collect();
            wardline_tokio::serve(relay, doors, clock, tuning, &orders, Links::alone(), || {})
        });
        // Told however it ends, or what failed would be waited for.
        let stop = Stop(told);
        work(addr);
        drop(stop);
        served.join().expect("no panic").expect("served");
    });
}

/// Ends the relay.
struct Stop(Arc<Orders>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.tell(Control::Stop);
    }
}

/// The relay, as one that runs already: this process.
fn server(addr: SocketAddr, format: Format) -> Server {
    Server::attach(addr, format, std::process::id(), None).expect("this process")
}

fn relayed(addr: SocketAddr, format: Format, workload: Workload) -> Round {
    let pace = Pace::Window(Until::Messages(40));
    let plan = Plan { workload, warmup: SHORT, pace, server_core: None, load_core: None };
    plan.measure(&server(addr, format), &Interrupt::default()).expect("a round")
}

/// Each with a relay of its own: the load's clients are the same ones each time.
const ONE: Workload =
    Workload { topics: 1, publishers: 1, readers: 3, window: 16, size: 64, frames: 0 };

#[test]
fn topics_are_sent_to_by_records_of_any_length() {
    for frames in [0, 1, 5] {
        with_relay(|addr| {
            let round = relayed(addr, Format::Native, Workload { frames, ..ONE });
            assert_eq!((round.messages, round.deliveries), (40, 120), "{frames} a record");
        });
    }
}

#[test]
fn pairs_of_peers_send_to_each_other() {
    with_relay(|addr| {
        let pairs = Workload { topics: 3, readers: 1, window: 1, ..ONE };
        let round = relayed(addr, Format::Direct, pairs);
        assert_eq!((round.messages, round.deliveries), (120, 120));
    });
}

#[test]
fn round_trips_come_back() {
    for request in [false, true] {
        with_relay(|addr| {
            let trips = Trips { request, size: 64, warmup: Duration::ZERO, counted: SHORT };
            let server = server(addr, Format::Direct);
            let round = trips.measure(&server, [None; 2], &Interrupt::default());
            let round = round.expect("round trips");
            assert!(round.deliveries > 0 && round.messages == 2 * round.deliveries, "{round:?}");
            assert!(round.p50_ns > 0 && round.server_cpu_ns > 0, "{round:?}");
        });
    }
}

#[test]
fn daemons_answer() {
    with_relay(|addr| {
        let (daemons, per_second) = (5, 1_000.0);
        let daemons = Daemons { daemons, per_second, warmup: SHORT, counted: SHORT };
        let server = server(addr, Format::Direct);
        let round = daemons.measure(&server, [None; 2], &Interrupt::default());
        let round = round.expect("answers");
        assert!(round.deliveries >= 300 && round.rate_kept.is_some(), "{round:?}");
    });
}
