//! Memory that the caller lends: tables of slots, and the byte pool cut into blocks and segments.
//!
//! Every slot is valid as all zeros and free lists begin as a high-water mark, so zeroed memory
//! that nobody used was never touched.

use bytemuck::Zeroable;

use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::time::Instant;

/// A run of bytes in the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub at: u32,
    /// How many.
    pub len: u32,
}

/// The byte memory: a slice on a device, in tests and under tokio; raw mapped memory where a
/// kernel reads it behind our back. A frontend must not write to ranges of a send in flight, and
/// the core never asks it to.
pub trait Pool {
    /// Bytes in the pool.
    fn size(&self) -> u64;

    /// The bytes of `range`, to be written.
    ///
    /// # Panics
    /// Where the range is not of the pool, which the core never asks for.
    fn write(&mut self, range: Range) -> &mut [u8];

    /// The bytes of `range`.
    ///
    /// # Panics
    /// Where the range is not of the pool, which the core never asks for.
    fn read(&self, range: Range) -> &[u8];
}

impl Pool for &mut [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn write(&mut self, range: Range) -> &mut [u8] {
        let at = range.at as usize;
        match self.get_mut(at..at.saturating_add(range.len as usize)) {
            Some(bytes) => bytes,
            None => invariant_failed("a write outside of the pool"),
        }
    }

    fn read(&self, range: Range) -> &[u8] {
        let at = range.at as usize;
        match self.get(at..at.saturating_add(range.len as usize)) {
            Some(bytes) => bytes,
            None => invariant_failed("a read outside of the pool"),
        }
    }
}

/// Copies as many bytes as both have; gives that number.
pub(crate) fn copy(to: &mut [u8], from: &[u8]) -> usize {
    let len = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
        to.copy_from_slice(from);
    }
    len
}

/// What a free list needs of a slot: where a free one keeps the next.
pub(crate) trait Slot: Zeroable + Copy {
    fn free_next(&mut self) -> &mut Ref;
}

/// A lent table with a free list. Slots at or above `fresh` were never used.
#[derive(Debug)]
pub(crate) struct Slab<'s, T> {
    slots: &'s mut [T],
    free: Ref,
    /// The last free one, of a table whose slots are given back by [`Slab::give_last`].
    last: Ref,
    fresh: u32,
    used: u32,
}

impl<'s, T: Slot> Slab<'s, T> {
    pub(crate) fn new(slots: &'s mut [T]) -> Self {
        Self { slots, free: Ref::NONE, last: Ref::NONE, fresh: 0, used: 0 }
    }

    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// Slots that were ever used: the ones worth walking.
    pub(crate) fn touched(&self) -> u32 {
        self.fresh
    }

    pub(crate) fn take(&mut self) -> Option<Ref> {
        let slot = match self.free.some() {
            Some(slot) => {
                self.free = *self.at_mut(slot).free_next();
                slot
            }
            None if self.fresh < self.capacity() => {
                let slot = Ref::of(self.fresh);
                self.fresh = self.fresh.saturating_add(1);
                slot
            }
            None => return None,
        };
        self.used = self.used.saturating_add(1);
        Some(slot)
    }

    /// Takes that slot, which is not in use, in a table where others say which are: none of it is
    /// ever given back in another way than by [`Slab::release`].
    #[cfg(feature = "native-sessions")]
    pub(crate) fn claim(&mut self, slot: Ref) {
        self.fresh = self.fresh.max(slot.index().saturating_add(1));
        self.used = self.used.saturating_add(1);
    }

    /// Gives up a slot that was claimed. The caller has wiped it.
    #[cfg(feature = "native-sessions")]
    pub(crate) fn release(&mut self) {
        self.used = self.used.saturating_sub(1);
    }

    /// Gives `slot` back. The caller has wiped it.
    pub(crate) fn give(&mut self, slot: Ref) {
        let next = core::mem::replace(&mut self.free, slot);
        *self.at_mut(slot).free_next() = next;
        match self.used.checked_sub(1) {
            Some(used) => self.used = used,
            None => invariant_failed("a slot was given back twice"),
        }
    }

