//! What an operator may want to read: a bounded ring, with a counter of what it dropped.

use crate::fault::{PeerFault, Refusal};
use crate::id::{ConnId, TopicId};

/// Why a line was not relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRelayed {
    /// Over the rate.
    Rate,
    /// Over the limit of lines.
    LineTooLong,
    /// Its envelope was over the limit.
    EnvelopeTooLong,
    /// Not UTF-8; the connection is closed.
    BadUtf8,
    /// HTTP on the first line; the connection is closed.
    WrongDialect,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer finished, or its socket failed.
    Peer,
    /// What the peer did.
    Fault(PeerFault),
    /// Its proxy said for whom it connects, and that client is not taken.
    Refused(Refusal),
    /// The relay is shutting down.
    Shutdown,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// Nothing: an empty slot of the ring.
    #[default]
    None,
    /// A connection begins to end.
    Leaving {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: Reason,
    },
    /// A line was taken as message `number` of `topic`; only with `report_messages`.
    Published {
        /// The sender.
        conn: ConnId,
        /// The topic.
        topic: TopicId,
        /// Its number there. Messages that nobody could have read have no number.
        number: Option<u64>,
    },
    /// A line was not relayed; only with `report_messages`.
    NotRelayed {
        /// The sender.
        conn: ConnId,
        /// Why.
        why: NotRelayed,
    },
    /// A reader's cursor jumped.
    Gap {
        /// The reader.
        conn: ConnId,
        /// The first message that it will not have.
        from: u64,
        /// The first one that it may have again.
        to: u64,
    },
    /// The senders of a topic are slowed for a reader.
    Paced {
        /// The reader.
        conn: ConnId,
        /// The topic.
        topic: TopicId,
    },
    /// Messages that another shard took got their place in a topic of this one; only with
    /// `report_messages`.
    Ordered {
        /// Which shard.
        shard: u8,
        /// The topic.
        topic: TopicId,
        /// The number of the first of them. None: nobody could have read them.
        number: Option<u64>,
        /// How many.
        messages: u32,
    },
    /// A replica of a topic of another shard begins; only with `report_messages`.
    ReplicaBegins {
        /// The topic.
        topic: TopicId,
        /// The number of its first message.
        number: u64,
    },
    /// Messages came to a replica; only with `report_messages`.
    Replicated {
        /// The topic.
        topic: TopicId,
        /// The number of the first of them.
        number: u64,
        /// How many.
        messages: u32,
    },
    /// Another shard gave no sign of life for ten seconds: it is not waited for any more.
    LinkDead {
        /// Which.
        shard: u8,
    },
    /// Another shard had taken this one for dead: readers of its topics were cut.
    LinkLost {
        /// Which.
        shard: u8,
    },
    /// A proxy said for whom it connects: from now on the connection is at that address.
    Proxied {
        /// Which.
        conn: ConnId,
    },
    /// An address, or an identity, was struck by the quarantine.
    Struck {
        /// A connection of it.
        conn: ConnId,
        /// How often before, and this time.
        strikes: u8,
        /// For how many seconds its newcomers are refused, or an identity solves a puzzle at its
        /// second strike; 0: they are only slowed.
        seconds: u32,
        /// It is the identity of the connection, not its address.
        identity: bool,
    },
}

impl Event {
    /// The connection that it speaks of, if it speaks of one.
    #[must_use]
    pub const fn conn(self) -> Option<ConnId> {
        match self {
            Self::None
            | Self::Ordered { .. }
            | Self::ReplicaBegins { .. }
            | Self::Replicated { .. }
            | Self::LinkDead { .. }
            | Self::LinkLost { .. } => None,
            Self::Leaving { conn, .. }
            | Self::Published { conn, .. }
            | Self::NotRelayed { conn, .. }
            | Self::Gap { conn, .. }
            | Self::Paced { conn, .. }
            | Self::Proxied { conn }
            | Self::Struck { conn, .. } => Some(conn),
        }
    }
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Events<'s> {
    slots: &'s mut [Event],
    first: usize,
    len: usize,
}

impl<'s> Events<'s> {
    pub(crate) fn new(slots: &'s mut [Event]) -> Self {
        Self { slots, first: 0, len: 0 }
    }

    /// Whether there was room.
    #[must_use]
    pub(crate) fn push(&mut self, event: Event) -> bool {
        if self.len >= self.slots.len() {
            return false;
        }
        let at = self.first.saturating_add(self.len);
        let at = at.checked_rem(self.slots.len()).unwrap_or(0);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = event;
            self.len = self.len.saturating_add(1);
        }
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        if self.len == 0 {
            return None;
        }
        let event = self.slots.get(self.first).copied();
        self.first = self.first.saturating_add(1).checked_rem(self.slots.len()).unwrap_or(0);
        self.len = self.len.saturating_sub(1);
        event
    }
}
