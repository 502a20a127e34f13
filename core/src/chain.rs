//! A chain of blocks: bytes that belong to one connection (unfinished input, control output).
//!
//! ```text
//!   first                              last
//!   +--------------+   +--------------+   +--------------+
//!   |xxxx|bytes....|-->|bytes.........|-->|bytes..|      |
//!   +--------------+   +--------------+   +--------------+
//!    skip                                      used
//! ```
//! Inequality: `skip <= first.used`, `len = sum(used) - skip`, and `len = 0` holds no block.

use bytemuck::Zeroable;

use crate::id::Ref;
use crate::storage::{Memory, Pool, Purpose, Range, copy};

/// No block was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoBlock;

#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct Chain {
    first: Ref,
    last: Ref,
    /// Bytes of the first block that are consumed.
    skip: u32,
    len: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self { first: Ref::NONE, last: Ref::NONE, skip: 0, len: 0 };

    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends all of `bytes`, or nothing.
    pub(crate) fn push<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        purpose: Purpose,
        bytes: &[u8],
    ) -> Result<(), NoBlock> {
        let before = *self;
        let used_before = if before.last.is_some() { memory.at(before.last).used } else { 0 };
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = match self.last.some() {
                Some(last) => memory.capacity(last).saturating_sub(memory.at(last).used),
                None => 0,
            };
            if room == 0 {
                if !self.grow(memory, purpose) {
                    self.undo(memory, purpose, before, used_before);
                    return Err(NoBlock);
                }
                continue;
            }
            let used = memory.at(self.last).used;
            let len = room.min(u32::try_from(rest.len()).unwrap_or(u32::MAX));
            copy(memory.bytes_mut(self.last, used, len), rest);
            memory.at_mut(self.last).used = used.saturating_add(len);
            self.len = self.len.saturating_add(len);
            rest = rest.get(len as usize..).unwrap_or_default();
        }
        Ok(())
    }

    fn grow<P: Pool>(&mut self, memory: &mut Memory<'_, P>, purpose: Purpose) -> bool {
        let Some(block) = memory.take_block(purpose) else { return false };
        match self.last.some() {
            Some(last) => memory.at_mut(last).next = block,
            None => {
                self.first = block;
                self.skip = 0;
            }
        }
        self.last = block;
        true
    }

    fn undo<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        purpose: Purpose,
        before: Self,
        used_before: u32,
    ) {
        let mut extra = if before.last.is_some() {
            let last = memory.at_mut(before.last);
            last.used = used_before;
            core::mem::take(&mut last.next)
        } else {
            self.first
        };
        while let Some(block) = extra.some() {
            extra = memory.at(block).next;
            memory.give(block, purpose);
        }
        *self = before;
    }

    /// Consumes `len` bytes from the front.
    pub(crate) fn pop<P: Pool>(&mut self, memory: &mut Memory<'_, P>, purpose: Purpose, len: u32) {
        let mut left = len.min(self.len);
        self.len = self.len.saturating_sub(left);
        while let Some(first) = self.first.some() {
            let link = *memory.at(first);
            let here = link.used.saturating_sub(self.skip);
            if left < here {
                self.skip = self.skip.saturating_add(left);
                break;
            }
            left = left.saturating_sub(here);
            self.first = link.next;
            self.skip = 0;
            memory.give(first, purpose);
        }
        if self.first.is_none() {
            *self = Self::EMPTY;
        }
    }

    /// What follows its first `len` bytes, to be looked at: nothing is given back.
    pub(crate) fn after<P: Pool>(mut self, memory: &Memory<'_, P>, len: u32) -> Self {
        let mut left = len.min(self.len);
        self.len = self.len.saturating_sub(left);
        if self.len == 0 {
            return Self::EMPTY;
        }
        while let Some(first) = self.first.some() {
            let link = memory.at(first);
            let here = link.used.saturating_sub(self.skip);
            if left < here {
                self.skip = self.skip.saturating_add(left);
                break;
            }
            left = left.saturating_sub(here);
            self.first = link.next;
            self.skip = 0;
        }
        self
    }

    pub(crate) fn clear<P: Pool>(&mut self, memory: &mut Memory<'_, P>, purpose: Purpose) {
        self.pop(memory, purpose, self.len);
    }

    /// Appends `other`, in constant time. Both are output.
    pub(crate) fn join<P: Pool>(&mut self, memory: &mut Memory<'_, P>, other: Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other;
            return;
        }
        // What `other` consumed of its first block would be counted again: hide it by moving the
        // bytes down, at most one block.
        if other.skip > 0 {
            let used = memory.at(other.first).used;
            let bytes = memory.bytes_mut(other.first, 0, used);
            let skip = (other.skip as usize).min(bytes.len());
            bytes.copy_within(skip.., 0);
            memory.at_mut(other.first).used = used.saturating_sub(other.skip);
        }
        memory.at_mut(self.last).next = other.first;
        self.last = other.last;
        self.len = self.len.saturating_add(other.len);
    }

    /// Copies the front of the chain to `to`; gives how many bytes.
    pub(crate) fn copy_to<P: Pool>(&self, memory: &Memory<'_, P>, to: &mut [u8]) -> usize {
        let mut done = 0_usize;
        for range in self.ranges(memory) {
            let Some(room) = to.get_mut(done..) else { break };
            if room.is_empty() {
                break;
            }
            done = done.saturating_add(copy(room, memory.pool().read(range)));
        }
        done
    }

    /// The bytes, piece by piece.
    pub(crate) fn ranges<'m, P: Pool>(
        &self,
        memory: &'m Memory<'_, P>,
    ) -> impl Iterator<Item = Range> + use<'m, P> {
        let mut next = self.first;
        let mut skip = self.skip;
        core::iter::from_fn(move || {
            let block = next.some()?;
            let link = memory.at(block);
            let range = memory.range(block, skip, link.used.saturating_sub(skip));
            next = link.next;
            skip = 0;
            Some(range)
        })
    }

    /// Where `byte` stands first.
    pub(crate) fn find<P: Pool>(&self, memory: &Memory<'_, P>, byte: u8) -> Option<u32> {
        let mut before = 0_u32;
        for range in self.ranges(memory) {
            if let Some(at) = memchr::memchr(byte, memory.pool().read(range)) {
                return Some(before.saturating_add(u32::try_from(at).unwrap_or(u32::MAX)));
            }
            before = before.saturating_add(range.len);
        }
        None
    }

    /// Its last byte.
    pub(crate) fn last_byte<P: Pool>(&self, memory: &Memory<'_, P>) -> Option<u8> {
        let last = self.last.some()?;
        let used = memory.at(last).used;
        memory.bytes(last, used.saturating_sub(1), used.min(1)).first().copied()
    }

    /// The blocks that it holds; for checks.
    pub(crate) fn blocks<P: Pool>(&self, memory: &Memory<'_, P>) -> u32 {
        self.ranges(memory).fold(0, |count, _| u32::saturating_add(count, 1))
    }
}