    /// The same, for a table whose free slots are used oldest first: it gives none in another way.
    pub(crate) fn give_last(&mut self, slot: Ref) {
        let (free, last) = (self.free, self.last);
        self.free = Ref::NONE;
        self.give(slot);
        if free.is_some() {
            self.free = free;
            *self.at_mut(last).free_next() = slot;
        }
        self.last = slot;
    }

    pub(crate) fn at(&self, slot: Ref) -> &T {
        match self.slots.get(slot.index() as usize) {
            Some(item) => item,
            None => invariant_failed("no such slot"),
        }
    }

    pub(crate) fn at_mut(&mut self, slot: Ref) -> &mut T {
        match self.slots.get_mut(slot.index() as usize) {
            Some(item) => item,
            None => invariant_failed("no such slot"),
        }
    }

    /// The slot that a stranger named, if it was ever used.
    pub(crate) fn find(&self, slot: Ref) -> Option<&T> {
        if slot.is_none() { None } else { self.slots.get(slot.index() as usize) }
    }
}

/// A piece of pool memory in a chain: a log's, or a connection's own bytes.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Link {
    pub(crate) next: Ref,
    /// Bytes written, from the start.
    pub(crate) used: u32,
    /// Runs noted, from the end down; logs only.
    pub(crate) runs: u32,
    /// The cursors that stand in it and are behind; logs only.
    pub(crate) cursors: Ref,
    /// The log's position of its first byte.
    pub(crate) base: u64,
    /// Messages that ended before `base`; of a log of frames, the number of the first that begins
    /// in it, where one does.
    pub(crate) messages: u64,
    /// When it was last written to; logs of frames only.
    pub(crate) written_at: Instant,
    /// Where the first frame begins in it, plus one; 0: none does. Logs of frames only.
    pub(crate) first: u32,
}

/// What a piece of memory is taken for. Only the second is bounded to half of the blocks, so that
/// unfinished input can never starve output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Output,
    Input,
}

/// The pool and its links: link `i` is block `i`, or segment `i - blocks`.
#[derive(Debug)]
pub(crate) struct Memory<'s, P> {
    links: &'s mut [Link],
    pool: P,
    blocks: Class,
    segments: Class,
    input_blocks: u32,
    /// Counts every link that was given back, so that who waits for memory can see it.
    pub(crate) freed: u64,
}

/// Pieces of one size: links `first` to `first + count`.
#[derive(Debug)]
struct Class {
    first: u32,
    count: u32,
    bytes: u32,
    /// The pool's address of the first one.
    base: u32,
    free: Ref,
    fresh: u32,
    used: u32,
}

impl Class {
    const fn new(first: u32, count: u32, bytes: u32, base: u32) -> Self {
        Self { first, count, bytes, base, free: Ref::NONE, fresh: 0, used: 0 }
    }
}

impl<'s, P: Pool> Memory<'s, P> {
    /// The caller has checked that links and pool are as large as the limits say.
    pub(crate) fn new(
        links: &'s mut [Link],
        pool: P,
        (blocks, block_bytes): (u32, u32),
        (segments, segment_bytes): (u32, u32),
    ) -> Self {
        Self {
            links,
            pool,
            blocks: Class::new(0, blocks, block_bytes, 0),
            segments: Class::new(
                blocks,
                segments,
                segment_bytes,
                blocks.saturating_mul(block_bytes),
            ),
            input_blocks: 0,
            freed: 0,
        }
    }

    pub(crate) fn pool(&self) -> &P {
        &self.pool
    }

    pub(crate) fn at(&self, link: Ref) -> &Link {
        match self.links.get(link.index() as usize) {
            Some(item) => item,
            None => invariant_failed("no such link"),
        }
    }

    pub(crate) fn at_mut(&mut self, link: Ref) -> &mut Link {
        match self.links.get_mut(link.index() as usize) {
            Some(item) => item,
            None => invariant_failed("no such link"),
        }
    }

