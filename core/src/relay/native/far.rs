//! Lines that came from another shard, for a topic that is native too. PROTOCOL.md 2.4.
//!
//! They come as the envelopes that line clients read. Native clients are to have what was said: so
//! their escapes are undone.

use super::LINE_SLOT;
use super::entries::{handle, split};
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::line;
use crate::link::{Header, foreign};
use crate::log::NoRoom;
use crate::native::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, flags};
use crate::relay::Relay;
use crate::storage::Pool;

impl<P: Pool> Relay<'_, P> {
    /// Appends lines of one connection of another shard to the logs of a topic: as frames, where
    /// native clients are to have them, and as they came, where line clients are there. All of them
    /// to both, or none.
    pub(in crate::relay) fn append_far_lines(
        &mut self,
        topic: Ref,
        from: u8,
        header: &Header,
        content: &[u8],
    ) -> Result<(), NoRoom> {
        let author = foreign(from, header.author);
        let item = self.topics.at(topic);
        let lines = item.cursors > 0;
        let frames = item.wants_frames(self.limits.native.retention_bytes);
        if frames {
            let len = frames_len(content);
            self.reserve_frames(topic, author, len).map_err(|_| NoRoom)?;
        }
        if lines && let Err(NoRoom) = self.append(topic, author, content) {
            let log = &mut self.topics.at_mut(topic).frames;
            if frames && !cfg!(wardline_mutant = "far_frames_room_leaked") {
                log.unreserve(&mut self.memory);
            }
            return Err(NoRoom);
        }
        let forgets = cfg!(wardline_mutant = "far_generation_forgotten");
        let generation = if forgets { 1 } else { header.epoch };
        let frame = FrameHeader {
            flags: flags::LINE,
            peer: handle(from, generation, LINE_SLOT | header.author),
            ..FrameHeader::new(FrameKind::Publish)
        };
        let text = core::mem::take(&mut self.natives.text);
        for said in contents(content) {
            if frames {
                self.append_frame(topic, author, &frame, line::unescape(said, text));
            } else {
                self.topics.at_mut(topic).frames.finish();
            }
        }
        self.natives.text = text;
        Ok(())
    }

    /// Whether a handle is of the kind that line clients of other shards have. Whether they are
    /// there is not known here.
    pub(super) fn is_far_line(&self, of: u64) -> bool {
        let (shard, _, slot) = split(of);
        shard != self.links.shard && shard < self.links.shards && slot & LINE_SLOT != 0
    }
}

/// What stands in each of some envelopes, escaped.
fn contents(envelopes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0_usize;
    memchr::memchr_iter(b'\n', envelopes).map(move |end| {
        let envelope = envelopes.get(from..=end).unwrap_or_default();
        from = end.saturating_add(1);
        match line::escaped_content(envelope) {
            Some(said) => said,
            None => invariant_failed("a line of another shard that is no envelope"),
        }
    })
}

/// Bytes that they have as frames.
fn frames_len(envelopes: &[u8]) -> u32 {
    let frame = |said| line::unescaped_len(said).saturating_add(FRAME_HEADER_BYTES);
    let len = contents(envelopes).fold(0_usize, |all, said| all.saturating_add(frame(said)));
    u32::try_from(len).unwrap_or(u32::MAX)
}
