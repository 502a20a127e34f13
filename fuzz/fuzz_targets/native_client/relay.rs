//! A relay of one session, with the core's half of the wire: honest, or one that has the keys and
//! says whatever it likes.

use std::collections::VecDeque;

use wardline_core::Instant;
use wardline_core::native::handshake::client::{Answered, Attempt, Connected, Resumption};
use wardline_core::native::handshake::server::{
    Answer, AwaitHello, FirstRecord, Held, Waiting, Wants,
};
use wardline_core::native::handshake::{Granted, Solve};
use wardline_core::native::{
    Code, Ephemeral, FrameHeader, FrameKind, FrameWriter, Next, Record, Records, ServerControl,
    Sight, SigningKey, Window1024, digest,
};

use crate::spell::Spell;

const HANDLE: u64 = 0x0100_0000_0A00_000B;
/// Small, so that every limit is reached.
const GRANTED: Granted =
    Granted { max_payload: 1_000, idle_ms: 300_000, msgs_per_s: 1_000, bytes_per_s: 1 << 20 };

/// What it said, as it must be handed out.
#[derive(Debug)]
pub enum Said {
    Ping,
    Pong,
    Rekey,
    Control(Vec<u8>),
    Frames(Vec<u8>),
    Close(u16),
}

pub struct Relay {
    entropy: [u8; 32],
    drawn: u8,
    lies: bool,
    held: Option<Held>,
    waiting: Option<Waiting>,
    records: Option<Records>,
    window: Window1024,
    taken: Vec<u64>,
    direct: u64,
    /// What the client has not yet been handed, in order.
    said: VecDeque<Said>,
}

impl Relay {
    pub fn new(entropy: [u8; 32], lies: bool) -> Self {
        Self {
            entropy,
            drawn: 0,
            lies,
            held: None,
            waiting: None,
            records: None,
            window: Window1024::NEW,
            taken: Vec::new(),
            direct: 0,
            said: VecDeque::new(),
        }
    }

    pub const fn lies(&self) -> bool {
        self.lies
    }

    pub fn taken(&self) -> &[u64] {
        &self.taken
    }

    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// The next thing that it said.
    pub fn heard(&mut self) -> Said {
        self.said.pop_front().expect("something is handed out that was never said")
    }

    /// It knows nobody any more.
    pub fn forget(&mut self) {
        self.held = None;
        self.window = Window1024::NEW;
        self.direct = 0;
    }

    pub fn lose(&mut self) {
        self.records = None;
        self.waiting = None;
        self.said.clear();
    }

    fn draw<const N: usize>(&mut self) -> [u8; N] {
        self.drawn = self.drawn.wrapping_add(1);
        let bytes = digest(&[self.entropy.as_slice(), &[self.drawn]].concat());
        core::array::from_fn(|at| bytes[at])
    }

    /// A handshake in which nobody meddles: another target does.
    pub fn greet(&mut self, resume: Option<&Resumption>, now: Instant) -> Connected {
        let (key, own) = (SigningKey::from_seed(&[3; 32]), SigningKey::from_seed(&[4; 32]));
        let (e_c, n_c) = (Ephemeral::from_entropy(self.draw()), self.draw());
        let attempt =
            Attempt { key: &key, pin: None, features: 0, recv_max: 1_024, resume, e_c, n_c };
        let (hello, wait) = attempt.hello();
        let admitted = AwaitHello::new().hello(hello.as_bytes()).expect("HELLO");
        let admitted = admitted.address(Answer::Yes).expect("let in");
        match admitted.resume(self.held.as_ref()) {
            Wants::Resume(proven) => {
                let n_s = self.draw();
                let answer = proven.answer(Answer::Yes, HANDLE, &n_s, GRANTED, now);
                let (resumed, waiting) = answer.expect("RESUMED");
                self.waiting = Some(waiting);
                match wait.answer(resumed.as_bytes(), now).expect("resumed") {
                    Answered::Resumed(connected) => connected,
                    Answered::Challenged(_) => panic!("not resumed"),
                }
            }
            Wants::Full(unproven) => {
                let (e_s, n_s) = (Ephemeral::from_entropy(self.draw()), self.draw());
                let budgeted = unproven.budget(Answer::Yes).expect("budget");
                let (challenge, wait_s) = budgeted.challenge(&own.identity(), &e_s, &n_s, 0, 7);
                let answered = wait.answer(challenge.as_bytes(), now).expect("CHALLENGE");
                let Answered::Challenged(challenged) = answered else { panic!("resumed") };
                let Solve::Found(solution) = challenged.puzzle().solve(0, 1) else {
                    panic!("no puzzle")
                };
                let (auth, wait) = challenged.auth(solution, 8, 9).expect("AUTH");
                let verified = wait_s.auth(auth.as_bytes()).expect("AUTH");
                let verified = verified.budget(Answer::Yes).expect("budget").verify();
                let verified = verified.expect("verified");
                let allowed = verified.allow(Answer::Yes, Answer::Yes, Answer::Yes);
                let allowed = allowed.expect("allowed");
                let (accept, established) =
                    allowed.accept(&own, HANDLE, GRANTED, now).expect("ACCEPT");
                self.held = Some(established.held());
                self.records = Some(established.records());
                wait.accept(accept.as_bytes(), now).expect("connected")
            }
        }
    }

