//! The log of a topic: a chain of links with the bytes that go out, written once.
//!
//! ```text
//!  oldest                                   newest
//!  +---------------------+   +---------------------+
//!  | messages ..... |runs|-->| messages ..|   |runs|
//!  +---------------------+   +---------------------+
//!  base                used          used ^
//! ```
//! Bytes grow up from the start of a link, the run table down from its end: 8 bytes for each (end,
//! author), one run per sender and stretch. Inequality, per link: `used + 8 * runs <= capacity`;
//! between links: `base + used = next.base`. A link is freed when no cursor stands in or before it.

use bytemuck::Zeroable;

use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::storage::{Memory, Pool, Purpose, copy};

/// Bytes of a run table's entry.
const RUN: u32 = 8;

/// What a log holds in one stretch that makes it busy: two blocks of the default size, where a
/// gather begins to cost more than one contiguous piece.
const BUSY: u32 = 4096;

/// The pool has no room for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct Log {
    pub(crate) oldest: Ref,
    pub(crate) newest: Ref,
    /// The position after the last byte.
    pub(crate) head: u64,
    /// Messages ever appended; the number of the next one.
    pub(crate) messages: u64,
    /// Links that it holds.
    pub(crate) links: u32,
    /// Who wrote the last run of the newest link; none where that has no run yet.
    author: Ref,
    /// Bytes appended since it was last empty, and how many those were the time before.
    stretch: u32,
    stretch_before: u32,
}

