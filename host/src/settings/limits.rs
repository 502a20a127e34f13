//! What the core is told of the settings.

use wardline_core::{
    COALESCE_MAX, ConfigError, Duration, LINK_HEADER, Limits, LineLimits, NativeLimits,
    ProxyLimits, QuarantineLimits, Slowdown,
};

use super::keys::{FLOW_CONTROL_DELAY, Settings, THROTTLE_DELAY};
use super::value::{Bytes, Span};
use crate::net::Listen;
use crate::storage::per_shard;

/// A key, and what is wrong with it.
pub(super) type Wrong = (&'static str, String);

impl Settings {
    /// The limits of the relay.
    pub(super) fn limits(&self) -> Result<Limits, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let limits = self.limits_unchecked(&mut wrong);
        if let (true, Err(error)) = (wrong.is_empty(), limits.check()) {
            wrong.push((key_of(error), error.sentence().to_owned()));
        }
        if let (true, true, Err(error)) =
            (wrong.is_empty(), self.speaks_native(), limits.check_native())
        {
            wrong.push((key_of(error), error.sentence().to_owned()));
        }
        let shards = self.server.shards.count();
        if wrong.is_empty() && shards > 1 {
            let part = per_shard(&limits, shards);
            // As a record of a link holds it.
            let bytes = match self.speaks_native() {
                true => part.record_bytes_max().saturating_sub(LINK_HEADER),
                false => part.line.envelope_bytes_max as usize,
            };
            let message = bytes.div_ceil(part.block_bytes as usize);
            if message > (part.blocks / 4) as usize {
                let said = "a quarter of a shard's part of limits.blocks must hold a message";
                wrong.push(("server.shards", said.to_owned()));
            } else if let Err(error) = part.check().and_then(|()| match self.speaks_native() {
                true => part.check_native(),
                false => Ok(()),
            }) {
                let said = format!("for a shard's part, {}", error.sentence());
                wrong.push((key_of(error), said));
            }
        }
        if wrong.is_empty() { Ok(limits) } else { Err(wrong) }
    }

    fn limits_unchecked(&self, wrong: &mut Vec<Wrong>) -> Limits {
        let (default, pressure, quarantine) = (Limits::DEFAULT, &self.pressure, &self.quarantine);
        let line = self.line_limits(wrong);
        if self.server.listen.is_empty() {
            wrong.push(("server.listen", "must name at least one listener".to_owned()));
        }
        self.check_coalesce(wrong);
        self.check_native(wrong);
        let entries = [
            ("quarantine.entries_v4", quarantine.entries_v4),
            ("quarantine.entries_v6", quarantine.entries_v6),
            ("quarantine.entries_identities", quarantine.entries_identities),
        ];
        for (key, entries) in entries {
            if !(8..=1 << 24).contains(&entries) {
                wrong.push((key, "must be 8 to 16777216".to_owned()));
            }
        }
        for (key, span) in
            [("limits.drain", self.limits.drain), ("limits.drain_spread", self.limits.drain_spread)]
        {
            if span.0 > HOUR {
                wrong.push((key, "must be at most 1h".to_owned()));
            }
        }
        Limits {
            connections: self.limits.connections,
            topics: self.limits.topics,
            blocks: pieces("limits.blocks", self.limits.blocks, default.block_bytes, wrong),
            segments: pieces("limits.segments", self.limits.segments, default.segment_bytes, wrong),
            unfinished: self.limits.unfinished.0,
            warnings_per_second: self.limits.warnings_per_second.0,
            drain: self.limits.drain.0,
            drain_spread: self.limits.drain_spread.0,
            linger: self.limits.linger.0,
            lag_rule: pressure.lag_rule,
            lag_bytes: pressure.lag_bytes.0,
            progress: pressure.progress.0,
            progress_blind: default.progress_blind.max(pressure.progress.0),
            pace: pressure.pace.0,
            // Bodies reach the log by the tap; these events are for tests.
            report_messages: false,
            line,
            native: self.native_limits(),
            quarantine: QuarantineLimits {
                threshold_points: quarantine.threshold_points,
                point: default.quarantine.point,
                cooldown: quarantine.cooldown.0,
                connects_per_minute: quarantine.connects_per_minute.0,
                connections_per_prefix: quarantine.connections_per_prefix,
            },
            proxy: self.proxy_limits(),
            ..default
        }
    }

    /// A topic has one patience, whichever listener a connection came by.
    fn check_coalesce(&self, wrong: &mut Vec<Wrong>) {
        let listens = &self.server.listen;
        for (n, listen) in listens.iter().enumerate() {
            let Some(coalesce) = listen.coalesce() else { continue };
            if coalesce > COALESCE_MAX {
                let sentence = format!("coalesce must be at most 50ms, in \"{listen}\"");
                wrong.push(("server.listen", sentence));
            }
            let of_topic = listens[..n].iter().filter(|other| other.topic() == listen.topic());
            if of_topic.filter_map(Listen::coalesce).any(|other| other != coalesce) {
                let topic = listen.topic();
                let sentence = format!("topic {topic:?} has two values of coalesce");
                wrong.push(("server.listen", sentence));
            }
        }
    }

    /// Whether a listener takes native clients.
    #[must_use]
    pub fn speaks_native(&self) -> bool {
        self.server.listen.iter().any(|listen| listen.dialects().native())
    }

    /// Each that is waited for may hold a block, and one proxy leaves the others their half.
    fn proxy_limits(&self) -> ProxyLimits {
        let limits = Limits::DEFAULT;
        let blocks = self.limits.blocks.0 / u64::from(limits.block_bytes) / 8;
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let waiting = self.native.half_open.saturating_mul(2).min(blocks).max(2);
        ProxyLimits { waiting, waiting_each: waiting / 2, ..limits.proxy }
    }

    fn native_limits(&self) -> NativeLimits {
        let native = &self.native;
        let bytes = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        NativeLimits {
            payload_bytes_max: bytes(native.max_payload.0),
            messages_per_second: native.messages_per_second.0,
            bytes_per_second: bytes(native.bytes_per_second.0),
            identity_messages_per_second: native.identity_messages_per_second.0,
            identity_bytes_per_second: bytes(native.identity_bytes_per_second.0),
            deliveries_per_second: native.deliveries_per_second.0,
            retention_bytes: bytes(native.retention_bytes.0),
            retention: native.retention.0,
            resume: native.resume.0,
            resume_total: native.resume_total.0,
            sessions_per_identity: native.sessions_per_identity,
            puzzle_bits: u8::try_from(native.puzzle_bits).unwrap_or(u8::MAX),
            puzzle_bits_struck: u8::try_from(native.puzzle_bits_struck).unwrap_or(u8::MAX),
            handshakes_per_second: native.handshakes_per_second.0,
            handshakes_per_parent_second: native.handshakes_per_parent_second.0,
            handshakes_total_per_second: native.handshakes_total_per_second.0,
            half_open_per_prefix: native.half_open_per_prefix,
            ..NativeLimits::DEFAULT
        }
    }

    /// Each setting of the native dialect within its bounds.
    fn check_native(&self, wrong: &mut Vec<Wrong>) {
        let native = &self.native;
        let mut within = |key, value: u64, least: u64, most: u64, said: &str| {
            if !(least..=most).contains(&value) {
                wrong.push((key, format!("must be {said}")));
            }
        };
        let number = u64::from;
        within("native.max_payload", native.max_payload.0, 1 << 10, 1 << 20, "1KiB to 1MiB");
        let counts = [
            ("native.resume_entries", native.resume_entries, 0),
            ("native.sessions_per_identity", native.sessions_per_identity, 1),
            ("native.handshakes_per_second", native.handshakes_per_second.0, 1),
            ("native.handshakes_per_parent_second", native.handshakes_per_parent_second.0, 1),
            ("native.handshakes_total_per_second", native.handshakes_total_per_second.0, 1),
            ("native.half_open", native.half_open, 1),
            ("native.half_open_per_prefix", native.half_open_per_prefix, 1),
        ];
        for (key, value, least) in counts {
            within(key, number(value), least, 1 << 24, &format!("{least} to 16777216"));
        }
        within("native.puzzle_bits", number(native.puzzle_bits), 0, 22, "0 to 22");
        let struck = number(native.puzzle_bits_struck);
        within("native.puzzle_bits_struck", struck, 0, 22, "0 to 22");
        let said = "0, or at least native.max_payload and less than 4GiB";
        let least = native.max_payload.0;
        for (key, bytes) in [
            ("native.bytes_per_second", native.bytes_per_second.0),
            ("native.identity_bytes_per_second", native.identity_bytes_per_second.0),
        ] {
            if bytes > 0 {
                within(key, bytes, least, number(u32::MAX), said);
            }
        }
        let most = number(u32::MAX);
        within("native.retention_bytes", native.retention_bytes.0, 0, most, "less than 4GiB");
        let spans = [
            ("native.retention", native.retention, HOUR.times(24), "at most 24h"),
            ("native.resume", native.resume, HOUR.times(24), "at most 24h"),
            ("native.resume_total", native.resume_total, HOUR.times(24 * 7), "at most 7d"),
        ];
        for (key, span, most, said) in spans {
            within(key, span.0.as_nanos(), 0, most.as_nanos(), said);
        }
    }

    fn line_limits(&self, wrong: &mut Vec<Wrong>) -> LineLimits {
        let line = &self.line;
        LineLimits {
            line_bytes_max: narrow("line.max_bytes", line.max_bytes, wrong),
            envelope_bytes_max: narrow("line.max_out_bytes", line.max_out_bytes, wrong),
            messages_per_minute: line.rate_limit_msgs_per_minute.0,
            idle: line.client_timeout_secs.0,
            listening_is_activity: line.listening_is_activity,
            coalesce: line.coalesce.0,
            throttle: slowdown(line.throttle_threshold, line.throttle_delay, THROTTLE_DELAY),
            flow_control: slowdown(
                line.flow_control_threshold,
                line.flow_control_delay,
                FLOW_CONTROL_DELAY,
            ),
            disconnect_threshold_messages: line.disconnect_threshold,
        }
    }
}

