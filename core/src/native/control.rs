//! Control values: what clients ask of the relay and what it tells them, by postcard.
//! PROTOCOL.md 2.5.
//!
//! A value has one encoding: what encoding it again does not give back byte for byte is refused.
//! A variant's number is its place in the enum; a place is never used again.

use serde::{Deserialize, Serialize};

use super::bytes::all_zero;
use super::codes::Code;
use super::key::Identity;
use super::record::CONTROL_BYTES_MAX;

/// The longest name of a topic, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of the map in [`ServerControl::Taken`].
pub const SEEN_BYTES: usize = 128;

/// Whether a topic may be called so: 1 to 64 bytes without control characters, `*`, `>`, `+`, `#`,
/// or a leading `$`. PROTOCOL.md 1.1.
#[must_use]
pub fn is_topic_name(name: &str) -> bool {
    let reserved = |c: char| c.is_control() || matches!(c, '*' | '>' | '+' | '#');
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('$')
        && !name.contains(reserved)
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// With what comes.
    Now,
    /// At a message of the topic, of its life called `epoch`.
    Offset {
        /// Which life of the topic.
        epoch: u64,
        /// The first message wanted.
        offset: u64,
    },
    /// With so many of those retained.
    Last(u32),
}

/// What a client says. `ask` is its own number, which the answer bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientControl<'a> {
    /// Read a topic, and publish to it.
    Subscribe {
        /// The client's number for this question.
        ask: u32,
        /// The topic.
        name: &'a str,
        /// Where to begin.
        from: Start,
        /// Be sent one's own messages, too.
        echo: bool,
        /// Be told who comes and goes.
        presence: bool,
    },
    /// Read it no longer.
    Unsubscribe {
        /// The topic's number.
        topic: u32,
    },
    /// Publish to a topic without reading it.
    Open {
        /// The client's number for this question.
        ask: u32,
        /// The topic.
        name: &'a str,
    },
    /// Which sessions has this identity?
    Resolve {
        /// The client's number for this question.
        ask: u32,
        /// Whose.
        identity: [u8; 32],
    },
    /// Whose is this handle?
    Identify {
        /// The client's number for this question.
        ask: u32,
        /// The handle.
        handle: u64,
    },
    /// Who reads this topic?
    Who {
        /// The client's number for this question.
        ask: u32,
        /// The topic's number.
        topic: u32,
        /// Go on after this handle; 0: from the beginning.
        after: u64,
    },
    /// The peer may send so much more of a stream.
    Credit {
        /// The peer.
        peer: u64,
        /// The REQUEST.
        corr: u64,
        /// Bytes.
        bytes: u32,
    },
}

/// What the relay says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerControl<'a> {
    /// The first of each connection: which messages were taken.
    Taken {
        /// The highest message id that was taken; 0: the relay holds nothing.
        mid: u64,
        /// Bit `i` of byte `j`: `mid - 8j - i` was taken. 128 bytes.
        seen: &'a [u8],
        /// The next number of the kinds with a peer that this connection will carry.
        direct: u64,
    },
    /// A topic is read.
    Subscribed {
        /// The question's number.
        ask: u32,
        /// The topic's number on this connection.
        topic: u32,
        /// Which life of the topic.
        epoch: u64,
        /// The number of the next message.
        next: u64,
        /// The oldest message retained.
        oldest: u64,
    },
    /// A topic may be published to.
    Opened {
        /// The question's number.
        ask: u32,
        /// The topic's number on this connection.
        topic: u32,
    },
    /// No.
    Refused {
        /// The question's number.
        ask: u32,
        /// Why.
        code: u16,
        /// When to ask again; 0: not said.
        retry_ms: u32,
    },
    /// A message was not taken.
    Nack {
        /// Its id.
        mid: u64,
        /// Why.
        code: u16,
        /// When to send it again; 0: not said.
        retry_ms: u32,
    },
    /// A PUBLISH with VERDICT was taken.
    Verdict {
        /// Its id.
        mid: u64,
        /// Its number in the topic.
        offset: u64,
        /// How many readers it was queued for.
        readers: u32,
    },
    /// Messages of a topic that the reader does not get.
    Gap {
        /// The topic's number.
        topic: u32,
        /// The first.
        from: u64,
        /// The first that is not missing.
        to: u64,
        /// Why: see [`GapReason`].
        reason: u8,
    },
    /// A session of an identity.
    Identity {
        /// The question's number.
        ask: u32,
        /// Its handle.
        handle: u64,
        /// Whose; zeros: nobody's, it speaks the line dialect.
        identity: [u8; 32],
        /// Which device.
        device: u32,
    },
    /// The end of the answers to a Resolve or a Who.
    Done {
        /// The question's number.
        ask: u32,
        /// Ask again after this handle; 0: that was all.
        next: u64,
    },
    /// Somebody reads a topic now.
    Joined {
        /// The topic's number.
        topic: u32,
        /// Who.
        handle: u64,
    },
    /// Somebody reads it no longer.
    Left {
        /// The topic's number.
        topic: u32,
        /// Who.
        handle: u64,
    },
    /// The peer may be sent so much more of a stream.
    Credit {
        /// The peer.
        peer: u64,
        /// The REQUEST.
        corr: u64,
        /// Bytes.
        bytes: u32,
    },
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GapReason {
    /// The reader lagged.
    Lag = 0,
    /// They are no longer retained.
    Retention = 1,
    /// They were of another life of the topic.
    Epoch = 2,
    /// Larger than the reader takes.
    TooLarge = 3,
}

