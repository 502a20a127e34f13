//! The messages of the session's ids: their bytes, and who waits for what becomes of them.

use std::collections::VecDeque;
use std::sync::Arc;

use wardline_core::Instant;
use wardline_core::native::client::Fate;
use wardline_core::native::envelope::Audience;
use wardline_core::native::{Class, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Identity, flags};

use super::Waiter;
use crate::client::Shared;
use crate::error::{Error, Refusal};
use crate::event::Report;
use crate::payload::Verdict;

/// Bytes of payloads that are kept until they are known to be taken.
const BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// A topic, by its place in the table.
    Topic(usize),
    /// A peer, by its handle.
    Peer { handle: u64, kind: FrameKind, corr: u64 },
}

/// A message.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) to: To,
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) class: Class,
    pub(crate) flags: u16,
    /// For how long it was worth anything when it came here; 0: for ever.
    pub(crate) ttl_ms: u32,
    /// When it is no longer worth being sent.
    pub(crate) until: Option<Instant>,
    pub(crate) payload: Vec<u8>,
    /// Whose the peer is, as far as that is known.
    pub(crate) audience: Option<(Identity, u32)>,
    /// It is to be signed, under this number, as this piece of an answer.
    pub(crate) letter: Option<(u64, u32)>,
    pub(crate) taken: Option<Waiter>,
    /// Somebody was told, or a report was made.
    pub(crate) told: bool,
    /// It went out, over this connection or another.
    pub(crate) out: bool,
}

impl Entry {
    /// Its header with the topic's number on this connection, and what is left of its time.
    pub(crate) fn header(&self, mid: u64, number: u32, now: Instant) -> FrameHeader {
        let (kind, topic, peer, corr) = match self.to {
            To::Topic(_) => (FrameKind::Publish, number, 0, 0),
            To::Peer { handle, kind, corr } => (kind, 0, handle, corr),
        };
        let class = self.class;
        let left = self.until.map(|until| until.since(now).as_millis().max(1));
        let left = left.map_or(0, |left| u32::try_from(left).unwrap_or(u32::MAX));
        // What was signed before it came here has its time from then on.
        let ttl_ms = if self.flags & flags::ENVELOPE != 0 { self.ttl_ms } else { left };
        let flags = self.flags | if self.letter.is_some() { flags::ENVELOPE } else { 0 };
        FrameHeader { kind, class, flags, topic, ttl_ms, peer, mid, offset: 0, corr }
    }

    /// For whom it is signed, under which number, and as which piece. None: it is not.
    pub(crate) fn letter(&self) -> Option<(Audience<'_>, (u64, u32))> {
        let audience = match (&self.topic, self.audience) {
            (Some(name), _) => Audience::Topic(name),
            (None, Some((identity, device))) => Audience::Peer(identity, device),
            (None, None) => return None,
        };
        Some((audience, self.letter?))
    }

    pub(crate) fn is_request(&self) -> bool {
        matches!(self.to, To::Peer { kind: FrameKind::Request, .. })
    }

    /// Tells who waits, or reports; once.
    fn tell(&mut self, mid: u64, outcome: Result<(), Error>, shared: &Shared) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        if let Some(taken) = self.taken.take() {
            taken.tell(outcome);
            return;
        }
        let topic = self.topic.clone();
        match outcome {
            Ok(()) => {}
            Err(Error::Refused(refusal)) => shared.report(Report::Refused { topic, mid, refusal }),
            Err(Error::SessionGone) => shared.report(Report::SessionGone { mid }),
            Err(Error::Expired) => shared.report(Report::Expired { topic, mid }),
            Err(_) => shared.report(Report::Unsure { topic, mid }),
        }
    }
}

/// The messages from the session's oldest id on.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    /// The id of the first entry.
    first: u64,
    bytes: usize,
    /// No message that never went out is over before. None: none of them ever is.
    expiry: Option<Instant>,
}

