//! When a client comes back. PROTOCOL.md 2.2.7, 2.7.

use crate::native::codes::{ComeBack, RETRY_MAX, RETRY_UNPROVEN_MAX};
use crate::time::Duration;

/// The first wait.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait that a client comes to by itself.
pub const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What ended a connection, or an attempt at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A connection ended without a CLOSE, or by a fault.
    Cut,
    /// The relay's CLOSE.
    Closed {
        /// Its code's number.
        number: u16,
        /// When to come back; 0: not said.
        retry_ms: u32,
    },
    /// An ALERT, which anybody can write.
    Alert {
        /// When to come back; 0: not said.
        retry_ms: u32,
    },
    /// There was no connection, or its handshake came to nothing.
    NotReached,
}

/// How long a client waits: 1 s, doubling to 5 min, each a random part of its second half. The
/// first attempt after a connection that had lasted and was cut is made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The next wait.
    base: Duration,
    /// The last connection lasted, and nothing was tried since.
    rested: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::NEW
    }
}

impl Backoff {
    /// Nothing was tried.
    pub const NEW: Self = Self { base: BACKOFF_FIRST, rested: true };

    /// A connection has lasted: the caller says from when on. Said too early, a relay that ends
    /// each connection at once is come back to in a loop.
    pub const fn rest(&mut self) {
        *self = Self::NEW;
    }

    /// How long to wait after `loss`, by 64 bits of entropy. None: do not come back unasked.
    pub fn wait(&mut self, loss: Loss, entropy: u64) -> Option<Duration> {
        let (comes_back, told) = match loss {
            Loss::Cut if self.rested => {
                self.rested = false;
                return Some(Duration::ZERO);
            }
            Loss::Cut | Loss::NotReached => (ComeBack::Backoff, Duration::ZERO),
            Loss::Closed { number, retry_ms } => {
                let retry = Duration::from_millis(u64::from(retry_ms)).min(RETRY_MAX);
                (ComeBack::after_close(number), retry)
            }
            Loss::Alert { retry_ms } => {
                let retry = Duration::from_millis(u64::from(retry_ms)).min(RETRY_UNPROVEN_MAX);
                (ComeBack::after_alert(), retry)
            }
        };
        let told = match comes_back {
            ComeBack::No => return None,
            ComeBack::Backoff => Duration::ZERO,
            // Who were told the same do not all come at once.
            ComeBack::Told => later(told, told.as_nanos() / 4, entropy),
        };
        let half = self.base.as_nanos() / 2;
        let own = later(Duration::from_nanos(half), half, entropy);
        self.rested = false;
        self.base = self.base.times(2).min(BACKOFF_MAX);
        Some(own.max(told))
    }
}

/// `from` and a random part of `most_ns`.
fn later(from: Duration, most_ns: u64, entropy: u64) -> Duration {
    let part = entropy.checked_rem(most_ns).unwrap_or(0);
    Duration::from_nanos(from.as_nanos().saturating_add(part))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;
    use crate::native::testing::Rng;

    fn waits(losses: &[Loss], entropy: u64) -> Vec<Option<u64>> {
        let mut backoff = Backoff::NEW;
        let wait = |loss: &Loss| backoff.wait(*loss, entropy).map(Duration::as_millis);
        losses.iter().map(wait).collect()
    }

    #[test]
    fn a_cut_is_mended_at_once_and_then_with_patience() {
        let at = |base: &[u64]| base.iter().map(|base| Some(base / 2)).collect::<Vec<_>>();
        let bases = [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000];
        let mut wanted = at(&bases);
        wanted.extend([Some(150_000); 3]);
        assert_eq!(waits(&[Loss::Cut; 13], 0), wanted);
        // What was never reached is not tried at once.
        assert_eq!(waits(&[Loss::NotReached, Loss::Cut], 0), at(&[1_000, 2_000]));
        let mut backoff = Backoff::NEW;
        assert_eq!(backoff.wait(Loss::Cut, 0), Some(Duration::ZERO));
        assert_ne!(backoff.wait(Loss::Cut, 0), Some(Duration::ZERO));
        backoff.rest();
        assert_eq!(backoff.wait(Loss::Cut, 0), Some(Duration::ZERO));
    }

    #[test]
    fn what_the_relay_says_counts_within_bounds() {
        let closed = |number, retry_ms| Loss::Closed { number, retry_ms };
        for (loss, wanted) in [
            (closed(0x00, 5_000), None),
            (closed(0x04, 0), None),
            (closed(0x10, 0), None),
            (closed(0x21, 5_000), None),
            (closed(0x01, 5_000), Some(500)),
            (closed(0x30, 5_000), Some(500)),
            (closed(0x40, 0), Some(500)),
            (closed(0x40, 5_000), Some(5_000)),
            (closed(0x42, u32::MAX), Some(24 * 3_600_000)),
            (closed(0x7F, 5_000), Some(500)),
            (closed(0x99, 5_000), Some(500)),
            (Loss::Alert { retry_ms: 5_000 }, Some(5_000)),
            (Loss::Alert { retry_ms: u32::MAX }, Some(300_000)),
            (Loss::Alert { retry_ms: 0 }, Some(500)),
        ] {
            assert_eq!(waits(&[loss], 0), [wanted], "{loss:?}");
        }
    }

    #[test]
    fn jitter_stays_within_its_half() {
        let mut rng = Rng::seeded(7);
        let mut backoff = Backoff::NEW;
        let mut base = BACKOFF_FIRST;
        let mut spread = 0;
        for _ in 0..500 {
            let wait = backoff.wait(Loss::NotReached, rng.number()).expect("it comes back");
            assert!(wait <= base && wait.as_nanos() >= base.as_nanos() / 2, "{wait:?} of {base:?}");
            spread |= u64::from(wait.as_nanos() > base.as_nanos() / 4 * 3) + 1;
            base = base.times(2).min(BACKOFF_MAX);
            let mut fresh = Backoff::NEW;
            let told = fresh.wait(Loss::Alert { retry_ms: 4_000 }, rng.number());
            assert!(told.is_some_and(|told| (4_000..5_000).contains(&told.as_millis())));
        }
        assert_eq!(spread, 3, "all waits fall into one half");
    }
}
