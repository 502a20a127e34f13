//! The handshake: who is there, proved by both, and the keys of everything after it.
//! PROTOCOL.md 2.2.
//!
//! Each step of [`server`] and [`client`] takes a state by value and gives the next one, or an end
//! with its code. A state can be had only from the step before it, so that who holds a
//! [`server::Verified`] has verified, and a check that is skipped does not compile. Time and
//! entropy are arguments.
//!
//! ```text
//!   client  Attempt --HELLO--> AwaitAnswer --CHALLENGE--> Challenged --AUTH--> AwaitAccept
//!                                   |                                              | ACCEPT
//!                                   +--RESUMED--------------------------------> Connected
//!
//!   server  AwaitHello -> Greeted -> Admitted -+-> Unproven -> Budgeted --CHALLENGE--> AwaitAuth
//!                                   (address)  |            (CPU budget)
//!                                              +-> ProvenResume --RESUMED--> Waiting -> Resumed
//!                                                 (ban, permission)    (first valid record)
//!           AwaitAuth -> Claimed -> Funded -> Verified -> Allowed --ACCEPT--> Established
//!                      (puzzle) (CPU budget) (DH, tag,  (permission, ban, sessions)
//!                                             signature)
//! ```

pub mod client;
mod message;
mod puzzle;
mod resume;
pub(crate) mod schedule;
pub mod server;

pub use message::{
    Accept, Alert, Auth, Challenge, FEATURES, Granted, HEADER_BYTES, Hello, MAGIC, PUZZLE_BITS_MAX,
    Progress, RECV_MAX_MIN, Resumed, Type, VERSION, progress,
};
pub use puzzle::{Puzzle, Solve};
pub use schedule::SessionId;

use super::bytes::u64_at;

/// The handle in a session's id: where to look for the session. PROTOCOL.md 2.2.2.
#[must_use]
pub fn handle_of(sid: &SessionId) -> u64 {
    u64_at(sid, 0)
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_resume;
