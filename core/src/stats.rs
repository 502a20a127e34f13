//! Plain counters: everything that was taken, refused, dropped, cut or paused.

/// A counter. It wraps after 2^64, which nobody will see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter(u64);

impl Counter {
    /// How many.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    pub(crate) const fn bump(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }

    pub(crate) const fn add(&mut self, many: u64) {
        self.0 = self.0.wrapping_add(many);
    }
}

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of a relay, since its start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Stats {
            /// How many counters there are.
            pub const COUNT: usize = [$(stringify!($name)),+].len();

            /// Every counter with its name and what it counts, in the order of their declaration.
            #[must_use]
            pub fn all(&self) -> [(&'static str, &'static str, u64); Self::COUNT] {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name.0)),+]
            }
        }
    };
}

stats! {
    /// Connections accepted, those that other shards handed over among them.
    accepted,
    /// Connections gone, those that were handed over to other shards among them.
    closed,
    /// Newcomers refused: the address, or the identity, is in quarantine.
    refused_quarantined,
    /// Newcomers refused: no slot, and nobody gave way.
    refused_full,
    /// Newcomers refused: too many from their address while the relay filled.
    refused_per_address,
    /// Newcomers refused: memory was short, or the relay was shutting down.
    refused_other,
    /// Connections of which a proxy said whose they are.
    proxied,
    /// Connections of proxies that did not say it: closed.
    no_proxy_header,
    /// Connections that gave way to a newcomer.
    evicted_for_newcomer,
    /// Bytes received.
    bytes_in,
    /// Bytes that the sockets took.
    bytes_out,
    /// Sends that ended.
    sends,
    /// Times that the readers of a topic waited for more and were sent to together.
    coalesced,
    /// Messages taken.
    published,
    /// Messages taken while nobody else listened.
    published_to_nobody,
    /// Bytes appended to logs.
    bytes_appended,
    /// Messages over a rate: not relayed.
    over_rate,
    /// Lines over the limit: not relayed.
    line_too_long,
    /// Lines whose envelope was over the limit: not relayed.
    envelope_too_long,
    /// Lines that were not UTF-8: connection closed.
    bad_utf8,
    /// First lines that were HTTP: connection closed.
    wrong_dialect,
    /// Lines that were not finished in time: connection closed.
    unfinished,
    /// Bytes that came from a connection that was closing: dropped.
    bytes_discarded,
    /// Warnings sent.
    warnings,
    /// Warnings not sent, for there were too many or no memory for them.
    warnings_dropped,
    /// Readers cut for reading too slowly.
    cut,
    /// Bytes of logs that readers who were cut had not had.
    cut_bytes,
    /// Jumps of a reader over messages, each told by a gap.
    gaps,
    /// Messages that those jumps skipped.
    gap_messages,
    /// Times that a topic's senders began to be slowed for a reader.
    paced,
    /// Readers evicted for the memory that they pinned.
    evicted_for_memory,
    /// Connections closed for there was no block for input already read.
    overloaded,
    /// Connections closed for being idle.
    idle,
    /// Times that a connection's input waited: its turn's share, its topic's, or memory.
    input_deferred,
    /// Times that input waited because a log had no room.
    log_full,
    /// Sends that were cancelled.
    sends_cancelled,
    /// Sends that were short, or did not complete at once.
    sends_slow,
    /// Completions for connections that are gone: ignored.
    late,
    /// Offences charged to an address, in points.
    offence_points,
    /// Offences charged to an identity, in points.
    identity_points,
    /// Addresses and identities struck by the quarantine.
    strikes,
    /// Strikes that the quarantine had no room for and gave to the address's neighbourhood.
    strikes_to_parent,
    /// Strikes withheld, for too many addresses were banned already.
    strikes_withheld,
    /// Times that an address was seen flapping.
    flapping,
    /// Times that input waited because a link to another shard had no room.
    link_full,
    /// Times that what another shard brought waited: memory, or a shard that lags.
    link_waits,
    /// Messages that other shards brought.
    from_shards,
    /// Bytes of messages given to other shards.
    link_bytes,
    /// Readers cut because what another shard brought found no room, or had a hole.
    replica_cuts,
    /// Shards that gave no sign of life for ten seconds.
    links_dead,
    /// Times that another shard took this one for dead.
    links_lost,
    /// Strikes that another shard told.
    bans_from_shards,
    /// Strikes, or puzzles to be set for one, that another shard was not told, or could not keep:
    /// too many were waiting, and the weakest gave way.
    bans_untold,
    /// Full handshakes that began.
    challenges,
    /// Full handshakes whose signature was checked.
    handshakes,
    /// Handshakes that came to nothing.
    handshakes_refused,
    /// Of those, the ones of an address that had too many under way.
    half_open_refused,
    /// Handshakes that gave way to others, for all places were taken.
    half_open_evicted,
    /// Handshakes for which there was no place, and nobody gave way.
    half_open_full,
    /// Handshakes of struck identities that are to come again, and solve a harder puzzle.
    puzzles_wanted,
    /// Sessions that went on over a new connection.
    resumes,
    /// Sessions begun or had back by who knows the server by its second key: while this grows,
    /// that key is needed.
    second_key_sessions,
    /// The same of its third key.
    third_key_sessions,
    /// The same of its fourth key.
    fourth_key_sessions,
    /// Connections whose session a later one took.
    superseded,
    /// Sessions forgotten because their client did not come back in time.
    sessions_expired,
    /// Sessions forgotten because others needed the room.
    sessions_evicted,
    /// CLOSEs received.
    closes,
    /// Native connections ended for a record that was wrong.
    record_faults,
    /// Control values received.
    controls,
    /// Questions answered with no.
    asks_refused,
    /// Messages not taken, each told to its sender.
    nacks,
    /// Messages passed from one session to another.
    directs,
    /// Of those, the ones that came back to their senders, for the connection ended before.
    directs_returned,
    /// Credit for streams that found nobody to be given to.
    credits_dropped,
    /// Connections that went to the shard that their clients are at home on: each is closed here,
    /// and accepted there or refused.
    handed_over,
    /// Of those, and of newcomers that were to go to a shard with fewer connections, the ones that
    /// were closed on the way: too many wait for the other shard.
    lost_on_the_way,
    /// What other shards were to be told of sessions, and found no memory.
    notes_lost,
    /// Times that a native sender was out of tokens.
    native_held,
    /// Of those, the times that only all sessions of its identity together were.
    identity_held,
    /// Frames appended to logs.
    frames_appended,
    /// Records over stretches of logs.
    batches,
    /// Of those, the ones whose digest another reader had needed before.
    digests_shared,
    /// Times that a bridge was not handed what had come over one.
    bridged_left_out,
    /// Events that found the ring full.
    events_dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_shown_once_with_its_meaning() {
        let mut stats = Stats::default();
        stats.cut.add(7);
        let all = stats.all();
        assert!(all.contains(&("cut", "Readers cut for reading too slowly.", 7)));
        for (i, (name, meaning, _)) in all.iter().enumerate() {
            assert!(meaning.ends_with('.'));
            assert!(!all.iter().skip(i + 1).any(|(other, _, _)| other == name));
        }
    }
}
