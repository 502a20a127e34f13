//! Addresses as the relay counts them: an IPv4 address, or the /64 of an IPv6 one; and the table of
//! those that have connections now or had some a moment ago.

use core::net::IpAddr;

use bytemuck::Zeroable;

use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::rate::{Bucket, Rate};
use crate::storage::{Slab, Slot};
use crate::time::Instant;

/// Who is counted together: an IPv4 address, an IPv6 /64, or, as parent, a /24 or a /48; in the
/// quarantine an identity, too, which is of no neighbourhood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(transparent)]
pub struct Prefix([u8; 16]);

const V4: u8 = 4;
const V6: u8 = 6;
const IDENTITY: u8 = 1;

impl Prefix {
    /// The prefix of an address; `::ffff:a.b.c.d` is IPv4.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                Self([V4, 32, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self([V6, 64, a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0])
            }
        }
    }

    /// The /24 or /48 that it is of.
    #[must_use]
    pub const fn parent(self) -> Self {
        let [class, _, a, b, c, d, e, f, ..] = self.0;
        match class {
            V4 => Self([V4, 24, a, b, c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            IDENTITY => self,
            _ => Self([V6, 48, a, b, c, d, e, f, 0, 0, 0, 0, 0, 0, 0, 0]),
        }
    }

    pub(crate) const fn is_v4(self) -> bool {
        self.0[0] == V4
    }

    /// An identity, by a keyed hash of it.
    #[cfg(feature = "native-sessions")]
    pub(crate) const fn of_identity(hash: &[u8; 16]) -> Self {
        let mut key = *hash;
        key[0] = IDENTITY;
        Self(key)
    }

    pub(crate) const fn is_identity(self) -> bool {
        self.0[0] == IDENTITY
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0[0] == 0
    }

    /// The prefix of those bytes, if there is one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        matches!(bytes, [V4, 24 | 32, ..] | [V6, 48 | 64, ..]).then_some(Self(bytes))
    }

    /// Whether it is a neighbourhood.
    pub(crate) const fn is_parent(self) -> bool {
        matches!(self.0, [V4, 24, ..] | [V6, 48, ..])
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Its place in a table, which only who knows the secret can choose.
    pub(crate) fn hash(&self, secret: &[u8; 32]) -> u64 {
        let hash = blake3::keyed_hash(secret, &self.0);
        let (front, _) = hash.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        u64::from_le_bytes(*front)
    }
}

/// A network: the addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address of it.
    pub ip: IpAddr,
    /// How many bits they share.
    pub bits: u8,
}

impl Network {
    /// Whether `ip` is one of them; `::ffff:a.b.c.d` is IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let apart = network.to_bits() ^ ip.to_bits();
                apart.leading_zeros() >= u32::from(self.bits.min(32))
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let apart = network.to_bits() ^ ip.to_bits();
                apart.leading_zeros() >= u32::from(self.bits.min(128))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A prefix that has connections, or had some a moment ago.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct PrefixSlot {
    pub(crate) key: Prefix,
    /// Connections of it.
    pub(crate) conns: u32,
    /// The youngest of them; the others follow in the sessions.
    pub(crate) youngest: Ref,
    pub(crate) connects: Bucket,
    /// Full handshakes.
    pub(crate) handshakes: Bucket,
    /// Readers of it that were cut.
    pub(crate) cuts: Bucket,
    /// Who comes from there solves the puzzle of an identity that was struck, until then.
    pub(crate) puzzle_until: Instant,
    /// Handshakes of it that are under way.
    pub(crate) half_open: u32,
    /// Native connections of it that have no session yet.
    pub(crate) strangers: u32,
    /// Native connections of it that have one.
    pub(crate) good: u32,
    /// Connections of it, a proxy, whose clients are not known yet.
    pub(crate) waiting: u32,
    /// Sessions of it that wait for their clients, and the oldest and the youngest of them.
    lost: u32,
    lost_first: Ref,
    lost_last: Ref,
    /// Which one it is of those that had the slot.
    nth: u32,
    next: Ref,
    /// The row of those that have no connection, oldest first.
    idle_next: Ref,
    idle_prev: Ref,
}

impl PrefixSlot {
    /// Connections of it that are its own: whose those are that wait, is yet to be said.
    pub(crate) const fn own(&self) -> u32 {
        let others =
            if cfg!(wardline_mutant = "who_waits_is_its_proxys") { 0 } else { self.waiting };
        self.conns.saturating_sub(others)
    }
}

impl Slot for PrefixSlot {
    fn free_next(&mut self) -> &mut Ref {
        &mut self.next
    }
}

/// The place of a lost session in the row of its prefix. The prefix may be forgotten meanwhile;
/// then nobody counts it any more.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct Kin {
    pub(crate) older: Ref,
    pub(crate) younger: Ref,
    prefix: Ref,
    nth: u32,
}

