//! The ring engine under chance: clients of many kinds over real sockets, chosen by a seed, and a
//! verdict that does not depend on how it went.
//!
//! - *Speakers* write numbered lines of many lengths in pieces of many lengths, and read.
//! - *Slow* readers take little at a time, with pauses, and must get everything.
//! - *Rude* ones come, read a while, and reset their connections in the middle of what they are
//!   sent; their places are taken by the next. What they did get must be whole and in order.
//!
//! In the end everybody who stayed has had each line of each other speaker once, in order, and is
//! told that the server shuts down; no descriptor and no worker thread of the kernel is left.
#![cfg(all(target_os = "linux", not(wardline_portable)))]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use wardline_core::{Limits, Relay};
use wardline_host::clock::Clock;
use wardline_host::links::Links;
use wardline_host::net::{Tuning, bind_all};
use wardline_host::orders::Orders;
use wardline_host::settings::Settings;
use wardline_host::signals::Control;
use wardline_host::storage::{Lent, Sizes};
use wardline_uring::RawPool;

const SPEAKERS: usize = 6;
const SLOW: usize = 4;
const RUDE: usize = 12;
const LINES: u64 = 3_000;
const LINE_MAX: u64 = 3_000;
/// Smaller, and TCP itself lets them wait: a segment on loopback is as long.
const SLOW_BUFFER: usize = 128 << 10;
const GOODBYE: &str = "Warning: Server is shutting down.\n";

/// Choices that follow from a seed (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }

    fn nap(&mut self, microseconds: u64) {
        thread::sleep(Duration::from_micros(self.below(microseconds)));
    }
}

#[test]
fn every_line_is_accounted_for_whatever_the_clients_do() {
    for seed in 1..=3 {
        // A ring that is gone is taken apart by the kernel some time later.
        let before = descriptors();
        serve_while(|addr, tell_end| storm(seed, addr, tell_end));
        assert_eq!(descriptors(), before, "seed {seed}: descriptors are left open");
    }
}

/// Serves on this thread while `clients` run on others; they are given what ends the relay.
fn serve_while(clients: impl FnOnce(SocketAddr, &dyn Fn()) + Send) {
    let settings = Settings::default();
    let mut limits = Limits { connections: 64, topics: 4, ..Limits::DEFAULT };
    limits.line.messages_per_minute = 0;
    let mut lent =
        Lent::reserve(&Sizes::of(&limits, &settings), &settings.quarantine.exempt).expect("memory");
    let (slots, pool) = lent.lend();
    let clock = Clock::start();
    let pool = RawPool::new(pool);
    let mut relay = Relay::new(limits, slots, pool, [7; 32], clock.now()).expect("a relay");
    let tuning = Tuning::for_limits(&limits);
    let listen = ["line://127.0.0.1:0/main".parse().expect("an address")];
    let listener = bind_all(&listen, &tuning).expect("bound").remove(0);
    let addr = listener.addr;
    let doors = vec![(listener.socket, relay.listen("main").expect("a topic"))];
    let orders = Orders::default();
    thread::scope(|scope| {
        let orders = &orders;
        let clients = scope.spawn(move || clients(addr, &|| orders.tell(Control::Drain)));
        wardline_uring::ring::serve(relay, doors, clock, tuning, orders, Links::alone(), || {})
            .expect("served");
        clients.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn storm(seed: u64, addr: SocketAddr, tell_end: &dyn Fn()) {
    let speakers: Vec<TcpStream> = (0..SPEAKERS).map(|_| connect(addr)).collect();
    let slow: Vec<TcpStream> = (0..SLOW).map(|_| connect_small(addr, SLOW_BUFFER)).collect();
    // All of them have been taken once one has heard another that came last.
    settle(&speakers, &slow);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = Sets(&over);
        for (n, stream) in speakers.iter().enumerate() {
            let rng = Rng(seed << 32 | n as u64);
            scope.spawn(move || speak(stream, n, rng));
        }
        let mut readers = Vec::new();
        for (n, stream) in speakers.iter().enumerate() {
            readers.push(scope.spawn(move || read_all(stream, Some(n), Rng(0), false)));
        }
        for (n, stream) in slow.iter().enumerate() {
            let rng = Rng(seed << 32 | 0x100 | n as u64);
            readers.push(scope.spawn(move || read_all(stream, None, rng, true)));
        }
        let over = &over;
        for n in 0..RUDE as u64 {
            scope.spawn(move || be_rude(addr, over, Rng(seed << 32 | 0x200 | n)));
        }
        for reader in readers {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        drop(end);
    });
    assert!(!workers(), "the kernel needed threads for what ought to need none");
    tell_end();
    for mut stream in speakers.into_iter().chain(slow) {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("an end");
        assert_eq!(rest, GOODBYE);
    }
}

/// Sets it when it goes, also where something has failed.
struct Sets<'o>(&'o AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connected");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("an option");
    stream
}

/// With a receive buffer that is full soon.
fn connect_small(addr: SocketAddr, bytes: usize) -> TcpStream {
    let stream = connect(addr);
    SockRef::from(&stream).set_recv_buffer_size(bytes).expect("an option");
    stream
}

/// Waits until each hears what the last that came says, and it what they say.
fn settle(speakers: &[TcpStream], slow: &[TcpStream]) {
    let (last, others) = speakers.split_last().expect("speakers");
    let hear = |mut stream: &TcpStream| {
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).expect("a line");
        }
    };
    // Who was taken after this was said does not hear it: those come before the last in the
    // listener's queue, all but the slow ones, which a second line shows.
    { last }.write_all(b"0 hello\n").expect("said");
    others.iter().for_each(hear);
    thread::sleep(Duration::from_millis(50));
    for stream in slow {
        stream.set_nonblocking(true).expect("an option");
        let _ = { stream }.read(&mut [0; 256]);
        stream.set_nonblocking(false).expect("an option");
    }
}

