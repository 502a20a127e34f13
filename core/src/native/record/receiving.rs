//! The half of a connection that receives records.

use bytemuck::Zeroable;

use super::{
    CONTROL_BYTES_MAX, Close, FRONT_BYTES, KEY_AGE_MAX, KEY_RECORDS_MAX, Keyed, Kind, Next,
    RECORD_HEADER_BYTES, Record, SEQ_END, digest,
};
use crate::native::bytes::{get, is_zero, u8_at, u32_at, u64_at};
use crate::native::codes::Code;
use crate::native::frame::{Frames, Towards};
use crate::native::handshake::SessionId;
use crate::native::key::Key;
use crate::time::{Duration, Instant};

/// A receiver gives a sender longer, by what somebody on the path can hold a record back before
/// the pings run out.
const KEY_AGE_SLACK: Duration = Duration::from_secs(90);

/// The half that receives.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Receiving {
    pub(super) keyed: Keyed,
    /// The largest FRAMES body that is taken.
    pub(crate) body_max: u32,
    /// It is the server's: what comes goes to the relay.
    at_server: bool,
    /// Our CLOSE is out: nothing but the other's CLOSE is taken.
    pub(super) closing: bool,
    /// The other's CLOSE is in, or a fault: nothing is taken.
    pub(super) over: bool,
    /// The tag of what was looked at last was right.
    authentic: bool,
    /// The other's CLOSE is in, and good.
    pub(super) closed: bool,
    /// A PING of ours is under way, with these bytes.
    pub(super) pinging: bool,
    pub(super) ping: [u8; 8],
    /// Records that were handed out.
    pub(super) taken: u64,
}

/// What a header says once it is known to be good as far as it can be without the body.
struct Header {
    kind: Kind,
    len: usize,
}

impl Receiving {
    pub(super) const fn new(
        key: Key,
        sid: SessionId,
        body_max: u32,
        at_server: bool,
        now: Instant,
    ) -> Self {
        Self {
            keyed: Keyed::new(key, sid, now),
            body_max,
            at_server,
            closing: false,
            over: false,
            authentic: false,
            closed: false,
            pinging: false,
            ping: [0; 8],
            taken: 0,
        }
    }

    /// What `bytes`, which begin where a record begins, hold. Nothing is copied; a call that
    /// wants more changes nothing, and costs the same however often it is made.
    ///
    /// # Errors
    /// The other end's where [`Receiving::is_authentic`], else it may be anybody's on the path:
    /// the connection ends, and its CLOSE says what [`Receiving::blame`] gives. PROTOCOL.md 2.3.2.
    pub fn next<'b>(&mut self, now: Instant, bytes: &'b [u8]) -> Result<Next<'b>, Code> {
        let next = self.step(now, bytes);
        self.over |= next.is_err();
        next
    }

    fn step<'b>(&mut self, now: Instant, bytes: &'b [u8]) -> Result<Next<'b>, Code> {
        self.authentic = false;
        if self.over {
            return Err(Code::BadState);
        }
        let Some(front) = bytes.first_chunk::<FRONT_BYTES>() else {
            return Ok(Next::More(RECORD_HEADER_BYTES.saturating_sub(bytes.len())));
        };
        let header = self.judge(front, now)?;
        let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
            return Ok(Next::More(RECORD_HEADER_BYTES.saturating_sub(bytes.len())));
        };
        let Some(body) = rest.get(..header.len) else {
            return Ok(Next::More(header.len.saturating_sub(rest.len())));
        };
        if !self.keyed.tag(front, &digest(body)).matches(&get(head, 16)) {
            return Err(Code::BadTag);
        }
        self.authentic = true;
        self.keyed.advance(header.kind, now);
        let record = self.open(header.kind, body)?;
        if record != Record::Dropped {
            self.taken = self.taken.saturating_add(1);
        }
        Ok(Next::Record(record, RECORD_HEADER_BYTES.saturating_add(header.len)))
    }

    /// All that can be known without body and tag, from what the tag covers of the header.
    fn judge(&self, head: &[u8; FRONT_BYTES], now: Instant) -> Result<Header, Code> {
        if !is_zero(head, 1, 3) {
            return Err(Code::ReservedBits);
        }
        let kind = Kind::from_wire(u8_at(head, 0)).ok_or(Code::BadState)?;
        let len = u32_at(head, 4);
        let (least, most) = kind.lengths(self.body_max);
        if len > most.max(self.body_max) {
            return Err(Code::TooLarge);
        }
        if len < least || len > most {
            return Err(Code::BadLength);
        }
        if u64_at(head, 8) != self.keyed.seq || self.keyed.seq >= SEQ_END {
            return Err(Code::BadSeq);
        }
        let age = KEY_AGE_MAX.as_nanos().saturating_add(KEY_AGE_SLACK.as_nanos());
        if self.keyed.used() >= KEY_RECORDS_MAX || now.since(self.keyed.since).as_nanos() > age {
            return Err(Code::BadState);
        }
        Ok(Header { kind, len: usize::try_from(len).unwrap_or(usize::MAX) })
    }

    /// What an authentic record means in this state.
    fn open<'b>(&mut self, kind: Kind, body: &'b [u8]) -> Result<Record<'b>, Code> {
        if self.closing && kind != Kind::Close {
            return Ok(Record::Dropped);
        }
        match kind {
            Kind::Ping => Ok(Record::Ping(get(body, 0))),
            Kind::Pong if self.pinging && self.ping == get(body, 0) => {
                self.pinging = false;
                Ok(Record::Pong)
            }
            Kind::Pong => Err(Code::BadState),
            Kind::Close => {
                self.over = true;
                self.closed = true;
                Ok(Record::Close(Close::read(body)))
            }
            Kind::Rekey => Ok(Record::Rekeyed),
            Kind::Control => Ok(Record::Control(body)),
            Kind::Frames => {
                let towards = if self.at_server { Towards::Relay } else { Towards::Client };
                Frames::check(body, towards).map(Record::Frames)
            }
        }
    }

    /// Whether the tag of what was looked at last was right: a fault is then the other end's own,
    /// and nobody's on the path.
    #[must_use]
    pub const fn is_authentic(&self) -> bool {
        self.authentic
    }

    /// What a CLOSE says of a fault that was found in what was looked at last, as code and detail.
    /// What was found before the tag was known to be right may be anybody's on the path, who must
    /// not end a session by it: it is a BAD_TAG, or a BAD_SEQ. PROTOCOL.md 2.3.2.
    #[must_use]
    pub fn blame(&self, fault: Code) -> (Code, u16) {
        let owned = self.authentic || cfg!(wardline_mutant = "path_ends_session");
        if owned || fault == Code::BadTag || fault == Code::BadSeq {
            (fault, 0)
        } else {
            (Code::BadTag, fault.wire())
        }
    }

    /// Records that were handed out.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether a PING of ours is under way.
    #[must_use]
    pub const fn is_pinging(&self) -> bool {
        self.pinging
    }

    /// Whether nothing more can come: the other end's CLOSE is in, or there was a fault.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The largest record, header included, that can come: what a caller needs room for.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        let body = usize::try_from(self.body_max).unwrap_or(usize::MAX).max(CONTROL_BYTES_MAX);
        body.saturating_add(RECORD_HEADER_BYTES)
    }
}