/// A bucket of the table.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
#[repr(transparent)]
pub struct PrefixBucket(Ref);

/// The table: chained buckets over lent slots. Prefixes without a connection are remembered, for
/// their rate of connects, until their slot is needed.
#[derive(Debug)]
pub(crate) struct Prefixes<'s> {
    slots: Slab<'s, PrefixSlot>,
    buckets: &'s mut [PrefixBucket],
    secret: [u8; 32],
    idle_first: Ref,
    idle_last: Ref,
    live: u32,
    /// A prefix that holds many connections of its own: the most, as far as was noticed.
    heaviest: Ref,
    /// One that has many lost sessions, in the same way.
    loser: Ref,
    /// Prefixes that were ever entered.
    made: u32,
}

impl<'s> Prefixes<'s> {
    /// `slots` are at least as many as connections, so that one can always be had.
    pub(crate) fn new(
        slots: &'s mut [PrefixSlot],
        buckets: &'s mut [PrefixBucket],
        secret: [u8; 32],
    ) -> Self {
        Self {
            slots: Slab::new(slots),
            buckets,
            secret,
            idle_first: Ref::NONE,
            idle_last: Ref::NONE,
            live: 0,
            heaviest: Ref::NONE,
            loser: Ref::NONE,
            made: 0,
        }
    }

    /// Prefixes that have connections now.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    #[cfg(feature = "native-sessions")]
    pub(crate) fn find(&self, slot: Ref) -> Option<&PrefixSlot> {
        self.slots.find(slot)
    }

    pub(crate) fn at(&self, slot: Ref) -> &PrefixSlot {
        self.slots.at(slot)
    }

    pub(crate) fn at_mut(&mut self, slot: Ref) -> &mut PrefixSlot {
        self.slots.at_mut(slot)
    }