/// Writes `LINES` lines: `number speaker filling`.
fn speak(mut stream: &TcpStream, speaker: usize, mut rng: Rng) {
    let mut waiting = Vec::new();
    for number in 1..=LINES {
        let filling = match rng.below(20) {
            0 => rng.below(LINE_MAX),
            _ => rng.below(100),
        };
        writeln!(waiting, "{number} {speaker} {}", "x".repeat(filling as usize)).expect("written");
        // Often in the middle of a line.
        let ready = match rng.below(4) {
            0 => waiting.len(),
            _ => rng.below(waiting.len() as u64) as usize,
        };
        stream.write_all(&waiting[..ready]).expect("taken");
        waiting.drain(..ready);
        if rng.below(16) == 0 {
            rng.nap(2_000);
        }
    }
    stream.write_all(&waiting).expect("taken");
}

/// Checks that what one connection is sent is whole, in order, and without holes.
#[derive(Default)]
struct Account {
    /// The number of the last line of each speaker.
    last: HashMap<u64, u64>,
    lines: u64,
}

impl Account {
    fn enter(&mut self, line: &str) {
        let content =
            line.strip_prefix("{\"content\":\"").unwrap_or_else(|| panic!("no envelope: {line:?}"));
        let (content, rest) = content.split_once("\",\"remote_addr\":\"127.0.0.1:").expect(line);
        assert!(rest.ends_with("\"}\n"), "the end of an envelope: {line:?}");
        let mut words = content.splitn(3, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (number, speaker) = (number().expect(line), number().expect(line));
        let last = self.last.insert(speaker, number).unwrap_or(number - 1);
        assert_eq!(number, last + 1, "speaker {speaker}: {line:?}");
        self.lines += 1;
    }
}

/// Reads until each line of each other speaker has come.
fn read_all(stream: &TcpStream, own: Option<usize>, mut rng: Rng, slow: bool) {
    let others = SPEAKERS - usize::from(own.is_some());
    let mut account = Account::default();
    let mut reader = BufReader::with_capacity(if slow { 2_000 } else { 1 << 16 }, stream);
    let mut line = String::new();
    while account.lines < others as u64 * LINES {
        line.clear();
        assert!(reader.read_line(&mut line).expect("a line") > 0, "closed: {:?}", account.last);
        account.enter(&line);
        if slow && rng.below(200) == 0 {
            rng.nap(10_000);
        }
    }
    assert!(reader.buffer().is_empty(), "more than everything");
    assert!(own.is_none_or(|own| !account.last.contains_key(&(own as u64))), "its own lines");
    assert_eq!(account.last.len(), others);
    assert!(account.last.values().all(|last| *last == LINES));
}

/// Comes, reads a while, and resets the connection, over and over.
fn be_rude(addr: SocketAddr, over: &AtomicBool, mut rng: Rng) {
    while !over.load(Ordering::Relaxed) {
        let stream = if rng.below(2) == 0 { connect(addr) } else { connect_small(addr, 4 << 10) };
        let socket = SockRef::from(&stream);
        if rng.below(4) > 0 {
            socket.set_linger(Some(Duration::ZERO)).expect("an option");
            if rng.below(3) == 0 {
                // Half a line, which nobody must see: the writer does not finish, it is gone.
                let _ = (&stream).write_all(b"never to be fini");
            }
        }
        let mut account = Account::default();
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1 + rng.below(9_000) as usize, &stream);
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("an option");
        for _ in 0..rng.below(400) {
            line.clear();
            match reader.read_line(&mut line) {
                // All places are taken: of those who are gone, some are still being told so.
                Ok(1..) if line.starts_with("Warning: The relay is full") => break,
                Ok(1..) => account.enter(&line),
                // Nobody speaks any more.
                Ok(0) | Err(_) => break,
            }
        }
        rng.nap(3_000);
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("a list").count()
}

/// Whether the kernel started worker threads for a ring.
fn workers() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a list");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .any(|name| name.starts_with("iou-wrk"))
}
