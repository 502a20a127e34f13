//! The quarantine: who misbehaved, in a table of fixed size.
//!
//! A score is a GCRA: one time stamp that leaks by itself, so there is no sweep and no timer. The
//! table is made of sets of eight; all addresses of a /24 (or /48) fall into the same set, chosen
//! by a keyed hash, so that eight bans side by side are seen at once and become one ban of the
//! neighbourhood, and nobody can aim at another's set.

use bytemuck::Zeroable;

use crate::limits::QuarantineLimits;
use crate::prefix::Prefix;
#[cfg(feature = "native-sessions")]
use crate::rate::Rate;
use crate::time::{Duration, Instant};

/// Entries in a set: what one look-up reads, 256 bytes.
const WAYS: usize = 8;

/// One strike is forgiven per day without a ban.
const FORGIVEN_S: u32 = 24 * 3_600;

/// Never more bans than this, or a tenth of the prefixes that are connected, whichever is more: a
/// mistake of ours must not lock everybody out (the rule is Envoy's outlier detection's).
const BANS_MIN: u32 = 16;

/// Sessions that speak for their address: more of them do not make it harder still to strike.
const GOOD_MAX: u32 = 15;

/// How long the first strike slows.
const THROTTLE_S: u32 = 60;
/// How long the second level lasts.
const PUZZLE_S: u32 = 4 * 60;
/// [`THROTTLE_S`] as a span.
pub(crate) const THROTTLE: Duration = Duration::from_secs(THROTTLE_S as u64);

/// What an address did, with its price in points (limits: 100 points are a strike, 10 leak away
/// per minute).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Offence {
    /// Bytes that are not UTF-8.
    BadUtf8 = 1,
    /// A line over the limit.
    LineTooLong = 2,
    /// A line that was not finished in time.
    Unfinished = 3,
    /// Closed for reading too slowly, for the third time in ten minutes.
    SlowReader = 4,
    /// Over the rate for ten seconds on end, per second.
    Rate = 5,
    /// Too many connects.
    Flapping = 6,
    /// HTTP on a port of the line dialect.
    WrongDialect = 7,
    /// A message of a handshake that is not one, or came when it may not.
    Handshake = 8,
    /// It did not prove who it is.
    Signature = 9,
    /// A puzzle that was not solved.
    Puzzle = 10,
    /// A handshake that was not finished in time.
    HandshakeTimeout = 11,
    /// A record whose header, number or tag is wrong.
    Record = 12,
    /// A frame or a value that is none, under a tag that is right.
    Frame = 13,
}

impl Offence {
    /// Its price.
    #[must_use]
    pub const fn points(self) -> u32 {
        match self {
            Self::BadUtf8 | Self::LineTooLong | Self::WrongDialect => 15,
            Self::Unfinished | Self::SlowReader => 10,
            Self::Rate => 5,
            Self::Flapping | Self::Signature | Self::Puzzle => 20,
            Self::Handshake | Self::Frame => 25,
            Self::HandshakeTimeout | Self::Record => 5,
        }
    }
}

/// What a strike does, by how often there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// A tenth of the rates.
    Throttle,
    /// It has to solve a puzzle first.
    Puzzle,
    /// Newcomers are refused.
    Refuse,
}

/// The level and its length. The second level is the puzzle, for an identity; an address is refused
/// for as long, since what comes from there may speak a dialect without one.
const fn level(key: Prefix, strikes: u8) -> (Level, u32) {
    match strikes {
        0 | 1 => (Level::Throttle, THROTTLE_S),
        2 if key.is_identity() => (Level::Puzzle, PUZZLE_S),
        2 => (Level::Refuse, PUZZLE_S),
        3 => (Level::Refuse, 16 * 60),
        4 => (Level::Refuse, 64 * 60),
        5 => (Level::Refuse, 256 * 60),
        _ => (Level::Refuse, 24 * 3_600),
    }
}

