//! Native sessions: agents, clients of lines, and who means no good, on one relay, in virtual time,
//! against a model that is naive. Nothing of it is shared with the client library.

mod acts;
mod agent;
mod ending;
mod fate;
mod faults;
mod frontend;
mod lent;
mod link;
mod net;
mod plan;
mod proxied;
mod reader;
mod rights;
mod rings;
mod side;
mod states;
mod struck;
mod text;
mod told;
mod truth;
mod world;

pub use states::{State, States};
pub use world::Op as AgentOp;

use crate::rng::Rng;
use lent::Lent;
use plan::Plan;
use rights::Rights;
use world::World;

/// Steps of a seed, where nothing else is said.
pub const AGENT_OPS_DEFAULT: u64 = 3_000;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentsReport {
    /// The states that it was in.
    pub states: States,
    /// Everything that was observed, in one number.
    pub hash: u64,
    /// Steps done.
    pub steps: u64,
    /// Messages that were said.
    pub messages: u64,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
}

/// Runs a seed for `ops` steps and to its end.
///
/// # Panics
/// Where the relay does anything that the model does not expect.
#[must_use]
pub fn run_agents(seed: u64, ops: u64) -> AgentsReport {
    crate::trace::begin_agents(seed, ops);
    run(Rng::seeded(seed ^ 0xA6E7_7500), ops, seed.is_multiple_of(4))
}

/// Runs what `bytes` spell out, a choice after the other, and then to the end.
///
/// # Panics
/// Where the relay does anything that the model does not expect.
pub fn run_agent_bytes(bytes: &[u8]) {
    let _ = run(Rng::spelled(bytes), AGENT_OPS_DEFAULT, true);
}

fn run(mut rng: Rng<'_>, ops: u64, check_all: bool) -> AgentsReport {
    let plan = Plan::draw(&mut rng);
    let rights = Rights::default();
    let mut lent: Vec<Lent> = (0..plan.shards).map(|_| Lent::new(&plan)).collect();
    let mut world = World::new(plan, rng, &mut lent, &rights, check_all);
    for _ in 0..ops {
        if world.side.rng.is_spent() {
            break;
        }
        world.step();
    }
    world.end();
    AgentsReport {
        states: world.side.states.clone(),
        hash: world.side.hash,
        steps: world.side.step,
        messages: world.side.truth.msgs.len() as u64,
        virtual_ns: world.side.now_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_get_what_the_model_expects() {
        for seed in 0..60 {
            let report = run_agents(seed, AGENT_OPS_DEFAULT);
            assert!(report.steps >= AGENT_OPS_DEFAULT);
        }
    }

    #[test]
    fn a_seed_of_agents_replays_bit_for_bit() {
        for seed in [3, 1_000_003] {
            let report = run_agents(seed, AGENT_OPS_DEFAULT);
            assert_eq!(run_agents(seed, AGENT_OPS_DEFAULT), report);
            assert_ne!(run_agents(seed + 1, AGENT_OPS_DEFAULT).hash, report.hash);
        }
    }
}
