//! A topic: a name, a log, and who reads it.

use bytemuck::Zeroable;

use crate::fault::ConfigError;
use crate::id::Ref;
use crate::link::Shape;
use crate::log::Log;
use crate::relay::Patience;
use crate::storage::Slot;
use crate::time::Duration;

/// Readers of one topic that are told who comes and goes.
pub(crate) const WATCHERS_MAX: usize = 64;
/// The longest name of a topic, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A topic's slot.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Topic {
    name: [u8; NAME_BYTES_MAX],
    name_len: u8,
    pub(crate) touched: u8,
    pub(crate) log: Log,
    /// Cursors at the head.
    pub(crate) waiting: Ref,
    /// Readers that wait for more to come.
    pub(crate) patience: Patience,
    /// The shard that gives it its order, plus one; 0: this one.
    pub(crate) home: u8,
    /// Other shards that hold a replica of it, of lines or of frames.
    pub(crate) feeds: u8,
    /// How far the replica of its home's frames is: [`Mirror`].
    mirror: u8,
    /// Cursors in all.
    pub(crate) cursors: u32,
    /// Connections whose last send was short or did not complete at once.
    pub(crate) stalled: u32,
    /// Connections for which the senders are slowed.
    pub(crate) pacing: u32,
    /// Connections whose backlog waits for a turn, or for memory.
    pub(crate) queued: u32,
    /// What a sender waits after each message.
    pub(crate) hold: Duration,
    /// The turn that `taken` and `publishers` speak of.
    pub(crate) turn: u64,
    /// Outgoing bytes taken in this turn, at least 64 a message.
    pub(crate) taken: u32,
    /// Receives that published in this turn, and in the one before it that had any.
    pub(crate) publishers: u32,
    pub(crate) publishers_before: u32,
    /// The next of the topics that this turn appended to; or of the free ones.
    pub(crate) touched_next: Ref,
    /// What its native readers are sent, frames instead of lines.
    pub(crate) frames: Log,
    /// Native cursors at the head of that.
    pub(crate) frames_waiting: Ref,
    /// Native readers.
    pub(crate) readers: u32,
    /// Readers of both dialects on other shards, as far as is known here.
    pub(crate) elsewhere: u32,
    /// Native connections that have it open, readers among them.
    pub(crate) opened: u32,
    /// Native readers that are told who comes and goes: so many, at the front.
    pub(crate) watchers: u32,
    pub(crate) watching: [Ref; WATCHERS_MAX],
    /// Which topic of this name it is, since others had it before.
    pub(crate) epoch: u64,
    /// A listener is bound to it: it stays.
    pub(crate) bound: u8,
    /// The next one whose name falls into the same bucket.
    pub(crate) name_next: Ref,
    /// The number up to which a replica is to come before anybody reads it.
    pub(crate) ready: u64,
}

/// What a shard has of the frames of a topic whose home is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// Nothing.
    No,
    /// What the home appends is appended.
    Live,
    /// It has a hole, or nobody wants it: the home is told so once nobody has it open.
    Over,
}

impl Slot for Topic {
    fn free_next(&mut self) -> &mut Ref {
        &mut self.touched_next
    }
}

impl Topic {
    /// A topic of that name.
    ///
    /// # Errors
    /// The name's: see [`ConfigError::TopicName`].
    pub(crate) fn named(name: &str) -> Result<Self, ConfigError> {
        let bytes = name.as_bytes();
        let reserved = |c: char| c.is_control() || matches!(c, '*' | '>' | '+' | '#');
        let bad = bytes.is_empty() || name.starts_with('$') || name.contains(reserved);
        let mut topic = Self::zeroed();
        if bad || bytes.len() > NAME_BYTES_MAX {
            return Err(ConfigError::TopicName);
        }
        crate::storage::copy(&mut topic.name, bytes);
        topic.name_len = u8::try_from(bytes.len()).unwrap_or(0);
        Ok(topic)
    }

