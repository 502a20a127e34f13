//! The native dialect's wire, for a fuzzer: both ends in memory, and somebody on the path between
//! them who does what the bytes spell out.
//!
//! All entropy follows from all of the bytes. With fixed keys a fuzzer, which sees the operands of
//! each comparison, finds out a tag byte by byte, and that proves nothing.

use std::sync::LazyLock;

use wardline_core::Instant;
use wardline_core::native::handshake::client::{
    Answered, Attempt, AwaitAccept, AwaitAnswer, Challenged, Connected, Resumption,
};
use wardline_core::native::handshake::server::{
    Answer, AwaitAuth, AwaitHello, Established, FirstRecord, Held, Waiting, Wants,
};
use wardline_core::native::handshake::{Granted, Solve};
use wardline_core::native::{
    ClientControl, Code, Ephemeral, FrameWriter, Frames, Next, Record, Records, ServerControl,
    SigningKey, Towards, digest,
};

use crate::rng::Rng;

const NOW: Instant = Instant::from_nanos(1);
const HANDLE: u64 = 0x0100_0000_0A00_000B;
/// Small, so that a fuzzer reaches every limit.
const GRANTED: Granted =
    Granted { max_payload: 1_000, idle_ms: 300_000, msgs_per_s: 1_000, bytes_per_s: 1 << 20 };
const RECV_MAX: u32 = 1_024;

/// A session that there was, as both ends remember it.
struct Past {
    client: Resumption,
    server: Held,
}

static PAST: LazyLock<Past> = LazyLock::new(|| {
    let (client, server) = full(&mut Path::new(&[])).expect("nobody meddled");
    Past { client: client.resumption(), server: server.held() }
});

fn keys() -> (SigningKey, SigningKey) {
    (SigningKey::from_seed(&[3; 32]), SigningKey::from_seed(&[4; 32]))
}

/// Somebody on the path.
struct Path<'b> {
    rng: Rng<'b>,
    /// All entropy of both ends.
    entropy: [u8; 32],
    /// Whether anything that went over it was changed.
    meddled: bool,
}

impl<'b> Path<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Self { rng: Rng::spelled(bytes), entropy: digest(bytes), meddled: false }
    }

    /// Entropy of one purpose.
    fn entropy<const N: usize>(&self, purpose: u8) -> [u8; N] {
        let bytes = digest(&[self.entropy.as_slice(), &[purpose]].concat());
        core::array::from_fn(|at| bytes[at])
    }

    fn attempt<'a>(&self, key: &'a SigningKey, resume: Option<&'a Resumption>) -> Attempt<'a> {
        Attempt {
            key,
            pin: None,
            features: 0,
            recv_max: RECV_MAX,
            resume,
            e_c: Ephemeral::from_entropy(self.entropy(1)),
            n_c: self.entropy(2),
        }
    }

    /// What arrives of a message: most often the message.
    fn carry(&mut self, message: &[u8]) -> Vec<u8> {
        let mut bytes = message.to_vec();
        match self.rng.below(8) {
            1 => {
                for _ in 0..=self.rng.up_to(3) {
                    let at = self.rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= self.rng.below(256) as u8;
                }
            }
            2 => bytes.truncate(self.rng.up_to(message.len())),
            3 => bytes = (0..self.rng.up_to(200)).map(|_| self.rng.below(256) as u8).collect(),
            4 => bytes.extend((0..self.rng.up_to(9)).map(|_| self.rng.below(256) as u8)),
            // Past the header, so that the fields are reached.
            5 if bytes.len() > 8 => {
                bytes[8..].iter_mut().for_each(|byte| *byte ^= self.rng.below(256) as u8);
            }
            _ => (),
        }
        // What follows a message is not of it.
        self.meddled |= !bytes.starts_with(message);
        bytes
    }
}

/// What a server answers.
enum Reply {
    Challenge(Vec<u8>, AwaitAuth),
    Resumed(Vec<u8>, Waiting),
}

fn serve_hello(path: &mut Path<'_>, hello: &[u8], held: Option<&Held>) -> Option<Reply> {
    let bytes = path.carry(hello);
    let await_hello = AwaitHello::new();
    let needs = await_hello.needs(&bytes);
    let greeted = match await_hello.hello(&bytes) {
        Ok(greeted) => greeted,
        Err(_) => return None,
    };
    assert_eq!(needs, Ok(0), "a message that was not whole was taken");
    match greeted.address(Answer::Yes).ok()?.resume(held) {
        Wants::Resume(proven) => {
            let (resumed, waiting) =
                proven.answer(Answer::Yes, HANDLE, &path.entropy(3), GRANTED, NOW).ok()?;
            Some(Reply::Resumed(resumed.as_bytes().to_vec(), waiting))
        }
        Wants::Full(unproven) => {
            let e_s = Ephemeral::from_entropy(path.entropy(4));
            let server = keys().1.identity();
            let budgeted = unproven.budget(Answer::Yes).ok()?;
            let (n_s, bits) = (path.entropy(3), path.rng.below(4) as u8);
            let (challenge, wait) = budgeted.challenge(&server, &e_s, &n_s, bits, 7);
            Some(Reply::Challenge(challenge.as_bytes().to_vec(), wait))
        }
    }
}