/// What [`Ban::refuse`] says of newcomers: they solve a puzzle, or are not let in.
const PUZZLED: u8 = 1;
const REFUSED: u8 = 2;

/// An entry of the table, 32 bytes. All zeros is free.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub struct Ban {
    key: Prefix,
    /// The score: the time at which it will have leaked away, in microseconds. A neighbourhood
    /// has none; of one it is the time at which its handshakes will have been paid for.
    tat_us: u64,
    /// When what `refuse` and `throttle` say ends, in seconds.
    until_s: u32,
    strikes: u8,
    /// The last offence.
    reason: u8,
    refuse: u8,
    throttle: u8,
}

const _: () = assert!(size_of::<Ban>() == 32);

impl Ban {
    const fn is_active(&self, now_s: u32) -> bool {
        (self.refuse != 0 || self.throttle != 0) && now_s < self.until_s
    }

    const fn refuses(&self, now_s: u32) -> bool {
        self.refuse == REFUSED && now_s < self.until_s
    }

    /// Whether it is not forgotten for the sake of others yet.
    const fn bars(&self, now_s: u32) -> bool {
        self.refuse != 0 && now_s < self.until_s
    }

    /// How much is lost with it: nothing for a free or leaked entry.
    const fn worth(&self, now_us: u64) -> u64 {
        self.tat_us.saturating_sub(now_us)
    }
}

/// What the quarantine says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Free,
    /// A tenth of the rates, for so long yet.
    Throttled(Duration),
    /// The same, and a hard puzzle before it is let in: of identities only.
    Puzzled(Duration),
    /// No newcomers, for so long yet.
    Refused(Duration),
}

/// What a charge came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Noted.
    Noted,
    /// A strike: so many by now, and newcomers are refused, or solve a puzzle, for so many seconds.
    Struck { strikes: u8, seconds: u32, to_parent: bool },
    /// It would have been a strike, but too many are banned already.
    Withheld,
}

/// The tables: IPv4, IPv6 and identities apart, so that one cannot flush the other, and the
/// neighbourhoods.
#[derive(Debug)]
pub(crate) struct Quarantine<'s> {
    v4: &'s mut [Ban],
    v6: &'s mut [Ban],
    parents: &'s mut [Ban],
    /// Identities with standing; none where nothing was lent for them.
    identities: &'s mut [Ban],
    secret: [u8; 32],
    limits: QuarantineLimits,
    /// Bans of addresses given; counted anew where that looks like too many.
    bans: u32,
    counted_s: u32,
}

impl<'s> Quarantine<'s> {
    pub(crate) fn new(
        v4: &'s mut [Ban],
        v6: &'s mut [Ban],
        parents: &'s mut [Ban],
        secret: [u8; 32],
        limits: QuarantineLimits,
    ) -> Self {
        Self { v4, v6, parents, identities: &mut [], secret, limits, bans: 0, counted_s: 0 }
    }

    /// Has it know identities, too.
    #[cfg(feature = "native-sessions")]
    pub(crate) fn lend_identities(&mut self, table: &'s mut [Ban]) {
        self.identities = table;
    }

    /// Whether there is a place for identities.
    #[cfg(feature = "native-sessions")]
    pub(crate) const fn knows_identities(&self) -> bool {
        !self.identities.is_empty()
    }

    fn table(&self, key: Prefix) -> &[Ban] {
        if key.is_identity() {
            self.identities
        } else if key.is_v4() {
            self.v4
        } else {
            self.v6
        }
    }

