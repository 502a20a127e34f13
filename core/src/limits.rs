//! Every limit of a relay, with its unit, its default, and the reason for the number.

use crate::fault::ConfigError;
use crate::native::handshake::PUZZLE_BITS_MAX;
use crate::native::{FRAME_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::time::Duration;

/// What a reader's lag does when it passes its allowance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LagRule {
    /// The reader is told why and disconnected.
    Cut,
    /// The reader's cursor jumps to the head of the log and it is told which messages are gone.
    Gap,
    /// The topic's senders are slowed for a bounded time; then the reader is cut.
    Pace,
}

/// One step of the reference's backpressure: above this many messages that a reader's socket would
/// not take, each sender of the topic waits so long after each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowdown {
    /// Messages queued for the slowest reader.
    pub threshold_messages: u64,
    /// The wait after each message of a sender.
    pub delay: Duration,
}

/// Limits of the line dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimits {
    /// Longest line taken, in bytes without its ending. Default 64 KiB, at most 1 MiB.
    pub line_bytes_max: u32,
    /// Longest envelope made, in bytes with its newline. Default 64 KiB: clients that exist read
    /// with that limit and die on more.
    pub envelope_bytes_max: u32,
    /// Messages per minute and connection, the whole minute as burst. Default 300; 0: no limit.
    pub messages_per_minute: u32,
    /// A client from which no byte came and which acknowledged none for so long is warned and
    /// closed. Default 300 s; zero: never.
    pub idle: Duration,
    /// Whether bytes that the client acknowledged keep it from being idle. Default true; the
    /// reference counts only what a client sends.
    pub listening_is_activity: bool,
    /// How long readers of a topic that was just sent from may wait for more to come, unless 16
    /// KiB wait already. Default zero: never; at most 50 ms.
    pub coalesce: Duration,
    /// Reference backpressure: first slowdown. Default none.
    pub throttle: Option<Slowdown>,
    /// Reference backpressure: second slowdown. Default none.
    pub flow_control: Option<Slowdown>,
    /// Reference backpressure: a reader above so many queued messages for 5 s on end is closed and
    /// its address refused for [`QuarantineLimits::cooldown`]. Default none.
    pub disconnect_threshold_messages: Option<u64>,
}

/// Limits of the native dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLimits {
    /// Largest payload of a frame, in bytes. Default 64 KiB, at most 1 MiB.
    pub payload_bytes_max: u32,
    /// Messages per second and connection, twice as many as burst. Default 1,000; 0: no limit.
    pub messages_per_second: u32,
    /// Bytes of frames per second and connection, at least 64 each; a second's as burst. Default
    /// 8 MiB; 0: no limit.
    pub bytes_per_second: u32,
    /// Messages per second of an identity in all its sessions, twice as many as burst. Default
    /// 2,000; 0: no limit.
    pub identity_messages_per_second: u32,
    /// Bytes of frames per second of an identity in all its sessions; a second's as burst. Default
    /// 16 MiB; 0: no limit.
    pub identity_bytes_per_second: u32,
    /// Deliveries that an identity may cause per second in all its sessions. Default 1,000,000;
    /// 0: no limit.
    pub deliveries_per_second: u32,
    /// What a topic keeps for who comes later or comes back. Default 256 KiB; 0: nothing.
    pub retention_bytes: u32,
    /// For how long. Default 60 s.
    pub retention: Duration,
    /// How long a session waits for its resume after its connection was lost. Default 60 s.
    pub resume: Duration,
    /// How long a session can be resumed in all. Default 24 h.
    pub resume_total: Duration,
    /// Sessions of one identity, one for each of its devices. Default 4.
    pub sessions_per_identity: u32,
    /// Topics that one connection may have open at once. Default 64.
    pub subscriptions: u32,
    /// Bits of the puzzle that a stranger is asked for. Default 0, at most 22.
    pub puzzle_bits: u8,
    /// The same while the relay is loaded: by memory, or by handshakes. Default 16.
    pub puzzle_bits_loaded: u8,
    /// The same of an identity at the second level of its quarantine. Default 20, at most 22: a
    /// tenth of a second's work, and about one for a client in Python, of the five that there are.
    pub puzzle_bits_struck: u8,
    /// Full handshakes per second from one prefix, twice as many as burst. Default 20.
    pub handshakes_per_second: u32,
    /// The same from one neighbourhood, a /24 or a /48. Default 200.
    pub handshakes_per_parent_second: u32,
    /// Full handshakes per second in all, but for those of exempt addresses. Of several shards that
    /// is each one's; what one has verified and another is to answer counts on both. Default 2,000.
    pub handshakes_total_per_second: u32,
    /// Handshakes of one prefix that may be under way at once. Default 32.
    pub half_open_per_prefix: u32,
    /// The first byte must have come within so long. Default 2 s.
    pub first_byte: Duration,
    /// The handshake must be over within so long. Default 5 s.
    pub handshake: Duration,
    /// A client that says nothing for so long is asked whether it is there. Default 30 s.
    pub ping: Duration,
    /// One from which nothing came for so long is gone. Default 90 s.
    pub silence: Duration,
    /// Bytes that may wait for one connection from its peers. Default 256 KiB.
    pub direct_bytes: u32,
    /// On a listener of both dialects, silence of so long is the line dialect. Default 3 s.
    pub decide: Duration,
}

