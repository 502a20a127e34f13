//! Relays that are shards of one process, and what travels between them, by hand.

mod lines;
mod native;
mod pressed;
mod process;
