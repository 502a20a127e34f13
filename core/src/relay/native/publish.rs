//! Publishing over both dialects: a frame goes to the log of frames, and as a line to that of
//! lines; a line goes the other way too. Each at most once, both or none. PROTOCOL.md 2.4.

use core::net::SocketAddr;

use super::frames_log;
use crate::access::Right;
use crate::cursor::{self, sub};
use crate::id::Ref;
use crate::line::{Envelope, Suffix};
use crate::link::nobody_of;
use crate::log::NoRoom;
use crate::native::{
    Class, Code, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, ServerControl, Sight, flags,
};
use crate::relay::input::Stop;
use crate::relay::{Relay, Tap, mark};
use crate::session::Pending;
use crate::storage::{Pool, copy};

/// Fullness of memory from which nothing is kept for who may come, and from which bulk is refused,
/// in percent.
pub(super) const FULL_RETENTION: u32 = 50;
const FULL_BULK: u32 = 85;
/// When who was refused for want of memory may try again.
const RETRY_MS: u32 = 1_000;
/// What stands before bytes that are no text.
const BASE64: &[u8; 7] = b"base64:";
/// Where an envelope names its sender.
const ENVELOPE_SENDER: core::ops::Range<usize> = 8..40;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Taken,
    /// Its sender is told why not.
    Refused(Code, u32),
}