    /// Looks an address up: its own entry, then its neighbourhood's.
    pub(crate) fn verdict(&self, now: Instant, prefix: Prefix) -> Verdict {
        let now_s = seconds(now);
        let own = find(set(self.table(prefix), &self.secret, prefix.parent()), prefix);
        let parent = prefix.parent();
        let around = find(set(self.parents, &self.secret, parent), parent);
        let until = |ban: &Ban| if ban.refuses(now_s) { ban.until_s } else { 0 };
        let refused = own.map_or(0, until).max(around.map_or(0, until));
        if refused > now_s {
            return Verdict::Refused(Duration::from_secs(u64::from(refused.saturating_sub(now_s))));
        }
        match own {
            Some(ban) if ban.is_active(now_s) => {
                let left = ban.until_s.saturating_sub(now_s);
                let left = Duration::from_secs(u64::from(left));
                if ban.refuse == PUZZLED {
                    Verdict::Puzzled(left)
                } else {
                    Verdict::Throttled(left)
                }
            }
            Some(_) | None => Verdict::Free,
        }
    }

    /// Charges an address, or an identity. `live`: prefixes that have connections, or sessions.
    /// `good`: sessions of the address that live. Behind one address are many, of whom most do
    /// nothing wrong: it takes as many times more to strike it, up to 16 times.
    pub(crate) fn charge(
        &mut self,
        now: Instant,
        prefix: Prefix,
        offence: Offence,
        live: u32,
        good: u32,
    ) -> Charge {
        let period_us = self.limits.point.as_nanos() / 1_000;
        let times = u64::from(good.min(GOOD_MAX)).saturating_add(1);
        let full = period_us.saturating_mul(u64::from(self.limits.threshold_points));
        let full = full.saturating_mul(times);
        let cost = period_us.saturating_mul(u64::from(offence.points()));
        let now_us = micros(now);
        let Some(entry) = self.entry(now, prefix) else {
            // The set is full of bans. Nobody loses his: the neighbourhood answers.
            return self.strike_parent(now, prefix, offence, 2, 0);
        };
        entry.reason = offence as u8;
        entry.tat_us = entry.tat_us.max(now_us).saturating_add(cost);
        if entry.tat_us.saturating_sub(now_us) < full {
            return Charge::Noted;
        }
        entry.tat_us = now_us;
        self.strike(now, prefix, offence, live, None)
    }

    /// Whether the neighbourhood of an address may begin a handshake more, which is counted if so.
    #[cfg(feature = "native-sessions")]
    pub(crate) fn parent_may(&mut self, now: Instant, prefix: Prefix, rate: Rate) -> bool {
        let parent = prefix.parent();
        let now_us = micros(now);
        let set = set_mut(self.parents, &self.secret, parent);
        let Some(entry) = find_or_evict(set, parent, now_us, seconds(now)) else {
            // A set full of bans has no place for it; the shard's own bucket is left.
            return true;
        };
        let period_us = rate.period.as_nanos() / 1_000;
        let full_us = period_us.saturating_mul(u64::from(rate.burst));
        let tat_us = entry.tat_us.max(now_us).saturating_add(period_us);
        if tat_us.saturating_sub(now_us) > full_us {
            return false;
        }
        entry.tat_us = tat_us;
        true
    }

