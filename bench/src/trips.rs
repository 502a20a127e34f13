//! Round trips between two clients: from A by the relay to B, and by the relay back to A, with one
//! message in flight. What native clients send is sealed beforehand, and what they are sent is
//! opened afterwards, tags and all: the clients' own work is not in a trip's time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use wardline_core::native::FrameKind;

use crate::clients::wait_accepted;
use crate::interrupt::Interrupt;
use crate::native::End;
use crate::round::{REST, Watch};
use crate::server::Server;
use crate::stats::Round;
use crate::wire::Format;

/// Trips between two looks at the clock, the interrupt, and what came.
const BLOCK: usize = 64;
/// How long one hop may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nothing more comes once nothing came for so long.
const SILENCE: Duration = Duration::from_millis(50);
/// Latencies up to it.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Round trips with one payload, as many as fit in a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trips {
    /// By REQUEST and REPLY, where the server has them.
    pub request: bool,
    /// Payload bytes, each way.
    pub size: usize,
    /// How long the uncounted part is.
    pub warmup: Duration,
    /// How long the counted part is.
    pub counted: Duration,
}

/// Both clients.
struct Pair {
    a: Client,
    b: Client,
    /// By REQUEST and REPLY.
    request: bool,
    payload: Vec<u8>,
    /// Trips so far.
    trips: u64,
}

struct Client {
    stream: TcpStream,
    /// Its end of a native connection, where it is one.
    end: Option<Box<End>>,
    /// What each message that it is sent has around the payload, where that is always the same.
    heard: Vec<u8>,
    /// What it says in this block, and where each message of it ends.
    out: Vec<u8>,
    ends: Vec<usize>,
    /// What it was sent in this block.
    inbox: Vec<u8>,
}

impl Trips {
    /// Does one round with a server that runs; `cores` are its and the load's. A trip is counted as
    /// one delivery.
    ///
    /// # Errors
    /// A message that does not come, or is not what was sent.
    pub fn measure(
        &self,
        server: &Server,
        cores: [Option<usize>; 2],
        interrupt: &Interrupt,
    ) -> Result<Round> {
        let mut pair = Pair::connect(server, self, interrupt)?;
        let mut latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
        pair.run(self.warmup, &mut latency, interrupt)?;
        latency.reset();
        std::thread::sleep(REST);
        let (watch, before) = (Watch::begin(server.pid(), cores)?, pair.trips);
        let began = Instant::now();
        pair.run(self.counted, &mut latency, interrupt)?;
        let elapsed = began.elapsed();
        std::thread::sleep(REST);
        let trips = pair.trips - before;
        Ok(Round { messages: 2 * trips, deliveries: trips, ..watch.end(elapsed, &latency)? })
    }
}

