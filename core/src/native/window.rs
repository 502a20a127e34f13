//! Numbers that were seen before: a sliding window in the form of RFC 6479. PROTOCOL.md 2.4.4,
//! 2.6.3.
//!
//! ```text
//!   words, a ring       [ .... | ##.# | #### | .... ]     one word more than the window needs, so
//!                                 ^ highest / 64          that moving on clears whole words
//!   window                    (highest - SIZE, highest]
//! ```

use bytemuck::Zeroable;

/// The window of message ids and of envelopes' counters: 1,024 numbers.
pub type Window1024 = Window<17>;

/// Bits of a word.
const WORD: u64 = 64;

/// What a window says of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Not marked, and not too old to know.
    New,
    /// Marked before.
    Seen,
    /// Too old to know, or 0, which is no number.
    Below,
}

/// The last `(WORDS - 1) * 64` numbers below and at the highest that was marked. Numbers begin at
/// 1. All zeros is a window in which nothing is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
pub struct Window<const WORDS: usize> {
    words: [u64; WORDS],
    highest: u64,
}

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self::NEW
    }
}

impl<const WORDS: usize> Window<WORDS> {
    /// Numbers that it spans.
    pub const SIZE: u64 = {
        assert!(WORDS >= 2, "a window needs a word to move into");
        (WORDS as u64).saturating_sub(1).saturating_mul(WORD)
    };
    /// Nothing is marked.
    pub const NEW: Self = Self { words: [0; WORDS], highest: 0 };

    /// The highest number that was marked; 0: none.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `number` may be taken. Changes nothing: see [`Window::mark`].
    #[must_use]
    pub fn check(&self, number: u64) -> Sight {
        if number == 0 {
            return Sight::Below;
        }
        match self.highest.checked_sub(number) {
            None => Sight::New,
            Some(age) if age >= Self::SIZE => Sight::Below,
            Some(_) if self.is_marked(number) => Sight::Seen,
            Some(_) => Sight::New,
        }
    }

    /// Notes that `number` was taken; only once it was. One that is [`Sight::Below`] is not noted.
    pub fn mark(&mut self, number: u64) {
        if self.check(number) != Sight::New {
            return;
        }
        let (from, to) = (self.highest / WORD, number / WORD);
        // More steps than there are words would only clear them again.
        for step in 1..=to.saturating_sub(from).min(WORDS as u64) {
            if let Some(word) = self.words.get_mut(Self::place(from.saturating_add(step))) {
                *word = 0;
            }
        }
        self.highest = self.highest.max(number);
        if let Some(word) = self.words.get_mut(Self::place(to)) {
            *word |= bit(number);
        }
    }

    /// Takes a mark back: what was taken turned out to go nowhere. What is [`Sight::Below`] stays.
    pub fn unmark(&mut self, number: u64) {
        if self.check(number) == Sight::Seen
            && let Some(word) = self.words.get_mut(Self::place(number / WORD))
        {
            *word &= !bit(number);
        }
    }

    /// The highest number that is marked still; 0: none of those that the window spans.
    #[must_use]
    pub fn last(&self) -> u64 {
        let oldest = self.highest.saturating_sub(Self::SIZE.saturating_sub(1));
        let mut numbers = (oldest..=self.highest).rev();
        numbers.find(|number| self.check(*number) == Sight::Seen).unwrap_or(0)
    }

    /// The window as `Taken` shows it: bit `i` of byte `j` is the number `last - 8j - i`.
    /// PROTOCOL.md 2.5.3.
    #[must_use]
    pub fn seen(&self) -> [u8; 128] {
        let mut seen = [0_u8; 128];
        let mut number = self.last();
        for byte in &mut seen {
            for i in 0..8 {
                if self.check(number) == Sight::Seen {
                    *byte |= 1 << i;
                }
                number = number.saturating_sub(1);
            }
        }
        seen
    }

    fn is_marked(&self, number: u64) -> bool {
        self.words.get(Self::place(number / WORD)).is_some_and(|word| word & bit(number) != 0)
    }

    /// Which word of the ring holds the numbers `64 * nth ..`.
    fn place(nth: u64) -> usize {
        usize::try_from(nth.checked_rem(WORDS as u64).unwrap_or(0)).unwrap_or(0)
    }
}

const fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::super::testing::Rng;
    use super::*;

    /// The naive set.
    #[derive(Default)]
    struct Model {
        marked: BTreeSet<u64>,
    }

    impl Model {
        fn check(&self, number: u64, size: u64) -> Sight {
            let highest = self.marked.last().copied().unwrap_or(0);
            if number == 0 || (number <= highest && highest - number >= size) {
                Sight::Below
            } else if self.marked.contains(&number) {
                Sight::Seen
            } else {
                Sight::New
            }
        }
    }

    fn against_the_set<const WORDS: usize>(seed: u64) {
        let mut rng = Rng::seeded(seed);
        let size = Window::<WORDS>::SIZE;
        let mut window = Window::<WORDS>::NEW;
        let mut model = Model::default();
        let starts = [0, 1, 63, 64, (1 << 62) - 7, (1 << 63) - 700, u64::MAX - 20_000];
        let start = starts[rng.below(starts.len() as u64) as usize];
        for _ in 0..2_000 {
            let near = window.highest().max(start);
            let number = match rng.below(8) {
                0 => near.saturating_sub(rng.below(2 * size)),
                1 => near.saturating_add(rng.below(3 * size)),
                2 => near.saturating_sub(size).saturating_add(rng.below(3)),
                3 => near / 64 * 64,
                4 => (near | 63).saturating_add(1),
                _ => near.saturating_sub(20).saturating_add(rng.below(40)),
            };
            let said = window.check(number);
            assert_eq!(said, model.check(number, size), "{number} at {near}");
            if rng.below(3) > 0 {
                window.mark(number);
                if said == Sight::New {
                    model.marked.insert(number);
                }
            }
            assert_eq!(window.highest(), model.marked.last().copied().unwrap_or(0));
        }
        for back in 0..size + 70 {
            let number = window.highest().saturating_sub(back);
            assert_eq!(window.check(number), model.check(number, size), "{number}");
        }
        let seen = window.seen();
        for back in 0..1_024.min(size) {
            let bit = seen[(back / 8) as usize] >> (back % 8) & 1 == 1;
            let number = window.highest().saturating_sub(back);
            assert_eq!(bit, model.marked.contains(&number), "{number}");
        }
    }

    #[test]
    fn it_says_what_a_set_says() {
        for seed in 0..60 {
            against_the_set::<2>(seed);
            against_the_set::<3>(seed);
            against_the_set::<17>(seed);
        }
    }

    #[test]
    fn a_thousand_and_twenty_four() {
        assert_eq!(Window1024::SIZE, 1_024);
        let mut window = Window1024::NEW;
        assert_eq!(window.check(0), Sight::Below);
        window.mark(0);
        assert_eq!(window, Window1024::NEW);
        window.mark(5_000);
        assert_eq!(window.check(5_000), Sight::Seen);
        assert_eq!(window.check(5_000 - 1_023), Sight::New);
        assert_eq!(window.check(5_000 - 1_024), Sight::Below);
    }

    #[test]
    fn a_mark_that_is_taken_back_leaves_the_window_where_it_is() {
        let mut window = Window1024::NEW;
        for number in [10, 4_000, 4_001, 5_000] {
            window.mark(number);
        }
        window.unmark(5_000);
        assert_eq!((window.check(5_000), window.last()), (Sight::New, 4_001));
        assert_eq!((window.seen()[0], window.highest()), (0b11, 5_000));
        // What is too old to know stays so: it may have been taken.
        window.unmark(10);
        assert_eq!(window.check(10), Sight::Below);
        assert_eq!(window.check(5_000 - 1_024), Sight::Below);
        window.mark(5_000);
        assert_eq!((window.check(5_000), window.last()), (Sight::Seen, 5_000));
        for number in [4_000, 4_001, 5_000] {
            window.unmark(number);
        }
        assert_eq!((window.last(), window.seen()), (0, [0; 128]));
    }

    #[test]
    fn the_ends_of_the_numbers() {
        for top in [(1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX] {
            let mut window = Window1024::NEW;
            window.mark(1);
            window.mark(top);
            assert_eq!(window.check(top), Sight::Seen);
            assert_eq!(window.check(top - 1), Sight::New);
            assert_eq!(window.check(1), Sight::Below);
            assert_eq!(window.check(u64::MAX) == Sight::New, top != u64::MAX);
            window.mark(top - 1_023);
            assert_eq!(window.check(top - 1_023), Sight::Seen);
            assert_eq!(window.seen()[127], 0x80);
        }
    }
}
