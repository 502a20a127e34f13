//! Values of settings: how each kind is read, and how it is shown.

use std::path::PathBuf;

use serde_json::Value;
use wardline_core::SHARDS_MAX;
use wardline_core::{Duration, LagRule};

/// A kind of value that a setting can have.
///
/// Everything that a setting can come from (TOML, JSON, an environment variable, a flag) is first
/// made a JSON value, so that each kind is read in one place.
pub trait Setting: Sized {
    /// Reads a value.
    ///
    /// # Errors
    /// The operator's: a sentence that says what the value must be.
    fn read(value: &Value) -> Result<Self, String>;

    /// The value as it may be written in a settings file; `None` where it is unset.
    fn show(&self) -> Option<Value>;
}

/// Reads a value given as plain text, in the environment or on the command line.
///
/// What begins like a list or a quoted string is taken for that; all else is text first, so that a
/// path may be called `300`, and a number or a flag second.
///
/// # Errors
/// The operator's: a sentence that says what the value must be.
pub fn read_text<T: Setting>(text: &str) -> Result<T, String> {
    let as_text = Value::String(text.to_owned());
    let Ok(literal) = serde_json::from_str::<Value>(text) else { return T::read(&as_text) };
    match literal {
        Value::Array(_) | Value::String(_) | Value::Object(_) => T::read(&literal),
        Value::Null => T::read(&as_text),
        Value::Bool(_) | Value::Number(_) => T::read(&as_text).or_else(|_| T::read(&literal)),
    }
}

/// What a value is, for a sentence that says what it should have been.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}

/// `must be WHAT, not VALUE`.
pub(super) fn must_be(what: &str, value: &Value) -> String {
    format!("must be {what}, not {}", described(value))
}

/// One of a few words.
pub(crate) fn read_word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        must_be(&all.join(" or "), value)
    })
}

/// A number of bytes: `65536`, `64KiB`, `1MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// The units of [`Bytes`], largest first within each family.
const BYTE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
];

impl Setting for Bytes {
    fn read(value: &Value) -> Result<Self, String> {
        const WHAT: &str = "a number of bytes such as 65536, \"64KiB\" or \"1MB\"";
        let bytes = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => {
                let (number, unit) = split_number(text);
                let factor = match unit {
                    "" | "B" => Some(1),
                    _ => BYTE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, by)| *by),
                };
                number.zip(factor).and_then(|(number, by)| number.checked_mul(by))
            }
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        bytes.map(Self).ok_or_else(|| must_be(WHAT, value))
    }

    fn show(&self) -> Option<Value> {
        let unit =
            BYTE_UNITS[..3].iter().find(|(_, by)| self.0 >= *by && self.0.is_multiple_of(*by));
        Some(match unit {
            Some((name, by)) => Value::from(format!("{}{name}", self.0 / by)),
            None => Value::from(self.0),
        })
    }
}

/// A span of time that carries its unit: `250ms`, `5s`, `1h30min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The units of [`Span`] in nanoseconds, largest first.
const TIME_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = split_number(rest);
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            let (_, by) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
            total = total.checked_add(number?.checked_mul(*by)?)?;
            rest = next.trim_start();
        }
        (!text.trim().is_empty()).then_some(Self(Duration::from_nanos(total)))
    }

    /// In the largest unit that shows it whole.
    pub(crate) fn shown(self) -> String {
        let ns = self.0.as_nanos();
        let unit = TIME_UNITS.iter().find(|(_, by)| ns >= *by && ns.is_multiple_of(*by));
        unit.map_or_else(|| "0s".to_owned(), |(name, by)| format!("{}{name}", ns / by))
    }
}

