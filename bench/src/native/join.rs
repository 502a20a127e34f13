//! The handshake in its steps, so that many can be under way at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
pub use wardline_core::native::handshake::Hello;
use wardline_core::native::handshake::client::{
    Answered, Attempt, AwaitAccept, AwaitAnswer, Connected, Resumption,
};
use wardline_core::native::handshake::{HEADER_BYTES, Solve};
use wardline_core::native::{Ephemeral, Records, SigningKey, digest};

use super::NOW;

/// How long the relay may take for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest message of a handshake.
const MESSAGE_BYTES_MAX: usize = 256;

/// HELLO is out.
#[derive(Debug)]
pub struct Waiting<'a>(AwaitAnswer<'a>);

/// What became of it.
#[allow(clippy::large_enum_variant, reason = "as the core has it")]
#[derive(Debug)]
pub enum Answer {
    /// AUTH is out.
    Auth(AwaitAccept),
    /// The session is had back, once that is proved: the PING that does is out.
    Resumed(Connected, Records),
}

fn seed(number: u64) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed[8] = 1;
    seed
}

/// The key of the client with this number.
pub fn key_of(number: u64) -> SigningKey {
    SigningKey::from_seed(&seed(number))
}

/// What it says first: for a new session, or to have one back.
pub fn first_words<'a>(
    key: &'a SigningKey,
    number: u64,
    resume: Option<&'a Resumption>,
) -> (Hello, Waiting<'a>) {
    let seed = seed(number);
    let entropy = |purpose: u8| digest(&[&seed[..], &[purpose]].concat());
    let mut n_c = [0; 16];
    n_c.copy_from_slice(&entropy(2 + u8::from(resume.is_some()))[..16]);
    let e_c = Ephemeral::from_entropy(entropy(1));
    let attempt = Attempt { key, pin: None, features: 0, recv_max: 1 << 20, resume, e_c, n_c };
    let (hello, wait) = attempt.hello();
    (hello, Waiting(wait))
}

impl Waiting<'_> {
    /// Waits for the answer, and proves who it is, in the way that is asked.
    ///
    /// # Errors
    /// The relay refuses, or says something else.
    pub fn answer(self, stream: &mut TcpStream) -> Result<Answer> {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        match self.0.answer(&message(stream)?, NOW) {
            Ok(Answered::Resumed(connected)) => {
                let mut records = connected.records();
                let ping = records.ping([7; 8]);
                stream.write_all(&ping.map_err(|code| anyhow!("{code:?}"))?)?;
                Ok(Answer::Resumed(connected, records))
            }
            Ok(Answered::Challenged(challenged)) => {
                let Solve::Found(solution) = challenged.puzzle().solve(0, 1 << 24) else {
                    bail!("a puzzle that is too hard");
                };
                let Ok((auth, wait)) = challenged.auth(solution, 1, 1) else { bail!("no AUTH") };
                stream.write_all(auth.as_bytes())?;
                Ok(Answer::Auth(wait))
            }
            Err(ended) => bail!("the relay answers HELLO with {ended:?}"),
        }
    }
}

impl Answer {
    /// Whether a session is had back.
    pub fn is_resumed(&self) -> bool {
        matches!(self, Self::Resumed(..))
    }

    /// Waits for the relay's proof.
    pub(super) fn settled(self, stream: &mut TcpStream) -> Result<(Connected, Records)> {
        match self {
            Self::Resumed(connected, records) => Ok((connected, records)),
            Self::Auth(wait) => match wait.accept(&message(stream)?, NOW) {
                Ok(connected) => {
                    let records = connected.records();
                    Ok((connected, records))
                }
                Err(ended) => bail!("the relay is not who it says: {ended:?}"),
            },
        }
    }
}

/// One message of the handshake, whichever comes.
fn message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    stream.read_exact(&mut bytes)?;
    let len = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    ensure!((HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&len), "no message: {bytes:02x?}");
    bytes.resize(len, 0);
    stream.read_exact(&mut bytes[HEADER_BYTES..])?;
    Ok(bytes)
}
