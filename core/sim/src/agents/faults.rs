//! What goes wrong: resets, ends, flipped bits, leaps of time, permissions, noise.

use super::link::Stage;
use super::net::{Conn, Owner};
use super::rights::RIGHTS;
use super::side::Side;
use super::states::State;
use super::world::World;

impl World<'_, '_> {
    /// Something goes wrong, most often nothing.
    pub(crate) fn fault(&mut self) {
        let often = self.side.plan.often;
        let drawn = self.side.rng.below(1_000) as u32;
        let side = &mut self.side;
        let mut from = 0;
        let mut is = |often: u32| {
            let to = from + often;
            let hit = (from..to).contains(&drawn);
            from = to;
            hit
        };
        if is(often.reset) {
            if let Some(index) = side.any(|conn| !conn.reset && conn.owner != Owner::Noise) {
                side.reset(index);
                side.over(index);
            }
        } else if is(often.fin) {
            if let Some(index) = side.any(|conn| conn.is_up()) {
                side.conns[index].fin = true;
                side.over(index);
            }
        } else if is(often.flip) {
            side.flip();
        } else if is(often.leap) {
            self.leap();
        } else if is(often.restart) {
            let agent = side.rng.below(side.plan.agents as u64) as usize;
            side.restart(agent);
        } else if is(often.rights) {
            let agent = side.rng.below(side.agents.len() as u64) as usize;
            let (who, may) = (side.agents[agent].identity, side.rng.one_in(2));
            let right = RIGHTS[side.rng.below(5) as usize] as usize;
            side.rights.set(&who, right, side.step, may);
        } else if is(often.replay) {
            self.play_back();
        } else if is(often.noise) {
            self.make_noise();
        } else if is(often.lazy / 100)
            && let Some(index) = side.any(|_| true)
        {
            side.conns[index].lazy = !side.conns[index].lazy;
        }
    }

    /// Time goes on by much, and nobody does anything meanwhile.
    pub(crate) fn leap(&mut self) {
        self.drain();
        self.carry_all();
        let side = &mut self.side;
        let native = &side.plan.limits.native;
        let spans = [
            native.retention,
            native.resume,
            native.resume_total.min(wardline_core::Duration::from_secs(100)),
            native.ping,
            native.silence,
            native.handshake,
            side.plan.limits.progress,
        ];
        let span = side.rng.pick(&spans).as_nanos();
        side.now_ns += side.rng.below(span * 5 / 4);
        side.leapt_ns = side.now_ns;
        self.drain();
    }

    /// Somebody who listened plays a HELLO back.
    pub(crate) fn play_back(&mut self) {
        if self.side.hellos.is_empty() {
            return;
        }
        let hello = self.side.rng.below(self.side.hellos.len() as u64) as usize;
        let hello = self.side.hellos[hello].clone();
        let Some(index) = self.open(self.native, Owner::Noise) else { return };
        self.side.states.hit(State::Replayed);
        self.side.conns[index].up.extend(hello);
        if self.side.rng.one_in(2) {
            self.side.conns[index].up.extend([1, 0, 0, 0, 8, 0, 0, 0]);
            self.side.conns[index].up.extend([0; 32]);
        }
    }

    pub(crate) fn make_noise(&mut self) {
        let door = match self.lines.first() {
            Some(door) if self.side.rng.one_in(3) => door.mixed(),
            _ => self.native,
        };
        let Some(index) = self.open(door, Owner::Noise) else { return };
        let side = &mut self.side;
        let len = side.rng.up_to(300);
        let mut bytes: Vec<u8> = (0..len).map(|_| side.rng.below(256) as u8).collect();
        if side.rng.one_in(2) {
            bytes.splice(..0, *b"\xF5WDL\x01\x01\x80\x00");
        }
        side.conns[index].up.extend(bytes);
    }
}

impl Side<'_> {
    /// A client knows that its connection is over.
    pub(crate) fn over(&mut self, index: usize) {
        if let Some(link) = &mut self.links[index]
            && self.conns[index].reset
        {
            link.stage = Stage::Over;
        }
    }

    /// Somebody on the path flips a bit.
    pub(crate) fn flip(&mut self) {
        let able = |conn: &Conn| {
            matches!(conn.owner, Owner::Agent(_)) && (!conn.up.is_empty() || !conn.down.is_empty())
        };
        let Some(index) = self.any(able) else { return };
        let bit = 1 << self.rng.below(8);
        let conn = &mut self.conns[index];
        let (up, down) = (conn.up.len(), conn.down.len());
        let at = self.rng.below((up + down) as u64) as usize;
        let conn = &mut self.conns[index];
        match at.checked_sub(up) {
            None => conn.up[at] ^= bit,
            Some(at) => conn.down[at] ^= bit,
        }
        if !conn.meddled {
            conn.meddled = true;
            conn.meddled_ns = self.now_ns;
        }
        self.states.hit(State::Flipped);
    }
}
