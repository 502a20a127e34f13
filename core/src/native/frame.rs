//! Frames: messages inside a record. PROTOCOL.md 2.4.

use super::bytes::{put, u8_at, u16_at, u32_at, u64_at};
use super::codes::Code;
use super::envelope::ENVELOPE_BYTES;

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 48;
/// Message ids end here.
pub const MID_END: u64 = 1 << 63;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// To everybody on a topic.
    Publish = 0,
    /// To one peer.
    Direct = 1,
    /// To one peer, which is to answer.
    Request = 2,
    /// The answer to a REQUEST.
    Reply = 3,
    /// A piece of an answer that comes in many.
    Stream = 4,
}

impl FrameKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Publish, Self::Direct, Self::Request, Self::Reply, Self::Stream];

    /// Whether it belongs to a REQUEST.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Reply | Self::Stream)
    }
}

/// How urgent a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// Before everything else.
    Urgent = 0,
    /// What people or programs wait for.
    Interactive = 1,
    /// The rest.
    Normal = 2,
    /// When nothing else is to be sent.
    Bulk = 3,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::Interactive, Self::Normal, Self::Bulk];
}

/// The flags of a frame.
pub mod flags {
    /// The last STREAM of its REQUEST.
    pub const END: u16 = 1;
    /// The payload begins with an envelope.
    pub const ENVELOPE: u16 = 2;
    /// The payload is ciphertext.
    pub const SEALED: u16 = 4;
    /// Answer this PUBLISH with how many readers it was queued for. To the relay only.
    pub const VERDICT: u16 = 8;
    /// The sender speaks the line dialect and is not authenticated. From the relay only.
    pub const LINE: u16 = 16;
    /// It came over a bridge. To the relay only from a session that may bridge.
    pub const BRIDGED: u16 = 32;

    /// What may stand in a frame to the relay, and in one from it.
    pub(super) const TO_RELAY: u16 = END | ENVELOPE | SEALED | VERDICT | BRIDGED;
    pub(super) const FROM_RELAY: u16 = END | ENVELOPE | SEALED | LINE | BRIDGED;
}

/// Which way a frame goes: the zero fields differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// From a client to the relay.
    Relay,
    /// From the relay to a client.
    Client,
}

/// A frame's header. What its numbers mean depends on the direction: PROTOCOL.md 2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// How urgent.
    pub class: Class,
    /// See [`flags`].
    pub flags: u16,
    /// The topic of a PUBLISH; else 0.
    pub topic: u32,
    /// How long it is worth delivering, in milliseconds; 0: for ever.
    pub ttl_ms: u32,
    /// To the relay the destination's handle, from it the sender's.
    pub peer: u64,
    /// The sender's message id.
    pub mid: u64,
    /// From the relay its number in the topic, or among those queued for the reader; else 0.
    pub offset: u64,
    /// The REQUEST that a REPLY or STREAM belongs to; else 0.
    pub corr: u64,
}

impl FrameHeader {
    /// A header of the normal class of which nothing but the kind is said.
    #[must_use]
    pub const fn new(kind: FrameKind) -> Self {
        let class = Class::Normal;
        Self { kind, class, flags: 0, topic: 0, ttl_ms: 0, peer: 0, mid: 0, offset: 0, corr: 0 }
    }

    /// The header of a payload of `len` bytes, as on the wire.
    #[must_use]
    pub fn to_bytes(&self, len: u32) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        put(&mut bytes, 0, &len.to_le_bytes());
        put(&mut bytes, 4, &[self.kind as u8, self.class as u8]);
        put(&mut bytes, 6, &self.flags.to_le_bytes());
        put(&mut bytes, 8, &self.topic.to_le_bytes());
        put(&mut bytes, 12, &self.ttl_ms.to_le_bytes());
        put(&mut bytes, 16, &self.peer.to_le_bytes());
        put(&mut bytes, 24, &self.mid.to_le_bytes());
        put(&mut bytes, 32, &self.offset.to_le_bytes());
        put(&mut bytes, 40, &self.corr.to_le_bytes());
        bytes
    }

    /// Whether a flag is set, or one of several.
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// The header and the length of its payload; nothing but numbers is asked.
    fn read(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<(Self, u32), Code> {
        let kind = FrameKind::ALL.get(usize::from(u8_at(bytes, 4))).copied();
        let class = Class::ALL.get(usize::from(u8_at(bytes, 5))).copied();
        let header = Self {
            kind: kind.ok_or(Code::BadValue)?,
            class: class.ok_or(Code::BadValue)?,
            flags: u16_at(bytes, 6),
            topic: u32_at(bytes, 8),
            ttl_ms: u32_at(bytes, 12),
            peer: u64_at(bytes, 16),
            mid: u64_at(bytes, 24),
            offset: u64_at(bytes, 32),
            corr: u64_at(bytes, 40),
        };
        Ok((header, u32_at(bytes, 0)))
    }

    /// The rules of one frame for its direction. PROTOCOL.md 2.4.2.
    ///
    /// # Errors
    /// `RESERVED_BITS` for a flag that may not be set here, `BAD_VALUE` for any other field,
    /// `BAD_LENGTH` where no envelope fits: the sender's.
    pub fn check(&self, len: u32, towards: Towards) -> Result<(), Code> {
        let allowed = match towards {
            Towards::Relay => flags::TO_RELAY,
            Towards::Client => flags::FROM_RELAY,
        };
        let misplaced = (self.has(flags::END) && self.kind != FrameKind::Stream)
            || (self.has(flags::VERDICT | flags::LINE) && self.kind != FrameKind::Publish);
        if self.flags & !allowed != 0 || misplaced {
            return Err(Code::ReservedBits);
        }
        if self.has(flags::ENVELOPE) && len < ENVELOPE_BYTES as u32 {
            return Err(Code::BadLength);
        }
        let from_line = self.has(flags::LINE);
        let publishes = self.kind == FrameKind::Publish;
        let topic = if publishes { is_topic(self.topic) } else { self.topic == 0 };
        // Who speaks the line dialect numbers nothing, and answers nobody.
        let mid = if from_line { self.mid == 0 } else { is_mid(self.mid) };
        let corr = if self.kind.is_answer() { is_mid(self.corr) } else { self.corr == 0 };
        let rest = match towards {
            Towards::Relay => (self.peer == 0) == publishes && self.offset == 0,
            Towards::Client => self.peer != 0,
        };
        if topic && mid && corr && rest { Ok(()) } else { Err(Code::BadValue) }
    }
}

