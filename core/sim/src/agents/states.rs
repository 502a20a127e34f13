//! The states that a run over many seeds must have hit, and how often it was in each.

macro_rules! states {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A state of native sessions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum State {
            $($(#[doc = $doc])+ $name,)+
        }

        impl State {
            /// Each of them, with its meaning.
            pub const ALL: [(Self, &'static str); [$(stringify!($name)),+].len()] =
                [$((Self::$name, concat!($($doc),+))),+];
        }
    };
}

states! {
    /// a full handshake
    Full,
    /// a resume
    Resume,
    /// a session was not held any more, and a full handshake followed
    NotHeld,
    /// a session was taken over by a full handshake
    TakenOver,
    /// a connection was superseded
    Superseded,
    /// two resumes raced
    Raced,
    /// RESUMED was lost
    ResumedLost,
    /// a HELLO was played back
    Replayed,
    /// a puzzle was solved
    Puzzle,
    /// an identity that was struck was told to solve a harder one
    PuzzleWanted,
    /// it solved that, and was let in
    PuzzleSolved,
    /// a handshake was answered by an ALERT
    Alert,
    /// a handshake took too long
    HandshakeTimeout,
    /// a bit was flipped on the path
    Flipped,
    /// a record was found out by its tag
    BadTag,
    /// a client closed over what somebody on the path did
    Blamed,
    /// a gap by lag
    GapLag,
    /// a gap by retention
    GapRetention,
    /// a gap by another life of the topic
    GapEpoch,
    /// a frame was too large for its reader
    GapTooLarge,
    /// a message was refused: FORBIDDEN
    NackForbidden,
    /// a message was refused: NO_ROUTE
    NackNoRoute,
    /// a message was refused: BUSY
    NackBusy,
    /// a message was refused: DUPLICATE
    NackDuplicate,
    /// a message was refused: STALE
    NackStale,
    /// a message was refused: TOO_LARGE
    NackTooLarge,
    /// a message was refused: OVERLOADED
    NackOverloaded,
    /// a message was taken, as a later connection was told
    TakenAcross,
    /// a message was not taken, and sent again over a later connection
    SentAgain,
    /// a message was below the window of a later connection
    BelowWindow,
    /// directs were lost, as a later connection was told
    DirectLost,
    /// what was queued for a peer came back, after a PONG
    Returned,
    /// a bridge was not handed what came over one
    BridgedLeftOut,
    /// a sender was out of tokens
    Held,
    /// a send was under way with bodies of logs in it, and was cancelled
    Cancelled,
    /// a topic was given up while a batch of it was under way
    UnsubscribedInFlight,
    /// a topic was made again after it was freed
    MadeAgain,
    /// somebody came to a topic
    Joined,
    /// somebody left a topic
    Left,
    /// an answer to a Who had several pages
    WhoPages,
    /// a question was refused
    AskRefused,
    /// a verdict
    Verdict,
    /// a verdict without readers, for who may not ask
    VerdictBlind,
    /// a verdict when all was at rest, so that its count was known
    ReadersCounted,
    /// a direct message
    Direct,
    /// an answer to a request
    Reply,
    /// the last piece of a stream
    StreamEnd,
    /// credit
    Credit,
    /// what a line client said was read as a frame
    LineAsFrame,
    /// what a native client said was read as a line
    FrameAsLine,
    /// what a line client of another shard said was read as a frame
    FarLineAsFrame,
    /// what a native client said was read as a line on another shard
    FrameAsFarLine,
    /// what a line client said was read as a line on another shard
    LineAsFarLine,
    /// a line client read what it had said over a connection of before
    OwnOfBefore,
    /// a line client of another shard was asked for
    FarIdentified,
    /// a connection went to the shard of its client
    HandedOver,
    /// a native client waited because other shards lagged
    LinkFullNative,
    /// a line client waited for a link
    LinkFull,
    /// a log ring had no room for all
    LogRingFull,
    /// a publish ring had no room for all
    PublishRingFull,
    /// what a ring brought found no room
    RingWaited,
    /// bytes that are no text were read as a line
    Base64,
    /// a line client at a listener of both dialects
    MixedLine,
    /// a native client at a listener of both dialects
    MixedNative,
    /// a proxy said for whom it connects
    Proxied,
    /// a proxy's client was refused
    ProxiedRefused,
    /// a reader left its own out
    OwnLeftOut,
    /// a reader had its own
    Echo,
    /// a PING of the relay was answered
    Pinged,
    /// a client was silent too long
    Silent,
    /// a session waited too long for its client
    Expired,
    /// a session gave way to others
    Evicted,
    /// a relay's CLOSE was answered
    ClosedByRelay,
    /// a client's CLOSE was answered
    ClosedByClient,
    /// a reader was cut
    Cut,
    /// memory was short for what was to be said
    Overloaded,
    /// a log of frames had no room
    LogFull,
    /// a digest was shared
    DigestShared,
    /// a reader caught up with what was retained
    CaughtUp,
    /// a key was changed
    Rekeyed,
    /// an identity came back with an epoch of before
    EpochBack,
    /// a stranger was turned away for its address
    StrangerRefused,
    /// somebody known was let in from an address that was refused
    KnownRefused,
    /// a session went on from an address that was refused
    ResumedRefused,
    /// a handshake gave way to another
    HalfEvicted,
    /// an identity had too many sessions
    TooManySessions,
}

/// How often each was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct States([u64; State::ALL.len()]);

impl Default for States {
    fn default() -> Self {
        Self([0; State::ALL.len()])
    }
}

impl States {
    /// Once more.
    pub(crate) fn hit(&mut self, state: State) {
        self.0[state as usize] += 1;
    }

    /// So often more.
    pub(crate) fn hits(&mut self, state: State, many: u64) {
        self.0[state as usize] += many;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Those that were hit less often than `least`.
    pub fn missed(&self, least: u64) -> impl Iterator<Item = State> + '_ {
        State::ALL.iter().map(|(state, _)| *state).filter(move |state| self.count(*state) < least)
    }
}