    fn bucket_mut(&mut self, key: Prefix) -> &mut Ref {
        let size = (self.buckets.len() as u64).max(1);
        let at = key.hash(&self.secret).checked_rem(size).unwrap_or(0);
        match self.buckets.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
            Some(bucket) => &mut bucket.0,
            None => invariant_failed("no such bucket of prefixes"),
        }
    }

    fn find_key(&mut self, key: Prefix) -> Option<Ref> {
        let mut next = *self.bucket_mut(key);
        while let Some(slot) = next.some() {
            let found = self.slots.at(slot);
            if found.key == key {
                return Some(slot);
            }
            next = found.next;
        }
        None
    }

    /// The slot of a key that may have no connection, made where there is none and room for it.
    #[cfg(feature = "native-sessions")]
    pub(crate) fn remember(&mut self, key: Prefix) -> Option<Ref> {
        let known = self.find_key(key);
        let room = self.idle_first.is_some() || self.slots.used() < self.slots.capacity();
        known.or_else(|| room.then(|| self.find_or_make(key)))
    }

    /// The slot of `key`, made where there is none.
    pub(crate) fn find_or_make(&mut self, key: Prefix) -> Ref {
        if let Some(slot) = self.find_key(key) {
            return slot;
        }
        let slot = match self.slots.take() {
            Some(slot) => slot,
            None => {
                let oldest = self.idle_first;
                if oldest.is_none() {
                    invariant_failed("more prefixes than connections");
                }
                self.forget(oldest);
                match self.slots.take() {
                    Some(slot) => slot,
                    None => invariant_failed("no slot for a prefix"),
                }
            }
        };
        let bucket = self.bucket_mut(key);
        let old = core::mem::replace(bucket, slot);
        self.made = self.made.wrapping_add(1).max(1);
        let nth = self.made;
        *self.slots.at_mut(slot) = PrefixSlot { key, next: old, nth, ..PrefixSlot::zeroed() };
        self.rest(slot);
        slot
    }

    /// Notes a connect of `slot`; gives whether it flaps.
    pub(crate) fn connect(&mut self, slot: Ref, rate: Rate, now: Instant) -> bool {
        !self.slots.at_mut(slot).connects.take(rate, now, 1)
    }

    /// One connection more; `waits`: whose it is, is yet to be said.
    pub(crate) fn join(&mut self, slot: Ref, waits: bool) {
        let conns = self.slots.at(slot).conns;
        if conns == 0 {
            self.wake(slot);
            self.live = self.live.saturating_add(1);
        }
        let most = self.heaviest.some().map_or(0, |slot| self.slots.at(slot).own());
        let item = self.slots.at_mut(slot);
        item.conns = conns.saturating_add(1);
        item.waiting = item.waiting.saturating_add(u32::from(waits));
        if item.own() > most {
            self.heaviest = slot;
        }
    }

    /// One connection less.
    pub(crate) fn part(&mut self, slot: Ref) {
        let Some(left) = self.slots.at(slot).conns.checked_sub(1) else {
            invariant_failed("a prefix lost a connection that it had not");
        };
        self.slots.at_mut(slot).conns = left;
        if left == 0 {
            let PrefixSlot { half_open, strangers, good, waiting, .. } = *self.slots.at(slot);
            if half_open > 0 || strangers > 0 || good > 0 || waiting > 0 {
                invariant_failed("handshakes or sessions of a prefix without connections");
            }
            self.live = self.live.saturating_sub(1);
            if self.heaviest == slot {
                self.heaviest = Ref::NONE;
            }
            self.rest(slot);
        }
    }

    /// The prefix with the most connections of its own, as far as was noticed.
    pub(crate) fn heaviest(&self) -> Option<Ref> {
        self.heaviest.some()
    }

    fn rest(&mut self, slot: Ref) {
        let last = core::mem::replace(&mut self.idle_last, slot);
        match last.some() {
            Some(last) => self.slots.at_mut(last).idle_next = slot,
            None => self.idle_first = slot,
        }
        let item = self.slots.at_mut(slot);
        item.idle_prev = last;
        item.idle_next = Ref::NONE;
    }

    fn wake(&mut self, slot: Ref) {
        let PrefixSlot { idle_next, idle_prev, .. } = *self.slots.at(slot);
        match idle_next.some() {
            Some(next) => self.slots.at_mut(next).idle_prev = idle_prev,
            None => self.idle_last = idle_prev,
        }
        match idle_prev.some() {
            Some(prev) => self.slots.at_mut(prev).idle_next = idle_next,
            None => self.idle_first = idle_next,
        }
    }

    fn forget(&mut self, slot: Ref) {
        self.wake(slot);
        let PrefixSlot { key, next, .. } = *self.slots.at(slot);
        let mut at = *self.bucket_mut(key);
        if at == slot {
            *self.bucket_mut(key) = next;
        } else {
            while self.slots.at(at).next != slot {
                at = self.slots.at(at).next;
            }
            self.slots.at_mut(at).next = next;
        }
        if self.loser == slot {
            self.loser = Ref::NONE;
        }
        *self.slots.at_mut(slot) = PrefixSlot::zeroed();
        self.slots.give(slot);
    }
}

