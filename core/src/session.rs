//! A connection: its positions, its deadlines, and what it is owed. No bytes; those are in the
//! pool.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytemuck::Zeroable;

use crate::chain::Chain;
use crate::id::{Dialects, Ref, TopicId};
use crate::rate::Bucket;
use crate::storage::Slot;
use crate::time::{Duration, Instant};
use crate::wheel::{Timed, Timer};

/// A set of small numbers.
macro_rules! bits {
    ($(#[$meta:meta])* $name:ident: $($flag:ident),+) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
        #[repr(transparent)]
        pub(crate) struct $name(u16);

        impl $name {
            bits!(@ 0, $($flag),+);

            pub(crate) const fn has(self, flag: Self) -> bool {
                self.0 & flag.0 != 0
            }

            pub(crate) const fn set(&mut self, flag: Self) {
                self.0 |= flag.0;
            }

            pub(crate) const fn clear(&mut self, flag: Self) {
                self.0 &= !flag.0;
            }

            /// Clears `flag`; gives whether it was set.
            pub(crate) const fn take(&mut self, flag: Self) -> bool {
                let had = self.has(flag);
                self.clear(flag);
                had
            }
        }
    };
    (@ $n:expr, $flag:ident $(, $rest:ident)*) => {
        pub(crate) const $flag: Self = Self(1 << $n);
        bits!(@ $n + 1, $($rest),*);
    };
    (@ $n:expr,) => {};
}

bits! {
    /// What the frontend is yet to be told of a connection.
    Pending: SEND, CANCEL, PROBE, FINISH, CLOSE, FLOW, HANDOVER
}

bits! {
    /// What is so about a connection.
    Flags:
    // It is in the ready list.
    READY,
    // Whole lines wait in its input.
    BACKLOG,
    // It is in the list of those whose backlog is to be gone on with.
    QUEUED,
    // The frontend was told to stop reading it.
    PAUSED,
    // A line over the limit is being skipped.
    SKIPPING,
    // Its first line has been seen.
    SPOKE,
    // The peer finished writing.
    EOF,
    // Its last send was short or did not complete at once.
    STALLED,
    // Its cursor is to jump, or to be dropped, once the send in flight has ended.
    JUMP,
    // Its address is not subject to the quarantine.
    EXEMPT,
    // A probe was asked for and not answered yet.
    PROBING,
    // The frontend cannot tell what it acknowledged.
    BLIND,
    // The senders of its topic are slowed for it.
    PACING,
    // It waits for more to come before it is sent to.
    PATIENT,
    // It speaks the native dialect.
    NATIVE,
    // Which dialect it speaks is not known yet.
    UNDECIDED
}

/// Where a connection stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connection: the slot is free.
    Free,
    /// It lives.
    Open,
    /// It is sent its last bytes.
    Leaving,
    /// It was sent them; its end of stream is awaited.
    Finished,
    /// The frontend was told to close it, and has not said that it has.
    Closing,
    /// It comes from a proxy, which has yet to say for whom.
    Proxied,
    /// No connection: another shard.
    Link,
}

/// Whether a send is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// None.
    No,
    /// The frontend was told that there is something to send; it has not gathered it.
    Offered,
    /// It has: nothing of it may move.
    InFlight,
}

/// The last words to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    None,
    Slow,
    Idle,
    Shutdown,
    Utf8,
    Http,
    Unfinished,
    Overloaded,
}

/// What a send in flight is made of, in this order.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct Flight {
    /// The rest of a message that was begun, from the log.
    pub(crate) begun: u32,
    /// Of the connection's own bytes.
    pub(crate) control: u32,
    /// From the log.
    pub(crate) log: u32,
}

impl Flight {
    pub(crate) const fn total(&self) -> u32 {
        self.begun.saturating_add(self.control).saturating_add(self.log)
    }
}

/// A connection's slot.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Session {
    pub(crate) generation: u32,
    pub(crate) ready_next: Ref,
    pub(crate) backlog_next: Ref,
    pub(crate) patient_next: Ref,
    pub(crate) cursor: Ref,
    pub(crate) topic: Ref,
    pub(crate) timer: Timer,
    pub(crate) pending: Pending,
    pub(crate) flags: Flags,
    phase: u8,
    sending: u8,
    farewell: u8,
    /// What its listener takes, while its proxy has yet to say for whom it connects.
    takes: u8,
    /// Input not yet taken: an unfinished line, or a backlog.
    pub(crate) input: Chain,
    /// Output of its own: warnings, and what was copied from the log.
    pub(crate) output: Chain,
    pub(crate) flight: Flight,
    ip: [u8; 16],
    port: u16,
    pub(crate) prefix: Ref,
    /// The others of its prefix, youngest first.
    pub(crate) older: Ref,
    pub(crate) younger: Ref,
    /// Bytes of the unfinished line, those that were skipped too.
    pub(crate) unfinished_bytes: u64,
    pub(crate) unfinished_since: Instant,
    pub(crate) heard_at: Instant,
    pub(crate) sent_at: Instant,
    /// The last time that it was seen to acknowledge something.
    pub(crate) acknowledged_at: Instant,
    /// Since when it has not taken what was sent to it.
    pub(crate) stalled_at: Instant,
    pub(crate) sent_bytes: u64,
    pub(crate) acknowledged_bytes: u64,
    pub(crate) held_until: Instant,
    /// Until then its messages cost ten times as much: its address was struck. Zero: it never was.
    pub(crate) throttled_until: Instant,
    pub(crate) close_at: Instant,
    /// Messages of this shard on a topic of another one that were taken before it came.
    pub(crate) joined: u64,
    pub(crate) rate: Bucket,
    /// What its rate would be had nobody struck it; kept up from the first strike on. Only who is
    /// over that offends.
    pub(crate) unstruck: Bucket,
    pub(crate) warnings: Bucket,
    pub(crate) denied_since: Instant,
    pub(crate) denied_at: Instant,
    pub(crate) denied_charged_at: Instant,
    /// Since when it lags beyond the reference's disconnect threshold, or its topic is paced for
    /// it.
    pub(crate) pressed_at: Instant,
    /// Messages that it missed and is yet to be told of: from, and to, not itself.
    pub(crate) gap_from: u64,
    pub(crate) gap_to: u64,
}

