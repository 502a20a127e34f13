//! Our two halves of a handshake, with the secrets that a transcript gives them.

use serde_json::{Value, json};
use wardline_core::Instant;
use wardline_core::native::handshake::client::{
    Answered, Attempt, AwaitAccept, AwaitAnswer, Challenged, Connected, Ended as ClientEnded,
    Resumption,
};
use wardline_core::native::handshake::server::{
    Answer, AwaitAuth, AwaitHello, Ended, Held, ParkedAuth, ParkedResume, Wants,
};
use wardline_core::native::handshake::{Granted, SessionId, Solve};
use wardline_core::native::{Code, Ephemeral, Identity, Records, SigningKey};

use crate::{array, list, number};

fn small(value: &Value) -> u32 {
    u32::try_from(number(value)).expect("32 bits")
}

/// The client's half.
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub(crate) enum Client<'a> {
    Ready(Attempt<'a>),
    Said(AwaitAnswer<'a>),
    Proved(AwaitAccept),
    Over,
}

/// What a step of a handshake comes to.
#[derive(Default)]
pub(crate) struct Came {
    pub(crate) out: Vec<u8>,
    /// The connection, and the id of its session.
    pub(crate) session: Option<(Connection, SessionId)>,
    /// How it ended: the fields of a step.
    pub(crate) end: Option<Value>,
}

/// A connection after its handshake.
#[derive(Clone, Copy)]
pub(crate) enum Connection {
    Open(Records),
    /// Resumed at the server, where nothing has come.
    Waiting(ParkedResume),
}

/// What is kept of a session for the next connection.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) client: Option<Resumption>,
    pub(crate) server: Option<Held>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(script: &Value, key: &'a SigningKey, kept: &'a Kept) -> Self {
        let resumes = script["resume"].as_bool().unwrap_or(false);
        Self::Ready(Attempt {
            key,
            pin: Some(&script["pin"])
                .filter(|pin| !pin.is_null())
                .and_then(|pin| Identity::new(&array(pin)).ok()),
            features: small(&script["features"]),
            recv_max: small(&script["recv_max"]),
            resume: kept.client.as_ref().filter(|_| resumes),
            e_c: Ephemeral::from_entropy(array(&script["secret"])),
            n_c: array(&script["n_c"]),
        })
    }

    pub(crate) fn hello(&mut self) -> Vec<u8> {
        let Self::Ready(attempt) = std::mem::replace(self, Self::Over) else { panic!("HELLO") };
        let (hello, wait) = attempt.hello();
        *self = Self::Said(wait);
        hello.as_bytes().to_vec()
    }

    fn needs(&self, bytes: &[u8]) -> Result<usize, ClientEnded> {
        match self {
            Self::Said(wait) => wait.needs(bytes),
            Self::Proved(wait) => wait.needs(bytes),
            Self::Ready(_) | Self::Over => panic!("nothing may come"),
        }
    }

    pub(crate) fn take(
        &mut self,
        script: &Value,
        bytes: &[u8],
        now: Instant,
        kept: &mut Option<Resumption>,
    ) -> Came {
        whole(bytes, |part| self.needs(part))
            .and_then(|()| match std::mem::replace(self, Self::Over) {
                Self::Said(wait) => match wait.answer(bytes, now)? {
                    Answered::Challenged(challenged) => self.auth(script, challenged),
                    Answered::Resumed(connected) => Ok(came(&connected, kept)),
                },
                Self::Proved(wait) => wait.accept(bytes, now).map(|done| came(&done, kept)),
                Self::Ready(_) | Self::Over => panic!("nothing may come"),
            })
            .unwrap_or_else(|ended| Came { end: Some(end(ended)), ..Came::default() })
    }

    fn auth(&mut self, script: &Value, challenged: Challenged<'_>) -> Result<Came, ClientEnded> {
        let Solve::Found(solution) = challenged.puzzle().solve(0, u32::MAX) else {
            panic!("2^32 tries")
        };
        let (device, epoch_ms) = (small(&script["device"]), number(&script["epoch_ms"]));
        let (auth, wait) = challenged.auth(solution, device, epoch_ms)?;
        *self = Self::Proved(wait);
        Ok(Came { out: auth.as_bytes().to_vec(), ..Came::default() })
    }
}

fn came(connected: &Connected, kept: &mut Option<Resumption>) -> Came {
    let resumption = connected.resumption();
    *kept = Some(resumption);
    let session = Some((Connection::Open(connected.records()), resumption.sid));
    Came { session, ..Came::default() }
}

fn end(ended: ClientEnded) -> Value {
    match ended {
        ClientEnded::Alert(alert) => {
            let [least, most] = alert.versions();
            json!({"end": "alert", "alert": [alert.code(), least, most, alert.retry_ms()]})
        }
        ClientEnded::Fault(code) => json!({"end": code.wire()}),
        ClientEnded::WrongServer { .. } => json!({"end": "wrong server"}),
        ClientEnded::ServerKey(_) => json!({"end": "server key"}),
        ClientEnded::OwnKey => json!({"end": "own key"}),
        ClientEnded::Features(_) => json!({"end": "features"}),
        ClientEnded::Puzzle(_) => json!({"end": "puzzle"}),
        ClientEnded::Version(..) => json!({"end": "version"}),
        ClientEnded::NotContributory => json!({"end": "not contributory"}),
        ClientEnded::NotProved => json!({"end": "not proved"}),
    }
}

