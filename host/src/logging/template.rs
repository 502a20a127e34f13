//! The shape of a text line: `%(asctime)s - %(name)s - %(levelname)s - %(message)s`.

use serde_json::Value;

use crate::settings::Setting;

/// How a text line is put together, in the way of Python's `logging`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What of it was understood.
    source: String,
    pieces: Vec<Piece>,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands in the template, terminal codes and all: the operator wrote it.
    Text(String),
    Field(Field, Pad),
}

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Time,
    Name,
    Level,
    LevelNumber,
    Message,
    Process,
    Millis,
}

/// The least width of a field, and to which side it leans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pad {
    pub(super) width: usize,
    pub(super) left: bool,
    pub(super) zeros: bool,
}

const FIELDS: [(&str, Field); 7] = [
    ("asctime", Field::Time),
    ("name", Field::Name),
    ("levelname", Field::Level),
    ("levelno", Field::LevelNumber),
    ("message", Field::Message),
    ("process", Field::Process),
    ("msecs", Field::Millis),
];

/// Widest padding; a typing error must not make lines of gigabytes.
const WIDTH_MAX: usize = 128;

impl Template {
    /// Reads a template; placeholders that are not understood are left out, and returned beside it.
    #[must_use]
    pub fn parse(source: &str) -> (Self, Vec<String>) {
        let mut pieces = Vec::new();
        let mut unknown = Vec::new();
        let mut understood = String::with_capacity(source.len());
        let mut rest = source;
        while let Some(at) = rest.find('%') {
            push_text(&mut pieces, &rest[..at]);
            understood.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            rest = if let Some(after) = after.strip_prefix('%') {
                push_text(&mut pieces, "%");
                understood.push_str("%%");
                after
            } else if let Some((name, pad, later)) = placeholder(after) {
                match FIELDS.iter().find(|(known, _)| *known == name) {
                    Some((_, field)) => {
                        pieces.push(Piece::Field(*field, pad));
                        understood.push('%');
                        understood.push_str(&after[..after.len() - later.len()]);
                    }
                    None => unknown.push(format!("%({name})")),
                }
                later
            } else {
                push_text(&mut pieces, "%");
                understood.push('%');
                after
            };
        }
        push_text(&mut pieces, rest);
        understood.push_str(rest);
        (Self { source: understood, pieces }, unknown)
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The same without terminal codes, for what is not a terminal.
    #[must_use]
    pub fn without_colors(&self) -> Self {
        let mut plain = self.clone();
        for piece in &mut plain.pieces {
            if let Piece::Text(text) = piece {
                *text = strip_codes(text);
            }
        }
        plain
    }
}

impl Setting for Template {
    fn read(value: &Value) -> Result<Self, String> {
        let text = value.as_str().ok_or("must be text such as \"%(asctime)s %(message)s\"")?;
        match Self::parse(text) {
            (template, unknown) if unknown.is_empty() => Ok(template),
            (_, unknown) => {
                Err(format!("has placeholders that are not known: {}", unknown.join(" ")))
            }
        }
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.source.as_str()))
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    // A line feed in a template would make two lines of one event.
    let text: String =
        text.chars().filter(|c| !c.is_control() || matches!(c, '\u{1b}' | '\t')).collect();
    if text.is_empty() {
        return;
    }
    if let Some(Piece::Text(before)) = pieces.last_mut() {
        before.push_str(&text);
    } else {
        pieces.push(Piece::Text(text));
    }
}

/// Splits `(NAME)-8s...`.
fn placeholder(text: &str) -> Option<(&str, Pad, &str)> {
    let (name, after) = text.strip_prefix('(')?.split_once(')')?;
    let end = after.find(|c: char| c.is_ascii_alphabetic())?;
    let (flags, conversion) = after.split_at(end);
    if !flags.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | '+' | ' ' | '#')) {
        return None;
    }
    let whole = flags.split('.').next().unwrap_or("");
    let digits = whole.trim_start_matches(|c: char| !c.is_ascii_digit());
    let pad = Pad {
        width: digits.parse::<usize>().unwrap_or(0).min(WIDTH_MAX),
        left: whole.contains('-'),
        zeros: digits.starts_with('0') && !whole.contains('-'),
    };
    Some((name, pad, &conversion[1..]))
}

/// Text without `ESC [ ... letter`.
fn strip_codes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&rest[..at]);
        let code = rest[at + 1..].strip_prefix('[').unwrap_or("");
        let end = code.find(|c: char| c.is_ascii_alphabetic());
        rest = end.map_or(&rest[at + 1..], |end| &code[end + 1..]);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn field(field: Field) -> Piece {
        Piece::Field(field, Pad::default())
    }

    #[test]
    fn the_usual_template() {
        let source = "\u{1b}[92m%(asctime)s\u{1b}[0m - %(name)s - %(levelname)s - %(message)s";
        let (template, unknown) = Template::parse(source);
        assert!(unknown.is_empty());
        let expected = [
            text("\u{1b}[92m"),
            field(Field::Time),
            text("\u{1b}[0m - "),
            field(Field::Name),
            text(" - "),
            field(Field::Level),
            text(" - "),
            field(Field::Message),
        ];
        assert_eq!(template.pieces(), expected);
        assert_eq!(template.without_colors().pieces()[2], text(" - "));
        assert_eq!(Template::read(&template.show().unwrap()), Ok(template));
    }

    #[test]
    fn padding_percent_signs_and_line_feeds() {
        let (template, unknown) = Template::parse("100%% %(levelname)-8s|%(msecs)03d\n%x %");
        assert!(unknown.is_empty());
        let left = Pad { width: 8, left: true, zeros: false };
        let zeros = Pad { width: 3, left: false, zeros: true };
        let expected = [
            text("100% "),
            Piece::Field(Field::Level, left),
            text("|"),
            Piece::Field(Field::Millis, zeros),
            text("%x %"),
        ];
        assert_eq!(template.pieces(), expected);
        let (wide, _) = Template::parse("%(name)999999999s");
        assert_eq!(wide.pieces().len(), 1);
        assert!(matches!(wide.pieces()[0], Piece::Field(_, Pad { width: WIDTH_MAX, .. })));
    }

    #[test]
    fn unknown_placeholders_are_named() {
        let (template, unknown) = Template::parse("%(funcName)s:%(lineno)d %(message)s %(broken");
        assert_eq!(unknown, ["%(funcName)", "%(lineno)"]);
        assert_eq!(template.pieces(), [text(": "), field(Field::Message), text(" %(broken")]);
        assert_eq!(Template::read(&template.show().unwrap()), Ok(template));
        let wrong = Template::read(&Value::from("%(funcName)s")).unwrap_err();
        assert!(wrong.contains("%(funcName)"), "{wrong}");
        assert!(Template::read(&Value::from(1)).is_err());
    }

    #[test]
    fn codes_are_stripped() {
        let cases =
            [("a\u{1b}[1;31mb\u{1b}[0mc", "abc"), ("\u{1b}x", "x"), ("\u{1b}[12", "[12"), ("", "")];
        for (with, without) in cases {
            assert_eq!(strip_codes(with), without);
        }
    }
}
