//! Token buckets as GCRA: one time stamp each, integers only (ITU-T I.371, "virtual scheduling").

use bytemuck::Zeroable;

use crate::time::{Duration, Instant};

/// How fast a bucket refills and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time in which one unit comes back.
    pub period: Duration,
    /// Units that a full bucket holds.
    pub burst: u32,
}

impl Rate {
    /// `units` a minute, the whole minute as burst. `units` 0 is a rate that admits nothing.
    #[must_use]
    pub const fn per_minute(units: u32) -> Self {
        Self::per(Duration::from_secs(60), units)
    }

    /// `units` a second, the whole second as burst.
    #[must_use]
    pub const fn per_second(units: u32) -> Self {
        Self::per(Duration::from_secs(1), units)
    }

    const fn per(span: Duration, units: u32) -> Self {
        match span.as_nanos().checked_div(units as u64) {
            Some(ns) => Self { period: Duration::from_nanos(ns), burst: units },
            None => Self { period: Duration::from_nanos(u64::MAX), burst: 0 },
        }
    }
}

/// A token bucket: the theoretical arrival time of the next unit. All zeros is a full bucket. A
/// clock that jumps back never refills it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(transparent)]
pub struct Bucket(u64);

impl Bucket {
    /// The bucket after `units` were taken, to be stored only once every other check has passed.
    /// `None` where it does not hold so much.
    #[must_use]
    pub const fn after(self, rate: Rate, now: Instant, units: u32) -> Option<Self> {
        let now = now.as_nanos();
        let tat = if self.0 > now { self.0 } else { now };
        let full = rate.period.times(rate.burst as u64).as_nanos();
        match tat.checked_add(rate.period.times(units as u64).as_nanos()) {
            Some(tat) if tat.saturating_sub(now) <= full => Some(Self(tat)),
            Some(_) | None => None,
        }
    }

    /// Whether all that was taken has come back.
    #[must_use]
    pub const fn is_full(self, now: Instant) -> bool {
        self.0 <= now.as_nanos()
    }

    /// How many units it holds now.
    #[must_use]
    pub const fn left(self, rate: Rate, now: Instant) -> u32 {
        let now = now.as_nanos();
        let full = rate.period.times(rate.burst as u64).as_nanos();
        let left = full.saturating_sub(self.0.saturating_sub(now));
        match left.checked_div(rate.period.as_nanos()) {
            Some(units) if units < rate.burst as u64 => units as u32,
            Some(_) | None => rate.burst,
        }
    }

    /// Takes `units` if it holds so much.
    pub const fn take(&mut self, rate: Rate, now: Instant, units: u32) -> bool {
        match self.after(rate, now, units) {
            Some(after) => {
                *self = after;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_minute_is_the_burst_and_then_it_refills_evenly() {
        let rate = Rate::per_minute(300);
        let mut bucket = Bucket::default();
        let start = Instant::from_nanos(5_000_000_000);
        assert_eq!((0..400).filter(|_| bucket.take(rate, start, 1)).count(), 300);
        let later = start.after(Duration::from_millis(1_000));
        assert_eq!((0..400).filter(|_| bucket.take(rate, later, 1)).count(), 5);
        let much_later = start.after(Duration::from_secs(3_600));
        assert_eq!((0..400).filter(|_| bucket.take(rate, much_later, 1)).count(), 300);
    }

    #[test]
    fn what_is_left_can_be_taken_and_no_more() {
        let rate = Rate::per_second(1_000);
        let mut bucket = Bucket::default();
        let start = Instant::from_nanos(5_000_000_000);
        for (after_ms, left, units) in
            [(0, 1_000, 700), (1, 301, 301), (250, 249, 0), (2_000, 1_000, 1)]
        {
            let now = start.after(Duration::from_millis(after_ms));
            assert_eq!(bucket.left(rate, now), left, "after {after_ms} ms");
            assert!(bucket.after(rate, now, left + 1).is_none());
            assert!(bucket.take(rate, now, units));
            assert_eq!(bucket.left(rate, now), left - units);
        }
        assert_eq!(Bucket::default().left(Rate::per_second(0), start), 0);
    }

    #[test]
    fn a_clock_that_jumps_back_refills_nothing() {
        let rate = Rate::per_second(10);
        let mut bucket = Bucket::default();
        let now = Instant::from_nanos(10_000_000_000);
        assert!(bucket.take(rate, now, 10));
        assert!(!bucket.take(rate, Instant::from_nanos(1), 1));
        assert!(!bucket.take(rate, now, 1));
    }

    #[test]
    fn a_rate_of_nothing_admits_nothing_and_a_huge_cost_does_not_wrap() {
        let mut bucket = Bucket::default();
        assert!(!bucket.take(Rate::per_second(0), Instant::from_nanos(7), 1));
        assert!(!bucket.take(Rate::per_second(1), Instant::NEVER, u32::MAX));
    }
}
