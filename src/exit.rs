//! How the program fails: what it says, and its exit code.

use std::fmt;
use std::process::ExitCode;

use wardline_host::settings::Problems;

/// Why the program ends without having done what it was asked. (A wrong command line ends it with
/// 2 before it comes here.)
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong while it ran.
    Runtime(String),
    /// The settings are wrong.
    Settings(String),
    /// A listener cannot be bound.
    Bind(String),
    /// No connection to a relay, or it does not let this client in.
    Connect(String),
    /// It took longer than was asked for.
    TimedOut(String),
}

impl Failure {
    /// The code that the process ends with.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Runtime(_) => 1,
            Self::Settings(_) => 3,
            Self::Bind(_) => 4,
            Self::Connect(_) => 5,
            Self::TimedOut(_) => 124,
        }
    }

    /// Says it on standard error.
    pub(crate) fn told(&self) -> ExitCode {
        for line in self.to_string().lines() {
            eprintln!("wardline: {line}");
        }
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runtime(words) | Self::Settings(words) | Self::Bind(words) => words,
            Self::Connect(words) | Self::TimedOut(words) => words,
        })
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Settings(problems.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_are_promised() {
        let word = || "x".to_owned();
        assert_eq!(Failure::Runtime(word()).code(), 1);
        assert_eq!(Failure::Settings(word()).code(), 3);
        assert_eq!(Failure::Bind(word()).code(), 4);
        assert_eq!(Failure::Connect(word()).code(), 5);
        assert_eq!(Failure::TimedOut(word()).code(), 124);
    }
}
