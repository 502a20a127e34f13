//! Records: everything after the handshake, each with its number and its tag. PROTOCOL.md 2.3.
//!
//! ```text
//!   0 type | 1 flags | 2 rsv | 4 len | 8 seq | 16 tag[16] | 32 body[len]
//!   D = H(body);  tag = KH(k_dir, header[..16] || sid || D)      one compression of 64 bytes
//! ```
//!
//! [`Sending`] makes headers for bodies that lie where they lie; [`Receiving`] reads records where
//! they lie. [`Records`] is both directions of a connection, with the rules that join them. All
//! three lie in slots: whoever frees one calls [`Records::wipe`].

use bytemuck::Zeroable;

mod receiving;
mod sending;

pub use receiving::Receiving;
pub use sending::Sending;

use super::bytes::{put, u16_at, u32_at, u64_at};
use super::codes::Code;
use super::frame::{FRAME_HEADER_BYTES, Frames};
use super::handshake::SessionId;
use super::key::{Key, Tag, derive};
use crate::time::{Duration, Instant};

/// Bytes of a record's header.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Bytes of it before the tag.
const FRONT_BYTES: usize = 16;
/// The most bytes of a control value.
pub const CONTROL_BYTES_MAX: usize = 256;
/// Numbers end here: half of what 64 bits hold, so that no sum of two overflows.
pub const SEQ_END: u64 = 1 << 63;
/// The most records under one key, its REKEY among them.
pub const KEY_RECORDS_MAX: u64 = 1 << 32;
/// How long a sender uses a key.
pub const KEY_AGE_MAX: Duration = Duration::from_secs(3_600);
/// The types of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Is anybody there? And: has all before this been taken?
    Ping = 0x01,
    /// Yes.
    Pong = 0x02,
    /// The end, and why.
    Close = 0x03,
    /// The next record of this direction has a new key.
    Rekey = 0x04,
    /// One control value.
    Control = 0x05,
    /// Whole frames.
    Frames = 0x10,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Ping, Self::Pong, Self::Close, Self::Rekey, Self::Control, Self::Frames];

    fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The fewest and the most bytes of its body.
    const fn lengths(self, body_max: u32) -> (u32, u32) {
        match self {
            Self::Ping | Self::Pong => (8, 8),
            Self::Close => (16, 16),
            Self::Rekey => (0, 0),
            Self::Control => (1, CONTROL_BYTES_MAX as u32),
            Self::Frames => (FRAME_HEADER_BYTES as u32, body_max),
        }
    }
}

/// D of a body: computed once, whoever many read it. PROTOCOL.md 2.3.1.
#[must_use]
pub fn digest(body: &[u8]) -> [u8; 32] {
    if body.is_empty() { [0; 32] } else { *blake3::hash(body).as_bytes() }
}

/// One direction's key: which, since which record, since when.
#[derive(Clone, Copy, Debug, Zeroable)]
struct Keyed {
    key: Key,
    sid: SessionId,
    /// The number of the next record.
    seq: u64,
    /// The first number under this key.
    from: u64,
    since: Instant,
}

impl Keyed {
    const fn new(key: Key, sid: SessionId, now: Instant) -> Self {
        Self { key, sid, seq: 0, from: 0, since: now }
    }

    fn tag(&self, header: &[u8; FRONT_BYTES], digest: &[u8; 32]) -> Tag {
        let mut text = [0; 64];
        put(&mut text, 0, header);
        put(&mut text, 16, &self.sid);
        put(&mut text, 32, digest);
        self.key.tag(&text)
    }

    /// Records under this key so far.
    const fn used(&self) -> u64 {
        self.seq.saturating_sub(self.from)
    }

    /// Counts a record; a REKEY makes the next one's key.
    fn advance(&mut self, kind: Kind, now: Instant) {
        self.seq = self.seq.saturating_add(1);
        if kind == Kind::Rekey {
            let mut next = zeroize::Zeroizing::new([0; 32]);
            let parts: [&[u8]; 2] = [self.key.as_bytes(), &self.sid];
            derive("wardline 2026-11 v1 rekey", &parts, next.as_mut_slice());
            self.key = Key::new(*next);
            self.from = self.seq;
            self.since = now;
        }
    }
}

/// A CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why: a [`Code`]'s number, or one that this version does not know.
    pub code: u16,
    /// More about it, where the code says what; else 0.
    pub detail: u16,
    /// When to come back; 0: not said.
    pub retry_ms: u32,
    /// How many records of the other end were taken.
    pub taken: u64,
}

impl Close {
    fn read(body: &[u8]) -> Self {
        Self {
            code: u16_at(body, 0),
            detail: u16_at(body, 2),
            retry_ms: u32_at(body, 4),
            taken: u64_at(body, 8),
        }
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut body = [0; 16];
        put(&mut body, 0, &self.code.to_le_bytes());
        put(&mut body, 2, &self.detail.to_le_bytes());
        put(&mut body, 4, &self.retry_ms.to_le_bytes());
        put(&mut body, 8, &self.taken.to_le_bytes());
        body
    }
}