impl NativeLimits {
    /// What a server starts with.
    pub const DEFAULT: Self = Self {
        payload_bytes_max: 64 << 10,
        messages_per_second: 1_000,
        bytes_per_second: 8 << 20,
        identity_messages_per_second: 2_000,
        identity_bytes_per_second: 16 << 20,
        deliveries_per_second: 1_000_000,
        retention_bytes: 256 << 10,
        retention: Duration::from_secs(60),
        resume: Duration::from_secs(60),
        resume_total: Duration::from_secs(24 * 3_600),
        sessions_per_identity: 4,
        subscriptions: 64,
        puzzle_bits: 0,
        puzzle_bits_loaded: 16,
        puzzle_bits_struck: 20,
        handshakes_per_second: 20,
        handshakes_per_parent_second: 200,
        handshakes_total_per_second: 2_000,
        half_open_per_prefix: 32,
        first_byte: Duration::from_secs(2),
        handshake: Duration::from_secs(5),
        ping: Duration::from_secs(30),
        silence: Duration::from_secs(90),
        direct_bytes: 256 << 10,
        decide: Duration::from_secs(3),
    };

    /// Bytes of the longest record that a client may send.
    pub(crate) const fn record_bytes_max(&self) -> u64 {
        (self.payload_bytes_max as u64)
            .saturating_add((RECORD_HEADER_BYTES + FRAME_HEADER_BYTES) as u64)
    }
}

/// Limits of the quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuarantineLimits {
    /// Points at which an address is struck. Default 100.
    pub threshold_points: u32,
    /// The time in which one point is forgiven. Default 6 s.
    pub point: Duration,
    /// How long the address of a reader that trips the reference's disconnect threshold is
    /// refused. Default 10 min.
    pub cooldown: Duration,
    /// New connections per minute from one prefix before it counts as flapping. Default 15.
    pub connects_per_minute: u32,
    /// Connections from one prefix: for native clients that begin anew at any time, for clients of
    /// lines once 70 % of the slots are taken. Default 256.
    pub connections_per_prefix: u32,
}

/// Limits of what proxies are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Connections whose proxies have yet to say for whom they connect. Default 2,048; each may
    /// hold a block.
    pub waiting: u32,
    /// The same of one proxy. Default 1,024.
    pub waiting_each: u32,
    /// They must have said it within so long. Default 5 s: a segment may be lost twice.
    pub header: Duration,
}

/// How much a relay takes, holds and sends. Every field has a default ([`Limits::DEFAULT`]), and
/// [`Limits::check`] says which combinations make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. Default 16,384.
    pub connections: u32,
    /// Topics at once. Default 4,096.
    pub topics: u32,
    /// Bytes in a block, the unit of unfinished input, of control output and of a quiet topic's
    /// log. Default 2 KiB.
    pub block_bytes: u32,
    /// Blocks. Default 16,384 (32 MiB).
    pub blocks: u32,
    /// Bytes in a segment, the unit of a busy topic's log. Default 64 KiB.
    pub segment_bytes: u32,
    /// Segments. Default 1,024 (64 MiB).
    pub segments: u32,
    /// What a log holds in blocks before it takes segments. Default 32 KiB.
    pub quiet_log_bytes: u32,
    /// Outgoing bytes that a topic takes in per turn. Default 128 KiB.
    pub topic_turn_bytes: u32,
    /// A connection's share of a turn, in incoming bytes, at least 64 a line; more where fewer
    /// connections speak. Default 16 KiB.
    pub share_bytes: u32,
    /// The most that one receive may bring. Default 64 KiB.
    pub receive_bytes: u32,
    /// Input that waits in the middle of what was read, beside one unfinished line and what one
    /// receive brings. Default 32 KiB.
    pub backlog_bytes: u32,
    /// Bytes sent before inputs are polled again. Default 4 MiB.
    pub turn_sent_bytes: u32,
    /// The most in one send. Default 128 KiB.
    pub send_bytes: u32,
    /// The most in one send to a reader whose last send did not complete at once. Default 16 KiB.
    pub slow_send_bytes: u32,
    /// What a lag beyond the allowance does. Default cut.
    pub lag_rule: LagRule,
    /// How far a reader may lag, in bytes; 0: an eighth of the pool. Default 0.
    pub lag_bytes: u64,
    /// How long a reader may acknowledge nothing while bytes wait for it. Default 10 s.
    pub progress: Duration,
    /// The same where the frontend cannot tell what was acknowledged. Default 30 s.
    pub progress_blind: Duration,
    /// How long `pace` may slow a topic's senders for one reader at a time, before it cuts the
    /// reader. Default 10 s.
    pub pace: Duration,
    /// What a sender waits after each message while its topic is paced. Default 100 ms: a floor of
    /// ten messages a second, never nothing.
    pub pace_delay: Duration,
    /// An unfinished line must end within so long, plus a second for each KiB. Default 10 s.
    pub unfinished: Duration,
    /// How long a closing connection may take to read its last bytes. Default 2 s.
    pub linger: Duration,
    /// How long a drain may take to flush what is queued. Default 10 s.
    pub drain: Duration,
    /// How long a drain may take until everybody was told, where there are many. Default 10 s.
    pub drain_spread: Duration,
    /// How many a drain tells at once, whatever time it has. Default 256.
    pub drain_at_once: u32,
    /// Warnings to one connection per second. Default 10.
    pub warnings_per_second: u32,
    /// Whether each message that is taken or refused is reported as an event. Default false.
    pub report_messages: bool,
    /// Limits of the line dialect.
    pub line: LineLimits,
    /// Limits of the native dialect.
    pub native: NativeLimits,
    /// Limits of the quarantine.
    pub quarantine: QuarantineLimits,
    /// Limits of what proxies are waited for.
    pub proxy: ProxyLimits,
}