/// Whether a topic's number can be one: its serial is never 0.
const fn is_topic(topic: u32) -> bool {
    topic & 0x00FF_FFFF != 0
}

/// Whether a message id can be one.
const fn is_mid(mid: u64) -> bool {
    mid != 0 && mid < MID_END
}

/// A frame where it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// Its header.
    pub header: FrameHeader,
    /// What it carries.
    pub payload: &'b [u8],
    /// Both, as they came.
    pub bytes: &'b [u8],
}

impl<'b> Frame<'b> {
    /// The frame at the front of `bytes`, which are what is left of a body that was checked. None:
    /// it is not whole.
    pub(crate) fn first(bytes: &'b [u8]) -> Option<Self> {
        split(bytes).ok().map(|(frame, _)| frame)
    }
}

/// The frames of a record's body, every header of which is good and which fill it exactly. The
/// only way to one is [`Frames::check`], so nothing acts before everything is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames<'b> {
    rest: &'b [u8],
}

impl<'b> Frames<'b> {
    /// Checks a whole body.
    ///
    /// # Errors
    /// `BAD_LENGTH` where frames do not fill it exactly, or there is none; else those of
    /// [`FrameHeader::check`].
    pub fn check(body: &'b [u8], towards: Towards) -> Result<Self, Code> {
        if body.is_empty() {
            return Err(Code::BadLength);
        }
        let mut rest = body;
        while !rest.is_empty() {
            let (frame, after) = split(rest)?;
            let len = u32::try_from(frame.payload.len()).map_err(|_| Code::BadLength)?;
            frame.header.check(len, towards)?;
            rest = after;
        }
        Ok(Self { rest: body })
    }

    /// Frames that were checked where they came in.
    #[allow(clippy::redundant_pub_crate, reason = "the relay's alone")]
    pub(crate) const fn of_shards(body: &'b [u8]) -> Self {
        Self { rest: body }
    }

    /// The bytes of those that were not yet iterated over.
    #[must_use]
    pub const fn as_bytes(&self) -> &'b [u8] {
        self.rest
    }
}

impl<'b> Iterator for Frames<'b> {
    type Item = Frame<'b>;

    fn next(&mut self) -> Option<Frame<'b>> {
        let (frame, after) = split(self.rest).ok()?;
        self.rest = after;
        Some(frame)
    }
}

/// The first frame, and what follows it.
fn split(bytes: &[u8]) -> Result<(Frame<'_>, &[u8]), Code> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Code::BadLength)?;
    let (header, len) = FrameHeader::read(head)?;
    let len = usize::try_from(len).map_err(|_| Code::BadLength)?;
    let (payload, after) = rest.split_at_checked(len).ok_or(Code::BadLength)?;
    let whole = FRAME_HEADER_BYTES.saturating_add(len);
    let bytes = bytes.get(..whole).ok_or(Code::BadLength)?;
    Ok((Frame { header, payload, bytes }, after))
}

/// Frames written one after the other into lent memory.
#[derive(Debug)]
pub struct FrameWriter<'b> {
    room: &'b mut [u8],
    len: usize,
}

impl<'b> FrameWriter<'b> {
    /// Writes to `room`, from its beginning.
    #[must_use]
    pub const fn new(room: &'b mut [u8]) -> Self {
        Self { room, len: 0 }
    }

    /// Writes a frame. False: it does not fit, and nothing was written.
    pub fn put(&mut self, header: &FrameHeader, payload: &[u8]) -> bool {
        let Ok(len) = u32::try_from(payload.len()) else { return false };
        let whole = FRAME_HEADER_BYTES.saturating_add(payload.len());
        let Some(room) = self.room.get_mut(self.len..).and_then(|room| room.get_mut(..whole))
        else {
            return false;
        };
        put(room, 0, &header.to_bytes(len));
        put(room, FRAME_HEADER_BYTES, payload);
        self.len = self.len.saturating_add(whole);
        true
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.room.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
