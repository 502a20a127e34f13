use std::path::{Path, PathBuf};

use wardline_core::{Duration, LagRule, Limits, Slowdown};

use super::toml_file::key_names;
use super::*;
use crate::logging::{LineShape, LogOptions, Terminal};
use crate::net::Listen;
use crate::scratch::Scratch;

const EVERYTHING: &str = r#"
[server]
engine = "tokio"
shards = 1
listen = ["line://127.0.0.1:0/a", "line://[::1]:0"]
pid_file = "/run/w.pid"
ports_file = "/run/w.ports"
trusted_proxies = ["192.0.2.9/32", "2001:db8::/64"]

[line]
rate_limit_msgs_per_minute = "6/s"
client_timeout_secs = "2min"
max_bytes = "128KiB"
max_out_bytes = 200_000
listening_is_activity = false
coalesce = "10ms"
throttle_threshold = 10
throttle_delay = "50ms"
flow_control_threshold = 20
flow_control_delay = "1s"
disconnect_threshold = 30

[native]
key = "/etc/w.key"
authorized_keys = "/etc/w.keys"
open = "never"
max_payload = "128KiB"
messages_per_second = "500/s"
bytes_per_second = "1MiB"
identity_messages_per_second = "900/s"
identity_bytes_per_second = "2MiB"
deliveries_per_second = 100_000
retention_bytes = "1MiB"
retention = "2min"
resume = "30s"
resume_total = "1h"
resume_entries = 100
sessions_per_identity = 8
puzzle_bits = 16
puzzle_bits_struck = 18
handshakes_per_second = 5
handshakes_per_parent_second = 20
handshakes_total_per_second = 50
half_open = 64
half_open_per_prefix = 8

[limits]
connections = 100
topics = 0x10
blocks = "1MiB"
segments = "8MiB"
unfinished = "3s"
warnings_per_second = 5
drain = "1s"
drain_spread = "3s"
linger = "500ms"

[pressure]
lag_rule = "gap"
lag_bytes = "1MiB"
progress = "40s"
pace = "4s"

[quarantine]
exempt = ["10.0.0.0/8"]
threshold_points = 50
cooldown = "1h"
connects_per_minute = 30
connections_per_prefix = 8
entries_v4 = 1024
entries_v6 = 512
entries_identities = 256

[log]
level = "warn,wardline=debug"
format = "json"
stderr = false
file = "/var/log/w.log"
file_format = "text"
file_bytes_max = "1MB"
file_count = 9
date_format = "%H:%M"
stderr_template = "%(message)s"
file_template = "%(levelname)s %(message)s"
messages = true
keys = ["a", "b"]
"#;

fn toml(text: &str) -> Result<Loaded, Problems> {
    let dir = Scratch::new();
    let file = Some(dir.file("w.toml", text));
    Sources { file, ..Sources::default() }.load()
}

fn sets(pairs: &[&str]) -> Result<Loaded, Problems> {
    let sets = pairs.iter().map(|pair| (*pair).to_owned()).collect();
    Sources { sets, ..Sources::default() }.load()
}

