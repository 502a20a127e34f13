//! The load itself: publishers that keep a window full, or a rate, and readers that check what they
//! get, in one thread with one epoll.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use serde::Serialize;

use crate::clients::{self, Client};
use crate::interrupt::Interrupt;
use crate::line::{Depth, hex, shown};
use crate::native;
use crate::poll::Poller;
use crate::wire::{Format, Role};

mod open;
mod phase;
mod topic;

pub use open::Open;
use phase::Started;
pub use phase::{Phase, Until};
use topic::{Publisher, Topic};

/// What one receive may bring: a default window of enveloped lines several times over.
const READ_BYTES: usize = 256 * 1024;
/// What one write of a publisher may be made of.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Of the receivers that are not sampled, each so many receives one is checked byte by byte.
const WHOLE_EVERY: u64 = 64;
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
    /// Topics, each with connections of its own.
    pub topics: usize,
    /// Connections of a topic that send.
    pub publishers: usize,
    /// Connections of a topic that only receive.
    pub readers: usize,
    /// Lines of a publisher that some reader did not get yet, at most.
    pub window: u64,
    /// Payload bytes of a line, without its newline.
    pub size: usize,
    /// Messages in a record of the native dialect, at most; 0: as many as fit.
    pub frames: usize,
}

/// Where the load connects, and how one talks there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The server's listeners. Where messages name no topic, each topic has its own; the
    /// connections of an only topic are spread over all of them.
    pub addrs: Vec<SocketAddr>,
    /// The server's wire.
    pub format: Format,
}

/// All connections to one server, and their state.
#[derive(Debug)]
pub struct Traffic {
    workload: Workload,
    format: Format,
    interrupt: Interrupt,
    poller: Poller,
    receivers: Vec<Receiver>,
    topics: Vec<Topic>,
    /// Room for the beginning of a line, then for one receive.
    inbox: Vec<u8>,
    /// How much of the inbox is that room: the longest line there is.
    room: usize,
    clock: Instant,
    latency: Histogram<u64>,
    receives: u64,
    /// What a native connection received, as lines.
    opened: Vec<u8>,
}

/// A connection as what it receives. Those of a topic stand together: first its readers, then its
/// publishers' own.
#[derive(Debug)]
struct Receiver {
    stream: TcpStream,
    topic: usize,
    /// The beginning of a line whose end did not come yet.
    begun: Vec<u8>,
    /// Every line is checked byte by byte, and its latency recorded.
    sampled: bool,
    /// Its end of a native connection, where it is one.
    end: Option<Box<native::End>>,
}

impl Workload {
    /// Connections of a topic that only listen on this wire: one more for each publisher that has
    /// others to hear and cannot do it itself, so that a line goes to as many on every wire.
    fn listeners(&self, format: Format) -> usize {
        if format.publishers_listen() { self.readers } else { self.readers + self.publishers - 1 }
    }

    /// How many connections there are on this wire.
    pub fn connections(&self, format: Format) -> usize {
        self.topics * (self.listeners(format) + self.publishers)
    }
}

/// The name of a topic; all names are equally long.
pub fn topic_name(number: usize) -> String {
    format!("t{number:05}")
}

impl Traffic {
    /// Connects everybody and waits until each receiver hears each publisher.
    pub fn connect(place: &Place, workload: Workload, interrupt: &Interrupt) -> Result<Self> {
        let Place { addrs, format } = place;
        let (format, listeners) = (*format, workload.listeners(*format));
        let each = listeners + workload.publishers;
        let names: Vec<String> = (0..workload.topics).map(topic_name).collect();
        let addr = |index: usize| match (workload.topics, format.names_topics()) {
            (1, _) | (_, true) => addrs[index % each % addrs.len()],
            (_, false) => addrs[index / each],
        };
        let seat = |index: usize| {
            let role = if index % each < listeners { Role::Reader } else { Role::Publisher };
            (role, names[index / each].as_str())
        };
        let count = workload.connections(format);
        let clients = if format.is_native() {
            clients::connect_native(addr, count, format, seat, interrupt)?
        } else {
            let streams = clients::connect_all(addr, count, interrupt)?;
            clients::greet_all(streams, format, seat, interrupt)?
        };
        let poller = Poller::new()?;
        let mut receivers = Vec::with_capacity(clients.len());
        for (index, Client { stream, begun, mut end }) in clients.into_iter().enumerate() {
            if let Some(end) = &mut end {
                end.set_frames_max(workload.frames);
            }
            poller.add(&stream, index as u64, EventFlags::IN)?;
            let (topic, local) = (index / each, index % each);
            let sampled = topic == 0 && [0, listeners / 2, listeners - 1].contains(&local);
            receivers.push(Receiver { stream, topic, begun, sampled, end });
        }
        let mut topics = Vec::with_capacity(names.len());
        for (own, name) in receivers.chunks(each).zip(&names) {
            let first = topics.len() * each;
            topics.push(Topic::new(name, format, workload, own, first)?);
        }
        let room = topics.iter().map(|topic| topic.lines.line_len_max()).max().unwrap_or(0);
        let mut traffic = Self {
            workload,
            format,
            interrupt: interrupt.clone(),
            poller,
            receivers,
            topics,
            // A message of the native dialect may end in a receive that brought no header: its line
            // is longer by its end.
            inbox: vec![0; room + READ_BYTES + 1],
            room,
            clock: Instant::now(),
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
            receives: 0,
            opened: Vec::new(),
        };
        traffic.sync()?;
        Ok(traffic)
    }

