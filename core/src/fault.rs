//! Faults, typed by who caused them: a peer, a stranger at the door, the operator, or ourselves.

use crate::native::Code;
use crate::native::handshake::Alert;
use crate::time::Duration;

/// What a peer did to have its connection ended. Bounded work, never a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// A line was not UTF-8.
    BadUtf8,
    /// The first line began like an HTTP request.
    WrongDialect,
    /// A line was begun and not finished in time.
    Unfinished,
    /// It did not read what was sent to it.
    SlowReader,
    /// No byte came from it, and it acknowledged none.
    Idle,
    /// The relay had no block left for input already read.
    Overloaded,
    /// It was evicted for a newcomer, or for the memory that it pinned.
    Evicted,
    /// A proxy did not say for whom it connects.
    NoProxyHeader,
    /// What the native dialect calls it.
    Native(Code),
}

impl PeerFault {
    /// A word for logs and counters.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadUtf8 => "bad_utf8",
            Self::WrongDialect => "wrong_dialect",
            Self::Unfinished => "unfinished",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Overloaded => "overloaded",
            Self::Evicted => "evicted",
            Self::NoProxyHeader => "no_proxy_header",
            Self::Native(code) => code.word(),
        }
    }

    /// What happened, in a sentence for the operator.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::BadUtf8 => "it sent a line that is not UTF-8",
            Self::WrongDialect => "it spoke HTTP",
            Self::Unfinished => "it did not finish its line in time",
            Self::SlowReader => "it read too slowly",
            Self::Idle => "nothing came from it, and it acknowledged nothing",
            Self::Overloaded => "no memory was left for what it had sent",
            Self::Evicted => "it gave way to others",
            Self::NoProxyHeader => "its proxy did not say for whom it connects (PROXY, version 2)",
            Self::Native(code) => code.sentence(),
        }
    }
}

/// Why a connection was not taken. The socket is closed by the frontend after it has tried to send
/// [`Refusal::alert`] where [`TopicId::is_native`](crate::TopicId::is_native), else
/// [`Refusal::warning`]; a client of a proxy is sent it by the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The address is in quarantine for so long yet.
    Quarantined(Duration),
    /// No slot is free and nobody gives way.
    TooManyConnections,
    /// The address holds too many connections while the relay fills.
    TooManyFromAddress,
    /// Too little memory is free to take strangers.
    Overloaded,
    /// The relay is shutting down.
    ShuttingDown,
    /// The listener is not one of this relay's.
    NoListener,
}

impl Refusal {
    /// A word for logs and counters.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Quarantined(_) => "quarantined",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyFromAddress => "too_many_from_address",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::NoListener => "no_listener",
        }
    }

    /// What a client of the native dialect is told. PROTOCOL.md 2.2.7.
    #[must_use]
    pub fn alert(self) -> Alert {
        match self {
            Self::Quarantined(span) => {
                let retry_ms = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
                Alert::new(Code::Quarantined, retry_ms)
            }
            Self::TooManyConnections | Self::TooManyFromAddress => {
                Alert::new(Code::TooManyConnections, 0)
            }
            Self::Overloaded => Alert::new(Code::Overloaded, 0),
            Self::ShuttingDown => Alert::new(Code::GoingAway, 0),
            Self::NoListener => Alert::new(Code::Internal, 0),
        }
    }

    /// A sentence for the client, a whole line of the line dialect.
    #[must_use]
    pub const fn warning(self) -> &'static str {
        match self {
            Self::Quarantined(_) => {
                "Warning: Your address is refused for a while. Please come back later.\n"
            }
            Self::TooManyConnections => "Warning: The relay is full. Please come back later.\n",
            Self::TooManyFromAddress => "Warning: Your address has too many connections.\n",
            Self::Overloaded => "Warning: The relay is overloaded. Please come back later.\n",
            Self::ShuttingDown => "Warning: Server is shutting down.\n",
            Self::NoListener => "Warning: Nobody listens here.\n",
        }
    }
}

/// What the operator asked for that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `connections` is 0 or over 2^24 - 34.
    Connections,
    /// `topics` is 0 or over 2^24 - 2.
    Topics,
    /// Fewer than 8 blocks, or blocks not of 128 B to 1 MiB.
    Blocks,
    /// Segments smaller than a block or over 16 MiB.
    Segments,
    /// The pool is over 4 GiB.
    PoolTooLarge,
    /// `line.max_bytes` is not of 64 B to 1 MiB.
    LineBytes,
    /// `line.max_out_bytes` is not of 128 B to 8 MiB, or over a quarter of the pool, or over half
    /// of what one log can hold.
    EnvelopeBytes,
    /// The bytes per turn, share, receive, backlog or send contradict each other.
    TurnBytes,
    /// `line.coalesce` is over 50 ms.
    Coalesce,
    /// The quarantine's threshold or leak is zero.
    Quarantine,
    /// The slots lent are fewer than the limits say.
    SlotsMissing,
    /// The pool lent is smaller than the limits say.
    PoolMissing,
    /// A topic's name is empty, over 64 bytes, or holds characters that names may not.
    TopicName,
    /// No slot is left for another topic or listener.
    Full,
    /// There are 1 to 16 shards.
    Shards,
    /// A limit of the native dialect is out of its bounds.
    Native,
    /// `native.max_payload` is over a quarter of the pool, or over half of what one log can hold.
    NativeBytes,
    /// The native dialect is not spoken over several shards.
    NativeShards,
    /// There is no key to prove who the relay is.
    NativeKey,
}

impl ConfigError {
    /// What is wrong, in a sentence for the operator.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Connections => "connections must be 1 to 16777182",
            Self::Topics => "topics must be 1 to 16777214",
            Self::Blocks => "there must be at least 8 blocks, of 128 B to 1 MiB each",
            Self::Segments => "segments must be no smaller than a block and at most 16 MiB",
            Self::PoolTooLarge => "blocks and segments together must stay below 4 GiB",
            Self::LineBytes => "line.max_bytes must be 64 B to 1 MiB",
            Self::EnvelopeBytes => {
                "line.max_out_bytes must be 128 B to 8 MiB and at most a quarter of the pool and half of a log"
            }
            Self::TurnBytes => "the bytes per turn, share, receive, backlog or send do not fit",
            Self::Coalesce => "line.coalesce must be at most 50ms",
            Self::Quarantine => "the quarantine's threshold and leak must not be zero",
            Self::SlotsMissing => "fewer slots were lent than the limits say",
            Self::PoolMissing => "less pool memory was lent than the limits say",
            Self::TopicName => {
                "a topic's name is 1 to 64 bytes without control characters, *, >, +, # or a leading $"
            }
            Self::Shards => "there can be 1 to 16 shards",
            Self::Native => {
                "native.max_payload must be 1 KiB to 1 MiB, puzzles at most 22 bits, and there must be a session and a subscription"
            }
            Self::NativeBytes => {
                "native.max_payload must be at most a quarter of the pool and half of a log"
            }
            Self::NativeShards => "native sessions are on the shard that is home to all topics",
            Self::NativeKey => "a native listener needs a key",
            Self::Full => "no slot is left for another topic or listener",
        }
    }
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.sentence())
    }
}

impl core::error::Error for ConfigError {}

/// Our own fault: something that the code promises does not hold. Kept in release builds; the only
/// place in this crate that panics.
#[cold]
#[inline(never)]
pub(crate) fn invariant_failed(what: &'static str) -> ! {
    #[allow(clippy::panic, reason = "the one place")]
    {
        panic!("wardline-core: broken invariant: {what}")
    }
}
