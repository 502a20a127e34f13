//! The last steps of a run, for whoever has to find out why it failed.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::agents::AgentOp;
use crate::plan::Op;

/// Steps that are remembered.
const LAST: usize = 30;

thread_local! {
    static SEED: RefCell<Option<Seed>> = const { RefCell::new(None) };
    static STEPS: RefCell<VecDeque<Step>> = const { RefCell::new(VecDeque::new()) };
}

/// What a run was asked for: its seed, its steps, and whether it is one of agents.
pub type Seed = (u64, u64, bool);

/// What was done in a step.
#[derive(Clone, Copy)]
pub enum What {
    /// In the simulation of lines.
    Line(Op),
    /// In that of agents.
    Agents(AgentOp),
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(op) => op.fmt(f),
            Self::Agents(op) => op.fmt(f),
        }
    }
}

fn start(seed: Seed) {
    SEED.with_borrow_mut(|here| *here = Some(seed));
    STEPS.with_borrow_mut(VecDeque::clear);
}

/// A run begins.
pub fn begin(seed: u64, ops: u64) {
    start((seed, ops, false));
}

/// A run of agents begins.
pub(crate) fn begin_agents(seed: u64, ops: u64) {
    start((seed, ops, true));
}

pub(crate) fn note(step: u64, now_ns: u64, op: Op) {
    push((step, now_ns, What::Line(op)));
}

pub(crate) fn note_agents(step: u64, now_ns: u64, op: AgentOp) {
    push((step, now_ns, What::Agents(op)));
}

fn push(step: Step) {
    STEPS.with_borrow_mut(|steps| {
        if steps.len() == LAST {
            steps.pop_front();
        }
        steps.push_back(step);
    });
}

/// A step: its number, the virtual time before it in nanoseconds, and what it was.
pub type Step = (u64, u64, What);

/// The seed and the ops of this thread's run, and the last steps of it.
#[must_use]
pub fn last() -> (Option<Seed>, Vec<Step>) {
    let seed = SEED.with_borrow(|seed| *seed);
    (seed, STEPS.with_borrow(|steps| steps.iter().copied().collect()))
}
