//! The client's half of a session, driven by what the bytes spell out: messages, time, cuts,
//! reconnects; and a relay that keeps to the protocol behind a path that does not, or a relay that
//! says whatever it likes.
//!
//! - Nothing panics.
//! - What is handed out is what the relay said, in its order: not a byte acts that was not
//!   authenticated.
//! - Each message is settled at most once; an honest relay takes it at most once, over all its
//!   lives; and what is said to be taken was, what is said to be refused was not.
//! - Numbers of direct messages come once, and in order.
#![no_main]

mod relay;
mod spell;

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use relay::{Relay, Said};
use spell::Spell;
use wardline_core::native::client::{Fate, Got, Session, Slot, Took};
use wardline_core::native::{
    ClientControl, Code, FrameHeader, FrameKind, FrameWriter, ServerControl,
};
use wardline_core::{Duration, Instant};

/// Few, so that the ring comes round.
const SLOTS: usize = 8;
/// A handshake costs as much as a thousand of everything else.
const CONNECTIONS_MAX: u32 = 6;

fuzz_target!(|bytes: &[u8]| World::new(bytes).run());

struct World<'b> {
    spell: Spell<'b>,
    now: Instant,
    session: Session<[Slot; SLOTS]>,
    relay: Relay,
    /// From the client, and not yet at the relay.
    to_relay: Vec<u8>,
    /// From the relay, and not yet taken by the client; so many bytes of it have arrived.
    to_client: Vec<u8>,
    arrived: usize,
    /// Somebody on the path changed what went to the client.
    meddled: bool,
    connections: u32,
    /// When this connection began.
    began: Instant,
    fates: BTreeMap<u64, Fate>,
    withdrawn: Vec<u64>,
    /// The next number of a direct message, of this life of the relay.
    direct: u64,
    given: u64,
}

impl<'b> World<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        let mut spell = Spell::new(bytes);
        let lies = spell.one_in(3);
        Self {
            now: Instant::from_nanos(1),
            session: Session::new([Slot::default(); SLOTS], 1_000),
            relay: Relay::new(spell.entropy(), lies),
            spell,
            to_relay: Vec::new(),
            to_client: Vec::new(),
            arrived: 0,
            meddled: false,
            connections: 0,
            began: Instant::from_nanos(1),
            fates: BTreeMap::new(),
            withdrawn: Vec::new(),
            direct: 0,
            given: 0,
        }
    }

    fn run(mut self) {
        while !self.spell.is_spent() {
            self.act();
            self.settle();
            let (sent, unsent) = self.session.counts();
            assert!(sent + unsent + self.session.room() <= SLOTS);
        }
        // The end of everything is no time to panic, either.
        self.session.handle_lost();
        assert_eq!(self.session.deadline(), Instant::NEVER);
        assert!(self.session.poll_output(self.now).is_none());
    }

    fn act(&mut self) {
        match self.spell.below(16) {
            0 => self.connect(),
            1 | 2 => self.enqueue(),
            3 | 4 => self.send(),
            5 | 6 => self.carry_to_relay(),
            7 => self.relay.says(&mut self.spell, self.now, &mut self.to_client),
            8..=10 => self.carry_to_client(),
            11 => self.pass_time(),
            12 => drop(self.session.barrier()),
            13 => self.lose(),
            14 => match self.spell.below(4) {
                0 => {
                    let code = Code::ALL[self.spell.below(Code::ALL.len() as u64) as usize];
                    self.session.close(code);
                }
                1 => {
                    let mid = 1_000 + self.spell.below(self.given + 2);
                    self.session.withdraw(mid);
                    self.withdrawn.push(mid);
                }
                2 => self.session.not_reading(self.now),
                _ => {
                    // Started anew: it knows nobody.
                    self.relay.forget();
                    self.direct = 0;
                    self.lose();
                }
            },
            _ => self.control(),
        }
    }

    fn connect(&mut self) {
        if self.connections >= CONNECTIONS_MAX {
            return;
        }
        self.lose();
        self.connections += 1;
        self.began = self.now;
        let resume = self.session.resumption().copied();
        let connected = self.relay.greet(resume.as_ref(), self.now);
        self.session.handle_connected(self.now, &connected);
        assert!(!self.session.is_ready() && self.session.next_unsent().is_none());
        if self.relay.is_waiting() {
            let ping = self.session.poll_output(self.now).expect("a resume is proved at once");
            if self.spell.one_in(8) {
                // It is lost: the relay does not move.
                return self.lose();
            }
            let out = &mut self.to_client;
            self.relay.proved(&mut self.spell, self.now, ping.as_bytes(), out);
        } else {
            self.relay.say_taken(&mut self.spell, &mut self.to_client);
        }
    }

    fn lose(&mut self) {
        self.session.handle_lost();
        self.relay.lose();
        self.to_relay.clear();
        self.to_client.clear();
        self.arrived = 0;
        self.meddled = false;
    }

    fn enqueue(&mut self) {
        for _ in 0..=self.spell.below(4) {
            if let Some(mid) = self.session.enqueue() {
                assert_eq!(mid, 1_000 + self.given, "an id is given once, in order");
                self.given += 1;
            }
        }
    }

    /// Everything that the client has to send.
    fn send(&mut self) {
        while let Some(small) = self.session.poll_output(self.now) {
            self.to_relay.extend_from_slice(small.as_bytes());
        }
        while let Some(first) = self.session.next_unsent() {
            let mut room = [0; 48 * 4];
            let mut writer = FrameWriter::new(&mut room);
            let (mut last, mut next) = (first, Some(first));
            for _ in 0..=self.spell.below(4) {
                let Some(mid) = next else { break };
                assert!(!self.fates.contains_key(&mid), "{mid} is settled, and goes out again");
                assert!(writer.put(&publish(mid), b""));
                last = mid;
                next = self.session.next_unsent_after(mid);
                assert!(next.is_none_or(|next| next > mid));
            }
            let header = self.session.frames(last, writer.written()).expect("it is ready");
            self.to_relay.extend_from_slice(&header);
            self.to_relay.extend_from_slice(writer.written());
            assert!(self.session.next_unsent().is_none_or(|next| next > last));
        }
    }

    fn control(&mut self) {
        let value = ClientControl::Unsubscribe { topic: 1 };
        if let Ok((header, body)) = self.session.control(&value) {
            self.to_relay.extend_from_slice(&header);
            self.to_relay.extend_from_slice(body.as_bytes());
        }
    }

    /// A part of it arrives, or something else does.
    fn carry_to_relay(&mut self) {
        let many = self.spell.part(self.to_relay.len());
        let mut bytes: Vec<u8> = self.to_relay.drain(..many).collect();
        self.spell.meddle(&mut bytes);
        self.relay.take(self.now, &bytes, &mut self.to_client);
    }

    fn carry_to_client(&mut self) {
        if self.session.granted().is_none() {
            return;
        }
        let many = self.spell.part(self.to_client.len() - self.arrived);
        let from = self.arrived;
        self.arrived += many;
        self.meddled |= self.spell.meddle(&mut self.to_client[from..from + many]);
        while !self.session.is_over() {
            let bytes = self.to_client[..self.arrived].to_vec();
            match self.session.handle_input(self.now, &bytes) {
                Ok(Got::More(missing)) => {
                    assert!(missing > 0 && missing <= self.session.record_bytes_max());
                    break;
                }
                Ok(Got::Record(took, len)) => {
                    assert!(len <= self.arrived);
                    self.to_client.drain(..len);
                    self.arrived -= len;
                    if !hear(&mut self.session, &mut self.relay, &mut self.direct, &took) {
                        return self.fault(Code::BadValue);
                    }
                }
                Err(code) => return self.fault(code),
            }
        }
    }

    fn fault(&mut self, code: Code) {
        // What was said under a key of an hour ago is the path's fault, which held it back.
        let old = self.now.since(self.began) >= Duration::from_secs(3_600);
        let known = self.meddled || self.relay.lies() || old;
        assert!(known, "an honest relay is at fault: {code:?}");
        self.session.fault(code);
        while self.session.poll_output(self.now).is_some() {}
        self.lose();
    }

    fn pass_time(&mut self) {
        let spans = [1, 1_000, 29_000, 31_000, 61_000, 3_500_000];
        let ms = spans[self.spell.below(spans.len() as u64) as usize];
        self.now = self.now.after(Duration::from_millis(ms));
        if self.session.ended(self.now).is_some() {
            self.lose();
        }
    }

    /// What became of messages.
    fn settle(&mut self) {
        while let Some((mid, fate)) = self.session.poll_settled() {
            assert!(self.fates.insert(mid, fate).is_none(), "{mid} is settled twice");
            if self.relay.lies() || self.withdrawn.contains(&mid) {
                continue;
            }
            let taken = self.relay.taken().contains(&mid);
            match fate {
                Fate::Taken => assert!(taken, "{mid} was never taken"),
                Fate::Refused => assert!(!taken, "{mid} was taken"),
                Fate::Unsure => {}
            }
        }
    }
}

