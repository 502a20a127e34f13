//! Choices, as the bytes spell them out.

use wardline_core::native::digest;

pub struct Spell<'b> {
    rest: &'b [u8],
    /// Follows from all of the bytes: with fixed keys a fuzzer finds out a tag byte by byte.
    entropy: [u8; 32],
}

impl<'b> Spell<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes, entropy: digest(bytes) }
    }

    pub const fn entropy(&self) -> [u8; 32] {
        self.entropy
    }

    pub const fn is_spent(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// Less than `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut drawn = u64::from(self.byte());
        if end > 256 {
            drawn |= u64::from(self.byte()) << 8;
        }
        drawn % end
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 1
    }

    /// All of so many bytes, most often; else a part.
    pub fn part(&mut self, len: usize) -> usize {
        if self.one_in(3) { self.below(len as u64 + 1) as usize } else { len }
    }

    pub fn bytes(&mut self, most: u64) -> Vec<u8> {
        let many = self.below(most + 1);
        (0..many).map(|_| self.byte()).collect()
    }

    /// Rarely, somebody on the path changes a byte. True: it was changed.
    pub fn meddle(&mut self, bytes: &mut [u8]) -> bool {
        if bytes.is_empty() || !self.one_in(12) {
            return false;
        }
        let at = self.below(bytes.len() as u64) as usize;
        let change = self.byte() | 1;
        bytes[at] ^= change;
        true
    }
}