impl Log {
    pub(crate) const fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }

    /// Begins an append of exactly `len` bytes by `author`: all the links that it needs are there
    /// afterwards, or nothing has changed.
    pub(crate) fn reserve<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        quiet_log_bytes: u32,
        author: Ref,
        len: u32,
    ) -> Result<(), NoRoom> {
        let mut room = self.room(memory, author);
        if len <= room {
            return Ok(());
        }
        let (last, freed) = (self.newest, memory.freed);
        let mut first_extra = Ref::NONE;
        let mut end = last;
        while room < len {
            let Some(link) = self.take_link(memory, quiet_log_bytes, room) else {
                Self::give_all(memory, first_extra);
                // Only what was taken here came free: nothing that anybody has waited for.
                memory.freed = freed;
                if last.is_some() {
                    memory.at_mut(last).next = Ref::NONE;
                }
                return Err(NoRoom);
            };
            if end.is_some() {
                memory.at_mut(end).next = link;
            }
            if first_extra.is_none() {
                first_extra = link;
            }
            end = link;
            room = room.saturating_add(memory.capacity(link).saturating_sub(RUN));
        }
        if self.newest.is_none() {
            // The first link of all is the newest at once; the others follow as they fill.
            self.oldest = first_extra;
            self.newest = first_extra;
            self.open(memory, first_extra);
        }
        Ok(())
    }

    /// Whether `author` can append so much without another link.
    pub(crate) fn has_room<P: Pool>(&self, memory: &Memory<'_, P>, author: Ref, len: u32) -> bool {
        len <= self.room(memory, author)
    }

    /// Bytes that `author` can write to the newest link.
    fn room<P: Pool>(&self, memory: &Memory<'_, P>, author: Ref) -> u32 {
        let Some(newest) = self.newest.some() else { return 0 };
        let link = memory.at(newest);
        let runs = if self.author == author { link.runs } else { link.runs.saturating_add(1) };
        let taken = link.used.saturating_add(runs.saturating_mul(RUN));
        memory.capacity(newest).saturating_sub(taken)
    }

    fn take_link<P: Pool>(
        &self,
        memory: &mut Memory<'_, P>,
        quiet_log_bytes: u32,
        reserved: u32,
    ) -> Option<Ref> {
        let holds = self.held(memory).saturating_add(u64::from(reserved));
        if holds >= u64::from(quiet_log_bytes) {
            return memory.take_segment();
        }
        // A log that was busy a moment ago begins with a segment, where those are plenty: one
        // contiguous send is cheaper than a gather of blocks.
        if self.stretch_before > BUSY && memory.segments_plenty() {
            return memory.take_segment().or_else(|| memory.take_block(Purpose::Output));
        }
        memory.take_block(Purpose::Output).or_else(|| memory.take_segment())
    }

    /// Bytes from the oldest link's first to the head.
    pub(crate) fn held<P: Pool>(&self, memory: &Memory<'_, P>) -> u64 {
        match self.oldest.some() {
            Some(oldest) => self.head.saturating_sub(memory.at(oldest).base),
            None => 0,
        }
    }

    fn open<P: Pool>(&mut self, memory: &mut Memory<'_, P>, link: Ref) {
        let slot = memory.at_mut(link);
        slot.base = self.head;
        slot.messages = self.messages;
        self.author = Ref::NONE;
        self.links = self.links.saturating_add(1);
    }

    /// Where the next byte goes, after [`Log::reserve`].
    pub(crate) fn tail<P: Pool>(&mut self, memory: &mut Memory<'_, P>, author: Ref) -> Ref {
        if self.room(memory, author) == 0 {
            let next = memory.at(self.newest).next;
            if next.is_none() {
                invariant_failed("an append beyond what was reserved");
            }
            self.newest = next;
            self.open(memory, next);
        }
        self.newest
    }

    /// Writes `bytes` of a message that was reserved.
    pub(crate) fn write<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        author: Ref,
        mut bytes: &[u8],
    ) {
        while !bytes.is_empty() {
            let link = self.tail(memory, author);
            let len = self.room(memory, author);
            let len = len.min(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            let used = memory.at(link).used;
            copy(memory.bytes_mut(link, used, len), bytes);
            self.wrote(memory, link, author, len);
            bytes = bytes.get(len as usize..).unwrap_or_default();
        }
    }

    /// Writes whole lines that were reserved, each of which gets a number.
    pub(crate) fn write_lines<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        author: Ref,
        mut lines: &[u8],
    ) {
        while !lines.is_empty() {
            let _ = self.tail(memory, author);
            let len = lines.len().min(self.room(memory, author) as usize);
            let (here, rest) = lines.split_at_checked(len).unwrap_or((lines, &[]));
            self.write(memory, author, here);
            // A link must know how many ended before it.
            let ended = memchr::memchr_iter(b'\n', here).count() as u64;
            self.messages = self.messages.saturating_add(ended);
            lines = rest;
        }
    }

    /// Goes on with a later number: messages that are not here are passed over. Nobody who stands
    /// in the log reads on in it.
    pub(crate) fn skip_to<P: Pool>(&mut self, memory: &mut Memory<'_, P>, number: u64) {
        let skipped = number.saturating_sub(self.messages);
        self.messages = number;
        if self.newest.is_some() {
            let newest = memory.at_mut(self.newest);
            newest.messages = newest.messages.saturating_add(skipped);
        }
    }

    /// Space for a message of `len` bytes in one piece, if the link at the head has it; the caller
    /// fills all of it and says so by [`Log::wrote`].
    pub(crate) fn contiguous<'m, P: Pool>(
        &mut self,
        memory: &'m mut Memory<'_, P>,
        author: Ref,
        len: u32,
    ) -> Option<&'m mut [u8]> {
        if self.room(memory, author) < len {
            return None;
        }
        let used = memory.at(self.newest).used;
        Some(memory.bytes_mut(self.newest, used, len))
    }

    /// Notes `len` bytes by `author` at the end of `link`.
    pub(crate) fn wrote<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        link: Ref,
        author: Ref,
        len: u32,
    ) {
        let slot = memory.at_mut(link);
        slot.used = slot.used.saturating_add(len);
        self.head = self.head.saturating_add(u64::from(len));
        self.stretch = self.stretch.saturating_add(len);
        if self.author == author {
            return;
        }
        // A new run: the one before it ends where this one begins; its own end is the link's, for
        // as long as it is the last.
        self.author = author;
        let runs = slot.runs;
        slot.runs = runs.saturating_add(1);
        let began = slot.used.saturating_sub(len);
        if let Some(last) = runs.checked_sub(1) {
            let at = run_offset(memory, link, last);
            copy(memory.bytes_mut(link, at, 4), &began.to_le_bytes());
        }
        let at = run_offset(memory, link, runs).saturating_add(4);
        copy(memory.bytes_mut(link, at, 4), &author.0.to_le_bytes());
    }

    /// All the space that is left in the newest link, if its last run is `author`'s.
    pub(crate) fn same_run<'m, P: Pool>(
        &self,
        memory: &'m mut Memory<'_, P>,
        author: Ref,
    ) -> Option<&'m mut [u8]> {
        if self.newest.is_none() || self.author != author {
            return None;
        }
        let used = memory.at(self.newest).used;
        Some(memory.bytes_mut(self.newest, used, self.room(memory, author)))
    }

    /// Notes whole messages that were written to the front of [`Log::same_run`].
    pub(crate) fn wrote_messages<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        author: Ref,
        len: u32,
        messages: u64,
    ) {
        self.wrote(memory, self.newest, author, len);
        self.messages = self.messages.saturating_add(messages);
    }

    /// The message is whole: it has a number now.
    pub(crate) fn finish(&mut self) -> u64 {
        let number = self.messages;
        self.messages = self.messages.saturating_add(1);
        number
    }

    /// Frees the links that nobody needs: no cursor stands in or before them.
    pub(crate) fn trim<P: Pool>(&mut self, memory: &mut Memory<'_, P>) {
        while let Some(oldest) = self.oldest.some() {
            let link = memory.at(oldest);
            if link.cursors.is_some() && !cfg!(wardline_mutant = "link_freed_early") {
                return;
            }
            self.drop_oldest(memory);
        }
    }

    /// Frees the oldest link, in or before which no cursor stands.
    pub(crate) fn drop_oldest<P: Pool>(&mut self, memory: &mut Memory<'_, P>) {
        let oldest = self.oldest;
        let next = memory.at(oldest).next;
        self.links = self.links.saturating_sub(1);
        memory.give(oldest, Purpose::Output);
        if oldest == self.newest {
            // No cursor is behind: every reader waits at the head.
            self.oldest = Ref::NONE;
            self.newest = Ref::NONE;
            self.author = Ref::NONE;
            self.stretch_before = core::mem::take(&mut self.stretch);
        } else {
            self.oldest = next;
        }
    }

    fn give_all<P: Pool>(memory: &mut Memory<'_, P>, mut link: Ref) {
        while let Some(extra) = link.some() {
            link = memory.at(extra).next;
            memory.give(extra, Purpose::Output);
        }
    }
}

