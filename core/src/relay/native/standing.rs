//! Who has standing, and what an identity is charged with: only what a right tag covers, and only
//! once it proved who it is. PROTOCOL.md 2.3.2.
//!
//! Identities are free to make. So what one without standing does is charged to its address; it has
//! standing where the operator knows it, or after an hour of sessions in which it did nothing
//! wrong.

use crate::id::Ref;
use crate::native::handshake::server::{Answer, Ended};
use crate::native::{Code, Identity};
use crate::prefix::Prefix;
use crate::quarantine::{Offence, Verdict};
use crate::relay::Relay;
use crate::session::Flags;
use crate::storage::Pool;
use crate::time::Duration;

/// How long an identity must have done well.
const STANDING: Duration = Duration::from_secs(3_600);

impl<P: Pool> Relay<'_, P> {
    /// Charges who has a session for what its tag covers.
    pub(super) fn offend_identity(&mut self, slot: Ref, offence: Offence) {
        let entry = self.natives.conn(slot).entry;
        if entry.is_none() || !self.has_standing(entry) {
            self.offend(slot, offence);
        } else if !self.sessions.at(slot).flags.has(Flags::EXEMPT) {
            let key = self.key_of(&self.natives.entries.at(entry).identity);
            self.stats.identity_points.add(u64::from(offence.points()));
            let live = self.natives.entries.used();
            let charge = self.quarantine.charge(self.now, key, offence, live, 0);
            self.count_charge(charge);
            self.struck(slot, charge);
        }
        if entry.is_some() {
            let chief = self.natives.entries.at(entry).chief;
            self.natives.entries.at_mut(chief).good_since = self.now;
        }
    }

    fn has_standing(&self, entry: Ref) -> bool {
        let item = self.natives.entries.at(entry);
        let good_since = self.natives.entries.at(item.chief).good_since;
        let long = self.now.since(good_since).as_nanos() >= STANDING.as_nanos();
        self.quarantine.knows_identities() && (long || self.natives.access.enrolled(&item.identity))
    }

    fn key_of(&self, identity: &Identity) -> Prefix {
        let hash = blake3::keyed_hash(&self.natives.seed, identity.as_bytes());
        Prefix::of_identity(hash.as_bytes().last_chunk().unwrap_or(&[0; 16]))
    }

    /// Whether an identity that has proved who it is may have a session now.
    pub(super) fn ban_of(&mut self, slot: Ref, identity: &Identity) -> Answer {
        if self.sessions.at(slot).flags.has(Flags::EXEMPT) {
            return Answer::Yes;
        }
        match self.quarantine.verdict(self.now, self.key_of(identity)) {
            Verdict::Refused(span) => {
                self.stats.refused_quarantined.bump();
                let retry_ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
                Answer::No(Ended { code: Code::Quarantined, retry_ms })
            }
            Verdict::Throttled(_) | Verdict::Free => Answer::Yes,
        }
    }

    /// Who was struck a while ago pays more for its messages still, wherever it comes from.
    pub(super) fn slow_if_struck(&mut self, slot: Ref) {
        let entry = self.natives.conn(slot).entry;
        let key = self.key_of(&self.natives.entries.at(entry).identity);
        let verdict = self.quarantine.verdict(self.now, key);
        let session = self.sessions.at_mut(slot);
        if let Verdict::Throttled(span) = verdict
            && !session.flags.has(Flags::EXEMPT)
        {
            session.throttled_until = session.throttled_until.max(self.now.after(span));
        }
    }
}
