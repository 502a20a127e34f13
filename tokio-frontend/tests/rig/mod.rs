//! What the test of each frontend is made of: the server process does not allocate while it relays.
//! A counting allocator sees nothing over ten million messages.
//!
//! The test runs itself a second time as the server, so that the load's own memory is not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use wardline_core::{Duration, Limits, Pool, Relay, TopicId};
use wardline_host::clock::Clock;
use wardline_host::net::Tuning;
use wardline_host::orders::Orders;
use wardline_host::settings::Settings;
use wardline_host::signals::Control;
use wardline_host::storage::{Lent, Sizes};

/// A frontend that is to be shown not to allocate.
pub(crate) trait Frontend {
    /// The kind of pool that its relay has.
    type Pool<'p>: Pool;

    /// A pool in that memory.
    fn pool(memory: &mut [u8]) -> Self::Pool<'_>;

    /// Serves until it was told to stop.
    fn serve(
        relay: Relay<'_, Self::Pool<'_>>,
        doors: Vec<(TcpListener, TopicId)>,
        clock: Clock,
        tuning: Tuning,
        orders: &Orders,
    ) -> io::Result<()>;
}

/// Counts every call that asks for memory.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: each call is handed on to the system's allocator as it came; counting touches no memory
// but an atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERVER: &str = "--as-server";
const READERS: usize = 3;
const WARM_UP: u64 = 500_000;
const MESSAGES: u64 = 10_000_000;
/// Lines in one write: 64 payload bytes each.
const BATCH: u64 = 250;
const LINE: &[u8; 65] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// The whole test, as the `main` of a test without a harness.
pub(crate) fn run<F: Frontend>() {
    if std::env::args().any(|arg| arg == SERVER) {
        serve::<F>();
        return;
    }
    // `cargo test -- --list` and filters of other tests.
    if std::env::args().any(|arg| arg == "--list") {
        println!("no_alloc: test");
        return;
    }
    let (mut server, addr, quiet) = Server::start();
    let mut readers: Vec<TcpStream> = (0..READERS).map(|_| connect(addr)).collect();
    let idle: Vec<TcpStream> = (0..50).map(|_| connect(quiet)).collect();
    let mut publisher = connect(addr);
    publisher.write_all(b"first\n").expect("sent");
    for reader in &mut readers {
        let mut line = String::new();
        BufReader::with_capacity(1, reader).read_line(&mut line).expect("a line");
        assert!(line.contains("\"first\""), "{line}");
    }
    relay(&mut publisher, &mut readers, WARM_UP);
    let before = server.calls();
    relay(&mut publisher, &mut readers, MESSAGES);
    let calls = server.calls() - before;
    let newcomers: Vec<TcpStream> = (0..200).map(|_| connect(quiet)).collect();
    relay(&mut publisher, &mut readers, BATCH);
    let cost = server.calls() - before - calls;
    drop((idle, newcomers));
    println!(
        "{MESSAGES} messages to {READERS} readers: {calls} allocations; 200 newcomers: {cost}"
    );
    // The check can fail: what is allocated is seen.
    let before = server.calls();
    let seen = server.calls_after_one() - before;
    assert_eq!(calls, 0, "the server allocated while it relayed");
    assert!(seen > 0, "the counter counts nothing");
    println!("test no_alloc ... ok");
}

/// Sends `messages` in batches and waits for each at every reader.
fn relay(publisher: &mut TcpStream, readers: &mut [TcpStream], messages: u64) {
    let batch = LINE.repeat(BATCH as usize);
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..messages / BATCH {
        publisher.write_all(&batch).expect("sent");
        for reader in readers.iter_mut() {
            let mut lines = 0;
            while lines < BATCH {
                let len = reader.read(&mut buffer).expect("envelopes");
                assert!(len > 0, "the server closed a reader");
                lines += buffer[..len].iter().filter(|byte| **byte == b'\n').count() as u64;
            }
            assert_eq!(lines, BATCH);
        }
    }
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("connected");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("an option");
    stream
}

/// The other process.
struct Server {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> (Self, SocketAddr, SocketAddr) {
        let mut child = Command::new(std::env::current_exe().expect("a name"))
            .arg(SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let ask = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self { child, ask, answers };
        let addr = server.answer().parse().expect("an address");
        let quiet = server.answer().parse().expect("an address");
        (server, addr, quiet)
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        line.trim().to_owned()
    }

    fn calls(&mut self) -> u64 {
        self.ask.write_all(b"\n").expect("asked");
        self.answer().parse().expect("a number")
    }

    /// The same, after the server has allocated something.
    fn calls_after_one(&mut self) -> u64 {
        self.ask.write_all(b"allocate\n").expect("asked");
        self.answer().parse().expect("a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve<F: Frontend>() {
    let settings = Settings::default();
    let mut limits = Limits::DEFAULT;
    limits.line.messages_per_minute = 0;
    limits.line.idle = Duration::ZERO;
    let sizes = Sizes::of(&limits, &settings);
    let mut lent = Lent::reserve(&sizes, &settings.quarantine.exempt).expect("memory");
    let (slots, pool) = lent.lend();
    let clock = Clock::start();
    let pool = F::pool(pool);
    let mut relay = Relay::new(limits, slots, pool, [7; 32], clock.now()).expect("a relay");
    let mut addrs = Vec::new();
    let mut doors = Vec::new();
    // Who only sits there has a topic where nothing is said.
    for name in ["main", "quiet"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        listener.set_nonblocking(true).expect("nonblocking");
        addrs.push(listener.local_addr().expect("bound"));
        doors.push((listener, relay.listen(name).expect("a topic")));
    }
    let orders = Orders::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            addrs.iter().for_each(|addr| println!("{addr}"));
            let mut line = String::with_capacity(16);
            let mut asked = io::stdin().lock();
            while asked.read_line(&mut line).is_ok_and(|len| len > 0) {
                if line.len() > 1 {
                    std::hint::black_box(Vec::<u8>::with_capacity(1));
                }
                // Read before anything is printed.
                let calls = CALLS.load(Ordering::SeqCst);
                println!("{calls}");
                line.clear();
            }
            orders.tell(Control::Stop);
        });
        F::serve(relay, doors, clock, Tuning::for_limits(&limits), &orders).expect("served");
    });
}
