//! Deadlines: each connection has one timer, at the earliest of what it waits for.

use super::Relay;
use crate::event::Reason;
use crate::fault::PeerFault;
use crate::id::{ConnId, Ref};
use crate::quarantine::Offence;
use crate::session::{Farewell, Flags, Pending, Phase, Sending};
use crate::storage::Pool;
use crate::time::{Duration, Instant};

/// Timers that one call of `handle_timeout` looks at.
const EXPIRIES_MAX: u32 = 256;
/// How long an answer to a probe may take before it is asked again.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// The rate at which an unfinished line must come, after its grace.
const UNFINISHED_BYTES_PER_SECOND: u64 = 1 << 10;

impl<P: Pool> Relay<'_, P> {
    /// Time has passed. A call too many does nothing; at most 256 deadlines are looked at, and
    /// [`Output::Wait`](super::Output::Wait) says so if there are more.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.enter(now);
        self.sweep();
        for _ in 0..EXPIRIES_MAX {
            let Some(slot) = self.wheel.expire(&mut self.sessions, self.now) else { return };
            self.expire(slot, false);
            self.arm(slot);
        }
    }

    /// What [`Output::Probe`](super::Output::Probe) asked: how many bytes the peer has not
    /// acknowledged. None: it cannot be told on this system, so what the socket took counts.
    pub fn handle_probe(&mut self, now: Instant, conn: ConnId, unacknowledged: Option<u32>) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.flags.clear(Flags::PROBING);
        if unacknowledged.is_none() {
            session.flags.set(Flags::BLIND);
        }
        let missing = u64::from(unacknowledged.unwrap_or(0));
        let acknowledged = session.sent_bytes.saturating_sub(missing);
        if acknowledged > session.acknowledged_bytes {
            session.acknowledged_bytes = acknowledged;
            let all = missing == 0 && !session.flags.has(Flags::STALLED);
            let blind = unacknowledged.is_none();
            session.acknowledged_at = if all || blind { session.sent_at } else { now };
        }
        self.expire(slot, true);
        self.arm(slot);
    }

    /// Sees to it that the timer of a connection stands no later than its earliest deadline.
    pub(super) fn arm(&mut self, slot: Ref) {
        let at = self.deadline(slot);
        if at != Instant::NEVER {
            self.wheel.arm(&mut self.sessions, slot, at);
        }
    }

    fn deadline(&self, slot: Ref) -> Instant {
        if self.sessions.at(slot).phase() != Phase::Open {
            return self.closes_at(slot);
        }
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::PROBING) {
            return self.now.after(PROBE_PATIENCE);
        }
        let held = if session.flags.has(Flags::BACKLOG) && !session.flags.has(Flags::QUEUED) {
            session.held_until
        } else {
            Instant::NEVER
        };
        let own = if session.flags.has(Flags::NATIVE) {
            self.native_deadline(slot)
        } else {
            self.idle_at(slot)
        };
        held.min(own)
            .min(self.unfinished_at(slot))
            .min(self.progress_at(slot))
            .min(self.pressed_until(slot))
            .min(self.patient_until(slot))
    }

    fn idle_at(&self, slot: Ref) -> Instant {
        let idle = self.limits.line.idle;
        if idle.is_zero() {
            return Instant::NEVER;
        }
        let session = self.sessions.at(slot);
        // Who is not read cannot be heard.
        if session.flags.has(Flags::BACKLOG) {
            return Instant::NEVER;
        }
        let mut last = session.heard_at;
        if self.limits.line.listening_is_activity {
            last = last.max(session.acknowledged_at);
        }
        last.after(idle)
    }

    fn unfinished_at(&self, slot: Ref) -> Instant {
        let session = self.sessions.at(slot);
        let flags = session.flags;
        let begun = flags.has(Flags::SKIPPING) || !session.input.is_empty();
        if !begun || flags.has(Flags::BACKLOG) {
            return Instant::NEVER;
        }
        let seconds = session.unfinished_bytes / UNFINISHED_BYTES_PER_SECOND;
        session.unfinished_since.after(self.limits.unfinished).after(Duration::from_secs(seconds))
    }

    fn progress_at(&self, slot: Ref) -> Instant {
        let session = self.sessions.at(slot);
        let waits = session.sending() == Sending::InFlight
            || !session.output.is_empty()
            || session.has_gap()
            || self.lag(slot) > 0;
        let jumps = session.flags.has(Flags::JUMP);
        if !session.flags.has(Flags::STALLED) || !waits || jumps {
            return Instant::NEVER;
        }
        let blind = session.flags.has(Flags::BLIND);
        let span = if blind { self.limits.progress_blind } else { self.limits.progress };
        session.stalled_at.max(session.acknowledged_at).after(span)
    }

    fn pressed_until(&self, slot: Ref) -> Instant {
        let session = self.sessions.at(slot);
        if session.pressed_at == Instant::ZERO {
            Instant::NEVER
        } else if session.flags.has(Flags::PACING) {
            session.pressed_at.after(self.limits.pace)
        } else {
            session.pressed_at.after(Duration::from_secs(5))
        }
    }

    /// Acts on the deadlines of a connection that have come. `probed`: what it acknowledged was
    /// just asked.
    fn expire(&mut self, slot: Ref, probed: bool) {
        let now = self.now;
        match self.sessions.at(slot).phase() {
            Phase::Open => {}
            Phase::Leaving | Phase::Finished => {
                if self.closes_at(slot) <= now {
                    self.close(slot, Reason::Peer);
                }
                return;
            }
            Phase::Proxied => {
                let late = self.closes_at(slot) <= now;
                if late && !cfg!(wardline_mutant = "proxy_waited_for_ever") {
                    self.no_header(slot);
                }
                return;
            }
            Phase::Link => return self.tick(slot),
            Phase::Free | Phase::Closing => return,
        }
        if self.patient_until(slot) <= now {
            self.leave_patience(slot);
        }
        let flags = self.sessions.at(slot).flags;
        if flags.has(Flags::BACKLOG) && self.sessions.at(slot).held_until <= now {
            self.queue(slot);
        }
        let native = flags.has(Flags::NATIVE);
        if native && self.expire_native(slot) {
            return;
        }
        if self.unfinished_at(slot) <= now {
            self.stats.unfinished.bump();
            self.offend(slot, Offence::Unfinished);
            let reason = Reason::Fault(PeerFault::Unfinished);
            self.leave(slot, reason, Farewell::Unfinished, false);
            return;
        }
        let silent =
            !native && self.idle_at(slot) <= now && !cfg!(wardline_mutant = "idle_never_acts");
        let stuck = self.progress_at(slot) <= now;
        if (silent || stuck) && !probed && self.may_have_acknowledged(slot) {
            self.sessions.at_mut(slot).flags.set(Flags::PROBING);
            self.mark(slot, Pending::PROBE);
            return;
        }
        if silent {
            self.stats.idle.bump();
            self.leave(slot, Reason::Fault(PeerFault::Idle), Farewell::Idle, false);
            return;
        }
        if stuck || self.pressed_until(slot) <= now {
            self.stuck(slot, stuck);
        }
    }

    fn may_have_acknowledged(&self, slot: Ref) -> bool {
        let session = self.sessions.at(slot);
        session.sent_bytes > session.acknowledged_bytes
    }

    fn stuck(&mut self, slot: Ref, stuck: bool) {
        if stuck && self.sessions.at(slot).flags.has(Flags::NATIVE) {
            // Whoever acknowledges nothing reads nothing, and no gap helps it.
            self.cut(slot);
        } else if stuck && !cfg!(wardline_mutant = "stuck_is_kept") {
            self.lags(slot);
            if self.sessions.at(slot).is_open() {
                // Its rule was not to cut it: it begins anew.
                self.sessions.at_mut(slot).stalled_at = self.now;
            }
        } else {
            self.repress(slot);
        }
    }
}