impl Outbox {
    /// Whether another message may come in.
    pub(crate) const fn has_room(&self) -> bool {
        self.bytes < BYTES_MAX
    }

    /// Whether it is time to ask what was taken.
    pub(crate) fn is_half_full(&self) -> bool {
        self.bytes >= BYTES_MAX / 2
    }

    /// The entry of the id that was given last.
    pub(crate) fn push(&mut self, mid: u64, entry: Entry) {
        if self.entries.is_empty() {
            self.first = mid;
        }
        debug_assert_eq!(self.first + self.entries.len() as u64, mid);
        self.bytes += entry.payload.len() + FRAME_HEADER_BYTES;
        self.expiry = earlier(self.expiry, entry.until);
        self.entries.push_back(entry);
    }

    /// When messages are to be looked through for such as are over.
    pub(crate) fn expiry(&self) -> Instant {
        self.expiry.unwrap_or(Instant::NEVER)
    }

    /// The ids of those that never went out, and are no longer worth it.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<u64> {
        let mut over = Vec::new();
        if now < self.expiry() {
            return over;
        }
        self.expiry = None;
        for (entry, mid) in self.entries.iter().zip(self.first..) {
            match entry.until.filter(|_| !entry.out && !entry.told) {
                Some(until) if until <= now => over.push(mid),
                until => self.expiry = earlier(self.expiry, until),
            }
        }
        over
    }

    /// The entry of an id.
    pub(crate) fn entry(&mut self, mid: u64) -> Option<&mut Entry> {
        let at = usize::try_from(mid.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }

    /// The ids of the messages for peers.
    pub(crate) fn for_peers(&self) -> Vec<u64> {
        let peers = self.entries.iter().zip(self.first..);
        peers
            .filter(|(entry, _)| matches!(entry.to, To::Peer { .. }) && !entry.told)
            .map(|(_, mid)| mid)
            .collect()
    }

    /// Tells whoever waits for that message, or reports, before its place is free.
    pub(crate) fn tell(&mut self, mid: u64, outcome: Result<(), Error>, shared: &Shared) -> bool {
        match self.entry(mid) {
            Some(entry) => {
                entry.tell(mid, outcome, shared);
                true
            }
            None => false,
        }
    }

    /// The relay says how far a message went.
    pub(crate) fn judge(&mut self, mid: u64, verdict: Verdict) {
        if let Some(entry) = self.entry(mid)
            && let Some(taken) = entry.taken.take()
        {
            entry.told = true;
            taken.judge(verdict);
        }
    }

    /// The oldest message is settled. True: nobody knows what became of it.
    pub(crate) fn pop(&mut self, mid: u64, fate: Fate, shared: &Shared) -> bool {
        debug_assert_eq!(self.first, mid);
        let Some(mut entry) = self.entries.pop_front() else { return false };
        self.first = mid + 1;
        self.bytes -= entry.payload.len() + FRAME_HEADER_BYTES;
        match fate {
            Fate::Taken => entry.tell(mid, Ok(()), shared),
            Fate::Unsure => entry.tell(mid, Err(Error::Unsure), shared),
            // The refusal itself was told when it came; without one, it was the session's end.
            Fate::Refused => entry.tell(mid, Err(Error::SessionGone), shared),
        }
        fate == Fate::Unsure
    }

    /// Nobody gets an answer for the time being.
    pub(crate) fn fail_waiters(&mut self, error: &Error) {
        for entry in &mut self.entries {
            if let Some(taken) = entry.taken.take() {
                taken.tell(Err(error.clone()));
            }
        }
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// What a NACK means for who waits: DUPLICATE is what was wanted, STALE says nothing.
pub(crate) fn outcome(refusal: Refusal) -> Result<(), Error> {
    use wardline_core::native::Code;
    match refusal.code() {
        Some(Code::Duplicate) => Ok(()),
        Some(Code::Stale) => Err(Error::Unsure),
        Some(_) | None => Err(Error::Refused(refusal)),
    }
}