/// What a record says is what the relay said next. False: it is the relay's fault.
fn hear(
    session: &mut Session<[Slot; SLOTS]>,
    relay: &mut Relay,
    direct: &mut u64,
    took: &Took<'_>,
) -> bool {
    let said = relay.heard();
    match (took, &said) {
        (Took::Nothing, Said::Ping | Said::Rekey) => {}
        // After its own goodbye, the client drops what comes.
        (Took::Nothing, _) if session.is_closed() => {}
        (Took::Ready(ready), Said::Control(bytes)) => {
            let taken = ServerControl::decode(bytes).expect("it was taken");
            let ServerControl::Taken { direct: next, .. } = taken else {
                panic!("{taken:?} is no Taken")
            };
            assert!(ready.lost.is_none_or(|lost| lost.from < lost.to && lost.to == next));
            assert!(session.handle() != 0);
            *direct = next;
        }
        (Took::Pong(..), Said::Pong) => {}
        (Took::Frames(frames), Said::Frames(bytes)) => {
            assert_eq!(frames.as_bytes(), &bytes[..]);
            for frame in *frames {
                if frame.header.kind == FrameKind::Publish {
                    continue;
                }
                match session.direct(&frame.header) {
                    Ok(_) => {
                        assert!(frame.header.offset >= *direct, "a direct message came twice");
                        *direct = frame.header.offset.saturating_add(1);
                    }
                    Err(_) => return false,
                }
            }
        }
        (Took::Control(value), Said::Control(bytes)) => {
            assert_eq!(value.encode().expect("it was taken").as_bytes(), &bytes[..]);
            assert!(!matches!(value, ServerControl::Taken { .. }));
        }
        (Took::Close(close), Said::Close(code)) => assert_eq!(close.code, *code),
        (took, said) => panic!("{took:?} was handed out, and {said:?} was said"),
    }
    true
}

fn publish(mid: u64) -> FrameHeader {
    FrameHeader { topic: 1, mid, ..FrameHeader::new(FrameKind::Publish) }
}
