//! Messages of which it is not yet known whether they were taken. PROTOCOL.md 2.4.4.
//!
//! ```text
//!   ids      oldest ........ unsent ........ said ........ next
//!   slots    | sent, or settled | to be sent (again), or settled |   a ring: id modulo slots
//!
//!   oldest <= unsent <= said <= next;  next - oldest <= slots;  what is settled at `oldest` is
//!   popped;  `unsent` goes back where the relay shows that something is missing, `said` never
//! ```
//!
//! An id is given once, in order, and keeps its message over all connections. What is to be sent
//! goes out in the order of the ids, so that a message that is sent again comes before all that
//! had followed it and were not taken.

use bytemuck::Zeroable;

use crate::native::bytes::u8_at;
use crate::native::codes::Code;
use crate::native::control::SEEN_BYTES;
use crate::native::frame::MID_END;

/// The most messages under way: what the relay's window spans.
pub const UNSURE_MAX: usize = 1_024;

/// Ids begin below this.
const START_END: u64 = 1 << 62;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The relay took it.
    Taken,
    /// It was not taken: a NACK said so, or it was withdrawn.
    Refused,
    /// Nobody knows. It is not sent again unasked.
    Unsure,
}

/// The memory of one message. All zeros is a message that waits.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub struct Slot {
    /// The number of the record that it went out with, on this connection.
    record: u64,
    /// 0: not settled; else a [`Fate`].
    mark: u8,
}

const WAITS: u8 = 0;

const fn mark_of(fate: Fate) -> u8 {
    match fate {
        Fate::Taken => 1,
        Fate::Refused => 2,
        Fate::Unsure => 3,
    }
}

/// Ids and what became of them, in memory that is lent: at most [`UNSURE_MAX`] slots are used.
#[derive(Debug)]
pub struct Unsure<S> {
    slots: S,
    oldest: u64,
    unsent: u64,
    /// The first id that was never sent.
    said: u64,
    next: u64,
    /// Something of the session is known to be taken: of it, the relay cannot have taken nothing.
    some_taken: bool,
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Unsure<S> {
    /// No messages. Ids begin at a place that follows from 64 bits of entropy.
    #[must_use]
    pub fn new(slots: S, entropy: u64) -> Self {
        let start = (entropy % START_END).max(1);
        let some_taken = false;
        Self { slots, oldest: start, unsent: start, said: start, next: start, some_taken }
    }

    /// How many more messages may be under way.
    #[must_use]
    pub fn room(&self) -> usize {
        let used = usize::try_from(self.next.saturating_sub(self.oldest)).unwrap_or(usize::MAX);
        self.len().saturating_sub(used)
    }

    /// Whether nothing is under way, nor waits to be told of.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.oldest == self.next
    }

    /// Whether an id was given by this ring.
    #[must_use]
    pub const fn is_under_way(&self, mid: u64) -> bool {
        self.oldest <= mid && mid < self.next
    }

