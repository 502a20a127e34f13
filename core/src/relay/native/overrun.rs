//! Whether a sender stays over the rate that it was told. PROTOCOL.md 2.4.4.
//!
//! Who has no tokens is not read, so the relay cannot see by how much it is too fast: only that
//! more waits whenever there are some. What waits may be the relay's own doing, though: it did not
//! read because of others. Tokens come back a little faster than a sender was told ([`LENIENCE`]),
//! so who keeps to that drains what has piled up in sixteen times as long as it took to pile up;
//! for so long it is spared.

use bytemuck::Zeroable;

use crate::rate::Rate;
use crate::time::{Duration, Instant};

/// A sixteenth more than was told is let through.
const LENIENCE: u64 = 16;
/// Who had what it needed for so long is over its rate no more.
const BREAK: Duration = Duration::from_millis(50);
/// How long on end one may be over its rate.
const GRACE: Duration = Duration::from_secs(10);
/// Then it is an offence each second.
const EVERY: Duration = Duration::from_secs(1);
/// Waiting no longer than this for its turn is nobody's doing.
pub(super) const TURN: Duration = Duration::from_millis(10);

/// The rate at which tokens come back to who was told `rate`.
pub(super) const fn lenient(rate: Rate) -> Rate {
    let ns = rate.period.as_nanos();
    let less = ns.saturating_sub(ns.div_ceil(LENIENCE + 1));
    let period = Duration::from_nanos(if less == 0 { ns } else { less });
    Rate { period, burst: rate.burst }
}

/// For how long a connection has been over its rate. All zeros: it was not.
#[derive(Clone, Copy, Debug, Zeroable)]
pub(super) struct Overrun {
    /// Since when, and when it was seen last.
    since: Instant,
    seen_at: Instant,
    charged_at: Instant,
    /// For how long its input waited meanwhile for what is not its own doing.
    spared: Duration,
    /// Since when it waits for that; zero: it does not.
    waits_from: Instant,
}

impl Overrun {
    /// It lacks tokens of its own, and is looked at again at `again`. Gives whether that is an
    /// offence.
    pub(super) fn lacks(&mut self, now: Instant, again: Instant) -> bool {
        self.goes_on_from(now);
        self.seen_at = now;
        // Later than that is the relay's doing.
        self.waits_from = again.after(TURN);
        let patience = GRACE.as_nanos().saturating_add(self.spared.times(LENIENCE).as_nanos());
        let charges =
            now.since(self.since).as_nanos() >= patience && now.since(self.charged_at) >= EVERY;
        if charges {
            self.charged_at = now;
        }
        charges
    }

    /// Its input waits, and not for its own rate: it is spared what that takes beyond `from`.
    pub(super) fn waits(&mut self, from: Instant) {
        if self.waits_from == Instant::ZERO {
            self.waits_from = from;
        }
    }

    /// It is gone on with.
    pub(super) fn goes_on(&mut self, now: Instant) {
        let from = core::mem::take(&mut self.waits_from);
        if from == Instant::ZERO {
            return;
        }
        let long = now.since(from);
        if !long.is_zero() {
            // What it has sent meanwhile may be too much for later.
            self.goes_on_from(from);
            self.seen_at = now;
            let spared = self.spared.as_nanos().saturating_add(long.as_nanos());
            self.spared = Duration::from_nanos(spared);
        }
    }

