//! How a shard sleeps, and how another one wakes it: an eventcount.
//!
//! ```text
//!  sleeper: says that it sleeps ......... then looks at what may have come
//!  waker:   puts something there ........ then looks whether it sleeps
//! ```
//! With a full fence between the two steps of each, at least one sees the other: nothing that comes
//! is slept over. Who is awake costs its wakers a look at one word.

use std::task::Waker;

#[cfg(wardline_loom)]
use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(wardline_loom))]
use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering, fence},
};

/// A shard's place to sleep.
#[derive(Debug)]
pub(super) struct Gate {
    sleeps: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { sleeps: AtomicBool::new(false), waker: Mutex::new(None) }
    }

    /// Whom to wake.
    pub(super) fn listen(&self, waker: Waker) {
        if let Ok(mut place) = self.waker.lock() {
            *place = Some(waker);
        }
    }

    /// The shard is at work: nobody has to wake it.
    pub(super) fn awake(&self) {
        self.sleeps.store(false, Ordering::Relaxed);
    }

    /// The shard will sleep, unless `work` finds something to do after that was said. Gives whether
    /// it may.
    pub(super) fn try_sleep(&self, work: impl FnOnce() -> bool) -> bool {
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if work() {
            self.awake();
            return false;
        }
        true
    }

    /// Something was put where the shard looks: wakes it if it sleeps.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed)
            && self.sleeps.swap(false, Ordering::AcqRel)
            && let Ok(waker) = self.waker.lock()
            && let Some(waker) = &*waker
        {
            waker.wake_by_ref();
        }
    }
}

#[cfg(all(test, wardline_loom))]
mod tests {
    use std::sync::Arc as StdArc;
    use std::sync::atomic::{AtomicBool as StdBool, Ordering as StdOrdering};
    use std::task::Wake;

    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;

    /// A waker that only notes that it was used: seen once both threads have ended.
    struct Noted(StdBool);

    impl Wake for Noted {
        fn wake(self: StdArc<Self>) {
            self.0.store(true, StdOrdering::SeqCst);
        }
    }

    #[test]
    fn what_comes_is_never_slept_over() {
        loom::model(|| {
            let noted = StdArc::new(Noted(StdBool::new(false)));
            let gate = Arc::new(Gate::new());
            gate.listen(Waker::from(StdArc::clone(&noted)));
            let ring = Arc::new(AtomicUsize::new(0));
            let (theirs, there) = (Arc::clone(&gate), Arc::clone(&ring));
            let other = thread::spawn(move || {
                there.store(1, Ordering::Release);
                theirs.wake();
            });
            let sleeps = gate.try_sleep(|| ring.load(Ordering::Acquire) > 0);
            other.join().unwrap();
            let woken = noted.0.load(StdOrdering::SeqCst);
            assert!(!sleeps || woken, "it sleeps, something is there, and nobody woke it");
        });
    }

    #[test]
    fn two_wakers_and_a_turn_between() {
        loom::model(|| {
            let noted = StdArc::new(Noted(StdBool::new(false)));
            let gate = Arc::new(Gate::new());
            gate.listen(Waker::from(StdArc::clone(&noted)));
            let ring = Arc::new(AtomicUsize::new(0));
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let (theirs, there) = (Arc::clone(&gate), Arc::clone(&ring));
                    thread::spawn(move || {
                        there.fetch_add(1, Ordering::Release);
                        theirs.wake();
                    })
                })
                .collect();
            // A turn: it takes what is there, and goes to sleep.
            gate.awake();
            let taken = ring.swap(0, Ordering::AcqRel);
            let sleeps = gate.try_sleep(|| ring.load(Ordering::Acquire) > 0);
            for other in others {
                other.join().unwrap();
            }
            let left = ring.load(Ordering::Acquire);
            let woken = noted.0.load(StdOrdering::SeqCst);
            assert!(taken + left <= 2);
            assert!(!sleeps || left == 0 || woken, "it sleeps over {left}");
        });
    }
}
