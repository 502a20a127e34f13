//! The slots of native sessions: what a connection has beside [`Session`](crate::Session), and what
//! outlives it.

use bytemuck::Zeroable;

use crate::id::Ref;
use crate::native::handshake::SessionId;
use crate::native::handshake::server::{Held, ParkedAuth, ParkedResume, ParkedVerified};
use crate::native::{Identity, Key, Records, Window1024};
pub(super) use crate::prefix::Kin;
use crate::rate::Bucket;
use crate::storage::Slot;
use crate::time::Instant;

/// Batches that one send may hold.
pub(super) const BATCHES: usize = 8;

/// How far a native connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is none.
    #[default]
    None,
    /// Its HELLO is awaited.
    Hello,
    /// Its AUTH.
    Auth,
    /// It has been RESUMED; its first record is awaited.
    Waiting,
    /// It has a session.
    Live,
    /// It had one, or came to none: its last words are out, or nothing is to be said.
    Over,
}

impl Stage {
    /// Whether it is of somebody who has proved nothing yet.
    pub(super) const fn is_stranger(self) -> bool {
        matches!(self, Self::Hello | Self::Auth | Self::Waiting)
    }
}

/// What is sent in this order: so many of the connection's own bytes, then of the log of a topic.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(super) struct Batch {
    pub(super) own: u32,
    pub(super) body: u32,
    pub(super) cursor: Ref,
}

/// A native connection. Its slot has the number of its session's.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Native {
    stage: u8,
    /// It could not be told something: it is closed when it is come to.
    pub(super) doomed: u8,
    /// Batches that were sealed and are not sent yet.
    pub(super) batch_count: u8,
    /// The code of its CLOSE, plus one; 0: by what ended it.
    pub(super) last_code: u16,
    /// What it says besides.
    pub(super) last_detail: u16,
    /// What it is asked to wait before it comes back.
    pub(super) last_retry_ms: u32,
    pub(super) half: Ref,
    pub(super) entry: Ref,
    /// The topics that it has open, as cursors.
    pub(super) subs: Ref,
    pub(super) sub_count: u32,
    /// The one that is looked at first when it is sent to.
    pub(super) turn: Ref,
    /// The one that it published to last.
    pub(super) target: Ref,
    /// Bytes at the front of its input that are frames, checked already.
    pub(super) verified: u32,
    /// Bytes without which it makes no sense to look at its input again.
    pub(super) missing: u32,
    /// Where in its output the first record stands of which nothing was sent, and behind which
    /// all that peers said stands; plus one. 0: nothing of peers waits.
    pub(super) peers_from: u32,
    /// Answers that were put into its output since that was empty.
    pub(super) answers: u32,
    /// Bytes at the front of its input that are a control value, checked already.
    pub(super) control: u16,
    /// The shard that it goes to, plus one.
    pub(super) moves_to: u8,
    /// That is the body of a PING.
    pub(super) pinged: u8,
    /// How far what it waits for is: [`Asked`].
    asked: u8,
    /// How many replicas had been given up when it was asked for.
    pub(super) asked_at: u32,
    /// The number of the ask that waits.
    asked_for: u32,
    /// What other shards are yet to say of its messages: until then it has no PONG.
    pub(super) due: u32,
    pub(super) records: Records,
    pub(super) batches: [Batch; BATCHES],
    pub(super) messages: Bucket,
    pub(super) bytes: Bucket,
    pub(super) controls: Bucket,
    pub(super) born_at: Instant,
    pub(super) pings: u64,
    /// The handle of the session that it has, or had.
    pub(super) handle: u64,
}

const _: () = assert!(size_of::<Native>() <= 448);

/// How far that of another shard is that a connection waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    /// It waits for none.
    #[default]
    No,
    /// It was asked.
    Yes,
    /// There is no place for its topic.
    Refused,
    /// It was told.
    Answered,
}

impl Native {
    pub(super) const fn asked(&self) -> Asked {
        match self.asked {
            1 => Asked::Yes,
            2 => Asked::Refused,
            3 => Asked::Answered,
            _ => Asked::No,
        }
    }

    /// Its ask waits for another shard.
    pub(super) const fn asks(&mut self, ask: u32) {
        self.asked_for = ask;
        self.set_asked(Asked::Yes);
    }

    /// Whether that ask waits for another shard.
    pub(super) fn waits_for(&self, ask: u64) -> bool {
        self.asked() == Asked::Yes && u64::from(self.asked_for) == ask
    }

