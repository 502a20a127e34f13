//! The tokio frontend does not allocate while it relays.
#![allow(unsafe_code, reason = "an allocator can only be written so")]

mod rig;

use std::io;
use std::net::TcpListener;

use wardline_core::{Relay, TopicId};
use wardline_host::clock::Clock;
use wardline_host::links::Links;
use wardline_host::net::Tuning;
use wardline_host::orders::Orders;

struct Engine;

impl rig::Frontend for Engine {
    type Pool<'p> = &'p mut [u8];

    fn pool(memory: &mut [u8]) -> Self::Pool<'_> {
        memory
    }

    fn serve(
        relay: Relay<'_, Self::Pool<'_>>,
        doors: Vec<(TcpListener, TopicId)>,
        clock: Clock,
        tuning: Tuning,
        orders: &Orders,
    ) -> io::Result<()> {
        wardline_tokio::serve(relay, doors, clock, tuning, orders, Links::alone(), || {})
    }
}

fn main() {
    rig::run::<Engine>();
}
