//! The portable frontend: a [`wardline_core::Relay`] on tokio, for Linux, macOS and Windows.
//!
//! One thread runs one shard. After a turn the shard writes to the sockets directly, out of the
//! log; tokio is waited for only to learn that a socket has input, or can take more after it was
//! full.
#![forbid(unsafe_code)]

mod probe;
mod shard;
mod sockets;

use std::io;
use std::net;

use wardline_core::{Limits, RESERVE, Relay, TopicId};
use wardline_host::clock::Clock;
use wardline_host::links::Links;
use wardline_host::net::Tuning;
use wardline_host::orders::Orders;
use wardline_host::plan::Item;

/// Serves until the relay, and those of the other shards that `links` lead to, have drained, or it
/// was told to stop. `listeners` are nonblocking; `started`
/// is called once, when connections are taken.
///
/// # Errors
/// The system's, at the start: no event queue could be had, or a listener not be registered.
pub fn serve(
    relay: Relay<'_, &mut [u8]>,
    listeners: Vec<(net::TcpListener, TopicId)>,
    clock: Clock,
    tuning: Tuning,
    orders: &Orders,
    links: Links,
    started: impl FnOnce(),
) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let shard = {
        let _inside = runtime.enter();
        let mut doors = Vec::with_capacity(listeners.len());
        for (listener, topic) in listeners {
            doors.push((tokio::net::TcpListener::from_std(listener)?, topic));
        }
        shard::Shard::new(relay, doors, clock, tuning, orders, links)
    };
    started();
    // Not to be cut into pieces by tokio's budget: a turn has its own.
    runtime.block_on(tokio::task::unconstrained(shard.run()));
    Ok(())
}

/// What is kept of a connection beside its slots: the socket's registration, its place in the
/// table, and what the allocator adds. Measured with 9,000 idle ones: some 500.
const CONNECTION_BYTES: u64 = 1_024;

/// The memory that this engine takes beside what the relay is lent.
#[must_use]
pub fn memory(limits: &Limits) -> Vec<Item> {
    let connections = limits.connections.saturating_add(RESERVE);
    vec![
        Item::engine("connections", connections.into(), CONNECTION_BYTES),
        Item::engine("receive buffer", 1, limits.receive_bytes.into()),
    ]
}