    /// The first record of a resume came.
    pub fn proved(&mut self, spell: &mut Spell<'_>, now: Instant, ping: &[u8], out: &mut Vec<u8>) {
        let Some(waiting) = self.waiting.take() else { return };
        match waiting.record(now, ping) {
            Ok(FirstRecord::Proved(proved, Next::Record(Record::Ping(nonce), _))) => {
                self.records = Some(proved.records());
                self.say_taken(spell, out);
                self.pong(nonce, out);
            }
            _ => panic!("a PING proves it"),
        }
    }

    fn pong(&mut self, nonce: [u8; 8], out: &mut Vec<u8>) {
        let Some(records) = self.records.as_mut() else { return };
        if let Ok(pong) = records.pong(nonce) {
            out.extend_from_slice(&pong);
            self.said.push_back(Said::Pong);
        }
    }

    fn taken_now(&mut self, out: &mut Vec<u8>) {
        let (mid, seen) = (self.window.highest(), self.window.seen());
        let seen = if mid == 0 { [0; 128] } else { seen };
        self.control(&ServerControl::Taken { mid, seen: &seen, direct: self.direct }, out);
    }

    /// The first thing on a connection. One that lies says anything.
    pub fn say_taken(&mut self, spell: &mut Spell<'_>, out: &mut Vec<u8>) {
        if self.lies && spell.one_in(2) {
            let mid = [0, 999, 1_000, 1_003, u64::MAX][spell.below(5) as usize];
            let mut seen = [0; 128];
            if mid != 0 {
                seen[0] = spell.below(256) as u8 | 1;
            }
            let direct = spell.below(4);
            self.control(&ServerControl::Taken { mid, seen: &seen, direct }, out);
            return;
        }
        self.taken_now(out);
    }

    fn control(&mut self, value: &ServerControl<'_>, out: &mut Vec<u8>) {
        let Ok(body) = value.encode() else { return };
        self.raw_control(body.as_bytes(), out);
    }

    fn raw_control(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some(records) = self.records.as_mut() else { return };
        if let Ok(header) = records.sending.control(body) {
            out.extend_from_slice(&header);
            out.extend_from_slice(body);
            self.said.push_back(Said::Control(body.to_vec()));
        }
    }

    fn frames(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some(records) = self.records.as_mut() else { return };
        if let Ok(header) = records.sending.frames(body.len() as u32, &digest(body)) {
            out.extend_from_slice(&header);
            out.extend_from_slice(body);
            self.said.push_back(Said::Frames(body.to_vec()));
        }
    }

    fn close(&mut self, code: Code, out: &mut Vec<u8>) {
        let Some(records) = self.records.as_mut() else { return };
        if let Ok(close) = records.close(code, 0, 0, 0) {
            out.extend_from_slice(&close);
            self.said.push_back(Said::Close(code.wire()));
        }
        if !code.session_survives() {
            self.held = None;
        }
    }

