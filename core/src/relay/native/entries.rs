//! Sessions: found by identity or by handle, taken over, resumed, forgotten.
//! PROTOCOL.md 2.2.8.

use super::slots::{Entry, Stage};
use crate::event::Reason;
use crate::fault::PeerFault;
use crate::id::Ref;
use crate::native::handshake::server::Established;
use crate::native::{Code, Identity, Records, ServerControl, Window1024};
use crate::relay::Relay;
use crate::storage::Pool;
use crate::time::Instant;

/// What there is of an identity and device that wants a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    New,
    /// A session of it, which it may take over.
    Same(Ref),
    /// It may have none.
    Refused(Code),
}

/// Why a handle leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nobody has it.
    NoRoute,
    /// Its session waits for its client.
    Busy,
}

impl<P: Pool> Relay<'_, P> {
    fn bucket_of(&self, identity: &Identity) -> usize {
        let hash = blake3::keyed_hash(&self.natives.seed, identity.as_bytes());
        let front = hash.as_bytes().first_chunk().map_or(0, |front| u64::from_le_bytes(*front));
        let buckets = self.natives.entry_buckets.len() as u64;
        usize::try_from(front.checked_rem(buckets).unwrap_or(0)).unwrap_or(0)
    }

    /// A session of an identity, or what is left of one: who has its buckets, another would share.
    fn any_entry(&self, identity: &Identity) -> Option<Ref> {
        let mut next = self.natives.entry_buckets.get(self.bucket_of(identity))?.0;
        while let Some(entry) = next.some() {
            let item = self.natives.entries.at(entry);
            if item.identity == *identity {
                return Some(entry);
            }
            next = item.next;
        }
        None
    }

    /// The sessions of an identity, one after the other: the first, or the one after `from`.
    pub(super) fn next_entry(&self, identity: &Identity, from: Option<Ref>) -> Option<Ref> {
        let mut next = match from {
            Some(entry) => self.natives.entries.at(entry).next,
            None => self.natives.entry_buckets.get(self.bucket_of(identity))?.0,
        };
        while let Some(entry) = next.some() {
            let item = self.natives.entries.at(entry);
            if item.identity == *identity && !self.is_expired(item) {
                return Some(entry);
            }
            next = item.next;
        }
        None
    }

    /// What there is of who wants a new session. Its epoch never goes back.
    pub(super) fn find_entry(&self, identity: &Identity, device: u32, epoch_ms: u64) -> Found {
        let mut at = None;
        let same = loop {
            at = self.next_entry(identity, at);
            match at {
                Some(entry) if self.natives.entries.at(entry).device != device => {}
                same => break same,
            }
        };
        if same.is_some_and(|entry| epoch_ms < self.natives.entries.at(entry).epoch_ms) {
            return Found::Refused(Code::Refused);
        }
        // One that has no connection comes to live as a new one does.
        if self.is_full_but(identity, same.unwrap_or(Ref::NONE)) {
            return Found::Refused(Code::TooManySessions);
        }
        same.map_or(Found::New, Found::Same)
    }

    /// Whether an identity has as many live sessions as it may, that one left out.
    pub(super) fn is_full_but(&self, identity: &Identity, but: Ref) -> bool {
        let full = self.live_but(identity, but) >= self.limits.native.sessions_per_identity;
        full && !cfg!(wardline_mutant = "sessions_unbounded")
    }

    /// Whether a session may not come to live, since others of its identity do.
    pub(super) fn is_one_too_many(&self, entry: Ref) -> bool {
        self.is_full_but(&self.natives.entries.at(entry).identity, entry)
    }

    /// Live sessions of an identity, that one left out.
    pub(super) fn live_but(&self, identity: &Identity, but: Ref) -> u32 {
        let (mut live, mut at) = (0_u32, None);
        while let Some(entry) = self.next_entry(identity, at) {
            let lives = self.natives.entries.at(entry).conn.is_some() && entry != but;
            live = live.saturating_add(u32::from(lives));
            at = Some(entry);
        }
        live
    }

    /// Whether a native connection lives.
    pub(in crate::relay) fn has_session(&self, slot: Ref) -> bool {
        self.natives.conn(slot).entry.is_some()
    }

    /// Whether the operator knows whose session it is.
    pub(in crate::relay) fn is_known(&self, slot: Ref) -> bool {
        let entry = self.natives.conn(slot).entry;
        entry.is_some() && self.natives.access.enrolled(&self.natives.entries.at(entry).identity)
    }

    /// A slot for a new session; where there is none, one that waits for its client gives way.
    pub(super) fn make_entry(&mut self, identity: &Identity, device: u32) -> Option<Ref> {
        self.drop_oldest_lost(identity);
        let entry = match self.natives.entries.take() {
            Some(entry) => entry,
            None => {
                self.evict_entry();
                self.natives.entries.take()?
            }
        };
        let bucket = self.bucket_of(identity);
        let generation = match self.natives.entries.at(entry).generation {
            0 => self.natives.entropy.draw_u64() as u32,
            known => known,
        };
        let now = self.now;
        let other = self.any_entry(identity);
        let chief = other.map_or(entry, |other| self.natives.entries.at(other).chief);
        let item = self.natives.entries.at_mut(entry);
        *item = Entry { generation, device, identity: *identity, ..bytemuck::Zeroable::zeroed() };
        // Its first handle is a new one; those of before were another session's.
        item.since = renewed(generation);
        item.chief = chief;
        item.good_since = now;
        item.used = 1;
        item.born_at = now;
        if let Some(first) = self.natives.entry_buckets.get_mut(bucket) {
            item.next = core::mem::replace(&mut first.0, entry);
        }
        if let Some(other) = other.filter(|other| self.natives.entries.at(*other).is_spent()) {
            // It was kept for this one, which has its buckets now.
            self.free_entry(other);
        }
        Some(entry)
    }

    /// Handles that were learned before are void.
    pub(super) fn renew_handle(&mut self, entry: Ref) {
        let item = self.natives.entries.at_mut(entry);
        item.generation = renewed(item.generation);
    }

    pub(super) fn handle_of_entry(&self, entry: Ref) -> u64 {
        let generation = self.natives.entries.at(entry).generation;
        handle(self.links.shard, generation, entry.0)
    }

    /// The session of a handle, live or not.
    pub(super) fn entry_of(&self, handle: u64) -> Result<Ref, Lost> {
        let (shard, generation, slot) = split(handle);
        let slot = Ref(slot);
        let found = self.natives.entries.find(slot).ok_or(Lost::NoRoute)?;
        let same = found.used != 0 && found.generation == generation && shard == self.links.shard;
        if same && !self.is_expired(found) { Ok(slot) } else { Err(Lost::NoRoute) }
    }

    /// The session that once had a handle, and has the window of then.
    pub(super) fn entry_that_was(&self, handle: u64) -> Option<Ref> {
        let (shard, generation, slot) = split(handle);
        let found = self.natives.entries.find(Ref(slot)).filter(|found| found.used != 0)?;
        let age = found.generation.wrapping_sub(generation);
        let same = age <= found.generation.wrapping_sub(found.since);
        (same && shard == self.links.shard && !self.is_expired(found)).then_some(Ref(slot))
    }

    /// The connection that a handle leads to now.
    pub(super) fn route(&self, handle: u64) -> Result<(Ref, Ref), Lost> {
        let entry = self.entry_of(handle)?;
        let conn = self.natives.entries.at(entry).conn.some().ok_or(Lost::Busy)?;
        Ok((entry, conn))
    }

    /// Whether nobody took a session up again in time.
    pub(super) fn is_over(&self, entry: Ref) -> bool {
        self.is_expired(self.natives.entries.at(entry))
    }

    fn is_expired(&self, entry: &Entry) -> bool {
        self.ends_at(entry) <= self.now
    }

    /// When a session that is not taken up again is over.
    fn ends_at(&self, entry: &Entry) -> Instant {
        if entry.conn.is_some() {
            return Instant::NEVER;
        }
        if entry.is_spent() {
            return Instant::ZERO;
        }
        let limits = &self.limits.native;
        entry.lost_at.after(limits.resume).min(entry.born_at.after(limits.resume_total))
    }

    /// What a full handshake makes of a session.
    pub(super) fn settle_entry(&mut self, entry: Ref, established: &Established) {
        let held = established.held();
        let now = self.now;
        let item = self.natives.entries.at_mut(entry);
        if established.epoch_ms() > item.epoch_ms {
            item.window = Window1024::NEW;
            item.since = item.generation;
            item.direct = 0;
        }
        item.epoch_ms = established.epoch_ms();
        item.sid = held.sid;
        item.rms = held.rms;
        item.recv_max = held.recv_max;
        item.born_at = now;
    }

    /// A connection has its session from now on; whoever else had it, or waits to, ends.
    pub(super) fn go_live(&mut self, slot: Ref, entry: Ref, records: Records) {
        self.drop_half(slot);
        self.no_stranger(slot);
        self.supersede(entry);
        self.unlink_lost(entry);
        self.natives.entries.at_mut(entry).conn = slot;
        let handle = self.handle_of_entry(entry);
        let conn = self.natives.conn_mut(slot);
        conn.set_stage(Stage::Live);
        conn.entry = entry;
        conn.handle = handle;
        conn.records = records;
        let session = self.sessions.at_mut(slot);
        // What its address did is not its own doing.
        session.throttled_until = Instant::ZERO;
        let prefix = self.prefixes.at_mut(session.prefix);
        prefix.good = prefix.good.saturating_add(1);
        let item = self.natives.entries.at(entry);
        let (mid, seen, direct) = (item.window.last(), item.window.seen(), item.direct);
        self.slow_if_struck(slot);
        self.tell_native(slot, &ServerControl::Taken { mid, seen: &seen, direct });
        self.arm(slot);
    }

    /// Whatever connection had a session has it no more.
    pub(super) fn supersede(&mut self, entry: Ref) {
        let old = self.natives.entries.at(entry).conn;
        if old.is_some() {
            self.stats.superseded.bump();
            self.detach(old, true);
            self.end_native(old, Code::Superseded, 0);
        }
        self.end_rivals(entry);
    }

    /// Takes its session from a connection. `survives`: it waits for its client; else it is over.
    pub(super) fn detach(&mut self, slot: Ref, survives: bool) {
        if self.natives.conn(slot).entry.is_some() {
            self.tell_left(slot);
        }
        let entry = core::mem::take(&mut self.natives.conn_mut(slot).entry);
        if entry.is_none() {
            return;
        }
        let (now, prefix) = (self.now, self.sessions.at(slot).prefix);
        let known = self.prefixes.at_mut(prefix);
        known.good = known.good.saturating_sub(1);
        let item = self.natives.entries.at_mut(entry);
        item.conn = Ref::NONE;
        item.lost_at = now;
        if survives {
            self.link_lost(entry, prefix);
        } else if self.has_heir(entry) || !self.owes(entry) {
            self.free_entry(entry);
        } else {
            self.end_rivals(entry);
            let item = self.natives.entries.at_mut(entry);
            item.sid = [0; 16];
            item.rms.wipe();
            if cfg!(wardline_mutant = "spent_is_lost") {
                self.link_lost(entry, prefix);
            } else {
                self.link_spent(entry);
            }
        }
    }

    /// A session is over: its secret, its window and its handle go.
    pub(super) fn free_entry(&mut self, entry: Ref) {
        self.end_rivals(entry);
        self.unlink_lost(entry);
        let identity = self.natives.entries.at(entry).identity;
        let bucket = self.bucket_of(&identity);
        let after = self.natives.entries.at(entry).next;
        let mut at = self.natives.entry_buckets.get(bucket).map_or(Ref::NONE, |first| first.0);
        if at == entry {
            if let Some(first) = self.natives.entry_buckets.get_mut(bucket) {
                first.0 = after;
            }
        } else {
            while let Some(here) = at.some() {
                at = self.natives.entries.at(here).next;
                if at == entry {
                    self.natives.entries.at_mut(here).next = after;
                    break;
                }
            }
        }
        self.hand_buckets_on(entry, bucket);
        self.natives.entries.at_mut(entry).wipe();
        self.natives.entries.give_last(entry);
    }

    /// What an identity spent is known to its other sessions still. `entry` is in no bucket of the
    /// table any more.
    fn hand_buckets_on(&mut self, entry: Ref, bucket: usize) {
        let old = self.natives.entries.at(entry);
        let (messages, bytes) = (old.messages, old.bytes);
        let (deliveries, good_since) = (old.deliveries, old.good_since);
        let mut chief = Ref::NONE;
        let mut at = self.natives.entry_buckets.get(bucket).map_or(Ref::NONE, |first| first.0);
        while let Some(here) = at.some() {
            let item = self.natives.entries.at_mut(here);
            at = item.next;
            if item.chief != entry {
                continue;
            }
            if chief.is_none() {
                chief = here;
                item.messages = messages;
                item.bytes = bytes;
                item.deliveries = deliveries;
                item.good_since = good_since;
            }
            item.chief = chief;
        }
    }

    /// Connections that wait for a session which another has, or which is over.
    fn end_rivals(&mut self, entry: Ref) {
        while let Some(half) = self.natives.entries.at(entry).rivals.some() {
            let conn = self.natives.halves.at(half).conn;
            self.drop_half(conn);
            self.close(conn, Reason::Fault(PeerFault::Native(Code::Superseded)));
        }
    }

    pub(super) fn free_entry_if_new(&mut self, entry: Ref) {
        if self.natives.entries.at(entry).sid == [0; 16] {
            self.free_entry(entry);
        }
    }

    pub(super) fn unlink_rival(&mut self, entry: Ref, half: Ref, next: Ref) {
        let mut at = self.natives.entries.at(entry).rivals;
        if at == half {
            self.natives.entries.at_mut(entry).rivals = next;
            return;
        }
        while let Some(here) = at.some() {
            at = self.natives.halves.at(here).rival;
            if at == half {
                self.natives.halves.at_mut(here).rival = next;
                return;
            }
        }
    }
}

/// The generation after that one, which is never 0.
const fn renewed(generation: u32) -> u32 {
    match generation.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

/// Shard, generation, slot. PROTOCOL.md 2.2.2.
pub(super) const fn handle(shard: u8, generation: u32, slot: u32) -> u64 {
    ((shard as u64) << 56) | ((generation as u64) << 24) | (slot as u64 & 0x00FF_FFFF)
}

pub(super) const fn split(handle: u64) -> (u8, u32, u32) {
    ((handle >> 56) as u8, (handle >> 24) as u32, (handle & 0x00FF_FFFF) as u32)
}
