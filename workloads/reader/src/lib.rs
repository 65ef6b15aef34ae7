//! TOML files read so that every complaint names the file, the line and the keys that
//! exist.
//!
//! Workloads and file systems under test are described by files that people write by
//! hand. A [`Table`] hands out its values one key at a time ([`Table::take`]) and
//! remembers what it was asked for; [`Table::finish`] then refuses whatever is left and
//! says which keys there are. Each [`Item`] knows its line, so that a check made long
//! after parsing still points at it.

mod units;

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use units::{human_duration_ms, human_size, parse_duration_ms, parse_size};

/// Something wrong in a file: `FILE:LINE: what`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}: {problem}")]
pub struct ReadError {
    /// Name of the file as the user knows it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A file's name and text.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
}

impl Source {
    /// A text and the name it has in messages.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// The name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An error at a line.
    #[must_use]
    pub fn error(&self, line: usize, problem: impl Into<String>) -> ReadError {
        ReadError {
            file: self.name.clone(),
            line,
            problem: problem.into(),
        }
    }

    /// Parses the text and hands out its top table.
    ///
    /// # Errors
    /// If the text is not TOML, with the line of the first mistake.
    pub fn parse(&self) -> Result<Table<'_>, ReadError> {
        let table = DeTable::parse(&self.text).map_err(|e| {
            let line = e.span().map_or(1, |span| self.line_at(span.start));
            self.error(
                line,
                format!("not valid TOML: {}", e.message().replace('\n', ", ")),
            )
        })?;
        Ok(Table::new(self, String::new(), 1, table.into_inner()))
    }

    /// The line, from 1, of a byte offset.
    fn line_at(&self, offset: usize) -> usize {
        let upto = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + upto.iter().filter(|b| **b == b'\n').count()
    }
}

/// A table whose keys are taken one by one.
#[derive(Debug)]
pub struct Table<'s> {
    source: &'s Source,
    /// Dotted path in messages; empty for the top of the file.
    path: String,
    line: usize,
    left: BTreeMap<String, (usize, Item<'s>)>,
    asked: Vec<&'static str>,
}

impl<'s> Table<'s> {
    fn new(source: &'s Source, path: String, line: usize, table: DeTable<'s>) -> Self {
        let left = table
            .into_iter()
            .map(|(key, value)| {
                let line = source.line_at(key.span().start);
                let key = key.into_inner().into_owned();
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                (key, (line, Item::new(source, path, value)))
            })
            .collect();
        Self {
            source,
            path,
            line,
            left,
            asked: Vec::new(),
        }
    }

    /// The line on which the table begins.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The value of a key, if the file has it.
    pub fn take(&mut self, key: &'static str) -> Option<Item<'s>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.left.remove(key).map(|(_, item)| item)
    }

    /// The value of a key that has to be there.
    ///
    /// # Errors
    /// If it is missing.
    pub fn need(&mut self, key: &'static str) -> Result<Item<'s>, ReadError> {
        let place = self.place();
        self.take(key).ok_or_else(|| {
            self.source.error(
                self.line,
                format!("{place} has no `{key}`; it must be given"),
            )
        })
    }

    /// Every key that has not been taken, with its value, for tables whose keys are
    /// free.
    pub fn take_rest(&mut self) -> Vec<(String, Item<'s>)> {
        std::mem::take(&mut self.left)
            .into_iter()
            .map(|(key, (_, item))| (key, item))
            .collect()
    }

    /// Ends the reading of this table.
    ///
    /// # Errors
    /// If there is a key that nobody asked for: the first in the file, with the keys
    /// that exist.
    pub fn finish(self) -> Result<(), ReadError> {
        let Some((key, line)) = self
            .left
            .iter()
            .map(|(key, (line, _))| (key, *line))
            .min_by_key(|(_, line)| *line)
        else {
            return Ok(());
        };
        Err(self.source.error(
            line,
            format!(
                "unknown key `{key}` in {}; the keys are: {}",
                self.place(),
                self.asked.join(", ")
            ),
        ))
    }

    fn place(&self) -> String {
        if self.path.is_empty() {
            "the file".to_owned()
        } else {
            format!("`{}`", self.path)
        }
    }
}

/// A value and where it stands.
#[derive(Debug)]
pub struct Item<'s> {
    source: &'s Source,
    path: String,
    line: usize,
    value: DeValue<'s>,
}