fn authenticate(challenged: Challenged<'_>) -> Option<(Vec<u8>, AwaitAccept)> {
    // Not the hardest ones: somebody on the path may ask for 22 bits.
    let Solve::Found(solution) = challenged.puzzle().solve(0, 1 << 10) else { return None };
    let (auth, wait) = challenged.auth(solution, 8, 9).ok()?;
    Some((auth.as_bytes().to_vec(), wait))
}

fn serve_auth(wait: AwaitAuth, bytes: &[u8]) -> Option<(Vec<u8>, Established)> {
    let verified = wait.auth(bytes).ok()?.budget(Answer::Yes).ok()?.verify().ok()?;
    let allowed = verified.allow(Answer::Yes, Answer::Yes, Answer::Yes).ok()?;
    let (accept, established) = allowed.accept(&keys().1, HANDLE, GRANTED, NOW).ok()?;
    Some((accept.as_bytes().to_vec(), established))
}

/// A full handshake over the path.
fn full(path: &mut Path<'_>) -> Option<(Connected, Established)> {
    let key = keys().0;
    let (hello, wait) = path.attempt(&key, None).hello();
    let Reply::Challenge(challenge, wait_s) = serve_hello(path, hello.as_bytes(), None)? else {
        panic!("a session that is not held is resumed")
    };
    finish(path, wait, wait_s, &challenge)
}

fn finish(
    path: &mut Path<'_>,
    wait_c: AwaitAnswer<'_>,
    wait_s: AwaitAuth,
    challenge: &[u8],
) -> Option<(Connected, Established)> {
    let Answered::Challenged(challenged) = wait_c.answer(&path.carry(challenge), NOW).ok()? else {
        panic!("a challenge is taken for a resume")
    };
    let (auth, wait_c) = authenticate(challenged)?;
    let (accept, server) = serve_auth(wait_s, &path.carry(&auth))?;
    let client = wait_c.accept(&path.carry(&accept), NOW).ok()?;
    Some((client, server))
}

/// Both machines, the path between them as `bytes` spell it: a full handshake, or a resume.
///
/// # Panics
/// Where both ends are content with a handshake that was meddled with, or one is not that was not.
pub fn run_native_handshake(bytes: &[u8]) {
    let mut path = Path::new(bytes);
    if path.rng.one_in(2) {
        let agreed = full(&mut path);
        assert_eq!(agreed.is_some(), !path.meddled);
        if let Some((client, server)) = agreed {
            let ping = client.records().ping([1; 8]).expect("a ping");
            assert!(matches!(server.records().next(NOW, &ping), Ok(Next::Record(..))));
        }
        return;
    }
    let key = keys().0;
    let (hello, wait) = path.attempt(&key, Some(&PAST.client)).hello();
    match serve_hello(&mut path, hello.as_bytes(), Some(&PAST.server)) {
        None => assert!(path.meddled),
        Some(Reply::Challenge(challenge, wait_s)) => {
            assert!(path.meddled);
            assert!(finish(&mut path, wait, wait_s, &challenge).is_none());
        }
        Some(Reply::Resumed(resumed, waiting)) => {
            assert!(!path.meddled);
            let Ok(Answered::Resumed(client)) = wait.answer(&path.carry(&resumed), NOW) else {
                return assert!(path.meddled);
            };
            assert!(!path.meddled);
            let first = path.carry(&client.records().ping([1; 8]).expect("a ping"));
            match waiting.record(NOW, &first) {
                Ok(FirstRecord::Proved(..)) => assert!(!path.meddled),
                Ok(FirstRecord::More(..)) | Err(_) => assert!(path.meddled),
            }
        }
    }
}

/// Both ends of a connection of the past session, with keys of its own.
fn connection(path: &Path<'_>) -> (Records, Records) {
    let key = keys().0;
    let (hello, wait) = path.attempt(&key, Some(&PAST.client)).hello();
    let mut quiet = Path { rng: Rng::spelled(&[]), ..*path };
    let Some(Reply::Resumed(resumed, waiting)) =
        serve_hello(&mut quiet, hello.as_bytes(), Some(&PAST.server))
    else {
        panic!("nobody meddled")
    };
    let Ok(Answered::Resumed(client)) = wait.answer(&resumed, NOW) else {
        panic!("nobody meddled")
    };
    let mut records = client.records();
    let ping = records.ping([1; 8]).expect("a ping");
    let Ok(FirstRecord::Proved(server, _)) = waiting.record(NOW, &ping) else {
        panic!("nobody meddled")
    };
    let mut server = server.records();
    let pong = server.pong([1; 8]).expect("a pong");
    assert_eq!(records.next(NOW, &pong), Ok(Next::Record(Record::Pong, pong.len())));
    (records, server)
}