impl Setting for Span {
    fn read(value: &Value) -> Result<Self, String> {
        const WHAT: &str = "a time with its unit (ns, us, ms, s, min, h, d) such as \"5s\"";
        let span = match value {
            // Nothing is nothing in every unit.
            Value::Number(number) if number.as_u64() == Some(0) => Some(Self(Duration::ZERO)),
            Value::String(text) if text.trim() == "0" => Some(Self(Duration::ZERO)),
            Value::String(text) => Self::parse(text),
            Value::Number(_) | Value::Null | Value::Bool(_) => None,
            Value::Array(_) | Value::Object(_) => None,
        };
        span.ok_or_else(|| must_be(WHAT, value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.shown()))
    }
}

/// A span of time whose key says that a bare number counts seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Setting for Seconds {
    fn read(value: &Value) -> Result<Self, String> {
        const WHAT: &str = "a number of seconds, or a time such as \"5min\"";
        let seconds = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        // More seconds than nanoseconds can count would silently mean "never".
        if let Some(seconds) =
            seconds.filter(|seconds| seconds.checked_mul(1_000_000_000).is_some())
        {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        match value {
            Value::String(text) => Span::parse(text).map(|span| Self(span.0)),
            Value::Number(_) | Value::Null | Value::Bool(_) => None,
            Value::Array(_) | Value::Object(_) => None,
        }
        .ok_or_else(|| must_be(WHAT, value))
    }

    fn show(&self) -> Option<Value> {
        let whole = Duration::from_secs(self.0.as_secs()) == self.0;
        if whole { Some(Value::from(self.0.as_secs())) } else { Span(self.0).show() }
    }
}

/// How many in a span of so many seconds: `300`, `300/min`, `5/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate<const SECONDS: u64>(pub u32);

/// So many in a minute.
pub type PerMinute = Rate<60>;

/// So many in a second.
pub type PerSecond = Rate<1>;

impl<const SECONDS: u64> Rate<SECONDS> {
    fn parse(text: &str) -> Option<u64> {
        let Some((number, unit)) = text.split_once('/') else { return text.trim().parse().ok() };
        let per: u64 = match unit.trim() {
            "s" => 1,
            "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return None,
        };
        let counted = number.trim().parse::<u64>().ok()?.checked_mul(SECONDS)?;
        counted.is_multiple_of(per).then_some(counted / per)
    }
}

impl<const SECONDS: u64> Setting for Rate<SECONDS> {
    fn read(value: &Value) -> Result<Self, String> {
        let unit = if SECONDS == 1 { "second" } else { "minute" };
        let what = format!("a whole number per {unit} such as 300, \"300/min\" or \"5/s\"");
        let rate = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => Self::parse(text),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let rate = rate.and_then(|rate| u32::try_from(rate).ok());
        rate.map(Self).ok_or_else(|| must_be(&what, value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.0))
    }
}

impl Setting for u32 {
    fn read(value: &Value) -> Result<Self, String> {
        let number = value.as_u64().and_then(|number| Self::try_from(number).ok());
        number.ok_or_else(|| must_be("a whole number of 0 to 4294967295", value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(*self))
    }
}

impl Setting for u64 {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_u64().ok_or_else(|| must_be("a whole number, 0 or more", value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(*self))
    }
}

impl Setting for bool {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| must_be("true or false", value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(*self))
    }
}

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| must_be("text", value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.as_str()))
    }
}

impl Setting for PathBuf {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().filter(|text| !text.is_empty());
        text.map(Self::from).ok_or_else(|| must_be("a path", value))
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.to_string_lossy()))
    }
}

/// Files of the relay's keys, the first one first: a path, or a list of up to four. None: unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles(pub Vec<PathBuf>);

/// As many as the core takes.
const KEY_FILES_MAX: usize = 4;

impl Setting for KeyFiles {
    fn read(value: &Value) -> Result<Self, String> {
        let paths: Result<Vec<_>, _> = match value {
            Value::String(text) if text.is_empty() => return Ok(Self::default()),
            Value::Array(items) => items.iter().map(PathBuf::read).collect(),
            one => PathBuf::read(one).map(|path| vec![path]),
        };
        match paths {
            Ok(paths) if paths.len() <= KEY_FILES_MAX => Ok(Self(paths)),
            Ok(_) | Err(_) => Err(must_be("a path, or a list of at most 4", value)),
        }
    }