fn run_offset<P: Pool>(memory: &Memory<'_, P>, link: Ref, nth: u32) -> u32 {
    memory.capacity(link).saturating_sub(nth.saturating_add(1).saturating_mul(RUN))
}

/// The run `nth` of a link: its end, as an offset in the link, and its author.
pub(crate) fn run<P: Pool>(memory: &Memory<'_, P>, link: Ref, nth: u32) -> (u32, Ref) {
    let at = run_offset(memory, link, nth);
    let mut entry = [0_u8; RUN as usize];
    copy(&mut entry, memory.bytes(link, at, RUN));
    let entry = u64::from_le_bytes(entry);
    let slot = memory.at(link);
    let last = nth.saturating_add(1) >= slot.runs;
    let end = if last { slot.used } else { (entry & 0xFFFF_FFFF) as u32 };
    (end, Ref((entry >> 32) as u32))
}

/// The first run of a link that ends after `offset`.
pub(crate) fn run_after<P: Pool>(memory: &Memory<'_, P>, link: Ref, offset: u32) -> u32 {
    let (mut low, mut high) = (0_u32, memory.at(link).runs);
    while low < high {
        let middle = low.midpoint(high);
        if run(memory, link, middle).0 > offset {
            high = middle;
        } else {
            low = middle.saturating_add(1);
        }
    }
    low
}

/// A walk over what a reader is to be sent: everything from a position on but its own runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) link: Ref,
    pub(crate) pos: u64,
    pub(crate) own: Ref,
    pub(crate) own_until: u64,
}

/// Contiguous bytes of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) link: Ref,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Walk {
    /// The next piece, which the walk then stands before; none at the head.
    pub(crate) fn piece<P: Pool>(&mut self, memory: &Memory<'_, P>, log: &Log) -> Option<Piece> {
        loop {
            let link = *memory.at(self.link);
            let offset = u32::try_from(self.pos.saturating_sub(link.base)).unwrap_or(u32::MAX);
            if offset >= link.used {
                if self.link == log.newest {
                    return None;
                }
                self.link = link.next;
                continue;
            }
            if self.pos >= self.own_until {
                return Some(Piece {
                    link: self.link,
                    offset,
                    len: link.used.saturating_sub(offset),
                });
            }
            let mut nth = run_after(memory, self.link, offset);
            let (mut end, author) = run(memory, self.link, nth);
            if author == self.own && !cfg!(wardline_mutant = "own_run_is_sent") {
                self.pos = link.base.saturating_add(u64::from(end));
                continue;
            }
            nth = nth.saturating_add(1);
            while nth < link.runs {
                let (later, author) = run(memory, self.link, nth);
                if author == self.own {
                    break;
                }
                end = later;
                nth = nth.saturating_add(1);
            }
            return Some(Piece { link: self.link, offset, len: end.saturating_sub(offset) });
        }
    }

    /// Goes `len` bytes on, at most to the end of the piece it stands before.
    pub(crate) fn step(&mut self, len: u32) {
        self.pos = self.pos.saturating_add(u64::from(len));
    }
}

/// The number of the first message that begins at or after `pos`, which stands in `link`, in a log
/// of lines.
pub(crate) fn number_at<P: Pool>(memory: &Memory<'_, P>, link: Ref, pos: u64) -> u64 {
    let slot = memory.at(link);
    let len = u32::try_from(pos.saturating_sub(slot.base)).unwrap_or(u32::MAX).min(slot.used);
    let ended = memchr::memchr_iter(b'\n', memory.bytes(link, 0, len)).count();
    slot.messages.saturating_add(ended as u64)
}
