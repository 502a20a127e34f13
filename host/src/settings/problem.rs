//! Where a value came from, and what is wrong with it.

use std::fmt;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A place in a settings file.
    File {
        /// The file as it was named.
        file: Arc<str>,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// A key of Summoner's own file.
    Summoner {
        /// The file as it was named.
        file: Arc<str>,
        /// The key as that file calls it.
        key: Arc<str>,
    },
    /// A variable of the environment.
    Env(Arc<str>),
    /// A flag.
    Flag(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Summoner { file, key } => write!(f, "{file}: {key}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; [`Origin::Default`] where it stands nowhere.
    pub origin: Origin,
    /// The key; empty where a file cannot be read at all.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    pub(super) fn new(origin: Origin, key: &str, what: impl Into<String>) -> Self {
        Self { origin, key: key.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        let named = matches!(&self.origin, Origin::Summoner { key, .. } if **key == *self.key);
        if !self.key.is_empty() && !named {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)
    }
}

/// All that is wrong with the settings; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