impl<'s> Item<'s> {
    fn new(source: &'s Source, path: String, value: Spanned<DeValue<'s>>) -> Self {
        Self {
            line: source.line_at(value.span().start),
            source,
            path,
            value: value.into_inner(),
        }
    }

    /// The line on which the value begins.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// The dotted path of the key.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// An error about this value.
    #[must_use]
    pub fn error(&self, problem: impl fmt::Display) -> ReadError {
        self.source
            .error(self.line, format!("`{}` {problem}", self.path))
    }

    fn wrong_type(&self, wanted: &str) -> ReadError {
        self.error(format_args!(
            "must be {wanted}, but is {}",
            match &self.value {
                DeValue::String(_) => "a string",
                DeValue::Integer(_) => "a whole number",
                DeValue::Float(_) => "a fraction",
                DeValue::Boolean(_) => "true or false",
                DeValue::Datetime(_) => "a date",
                DeValue::Array(_) => "a list",
                DeValue::Table(_) => "a table",
            }
        ))
    }

    /// A string.
    ///
    /// # Errors
    /// If it is something else.
    pub fn string(&self) -> Result<String, ReadError> {
        match &self.value {
            DeValue::String(s) => Ok(s.clone().into_owned()),
            _ => Err(self.wrong_type("a string")),
        }
    }

