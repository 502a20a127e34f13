//! Frames about which nothing is to be asked: what follows another of the same sender for the same
//! topic, where its readers are awake already and there is room right behind. PROTOCOL.md 2.4.

use super::intake::{Rates, Spent};
use super::publish::relabel;
use crate::cursor::sub;
use crate::id::Ref;
use crate::native::{Class, FRAME_HEADER_BYTES, FrameKind, Sight};
use crate::relay::input::CHARGE_MIN;
use crate::relay::{Relay, Tap};
use crate::storage::{Pool, copy};

/// What is read of a frame's header here.
struct Head {
    len: u32,
    kind: u8,
    class: u8,
    flags: u16,
    topic: u32,
    mid: u64,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.first_chunk::<FRAME_HEADER_BYTES>()?.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let (first, topic, _peer, mid) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(Self {
            len: first as u32,
            kind: (first >> 32) as u8,
            class: (first >> 40) as u8,
            flags: (first >> 48) as u16,
            topic: topic as u32,
            mid,
        })
    }

    /// Whether it is as frames most often are, for that topic.
    const fn is_ordinary(&self, number: u32) -> bool {
        self.kind == FrameKind::Publish as u8
            && self.class < Class::Bulk as u8
            && self.flags == 0
            && self.topic == number
    }
}

impl<P: Pool> Relay<'_, P> {
    /// Takes the frames at the front of `bytes`, which were checked, as long as nothing is to be
    /// asked. Gives how many bytes of them were taken; the frame after those goes the long way.
    pub(super) fn take_ordinary_frames(
        &mut self,
        slot: Ref,
        bytes: &[u8],
        share: &mut usize,
    ) -> usize {
        let version = self.natives.access.version().max(1);
        let now = self.now;
        let conn = *self.natives.conn(slot);
        if conn.target.is_none() || conn.entry.is_none() {
            return 0;
        }
        let cursor = *self.cursors.at(conn.target);
        let number = self.number_of(cursor.topic);
        let peer = self.handle_of_entry(conn.entry);
        let rates = Rates::of(&self.limits.native);
        let lobby = self.topics.at(self.natives.lobby);
        let turn = self.limits.topic_turn_bytes.saturating_sub(lobby.taken) as usize;
        let item = self.topics.at_mut(cursor.topic);
        let readers = item.all_readers();
        let asked = matches!(self.tap, Tap(Some(_)))
            || item.cursors > 0
            || item.frames_waiting.is_some()
            || item.asks_links(self.links.full && item.feeds > 0)
            || cursor.rights != version
            || cursor.sub & sub::MAY_PUBLISH == 0
            || self.sessions.at(slot).throttled_until > now;
        if asked || !item.wants_frames(self.limits.native.retention_bytes) {
            return 0;
        }
        let Some(room) = item.frames.same_run(&mut self.memory, slot) else { return 0 };
        let chief = self.natives.entries.at(conn.entry).chief;
        let mut spent = Spent::of(&conn, self.natives.entries.at(chief));
        let (messages_max, bytes_max) = spent.common.left(&rates, now);
        let entry = self.natives.entries.at_mut(conn.entry);
        let (mut taken, mut charged, mut messages) = (0_usize, 0_usize, 0_u64);
        while *share > 0
            && charged < turn
            && messages < messages_max
            && let Some(rest) = bytes.get(taken..)
            && let Some(head) = Head::read(rest)
        {
            let whole = (head.len as usize).saturating_add(FRAME_HEADER_BYTES);
            let fresh = entry.window.check(head.mid) == Sight::New;
            let afforded = spent.after(&rates, now, whole, readers, 1);
            let (Some(frame), Some(after)) = (rest.get(..whole), afforded) else { break };
            let end = taken.saturating_add(whole);
            let Some(out) = room.get_mut(taken..end).filter(|_| fresh) else { break };
            let cost = whole.max(CHARGE_MIN as usize);
            if !head.is_ordinary(number) || charged.saturating_add(cost) > bytes_max {
                break;
            }
            copy(out, frame);
            relabel(out, 0, peer, item.frames.messages.saturating_add(messages));
            entry.window.mark(head.mid);
            spent = after;
            charged = charged.saturating_add(cost);
            *share = share.saturating_sub(cost);
            messages = messages.saturating_add(1);
            taken = end;
        }
        let both = (messages as u32, u32::try_from(charged).unwrap_or(u32::MAX));
        spent.common = spent.common.after(&rates, now, both).unwrap_or(spent.common);
        if taken > 0 {
            self.took_ordinary(slot, spent, (taken, charged, messages));
        }
        taken
    }

    /// Accounts for frames that were written at the head: `messages` of `taken` bytes together,
    /// for which `charged` is taken of the topic's turn.
    fn took_ordinary(
        &mut self,
        slot: Ref,
        spent: Spent,
        (taken, charged, messages): (usize, usize, u64),
    ) {
        let target = self.natives.conn(slot).target;
        let cursor = *self.cursors.at(target);
        let written = u32::try_from(taken).unwrap_or(u32::MAX);
        if self.topics.at(cursor.topic).feeds > 0 {
            self.touch(cursor.topic);
        }
        let frames = &mut self.topics.at_mut(cursor.topic).frames;
        frames.wrote_frames(&mut self.memory, slot, (written, messages), self.now);
        if cursor.sub & sub::READS != 0 {
            self.cursors.at_mut(target).own_until = frames.head;
        }
        self.spend(slot, spent, u32::try_from(charged).unwrap_or(u32::MAX));
        let conn = self.natives.conn_mut(slot);
        conn.verified = conn.verified.saturating_sub(written);
        self.stats.published.add(messages);
        self.stats.frames_appended.add(messages);
        self.stats.bytes_appended.add(u64::from(written));
    }
}