    fn show(&self) -> Option<Value> {
        match self.0.as_slice() {
            [] => None,
            [one] => one.show(),
            several => Some(Value::Array(several.iter().filter_map(PathBuf::show).collect())),
        }
    }
}

impl<T: Setting> Setting for Option<T> {
    /// An empty text unsets.
    fn read(value: &Value) -> Result<Self, String> {
        if value.as_str() == Some("") { Ok(None) } else { T::read(value).map(Some) }
    }

    fn show(&self) -> Option<Value> {
        self.as_ref().and_then(T::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    /// A text is a list that is separated by commas.
    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(items) => items.iter().map(T::read).collect(),
            Value::String(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parts.map(|part| T::read(&Value::from(part))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                Err(must_be("a list", value))
            }
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::Array(self.iter().filter_map(T::show).collect()))
    }
}

/// Which engine carries the sockets. Whether it can be had is not for the settings to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The best that this build has and this system lets run.
    Auto,
    /// Linux's io_uring, with a loop of its own.
    Ring,
    /// Linux's io_uring, by the crate `tokio-uring`.
    TokioUring,
    /// The portable one.
    Tokio,
}

impl Engine {
    /// Whether it can hand a connection to another shard once it was read: what is under way in
    /// tokio-uring cannot be stopped.
    #[must_use]
    pub const fn hands_over(self) -> bool {
        match self {
            Self::Ring | Self::Tokio | Self::Auto => true,
            Self::TokioUring => false,
        }
    }

    /// All of them, by the names that operators know them by.
    const NAMES: [(&str, Self); 4] = [
        ("auto", Self::Auto),
        ("ring", Self::Ring),
        ("tokio-uring", Self::TokioUring),
        ("tokio", Self::Tokio),
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ring => "ring",
            Self::TokioUring => "tokio-uring",
            Self::Tokio => "tokio",
        }
    }
}

impl Setting for Engine {
    fn read(value: &Value) -> Result<Self, String> {
        read_word(value, &Self::NAMES)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.name()))
    }
}

/// Threads that relay, each with connections of its own. 0: as many as is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(pub u32);

impl Shards {
    /// As many as is best.
    pub const AUTO: Self = Self(0);

    /// How many that is. `auto` is one, until a measurement has shown a gain from more.
    #[must_use]
    pub fn count(self) -> u8 {
        u8::try_from(self.0).unwrap_or(SHARDS_MAX).clamp(1, SHARDS_MAX)
    }
}

impl Setting for Shards {
    fn read(value: &Value) -> Result<Self, String> {
        if value.as_str() == Some("auto") {
            return Ok(Self::AUTO);
        }
        match u32::read(value) {
            Ok(shards) if (1..=u32::from(SHARDS_MAX)).contains(&shards) => Ok(Self(shards)),
            Ok(_) | Err(_) => Err(must_be("\"auto\" or a number of 1 to 16", value)),
        }
    }

    fn show(&self) -> Option<Value> {
        Some(if *self == Self::AUTO { Value::from("auto") } else { Value::from(self.0) })
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Setting for LogFormat {
    fn read(value: &Value) -> Result<Self, String> {
        read_word(value, &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)])
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}

impl Setting for LagRule {
    fn read(value: &Value) -> Result<Self, String> {
        read_word(value, &[("cut", Self::Cut), ("gap", Self::Gap), ("pace", Self::Pace)])
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(match self {
            Self::Cut => "cut",
            Self::Gap => "gap",
            Self::Pace => "pace",
        }))
    }
}

