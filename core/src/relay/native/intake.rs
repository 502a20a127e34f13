//! Input of a native connection: from bytes to records to frames. PROTOCOL.md 2.3, 2.4.
//!
//! A record acts once its tag is right. Its frames may have to wait all the same, for the rate, the
//! turn, or memory: they are kept, and the connection remembers how many bytes at the front of its
//! input are frames that were checked.

use super::greet::Step;
use super::slots::{Asked, Entry, Native, Stage};
use crate::id::Ref;
use crate::limits::NativeLimits;
use crate::native::{Code, Frame, Next, RECORD_HEADER_BYTES, Record, ServerControl};
use crate::quarantine::Offence;
use crate::rate::{Bucket, Rate};
use crate::relay::Relay;
use crate::relay::input::{CHARGE_MIN, Stop};
use crate::session::{Flags, Pending};
use crate::storage::{Pool, Purpose, copy};
use crate::time::{Duration, Instant};

/// Answers that may wait for a connection before it is read no further.
const ANSWERS_MAX: u32 = 32;
/// How long who has no tokens waits before it is looked at again.
const REFILL: Duration = Duration::from_millis(10);
/// Control values per second, and at once.
const CONTROLS: Rate = Rate { period: Duration::from_millis(10), burst: 256 };

impl<P: Pool> Relay<'_, P> {
    /// New bytes of a native connection that has no backlog.
    pub(in crate::relay) fn feed_native(&mut self, slot: Ref, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.sessions.at(slot).input.is_empty() {
            let missing = self.natives.conn(slot).missing as usize;
            let Some((head, tail)) = rest.split_at_checked(missing) else {
                let conn = self.natives.conn_mut(slot);
                let came = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                conn.missing = conn.missing.saturating_sub(came);
                self.keep_part(slot, rest);
                return;
            };
            match self.feed_whole(slot, head, tail) {
                Some(()) => rest = tail,
                None => return,
            }
            if rest.is_empty() {
                return;
            }
        }
        let (taken, stop) = self.take_units(slot, rest);
        let rest = rest.get(taken..).unwrap_or_default();
        match stop {
            Stop::More => self.begin_part(slot, rest),
            Stop::Gone => {}
            Stop::Turn | Stop::Held | Stop::Memory | Stop::Link | Stop::Output => {
                self.keep(slot, rest);
                self.wait(slot, stop);
            }
        }
    }

    /// What `head` completes, made whole in the scratch area. Gives whether what follows, `tail`,
    /// is to be fed; else it was seen to.
    fn feed_whole(&mut self, slot: Ref, head: &[u8], tail: &[u8]) -> Option<()> {
        let scratch = core::mem::take(&mut self.natives.scratch);
        let kept = self.sessions.at(slot).input.copy_to(&self.memory, scratch);
        let whole = kept.saturating_add(head.len());
        copy(scratch.get_mut(kept..).unwrap_or_default(), head);
        let (taken, stop) = match scratch.get(..whole) {
            Some(unit) => self.take_units(slot, unit),
            None => (0, Stop::More),
        };
        let fits = whole <= scratch.len();
        self.natives.scratch = scratch;
        if stop == Stop::Gone {
            return None;
        }
        if !fits {
            self.fault(slot, Code::TooLarge);
            return None;
        }
        let mut input = self.sessions.at(slot).input;
        let popped = taken.min(kept);
        input.pop(&mut self.memory, Purpose::Input, u32::try_from(popped).unwrap_or(u32::MAX));
        self.sessions.at_mut(slot).input = input;
        let rest = head.get(taken.saturating_sub(popped)..).unwrap_or_default();
        if stop == Stop::More {
            self.keep_part(slot, rest);
            return self.sessions.at(slot).is_open().then_some(());
        }
        self.keep(slot, rest);
        if self.sessions.at(slot).is_open() {
            self.keep(slot, tail);
        }
        self.wait(slot, stop);
        None
    }

    /// The beginning of a record is kept until the rest has come.
    fn begin_part(&mut self, slot: Ref, bytes: &[u8]) {
        if !bytes.is_empty() && self.sessions.at(slot).is_open() {
            let now = self.now;
            let session = self.sessions.at_mut(slot);
            session.unfinished_since = now;
            session.unfinished_bytes = 0;
            self.keep_part(slot, bytes);
            self.arm(slot);
        }
    }

    fn keep_part(&mut self, slot: Ref, bytes: &[u8]) {
        let session = self.sessions.at_mut(slot);
        session.unfinished_bytes = session.unfinished_bytes.saturating_add(bytes.len() as u64);
        if !bytes.is_empty() {
            self.keep(slot, bytes);
        }
    }

    /// Goes on with what a connection has waiting. Gives what it stopped at, and whether all that
    /// waited was looked at.
    pub(in crate::relay) fn continue_native(&mut self, slot: Ref) {
        let scratch = core::mem::take(&mut self.natives.scratch);
        let input = self.sessions.at(slot).input;
        let len = input.copy_to(&self.memory, scratch);
        let fits = len == input.len() as usize;
        let (taken, stop) = self.take_units(slot, scratch.get(..len).unwrap_or_default());
        self.natives.scratch = scratch;
        if stop == Stop::Gone {
            return;
        }
        let mut input = self.sessions.at(slot).input;
        input.pop(&mut self.memory, Purpose::Input, u32::try_from(taken).unwrap_or(u32::MAX));
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.input = input;
        session.unfinished_since = now;
        if stop != Stop::More {
            self.wait(slot, stop);
        } else if fits {
            self.end_backlog(slot);
        } else if taken > 0 {
            self.wait(slot, Stop::Turn);
        } else {
            // A record that does not fit is over any limit.
            self.fault(slot, Code::TooLarge);
        }
    }

    /// Takes what stands whole at the front of `bytes`, about a share of it. Gives how much was
    /// taken, and why no more.
    fn take_units(&mut self, slot: Ref, bytes: &[u8]) -> (usize, Stop) {
        let lobby = self.natives.lobby;
        let mut share = self.share(lobby) as usize;
        let mut taken = 0_usize;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            if share == 0 || self.turn_is_full(slot) {
                return (taken, Stop::Turn);
            }
            if self.sessions.at(slot).held_until > self.now {
                return (taken, Stop::Held);
            }
            if self.natives.conn(slot).answers > ANSWERS_MAX {
                return (taken, Stop::Output);
            }
            let len = match self.take_unit(slot, rest) {
                Ok(len) => len,
                Err(stop) => return (taken, stop),
            };
            taken = taken.saturating_add(len);
            share = share.saturating_sub(len.max(CHARGE_MIN as usize));
            let verified = self.natives.conn(slot).verified as usize;
            if verified > 0 {
                let rest = bytes.get(taken..).unwrap_or_default();
                let rest = rest.get(..verified).unwrap_or(rest);
                let more = self.take_ordinary_frames(slot, rest, &mut share);
                taken = taken.saturating_add(more);
            }
            if !self.sessions.at(slot).is_open() || self.natives.conn(slot).doomed != 0 {
                return (taken, Stop::Gone);
            }
        }
        (taken, Stop::More)
    }

    /// Takes one message of the handshake, one record, or one frame.
    fn take_unit(&mut self, slot: Ref, bytes: &[u8]) -> Result<usize, Stop> {
        let conn = self.natives.conn_mut(slot);
        if conn.stage() != Stage::Live {
            let next = match self.greet(slot, bytes) {
                Step::More(missing) => return Err(self.lacks(slot, missing)),
                Step::Took(len) => {
                    self.sessions.at_mut(slot).flags.set(Flags::SPOKE);
                    return Ok(len);
                }
                Step::Gone => return Err(Stop::Gone),
                Step::First(next) => next,
            };
            return self.take_next(slot, next);
        }
        if conn.verified > 0 {
            let verified = bytes.get(..conn.verified as usize).unwrap_or(bytes);
            let Some(frame) = Frame::first(verified) else {
                return Err(self.lacks(slot, 1));
            };
            self.take_frame(slot, &frame)?;
            let len = frame.bytes.len();
            let conn = self.natives.conn_mut(slot);
            let done = u32::try_from(len).unwrap_or(u32::MAX);
            conn.verified = conn.verified.saturating_sub(done);
            return Ok(len);
        }
        if conn.control > 0 {
            let len = usize::from(conn.control);
            let Some(body) = bytes.get(..len) else { return Err(self.lacks(slot, 1)) };
            match body.first_chunk().filter(|_| conn.pinged != 0) {
                Some(_) if conn.due > 0 => return Err(Stop::Link),
                Some(ping) => self.pong(slot, *ping),
                None if conn.asked() == Asked::Answered => {}
                None => self.take_control(slot, body)?,
            }
            let conn = self.natives.conn_mut(slot);
            conn.control = 0;
            conn.pinged = 0;
            conn.set_asked(Asked::No);
            return Ok(len);
        }
        match conn.records.next(self.now, bytes) {
            Ok(next) => self.take_next(slot, next),
            Err(fault) => {
                let (code, detail) = conn.records.receiving.blame(fault);
                conn.last_detail = detail;
                if conn.records.receiving.is_authentic() {
                    self.offend_identity(slot, Offence::Frame);
                } else {
                    self.offend(slot, Offence::Record);
                }
                self.fault(slot, code);
                Err(Stop::Gone)
            }
        }
    }

    fn lacks(&mut self, slot: Ref, missing: usize) -> Stop {
        let missing = u32::try_from(missing.max(1)).unwrap_or(u32::MAX);
        self.natives.conn_mut(slot).missing = missing;
        Stop::More
    }

    fn take_next(&mut self, slot: Ref, next: Next<'_>) -> Result<usize, Stop> {
        let (record, len) = match next {
            Next::More(missing) => return Err(self.lacks(slot, missing)),
            Next::Record(record, len) => (record, len),
        };
        match record {
            Record::Frames(frames) => {
                let bytes = u32::try_from(frames.as_bytes().len()).unwrap_or(u32::MAX);
                self.natives.conn_mut(slot).verified = bytes;
                return Ok(RECORD_HEADER_BYTES);
            }
            Record::Ping(bytes) => {
                self.charge_control(slot);
                let conn = self.natives.conn_mut(slot);
                if conn.due > 0 && !cfg!(wardline_mutant = "pong_overtakes") {
                    conn.pinged = 1;
                    conn.control = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                    return Ok(RECORD_HEADER_BYTES);
                }
                self.pong(slot, bytes);
            }
            Record::Control(value) => {
                self.charge_control(slot);
                if self.take_control(slot, value).is_err() {
                    // It stands at the front of the input until it can be answered.
                    let conn = self.natives.conn_mut(slot);
                    conn.control = u16::try_from(value.len()).unwrap_or(u16::MAX);
                    return Ok(RECORD_HEADER_BYTES);
                }
            }
            Record::Close(close) => {
                self.stats.closes.bump();
                let survives = Code::from_wire(close.code).is_some_and(Code::session_survives);
                self.detach(slot, survives);
                // It takes nothing any more, although it is sent all that was tagged.
                self.return_queued(slot, false);
                self.end_native(slot, Code::Normal, 0);
            }
            Record::Rekeyed => self.charge_control(slot),
            Record::Pong | Record::Dropped => {}
        }
        Ok(len)
    }

    /// Says that all before a PING was taken or refused.
    fn pong(&mut self, slot: Ref, bytes: [u8; 8]) {
        self.rekey_if_due(slot);
        match self.natives.conn_mut(slot).records.pong(bytes) {
            Ok(record) => self.answer_native(slot, &record),
            Err(code) => self.fault(slot, code),
        }
    }

    /// A record that is no frames costs what a message does. It acts all the same; who has no
    /// tokens for more is read no further until it has some.
    fn charge_control(&mut self, slot: Ref) {
        let now = self.now;
        if let Ok(spent) = self.afford(slot, 0, 0) {
            self.spend(slot, spent, 0);
        }
        let conn = self.natives.conn_mut(slot);
        if !conn.controls.take(CONTROLS, now, 1) {
            self.sessions.at_mut(slot).held_until = now.after(REFILL);
        }
    }

    /// Charges what others were told because of a connection; they were told already. Beyond what
    /// the bucket holds it is read no further for a while.
    pub(super) fn charge_deliveries(&mut self, slot: Ref, count: u32) {
        let now = self.now;
        let Some(rate) = Rates::of(&self.limits.native).deliveries else { return };
        let Some(entry) = self.natives.conn(slot).entry.some() else { return };
        let chief = self.natives.entries.at(entry).chief;
        let deliveries = &mut self.natives.entries.at_mut(chief).deliveries;
        let there = deliveries.left(rate, now);
        deliveries.take(rate, now, count.min(there));
        if count > there {
            self.sessions.at_mut(slot).held_until = now.after(REFILL);
        }
    }

    /// The buckets after one frame of so many bytes, if they hold that much.
    pub(super) fn afford(&mut self, slot: Ref, bytes: u32, readers: u32) -> Result<Spent, Stop> {
        let now = self.now;
        let rates = Rates::of(&self.limits.native);
        let struck = self.sessions.at(slot).throttled_until > now;
        let cost = if struck { 10 } else { 1 };
        let spent = Spent::of(self.natives.conn(slot), self.chief_of(slot));
        if let Some(spent) = spent.after(&rates, now, bytes as usize, readers, cost) {
            let charged = bytes.max(CHARGE_MIN);
            if let Some(common) = spent.common.after(&rates, now, (cost, charged)) {
                return Ok(Spent { common, ..spent });
            }
            self.stats.identity_held.bump();
        }
        self.stats.native_held.bump();
        self.sessions.at_mut(slot).held_until = now.after(REFILL);
        Err(Stop::Held)
    }

    /// The session that has the buckets of all those of an identity.
    pub(super) fn chief_of(&self, slot: Ref) -> &Entry {
        let chief = self.natives.entries.at(self.natives.conn(slot).entry).chief;
        self.natives.entries.at(chief)
    }

    /// Notes what a frame cost, once it was taken.
    pub(super) fn spend(&mut self, slot: Ref, spent: Spent, bytes: u32) {
        // Its session may have ended over it.
        if let Some(entry) = self.natives.conn(slot).entry.some() {
            let chief = self.natives.entries.at(entry).chief;
            let chief = self.natives.entries.at_mut(chief);
            chief.messages = spent.common.messages;
            chief.bytes = spent.common.bytes;
            chief.deliveries = spent.deliveries;
        }
        let conn = self.natives.conn_mut(slot);
        if !cfg!(wardline_mutant = "native_rate_not_charged") {
            conn.messages = spent.messages;
        }
        conn.bytes = spent.bytes;
        let lobby = self.natives.lobby;
        let lobby = self.topics.at_mut(lobby);
        lobby.taken = lobby.taken.saturating_add(bytes.max(CHARGE_MIN));
    }

    /// A message was not taken, and its sender is told why.
    pub(super) fn nack(&mut self, slot: Ref, mid: u64, code: Code, retry_ms: u32) {
        self.stats.nacks.bump();
        let value = ServerControl::Nack { mid, code: code.wire(), retry_ms };
        self.tell_native(slot, &value);
    }

    /// Tells a connection something that it asked for, or that is its own fault.
    pub(super) fn tell_native(&mut self, slot: Ref, value: &ServerControl<'_>) {
        let Ok(value) = value.encode() else {
            self.fault(slot, Code::Internal);
            return;
        };
        let bytes = value.as_bytes();
        self.rekey_if_due(slot);
        let header = match self.natives.conn_mut(slot).records.sending.control(bytes) {
            Ok(header) => header,
            // Nothing more is said after the last words.
            Err(_) => return,
        };
        let mut record = [0_u8; RECORD_HEADER_BYTES + crate::native::CONTROL_BYTES_MAX];
        copy(&mut record, &header);
        copy(record.get_mut(RECORD_HEADER_BYTES..).unwrap_or_default(), bytes);
        let len = RECORD_HEADER_BYTES.saturating_add(bytes.len());
        self.answer_native(slot, record.get(..len).unwrap_or_default());
    }

    /// Tells a connection something that another one is the cause of: it is read on all the same.
    pub(super) fn tell_peer(&mut self, slot: Ref, value: &ServerControl<'_>) {
        let answers = self.natives.conn(slot).answers;
        self.tell_native(slot, value);
        self.natives.conn_mut(slot).answers = answers;
    }

    fn answer_native(&mut self, slot: Ref, record: &[u8]) {
        let conn = self.natives.conn_mut(slot);
        conn.answers = conn.answers.saturating_add(1);
        self.say(slot, record);
    }

    /// Has a new key begin where the old one is used up.
    pub(super) fn rekey_if_due(&mut self, slot: Ref) {
        let now = self.now;
        let conn = self.natives.conn_mut(slot);
        if conn.records.sending.rekey_due(now)
            && let Ok(record) = conn.records.sending.rekey(now)
        {
            self.say(slot, &record);
        }
    }

    /// Puts bytes into the own output of a connection. Without memory for them it ends: what was
    /// tagged cannot be left out.
    pub(super) fn say(&mut self, slot: Ref, bytes: &[u8]) {
        if self.natives.conn(slot).doomed != 0 {
            return;
        }
        let mut output = self.sessions.at(slot).output;
        let mut said = output.push(&mut self.memory, Purpose::Output, bytes).is_ok();
        if !said && self.drop_retention() {
            said = output.push(&mut self.memory, Purpose::Output, bytes).is_ok();
        }
        self.sessions.at_mut(slot).output = output;
        if !said {
            // Not here: others may be in the middle of telling it, and others, something.
            self.stats.overloaded.bump();
            self.natives.conn_mut(slot).doomed = 1;
        }
        self.mark(slot, Pending::SEND);
    }
}

