//! One turn of each engine over a socket pair: a line in, an envelope out; and a window of them.
//! Each engine runs in a thread of this process; what is timed is a client's round trip.

#[cfg(not(all(target_os = "linux", not(wardline_portable))))]
fn main() {}

#[cfg(all(target_os = "linux", not(wardline_portable)))]
fn main() {
    linux::engines();
}

#[cfg(all(target_os = "linux", not(wardline_portable)))]
mod linux {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;

    use criterion::{Criterion, Throughput};
    use wardline_core::{Limits, Pool, Relay, TopicId};
    use wardline_host::clock::{self, Clock};
    use wardline_host::links::Links;
    use wardline_host::net::{Tuning, bind_all};
    use wardline_host::orders::Orders;
    use wardline_host::settings::Settings;
    use wardline_host::signals::Control;
    use wardline_host::storage::{Lent, Sizes};
    use wardline_uring::{RawPool, compat, probe, ring};

    const LINE: &[u8; 65] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";
    const WINDOW: usize = 256;

    pub(super) fn engines() {
        let mut criterion = Criterion::default().configure_from_args();
        with(&mut criterion, "tokio", |shard| {
            let Shard { limits, mut lent, doors, orders } = shard;
            let (slots, pool) = lent.lend();
            let (relay, doors) = relay(limits, slots, pool, doors);
            let (clock, tuning) = (Clock::start(), Tuning::for_limits(&limits));
            let links = Links::alone();
            wardline_tokio::serve(relay, doors, clock, tuning, &orders, links, || {})
        });
        match probe::tokio_uring() {
            Err(why) => eprintln!("SKIPPED: tokio-uring: {why}"),
            Ok(()) => with(&mut criterion, "tokio-uring", |shard| {
                let Shard { limits, mut lent, doors, orders } = shard;
                let (slots, pool) = lent.lend();
                let (relay, doors) = relay(limits, slots, RawPool::new(pool), doors);
                let (clock, tuning) = (Clock::start(), Tuning::for_limits(&limits));
                compat::serve(relay, doors, clock, tuning, &orders, Links::alone(), || {})
            }),
        }
        match probe::ring() {
            Err(why) => eprintln!("SKIPPED: ring: {why}"),
            Ok(()) => with(&mut criterion, "ring", |shard| {
                let Shard { limits, mut lent, doors, orders } = shard;
                let (slots, pool) = lent.lend();
                let (relay, doors) = relay(limits, slots, RawPool::new(pool), doors);
                let (clock, tuning) = (Clock::start(), Tuning::for_limits(&limits));
                ring::serve(relay, doors, clock, tuning, &orders, Links::alone(), || {})
            }),
        }
        criterion.final_summary();
    }

    /// What an engine's thread is given.
    struct Shard {
        limits: Limits,
        lent: Lent,
        doors: Vec<TcpListener>,
        orders: Arc<Orders>,
    }

    /// A relay, and its listeners with their topic.
    type Made<'s, P> = (Relay<'s, P>, Vec<(TcpListener, TopicId)>);

    fn relay<'s, P: Pool>(
        limits: Limits,
        slots: wardline_core::Slots<'s>,
        pool: P,
        doors: Vec<TcpListener>,
    ) -> Made<'s, P> {
        let seed = clock::seed().expect("random bytes");
        let mut relay =
            Relay::new(limits, slots, pool, seed, Clock::start().now()).expect("a relay");
        let topic = relay.listen("main").expect("a topic");
        (relay, doors.into_iter().map(|door| (door, topic)).collect())
    }

    fn with(
        criterion: &mut Criterion,
        name: &str,
        serve: impl FnOnce(Shard) -> std::io::Result<()> + Send,
    ) {
        let mut limits = Limits { connections: 64, ..Limits::DEFAULT };
        limits.line.messages_per_minute = 0;
        let settings = Settings::default();
        let lent = Lent::reserve(&Sizes::of(&limits, &settings), &settings.quarantine.exempt)
            .expect("memory");
        let listen = ["line://127.0.0.1:0".parse().expect("a URL")];
        let bound = bind_all(&listen, &Tuning::for_limits(&limits)).expect("a port");
        let addr = bound[0].addr;
        let doors = bound.into_iter().map(|listener| listener.socket).collect();
        let orders = Arc::new(Orders::default());
        let shard = Shard { limits, lent, doors, orders: Arc::clone(&orders) };
        thread::scope(|scope| {
            let engine = scope.spawn(|| serve(shard));
            let connect = || {
                let stream = TcpStream::connect(addr).expect("connected");
                stream.set_nodelay(true).expect("an option");
                stream
            };
            let (mut speaker, mut reader) = (connect(), connect());
            hear_one(&mut speaker, &mut reader);
            let mut group = criterion.benchmark_group(format!("engine {name}"));
            for lines in [1, WINDOW] {
                let batch = LINE.repeat(lines);
                group.throughput(Throughput::Elements(lines as u64));
                group.bench_function(format!("{lines} in, {lines} out"), |bencher| {
                    bencher.iter(|| {
                        speaker.write_all(&batch).expect("sent");
                        hear(&mut reader, lines);
                    });
                });
            }
            group.finish();
            orders.tell(Control::Stop);
            engine.join().expect("no panic").expect("served");
        });
    }

    /// Until both are members: only hearing shows it.
    fn hear_one(speaker: &mut TcpStream, reader: &mut TcpStream) {
        let patience = std::time::Duration::from_millis(50);
        reader.set_read_timeout(Some(patience)).expect("an option");
        let mut byte = [0];
        loop {
            speaker.write_all(LINE).expect("sent");
            if matches!(reader.read(&mut byte), Ok(1)) {
                break;
            }
        }
        while reader.read(&mut [0; 4_096]).is_ok_and(|len| len > 0) {}
        reader.set_read_timeout(None).expect("an option");
    }

    fn hear(reader: &mut TcpStream, lines: usize) {
        let mut buffer = [0; 1 << 16];
        let mut heard = 0;
        while heard < lines {
            let len = reader.read(&mut buffer).expect("envelopes");
            assert!(len > 0, "the relay closed its reader");
            heard += buffer[..len].iter().filter(|byte| **byte == b'\n').count();
        }
    }
}
