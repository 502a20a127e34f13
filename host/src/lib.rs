//! What a Wardline relay needs of an operating system: settings, sockets, clock, entropy, lent
//! memory, signals, and logs. What relays is elsewhere: `wardline-core` decides, and a frontend
//! carries.
#![forbid(unsafe_code)]

pub mod access;
pub mod bells;
pub mod callers;
pub mod clock;
pub mod counters;
pub mod events;
pub mod files;
pub mod links;
pub mod logging;
pub mod messages;
pub mod net;
pub mod open_files;
pub mod orders;
pub mod pin;
pub mod plan;
pub mod settings;
pub mod signals;
pub mod storage;

#[cfg(test)]
mod scratch;
