//! What must hold of native sessions between any two calls. The simulator asks after every step.

use super::slots::{Kin, Stage};
use crate::cursor::{Place, sub};
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::prefix::PrefixSlot;
use crate::relay::Relay;
use crate::session::{Flags, Phase};
use crate::storage::Pool;

impl<P: Pool> Relay<'_, P> {
    /// Checks the tables of native sessions. Gives the cursors that they hold, and how many of
    /// those stand in a list.
    pub(in crate::relay) fn check_natives(&self) -> (u32, u32) {
        if self.natives.lobby.is_none() {
            return (0, 0);
        }
        let (mut cursors, mut listed, mut halves, mut going) = (0_u32, 0_u32, 0_u32, 0_u32);
        for slot in (0..self.sessions.touched()).map(Ref::of) {
            let (session, conn) = (self.sessions.at(slot), self.natives.conn(slot));
            let native = session.flags.has(Flags::NATIVE) && session.phase() != Phase::Free;
            if !native && conn.stage() != Stage::None {
                invariant_failed("native state of a connection that has none");
            }
            if conn.half.is_some() {
                halves = halves.saturating_add(1);
                going = going.saturating_add(u32::from(conn.moves_to != 0));
                if self.prefixes.at(session.prefix).half_open == 0 {
                    invariant_failed("a handshake that its prefix does not count");
                }
                if self.natives.halves.at(conn.half).conn != slot {
                    invariant_failed("a handshake of another connection");
                }
            }
            let prefix = self.prefixes.find(session.prefix);
            let counted = |count: fn(&PrefixSlot) -> u32| prefix.is_some_and(|it| count(it) > 0);
            let stranger = conn.stage().is_stranger() && !counted(|prefix| prefix.strangers);
            if stranger || conn.entry.is_some() && !counted(|prefix| prefix.good) {
                invariant_failed("a native connection that its prefix does not count");
            }
            if conn.entry.is_some() && self.natives.entries.at(conn.entry).conn != slot {
                invariant_failed("a session of another connection");
            }
            if (conn.stage() == Stage::Live) != conn.entry.is_some() && session.is_open() {
                invariant_failed("a live connection without its session");
            }
            let mut count = 0_u32;
            let mut next = conn.subs;
            while let Some(cursor) = next.some() {
                let item = self.cursors.at(cursor);
                count = count.saturating_add(1);
                if item.session != slot {
                    invariant_failed("a subscription of another connection");
                }
                let reads = item.sub & sub::READS != 0;
                if reads != (item.place() != Place::Nowhere) {
                    invariant_failed("a subscription that stands nowhere, or should");
                }
                listed = listed.saturating_add(u32::from(reads));
                next = item.sub_next;
            }
            if count != conn.sub_count {
                invariant_failed("subscriptions are miscounted");
            }
            cursors = cursors.saturating_add(count);
        }
        let halves_used = self.natives.halves.used();
        let halves_found = self.in_rows().saturating_add(going);
        if cursors != self.natives.subs || halves != halves_used || halves_found != halves_used {
            invariant_failed("native tables are miscounted");
        }
        self.check_entries();
        (cursors, listed)
    }

    /// Handshakes that stand in a row.
    fn in_rows(&self) -> u32 {
        let mut listed = 0_u32;
        for row in [self.natives.rows.challenged, self.natives.rows.resumed] {
            let mut next = row.first;
            while let Some(half) = next.some() {
                listed = listed.saturating_add(1);
                next = self.natives.halves.at(half).younger;
            }
        }
        listed
    }

    fn check_entries(&self) {
        let (mut used, mut lost) = (0_u32, 0_u32);
        for entry in (0..self.natives.entries.touched()).map(Ref::of) {
            let item = self.natives.entries.at(entry);
            if item.used == 0 {
                continue;
            }
            used = used.saturating_add(1);
            let chief = self.natives.entries.at(item.chief);
            if chief.used == 0 || chief.identity != item.identity || chief.chief != item.chief {
                invariant_failed("a session whose buckets are somebody else's");
            }
            lost = lost.saturating_add(u32::from(item.conn.is_none()));
            let most = self.limits.native.sessions_per_identity;
            if item.conn.is_some() && self.live_but(&item.identity, entry) >= most {
                invariant_failed("an identity has more sessions than it may");
            }
            if item.conn.is_some() && self.natives.conn(item.conn).entry != entry {
                invariant_failed("a session whose connection has another");
            }
        }
        let mut listed = 0_u32;
        for (row, spent) in [(self.natives.lost, false), (self.natives.spent, true)] {
            let mut next = row.first;
            while let Some(entry) = next.some() {
                listed = listed.saturating_add(1);
                let item = self.natives.entries.at(entry);
                next = item.younger;
                if item.is_spent() != spent {
                    invariant_failed("a session in the wrong row");
                }
                self.check_kin(entry, &item.kin);
            }
        }
        if used != self.natives.entries.used() || listed != lost {
            invariant_failed("sessions are miscounted");
        }
    }

    /// The oldest of a prefix has as many behind it as that counts, and one before each.
    fn check_kin(&self, entry: Ref, kin: &Kin) {
        let Some((oldest, lost)) = self.prefixes.lost_of(kin) else { return };
        if kin.older.is_some() {
            if self.natives.entries.at(kin.older).kin.younger != entry {
                invariant_failed("lost sessions of a prefix in no row");
            }
            return;
        }
        let (mut row, mut next) = (0_u32, oldest);
        while let Some(here) = next.some() {
            row = row.saturating_add(1);
            next = self.natives.entries.at(here).kin.younger;
        }
        if oldest != entry || row != lost {
            invariant_failed("lost sessions of a prefix are miscounted");
        }
    }
}
