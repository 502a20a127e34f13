//! What the little relay knows.

use std::collections::{HashMap, VecDeque};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Sender;

use wardline_client::{Code, Identity, SigningKey};
use wardline_core::native::handshake::server::Held;
use wardline_core::native::{
    ClientControl, Frame, FrameHeader, FrameKind, Frames, GapReason, Record, Records,
    ServerControl, Sight, Start, Window1024, digest, flags,
};

/// A session by identity and device.
pub(crate) struct Session {
    pub(crate) identity: Identity,
    pub(crate) device: u32,
    pub(crate) epoch_ms: u64,
    pub(crate) held: Held,
    pub(crate) window: Window1024,
    /// The next number of the kinds with a peer.
    pub(crate) direct: u64,
}

/// A message of a topic.
pub(crate) struct Stored {
    pub(crate) author: u64,
    pub(crate) mid: u64,
    pub(crate) flags: u16,
    pub(crate) ttl_ms: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) epoch: u64,
    pub(crate) log: Vec<Stored>,
    /// What is no longer retained.
    pub(crate) oldest: u64,
}

/// A connection whose session is known.
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) out: Sender<Vec<u8>>,
    pub(crate) records: Records,
    pub(crate) session: usize,
    /// Topics that are read: number, the next message, with echo.
    pub(crate) reads: Vec<(u32, u64, bool)>,
    pub(crate) opened: Vec<u32>,
    /// It hears nothing more.
    pub(crate) mute: bool,
}

/// A cut at the nth message that comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// It is not taken.
    Before(u64),
    /// It is taken, and nobody is told.
    After(u64),
}

/// Faults to be made.
#[derive(Default)]
pub(crate) struct Knobs {
    /// Cuts, by the count of all messages.
    pub(crate) cuts: Vec<Cut>,
    /// Payloads that are refused, and the code.
    pub(crate) nacks: HashMap<Vec<u8>, (Code, u32)>,
    /// What becomes of the next pieces of answers: these flags are turned over; None: it is taken,
    /// and kept back.
    pub(crate) pieces: VecDeque<Option<u16>>,
    /// Topics that nobody may use.
    pub(crate) forbidden: Vec<String>,
    /// So many Subscribes find no room.
    pub(crate) busy: u32,
    /// CLOSE is not answered.
    pub(crate) no_close: bool,
    /// Handshakes are answered with an ALERT.
    pub(crate) alert: Option<(Code, u32)>,
    /// Only the next one is.
    pub(crate) alert_once: bool,
    pub(crate) puzzle_bits: u8,
    /// Connections that begin now take payloads of so many bytes.
    pub(crate) max_payload: Option<u32>,
    /// Of the next PONG this byte is changed on the way.
    pub(crate) spoil: Option<usize>,
}

pub(crate) struct World {
    pub(crate) key: SigningKey,
    pub(crate) knobs: Knobs,
    pub(crate) sessions: Vec<Session>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) conns: HashMap<u64, Conn>,
    pub(crate) handles: u64,
    /// Messages that came, taken or not.
    pub(crate) came: u64,
    pub(crate) resumes: u32,
    pub(crate) fulls: u32,
    epochs: u64,
}

