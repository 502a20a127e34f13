//! Orders from the control thread to an engine.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use wardline_core::{Instant, Pool, Relay};

use crate::counters::Counters;
use crate::signals::Control;

/// What is left for an engine to do of what it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Take no more connections.
    pub close_doors: bool,
    /// End once the relay has drained.
    pub drain: bool,
    /// End now.
    pub stop: bool,
}

/// What an engine was told and has not looked at yet. Any thread tells; one engine looks.
#[derive(Debug, Default)]
pub struct Orders {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    told: Vec<Control>,
    engine: Option<Waker>,
}

impl Orders {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the engine, and wakes it. Orders that come before the engine listens wait for it.
    pub fn tell(&self, order: Control) {
        let mut inner = self.lock();
        inner.told.push(order);
        if let Some(engine) = &inner.engine {
            engine.wake_by_ref();
        }
    }

    /// Has `engine` woken at each order, and at once if there is one already.
    pub fn listen(&self, engine: Waker) {
        let mut inner = self.lock();
        if !inner.told.is_empty() {
            engine.wake_by_ref();
        }
        inner.engine = Some(engine);
    }

    /// Does what was told since the last time, as far as it is the relay's to do.
    pub fn obey<P: Pool>(&self, relay: &mut Relay<'_, P>, now: Instant) -> Told {
        let mut left = Told::default();
        for order in self.take() {
            match order {
                Control::Drain => {
                    left.close_doors = true;
                    left.drain = true;
                    relay.handle_shutdown(now);
                }
                Control::LameDuck => left.close_doors = true,
                Control::Dump => tracing::info!(code = "counters", "{}", Counters(relay)),
                Control::Stop => left.stop = true,
                // Not an engine's business.
                Control::Reload | Control::ReopenLogs => {}
            }
        }
        left
    }

    /// Takes what was told since the last time, in order.
    #[must_use]
    pub fn take(&self) -> Vec<Control> {
        std::mem::take(&mut self.lock().told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_wait_for_an_engine_and_are_taken_once_in_order() {
        let orders = Orders::default();
        orders.tell(Control::LameDuck);
        orders.listen(Waker::noop().clone());
        orders.tell(Control::Drain);
        assert_eq!(orders.take(), [Control::LameDuck, Control::Drain]);
        assert!(orders.take().is_empty());
    }
}
