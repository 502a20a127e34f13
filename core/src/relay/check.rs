//! What must hold between any two calls. The simulator asks after every step.

use super::Relay;
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::link::{NOTES, Shape};
use crate::proxy::HEADER_BYTES_MAX;
use crate::session::{Flags, Phase, Sending};
use crate::storage::Pool;

impl<P: Pool> Relay<'_, P> {
    /// Checks every table against the others. Costs as much as the tables are long; for tests.
    ///
    /// # Panics
    /// Where something that this crate promises does not hold.
    pub fn check(&self) {
        let (mut sessions, mut cursors, mut proxied) = (0_u32, 0_u32, 0_u32);
        let mut blocks = 0_u32;
        let mut input_blocks = 0_u32;
        for index in 0..self.sessions.touched() {
            let slot = Ref::of(index);
            let session = self.sessions.at(slot);
            input_blocks = input_blocks.saturating_add(session.input.blocks(&self.memory));
            blocks = blocks.saturating_add(session.input.blocks(&self.memory));
            blocks = blocks.saturating_add(session.output.blocks(&self.memory));
            let listed = session.flags.has(Flags::READY) || session.flags.has(Flags::QUEUED);
            if session.phase() != Phase::Free || listed {
                sessions = sessions.saturating_add(1);
            }
            proxied = proxied.saturating_add(u32::from(session.phase() == Phase::Proxied));
            if session.cursor.is_some() {
                cursors = cursors.saturating_add(1);
                if self.cursors.at(session.cursor).session != slot {
                    invariant_failed("a cursor of another session");
                }
            }
            self.check_session(slot);
        }
        let (feeds, out_blocks) = self.check_links();
        let (subs, _) = self.check_natives();
        cursors = cursors.saturating_add(feeds).saturating_add(subs);
        blocks = blocks.saturating_add(out_blocks);
        let mut links = 0_u32;
        let mut listed_cursors = 0_u32;
        for index in 0..self.topics.touched() {
            let (held, readers) = self.check_topic(Ref::of(index));
            links = links.saturating_add(held);
            listed_cursors = listed_cursors.saturating_add(readers);
        }
        let used = self.memory.blocks_used().saturating_add(self.memory.segments_used());
        if used != links.saturating_add(blocks) {
            invariant_failed("memory that nobody holds, or two do");
        }
        if input_blocks != self.memory.input_blocks() {
            invariant_failed("input blocks are miscounted");
        }
        if proxied != self.known.waiting || proxied > self.limits.proxy.waiting {
            invariant_failed("connections of proxies are miscounted, or too many");
        }
        if sessions != self.sessions.used() || cursors != self.cursors.used() {
            invariant_failed("slots are miscounted");
        }
        let (_, reading) = self.check_natives();
        if listed_cursors != cursors.saturating_sub(subs).saturating_add(reading) {
            invariant_failed("a cursor that no topic lists");
        }
    }

    /// Gives the feeds that there are and the blocks of what waits for links.
    fn check_links(&self) -> (u32, u32) {
        let (mut feeds, mut blocks) = (0_u32, 0_u32);
        // What is taken in before it is looked at again: a turn, of each topic.
        let turn = u64::from(self.limits.topic_turn_bytes)
            .saturating_add(u64::from(self.limits.link_content_max()).saturating_mul(2));
        let turn = turn.saturating_mul(u64::from(self.topics.touched()));
        let (mut lags, mut over) = (0_u64, 0_u64);
        for topic in (0..self.topics.touched()).map(Ref::of) {
            let there =
                |other| self.links.feed(self.links.feed_at(topic, other, Shape::Lines)).readers;
            let all = self.others().fold(0_u32, |all, other| all.saturating_add(there(other)));
            let item = self.topics.at(topic);
            if item.home().is_none() && item.elsewhere != all {
                invariant_failed("readers of other shards are miscounted");
            }
        }
        for other in self.others() {
            let peer = self.links.peer(other);
            blocks = blocks.saturating_add(peer.out.blocks(&self.memory));
            // A replica of frames begins with what is kept, however much that is.
            let (mut lag, mut frames_lag) = (0_u64, 0_u64);
            let all = self.links.others_by_shape().filter(|(shard, _)| *shard == other);
            for (topic, shape) in all.flat_map(|(_, shape)| {
                (0..self.topics.touched()).map(move |topic| (Ref::of(topic), shape))
            }) {
                let feed = self.links.feed(self.links.feed_at(topic, other, shape));
                lag = lag.saturating_add(feed.lag);
                if shape == Shape::Frames {
                    frames_lag = frames_lag.saturating_add(feed.lag);
                }
                let Some(cursor) = feed.cursor.some() else { continue };
                feeds = feeds.saturating_add(1);
                let item = self.topics.at(topic);
                if self.cursors.at(cursor).session != peer.session || item.home().is_some() {
                    invariant_failed("a feed of another shard");
                }
                let behind = self.cursors.at(cursor).is_behind();
                if behind && feed.listed == 0 && item.touched == 0 {
                    invariant_failed("a feed that is behind and forgotten");
                }
            }
            let lines_lag = lag.saturating_sub(frames_lag);
            if lines_lag > turn.saturating_add(self.limits.pool_bytes() / 8) {
                invariant_failed("a shard lags without a bound");
            }
            lags = lags.saturating_add(lines_lag);
            over = over.saturating_add(turn);
            if lag != peer.lag {
                invariant_failed("the lag of a shard is miscounted");
            }
        }
        if lags > over.saturating_add(self.limits.pool_bytes() / 4) {
            invariant_failed("all shards together lag without a bound");
        }
        if blocks != self.links.out_blocks {
            invariant_failed("blocks that wait for links are miscounted");
        }
        for peer in self.links.peers.iter() {
            for of in NOTES {
                blocks = blocks.saturating_add(peer.notes(of).blocks(&self.memory));
            }
        }
        (feeds, blocks)
    }

    fn check_session(&self, slot: Ref) {
        let session = self.sessions.at(slot);
        let sending = session.sending() == Sending::InFlight;
        if sending != (session.flight.total() > 0) {
            invariant_failed("a flight of nothing");
        }
        if session.flags.has(Flags::JUMP) && !sending {
            invariant_failed("a jump that waits for no send");
        }
        let native = session.flags.has(Flags::NATIVE);
        if session.phase() == Phase::Open && session.cursor.is_none() && !native {
            invariant_failed("an open connection without a cursor");
        }
        let unknown = session.phase() == Phase::Proxied;
        if unknown && (native || session.cursor.is_some() || !session.output.is_empty()) {
            invariant_failed("somebody unknown has more than a place");
        }
        if unknown && session.input.len() as usize >= HEADER_BYTES_MAX {
            invariant_failed("a header is kept that is whole or too long");
        }
        if !matches!(session.phase(), Phase::Free | Phase::Link) {
            self.check_row(slot);
        }
        if session.flags.has(Flags::SKIPPING) && !session.input.is_empty() {
            invariant_failed("a line that is skipped and kept");
        }
    }

    /// A connection stands between its neighbours in the row of its address.
    fn check_row(&self, slot: Ref) {
        let session = self.sessions.at(slot);
        let before = session.younger.some().map_or_else(
            || self.prefixes.at(session.prefix).youngest,
            |younger| self.sessions.at(younger).older,
        );
        let after = session.older.some().map_or(slot, |older| self.sessions.at(older).younger);
        let mine = |of: Ref| of.is_none() || self.sessions.at(of).prefix == session.prefix;
        let mine = mine(session.older) && mine(session.younger);
        if before != slot || after != slot || !mine {
            invariant_failed("the row of an address is torn");
        }
    }

    /// Gives the links that a topic holds and the cursors that it lists.
    fn check_topic(&self, slot: Ref) -> (u32, u32) {
        let topic = self.topics.at(slot);
        let (frame_links, reading) = self.check_frames(slot);
        let (mut links, mut listed, mut stalled) = (0_u32, 0_u32, 0_u32);
        let mut next = topic.waiting;
        while let Some(cursor) = next.some() {
            listed = listed.saturating_add(1);
            stalled = stalled.saturating_add(self.is_stalled(cursor));
            next = self.cursors.at(cursor).next();
        }
        let mut link = topic.log.oldest;
        let mut end = None;
        while let Some(here) = link.some() {
            let item = self.memory.at(here);
            links = links.saturating_add(1);
            if end.is_some_and(|end| end != item.base) {
                invariant_failed("a hole between two links");
            }
            end = Some(item.base.saturating_add(u64::from(item.used)));
            let taken = item.used.saturating_add(item.runs.saturating_mul(8));
            if taken > self.memory.capacity(here) {
                invariant_failed("a link over its capacity");
            }
            let mut next = item.cursors;
            while let Some(cursor) = next.some() {
                let reader = self.cursors.at(cursor);
                listed = listed.saturating_add(1);
                stalled = stalled.saturating_add(self.is_stalled(cursor));
                if reader.link != here || reader.pos < item.base || Some(reader.pos) > end {
                    invariant_failed("a cursor outside of its link");
                }
                next = reader.next();
            }
            link = if here == topic.log.newest { Ref::NONE } else { item.next };
        }
        if end.is_some_and(|end| end != topic.log.head) || links != topic.log.links {
            invariant_failed("a log that does not end at its head");
        }
        self.check_patience(slot);
        let lobby = slot == self.natives.lobby;
        if listed != topic.cursors || (stalled != topic.stalled && !lobby) {
            invariant_failed("the readers of a topic are miscounted");
        }
        (links.saturating_add(frame_links), listed.saturating_add(reading))
    }

    /// The same of its frames.
    fn check_frames(&self, slot: Ref) -> (u32, u32) {
        let topic = self.topics.at(slot);
        let (mut links, mut listed) = (0_u32, 0_u32);
        let mut next = topic.frames_waiting;
        while let Some(cursor) = next.some() {
            listed = listed.saturating_add(1);
            next = self.cursors.at(cursor).next();
        }
        let mut link = topic.frames.oldest;
        let mut end = None;
        while let Some(here) = link.some() {
            let item = self.memory.at(here);
            links = links.saturating_add(1);
            if end.is_some_and(|end| end != item.base) {
                invariant_failed("a hole between two links of frames");
            }
            end = Some(item.base.saturating_add(u64::from(item.used)));
            let mut next = item.cursors;
            while let Some(cursor) = next.some() {
                let reader = self.cursors.at(cursor);
                listed = listed.saturating_add(1);
                if reader.link != here || reader.pos < item.base || Some(reader.pos) > end {
                    invariant_failed("a native cursor outside of its link");
                }
                next = reader.next();
            }
            link = if here == topic.frames.newest { Ref::NONE } else { item.next };
        }
        if end.is_some_and(|end| end != topic.frames.head) || links != topic.frames.links {
            invariant_failed("a log of frames that does not end at its head");
        }
        if listed != topic.readers || topic.opened < topic.readers {
            invariant_failed("the native readers of a topic are miscounted");
        }
        (links, listed)
    }

    /// Who waits for more is on the topic, lives, and is listed once.
    fn check_patience(&self, slot: Ref) {
        let mut next = self.topics.at(slot).patience.first();
        let mut listed = 0_u32;
        while let Some(patient) = next.some() {
            let session = self.sessions.at(patient);
            if !session.flags.has(Flags::PATIENT) || !session.is_open() || session.topic != slot {
                invariant_failed("a connection waits for more that does not");
            }
            listed = listed.saturating_add(1);
            next = session.patient_next;
        }
        let waits = |index: &u32| {
            let session = self.sessions.at(Ref::of(*index));
            session.flags.has(Flags::PATIENT) && session.topic == slot
        };
        let waiting = (0..self.sessions.touched()).filter(waits).count();
        if waiting != listed as usize {
            invariant_failed("a connection waits for more and is not let go");
        }
    }

    fn is_stalled(&self, cursor: Ref) -> u32 {
        let session = self.cursors.at(cursor).session;
        u32::from(self.sessions.at(session).flags.has(Flags::STALLED))
    }
}
