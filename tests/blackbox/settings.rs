//! Settings: where they come from, what is wrong with them, and how they change.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::harness::{Launch, Outcome, RATE_WARNING, on_each_engine, wardline};

/// A settings file of its own.
struct File {
    _dir: TempDir,
    path: PathBuf,
}

impl File {
    fn new(name: &str, text: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let path = dir.path().join(name);
        fs::write(&path, text).expect("it can be written");
        Self { _dir: dir, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    fn check(&self) -> Outcome {
        run(&["check", "--config", self.path()])
    }
}

fn run(arguments: &[&str]) -> Outcome {
    Outcome::of(wardline().args(arguments))
}

fn refused(outcome: &Outcome, named: &[&str]) {
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    for name in named {
        assert!(outcome.stderr.contains(name), "{name:?} is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

/// The line of what `check` printed that is about this key.
fn shown<'a>(outcome: &'a Outcome, key: &str) -> &'a str {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let about = |line: &&str| line.split(|c: char| c.is_whitespace() || c == '=').any(|w| w == key);
    outcome.stdout.lines().find(about).unwrap_or_else(|| panic!("no {key} in:\n{}", outcome.stdout))
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    let file = File::new("wardline.toml", "[server]\nshards = 1\n\n[line]\n  max_byte = 1024\n");
    let place = format!("{}:5:3", file.path());
    let named = ["max_byte", "max_bytes", &place];
    refused(&file.check(), &named);
    refused(&run(&["serve", "--config", file.path()]), &named);
    refused(&run(&["serve", "--test-config", "--config", file.path()]), &named);
    refused(&run(&["plan", "--config", file.path()]), &named);
}

#[test]
fn an_unknown_table_is_refused_in_the_same_way() {
    let file = File::new("wardline.toml", "[limit]\nconnections = 5\n");
    refused(&file.check(), &["limit", "limits", &format!("{}:1:", file.path())]);
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    let wrong = [
        "[line]\nmax_bytes = \"64 parsecs\"\n",
        "[line]\nmax_bytes = true\n",
        "[limits]\nunfinished = \"soon\"\n",
        "[pressure]\nlag_rule = \"shrug\"\n",
        "[quarantine]\nexempt = [\"127.0.0.0/99\"]\n",
        "[line]\nlistening_is_activity = \"perhaps\"\n",
        "[server]\nlisten = [\"gopher://127.0.0.1:70\"]\n",
        "[limits]\nconnections = -1\n",
    ];
    for text in wrong {
        let file = File::new("wardline.toml", text);
        let key = text.split(['\n', ' ']).nth(1).expect("a key");
        refused(&file.check(), &[key, &format!("{}:2:", file.path())]);
    }
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_place() {
    let file = File::new("wardline.toml", "[line]\nmax_bytes = = 5\n");
    refused(&file.check(), &[&format!("{}:2:", file.path())]);
}

#[test]
fn a_file_that_is_not_there_is_refused_by_name() {
    refused(&run(&["serve", "--config", "/nowhere/wardline.toml"]), &["/nowhere/wardline.toml"]);
}

#[test]
fn an_unknown_key_on_the_command_line_is_refused_with_the_nearest() {
    refused(&run(&["check", "--set", "line.max_byte=5"]), &["line.max_byte", "line.max_bytes"]);
}

#[test]
fn an_unknown_key_in_the_environment_is_refused_with_the_nearest() {
    let outcome = Outcome::of(wardline().arg("check").env("WARDLINE_LINE__MAX_BYTE", "5"));
    refused(&outcome, &["WARDLINE_LINE__MAX_BYTE", "max_bytes"]);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    refused(&run(&["check", "--set", "limits.connections=0"]), &["connections"]);
    refused(&run(&["check", "--set", "line.max_bytes=16B"]), &["max_bytes"]);
}

#[test]
fn more_shards_than_there_can_be_are_refused() {
    for shards in ["0", "17", "many"] {
        let asked = ["serve", "--shards", shards, "--listen", "line://127.0.0.1:0"];
        refused(&run(&asked), &["shards", "auto", "1 to 16"]);
    }
}

#[test]
fn check_prints_what_is_in_force_and_where_it_came_from() {
    let file = File::new(
        "wardline.toml",
        "[line]\nmax_bytes = \"32KiB\"\nclient_timeout_secs = 60\nrate_limit_msgs_per_minute = 7\n",
    );
    let outcome = Outcome::of(
        wardline()
            .args(["check", "--config", file.path(), "--set", "line.client_timeout_secs=90s"])
            .env("WARDLINE_LINE__CLIENT_TIMEOUT_SECS", "80")
            .env("WARDLINE_LINE__RATE_LIMIT_MSGS_PER_MINUTE", "8"),
    );
    let from_flag = shown(&outcome, "line.client_timeout_secs");
    assert!(from_flag.contains("90") && from_flag.contains("--set"), "{from_flag}");
    let from_environment = shown(&outcome, "line.rate_limit_msgs_per_minute");
    assert!(from_environment.contains('8'), "{from_environment}");
    assert!(from_environment.contains("WARDLINE_LINE__RATE_LIMIT"), "{from_environment}");
    let from_file = shown(&outcome, "line.max_bytes");
    assert!(from_file.contains("32") && from_file.contains("wardline.toml"), "{from_file}");
    let default = shown(&outcome, "limits.linger");
    assert!(default.contains('2') && default.contains("default"), "{default}");
}

#[test]
fn units_are_understood_and_bare_numbers_too() {
    for (key, written, shown_as) in [
        ("limits.unfinished", "1500ms", "1.5s|1500"),
        ("limits.unfinished", "2min", "2min|120"),
        ("line.max_bytes", "1024", "1KiB|1 KiB|1024"),
        ("pressure.lag_bytes", "3MiB", "3MiB|3 MiB|3145728"),
        ("line.rate_limit_msgs_per_minute", "600/min", "600"),
    ] {
        let outcome = run(&["check", "--set", &format!("{key}={written}")]);
        let line = shown(&outcome, key);
        assert!(shown_as.split('|').any(|s| line.contains(s)), "{key}={written}: {line}");
    }
}

#[test]
fn a_test_of_the_settings_starts_nothing() {
    let file = File::new("wardline.toml", "[line]\nmax_bytes = \"32KiB\"\n");
    let outcome = run(&["serve", "-t", "-c", file.path()]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

const SUMMONER: &str = r#"{
    "host": "127.0.0.1", "port": 8765, "version": "rust",
    "logger": {
        "log_level": "INFO", "enable_console_log": true,
        "console_log_format": "[%(asctime)s] - %(levelname)s - %(message)s",
        "enable_file_log": false, "enable_json_log": false, "log_file_path": "logs/",
        "log_format": "%(asctime)s - %(message)s", "date_format": "%Y-%m-%d %H:%M:%S",
        "log_keys": ["x"], "max_file_size": 1000000, "backup_count": 3
    },
    "hyper_parameters": {
        "connection_buffer_size": 256, "command_buffer_size": 64, "control_channel_capacity": 8,
        "queue_monitor_capacity": 100, "client_timeout_secs": 123,
        "rate_limit_msgs_per_minute": 456, "timeout_check_interval_secs": 60,
        "accept_error_backoff_ms": 100, "quarantine_cooldown_secs": 600,
        "quarantine_cleanup_interval_secs": 60, "throttle_delay_ms": 200,
        "flow_control_delay_ms": 1000, "worker_threads": 4,
        "backpressure_policy": {
            "enable_throttle": true, "throttle_threshold": 100, "enable_flow_control": true,
            "flow_control_threshold": 300, "enable_disconnect": true, "disconnect_threshold": 500
        }
    }
}"#;

#[test]
fn the_references_own_file_is_accepted() {
    let file = File::new("server_config.json", SUMMONER);
    let outcome = file.check();
    for (key, value) in [
        ("line.client_timeout_secs", "123"),
        ("line.rate_limit_msgs_per_minute", "456"),
        ("line.throttle_threshold", "100"),
        ("line.flow_control_threshold", "300"),
        ("line.disconnect_threshold", "500"),
        ("quarantine.cooldown", "10min|600"),
        ("server.listen", "127.0.0.1:8765"),
    ] {
        let line = shown(&outcome, key);
        assert!(value.split('|').any(|v| line.contains(v)), "{key} is not {value}: {line}");
    }
    let said = outcome.said();
    let about = said.lines().filter(|line| line.contains("worker_threads")).count();
    assert_eq!(about, 1, "a key without a meaning is named in one line: {said}");
}

#[test]
fn null_in_the_references_file_is_never_and_none() {
    let text = SUMMONER
        .replace("\"client_timeout_secs\": 123", "\"client_timeout_secs\": null")
        .replace("\"log_keys\": [\"x\"]", "\"log_keys\": null");
    let outcome = File::new("server_config.json", &text).check();
    let line = shown(&outcome, "line.client_timeout_secs");
    assert!(["0", "never"].iter().any(|v| line.contains(v)), "{line}");
}

#[test]
fn what_the_reference_does_not_know_is_refused_by_name() {
    for (from, to, named) in [
        ("\"port\"", "\"prot\"", "prot"),
        ("\"worker_threads\": 4", "\"worker_thread\": 4", "worker_thread"),
        ("\"port\": 8765", "\"port\": \"8765\"", "port"),
        ("\"throttle_threshold\": 100", "\"throttle_threshold\": \"x\"", "throttle_threshold"),
        ("\"log_keys\": [\"x\"]", "\"log_keys\": 5", "log_keys"),
    ] {
        let text = SUMMONER.replace(from, to);
        assert_ne!(text, SUMMONER);
        refused(&File::new("server_config.json", &text).check(), &[named]);
    }
}

#[test]
fn a_relay_runs_on_the_references_file() {
    on_each_engine(|engine| {
        let text = SUMMONER.replace("456", "3");
        let file = File::new("server_config.json", &text);
        let relay = Launch::new(engine).arguments(&["--config", file.path()]).start();
        let [mut speaker, mut listener] = relay.room();
        for i in 0..4 {
            speaker.say(&format!("{i}"));
        }
        speaker.expect(RATE_WARNING);
        for i in 0..3 {
            listener.expect(&speaker.envelope(&format!("{i}")));
        }
    });
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    on_each_engine(|engine| {
        let file = "[line]\nrate_limit_msgs_per_minute = 50\nmax_bytes = 100\n";
        let relay = Launch::new(engine)
            .config(file)
            .environment("WARDLINE_LINE__RATE_LIMIT_MSGS_PER_MINUTE", "40")
            .set("line.rate_limit_msgs_per_minute", "3")
            .start();
        let [mut speaker, mut listener] = relay.room();
        speaker.say(&"x".repeat(101));
        let warning = speaker.expect_warning();
        assert!(warning.contains("100"), "the file's limit does not hold: {warning:?}");
        for i in 0..4 {
            speaker.say(&format!("{i}"));
        }
        speaker.expect(RATE_WARNING);
        listener.expect(&speaker.envelope("0"));
    });
}

#[cfg(all(unix, not(wardline_portable)))]
mod reload {
    use rustix::process::Signal;

    use super::*;
    use crate::harness::{Client, Relay, wait_until};

    /// How many of ten lines a newcomer gets through.
    fn passed_of_ten(relay: &Relay) -> usize {
        let [mut speaker, mut listener]: [Client; 2] = relay.room();
        let mut other = relay.connect();
        for i in 0..10 {
            speaker.say(&format!("{i}"));
        }
        // The first that is refused is answered, and all are judged in order; then they end.
        speaker.say("over");
        speaker.expect(RATE_WARNING);
        other.say("end");
        let end = other.envelope("end");
        std::iter::repeat_with(|| listener.line()).take_while(|line| *line != end).count()
    }

    fn start(engine: &'static str, rate: u32) -> Relay {
        Launch::new(engine)
            .config(&format!("[line]\nrate_limit_msgs_per_minute = {rate}\n"))
            .start()
    }

    #[test]
    fn bad_settings_are_named_and_the_old_ones_stay() {
        on_each_engine(|engine| {
            let mut relay = start(engine, 5);
            let [mut a, mut b] = relay.room();
            let bad = "[line]\nrate_limit_msgs_per_minute = 8\nmax_byte = 5\n";
            fs::write(relay.config_path(), bad).expect("it can be written");
            let before = relay.log().len();
            relay.signal(Signal::HUP);
            wait_until("the mistake in the log", || relay.log()[before..].contains("max_byte"));
            assert!(relay.is_running());
            a.say("still here");
            b.expect(&a.envelope("still here"));
            assert_eq!(passed_of_ten(&relay), 5, "half of the settings were taken");
        });
    }

    #[test]
    fn good_settings_are_in_force_without_a_restart() {
        on_each_engine(|engine| {
            let relay = Launch::new(engine).config("[log]\nlevel = \"error\"\n").start();
            let [mut a, mut b] = relay.room();
            assert_eq!(relay.log(), "", "there was no error");
            fs::write(relay.config_path(), "[log]\nlevel = \"info\"\n").expect("writable");
            relay.signal(Signal::HUP);
            wait_until("the reload in the log", || relay.log().contains("reload"));
            relay.signal(Signal::QUIT);
            wait_until("the counters in the log", || relay.log().contains("connections"));
            a.say("still here");
            b.expect(&a.envelope("still here"));
        });
    }

    #[test]
    fn what_needs_a_restart_is_said() {
        on_each_engine(|engine| {
            let relay = start(engine, 5);
            let other = "[limits]\nconnections = 77\n\n[line]\nrate_limit_msgs_per_minute = 5\n";
            fs::write(relay.config_path(), other).expect("it can be written");
            let before = relay.log().len();
            relay.signal(Signal::HUP);
            wait_until("what needs a restart", || {
                let log = relay.log();
                let said = &log[before..];
                said.contains("restart") && said.contains("limits.connections")
            });
        });
    }
}
