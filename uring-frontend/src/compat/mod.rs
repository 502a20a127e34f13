//! The tokio-uring engine: a [`Relay`] on the `tokio-uring` crate alone, for kernels from 5.11 on,
//! and what the ring engine is measured against.
//!
//! One thread runs one shard. Receives, sends and polls are operations of tokio-uring's ring; one
//! turn hands all that have ended to the relay.
//!
//! # Sends
//! A dropped future of tokio-uring gives its operation up without a word of when it ends, and
//! nobody can name an operation of its ring to cancel it. So no send may ever wait in the kernel:
//! each is submitted with `MSG_DONTWAIT`, straight out of the log, and has ended by the time that
//! its submission has. What the socket did not take is gathered anew once a poll says that it
//! can take more. So there is nothing to cancel, and a reader that jumps or is cut waits for
//! nobody. What that gives up against the ring engine is one more operation for each time that a
//! socket is full.
//!
//! # What else it gives up
//! - Each receive is asked for anew, into a buffer of its connection's: a small one, so that who is
//!   silent keeps little.
//! - tokio waits in epoll, which watches the ring: a turn costs an `io_uring_enter` and two
//!   `epoll_wait`.
//! - A kernel that has no memory for a submission is not heard of: it is tried again after a
//!   second. Where the submission queue is full at that moment, tokio-uring ends the process.

mod buffers;
mod shard;
mod sockets;

use std::io;
use std::net;

use tokio_uring::Runtime;
use wardline_core::{Limits, RESERVE, Relay, TopicId};
use wardline_host::clock::Clock;
use wardline_host::links::Links;
use wardline_host::net::Tuning;
use wardline_host::orders::Orders;
use wardline_host::plan::Item;

use crate::sys::RawPool;

/// Submissions that fit the ring before it is handed to the kernel. A turn may make more.
const ENTRIES: u32 = 1_024;
/// The largest completion queue that kernels make.
const COMPLETIONS_MAX: u32 = 65_536;

/// Serves until the relay, and those of the other shards that `links` lead to, have drained, or it
/// was told to stop. `listeners` are nonblocking; `started` is called once, when connections are
/// taken.
///
/// # Errors
/// The system's, at the start: no ring could be had.
pub fn serve(
    relay: Relay<'_, RawPool<'_>>,
    listeners: Vec<(net::TcpListener, TopicId)>,
    clock: Clock,
    tuning: Tuning,
    orders: &Orders,
    links: Links,
    started: impl FnOnce(),
) -> io::Result<()> {
    // Dropped at the end of this call, and so before what `relay` borrows: it waits for the end of
    // all operations.
    let runtime = runtime(completions(relay.limits()))?;
    let shard = async {
        let shard = shard::Shard::new(relay, listeners, clock, tuning, orders, links)?;
        started();
        shard.run().await;
        Ok(())
    };
    // Not to be cut into pieces by tokio's budget: a turn has its own.
    runtime.block_on(tokio::task::unconstrained(shard))
}

/// What is kept of a connection beside its slots: a small buffer, the socket's place in the table,
/// its waker, tokio-uring's places for two operations, and what the allocator adds. Measured with
/// 9,000 idle ones: some 850.
const CONNECTION_BYTES: u64 = 1_536;

/// The memory that this engine takes beside what the relay is lent.
#[must_use]
pub fn memory(limits: &Limits) -> Vec<Item> {
    let connections = limits.connections.saturating_add(RESERVE);
    // 64 bytes and an index for a submission, 16 for a completion.
    let rings = u64::from(ENTRIES) * 68 + u64::from(completions(limits)) * 16;
    vec![
        Item::engine("connections", connections.into(), CONNECTION_BYTES),
        Item::engine("receive buffers", buffers::LARGE_MAX as u64, limits.receive_bytes.into()),
        Item::engine("rings", 1, rings),
    ]
}

/// Places in the completion queue: a receive and a send for each connection. Where they do not do,
/// the kernel keeps the rest, at a price.
fn completions(limits: &Limits) -> u32 {
    let connections = limits.connections.saturating_add(RESERVE);
    let both = connections.saturating_mul(2).saturating_add(ENTRIES);
    both.clamp(2 * ENTRIES, COMPLETIONS_MAX).next_power_of_two()
}

/// A runtime with the best that this kernel has: no interrupts for work that can wait until the
/// thread enters the kernel anyway (5.19), and no locks against other threads (6.0). Not what
/// defers that work further (6.1): it would not wake the epoll that watches the ring.
fn runtime(completions: u32) -> io::Result<Runtime> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for (alone, unhurried) in [(true, true), (false, true), (false, false)] {
        let mut ring = tokio_uring::uring_builder();
        ring.dontfork().setup_clamp();
        if alone {
            ring.setup_single_issuer();
        }
        if unhurried {
            ring.setup_coop_taskrun();
        }
        // Before 5.12 a ring counts as locked memory, of which there may be little.
        for completions in [completions, 2 * ENTRIES] {
            let mut builder = tokio_uring::builder();
            builder.entries(ENTRIES).uring_builder(ring.setup_cqsize(completions));
            match Runtime::new(&builder) {
                Ok(runtime) => return Ok(runtime),
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => last = error,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
        // Else the kernel does not know a flag.
        if last.kind() != io::ErrorKind::InvalidInput {
            return Err(last);
        }
    }
    Err(last)
}
