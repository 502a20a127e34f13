//! Summoner's own settings file: which of its keys mean what here, and which mean nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::nearest::unknown;
use super::problem::{Origin, Problem};
use super::toml_file::Entry;
use super::value::must_be;
use crate::logging::{DateFormat, LogLevel, Template};
use crate::net::Listen;

/// What a key of that file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Flag,
    /// A whole number up to so much.
    Number(u64),
    NumberOrNull,
    TextsOrNull,
}

use Kind::{Flag, Number, NumberOrNull, Text, TextsOrNull};

/// A key of that file: its path, what it may be, and whether it means anything here.
type Known = (&'static str, Kind, bool);

const NUMBER: Kind = Number(u64::MAX);

/// Milliseconds and seconds that nanoseconds in 64 bits can count.
const TIME: Kind = Number(1 << 33);

/// The file names its log after the server's name; this is ours.
const LOG_NAME: &str = "wardline.log";

/// Every key.
const KEYS: &[Known] = &[
    ("host", Text, true),
    ("port", Number(65_535), true),
    ("version", Text, false),
    ("logger.log_level", Text, true),
    ("logger.enable_console_log", Flag, true),
    ("logger.console_log_format", Text, true),
    ("logger.enable_file_log", Flag, true),
    ("logger.enable_json_log", Flag, true),
    ("logger.log_file_path", Text, true),
    ("logger.log_format", Text, true),
    ("logger.date_format", Text, true),
    ("logger.log_keys", TextsOrNull, true),
    ("logger.max_file_size", NUMBER, true),
    ("logger.backup_count", Number(u32::MAX as u64), true),
    ("hyper_parameters.connection_buffer_size", NUMBER, false),
    ("hyper_parameters.command_buffer_size", NUMBER, false),
    ("hyper_parameters.control_channel_capacity", NUMBER, false),
    ("hyper_parameters.queue_monitor_capacity", NUMBER, false),
    ("hyper_parameters.client_timeout_secs", NumberOrNull, true),
    ("hyper_parameters.rate_limit_msgs_per_minute", Number(u32::MAX as u64), true),
    ("hyper_parameters.timeout_check_interval_secs", NUMBER, false),
    ("hyper_parameters.accept_error_backoff_ms", NUMBER, false),
    ("hyper_parameters.quarantine_cooldown_secs", TIME, true),
    ("hyper_parameters.quarantine_cleanup_interval_secs", NUMBER, false),
    ("hyper_parameters.throttle_delay_ms", TIME, true),
    ("hyper_parameters.flow_control_delay_ms", TIME, true),
    ("hyper_parameters.worker_threads", NUMBER, false),
    ("hyper_parameters.backpressure_policy.enable_throttle", Flag, true),
    ("hyper_parameters.backpressure_policy.throttle_threshold", NUMBER, true),
    ("hyper_parameters.backpressure_policy.enable_flow_control", Flag, true),
    ("hyper_parameters.backpressure_policy.flow_control_threshold", NUMBER, true),
    ("hyper_parameters.backpressure_policy.enable_disconnect", Flag, true),
    ("hyper_parameters.backpressure_policy.disconnect_threshold", NUMBER, true),
];

/// Objects of that file.
const SECTIONS: [&str; 3] = ["logger", "hyper_parameters", "hyper_parameters.backpressure_policy"];

/// A step of the file's backpressure: its flag, its threshold and what that is where it is missing,
/// its delay, and our keys for both.
struct Step {
    enable: &'static str,
    threshold: &'static str,
    threshold_default: u64,
    threshold_key: &'static str,
    delay: Option<(&'static str, &'static str)>,
}

const STEPS: [Step; 3] = [
    Step {
        enable: "hyper_parameters.backpressure_policy.enable_throttle",
        threshold: "hyper_parameters.backpressure_policy.throttle_threshold",
        threshold_default: 100,
        threshold_key: "line.throttle_threshold",
        delay: Some(("hyper_parameters.throttle_delay_ms", "line.throttle_delay")),
    },
    Step {
        enable: "hyper_parameters.backpressure_policy.enable_flow_control",
        threshold: "hyper_parameters.backpressure_policy.flow_control_threshold",
        threshold_default: 300,
        threshold_key: "line.flow_control_threshold",
        delay: Some(("hyper_parameters.flow_control_delay_ms", "line.flow_control_delay")),
    },
    Step {
        enable: "hyper_parameters.backpressure_policy.enable_disconnect",
        threshold: "hyper_parameters.backpressure_policy.disconnect_threshold",
        threshold_default: 500,
        threshold_key: "line.disconnect_threshold",
        delay: None,
    },
];

/// Reads a file. What is wrong is added to `problems`, and what means nothing here to
/// `without_meaning`.
pub(super) fn read(
    file: &Arc<str>,
    text: &str,
    problems: &mut Vec<Problem>,
    without_meaning: &mut Vec<String>,
) -> Vec<Entry> {
    let mut reading =
        Reading { file, found: BTreeMap::new(), entries: Vec::new(), problems, without_meaning };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(members)) => reading.walk("", &members),
        Ok(_) => reading.no_json(1, 1, "must be a JSON object"),
        Err(error) => {
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            reading.no_json(error.line(), error.column(), what);
        }
    }
    reading.listen();
    reading.logger();
    reading.hyper_parameters();
    reading.entries
}