impl GapReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Lag, Self::Retention, Self::Epoch, Self::TooLarge];
}

/// A control value in its bytes: at most 256, in place.
#[derive(Clone, Debug)]
pub struct ControlBytes {
    bytes: [u8; CONTROL_BYTES_MAX],
    len: usize,
}

impl ControlBytes {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Encodes a value, whatever it holds.
fn encode(value: &impl Serialize) -> Result<ControlBytes, Code> {
    let mut bytes = [0; CONTROL_BYTES_MAX];
    let len = postcard::to_slice(value, &mut bytes).map_err(|_| Code::TooLarge)?.len();
    Ok(ControlBytes { bytes, len })
}

/// Decodes a value that is all of `bytes` and encodes to them again.
fn decode<'a, T: Serialize + Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Code> {
    if bytes.is_empty() || bytes.len() > CONTROL_BYTES_MAX {
        return Err(Code::BadLength);
    }
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| Code::BadValue)?;
    if !rest.is_empty() || encode(&value)?.as_bytes() != bytes {
        return Err(Code::BadValue);
    }
    Ok(value)
}

const fn ok_if(holds: bool) -> Result<(), Code> {
    if holds { Ok(()) } else { Err(Code::BadValue) }
}

impl<'a> ClientControl<'a> {
    /// The value that is all of `bytes`.
    ///
    /// # Errors
    /// `BAD_LENGTH`, or `BAD_VALUE` for what is no value, not canonical, or holds what it may not:
    /// the client's.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Code> {
        let value: Self = decode(bytes)?;
        value.check().map(|()| value)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// `BAD_VALUE`: a field holds what it may not.
    pub fn encode(&self) -> Result<ControlBytes, Code> {
        self.check().and_then(|()| encode(self))
    }

    fn check(&self) -> Result<(), Code> {
        match self {
            Self::Subscribe { name, .. } | Self::Open { name, .. } => ok_if(is_topic_name(name)),
            Self::Resolve { identity, .. } => ok_if(Identity::new(identity).is_ok()),
            Self::Unsubscribe { .. }
            | Self::Identify { .. }
            | Self::Who { .. }
            | Self::Credit { .. } => Ok(()),
        }
    }
}

impl<'a> ServerControl<'a> {
    /// The value that is all of `bytes`.
    ///
    /// # Errors
    /// As [`ClientControl::decode`]: the relay's.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Code> {
        let value: Self = decode(bytes)?;
        value.check().map(|()| value)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// `BAD_VALUE`: a field holds what it may not.
    pub fn encode(&self) -> Result<ControlBytes, Code> {
        self.check().and_then(|()| encode(self))
    }

    fn check(&self) -> Result<(), Code> {
        match self {
            Self::Taken { mid, seen, .. } => {
                let marked = seen.first().is_some_and(|byte| byte & 1 == 1);
                let fits = if *mid == 0 { all_zero(seen) } else { marked };
                ok_if(seen.len() == SEEN_BYTES && fits)
            }
            Self::Gap { from, to, reason, .. } => {
                ok_if(from < to && GapReason::ALL.iter().any(|known| *known as u8 == *reason))
            }
            Self::Identity { identity, .. } => {
                ok_if(all_zero(identity) || Identity::new(identity).is_ok())
            }
            Self::Subscribed { .. }
            | Self::Opened { .. }
            | Self::Refused { .. }
            | Self::Nack { .. }
            | Self::Verdict { .. }
            | Self::Done { .. }
            | Self::Joined { .. }
            | Self::Left { .. }
            | Self::Credit { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
