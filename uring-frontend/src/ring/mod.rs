//! The ring engine: one thread, one ring, one relay.
//!
//! ```text
//!  the kernel --completions--> shard.rs --handle_*--> the relay
//!      ^                                                 | poll_output
//!      +---------- submissions <-- sockets.rs <--pump----+
//! ```
//! What comes in is parsed where the kernel put it, in a buffer that goes back in the same turn;
//! what goes out is sent straight from the log. One call a turn hands over what is to be done and
//! waits for what was.
//!
//! A send takes what the socket has room for and is over when the call is; only one that took less
//! says so. Then a poll waits for room, and what is sent after it is gathered then: no memory of
//! the log is pinned for who does not read, and what the core decides about a laggard is done at
//! once. The relay is told of a send in the turn after it. The shard may sleep before that, unless
//! somebody is paused, who may wait for what the end of a send sets free, or a send was as long as
//! one can be, so that there is more to be sent.

mod bell;
mod doors;
mod shard;
mod sockets;

use std::io;
use std::net::TcpListener;

use wardline_core::{Limits, RESERVE, Relay, TopicId};
use wardline_host::clock::Clock;
use wardline_host::links::Links;
use wardline_host::net::Tuning;
use wardline_host::orders::Orders;
use wardline_host::plan::Item;

use crate::sys::{RawPool, Ring};

/// Serves until the relay, and those of the other shards that `links` lead to, have drained, or it
/// was told to stop. `listeners` are nonblocking; `started` is called once, when connections are
/// taken.
///
/// # Errors
/// The system's: no ring could be had, or it broke.
pub fn serve(
    relay: Relay<'_, RawPool<'_>>,
    listeners: Vec<(TcpListener, TopicId)>,
    clock: Clock,
    tuning: Tuning,
    orders: &Orders,
    links: Links,
    started: impl FnOnce(),
) -> io::Result<()> {
    let shard = shard::Shard::new(relay, listeners, clock, tuning, orders, links)?;
    started();
    shard.run()
}

/// What is kept of a connection beside its slots: the socket's place in the table.
const CONNECTION_BYTES: u64 = 72;

/// The memory that this engine takes beside what the relay is lent.
#[must_use]
pub fn memory(limits: &Limits) -> Vec<Item> {
    let connections = limits.connections.saturating_add(RESERVE);
    let [small, large, queues] = Ring::memory(connections, limits.receive_bytes);
    vec![
        Item::engine("connections", connections.into(), CONNECTION_BYTES),
        Item::engine("small receive buffers", small.0, small.1),
        Item::engine("large receive buffers", large.0, large.1),
        Item::engine("rings", queues.0, queues.1),
    ]
}
