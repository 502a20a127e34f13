//! Text that came from elsewhere, made harmless for a log: no character of it can end a line, move
//! a cursor, colour a terminal, or turn the reading direction.

use std::fmt::{self, Write};

/// Whether a character is shown as its number instead of as itself.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Line and paragraph separators, and what turns the reading direction or is invisible.
            '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        )
}

/// Text that came from elsewhere, harmless for a terminal.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Writing to a string does not fail.
    let _ = TextEscape::new(&mut out).write_str(text);
    out
}

/// Writes to `out` what is harmless for a line of text: `\n`, `\t` and `\u{1b}` in writing.
#[derive(Debug)]
pub(super) struct TextEscape<'o, W: ?Sized> {
    out: &'o mut W,
    /// Whether the text stands between quotes, which it must not end.
    quoted: bool,
}

impl<'o, W: Write + ?Sized> TextEscape<'o, W> {
    pub(super) fn new(out: &'o mut W) -> Self {
        Self { out, quoted: false }
    }

    pub(super) fn quoted(out: &'o mut W) -> Self {
        Self { out, quoted: true }
    }

    fn write_escaped(&mut self, c: char) -> fmt::Result {
        match c {
            '\n' => self.out.write_str("\\n"),
            '\r' => self.out.write_str("\\r"),
            '\t' => self.out.write_str("\\t"),
            '"' | '\\' => write!(self.out, "\\{c}"),
            _ => write!(self.out, "\\u{{{:x}}}", c as u32),
        }
    }
}

impl<W: Write + ?Sized> Write for TextEscape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let quoted = self.quoted;
        let escaped = |c: char| is_unsafe(c) || (quoted && matches!(c, '"' | '\\'));
        let mut rest = text;
        while let Some(at) = rest.find(escaped) {
            self.out.write_str(&rest[..at])?;
            let mut after = rest[at..].chars();
            if let Some(c) = after.next() {
                self.write_escaped(c)?;
            }
            rest = after.as_str();
        }
        self.out.write_str(rest)
    }
}

/// Writes to `out` the inside of a JSON string.
#[derive(Debug)]
pub(super) struct JsonEscape<'o, W: ?Sized>(pub(super) &'o mut W);

impl<W: Write + ?Sized> Write for JsonEscape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let escaped = |c: char| matches!(c, '"' | '\\') || is_unsafe(c);
        let mut rest = text;
        while let Some(at) = rest.find(escaped) {
            self.0.write_str(&rest[..at])?;
            let mut after = rest[at..].chars();
            match after.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some('\r') => self.0.write_str("\\r")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                // All unsafe characters lie in the first plane: one unit of UTF-16.
                Some(c) => write!(self.0, "\\u{:04x}", c as u32)?,
                None => {}
            }
            rest = after.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Whether a value needs quotes to stand as `key=value`.
pub(super) fn needs_quotes(text: &str) -> bool {
    text.is_empty() || text.contains(|c: char| c == ' ' || c == '"' || c == '=' || is_unsafe(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\u{1b}[31m\r\nb\tc\u{9b}\u{7f}\u{0}\u{202e}\u{2028}\u{200b}\"\\é😀";

    #[test]
    fn text_keeps_to_its_line() {
        let mut out = String::new();
        TextEscape::new(&mut out).write_str(NASTY).unwrap();
        let expected =
            "a\\u{1b}[31m\\r\\nb\\tc\\u{9b}\\u{7f}\\u{0}\\u{202e}\\u{2028}\\u{200b}\"\\é😀";
        assert_eq!(out, expected);
    }

    #[test]
    fn quoted_text_does_not_end_its_quotes() {
        let mut out = String::new();
        TextEscape::quoted(&mut out).write_str("a\"b\\c\n").unwrap();
        assert_eq!(out, "a\\\"b\\\\c\\n");
    }

    #[test]
    fn json_reads_back_as_it_was_and_shows_nothing_unsafe() {
        let every: String = (0..0x3000u32).filter_map(char::from_u32).collect();
        for text in [NASTY, &every, "", "plain"] {
            let mut out = String::from("\"");
            JsonEscape(&mut out).write_str(text).unwrap();
            out.push('"');
            assert!(!out.contains(is_unsafe));
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn plain_words_need_no_quotes() {
        for (text, quotes) in [("a", false), ("1.2.3.4:5", false), ("", true), ("a b", true)] {
            assert_eq!(needs_quotes(text), quotes, "{text}");
        }
        assert!(needs_quotes("a=b") && needs_quotes("\u{1b}") && needs_quotes("\""));
    }
}
