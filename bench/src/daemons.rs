//! Many daemons that do nothing but answer, and one client that asks one after the other, at a
//! fixed rate: what a registry of daemons does most of its time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use wardline_core::native::FrameKind;

use crate::interrupt::Interrupt;
use crate::native::End;
use crate::poll::Poller;
use crate::round::{REST, Watch};
use crate::server::Server;
use crate::stats::Round;

/// Requests of a round at least, so that there is a 99th percentile.
const REQUESTS_MIN: usize = 300;
/// How long an answer may take before the round fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a request is due it is waited for awake: a timer is late by some tens of microseconds,
/// which would be the load's and not the relay's.
const AWAKE: Duration = Duration::from_micros(300);
/// Latencies up to it.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Daemons are asked in steps of so many, so that neighbours in tables are not asked on end.
const STEP: usize = 7;

/// Requests to daemons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Daemons {
    /// How many there are.
    pub daemons: usize,
    /// Requests, to one after the other.
    pub per_second: f64,
    /// How long the uncounted part is.
    pub warmup: Duration,
    /// How long the counted part is; longer where that would be too few requests.
    pub counted: Duration,
}

/// All clients: the one that asks stands behind the daemons.
struct Crowd {
    clients: Vec<Client>,
    poller: Poller,
    /// Requests so far.
    asked: usize,
    /// Those that were answered, and when each that was not was due.
    answered: usize,
    waiting: Vec<(u64, Instant)>,
    inbox: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    end: End,
    /// The beginning of a record.
    begun: Vec<u8>,
}

impl Daemons {
    /// Does one round with a server that runs; `cores` are its and the load's. An answer is counted
    /// as one delivery.
    ///
    /// # Errors
    /// A request that is not answered, or not with what was asked.
    pub fn measure(
        &self,
        server: &Server,
        cores: [Option<usize>; 2],
        interrupt: &Interrupt,
    ) -> Result<Round> {
        let mut crowd = Crowd::connect(server, self.daemons, interrupt)?;
        let mut latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?;
        let every = Duration::from_secs_f64(1.0 / self.per_second);
        let count = |span: Duration| (span.as_secs_f64() * self.per_second) as usize;
        crowd.ask(count(self.warmup), every, &mut latency, interrupt)?;
        latency.reset();
        std::thread::sleep(REST);
        let requests = count(self.counted).max(REQUESTS_MIN);
        let (watch, began) = (Watch::begin(server.pid(), cores)?, Instant::now());
        crowd.ask(requests, every, &mut latency, interrupt)?;
        let elapsed = began.elapsed();
        std::thread::sleep(REST);
        let kept = elapsed < (every * requests as u32).mul_f64(1.1) + REST;
        let (messages, deliveries) = (2 * requests as u64, requests as u64);
        let round = watch.end(elapsed, &latency)?;
        Ok(Round { messages, deliveries, rate_kept: Some(kept), ..round })
    }
}

impl Crowd {
    fn connect(server: &Server, daemons: usize, interrupt: &Interrupt) -> Result<Self> {
        let poller = Poller::new()?;
        let mut clients = Vec::with_capacity(daemons + 1);
        for number in 0..=daemons {
            interrupt.check()?;
            let mut stream = TcpStream::connect(server.addr())?;
            stream.set_nodelay(true)?;
            let (end, _) = End::shake(&mut stream, number as u64, None)
                .with_context(|| format!("client {number}"))?;
            stream.set_nonblocking(true)?;
            poller.add(&stream, number as u64, EventFlags::IN)?;
            clients.push(Client { stream, end, begun: Vec::new() });
        }
        let waiting = Vec::new();
        Ok(Self { clients, poller, asked: 0, answered: 0, waiting, inbox: vec![0; 64 << 10] })
    }

    /// Asks so often, and waits until all of it is answered.
    fn ask(
        &mut self,
        requests: usize,
        every: Duration,
        latency: &mut Histogram<u64>,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let began = Instant::now();
        let until = self.answered + requests;
        let mut nth = 0;
        while self.answered < until {
            interrupt.check()?;
            let due = began + every * nth as u32;
            let now = Instant::now();
            if nth < requests && due <= now {
                self.request(due)?;
                nth += 1;
                continue;
            }
            let left = if nth < requests { due - now } else { PATIENCE };
            let ready = self.poller.wait(Some(left.saturating_sub(AWAKE)))?;
            let ready: Vec<usize> = (0..ready).map(|at| self.poller.event(at).0 as usize).collect();
            ensure!(nth < requests || !ready.is_empty(), "{} unanswered", until - self.answered);
            for client in ready {
                self.hear(client, latency).with_context(|| format!("client {client}"))?;
            }
        }
        Ok(())
    }

    /// The next question, to the next daemon. What it asks is its number.
    fn request(&mut self, due: Instant) -> Result<()> {
        let Some((asker, daemons)) = self.clients.split_last_mut() else { bail!("nobody asks") };
        let peer = daemons[self.asked * STEP % daemons.len()].end.handle;
        let question = self.asked.to_string();
        let mut out = Vec::new();
        let mid = asker.end.seal_for(peer, (FrameKind::Request, 0), question.as_bytes(), &mut out);
        asker.stream.write_all(&out)?;
        self.waiting.push((mid, due));
        self.asked += 1;
        Ok(())
    }

    /// What came for a client: a daemon answers, by what it was asked; the other counts.
    fn hear(&mut self, number: usize, latency: &mut Histogram<u64>) -> Result<()> {
        let asker = number + 1 == self.clients.len();
        let Client { stream, end, begun } = &mut self.clients[number];
        let got = stream.read(&mut self.inbox)?;
        let now = Instant::now();
        ensure!(got > 0, "the relay closed it");
        begun.extend_from_slice(&self.inbox[..got]);
        let mut questions = Vec::new();
        let (waiting, answered) = (&mut self.waiting, &mut self.answered);
        let opened = end.open_frames(begun, |frame| {
            let header = &frame.header;
            if !asker {
                ensure!(header.kind == FrameKind::Request, "{header:?}");
                questions.push((header.peer, header.mid, frame.payload.to_vec()));
                return Ok(());
            }
            let known = waiting.iter().position(|(mid, _)| *mid == header.corr);
            let at = known.with_context(|| format!("an answer to nothing: {header:?}"))?;
            let (mid, due) = waiting.remove(at);
            // It asked nothing but this, so its ids count its questions.
            ensure!(frame.payload == (mid - 1).to_string().as_bytes(), "another answer");
            latency.saturating_record((now - due).as_nanos() as u64);
            *answered += 1;
            Ok(())
        })?;
        begun.drain(..opened);
        let mut out = Vec::new();
        for (peer, mid, question) in questions {
            end.seal_for(peer, (FrameKind::Reply, mid), &question, &mut out);
        }
        Ok(stream.write_all(&out)?)
    }
}