impl Limits {
    /// What a server starts with.
    pub const DEFAULT: Self = Self {
        connections: 16_384,
        topics: 4_096,
        block_bytes: 2 << 10,
        blocks: 16_384,
        segment_bytes: 64 << 10,
        segments: 1_024,
        quiet_log_bytes: 32 << 10,
        topic_turn_bytes: 128 << 10,
        share_bytes: 16 << 10,
        receive_bytes: 64 << 10,
        backlog_bytes: 32 << 10,
        turn_sent_bytes: 4 << 20,
        send_bytes: 128 << 10,
        slow_send_bytes: 16 << 10,
        lag_rule: LagRule::Cut,
        lag_bytes: 0,
        progress: Duration::from_secs(10),
        progress_blind: Duration::from_secs(30),
        pace: Duration::from_secs(10),
        pace_delay: Duration::from_millis(100),
        unfinished: Duration::from_secs(10),
        linger: Duration::from_secs(2),
        drain: Duration::from_secs(10),
        drain_spread: Duration::from_secs(10),
        drain_at_once: 256,
        warnings_per_second: 10,
        report_messages: false,
        line: LineLimits {
            line_bytes_max: 64 << 10,
            envelope_bytes_max: 64 << 10,
            messages_per_minute: 300,
            idle: Duration::from_secs(300),
            listening_is_activity: true,
            coalesce: Duration::ZERO,
            throttle: None,
            flow_control: None,
            disconnect_threshold_messages: None,
        },
        native: NativeLimits::DEFAULT,
        quarantine: QuarantineLimits {
            threshold_points: 100,
            point: Duration::from_secs(6),
            cooldown: Duration::from_secs(600),
            connects_per_minute: 15,
            connections_per_prefix: 256,
        },
        proxy: ProxyLimits { waiting: 2_048, waiting_each: 1_024, header: Duration::from_secs(5) },
    };

    /// Bytes of the pool that these limits ask for.
    #[must_use]
    pub const fn pool_bytes(&self) -> u64 {
        (self.block_bytes as u64)
            .saturating_mul(self.blocks as u64)
            .saturating_add((self.segment_bytes as u64).saturating_mul(self.segments as u64))
    }

    /// Blocks that so many bytes need.
    pub(crate) const fn blocks_for(&self, bytes: u32) -> u32 {
        let rounded = bytes.saturating_add(self.block_bytes.saturating_sub(1));
        match rounded.checked_div(self.block_bytes) {
            Some(blocks) => blocks,
            None => u32::MAX,
        }
    }

    /// Bytes that a reader may lag.
    #[must_use]
    pub const fn lag_allowance(&self) -> u64 {
        if self.lag_bytes == 0 { self.pool_bytes() / 8 } else { self.lag_bytes }
    }

    /// Bytes of the scratch area: one line and its ending, or a backlog, whichever is more.
    #[must_use]
    pub const fn scratch_bytes(&self) -> u64 {
        let line = (self.line.line_bytes_max as u64).saturating_add(2);
        let wait = self.backlog_bytes as u64;
        if line > wait { line } else { wait }
    }