#[cfg_attr(not(feature = "native-sessions"), expect(dead_code, reason = "no session is lost"))]
impl Prefixes<'_> {
    /// One lost session more, the youngest.
    pub(crate) fn lose(&mut self, slot: Ref, session: Ref) -> Kin {
        let most = self.most_lost().map_or(0, |(_, lost)| lost);
        let item = self.slots.at_mut(slot);
        let older = core::mem::replace(&mut item.lost_last, session);
        if older.is_none() {
            item.lost_first = session;
        }
        item.lost = item.lost.saturating_add(1);
        let kin = Kin { older, younger: Ref::NONE, prefix: slot, nth: item.nth };
        if item.lost > most {
            self.loser = slot;
        }
        kin
    }

    /// One less.
    pub(crate) fn regain(&mut self, kin: &Kin) {
        if self.lost_of(kin).is_none() {
            return;
        }
        let item = self.slots.at_mut(kin.prefix);
        if !cfg!(wardline_mutant = "regained_counts_as_lost") {
            item.lost = item.lost.saturating_sub(1);
        }
        if kin.older.is_none() {
            item.lost_first = kin.younger;
        }
        if kin.younger.is_none() {
            item.lost_last = kin.older;
        }
    }

    /// The oldest lost session of the prefix of one, and how many it has; none where it is
    /// forgotten.
    pub(crate) fn lost_of(&self, kin: &Kin) -> Option<(Ref, u32)> {
        let item = self.slots.at(kin.prefix.some()?);
        (item.nth == kin.nth).then_some((item.lost_first, item.lost))
    }

    /// The oldest lost session of the prefix that has most of them, as far as was noticed.
    pub(crate) fn most_lost(&self) -> Option<(Ref, u32)> {
        let item = self.slots.at(self.loser.some()?);
        item.lost_first.some().map(|first| (first, item.lost))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn prefixes_and_networks() {
        assert_eq!(Prefix::of(ip("::ffff:1.2.3.4")), Prefix::of(ip("1.2.3.4")));
        assert_ne!(Prefix::of(ip("1.2.3.5")), Prefix::of(ip("1.2.3.4")));
        assert_eq!(Prefix::of(ip("1.2.3.5")).parent(), Prefix::of(ip("1.2.3.4")).parent());
        assert_eq!(Prefix::of(ip("2001:db8:1:2::3")), Prefix::of(ip("2001:db8:1:2:9::")));
        assert_ne!(Prefix::of(ip("2001:db8:1:2::3")), Prefix::of(ip("2001:db8:1:3::3")));
        let net = Network { ip: ip("127.0.0.0"), bits: 8 };
        assert!(net.contains(ip("127.9.9.9")) && net.contains(ip("::ffff:127.0.0.1")));
        assert!(!net.contains(ip("128.0.0.1")) && !net.contains(ip("::1")));
        assert!(Network { ip: ip("0.0.0.0"), bits: 0 }.contains(ip("9.9.9.9")));
        assert!(!Network { ip: ip("::1"), bits: 128 }.contains(ip("::2")));
    }

    #[test]
    fn idle_prefixes_give_way_oldest_first_and_live_ones_never() {
        let (mut slots, mut buckets) =
            (vec![PrefixSlot::zeroed(); 4], vec![PrefixBucket::default(); 2]);
        let mut table = Prefixes::new(&mut slots, &mut buckets, [7; 32]);
        let key = |n: u8| Prefix::of(IpAddr::from([10, 0, 0, n]));
        let live = table.find_or_make(key(1));
        table.join(live, false);
        for n in 2..200 {
            let slot = table.find_or_make(key(n));
            assert_ne!(slot, live);
            assert_eq!(table.find_or_make(key(n)), slot);
            table.join(slot, false);
            table.part(slot);
        }
        assert_eq!((table.find_or_make(key(1)), table.at(live).conns), (live, 1));
        assert_eq!((table.live(), table.heaviest()), (1, Some(live)));
        for n in [199, 198, 197] {
            let slot = table.find_or_make(key(n));
            assert_eq!(table.at(slot).key, key(n));
        }
    }

    #[test]
    fn who_waits_for_its_name_makes_nobody_heavy() {
        let (mut slots, mut buckets) =
            (vec![PrefixSlot::zeroed(); 4], vec![PrefixBucket::default(); 2]);
        let mut table = Prefixes::new(&mut slots, &mut buckets, [7; 32]);
        let key = |n: u8| Prefix::of(IpAddr::from([10, 0, 0, n]));
        let (crowd, proxy) = (table.find_or_make(key(1)), table.find_or_make(key(2)));
        for _ in 0..3 {
            table.join(crowd, false);
            table.join(proxy, true);
            table.join(proxy, true);
            table.join(proxy, false);
        }
        // It has as many of its own, and came later.
        assert_eq!(table.heaviest(), Some(crowd));
        for left in (0..6).rev() {
            table.at_mut(proxy).waiting = left;
            table.part(proxy);
            assert_eq!((table.heaviest(), table.at(proxy).own()), (Some(crowd), 3));
        }
        table.join(proxy, false);
        assert_eq!(table.heaviest(), Some(proxy));
    }
}
