//! Publishing: from a line to the log of its topic, once.

use super::input::{CHARGE_MIN, Stop};
use super::{Relay, Tap, mark};
use crate::cursor;
use crate::event::Event;
use crate::id::{ConnId, Ref, TopicId};
use crate::line::{self, Envelope, Suffix};
use crate::log::NoRoom;
use crate::session::{Flags, Pending};
use crate::storage::Pool;

impl<P: Pool> Relay<'_, P> {
    /// Takes the lines at the front of `lines` about which nothing is to be asked: a line before
    /// them has woken the readers, and they fit where it ended. Gives how many bytes of them were
    /// taken; the line after those goes the long way.
    pub(super) fn take_ordinary(
        &mut self,
        slot: Ref,
        lines: &[u8],
        share: &mut usize,
        suffix: &Suffix,
    ) -> usize {
        let limits = &self.limits;
        let session = self.sessions.at(slot);
        let topic = self.topics.at_mut(session.topic);
        let asked = limits.line.messages_per_minute != 0
            || matches!(self.tap, Tap(Some(_)))
            || !topic.hold.is_zero()
            || topic.waiting.is_some()
            || topic.speaks_native()
            || topic.asks_links(self.links.full);
        // Where nobody else listens the log may stand for the sender's own cursor alone.
        let nobody = topic.cursors < 2;
        if asked || nobody || !session.is_open() {
            return 0;
        }
        let Some(room) = topic.log.same_run(&mut self.memory, slot) else { return 0 };
        let turn = limits.topic_turn_bytes.saturating_sub(topic.taken) as usize;
        let conn = ConnId::new(slot, session.generation);
        let (mut taken, mut written, mut charged) = (0_usize, 0_usize, 0_usize);
        let mut messages = 0_u64;
        while let Some((envelope, next)) = next_envelope(lines, taken, suffix) {
            let over = envelope.content().len() > limits.line.line_bytes_max as usize;
            if *share == 0 || charged >= turn || over {
                break;
            }
            let len = envelope.len();
            let Some(out) = room.get_mut(written..written.saturating_add(len)) else { break };
            if len > limits.line.envelope_bytes_max as usize {
                break;
            }
            envelope.fill(out);
            written = written.saturating_add(len);
            charged = charged.saturating_add(len.max(CHARGE_MIN as usize));
            *share = share.saturating_sub(next.saturating_sub(taken).max(CHARGE_MIN as usize));
            taken = next;
            if limits.report_messages {
                let number = Some(topic.log.messages.saturating_add(messages));
                let topic = TopicId::new(session.topic);
                if !self.events.push(Event::Published { conn, topic, number }) {
                    self.stats.events_dropped.bump();
                }
            }
            messages = messages.saturating_add(1);
        }
        let written = u32::try_from(written).unwrap_or(u32::MAX);
        topic.log.wrote_messages(&mut self.memory, slot, written, messages);
        let charged = u32::try_from(charged).unwrap_or(u32::MAX);
        topic.taken = topic.taken.saturating_add(charged);
        self.cursors.at_mut(session.cursor).own_until = topic.log.head;
        self.stats.bytes_appended.add(u64::from(written));
        self.stats.published.add(messages);
        taken
    }

    /// Appends a message to the log of its topic, once, and wakes those who wait for it.
    pub(super) fn publish(&mut self, slot: Ref, envelope: &Envelope<'_>) -> Result<(), Stop> {
        let session = self.sessions.at(slot);
        let (topic_slot, own) = (session.topic, session.cursor);
        let away = self.topics.at(topic_slot).is_linked();
        if away && self.publish_away(slot, envelope)? {
            self.charge_message(slot, envelope.len(), None);
            return Ok(());
        }
        let topic = self.topics.at_mut(topic_slot);
        let len = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
        let others = topic.cursors.saturating_sub(u32::from(own.is_some()));
        let mut number = None;
        if topic.speaks_native() {
            self.publish_line_to_both(slot, envelope, others > 0)?;
            if !own.is_none() {
                self.cursors.at_mut(own).own_until = self.topics.at(topic_slot).log.head;
            }
            let last = self.topics.at(topic_slot).log.messages.checked_sub(1);
            number = last.filter(|_| others > 0);
        } else if others == 0 {
            self.stats.published_to_nobody.bump();
        } else {
            let log = &mut topic.log;
            log.reserve(&mut self.memory, self.limits.quiet_log_bytes, slot, len)
                .map_err(|NoRoom| Stop::Memory)?;
            if topic.waiting.is_some() {
                self.wake_waiting(topic_slot, slot);
            }
            let log = &mut self.topics.at_mut(topic_slot).log;
            match log.contiguous(&mut self.memory, slot, len) {
                Some(room) => {
                    envelope.fill(room);
                    let link = log.newest;
                    log.wrote(&mut self.memory, link, slot, len);
                }
                None => envelope.write(|bytes| log.write(&mut self.memory, slot, bytes)),
            }
            number = Some(log.finish());
            if !cfg!(wardline_mutant = "own_until_stays") {
                self.cursors.at_mut(own).own_until = log.head;
            }
            self.stats.bytes_appended.add(u64::from(len));
        }
        self.charge_message(slot, envelope.len(), number);
        Ok(())
    }

    /// Moves the readers that wait at the head of a log to where `author` is about to append, for
    /// which there is room; they are sent to in this turn, or wait for more.
    pub(super) fn wake_waiting(&mut self, topic: Ref, author: Ref) {
        let topic = self.topics.at_mut(topic);
        let link = topic.log.tail(&mut self.memory, author);
        let (sessions, ready, patience) =
            (&mut self.sessions, &mut self.ready, &mut topic.patience);
        let (waits, from) = (patience.begin(self.now), topic.log.head);
        if !waits {
            // Whoever waits already has waited long enough.
            patience.release(sessions, ready, self.now);
        }
        cursor::wake_all(
            &mut self.cursors,
            &mut self.memory,
            &mut topic.waiting,
            link,
            from,
            |session| {
                if !waits || !patience.add(sessions, session, from) {
                    mark(sessions, ready, session, Pending::SEND);
                }
            },
        );
        if waits {
            topic.patience.await_end(&mut self.wheel, &mut self.sessions);
        }
    }

    /// Charges a message that was taken to its topic and its sender's turn.
    fn charge_message(&mut self, slot: Ref, len: usize, number: Option<u64>) {
        let topic_slot = self.sessions.at(slot).topic;
        let topic = self.topics.at_mut(topic_slot);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        topic.taken = topic.taken.saturating_add(len.max(CHARGE_MIN));
        if topic.touched == 0 {
            topic.touched = 1;
            topic.touched_next = core::mem::replace(&mut self.touched, topic_slot);
        }
        let hold = topic.hold;
        let session = self.sessions.at_mut(slot);
        // Never the laggard itself: it may have to write before it reads.
        if !hold.is_zero() && !session.flags.has(Flags::STALLED) {
            session.held_until = self.now.after(hold);
        }
        self.stats.published.bump();
        if self.limits.report_messages {
            let conn = self.id(slot);
            self.tell(Event::Published { conn, topic: TopicId::new(topic_slot), number });
        }
    }
}

/// The envelope of the line at `from`, and where the next line begins. One look finds the end of a
/// line that has nothing to escape.
fn next_envelope<'a>(
    lines: &'a [u8],
    from: usize,
    suffix: &'a Suffix,
) -> Option<(Envelope<'a>, usize)> {
    let rest = lines.get(from..)?;
    let at = line::find_special(rest)?;
    let tail = rest.get(at..)?;
    let (end, plain) = match tail {
        [b'\n', ..] => (at, true),
        [b'\r', b'\n', ..] => (at.saturating_add(1), true),
        _ => (at.saturating_add(memchr::memchr(b'\n', tail)?), false),
    };
    let next = from.saturating_add(end).saturating_add(1);
    if plain {
        return Some((Envelope::plain(rest.get(..at)?, suffix), next));
    }
    let line = line::without_return(rest.get(..end)?);
    Some((Envelope::escaped(line, suffix), next))
}
