//! Epochs of the clients that this process starts. PROTOCOL.md 2.2.6.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use wardline_core::native::{Identity, next_epoch};

use super::connect::clock_ms;
use crate::builder::Plan;
use crate::error::ConnectError;

/// Named devices that are remembered: a process that starts more of them is a test of loads.
const DEVICES_MAX: usize = 1_024;

static EPOCHS: Mutex<Epochs> = Mutex::new(Epochs::NEW);

/// The epoch of a client that starts now: greater than that of any earlier start of its device.
pub(super) fn epoch_ms(plan: &Plan) -> Result<u64, ConnectError> {
    let (clock_ms, signs) = (clock_ms(), plan.policy.signs);
    let epoch_ms = if plan.has_own_device {
        let mut epochs = EPOCHS.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (plan.key.identity(), plan.device);
        epochs.next(own, |known| epoch_after(known.max(plan.last_epoch_ms), clock_ms, true, signs))
    } else {
        epoch_after(plan.last_epoch_ms, clock_ms, false, signs)
    };
    epoch_ms.ok_or(ConnectError::EpochAhead)
}

/// The last epoch of each device that the program named. One that was drawn is nobody else's.
struct Epochs {
    known: BTreeMap<(Identity, u32), u64>,
    /// The greatest of those that are not remembered: any device may be one of them.
    forgotten: u64,
}

impl Epochs {
    const NEW: Self = Self { known: BTreeMap::new(), forgotten: 0 };

    /// What `after` makes of the last epoch of a device, which is its last one from now on.
    fn next(
        &mut self,
        own: (Identity, u32),
        after: impl FnOnce(u64) -> Option<u64>,
    ) -> Option<u64> {
        let last = self.known.get(&own).copied().unwrap_or(self.forgotten);
        let epoch = after(last)?;
        self.known.insert(own, epoch);
        if self.known.len() > DEVICES_MAX
            && let Some((least, epoch)) = self.known.iter().min_by_key(|(_, epoch)| **epoch)
        {
            self.forgotten = self.forgotten.max(*epoch);
            let least = *least;
            self.known.remove(&least);
        }
        Some(epoch)
    }
}

/// The epoch after that one. None: receivers would refuse what is signed in it.
const fn epoch_after(last_ms: u64, clock_ms: u64, own_device: bool, signs: bool) -> Option<u64> {
    match next_epoch(last_ms, clock_ms) {
        Some(epoch_ms) => Some(epoch_ms),
        // Nobody remembers a device that was drawn just now.
        None if !own_device => Some(clock_ms),
        None if signs => None,
        None => Some(last_ms.saturating_add(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_goes_on_wherever_the_clock_goes() {
        const CLOCK: u64 = 10_000_000;
        const APART: u64 = 300_000;
        // The last one; the next, of a device of one's own that signs, that does not, and of one
        // that was drawn.
        for (last, signs, plain, drawn) in [
            (0, Some(CLOCK), CLOCK, CLOCK),
            (CLOCK - 1, Some(CLOCK), CLOCK, CLOCK),
            (CLOCK, Some(CLOCK + 1), CLOCK + 1, CLOCK + 1),
            (CLOCK + APART - 1, Some(CLOCK + APART), CLOCK + APART, CLOCK + APART),
            (CLOCK + APART, None, CLOCK + APART + 1, CLOCK),
            (u64::MAX, None, u64::MAX, CLOCK),
        ] {
            assert_eq!(epoch_after(last, CLOCK, true, true), signs, "{last}");
            assert_eq!(epoch_after(last, CLOCK, true, false), Some(plain), "{last}");
            assert_eq!(epoch_after(last, CLOCK, false, true), Some(drawn), "{last}");
        }
    }

    #[test]
    fn each_device_has_epochs_of_its_own_and_none_goes_back() {
        let key = |seed: u8| wardline_core::native::SigningKey::from_seed(&[seed; 32]).identity();
        let mut epochs = Epochs::NEW;
        let mut start =
            |own, clock: u64| epochs.next(own, |last| Some(clock.max(last + 1))).unwrap();
        assert_eq!([start((key(1), 7), 100), start((key(1), 7), 50)], [100, 101]);
        // Neither another device nor another identity goes ahead with it.
        assert_eq!([start((key(1), 8), 50), start((key(2), 7), 60)], [50, 60]);
        // Of more than are remembered the least is forgotten; and whoever is not known may be it.
        for device in 0..DEVICES_MAX as u32 {
            start((key(3), device), 1_000 + u64::from(device));
        }
        assert!(start((key(1), 7), 10) > 101);
        assert!(start((key(1), 8), 10) > 50 && start((key(2), 7), 10) > 60);
        assert!(epochs.known.len() <= DEVICES_MAX);
    }

    #[test]
    fn what_is_refused_is_not_noted() {
        let own = (wardline_core::native::SigningKey::from_seed(&[1; 32]).identity(), 7);
        let mut epochs = Epochs::NEW;
        assert_eq!(epochs.next(own, |_| Some(9)), Some(9));
        assert_eq!(epochs.next(own, |_| None), None);
        assert_eq!(epochs.next(own, |last| Some(last + 1)), Some(10));
    }
}
