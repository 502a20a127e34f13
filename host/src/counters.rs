//! The counters of a relay, for the log.

use std::fmt::{self, Write};

use wardline_core::{Pool, Relay};

/// Writes them to the log.
pub fn log<P: Pool>(relay: &Relay<'_, P>) {
    tracing::info!("counters: {}", Counters(relay));
}

/// What a relay counted and holds, as `name=value` pairs in one line. Counters that are zero are
/// left out: nothing of that kind ever happened.
#[derive(Debug)]
pub struct Counters<'r, 's, P>(pub &'r Relay<'s, P>);

impl<P: Pool> fmt::Display for Counters<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relay = self.0;
        let (blocks, segments) = relay.memory_used();
        let limits = relay.limits();
        write!(f, "connections={}/{}", relay.connections(), limits.connections)?;
        write!(f, " blocks={blocks}/{} segments={segments}/{}", limits.blocks, limits.segments)?;
        for (name, _, value) in relay.stats().all() {
            if value != 0 {
                f.write_char(' ')?;
                write!(f, "{name}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use wardline_core::{Instant, Limits, Relay, Remote};

    use super::*;
    use crate::settings::Settings;
    use crate::storage::{Lent, Sizes};

    #[test]
    fn what_happened_is_shown() {
        let limits = Limits { connections: 9, blocks: 64, segments: 8, ..Limits::DEFAULT };
        let mut lent = Lent::reserve(&Sizes::of(&limits, &Settings::default()), &[]).unwrap();
        let (slots, pool) = lent.lend();
        let now = Instant::from_nanos(1_000_000_000);
        let mut relay = Relay::new(limits, slots, pool, [7; 32], now).unwrap();
        let quiet = Counters(&relay).to_string();
        assert_eq!(quiet, "connections=0/9 blocks=0/64 segments=0/8");
        let topic = relay.listen("main").unwrap();
        let addr = SocketAddr::from(([192, 0, 2, 1], 7));
        relay.handle_accept(now, Remote { addr, topic }).unwrap();
        let shown = Counters(&relay).to_string();
        assert_eq!(shown, "connections=1/9 blocks=0/64 segments=0/8 accepted=1");
    }
}
