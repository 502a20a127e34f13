//! Why something came to nothing, in types and in sentences.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use wardline_core::native::envelope::EnvelopeFault;
use wardline_core::native::{Code, Identity, to_digits};

use crate::known_hosts::KnownHostsError;

/// A no of the relay: its number, and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code's number, which may be one that this version does not know.
    pub number: u16,
    /// When to try again, where the relay said so.
    pub retry: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(number: u16, retry_ms: u32) -> Self {
        let retry = (retry_ms > 0).then(|| Duration::from_millis(u64::from(retry_ms)));
        Self { number, retry }
    }

    /// The code. None: one that this version does not know.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        Code::from_wire(self.number)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code() {
            Some(code) => write!(f, "{}: {}", code.word(), code.sentence())?,
            None => write!(f, "code {:#04x}, which this version does not know", self.number)?,
        }
        match self.retry {
            Some(retry) => write!(f, " (try again in {} ms)", retry.as_millis()),
            None => Ok(()),
        }
    }
}

/// Why a call came to nothing.
#[derive(Clone, Debug)]
pub enum Error {
    /// The relay says no.
    Refused(Refusal),
    /// The connection was lost, and nobody knows whether the message was taken. It is not sent
    /// again unasked.
    Unsure,
    /// The session that it belonged to is gone, and with it the handles that were known.
    SessionGone,
    /// The payload is larger than the relay takes.
    TooLarge {
        /// Bytes of the payload.
        bytes: usize,
        /// The most that is taken.
        max: usize,
    },
    /// No topic may be called so.
    TopicName,
    /// This client reads the topic already.
    AlreadySubscribed,
    /// As many questions, topics or requests as can be open are open.
    TooMany,
    /// No answer came in time.
    Deadline,
    /// It waited here for longer than it was worth ([`Payload::ttl`](crate::Payload::ttl)), and was
    /// not sent; or not again, where the relay had not taken it.
    Expired,
    /// A subscription, or another stream, is full and not read, so that the answer cannot come.
    NotRead,
    /// The peer sent more of a stream than it was allowed.
    Credit,
    /// An answer is not signed as it has to be: [`Policy`](crate::Policy).
    Untrusted(EnvelopeFault),
    /// A topic is asked about by its number, and the relay gives this client none: it reads the
    /// topic not, and may neither publish to it nor know its readers (`who`).
    NotOpened(Refusal),
    /// The client is over.
    Ended(Ended),
}

impl Error {
    /// The code of the relay's no, where it is one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal)
            | Self::NotOpened(refusal)
            | Self::Ended(Ended::Close(refusal)) => refusal.code(),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unsure => f.write_str("the connection was lost; taken or not, nobody knows"),
            Self::SessionGone => f.write_str("the session is gone, and the handles known in it"),
            Self::TooLarge { bytes, max } => {
                write!(f, "{bytes} bytes are more than the relay takes ({max})")
            }
            Self::TopicName => f.write_str(
                "a topic's name is 1 to 64 bytes without control characters, *, >, +, #, and does \
                 not begin with $",
            ),
            Self::AlreadySubscribed => f.write_str("this client reads the topic already"),
            Self::TooMany => f.write_str("too many of these are open"),
            Self::Deadline => f.write_str("no answer came in time"),
            Self::Expired => f.write_str("it was not sent before its time to live was over"),
            Self::NotRead => f.write_str(
                "a subscription of this client is full and not read, so no answer can come",
            ),
            Self::Credit => f.write_str("the peer sent more of a stream than it was allowed"),
            Self::Untrusted(fault) => {
                write!(f, "it is not to be trusted: {}", fault.sentence())
            }
            Self::NotOpened(refusal) => write!(
                f,
                "a topic is asked about by its number, which is given to who reads it, who may \
                 publish to it, and who may know its readers: {refusal}"
            ),
            Self::Ended(ended) => ended.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// Why a client is over, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was closed here.
    Closed,
    /// The relay closed it with a code after which nobody comes back by himself.
    Close(Refusal),
    /// Its task is gone: the runtime was shut down.
    Gone,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the client was closed"),
            Self::Close(refusal) => write!(f, "the relay closed the connection: {refusal}"),
            Self::Gone => f.write_str("the client's task is gone"),
        }
    }
}