/// Longer than anybody waits for a shutdown; a drain of weeks is a typing error.
const HOUR: Duration = Duration::from_secs(3_600);

fn slowdown(
    threshold: Option<u64>,
    delay: Option<Span>,
    default_delay: Duration,
) -> Option<Slowdown> {
    let delay = delay.map_or(default_delay, |delay| delay.0);
    threshold.map(|threshold_messages| Slowdown { threshold_messages, delay })
}

/// How many whole pieces fit.
fn pieces(key: &'static str, bytes: Bytes, piece: u32, wrong: &mut Vec<Wrong>) -> u32 {
    u32::try_from(bytes.0 / u64::from(piece)).unwrap_or_else(|_| {
        wrong.push((key, ConfigError::PoolTooLarge.sentence().to_owned()));
        0
    })
}

fn narrow(key: &'static str, bytes: Bytes, wrong: &mut Vec<Wrong>) -> u32 {
    u32::try_from(bytes.0).unwrap_or_else(|_| {
        wrong.push((key, "must be less than 4GiB".to_owned()));
        0
    })
}

/// The key that an operator has to change.
fn key_of(error: ConfigError) -> &'static str {
    match error {
        ConfigError::Connections => "limits.connections",
        ConfigError::Topics => "limits.topics",
        ConfigError::Blocks | ConfigError::PoolTooLarge | ConfigError::PoolMissing => {
            "limits.blocks"
        }
        ConfigError::Segments => "limits.segments",
        ConfigError::LineBytes | ConfigError::TurnBytes => "line.max_bytes",
        ConfigError::EnvelopeBytes => "line.max_out_bytes",
        ConfigError::Coalesce => "line.coalesce",
        ConfigError::Quarantine => "quarantine.threshold_points",
        ConfigError::Shards | ConfigError::NativeShards => "server.shards",
        ConfigError::Native | ConfigError::NativeBytes => "native.max_payload",
        ConfigError::NativeKey => "native.key",
        ConfigError::TopicName | ConfigError::Full | ConfigError::SlotsMissing => "server.listen",
    }
}
