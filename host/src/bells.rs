//! Which sockets have something to say: one waker per socket, one wake-up per turn.
//!
//! A runtime wakes the waker of each socket that became ready, or whose operation has ended; those
//! wakers put the socket's number into one list and wake the shard once. So a turn of the shard
//! sees all of them together, and that is where coalescing comes from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// The list, shared by the wakers.
#[derive(Debug, Default)]
pub struct Bells {
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
    bells: Arc<Bells>,
}

/// A socket's handle on its waker.
#[derive(Debug)]
pub struct Bell {
    waker: Waker,
    inner: Arc<SocketWaker>,
}

impl Bells {
    /// A list that holds `sockets` numbers without growing.
    #[must_use]
    pub fn new(sockets: usize) -> Arc<Self> {
        let sockets = Vec::with_capacity(sockets);
        Arc::new(Self { inner: Mutex::new(Inner { sockets, shard: None }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whom to wake when the list is no longer empty.
    pub fn register(&self, shard: &Waker) {
        let mut inner = self.lock();
        if !inner.shard.as_ref().is_some_and(|known| known.will_wake(shard)) {
            inner.shard = Some(shard.clone());
        }
    }

    /// Swaps the list with `into`, which the caller has emptied.
    pub fn swap(&self, into: &mut Vec<u32>) {
        std::mem::swap(&mut self.lock().sockets, into);
    }

    /// Whether no socket has rung.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().sockets.is_empty()
    }

    /// A bell for socket `number`.
    #[must_use]
    pub fn bell(self: &Arc<Self>, number: u32) -> Bell {
        let bells = Arc::clone(self);
        let inner = Arc::new(SocketWaker { number, listed: AtomicBool::new(false), bells });
        Bell { waker: Waker::from(Arc::clone(&inner)), inner }
    }
}

impl Bell {
    /// The waker, to poll the socket with.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Notes that the shard looks at the socket now: from here on it may be listed again.
    pub fn answered(&self) {
        self.inner.listed.store(false, Ordering::Release);
    }
}

impl SocketWaker {
    fn wake_by_ref(&self) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut inner = self.bells.lock();
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