/// Asks at each byte whether more is needed. What is wrong is known with the last one at the
/// earliest: the transcript ends there.
fn whole<E>(bytes: &[u8], mut needs: impl FnMut(&[u8]) -> Result<usize, E>) -> Result<(), E> {
    for end in 0..bytes.len() {
        let missing = needs(&bytes[..end]).ok().expect("nothing is wrong yet");
        assert!(missing > 0, "whole after {end} of {} bytes", bytes.len());
    }
    let missing = needs(bytes)?;
    assert_eq!(missing, 0, "the transcript ends in the middle of a message");
    Ok(())
}

/// The server's half.
#[allow(clippy::large_enum_variant, reason = "one at a time")]
pub(crate) enum Server {
    Waits(AwaitHello),
    /// And which key it named.
    Asked(ParkedAuth, usize),
    Over,
}

impl Server {
    pub(crate) const fn new() -> Self {
        Self::Waits(AwaitHello::new())
    }

    pub(crate) fn take(
        &mut self,
        script: &Value,
        bytes: &[u8],
        now: Instant,
        kept: &mut Option<Held>,
    ) -> Came {
        let came = match std::mem::replace(self, Self::Over) {
            Self::Waits(wait) => whole(bytes, |part| wait.needs(part))
                .and_then(|()| self.on_hello(script, wait, bytes, now, kept.as_ref())),
            Self::Asked(mut parked, key) => {
                let wait = parked.unpark().expect("it was parked");
                assert!(parked.unpark().is_none(), "once");
                whole(bytes, |part| wait.needs(part))
                    .and_then(|()| on_auth(script, key, wait, bytes, now, kept))
            }
            Self::Over => panic!("nothing may come"),
        };
        came.unwrap_or_else(|ended| Came {
            out: ended.alert().as_bytes().to_vec(),
            session: None,
            end: Some(json!({"end": ended.code.wire()})),
        })
    }

    fn on_hello(
        &mut self,
        script: &Value,
        wait: AwaitHello,
        bytes: &[u8],
        now: Instant,
        kept: Option<&Held>,
    ) -> Result<Came, Ended> {
        let admitted = wait.hello(bytes)?.address(answer(script, "address"))?;
        let wanted = admitted.wants();
        let holds = script["holds"].as_bool().unwrap_or(false);
        let held = kept.filter(|held| holds && wanted == Some(held.sid));
        let n_s = array(&script["n_s"]);
        match admitted.resume(held) {
            Wants::Resume(proven) => {
                let (handle, granted) = (number(&script["handle"]), granted(script));
                let answer = answer(script, "resume");
                let (resumed, waiting) = proven.answer(answer, handle, &n_s, granted, now)?;
                let sid = *waiting.sid();
                let session = Some((Connection::Waiting(waiting.park()), sid));
                Ok(Came { out: resumed.as_bytes().to_vec(), session, end: None })
            }
            Wants::Full(unproven) => {
                let budgeted = unproven.budget(answer(script, "budget"))?;
                let keys: Vec<_> = keys(script).iter().map(SigningKey::identity).collect();
                let key = budgeted.key_wanted(&keys);
                let e_s = Ephemeral::from_entropy(array(&script["secret"]));
                let bits = u8::try_from(number(&script["puzzle_bits"])).expect("8 bits");
                let time_ms = number(&script["time_ms"]);
                let (challenge, wait) = budgeted.challenge(&keys[key], &e_s, &n_s, bits, time_ms);
                *self = Self::Asked(wait.park(), key);
                Ok(Came { out: challenge.as_bytes().to_vec(), ..Came::default() })
            }
        }
    }
}

fn on_auth(
    script: &Value,
    key: usize,
    wait: AwaitAuth,
    bytes: &[u8],
    now: Instant,
    kept: &mut Option<Held>,
) -> Result<Came, Ended> {
    let claimed = wait.auth(bytes)?;
    let verified = claimed.budget(answer(script, "budget of AUTH"))?.verify()?;
    let [permission, ban, sessions] =
        ["permission", "ban", "sessions"].map(|what| answer(script, what));
    let allowed = verified.allow(permission, ban, sessions)?;
    let (handle, granted) = (number(&script["handle"]), granted(script));
    let (accept, established) = allowed.accept(&keys(script)[key], handle, granted, now)?;
    let held = established.held();
    *kept = Some(held);
    let session = Some((Connection::Open(established.records()), held.sid));
    Ok(Came { out: accept.as_bytes().to_vec(), session, end: None })
}

fn keys(script: &Value) -> Vec<SigningKey> {
    list(&script["seeds"]).iter().map(|seed| SigningKey::from_seed(&array(seed))).collect()
}

fn granted(script: &Value) -> Granted {
    let limit = |nth: usize| small(&script["limits"][nth]);
    Granted {
        max_payload: limit(0),
        idle_ms: limit(1),
        msgs_per_s: limit(2),
        bytes_per_s: limit(3),
    }
}

/// What the relay around the handshake says to a question.
fn answer(script: &Value, what: &str) -> Answer {
    let no = &script["refuses"][what];
    if no.is_null() {
        return Answer::Yes;
    }
    let code = u16::try_from(number(&no[0])).ok().and_then(Code::from_wire).expect("a code");
    Answer::No(Ended { code, retry_ms: small(&no[1]) })
}
