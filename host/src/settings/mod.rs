//! Settings: what an operator may say, where each value came from, and what a relay makes of it.
//!
//! Flags go before the environment (`WARDLINE_SECTION__KEY`), that before the file, that before
//! the defaults. Each source is read into single values that know where they stand, and each value
//! is then read by the kind of its key. (A struct that is deserialised whole could refuse unknown
//! keys too, but could not say of each value where it came from once the sources are merged.)

mod keys;
mod limits;
mod load;
mod nearest;
mod problem;
mod summoner;
mod toml_file;
mod value;

pub use keys::{
    KEYS, Key, LimitSettings, LineSettings, LogSettings, NativeSettings, PressureSettings,
    QuarantineSettings, Reload, ServerSettings, Settings,
};
pub use load::{Changes, Flag, Loaded, Sources};
pub use problem::{Origin, Problem, Problems};
pub(crate) use value::read_word;
pub use value::{
    Bytes, Engine, LogFormat, PerMinute, PerSecond, Rate, Seconds, Setting, Shards, Span, read_text,
};

#[cfg(test)]
mod tests;
