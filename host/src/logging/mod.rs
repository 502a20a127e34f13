//! Logs: text on a terminal and JSON elsewhere, to standard error and, where asked for, to a file
//! that rotates by size.
//!
//! Everything is logged through [`tracing`]. The thread that logs only puts a line into a bounded
//! queue; another writes it. Nothing that a client sent reaches a log as it is: control characters
//! are written as numbers.

mod date;
mod escape;
mod level;
mod line;
mod queue;
mod rotate;
mod template;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

pub use date::DateFormat;
pub use escape::escaped;
pub use level::LogLevel;
pub use line::{LineFormat, LineShape, name_shard};
pub use rotate::RotatingFile;
pub use template::Template;

use crate::settings::{LogFormat, Settings};
use queue::{Command, Place, Queue};

/// Bytes that the queue of one place takes: one half is filled while the other is written.
pub(crate) const QUEUE_BYTES: u64 = 2 * queue::BYTES_MAX as u64;

/// What is logged, where, and how it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Which events.
    pub level: LogLevel,
    /// How they look on standard error, if they go there.
    pub stderr: Option<LineFormat>,
    /// The file that they go to beside it.
    pub file: Option<LogFile>,
}

/// A log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path; what is older has `.1`, `.2` and so on behind it.
    pub path: PathBuf,
    /// It is rotated before it grows beyond; 0: never.
    pub bytes_max: u64,
    /// Older files that are kept.
    pub count: u32,
    /// How lines look in it.
    pub format: LineFormat,
}

/// What standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// It is one, not a file or a pipe.
    pub is_terminal: bool,
    /// `NO_COLOR` is set to something.
    pub no_color: bool,
}

impl Terminal {
    /// Looks at this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            is_terminal: io::IsTerminal::is_terminal(&io::stderr()),
            no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        }
    }
}

impl LogOptions {
    /// What the settings ask for.
    #[must_use]
    pub fn from_settings(settings: &Settings, terminal: Terminal) -> Self {
        let log = &settings.log;
        let colors = terminal.is_terminal && !terminal.no_color;
        let text = |template: Option<&Template>, colors: bool| match template {
            Some(template) if colors => LineShape::Template(template.clone()),
            Some(template) => LineShape::Template(template.without_colors()),
            None => LineShape::Text { colors },
        };
        let stderr = match log.format {
            LogFormat::Json => LineShape::Json,
            LogFormat::Text => text(log.stderr_template.as_ref(), colors),
            // Who gave a template wants it, wherever it goes.
            LogFormat::Auto if terminal.is_terminal || log.stderr_template.is_some() => {
                text(log.stderr_template.as_ref(), colors)
            }
            LogFormat::Auto => LineShape::Json,
        };
        let file = match log.file_format {
            LogFormat::Text => text(log.file_template.as_ref(), false),
            LogFormat::Auto if log.file_template.is_some() => {
                text(log.file_template.as_ref(), false)
            }
            LogFormat::Json | LogFormat::Auto => LineShape::Json,
        };
        let format = |shape| LineFormat { date: log.date_format.clone(), shape };
        Self {
            level: log.level.clone(),
            stderr: log.stderr.then(|| format(stderr)),
            file: log.file.clone().map(|path| LogFile {
                path,
                bytes_max: log.file_bytes_max.0,
                count: log.file_count,
                format: format(file),
            }),
        }
    }
}

/// A log file that cannot be opened.
#[derive(Debug)]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log.file: cannot open {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The log of this process. A clone is the same log.
#[derive(Clone, Debug)]
pub struct Log {
    state: Arc<RwLock<State>>,
    queue: Queue,
}

#[derive(Debug)]
struct State {
    options: LogOptions,
    targets: Targets,
}

impl State {
    fn new(options: LogOptions) -> Self {
        Self { targets: options.level.targets(), options }
    }
}

impl Log {
    /// Starts the log and makes it that of the whole process. A second log of a process gets
    /// nothing to write.
    ///
    /// # Errors
    /// The operator's or the system's: the file cannot be opened.
    pub fn start(options: LogOptions) -> Result<Self, LogError> {
        let log = Self::new(options)?;
        // An error says that there is one already; the first one stays.
        let _ = tracing::subscriber::set_global_default(log.subscriber());
        Ok(log)
    }

    fn new(options: LogOptions) -> Result<Self, LogError> {
        let file = options.file.as_ref().map(open).transpose()?;
        let path = || options.file.as_ref().map(|file| file.path.clone()).unwrap_or_default();
        let queue = Queue::start(file).map_err(|source| LogError { path: path(), source })?;
        Ok(Self { state: Arc::new(RwLock::new(State::new(options))), queue })
    }

    fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        tracing_subscriber::registry().with(self.clone())
    }

    /// Goes on with other options.
    ///
    /// # Errors
    /// The operator's or the system's: the file cannot be opened; all stays as it was.
    pub fn apply(&self, options: LogOptions) -> Result<(), LogError> {
        let file = options.file.as_ref().map(open).transpose()?;
        // What was logged before belongs to the old file.
        self.queue.flush(PATIENCE);
        self.queue.command(Command::File(file));
        self.queue.flush(PATIENCE);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::new(options);
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Opens the file again under its name: another process has moved the old one away.
    pub fn reopen(&self) {
        self.queue.command(Command::Reopen);
    }

    /// Waits until all is written, but no longer than `patience`.
    pub fn flush(&self, patience: Duration) {
        self.queue.flush(patience);
    }

    fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long a change of the log waits for lines that were logged before it.
const PATIENCE: Duration = Duration::from_secs(1);

fn open(file: &LogFile) -> Result<RotatingFile, LogError> {
    RotatingFile::open(&file.path, file.bytes_max, file.count)
        .map_err(|source| LogError { path: file.path.clone(), source })
}

impl<S: Subscriber> Layer<S> for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let enabled = self.state(|state| wants(&state.targets, metadata));
        if enabled { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.state(|state| wants(&state.targets, metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = |state: &State| {
            let each = state.targets.iter().map(|(_, level)| level);
            each.chain(state.targets.default_level()).max()
        };
        Some(self.state(levels).unwrap_or(LevelFilter::OFF))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let time = SystemTime::now();
        self.state(|State { options, .. }| {
            let stderr = options.stderr.is_some().then_some(Place::Stderr);
            let file = options.file.is_some().then_some(Place::File);
            // One lock for both.
            let places = match (stderr, file) {
                (Some(stderr), Some(file)) => &[stderr, file][..],
                (Some(one), None) | (None, Some(one)) => &[one],
                (None, None) => return,
            };
            self.queue.put(places, |place, out| {
                let format = match place {
                    Place::Stderr => options.stderr.as_ref(),
                    Place::File => options.file.as_ref().map(|file| &file.format),
                };
                format.map_or(Ok(()), |format| format.write(time, event, out))
            });
        });
    }
}

fn wants(targets: &Targets, metadata: &Metadata<'_>) -> bool {
    targets.would_enable(metadata.target(), metadata.level())
}

#[cfg(test)]
mod tests;
