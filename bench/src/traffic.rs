//! The load itself: publishers that keep a window full, readers that check what they get, in one
//! thread with one epoll.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use serde::Serialize;

use crate::clients;
use crate::interrupt::Interrupt;
use crate::line::{Depth, Format, LineFault, Lines, Stencil, hex};
use crate::poll::Poller;
use crate::window::Tally;

/// What one receive may bring: a default window of enveloped lines several times over.
const READ_BYTES: usize = 256 * 1024;
/// What one write of a publisher may be made of.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Of the receivers that are not sampled, each so many receives one is checked byte by byte.
const WHOLE_EVERY: u64 = 64;
/// With no byte from the server for so long while lines are due, the run has failed.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How long one round of asking whether everybody is there may take before the next.
const SYNC_ROUND: Duration = Duration::from_millis(250);
/// How many such rounds there are.
const SYNC_ROUNDS_MAX: u64 = 40;
/// How long a wait lasts at most, so that signals and stalls are seen.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// A minute: above any latency that a run with [`STALL_MAX`] can see.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What is sent by how many to how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Connections that send.
    pub publishers: usize,
    /// Connections that only receive.
    pub readers: usize,
    /// Lines of a publisher that some reader did not get yet, at most.
    pub window: u64,
    /// Payload bytes of a line, without its newline.
    pub size: usize,
}

/// When publishers stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After so long.
    Elapsed(Duration),
    /// After so many lines of each publisher.
    Messages(u64),
}

/// What a phase did, from its first send to its last receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// How long it took.
    pub elapsed: Duration,
    /// Lines that were sent.
    pub messages: u64,
    /// Lines that were received, by all together.
    pub deliveries: u64,
}

/// All connections to one server, and their state.
#[derive(Debug)]
pub struct Traffic {
    workload: Workload,
    interrupt: Interrupt,
    poller: Poller,
    receivers: Vec<Receiver>,
    publishers: Vec<Publisher>,
    lines: Lines,
    tally: Tally,
    /// Room for the beginning of a line, then for one receive.
    inbox: Vec<u8>,
    clock: Instant,
    latency: Histogram<u64>,
    receives: u64,
    /// While set, received lines only say who is there: by receiver each publisher's last round.
    syncing: Option<Vec<u64>>,
}

/// A connection as what it receives; the first are the readers, the rest the publishers' own.
#[derive(Debug)]
struct Receiver {
    stream: TcpStream,
    /// The beginning of a line whose end did not come yet.
    begun: Vec<u8>,
    /// Every line is checked byte by byte, and its latency recorded.
    sampled: bool,
}

/// A connection as what it sends.
#[derive(Debug)]
struct Publisher {
    receiver: usize,
    stencil: Stencil,
    out: Vec<u8>,
    written: usize,
    blocked: bool,
}

