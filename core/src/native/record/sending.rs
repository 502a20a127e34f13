//! The half of a connection that sends records.

use bytemuck::Zeroable;

use super::{
    FRONT_BYTES, KEY_AGE_MAX, KEY_RECORDS_MAX, Keyed, Kind, RECORD_HEADER_BYTES, SEQ_END, digest,
};
use crate::native::bytes::put;
use crate::native::codes::Code;
use crate::native::handshake::SessionId;
use crate::native::key::Key;
use crate::time::{Duration, Instant};

/// A sender changes its key so many records before it must, so that nothing has to wait for it.
const KEY_RECORDS_MARGIN: u64 = 1 << 20;
/// The same in time.
const KEY_AGE_MARGIN: Duration = Duration::from_secs(300);

/// The half that sends. It knows no bytes: it makes headers, in the order in which the records go
/// out.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Sending {
    pub(super) keyed: Keyed,
    /// The largest body that the other end takes.
    body_max: u32,
    pub(super) closed: bool,
}

impl Sending {
    pub(super) const fn new(key: Key, sid: SessionId, body_max: u32, now: Instant) -> Self {
        Self { keyed: Keyed::new(key, sid, now), body_max, closed: false }
    }

    /// Records sent so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.keyed.seq
    }

    /// The largest FRAMES body that the other end takes.
    #[must_use]
    pub const fn body_max(&self) -> u32 {
        self.body_max
    }

    /// Whether its CLOSE was sent: nothing follows it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a REKEY is to be sent before the next record.
    #[must_use]
    pub fn rekey_due(&self, now: Instant) -> bool {
        let age = KEY_AGE_MAX.as_nanos().saturating_sub(KEY_AGE_MARGIN.as_nanos());
        self.keyed.used() >= KEY_RECORDS_MAX.saturating_sub(KEY_RECORDS_MARGIN)
            || now.since(self.keyed.since).as_nanos() >= age
    }

    /// The header of a REKEY, a whole record.
    ///
    /// # Errors
    /// Those of [`Sending::frames`].
    pub fn rekey(&mut self, now: Instant) -> Result<[u8; RECORD_HEADER_BYTES], Code> {
        self.seal(Kind::Rekey, &[0; 32], 0, now)
    }

    /// The header of a record of frames: `len` bytes whose [`digest`] is `digest`.
    ///
    /// # Errors
    /// Our own: `TOO_LARGE` over [`Sending::body_max`], `BAD_LENGTH` below one frame, `BAD_STATE`
    /// after a CLOSE or where a REKEY must come first, `BAD_SEQ` where numbers end.
    pub fn frames(
        &mut self,
        len: u32,
        digest: &[u8; 32],
    ) -> Result<[u8; RECORD_HEADER_BYTES], Code> {
        self.seal(Kind::Frames, digest, len, self.keyed.since)
    }

    /// The header of a record of one control value.
    ///
    /// # Errors
    /// As [`Sending::frames`]; `BAD_LENGTH` where `value` is empty or over 256 bytes.
    pub fn control(&mut self, value: &[u8]) -> Result<[u8; RECORD_HEADER_BYTES], Code> {
        let len = u32::try_from(value.len()).map_err(|_| Code::BadLength)?;
        self.seal(Kind::Control, &digest(value), len, self.keyed.since)
    }

    /// A whole record with a small body.
    pub(super) fn small<const N: usize>(
        &mut self,
        kind: Kind,
        body: &[u8],
    ) -> Result<[u8; N], Code> {
        let len = u32::try_from(body.len()).map_err(|_| Code::BadLength)?;
        let header = self.seal(kind, &digest(body), len, self.keyed.since)?;
        let mut record = [0; N];
        put(&mut record, 0, &header);
        put(&mut record, RECORD_HEADER_BYTES, body);
        Ok(record)
    }

    fn seal(
        &mut self,
        kind: Kind,
        digest: &[u8; 32],
        len: u32,
        now: Instant,
    ) -> Result<[u8; RECORD_HEADER_BYTES], Code> {
        let (least, most) = kind.lengths(self.body_max);
        if len < least || (len > most && kind != Kind::Frames) {
            return Err(Code::BadLength);
        }
        if len > most {
            return Err(Code::TooLarge);
        }
        // The last place under a key is its REKEY's.
        let places = KEY_RECORDS_MAX.saturating_sub(u64::from(kind != Kind::Rekey));
        if self.closed || self.keyed.used() >= places {
            return Err(Code::BadState);
        }
        if self.keyed.seq >= SEQ_END {
            return Err(Code::BadSeq);
        }
        let mut front = [0; FRONT_BYTES];
        put(&mut front, 0, &[kind as u8]);
        put(&mut front, 4, &len.to_le_bytes());
        put(&mut front, 8, &self.keyed.seq.to_le_bytes());
        let tag = self.keyed.tag(&front, digest);
        let mut header = [0; RECORD_HEADER_BYTES];
        put(&mut header, 0, &front);
        put(&mut header, 16, &tag.to_bytes());
        self.keyed.advance(kind, now);
        self.closed = kind == Kind::Close;
        Ok(header)
    }
}