impl std::error::Error for Ended {}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It does not begin with `native://`.
    Scheme,
    /// It names no host.
    Host,
    /// It names no port, or none from 1 to 65,535.
    Port,
    /// Something follows the port.
    Rest,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a relay's URL is native://HOST:PORT",
            Self::Host => "the URL names no host (an IPv6 address stands in brackets)",
            Self::Port => "the URL names no port from 1 to 65535",
            Self::Rest => "nothing may follow the port",
        })
    }
}

impl std::error::Error for UrlError {}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub enum ConnectError {
    /// The URL is none.
    Url(UrlError),
    /// No key was given.
    NoKey,
    /// No entropy is to be had.
    Entropy,
    /// The system's.
    Io(Arc<io::Error>),
    /// It took too long.
    Timeout,
    /// The server ended the stream before it said who it is.
    Cut,
    /// **Not the server that is expected.** Either its key was changed, or somebody stands in
    /// between.
    WrongServer {
        /// `host:port`.
        address: String,
        /// Who is expected.
        expected: Identity,
        /// Who answered, unproved.
        shown: [u8; 32],
    },
    /// The server says no: a hint, which anybody on the path can write.
    Alert(Refusal),
    /// What answered does not keep to the protocol, or could not prove who it is.
    Handshake(Handshake),
    /// The device's last epoch is more than 300 s ahead of this clock: nobody would believe what
    /// it signs. It is time for another device.
    EpochAhead,
    /// The file of known servers.
    KnownHosts(KnownHostsError),
    /// Nothing was said of how the server is known, and there is no home to keep a file in.
    NoHome,
}

/// What was wrong in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// What came is not what may come.
    Fault(Code),
    /// The server's key is none.
    ServerKey,
    /// The server says that it is this client.
    OwnKey,
    /// The server chose features that were not offered.
    Features,
    /// The server asks for a puzzle of so many bits, more than a client solves.
    Puzzle(u8),
    /// The server speaks these versions.
    Version(u8, u8),
    /// The server could not prove who it is.
    NotProved,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(code) => {
                write!(f, "no native relay answers there: {}: {}", code.word(), code.sentence())
            }
            Self::ServerKey => f.write_str("the server's key is no key"),
            Self::OwnKey => f.write_str("the server has this client's own key"),
            Self::Features => f.write_str("the server chose features that were not offered"),
            Self::Puzzle(bits) => write!(f, "the server asks for a puzzle of {bits} bits"),
            Self::Version(min, max) => write!(f, "the server speaks versions {min} to {max}"),
            Self::NotProved => f.write_str("the server did not prove who it is"),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => error.fmt(f),
            Self::NoKey => f.write_str("no key was given"),
            Self::Entropy => f.write_str("the system gives no entropy"),
            Self::Io(error) => error.fmt(f),
            Self::Timeout => f.write_str("the server did not answer in time"),
            Self::Cut => f.write_str("the server ended the stream before it said who it is"),
            Self::WrongServer { address, expected, shown } => write!(
                f,
                "THE SERVER'S KEY IS NOT THE EXPECTED ONE. Either {address} has a new key, or \
                 somebody stands in between. Nothing was sent.\n  expected {expected:?}\n  shown \
                 {}\nIf the change is right, remove the line of {address} from the known hosts, or \
                 pin the new key.",
                String::from_utf8_lossy(&to_digits(shown))
            ),
            Self::Alert(refusal) => write!(f, "the server refuses: {refusal}"),
            Self::Handshake(fault) => fault.fmt(f),
            Self::EpochAhead => f.write_str(
                "the device's last epoch is over 300 s ahead of this clock: correct the clock, or \
                 take another device",
            ),
            Self::KnownHosts(error) => error.fmt(f),
            Self::NoHome => f.write_str(
                "there is no home to keep known servers in: name a file, or pin the server's key",
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<UrlError> for ConnectError {
    fn from(error: UrlError) -> Self {
        Self::Url(error)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<KnownHostsError> for ConnectError {
    fn from(error: KnownHostsError) -> Self {
        Self::KnownHosts(error)
    }
}

/// A client was closed, and not all that it had said is known to have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseError {
    /// How many messages nobody knows of whether they were taken.
    pub unsure: usize,
    /// How many were never sent.
    pub unsent: usize,
    /// Why, where the relay said so.
    pub refusal: Option<Refusal>,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unsure, unsent, .. } = self;
        write!(f, "the end was not clean: {unsure} messages taken or not, {unsent} not sent")?;
        match self.refusal {
            Some(refusal) => write!(f, "; {refusal}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CloseError {}
