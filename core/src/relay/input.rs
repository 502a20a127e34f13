//! Input: from bytes to lines to the log.

use super::native::is_hello;
use super::{Relay, Tap};
use crate::event::{Event, NotRelayed, Reason};
use crate::fault::PeerFault;
use crate::id::{ConnId, Ref};
use crate::line::{self, Envelope, Suffix, Text, warning};
use crate::quarantine::Offence;
use crate::queue::Queue;
use crate::rate::Rate;
use crate::session::{Farewell, Flags, Pending, Phase};
use crate::storage::{Pool, Purpose};
use crate::time::{Duration, Instant};

/// What a message costs at least, of whatever is counted in bytes: nobody sends for less.
pub(super) const CHARGE_MIN: u32 = 64;

/// Output of its own that a connection may have waiting before warnings to it are dropped.
const WARNINGS_BYTES_MAX: u32 = 4 << 10;

/// How far a run of lines got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Everything but an unfinished line was taken.
    More,
    /// The turn's share of the connection or of its topic is taken.
    Turn,
    /// The sender has to wait.
    Held,
    /// The log has no room.
    Memory,
    /// The link to another shard has none.
    Link,
    /// What it was answered is to go out first.
    Output,
    /// The connection is ending.
    Gone,
}

impl<P: Pool> Relay<'_, P> {
    /// Bytes came in. They are parsed in place; what must wait is kept by the relay.
    pub fn handle_input(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        self.stats.bytes_in.add(bytes.len() as u64);
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        let mut bytes = bytes;
        if !session.is_open() || session.flags.has(Flags::EOF) {
            let Some(rest) = self.closed_input(slot, bytes) else { return };
            bytes = rest;
        }
        let session = self.sessions.at_mut(slot);
        session.heard_at = now;
        if (session.flags.has(Flags::NATIVE) || is_hello(bytes)) && self.native_input(slot, bytes) {
            return;
        }
        let session = self.sessions.at(slot);
        let topic = session.topic;
        if session.flags.has(Flags::BACKLOG) && !cfg!(wardline_mutant = "backlog_overtaken") {
            self.keep(slot, bytes);
            return;
        }
        self.begin_input(topic);
        // Backlogs of others wait for their turn: new lines stand behind them.
        let others = self.topics.at(topic).queued > 0;
        if others && memchr::memchr(b'\n', bytes).is_some() && !self.is_skipping(slot) {
            self.keep(slot, bytes);
            self.wait(slot, Stop::Turn);
            return;
        }
        self.feed(slot, bytes);
    }

    /// Bytes of a connection that takes none: it ends, or its proxy has yet to say for whom it
    /// connects. Gives what is the client's, where it has said that.
    #[cold]
    fn closed_input<'b>(&mut self, slot: Ref, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.sessions.at(slot).phase() == Phase::Proxied {
            return self.hear_proxy(slot, bytes).filter(|rest| !rest.is_empty());
        }
        self.stats.bytes_discarded.add(bytes.len() as u64);
        None
    }

    /// The same of a connection that is native, or looks like it. Gives whether it is, or ends;
    /// else its bytes are lines.
    pub(super) fn native_input(&mut self, slot: Ref, bytes: &[u8]) -> bool {
        if self.sessions.at(slot).flags.has(Flags::UNDECIDED)
            && let Some(first) = bytes.first()
        {
            self.decide(slot, *first);
        }
        let session = self.sessions.at(slot);
        if !session.flags.has(Flags::NATIVE) {
            if !session.is_open() {
                self.stats.bytes_discarded.add(bytes.len() as u64);
                return true;
            }
            let misled = session.is_silent() && is_hello(bytes);
            if misled {
                self.wrong_dialect(slot);
            }
            return misled;
        }
        if self.is_doomed(slot) {
            self.stats.bytes_discarded.add(bytes.len() as u64);
            return true;
        }
        if session.flags.has(Flags::BACKLOG) {
            self.keep(slot, bytes);
            return true;
        }
        let topic = session.topic;
        self.begin_input(topic);
        if self.topics.at(topic).queued > 0 && !bytes.is_empty() {
            // Backlogs of others wait for their turn: what is new stands behind them.
            self.keep(slot, bytes);
            self.wait(slot, Stop::Turn);
        } else {
            self.feed_native(slot, bytes);
        }
        true
    }

    /// The peer finished writing; a last line counts without its ending. (A reset is
    /// [`Relay::handle_closed`].)
    pub fn handle_eof(&mut self, now: Instant, conn: ConnId) {
        self.enter(now);
        let Some(slot) = self.find_or_late(conn) else { return };
        let session = self.sessions.at_mut(slot);
        match session.phase() {
            Phase::Open if !session.flags.has(Flags::EOF) => {
                session.flags.set(Flags::EOF);
                if session.flags.has(Flags::NATIVE) {
                    if !session.flags.has(Flags::BACKLOG) {
                        self.finish_eof(slot);
                    }
                    return;
                }
                let lost = cfg!(wardline_mutant = "last_line_lost");
                if session.flags.take(Flags::SKIPPING) || session.input.is_empty() || lost {
                    self.finish_eof(slot);
                    return;
                }
                let mut input = session.input;
                if input.last_byte(&self.memory) != Some(b'\n')
                    && input.push(&mut self.memory, Purpose::Input, b"\n").is_err()
                {
                    self.stats.overloaded.bump();
                }
                self.sessions.at_mut(slot).input = input;
                self.set_backlog(slot);
                self.queue(slot);
            }
            Phase::Finished => self.close(slot, Reason::Peer),
            // Noted, so that nobody waits for it once the last words are out.
            Phase::Leaving => session.flags.set(Flags::EOF),
            // Who only looks whether somebody is there does nothing wrong.
            Phase::Proxied if session.input.is_empty() => self.close(slot, Reason::Peer),
            Phase::Proxied => self.no_header(slot),
            Phase::Open | Phase::Free | Phase::Closing | Phase::Link => {}
        }
    }

    fn is_skipping(&self, slot: Ref) -> bool {
        self.sessions.at(slot).flags.has(Flags::SKIPPING)
    }

    /// A connection of a topic has input in this turn.
    fn begin_input(&mut self, topic: Ref) {
        let topic = self.topics.at_mut(topic);
        topic.enter(self.turn);
        topic.publishers = topic.publishers.saturating_add(1);
    }

    /// Bytes that a connection of a topic may bring in one turn: its part of what the topic takes
    /// in, by how many brought something in the turn before.
    pub(super) fn share(&self, topic: Ref) -> u32 {
        let others = self.topics.at(topic).publishers_before.max(1);
        let share = self.limits.topic_turn_bytes.checked_div(others).unwrap_or(0);
        share.max(self.limits.share_bytes).min(self.limits.receive_bytes)
    }

    fn finish_eof(&mut self, slot: Ref) {
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            // Without a CLOSE it is a loss like any other: its session waits for it.
            self.close(slot, Reason::Peer);
            return;
        }
        self.leave(slot, Reason::Peer, Farewell::None, true);
    }

    /// New bytes of a connection that has no backlog.
    fn feed(&mut self, slot: Ref, bytes: &[u8]) {
        let mut rest = bytes;
        let session = self.sessions.at_mut(slot);
        if session.flags.has(Flags::SKIPPING) {
            match memchr::memchr(b'\n', rest) {
                None => {
                    session.unfinished_bytes =
                        session.unfinished_bytes.saturating_add(rest.len() as u64);
                    if cfg!(wardline_mutant = "skip_ends_early") {
                        session.flags.clear(Flags::SKIPPING);
                    }
                    return;
                }
                Some(end) => {
                    session.flags.clear(Flags::SKIPPING);
                    session.unfinished_bytes = 0;
                    rest = rest.get(end.saturating_add(1)..).unwrap_or_default();
                }
            }
        }
        if !self.sessions.at(slot).input.is_empty() {
            match memchr::memchr(b'\n', rest) {
                None => {
                    self.keep_unfinished(slot, rest);
                    return;
                }
                Some(end) => {
                    let (head, tail) =
                        rest.split_at_checked(end.saturating_add(1)).unwrap_or((rest, &[]));
                    if !self.feed_joined(slot, head, tail) {
                        return;
                    }
                    rest = tail;
                }
            }
        }
        let (taken, stop) = self.take_lines(slot, rest);
        let rest = rest.get(taken..).unwrap_or_default();
        match stop {
            Stop::More => self.keep_unfinished(slot, rest),
            Stop::Gone => {}
            Stop::Turn | Stop::Held | Stop::Memory | Stop::Link | Stop::Output => {
                self.keep(slot, rest);
                self.wait(slot, stop);
            }
        }
    }

    /// The line that `head` finishes, made whole in the scratch area. Gives whether what follows
    /// may be taken; else it was seen to.
    fn feed_joined(&mut self, slot: Ref, head: &[u8], tail: &[u8]) -> bool {
        let scratch = core::mem::take(&mut self.scratch);
        let kept = self.sessions.at(slot).input.copy_to(&self.memory, scratch);
        let whole = kept.saturating_add(head.len());
        if whole > scratch.len() {
            // Over any limit: what was kept has its ending far beyond it.
            self.scratch = scratch;
            self.skip_line(slot, 0, head);
            let session = self.sessions.at_mut(slot);
            session.flags.clear(Flags::SKIPPING);
            session.unfinished_bytes = 0;
            return session.is_open();
        }
        if let Some(room) = scratch.get_mut(kept..whole) {
            crate::storage::copy(room, head);
        }
        let line = scratch.get(..whole).unwrap_or_default();
        let (taken, stop) = self.take_lines(slot, line);
        self.scratch = scratch;
        match stop {
            Stop::Gone => return false,
            Stop::More | Stop::Turn | Stop::Held | Stop::Memory | Stop::Link | Stop::Output => {}
        }
        if taken == whole {
            let session = self.sessions.at_mut(slot);
            session.unfinished_bytes = 0;
            let mut input = session.input;
            input.clear(&mut self.memory, Purpose::Input);
            self.sessions.at_mut(slot).input = input;
            return true;
        }
        self.keep(slot, head);
        if self.sessions.at(slot).is_open() {
            self.keep(slot, tail);
        }
        self.wait(slot, stop);
        false
    }

    /// Goes on with the backlog of a connection.
    pub(super) fn continue_input(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        if session.flags.take(Flags::QUEUED) {
            let topic = session.topic;
            let topic = self.topics.at_mut(topic);
            topic.queued = topic.queued.saturating_sub(1);
        }
        let session = self.sessions.at_mut(slot);
        if !session.is_open() || !session.flags.has(Flags::BACKLOG) {
            self.release_if_free(slot);
            return;
        }
        let (topic, held_until) = (session.topic, session.held_until);
        self.begin_input(topic);
        if self.turn_is_full(slot) {
            self.put_off(slot);
            return;
        }
        if held_until > self.now {
            self.arm(slot);
            return;
        }
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            if !self.is_doomed(slot) {
                self.continue_native(slot);
            }
            return;
        }
        let scratch = core::mem::take(&mut self.scratch);
        let (len, fits) = self.look_at_backlog(slot, scratch);
        let waiting = scratch.get(..len).unwrap_or_default();
        let (taken, stop) = self.take_lines(slot, waiting);
        self.scratch = scratch;
        if stop == Stop::Gone {
            return;
        }
        let session = self.sessions.at_mut(slot);
        let mut input = session.input;
        input.pop(&mut self.memory, Purpose::Input, u32::try_from(taken).unwrap_or(u32::MAX));
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.input = input;
        if taken > 0 {
            // What is left may be an unfinished line, which begins here.
            session.unfinished_since = now;
        }
        if stop == Stop::More && !fits && taken == 0 {
            // Not even one line fits the scratch area: it is over any limit.
            self.skip_waiting(slot);
            if !self.sessions.at(slot).is_open() {
                return;
            }
        }
        if stop != Stop::More {
            self.wait(slot, stop);
        } else if fits || self.sessions.at(slot).input.is_empty() {
            self.end_backlog(slot);
        } else {
            // What did not fit the scratch area is in the chain, whole lines among it.
            self.wait(slot, Stop::Turn);
        }
    }

    /// Copies about a share of a backlog to `scratch`; more only where that has no whole line.
    /// Gives how many bytes, and whether that is all.
    fn look_at_backlog(&self, slot: Ref, scratch: &mut [u8]) -> (usize, bool) {
        let input = self.sessions.at(slot).input;
        let share = (self.limits.share_bytes as usize).min(scratch.len());
        let mut len = input.copy_to(&self.memory, scratch.get_mut(..share).unwrap_or_default());
        let all = input.len() as usize;
        let front = scratch.get(..len).unwrap_or_default();
        if len < all && memchr::memchr(b'\n', front).is_none() {
            len = input.copy_to(&self.memory, scratch);
        }
        (len, len == all)
    }

    /// The turn was full before its backlog was come to: it is first in the next one.
    fn put_off(&mut self, slot: Ref) {
        self.stats.input_deferred.bump();
        self.enqueue(slot, |relay| &mut relay.unserved);
    }

    /// Puts a connection into one of the lists of those whose backlog waits.
    fn enqueue(&mut self, slot: Ref, list: impl Fn(&mut Self) -> &mut Queue) {
        let session = self.sessions.at_mut(slot);
        if session.flags.has(Flags::QUEUED) {
            return;
        }
        session.flags.set(Flags::QUEUED);
        let topic = session.topic;
        let topic = self.topics.at_mut(topic);
        topic.queued = topic.queued.saturating_add(1);
        let mut queue = *list(self);
        queue.push(&mut self.sessions, slot);
        *list(self) = queue;
    }

    /// Drops the line at the front of a backlog, which is over the limit.
    fn skip_waiting(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        let mut input = session.input;
        let Some(at) = input.find(&self.memory, b'\n') else {
            let len = input.len() as usize;
            return self.skip_line(slot, len, &[]);
        };
        if self.is_long_http(slot, &[]) {
            return;
        }
        input.pop(&mut self.memory, Purpose::Input, at.saturating_add(1));
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.input = input;
        // What is left may be an unfinished line, which begins here.
        session.unfinished_since = now;
        self.refuse_long(slot, false);
    }

    /// Whether a line over the limit is the first of its connection and begins like HTTP; if so,
    /// the connection ends. `bytes` follow what is kept of it.
    fn is_long_http(&mut self, slot: Ref, bytes: &[u8]) -> bool {
        let session = self.sessions.at(slot);
        if session.flags.has(Flags::SPOKE) {
            return false;
        }
        let mut begin = [0_u8; 24];
        let kept = session.input.copy_to(&self.memory, &mut begin);
        crate::storage::copy(begin.get_mut(kept..).unwrap_or_default(), bytes);
        self.spoke(slot, line::may_be_http(&begin))
    }

    pub(super) fn end_backlog(&mut self, slot: Ref) {
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.flags.clear(Flags::BACKLOG);
        session.unfinished_bytes = u64::from(session.input.len());
        // It could not be heard while it was not read.
        session.heard_at = now;
        if session.flags.has(Flags::EOF) {
            self.finish_eof(slot);
            return;
        }
        if !cfg!(wardline_mutant = "never_resumed") {
            self.mark(slot, Pending::FLOW);
        }
        self.arm(slot);
    }

    /// Sees to it that the backlog is gone on with when what it waits for has come.
    pub(super) fn wait(&mut self, slot: Ref, stop: Stop) {
        if !self.sessions.at(slot).is_open() {
            return;
        }
        self.stats.input_deferred.bump();
        self.set_backlog(slot);
        match stop {
            // Who waits to be sent to is gone on with after that.
            Stop::More | Stop::Gone | Stop::Output => {}
            Stop::Turn => self.defer(slot),
            Stop::Held => self.arm(slot),
            Stop::Link => {
                self.stats.link_full.bump();
                self.enqueue(slot, |relay| &mut relay.links.stalled);
            }
            Stop::Memory => {
                self.stats.log_full.bump();
                // What waits for more holds memory.
                self.release_patient(self.sessions.at(slot).topic);
                if self.evict_for_memory() {
                    self.defer(slot);
                } else {
                    self.enqueue(slot, |relay| &mut relay.starved);
                }
            }
        }
    }

    fn set_backlog(&mut self, slot: Ref) {
        let session = self.sessions.at_mut(slot);
        if !session.flags.has(Flags::BACKLOG) {
            session.flags.set(Flags::BACKLOG);
            self.mark(slot, Pending::FLOW);
        }
    }

    fn defer(&mut self, slot: Ref) {
        self.enqueue(slot, |relay| &mut relay.deferred);
    }

    /// Its backlog is gone on with in this turn.
    pub(super) fn queue(&mut self, slot: Ref) {
        self.enqueue(slot, |relay| &mut relay.backlog);
    }

    /// Keeps an unfinished line, or begins to skip it.
    fn keep_unfinished(&mut self, slot: Ref, bytes: &[u8]) {
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if !session.is_open() || bytes.is_empty() || session.flags.has(Flags::SKIPPING) {
            return;
        }
        if session.input.is_empty() {
            session.unfinished_since = now;
            session.unfinished_bytes = 0;
        }
        let begun = session.input.is_empty();
        let len = (session.input.len() as usize).saturating_add(bytes.len());
        // One more may be a carriage return.
        if len > (self.limits.line.line_bytes_max as usize).saturating_add(1) {
            self.skip_line(slot, len, bytes);
            return;
        }
        session.unfinished_bytes = len as u64;
        self.keep(slot, bytes);
        if begun && !cfg!(wardline_mutant = "unfinished_not_armed") {
            self.arm(slot);
        }
    }

    /// The line is over the limit: what was kept of it is dropped, the rest will be skipped.
    fn skip_line(&mut self, slot: Ref, len: usize, bytes: &[u8]) {
        if self.is_long_http(slot, bytes) {
            return;
        }
        let session = self.sessions.at_mut(slot);
        session.flags.set(Flags::SKIPPING);
        session.unfinished_bytes = len as u64;
        let mut input = session.input;
        input.clear(&mut self.memory, Purpose::Input);
        self.sessions.at_mut(slot).input = input;
        self.refuse_long(slot, false);
        self.arm(slot);
    }

    /// Keeps bytes that were read and must wait.
    pub(super) fn keep(&mut self, slot: Ref, bytes: &[u8]) {
        let session = self.sessions.at(slot);
        let native = session.flags.has(Flags::NATIVE);
        let unit = if native {
            u32::try_from(self.limits.native.record_bytes_max()).unwrap_or(u32::MAX)
        } else {
            self.limits.line.line_bytes_max
        };
        let most = unit.saturating_add(self.limits.receive_bytes);
        let most = most.saturating_add(self.limits.backlog_bytes) as usize;
        let len = (session.input.len() as usize).saturating_add(bytes.len());
        if len > most || !self.push_input(slot, bytes) {
            self.stats.overloaded.bump();
            let reason = Reason::Fault(PeerFault::Overloaded);
            self.leave(slot, reason, Farewell::Overloaded, false);
        }
    }

    /// Adds to what a connection has waiting; if need be, in place of what others have. Gives
    /// whether there was room, or nobody is left who wants it.
    pub(super) fn push_input(&mut self, slot: Ref, bytes: &[u8]) -> bool {
        let mut input = self.sessions.at(slot).input;
        let len = (input.len() as usize).saturating_add(bytes.len());
        while input.push(&mut self.memory, Purpose::Input, bytes).is_err() {
            let relieved = self.relieve(slot, len);
            if !self.sessions.at(slot).is_living() {
                // It ended over that, and its input with it.
                return true;
            }
            if !relieved {
                return false;
            }
        }
        self.sessions.at_mut(slot).input = input;
        true
    }

    /// Takes the whole lines at the front of `buffer`, about a share of them. Gives how many bytes
    /// were taken.
    fn take_lines(&mut self, slot: Ref, buffer: &[u8]) -> (usize, Stop) {
        let Some(end) = memchr::memrchr(b'\n', buffer) else {
            return (0, Stop::More);
        };
        let lines = buffer.get(..=end).unwrap_or_default();
        // One look at all of it; only where that fails, each line is looked at.
        let utf8 = simdutf8::basic::from_utf8(lines).is_ok();
        let suffix = Suffix::new(self.sessions.at(slot).remote());
        let mut share = self.share(self.sessions.at(slot).topic) as usize;
        let mut taken = 0_usize;
        while let Some(rest) = lines.get(taken..).filter(|rest| !rest.is_empty()) {
            if share == 0 || self.turn_is_full(slot) {
                return (taken, Stop::Turn);
            }
            if self.sessions.at(slot).held_until > self.now {
                return (taken, Stop::Held);
            }
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = line::without_return(rest.get(..end).unwrap_or_default());
            match self.take_line(slot, line, utf8, &suffix) {
                Ok(()) => taken = taken.saturating_add(end).saturating_add(1),
                Err(stop) => return (taken, stop),
            }
            // What is refused costs as much as what is relayed, and nothing costs nothing.
            share = share.saturating_sub(end.saturating_add(1).max(CHARGE_MIN as usize));
            if utf8 {
                let rest = lines.get(taken..).unwrap_or_default();
                let more = self.take_ordinary(slot, rest, &mut share, &suffix);
                taken = taken.saturating_add(more);
            }
        }
        (taken, Stop::More)
    }

    pub(super) fn turn_is_full(&self, slot: Ref) -> bool {
        let topic = self.topics.at(self.sessions.at(slot).topic);
        topic.taken >= self.limits.topic_turn_bytes
    }

    fn take_line(
        &mut self,
        slot: Ref,
        line: &[u8],
        utf8: bool,
        suffix: &Suffix,
    ) -> Result<(), Stop> {
        let over = line.len() > self.limits.line.line_bytes_max as usize;
        if !self.sessions.at(slot).flags.has(Flags::SPOKE) {
            let http = if over { line::may_be_http(line) } else { line::is_http(line) };
            if self.spoke(slot, http) {
                return Err(Stop::Gone);
            }
        }
        if over {
            self.refuse_long(slot, false);
            return Ok(());
        }
        if !utf8 && simdutf8::basic::from_utf8(line).is_err() {
            self.stats.bad_utf8.bump();
            self.refuse(slot, NotRelayed::BadUtf8);
            self.offend(slot, Offence::BadUtf8);
            self.leave(slot, Reason::Fault(PeerFault::BadUtf8), Farewell::Utf8, false);
            return Err(Stop::Gone);
        }
        let envelope = Envelope::new(line, suffix);
        if envelope.len() > self.limits.line.envelope_bytes_max as usize {
            self.refuse_long(slot, true);
            return Ok(());
        }
        let Some(rate) = self.conforms(slot) else {
            self.deny(slot);
            return Ok(());
        };
        // The bucket is charged only once the message is in the log.
        self.publish(slot, &envelope)?;
        if !cfg!(wardline_mutant = "rate_not_charged") {
            let session = self.sessions.at_mut(slot);
            session.rate = rate;
            if session.throttled_until != Instant::ZERO {
                self.goes_on(slot);
            }
        }
        if let Tap(Some(show)) = &mut self.tap {
            show(self.sessions.at(slot).remote(), line);
        }
        Ok(())
    }

    /// The first line of a connection, which is HTTP or not; if it is, the connection ends.
    fn spoke(&mut self, slot: Ref, http: bool) -> bool {
        self.sessions.at_mut(slot).flags.set(Flags::SPOKE);
        if http {
            self.stats.wrong_dialect.bump();
            self.refuse(slot, NotRelayed::WrongDialect);
            self.offend(slot, Offence::WrongDialect);
            let reason = Reason::Fault(PeerFault::WrongDialect);
            self.leave(slot, reason, Farewell::Http, false);
        }
        http
    }

    /// The bucket after one message, if it holds that much.
    fn conforms(&self, slot: Ref) -> Option<crate::rate::Bucket> {
        let session = self.sessions.at(slot);
        let per_minute = self.limits.line.messages_per_minute;
        if per_minute == 0 {
            return Some(session.rate);
        }
        let throttled =
            session.throttled_until > self.now && !cfg!(wardline_mutant = "throttle_ignored");
        let cost = if throttled { 10.min(per_minute) } else { 1 };
        session.rate.after(Rate::per_minute(per_minute), self.now, cost)
    }

    /// One more message of a sender that was struck: whether it is within the rate that it had
    /// before, and so no offence, whatever the strike makes of it.
    #[cold]
    fn goes_on(&mut self, slot: Ref) -> bool {
        let rate = Rate::per_minute(self.limits.line.messages_per_minute);
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        session.throttled_until != Instant::ZERO && session.unstruck.take(rate, now, 1)
    }

    /// A message over the rate: not relayed, told, and after ten seconds on end an offence, unless
    /// it is over the rate only because it was struck.
    fn deny(&mut self, slot: Ref) {
        const ON_END: Duration = Duration::from_secs(1);
        const GRACE: Duration = Duration::from_secs(10);
        self.stats.over_rate.bump();
        self.refuse(slot, NotRelayed::Rate);
        self.warn(slot, warning::RATE.as_bytes());
        if self.goes_on(slot) {
            return;
        }
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        if now.since(session.denied_at) > ON_END {
            session.denied_since = now;
        }
        session.denied_at = now;
        let long = now.since(session.denied_since) >= GRACE;
        if long && now.since(session.denied_charged_at) >= ON_END {
            session.denied_charged_at = now;
            self.offend(slot, Offence::Rate);
        }
    }

    /// A line, or its envelope, is over the limit: not relayed, told, and an offence.
    fn refuse_long(&mut self, slot: Ref, envelope: bool) {
        let mut text = Text::<112>::new();
        if envelope {
            self.stats.envelope_too_long.bump();
            self.refuse(slot, NotRelayed::EnvelopeTooLong);
            line::too_long(&mut text, true, self.limits.line.envelope_bytes_max);
        } else {
            self.stats.line_too_long.bump();
            self.refuse(slot, NotRelayed::LineTooLong);
            line::too_long(&mut text, false, self.limits.line.line_bytes_max);
        }
        self.offend(slot, Offence::LineTooLong);
        self.warn(slot, text.as_bytes());
    }

    fn refuse(&mut self, slot: Ref, why: NotRelayed) {
        if self.limits.report_messages {
            let conn = self.id(slot);
            self.tell(Event::NotRelayed { conn, why });
        }
    }

    /// Tells a connection something, if it was not told too much already.
    pub(super) fn warn(&mut self, slot: Ref, text: &[u8]) {
        if self.sessions.at(slot).flags.has(Flags::NATIVE) {
            return;
        }
        let rate = Rate::per_second(self.limits.warnings_per_second);
        let now = self.now;
        let session = self.sessions.at_mut(slot);
        let mut output = session.output;
        let told = output.len() <= WARNINGS_BYTES_MAX
            && session.warnings.take(rate, now, 1)
            && output.push(&mut self.memory, Purpose::Output, text).is_ok();
        self.sessions.at_mut(slot).output = output;
        if told {
            self.stats.warnings.bump();
            self.mark(slot, Pending::SEND);
        } else {
            self.stats.warnings_dropped.bump();
        }
    }
}