    /// Refuses an address for `span`, whatever its score.
    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        prefix: Prefix,
        offence: Offence,
        live: u32,
        span: Duration,
    ) -> Charge {
        if self.entry(now, prefix).is_none() {
            return self.strike_parent(now, prefix, offence, 2, 0);
        }
        let span = u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
        self.strike(now, prefix, offence, live, Some(span))
    }

    /// Another shard struck an address, for `seconds_s`, or only throttled it where that is 0.
    pub(crate) fn adopt(&mut self, now: Instant, key: Prefix, strikes: u8, seconds_s: u32) {
        let (now_us, now_s) = (micros(now), seconds(now));
        let entry = if key.is_parent() {
            find_or_evict(set_mut(self.parents, &self.secret, key), key, now_us, now_s)
        } else {
            self.entry(now, key)
        };
        let span = if seconds_s == 0 { THROTTLE_S } else { seconds_s };
        let Some(entry) = entry else {
            // Its set is full of bans: as for one of our own, the neighbourhood answers.
            if seconds_s > 0 && !key.is_parent() {
                self.adopt_parent(now, key.parent(), strikes, span);
            }
            return;
        };
        if entry.until_s <= now_s {
            entry.refuse = 0;
        }
        entry.strikes = entry.strikes.max(strikes);
        entry.until_s = entry.until_s.max(now_s.saturating_add(span));
        entry.throttle = 1;
        if seconds_s > 0 && !cfg!(wardline_mutant = "ban_adopted_softly") {
            entry.refuse = REFUSED;
            self.bans = self.bans.saturating_add(1);
        }
    }

    fn adopt_parent(&mut self, now: Instant, parent: Prefix, strikes: u8, span_s: u32) {
        let (now_us, now_s) = (micros(now), seconds(now));
        let set = set_mut(self.parents, &self.secret, parent);
        if let Some(entry) = find_or_evict(set, parent, now_us, now_s) {
            entry.refuse = REFUSED;
            entry.strikes = entry.strikes.max(strikes);
            entry.until_s = entry.until_s.max(now_s.saturating_add(span_s));
        }
    }

    fn strike(
        &mut self,
        now: Instant,
        prefix: Prefix,
        offence: Offence,
        live: u32,
        span_s: Option<u32>,
    ) -> Charge {
        let now_s = seconds(now);
        let withheld = self.too_many(prefix, now_s, live);
        let jitter = self.jitter(prefix, now_s);
        let Some(entry) = self.entry(now, prefix) else { return Charge::Noted };
        let forgiven = now_s.saturating_sub(entry.until_s) / FORGIVEN_S;
        let forgiven = u8::try_from(forgiven).unwrap_or(u8::MAX);
        let strikes = entry.strikes.saturating_sub(forgiven).saturating_add(1);
        let (level, seconds) = match span_s {
            Some(span) => (Level::Refuse, span),
            None => level(prefix, strikes),
        };
        if level == Level::Refuse && withheld {
            return Charge::Withheld;
        }
        entry.strikes = strikes;
        if entry.until_s <= now_s {
            // What an old ban refused is over; a new one says anew what it does.
            entry.refuse = 0;
        }
        let longer = seconds.saturating_add((seconds / 4).saturating_mul(jitter) / 256);
        entry.until_s = entry.until_s.max(now_s.saturating_add(longer));
        entry.throttle = 1;
        match level {
            Level::Throttle => return Charge::Struck { strikes, seconds: 0, to_parent: false },
            Level::Puzzle => {
                entry.refuse = entry.refuse.max(PUZZLED);
                return Charge::Struck { strikes, seconds: longer, to_parent: false };
            }
            Level::Refuse => {}
        }
        entry.refuse = REFUSED;
        self.bans = self.bans.saturating_add(u32::from(!prefix.is_identity()));
        if self.neighbours(now_s, prefix) >= WAYS {
            return self.strike_parent(now, prefix, offence, strikes, longer);
        }
        Charge::Struck { strikes, seconds: longer, to_parent: false }
    }

    /// Bans a neighbourhood for `seconds`, or as long as `strikes` are worth.
    fn strike_parent(
        &mut self,
        now: Instant,
        prefix: Prefix,
        offence: Offence,
        strikes: u8,
        seconds_s: u32,
    ) -> Charge {
        if prefix.is_identity() {
            return Charge::Withheld;
        }
        let parent = prefix.parent();
        let now_s = seconds(now);
        let length = if seconds_s == 0 { level(parent, strikes).1 } else { seconds_s };
        let now_us = micros(now);
        let set = set_mut(self.parents, &self.secret, parent);
        let Some(entry) = find_or_evict(set, parent, now_us, now_s) else {
            return Charge::Withheld;
        };
        entry.reason = offence as u8;
        entry.refuse = REFUSED;
        entry.strikes = entry.strikes.max(strikes);
        entry.until_s = entry.until_s.max(now_s.saturating_add(length));
        Charge::Struck { strikes, seconds: length, to_parent: true }
    }

    /// The entry of `prefix`, made where there is room. None: its set is full of bans.
    fn entry(&mut self, now: Instant, prefix: Prefix) -> Option<&mut Ban> {
        let table = if prefix.is_identity() {
            &mut *self.identities
        } else if prefix.is_v4() {
            &mut *self.v4
        } else {
            &mut *self.v6
        };
        let set = set_mut(table, &self.secret, prefix.parent());
        find_or_evict(set, prefix, micros(now), seconds(now))
    }

    /// Banned addresses of the same neighbourhood.
    fn neighbours(&self, now_s: u32, prefix: Prefix) -> usize {
        let parent = prefix.parent();
        set(self.table(prefix), &self.secret, parent)
            .iter()
            .filter(|ban| ban.refuses(now_s) && ban.key.parent() == parent)
            .count()
    }

    fn too_many(&mut self, key: Prefix, now_s: u32, live: u32) -> bool {
        let most = BANS_MIN.max(live / 10);
        if key.is_identity() {
            // A strike takes four sessions that were proved: it may look at all of them.
            let active = self.identities.iter().filter(|ban| ban.refuses(now_s)).count();
            return active >= most as usize;
        }
        if self.bans >= most && self.counted_s != now_s {
            let all = self.v4.iter().chain(self.v6.iter());
            let active = all.filter(|ban| ban.refuses(now_s)).count();
            self.bans = u32::try_from(active).unwrap_or(u32::MAX);
            self.counted_s = now_s;
        }
        self.bans >= most
    }

    /// 0 to 255, so that bans do not end together and nobody can tell when.
    fn jitter(&self, prefix: Prefix, now_s: u32) -> u32 {
        let mut text = [0_u8; 20];
        let (front, back) = text.split_at_mut(16);
        crate::storage::copy(front, prefix.as_bytes());
        crate::storage::copy(back, &now_s.to_le_bytes());
        u32::from(blake3::keyed_hash(&self.secret, &text).as_bytes()[0])
    }
}