/// How fast a connection may send: messages and bytes. None: as fast as it likes.
pub(super) struct Rates {
    messages: Option<Rate>,
    bytes: Option<Rate>,
    /// Of all sessions of an identity: deliveries, messages and bytes.
    deliveries: Option<Rate>,
    common: (Option<Rate>, Option<Rate>),
}

impl Rates {
    pub(super) fn of(limits: &NativeLimits) -> Self {
        let rate = |units: u32, burst: u32| {
            (units > 0).then_some(Rate { burst, ..Rate::per_second(units) })
        };
        let (messages, bytes) = (limits.messages_per_second, limits.bytes_per_second);
        let deliveries = limits.deliveries_per_second;
        let of_messages = |units: u32| rate(units, units.saturating_mul(2));
        let least = limits.payload_bytes_max.saturating_mul(2);
        let of_bytes = |units: u32| rate(units, units.max(least));
        Self {
            messages: of_messages(messages),
            bytes: of_bytes(bytes),
            deliveries: rate(deliveries, deliveries),
            common: (
                of_messages(limits.identity_messages_per_second),
                of_bytes(limits.identity_bytes_per_second),
            ),
        }
    }
}

/// The buckets that all sessions of an identity share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    messages: Bucket,
    bytes: Bucket,
}

impl Common {
    /// The same after so many messages of so many bytes together, if they hold that much.
    pub(super) fn after(
        self,
        rates: &Rates,
        now: Instant,
        (messages, bytes): (u32, u32),
    ) -> Option<Self> {
        Some(Self {
            messages: taken(self.messages, rates.common.0, now, messages)?,
            bytes: taken(self.bytes, rates.common.1, now, bytes)?,
        })
    }