/// What is said of the file, without the directory.
fn said(problems: &Problems, name: &str) -> String {
    let words = problems.to_string();
    let lines = words.lines().map(|line| match line.find(name) {
        Some(at) => &line[at..],
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_said_is_the_defaults() {
    let loaded = Sources::default().load().unwrap();
    assert_eq!(loaded.limits, Limits::DEFAULT);
    assert_eq!(loaded.settings, Settings::default());
    let listen: Vec<_> = loaded.settings.server.listen.iter().map(Listen::to_string).collect();
    assert_eq!(listen, ["line://127.0.0.1:8888/main", "native://127.0.0.1:8889"]);
    assert_eq!(loaded.settings.quarantine.exempt.len(), 2);
    assert!(loaded.without_meaning.is_empty());
    for key in KEYS {
        assert_eq!(*loaded.origin(key.name), Origin::Default);
        assert!(key.what.ends_with('.'), "{}", key.name);
    }
    assert!(toml("").unwrap().settings == Settings::default());
}

#[test]
fn every_key_is_read_from_a_file_and_says_where() {
    let loaded = toml(EVERYTHING).unwrap();
    let default = Settings::default();
    for key in key_names() {
        // Of one the default is the only value here: more of it want more of the rest.
        if key != "server.shards" {
            assert_ne!(loaded.settings.shown(key), default.shown(key), "{key}");
        }
        assert!(matches!(loaded.origin(key), Origin::File { .. }), "{key}");
    }
    let origin = loaded.origin("line.max_bytes").to_string();
    assert!(origin.ends_with("w.toml:13:13"), "{origin}");
}

#[test]
fn limits_are_what_the_settings_say() {
    let limits = toml(EVERYTHING).unwrap().limits;
    assert_eq!(limits.connections, 100);
    assert_eq!(limits.topics, 16);
    assert_eq!(limits.blocks, 512);
    assert_eq!(limits.segments, 128);
    assert_eq!(limits.unfinished, Duration::from_secs(3));
    assert_eq!(limits.warnings_per_second, 5);
    assert_eq!(limits.drain, Duration::from_secs(1));
    assert_eq!(limits.drain_spread, Duration::from_secs(3));
    assert_eq!(limits.linger, Duration::from_millis(500));
    assert_eq!(limits.lag_rule, LagRule::Gap);
    assert_eq!(limits.lag_bytes, 1 << 20);
    assert_eq!(limits.progress, Duration::from_secs(40));
    assert_eq!(limits.progress_blind, Duration::from_secs(40));
    assert_eq!(limits.pace, Duration::from_secs(4));
    assert!(!limits.report_messages);
    let line = limits.line;
    assert_eq!(line.line_bytes_max, 128 << 10);
    assert_eq!(line.envelope_bytes_max, 200_000);
    assert_eq!(line.messages_per_minute, 360);
    assert_eq!(line.idle, Duration::from_secs(120));
    assert!(!line.listening_is_activity);
    let slowdown = |threshold_messages, ms| {
        Some(Slowdown { threshold_messages, delay: Duration::from_millis(ms) })
    };
    assert_eq!(line.throttle, slowdown(10, 50));
    assert_eq!(line.flow_control, slowdown(20, 1_000));
    assert_eq!(line.disconnect_threshold_messages, Some(30));
    let quarantine = limits.quarantine;
    assert_eq!(quarantine.threshold_points, 50);
    assert_eq!(quarantine.cooldown, Duration::from_secs(3_600));
    assert_eq!(quarantine.connects_per_minute, 30);
    assert_eq!(quarantine.connections_per_prefix, 8);
    assert_eq!((limits.native.puzzle_bits, limits.native.puzzle_bits_struck), (16, 18));
}

#[test]
fn thresholds_without_delays_take_the_references() {
    let loaded = sets(&["line.throttle_threshold=7", "line.flow_control_threshold=9"]).unwrap();
    assert_eq!(loaded.limits.line.throttle.unwrap().delay, Duration::from_millis(200));
    assert_eq!(loaded.limits.line.flow_control.unwrap().delay, Duration::from_secs(1));
    let loaded = sets(&["line.throttle_delay=1s"]).unwrap();
    assert_eq!(loaded.limits.line.throttle, None);
    assert_eq!(loaded.without_meaning, ["line.throttle_delay (without line.throttle_threshold)"]);
}

/// Files that are wrong, and how what is said of each begins.
const WRONG: &[(&str, &str)] = &[
    (
        "[line]\nmax_byte = 1\n",
        "w.toml:2:1: line.max_byte: unknown key; did you mean line.max_bytes?",
    ),
    ("\n[liine]\n", "w.toml:2:2: liine: unknown section; did you mean line?"),
    ("[zebra]\n", "w.toml:1:2: zebra: unknown section"),
    ("[zebra]\nmax_bytes = 1\n", "w.toml:1:2: zebra: unknown section"),
    ("max_bytes = 1\n", "w.toml:1:1: max_bytes: unknown key; did you mean line.max_bytes?"),
    ("line = 1\n", "w.toml:1:1: line: is a section, [NAME], and not a value"),
    ("[log]\nlevel = 3\n", "w.toml:2:9: log.level: must be off, error"),
    ("[log]\nkeys = [1]\n", "w.toml:2:8: log.keys: must be text, not 1"),
    (
        "[log]\nmessages = \"yes\"\n",
        "w.toml:2:12: log.messages: must be true or false, not \"yes\"",
    ),
    ("[line]\nmax_bytes = 1.5\n", "w.toml:2:13: line.max_bytes: must be a number of bytes"),
    ("[line]\nmax_bytes = -1\n", "w.toml:2:13: line.max_bytes: must be a number of bytes"),
    (
        "[line]\nmax_bytes = 99999999999999999999\n",
        "w.toml:2:13: line.max_bytes: is a number that is too large",
    ),
    ("[line]\nmax_bytes = 1979-05-27\n", "w.toml:2:13: line.max_bytes: must not be a date"),
    (
        "[line.max_bytes]\nx = 1\n",
        "w.toml:1:1: line.max_bytes: must be a number of bytes such as 65536",
    ),
    ("[line]\n  \"é\" = 1\n", "w.toml:2:3: line.é: unknown key"),
    (
        "[line]\nthrottle_delay = 5\n",
        "w.toml:2:18: line.throttle_delay: must be a time with its unit",
    ),
    ("[limits]\nconnections = 0\n", "w.toml:2:15: limits.connections: connections must be 1"),
    ("[limits]\nblocks = 2048\n", "w.toml:2:10: limits.blocks: there must be at least 8 blocks"),
    ("[limits]\nblocks = \"5GiB\"\n", "w.toml:2:10: limits.blocks: blocks and segments together"),
    (
        "[limits]\nblocks = \"9999GiB\"\n",
        "w.toml:2:10: limits.blocks: blocks and segments together",
    ),
    ("[line]\nmax_bytes = \"2MiB\"\n", "w.toml:2:13: line.max_bytes: line.max_bytes must be"),
    ("[line]\nmax_bytes = \"5GiB\"\n", "w.toml:2:13: line.max_bytes: must be less than 4GiB"),
    ("[line]\nmax_out_bytes = 1\n", "w.toml:2:17: line.max_out_bytes: line.max_out_bytes must be"),
    ("[quarantine]\nthreshold_points = 0\n", "w.toml:2:20: quarantine.threshold_points: "),
    ("[native]\nopen = \"yes\"\n", "w.toml:2:8: native.open: must be \"loopback\" or \"always\""),
    ("[native]\nmax_payload = \"2MiB\"\n", "w.toml:2:15: native.max_payload: must be 1KiB to 1MiB"),
    ("[native]\npuzzle_bits = 23\n", "w.toml:2:15: native.puzzle_bits: must be 0 to 22"),
    (
        "[native]\npuzzle_bits_struck = 23\n",
        "w.toml:2:22: native.puzzle_bits_struck: must be 0 to 22",
    ),
    ("[server]\ntrusted_proxies = [\"10.0.0.5/33\"]\n", "w.toml:2:19: server.trusted_proxies: "),
    ("[native]\nhalf_open = 0\n", "w.toml:2:13: native.half_open: must be 1 to 16777216"),
    ("[native]\nbytes_per_second = 9\n", "w.toml:2:20: native.bytes_per_second: must be 0, or at"),
    ("[native]\nresume_total = \"8d\"\n", "w.toml:2:16: native.resume_total: must be at most 7d"),
    ("[limits]\ndrain = \"2h\"\n", "w.toml:2:9: limits.drain: must be at most 1h"),
    (
        "[server]\nshards = 17\n",
        "w.toml:2:10: server.shards: must be \"auto\" or a number of 1 to 16",
    ),
    (
        "[server]\nlisten = [\"native://h:1/a\"]\n",
        "w.toml:2:10: server.listen: may have nothing behind its port",
    ),
    ("[server]\nlisten = []\n", "w.toml:2:10: server.listen: must name at least one listener"),
    ("[line\n", "w.toml:1:6: "),
    ("[line]\nmax_bytes = \n", "w.toml:2:1"),
    ("[line]\nmax_bytes = 1\nmax_bytes = 2\n", "w.toml:3:1: "),
];

#[test]
fn a_wrong_file_says_where_what_and_what_was_meant() {
    for (text, says) in WRONG {
        let problems = toml(text).unwrap_err();
        let said = said(&problems, "w.toml");
        assert!(said.starts_with(says), "{text}\nsaid: {said}\nnot:  {says}");
        assert_eq!(problems.0.len(), 1, "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let problems = toml("[line]\nmax_byte = 1\n[log]\nlevel = 1\n[x]\n").unwrap_err();
    assert_eq!(problems.0.len(), 3);
    assert_eq!(problems.to_string().lines().count(), 3);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let file = Some(PathBuf::from("/nonexistent/w.toml"));
    let problems = Sources { file, ..Sources::default() }.load().unwrap_err();
    assert!(problems.to_string().starts_with("/nonexistent/w.toml: cannot read it"), "{problems}");
    let dir = Scratch::new();
    let path = dir.path("latin1.toml");
    std::fs::write(&path, b"# \xe9\n").unwrap();
    let problems = Sources { file: Some(path), ..Sources::default() }.load().unwrap_err();
    assert!(problems.to_string().contains("latin1.toml: cannot read it"), "{problems}");
    assert!(toml("\u{feff}[log]\nlevel = \"debug\"\n").is_ok());
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let dir = Scratch::new();
    let file = dir.file("w.toml", "[log]\nlevel = \"error\"\n");
    let env = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    let mut sources = Sources { file: Some(file), ..Sources::default() };
    let level = |sources: &Sources| {
        let loaded = sources.load().unwrap();
        let origin = loaded.origin("log.level").to_string();
        let level = loaded.settings.shown("log.level").unwrap();
        (level.as_str().unwrap().to_owned(), origin)
    };
    assert_eq!(level(&sources).0, "error");
    sources.env = env(&[("RUST_LOG", "warn")]);
    assert_eq!(level(&sources), ("warn".to_owned(), "environment RUST_LOG".to_owned()));
    sources.env = env(&[("WARDLINE_LOG__LEVEL", "info"), ("RUST_LOG", "warn")]);
    assert_eq!(level(&sources), ("info".to_owned(), "environment WARDLINE_LOG__LEVEL".to_owned()));
    sources.sets = vec!["log.level=debug".to_owned(), "log.level = off".to_owned()];
    assert_eq!(level(&sources), ("off".to_owned(), "--set".to_owned()));
    let values = vec!["trace".to_owned()];
    sources.flags = vec![Flag { name: "-v", key: "log.level", values }];
    assert_eq!(level(&sources), ("trace".to_owned(), "-v".to_owned()));
}

#[test]
fn a_flag_may_have_several_values() {
    let urls = |urls: &[&str]| {
        let values = urls.iter().map(|url| (*url).to_owned()).collect();
        let flags = vec![Flag { name: "--listen", key: "server.listen", values }];
        Sources { flags, ..Sources::default() }.load()
    };
    let shown = |loaded: Loaded| loaded.settings.shown("server.listen").unwrap().to_string();
    assert_eq!(shown(urls(&["line://h:1"]).unwrap()), r#"["line://h:1/main"]"#);
    let two = urls(&["line://h:1", "line://h:2/b,c"]).unwrap();
    assert_eq!(shown(two), r#"["line://h:1/main","line://h:2/b,c"]"#);
    let wrong = urls(&["line://h:1", "line://h"]).unwrap_err().to_string();
    assert!(wrong.starts_with("--listen: server.listen: needs a port"), "{wrong}");
}

#[test]
fn the_environment_has_every_key_and_only_keys() {
    for key in key_names() {
        let name = format!("WARDLINE_{}", key.replacen('.', "__", 1).to_ascii_uppercase());
        let value = toml(EVERYTHING).unwrap().settings.shown(key).unwrap();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let env = vec![(name.clone(), text)];
        // A line as long as is wanted here needs a pool that this small one is not.
        let loaded = Sources { env, ..Sources::default() }.load();
        let loaded = loaded.unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        assert_eq!(loaded.settings.shown(key), Some(value), "{name}");
        assert_eq!(loaded.origin(key).to_string(), format!("environment {name}"));
    }
    let load = |name: &str, value: &str| {
        let env = vec![(name.to_owned(), value.to_owned())];
        Sources { env, ..Sources::default() }.load()
    };
    let wrong = load("WARDLINE_LINE__MAX_BYTE", "1").unwrap_err().to_string();
    let says = "environment WARDLINE_LINE__MAX_BYTE: line.max_byte: unknown key; ";
    assert_eq!(wrong, format!("{says}did you mean line.max_bytes?"));
    let wrong = load("WARDLINE_LINE__MAX_BYTES", "many").unwrap_err().to_string();
    assert!(wrong.starts_with("environment WARDLINE_LINE__MAX_BYTES: line.max_bytes: must be"));
    // What a cluster sets for a service of that name is not ours.
    for name in ["WARDLINE_SERVICE_HOST", "WARDLINE_PORT_8888_TCP", "OTHER_LINE__MAX_BYTES"] {
        assert!(load(name, "x").is_ok(), "{name}");
    }
    let loaded = load("RUST_LOG", "[span]=info").unwrap();
    assert_eq!(loaded.without_meaning.len(), 1);
    assert_eq!(*loaded.origin("log.level"), Origin::Default);
    let emptied = load("WARDLINE_QUARANTINE__EXEMPT", "").unwrap();
    assert!(emptied.settings.quarantine.exempt.is_empty());
}

#[test]
fn pairs_of_set() {
    let loaded = sets(&["quarantine.exempt=[]", "log.keys=a,b", "line.max_bytes = 1KiB"]).unwrap();
    assert!(loaded.settings.quarantine.exempt.is_empty());
    assert_eq!(loaded.settings.log.keys, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(loaded.settings.line.max_bytes, Bytes(1024));
    let cases = [
        ("line.max_bytes", "--set: line.max_bytes: needs a value: section.key=value"),
        ("", "--set: needs a value"),
        ("max_bytes=1", "--set: max_bytes: unknown key; did you mean line.max_bytes?"),
        ("line.max_bytes=", "--set: line.max_bytes: must be a number of bytes"),
        ("server.shards=0", "--set: server.shards: must be \"auto\" or a number of 1 to 16"),
        ("server.engine=epoll", "--set: server.engine: must be \"auto\" or \"ring\""),
        ("server.listen=unix:///x", "--set: server.listen: unix:// is not in this version"),
        ("quarantine.entries_v4=0", "--set: quarantine.entries_v4: must be 8 to 16777216"),
    ];
    for (pair, says) in cases {
        let wrong = sets(&[pair]).unwrap_err().to_string();
        assert!(wrong.starts_with(says), "{pair}: {wrong}");
    }
}

#[test]
fn the_report_is_a_settings_file_that_says_where_from() {
    let report = toml(EVERYTHING).unwrap().report();
    assert!(report.contains("line.max_bytes = \"128KiB\" "), "{report}");
    assert!(report.contains("w.toml:13:13\n"), "{report}");
    assert_eq!(report.lines().count(), KEYS.len());
    // Dotted keys are the same tables.
    let again = toml(&report).unwrap();
    assert_eq!(again.settings, toml(EVERYTHING).unwrap().settings);
    let report = Sources::default().load().unwrap().report();
    assert!(report.contains("# server.pid_file is unset"), "{report}");
    assert_eq!(toml(&report).unwrap().settings, Settings::default());
}

#[test]
fn changes_say_what_needs_a_restart() {
    let (before, after) =
        (sets(&[]).unwrap(), sets(&["log.level=debug", "limits.topics=7"]).unwrap());
    let changes = before.changes(&after);
    assert_eq!(changes.live, ["log.level"]);
    assert_eq!(changes.restart, ["limits.topics"]);
    assert_eq!(before.changes(&before), Changes::default());
}

#[test]
fn log_options_follow_terminal_and_settings() {
    let options = |pairs: &[&str], is_terminal, no_color| {
        let settings = sets(pairs).unwrap().settings;
        LogOptions::from_settings(&settings, Terminal { is_terminal, no_color })
    };
    let shape = |options: LogOptions| options.stderr.map(|format| format.shape);
    let text = |colors| Some(LineShape::Text { colors });
    assert_eq!(shape(options(&[], true, false)), text(true));
    assert_eq!(shape(options(&[], true, true)), text(false));
    assert_eq!(shape(options(&[], false, false)), Some(LineShape::Json));
    assert_eq!(shape(options(&["log.format=text"], false, false)), text(false));
    assert_eq!(shape(options(&["log.format=json"], true, false)), Some(LineShape::Json));
    assert_eq!(shape(options(&["log.stderr=false"], true, false)), None);
    let template = ["log.stderr_template=\u{1b}[1m%(message)s"];
    assert!(matches!(shape(options(&template, false, false)), Some(LineShape::Template(_))));
    assert!(options(&[], true, false).file.is_none());
    let file = |pairs: &[&str]| {
        let mut all = vec!["log.file=/x.log"];
        all.extend(pairs);
        options(&all, true, false).file.unwrap()
    };
    assert_eq!(file(&[]).format.shape, LineShape::Json);
    assert_eq!(file(&["log.file_format=text"]).format.shape, LineShape::Text { colors: false });
    let template = file(&["log.file_template=%(message)s"]);
    assert!(matches!(template.format.shape, LineShape::Template(_)));
    let both = file(&["log.file_template=%(message)s", "log.file_format=json"]);
    assert_eq!(both.format.shape, LineShape::Json);
    assert_eq!(
        (both.path.as_path(), both.bytes_max, both.count),
        (Path::new("/x.log"), 16 << 20, 3)
    );
}

mod summoner {
    use super::*;

    /// As the reference's own desktop application writes it.
    const REFERENCE: &str = r#"{
      "host": "0.0.0.0", "port": 9999, "version": "rust",
      "logger": {
        "log_level": "WARNING", "enable_console_log": false,
        "console_log_format": "\u001b[92m%(asctime)s\u001b[0m - %(levelname)s - %(message)s",
        "enable_file_log": true, "enable_json_log": true, "log_file_path": "logs/",
        "log_format": "%(asctime)s - %(funcName)s - %(message)s",
        "max_file_size": 1000000, "backup_count": 5,
        "date_format": "%Y-%m-%d %H:%M:%S.%3f", "log_keys": ["a"]
      },
      "hyper_parameters": {
        "connection_buffer_size": 128, "command_buffer_size": 32, "control_channel_capacity": 8,
        "queue_monitor_capacity": 100, "client_timeout_secs": 600,
        "rate_limit_msgs_per_minute": 1000, "timeout_check_interval_secs": 30,
        "accept_error_backoff_ms": 100, "quarantine_cooldown_secs": 900,
        "quarantine_cleanup_interval_secs": 60, "throttle_delay_ms": 250,
        "flow_control_delay_ms": 1500, "worker_threads": 4,
        "backpressure_policy": {
          "enable_throttle": true, "throttle_threshold": 50,
          "enable_flow_control": true, "flow_control_threshold": 150,
          "enable_disconnect": true, "disconnect_threshold": 350
        }
      }
    }"#;

    fn json(text: &str) -> Result<Loaded, Problems> {
        let dir = Scratch::new();
        let file = Some(dir.file("server.json", text));
        Sources { file, ..Sources::default() }.load()
    }

    fn hyper(inner: &str) -> Loaded {
        json(&format!("{{\"hyper_parameters\": {{{inner}}}}}")).unwrap()
    }

    #[test]
    fn every_key_of_the_reference_is_taken() {
        let loaded = json(REFERENCE).unwrap();
        let (settings, limits) = (&loaded.settings, &loaded.limits);
        assert_eq!(settings.server.listen[0].to_string(), "line://0.0.0.0:9999/main");
        assert_eq!(limits.line.idle, Duration::from_secs(600));
        assert_eq!(limits.line.messages_per_minute, 1000);
        assert_eq!(limits.quarantine.cooldown, Duration::from_secs(900));
        let throttle = limits.line.throttle.unwrap();
        assert_eq!((throttle.threshold_messages, throttle.delay.as_millis()), (50, 250));
        let flow = limits.line.flow_control.unwrap();
        assert_eq!((flow.threshold_messages, flow.delay.as_millis()), (150, 1_500));
        assert_eq!(limits.line.disconnect_threshold_messages, Some(350));
        let log = &settings.log;
        assert_eq!(settings.shown("log.level").unwrap(), "warn");
        assert!(!log.stderr && !log.messages);
        assert_eq!(log.file.as_deref(), Some(Path::new("logs/wardline.log")));
        assert_eq!((log.file_format, log.file_bytes_max.0), (LogFormat::Json, 1_000_000));
        assert_eq!((log.file_count, log.keys.as_deref()), (5, Some(&["a".to_owned()][..])));
        assert_eq!(settings.shown("log.date_format").unwrap(), "%Y-%m-%d %H:%M:%S.%3f");
        let template = settings.shown("log.file_template").unwrap();
        assert_eq!(template, "%(asctime)s -  - %(message)s");
        let named = [
            "version",
            "logger.log_format (%(funcName))",
            "hyper_parameters.connection_buffer_size",
            "hyper_parameters.command_buffer_size",
            "hyper_parameters.control_channel_capacity",
            "hyper_parameters.queue_monitor_capacity",
            "hyper_parameters.timeout_check_interval_secs",
            "hyper_parameters.accept_error_backoff_ms",
            "hyper_parameters.quarantine_cleanup_interval_secs",
            "hyper_parameters.worker_threads",
        ];
        let mut without_meaning = loaded.without_meaning.clone();
        without_meaning.sort();
        let mut named = named.map(str::to_owned);
        named.sort();
        assert_eq!(without_meaning, named);
        let origin = loaded.origin("line.rate_limit_msgs_per_minute").to_string();
        assert!(origin.ends_with("server.json: hyper_parameters.rate_limit_msgs_per_minute"));
    }

    #[test]
    fn it_is_known_by_its_name_or_its_brace() {
        let dir = Scratch::new();
        let by_brace = dir.file("settings", " \n{\"port\": 7}");
        let by_name = dir.file("s.JSON", "{\"port\": 7}");
        for file in [by_brace, by_name] {
            let loaded = Sources { file: Some(file), ..Sources::default() }.load().unwrap();
            assert_eq!(loaded.settings.server.listen[0].to_string(), "line://127.0.0.1:7/main");
        }
        assert_eq!(json("{}").unwrap().settings, Settings::default());
        let hosts = [
            ("\"::1\"", "line://[::1]:8888/main"),
            ("\"localhost\"", "line://localhost:8888/main"),
        ];
        for (host, url) in hosts {
            let loaded = json(&format!("{{\"host\": {host}}}")).unwrap();
            assert_eq!(loaded.settings.server.listen[0].to_string(), url);
        }
    }

    #[test]
    fn null_is_never_and_missing_is_the_default() {
        let idle = |inner| hyper(inner).limits.line.idle;
        assert_eq!(idle("\"client_timeout_secs\": null"), Duration::ZERO);
        assert_eq!(idle("\"client_timeout_secs\": 0"), Duration::ZERO);
        assert_eq!(idle("\"client_timeout_secs\": 7"), Duration::from_secs(7));
        assert_eq!(idle(""), Duration::from_secs(300));
        let keys = |value: &str| {
            json(&format!("{{\"logger\": {{\"log_keys\": {value}}}}}")).unwrap().settings.log.keys
        };
        assert_eq!(keys("null"), None);
        assert_eq!(keys("[]"), Some(vec![]));
    }

    #[test]
    fn backpressure_is_on_only_where_it_is_enabled() {
        let policy = |inner: &str| {
            let text = format!("\"throttle_delay_ms\": 5, \"backpressure_policy\": {{{inner}}}");
            hyper(&text).limits.line
        };
        assert_eq!(policy("").throttle, None);
        assert_eq!(policy("\"enable_throttle\": false, \"throttle_threshold\": 9").throttle, None);
        let on = policy("\"throttle_threshold\": 9").throttle.unwrap();
        assert_eq!((on.threshold_messages, on.delay.as_millis()), (9, 5));
        let on = policy("\"enable_throttle\": true").throttle.unwrap();
        assert_eq!(on.threshold_messages, 100);
        let flow = policy("\"enable_flow_control\": true").flow_control.unwrap();
        assert_eq!((flow.threshold_messages, flow.delay.as_millis()), (300, 1_000));
        let cut = |inner| policy(inner).disconnect_threshold_messages;
        assert_eq!(cut("\"enable_disconnect\": true"), Some(500));
        assert_eq!(cut("\"disconnect_threshold\": 7"), Some(7));
        assert_eq!(cut("\"enable_disconnect\": false"), None);
    }

    #[test]
    fn files_of_the_log() {
        let logger =
            |inner: &str| json(&format!("{{\"logger\": {{{inner}}}}}")).unwrap().settings.log;
        assert_eq!(logger("\"log_file_path\": \"logs\"").file, None);
        assert_eq!(logger("\"enable_file_log\": false, \"log_file_path\": \"l\"").file, None);
        let file = logger("\"enable_file_log\": true").file;
        assert_eq!(file.as_deref(), Some(Path::new("wardline.log")));
        let file = logger("\"enable_file_log\": true, \"log_file_path\": \"/var/log\"").file;
        assert_eq!(file.as_deref(), Some(Path::new("/var/log/wardline.log")));
        assert_eq!(logger("\"enable_json_log\": false").file_format, LogFormat::Text);
        let loaded = json("{\"logger\": {\"date_format\": \"%H:%Q%M\"}}").unwrap();
        assert_eq!(loaded.settings.shown("log.date_format").unwrap(), "%H:%M");
        assert_eq!(loaded.without_meaning, ["logger.date_format (%Q)"]);
    }

    #[test]
    fn what_is_wrong_names_its_key() {
        let cases = [
            ("{\"prot\": 1}", "prot: unknown key; did you mean port?"),
            ("{\"port\": \"8888\"}", "port: must be a whole number of 0 to 65535, not \"8888\""),
            ("{\"port\": 65536}", "port: must be a whole number of 0 to 65535, not 65536"),
            ("{\"port\": -1}", "port: must be a whole number"),
            ("{\"port\": 1.5}", "port: must be a whole number"),
            ("{\"port\": null}", "port: must be a whole number of 0 to 65535, not nothing"),
            ("{\"host\": 1}", "host: must be text, not 1"),
            ("{\"host\": \"a b\"}", "host: needs an address or a host name"),
            ("{\"version\": 1}", "version: must be text"),
            ("{\"logger\": []}", "logger: must be an object, not a list"),
            ("{\"logger\": {\"x\": 1}}", "logger.x: unknown key"),
            ("{\"logger\": {\"log_level\": \"LOUD\"}}", "logger.log_level: must be off, error"),
            (
                "{\"logger\": {\"log_keys\": [1]}}",
                "logger.log_keys: must be a list of texts, or null",
            ),
            ("{\"logger\": {\"log_keys\": \"a\"}}", "logger.log_keys: must be a list of texts"),
            ("{\"logger\": {\"enable_json_log\": 1}}", "logger.enable_json_log: must be true or"),
            (
                "{\"rate_limit_msgs_per_minute\": 1}",
                "rate_limit_msgs_per_minute: unknown key; did you mean hyper_parameters.rate",
            ),
            (
                "{\"hyper_parameters\": {\"worker_threads\": \"4\"}}",
                "hyper_parameters.worker_threads: must be a whole",
            ),
            (
                "{\"hyper_parameters\": {\"client_timeout_secs\": \"never\"}}",
                "hyper_parameters.client_timeout_secs: must be a number of seconds, or null",
            ),
            (
                "{\"hyper_parameters\": {\"backpressure_policy\": 1}}",
                "hyper_parameters.backpressure_policy: must be an object",
            ),
            (
                "{\"hyper_parameters\": {\"backpressure_policy\": {\"enable\": true}}}",
                "hyper_parameters.backpressure_policy.enable: unknown key",
            ),
        ];
        for (text, says) in cases {
            let problems = json(text).unwrap_err();
            let said = said(&problems, "server.json");
            assert!(said.starts_with(&format!("server.json: {says}")), "{text}: {said}");
            assert_eq!(problems.0.len(), 1, "{text}");
        }
        for (text, says) in [
            ("{\n \"port\": }", "server.json:2:10: expected value"),
            ("[1]", "server.json:1:1: must be a JSON object"),
        ] {
            let said = said(&json(text).unwrap_err(), "server.json");
            assert!(said.starts_with(says), "{text}: {said}");
        }
    }
}
