//! An engine that is told to stop at once: in the middle of everything, it gives back what it was
//! lent with nothing of it still under way.
#![cfg(all(target_os = "linux", not(wardline_portable)))]

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use wardline_core::Relay;
use wardline_host::clock::{self, Clock};
use wardline_host::links::Links;
use wardline_host::net::{Tuning, bind_all};
use wardline_host::orders::Orders;
use wardline_host::settings::{Loaded, Sources};
use wardline_host::signals::Control;
use wardline_host::storage::{Lent, Sizes};
use wardline_uring::{RawPool, compat, probe};

const READERS: usize = 40;
const ROUNDS: usize = 5;

#[test]
fn what_was_lent_comes_back_with_nothing_under_way() {
    if let Err(why) = probe::tokio_uring() {
        eprintln!("not tested: {why}");
        return;
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    // What a runtime makes once in a process is there from its first end on.
    stopped_in_the_middle();
    let before = descriptors();
    for _ in 0..ROUNDS {
        let took = stopped_in_the_middle();
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(descriptors(), before, "files are still open");
    }
}

/// Has one speak to many who do not read, until their sockets are full, and stops; how long the
/// stop took.
fn stopped_in_the_middle() -> Duration {
    let sets = ["line.rate_limit_msgs_per_minute=0", "limits.connections=64"];
    let sets = sets.map(str::to_owned).to_vec();
    let Loaded { limits, settings, .. } =
        Sources { sets, ..Sources::default() }.load().expect("they are sound");
    let listen = ["line://127.0.0.1:0".parse().unwrap()];
    let tuning = Tuning::for_limits(&limits);
    let mut bound = bind_all(&listen, &tuning).unwrap();
    let addr = bound[0].addr;
    let orders = Orders::default();
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut lent =
                Lent::reserve(&Sizes::of(&limits, &settings), &settings.quarantine.exempt).unwrap();
            let (slots, pool) = lent.lend();
            let (clock, seed) = (Clock::start(), clock::seed().unwrap());
            let mut relay =
                Relay::new(limits, slots, RawPool::new(pool), seed, clock.now()).unwrap();
            let door = bound.pop().unwrap();
            let doors = vec![(door.socket, relay.listen("main").unwrap())];
            compat::serve(relay, doors, clock, tuning, &orders, Links::alone(), || {}).unwrap();
            // Who still read or wrote it now would be found out by a tool that watches memory.
            drop(lent);
        });
        // It is to end also where something fails here.
        let clients = thread::spawn(move || crowd(addr)).join();
        let begun = Instant::now();
        orders.tell(Control::Stop);
        serving.join().unwrap();
        let took = begun.elapsed();
        drop(clients.unwrap());
        took
    })
}

fn crowd(addr: SocketAddr) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..READERS).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut speaker = TcpStream::connect(addr).unwrap();
    speaker.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let line = [&[b'x'; 8_000][..], b"\n"].concat();
    // Until it is read no more, or the relay has enough of those who do not read.
    let mut spoken = 0;
    while spoken < 4_000_000 && speaker.write_all(&line).is_ok() {
        spoken += line.len();
    }
    assert!(spoken > 100_000, "only {spoken} bytes were taken");
    clients.push(speaker);
    clients
}
