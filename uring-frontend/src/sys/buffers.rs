//! Memory that the kernel receives into: a ring of buffers that it takes from and we give back to.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use rustix::param::page_size;

/// A group of buffers of one size.
///
/// ```text
///  entries: | .. taken .. | supplied by us, in the order in which the kernel takes them | .. |
///                         ^ the kernel's head                                           ^ tail
/// ```
/// # Aliasing
/// A buffer is the kernel's from [`Buffers::give`] until a completion names it, and ours from then
/// until it is given back; `ours` says which, and is asked before a reference is made. No
/// reference to more than one buffer's received bytes ever exists. The entries are written by us
/// alone; the kernel reads them up to the tail, which is stored last.
#[derive(Debug)]
pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// A power of two.
    count: u16,
    size: u32,
    group: u16,
    /// Buffers are named by numbers from here on.
    first: u16,
    tail: u16,
    /// Which are not the kernel's now.
    ours: Box<[bool]>,
}

impl Buffers {
    /// `count` buffers, a power of two, of `size` bytes each; none of them is the kernel's yet.
    pub(crate) fn new(group: u16, first: u16, count: u16, size: u32) -> Self {
        assert!(count.is_power_of_two() && size > 0, "a ring of buffers that cannot be");
        let entries = allocate(entries_layout(count)).cast();
        let memory = allocate(memory_layout(count, size));
        let ours = vec![true; usize::from(count)].into();
        Self { entries, memory, count, size, group, first, tail: 0, ours }
    }

    /// The group's number.
    pub(crate) const fn group(&self) -> u16 {
        self.group
    }

    /// How many buffers.
    pub(crate) const fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of each.
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// Where the ring begins, for its registration: valid while `self` is not dropped.
    pub(crate) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Whether a buffer is one of these.
    pub(crate) const fn holds(&self, buffer: u16) -> bool {
        buffer >= self.first && buffer - self.first < self.count
    }

    /// Gives all to the kernel; once, at the start.
    pub(crate) fn give_all(&mut self) {
        for buffer in self.first..self.first + self.count {
            self.give(buffer);
        }
    }

    /// Has `with` look at the `len` bytes that were received into a buffer, which a completion has
    /// named, and gives it back.
    pub(crate) fn receive<R>(
        &mut self,
        buffer: u16,
        len: usize,
        with: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let index = self.index(buffer);
        let was_ours = std::mem::replace(&mut self.ours[index], true);
        assert!(!was_ours, "a buffer that the kernel did not have");
        assert!(len <= self.size as usize, "more than a buffer holds");
        let begin = index * self.size as usize;
        // SAFETY: the buffer is of the memory, which is initialised; a completion named it, so the
        // kernel is done with it, and it is ours until it is given back below.
        let bytes = unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(begin), len) };
        let result = with(bytes);
        self.give(buffer);
        result
    }

    fn index(&self, buffer: u16) -> usize {
        assert!(self.holds(buffer), "a buffer of another group");
        usize::from(buffer - self.first)
    }

    fn give(&mut self, buffer: u16) {
        let index = self.index(buffer);
        let was_ours = std::mem::replace(&mut self.ours[index], false);
        assert!(was_ours, "a buffer given twice");
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: the place is of the ring and the address of the memory. The kernel does not read
        // this entry before the tail is stored: it holds at most `count - 1` others, for this
        // buffer was not in the ring. The tail, which lies in a field of entry 0 that no setter
        // writes, is written by nobody else.
        unsafe {
            let begin = self.memory.as_ptr().add(index * self.size as usize);
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(begin as u64);
            entry.set_len(self.size);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    /// Only once the kernel cannot write to them any more: see the ring's own drop.
    fn drop(&mut self) {
        // SAFETY: both were allocated by `new` with these layouts.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.size));
        }
    }
}

/// The kernel wants the ring to begin at a page, whose size is not the same on all machines.
fn entries_layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, page_size()).expect("some pages")
}

fn memory_layout(count: u16, size: u32) -> Layout {
    let bytes = usize::from(count) * size as usize;
    Layout::from_size_align(bytes, page_size()).expect("some pages")
}

