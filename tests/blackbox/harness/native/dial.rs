//! The handshake of a native client, step by step.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wardline_core::Instant;
use wardline_core::native::handshake::client::{
    Answered, Attempt, AwaitAnswer, Connected, Ended, Resumption,
};
use wardline_core::native::handshake::{Alert, HEADER_BYTES, Solve};
use wardline_core::native::{Code, Ephemeral, SigningKey, digest};

use super::NativeClient;
use crate::harness::{PATIENCE, client};

/// The largest body of a record that is taken, unless told otherwise.
const RECV_MAX: u32 = 128 << 10;
/// The longest message of a handshake.
const MESSAGE_BYTES_MAX: usize = 256;

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The relay said so.
    Alert(Code),
    /// It closed without a word.
    Closed,
    /// What it said is not what it may say.
    Fault(Ended),
}

impl From<io::Error> for Turned {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// Who connects, and how.
#[derive(Debug)]
pub(crate) struct NativeDial {
    pub(super) to: SocketAddr,
    pub(super) key: SigningKey,
    pub(super) device: u32,
    pub(super) epoch_ms: u64,
    recv_max: u32,
    receive_buffer_bytes: Option<usize>,
    from: Option<IpAddr>,
}

impl NativeDial {
    /// A client with the key of that number.
    pub(crate) fn new(to: SocketAddr, number: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            to,
            key: key(number),
            device: 1,
            epoch_ms: u64::try_from(now.as_millis()).unwrap_or(1),
            recv_max: RECV_MAX,
            receive_buffer_bytes: None,
            from: None,
        }
    }

    /// Takes no record with a larger body.
    pub(crate) fn recv_max(mut self, bytes: u32) -> Self {
        self.recv_max = bytes;
        self
    }

    /// Lets the kernel hold only so much that was not read.
    pub(crate) fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer_bytes = Some(bytes);
        self
    }

    /// Comes from that address.
    #[cfg(target_os = "linux")]
    pub(crate) fn from(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// A session, or the case fails.
    #[track_caller]
    pub(crate) fn connect(self) -> NativeClient {
        let to = self.to;
        self.try_connect().unwrap_or_else(|turned| panic!("{to} does not let us in: {turned:?}"))
    }

    pub(crate) fn try_connect(self) -> Result<NativeClient, Turned> {
        NativeClient::new(self)
    }

    /// The socket alone.
    pub(crate) fn stream(&self) -> io::Result<TcpStream> {
        let stream = client::dial(self.to, self.from, self.receive_buffer_bytes)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// HELLO, and what waits for its answer.
    pub(crate) fn hello<'a>(
        &'a self,
        resume: Option<&'a Resumption>,
    ) -> (Vec<u8>, AwaitAnswer<'a>) {
        let (e_c, n_c) = (Ephemeral::from_entropy(entropy()), entropy());
        let n_c = *n_c.first_chunk().expect("32 bytes");
        let recv_max = self.recv_max;
        let attempt =
            Attempt { key: &self.key, pin: None, features: 0, recv_max, resume, e_c, n_c };
        let (hello, wait) = attempt.hello();
        (hello.as_bytes().to_vec(), wait)
    }

    /// All of the handshake.
    pub(crate) fn shake(
        &self,
        stream: &mut TcpStream,
        resume: Option<&Resumption>,
    ) -> Result<Connected, Turned> {
        let (hello, wait) = self.hello(resume);
        stream.write_all(&hello)?;
        self.answer(stream, wait)
    }

    /// What follows HELLO.
    pub(crate) fn answer(
        &self,
        stream: &mut TcpStream,
        wait: AwaitAnswer<'_>,
    ) -> Result<Connected, Turned> {
        match wait.answer(&message(stream)?, Instant::ZERO).map_err(turned)? {
            Answered::Resumed(connected) => Ok(connected),
            Answered::Challenged(challenged) => {
                let Solve::Found(solution) = challenged.puzzle().solve(0, 1 << 24) else {
                    panic!("a puzzle of {} bits", challenged.puzzle().bits());
                };
                let auth = challenged.auth(solution, self.device, self.epoch_ms);
                let (auth, wait) = auth.map_err(turned)?;
                stream.write_all(auth.as_bytes())?;
                wait.accept(&message(stream)?, Instant::ZERO).map_err(turned)
            }
        }
    }
}

/// The key of that number.
pub(crate) fn key(number: u64) -> SigningKey {
    SigningKey::from_seed(&digest(&[&b"a test's key"[..], &number.to_le_bytes()].concat()))
}

/// Whose that is.
#[cfg(all(unix, not(wardline_portable)))]
pub(crate) fn identity(number: u64) -> wardline_core::native::Identity {
    key(number).identity()
}

/// Bytes that were not there before.
pub(super) fn entropy() -> [u8; 32] {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let drawn = DRAWN.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    digest(&[&std::process::id().to_le_bytes()[..], &drawn].concat())
}

/// The code of the ALERT that comes next, as bytes; None: the end, without one.
pub(crate) fn alert(stream: &mut TcpStream) -> Option<Code> {
    let bytes = message(stream).ok()?;
    let alert = Alert::decode(&bytes).unwrap_or_else(|code| panic!("{code:?}: {bytes:02x?}"));
    Some(Code::from_wire(alert.code()).expect("a code of this version"))
}

/// One message of the handshake, whichever comes.
pub(crate) fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER_BYTES];
    stream.read_exact(&mut bytes)?;
    let len = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    assert!((HEADER_BYTES..=MESSAGE_BYTES_MAX).contains(&len), "no message: {bytes:02x?}");
    bytes.resize(len, 0);
    stream.read_exact(&mut bytes[HEADER_BYTES..])?;
    Ok(bytes)
}

fn turned(ended: Ended) -> Turned {
    match ended {
        Ended::Alert(alert) => {
            Turned::Alert(Code::from_wire(alert.code()).expect("a code of this version"))
        }
        other => Turned::Fault(other),
    }
}