impl<P: Pool> Relay<'_, P> {
    /// One frame of a session.
    pub(super) fn take_frame(&mut self, slot: Ref, frame: &Frame<'_>) -> Result<(), Stop> {
        let header = &frame.header;
        let bytes = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let publishes = header.kind == FrameKind::Publish;
        let cursor = if publishes { self.sub_of(slot, header.topic) } else { None };
        let readers =
            cursor.map_or(1, |cursor| self.topics.at(self.cursors.at(cursor).topic).all_readers());
        // Its session outlives it, if what it is to be told finds no memory.
        let entry = self.natives.conn(slot).entry;
        let spent = self.afford(slot, bytes, readers)?;
        let outcome = match self.admits(slot, frame) {
            Err(code @ Code::Busy) => Outcome::Refused(code, RETRY_MS),
            Err(code) => Outcome::Refused(code, 0),
            Ok(()) if publishes => self.publish_frame(slot, frame, cursor)?,
            Ok(()) => self.pass_on(slot, frame)?,
        };
        self.spend(slot, spent, bytes);
        match outcome {
            Outcome::Taken => {
                let item = self.natives.entries.at_mut(entry);
                if item.used != 0 && !cfg!(wardline_mutant = "mid_not_marked") {
                    item.window.mark(header.mid);
                }
            }
            Outcome::Refused(code, retry_ms) => self.nack(slot, header.mid, code, retry_ms),
        }
        Ok(())
    }

    /// What can be known of a message before it is asked where it goes.
    fn admits(&self, slot: Ref, frame: &Frame<'_>) -> Result<(), Code> {
        let entry = self.natives.entries.at(self.natives.conn(slot).entry);
        match entry.window.check(frame.header.mid) {
            Sight::New => {}
            Sight::Seen if cfg!(wardline_mutant = "duplicate_is_taken") => {}
            Sight::Seen => return Err(Code::Duplicate),
            Sight::Below => return Err(Code::Stale),
        }
        let bridged = frame.header.has(flags::BRIDGED);
        if bridged && !self.may(slot, Right::Bridge, b"") {
            return Err(Code::Forbidden);
        }
        let sender = frame.payload.get(ENVELOPE_SENDER);
        let own = sender == Some(entry.identity.as_bytes().as_slice());
        if frame.header.has(flags::ENVELOPE) && !bridged && !own {
            return Err(Code::Forbidden);
        }
        if frame.header.class == Class::Bulk && self.memory.fullness() >= FULL_BULK {
            return Err(Code::Busy);
        }
        Ok(())
    }

    fn publish_frame(
        &mut self,
        slot: Ref,
        frame: &Frame<'_>,
        cursor: Option<Ref>,
    ) -> Result<Outcome, Stop> {
        let Some(cursor) = cursor else { return Ok(Outcome::Refused(Code::Forbidden, 0)) };
        let topic = self.cursors.at(cursor).topic;
        if !self.may_publish(slot, cursor) {
            return Ok(Outcome::Refused(Code::Forbidden, 0));
        }
        self.natives.conn_mut(slot).target = cursor;
        let peer = self.handle_of_entry(self.natives.conn(slot).entry);
        if self.topics.at(topic).home().is_some() {
            return self.say_away(slot, topic, frame, peer);
        }
        self.waits_for_feeds(topic)?;
        let remote = self.sessions.at(slot).remote();
        let put = self.append_said(topic, slot, remote, frame, peer)?;
        if let Some(line) = put.1 {
            self.charge_longer(line, frame.payload.len());
        }
        let put = put.0;
        self.stats.published.add(u64::from(put.is_some()));
        let Some(offset) = put else { return Ok(Outcome::Refused(Code::TooLarge, 0)) };
        if let Tap(Some(show)) = &mut self.tap {
            show(self.sessions.at(slot).remote(), frame.payload);
        }
        let reader = self.cursors.at_mut(cursor);
        let own = reader.sub & sub::READS != 0;
        if own {
            reader.own_until = self.topics.at(topic).frames.head;
        }
        if frame.header.has(flags::VERDICT) {
            let readers = self.others_of(slot, topic, self.topics.at(topic).all_readers());
            let mid = frame.header.mid;
            self.tell_native(slot, &ServerControl::Verdict { mid, offset, readers });
        }
        Ok(Outcome::Taken)
    }

    /// Whether the owner of a session may publish to a topic that it has open. The answer is kept
    /// for as long as nobody's rights change.
    fn may_publish(&mut self, slot: Ref, cursor: Ref) -> bool {
        self.ask_rights(slot, cursor);
        let may = self.cursors.at(cursor).sub & sub::MAY_PUBLISH != 0;
        may || cfg!(wardline_mutant = "publish_unasked")
    }

    /// Whether it may go on reading it.
    pub(super) fn may_still_read(&mut self, slot: Ref, cursor: Ref) -> bool {
        self.ask_rights(slot, cursor);
        self.cursors.at(cursor).sub & sub::MAY_READ != 0 || !self.sessions.at(slot).is_open()
    }

    /// Asks what the owner of a session may do on a topic, where somebody's rights have changed
    /// since it was asked last.
    pub(super) fn ask_rights(&mut self, slot: Ref, cursor: Ref) {
        let version = self.natives.access.version().max(1);
        let item = *self.cursors.at(cursor);
        // Of one that is ending nobody can be asked any more: what was known holds.
        if item.rights == version || self.natives.conn(slot).entry.is_none() {
            return;
        }
        let may = |right| self.may_on(slot, right, item.topic);
        let publish = if may(Right::Publish) { sub::MAY_PUBLISH } else { 0 };
        let connect = self.may(slot, Right::Connect, b"");
        let read = if connect && may(Right::Subscribe) { sub::MAY_READ } else { 0 };
        let who = read != 0 && may(Right::Who) || cfg!(wardline_mutant = "presence_unasked");
        let bridge = self.may(slot, Right::Bridge, b"");
        let bridge = bridge && !cfg!(wardline_mutant = "bridged_to_bridge");
        let bridge = if bridge { sub::BRIDGES } else { 0 };
        let item = self.cursors.at_mut(cursor);
        let kept = item.sub & !(sub::MAY_PUBLISH | sub::MAY_READ | sub::BRIDGES);
        item.sub = kept | publish | read | bridge;
        item.may_watch = u8::from(who);
        item.rights = version;
    }

    /// Appends a frame to its topic's logs, at home. Gives its number; none, where its line is over
    /// the limit of those who read lines. And how long that line is, if there is one.
    pub(super) fn append_said(
        &mut self,
        topic: Ref,
        author: Ref,
        remote: SocketAddr,
        frame: &Frame<'_>,
        peer: u64,
    ) -> Result<(Option<u64>, Option<usize>), Stop> {
        if self.topics.at(topic).cursors == 0 {
            let number = self.append_frame_alone(topic, author, frame, peer)?;
            return Ok((Some(number), None));
        }
        let flags = frame.header.flags & !flags::VERDICT;
        let header = FrameHeader { flags, peer, ..frame.header };
        let text = core::mem::take(&mut self.natives.text);
        let content = content_of(frame.payload, text);
        let suffix = Suffix::new(remote);
        let envelope = content.map(|content| Envelope::new(content, &suffix));
        let most = self.limits.line.envelope_bytes_max as usize;
        let put = match &envelope {
            Some(envelope) if envelope.len() <= most => {
                let line = Some(envelope).filter(|_| !cfg!(wardline_mutant = "frame_is_no_line"));
                let put = self.append_both(topic, author, Some((&header, frame.payload)), line);
                put.map(|number| (Some(number), Some(envelope.len())))
            }
            Some(_) | None => Ok((None, None)),
        };
        self.natives.text = text;
        put
    }

    /// Whether what a frame is as a line is over the limit of those who may read that.
    pub(super) fn is_long_line(&mut self, remote: SocketAddr, payload: &[u8]) -> bool {
        let text = core::mem::take(&mut self.natives.text);
        let suffix = Suffix::new(remote);
        let most = self.limits.line.envelope_bytes_max as usize;
        let len = content_of(payload, text).map(|content| Envelope::new(content, &suffix).len());
        self.natives.text = text;
        len.is_none_or(|len| len > most)
    }

    /// What goes out as a line and is longer than what came in counts into the turn as it goes out.
    fn charge_longer(&mut self, line: usize, payload: usize) {
        let longer = line.saturating_sub(payload.saturating_add(FRAME_HEADER_BYTES));
        let lobby = self.topics.at_mut(self.natives.lobby);
        let longer = u32::try_from(longer).unwrap_or(u32::MAX);
        lobby.taken = lobby.taken.saturating_add(longer);
    }

    /// A frame for a topic that no line client reads: as it came, but for what the relay says.
    fn append_frame_alone(
        &mut self,
        topic: Ref,
        author: Ref,
        frame: &Frame<'_>,
        peer: u64,
    ) -> Result<u64, Stop> {
        let item = self.topics.at_mut(topic);
        let kept = self.limits.native.retention_bytes;
        if !item.wants_frames(kept) {
            return Ok(item.frames.finish());
        }
        let len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        self.reserve_frames(topic, author, len)?;
        self.wake_frames(topic, author);
        let item = self.topics.at_mut(topic);
        let log = &mut item.frames;
        let flags = frame.header.flags & !flags::VERDICT;
        let offset = log.messages;
        if let Some(room) = log.contiguous(&mut self.memory, author, len) {
            copy(room, frame.bytes);
            relabel(room, flags, peer, offset);
            let link = log.newest;
            log.wrote(&mut self.memory, link, author, len);
        } else {
            let header = FrameHeader { flags, peer, offset, ..frame.header };
            let payload = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
            log.write(&mut self.memory, author, &header.to_bytes(payload));
            log.write(&mut self.memory, author, frame.payload);
        }
        self.frame_ends(topic, len);
        Ok(offset)
    }

    /// A line is published to native readers too, if there are any or may be: with the log of lines
    /// it is all or nothing. Gives whether that was all of it.
    pub(in crate::relay) fn publish_line_to_both(
        &mut self,
        slot: Ref,
        envelope: &Envelope<'_>,
        lines: bool,
    ) -> Result<(), Stop> {
        let topic = self.sessions.at(slot).topic;
        let header = FrameHeader {
            flags: flags::LINE,
            peer: self.line_handle(slot),
            ..FrameHeader::new(FrameKind::Publish)
        };
        let line = if lines { Some(envelope) } else { None };
        self.append_both(topic, slot, Some((&header, envelope.content())), line)?;
        Ok(())
    }

    /// Appends a message to the logs of a topic: as a frame, where native clients are to have it,
    /// and as a line, where line clients are there. Gives its number as a frame.
    fn append_both(
        &mut self,
        topic: Ref,
        author: Ref,
        frame: Option<(&FrameHeader, &[u8])>,
        line: Option<&Envelope<'_>>,
    ) -> Result<u64, Stop> {
        let kept = self.limits.native.retention_bytes;
        let frame = frame.filter(|_| self.topics.at(topic).wants_frames(kept));
        let frame_len = frame.map_or(0, |(_, payload)| payload.len());
        let frame_len = u32::try_from(frame_len).unwrap_or(u32::MAX);
        let frame_len = frame_len.saturating_add(FRAME_HEADER_BYTES as u32);
        let line_len = line.map_or(0, |line| u32::try_from(line.len()).unwrap_or(u32::MAX));
        let quiet = self.limits.quiet_log_bytes;
        // Shards count what of their lines comes back: what was no line is nobody's.
        let lines = nobody_of(author);
        if frame.is_some() {
            self.reserve_frames(topic, author, frame_len)?;
        }
        if line.is_some() {
            let log = &mut self.topics.at_mut(topic).log;
            if let Err(NoRoom) = log.reserve(&mut self.memory, quiet, lines, line_len) {
                let frames = &mut self.topics.at_mut(topic).frames;
                if frame.is_some() && !cfg!(wardline_mutant = "frames_room_leaked") {
                    frames.unreserve(&mut self.memory);
                }
                return Err(Stop::Memory);
            }
        }
        let number = match frame {
            Some((header, payload)) => self.append_frame(topic, author, header, payload),
            None => self.topics.at_mut(topic).frames.finish(),
        };
        if let Some(line) = line {
            if self.topics.at(topic).waiting.is_some() {
                self.wake_waiting(topic, lines);
            }
            let log = &mut self.topics.at_mut(topic).log;
            line.write(|bytes| log.write(&mut self.memory, lines, bytes));
            log.finish();
            self.stats.bytes_appended.add(u64::from(line_len));
        }
        if frame.is_none() {
            self.touch(topic);
        }
        Ok(number)
    }

    pub(super) fn reserve_frames(&mut self, topic: Ref, author: Ref, len: u32) -> Result<(), Stop> {
        let quiet = self.limits.quiet_log_bytes;
        let log = &mut self.topics.at_mut(topic).frames;
        if log.has_room(&self.memory, author, len) {
            return Ok(());
        }
        self.trim_frames(topic);
        let log = &mut self.topics.at_mut(topic).frames;
        if log.reserve(&mut self.memory, quiet, author, len).is_ok() {
            return Ok(());
        }
        if !self.drop_retention() {
            return Err(Stop::Memory);
        }
        let log = &mut self.topics.at_mut(topic).frames;
        log.reserve(&mut self.memory, quiet, author, len).map_err(|NoRoom| Stop::Memory)
    }

    pub(super) fn append_frame(
        &mut self,
        topic: Ref,
        author: Ref,
        header: &FrameHeader,
        payload: &[u8],
    ) -> u64 {
        let number = self.number_of(topic);
        self.wake_frames(topic, author);
        let item = self.topics.at_mut(topic);
        let offset = item.frames.messages;
        let header = FrameHeader { topic: number, offset, ..*header };
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let log = &mut item.frames;
        log.write(&mut self.memory, author, &header.to_bytes(len));
        log.write(&mut self.memory, author, payload);
        self.frame_ends(topic, len.saturating_add(FRAME_HEADER_BYTES as u32));
        offset
    }

    /// Moves the readers that wait for frames to where one is about to be appended, for which
    /// there is room.
    pub(super) fn wake_frames(&mut self, topic: Ref, author: Ref) {
        let now = self.now;
        let item = self.topics.at_mut(topic);
        frames_log::begin(&mut item.frames, &mut self.memory, author, now);
        if item.frames_waiting.is_some() {
            let link = item.frames.tail(&mut self.memory, author);
            let from = item.frames.head;
            let (sessions, ready) = (&mut self.sessions, &mut self.ready);
            cursor::wake_all(
                &mut self.cursors,
                &mut self.memory,
                &mut item.frames_waiting,
                link,
                from,
                |session| mark(sessions, ready, session, Pending::SEND),
            );
        }
    }

    /// A frame of so many bytes is whole.
    pub(super) fn frame_ends(&mut self, topic: Ref, len: u32) {
        let now = self.now;
        let log = &mut self.topics.at_mut(topic).frames;
        frames_log::end(log, &mut self.memory, now);
        log.finish();
        self.stats.frames_appended.bump();
        self.stats.bytes_appended.add(u64::from(len));
        self.natives.sweep_soon(now);
        self.touch(topic);
    }

    /// A topic was appended to in this turn.
    pub(super) fn touch(&mut self, slot: Ref) {
        let topic = self.topics.at_mut(slot);
        if topic.touched == 0 {
            topic.touched = 1;
            topic.touched_next = core::mem::replace(&mut self.touched, slot);
        }
    }
}

