//! How a device keeps its epoch over power cuts. PROTOCOL.md 2.2.6.
//!
//! A device that keeps its number keeps its epoch, too, and begins a greater one at each start: ids
//! of messages and numbers of envelopes begin anew with it. With an epoch of before, what it says
//! would be refused, or taken for what it has said already. (What stores nothing takes a random
//! device number instead, and needs none of this.)
//!
//! So the epoch is stored **before** it stands in the first AUTH, and only once a start: what was
//! stored and never sent does no harm. Nothing else has to be: a session that power took is not had
//! back, and the relay's key and one's own never change.

use wardline_core::native::next_epoch;

use crate::{claim, passed};

/// Bytes of a page of flash: an epoch, and the same with all bits turned over.
pub const PAGE_BYTES: usize = 16;

/// Two pages that outlive the power. The epoch stands in one while the other is written.
pub trait Flash {
    /// What stands in a page, 0 or 1.
    fn read(&self, page: usize) -> [u8; PAGE_BYTES];
    /// Erases a page to ones and writes it, and returns once that would outlive a cut. False: it
    /// is not known what stands there.
    #[must_use]
    fn write(&mut self, page: usize, bytes: &[u8; PAGE_BYTES]) -> bool;
}

/// Why there is no epoch to begin with: nothing may be sent as that device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEpoch {
    /// It could not be stored.
    NotStored,
    /// The last one is not known, or so far ahead of the clock that it would not be believed: take
    /// another device number, and [`make`] its epoch.
    NewDevice,
}

/// Stores the first epoch of a new device number; before that number is.
pub fn make(flash: &mut impl Flash) -> Result<(), NoEpoch> {
    let stored = flash.write(0, &page(0)) && flash.write(1, &page(0));
    if stored { Ok(()) } else { Err(NoEpoch::NotStored) }
}

/// The epoch of this start: stored, so it may be sent. `clock_ms`: the wall clock; 0 where there
/// is none, and then there are 300,000 starts.
pub fn begin(flash: &mut impl Flash, clock_ms: u64) -> Result<u64, NoEpoch> {
    let [first, second] = [0, 1].map(|page| epoch_of(flash.read(page)));
    // Of two the greater is the last. Never over it: half written, there would be none.
    let (last, free) = match (first, second) {
        (Some(first), Some(second)) if first > second => (first, 1),
        (_, Some(second)) => (second, 0),
        (Some(first), None) => (first, 1),
        (None, None) => return Err(NoEpoch::NewDevice),
    };
    let epoch = next_epoch(last, clock_ms).ok_or(NoEpoch::NewDevice)?;
    if flash.write(free, &page(epoch)) { Ok(epoch) } else { Err(NoEpoch::NotStored) }
}

fn page(epoch: u64) -> [u8; PAGE_BYTES] {
    let both = u128::from(epoch) | u128::from(!epoch) << 64;
    both.to_le_bytes()
}

/// The epoch of a page that is whole.
fn epoch_of(bytes: [u8; PAGE_BYTES]) -> Option<u64> {
    let both = u128::from_le_bytes(bytes);
    let (epoch, turned) = (both as u64, (both >> 64) as u64);
    (epoch == !turned).then_some(epoch)
}

/// Flash whose power goes after so many bytes.
struct Cut {
    pages: [[u8; PAGE_BYTES]; 2],
    left: usize,
}

impl Flash for Cut {
    fn read(&self, page: usize) -> [u8; PAGE_BYTES] {
        self.pages.get(page).copied().unwrap_or_default()
    }

    fn write(&mut self, page: usize, bytes: &[u8; PAGE_BYTES]) -> bool {
        let Some(page) = self.pages.get_mut(page) else { return false };
        for source in [&[0xFF; PAGE_BYTES], bytes] {
            for (to, from) in page.iter_mut().zip(source) {
                let Some(left) = self.left.checked_sub(1) else { return false };
                (self.left, *to) = (left, *from);
            }
        }
        true
    }
}

/// Starts without end: power goes at each byte of a write, and clocks go back, or there is none.
pub fn it_never_goes_back() {
    let whole = 2 * PAGE_BYTES;
    let mut flash = Cut { pages: [[0xFF; PAGE_BYTES]; 2], left: 2 * whole };
    claim(begin(&mut flash, 9) == Err(NoEpoch::NewDevice), "an epoch out of nothing");
    claim(make(&mut flash).is_ok(), "the first epoch is not stored");
    let (mut sent, mut cuts) = (0, 0);
    for start in 0..40_000 {
        let power = start % (whole + 9);
        flash.left = power;
        let clock_ms = [0, 5_000, start as u64, 100_000].get(start % 4).copied().unwrap_or(0);
        match begin(&mut flash, clock_ms) {
            Ok(epoch) => {
                claim(power >= whole, "an epoch is sent that is not stored");
                claim(epoch > sent && epoch >= clock_ms, "an epoch goes back");
                sent = epoch;
            }
            Err(why) => {
                claim(why == NoEpoch::NotStored && power < whole, "an epoch is lost");
                cuts += 1;
            }
        }
    }
    claim(cuts > 20_000 && sent > 100_000, "nothing was tried");
    flash.left = whole;
    claim(begin(&mut flash, u64::MAX / 2).is_ok(), "a clock that is set is not taken");
    flash.left = whole;
    claim(begin(&mut flash, 1) == Err(NoEpoch::NewDevice), "a device is ahead of its clock");
    passed("a device's epoch never goes back, wherever power is cut");
}
