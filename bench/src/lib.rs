//! The load generator of Wardline, the blind relay that it measures against, and what both need.
//!
//! `load --help` shows how it is used. Inside, a message goes: [`traffic`] has a publisher write a
//! [`line`](mod@line), the [`server`] under test relays it, `traffic` checks it at every receiver
//! and counts it in the [`window`]; [`run`] makes rounds of that, [`process`] asks the kernel what
//! the server spent, [`stats`] compares, [`report`] tells.
//!
//! It measures by what Linux says of processes, so elsewhere this library is empty.

// But for one module, which says why.
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod away;
pub mod back;
pub mod blind;
pub mod blind_ring;
pub mod cli;
mod cli_compare;
pub mod clients;
pub mod compare;
pub mod connects;
pub mod daemons;
pub mod idle;
pub mod interrupt;
pub mod line;
pub mod native;
pub mod peer;
pub mod poll;
pub mod process;
pub mod progress;
pub mod report;
pub mod round;
pub mod run;
pub mod server;
pub mod start;
pub mod stats;
pub mod traffic;
pub mod trips;
pub mod window;
pub mod wire;
