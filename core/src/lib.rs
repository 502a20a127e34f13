//! The heart of the Wardline relay: a state machine that decides, while a frontend carries.
//!
//! It owns positions, counters, deadlines and the memory that its caller lent it. It knows no
//! socket, clock, thread, randomness or heap: time and entropy are arguments. See [`Relay`] for the
//! seam, [`pump`] for the loop that every frontend runs, and ARCHITECTURE.md for the idea: the log
//! is the queue.
#![no_std]
#![forbid(unsafe_code)]
// Slots have the same fields whether anybody speaks the native dialect or not.
#![cfg_attr(not(feature = "native-sessions"), allow(dead_code))]
#![warn(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_arithmetic
)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
    )
)]

mod access;
mod chain;
mod cursor;
mod event;
mod fault;
mod id;
mod limits;
pub mod line;
mod link;
mod log;
pub mod native;
mod prefix;
pub mod proxy;
mod pump;
mod quarantine;
mod queue;
mod rate;
mod relay;
mod session;
mod stats;
mod storage;
mod time;
mod topic;
mod wheel;

pub use access::{Access, Right};
pub use cursor::Cursor;
pub use event::{Event, NotRelayed, Reason};
pub use fault::{ConfigError, PeerFault, Refusal};
pub use id::{ConnId, TopicId};
pub use limits::{
    COALESCE_MAX, LagRule, Limits, LineLimits, NativeLimits, ProxyLimits, QuarantineLimits,
    RESERVE, Slowdown,
};
pub use link::{
    Far, Feed, HEADER as LINK_HEADER, Homes, LinkSlots, LinkTaken, Peer, Ring, SHARDS_MAX, home_of,
};
pub use prefix::{Network, Prefix, PrefixBucket, PrefixSlot};
pub use pump::{Carrier, Next, Started, pump, send};
pub use quarantine::{Ban, Offence, Verdict};
pub use rate::{Bucket, Rate};
#[cfg(feature = "native-sessions")]
pub use relay::{Digest, Entry, EntryBucket, HalfOpen, Handover, NameBucket, Native, NativeSlots};
pub use relay::{GATHER_MAX, Gather, Output, Relay, Remote, Show, Slots, Tap};
pub use session::Session;
pub use stats::{Counter, Stats};
pub use storage::{Link, Pool, Range};
pub use time::{Duration, Instant};
pub use topic::Topic;
pub use wheel::WheelSlot;
