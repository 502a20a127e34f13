//! The clock and the entropy that the core is given.

use std::fmt;
use std::time::Instant as StdInstant;

use wardline_core::{Duration, Instant};

/// A monotonic clock whose origin lies one second before it was made, so that no reading of it is
/// [`Instant::ZERO`].
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: StdInstant,
}

/// What the clock reads at the moment it is made.
const AT_START: Duration = Duration::from_secs(1);

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: StdInstant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.at(StdInstant::now())
    }

    /// The time that another part of the process read as `instant`.
    #[must_use]
    pub fn at(&self, instant: StdInstant) -> Instant {
        let since = instant.saturating_duration_since(self.started);
        // 584 years fit.
        let ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Instant::ZERO.after(AT_START).after(Duration::from_nanos(ns))
    }

    /// When the process's own clock will read `time`; `None` where that is too far away to say.
    #[must_use]
    pub fn std_instant(&self, time: Instant) -> Option<StdInstant> {
        let since = time.since(Instant::ZERO.after(AT_START));
        self.started.checked_add(std::time::Duration::from_nanos(since.as_nanos()))
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug)]
pub struct EntropyError(getrandom::Error);

impl fmt::Display for EntropyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the system gives no random bytes: {}", self.0)
    }
}

impl std::error::Error for EntropyError {}

/// The wall clock, in milliseconds since 1970. Clients are shown it, and nothing else hangs on it.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// 32 random bytes of the operating system: the boot secret of a relay.
///
/// # Errors
/// The system's.
pub fn seed() -> Result<[u8; 32], EntropyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(EntropyError)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_at_a_second_and_goes_on() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(first.since(Instant::ZERO) >= AT_START);
        assert!(first.since(Instant::ZERO) < AT_START.times(60));
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(clock.now().since(first) >= Duration::from_millis(2));
    }

    #[test]
    fn both_clocks_agree() {
        let clock = Clock::start();
        let now = StdInstant::now();
        assert_eq!(clock.std_instant(clock.at(now)), Some(now));
        let earlier = clock.started.checked_sub(std::time::Duration::from_secs(1));
        if let Some(earlier) = earlier {
            assert_eq!(clock.at(earlier), Instant::ZERO.after(AT_START));
        }
        // What is never is far away or nothing, but no panic.
        assert!(clock.std_instant(Instant::NEVER).is_none_or(|at| at > now));
    }

    #[test]
    fn no_two_seeds_are_alike() {
        let seeds: std::collections::BTreeSet<_> = (0..64).map(|_| seed().unwrap()).collect();
        assert_eq!(seeds.len(), 64);
    }
}
