//! The log of a topic's frames: what differs from a log of lines. PROTOCOL.md 2.4.
//!
//! A frame says itself how long it is and which number it has. A link notes where the first frame
//! begins in it and that one's number, so that a number is found without reading all before it.

use crate::id::Ref;
use crate::log::Log;
use crate::native::{FRAME_HEADER_BYTES, Frame};
use crate::storage::{Memory, Pool, Purpose, copy};
use crate::time::Instant;

/// Where the number stands in a frame.
const OFFSET_AT: u64 = 32;

/// A place in a log: its link, and its position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) link: Ref,
    pub(super) pos: u64,
}

/// Copies `to.len()` bytes of a log from a place on, over links; gives how many there were.
fn read<P: Pool>(memory: &Memory<'_, P>, log: &Log, from: Place, to: &mut [u8]) -> usize {
    let Place { mut link, mut pos } = from;
    let mut done = 0_usize;
    while let Some(room) = to.get_mut(done..).filter(|room| !room.is_empty()) {
        let item = memory.at(link);
        let offset = u32::try_from(pos.saturating_sub(item.base)).unwrap_or(u32::MAX);
        if offset >= item.used {
            if link == log.newest {
                break;
            }
            link = item.next;
            continue;
        }
        let bytes = memory.bytes(link, offset, item.used.saturating_sub(offset));
        let len = copy(room, bytes);
        done = done.saturating_add(len);
        pos = pos.saturating_add(len as u64);
    }
    done
}

/// Bytes of the frame that begins there, its header included.
pub(super) fn frame_len<P: Pool>(memory: &Memory<'_, P>, log: &Log, at: Place) -> u64 {
    frame_front(memory, log, at).0
}

/// The same, and its flags.
pub(super) fn frame_front<P: Pool>(memory: &Memory<'_, P>, log: &Log, at: Place) -> (u64, u16) {
    let mut front = [0_u8; 8];
    read(memory, log, at, &mut front);
    let front = u64::from_le_bytes(front);
    let len = (front & 0xFFFF_FFFF).saturating_add(FRAME_HEADER_BYTES as u64);
    (len, (front >> 48) as u16)
}

/// The number of the frame that begins there; at the head, that of the next one.
pub(super) fn frame_number<P: Pool>(memory: &Memory<'_, P>, log: &Log, at: Place) -> u64 {
    if at.pos >= log.head {
        return log.messages;
    }
    let mut number = [0_u8; 8];
    let at = Place { pos: at.pos.saturating_add(OFFSET_AT), ..at };
    read(memory, log, at, &mut number);
    u64::from_le_bytes(number)
}

/// Goes on to the link that holds the position of a place.
pub(super) fn settle<P: Pool>(memory: &Memory<'_, P>, log: &Log, mut at: Place) -> Place {
    loop {
        let item = memory.at(at.link);
        let end = item.base.saturating_add(u64::from(item.used));
        if at.pos < end || at.link == log.newest {
            return at;
        }
        at.link = item.next;
    }
}

/// Where the oldest whole frame begins, and its number; at the head where there is none.
pub(super) fn oldest<P: Pool>(memory: &Memory<'_, P>, log: &Log) -> (Option<Place>, u64) {
    let mut link = log.oldest;
    while let Some(here) = link.some() {
        let item = memory.at(here);
        if let Some(first) = item.first.checked_sub(1) {
            let pos = item.base.saturating_add(u64::from(first));
            return (Some(Place { link: here, pos }), item.messages);
        }
        link = if here == log.newest { Ref::NONE } else { item.next };
    }
    (None, log.messages)
}

/// How many bytes at the front of some are whole frames, and how many frames.
pub(in crate::relay) fn whole_frames(bytes: &[u8]) -> (usize, u32) {
    let (mut len, mut frames) = (0_usize, 0_u32);
    while let Some(frame) = Frame::first(bytes.get(len..).unwrap_or_default()) {
        len = len.saturating_add(frame.bytes.len());
        frames = frames.saturating_add(1);
    }
    (len, frames)
}

