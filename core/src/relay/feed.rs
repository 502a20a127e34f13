//! Feeds: what other shards are sent of our logs.
//!
//! A feed is the cursor by which another shard reads a log of ours, of lines or of frames; both
//! are served by the same rules, and a topic may have one of each for a shard.

use super::Relay;
use super::native::{oldest_frame, whole_frames};
use crate::cursor::{self, Cursor};
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::link::{FEED_BYTES, Feed, HEADER, Header, Shape, kind, session_at};
use crate::log::{Log, run, run_after};
use crate::storage::{Memory, Pool};

impl<P: Pool> Relay<'_, P> {
    /// A topic was appended to: those of its feeds that are behind have something to say.
    pub(super) fn list_feeds(&mut self, topic: Ref) {
        if self.topics.at(topic).feeds == 0 {
            return;
        }
        for (other, shape) in self.links.others_by_shape() {
            let feed = self.links.feed_at(topic, other, shape);
            let Some(cursor) = self.links.feed(feed).cursor.some() else { continue };
            if self.cursors.at(cursor).is_behind() {
                self.links.list(other, feed);
                self.count_lag(other, feed);
            }
        }
    }

    /// Counts how far a feed lags, into its shard's lag.
    fn count_lag(&mut self, shard: u8, feed: Ref) {
        let (topic, shape) = self.links.topic_of(feed);
        let lag = match self.links.feed(feed).cursor.some() {
            Some(cursor) if self.cursors.at(cursor).is_behind() => {
                let head = self.topics.at(topic).log_of(shape).head;
                head.saturating_sub(self.cursors.at(cursor).pos)
            }
            Some(_) | None => 0,
        };
        let before = core::mem::replace(&mut self.links.feed_mut(feed).lag, lag);
        let peer = self.links.peer_mut(shard);
        peer.lag = peer.lag.saturating_add(lag).saturating_sub(before);
        let pool = self.limits.pool_bytes();
        let lags = self.links.peers.iter().map(|peer| peer.lag);
        let (most, all) =
            lags.fold((0_u64, 0_u64), |(most, all), lag| (most.max(lag), all.saturating_add(lag)));
        let full = most > pool / 8 || all > pool / 4;
        // Who waited for that may be gone on with.
        self.links.eased |= self.links.full && !full;
        self.links.full = full;
    }

    pub(super) fn drop_feed(&mut self, topic: Ref, shard: u8, shape: Shape) {
        let at = self.links.feed_at(topic, shard, shape);
        let Some(cursor) = core::mem::take(&mut self.links.feed_mut(at).cursor).some() else {
            return;
        };
        let item = self.topics.at_mut(topic);
        let (log, waiting) = item.log_of_mut(shape);
        cursor::leave(&mut self.cursors, &mut self.memory, waiting, cursor);
        self.cursors.give(cursor);
        match shape {
            Shape::Lines => log.trim(&mut self.memory),
            Shape::Frames => self.trim_frames(topic),
        }
        let item = self.topics.at_mut(topic);
        item.feeds = item.feeds.saturating_sub(1);
        match shape {
            Shape::Lines => item.cursors = item.cursors.saturating_sub(1),
            Shape::Frames => {
                item.readers = item.readers.saturating_sub(1);
                item.opened = item.opened.saturating_sub(1);
            }
        }
        self.links.feed_mut(at).start = 0;
        self.count_lag(shard, at);
    }

    /// Another shard has readers of a topic of ours: from here on it is sent what is appended; and
    /// of frames what is kept, too. To the log that is one reader.
    pub(super) fn make_feed(&mut self, topic: Ref, shard: u8, shape: Shape, epoch: u32) {
        self.drop_feed(topic, shard, shape);
        let Some(cursor) = self.cursors.take() else {
            invariant_failed("fewer cursors than feeds");
        };
        let session = self.links.peer(shard).session;
        let item = self.topics.at_mut(topic);
        item.feeds = item.feeds.saturating_add(1);
        let (place, number) = match shape {
            Shape::Lines => {
                item.cursors = item.cursors.saturating_add(1);
                (None, item.log.messages)
            }
            Shape::Frames => {
                item.readers = item.readers.saturating_add(1);
                item.opened = item.opened.saturating_add(1);
                oldest_frame(&self.memory, &item.frames)
            }
        };
        let (log, waiting) = item.log_of_mut(shape);
        *self.cursors.at_mut(cursor) = Cursor::new(session, log.head);
        cursor::wait(&mut self.cursors, waiting, cursor);
        if let Some(place) = place {
            cursor::stand(&mut self.cursors, &mut self.memory, waiting, cursor, place);
        }
        let at = self.links.feed_at(topic, shard, shape);
        let Feed { next, listed, readers, .. } = *self.links.feed(at);
        let feed = Feed { cursor, next, listed, start: 1, epoch, number, lag: 0, readers };
        *self.links.feed_mut(at) = feed;
        self.links.list(shard, at);
        self.count_lag(shard, at);
    }

    /// So many read a topic of ours on another shard.
    pub(super) fn count_readers(&mut self, topic: Ref, shard: u8, readers: u32) {
        if cfg!(wardline_mutant = "far_readers_are_one") {
            return;
        }
        let at = self.links.feed_at(topic, shard, Shape::Lines);
        let before = core::mem::replace(&mut self.links.feed_mut(at).readers, readers);
        let item = self.topics.at_mut(topic);
        item.elsewhere = item.elsewhere.saturating_add(readers).saturating_sub(before);
    }

    /// Readers of a topic of ours elsewhere, as another shard sees it.
    pub(super) fn readers_beyond(&self, topic: Ref, shard: u8) -> u32 {
        let there = self.links.feed(self.links.feed_at(topic, shard, Shape::Lines)).readers;
        self.topics.at(topic).all_readers().saturating_sub(there)
    }

    /// What a feed has to say, as far as there is room and it is its turn; and whether that was
    /// not all.
    pub(super) fn serve(&mut self, to: u8, at: Ref, room: &mut [u8]) -> (usize, bool) {
        let (topic, shape) = self.links.topic_of(at);
        let feed = *self.links.feed(at);
        let mut done = 0_usize;
        let Some(cursor) = feed.cursor.some() else { return (0, false) };
        if feed.start != 0 {
            done = match shape {
                Shape::Lines => {
                    let Some((head, _)) = room.split_at_mut_checked(HEADER) else {
                        return (0, true);
                    };
                    let (topic, epoch, number) = (topic.index(), feed.epoch, feed.number);
                    let header = Header { topic, epoch, number, ..Header::default() };
                    Header { kind: kind::START, ..header }.write(head);
                    HEADER
                }
                Shape::Frames => self.begin_replica(to, topic, feed.number, room),
            };
            if done == 0 {
                return (0, true);
            }
            self.links.feed_mut(at).start = 0;
        }
        let mut more = false;
        while self.cursors.at(cursor).is_behind() {
            let rest = room.get_mut(done..).unwrap_or_default();
            let len = if done < FEED_BYTES { self.feed_run(to, at, cursor, rest) } else { 0 };
            more = len == 0;
            if more {
                break;
            }
            done = done.saturating_add(len);
        }
        self.count_lag(to, at);
        (done, more)
    }

    /// One record: messages of one author, whole ones. 0: no room.
    fn feed_run(&mut self, to: u8, at: Ref, cursor: Ref, room: &mut [u8]) -> usize {
        let (topic, shape) = self.links.topic_of(at);
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let longest = match shape {
            Shape::Lines => self.limits.line.envelope_bytes_max,
            Shape::Frames => self.limits.link_content_max(),
        };
        let most = rest.len().min(longest as usize);
        let rest = rest.get_mut(..most).unwrap_or_default();
        let log = self.topics.at(topic).log_of(shape);
        let Cursor { link, pos, .. } = *self.cursors.at(cursor);
        let (len, author) = copy_run(&self.memory, log, link, pos, rest);
        let copied = rest.get(..len).unwrap_or_default();
        let (len, messages) = match shape {
            Shape::Lines => whole_lines(copied),
            Shape::Frames => whole_frames(copied),
        };
        if len == 0 {
            if most >= longest as usize {
                invariant_failed("a message that no record can hold");
            }
            return 0;
        }
        let len_u32 = u32::try_from(len).unwrap_or(u32::MAX);
        let own = !cfg!(wardline_mutant = "author_not_translated");
        let author = if own { session_at(author, to) } else { author.0 & 0x00FF_FFFF };
        let number = self.links.feed(at).number;
        Header {
            kind: if shape == Shape::Lines { kind::LOG } else { kind::FRAMES },
            topic: topic.index(),
            author,
            messages,
            len: len_u32,
            epoch: if shape == Shape::Frames { self.readers_beyond(topic, to) } else { 0 },
            number,
        }
        .write(head);
        self.links.feed_mut(at).number = number.saturating_add(u64::from(messages));
        self.move_feed(topic, shape, cursor, len_u32);
        self.stats.link_bytes.add(len as u64);
        HEADER.saturating_add(len)
    }

    /// Moves the cursor of a feed `len` bytes on; at the head it waits.
    fn move_feed(&mut self, topic: Ref, shape: Shape, cursor: Ref, len: u32) {
        let (log, waiting) = self.topics.at_mut(topic).log_of_mut(shape);
        let Cursor { mut link, pos, .. } = *self.cursors.at(cursor);
        let pos = pos.saturating_add(u64::from(len));
        if pos >= log.head {
            cursor::leave(&mut self.cursors, &mut self.memory, waiting, cursor);
            cursor::wait(&mut self.cursors, waiting, cursor);
        } else {
            while pos >= end_of(&self.memory, link) {
                link = self.memory.at(link).next;
            }
            self.cursors.at_mut(cursor).pos = pos;
            cursor::relink(&mut self.cursors, &mut self.memory, cursor, link);
        }
        match shape {
            Shape::Lines => log.trim(&mut self.memory),
            Shape::Frames => self.trim_frames(topic),
        }
    }
}

