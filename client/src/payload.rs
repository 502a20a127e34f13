//! What a program says: a payload and how it is carried, and for whom.

use std::time::Duration;

use wardline_core::native::{Class, Identity, flags};

use crate::client::Peer;

/// What a message says, and how it is to be carried. Whatever is bytes is a payload of the normal
/// class, which is worth delivering for ever:
///
/// ```
/// use std::time::Duration;
/// use wardline_client::{Class, Payload};
///
/// let plain: Payload = "hello".into();
/// let urgent = Payload::new("fire").class(Class::Urgent).ttl(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    pub(crate) bytes: Vec<u8>,
    pub(crate) class: Class,
    pub(crate) flags: u16,
    /// 0: none was said.
    pub(crate) ttl_ms: u32,
}

impl Payload {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), class: Class::Normal, flags: 0, ttl_ms: 0 }
    }

    /// How urgent it is. Where memory is short, a relay refuses bulk first (`BUSY`).
    #[must_use]
    pub const fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// How long it is worth acting upon, from 1 ms to 49 days, beginning now. What waits here for
    /// longer is not sent ([`Error::Expired`](crate::Error::Expired)); what is signed, and comes to
    /// its reader later than that, is kept back there ([`Event::Expired`](crate::Event::Expired)).
    /// The relay only hands it on. Without it, for ever; a request, as long as its answer is
    /// waited for.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl_ms = millis(ttl);
        self
    }

    /// It is encrypted, by the program's own means: nothing here encrypts. The receiver sees the
    /// flag, and in a signed message nobody can change it.
    #[must_use]
    pub const fn sealed(mut self) -> Self {
        self.flags |= flags::SEALED;
        self
    }

    /// The bytes begin with an envelope of the program's own making (PROTOCOL.md 2.6): they go out
    /// as they are, whatever the client's [`Policy`](crate::Policy) is. The relay takes it only
    /// where it names this client as its sender, or where this client may bridge.
    #[must_use]
    pub const fn in_envelope(mut self) -> Self {
        self.flags |= flags::ENVELOPE;
        self
    }
}

impl<T: Into<Vec<u8>>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Self::new(bytes)
    }
}

/// A time to live as on the wire: at least a millisecond.
pub(crate) fn millis(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// The same the other way round. None: none was said.
pub(crate) const fn span(ttl_ms: u32) -> Option<Duration> {
    match ttl_ms {
        0 => None,
        ms => Some(Duration::from_millis(ms as u64)),
    }
}

/// Whom a message is for: a session by its handle, and, where the program knows it, whose that is.
///
/// A [`Peer`] says both. Of a bare handle the relay is asked, where a message is signed: then the
/// relay decides for whom it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub(crate) handle: u64,
    pub(crate) who: Option<(Identity, u32)>,
}

impl From<u64> for Recipient {
    fn from(handle: u64) -> Self {
        Self { handle, who: None }
    }
}

impl From<Peer> for Recipient {
    fn from(peer: Peer) -> Self {
        let who = peer.identity.map(|identity| (identity, peer.device));
        Self { handle: peer.handle, who }
    }
}

impl From<&Peer> for Recipient {
    fn from(peer: &Peer) -> Self {
        Self::from(*peer)
    }
}

/// What the relay made of a message: [`Client::publish_verdict`](crate::Client::publish_verdict).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its number in the topic.
    pub offset: u64,
    /// For how many readers it was queued, this client not among them. 0, too, where this client
    /// may not know who reads (`who`).
    pub readers: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_payloads_and_can_be_told_more() {
        for payload in [Payload::from("text"), b"text".into(), vec![b't', b'e', b'x', b't'].into()]
        {
            assert_eq!(payload, Payload::new("text"));
            assert_eq!((payload.flags, span(payload.ttl_ms)), (0, None));
        }
        let payload = Payload::new("x").class(Class::Bulk).sealed();
        assert_eq!((payload.class, payload.flags), (Class::Bulk, flags::SEALED));
        // 0 on the wire is for ever, which nobody said.
        for (ttl, ms) in [
            (Duration::ZERO, 1),
            (Duration::from_micros(1), 1),
            (Duration::from_secs(5), 5_000),
            (Duration::MAX, u32::MAX),
        ] {
            assert_eq!(Payload::new("x").ttl(ttl).ttl_ms, ms);
            assert_eq!(millis(span(ms).unwrap()), ms);
        }
    }
}
