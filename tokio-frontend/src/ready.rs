//! Which sockets have something to say: one waker per socket, one wake-up per turn.
//!
//! tokio wakes the waker of each socket that became ready; those wakers put the socket's number
//! into one list and wake the shard once. So a turn of the shard sees all of them together, and
//! that is where coalescing comes from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The list, shared by the wakers.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Numbers of sockets; each at most once.
    sockets: Vec<u32>,
    shard: Option<Waker>,
}

/// The waker of one socket.
#[derive(Debug)]
struct SocketWaker {
    number: u32,
    listed: AtomicBool,
    ready: Arc<Ready>,
}

/// A socket's handle on its waker.
#[derive(Debug)]
pub(crate) struct Bell {
    waker: Waker,
    inner: Arc<SocketWaker>,
}

impl Ready {
    /// A list that holds `sockets` numbers without growing.
    pub(crate) fn new(sockets: usize) -> Arc<Self> {
        let sockets = Vec::with_capacity(sockets);
        Arc::new(Self { inner: Mutex::new(Inner { sockets, shard: None }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whom to wake when the list is no longer empty.
    pub(crate) fn register(&self, shard: &Waker) {
        let mut inner = self.lock();
        if !inner.shard.as_ref().is_some_and(|known| known.will_wake(shard)) {
            inner.shard = Some(shard.clone());
        }
    }

    /// Swaps the list with `into`, which the caller has emptied.
    pub(crate) fn swap(&self, into: &mut Vec<u32>) {
        std::mem::swap(&mut self.lock().sockets, into);
    }

    /// Whether no socket has rung.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().sockets.is_empty()
    }

    /// A bell for socket `number`.
    pub(crate) fn bell(self: &Arc<Self>, number: u32) -> Bell {
        let ready = Arc::clone(self);
        let inner = Arc::new(SocketWaker { number, listed: AtomicBool::new(false), ready });
        Bell { waker: Waker::from(Arc::clone(&inner)), inner }
    }
}

impl Bell {
    /// The waker, to poll the socket with.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Notes that the shard looks at the socket now: from here on it may be listed again.
    pub(crate) fn answered(&self) {
        self.inner.listed.store(false, Ordering::Release);
    }
}

impl SocketWaker {
    fn wake_by_ref(&self) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut inner = self.ready.lock();
        inner.sockets.push(self.number);
        if inner.sockets.len() == 1
            && let Some(shard) = &inner.shard
        {
            shard.wake_by_ref();
        }
    }
}

impl Wake for SocketWaker {
    fn wake(self: Arc<Self>) {
        SocketWaker::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        SocketWaker::wake_by_ref(self);
    }
}
