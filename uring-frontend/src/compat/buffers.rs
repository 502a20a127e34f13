//! What receives are written to.

/// Room of a receive that may wait for ever: an idle connection keeps so much.
pub(super) const SMALL_BYTES: usize = 512;

/// Large ones in all, waiting for input or not: those who speak much at a time get them. Who finds
/// none left reads in small pieces, which costs time and not memory.
pub(super) const LARGE_MAX: usize = 16;

/// Buffers for receives.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Room of a large one. What comes in together is sent on together, so that a burst that is
    /// read in pieces costs every reader a send for each.
    large_bytes: usize,
    /// Large ones that nobody uses. The one that came back last goes first: the processor's cache
    /// knows it.
    spare: Vec<Vec<u8>>,
    /// Large ones that there are.
    large: usize,
}

impl Buffers {
    /// None yet; large ones will have that room.
    pub(super) fn new(large_bytes: usize) -> Self {
        let large_bytes = large_bytes.max(SMALL_BYTES + 1);
        Self { large_bytes, spare: Vec::with_capacity(LARGE_MAX), large: 0 }
    }

    /// The buffer for a connection's next receive, after one into `last` that brought `len` bytes.
    pub(super) fn after(&mut self, last: Vec<u8>, len: usize) -> Vec<u8> {
        let is_large = self.is_large(&last);
        if is_large && len <= SMALL_BYTES {
            self.spare.push(last);
            return Vec::with_capacity(SMALL_BYTES);
        }
        if !is_large && len == last.capacity() {
            return self.large().unwrap_or(last);
        }
        last
    }

    /// Takes the buffer of a connection that is gone.
    pub(super) fn take_back(&mut self, buffer: Vec<u8>) {
        if self.is_large(&buffer) {
            self.spare.push(buffer);
        }
    }

    fn is_large(&self, buffer: &Vec<u8>) -> bool {
        buffer.capacity() >= self.large_bytes
    }

    fn large(&mut self) -> Option<Vec<u8>> {
        if let Some(spare) = self.spare.pop() {
            return Some(spare);
        }
        if self.large == LARGE_MAX {
            return None;
        }
        self.large += 1;
        Some(Vec::with_capacity(self.large_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fills_a_small_one_gets_a_large_one_while_there_are_any() {
        const LARGE_BYTES: usize = 4 << 10;
        let mut buffers = Buffers::new(LARGE_BYTES);
        let small = || Vec::with_capacity(SMALL_BYTES);
        assert_eq!(buffers.after(small(), SMALL_BYTES - 1).capacity(), SMALL_BYTES);
        let mut large: Vec<_> =
            (0..LARGE_MAX).map(|_| buffers.after(small(), SMALL_BYTES)).collect();
        assert!(large.iter().all(|buffer| buffer.capacity() == LARGE_BYTES));
        assert_eq!(buffers.after(small(), SMALL_BYTES).capacity(), SMALL_BYTES, "none is left");
        // Who needs it no more gives it back; who does keeps it.
        let last = large.pop().unwrap();
        let last = buffers.after(last, SMALL_BYTES + 1);
        assert_eq!(last.capacity(), LARGE_BYTES);
        assert_eq!(buffers.after(last, SMALL_BYTES).capacity(), SMALL_BYTES);
        let again = buffers.after(small(), SMALL_BYTES);
        assert_eq!(again.capacity(), LARGE_BYTES);
        buffers.take_back(again);
        buffers.take_back(small());
        assert_eq!(buffers.spare.len(), 1);
    }
}
