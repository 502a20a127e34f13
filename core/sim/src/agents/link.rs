//! A native connection as its client has it: handshake, records, and what it asked.

use std::collections::BTreeMap;

use wardline_core::Right;
use wardline_core::native::handshake::client::{
    Answered, Attempt, AwaitAccept, Connected, Ended, Resumption,
};
use wardline_core::native::handshake::{Alert, Solve};
use wardline_core::native::{Code, Ephemeral, Next, Record, Records, Start};

use super::reader::Sub;
use super::side::Side;
use super::states::State;

/// How far it has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// HELLO is out.
    Hello,
    /// AUTH is.
    Auth(Box<AwaitAccept>),
    /// It has keys.
    Records,
    /// It is over.
    Over,
}

/// Something that was asked.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Subscribe { name: usize, from: Start, echo: bool, presence: bool, after: bool },
    Open { name: usize },
    Resolve { who: usize, found: Vec<u64> },
    Identify { handle: u64 },
    Who { name: usize, topic: u32, found: Vec<u64>, pages: u32 },
}

/// A message that went out over it and of which nothing is known yet.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) msg: usize,
    pub(crate) nacked: Option<Code>,
    /// In which record.
    pub(crate) record: u64,
    pub(crate) step: u64,
    /// The life of its topic, where that is known.
    pub(crate) epoch: Option<u64>,
}

/// A PING that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Pinging {
    /// Records that were sent before it.
    pub(crate) records: u64,
    /// Topics that were given up before it, and when.
    pub(crate) over: Vec<(u32, Option<u64>)>,
    pub(crate) step: u64,
}

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) agent: usize,
    pub(crate) stage: Stage,
    /// What the attempt began with.
    pub(crate) entropy: [u8; 32],
    pub(crate) resume: Option<Resumption>,
    /// It is the session of before.
    pub(crate) resumed: bool,
    /// Of the agent when it was opened.
    pub(crate) epoch_ms: u64,
    /// The step in which it was opened.
    pub(crate) tried: u64,
    /// It was challenged, and said who it is.
    pub(crate) challenged: bool,
    /// Bits of the puzzle that it was set.
    pub(crate) bits: u8,
    /// Another connection of the agent was there, too.
    pub(crate) racing: bool,
    pub(crate) inbuf: Vec<u8>,
    pub(crate) records: Option<Records>,
    pub(crate) handle: u64,
    pub(crate) max_payload: u32,
    /// Taken came.
    pub(crate) live: bool,
    pub(crate) live_ns: u64,
    pub(crate) took: u64,
    /// The next number of what peers send.
    pub(crate) direct: u64,
    pub(crate) subs: BTreeMap<u32, Sub>,
    pub(crate) asks: BTreeMap<u32, (Ask, u64)>,
    pub(crate) ask: u32,
    pub(crate) sent: Vec<Sent>,
    pub(crate) verdicts: BTreeMap<u64, bool>,
    /// A PING that is under way.
    pub(crate) ping: Option<Pinging>,
    pub(crate) pings: u64,
    /// When the PING was sent whose PONG came last.
    pub(crate) ponged: u64,
    pub(crate) closing: bool,
    pub(crate) nth: usize,
}

impl Link {
    pub(crate) fn is_live(&self) -> bool {
        self.live && matches!(self.stage, Stage::Records)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// The number of a topic, if it is open.
    pub(crate) fn number(&self, name: usize) -> Option<u32> {
        let found = self.subs.iter().find(|(_, sub)| sub.name == name && sub.given_up.is_none());
        found.map(|(number, _)| *number)
    }
}

impl Side<'_> {
    /// The attempt of a link, the same each time.
    pub(crate) fn hello_of(&self, link: &Link) -> Vec<u8> {
        let agent = &self.agents[link.agent];
        let (hello, _) = attempt(agent, link).hello();
        hello.as_bytes().to_vec()
    }

    /// A client looks at what has come.
    pub(crate) fn client_reads(&mut self, index: usize, most: usize) {
        let conn = &mut self.conns[index];
        if conn.reset {
            conn.down.clear();
            return;
        }
        let len = most.min(conn.down.len());
        let bytes: Vec<u8> = conn.down.drain(..len).collect();
        let Some(mut link) = self.links[index].take() else { return };
        link.inbuf.extend_from_slice(&bytes);
        while !link.is_over() && self.one(index, &mut link) {}
        self.links[index] = Some(link);
    }

