//! Where chance comes from: a seed, or the bytes of a fuzzer. Both replay bit for bit anywhere.

/// A source of choices.
#[derive(Clone, Debug)]
pub(crate) struct Rng<'b> {
    state: u64,
    bytes: Option<&'b [u8]>,
}

impl Rng<'static> {
    /// Choices that follow from `seed` (SplitMix64).
    #[must_use]
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self { state: seed, bytes: None }
    }
}

impl<'b> Rng<'b> {
    /// Choices that `bytes` spell out, one or a few bytes each; zeros once they are spent.
    #[must_use]
    pub(crate) const fn spelled(bytes: &'b [u8]) -> Self {
        Self { state: 0, bytes: Some(bytes) }
    }

    /// Whether there are no choices left to spell.
    #[must_use]
    pub(crate) fn is_spent(&self) -> bool {
        self.bytes.is_some_and(<[u8]>::is_empty)
    }

    fn mixed(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        if limit <= 1 {
            return 0;
        }
        let Some(bytes) = self.bytes else {
            let wide = u128::from(self.mixed()) * u128::from(limit);
            return (wide >> 64) as u64;
        };
        let mut number = 0_u64;
        let mut reach = 1_u64;
        let mut rest = bytes;
        while reach < limit {
            let (byte, after) = rest.split_first().unwrap_or((&0, &[]));
            number = (number << 8) | u64::from(*byte);
            rest = after;
            reach = reach.saturating_mul(256);
        }
        self.bytes = Some(rest);
        number % limit
    }

    /// The same, for lengths.
    pub(crate) fn up_to(&mut self, most: usize) -> usize {
        self.below(most as u64 + 1) as usize
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.below(100) < u64::from(percent)
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    /// One of them.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// An index, chosen by weight.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut drawn = self.below(all);
        for (index, weight) in weights.iter().enumerate() {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(left) => drawn = left,
                None => return index,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_seed_gives_the_same_numbers_on_every_machine() {
        let mut rng = Rng::seeded(1);
        let drawn: [u64; 4] = core::array::from_fn(|_| rng.below(1_000_000));
        assert_eq!(drawn, [566_561, 745_781, 971_002, 444_359]);
    }

    #[test]
    fn bytes_are_spent_and_then_everything_is_zero() {
        let mut rng = Rng::spelled(&[7, 1, 0]);
        assert_eq!((rng.below(10), rng.below(300), rng.is_spent()), (7, 256, true));
        assert_eq!((rng.below(10), rng.percent(1), rng.one_in(5)), (0, true, true));
    }
}