const _: () = assert!(size_of::<Session>() <= 384);

impl Slot for Session {
    fn free_next(&mut self) -> &mut Ref {
        &mut self.ready_next
    }
}

impl Timed for Session {
    fn timer(&self) -> &Timer {
        &self.timer
    }

    fn timer_mut(&mut self) -> &mut Timer {
        &mut self.timer
    }
}

impl Session {
    /// Whether nothing has come from it yet.
    pub(crate) const fn is_silent(&self) -> bool {
        !self.flags.has(Flags::SPOKE)
            && !self.flags.has(Flags::SKIPPING)
            && !self.flags.has(Flags::BACKLOG)
            && self.input.is_empty()
    }

    /// Whether it is yet to be told of messages that it missed.
    pub(crate) const fn has_gap(&self) -> bool {
        self.gap_from < self.gap_to
    }

    pub(crate) fn set_remote(&mut self, remote: SocketAddr) {
        let ip = match remote.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.ip = ip.octets();
        self.port = remote.port();
    }

    /// The listener of a connection whose proxy has yet to say for whom it connects.
    pub(crate) const fn listener(&self) -> TopicId {
        let dialects = match self.takes {
            1 => Dialects::Native,
            2 => Dialects::Mixed,
            _ => Dialects::Line,
        };
        TopicId { slot: self.topic, dialects }
    }

    pub(crate) const fn set_listener(&mut self, listener: TopicId) {
        self.topic = listener.slot;
        self.takes = match listener.dialects {
            Dialects::Line => 0,
            Dialects::Native => 1,
            Dialects::Mixed => 2,
        };
    }

    /// Its messages cost more for so long.
    pub(crate) fn throttle(&mut self, now: Instant, span: Duration) {
        if span.is_zero() {
            return;
        }
        if self.throttled_until == Instant::ZERO {
            self.unstruck = self.rate;
        }
        self.throttled_until = now.after(span);
    }

    /// Wipes the slot but for what late completions are recognised by.
    pub(crate) fn wipe(&mut self) {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::zeroed() };
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(Ipv6Addr::from(self.ip)).to_canonical(), self.port)
    }

    pub(crate) const fn phase(&self) -> Phase {
        match self.phase {
            1 => Phase::Open,
            2 => Phase::Leaving,
            3 => Phase::Finished,
            4 => Phase::Closing,
            5 => Phase::Proxied,
            6 => Phase::Link,
            _ => Phase::Free,
        }
    }

    pub(crate) const fn set_phase(&mut self, phase: Phase) {
        self.phase = match phase {
            Phase::Free => 0,
            Phase::Open => 1,
            Phase::Leaving => 2,
            Phase::Finished => 3,
            Phase::Closing => 4,
            Phase::Proxied => 5,
            Phase::Link => 6,
        };
    }

    /// Whether the slot is a connection's, one that is ending or not.
    pub(crate) const fn is_connection(&self) -> bool {
        !matches!(self.phase(), Phase::Free | Phase::Link)
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase(), Phase::Open)
    }

    /// Whether it lives, known or not.
    pub(crate) const fn is_living(&self) -> bool {
        matches!(self.phase(), Phase::Open | Phase::Proxied)
    }

    pub(crate) const fn sending(&self) -> Sending {
        match self.sending {
            1 => Sending::Offered,
            2 => Sending::InFlight,
            _ => Sending::No,
        }
    }

    pub(crate) const fn set_sending(&mut self, sending: Sending) {
        self.sending = match sending {
            Sending::No => 0,
            Sending::Offered => 1,
            Sending::InFlight => 2,
        };
    }

    pub(crate) const fn farewell(&self) -> Farewell {
        match self.farewell {
            1 => Farewell::Slow,
            2 => Farewell::Idle,
            3 => Farewell::Shutdown,
            4 => Farewell::Utf8,
            5 => Farewell::Http,
            6 => Farewell::Unfinished,
            7 => Farewell::Overloaded,
            _ => Farewell::None,
        }
    }

    pub(crate) const fn set_farewell(&mut self, farewell: Farewell) {
        self.farewell = match farewell {
            Farewell::None => 0,
            Farewell::Slow => 1,
            Farewell::Idle => 2,
            Farewell::Shutdown => 3,
            Farewell::Utf8 => 4,
            Farewell::Http => 5,
            Farewell::Unfinished => 6,
            Farewell::Overloaded => 7,
        };
    }
}