    /// Takes one message or record. Gives whether there was one.
    fn one(&mut self, index: usize, link: &mut Link) -> bool {
        let size = match (&link.stage, link.inbuf.get(4)) {
            (Stage::Over, _) => return false,
            (Stage::Records, _) => return self.record(index, link),
            (Stage::Hello | Stage::Auth(_), Some(2 | 4)) => 112,
            (Stage::Hello | Stage::Auth(_), Some(5)) => 64,
            (Stage::Hello | Stage::Auth(_), Some(0x7F)) => 24,
            (Stage::Hello | Stage::Auth(_), Some(_)) => {
                self.hang_up(index, link, "an answer of no type");
                return false;
            }
            (Stage::Hello | Stage::Auth(_), None) => return false,
        };
        if link.inbuf.len() < size {
            return false;
        }
        let bytes: Vec<u8> = link.inbuf.drain(..size).collect();
        match std::mem::replace(&mut link.stage, Stage::Over) {
            Stage::Hello => self.answered(index, link, &bytes),
            Stage::Auth(wait) => match wait.accept(&bytes, self.now()) {
                Ok(connected) => {
                    self.states.hit(State::Full);
                    self.let_in(index, link);
                    if link.resume.is_some() {
                        self.not_held(index, link);
                    }
                    self.agents[link.agent].born_ns = self.conns[index].opened_ns;
                    self.connected(link, &connected);
                }
                Err(ended) => self.refused(index, link, ended),
            },
            Stage::Records | Stage::Over => unreachable!("looked at before"),
        }
        true
    }

    fn answered(&mut self, index: usize, link: &mut Link, bytes: &[u8]) {
        let now = self.now();
        let agent = &self.agents[link.agent];
        let (_, wait) = attempt(agent, link).hello();
        match wait.answer(bytes, now) {
            Ok(Answered::Challenged(challenged)) => {
                let puzzle = challenged.puzzle();
                let bits = puzzle.bits();
                if bits > 0 {
                    self.states.hit(State::Puzzle);
                }
                let Solve::Found(solution) = puzzle.solve(0, 1 << 16) else {
                    return self.hang_up(index, link, "a puzzle too hard");
                };
                match challenged.auth(solution, agent.device, link.epoch_ms) {
                    Ok((auth, wait)) => {
                        self.conns[index].up.extend(auth.as_bytes());
                        link.stage = Stage::Auth(Box::new(wait));
                        link.challenged = true;
                        link.bits = bits;
                        self.puzzle_set(index, bits);
                    }
                    Err(ended) => self.refused(index, link, ended),
                }
            }
            Ok(Answered::Resumed(connected)) => {
                self.states.hit(State::Resume);
                let flapped = self.conns[index].flapped;
                assert!(!flapped, "connection {index}: a resume was taken for a new connect");
                link.resumed = true;
                self.connected(link, &connected);
                if self.rng.one_in(20) && !self.calm {
                    // It never says that it has it.
                    self.states.hit(State::ResumedLost);
                    return self.reset(index);
                }
                self.ping(index, link);
            }
            Err(ended) => self.refused(index, link, ended),
        }
    }

    /// The server said no, or somebody on the path did.
    fn refused(&mut self, index: usize, link: &mut Link, ended: Ended) {
        if let Ended::Alert(alert) = ended {
            self.alerted(index, link, &alert);
        } else if !self.conns[index].meddled {
            panic!("connection {index}: {ended:?}");
        }
        link.stage = Stage::Over;
        self.reset(index);
    }

    fn alerted(&mut self, index: usize, link: &Link, alert: &Alert) {
        self.states.hit(State::Alert);
        let agent = &self.agents[link.agent];
        let limits = &self.plan.limits.native;
        let Some(code) = Code::from_wire(alert.code()) else {
            assert!(self.conns[index].meddled, "a code that is none");
            return;
        };
        let back = link.epoch_ms < agent.epoch_ms || agent.wild;
        let due = match code {
            Code::Rate => {
                let least = limits.handshakes_per_second.min(limits.handshakes_total_per_second);
                self.plan.strict && least.min(limits.handshakes_per_parent_second) < 100
            }
            Code::Refused if back => {
                self.states.hit(State::EpochBack);
                true
            }
            Code::Refused => self.may_be_denied(&agent.identity, Right::Connect, link.tried),
            Code::TooManySessions => {
                self.states.hit(State::TooManySessions);
                let same = |other: &&super::agent::Agent| other.identity == agent.identity;
                let same = self.agents.iter().filter(same).count();
                same as u32 > limits.sessions_per_identity
            }
            Code::Overloaded => self.short || self.plan.half_open < 40 || self.plan.entries < 64,
            Code::HandshakeTimeout => {
                let least = limits.first_byte.min(limits.handshake);
                self.now_ns - self.conns[index].opened_ns >= least.as_nanos()
            }
            Code::Quarantined => self.may_be_refused(link),
            Code::PuzzleRequired => self.may_be_puzzled(link),
            Code::TooManyConnections => self.plan.strict || self.evicted,
            Code::WrongDialect => {
                self.now_ns - self.conns[index].opened_ns >= limits.decide.as_nanos()
            }
            _ => false,
        };
        let for_long = [Code::TooManySessions, Code::Overloaded, Code::Quarantined];
        if self.calm && for_long.contains(&code) {
            self.out.insert(link.agent);
        }
        assert!(due || self.conns[index].meddled, "an ALERT without a cause: {code:?}");
    }