/// The same as [`oldest`], as a link and a position.
pub(in crate::relay) fn oldest_frame<P: Pool>(
    memory: &Memory<'_, P>,
    log: &Log,
) -> (Option<(Ref, u64)>, u64) {
    let (place, number) = oldest(memory, log);
    (place.map(|Place { link, pos }| (link, pos)), number)
}

/// Where the frame of that number begins, which is at least the oldest and before the next one.
pub(super) fn seek<P: Pool>(memory: &Memory<'_, P>, log: &Log, number: u64) -> Option<Place> {
    let (mut at, mut here) = (None, 0);
    let mut link = log.oldest;
    while let Some(slot) = link.some() {
        let item = memory.at(slot);
        if let Some(first) = item.first.checked_sub(1) {
            if item.messages > number {
                break;
            }
            let pos = item.base.saturating_add(u64::from(first));
            (at, here) = (Some(Place { link: slot, pos }), item.messages);
        }
        link = if slot == log.newest { Ref::NONE } else { item.next };
    }
    let mut at = at?;
    while here < number {
        at.pos = at.pos.saturating_add(frame_len(memory, log, at));
        at = settle(memory, log, at);
        here = here.saturating_add(1);
    }
    Some(at)
}

/// Notes where a frame is about to begin, after its room was reserved.
pub(super) fn begin<P: Pool>(log: &mut Log, memory: &mut Memory<'_, P>, author: Ref, now: Instant) {
    let link = log.tail(memory, author);
    let number = log.messages;
    let slot = memory.at_mut(link);
    slot.written_at = now;
    if slot.first == 0 {
        slot.first = slot.used.saturating_add(1);
        slot.messages = number;
    }
}

/// Notes when its end was written.
pub(super) fn end<P: Pool>(log: &Log, memory: &mut Memory<'_, P>, now: Instant) {
    if log.newest.is_some() {
        memory.at_mut(log.newest).written_at = now;
    }
}

/// Frees the links that no cursor needs and that nobody wants to keep: beyond `bytes` of what came
/// last, or written to before `since`.
pub(super) fn trim<P: Pool>(log: &mut Log, memory: &mut Memory<'_, P>, bytes: u64, since: Instant) {
    while let Some(oldest) = log.oldest.some() {
        let link = memory.at(oldest);
        let end = link.base.saturating_add(u64::from(link.used));
        let after = log.head.saturating_sub(end);
        let wanted = after < bytes && link.written_at >= since;
        let read = link.cursors.is_some() && !cfg!(wardline_mutant = "frames_trimmed_early");
        if read || wanted {
            return;
        }
        log.drop_oldest(memory);
    }
}

impl Log {
    /// Notes whole frames that were written to the front of [`Log::same_run`].
    pub(super) fn wrote_frames<P: Pool>(
        &mut self,
        memory: &mut Memory<'_, P>,
        author: Ref,
        (len, frames): (u32, u64),
        now: Instant,
    ) {
        let number = self.messages;
        let link = memory.at_mut(self.newest);
        link.written_at = now;
        if link.first == 0 {
            link.first = link.used.saturating_add(1);
            link.messages = number;
        }
        self.wrote_messages(memory, author, len, frames);
    }

    /// Gives back what was reserved and not written.
    pub(super) fn unreserve<P: Pool>(&mut self, memory: &mut Memory<'_, P>) {
        let Some(newest) = self.newest.some() else { return };
        let freed = memory.freed;
        let mut link = core::mem::take(&mut memory.at_mut(newest).next);
        while let Some(extra) = link.some() {
            link = memory.at(extra).next;
            memory.give(extra, Purpose::Output);
        }
        memory.freed = freed;
        if memory.at(newest).used == 0 && self.oldest == newest {
            self.drop_oldest(memory);
        }
    }
}