/// What was sent, as it must be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    Ping,
    Rekey,
    Close,
    Control(Vec<u8>),
    Frames(Vec<u8>),
}

/// Frames and control values as the bytes are, then a connection whose ends say what they spell.
///
/// # Panics
/// Where something is taken that has another encoding, or is handed out that was not sent.
pub fn run_native_records(bytes: &[u8]) {
    values(bytes);
    let mut path = Path::new(bytes);
    let (client, server) = connection(&path);
    let from_client = path.rng.one_in(2);
    let (mut from, mut to) = if from_client { (client, server) } else { (server, client) };
    let towards = if from_client { Towards::Relay } else { Towards::Client };
    // Bytes that are nobody's records.
    assert!(!matches!({ to }.next(NOW, bytes), Ok(Next::Record(..))));
    let mut wire = Vec::new();
    let mut sent = Vec::new();
    while !path.rng.is_spent() && !from.sending.is_closed() {
        if let Some((record, what)) = say(&mut path, &mut from) {
            let carried = path.carry(&record);
            path.meddled |= carried != record;
            wire.extend(carried);
            sent.push(what);
        }
    }
    let mut heard = Vec::new();
    let (mut at, mut have) = (0, 0);
    let fault = loop {
        match to.next(NOW, &wire[at..have]) {
            Ok(Next::Record(record, len)) => {
                heard.push(told(&record));
                at += len;
            }
            Ok(Next::More(more)) if have + more <= wire.len() => have += more,
            Ok(Next::More(_)) => break None,
            Err(code) => break Some(code),
        }
    };
    assert_eq!(heard, sent[..heard.len()], "something else was handed out");
    let bad = |what: &Sent| match what {
        Sent::Frames(body) => Frames::check(body, towards).is_err(),
        Sent::Ping | Sent::Rekey | Sent::Close | Sent::Control(_) => false,
    };
    match sent.get(heard.len()) {
        None => assert!(path.meddled || at == wire.len() || to.receiving.is_over()),
        Some(what) => assert!(path.meddled || (bad(what) && fault.is_some()), "{what:?}"),
    }
}

/// One record of `from`.
fn say(path: &mut Path<'_>, from: &mut Records) -> Option<(Vec<u8>, Sent)> {
    let spelled = |path: &mut Path<'_>, most: usize| -> Vec<u8> {
        (0..path.rng.up_to(most)).map(|_| path.rng.below(256) as u8).collect()
    };
    let (record, what) = match path.rng.below(8) {
        0 => (from.ping([9; 8]).ok()?.to_vec(), Sent::Ping),
        1 => (from.sending.rekey(NOW).ok()?.to_vec(), Sent::Rekey),
        2 => (from.close(Code::Normal, 0, 0, 0).ok()?.to_vec(), Sent::Close),
        3 | 4 => {
            let value = spelled(path, 257);
            let header = from.sending.control(&value).ok()?;
            ([header.as_slice(), &value].concat(), Sent::Control(value))
        }
        _ => {
            let body = spelled(path, 200);
            let header = from.sending.frames(body.len() as u32, &digest(&body)).ok()?;
            ([header.as_slice(), &body].concat(), Sent::Frames(body))
        }
    };
    Some((record, what))
}

fn told(record: &Record<'_>) -> Sent {
    match record {
        Record::Ping(_) => Sent::Ping,
        Record::Rekeyed => Sent::Rekey,
        Record::Close(_) => Sent::Close,
        Record::Control(value) => Sent::Control(value.to_vec()),
        Record::Frames(frames) => Sent::Frames(frames.as_bytes().to_vec()),
        Record::Pong | Record::Dropped => panic!("{record:?} without a reason"),
    }
}

/// What is taken encodes to the same bytes again.
fn values(bytes: &[u8]) {
    for towards in [Towards::Relay, Towards::Client] {
        let Ok(frames) = Frames::check(bytes, towards) else { continue };
        let mut room = vec![0; bytes.len()];
        let mut writer = FrameWriter::new(&mut room);
        assert!(frames.into_iter().all(|frame| writer.put(&frame.header, frame.payload)));
        assert_eq!(writer.written(), bytes);
    }
    if let Ok(value) = ClientControl::decode(bytes) {
        assert_eq!(value.encode().expect("it was taken").as_bytes(), bytes);
    }
    if let Ok(value) = ServerControl::decode(bytes) {
        assert_eq!(value.encode().expect("it was taken").as_bytes(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_spell_handshakes_and_records() {
        let mut state = 1_u64;
        for round in 0..3_000 {
            let mut bytes = Vec::new();
            for _ in 0..round % 300 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Zeros let through: what is let through goes further.
                let drawn = (state >> 56) as u8;
                bytes.push(if round % 3 == 0 { drawn } else { drawn & (drawn >> 4) });
            }
            run_native_handshake(&bytes);
            run_native_records(&bytes);
        }
    }
}