/// Zeroed memory, which costs nothing before it is used.
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here is of size 0.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel sees.
    struct Taker {
        head: u16,
    }

    impl Taker {
        fn supplied(&self, buffers: &Buffers) -> u16 {
            // SAFETY: the ring is alive, and nobody writes meanwhile.
            let tail = unsafe { *BufRingEntry::tail(buffers.entries.as_ptr()) };
            tail.wrapping_sub(self.head)
        }

        /// Takes the next buffer, and writes `bytes` to it.
        fn take(&mut self, buffers: &Buffers, bytes: &[u8]) -> u16 {
            assert!(self.supplied(buffers) > 0, "no buffer");
            let place = usize::from(self.head & (buffers.count - 1));
            self.head = self.head.wrapping_add(1);
            // SAFETY: as the kernel does it: the entry is supplied, its buffer not referred to.
            unsafe {
                let entry = &*buffers.entries.as_ptr().add(place);
                assert!(bytes.len() <= entry.len() as usize);
                let begin = entry.addr() as *mut u8;
                begin.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                entry.bid()
            }
        }
    }

    #[test]
    fn buffers_go_round_more_often_than_the_tail_can_count() {
        let mut buffers = Buffers::new(0, 100, 8, 16);
        let mut kernel = Taker { head: 0 };
        assert_eq!(kernel.supplied(&buffers), 0);
        buffers.give_all();
        assert_eq!(kernel.supplied(&buffers), 8);
        let mut out = std::collections::VecDeque::new();
        for round in 0..200_000_u32 {
            let bytes = round.to_ne_bytes();
            out.push_back((kernel.take(&buffers, &bytes), bytes));
            // Given back in another order than they were taken, and late.
            if out.len() > (round % 7) as usize {
                let back = if round % 2 == 0 { out.pop_front() } else { out.pop_back() };
                let (buffer, bytes) = back.expect("one is out");
                assert!((100..108).contains(&buffer));
                buffers.receive(buffer, bytes.len(), |received| assert_eq!(received, bytes));
            }
            assert_eq!(usize::from(kernel.supplied(&buffers)) + out.len(), 8);
        }
        let mut left: Vec<u16> = (0..8 - out.len()).map(|_| kernel.take(&buffers, b"")).collect();
        left.extend(out.iter().map(|(buffer, _)| *buffer));
        left.sort_unstable();
        assert_eq!(left, (100..108).collect::<Vec<u16>>(), "each buffer is there once");
    }

    #[test]
    fn a_ring_begins_at_a_page_however_large_that_is() {
        assert_eq!(entries_layout(8).align(), page_size());
        let rings = [2, 8, 256].map(|count| Buffers::new(0, 0, count, 16));
        assert!(rings.iter().all(|ring| ring.address().is_multiple_of(page_size() as u64)));
    }

    #[test]
    #[should_panic(expected = "did not have")]
    fn a_buffer_comes_back_once() {
        let mut buffers = Buffers::new(0, 0, 2, 16);
        buffers.give_all();
        let buffer = Taker { head: 0 }.take(&buffers, b"x");
        let mut inner = Buffers::new(1, 0, 2, 16);
        // Not given to the kernel yet, so none of it can come back.
        inner.receive(buffer, 1, |_| ());
    }

    #[test]
    #[should_panic(expected = "given twice")]
    fn a_buffer_is_given_once() {
        let mut buffers = Buffers::new(0, 0, 2, 16);
        buffers.give_all();
        buffers.give(1);
    }

    #[test]
    #[should_panic(expected = "another group")]
    fn a_buffer_of_another_group_is_refused() {
        let mut buffers = Buffers::new(0, 4, 2, 16);
        buffers.receive(3, 0, |_| ());
    }

    #[test]
    #[should_panic(expected = "more than a buffer holds")]
    fn no_more_than_a_buffer_is_read() {
        let mut buffers = Buffers::new(0, 0, 2, 16);
        buffers.give_all();
        buffers.receive(0, 17, |_| ());
    }
}
