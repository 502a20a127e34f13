//! A reader of a log: a position, nothing more. Its lag is its queue.

use bytemuck::Zeroable;

use crate::id::Ref;
use crate::storage::{Memory, Pool, Slab, Slot};

/// Where a cursor stands, which is also the list that it is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// In no list: the slot is free.
    #[default]
    Nowhere,
    /// At the head of the log, in the topic's waiting list; `pos` and `link` mean nothing.
    Waiting,
    /// Somewhere in `link`, in that link's list.
    Behind,
}

// A slot must be valid as all zeros, which only plain numbers say of themselves without unsafe
// code; so the slot keeps a byte.
const WAITING: u8 = 1;
const BEHIND: u8 = 2;

/// A reader's place in a topic's log.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Cursor {
    next: Ref,
    prev: Ref,
    place: u8,
    /// What was sent last ended inside a message.
    pub(crate) begun: u8,
    pub(crate) link: Ref,
    pub(crate) session: Ref,
    /// The log's position of the next byte to send.
    pub(crate) pos: u64,
    /// Past this position nothing is the reader's own.
    pub(crate) own_until: u64,
    /// Of a native connection: the topic that it has open, and its next one.
    pub(crate) topic: Ref,
    pub(crate) sub_next: Ref,
    /// The state of everybody's rights at which it was asked what its owner may do there.
    pub(crate) rights: u32,
    /// What it wants of the topic: [`sub`].
    pub(crate) sub: u8,
    /// Whether its owner may know who else reads, as [`Cursor::rights`] says.
    pub(crate) may_watch: u8,
    /// Before this position nothing is the reader's own.
    pub(crate) own_from: u64,
    /// The first message that it will not have and is yet to be told of, plus one; 0: none.
    pub(crate) gap_from: u64,
}

/// What a native connection wants of a topic.
pub(crate) mod sub {
    /// It reads it.
    pub(crate) const READS: u8 = 1;
    /// What it published itself too.
    pub(crate) const ECHO: u8 = 2;
    /// It is told who comes and goes.
    pub(crate) const PRESENCE: u8 = 4;
    /// It gave it up, while what it is being sent of it is under way.
    pub(crate) const ENDED: u8 = 8;
    /// Those who are told who comes were told of it.
    pub(crate) const TOLD: u8 = 16;
    /// Its owner may publish there, and read it, as [`Cursor::rights`](super::Cursor) says.
    pub(crate) const MAY_PUBLISH: u8 = 32;
    pub(crate) const MAY_READ: u8 = 64;
    /// Its owner passes on what others said: it is not handed what came that way.
    pub(crate) const BRIDGES: u8 = 128;
}

impl Slot for Cursor {
    fn free_next(&mut self) -> &mut Ref {
        &mut self.next
    }
}

impl Cursor {
    /// A cursor of `session` that begins at `pos`; it is in no list yet.
    pub(crate) fn new(session: Ref, pos: u64) -> Self {
        Self { session, pos, own_until: pos, ..Self::zeroed() }
    }

    /// A native connection's place on a topic, which reads nothing yet; the next of its places.
    pub(crate) fn of_topic(session: Ref, topic: Ref, sub_next: Ref) -> Self {
        Self { session, topic, sub_next, ..Self::zeroed() }
    }

    pub(crate) const fn place(&self) -> Place {
        match self.place {
            WAITING => Place::Waiting,
            BEHIND => Place::Behind,
            _ => Place::Nowhere,
        }
    }

    pub(crate) const fn is_behind(&self) -> bool {
        self.place == BEHIND
    }

    /// The next one of its list.
    pub(crate) const fn next(&self) -> Ref {
        self.next
    }
}

fn push(cursors: &mut Slab<'_, Cursor>, head: &mut Ref, slot: Ref, place: u8) {
    let old = core::mem::replace(head, slot);
    if old.is_some() {
        cursors.at_mut(old).prev = slot;
    }
    let cursor = cursors.at_mut(slot);
    cursor.next = old;
    cursor.prev = Ref::NONE;
    cursor.place = place;
}

fn unlink(cursors: &mut Slab<'_, Cursor>, head: &mut Ref, slot: Ref) {
    let Cursor { next, prev, .. } = *cursors.at(slot);
    if next.is_some() {
        cursors.at_mut(next).prev = prev;
    }
    match prev.some() {
        Some(prev) => cursors.at_mut(prev).next = next,
        None => *head = next,
    }
    let cursor = cursors.at_mut(slot);
    cursor.next = Ref::NONE;
    cursor.prev = Ref::NONE;
    cursor.place = 0;
}

/// Puts a cursor that is in no list at the head of the log.
pub(crate) fn wait(cursors: &mut Slab<'_, Cursor>, waiting: &mut Ref, slot: Ref) {
    push(cursors, waiting, slot, WAITING);
    cursors.at_mut(slot).link = Ref::NONE;
    cursors.at_mut(slot).begun = 0;
}

/// Takes a cursor out of whatever list it is in.
pub(crate) fn leave<P: Pool>(
    cursors: &mut Slab<'_, Cursor>,
    memory: &mut Memory<'_, P>,
    waiting: &mut Ref,
    slot: Ref,
) {
    let cursor = *cursors.at(slot);
    match cursor.place() {
        Place::Waiting => unlink(cursors, waiting, slot),
        Place::Behind => unlink(cursors, &mut memory.at_mut(cursor.link).cursors, slot),
        Place::Nowhere => {}
    }
}

/// Moves a cursor from the head of the log back to a position in a link.
pub(crate) fn stand<P: Pool>(
    cursors: &mut Slab<'_, Cursor>,
    memory: &mut Memory<'_, P>,
    waiting: &mut Ref,
    slot: Ref,
    (link, pos): (Ref, u64),
) {
    leave(cursors, memory, waiting, slot);
    push(cursors, &mut memory.at_mut(link).cursors, slot, BEHIND);
    let cursor = cursors.at_mut(slot);
    cursor.link = link;
    cursor.pos = pos;
}

/// Moves every waiting cursor to `link` at `pos`: something was appended there. Gives the first of
/// them; the others follow by [`Cursor::next`], `count` in all.
pub(crate) fn wake_all<P: Pool>(
    cursors: &mut Slab<'_, Cursor>,
    memory: &mut Memory<'_, P>,
    waiting: &mut Ref,
    link: Ref,
    pos: u64,
    mut each: impl FnMut(Ref),
) {
    let first = core::mem::take(waiting);
    let mut last = first;
    let mut next = first;
    while let Some(slot) = next.some() {
        let cursor = cursors.at_mut(slot);
        cursor.place = BEHIND;
        cursor.link = link;
        cursor.pos = pos;
        next = cursor.next;
        last = slot;
        each(cursor.session);
    }
    if first.is_some() {
        let old = core::mem::replace(&mut memory.at_mut(link).cursors, first);
        cursors.at_mut(last).next = old;
        if old.is_some() {
            cursors.at_mut(old).prev = last;
        }
    }
}

/// Moves a cursor that is behind to a later link.
pub(crate) fn relink<P: Pool>(
    cursors: &mut Slab<'_, Cursor>,
    memory: &mut Memory<'_, P>,
    slot: Ref,
    link: Ref,
) {
    let old = cursors.at(slot).link;
    if old != link {
        unlink(cursors, &mut memory.at_mut(old).cursors, slot);
        push(cursors, &mut memory.at_mut(link).cursors, slot, BEHIND);
        cursors.at_mut(slot).link = link;
    }
}
