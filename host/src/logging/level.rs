//! Which events are logged: `info`, or `info,wardline_tokio=debug`.

use serde_json::Value;
use tracing_subscriber::filter::Targets;

use crate::settings::Setting;

/// Words for levels: those of `tracing`, and those that Python has beside them.
const LEVELS: [(&str, &str); 8] = [
    ("off", "off"),
    ("error", "error"),
    ("critical", "error"),
    ("warn", "warn"),
    ("warning", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

/// The least level that is logged, and others for parts of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    directives: String,
}

impl LogLevel {
    /// Reads a level, or several directives `TARGET=LEVEL` separated by commas.
    ///
    /// # Errors
    /// The operator's, for a word that is no level.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parts: Vec<String> = parts.map(directive).collect::<Result<_, _>>()?;
        if parts.is_empty() {
            return Err(NEEDS_LEVEL.to_owned());
        }
        Ok(Self { directives: parts.join(",") })
    }

    /// As a filter.
    #[must_use]
    pub fn targets(&self) -> Targets {
        // It was put together from known words, so that this cannot fail; and if it did, a server
        // that logs the usual is better than none.
        let usual = Targets::new().with_default(tracing::Level::INFO);
        self.directives.parse().unwrap_or(usual)
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self { directives: "info".to_owned() }
    }
}

impl Setting for LogLevel {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map_or_else(|| Err(NEEDS_LEVEL.to_owned()), Self::parse)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.directives.as_str()))
    }
}

const NEEDS_LEVEL: &str = "must be off, error, warn, info, debug or trace, or TARGET=LEVEL";

fn directive(part: &str) -> Result<String, String> {
    match part.split_once('=') {
        None => level(part).map(str::to_owned),
        Some((target, word)) => {
            let named = !target.is_empty()
                && target.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
            if !named {
                return Err(format!("{NEEDS_LEVEL}; {target:?} is no target"));
            }
            Ok(format!("{target}={}", level(word)?))
        }
    }
}

fn level(word: &str) -> Result<&'static str, String> {
    let lower = word.trim().to_ascii_lowercase();
    let found = LEVELS.iter().find(|(name, _)| *name == lower);
    found.map(|(_, level)| *level).ok_or_else(|| format!("{NEEDS_LEVEL}, not {word:?}"))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_and_directives() {
        let cases = [
            ("info", "info"),
            ("INFO", "info"),
            ("Warning", "warn"),
            ("CRITICAL", "error"),
            ("off", "off"),
            (" warn , wardline_tokio = debug,", "warn,wardline_tokio=debug"),
        ];
        for (text, directives) in cases {
            let text = text.replace(" = ", "=");
            assert_eq!(LogLevel::parse(&text).unwrap().directives, directives);
        }
        let targets = LogLevel::parse("warn,wardline_tokio=debug").unwrap().targets();
        assert!(targets.would_enable("wardline", &Level::WARN));
        assert!(!targets.would_enable("wardline", &Level::INFO));
        assert!(targets.would_enable("wardline_tokio::turn", &Level::DEBUG));
        assert!(!LogLevel::parse("off").unwrap().targets().would_enable("x", &Level::ERROR));
    }

    #[test]
    fn typing_errors_are_not_targets() {
        for text in ["", ",", "inof", "verbose", "a=b", "=info", "a b=info", "[span]=info", "a=1=2"]
        {
            let wrong = LogLevel::parse(text).unwrap_err();
            assert!(wrong.starts_with("must be off, error"), "{text}: {wrong}");
        }
        assert!(LogLevel::read(&Value::from(3)).is_err());
        let level = LogLevel::default();
        assert_eq!(LogLevel::read(&level.show().unwrap()), Ok(level));
    }
}