    /// Something of its own.
    pub fn says(&mut self, spell: &mut Spell<'_>, now: Instant, out: &mut Vec<u8>) {
        if self.records.as_ref().is_none_or(|records| records.sending.is_closed()) {
            return;
        }
        match spell.below(8) {
            0 => {
                let records = self.records.as_mut().expect("looked at");
                if let Ok(ping) = records.ping([7; 8]) {
                    out.extend_from_slice(&ping);
                    self.said.push_back(Said::Ping);
                }
            }
            1 => {
                let records = self.records.as_mut().expect("looked at");
                if let Ok(rekey) = records.sending.rekey(now) {
                    out.extend_from_slice(&rekey);
                    self.said.push_back(Said::Rekey);
                }
            }
            2 => {
                let code = Code::ALL[spell.below(Code::ALL.len() as u64) as usize];
                self.close(code, out);
            }
            3 if self.lies => self.lie(spell, out),
            4 if self.lies => {
                let body = spell.bytes(60);
                self.frames(&body, out);
            }
            _ => {
                let offset = if self.lies { spell.below(4) } else { self.direct };
                self.direct = self.direct.max(offset) + 1;
                let mut room = [0; 64];
                let mut writer = FrameWriter::new(&mut room);
                assert!(writer.put(&direct(offset), b"hello"));
                let body = writer.written().to_vec();
                self.frames(&body, out);
            }
        }
    }

    /// A control value that nobody asked for, or none at all.
    fn lie(&mut self, spell: &mut Spell<'_>, out: &mut Vec<u8>) {
        let mid = 998 + spell.below(20);
        match spell.below(4) {
            0 => {
                let code = Code::ALL[spell.below(Code::ALL.len() as u64) as usize].wire();
                self.control(&ServerControl::Nack { mid, code, retry_ms: 0 }, out);
            }
            1 => self.control(&ServerControl::Verdict { mid, offset: 1, readers: 1 }, out),
            2 => self.taken_now(out),
            _ => {
                let body = spell.bytes(40);
                self.raw_control(&body, out);
            }
        }
    }

    /// Takes what came, as far as it is whole. What was meddled with ends it.
    pub fn take(&mut self, now: Instant, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(records) = self.records.as_mut() {
            if records.receiving.is_over() {
                return;
            }
            let (record, len) = match records.next(now, rest) {
                Ok(Next::Record(record, len)) => (record, len),
                Ok(Next::More(_)) if rest.is_empty() => return,
                // The rest never comes; or it was changed.
                Ok(Next::More(_)) | Err(_) => {
                    self.records = None;
                    return;
                }
            };
            match record {
                Record::Ping(nonce) => self.pong(nonce, out),
                Record::Frames(frames) => {
                    let mids: Vec<u64> = frames.map(|frame| frame.header.mid).collect();
                    for mid in mids {
                        self.publish(mid, out);
                    }
                }
                Record::Close(close) => {
                    let code = Code::from_wire(close.code).unwrap_or(Code::Normal);
                    if !records.sending.is_closed() {
                        self.close(code, out);
                    }
                    if !code.session_survives() {
                        self.held = None;
                    }
                }
                Record::Pong | Record::Rekeyed | Record::Dropped | Record::Control(_) => {}
            }
            rest = &rest[len..];
        }
    }

    fn publish(&mut self, mid: u64, out: &mut Vec<u8>) {
        let code = match self.window.check(mid) {
            Sight::Seen => Code::Duplicate,
            Sight::Below => Code::Stale,
            Sight::New if mid % 7 == 3 => Code::Busy,
            Sight::New => {
                self.window.mark(mid);
                assert!(self.lies || !self.taken.contains(&mid), "{mid} is taken twice");
                self.taken.push(mid);
                return;
            }
        };
        self.control(&ServerControl::Nack { mid, code: code.wire(), retry_ms: 0 }, out);
    }
}

fn direct(offset: u64) -> FrameHeader {
    FrameHeader { peer: 77, mid: 5, offset, ..FrameHeader::new(FrameKind::Direct) }
}
