//! How fast a client sends: as fast as it was told that it may. PROTOCOL.md 2.4.4.

use crate::native::frame::FRAME_HEADER_BYTES;
use crate::native::handshake::Granted;
use crate::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};

/// What a frame is charged at least.
const CHARGE_MIN: u32 = 64;
/// How long to wait where there are no tokens: what comes together in that goes out together.
const REFILL: Duration = Duration::from_millis(10);

/// The tokens of a connection, full where it begins: half of what the relay has for it, so that
/// what was late on the way is not too much when it comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    messages: Bucket,
    bytes: Bucket,
    /// Messages' worth of what went out without asking: the next frames pay for it.
    owed: u32,
}

impl Pace {
    /// Takes the tokens of a frame of so many bytes.
    ///
    /// # Errors
    /// There are too few: when to ask again.
    pub fn take(&mut self, granted: &Granted, now: Instant, bytes: usize) -> Result<(), Instant> {
        let largest = granted.max_payload.saturating_add(FRAME_HEADER_BYTES as u32);
        let least = largest.max(CHARGE_MIN);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(CHARGE_MIN, least);
        let (msgs_per_s, bytes_per_s) = (granted.msgs_per_s, granted.bytes_per_s);
        // A bucket never holds more than its burst.
        let owed = self.owed.min(msgs_per_s.saturating_sub(1));
        let units = owed.saturating_add(1);
        let messages = after(self.messages, (msgs_per_s, msgs_per_s), now, units);
        let burst = least.max(bytes_per_s / 2);
        let bytes = after(self.bytes, (bytes_per_s, burst), now, bytes);
        let (Some(messages), Some(bytes)) = (messages, bytes) else {
            return Err(now.after(REFILL));
        };
        *self = Self { messages, bytes, owed: self.owed.saturating_sub(owed) };
        Ok(())
    }

    /// A record that is no frame went out: it costs what a small message does.
    pub fn owe(&mut self) {
        self.owed = self.owed.saturating_add(1);
    }
}

/// A bucket that fills at `rate` up to `burst`, after so many units, where it has so many. A rate
/// of 0 is none.
fn after(bucket: Bucket, (rate, burst): (u32, u32), now: Instant, units: u32) -> Option<Bucket> {
    if rate == 0 {
        return Some(bucket);
    }
    bucket.after(Rate { burst, ..Rate::per_second(rate) }, now, units)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing::pair::GRANTED;

    fn sent(granted: &Granted, seconds: u64, bytes: usize) -> u64 {
        let mut pace = Pace::default();
        let mut now = Instant::from_nanos(7_000_000_000);
        let end = now.after(Duration::from_secs(seconds));
        let mut count = 0;
        while now < end {
            match pace.take(granted, now, bytes) {
                Ok(()) => count += 1,
                Err(later) => {
                    assert_eq!(pace.take(granted, now, bytes), Err(later));
                    assert!(later > now && later <= now.after(Duration::from_millis(10)));
                    now = later;
                }
            }
        }
        count
    }

    #[test]
    fn a_second_at_once_and_then_as_told() {
        for (msgs_per_s, bytes_per_s, bytes, per_s, at_once) in [
            (1_000, 8 << 20, 100, 1_000, 1_000),
            (0, 1 << 20, 1 << 10, 1_024, 512),
            (5, 1 << 20, 10, 5, 5),
            (0, 6_400, 1, 100, 1_024),
            // One of any size goes out, however slow.
            (0, 1_000, 65_584, 0, 1),
        ] {
            let granted = Granted { msgs_per_s, bytes_per_s, ..GRANTED };
            let (came_to, wanted) = (sent(&granted, 10, bytes), at_once + 10 * per_s);
            assert!(came_to.abs_diff(wanted) <= 1 + per_s / 50, "{came_to} of {wanted}");
        }
    }

    #[test]
    fn what_is_no_frame_is_paid_for_by_the_next_ones() {
        let granted = Granted { msgs_per_s: 10, bytes_per_s: 0, ..GRANTED };
        let mut pace = Pace::default();
        let now = Instant::from_nanos(7_000_000_000);
        (0..13).for_each(|_| pace.owe());
        // All ten at once: nine of what is owed, and itself. Four are owed yet.
        assert_eq!(pace.take(&granted, now, 10), Ok(()));
        let at = |ms| now.after(Duration::from_millis(ms));
        assert!(pace.take(&granted, at(499), 10).is_err());
        assert_eq!(pace.take(&granted, at(500), 10), Ok(()));
        assert!(pace.take(&granted, at(590), 10).is_err());
        assert_eq!(pace.take(&granted, at(600), 10), Ok(()));
    }

    #[test]
    fn who_is_told_no_rate_has_none() {
        let granted = Granted { msgs_per_s: 0, bytes_per_s: 0, ..GRANTED };
        let mut pace = Pace::default();
        for _ in 0..100_000 {
            assert_eq!(pace.take(&granted, Instant::ZERO, 1 << 20), Ok(()));
        }
    }
}
