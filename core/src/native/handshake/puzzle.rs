//! The puzzle: work that a client does before a server under attack does any. PROTOCOL.md 2.2.3.

use super::message::PUZZLE_BITS_MAX;
use crate::native::bytes::{get, put};

/// A puzzle: which of 2^64 solutions makes a hash begin with zero bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Puzzle {
    /// Nonce, identity, solution, as they are hashed.
    text: [u8; 56],
    bits: u8,
}

/// What a bounded search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solve {
    /// This solves it.
    Found(u64),
    /// Not in this stretch; go on from here.
    More(u64),
}

impl Puzzle {
    /// The puzzle that a CHALLENGE with this nonce sets to this client.
    #[must_use]
    pub fn new(n_s: &[u8; 16], client_id: &[u8; 32], bits: u8) -> Self {
        let mut text = [0; 56];
        put(&mut text, 0, n_s);
        put(&mut text, 16, client_id);
        Self { text, bits }
    }

    /// How many zero bits it asks for.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether a client works on it at all.
    #[must_use]
    pub const fn is_reasonable(&self) -> bool {
        self.bits <= PUZZLE_BITS_MAX
    }

    /// Whether `solution` solves it: one hash.
    #[must_use]
    pub fn is_solved_by(&self, solution: u64) -> bool {
        if self.bits == 0 {
            return true;
        }
        let mut text = self.text;
        put(&mut text, 48, &solution.to_le_bytes());
        let hash = blake3::hash(&text);
        let first = u128::from_be_bytes(get(hash.as_bytes(), 0));
        let second = u128::from_be_bytes(get(hash.as_bytes(), 16));
        let zeros = match first.leading_zeros() {
            128 => second.leading_zeros().saturating_add(128),
            zeros => zeros,
        };
        zeros >= u32::from(self.bits)
    }

    /// Tries `tries` solutions from `from` on; about 10 million a second. The end of the numbers
    /// is followed by 0.
    #[must_use]
    pub fn solve(&self, from: u64, tries: u32) -> Solve {
        let mut solution = from;
        for _ in 0..tries {
            if self.is_solved_by(solution) {
                return Solve::Found(solution);
            }
            solution = solution.wrapping_add(1);
        }
        Solve::More(solution)
    }
}