fn micros(now: Instant) -> u64 {
    now.as_nanos() / 1_000
}

fn seconds(now: Instant) -> u32 {
    u32::try_from(now.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX)
}

fn set_at(len: usize, secret: &[u8; 32], parent: Prefix) -> core::ops::Range<usize> {
    let sets = (len / WAYS).max(1) as u64;
    let nth = parent.hash(secret).checked_rem(sets).unwrap_or(0);
    let first = usize::try_from(nth).unwrap_or(0).saturating_mul(WAYS);
    first..first.saturating_add(WAYS).min(len)
}

fn set<'t>(table: &'t [Ban], secret: &[u8; 32], parent: Prefix) -> &'t [Ban] {
    table.get(set_at(table.len(), secret, parent)).unwrap_or_default()
}

fn set_mut<'t>(table: &'t mut [Ban], secret: &[u8; 32], parent: Prefix) -> &'t mut [Ban] {
    table.get_mut(set_at(table.len(), secret, parent)).unwrap_or_default()
}

fn find(set: &[Ban], key: Prefix) -> Option<&Ban> {
    set.iter().find(|ban| ban.key == key)
}

fn find_or_evict(set: &mut [Ban], key: Prefix, now_us: u64, now_s: u32) -> Option<&mut Ban> {
    let place = match set.iter().position(|ban| ban.key == key) {
        Some(place) => place,
        None => {
            let (place, _) = set
                .iter()
                .enumerate()
                .filter(|(_, ban)| !ban.bars(now_s) || cfg!(wardline_mutant = "ban_evicted"))
                .min_by_key(|(_, ban)| {
                    (!ban.key.is_none(), ban.is_active(now_s), ban.worth(now_us))
                })?;
            if let Some(ban) = set.get_mut(place) {
                *ban = Ban { key, ..Ban::default() };
            }
            place
        }
    };
    set.get_mut(place)
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