/// How many bytes at the front of some are whole lines, and how many lines.
fn whole_lines(bytes: &[u8]) -> (usize, u32) {
    let len = memchr::memrchr(b'\n', bytes).map_or(0, |end| end.saturating_add(1));
    let lines = memchr::memchr_iter(b'\n', bytes.get(..len).unwrap_or_default()).count();
    (len, u32::try_from(lines).unwrap_or(u32::MAX))
}

fn end_of<P: Pool>(memory: &Memory<'_, P>, link: Ref) -> u64 {
    let link = memory.at(link);
    link.base.saturating_add(u64::from(link.used))
}

/// Copies what one author wrote from `pos` on, over links, as far as `room` goes. Gives how many
/// bytes, and the author.
fn copy_run<P: Pool>(
    memory: &Memory<'_, P>,
    log: &Log,
    mut link: Ref,
    mut pos: u64,
    room: &mut [u8],
) -> (usize, Ref) {
    let mut done = 0_usize;
    let mut author = Ref::NONE;
    while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let item = memory.at(link);
        let offset = u32::try_from(pos.saturating_sub(item.base)).unwrap_or(u32::MAX);
        if offset >= item.used {
            if link == log.newest {
                break;
            }
            link = item.next;
            continue;
        }
        let (end, of) = run(memory, link, run_after(memory, link, offset));
        if done > 0 && of != author {
            break;
        }
        author = of;
        let bytes = memory.bytes(link, offset, end.saturating_sub(offset));
        let len = crate::storage::copy(rest, bytes);
        done = done.saturating_add(len);
        pos = pos.saturating_add(len as u64);
    }
    (done, author)
}
