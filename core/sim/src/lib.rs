//! The third frontend of the Wardline relay: a simulator.
//!
//! Honest, slow and hostile clients, in virtual time, behind a network that is as unkind as a
//! seed says. After every step what was observed is compared with a naive model (a plain map of
//! queues). A seed replays bit for bit on any machine; so do the bytes of a fuzzer.
#![forbid(unsafe_code)]

mod agents;
mod bucket;
mod carrier;
mod client;
mod cluster;
mod door;
mod drain;
mod ending;
mod knocks;
mod lent;
mod lines;
mod mutants;
mod native;
mod overdue;
mod peer;
mod places;
mod plan;
mod rng;
mod shared;
mod side;
pub mod trace;
mod traffic;
mod verdicts;
mod view;
mod wire;
mod world;

pub use agents::{
    AGENT_OPS_DEFAULT, AgentOp, AgentsReport, State, States, run_agent_bytes, run_agents,
};
pub use lines::run_lines;
pub use mutants::MUTANTS;
pub use native::{run_native_handshake, run_native_records};
pub use places::{Place, Places};
pub use plan::Op;

use lent::Lent;
use plan::Plan;
use rng::Rng;
use world::World;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Where it has been.
    pub places: Places,
    /// Everything that was observed, in one number.
    pub hash: u64,
    /// Steps done.
    pub steps: u64,
    /// Messages that the relay took.
    pub messages: u64,
    /// Virtual time that passed, in nanoseconds.
    pub virtual_ns: u64,
}

/// Steps of a seed, where nothing else is said.
pub const OPS_DEFAULT: u64 = 2_000;

/// Runs a seed for `ops` steps and to its end.
///
/// # Panics
/// Where the relay does anything that the model does not expect.
#[must_use]
pub fn run_seed(seed: u64, ops: u64) -> Report {
    trace::begin(seed, ops);
    // A third of them is several shards.
    match seed % 9 {
        nth @ (2 | 5 | 8) => {
            let shards = 2 + (nth / 3) as usize;
            cluster::run(Rng::seeded(seed), ops, seed.is_multiple_of(4), shards)
        }
        _ => run(Rng::seeded(seed), ops, seed.is_multiple_of(4)),
    }
}

/// Runs what `bytes` spell out, a choice after the other, and then to the end.
///
/// # Panics
/// Where the relay does anything that the model does not expect.
pub fn run_bytes(bytes: &[u8]) {
    let _ = run(Rng::spelled(bytes), OPS_DEFAULT, true);
}

fn run(mut rng: Rng<'_>, ops: u64, check_all: bool) -> Report {
    let plan = Plan::draw(&mut rng);
    let mut lent = Lent::new(&plan, 1);
    let shared = shared::Shared::new(&World::topics(&plan), 1);
    let mut world = World::new(plan, rng, &mut lent, check_all, (0, 1, shared));
    for _ in 0..ops {
        if world.side.rng.is_spent() {
            break;
        }
        world.step();
    }
    world.end();
    world.count_places();
    Report {
        places: world.side.places.clone(),
        hash: world.side.hash,
        steps: world.side.step,
        messages: world.side.published,
        virtual_ns: world.side.now_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_end_as_the_model_expects() {
        for seed in 0..50 {
            let report = run_seed(seed, OPS_DEFAULT);
            assert!(report.steps >= OPS_DEFAULT);
        }
    }

    #[test]
    fn a_seed_replays_bit_for_bit() {
        for seed in [3, 77, 1_000_003] {
            let report = run_seed(seed, OPS_DEFAULT);
            assert_eq!(run_seed(seed, OPS_DEFAULT), report);
            assert_ne!(run_seed(seed + 1, OPS_DEFAULT).hash, report.hash);
        }
    }

    #[test]
    fn bytes_spell_runs_too() {
        let mut bytes = Vec::new();
        let mut state = 1_u64;
        for len in [0, 1, 60, 500, 20_000] {
            while bytes.len() < len {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.push((state >> 56) as u8);
            }
            run_bytes(&bytes);
        }
    }
}
