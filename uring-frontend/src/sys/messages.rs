//! Headers of gathered sends: where the ranges of one send are, as the kernel wants it told.

use std::ptr::NonNull;

use wardline_core::{GATHER_MAX, Range};

use super::pool::RawPool;

/// A header and what it points to.
#[repr(C)]
struct Message {
    header: libc::msghdr,
    parts: [libc::iovec; GATHER_MAX],
}

/// Headers of the submissions that the kernel has not taken yet. It copies them when it takes a
/// submission (`IORING_FEAT_SUBMIT_STABLE`), so all are free once the queue is empty.
///
/// They are behind a raw pointer: the kernel reads them at a time that no borrow says.
#[derive(Debug)]
pub(crate) struct Messages {
    messages: NonNull<Message>,
    count: usize,
    used: usize,
}

impl Messages {
    /// Bytes of one.
    pub(crate) const EACH: u64 = size_of::<Message>() as u64;

    /// Room for so many.
    pub(crate) fn new(count: usize) -> Self {
        let mut room = std::mem::ManuallyDrop::new(Vec::<Message>::with_capacity(count));
        let messages = NonNull::new(room.as_mut_ptr()).unwrap_or(NonNull::dangling());
        // What `drop` gives back.
        let count = room.capacity();
        Self { messages, count, used: 0 }
    }

    /// A header that names those ranges of `pool`; it stays as it is until [`Messages::clear`].
    pub(crate) fn put(&mut self, pool: &RawPool<'_>, ranges: &[Range]) -> *const libc::msghdr {
        assert!(self.used < self.count, "more headers than submissions");
        assert!(ranges.len() <= GATHER_MAX, "more ranges than a send has");
        // SAFETY: inside of the allocation; nobody else has this place before it is cleared.
        let message = unsafe { self.messages.as_ptr().add(self.used) };
        self.used += 1;
        // SAFETY: the place is writable and aligned. A header and parts of all zeros are valid,
        // and both are written before anything is read.
        unsafe {
            message.write_bytes(0, 1);
            let parts = (&raw mut (*message).parts).cast::<libc::iovec>();
            for (at, range) in ranges.iter().enumerate() {
                let iov_base = pool.address(*range).cast_mut().cast();
                parts.add(at).write(libc::iovec { iov_base, iov_len: range.len as usize });
            }
            (*message).header.msg_iov = parts;
            (*message).header.msg_iovlen = ranges.len() as _;
            &raw const (*message).header
        }
    }

    /// Whether there is no room for another.
    pub(crate) const fn is_full(&self) -> bool {
        self.used == self.count
    }

    /// The kernel has taken every submission.
    pub(crate) const fn clear(&mut self) {
        self.used = 0;
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        // SAFETY: as it came from a vector's parts in `new`; a header owns nothing.
        drop(unsafe { Vec::from_raw_parts(self.messages.as_ptr(), 0, self.count) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_the_ranges() {
        let mut memory = b"0123456789".to_vec();
        let pool = RawPool::new(&mut memory);
        let mut messages = Messages::new(2);
        let ranges = [Range { at: 1, len: 2 }, Range { at: 7, len: 3 }];
        let first = messages.put(&pool, &ranges);
        let second = messages.put(&pool, &ranges[1..]);
        for (header, expected) in [(first, &["12", "789"][..]), (second, &["789"][..])] {
            // SAFETY: nobody writes to the headers, parts and bytes that were just named.
            let named: Vec<&[u8]> = unsafe {
                let header = &*header;
                (0..header.msg_iovlen)
                    .map(|at| &*header.msg_iov.add(at))
                    .map(|part| std::slice::from_raw_parts(part.iov_base.cast(), part.iov_len))
                    .collect()
            };
            assert_eq!(named, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
        }
        assert!(messages.is_full());
        messages.clear();
        assert!(!messages.is_full());
        assert_eq!(messages.put(&pool, &ranges), first, "the place is used again");
    }
}