impl Traffic {
    /// Connects everybody and waits until each receiver hears each publisher.
    pub fn connect(
        addr: SocketAddr,
        pid: u32,
        format: Format,
        workload: Workload,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let Workload { publishers, readers, size, .. } = workload;
        let streams = clients::connect_all(addr, readers + publishers, pid, interrupt)?;
        let poller = Poller::new()?;
        let mut receivers = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            poller.add(&stream, index as u64, EventFlags::IN)?;
            let sampled = [0, readers / 2, readers - 1].contains(&index);
            receivers.push(Receiver { stream, begun: Vec::new(), sampled });
        }
        let own = &receivers[readers..];
        let from: Vec<_> =
            own.iter().map(|own| own.stream.local_addr()).collect::<Result<_, _>>()?;
        let publishers = (0..publishers).map(|number| Publisher {
            receiver: readers + number,
            stencil: Stencil::new(number, size),
            out: Vec::new(),
            written: 0,
            blocked: false,
        });
        let lines = Lines::new(format, &from, size);
        let mut traffic = Self {
            workload,
            interrupt: interrupt.clone(),
            poller,
            receivers,
            publishers: publishers.collect(),
            inbox: vec![0; lines.line_len_max() + READ_BYTES],
            lines,
            tally: Tally::new(readers, workload.publishers),
            clock: Instant::now(),
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
            receives: 0,
            syncing: None,
        };
        traffic.sync()?;
        Ok(traffic)
    }

    /// Sends until the given end, then waits until everybody got everything.
    pub fn run(&mut self, until: Until) -> Result<Phase> {
        self.latency.reset();
        let (began, first) = (Instant::now(), self.tally.delivered());
        let sent_before: Vec<_> = self.sent();
        let mut heard = (began, first);
        loop {
            let now = Instant::now();
            let mut sending = false;
            for (publisher, &sent_before) in sent_before.iter().enumerate() {
                let left = match until {
                    Until::Elapsed(limit) if now - began >= limit => 0,
                    Until::Elapsed(_) => u64::MAX,
                    Until::Messages(limit) => limit - (self.tally.sent(publisher) - sent_before),
                };
                self.top_up(publisher, left)?;
                sending |= left > 0 || !self.publishers[publisher].out.is_empty();
            }
            if !sending && self.tally.delivered() == self.tally.due() {
                break;
            }
            self.turn(WAIT_MAX)?;
            if heard.1 != self.tally.delivered() {
                heard = (now, self.tally.delivered());
            } else if now - heard.0 > STALL_MAX {
                bail!(self.stalled());
            }
        }
        let elapsed = began.elapsed();
        if let Some((receiver, publisher, got, sent)) = self.tally.missing() {
            bail!("receiver {receiver} got {got} of {sent} lines of publisher {publisher}");
        }
        let messages =
            self.sent().into_iter().zip(&sent_before).map(|(sent, before)| sent - before);
        Ok(Phase { elapsed, messages: messages.sum(), deliveries: self.tally.delivered() - first })
    }

    /// Lets the server fall asleep, and makes sure that nothing more comes than was due.
    pub fn rest(&mut self, rest: Duration) -> Result<()> {
        std::thread::sleep(rest);
        self.turn(Duration::ZERO)
    }

    /// Latencies of the sampled readers in the last phase, in nanoseconds.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    fn sent(&self) -> Vec<u64> {
        (0..self.publishers.len()).map(|publisher| self.tally.sent(publisher)).collect()
    }

    /// Asks, in rounds, until one round of every publisher reached every other connection; then
    /// all are registered at the server, and all earlier rounds have been delivered or dropped.
    fn sync(&mut self) -> Result<()> {
        let publishers = self.publishers.len();
        self.syncing = Some(vec![0; self.receivers.len() * publishers]);
        for round in 1..=SYNC_ROUNDS_MAX {
            for publisher in &mut self.publishers {
                publisher.stencil.write_sync(&mut publisher.out, round);
            }
            for publisher in 0..publishers {
                self.write(publisher)?;
            }
            let end = Instant::now() + SYNC_ROUND;
            while Instant::now() < end {
                self.turn(SYNC_ROUND)?;
                if self.all_heard(round) {
                    self.syncing = None;
                    return Ok(());
                }
            }
        }
        bail!("{SYNC_ROUNDS_MAX} times not all connections heard all publishers");
    }

    fn all_heard(&self, round: u64) -> bool {
        let publishers = self.publishers.len();
        let readers = self.workload.readers;
        let Some(rounds) = &self.syncing else { return true };
        rounds.iter().enumerate().all(|(at, &heard)| {
            let (receiver, publisher) = (at / publishers, at % publishers);
            heard == round || receiver == readers + publisher
        })
    }

    /// Fills a publisher's window, in one write if the kernel takes it.
    fn top_up(&mut self, number: usize, left: u64) -> Result<()> {
        loop {
            let publisher = &mut self.publishers[number];
            if !publisher.out.is_empty() {
                return Ok(());
            }
            let batch_max = (BATCH_BYTES_MAX / self.workload.size).max(1) as u64;
            let room = self.tally.room(number, self.workload.window).min(left).min(batch_max);
            if room == 0 {
                return Ok(());
            }
            let stamp = hex(self.clock.elapsed().as_nanos() as u64);
            let first = self.tally.sent(number);
            for sequence in first..first + room {
                publisher.stencil.write(&mut publisher.out, sequence, &stamp);
            }
            self.tally.add_sent(number, room);
            self.write(number)?;
            if left < u64::MAX {
                return Ok(());
            }
        }
    }

    fn write(&mut self, number: usize) -> Result<()> {
        let publisher = &mut self.publishers[number];
        let stream = &self.receivers[publisher.receiver].stream;
        match net::send(stream, &publisher.out[publisher.written..], SendFlags::NOSIGNAL) {
            Ok(sent) => publisher.written += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => bail!("publisher {number} cannot send: {error}"),
        }
        let blocked = publisher.written < publisher.out.len();
        if !blocked {
            publisher.out.clear();
            publisher.written = 0;
        }
        if blocked != publisher.blocked {
            publisher.blocked = blocked;
            let room = if blocked { EventFlags::OUT } else { EventFlags::empty() };
            self.poller.modify(stream, publisher.receiver as u64, EventFlags::IN | room)?;
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Duration) -> Result<()> {
        self.interrupt.check()?;
        let ready = self.poller.wait(Some(timeout))?;
        for index in 0..ready {
            let (token, flags) = self.poller.event(index);
            let receiver = token as usize;
            if flags.contains(EventFlags::OUT) {
                self.write(receiver - self.workload.readers)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(receiver).with_context(|| self.name(receiver))?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let receiver = &mut self.receivers[number];
        // What is received stands behind the beginning of a line that came earlier.
        let room = self.lines.line_len_max();
        let begin = room - receiver.begun.len();
        self.inbox[begin..room].copy_from_slice(&receiver.begun);
        let got = match net::recv(&receiver.stream, &mut self.inbox[room..], RecvFlags::empty()) {
            Ok((0, _)) => {
                let begun = String::from_utf8_lossy(&receiver.begun);
                bail!("the server closed the connection; unfinished: {begun:?}");
            }
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => bail!("cannot receive: {error}"),
        };
        let chunk = &self.inbox[begin..room + got];
        let used = if let Some(rounds) = &mut self.syncing {
            let publishers = self.publishers.len();
            self.lines.walk_sync(chunk, &mut rounds[number * publishers..][..publishers])?.bytes
        } else {
            self.receives += 1;
            let now_ns = receiver.sampled.then(|| self.clock.elapsed().as_nanos() as u64);
            let whole = receiver.sampled || self.receives.is_multiple_of(WHOLE_EVERY);
            let depth = if whole { Depth::Whole } else { Depth::Counted };
            let (latency, lines) = (&mut self.latency, &mut self.lines);
            let mut used = 0;
            self.tally.receive(number, |next| -> Result<u64, LineFault> {
                let walked = lines.walk(chunk, next, depth, |sent_ns, count| {
                    if let Some(now_ns) = now_ns {
                        latency.saturating_record_n(now_ns.saturating_sub(sent_ns), count);
                    }
                })?;
                used = walked.bytes;
                Ok(walked.lines)
            })?;
            used
        };
        let begun = &chunk[used..];
        if begun.len() >= room {
            let text = String::from_utf8_lossy(&begun[..room.min(300)]);
            bail!("a line that does not end: {text:?}");
        }
        receiver.begun.clear();
        receiver.begun.extend_from_slice(begun);
        Ok(())
    }

    fn name(&self, receiver: usize) -> String {
        match receiver.checked_sub(self.workload.readers) {
            None => format!("reader {receiver}"),
            Some(publisher) => format!("publisher {publisher}'s own connection"),
        }
    }

    fn stalled(&self) -> String {
        let missing = match self.tally.missing() {
            Some((receiver, publisher, got, sent)) => {
                let name = self.name(receiver);
                let begun = String::from_utf8_lossy(&self.receivers[receiver].begun);
                format!("{name} got {got} of {sent} lines of publisher {publisher}, then {begun:?}")
            }
            None => "the server takes no more".to_owned(),
        };
        format!("nothing came for {} s: {missing}", STALL_MAX.as_secs())
    }
}