struct Reading<'r> {
    file: &'r Arc<str>,
    /// Values of the right kind that mean something.
    found: BTreeMap<&'static str, Value>,
    entries: Vec<Entry>,
    problems: &'r mut Vec<Problem>,
    without_meaning: &'r mut Vec<String>,
}

impl Reading<'_> {
    /// Takes the members of an object up.
    fn walk(&mut self, path: &str, members: &Map<String, Value>) {
        for (name, value) in members {
            let full = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if SECTIONS.contains(&full.as_str()) {
                match value.as_object() {
                    Some(inner) => self.walk(&full, inner),
                    None => self.wrong(&full, must_be("an object", value)),
                }
                continue;
            }
            match KEYS.iter().find(|(known, ..)| *known == full) {
                None => self.wrong(&full, unknown("key", &full, KEYS.iter().map(|key| key.0))),
                Some((known, kind, meaning)) => match kind.check(value) {
                    Err(what) => self.wrong(known, what),
                    Ok(()) if *meaning => {
                        self.found.insert(known, value.clone());
                    }
                    Ok(()) => self.without_meaning.push(full),
                },
            }
        }
    }

    fn listen(&mut self) {
        let (host, port) = (self.found.get("host").cloned(), self.found.get("port").cloned());
        if host.is_none() && port.is_none() {
            return;
        }
        let default = Listen::default();
        let at = host.as_ref().and_then(Value::as_str).unwrap_or(default.host());
        let port = port.and_then(|port| u16::try_from(port.as_u64()?).ok());
        match Listen::at_host(at, port.unwrap_or(default.port())) {
            Ok(listen) => {
                let key = if host.is_some() { "host" } else { "port" };
                self.push(key, "server.listen", json!([listen.to_string()]));
            }
            Err(error) => self.wrong("host", error.to_string()),
        }
    }

    fn logger(&mut self) {
        const SAME: [(&str, &str); 4] = [
            ("logger.enable_console_log", "log.stderr"),
            ("logger.log_keys", "log.keys"),
            ("logger.max_file_size", "log.file_bytes_max"),
            ("logger.backup_count", "log.file_count"),
        ];
        for (theirs, ours) in SAME {
            // null is what these keys are where they are missing.
            if let Some(value) = self.found.get(theirs).filter(|value| !value.is_null()).cloned() {
                self.push(theirs, ours, value);
            }
        }
        if let Some(level) = self.text("logger.log_level") {
            match LogLevel::parse(&level) {
                Ok(_) => self.push("logger.log_level", "log.level", Value::from(level)),
                Err(what) => self.wrong("logger.log_level", what),
            }
        }
        self.log_file();
        let templates = [
            ("logger.console_log_format", "log.stderr_template"),
            ("logger.log_format", "log.file_template"),
        ];
        for (theirs, ours) in templates {
            let parsed = self.text(theirs).map(|text| Template::parse(&text));
            self.push_understood(theirs, ours, parsed);
        }
        let parsed = self.text("logger.date_format").map(|text| DateFormat::parse(&text));
        self.push_understood("logger.date_format", "log.date_format", parsed);
    }

    fn log_file(&mut self) {
        const ENABLE: &str = "logger.enable_file_log";
        if self.flag(ENABLE) == Some(true) {
            let directory = self.text("logger.log_file_path").unwrap_or_default();
            let path = std::path::Path::new(&directory).join(LOG_NAME);
            self.push(ENABLE, "log.file", Value::from(path.to_string_lossy()));
        }
        if let Some(json) = self.flag("logger.enable_json_log") {
            let format = if json { "json" } else { "text" };
            self.push("logger.enable_json_log", "log.file_format", Value::from(format));
        }
    }

    fn hyper_parameters(&mut self) {
        const TIMEOUT: &str = "hyper_parameters.client_timeout_secs";
        const RATE: &str = "hyper_parameters.rate_limit_msgs_per_minute";
        const COOLDOWN: &str = "hyper_parameters.quarantine_cooldown_secs";
        if let Some(timeout) = self.found.get(TIMEOUT) {
            let seconds = timeout.as_u64().unwrap_or(0);
            self.push(TIMEOUT, "line.client_timeout_secs", Value::from(seconds));
        }
        if let Some(rate) = self.found.get(RATE).cloned() {
            self.push(RATE, "line.rate_limit_msgs_per_minute", rate);
        }
        if let Some(cooldown) = self.number(COOLDOWN) {
            self.push(COOLDOWN, "quarantine.cooldown", Value::from(format!("{cooldown}s")));
        }
        for step in STEPS {
            let threshold = self.number(step.threshold);
            if !self.flag(step.enable).unwrap_or(threshold.is_some()) {
                continue;
            }
            let source = if threshold.is_some() { step.threshold } else { step.enable };
            let threshold = threshold.unwrap_or(step.threshold_default);
            self.push(source, step.threshold_key, Value::from(threshold));
            if let Some((theirs, ours)) = step.delay
                && let Some(delay) = self.number(theirs)
            {
                self.push(theirs, ours, Value::from(format!("{delay}ms")));
            }
        }
    }

    /// A format, of which what is not understood is left out and named.
    fn push_understood<T: super::Setting>(
        &mut self,
        theirs: &str,
        ours: &'static str,
        parsed: Option<(T, Vec<String>)>,
    ) {
        let Some((format, unknown)) = parsed else { return };
        if !unknown.is_empty() {
            self.without_meaning.push(format!("{theirs} ({})", unknown.join(" ")));
        }
        if let Some(value) = format.show() {
            self.push(theirs, ours, value);
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.found.get(key).and_then(Value::as_str).map(str::to_owned)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.found.get(key).and_then(Value::as_bool)
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.found.get(key).and_then(Value::as_u64)
    }

    fn push(&mut self, theirs: &str, ours: &'static str, value: Value) {
        let origin = self.origin(theirs);
        self.entries.push(Entry { key: ours, value, origin });
    }

    fn no_json(&mut self, line: usize, column: usize, what: &str) {
        let origin = Origin::File { file: self.file.clone(), line, column };
        self.problems.push(Problem::new(origin, "", what));
    }

    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        let origin = self.origin(key);
        self.problems.push(Problem::new(origin, key, what));
    }

    fn origin(&self, key: &str) -> Origin {
        Origin::Summoner { file: self.file.clone(), key: key.into() }
    }
}

impl Kind {
    fn check(self, value: &Value) -> Result<(), String> {
        let good = match self {
            Self::Text => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Number(max) => value.as_u64().is_some_and(|number| number <= max),
            Self::NumberOrNull => {
                value.is_null() || value.as_u64().is_some_and(|number| number <= 1 << 33)
            }
            Self::TextsOrNull => {
                let texts = |items: &Vec<Value>| items.iter().all(Value::is_string);
                value.is_null() || value.as_array().is_some_and(texts)
            }
        };
        if good { Ok(()) } else { Err(must_be(&self.described(), value)) }
    }

    fn described(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number(u64::MAX) => "a whole number, 0 or more".to_owned(),
            Self::Number(max) => format!("a whole number of 0 to {max}"),
            Self::NumberOrNull => "a number of seconds, or null".to_owned(),
            Self::TextsOrNull => "a list of texts, or null".to_owned(),
        }
    }
}
