//! One event as one line, text or JSON.

use std::cell::Cell;
use std::fmt::{self, Debug, Write};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::date::DateFormat;
use super::escape::{JsonEscape, TextEscape, needs_quotes};
use super::template::{self, Pad, Piece, Template};

thread_local! {
    static SHARD: Cell<Option<u8>> = const { Cell::new(None) };
}

/// Names the shard that this thread is, in every line that it logs from here on.
pub fn name_shard(shard: u8) {
    SHARD.set(Some(shard));
}

/// How lines are written to one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFormat {
    /// How the time stamp is written.
    pub date: DateFormat,
    /// Text or JSON.
    pub shape: LineShape,
}

/// Text or JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineShape {
    /// Time, level, target, message, fields.
    Text {
        /// Whether terminal codes colour it.
        colors: bool,
    },
    /// As the operator's template says.
    Template(Template),
    /// One object with `timestamp`, `name`, `level`, `message` and the event's fields.
    Json,
}

/// Text that may not grow past a bound.
#[derive(Debug)]
pub(super) struct Bounded<'b> {
    pub(super) text: &'b mut String,
    pub(super) bytes_max: usize,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.text.len() + more.len() > self.bytes_max {
            return Err(fmt::Error);
        }
        self.text.push_str(more);
        Ok(())
    }
}

impl LineFormat {
    /// Appends an event and its line feed.
    pub(super) fn write(
        &self,
        time: SystemTime,
        event: &Event<'_>,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let (level, name) = (*metadata.level(), metadata.target());
        match &self.shape {
            LineShape::Text { colors } => {
                let (dim, plain, color) =
                    if *colors { ("\u{1b}[2m", "\u{1b}[0m", color(level)) } else { ("", "", "") };
                out.write_str(dim)?;
                self.date.write(time, out)?;
                write!(out, "{plain} {color}{:>5}{plain} {dim}{name}:{plain} ", level.as_str())?;
                write_message(event, out)?;
                if let Some(shard) = SHARD.get() {
                    write!(out, " shard={shard}")?;
                }
            }
            LineShape::Template(template) => {
                for piece in template.pieces() {
                    self.write_piece(piece, time, event, out)?;
                }
            }
            LineShape::Json => {
                out.write_str("{\"timestamp\":\"")?;
                let mut stamp = JsonEscape(&mut *out);
                self.date.write(time, &mut stamp)?;
                write!(out, "\",\"name\":\"{name}\",\"level\":\"{}\"", level.as_str())?;
                let mut fields = JsonFields { out: &mut *out, result: Ok(()) };
                event.record(&mut fields);
                fields.result?;
                if let Some(shard) = SHARD.get() {
                    write!(out, ",\"shard\":{shard}")?;
                }
                out.write_char('}')?;
            }
        }
        out.write_char('\n')
    }

    fn write_piece(
        &self,
        piece: &Piece,
        time: SystemTime,
        event: &Event<'_>,
        out: &mut dyn Write,
    ) -> fmt::Result {
        let (field, pad) = match piece {
            Piece::Text(text) => return out.write_str(text),
            Piece::Field(field, pad) => (*field, *pad),
        };
        let metadata = event.metadata();
        match field {
            template::Field::Time => self.date.write(time, out),
            template::Field::Message => write_message(event, out),
            template::Field::Name => write_padded(pad, metadata.target(), out),
            template::Field::Level => write_padded(pad, python_level(*metadata.level()).0, out),
            template::Field::LevelNumber => {
                write_padded_number(pad, python_level(*metadata.level()).1, out)
            }
            template::Field::Process => write_padded_number(pad, std::process::id(), out),
            template::Field::Millis => {
                let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                write_padded_number(pad, since.subsec_millis(), out)
            }
        }
    }
}

fn write_padded(pad: Pad, text: &str, out: &mut dyn Write) -> fmt::Result {
    if pad.left {
        write!(out, "{text:<width$}", width = pad.width)
    } else {
        write!(out, "{text:>width$}", width = pad.width)
    }
}

fn write_padded_number(pad: Pad, number: u32, out: &mut dyn Write) -> fmt::Result {
    let width = pad.width;
    match (pad.zeros, pad.left) {
        (true, _) => write!(out, "{number:0width$}"),
        (false, true) => write!(out, "{number:<width$}"),
        (false, false) => write!(out, "{number:>width$}"),
    }
}

/// What Python's `logging` calls a level, for those who gave a template of its kind.
fn python_level(level: Level) -> (&'static str, u32) {
    match level {
        Level::ERROR => ("ERROR", 40),
        Level::WARN => ("WARNING", 30),
        Level::INFO => ("INFO", 20),
        Level::DEBUG => ("DEBUG", 10),
        Level::TRACE => ("TRACE", 5),
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    }
}

/// The message, then ` key=value` for each field.
fn write_message(event: &Event<'_>, out: &mut dyn Write) -> fmt::Result {
    let mut message = TextFields { out: &mut *out, message: true, result: Ok(()) };
    event.record(&mut message);
    message.result?;
    let mut fields = TextFields { out, message: false, result: Ok(()) };
    event.record(&mut fields);
    fields.result
}

const MESSAGE: &str = "message";

/// Writes the message, or all fields but it.
struct TextFields<'o> {
    out: &'o mut dyn Write,
    message: bool,
    result: fmt::Result,
}

impl TextFields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let is_message = field.name() == MESSAGE;
        if self.result.is_err() || is_message != self.message {
            return;
        }
        self.result = if is_message {
            TextEscape::new(self.out).write_fmt(value)
        } else {
            self.write_pair(field.name(), value)
        };
    }

    fn write_pair(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        write!(self.out, " {name}=")?;
        let mut look = Look::default();
        look.write_fmt(value)?;
        if look.quotes || look.empty {
            self.out.write_char('"')?;
            TextEscape::quoted(self.out).write_fmt(value)?;
            self.out.write_char('"')
        } else {
            self.out.write_fmt(value)
        }
    }
}

impl Visit for TextFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}

/// Looks at what would be written, to know whether it needs quotes.
#[derive(Debug)]
struct Look {
    quotes: bool,
    empty: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { quotes: false, empty: true }
    }
}

impl Write for Look {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.is_empty() {
            self.empty = false;
            self.quotes |= needs_quotes(text);
        }
        Ok(())
    }
}

/// Writes each field as a member of an object that has members already.
struct JsonFields<'o> {
    out: &'o mut dyn Write,
    result: fmt::Result,
}

impl JsonFields<'_> {
    fn write(&mut self, field: &Field, quoted: bool, value: fmt::Arguments<'_>) {
        if self.result.is_ok() {
            self.result = self.write_member(field.name(), quoted, value);
        }
    }

    fn write_member(&mut self, name: &str, quoted: bool, value: fmt::Arguments<'_>) -> fmt::Result {
        write!(self.out, ",\"{name}\":")?;
        if !quoted {
            return self.out.write_fmt(value);
        }
        self.out.write_char('"')?;
        JsonEscape(self.out).write_fmt(value)?;
        self.out.write_char('"')
    }
}

impl Visit for JsonFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, true, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, false, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, false, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, false, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, true, format_args!("{value:?}"));
    }
}
