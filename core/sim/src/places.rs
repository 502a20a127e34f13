//! The places that the simulator must have been to, and how often it was.

macro_rules! places {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Place {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Place {
            /// Each of them, with its meaning.
            pub const ALL: [(Self, &'static str); [$(stringify!($name)),+].len()] =
                [$((Self::$name, concat!($($doc),+))),+];
        }
    };
}

places! {
    /// a send was cut inside a message that an earlier send had begun
    CutInBegun,
    /// a send was cut inside the connection's own bytes
    CutInControl,
    /// a send was cut between two lines
    CutAtBoundary,
    /// a send was cut inside a message
    CutInMessage,
    /// a send was cut at the end of a link
    CutAtLinkEnd,
    /// a send was cut inside its second link
    CutInSecondLink,
    /// a send was cut inside its third link, or later
    CutInThirdLink,
    /// a send was cut at the end of a range of its gather
    CutAtRangeEnd,
    /// a send came to nothing: the socket was full
    CutAtNothing,
    /// a warning stood in the middle of messages
    WarningBetween,
    /// a gather was of 32 ranges
    GatherFull,
    /// a cursor jumped with a send in flight
    JumpInFlight,
    /// a send was cancelled before anything was taken
    CancelledEmpty,
    /// a send was cancelled after a part was taken
    CancelledPartly,
    /// a send was cancelled too late: all was taken
    CancelledWhole,
    /// a send failed
    SendFailed,
    /// a send waited for its peer
    SendWaited,
    /// a completion came for a slot that was another's
    LateReused,
    /// a completion came for a slot that was free
    LateFree,
    /// blocks ran out
    BlocksOut,
    /// segments ran out
    SegmentsOut,
    /// input waited for memory
    LogFull,
    /// a gap
    Gap,
    /// a cut for lag or for no progress
    Cut,
    /// a cut or gap for no progress alone
    NoProgress,
    /// senders were paced
    Pace,
    /// a sender was held back by the reference's slowdown
    Slowdown,
    /// input waited as backlog
    Backlog,
    /// a connection finished writing while it had a backlog
    BacklogAtEof,
    /// a last line came without its ending
    PartialLastLine,
    /// bytes came in after a pause
    Overrun,
    /// a reader was evicted for memory
    EvictedForMemory,
    /// a connection was evicted for a newcomer
    EvictedAtDoor,
    /// input found no block
    Overloaded,
    /// a sender's own run went on over links while it was behind
    OwnRunAcrossLinks,
    /// a reader was sent others' messages from between its own
    BetweenOwn,
    /// a rate was exceeded
    Rate,
    /// a line was over the limit
    LineTooLong,
    /// an envelope was over the limit
    EnvelopeTooLong,
    /// a line was not UTF-8
    BadUtf8,
    /// HTTP
    WrongDialect,
    /// a line was not finished in time
    Unfinished,
    /// a client was idle
    Idle,
    /// a newcomer was refused for the quarantine
    Quarantined,
    /// a newcomer was refused for another reason
    Refused,
    /// a proxy said for whom it connects
    Proxied,
    /// a proxy's client was refused
    ProxiedRefused,
    /// a proxy's header came in pieces
    HeaderInPieces,
    /// a proxy's header found no room
    HeaderNoRoom,
    /// a proxy was closed for want of a header
    NoProxyHeader,
    /// an address was struck
    Struck,
    /// a connection was reset
    Reset,
    /// a connection was closed at a deadline that it did not keep
    Lingered,
    /// a probe was answered
    Probe,
    /// readers waited for more and were sent to together
    Coalesced,
    /// the clock went back
    ClockBack,
    /// a shutdown met queues
    ShutdownWithQueues,
    /// a shutdown met sends in flight
    ShutdownInFlight,
    /// another shard's messages got their place at home
    Ordered,
    /// messages came to a replica
    Replicated,
    /// a replica got a message of its own shard back
    OwnReturned,
    /// messages were on their way to their home when a reader joined
    JoinedBetween,
    /// a replica began again
    ReplicaAgain,
    /// a publish ring was full
    PublishRingFull,
    /// a log ring was full
    LogRingFull,
    /// input waited for a link
    LinkFull,
    /// what a ring brought waited
    LinkWaited,
    /// what a ring brought found no room, and readers were cut
    ReplicaCut,
    /// a shard was stuck for a while
    Stuck,
    /// a shard was taken for dead
    LinkDead,
    /// a shard that was taken for dead went on
    LinkLost,
    /// a ban came from another shard
    BanAdopted,
}

/// How often each was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places([u64; Place::ALL.len()]);

impl Default for Places {
    fn default() -> Self {
        Self([0; Place::ALL.len()])
    }
}

impl Places {
    /// Once more.
    pub fn hit(&mut self, place: Place) {
        self.0[place as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, place: Place) -> u64 {
        self.0[place as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Those that were reached fewer than `least` times. For a header others give way: that it
    /// finds no room all the same is rare.
    pub fn missed(&self, least: u64) -> impl Iterator<Item = Place> + '_ {
        let least = move |place| if place == Place::HeaderNoRoom { 1 } else { least };
        let places = Place::ALL.iter().map(|(place, _)| *place);
        places.filter(move |place| self.count(*place) < least(*place))
    }
}
