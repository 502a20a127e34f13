//! All sources together.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use wardline_core::Limits;

use super::keys::{KEYS, Reload, Settings};
use super::nearest::unknown;
use super::problem::{Origin, Problem, Problems};
use super::{summoner, toml_file};
use crate::logging::LogLevel;

/// Where settings come from, beside the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file: TOML, or Summoner's own JSON.
    pub file: Option<PathBuf>,
    /// The environment; [`Sources::env_of_process`].
    pub env: Vec<(String, String)>,
    /// Pairs `a.b=c` of `--set`, in order.
    pub sets: Vec<String>,
    /// Flags of their own.
    pub flags: Vec<Flag>,
}

/// A flag that sets one setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Its name, as it is given: `--listen`.
    pub name: &'static str,
    /// The setting.
    pub key: &'static str,
    /// The value, or several where the flag may be repeated.
    pub values: Vec<String>,
}

/// Settings in force, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What the core is told of them.
    pub limits: Limits,
    /// What was accepted and has no meaning here, for one line at the start.
    pub without_meaning: Vec<String>,
    origins: BTreeMap<&'static str, Origin>,
}

/// What each variable of the environment that belongs to Wardline begins with.
const ENV_PREFIX: &str = "WARDLINE_";

/// `tracing`'s own variable, taken where nothing of our own says otherwise.
const RUST_LOG: &str = "RUST_LOG";

impl Sources {
    /// The environment of this process, as far as it is text.
    #[must_use]
    pub fn env_of_process() -> Vec<(String, String)> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// Reads all sources. It reads the file anew each time, so that a reload is another load.
    ///
    /// # Errors
    /// The operator's: everything that is wrong, not only the first.
    pub fn load(&self) -> Result<Loaded, Problems> {
        self.load_with(self.file.as_deref().map(std::fs::read_to_string))
    }

    /// The same for who has read the file already, or tried to.
    ///
    /// # Errors
    /// As above.
    pub fn load_with(&self, file: Option<io::Result<String>>) -> Result<Loaded, Problems> {
        let mut loading = Loading::default();
        if let (Some(path), Some(text)) = (&self.file, file) {
            loading.file(path, text);
        }
        loading.env(&self.env);
        for pair in &self.sets {
            loading.pair(pair);
        }
        for flag in &self.flags {
            loading.flag(flag);
        }
        loading.finish()
    }
}

impl Loaded {
    /// Where a setting's value came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Every setting in force and where it came from; itself a settings file.
    #[must_use]
    pub fn report(&self) -> String {
        let mut out = String::new();
        for key in KEYS {
            let line = match self.settings.shown(key.name) {
                Some(value) => format!("{} = {value}", key.name),
                None => format!("# {} is unset", key.name),
            };
            // Writing to a string does not fail.
            let _ = writeln!(out, "{line:<56} # {}", self.origin(key.name));
        }
        out
    }

    /// The settings that differ from `other`'s: those that a running process takes over, and those
    /// for which it has to be started anew.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Changes {
        let mut changes = Changes::default();
        for key in KEYS {
            if self.settings.shown(key.name) == other.settings.shown(key.name) {
                continue;
            }
            match key.reload {
                Reload::Live => changes.live.push(key.name),
                Reload::Restart => changes.restart.push(key.name),
            }
        }
        changes
    }
}

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys whose new values are taken over.
    pub live: Vec<&'static str>,
    /// Keys whose new values need a restart.
    pub restart: Vec<&'static str>,
}

/// Sources on their way to [`Loaded`]. A later value of a key replaces an earlier one.
#[derive(Debug, Default)]
struct Loading {
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
    problems: Vec<Problem>,
    without_meaning: Vec<String>,
}

impl Loading {
    fn file(&mut self, path: &Path, text: io::Result<String>) {
        let name: Arc<str> = path.display().to_string().into();
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let what = format!("{name}: cannot read it: {error}");
                self.problems.push(Problem::new(Origin::Default, "", what));
                return;
            }
        };
        // Editors of one system put it in front of what they save.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let entries = if is_json(path, text) {
            summoner::read(&name, text, &mut self.problems, &mut self.without_meaning)
        } else {
            toml_file::read(&name, text, &mut self.problems)
        };
        for entry in entries {
            let result = self.settings.set(entry.key, &entry.value);
            self.done(entry.key, entry.origin, result);
        }
    }

    fn env(&mut self, env: &[(String, String)]) {
        let named = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v);
        if let Some(value) = named(RUST_LOG).filter(|value| !value.is_empty()) {
            match LogLevel::parse(value) {
                Ok(_) => self.text("log.level", value, Origin::Env(RUST_LOG.into())),
                // It is set for all programs of a user, some of which know more than this one.
                Err(what) => self.without_meaning.push(format!("{RUST_LOG} ({what})")),
            }
        }
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            // Without the two underscores it is not ours: Kubernetes sets WARDLINE_SERVICE_HOST
            // and others for a service that is called wardline.
            let Some((section, key)) = rest.split_once("__") else { continue };
            let full = format!("{section}.{key}").to_ascii_lowercase();
            self.text(&full, value, Origin::Env(name.as_str().into()));
        }
    }

    fn pair(&mut self, pair: &str) {
        let origin = Origin::Flag("--set".into());
        match pair.split_once('=') {
            Some((key, value)) => self.text(key.trim(), value.trim(), origin),
            None => {
                self.problems.push(Problem::new(origin, pair, "needs a value: section.key=value"));
            }
        }
    }

    fn flag(&mut self, flag: &Flag) {
        let origin = Origin::Flag(flag.name.into());
        match flag.values.as_slice() {
            [one] => self.text(flag.key, one, origin),
            several => {
                let result = self.settings.set(flag.key, &Value::from(several));
                self.done(flag.key, origin, result);
            }
        }
    }

    fn text(&mut self, key: &str, text: &str, origin: Origin) {
        let names = || KEYS.iter().map(|key| key.name);
        let Some(known) = names().find(|name| *name == key) else {
            self.problems.push(Problem::new(origin, key, unknown("key", key, names())));
            return;
        };
        let result = self.settings.set_text(known, text);
        self.done(known, origin, result);
    }

    fn done(&mut self, key: &'static str, origin: Origin, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.origins.insert(key, origin);
            }
            Err(what) => self.problems.push(Problem::new(origin, key, what)),
        }
    }

    fn finish(mut self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() {
            let origin = |key| self.origins.get(key).cloned().unwrap_or(Origin::Default);
            match self.settings.limits() {
                Ok(limits) => {
                    self.name_idle_delays();
                    let Self { settings, origins, without_meaning, .. } = self;
                    return Ok(Loaded { settings, limits, without_meaning, origins });
                }
                Err(wrong) => {
                    let problem = |(key, what)| Problem::new(origin(key), key, what);
                    self.problems = wrong.into_iter().map(problem).collect();
                }
            }
        }
        Err(Problems(self.problems))
    }

    /// A delay without the threshold from which it acts does nothing.
    fn name_idle_delays(&mut self) {
        let line = &self.settings.line;
        let pairs = [
            ("line.throttle", line.throttle_threshold.is_none(), line.throttle_delay.is_some()),
            (
                "line.flow_control",
                line.flow_control_threshold.is_none(),
                line.flow_control_delay.is_some(),
            ),
        ];
        for (name, no_threshold, delay) in pairs {
            if no_threshold && delay {
                self.without_meaning.push(format!("{name}_delay (without {name}_threshold)"));
            }
        }
    }
}

/// Summoner's file is JSON; nothing in TOML begins with a brace.
fn is_json(path: &Path, text: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || text.trim_start().starts_with('{')
}