/// A text's leading digits as a number, and what follows them. Digits may be parted by `_`.
fn split_number(text: &str) -> (Option<u64>, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.replace('_', "").parse().ok(), rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bytes_are_read_with_and_without_units() {
        let good: [(&str, u64); 10] = [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("1MB", 1_000_000),
            ("2 GiB", 2 << 30),
            ("1GB", 1_000_000_000),
            ("1kB", 1_000),
            ("1_000B", 1_000),
            ("7 B", 7),
        ];
        for (text, bytes) in good {
            assert_eq!(read_text::<Bytes>(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in
            ["", "KiB", "-1", "1.5MiB", "64K", "64kib", "99999999999GiB", "true", "[1]", "_"]
        {
            let wrong = read_text::<Bytes>(text).unwrap_err();
            assert!(wrong.starts_with("must be a number of bytes"), "{text}: {wrong}");
        }
    }

    #[test]
    fn key_files_are_one_or_some() {
        let files = |paths: &[&str]| KeyFiles(paths.iter().map(PathBuf::from).collect());
        for (text, paths, shown) in [
            ("", &[][..], None),
            ("[]", &[], None),
            ("/k", &["/k"], Some(serde_json::json!("/k"))),
            ("/a,b", &["/a,b"], Some(serde_json::json!("/a,b"))),
            (r#"["/k"]"#, &["/k"], Some(serde_json::json!("/k"))),
            (r#"["/n", "/o"]"#, &["/n", "/o"], Some(serde_json::json!(["/n", "/o"]))),
        ] {
            assert_eq!(read_text::<KeyFiles>(text), Ok(files(paths)), "{text}");
            assert_eq!(files(paths).show(), shown, "{text}");
        }
        for value in [
            serde_json::json!(["a", "b", "c", "d", "e"]),
            serde_json::json!(["a", ""]),
            serde_json::json!([1]),
            serde_json::json!(7),
        ] {
            let wrong = KeyFiles::read(&value).unwrap_err();
            assert!(wrong.starts_with("must be a path, or a list of at most 4"), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_units_only() {
        let good: [(&str, u64); 10] = [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5_000),
            ("5 s", 5_000),
            ("10min", 600_000),
            ("1h30min", 5_400_000),
            ("1h 30min", 5_400_000),
            ("2d", 172_800_000),
            ("3000us", 3),
        ];
        for (text, millis) in good {
            assert_eq!(read_text::<Span>(text), Ok(Span(ms(millis))), "{text}");
        }
        for text in ["", " ", "5", "s", "5m", "1.5s", "-5s", "5s7", "9999999999d", "false", "[]"] {
            let wrong = read_text::<Span>(text).unwrap_err();
            assert!(wrong.starts_with("must be a time with its unit"), "{text}: {wrong}");
        }
    }

    #[test]
    fn seconds_may_be_bare() {
        for (text, millis) in [("0", 0), ("300", 300_000), ("300s", 300_000), ("1500ms", 1_500)] {
            assert_eq!(read_text::<Seconds>(text), Ok(Seconds(ms(millis))), "{text}");
        }
        for text in ["", "-1", "1.5", "never", "true", "18446744073709551615"] {
            assert!(read_text::<Seconds>(text).is_err(), "{text}");
        }
        assert_eq!(Seconds(ms(1_500)).show(), Some(Value::from("1500ms")));
        assert_eq!(Seconds(ms(2_000)).show(), Some(Value::from(2)));
    }

    #[test]
    fn rates_are_whole_in_their_own_unit() {
        for (text, rate) in [("0", 0), ("300", 300), ("300/min", 300), ("5/s", 300), ("60/h", 1)] {
            assert_eq!(read_text::<PerMinute>(text), Ok(Rate(rate)), "{text}");
        }
        for (text, rate) in [("10", 10), ("10/s", 10), ("600/min", 10)] {
            assert_eq!(read_text::<PerSecond>(text), Ok(Rate(rate)), "{text}");
        }
        for text in ["", "5/", "/s", "5/week", "59/h", "-1", "1.5/s", "4294967296"] {
            let wrong = read_text::<PerMinute>(text).unwrap_err();
            assert!(wrong.contains("whole number per minute"), "{text}: {wrong}");
        }
        assert!(read_text::<PerSecond>("61/min").unwrap_err().contains("per second"));
    }

    #[test]
    fn text_is_text_first() {
        assert_eq!(read_text::<PathBuf>("300"), Ok(PathBuf::from("300")));
        assert_eq!(read_text::<u32>("300"), Ok(300));
        assert_eq!(read_text::<bool>("true"), Ok(true));
        assert_eq!(read_text::<String>("true"), Ok("true".to_owned()));
        assert_eq!(read_text::<Option<PathBuf>>(""), Ok(None));
        assert_eq!(read_text::<String>("\"a b\""), Ok("a b".to_owned()));
        assert!(read_text::<PathBuf>("").is_err());
        assert!(read_text::<bool>("yes").is_err());
        assert!(read_text::<u32>("4294967296").is_err());
        assert!(read_text::<u64>("-1").is_err());
    }

    #[test]
    fn lists_are_json_or_separated_by_commas() {
        let list = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(read_text::<Vec<String>>(r#"["a","b"]"#), Ok(list.clone()));
        assert_eq!(read_text::<Vec<String>>("a, b,"), Ok(list));
        assert_eq!(read_text::<Vec<String>>(""), Ok(vec![]));
        assert_eq!(read_text::<Vec<String>>("[]"), Ok(vec![]));
        assert!(Vec::<String>::read(&Value::from(1)).is_err());
        assert!(Vec::<String>::read(&serde_json::json!([1])).is_err());
    }

    #[test]
    fn words_are_those_that_are_known() {
        for (name, engine) in Engine::NAMES {
            assert_eq!(read_text::<Engine>(name), Ok(engine));
            assert_eq!(engine.name(), name);
        }
        assert!(read_text::<Engine>("epoll").unwrap_err().contains("\"tokio-uring\" or \"tokio\""));
        assert_eq!(read_text::<LagRule>("pace"), Ok(LagRule::Pace));
        assert!(read_text::<LagRule>("Pace").is_err());
        assert_eq!(read_text::<Shards>("1"), Ok(Shards(1)));
        assert_eq!(read_text::<Shards>("16"), Ok(Shards(16)));
        assert_eq!(read_text::<Shards>("auto").map(Shards::count), Ok(1));
        assert!(read_text::<Shards>("17").unwrap_err().contains("1 to 16"));
        assert!(read_text::<Shards>("0").is_err());
        assert!(read_text::<Shards>("many").is_err());
        assert!(read_text::<LogFormat>("xml").is_err());
    }

    #[test]
    fn what_is_shown_reads_back() {
        fn check<T: Setting + PartialEq + std::fmt::Debug>(value: T) {
            let shown = value.show();
            match shown {
                Some(shown) => assert_eq!(T::read(&shown), Ok(value)),
                None => assert_eq!(T::read(&Value::from("")), Ok(value)),
            }
        }
        for bytes in [0, 1, 1_000, 1 << 10, 3 << 20, 1 << 30, (1 << 30) + 1, u64::MAX] {
            check(Bytes(bytes));
        }
        for millis in [0, 1, 999, 1_000, 90_000, 3_600_000, 86_400_000, 86_400_001] {
            check(Span(ms(millis)));
            check(Seconds(ms(millis)));
        }
        check(Rate::<60>(300));
        check(vec!["a".to_owned(), "b, c".to_owned()]);
        check(Option::<PathBuf>::None);
        check(Some(PathBuf::from("/run/x")));
        for format in [LogFormat::Auto, LogFormat::Text, LogFormat::Json] {
            check(format);
        }
        for rule in [LagRule::Cut, LagRule::Gap, LagRule::Pace] {
            check(rule);
        }
        for (_, engine) in Engine::NAMES {
            check(engine);
        }
        check(Shards(1));
        check(Shards(16));
        check(Shards::AUTO);
        check(true);
        check(7u64);
    }
}