/// Writes what the relay says into the header of a frame: PROTOCOL.md 2.4.1.
pub(super) fn relabel(frame: &mut [u8], flags: u16, peer: u64, offset: u64) {
    let fields: [(usize, &[u8]); 3] =
        [(6, &flags.to_le_bytes()), (16, &peer.to_le_bytes()), (32, &offset.to_le_bytes())];
    for (at, bytes) in fields {
        copy(frame.get_mut(at..).unwrap_or_default(), bytes);
    }
}

/// What a line client is shown of a payload: itself, where it is text, else its base64. None: that
/// is longer than `room`.
fn content_of<'a>(payload: &'a [u8], room: &'a mut [u8]) -> Option<&'a [u8]> {
    if simdutf8::basic::from_utf8(payload).is_ok() {
        return Some(payload);
    }
    let len = payload.len().div_ceil(3).saturating_mul(4).saturating_add(BASE64.len());
    let text = room.get_mut(..len)?;
    let (open, digits) = text.split_first_chunk_mut::<{ BASE64.len() }>()?;
    *open = *BASE64;
    for (group, out) in payload.chunks(3).zip(digits.chunks_mut(4)) {
        let byte = |nth: usize| u32::from(group.get(nth).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for (nth, digit) in out.iter_mut().enumerate() {
            let shift = 18_usize.saturating_sub(nth.saturating_mul(6));
            let sextet = (bits >> shift) & 0x3F;
            *digit = if nth > group.len() { b'=' } else { base64_digit(sextet as u8) };
        }
    }
    Some(text)
}

/// RFC 4648, table 1.
const fn base64_digit(sextet: u8) -> u8 {
    match sextet {
        0..=25 => b'A'.wrapping_add(sextet),
        26..=51 => b'a'.wrapping_add(sextet.wrapping_sub(26)),
        52..=61 => b'0'.wrapping_add(sextet.wrapping_sub(52)),
        62 => b'+',
        _ => b'/',
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_as_base64() {
        let mut room = [0; 64];
        assert_eq!(content_of("süß".as_bytes(), &mut room), Some("süß".as_bytes()));
        for (bytes, shown) in [
            (&[0xFF][..], "base64:/w=="),
            (&[0xFF, 0xFE], "base64://4="),
            (&[0xFF, 0x00, 0x80], "base64:/wCA"),
            (&[0xFB, 0xEF, 0xBE, 0x01], "base64:++++AQ=="),
        ] {
            assert_eq!(content_of(bytes, &mut room), Some(shown.as_bytes()), "{bytes:x?}");
        }
        assert_eq!(content_of(&[0xFF; 60], &mut room), None);
    }
}