    fn connected(&mut self, link: &mut Link, connected: &Connected) {
        link.handle = connected.handle();
        link.max_payload = connected.granted().max_payload;
        link.records = Some(connected.records());
        link.stage = Stage::Records;
        let known = *self.truth.handles.entry(link.handle).or_insert(link.agent);
        assert_eq!(known, link.agent, "a handle of somebody else");
        let agent = &mut self.agents[link.agent];
        if link.epoch_ms == agent.epoch_ms {
            agent.resumption = Some(connected.resumption());
        }
    }

    /// A client ends a connection because of what came: never for an honest path.
    pub(crate) fn hang_up(&mut self, index: usize, link: &mut Link, why: &str) {
        // At a door of both dialects it may have been silent for too long.
        let span = self.now_ns - self.conns[index].opened_ns;
        let late = link.records.is_none() && span >= self.plan.limits.native.decide.as_nanos();
        assert!(late || self.conns[index].meddled, "connection {index}: {why}");
        link.stage = Stage::Over;
        self.reset(index);
    }

    /// The same, and it says why.
    fn blames(&mut self, index: usize, link: &mut Link, code: Code, detail: u16) {
        assert!(self.conns[index].meddled, "connection {index}: a fault of nobody's: {code:?}");
        let records = link.records.as_mut().expect("keys");
        let record = records.close(code, detail, 0, 0).into_iter().flatten();
        self.conns[index].up.extend(record);
        self.conns[index].fin = true;
        link.stage = Stage::Over;
        if link.epoch_ms == self.agents[link.agent].epoch_ms {
            self.keeps(index, link);
        }
        self.states.hit(State::Blamed);
    }

    /// A client's socket is reset.
    pub(crate) fn reset(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.reset = true;
        conn.up.clear();
        conn.down.clear();
    }

    fn record(&mut self, index: usize, link: &mut Link) -> bool {
        let now = self.now();
        let inbuf = std::mem::take(&mut link.inbuf);
        let records = link.records.as_mut().expect("it has keys");
        let (record, len) = match records.next(now, &inbuf) {
            Ok(Next::More(_)) => {
                link.inbuf = inbuf;
                return false;
            }
            Ok(Next::Record(record, len)) => (record, len),
            Err(code) => {
                if code == Code::BadTag {
                    self.states.hit(State::BadTag);
                }
                let (blame, detail) = records.receiving.blame(code);
                if !self.agents[link.agent].wild {
                    assert!(blame.session_survives(), "an honest relay is at fault: {code:?}");
                    if self.rng.one_in(2) && !link.closing {
                        self.blames(index, link, blame, detail);
                        return false;
                    }
                    self.hang_up(index, link, &format!("a record from the relay: {code:?}"));
                }
                link.stage = Stage::Over;
                return false;
            }
        };
        self.said(index, link, record);
        link.inbuf = inbuf[len..].to_vec();
        true
    }

    fn said(&mut self, index: usize, link: &mut Link, record: Record<'_>) {
        let wild = self.agents[link.agent].wild;
        match record {
            Record::Ping(bytes) => {
                self.states.hit(State::Pinged);
                let pong = link.records.as_mut().expect("keys").pong(bytes);
                self.conns[index].up.extend(pong.into_iter().flatten());
            }
            Record::Close(close) => self.closed(index, link, close),
            Record::Rekeyed => self.states.hit(State::Rekeyed),
            Record::Dropped => {}
            Record::Control(value) if !wild => self.told(index, link, value),
            Record::Pong if !wild => self.ponged(index, link),
            Record::Frames(frames) if !wild => {
                assert!(link.live, "frames before Taken");
                for frame in frames {
                    self.frame(index, link, &frame);
                }
            }
            Record::Control(_) => link.live = true,
            Record::Pong | Record::Frames(_) => {}
        }
    }
}

fn attempt<'a>(agent: &'a super::agent::Agent, link: &'a Link) -> Attempt<'a> {
    Attempt {
        key: &agent.key,
        pin: None,
        features: 0,
        recv_max: agent.recv_max,
        resume: link.resume.as_ref(),
        e_c: Ephemeral::from_entropy(link.entropy),
        n_c: core::array::from_fn(|at| link.entropy[at] ^ 0x5A),
    }
}
