//! Sessions that wait for their clients, and what is left of those that are over. They stand in two
//! rows, oldest first: all of them, and those of one prefix.

use super::slots::{Entry, Kin};
use crate::id::Ref;
use crate::native::Identity;
use crate::relay::Relay;
use crate::storage::Pool;
use crate::time::{Duration, Instant};

/// Sessions of one identity that may wait for their clients: each is looked at when the next one
/// comes. They refuse nobody: the oldest gives way.
const LOST_MAX: u32 = 64;

/// Of those that wait longest, so many are looked at for the prefix that holds most.
const LOOKED_AT: u32 = 64;
/// How long it is known at least what an identity spent that has no session: all of its buckets
/// are full again by then.
const SPENT: Duration = Duration::from_secs(3);

impl<P: Pool> Relay<'_, P> {
    /// Has an identity no more sessions that wait than one question may look at.
    pub(super) fn drop_oldest_lost(&mut self, identity: &Identity) {
        let (mut lost, mut at) = (0_u32, None);
        let (mut oldest, mut oldest_at) = (Ref::NONE, Instant::NEVER);
        while let Some(entry) = self.next_entry(identity, at) {
            at = Some(entry);
            let item = self.natives.entries.at(entry);
            if item.conn.is_none() {
                lost = lost.saturating_add(1);
                if item.lost_at < oldest_at {
                    (oldest, oldest_at) = (entry, item.lost_at);
                }
            }
        }
        if lost >= LOST_MAX && oldest.is_some() {
            self.stats.sessions_evicted.bump();
            self.free_entry(oldest);
        }
    }

    /// Whether another session of its identity knows what that spent, or will.
    pub(super) fn has_heir(&self, entry: Ref) -> bool {
        let identity = self.natives.entries.at(entry).identity;
        let first = self.next_entry(&identity, None);
        first.is_some_and(|first| {
            first != entry || self.next_entry(&identity, Some(first)).is_some()
        })
    }

    /// The oldest lost session of the prefix that holds most of them: as far as was noticed, and
    /// among those that wait longest.
    pub(super) fn lost_of_heaviest(&self) -> Option<Ref> {
        let first = self.natives.lost_first.some()?;
        let (mut found, mut most) = self.prefixes.most_lost().unwrap_or((first, 1));
        let mut next = first;
        for _ in 0..LOOKED_AT {
            let Some(entry) = next.some() else { break };
            let item = self.natives.entries.at(entry);
            if let Some((oldest, lost)) = self.prefixes.lost_of(&item.kin)
                && lost > most
            {
                (found, most) = (oldest, lost);
            }
            next = item.younger;
        }
        Some(found)
    }

    /// A session waits for its client from now on, which was of that prefix.
    pub(super) fn link_lost(&mut self, entry: Ref, prefix: Ref) {
        let last = core::mem::replace(&mut self.natives.lost_last, entry);
        let kin = self.prefixes.lose(prefix, entry);
        let item = self.natives.entries.at_mut(entry);
        item.older = last;
        item.kin = kin;
        match last.some() {
            Some(last) => self.natives.entries.at_mut(last).younger = entry,
            None => self.natives.lost_first = entry,
        }
        if let Some(older) = kin.older.some() {
            self.natives.entries.at_mut(older).kin.younger = entry;
        }
        self.natives.sweep_soon(self.now);
    }

    pub(super) fn unlink_lost(&mut self, entry: Ref) {
        let Entry { older, younger, kin, .. } = *self.natives.entries.at(entry);
        let listed = older.is_some() || self.natives.lost_first == entry;
        if !listed {
            return;
        }
        match older.some() {
            Some(older) => self.natives.entries.at_mut(older).younger = younger,
            None => self.natives.lost_first = younger,
        }
        match younger.some() {
            Some(younger) => self.natives.entries.at_mut(younger).older = older,
            None => self.natives.lost_last = older,
        }
        if let Some(older) = kin.older.some() {
            self.natives.entries.at_mut(older).kin.younger = kin.younger;
        }
        if let Some(younger) = kin.younger.some() {
            self.natives.entries.at_mut(younger).kin.older = kin.older;
        }
        self.prefixes.regain(&kin);
        let item = self.natives.entries.at_mut(entry);
        item.older = Ref::NONE;
        item.younger = Ref::NONE;
        item.kin = Kin::default();
    }

    /// Forgets the sessions that nobody took up again, and what is left of those that ended. Gives
    /// whether others wait.
    pub(super) fn sweep_entries(&mut self) -> bool {
        let kept = self.limits.native.resume.max(SPENT);
        while let Some(entry) = self.natives.lost_first.some() {
            let item = self.natives.entries.at(entry);
            // Those that live for too long in all are few, and found when they are asked for.
            if item.lost_at.after(kept) > self.now {
                return true;
            }
            if !item.is_spent() {
                self.stats.sessions_expired.bump();
            }
            self.free_entry(entry);
        }
        false
    }
}
