//! The last steps of a run, for whoever has to find out why it failed.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::plan::Op;

/// Steps that are remembered.
const LAST: usize = 30;

thread_local! {
    static SEED: RefCell<Option<(u64, u64)>> = const { RefCell::new(None) };
    static STEPS: RefCell<VecDeque<Step>> = const { RefCell::new(VecDeque::new()) };
}

/// A run begins.
pub fn begin(seed: u64, ops: u64) {
    SEED.with_borrow_mut(|here| *here = Some((seed, ops)));
    STEPS.with_borrow_mut(VecDeque::clear);
}

pub(crate) fn note(step: u64, now_ns: u64, op: Op) {
    STEPS.with_borrow_mut(|steps| {
        if steps.len() == LAST {
            steps.pop_front();
        }
        steps.push_back((step, now_ns, op));
    });
}

/// A step: its number, the virtual time before it in nanoseconds, and what it was.
pub type Step = (u64, u64, Op);

/// The seed and the ops of this thread's run, and the last steps of it.
#[must_use]
pub fn last() -> (Option<(u64, u64)>, Vec<Step>) {
    let seed = SEED.with_borrow(|seed| *seed);
    (seed, STEPS.with_borrow(|steps| steps.iter().copied().collect()))
}
