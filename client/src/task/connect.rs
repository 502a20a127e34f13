//! One attempt: a socket, and the handshake over it.

use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;
use tokio::time::timeout;
use wardline_core::Instant;
use wardline_core::native::client::Loss;
use wardline_core::native::handshake::client::{
    Answered, Attempt, Challenged, Connected, Ended, Resumption,
};
use wardline_core::native::handshake::{Solve, Type};
use wardline_core::native::{Code, Ephemeral, Identity};

use crate::builder::Plan;
use crate::error::{ConnectError, Handshake, Refusal};
use crate::task::entropy;

/// For a name to be looked up, and a connection to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// For the handshake: the relay gives it 5 s, and a puzzle is solved within.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Tries at a puzzle before others on the thread have their turn: a millisecond or two.
const TRIES: u32 = 1 << 14;

/// A socket whose handshake is done, and what came after it.
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
    pub(crate) connected: Connected,
    pub(crate) rest: Vec<u8>,
}

/// Milliseconds since 1970.
pub(crate) fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the relay wants a harder puzzle solved than it had set.
pub(super) fn is_puzzle_wanted(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Alert(refusal) if refusal.code() == Some(Code::PuzzleRequired))
}

/// What the backoff is to make of it.
pub(crate) fn loss(error: &ConnectError) -> Loss {
    match error {
        ConnectError::Alert(refusal) => {
            let retry = refusal.retry.unwrap_or_default().as_millis();
            Loss::Alert { retry_ms: u32::try_from(retry).unwrap_or(u32::MAX) }
        }
        ConnectError::Url(_)
        | ConnectError::NoKey
        | ConnectError::Entropy
        | ConnectError::Io(_)
        | ConnectError::Timeout
        | ConnectError::Cut
        | ConnectError::WrongServer { .. }
        | ConnectError::Handshake(_)
        | ConnectError::KnownHosts(_)
        | ConnectError::EpochAhead
        | ConnectError::NoHome => Loss::NotReached,
    }
}

/// Connects, and proves who both are.
pub(crate) async fn reach(
    plan: &Plan,
    pin: Option<Identity>,
    resume: Option<&Resumption>,
    epoch_ms: u64,
    now: impl Fn() -> Instant,
) -> Result<Reached, ConnectError> {
    let address = (plan.url.host.as_str(), plan.url.port);
    let stream = within(CONNECT_MAX, async { Ok(TcpStream::connect(address).await?) }).await?;
    stream.set_nodelay(true)?;
    let e_c = Ephemeral::from_entropy(entropy()?);
    let (recv_max, n_c) = (plan.recv_max, entropy()?);
    let attempt = Attempt { key: &plan.key, pin, features: 0, recv_max, resume, e_c, n_c };
    let handshake = shake(plan, stream, attempt, epoch_ms, now);
    within(HANDSHAKE_MAX, handshake).await
}

async fn within<T>(
    most: Duration,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(most, work).await.map_err(|_| ConnectError::Timeout)?
}

async fn shake(
    plan: &Plan,
    stream: TcpStream,
    attempt: Attempt<'_>,
    epoch_ms: u64,
    now: impl Fn() -> Instant,
) -> Result<Reached, ConnectError> {
    let ended = |ended| refuse(plan, ended);
    let mut came = Vec::with_capacity(512);
    let (hello, wait) = attempt.hello();
    let wrote = write(&stream, hello.as_bytes()).await;
    let answered = read(&stream, &mut came, |bytes| wait.needs(bytes).map_err(ended)).await;
    // Who refuses at its door may have said so and closed before HELLO was written.
    if came.is_empty() {
        wrote?;
    }
    answered?;
    let challenged = match wait.answer(&came, now()).map_err(ended)? {
        Answered::Resumed(connected) => {
            came.drain(..Type::Resumed.size());
            return Ok(Reached { stream, connected, rest: came });
        }
        Answered::Challenged(challenged) => challenged,
    };
    came.drain(..Type::Challenge.size());
    let solution = solve(&challenged).await;
    let (auth, wait) = challenged.auth(solution, plan.device, epoch_ms).map_err(ended)?;
    write(&stream, auth.as_bytes()).await?;
    read(&stream, &mut came, |bytes| wait.needs(bytes).map_err(ended)).await?;
    let connected = wait.accept(&came, now()).map_err(ended)?;
    came.drain(..Type::Accept.size());
    Ok(Reached { stream, connected, rest: came })
}

/// At most 22 bits: a second or so.
async fn solve(challenged: &Challenged<'_>) -> u64 {
    let mut from = 0;
    loop {
        match challenged.puzzle().solve(from, TRIES) {
            Solve::Found(solution) => return solution,
            Solve::More(next) => from = next,
        }
        tokio::task::yield_now().await;
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), ConnectError> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(wrote) => bytes = &bytes[wrote..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads until `needs` says 0.
async fn read(
    stream: &TcpStream,
    came: &mut Vec<u8>,
    needs: impl Fn(&[u8]) -> Result<usize, ConnectError>,
) -> Result<(), ConnectError> {
    while needs(came)? > 0 {
        stream.readable().await?;
        let mut room = [0; 512];
        match stream.try_read(&mut room) {
            Ok(0) => return Err(ConnectError::Cut),
            Ok(got) => came.extend_from_slice(&room[..got]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn refuse(plan: &Plan, ended: Ended) -> ConnectError {
    let fault = match ended {
        Ended::Alert(alert) => {
            return ConnectError::Alert(Refusal::new(alert.code(), alert.retry_ms()));
        }
        Ended::WrongServer { expected, shown } => {
            return ConnectError::WrongServer { address: plan.url.address(), expected, shown };
        }
        Ended::Fault(code) => Handshake::Fault(code),
        Ended::ServerKey(_) => Handshake::ServerKey,
        Ended::OwnKey => Handshake::OwnKey,
        Ended::Features(_) => Handshake::Features,
        Ended::Puzzle(bits) => Handshake::Puzzle(bits),
        Ended::Version(min, max) => Handshake::Version(min, max),
        Ended::NotContributory => Handshake::Fault(Code::BadValue),
        Ended::NotProved => Handshake::NotProved,
    };
    ConnectError::Handshake(fault)
}
