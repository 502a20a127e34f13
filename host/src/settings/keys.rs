//! Every setting: its key, kind, default, what it is for, and whether a reload changes it.

use std::path::PathBuf;

use serde_json::Value;
use wardline_core::{Duration, LagRule, Limits, Network};

use super::value::{
    Bytes, Engine, KeyFiles, LogFormat, PerMinute, PerSecond, Rate, Seconds, Setting, Shards, Span,
    read_text,
};
use crate::access::Open;
use crate::logging::{DateFormat, LogLevel, Template};
use crate::net::{Listen, parse_network};

/// Whether a running process takes a changed value over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At once.
    Live,
    /// It has to be started anew.
    Restart,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// What it is for, a sentence.
    pub what: &'static str,
    /// Whether a running process takes a changed value over.
    pub reload: Reload,
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:expr, $reload:ident; )*
        }
    )*) => {
        /// All settings, typed. The default is what a relay does without any.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Settings {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )*
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $key: $kind, )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $( $key: $default, )* }
                }
            }
        )*

        /// Every setting, in the order in which they are shown.
        pub const KEYS: &[Key] = &[ $( $(
            Key {
                name: concat!(stringify!($section), ".", stringify!($key)),
                what: concat!($($doc),+),
                reload: Reload::$reload,
            },
        )* )* ];

        /// Every section.
        pub(super) const SECTIONS: &[&str] = &[ $( stringify!($section) ),* ];

        impl Settings {
            /// Sets one setting to a value from a file.
            pub(super) fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
                match key {
                    $( $(
                        concat!(stringify!($section), ".", stringify!($key)) => {
                            self.$section.$key = Setting::read(value)?;
                        }
                    )* )*
                    _ => return Err("unknown key".to_owned()),
                }
                Ok(())
            }

            /// Sets one setting to a value that was given as plain text.
            pub(super) fn set_text(&mut self, key: &str, text: &str) -> Result<(), String> {
                match key {
                    $( $(
                        concat!(stringify!($section), ".", stringify!($key)) => {
                            self.$section.$key = read_text(text)?;
                        }
                    )* )*
                    _ => return Err("unknown key".to_owned()),
                }
                Ok(())
            }

            /// What a setting is set to, as it may be written in a file; `None` where it is unset
            /// or there is none of that name.
            #[must_use]
            pub fn shown(&self, key: &str) -> Option<Value> {
                match key {
                    $( $(
                        concat!(stringify!($section), ".", stringify!($key)) => {
                            self.$section.$key.show()
                        }
                    )* )*
                    _ => None,
                }
            }
        }
    };
}

const LIMITS: Limits = Limits::DEFAULT;

/// The default of `limits.blocks`.
#[allow(clippy::cast_lossless, reason = "a constant")]
const BLOCKS: Bytes = Bytes(LIMITS.blocks as u64 * LIMITS.block_bytes as u64);

/// The default of `limits.segments`.
#[allow(clippy::cast_lossless, reason = "a constant")]
const SEGMENTS: Bytes = Bytes(LIMITS.segments as u64 * LIMITS.segment_bytes as u64);

