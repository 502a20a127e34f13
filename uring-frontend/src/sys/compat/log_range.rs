//! Ranges of the pool as the kernel is to read them.

use std::ptr::null_mut;

use tokio_uring::buf::IoBuf;
use wardline_core::{GATHER_MAX, Gather, Range};

use crate::sys::RawPool;

/// Bytes of the pool that a send in flight names.
///
/// The kernel reads them behind our back, from the submission of the send to its end. What keeps
/// that sound:
/// - The core neither writes, moves nor frees the bytes of a gather before it was told that the
///   send of it has ended. It is told so only by the end of the operation that this is given to.
/// - The memory itself lives longer than the runtime: it is lent to `compat::serve` for the whole
///   call, and that drops the runtime before it returns. tokio-uring, when it is dropped, cancels
///   what is under way and waits for the end of all of it, also of operations whose futures were
///   dropped.
#[derive(Debug)]
pub(crate) struct LogRange {
    at: *const u8,
    len: usize,
}

impl LogRange {
    /// The range of that pool. Only for a send that the core has gathered it for.
    pub(crate) fn new(pool: &RawPool<'_>, range: Range) -> Self {
        Self { at: pool.address(range), len: range.len as usize }
    }
}

// SAFETY: the memory does not move with this value, stays as it is while a send names it, and
// outlives the runtime (see the type).
unsafe impl IoBuf for LogRange {
    fn stable_ptr(&self) -> *const u8 {
        self.at
    }

    fn bytes_init(&self) -> usize {
        self.len
    }

    fn bytes_total(&self) -> usize {
        self.len
    }
}

/// Several ranges in one send: the header and the list that the kernel reads when it takes the
/// submission. Behind an address that does not change when this is moved.
pub(crate) struct Message {
    parts: Vec<Parts>,
}

struct Parts {
    header: libc::msghdr,
    ranges: [libc::iovec; GATHER_MAX],
}

impl Message {
    /// One that names nothing yet.
    pub(crate) fn new() -> Self {
        // SAFETY: both are plain C structs of integers and pointers, of which zeros are values.
        let parts = unsafe { std::mem::zeroed() };
        Self { parts: vec![parts] }
    }

    /// Has it name all ranges of the gather; only for a send that the core has gathered it for.
    /// Gives the header's address, which is good for as long as this lives.
    pub(super) fn fill(&mut self, gather: &Gather, pool: &RawPool<'_>) -> *const libc::msghdr {
        let Some(parts) = self.parts.first_mut() else { return null_mut() };
        let mut count = 0;
        for (to, range) in parts.ranges.iter_mut().zip(gather.ranges()) {
            let range = LogRange::new(pool, *range);
            *to = libc::iovec {
                iov_base: range.stable_ptr().cast_mut().cast(),
                iov_len: range.bytes_init(),
            };
            count += 1;
        }
        let ranges = parts.ranges.as_mut_ptr();
        parts.header.msg_iov = ranges;
        // The type is the C library's.
        parts.header.msg_iovlen = count as _;
        &raw const parts.header
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message")
    }
}
