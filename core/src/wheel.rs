//! Deadlines: a hashed wheel (Varghese and Lauck, 1987) of lent slots, one deadline per
//! connection, re-armed lazily: a deadline that moved later stays where it is and is looked at
//! again when its slot comes round.

use bytemuck::Zeroable;

use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::storage::{Slab, Slot};
use crate::time::Instant;

/// One tick of the wheel: a millisecond, the finest thing that any deadline here needs.
const TICK_NS: u64 = 1_000_000;

/// A bucket of the wheel: the deadlines that fall into its ticks.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
#[repr(transparent)]
pub struct WheelSlot(Ref);

/// A connection's place in the wheel. All zeros is "not in it".
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct Timer {
    next: Ref,
    prev: Ref,
    /// The bucket it is in, plus one; 0: none.
    bucket: u32,
    /// The tick at which it is looked at.
    tick: u64,
}

/// What carries a timer.
pub(crate) trait Timed: Slot {
    fn timer(&self) -> &Timer;
    fn timer_mut(&mut self) -> &mut Timer;
}

#[derive(Debug)]
pub(crate) struct Wheel<'s> {
    buckets: &'s mut [WheelSlot],
    /// Everything before this tick was looked at.
    tick: u64,
    /// Timers in the wheel.
    armed: u32,
    /// No timer is earlier than this tick: where the search for the next one begins.
    soonest: u64,
}

impl<'s> Wheel<'s> {
    /// `buckets` has at least one slot.
    pub(crate) fn new(buckets: &'s mut [WheelSlot], now: Instant) -> Self {
        Self { buckets, tick: ticks(now), armed: 0, soonest: ticks(now) }
    }

    fn size(&self) -> u64 {
        (self.buckets.len() as u64).max(1)
    }

    fn bucket_mut(&mut self, bucket: u64) -> &mut Ref {
        match self.buckets.get_mut(usize::try_from(bucket).unwrap_or(usize::MAX)) {
            Some(slot) => &mut slot.0,
            None => invariant_failed("no such bucket"),
        }
    }

    /// Sees to it that the timer of `slot` is looked at no later than `at`.
    pub(crate) fn arm<T: Timed>(&mut self, slab: &mut Slab<'_, T>, slot: Ref, at: Instant) {
        // Rounded up, so that what is looked at is due; never beyond one round of the wheel.
        let horizon = self.tick.saturating_add(self.size().saturating_sub(1));
        let tick = ticks(at).saturating_add(1).clamp(self.tick, horizon);
        let timer = *slab.at(slot).timer();
        if timer.bucket != 0 {
            if timer.tick <= tick {
                return;
            }
            self.disarm(slab, slot);
        }
        let bucket = tick.checked_rem(self.size()).unwrap_or(0);
        let head = core::mem::replace(self.bucket_mut(bucket), slot);
        if head.is_some() {
            slab.at_mut(head).timer_mut().prev = slot;
        }
        *slab.at_mut(slot).timer_mut() = Timer {
            next: head,
            prev: Ref::NONE,
            bucket: u32::try_from(bucket).unwrap_or(u32::MAX).saturating_add(1),
            tick,
        };
        self.armed = self.armed.saturating_add(1);
        self.soonest = if self.armed == 1 { tick } else { self.soonest.min(tick) };
    }

    pub(crate) fn disarm<T: Timed>(&mut self, slab: &mut Slab<'_, T>, slot: Ref) {
        let timer = core::mem::take(slab.at_mut(slot).timer_mut());
        if timer.bucket == 0 {
            return;
        }
        if timer.next.is_some() {
            slab.at_mut(timer.next).timer_mut().prev = timer.prev;
        }
        match timer.prev.some() {
            Some(prev) => slab.at_mut(prev).timer_mut().next = timer.next,
            None => *self.bucket_mut(u64::from(timer.bucket.saturating_sub(1))) = timer.next,
        }
        self.armed = self.armed.saturating_sub(1);
    }

    /// Takes one timer that is to be looked at by `now`.
    pub(crate) fn expire<T: Timed>(&mut self, slab: &mut Slab<'_, T>, now: Instant) -> Option<Ref> {
        let now = ticks(now);
        if self.armed == 0 {
            self.tick = self.tick.max(now);
            return None;
        }
        // After a long sleep one round visits every bucket.
        let round = self.size();
        if now.saturating_sub(self.tick) > round {
            self.tick = now.saturating_sub(round);
        }
        while self.tick <= now {
            let bucket = self.tick.checked_rem(self.size()).unwrap_or(0);
            let head = *self.bucket_mut(bucket);
            if head.is_some() {
                self.disarm(slab, head);
                return Some(head);
            }
            if self.tick == now {
                return None;
            }
            self.tick = self.tick.saturating_add(1);
        }
        None
    }

    /// When the next timer is to be looked at, if there is one.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        let size = self.size();
        self.soonest = self.soonest.max(self.tick);
        let start = self.soonest.checked_rem(size).unwrap_or(0);
        let start = usize::try_from(start).unwrap_or(0);
        let later = self.buckets.iter().skip(start);
        let ahead = later.chain(self.buckets.iter()).take_while(|slot| slot.0.is_none()).count();
        self.soonest = self.soonest.saturating_add(ahead as u64);
        Some(Instant::from_nanos(self.soonest.saturating_mul(TICK_NS)))
    }
}

const fn ticks(at: Instant) -> u64 {
    at.as_millis()
}
