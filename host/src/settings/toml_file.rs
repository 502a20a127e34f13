//! A settings file in TOML, as single values that know their line and column.

use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, SECTIONS};
use super::nearest::unknown;
use super::problem::{Origin, Problem};

/// One value of a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Reads a file; what is wrong is added to `problems`.
pub(super) fn read(file: &Arc<str>, text: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let source = Source { file, text };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let origin = source.origin(&error.span().unwrap_or(0..0));
            let what = error.message().replace('\n', ", ");
            problems.push(Problem::new(origin, "", what));
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for (section, value) in table.get_ref() {
        let origin = source.origin(&section.span());
        let name = section.get_ref().as_ref();
        let DeValue::Table(members) = value.get_ref() else {
            let what = match SECTIONS.contains(&name) {
                true => "is a section, [NAME], and not a value".to_owned(),
                false => unknown("key", name, key_names()),
            };
            problems.push(Problem::new(origin, name, what));
            continue;
        };
        if !SECTIONS.contains(&name) {
            let what = unknown("section", name, SECTIONS.iter().copied());
            problems.push(Problem::new(origin, name, what));
            continue;
        }
        for (key, value) in members {
            let full = format!("{name}.{}", key.get_ref());
            match source.entry(&full, &key.span(), value) {
                Ok(entry) => entries.push(entry),
                Err(problem) => problems.push(problem),
            }
        }
    }
    entries
}

/// The names of all keys.
pub(super) fn key_names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

struct Source<'s> {
    file: &'s Arc<str>,
    text: &'s str,
}

impl Source<'_> {
    fn entry(
        &self,
        full: &str,
        key: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Entry, Problem> {
        let Some(known) = key_names().find(|name| *name == full) else {
            return Err(Problem::new(self.origin(key), full, unknown("key", full, key_names())));
        };
        let origin = self.origin(&value.span());
        match json(value.get_ref()) {
            Ok(value) => Ok(Entry { key: known, value, origin }),
            Err(what) => Err(Problem::new(origin, full, what)),
        }
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Origin::File {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

fn json(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::from(text.as_ref())),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix())
                .map(Value::from)
                .map_err(|_| format!("is a number that is too large: {number}"))
        }
        DeValue::Float(number) => {
            // No setting is a fraction; shown as it stands, it is refused by its key.
            number.as_str().parse::<f64>().map(Value::from).map_err(|error| error.to_string())
        }
        DeValue::Boolean(flag) => Ok(Value::from(*flag)),
        DeValue::Datetime(_) => Err("must not be a date".to_owned()),
        DeValue::Array(items) => {
            let items: Result<_, _> = items.iter().map(|item| json(item.get_ref())).collect();
            items.map(Value::Array)
        }
        DeValue::Table(_) => Ok(Value::Object(serde_json::Map::new())),
    }
}
