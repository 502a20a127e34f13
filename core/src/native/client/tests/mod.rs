//! Two parties: the client's half against the relay's half of the wire.

extern crate std;

mod cuts;
mod rules;
mod table;

use std::vec::Vec;

use super::*;
use crate::native::handshake::client::{Answered, Connected};
use crate::native::handshake::server::{FirstRecord, Held};
use crate::native::testing::pair::{self, GRANTED, NOW, Reply};
use crate::native::{
    ClientControl, Code, FrameHeader, FrameKind, FrameWriter, Next, Record, Records, ServerControl,
    Sight, Window1024, digest,
};
use crate::time::Instant;

pub(super) type Lent = [Slot; 64];
pub(super) const ROOM: usize = 64;

pub(super) fn session() -> Session<Lent> {
    Session::new([Slot::default(); ROOM], 1_000)
}

/// A relay with one session.
pub(super) struct Relay {
    pub(super) held: Option<Held>,
    pub(super) records: Option<Records>,
    pub(super) window: Window1024,
    pub(super) direct: u64,
    /// What was taken, in order, over all runs.
    pub(super) taken: Vec<u64>,
    /// Refuse these once, by the remainder of their ids.
    pub(super) refuse: Option<u64>,
    /// To the client.
    pub(super) out: Vec<u8>,
}

impl Relay {
    pub(super) fn new() -> Self {
        let (window, taken, out) = (Window1024::NEW, Vec::new(), Vec::new());
        Self { held: None, records: None, window, direct: 0, taken, refuse: None, out }
    }

    /// It was started anew: it knows nobody.
    pub(super) fn forget(&mut self) {
        self.held = None;
        self.window = Window1024::NEW;
        self.direct = 0;
    }

    pub(super) fn control(&mut self, value: &ServerControl<'_>) {
        let body = value.encode().expect("a value");
        let records = self.records.as_mut().expect("a connection");
        let header = records.sending.control(body.as_bytes()).expect("a record");
        self.out.extend_from_slice(&header);
        self.out.extend_from_slice(body.as_bytes());
    }

    pub(super) fn say_taken(&mut self) {
        let (mid, seen, direct) = (self.window.highest(), self.window.seen(), self.direct);
        let seen = if mid == 0 { [0; 128] } else { seen };
        self.control(&ServerControl::Taken { mid, seen: &seen, direct });
    }

    /// Queues a DIRECT for the client, and counts it.
    pub(super) fn say_direct(&mut self) {
        let header = FrameHeader {
            peer: 77,
            mid: 5,
            offset: self.direct,
            ..FrameHeader::new(FrameKind::Direct)
        };
        self.direct += 1;
        self.frame(&header);
    }

    pub(super) fn frame(&mut self, header: &FrameHeader) {
        let mut room = [0; 64];
        let mut writer = FrameWriter::new(&mut room);
        assert!(writer.put(header, b"hello"));
        let body = writer.written();
        let records = self.records.as_mut().expect("a connection");
        let head = records.sending.frames(body.len() as u32, &digest(body)).expect("a record");
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(body);
    }

    pub(super) fn close(&mut self, code: Code, retry_ms: u32) {
        let records = self.records.as_mut().expect("a connection");
        let close = records.close(code, 0, retry_ms, 0).expect("a CLOSE");
        self.out.extend_from_slice(&close);
    }

    /// Takes what came.
    pub(super) fn take(&mut self, now: Instant, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(records) = self.records.as_mut() {
            if records.receiving.is_over() {
                return;
            }
            let (record, len) = match records.next(now, rest).expect("a good record") {
                Next::More(_) => return,
                Next::Record(record, len) => (record, len),
            };
            self.act(&record);
            rest = &rest[len..];
        }
    }

    pub(super) fn act(&mut self, record: &Record<'_>) {
        let records = self.records.as_mut().expect("a connection");
        match record {
            Record::Ping(nonce) => {
                let pong = records.pong(*nonce).expect("a PONG");
                self.out.extend_from_slice(&pong);
            }
            Record::Frames(frames) => {
                for frame in *frames {
                    self.publish(frame.header.mid);
                }
            }
            Record::Close(_) if !records.sending.is_closed() => self.close(Code::Normal, 0),
            Record::Close(_) | Record::Pong | Record::Rekeyed | Record::Dropped => {}
            Record::Control(value) => {
                assert!(ClientControl::decode(value).is_ok());
            }
        }
    }

