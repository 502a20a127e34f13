//! Sessions that wait for their clients stand in two rows, oldest first: all of them, and those of
//! one prefix. What is left of those that are over, for what their identities owe, stands in a row
//! of its own, and gives way first.

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

/// A row of sessions, by `older` and `younger`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row {
    pub(super) first: Ref,
    last: Ref,
}

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
        let first = self.natives.lost.first.some()?;
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

    /// A slot of the table, for there is none that is free: what is left of who is gone gives way,
    /// then the session that [`Self::lost_of_heaviest`] names.
    pub(super) fn evict_entry(&mut self) {
        if let Some(spent) = self.natives.spent.first.some() {
            self.free_entry(spent);
        } else if let Some(oldest) = self.lost_of_heaviest() {
            self.stats.sessions_evicted.bump();
            self.free_entry(oldest);
        }
    }

    /// Whether the identity of a session has spent what has not come back yet.
    pub(super) fn owes(&self, entry: Ref) -> bool {
        let chief = self.natives.entries.at(self.natives.entries.at(entry).chief);
        [chief.messages, chief.bytes, chief.deliveries].iter().any(|it| !it.is_full(self.now))
    }

    /// A session waits for its client from now on, which was of that prefix.
    pub(super) fn link_lost(&mut self, entry: Ref, prefix: Ref) {
        let kin = self.prefixes.lose(prefix, entry);
        self.natives.entries.at_mut(entry).kin = kin;
        if let Some(older) = kin.older.some() {
            self.natives.entries.at_mut(older).kin.younger = entry;
        }
        self.natives.lost = self.behind(self.natives.lost, entry);
    }

    /// A session is over, and kept for what its identity owes.
    pub(super) fn link_spent(&mut self, entry: Ref) {
        self.natives.spent = self.behind(self.natives.spent, entry);
    }

    fn behind(&mut self, row: Row, entry: Ref) -> Row {
        self.natives.entries.at_mut(entry).older = row.last;
        if let Some(last) = row.last.some() {
            self.natives.entries.at_mut(last).younger = entry;
        }
        self.natives.sweep_soon(self.now);
        Row { first: row.first.some().unwrap_or(entry), last: entry }
    }

    pub(super) fn unlink_lost(&mut self, entry: Ref) {
        let Entry { older, younger, kin, .. } = *self.natives.entries.at(entry);
        for row in [&mut self.natives.lost, &mut self.natives.spent] {
            if row.first == entry {
                row.first = younger;
            }
            if row.last == entry {
                row.last = older;
            }
        }
        if let Some(older) = older.some() {
            self.natives.entries.at_mut(older).younger = younger;
        }
        if let Some(younger) = younger.some() {
            self.natives.entries.at_mut(younger).older = older;
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
        while let Some(entry) = self.older_than(self.natives.spent, SPENT) {
            self.free_entry(entry);
        }
        // Those that live for too long in all are few, and found when they are asked for.
        while let Some(entry) = self.older_than(self.natives.lost, self.limits.native.resume) {
            self.stats.sessions_expired.bump();
            self.free_entry(entry);
        }
        self.natives.lost.first.is_some() || self.natives.spent.first.is_some()
    }

    /// The first of a row, if it stands there for so long.
    fn older_than(&self, row: Row, span: Duration) -> Option<Ref> {
        let first = row.first.some()?;
        (self.natives.entries.at(first).lost_at.after(span) <= self.now).then_some(first)
    }
}