    /// Bytes of the longest record of a link: what a ring, and whoever carries it, must hold.
    #[must_use]
    pub const fn record_bytes_max(&self) -> usize {
        crate::link::HEADER.saturating_add(self.link_content_max() as usize)
    }

    /// Bytes that a record of a link holds at most: a line as an envelope or as a frame, which may
    /// be the longer one, or a frame with where it is from.
    pub(crate) const fn link_content_max(&self) -> u32 {
        let line = self.line.envelope_bytes_max.saturating_add(FRAME_HEADER_BYTES as u32);
        let frame = self.native.record_bytes_max();
        if line as u64 > frame { line } else { frame as u32 }
    }

    /// Bytes that one log can hold.
    const fn log_bytes_max(&self) -> u64 {
        let blocks = (self.block_bytes as u64).saturating_mul(self.blocks as u64) / 2;
        let quiet = self.quiet_log_bytes as u64;
        let segments = (self.segment_bytes as u64).saturating_mul(self.segments as u64);
        if quiet < blocks { quiet } else { blocks }.saturating_add(segments)
    }

    /// Whether a relay can speak the native dialect to these limits.
    ///
    /// # Errors
    /// The operator's: the field that is out of its bounds.
    pub const fn check_native(&self) -> Result<(), ConfigError> {
        let native = &self.native;
        if native.payload_bytes_max < 1_024
            || native.payload_bytes_max > 1 << 20
            || native.puzzle_bits > PUZZLE_BITS_MAX
            || native.puzzle_bits_loaded > PUZZLE_BITS_MAX
            || native.puzzle_bits_struck > PUZZLE_BITS_MAX
            || native.sessions_per_identity == 0
            || native.subscriptions == 0
        {
            return Err(ConfigError::Native);
        }
        // As for an envelope: nobody could ever send it.
        let frame = native.record_bytes_max();
        if frame > self.pool_bytes() / 4 || frame > self.log_bytes_max() / 2 {
            return Err(ConfigError::NativeBytes);
        }
        Ok(())
    }

    /// Whether a relay can be built to these limits.
    ///
    /// # Errors
    /// The operator's: the field that is out of its bounds.
    pub const fn check(&self) -> Result<(), ConfigError> {
        if self.connections == 0 || self.connections > MAX_SLOTS - RESERVE {
            return Err(ConfigError::Connections);
        }
        if self.topics == 0 || self.topics > MAX_SLOTS {
            return Err(ConfigError::Topics);
        }
        if self.block_bytes < 128 || self.block_bytes > 1 << 20 || self.blocks < 8 {
            return Err(ConfigError::Blocks);
        }
        if self.segment_bytes < self.block_bytes || self.segment_bytes > 16 << 20 {
            return Err(ConfigError::Segments);
        }
        if self.pool_bytes() > u32::MAX as u64 {
            return Err(ConfigError::PoolTooLarge);
        }
        if self.line.line_bytes_max < 64 || self.line.line_bytes_max > 1 << 20 {
            return Err(ConfigError::LineBytes);
        }
        if self.line.envelope_bytes_max < 128 || self.line.envelope_bytes_max > 8 << 20 {
            return Err(ConfigError::EnvelopeBytes);
        }
        // A message must fit the log with room for others, or nobody could ever send it.
        if self.line.envelope_bytes_max as u64 > self.pool_bytes() / 4 {
            return Err(ConfigError::EnvelopeBytes);
        }
        // Nor if one log could never hold it: what it has beyond its quiet start is in segments.
        if self.line.envelope_bytes_max as u64 > self.log_bytes_max() / 2 {
            return Err(ConfigError::EnvelopeBytes);
        }
        if self.share_bytes == 0
            || self.receive_bytes < self.share_bytes
            || self.topic_turn_bytes == 0
            || self.send_bytes == 0
            || self.slow_send_bytes == 0
            || self.turn_sent_bytes == 0
            || self.backlog_bytes < self.receive_bytes / 2
        {
            return Err(ConfigError::TurnBytes);
        }
        if self.line.coalesce.as_nanos() > COALESCE_MAX.as_nanos() {
            return Err(ConfigError::Coalesce);
        }
        if self.quarantine.threshold_points == 0 || self.quarantine.point.is_zero() {
            return Err(ConfigError::Quarantine);
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The longest that readers may be made to wait for more to come.
pub const COALESCE_MAX: Duration = Duration::from_millis(50);

/// Slots beyond `connections`, so that a newcomer can be taken while the one that gives way to it
/// is still being closed.
pub const RESERVE: u32 = 32;

/// Slots are named by 24 bits, on the wire too (PROTOCOL.md, handles).
pub(crate) const MAX_SLOTS: u32 = (1 << 24) - 2;