    /// How many messages, and bytes, they hold.
    pub(super) fn left(self, rates: &Rates, now: Instant) -> (u64, usize) {
        let left = |bucket: Bucket, rate: Option<Rate>| {
            rate.map_or(u32::MAX, |rate| bucket.left(rate, now))
        };
        let bytes = left(self.bytes, rates.common.1) as usize;
        (u64::from(left(self.messages, rates.common.0)), bytes)
    }
}

/// A bucket after so many units were taken. More at once than it ever holds is what it holds.
fn taken(bucket: Bucket, rate: Option<Rate>, now: Instant, units: u32) -> Option<Bucket> {
    match rate {
        Some(rate) => bucket.after(rate, now, units.min(rate.burst)),
        None => Some(bucket),
    }
}

/// Buckets after a frame, to be stored once it was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    messages: Bucket,
    bytes: Bucket,
    deliveries: Bucket,
    pub(super) common: Common,
}

impl Spent {
    pub(super) const fn of(conn: &Native, chief: &Entry) -> Self {
        Self {
            messages: conn.messages,
            bytes: conn.bytes,
            deliveries: chief.deliveries,
            common: Common { messages: chief.messages, bytes: chief.bytes },
        }
    }

    /// The same after one more frame of so many bytes for so many readers, if they hold that much;
    /// what its identity shares is left to the caller.
    pub(super) fn after(
        &self,
        rates: &Rates,
        now: Instant,
        bytes: usize,
        readers: u32,
        cost: u32,
    ) -> Option<Self> {
        let take = |bucket, rate, units| taken(bucket, rate, now, units);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(CHARGE_MIN);
        Some(Self {
            messages: take(self.messages, rates.messages, cost)?,
            bytes: take(self.bytes, rates.bytes, bytes)?,
            deliveries: take(self.deliveries, rates.deliveries, readers)?,
            common: self.common,
        })
    }
}