    pub(super) const fn set_asked(&mut self, asked: Asked) {
        self.asked = match asked {
            Asked::No => 0,
            Asked::Yes => 1,
            Asked::Refused => 2,
            Asked::Answered => 3,
        };
    }

    pub(super) const fn stage(&self) -> Stage {
        match self.stage {
            1 => Stage::Hello,
            2 => Stage::Auth,
            3 => Stage::Waiting,
            4 => Stage::Live,
            5 => Stage::Over,
            _ => Stage::None,
        }
    }

    pub(super) const fn set_stage(&mut self, stage: Stage) {
        self.stage = match stage {
            Stage::None => 0,
            Stage::Hello => 1,
            Stage::Auth => 2,
            Stage::Waiting => 3,
            Stage::Live => 4,
            Stage::Over => 5,
        };
    }

    /// Makes nobody of it.
    pub(super) fn wipe(&mut self) {
        self.records.wipe();
        *self = Self::zeroed();
    }
}

/// A handshake that is under way.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct HalfOpen {
    pub(super) next: Ref,
    pub(super) auth: ParkedAuth,
    pub(super) resume: ParkedResume,
    /// Who it is was proved, and it goes to the shard of its identity.
    pub(super) verified: ParkedVerified,
    /// The session that it waits to have, and the next one that does.
    pub(super) entry: Ref,
    pub(super) rival: Ref,
    pub(super) conn: Ref,
    /// Its row.
    pub(super) older: Ref,
    pub(super) younger: Ref,
    /// It was resumed, not challenged.
    pub(super) proved: u8,
    /// Which of the relay's keys CHALLENGE named.
    pub(super) key: u8,
}

impl HalfOpen {
    /// Makes nobody of it.
    pub(super) fn wipe(&mut self) {
        self.auth.wipe();
        self.resume.wipe();
        self.verified.wipe();
        *self = Self::zeroed();
    }
}

impl Slot for HalfOpen {
    fn free_next(&mut self) -> &mut Ref {
        &mut self.next
    }
}

/// A session: it outlives its connection for a while.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Entry {
    /// The next one of its bucket, or of the free ones.
    pub(super) next: Ref,
    pub(super) generation: u32,
    /// The generation from which on its window is what it is.
    pub(super) since: u32,
    /// Its connection; none while it waits for one.
    pub(super) conn: Ref,
    pub(super) device: u32,
    pub(super) identity: Identity,
    pub(super) epoch_ms: u64,
    pub(super) sid: SessionId,
    pub(super) rms: Key,
    pub(super) recv_max: u32,
    /// Connections that wait to have it.
    pub(super) rivals: Ref,
    /// The row of those that wait, oldest first.
    pub(super) older: Ref,
    pub(super) younger: Ref,
    /// The same, of its prefix.
    pub(super) kin: Kin,
    pub(super) window: Window1024,
    /// The number of the next frame of a peer that is queued for it.
    pub(super) direct: u64,
    pub(super) born_at: Instant,
    pub(super) lost_at: Instant,
    /// The session of its identity that has the buckets of all of them: it, or another.
    pub(super) chief: Ref,
    /// Of the chief: since when its identity has done nothing wrong.
    pub(super) good_since: Instant,
    pub(super) messages: Bucket,
    pub(super) bytes: Bucket,
    pub(super) deliveries: Bucket,
    pub(super) used: u8,
    /// Which of the relay's keys its client knows.
    pub(super) key: u8,
}

impl Entry {
    /// Whether it is over, and kept for what its identity spent.
    pub(super) fn is_spent(&self) -> bool {
        self.conn.is_none() && self.sid == [0; 16]
    }

    /// What a resume needs.
    pub(super) const fn held(&self) -> Held {
        Held { sid: self.sid, rms: self.rms, recv_max: self.recv_max }
    }

    /// Wipes it but for its generation.
    pub(super) fn wipe(&mut self) {
        self.rms.wipe();
        *self = Self { generation: self.generation, ..Self::zeroed() };
    }
}

impl Slot for Entry {
    fn free_next(&mut self) -> &mut Ref {
        &mut self.next
    }
}

/// A bucket of the table of sessions by identity.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
#[repr(transparent)]
pub struct EntryBucket(pub(super) Ref);

/// A bucket of the table of topics by name.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
#[repr(transparent)]
pub struct NameBucket(pub(super) Ref);

/// The digest of a stretch of a topic's frames.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Digest {
    pub(super) topic: Ref,
    pub(super) len: u32,
    pub(super) epoch: u64,
    pub(super) from: u64,
    pub(super) digest: [u8; 32],
}
