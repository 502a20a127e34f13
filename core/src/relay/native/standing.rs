//! Who has standing, and what an identity is charged with: only what a right tag covers, and only
//! once it proved who it is. PROTOCOL.md 2.3.2.
//!
//! Identities are free to make. So what one without standing does is charged to its address; it has
//! standing where the operator knows it, or after an hour of sessions in which it did nothing
//! wrong.

use crate::id::Ref;
use crate::link::BanNote;
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
            self.struck(slot, charge, true);
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

    /// Whether an identity that has proved who it is may have a session now. `solved`: the bits of
    /// the puzzle that it has solved for that; none where it has its session back.
    pub(super) fn ban_of(&mut self, slot: Ref, identity: &Identity, solved: Option<u8>) -> Answer {
        if self.sessions.at(slot).flags.has(Flags::EXEMPT) {
            return Answer::Yes;
        }
        match self.quarantine.verdict(self.now, self.key_of(identity)) {
            Verdict::Refused(span) => {
                self.stats.refused_quarantined.bump();
                let retry_ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
                Answer::No(Ended { code: Code::Quarantined, retry_ms })
            }
            Verdict::Puzzled(span) => self.ask_puzzle(slot, solved, span),
            Verdict::Throttled(_) | Verdict::Free => Answer::Yes,
        }
    }

    /// A struck identity is let in once it has solved a hard enough puzzle. Who it is was not known
    /// when the puzzle was set: so its address is set a harder one from now on, for as long as the
    /// identity needs it, and it has to come again.
    ///
    /// Others behind that address solve it, too: a tenth of a second's work for each new session,
    /// none for a resume, for five minutes at most, since the next strike refuses the identity and
    /// one is forgiven a day. Who wants to harm his neighbours does worse with ten signatures that
    /// are wrong, and needs no identity with standing for that.
    fn ask_puzzle(&mut self, slot: Ref, solved: Option<u8>, span: Duration) -> Answer {
        let wanted = self.limits.native.puzzle_bits_struck;
        let enough = solved.is_none_or(|bits| bits >= wanted);
        if enough || cfg!(wardline_mutant = "puzzle_unasked") {
            return Answer::Yes;
        }
        self.stats.puzzles_wanted.bump();
        let until = self.now.after(span);
        let prefix = self.prefixes.at_mut(self.sessions.at(slot).prefix);
        let key = prefix.key;
        if !cfg!(wardline_mutant = "puzzle_not_noted") {
            prefix.puzzle_until = prefix.puzzle_until.max(until);
        }
        if !cfg!(wardline_mutant = "puzzle_stays_home") {
            // It may come again by any shard.
            let seconds = u32::try_from(span.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
            self.note_bans(BanNote { key, seconds, strikes: 0 });
        }
        Answer::no(Code::PuzzleRequired)
    }

    /// Another shard asked somebody of that address to solve a harder puzzle and to come again.
    pub(in crate::relay) fn puzzle_from(&mut self, key: Prefix, seconds: u32) {
        let until = self.now.after(Duration::from_secs(seconds.into()));
        match self.prefixes.remember(key) {
            Some(slot) => {
                let prefix = self.prefixes.at_mut(slot);
                prefix.puzzle_until = prefix.puzzle_until.max(until);
            }
            // Each slot has connections of another address: it is asked for that once more.
            None => self.stats.bans_untold.bump(),
        }
    }

    /// Who was struck a while ago pays more for its messages still, wherever it comes from.
    pub(super) fn slow_if_struck(&mut self, slot: Ref) {
        let entry = self.natives.conn(slot).entry;
        let key = self.key_of(&self.natives.entries.at(entry).identity);
        let verdict = self.quarantine.verdict(self.now, key);
        let session = self.sessions.at_mut(slot);
        if let Verdict::Throttled(span) | Verdict::Puzzled(span) = verdict
            && !session.flags.has(Flags::EXEMPT)
        {
            session.throttled_until = session.throttled_until.max(self.now.after(span));
        }
    }
}
