//! The ring engine does not allocate while it relays.
#![allow(unsafe_code, reason = "an allocator can only be written so")]

#[cfg(all(target_os = "linux", not(wardline_portable)))]
#[path = "../../tokio-frontend/tests/rig/mod.rs"]
mod rig;

#[cfg(all(target_os = "linux", not(wardline_portable)))]
mod ring {
    use std::io;
    use std::net::TcpListener;

    use wardline_core::{Relay, TopicId};
    use wardline_host::clock::Clock;
    use wardline_host::links::Links;
    use wardline_host::net::Tuning;
    use wardline_host::orders::Orders;
    use wardline_uring::RawPool;

    use crate::rig::Frontend;

    pub(crate) struct Engine;

    impl Frontend for Engine {
        type Pool<'p> = RawPool<'p>;

        fn pool(memory: &mut [u8]) -> Self::Pool<'_> {
            RawPool::new(memory)
        }

        fn serve(
            relay: Relay<'_, Self::Pool<'_>>,
            doors: Vec<(TcpListener, TopicId)>,
            clock: Clock,
            tuning: Tuning,
            orders: &Orders,
        ) -> io::Result<()> {
            wardline_uring::ring::serve(relay, doors, clock, tuning, orders, Links::alone(), || {})
        }
    }
}

fn main() {
    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    rig::run::<ring::Engine>();
}