    /// A string that is not empty.
    ///
    /// # Errors
    /// If it is something else or empty.
    pub fn text(&self) -> Result<String, ReadError> {
        let text = self.string()?;
        if text.trim().is_empty() {
            return Err(self.error("must not be empty"));
        }
        Ok(text)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn boolean(&self) -> Result<bool, ReadError> {
        match self.value {
            DeValue::Boolean(b) => Ok(b),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// A whole number within `low..=high`.
    ///
    /// # Errors
    /// If it is something else or out of range.
    pub fn integer(&self, low: u64, high: u64) -> Result<u64, ReadError> {
        let DeValue::Integer(number) = &self.value else {
            return Err(self.wrong_type("a whole number"));
        };
        i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| (low..=high).contains(n))
            .ok_or_else(|| {
                self.error(format_args!(
                    "must be between {low} and {high}, but is {}",
                    number.as_str()
                ))
            })
    }

    /// A whole number within `low..=high` as `u32`.
    ///
    /// # Errors
    /// If it is something else or out of range.
    pub fn integer_u32(&self, low: u32, high: u32) -> Result<u32, ReadError> {
        let n = self.integer(u64::from(low), u64::from(high))?;
        u32::try_from(n).map_err(|e| self.error(e))
    }

    /// A number of bytes: `4096`, `"4KiB"`, `"1.5GiB"`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn size(&self) -> Result<u64, ReadError> {
        match &self.value {
            DeValue::Integer(_) => self.integer(0, i64::MAX as u64),
            DeValue::String(text) => parse_size(text).map_err(|e| self.error(e)),
            _ => Err(self.wrong_type("a size such as \"4KiB\"")),
        }
    }

    /// A duration in milliseconds, written with its unit: `"500ms"`, `"30s"`, `"2min"`.
    ///
    /// # Errors
    /// If it is something else; a bare number has no unit and is refused.
    pub fn duration_ms(&self) -> Result<u64, ReadError> {
        match &self.value {
            DeValue::String(text) => parse_duration_ms(text).map_err(|e| self.error(e)),
            _ => Err(self.wrong_type("a duration such as \"30s\"")),
        }
    }

    /// What a bare value says, as text: strings, numbers and truth values.
    ///
    /// # Errors
    /// If it is a list or a table.
    pub fn scalar(&self) -> Result<String, ReadError> {
        match &self.value {
            DeValue::String(s) => Ok(s.clone().into_owned()),
            DeValue::Integer(n) => Ok(n.as_str().to_owned()),
            DeValue::Float(n) => Ok(n.as_str().to_owned()),
            DeValue::Boolean(b) => Ok(b.to_string()),
            _ => Err(self.wrong_type("a string, a number, or true or false")),
        }
    }

    /// Whether it is a string.
    #[must_use]
    pub fn is_string(&self) -> bool {
        matches!(self.value, DeValue::String(_))
    }

    /// Whether it is a list.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    /// A list.
    ///
    /// # Errors
    /// If it is something else.
    pub fn list(self) -> Result<Vec<Self>, ReadError> {
        match self.value {
            DeValue::Array(array) => Ok(array
                .into_iter()
                .map(|value| Item::new(self.source, self.path.clone(), value))
                .collect()),
            _ => Err(self.wrong_type("a list")),
        }
    }

    /// A list of strings, none of them empty.
    ///
    /// # Errors
    /// If it is something else.
    pub fn strings(self) -> Result<Vec<String>, ReadError> {
        self.list()?.iter().map(Item::text).collect()
    }

    /// A table.
    ///
    /// # Errors
    /// If it is something else.
    pub fn table(self) -> Result<Table<'s>, ReadError> {
        match self.value {
            DeValue::Table(table) => Ok(Table::new(self.source, self.path, self.line, table)),
            _ => Err(self.wrong_type("a table")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("x.toml", text)
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_keys_there_are() {
        let s = source("a = 1\n\n[t]\nb = 2\nzz = 3\nc = 4\n");
        let mut top = s.parse().unwrap();
        assert_eq!(top.take("a").unwrap().integer(0, 9), Ok(1));
        let mut t = top.take("t").unwrap().table().unwrap();
        top.finish().unwrap();
        t.take("b");
        t.take("missing");
        assert_eq!(
            t.finish().unwrap_err().to_string(),
            "x.toml:5: unknown key `zz` in `t`; the keys are: b, missing"
        );
    }

    #[test]
    fn the_wrong_type_is_named() {
        let s = source("a = [1]\nb = 'x'\nc = 70000\nd = -1");
        let mut top = s.parse().unwrap();
        let mut error = |key: &'static str| {
            top.take(key)
                .unwrap()
                .integer(0, 9)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error("a"),
            "x.toml:1: `a` must be a whole number, but is a list"
        );
        assert_eq!(
            error("b"),
            "x.toml:2: `b` must be a whole number, but is a string"
        );
        assert_eq!(
            error("c"),
            "x.toml:3: `c` must be between 0 and 9, but is 70000"
        );
        assert_eq!(
            error("d"),
            "x.toml:4: `d` must be between 0 and 9, but is -1"
        );
    }

    #[test]
    fn broken_toml_names_the_line() {
        let error = source("a = 1\nb = = 2\n").parse().unwrap_err();
        assert_eq!((error.file.as_str(), error.line), ("x.toml", 2));
        assert!(error.problem.starts_with("not valid TOML: "), "{error}");
    }

    #[test]
    fn a_missing_key_names_its_table() {
        let s = source("\n[[test]]\nid = 'x'\n");
        let mut top = s.parse().unwrap();
        let mut list = top.take("test").unwrap().list().unwrap();
        let mut test = list.remove(0).table().unwrap();
        assert_eq!(
            test.need("title").unwrap_err().to_string(),
            "x.toml:2: `test` has no `title`; it must be given"
        );
    }

    #[test]
    fn every_line_ending_and_the_last_line_count() {
        let s = source("a=1\r\nb=2\r\nc='");
        assert_eq!(s.parse().unwrap_err().line, 3);
    }
}
