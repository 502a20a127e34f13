//! One line on stderr that says how far a run is.

use std::io::{IsTerminal, Write, stderr};

/// A line that is written over on a terminal, and a line each time elsewhere.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Progress {
    /// Progress on stderr.
    pub fn new() -> Self {
        Self { terminal: stderr().is_terminal() }
    }

    /// Shows where the run is.
    pub fn show(&self, text: &str) {
        let mut stderr = stderr().lock();
        // Progress that cannot be shown must not end a measurement.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
    }

    /// Takes the line away, so that the report begins on a clean one.
    pub fn clear(&self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