/// A record whose tag is right and whose time it is. Its bytes are where they came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'b> {
    /// To be answered with a PONG of the same bytes, once all before it is taken or NACKed.
    Ping([u8; 8]),
    /// The answer to our PING: all that we sent before it is taken or NACKed.
    Pong,
    /// The other end closes; to be answered with a CLOSE, unless ours is out.
    Close(Close),
    /// The other end's key has changed. Nothing to do.
    Rekeyed,
    /// One control value, not yet decoded.
    Control(&'b [u8]),
    /// Frames, all their headers checked.
    Frames(Frames<'b>),
    /// It came after our CLOSE: checked, and nothing else.
    Dropped,
}

/// What the bytes at hand begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'b> {
    /// So many more bytes are needed at least; nothing has changed.
    More(usize),
    /// A record of so many bytes, header included.
    Record(Record<'b>, usize),
}

/// Which end one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It connected.
    Client,
    /// It listened.
    Server,
}

/// Both directions of a connection. All zeros is none: its keys are nobody's.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Records {
    /// The half that sends.
    pub sending: Sending,
    /// The half that receives.
    pub receiving: Receiving,
}

// Each connection has it in its slot.
const _: () = assert!(size_of::<Records>() <= 192);

/// The two keys of a connection, by direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directions {
    pub(crate) k_c2s: Key,
    pub(crate) k_s2c: Key,
}

impl Records {
    /// `max_payload`: the server's, of a frame. `recv_max`: the client's, of a body.
    pub(crate) fn new(
        side: Side,
        keys: Directions,
        sid: SessionId,
        (max_payload, recv_max): (u32, u32),
        now: Instant,
    ) -> Self {
        let to_server = max_payload.saturating_add(FRAME_HEADER_BYTES as u32);
        let (send, send_max, receive, body_max) = match side {
            Side::Client => (keys.k_c2s, to_server, keys.k_s2c, recv_max),
            Side::Server => (keys.k_s2c, recv_max, keys.k_c2s, to_server),
        };
        let at_server = side == Side::Server;
        let receiving = Receiving::new(receive, sid, body_max, at_server, now);
        Self { sending: Sending::new(send, sid, send_max, now), receiving }
    }

    /// What `bytes` begin with: [`Receiving::next`], and what only both halves know.
    ///
    /// # Errors
    /// As there; `BAD_VALUE` for a CLOSE that counts more records than were sent.
    pub fn next<'b>(&mut self, now: Instant, bytes: &'b [u8]) -> Result<Next<'b>, Code> {
        let next = self.receiving.next(now, bytes)?;
        if let Next::Record(Record::Close(close), _) = next
            && close.taken > self.sending.sent()
        {
            self.receiving.closed = false;
            self.receiving.taken = self.receiving.taken.saturating_sub(1);
            return Err(Code::BadValue);
        }
        Ok(next)
    }

    /// A PING. `nonce` says which; a PONG with other bytes is refused.
    ///
    /// # Errors
    /// `BAD_STATE` while one is under way, and those of [`Sending::frames`].
    pub fn ping(&mut self, nonce: [u8; 8]) -> Result<[u8; 40], Code> {
        if self.receiving.pinging {
            return Err(Code::BadState);
        }
        let record = self.sending.small(Kind::Ping, &nonce)?;
        self.receiving.pinging = true;
        self.receiving.ping = nonce;
        Ok(record)
    }

    /// The PONG that answers a PING.
    ///
    /// # Errors
    /// Those of [`Sending::frames`].
    pub fn pong(&mut self, ping: [u8; 8]) -> Result<[u8; 40], Code> {
        self.sending.small(Kind::Pong, &ping)
    }

    /// The CLOSE: from now on nothing but the other's is taken. `unacted`: how many of the last
    /// records that were handed out were not acted upon.
    ///
    /// # Errors
    /// `BAD_STATE` where it is out already, and those of [`Sending::frames`].
    pub fn close(
        &mut self,
        code: Code,
        detail: u16,
        retry_ms: u32,
        unacted: u64,
    ) -> Result<[u8; 48], Code> {
        let taken = self.receiving.taken.saturating_sub(unacted);
        let close = Close { code: code.wire(), detail, retry_ms, taken };
        let record = self.sending.small(Kind::Close, &close.to_bytes())?;
        self.receiving.closing = true;
        Ok(record)
    }

    /// Whether both CLOSEs have gone: the stream was not cut, and there was no fault.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.receiving.closed && self.sending.closed
    }

    /// Makes zeros of the keys.
    pub fn wipe(&mut self) {
        self.sending.keyed.key.wipe();
        self.receiving.keyed.key.wipe();
    }
}

#[cfg(test)]
mod tests;
