//! Orders from the control thread to an engine.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::signals::Control;

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
