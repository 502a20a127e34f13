//! A socket that has room and takes nothing, as where the kernel is short of memory: it is left
//! alone for a while, and not asked again and again.
#![cfg(all(target_os = "linux", not(wardline_portable)))]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::net::netlink::{SocketAddrNetlink, USERSOCK};
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType};
use wardline_core::{Homes, Limits, Relay, TopicId};
use wardline_host::clock::Clock;
use wardline_host::links::{self, Arrival, Links};
use wardline_host::net::{Tuning, bind_all};
use wardline_host::orders::Orders;
use wardline_host::settings::Settings;
use wardline_host::signals::Control;
use wardline_host::storage::{Lent, Loan, Sizes};
use wardline_uring::RawPool;

const SHARDS: u8 = 2;
const LINES: usize = 300;
const WATCHED: Duration = Duration::from_secs(1);

#[test]
fn who_has_room_and_takes_nothing_is_not_asked_again_and_again() {
    let settings = Settings::default();
    let mut limits = Limits { connections: 16, topics: 2, ..Limits::DEFAULT };
    limits.line.messages_per_minute = 0;
    let sizes = Sizes::of_shard(&limits, &settings, SHARDS);
    let mut lent = Lent::reserve(&sizes, &settings.quarantine.exempt).expect("memory");
    let Loan { slots, links: tables, pool, .. } = lent.lend_all(None);
    let clock = Clock::start();
    let pool = RawPool::new(pool);
    let mut relay = Relay::new(limits, slots, pool, [7; 32], clock.now()).expect("a relay");
    relay.join(0, tables, Homes::ByName).expect("one of two");
    let tuning = Tuning::for_limits(&limits);
    let listen = ["line://127.0.0.1:0/main".parse().expect("an address")];
    let listener = bind_all(&listen, &tuning).expect("bound").remove(0);
    let (addr, topic) = (listener.addr, relay.listen("main").expect("a topic"));
    let doors = vec![(listener.socket, topic)];
    let orders = Orders::default();
    let mut links = links::connect(SHARDS, &limits);
    // The other shard is we: it hands on a connection that no listener could have accepted.
    let (mut other, mine) = (links.pop().expect("two"), links.pop().expect("two"));
    thread::scope(|scope| {
        let orders = &orders;
        let clients = scope.spawn(move || {
            let _stop = Stop(orders);
            clients(addr, &mut other, topic);
        });
        wardline_uring::ring::serve(relay, doors, clock, tuning, orders, mine, || {})
            .expect("served");
        clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Stops the engine when it goes, also where something has failed.
struct Stop<'o>(&'o Orders);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.tell(Control::Stop);
    }
}

fn clients(addr: SocketAddr, other: &mut Links, topic: TopicId) {
    let (socket, reader) = always_ready();
    let from = SocketAddr::from(([127, 0, 0, 1], 9));
    other
        .hand_on(0, Arrival { stream: TcpStream::from(socket), addr: from, topic, handover: None });
    let mut speaker = TcpStream::connect(addr).expect("connected");
    let mut witness = TcpStream::connect(addr).expect("connected");
    witness.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    thread::sleep(Duration::from_secs(2));
    let mut heard = Vec::new();
    for n in 0..LINES {
        writeln!(speaker, "line {n} {}", "x".repeat(400)).expect("read");
        // One at a time, so that each is a send of its own.
        while heard.iter().filter(|byte| **byte == b'\n').count() <= n {
            let mut part = [0; 4_096];
            let len = witness.read(&mut part).expect("in time");
            heard.extend_from_slice(&part[..len]);
        }
    }
    let before = cpu_ms();
    thread::sleep(WATCHED);
    let spent = cpu_ms() - before;
    assert!(spent < 200, "{spent} ms of work for one who takes nothing");
    // It is served all the same, from where it was.
    let mut got = Vec::new();
    // As long as a send can be, for each comes whole.
    let mut part = vec![0; 256 << 10];
    while got.len() < heard.len() {
        let (len, _) = net::recv(&reader, &mut part[..], RecvFlags::empty()).expect("in time");
        got.extend_from_slice(&part[..len]);
    }
    assert!(got == heard, "something else than others were sent");
}

/// A socket and its peer, which does not read: it always says that it has room, and takes nothing
/// once little is on its way (so does a TCP socket where the kernel is short of memory for them).
fn always_ready() -> (OwnedFd, OwnedFd) {
    let socket = |flags| {
        let kind = (AddressFamily::NETLINK, SocketType::RAW, Some(USERSOCK));
        let socket = net::socket_with(kind.0, kind.1, flags, kind.2).expect("netlink");
        net::bind(&socket, &SocketAddrNetlink::new(0, 0)).expect("a number of its own");
        socket
    };
    let (inside, outside) = (socket(SocketFlags::NONBLOCK), socket(SocketFlags::empty()));
    set_socket_recv_buffer_size(&outside, 8 << 10).expect("an option");
    set_socket_timeout(&outside, Timeout::Recv, Some(Duration::from_secs(20))).expect("an option");
    let name = net::getsockname(&outside).expect("it has one");
    let name = SocketAddrNetlink::try_from(name).expect("of its family");
    net::connect(&inside, &name).expect("connected");
    (inside, outside)
}

/// What this process has used of the processor.
fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a line");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    // User and system time, in hundredths of a second.
    let used = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>());
    used.map(|ticks| ticks.expect("a number") * 10).sum()
}
