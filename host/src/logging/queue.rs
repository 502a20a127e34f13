//! Lines on their way to the log. A thread of its own writes them, so that a terminal that was
//! stopped, a full disk or a slow journal never holds the relay up; what finds the queue full is
//! dropped, counted, and told.

use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line::Bounded;
use super::rotate::RotatingFile;

/// Bytes that wait for each of the two places. A second of a thousand lines a second fits twice.
const PENDING_BYTES_MAX: usize = 256 << 10;

/// Room beyond that for one line: the longest line of a client that is all control characters,
/// when bodies are logged.
const LINE_BYTES_MAX: usize = 512 << 10;

/// Bytes of a queue that is as full as it gets.
pub(super) const BYTES_MAX: usize = PENDING_BYTES_MAX + LINE_BYTES_MAX;

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Stderr,
    File,
}

/// The queue, shared by those who log and the thread that writes.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    /// Told when there is something to do.
    work: Condvar,
    /// Told when all is written.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    stderr: String,
    file: String,
    /// Lines that found no room.
    dropped: u64,
    command: Option<Command>,
    writing: bool,
}

/// What else the writing thread does.
#[derive(Debug)]
pub(super) enum Command {
    /// Opens the file again.
    Reopen,
    /// Writes to another file from now on, or to none.
    File(Option<RotatingFile>),
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.stderr.is_empty() && self.file.is_empty() && self.command.is_none()
    }

    fn lines(&mut self, place: Place) -> &mut String {
        match place {
            Place::Stderr => &mut self.stderr,
            Place::File => &mut self.file,
        }
    }
}