    fn publish(&mut self, mid: u64) {
        let code = match self.window.check(mid) {
            Sight::Seen => Code::Duplicate,
            Sight::Below => Code::Stale,
            Sight::New if self.refuse.is_some_and(|nth| mid % 7 == nth) => Code::Busy,
            Sight::New => {
                self.window.mark(mid);
                self.taken.push(mid);
                return;
            }
        };
        self.control(&ServerControl::Nack { mid, code: code.wire(), retry_ms: 0 });
    }
}

/// Connects; a resume is proved by what the session sends first. True: it was one.
pub(super) fn connect(session: &mut Session<Lent>, relay: &mut Relay, now: Instant) -> bool {
    let key = pair::client_key();
    relay.out.clear();
    let held = session.resumption().copied();
    let (hello, wait) = pair::attempt(&key, held.as_ref()).hello();
    match pair::serve_hello(hello.as_bytes(), relay.held.as_ref(), 0).expect("an answer") {
        Reply::Challenge(challenge, wait_s) => {
            let (auth, wait) = pair::client_auth(wait, challenge.as_bytes()).expect("AUTH");
            let (accept, established) = pair::serve_auth(wait_s, auth.as_bytes()).expect("ACCEPT");
            let connected = wait.accept(accept.as_bytes(), NOW).expect("connected");
            begin(session, &connected, now);
            relay.held = Some(established.held());
            relay.records = Some(established.records());
            relay.say_taken();
            false
        }
        Reply::Resumed(resumed, waiting) => {
            let answered = wait.answer(resumed.as_bytes(), NOW).expect("resumed");
            let Answered::Resumed(connected) = answered else { panic!("not resumed") };
            begin(session, &connected, now);
            let ping = session.poll_output(now).expect("a PING at once");
            let first = waiting.record(NOW, ping.as_bytes()).expect("a record");
            let FirstRecord::Proved(proved, Next::Record(record, _)) = first else {
                panic!("not proved")
            };
            relay.records = Some(proved.records());
            relay.say_taken();
            relay.act(&record);
            true
        }
    }
}

fn begin(session: &mut Session<Lent>, connected: &Connected, now: Instant) {
    session.handle_connected(now, connected);
    assert_eq!(session.granted(), Some(GRANTED));
    assert_eq!(session.handle(), pair::HANDLE);
    assert!(!session.is_ready() && session.next_unsent().is_none());
}

/// All that the session has to send: small records and frames, up to four in each.
pub(super) fn flush(session: &mut Session<Lent>, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(mut mid) = session.next_unsent() {
        let mut room = [0; 300];
        let mut writer = FrameWriter::new(&mut room);
        let mut last = mid;
        for _ in 0..4 {
            assert!(writer.put(&publish(mid), b"hello"));
            last = mid;
            match session.next_unsent_after(mid) {
                Some(next) => mid = next,
                None => break,
            }
        }
        out.extend_from_slice(&session.frames(last, writer.written()).expect("a header"));
        out.extend_from_slice(writer.written());
    }
    while let Some(small) = session.poll_output(now) {
        out.extend_from_slice(small.as_bytes());
    }
    out
}

pub(super) fn publish(mid: u64) -> FrameHeader {
    FrameHeader { topic: 1, mid, ..FrameHeader::new(FrameKind::Publish) }
}

/// What the session makes of `bytes`, and how many it took; each record is shown to `seen`.
pub(super) fn feed(
    session: &mut Session<Lent>,
    now: Instant,
    bytes: &[u8],
    mut seen: impl FnMut(&mut Session<Lent>, Took<'_>),
) -> Result<usize, Code> {
    let mut at = 0;
    while at < bytes.len() {
        match session.handle_input(now, &bytes[at..])? {
            Got::More(_) => break,
            Got::Record(took, len) => {
                at += len;
                seen(session, took);
            }
        }
    }
    Ok(at)
}
