//! A command that runs beside the case, until it ends or is ended.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::relay::{Captured, Outcome, wait_for};
use super::{PATIENCE, wait_until};

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    streams: Option<(Captured, Captured)>,
}

impl Background {
    /// Starts it; its standard input can be written to.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary can be started");
        let stdout = Captured::of(child.stdout.take().expect("piped"));
        let stderr = Captured::of(child.stderr.take().expect("piped"));
        Self { child, streams: Some((stdout, stderr)) }
    }

    /// Writes to its standard input, all that it gets.
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        let mut stdin = self.child.stdin.take().expect("only once");
        // It may have ended before it read.
        let _ = stdin.write_all(bytes);
    }

    fn streams(&self) -> &(Captured, Captured) {
        self.streams.as_ref().expect("it has not ended")
    }

    /// What it wrote so far.
    pub(crate) fn stdout(&self) -> String {
        self.streams().0.so_far()
    }

    /// What it said so far.
    pub(crate) fn stderr(&self) -> String {
        self.streams().1.so_far()
    }

    /// Waits until it has said `text`.
    pub(crate) fn wait_until_said(&self, text: &str) {
        wait_until(&format!("{text:?} on standard error"), || self.stderr().contains(text));
    }

    /// Its process.
    #[cfg(all(unix, not(wardline_portable)))]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    /// Waits until it ends by itself.
    pub(crate) fn outcome(mut self) -> Outcome {
        let status = wait_for(&mut self.child, PATIENCE);
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let (stdout, stderr) = self.streams.take().expect("only here");
        let (stdout, stderr) = (stdout.finished(), stderr.finished());
        let Some(status) = status else {
            panic!("did not end in {PATIENCE:?}:\n{stdout}\n{stderr}");
        };
        Outcome { code: status.code(), stdout, stderr }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
