//! The `wardline` binary seen from outside: real processes, real sockets, nothing of its insides.
//!
//! Every case runs once for each engine that the binary has and this system lets run, or for those
//! named in `WARDLINE_TEST_ENGINES` (comma-separated). `WARDLINE_TEST_BIN` names another binary to
//! try the same cases on.
//!
//! It is one program and not a file per concern, because most cases wait for a deadline of the
//! relay: side by side they wait together.

mod harness;

mod command_line;
mod commands;
mod crowd;
mod engines;
mod http;
mod idle;
mod lifecycle;
mod limits;
mod line;
mod logs;
mod memory;
mod native;
mod native_cuts;
mod native_daemons;
mod native_dialects;
#[cfg(not(wardline_portable))]
mod native_door;
mod native_ends;
mod native_mixed;
#[cfg(all(unix, not(wardline_portable)))]
mod native_rights;
mod native_shards;
mod native_signed;
mod native_slow;
mod native_wire;
mod patience;
mod proxied;
mod quarantine;
mod rate;
mod settings;
mod shards;
mod slow_readers;
mod topics;
mod utf8;
