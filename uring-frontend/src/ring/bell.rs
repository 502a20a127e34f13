//! How other threads wake a shard.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that the shard's ring watches, and that others ring.
#[derive(Debug)]
pub(super) struct Bell {
    rope: Arc<Rope>,
}

/// What others hold of it.
#[derive(Debug)]
struct Rope {
    counter: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { rope: Arc::new(Rope { counter }) })
    }

    /// Wakes the shard, from any thread, also while it does not wait.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.rope))
    }

    /// What the ring is to watch.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.rope.counter.as_fd()
    }

    /// Notes that the shard looks at what it was woken for: who rings from here on wakes it again.
    pub(super) fn answered(&self) {
        // It cannot be read if nobody has rung.
        let _ = rustix::io::read(&self.rope.counter, &mut [0; 8]);
    }
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // It cannot be written if it has been rung 2^64 times and not been answered.
        let _ = rustix::io::write(&self.counter, &1_u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung(bell: &Bell) -> bool {
        let mut count = [0; 8];
        rustix::io::read(bell.fd(), &mut count).is_ok_and(|len| len == 8 && count != [0; 8])
    }

    #[test]
    fn who_rings_is_heard_until_answered() {
        let bell = Bell::new().expect("a descriptor");
        assert!(!rung(&bell));
        let waker = bell.waker();
        std::thread::spawn(move || (0..3).for_each(|_| waker.wake_by_ref())).join().expect("rang");
        assert!(rung(&bell));
        bell.waker().wake();
        bell.answered();
        assert!(!rung(&bell));
        bell.answered();
        bell.waker().wake();
        assert!(rung(&bell), "the rope holds longer than who pulled it");
    }
}