settings! {
    /// What is served, and by what.
    server: ServerSettings {
        /// Which engine carries the sockets: auto, ring, tokio-uring or tokio.
        engine: Engine = Engine::Auto, Restart;
        /// Threads that relay, a core each: a number, or auto, which is one for now.
        shards: Shards = Shards(1), Restart;
        /// Where to listen, and the topic of each listener.
        listen: Vec<Listen> = vec![Listen::default(), Listen::native_default()], Restart;
        /// Networks of proxies: who connects from there says first for whom, by PROXY version 2.
        trusted_proxies: Vec<Network> = Vec::new(), Restart;
        /// A file that gets the number of the process, and is removed at its end.
        pid_file: Option<PathBuf> = None, Restart;
        /// A file that gets the URL of each listener with its real port, once all are bound.
        ports_file: Option<PathBuf> = None, Restart;
    }

    /// Clients of the line dialect.
    line: LineSettings {
        /// Messages a client may send in a minute, all at once if it likes; 0: any number.
        rate_limit_msgs_per_minute: PerMinute = Rate(LIMITS.line.messages_per_minute), Restart;
        /// A client that is silent for so long, and acknowledges nothing, is closed; 0: never.
        client_timeout_secs: Seconds = Seconds(LIMITS.line.idle), Restart;
        /// Longest line that is taken.
        max_bytes: Bytes = Bytes(u64::from(LIMITS.line.line_bytes_max)), Restart;
        /// Longest line that is sent, envelope and all.
        max_out_bytes: Bytes = Bytes(u64::from(LIMITS.line.envelope_bytes_max)), Restart;
        /// Whether a client that only listens counts as active.
        listening_is_activity: bool = LIMITS.line.listening_is_activity, Restart;
        /// How long what is sent next may wait for more, to go out together; at most 50ms.
        coalesce: Span = Span(LIMITS.line.coalesce), Restart;
        /// Messages queued for the slowest reader from which senders are slowed.
        throttle_threshold: Option<u64> = None, Restart;
        /// By how much they are slowed, after each message.
        throttle_delay: Option<Span> = None, Restart;
        /// Messages queued for the slowest reader from which senders are slowed more.
        flow_control_threshold: Option<u64> = None, Restart;
        /// By how much they are slowed then.
        flow_control_delay: Option<Span> = None, Restart;
        /// Messages queued for a reader from which it is closed, after 5 s on end.
        disconnect_threshold: Option<u64> = None, Restart;
    }

    /// Clients of the native dialect.
    native: NativeSettings {
        /// The key that this relay proves itself by, a file, or several; unset: one in the state
        /// directory. Who knows one of them is answered with that, everybody else with the first.
        key: KeyFiles = KeyFiles::default(), Restart;
        /// A file with the keys that may connect, a line each, and what each of them may do.
        authorized_keys: Option<PathBuf> = None, Live;
        /// Who may connect that does not stand there: loopback (this machine), always, never.
        open: Open = Open::Loopback, Live;
        /// Longest payload of a message.
        max_payload: Bytes = Bytes(64 << 10), Restart;
        /// Messages that a connection may send in a second; 0: no limit.
        messages_per_second: PerSecond = Rate(1_000), Restart;
        /// Bytes that a connection may send in a second; 0: no limit.
        bytes_per_second: Bytes = Bytes(8 << 20), Restart;
        /// Messages that an identity may send in a second, in all its sessions; 0: no limit.
        identity_messages_per_second: PerSecond = Rate(2_000), Restart;
        /// Bytes that an identity may send in a second, in all its sessions; 0: no limit.
        identity_bytes_per_second: Bytes = Bytes(16 << 20), Restart;
        /// Deliveries that an identity may cause in a second, in all its sessions; 0: no limit.
        deliveries_per_second: PerSecond = Rate(1_000_000), Restart;
        /// What a topic keeps for who comes later.
        retention_bytes: Bytes = Bytes(256 << 10), Restart;
        /// For how long it keeps that.
        retention: Span = Span(Duration::from_secs(60)), Restart;
        /// How long a session that lost its connection can be had back.
        resume: Span = Span(Duration::from_secs(60)), Restart;
        /// How long a session may live in all.
        resume_total: Span = Span(Duration::from_secs(24 * 3_600)), Restart;
        /// Sessions that are kept to be had back.
        resume_entries: u32 = 16_384, Restart;
        /// Sessions of one identity, one for each of its devices.
        sessions_per_identity: u32 = 4, Restart;
        /// Work that a newcomer has to show: bits of the puzzle; 0: none.
        puzzle_bits: u32 = 0, Restart;
        /// The same of an identity that was struck twice.
        puzzle_bits_struck: u32 = 20, Restart;
        /// Handshakes of one address in a second.
        handshakes_per_second: PerSecond = Rate(20), Restart;
        /// The same of one neighbourhood: an IPv4 /24, an IPv6 /48.
        handshakes_per_parent_second: PerSecond = Rate(200), Restart;
        /// Handshakes of all in a second on each shard, but for those of exempt addresses.
        handshakes_total_per_second: PerSecond = Rate(2_000), Restart;
        /// Connections that have not proved who they are, or whose proxy has not said it.
        half_open: u32 = 1_024, Restart;
        /// The same of one address.
        half_open_per_prefix: u32 = 32, Restart;
    }

    /// How much a relay holds.
    limits: LimitSettings {
        /// Connections at once.
        connections: u32 = LIMITS.connections, Restart;
        /// Topics at once.
        topics: u32 = LIMITS.topics, Restart;
        /// Memory for unfinished input, replies, and the logs of quiet topics.
        blocks: Bytes = BLOCKS, Restart;
        /// Memory for the logs of busy topics.
        segments: Bytes = SEGMENTS, Restart;
        /// A line that was begun must end within so long, and a second for each KiB.
        unfinished: Span = Span(LIMITS.unfinished), Restart;
        /// Warnings to one connection in a second.
        warnings_per_second: PerSecond = Rate(LIMITS.warnings_per_second), Restart;
        /// How long a shutdown may take to send what is queued.
        drain: Span = Span(LIMITS.drain), Restart;
        /// How long it may take until everybody was told of a shutdown, where there are many.
        drain_spread: Span = Span(LIMITS.drain_spread), Restart;
        /// How long a connection that is closed may take to read its last bytes.
        linger: Span = Span(LIMITS.linger), Restart;
    }

    /// What happens to a reader that is too slow.
    pressure: PressureSettings {
        /// cut: it is closed; gap: it misses messages and is told; pace: senders are slowed first.
        lag_rule: LagRule = LIMITS.lag_rule, Restart;
        /// How far it may fall behind; 0: an eighth of the memory for logs.
        lag_bytes: Bytes = Bytes(LIMITS.lag_bytes), Restart;
        /// How long it may take nothing while something waits for it.
        progress: Span = Span(LIMITS.progress), Restart;
        /// How long pace may slow the senders of a topic.
        pace: Span = Span(LIMITS.pace), Restart;
    }

    /// What happens to addresses that misbehave.
    quarantine: QuarantineSettings {
        /// Networks that are never refused.
        exempt: Vec<Network> = exempt_by_default(), Restart;
        /// Points at which an address is refused for a while.
        threshold_points: u32 = LIMITS.quarantine.threshold_points, Restart;
        /// How long an address is refused whose reader passed line.disconnect_threshold.
        cooldown: Span = Span(LIMITS.quarantine.cooldown), Restart;
        /// New connections of one address in a minute; more of them are points.
        connects_per_minute: PerMinute = Rate(LIMITS.quarantine.connects_per_minute), Restart;
        /// Connections of one address; of lines, once 70 % of all are taken.
        connections_per_prefix: u32 = LIMITS.quarantine.connections_per_prefix, Restart;
        /// IPv4 addresses that are remembered.
        entries_v4: u32 = 16_384, Restart;
        /// IPv6 networks (/64) that are remembered.
        entries_v6: u32 = 8_192, Restart;
        /// Identities that it remembers.
        entries_identities: u32 = 8_192, Restart;
    }

    /// Logs.
    log: LogSettings {
        /// off, error, warn, info, debug or trace; TARGET=LEVEL after commas.
        level: LogLevel = LogLevel::default(), Live;
        /// How standard error looks: text on a terminal and JSON elsewhere (auto), text, or json.
        format: LogFormat = LogFormat::Auto, Live;
        /// Whether standard error is logged to.
        stderr: bool = true, Live;
        /// A file to log to.
        file: Option<PathBuf> = None, Live;
        /// How the file looks: text or json; auto is json where no template is given.
        file_format: LogFormat = LogFormat::Auto, Live;
        /// The file is rotated before it grows beyond; 0: never.
        file_bytes_max: Bytes = Bytes(16 << 20), Live;
        /// Older files that are kept.
        file_count: u32 = 3, Live;
        /// Time stamps, by the codes of strftime; they are in UTC.
        date_format: DateFormat = DateFormat::default(), Live;
        /// The shape of a line on standard error: %(asctime)s %(levelname)s %(message)s.
        stderr_template: Option<Template> = None, Live;
        /// The shape of a line in the file.
        file_template: Option<Template> = None, Live;
        /// Whether what clients say is logged.
        messages: bool = false, Restart;
        /// Keys of a message's _payload and _type that are logged; unset: the whole message.
        keys: Option<Vec<String>> = None, Restart;
    }
}

/// Loopback, in both families.
fn exempt_by_default() -> Vec<Network> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| parse_network(text).ok()).collect()
}

/// The delay of the first slowdown where only its threshold is set: the reference's.
pub(super) const THROTTLE_DELAY: Duration = Duration::from_millis(200);

/// The delay of the second slowdown where only its threshold is set: the reference's.
pub(super) const FLOW_CONTROL_DELAY: Duration = Duration::from_millis(1_000);
