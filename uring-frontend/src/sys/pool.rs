//! The byte memory of a relay, as memory that a kernel reads behind our back.

use std::marker::PhantomData;
use std::ptr::NonNull;

use wardline_core::{Pool, Range};

/// A pool whose bytes the kernel may be reading while the relay writes others of them.
///
/// # Aliasing
/// No reference to the whole memory exists while this does: the slice that it was made from is
/// borrowed for as long, and only its address is kept. [`Pool::write`] makes a `&mut` over exactly
/// the range asked for; the core never asks for bytes that a send in flight names, nor frees or
/// moves them before that send is known to have ended. So what the kernel reads is behind no
/// `&mut`, and nobody writes it meanwhile. A `&` over the same bytes may exist: both only read.
#[derive(Debug)]
pub struct RawPool<'s> {
    base: NonNull<u8>,
    len: usize,
    lent: PhantomData<&'s mut [u8]>,
}

impl<'s> RawPool<'s> {
    /// The pool in that memory.
    #[must_use]
    pub fn new(memory: &'s mut [u8]) -> Self {
        let len = memory.len();
        Self { base: NonNull::from(memory).cast(), len, lent: PhantomData }
    }

    /// Where `range` begins, if all of it is of the pool.
    fn at(&self, range: Range) -> NonNull<u8> {
        let (at, len) = (range.at as usize, range.len as usize);
        assert!(at <= self.len && len <= self.len - at, "a range outside of the pool");
        // SAFETY: `at` is at most the length of the memory that `base` is the begin of.
        unsafe { self.base.add(at) }
    }

    /// The address of a range, for the kernel to read; the range must be of the pool.
    pub(crate) fn address(&self, range: Range) -> *const u8 {
        self.at(range).as_ptr()
    }
}

impl Pool for RawPool<'_> {
    fn size(&self) -> u64 {
        self.len as u64
    }

    fn write(&mut self, range: Range) -> &mut [u8] {
        let begin = self.at(range);
        // SAFETY: all of the range is of the memory (`at` checked it), which is initialised and
        // borrowed for 's. `&mut self` keeps other references from being made through this pool;
        // what the kernel reads at the same time are other bytes (see the type).
        unsafe { std::slice::from_raw_parts_mut(begin.as_ptr(), range.len as usize) }
    }

    fn read(&self, range: Range) -> &[u8] {
        let begin = self.at(range);
        // SAFETY: as in `write`; `&self` keeps `&mut` from being made meanwhile, and the kernel
        // never writes to the pool.
        unsafe { std::slice::from_raw_parts(begin.as_ptr(), range.len as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_written() {
        let mut memory = vec![0; 16];
        let mut pool = RawPool::new(&mut memory);
        pool.write(Range { at: 3, len: 4 }).copy_from_slice(b"abcd");
        assert_eq!(pool.read(Range { at: 4, len: 2 }), b"bc");
        assert_eq!(pool.read(Range { at: 16, len: 0 }), b"");
        assert_eq!(pool.size(), 16);
    }

    #[test]
    #[should_panic(expected = "outside of the pool")]
    fn a_range_outside_is_refused() {
        let mut memory = vec![0; 16];
        RawPool::new(&mut memory).read(Range { at: 10, len: u32::MAX });
    }
}