    /// Begins anew where it had what it needed for a while.
    fn goes_on_from(&mut self, at: Instant) {
        if at.since(self.seen_at) > BREAK {
            self.since = at;
            self.spared = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_millis(10);
    const BEGIN: Instant = Instant::from_nanos(5_000_000_000);

    fn ms(ms: u64) -> Instant {
        BEGIN.after(Duration::from_millis(ms))
    }

    /// Lacks tokens whenever it is looked at; gives how often that was an offence.
    fn press(overrun: &mut Overrun, from_ms: u64, to_ms: u64) -> u32 {
        let mut offences = 0;
        for at in (from_ms..to_ms).step_by(11) {
            overrun.goes_on(ms(at));
            offences += u32::from(overrun.lacks(ms(at), ms(at).after(HOLD)));
        }
        overrun.goes_on(ms(to_ms));
        offences
    }

    #[test]
    fn ten_seconds_on_end_are_free_and_then_each_second_counts() {
        for (seconds, offences) in [(1, 0), (9, 0), (10, 0), (11, 1), (15, 5), (30, 20)] {
            let mut overrun = Overrun::zeroed();
            let came_to = press(&mut overrun, 0, seconds * 1_000);
            assert!(came_to.abs_diff(offences) <= 1, "{came_to} in {seconds} s");
        }
    }

    #[test]
    fn who_had_enough_for_a_moment_begins_anew() {
        let mut overrun = Overrun::zeroed();
        for nth in 0..20 {
            assert_eq!(press(&mut overrun, nth * 9_600, nth * 9_600 + 9_500), 0);
        }
        // A moment that is none.
        let mut overrun = Overrun::zeroed();
        let came_to: u32 =
            (0..4).map(|nth| press(&mut overrun, nth * 5_000, nth * 5_000 + 4_980)).sum();
        assert!((9..=10).contains(&came_to), "{came_to}");
    }

    #[test]
    fn who_had_to_wait_for_others_is_spared_for_as_long_as_it_takes_to_catch_up() {
        for (waited_ms, first_ms) in [(1, 10_016), (100, 11_600), (2_000, 42_000)] {
            for at in [0, 5_000] {
                let mut overrun = Overrun::zeroed();
                assert_eq!(press(&mut overrun, 0, at), 0);
                overrun.goes_on(ms(at));
                overrun.waits(ms(at));
                let free = first_ms - 100;
                let came_to = press(&mut overrun, at + waited_ms, free);
                assert_eq!(came_to, 0, "{waited_ms} at {at}");
                assert!(press(&mut overrun, free, free + 200) > 0, "{waited_ms} at {at}");
            }
        }
    }

    #[test]
    fn a_relay_that_looks_again_too_late_blames_nobody_and_who_does_not_read_only_itself() {
        let mut overrun = Overrun::zeroed();
        for at in (0..100_000).step_by(30) {
            overrun.goes_on(ms(at));
            assert!(!overrun.lacks(ms(at), ms(at).after(HOLD)), "at {at}");
        }
        let mut overrun = Overrun::zeroed();
        let mut offences = 0;
        for at in (0..15_000).step_by(40) {
            overrun.goes_on(ms(at));
            overrun.waits(Instant::NEVER);
            overrun.goes_on(ms(at + 35));
            offences += u32::from(overrun.lacks(ms(at + 35), ms(at + 38)));
        }
        assert!((4..=6).contains(&offences), "{offences}");
    }

    #[test]
    fn a_clock_that_jumps_back_is_no_offence() {
        let mut overrun = Overrun::zeroed();
        assert_eq!(press(&mut overrun, 0, 9_000), 0);
        overrun.goes_on(Instant::from_nanos(1));
        assert!(!overrun.lacks(Instant::from_nanos(1), Instant::from_nanos(2)));
        assert!(press(&mut overrun, 9_000, 9_500) == 0);
    }

    #[test]
    fn a_sixteenth_more_is_let_through() {
        for units in [1, 5, 1_000, 8 << 20] {
            let rate = lenient(Rate::per_second(units));
            let sixteen = rate.period.times(17).as_nanos();
            let told = Rate::per_second(units).period.times(16).as_nanos();
            assert!(sixteen.abs_diff(told) <= 17 && rate.burst == units);
        }
        for units in [64 << 20, 512 << 20] {
            let (rate, told) = (lenient(Rate::per_second(units)), Rate::per_second(units));
            assert!(!rate.period.is_zero() && rate.period <= told.period);
        }
    }
}
