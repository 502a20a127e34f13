//! The server's half of a resume: proved by a secret, and believed only after the first record.
//! PROTOCOL.md 2.2.8.

use bytemuck::Zeroable;

use super::message::{Granted, Hello, Resumed};
use super::schedule::{self, SessionId};
use super::server::{Answer, Ended};
use crate::native::bytes::all_zero;
use crate::native::codes::Code;
use crate::native::key::Key;
use crate::native::record::{CONTROL_BYTES_MAX, Directions, Next, Records, Side};
use crate::time::Instant;

/// The largest body of the first record after RESUMED: a control value's. Until its tag is known to
/// be right it may be anybody's who plays back a HELLO, and nobody makes us hold more for him.
pub(super) const FIRST_BODY_MAX: u32 = CONTROL_BYTES_MAX as u32;

/// A session that the relay holds, as far as a resume needs it.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Its id.
    pub sid: SessionId,
    /// Its secret.
    pub rms: Key,
    /// What AUTH said that the client takes.
    pub recv_max: u32,
}

/// Somebody who has the session's secret, or plays back who had: nothing may change yet. Next: ban
/// and permission of the session's identity, again.
#[derive(Debug)]
pub struct ProvenResume {
    hello: Hello,
    held: Held,
}

impl ProvenResume {
    /// The proof of a HELLO, against the session that it names.
    pub(super) fn prove(hello: Hello, held: &Held) -> Option<Self> {
        let is_held = !all_zero(&held.sid) && !held.rms.is_none();
        let proved = is_held
            && held.sid == hello.resume_sid()
            && schedule::resume_proof(&held.rms, &hello).matches(&hello.proof());
        proved.then_some(Self { hello, held: *held })
    }

    /// The session.
    #[must_use]
    pub const fn sid(&self) -> &SessionId {
        &self.held.sid
    }

    /// RESUMED, once ban and permission were asked. `n_s`: new entropy for each.
    ///
    /// # Errors
    /// The caller's no; `INTERNAL` where `handle` is 0.
    pub fn answer(
        mut self,
        answer: Answer,
        handle: u64,
        n_s: &[u8; 16],
        granted: Granted,
        now: Instant,
    ) -> Result<(Resumed, Waiting), Ended> {
        answer.ask()?;
        if handle == 0 {
            return Err(Code::Internal.into());
        }
        let mut resumed = Resumed::new(handle, n_s, granted);
        let (mac_s, k_c2s, k_s2c) = schedule::resume(&self.held.rms, &self.hello, &resumed);
        resumed.set_mac_s(&mac_s.to_bytes());
        let keys = Directions { k_c2s, k_s2c };
        let limits = (granted.max_payload, self.held.recv_max);
        let mut records = Records::new(Side::Server, keys, self.held.sid, limits, now);
        let body_max = records.receiving.body_max;
        records.receiving.body_max = body_max.min(FIRST_BODY_MAX);
        self.held.rms.wipe();
        Ok((resumed, Waiting { sid: self.held.sid, body_max, records }))
    }
}

/// Resumed, but not proved: a HELLO can be played back. It sends nothing and moves nothing until a
/// valid record comes. PROTOCOL.md 2.2.8. Wiped when dropped.
#[derive(Debug)]
pub struct Waiting {
    sid: SessionId,
    /// The largest FRAMES body once it has proved itself.
    body_max: u32,
    records: Records,
}

impl Waiting {
    /// The session that it will be, if it proves itself.
    #[must_use]
    pub const fn sid(&self) -> &SessionId {
        &self.sid
    }

    /// What came. The first valid record makes this connection the session's: the old one and all
    /// others that wait end with SUPERSEDED, and the record is the first to act upon.
    ///
    /// # Errors
    /// Somebody's who has not the secret: this connection ends and nothing else changes.
    pub fn record(mut self, now: Instant, bytes: &[u8]) -> Result<FirstRecord<'_>, Code> {
        match self.records.next(now, bytes)? {
            Next::More(missing) => Ok(FirstRecord::More(self, missing)),
            next @ Next::Record(..) => {
                self.records.receiving.body_max = self.body_max;
                let proved = ResumedSession { sid: self.sid, records: self.records };
                Ok(FirstRecord::Proved(proved, next))
            }
        }
    }

    /// To be kept in a slot.
    #[must_use]
    pub fn park(self) -> ParkedResume {
        ParkedResume { sid: self.sid, body_max: self.body_max, records: self.records }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.records.wipe();
    }
}

/// What came for a connection that waits.
#[derive(Debug)]
pub enum FirstRecord<'b> {
    /// So many bytes are missing.
    More(Waiting, usize),
    /// It is the session's now. The record, as [`Records::next`] gives it.
    Proved(ResumedSession, Next<'b>),
}

/// A [`Waiting`] in a slot. All zeros is none.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct ParkedResume {
    sid: SessionId,
    body_max: u32,
    records: Records,
}

impl ParkedResume {
    /// Takes it out; the slot holds no keys any more.
    #[must_use]
    pub fn unpark(&mut self) -> Option<Waiting> {
        let Self { sid, body_max, records } = *self;
        let waiting = Waiting { sid, body_max, records };
        self.wipe();
        (!all_zero(&waiting.sid)).then_some(waiting)
    }

    /// Makes zeros of the keys, and nobody of it.
    pub fn wipe(&mut self) {
        self.records.wipe();
        self.sid = [0; 16];
    }
}

/// A connection that a resumed session goes on with. Wiped when dropped.
#[derive(Debug)]
pub struct ResumedSession {
    sid: SessionId,
    records: Records,
}

impl ResumedSession {
    /// Whose it is.
    #[must_use]
    pub const fn sid(&self) -> &SessionId {
        &self.sid
    }

    /// Both directions; the first record is taken already.
    #[must_use]
    pub const fn records(&self) -> Records {
        self.records
    }
}

impl Drop for ResumedSession {
    fn drop(&mut self) {
        self.records.wipe();
    }
}