impl World {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self {
            key,
            knobs: Knobs::default(),
            sessions: Vec::new(),
            topics: Vec::new(),
            conns: HashMap::new(),
            handles: 0x0100_0000_0100_0000,
            came: 0,
            resumes: 0,
            fulls: 0,
            epochs: 100,
        }
    }

    pub(crate) fn cut_all(&mut self) {
        for (_, conn) in self.conns.drain() {
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn close_all(&mut self, code: Code, retry_ms: u32) {
        for conn in self.conns.values_mut() {
            let close = conn.records.close(code, 0, retry_ms, 0).unwrap();
            let _ = conn.out.send(close.to_vec());
        }
        if !code.session_survives() {
            self.sessions.clear();
        }
    }

    /// The session of that client: as it was, or anew.
    pub(crate) fn session(
        &mut self,
        identity: Identity,
        device: u32,
        epoch_ms: u64,
        held: Held,
    ) -> usize {
        let known = |each: &Session| (each.identity, each.device) == (identity, device);
        if let Some(at) = self.sessions.iter().position(known) {
            let session = &mut self.sessions[at];
            session.held = held;
            if session.epoch_ms != epoch_ms {
                session.epoch_ms = epoch_ms;
                session.window = Window1024::NEW;
                session.direct = 0;
            }
            return at;
        }
        let (window, direct) = (Window1024::NEW, 0);
        self.sessions.push(Session { identity, device, epoch_ms, held, window, direct });
        self.sessions.len() - 1
    }

    fn control(&mut self, handle: u64, value: &ServerControl<'_>) {
        let Some(conn) = self.conns.get_mut(&handle) else { return };
        let body = value.encode().unwrap();
        let mut record = conn.records.sending.control(body.as_bytes()).unwrap().to_vec();
        record.extend_from_slice(body.as_bytes());
        conn.send(record);
    }

    pub(crate) fn say_taken(&mut self, handle: u64) {
        let session = &self.sessions[self.conns[&handle].session];
        let (mid, direct) = (session.window.highest(), session.direct);
        let seen = if mid == 0 { [0; 128] } else { session.window.seen() };
        self.control(handle, &ServerControl::Taken { mid, seen: &seen, direct });
    }

    /// Acts upon a record. False: the connection is over.
    pub(crate) fn act(&mut self, handle: u64, record: &Record<'_>) -> bool {
        match record {
            Record::Ping(nonce) => {
                let spoil = std::mem::take(&mut self.knobs.spoil);
                if let Some(conn) = self.conns.get_mut(&handle) {
                    let mut pong = conn.records.pong(*nonce).unwrap();
                    if let Some(at) = spoil {
                        pong[at] ^= 1;
                    }
                    conn.send(pong.to_vec());
                }
                true
            }
            Record::Frames(frames) => self.frames(handle, *frames),
            Record::Control(bytes) => {
                self.asked(handle, &ClientControl::decode(bytes).expect("a control value"));
                true
            }
            Record::Close(close) => {
                let no_close = self.knobs.no_close;
                let survives = Code::from_wire(close.code).is_some_and(Code::session_survives);
                let at = self.conns.get(&handle).map(|conn| conn.session);
                if let Some(session) = at.and_then(|at| self.sessions.get_mut(at))
                    && !survives
                {
                    // Nobody has it back.
                    session.held.sid = [0; 16];
                }
                if let Some(conn) = self.conns.get_mut(&handle)
                    && !no_close
                    && !conn.records.sending.is_closed()
                {
                    let close = conn.records.close(Code::Normal, 0, 0, 0).unwrap();
                    conn.send(close.to_vec());
                }
                no_close
            }
            Record::Pong | Record::Rekeyed | Record::Dropped => true,
        }
    }

    fn frames(&mut self, handle: u64, frames: Frames<'_>) -> bool {
        for frame in frames {
            let Some(conn) = self.conns.get_mut(&handle) else { return false };
            self.came += 1;
            let came = self.came;
            let cut = |cut: &Cut| matches!(cut, Cut::Before(nth) | Cut::After(nth) if *nth == came);
            if let Some(at) = self.knobs.cuts.iter().position(cut) {
                conn.mute = true;
                if matches!(self.knobs.cuts.swap_remove(at), Cut::Before(_)) {
                    let _ = conn.stream.shutdown(Shutdown::Both);
                    return false;
                }
                self.take(handle, &frame);
                let _ = self.conns[&handle].stream.shutdown(Shutdown::Both);
                return false;
            }
            self.take(handle, &frame);
        }
        true
    }

    fn take(&mut self, handle: u64, frame: &Frame<'_>) {
        let mid = frame.header.mid;
        let session = self.conns[&handle].session;
        let refused = match self.sessions[session].window.check(mid) {
            Sight::Seen => Some((Code::Duplicate, 0)),
            Sight::Below => Some((Code::Stale, 0)),
            Sight::New => self.knobs.nacks.get(frame.payload).copied(),
        };
        let refused = refused.or_else(|| self.pass_on(handle, frame).err().map(|code| (code, 0)));
        match refused {
            Some((code, retry_ms)) => {
                let code = code.wire();
                self.control(handle, &ServerControl::Nack { mid, code, retry_ms });
            }
            None => {
                self.sessions[session].window.mark(mid);
                if frame.header.has(flags::VERDICT) {
                    self.judge(handle, &frame.header);
                }
            }
        }
    }

    /// How far a message went that was taken last.
    fn judge(&mut self, handle: u64, header: &FrameHeader) {
        let topic = self.topics.iter().find(|each| each.number == header.topic).unwrap();
        let offset = topic.log.len() as u64 - 1;
        let reads = |(of, conn): (&u64, &Conn)| {
            *of != handle && conn.reads.iter().any(|(number, ..)| *number == header.topic)
        };
        let readers = self.conns.iter().filter(|conn| reads(*conn)).count() as u32;
        self.control(handle, &ServerControl::Verdict { mid: header.mid, offset, readers });
    }

    fn pass_on(&mut self, handle: u64, frame: &Frame<'_>) -> Result<(), Code> {
        let header = frame.header;
        if header.kind == FrameKind::Publish {
            let conn = &self.conns[&handle];
            let read = conn.reads.iter().any(|(number, ..)| *number == header.topic);
            if !read && !conn.opened.contains(&header.topic) {
                return Err(Code::Forbidden);
            }
            let topic = self.topics.iter_mut().find(|each| each.number == header.topic);
            let topic = topic.ok_or(Code::Forbidden)?;
            let (mid, ttl_ms, payload) = (header.mid, header.ttl_ms, frame.payload.to_vec());
            let flags = header.flags & !flags::VERDICT;
            topic.log.push(Stored { author: handle, mid, flags, ttl_ms, payload });
            self.catch_up();
            return Ok(());
        }
        let conn = self.conns.get_mut(&header.peer).ok_or(Code::NoRoute)?;
        let session = &mut self.sessions[conn.session];
        let is_piece = header.kind == FrameKind::Stream;
        let turned = self.knobs.pieces.pop_front_if(|_| is_piece).unwrap_or(Some(0));
        let Some(turned) = turned else { return Ok(()) };
        let flags = header.flags ^ turned;
        let header = FrameHeader { peer: handle, offset: session.direct, flags, ..header };
        session.direct += 1;
        conn.frame(&header, frame.payload);
        Ok(())
    }

    /// Each reader is given what it has not had.
    fn catch_up(&mut self) {
        for (handle, conn) in &mut self.conns {
            for at in 0..conn.reads.len() {
                let (number, next, echo) = conn.reads[at];
                let Some(topic) = self.topics.iter().find(|each| each.number == number) else {
                    continue;
                };
                let mut body = Vec::new();
                for offset in next..topic.log.len() as u64 {
                    let stored = &topic.log[offset as usize];
                    if stored.author == *handle && !echo {
                        continue;
                    }
                    let mut header = publish(number);
                    (header.peer, header.mid) = (stored.author, stored.mid);
                    (header.flags, header.offset) = (stored.flags, offset);
                    header.ttl_ms = stored.ttl_ms;
                    if body.len() + stored.payload.len() > 16_384 {
                        conn.body(&std::mem::take(&mut body));
                    }
                    body.extend_from_slice(&header.to_bytes(stored.payload.len() as u32));
                    body.extend_from_slice(&stored.payload);
                }
                if !body.is_empty() {
                    conn.body(&body);
                }
                conn.reads[at].1 = topic.log.len() as u64;
            }
        }
    }

    /// Somebody of the line dialect says something.
    pub(crate) fn line_says(&mut self, name: &str, payload: &[u8]) {
        self.lines_say(name, &[payload]);
    }

    /// Several things, which go out in one record.
    pub(crate) fn lines_say(&mut self, name: &str, payloads: &[&[u8]]) {
        let number = self.topic(name);
        let topic = self.topics.iter_mut().find(|each| each.number == number).unwrap();
        let (author, mid) = (0x0100_0000_0000_0007, 0);
        for payload in payloads {
            let payload = payload.to_vec();
            topic.log.push(Stored { author, mid, flags: flags::LINE, ttl_ms: 0, payload });
        }
        self.catch_up();
    }

    fn topic(&mut self, name: &str) -> u32 {
        if let Some(topic) = self.topics.iter().find(|each| each.name == name) {
            return topic.number;
        }
        self.epochs += 1;
        let number = 0x0100_0000 + self.epochs as u32;
        let (name, epoch, log, oldest) = (name.to_owned(), self.epochs, Vec::new(), 0);
        self.topics.push(Topic { name, number, epoch, log, oldest });
        number
    }

    fn asked(&mut self, handle: u64, value: &ClientControl<'_>) {
        let no = |ask, code: Code| ServerControl::Refused { ask, code: code.wire(), retry_ms: 0 };
        match *value {
            ClientControl::Subscribe { ask, name, from, echo, presence: _ } => {
                if self.knobs.forbidden.iter().any(|each| each == name) {
                    return self.control(handle, &no(ask, Code::Forbidden));
                }
                if self.knobs.busy > 0 {
                    self.knobs.busy -= 1;
                    return self.control(handle, &no(ask, Code::Overloaded));
                }
                let topic = self.topic(name);
                self.subscribe(handle, ask, topic, from, echo);
            }
            ClientControl::Open { ask, name } => {
                if self.knobs.forbidden.iter().any(|each| each == name) {
                    return self.control(handle, &no(ask, Code::Forbidden));
                }
                let topic = self.topic(name);
                if let Some(conn) = self.conns.get_mut(&handle) {
                    conn.opened.push(topic);
                }
                self.control(handle, &ServerControl::Opened { ask, topic });
            }
            ClientControl::Unsubscribe { topic } => {
                if let Some(conn) = self.conns.get_mut(&handle) {
                    conn.reads.retain(|(number, ..)| *number != topic);
                    conn.opened.retain(|number| *number != topic);
                }
            }
            ClientControl::Resolve { ask, identity } => {
                let whose = |conn: &Conn, world: &Self| {
                    *world.sessions[conn.session].identity.as_bytes() == identity
                };
                self.list(handle, ask, &|conn, world| whose(conn, world));
            }
            ClientControl::Who { ask, topic, after: _ } => {
                let reads = |conn: &Conn| conn.reads.iter().any(|(number, ..)| *number == topic);
                self.list(handle, ask, &|conn, _| reads(conn));
            }
            ClientControl::Identify { ask, handle: of } => match self.conns.get(&of) {
                Some(conn) => {
                    let session = &self.sessions[conn.session];
                    let (identity, device) = (*session.identity.as_bytes(), session.device);
                    let value = ServerControl::Identity { ask, handle: of, identity, device };
                    self.control(handle, &value);
                }
                None => self.control(handle, &no(ask, Code::NoRoute)),
            },
            ClientControl::Credit { peer, corr, bytes } => {
                self.control(peer, &ServerControl::Credit { peer: handle, corr, bytes });
            }
        }
    }

    fn list(&mut self, handle: u64, ask: u32, wanted: &dyn Fn(&Conn, &Self) -> bool) {
        let mut found = Vec::new();
        for (of, conn) in &self.conns {
            if wanted(conn, self) {
                let session = &self.sessions[conn.session];
                found.push((*of, *session.identity.as_bytes(), session.device));
            }
        }
        found.sort_unstable();
        for (of, identity, device) in found {
            self.control(handle, &ServerControl::Identity { ask, handle: of, identity, device });
        }
        self.control(handle, &ServerControl::Done { ask, next: 0 });
    }

    fn subscribe(&mut self, handle: u64, ask: u32, number: u32, from: Start, echo: bool) {
        let topic = self.topics.iter().find(|each| each.number == number).unwrap();
        let (epoch, next, oldest) = (topic.epoch, topic.log.len() as u64, topic.oldest);
        let wanted = match from {
            Start::Now => next,
            Start::Last(count) => next.saturating_sub(u64::from(count)).max(oldest),
            Start::Offset { epoch: of, offset } if of == epoch => offset,
            Start::Offset { .. } => oldest,
        };
        let topic = number;
        self.control(handle, &ServerControl::Subscribed { ask, topic, epoch, next, oldest });
        if wanted < oldest {
            let reason = GapReason::Retention as u8;
            let gap = ServerControl::Gap { topic, from: wanted, to: oldest, reason };
            self.control(handle, &gap);
        }
        if let Some(conn) = self.conns.get_mut(&handle) {
            conn.reads.retain(|(each, ..)| *each != number);
            conn.reads.push((number, wanted.max(oldest), echo));
        }
        self.catch_up();
    }
}

impl Conn {
    fn send(&self, bytes: Vec<u8>) {
        if !self.mute {
            let _ = self.out.send(bytes);
        }
    }

    fn frame(&mut self, header: &FrameHeader, payload: &[u8]) {
        let mut body = header.to_bytes(payload.len() as u32).to_vec();
        body.extend_from_slice(payload);
        self.body(&body);
    }

    fn body(&mut self, body: &[u8]) {
        let head = self.records.sending.frames(body.len() as u32, &digest(body)).unwrap();
        let mut record = head.to_vec();
        record.extend_from_slice(body);
        self.send(record);
    }
}

fn publish(topic: u32) -> FrameHeader {
    FrameHeader { topic, ..FrameHeader::new(FrameKind::Publish) }
}