    /// Sends until the given end, then waits until everybody got everything.
    pub fn run(&mut self, until: Until) -> Result<Phase> {
        let mut phase = Started::now(self);
        loop {
            let now = Instant::now();
            let mut sending = false;
            for topic in 0..self.topics.len() {
                for publisher in 0..self.workload.publishers {
                    let left = match until {
                        Until::Elapsed(limit) if now - phase.began >= limit => 0,
                        Until::Elapsed(_) => u64::MAX,
                        Until::Messages(limit) => limit - phase.sent_since(self, topic, publisher),
                    };
                    self.top_up(topic, publisher, left)?;
                    sending |= left > 0 || !self.topics[topic].publishers[publisher].out.is_empty();
                }
            }
            if !sending && self.delivered() == self.due() {
                break;
            }
            self.turn(WAIT_MAX)?;
            phase.check(self, now)?;
        }
        phase.end(self)
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

    /// How many lines all receivers got together.
    fn delivered(&self) -> u64 {
        self.topics.iter().map(|topic| topic.tally.delivered()).sum()
    }

    /// How many they must get of what was sent.
    fn due(&self) -> u64 {
        self.topics.iter().map(|topic| topic.tally.due()).sum()
    }

    /// By topic and publisher.
    fn sent(&self) -> Vec<u64> {
        let publishers = 0..self.workload.publishers;
        let of = |topic: &Topic| publishers.clone().map(|p| topic.tally.sent(p)).collect();
        self.topics.iter().flat_map::<Vec<u64>, _>(of).collect()
    }

    /// Asks, in rounds, until one round of every publisher reached every other connection; then
    /// all are registered at the server, and all earlier rounds have been delivered or dropped.
    fn sync(&mut self) -> Result<()> {
        for topic in &mut self.topics {
            let connections = topic.readers + topic.publishers.len();
            topic.syncing = Some(vec![0; connections * topic.publishers.len()]);
        }
        for round in 1..=SYNC_ROUNDS_MAX {
            for topic in 0..self.topics.len() {
                for publisher in 0..self.workload.publishers {
                    let Publisher { stencil, out, .. } =
                        &mut self.topics[topic].publishers[publisher];
                    stencil.write_sync(out, round);
                    self.seal(topic, publisher);
                    self.write(topic, publisher)?;
                }
            }
            let end = Instant::now() + SYNC_ROUND;
            while Instant::now() < end {
                self.turn(SYNC_ROUND)?;
                if self.topics.iter().all(|topic| topic.all_heard(round, self.format)) {
                    self.topics.iter_mut().for_each(|topic| topic.syncing = None);
                    return Ok(());
                }
            }
        }
        bail!("{SYNC_ROUNDS_MAX} times not all connections heard all publishers");
    }

    /// Fills a publisher's window, in one write if the kernel takes it.
    fn top_up(&mut self, topic: usize, number: usize, left: u64) -> Result<()> {
        loop {
            let Topic { publishers, tally, .. } = &mut self.topics[topic];
            let publisher = &mut publishers[number];
            if !publisher.out.is_empty() {
                return Ok(());
            }
            let batch_max = (BATCH_BYTES_MAX / self.workload.size).max(1) as u64;
            let room = tally.room(number, self.workload.window).min(left).min(batch_max);
            if room == 0 {
                return Ok(());
            }
            let stamp = hex(self.clock.elapsed().as_nanos() as u64);
            let first = tally.sent(number);
            for sequence in first..first + room {
                publisher.stencil.write(&mut publisher.out, sequence, &stamp);
            }
            tally.add_sent(number, room);
            self.seal(topic, number);
            self.write(topic, number)?;
            if left < u64::MAX {
                return Ok(());
            }
        }
    }

    /// Makes of a publisher's new lines what its wire wants.
    fn seal(&mut self, topic: usize, number: usize) {
        let publisher = &mut self.topics[topic].publishers[number];
        if let Some(end) = &mut self.receivers[publisher.receiver].end {
            end.seal(&mut publisher.out);
        }
    }

    fn write(&mut self, topic: usize, number: usize) -> Result<()> {
        let publisher = &mut self.topics[topic].publishers[number];
        let stream = &self.receivers[publisher.receiver].stream;
        match net::send(stream, &publisher.out[publisher.written..], SendFlags::NOSIGNAL) {
            Ok(sent) => publisher.written += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => bail!("publisher {number} of topic {topic} cannot send: {error}"),
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
            if flags.contains(EventFlags::OUT)
                && let (topic, Some(publisher)) = self.seat(receiver)
            {
                self.write(topic, publisher)?;
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
        let begin = self.room - receiver.begun.len();
        self.inbox[begin..self.room].copy_from_slice(&receiver.begun);
        let inbox = &mut self.inbox[self.room..self.room + READ_BYTES];
        let got = match net::recv(&receiver.stream, inbox, RecvFlags::empty()) {
            Ok((0, _)) => {
                let begun = String::from_utf8_lossy(&receiver.begun);
                bail!("the server closed the connection; unfinished: {begun:?}");
            }
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => bail!("cannot receive: {error}"),
        };
        let mut got = got;
        if let Some(end) = &mut receiver.end {
            self.opened.clear();
            end.open(&self.inbox[self.room..self.room + got], &mut self.opened)?;
            got = self.opened.len();
            self.inbox[self.room..self.room + got].copy_from_slice(&self.opened);
        }
        let chunk = &self.inbox[begin..self.room + got];
        let topic = &mut self.topics[receiver.topic];
        let publishers = topic.publishers.len();
        let local = number - topic.first;
        let walked = if let Some(rounds) = &mut topic.syncing {
            topic.lines.walk_sync(chunk, &mut rounds[local * publishers..][..publishers])?
        } else {
            self.receives += 1;
            let now_ns = receiver.sampled.then(|| self.clock.elapsed().as_nanos() as u64);
            let whole = receiver.sampled || self.receives.is_multiple_of(WHOLE_EVERY);
            let depth = if whole { Depth::Whole } else { Depth::Counted };
            let (latency, lines) = (&mut self.latency, &mut topic.lines);
            topic.tally.receive(local, |next| {
                lines.walk(chunk, next, depth, |sent_ns, count| {
                    if let Some(now_ns) = now_ns {
                        latency.saturating_record_n(now_ns.saturating_sub(sent_ns), count);
                    }
                })
            })?
        };
        let begun = &chunk[walked.bytes..];
        if begun.len() >= self.room {
            bail!("a line that does not end: {:?}", shown(begun));
        }
        receiver.begun.clear();
        receiver.begun.extend_from_slice(begun);
        if walked.questions > 0 {
            self.answer(number, walked.questions)?;
        }
        Ok(())
    }

    /// Answers what the server asked, behind whatever a publisher still has to send.
    fn answer(&mut self, receiver: usize, times: u64) -> Result<()> {
        let (_, answer) = self.format.question();
        if let (topic, Some(number)) = self.seat(receiver) {
            let publisher = &mut self.topics[topic].publishers[number];
            (0..times).for_each(|_| publisher.out.extend_from_slice(answer));
            return self.write(topic, number);
        }
        for _ in 0..times {
            // Readers send nothing else, so the kernel has room for these few bytes.
            net::send(&self.receivers[receiver].stream, answer, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Its topic, and the number of the publisher that it is there.
    fn seat(&self, receiver: usize) -> (usize, Option<usize>) {
        let topic = self.receivers[receiver].topic;
        let Topic { first, readers, .. } = self.topics[topic];
        (topic, (receiver - first).checked_sub(readers))
    }

    fn name(&self, receiver: usize) -> String {
        let (topic, publisher) = self.seat(receiver);
        let name = match publisher {
            None => format!("reader {}", receiver - self.topics[topic].first),
            Some(publisher) => format!("publisher {publisher}'s own connection"),
        };
        if self.topics.len() == 1 { name } else { format!("topic {topic}, {name}") }
    }

    /// Whoever misses something, and what.
    fn missing(&self) -> Option<String> {
        self.topics.iter().find_map(|topic| {
            let (local, publisher, got, sent) = topic.tally.missing()?;
            let receiver = topic.first + local;
            let begun = shown(&self.receivers[receiver].begun);
            let name = self.name(receiver);
            Some(format!(
                "{name} got {got} of {sent} lines of publisher {publisher}, then {begun:?}"
            ))
        })
    }

    fn stalled(&self) -> String {
        let missing = self.missing().unwrap_or_else(|| "the server takes no more".to_owned());
        format!("nothing came for {} s: {missing}", phase::STALL_MAX.as_secs())
    }
}