    /// The first id that was not sent on this connection.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.unsent
    }

    /// A message is to be sent: its id. None: there is no room, or ids have ended.
    pub fn enqueue(&mut self) -> Option<u64> {
        if self.room() == 0 || self.next >= MID_END {
            return None;
        }
        let mid = self.next;
        self.next = self.next.saturating_add(1);
        if let Some(slot) = self.slot(mid) {
            *slot = Slot { record: 0, mark: WAITS };
        }
        self.check();
        Some(mid)
    }

    /// The next message to be sent, lowest id first.
    pub fn next_unsent(&mut self) -> Option<u64> {
        while self.unsent < self.next {
            if self.slot(self.unsent).is_some_and(|slot| slot.mark == WAITS) {
                return Some(self.unsent);
            }
            // It was settled before it went out (again).
            self.unsent = self.unsent.saturating_add(1);
            self.said = self.said.max(self.unsent);
        }
        None
    }

    /// The message that follows `mid` in the order of sending.
    pub fn next_unsent_after(&mut self, mid: u64) -> Option<u64> {
        let from = mid.saturating_add(1).max(self.unsent);
        (from..self.next).find(|mid| self.slot(*mid).is_some_and(|slot| slot.mark == WAITS))
    }

    /// All messages up to and with `last` went out with a record of this connection.
    pub fn sent(&mut self, last: u64, record: u64) {
        let end = last.saturating_add(1).min(self.next);
        for mid in self.unsent..end {
            if let Some(slot) = self.slot(mid) {
                slot.record = record;
            }
        }
        self.unsent = self.unsent.max(end);
        self.said = self.said.max(self.unsent);
        self.check();
    }

    /// A PONG: all messages below `end`, which were sent on this connection, are taken or refused,
    /// and the refusals are known.
    pub fn covered(&mut self, end: u64) {
        self.settle(end.min(self.unsent), |_| Some(Fate::Taken));
    }

    /// The relay's CLOSE: it had taken so many records of this connection.
    pub fn closed(&mut self, taken: u64) {
        self.settle(self.unsent, |slot| (slot.record < taken).then_some(Fate::Taken));
    }

    /// What the relay says at a connection's beginning: which of the messages were taken. The
    /// others are to be sent, again or for the first time. `held`: it is the session of before, so
    /// that a relay which says 0 has taken nothing in it; in another session, or where something
    /// of this one was taken, it knows nothing.
    ///
    /// # Errors
    /// `BAD_VALUE`: it names a message that was never sent. The relay's.
    pub fn taken(&mut self, mid: u64, seen: &[u8], held: bool) -> Result<(), Code> {
        if mid >= self.said {
            return Err(Code::BadValue);
        }
        let knows = mid != 0 || (held && !self.some_taken);
        self.some_taken = mid != 0 || (held && self.some_taken);
        if !knows {
            self.settle(self.unsent, |_| Some(Fate::Unsure));
            return Ok(());
        }
        let mut first_missing = self.unsent;
        for each in self.oldest..self.unsent {
            let seen = is_seen(seen, mid, each);
            match self.slot(each) {
                Some(slot) if slot.mark == WAITS && seen => slot.mark = mark_of(Fate::Taken),
                Some(slot) if slot.mark == WAITS => first_missing = first_missing.min(each),
                Some(_) | None => {}
            }
        }
        self.unsent = first_missing;
        self.check();
        Ok(())
    }

    /// Something is known of one message. False: it is not under way, or was settled before.
    pub fn settle_one(&mut self, mid: u64, fate: Fate) -> bool {
        if !self.is_under_way(mid) {
            return false;
        }
        match self.slot(mid) {
            Some(slot) if slot.mark == WAITS => {
                slot.mark = mark_of(fate);
                self.some_taken |= fate == Fate::Taken;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The oldest message, once it is known what became of it; its place is free then.
    pub fn pop(&mut self) -> Option<(u64, Fate)> {
        if self.is_empty() {
            return None;
        }
        let mid = self.oldest;
        let fate = match self.slot(mid)?.mark {
            1 => Fate::Taken,
            2 => Fate::Refused,
            3 => Fate::Unsure,
            _ => return None,
        };
        self.oldest = self.oldest.saturating_add(1);
        self.unsent = self.unsent.max(self.oldest);
        self.said = self.said.max(self.unsent);
        self.check();
        Some((mid, fate))
    }

    /// How many messages were sent and are not settled, and how many are yet to be sent.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let open = |from: u64, to: u64| {
            (from..to).filter(|mid| self.place(*mid).is_some_and(|slot| slot.mark == WAITS)).count()
        };
        (open(self.oldest, self.unsent), open(self.unsent, self.next))
    }

    fn settle(&mut self, end: u64, fate: impl Fn(&Slot) -> Option<Fate>) {
        let mut some_taken = false;
        for mid in self.oldest..end {
            if let Some(slot) = self.slot(mid)
                && slot.mark == WAITS
                && let Some(fate) = fate(slot)
            {
                slot.mark = mark_of(fate);
                some_taken |= fate == Fate::Taken;
            }
        }
        self.some_taken |= some_taken;
    }

    fn len(&self) -> usize {
        self.slots.as_ref().len().min(UNSURE_MAX)
    }

    fn index(&self, mid: u64) -> Option<usize> {
        usize::try_from(mid.checked_rem(self.len() as u64)?).ok()
    }

    fn place(&self, mid: u64) -> Option<&Slot> {
        self.slots.as_ref().get(self.index(mid)?)
    }

    fn slot(&mut self, mid: u64) -> Option<&mut Slot> {
        let index = self.index(mid)?;
        self.slots.as_mut().get_mut(index)
    }

    /// The picture above holds.
    fn check(&self) {
        debug_assert!(self.oldest <= self.unsent && self.unsent <= self.said);
        debug_assert!(self.said <= self.next);
        debug_assert!(self.next.saturating_sub(self.oldest) <= self.len() as u64);
    }
}

/// Whether the map of a `Taken` with that `mid` marks `each`.
fn is_seen(seen: &[u8], mid: u64, each: u64) -> bool {
    let Some(age) = mid.checked_sub(each) else { return false };
    let byte = usize::try_from(age / 8).unwrap_or(usize::MAX);
    byte < SEEN_BYTES && u8_at(seen, byte) >> (age % 8) & 1 == 1
}