impl Queue {
    /// A queue and the thread that empties it.
    ///
    /// # Errors
    /// The system's, for want of a thread.
    pub(super) fn start(file: Option<RotatingFile>) -> io::Result<Self> {
        let mut pending = Pending::default();
        // Reserved at once, so that logging allocates nothing; touched only when used.
        pending.stderr.reserve(BYTES_MAX);
        if file.is_some() {
            pending.file.reserve(BYTES_MAX);
        }
        let queue = Self::new(pending);
        let mut writer = Writer::new(queue.shared.clone(), file);
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 << 10)
            .spawn(move || writer.run())?;
        Ok(queue)
    }

    fn new(pending: Pending) -> Self {
        let pending = Mutex::new(pending);
        let shared = Shared { pending, work: Condvar::new(), done: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Puts a line to each of `places`, as `write` writes it there.
    pub(super) fn put<F>(&self, places: &[Place], mut write: F)
    where
        F: FnMut(Place, &mut Bounded<'_>) -> std::fmt::Result,
    {
        let mut pending = self.shared.lock();
        for place in places {
            let lines = pending.lines(*place);
            let before = lines.len();
            let full = before >= PENDING_BYTES_MAX;
            let bytes_max = before + LINE_BYTES_MAX;
            if full || write(*place, &mut Bounded { text: lines, bytes_max }).is_err() {
                lines.truncate(before);
                pending.dropped += 1;
            }
        }
        drop(pending);
        self.shared.work.notify_one();
    }

    /// Has the thread do something between lines.
    pub(super) fn command(&self, command: Command) {
        let mut pending = self.shared.lock();
        // A file that is opened again right after it was exchanged is new anyway.
        if !(matches!(command, Command::Reopen) && pending.command.is_some()) {
            pending.command = Some(command);
        }
        drop(pending);
        self.shared.work.notify_one();
    }

    /// Waits until all that was put is written, but no longer than `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut pending = self.shared.lock();
        while !pending.is_empty() || pending.writing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.done.wait_timeout(pending, left);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    /// A thread that panicked while it wrote a line leaves a line, not a broken queue.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's side.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    stderr: String,
    file: String,
    to: Option<RotatingFile>,
    /// The file's last write failed and this was said.
    failing: bool,
}

impl Writer {
    fn new(shared: Arc<Shared>, to: Option<RotatingFile>) -> Self {
        let stderr = String::with_capacity(BYTES_MAX);
        let file = if to.is_some() { stderr.capacity() } else { 0 };
        Self { shared, stderr, file: String::with_capacity(file), to, failing: false }
    }

    fn run(&mut self) -> ! {
        loop {
            let (dropped, command) = self.take();
            self.write(dropped, command);
        }
    }

    /// Waits for work and takes all of it.
    fn take(&mut self) -> (u64, Option<Command>) {
        let mut pending = self.shared.lock();
        pending.writing = false;
        if pending.is_empty() {
            self.shared.done.notify_all();
        }
        while pending.is_empty() {
            pending = self.shared.work.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        pending.writing = true;
        std::mem::swap(&mut pending.stderr, &mut self.stderr);
        std::mem::swap(&mut pending.file, &mut self.file);
        (std::mem::take(&mut pending.dropped), pending.command.take())
    }

    fn write(&mut self, dropped: u64, command: Option<Command>) {
        // Nobody is left to be told that the standard error cannot be written.
        let _ = io::stderr().write_all(self.stderr.as_bytes());
        self.stderr.clear();
        let result = self.to.as_mut().map_or(Ok(()), |file| file.write_lines(&self.file));
        self.file.clear();
        self.note("cannot write the log file", result);
        if dropped > 0 {
            say(&format!("wardline: {dropped} log lines found the log too slow and were dropped"));
        }
        match command {
            Some(Command::Reopen) => {
                let result = self.to.as_mut().map_or(Ok(()), RotatingFile::reopen);
                self.note("cannot open the log file again", result);
            }
            Some(Command::File(file)) => self.to = file,
            None => {}
        }
    }

    /// Says once, on standard error, that the file fails.
    fn note(&mut self, what: &str, result: io::Result<()>) {
        match result {
            Ok(()) => self.failing = false,
            Err(_) if self.failing => {}
            Err(error) => {
                self.failing = true;
                say(&format!("wardline: {what}: {error}"));
            }
        }
    }
}

fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "{sentence}");
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;
    use crate::scratch::Scratch;

    const SECOND: Duration = Duration::from_secs(10);

    fn put(queue: &Queue, text: &str) {
        queue.put(&[Place::File], |_, out| out.write_str(text));
    }

    #[test]
    fn lines_reach_the_file_in_order() {
        let dir = Scratch::new();
        let path = dir.path("w.log");
        let queue = Queue::start(Some(RotatingFile::open(&path, 0, 0).unwrap())).unwrap();
        let mut expected = String::new();
        for n in 0..1_000 {
            put(&queue, &format!("line {n}\n"));
            writeln!(expected, "line {n}").unwrap();
        }
        queue.flush(SECOND);
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn the_file_is_exchanged_and_opened_again_between_lines() {
        let dir = Scratch::new();
        let (first, second) = (dir.path("1.log"), dir.path("2.log"));
        let queue = Queue::start(Some(RotatingFile::open(&first, 0, 0).unwrap())).unwrap();
        put(&queue, "a\n");
        queue.flush(SECOND);
        fs::rename(&first, dir.path("moved")).unwrap();
        queue.command(Command::Reopen);
        queue.flush(SECOND);
        put(&queue, "b\n");
        queue.flush(SECOND);
        queue.command(Command::File(Some(RotatingFile::open(&second, 0, 0).unwrap())));
        queue.command(Command::Reopen);
        queue.flush(SECOND);
        put(&queue, "c\n");
        queue.flush(SECOND);
        queue.command(Command::File(None));
        queue.flush(SECOND);
        put(&queue, "nowhere\n");
        queue.flush(SECOND);
        assert_eq!(fs::read_to_string(dir.path("moved")).unwrap(), "a\n");
        assert_eq!(fs::read_to_string(&first).unwrap(), "b\n");
        assert_eq!(fs::read_to_string(&second).unwrap(), "c\n");
    }

    #[test]
    fn a_full_queue_drops_whole_lines_and_counts_them() {
        // No thread empties this one.
        let queue = Queue::new(Pending::default());
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..PENDING_BYTES_MAX / 1024 + 5 {
            put(&queue, &line);
        }
        let pending = queue.shared.lock();
        assert_eq!(pending.file.len(), PENDING_BYTES_MAX);
        assert_eq!(pending.dropped, 5);
        drop(pending);
        queue.flush(Duration::from_millis(1));
    }

    #[test]
    fn a_line_that_is_too_long_leaves_no_piece() {
        let queue = Queue::new(Pending::default());
        queue.put(&[Place::Stderr, Place::File], |place, out| match place {
            Place::Stderr => out.write_str("short\n"),
            Place::File => {
                out.write_str("begun ")?;
                out.write_str(&"x".repeat(LINE_BYTES_MAX))
            }
        });
        let pending = queue.shared.lock();
        assert_eq!((pending.stderr.as_str(), pending.file.as_str()), ("short\n", ""));
        assert_eq!(pending.dropped, 1);
    }
}
