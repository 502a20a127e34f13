//! Who keeps to the rate that it was told, and then does not: the first is not charged, the second
//! is, and not before it was over it for ten seconds on end.

use wardline_core::native::{FrameKind, flags};

use super::states::State;
use super::world::World;

/// The rate of which there are few enough messages: the slowest that a seed may draw.
const RATE: u64 = 5;
/// Whoever may be read again is read within so long.
const TURN_NS: u64 = 5_000_000;
/// In which all tokens come back that PINGs and control values took.
const REST_NS: u64 = 3_000_000_000;
/// How long it is kept to.
const KEPT_NS: u64 = 15_000_000_000;
/// How long one may be over it.
const GRACE_NS: u64 = 10_000_000_000;
/// In which it is charged, though memory may be short, which is not its fault, now and then.
const CHARGED_NS: u64 = 900_000_000_000;
/// Bytes that always wait of who is over its rate.
const AHEAD: usize = 2_000;

impl World<'_, '_> {
    /// One sends as it was told, and then more, where nothing but that rate slows it.
    pub(crate) fn pressed(&mut self) {
        let native = self.side.plan.limits.native;
        let others = [native.identity_messages_per_second, native.deliveries_per_second];
        let slowed = others.iter().any(|rate| (1..100).contains(rate));
        // Where addresses pay for it, the others of its address could not come back.
        if native.messages_per_second != RATE as u32 || slowed || self.side.plan.strict {
            return;
        }
        let open = |world: &Self, index: usize| {
            let link = world.side.links[index].as_ref()?;
            let sub = link.subs.values().find(|sub| sub.given_up.is_none())?;
            (world.side.able(link.agent) == Some(index)).then_some((link.agent, sub.name))
        };
        let live = self.side.live.clone();
        let found = live.iter().find_map(|index| Some((*index, open(self, *index)?)));
        let Some((index, (agent, name))) = found else { return };
        let is_there = |world: &Self| open(world, index).is_some_and(|(of, _)| of == agent);
        let before = self.rate_offences();
        let rested = self.side.now_ns + REST_NS;
        while self.side.now_ns < rested && is_there(self) {
            self.round_within(TURN_NS);
        }
        let begin = self.side.now_ns;
        let mut said = 0;
        while self.side.now_ns < begin + KEPT_NS && is_there(self) {
            if (self.side.now_ns - begin) * RATE / 1_000_000_000 >= said {
                self.say_one(index, agent, name);
                said += 1;
            }
            self.round_within(TURN_NS);
        }
        assert_eq!(self.rate_offences(), before, "it was charged, and kept to its rate");
        let begin = self.side.now_ns;
        while self.rate_offences() == before && is_there(self) {
            while self.side.conns[index].up.len() < AHEAD && is_there(self) {
                self.say_one(index, agent, name);
            }
            self.round_within(TURN_NS);
            let late = self.side.now_ns > begin + CHARGED_NS;
            assert!(!late, "nobody minds that it is over its rate");
        }
        let took = self.side.now_ns - begin;
        if self.rate_offences() > before {
            assert!(took >= GRACE_NS, "it was charged after {took} ns");
            self.side.states.hit(State::OverRate);
        }
    }

    fn say_one(&mut self, index: usize, agent: usize, name: usize) {
        let Some(mut link) = self.side.links[index].take() else { return };
        let msg = self.side.compose(agent, FrameKind::Publish, (Some(name), 0, 0));
        self.side.truth.msgs[msg].payload.truncate(30);
        self.side.truth.msgs[msg].header.flags &= !(flags::ENVELOPE | flags::BRIDGED);
        self.side.transmit(index, &mut link, &[msg]);
        self.side.links[index] = Some(link);
    }

    pub(crate) fn rate_offences(&self) -> u64 {
        self.relays[0].stats().rate_offences.value()
    }

    /// Nobody is over a rate that nobody was told.
    pub(crate) fn check_rates(&self) {
        let native = &self.side.plan.limits.native;
        let told = native.messages_per_second > 0 || native.bytes_per_second > 0;
        assert!(told || self.rate_offences() == 0, "charged for what others cost it");
    }
}