impl Pair {
    fn connect(server: &Server, trips: &Trips, interrupt: &Interrupt) -> Result<Self> {
        let format = server.place().format;
        let payload: Vec<u8> = (b'a'..=b'z').cycle().take(trips.size).collect();
        let [mut a, mut b] = [Client::connect(server)?, Client::connect(server)?];
        if format == Format::Direct {
            for (number, client) in [&mut a, &mut b].into_iter().enumerate() {
                let (end, _) = End::shake(&mut client.stream, number as u64, None)?;
                client.end = Some(Box::new(end));
            }
        } else {
            wait_accepted(&[server.addr().port()], interrupt)?;
            // Accepted is not yet a member: only hearing shows it.
            introduce(&mut a, &mut b, &payload)?;
            introduce(&mut b, &mut a, &payload)?;
            let (at_a, at_b) = (a.stream.local_addr()?, b.stream.local_addr()?);
            for (client, from) in [(&mut a, at_b), (&mut b, at_a)] {
                let around = format.heard("main", trips.size, from);
                client.heard = [&around.head[..], &payload, &around.tail].concat();
            }
        }
        for client in [&a, &b] {
            client.stream.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(Self { a, b, request: trips.request, payload, trips: 0 })
    }

    /// Trips until so much time was spent on them.
    fn run(
        &mut self,
        limit: Duration,
        latency: &mut Histogram<u64>,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut spent = Duration::ZERO;
        while spent < limit {
            interrupt.check()?;
            self.seal();
            let (mut from_a, mut from_b) = (0, 0);
            for trip in 0..BLOCK {
                let began = Instant::now();
                from_a = hop(&mut self.a, &mut self.b, trip, from_a)?;
                from_b = hop(&mut self.b, &mut self.a, trip, from_b)?;
                let took = began.elapsed();
                latency.saturating_record(took.as_nanos() as u64);
                spent += took;
            }
            self.trips += BLOCK as u64;
            self.open()?;
        }
        Ok(())
    }

    /// What both will say in a block.
    fn seal(&mut self) {
        let Self { a, b, request, payload, .. } = self;
        for client in [&mut *a, &mut *b] {
            client.out.clear();
            client.ends.clear();
            client.inbox.clear();
        }
        for _ in 0..BLOCK {
            if let (Some(end_a), Some(end_b)) = (&mut a.end, &mut b.end) {
                let (there, back) = match request {
                    true => (FrameKind::Request, FrameKind::Reply),
                    false => (FrameKind::Direct, FrameKind::Direct),
                };
                let mid = end_a.seal_for(end_b.handle, (there, 0), payload, &mut a.out);
                let corr = if *request { mid } else { 0 };
                end_b.seal_for(end_a.handle, (back, corr), payload, &mut b.out);
            } else {
                for client in [&mut *a, &mut *b] {
                    client.out.extend_from_slice(payload);
                    client.out.push(b'\n');
                }
            }
            a.ends.push(a.out.len());
            b.ends.push(b.out.len());
        }
    }

    /// Looks at what came in a block.
    fn open(&mut self) -> Result<()> {
        let Self { a, b, payload, .. } = self;
        let handles = [&*a, &*b].map(|client| client.end.as_ref().map(|end| end.handle));
        for (client, from) in [(a, handles[1]), (b, handles[0])] {
            let Some(end) = &mut client.end else {
                let same = client.inbox.chunks(client.heard.len()).all(|line| line == client.heard);
                ensure!(same, "a line that nobody sent");
                continue;
            };
            let mut frames = 0;
            let opened = end.open_frames(&client.inbox, |frame| {
                ensure!(frame.payload == payload.as_slice(), "another payload than was sent");
                ensure!(Some(frame.header.peer) == from, "from {:x}", frame.header.peer);
                frames += 1;
                Ok(())
            })?;
            ensure!(opened == client.inbox.len() && frames == BLOCK, "{frames} of {BLOCK} frames");
        }
        Ok(())
    }
}

/// Says something until it is heard, and then until nothing more comes of it.
fn introduce(from: &mut Client, to: &mut Client, payload: &[u8]) -> Result<()> {
    let begin = Instant::now();
    let mut inbox = [0; 4_096];
    to.stream.set_read_timeout(Some(SILENCE))?;
    loop {
        from.stream.write_all(&[payload, b"\n"].concat())?;
        if to.stream.read(&mut inbox).is_ok_and(|len| len > 0) {
            break;
        }
        ensure!(begin.elapsed() < PATIENCE, "one client never hears the other");
    }
    while to.stream.read(&mut inbox).is_ok_and(|len| len > 0) {}
    Ok(())
}

/// The message `nth` of a block, which begins at `at` of what `from` says. Gives where it ends.
fn hop(from: &mut Client, to: &mut Client, nth: usize, at: usize) -> Result<usize> {
    let end = from.ends[nth];
    from.stream.write_all(&from.out[at..end])?;
    let expected = match to.end {
        // A record of its own, as it was sent.
        Some(_) => end - at,
        None => to.heard.len(),
    };
    let begin = to.inbox.len();
    to.inbox.resize(begin + expected, 0);
    let told = to.stream.read_exact(&mut to.inbox[begin..]);
    told.with_context(|| format!("message {nth} of a block does not come"))?;
    Ok(end)
}

impl Client {
    fn connect(server: &Server) -> Result<Self> {
        let stream = TcpStream::connect(server.addr())?;
        stream.set_nodelay(true)?;
        let [out, inbox, heard] = [const { Vec::new() }; 3];
        Ok(Self { stream, end: None, heard, out, ends: Vec::new(), inbox })
    }
}