    /// Its name; empty for a free slot.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.get(..usize::from(self.name_len)).unwrap_or_default()
    }

    /// The other shard that gives it its order.
    pub(crate) const fn home(&self) -> Option<u8> {
        self.home.checked_sub(1)
    }

    pub(crate) const fn mirror(&self) -> Mirror {
        match self.mirror {
            1 => Mirror::Live,
            2 => Mirror::Over,
            _ => Mirror::No,
        }
    }

    pub(crate) const fn set_mirror(&mut self, mirror: Mirror) {
        self.mirror = match mirror {
            Mirror::No => 0,
            Mirror::Live => 1,
            Mirror::Over => 2,
        };
    }

    /// One of its logs.
    pub(crate) const fn log_of(&self, shape: Shape) -> &Log {
        match shape {
            Shape::Lines => &self.log,
            Shape::Frames => &self.frames,
        }
    }

    /// One of its logs, and the cursors at its head.
    pub(crate) const fn log_of_mut(&mut self, shape: Shape) -> (&mut Log, &mut Ref) {
        match shape {
            Shape::Lines => (&mut self.log, &mut self.waiting),
            Shape::Frames => (&mut self.frames, &mut self.frames_waiting),
        }
    }

    /// Readers of both dialects on this shard; a feed is none.
    pub(crate) fn own_readers(&self) -> u32 {
        self.readers.saturating_add(self.cursors).saturating_sub(u32::from(self.feeds))
    }

    /// Readers of both dialects on all shards.
    pub(crate) fn all_readers(&self) -> u32 {
        self.own_readers().saturating_add(self.elsewhere)
    }

    /// Whether other shards have to do with it.
    pub(crate) const fn is_linked(&self) -> bool {
        (self.home | self.feeds) != 0
    }

    /// Whether a message may not simply be appended, while links are `full` or not.
    pub(crate) const fn asks_links(&self, full: bool) -> bool {
        (self.home != 0) | full
    }

    /// Whether what is published is to be kept for native clients.
    pub(crate) const fn wants_frames(&self, retention_bytes: u32) -> bool {
        self.readers > 0 || (retention_bytes > 0 && (self.opened > 0 || !self.frames.is_empty()))
    }

    /// One more reader that is told who comes and goes, for which there is room.
    pub(crate) fn watch(&mut self, cursor: Ref) {
        if let Some(free) = self.watching.get_mut(self.watchers as usize) {
            *free = cursor;
            self.watchers = self.watchers.saturating_add(1);
        }
    }

    /// One less.
    pub(crate) fn unwatch(&mut self, cursor: Ref) {
        let count = self.watchers as usize;
        let watching = self.watching.get_mut(..count).unwrap_or_default();
        let Some(at) = watching.iter().position(|of| *of == cursor) else { return };
        watching.swap(at, count.saturating_sub(1));
        self.watchers = self.watchers.saturating_sub(1);
    }

    /// Whether it is there for native clients.
    pub(crate) const fn speaks_native(&self) -> bool {
        self.opened > 0 || !self.frames.is_empty()
    }

    /// Begins to count anew where `turn` is another one.
    pub(crate) fn enter(&mut self, turn: u64) {
        if self.turn != turn {
            self.turn = turn;
            self.taken = 0;
            if self.publishers > 0 {
                self.publishers_before = self.publishers;
            }
            self.publishers = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn names() {
        let longest = "x".repeat(64);
        for name in ["main", "a/b.c-d_e", "ünï", " ", longest.as_str(), "a$"] {
            assert_eq!(Topic::named(name).expect(name).name(), name.as_bytes());
        }
        let too_long = "x".repeat(65);
        for name in ["", "$SYS", "a*", "a>", "+", "#", "a\nb", "a\u{7f}", too_long.as_str()] {
            assert_eq!(Topic::named(name).err(), Some(ConfigError::TopicName), "{name:?}");
        }
    }
}
