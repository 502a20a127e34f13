//! What the relay must have done by now: its deadlines, told naively.

use wardline_core::LagRule;

use crate::peer::Peer;
use crate::world::World;

/// How much later than its deadline something may be: ticks, and a probe that was asked twice.
const SLACK_NS: u64 = 1_200_000_000;
/// A few ticks of the relay's wheel.
const TICKS_NS: u64 = 3_000_000;

impl World<'_, '_> {
    /// Fails where somebody is still there who should have been told to leave. Only once the relay
    /// has had its say at this time.
    pub(crate) fn assert_in_time(&mut self) {
        for index in self.open() {
            let peer = &self.side.peers[index];
            let now_ns = self.side.now_ns;
            let overdue = [
                ("a line unfinished", self.unfinished_by(peer)),
                ("idle", self.idle_by(peer)),
                ("a reader stuck", self.stuck_by(peer)),
                ("messages held back", self.held_back_by(peer)),
            ];
            let late = |at: &Option<u64>| at.is_some_and(|at| now_ns > at + SLACK_NS);
            let what = overdue.iter().find(|(_, at)| late(at)).map(|(what, _)| *what);
            // While it waits for what this frontend owes it, the relay waits.
            let owed = peer.socket.probed || peer.socket.reset;
            let Some(what) = what.filter(|_| !owed) else {
                self.side.peers[index].late_ns = None;
                continue;
            };
            // What ended just now may have put a deadline into the past: a tick to see that.
            let first = *self.side.peers[index].late_ns.get_or_insert(now_ns);
            let said = || format!("{} {:?}", self.side.brief(index), self.side.plan.limits);
            assert!(now_ns < first + TICKS_NS, "{what}, and nothing was done: {}", said());
        }
    }

    fn unfinished_by(&self, peer: &Peer) -> Option<u64> {
        let view = &peer.view;
        // Who is not read cannot finish it.
        if !view.is_unfinished() || !view.is_heard() || peer.socket.paused {
            return None;
        }
        let since = view.unfinished_ns.max(view.verdict_ns).max(peer.times.resumed);
        let since = since.max(self.side.woke_ns);
        let grace = view.heard_bytes / 1_024 * 1_000_000_000;
        Some(since + self.side.plan.limits.unfinished.as_nanos() + grace)
    }

    fn idle_by(&self, peer: &Peer) -> Option<u64> {
        let line = &self.side.plan.limits.line;
        let idle = line.idle.as_nanos();
        let times = &peer.times;
        // Who is not read, for his lines wait, cannot be heard; nor could he until they were taken.
        let heard = times.heard.max(peer.view.verdict_ns).max(times.resumed);
        let heard = heard.max(self.side.woke_ns);
        if idle == 0 || !peer.view.is_heard() || peer.socket.paused {
            None
        } else if line.listening_is_activity {
            // What was acknowledged counts from when that was seen.
            Some(heard.max(times.sent).max(times.probed) + idle)
        } else {
            Some(heard + idle)
        }
    }

    /// Nothing of a message is under way, its reader could take it, and it waits for others.
    fn held_back_by(&self, peer: &Peer) -> Option<u64> {
        let socket = &peer.socket;
        if peer.view.queue.is_empty() || socket.full || socket.flight.is_some() {
            return None;
        }
        let last = peer.view.queued_ns.max(peer.times.sent).max(peer.times.came);
        Some(last + self.side.plan.limits.line.coalesce.as_nanos())
    }

    fn stuck_by(&self, peer: &Peer) -> Option<u64> {
        let limits = &self.side.plan.limits;
        let socket = &peer.socket;
        let cancelled = socket.flight.as_ref().is_some_and(|flight| flight.cancelled);
        let waits = socket.full && !socket.put_off
            || socket.flight.as_ref().is_some_and(|flight| flight.waits);
        if peer.view.queue.is_empty() || cancelled || !waits || !peer.slow {
            return None;
        }
        let times = &peer.times;
        let told = socket.flight.as_ref().map_or(0, |flight| flight.told_ns);
        let last = times.sent.max(times.came).max(times.started).max(told);
        let last = last.max(self.side.woke_ns);
        let last = last.max(peer.view.queued_ns).max(times.gap).max(times.probed);
        let blind = self.side.plan.habits.blind;
        let span = if blind { limits.progress_blind } else { limits.progress };
        // A second deadline counts from when the first was seen, and time goes in leaps.
        let leaps = self.side.plan.habits.leap_ms * 25_000_000;
        let paced = match limits.lag_rule {
            LagRule::Cut => 0,
            // A jump over nothing but the rest of what was begun is not told.
            LagRule::Gap => span.as_nanos() + leaps,
            LagRule::Pace => limits.pace.as_nanos() + leaps,
        };
        // A frontend that answers late is waited for.
        Some((last + span.as_nanos()).max(times.answered) + paced)
    }
}
