//! What can only be known by trying it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;

use io_uring::{IoUring, opcode};

/// Entries of the ring of buffers that is tried.
const ENTRIES: u16 = 2;

/// Submits nothing and waits for its end: whether the kernel lets this process use a ring that it
/// has given it.
pub(crate) fn enter(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: the entry points to nothing.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let ended = ring.completion().next().is_some();
    if ended { Ok(()) } else { Err(io::Error::other("a submission did not end")) }
}

/// Registers a ring of buffers, and takes it back.
pub(crate) fn buffer_ring(ring: &IoUring) -> io::Result<()> {
    let page = rustix::param::page_size();
    let Ok(layout) = Layout::from_size_align(page, page) else {
        return Err(io::ErrorKind::OutOfMemory.into());
    };
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    // SAFETY: the memory is page-aligned, large enough for the entries, and stays until it is
    // unregistered, or the ring never knew of it. No request names the group.
    let registered =
        unsafe { ring.submitter().register_buf_ring_with_flags(memory as u64, ENTRIES, 0, 0) };
    let released = match registered {
        Ok(()) => ring.submitter().unregister_buf_ring(0),
        Err(_) => Ok(()),
    };
    // What the kernel might still know is lost rather than used by others.
    if released.is_ok() {
        // SAFETY: allocated above with this layout, and nobody knows it any more.
        unsafe { dealloc(memory, layout) };
    }
    registered.and(released)
}