    fn is_block(&self, link: Ref) -> bool {
        link.index() < self.segments.first
    }

    /// Bytes that the link holds at most.
    pub(crate) fn capacity(&self, link: Ref) -> u32 {
        if self.is_block(link) { self.blocks.bytes } else { self.segments.bytes }
    }

    /// `len` bytes of the link from `offset` on.
    pub(crate) fn range(&self, link: Ref, offset: u32, len: u32) -> Range {
        let class = if self.is_block(link) { &self.blocks } else { &self.segments };
        let nth = link.index().saturating_sub(class.first);
        let start = class.base.saturating_add(nth.saturating_mul(class.bytes));
        if offset.saturating_add(len) > class.bytes {
            invariant_failed("a range over the end of its link");
        }
        Range { at: start.saturating_add(offset), len }
    }

    pub(crate) fn bytes(&self, link: Ref, offset: u32, len: u32) -> &[u8] {
        self.pool.read(self.range(link, offset, len))
    }

    pub(crate) fn bytes_mut(&mut self, link: Ref, offset: u32, len: u32) -> &mut [u8] {
        let range = self.range(link, offset, len);
        self.pool.write(range)
    }

    pub(crate) fn take_block(&mut self, purpose: Purpose) -> Option<Ref> {
        if purpose == Purpose::Input && self.input_blocks >= self.blocks.count / 2 {
            return None;
        }
        let link = Self::take(&mut self.blocks, self.links)?;
        if purpose == Purpose::Input {
            self.input_blocks = self.input_blocks.saturating_add(1);
        }
        Some(link)
    }

    pub(crate) fn take_segment(&mut self) -> Option<Ref> {
        Self::take(&mut self.segments, self.links)
    }

    fn take(class: &mut Class, links: &mut [Link]) -> Option<Ref> {
        let link = match class.free.some() {
            Some(link) => link,
            None if class.fresh < class.count => {
                let link = Ref::of(class.first.saturating_add(class.fresh));
                class.fresh = class.fresh.saturating_add(1);
                link
            }
            None => return None,
        };
        let Some(slot) = links.get_mut(link.index() as usize) else {
            invariant_failed("no such link");
        };
        if class.free == link {
            class.free = slot.next;
        }
        *slot = Link::zeroed();
        class.used = class.used.saturating_add(1);
        Some(link)
    }

    pub(crate) fn give(&mut self, link: Ref, purpose: Purpose) {
        if purpose == Purpose::Input {
            match self.input_blocks.checked_sub(1) {
                Some(left) => self.input_blocks = left,
                None => invariant_failed("an input block was given back twice"),
            }
        }
        let block = self.is_block(link);
        let class = if block { &mut self.blocks } else { &mut self.segments };
        let free = core::mem::replace(&mut class.free, link);
        match class.used.checked_sub(1) {
            Some(used) => class.used = used,
            None => invariant_failed("a link was given back twice"),
        }
        *self.at_mut(link) = Link { next: free, ..Link::zeroed() };
        self.freed = self.freed.wrapping_add(1);
    }

    pub(crate) fn blocks_used(&self) -> u32 {
        self.blocks.used
    }

    pub(crate) fn blocks_free(&self) -> u32 {
        self.blocks.count.saturating_sub(self.blocks.used)
    }

    pub(crate) fn segments_used(&self) -> u32 {
        self.segments.used
    }

    pub(crate) fn input_blocks(&self) -> u32 {
        self.input_blocks
    }

    /// Whether less than half of the segments is taken, so that one may be spent on speed.
    pub(crate) fn segments_plenty(&self) -> bool {
        self.segments.used < self.segments.count / 2
    }

    /// How full the fuller class is, in percent.
    pub(crate) fn fullness(&self) -> u32 {
        let percent = |class: &Class| {
            class.used.saturating_mul(100).checked_div(class.count.max(1)).unwrap_or(100)
        };
        let blocks = percent(&self.blocks);
        if self.segments.count == 0 { blocks } else { blocks.max(percent(&self.segments)) }
    }
}
