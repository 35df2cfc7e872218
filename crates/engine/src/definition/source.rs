//! TOML with lines: tables that know what was asked of them, and a report of all that is wrong.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::limits;
use super::problem::{Problem, brief, quote};
use crate::money::Money;
use crate::time::Duration;

/// Everything that is wrong with a file.
pub(super) struct Report {
    /// Where each line but the first begins, in bytes.
    line_starts: Vec<usize>,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(source: &str) -> Report {
        let line_starts = source.match_indices('\n').map(|(at, _)| at + 1).collect();
        Report { line_starts, problems: Vec::new() }
    }

    /// Notes that something is wrong at the byte `at`.
    pub(super) fn add(&mut self, at: usize, key: impl Into<String>, message: impl Into<String>) {
        let problem = Problem { line: self.line(at), key: key.into(), message: message.into() };
        self.problems.push(problem);
    }

    /// Whether the last thing noted is on the line of the byte `at`.
    pub(super) fn is_wrong_at(&self, at: usize) -> bool {
        self.problems.last().is_some_and(|problem| problem.line == self.line(at))
    }

    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at) + 1
    }

    /// All problems, in the order of their lines; so many that somebody reads them.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems;
        problems.sort_by_key(|problem| problem.line);
        let more = problems.len().saturating_sub(limits::PROBLEMS);
        if more > 0 {
            problems.truncate(limits::PROBLEMS);
            let line = problems.last().map_or(1, |problem| problem.line);
            let message = format!("{more} more problems follow: correct these first");
            problems.push(Problem { line, key: String::new(), message });
        }
        problems
    }
}

/// A table of the file that is being read.
pub(super) struct Section<'t> {
    table: &'t DeTable<'t>,
    /// Where it begins, in bytes: the place of what is missing from it.
    pub(super) at: usize,
    /// Its key; empty for the whole file.
    path: String,
    asked: Vec<&'static str>,
}

/// A key of the file and its value.
pub(super) struct Field<'t> {
    value: &'t DeValue<'t>,
    /// Where the key stands, in bytes.
    pub(super) at: usize,
    /// The whole key.
    pub(super) key: String,
}

impl<'t> Section<'t> {
    pub(super) fn new(table: &'t DeTable<'t>, at: usize, path: impl Into<String>) -> Section<'t> {
        Section { table, at, path: path.into(), asked: Vec::new() }
    }

    /// The field of this name, if it is there. What nobody asks for is unknown.
    pub(super) fn field(&mut self, name: &'static str) -> Option<Field<'t>> {
        self.asked.push(name);
        let (key, value) = self.table.get_key_value(name)?;
        Some(Field { value: value.get_ref(), at: key.span().start, key: self.key(name) })
    }

    /// The field of this name; reported when it is missing.
    pub(super) fn required(
        &mut self,
        name: &'static str,
        example: &str,
        report: &mut Report,
    ) -> Option<Field<'t>> {
        let field = self.field(name);
        if field.is_none() {
            report.add(self.at, self.key(name), format!("is missing: write {example}"));
        }
        field
    }

    /// Puts the table's own name into its keys, once that is known: `step.video` says more than `step[3]`.
    pub(super) fn rename(&mut self, kind: &str, name: &str) {
        if check_name(name).is_ok() {
            self.path = format!("{kind}.{name}");
        }
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self, report: &mut Report) {
        for key in self.table.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref())) {
            let known = self.asked.join(", ");
            report.add(
                key.span().start,
                self.key(key.get_ref()),
                format!("is unknown: known here are {known}"),
            );
        }
    }

    fn key(&self, name: &str) -> String {
        let plain =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let name = if plain && name.len() <= limits::NAME_BYTES { name.to_owned() } else { quote(name) };
        if self.path.is_empty() { name } else { format!("{}.{name}", self.path) }
    }
}

impl<'t> Field<'t> {
    pub(super) fn wrong(&self, report: &mut Report, message: impl Into<String>) {
        report.add(self.at, self.key.as_str(), message);
    }

    fn wrong_kind(&self, report: &mut Report, wanted: &str) {
        self.wrong(report, format!("is {}: write {wanted}", shown(self.value)));
    }

    pub(super) fn string(&self, report: &mut Report, wanted: &str) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_kind(report, wanted);
        }
        text
    }

    /// The name of a workflow, a step or a queue.
    pub(super) fn name(&self, report: &mut Report) -> Option<&'t str> {
        let name = self.string(report, "a name in quotes")?;
        if let Err(message) = check_name(name) {
            self.wrong(report, message);
        }
        Some(name)
    }

    /// A word that `T` knows.
    pub(super) fn word<T: FromStr<Err: fmt::Display>>(&self, report: &mut Report) -> Option<T> {
        let word = self.string(report, "a word in quotes")?;
        word.parse().map_err(|error: T::Err| self.wrong(report, error.to_string())).ok()
    }

    pub(super) fn integer(
        &self,
        report: &mut Report,
        range: RangeInclusive<u32>,
        wanted: &str,
    ) -> Option<u32> {
        let number = self.value.as_integer().and_then(number).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            self.wrong_kind(report, wanted);
        }
        number
    }

    /// A whole number from 1 on.
    pub(super) fn count(&self, report: &mut Report, most: u32) -> Option<u32> {
        self.integer(report, 1..=most, &format!("a whole number from 1 to {most}"))
    }

    pub(super) fn duration(&self, report: &mut Report, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.string(report, "a span of time as a text with its unit, such as \"30s\"")?;
        let duration = parse_duration(text).and_then(|duration| {
            let (least, most) = (range.start(), range.end());
            let out_of_range = || format!("{} is out of range: write \"{least}\" to \"{most}\"", quote(text));
            range.contains(&duration).then_some(duration).ok_or_else(out_of_range)
        });
        duration.map_err(|message| self.wrong(report, message)).ok()
    }

    /// Dollars, as a text: a float would not be exact.
    pub(super) fn money(&self, report: &mut Report) -> Option<Money> {
        let text = match self.value {
            DeValue::String(text) => text,
            DeValue::Float(_) | DeValue::Integer(_) => {
                let written = written(self.value).filter(|written| Money::parse(written).is_ok());
                let example = written.as_deref().unwrap_or("0.183");
                let message =
                    format!("is a bare number: write dollars as a text, which is exact: \"{example}\"");
                self.wrong(report, message);
                return None;
            }
            _ => {
                self.wrong_kind(report, "dollars as a text, such as \"0.183\"");
                return None;
            }
        };
        Money::parse(text).map_err(|message| self.wrong(report, brief(&message))).ok()
    }

    /// The texts of an array, each with where it stands.
    pub(super) fn strings(&self, report: &mut Report, wanted: &str) -> Vec<(usize, &'t str)> {
        let Some(array) = self.value.as_array() else {
            self.wrong_kind(report, wanted);
            return Vec::new();
        };
        let mut strings = Vec::new();
        for item in array {
            match item.get_ref().as_str() {
                Some(text) => strings.push((item.span().start, text)),
                None => {
                    let message = format!("holds {}: write {wanted}", shown(item.get_ref()));
                    report.add(item.span().start, self.key.as_str(), message);
                }
            }
        }
        strings
    }

    pub(super) fn section(&self, report: &mut Report, wanted: &str) -> Option<Section<'t>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.wrong_kind(report, wanted);
        }
        table.map(|table| Section::new(table, self.at, self.key.as_str()))
    }

    /// The tables of an array of tables.
    pub(super) fn sections(&self, report: &mut Report) -> Vec<Section<'t>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_kind(report, "[[step]], with two brackets, above each step");
            return Vec::new();
        };
        if array.is_empty() {
            self.wrong(report, "is empty: write at least one [[step]]");
        }
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let path = format!("{}[{}]", self.key, index + 1);
            match item.get_ref().as_table() {
                Some(table) => sections.push(Section::new(table, start(item), path)),
                None => {
                    let message = format!("is {}: write [[step]] above each step", shown(item.get_ref()));
                    report.add(start(item), path, message);
                }
            }
        }
        sections
    }
}

fn start(item: &Spanned<DeValue<'_>>) -> usize {
    item.span().start
}

/// A value as a message names it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quote(text)),
        DeValue::Integer(_) | DeValue::Float(_) => {
            let written = written(value).unwrap_or_default();
            format!("the number {}", brief(&written))
        }
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The digits of a number.
fn written(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(value) => Some(value.to_string()),
        DeValue::Float(value) => Some(value.to_string()),
        _ => None,
    }
}

fn number(value: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(value.as_str(), value.radix()).ok()
}

/// Says what is wrong with the name of a workflow, a step or a queue.
fn check_name(name: &str) -> Result<(), String> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(known)
        && name.len() <= limits::NAME_BYTES;
    if fits {
        return Ok(());
    }
    Err(format!(
        "{} is no name: write a lower-case letter, then lower-case letters, digits, `_` and `-`, at most {} in all",
        quote(name),
        limits::NAME_BYTES
    ))
}

/// Reads `500ms`, `30s`, `10m`, `2h` or `1d`: a whole number and one unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const MICROS: [(&str, i64); 5] =
        [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];
    let malformed = || {
        let shown = quote(text);
        format!(
            "{shown} is no span of time: write a whole number and a unit: \"500ms\", \"30s\", \"10m\", \"2h\" or \"1d\""
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, micros) = MICROS.into_iter().find(|(name, _)| *name == unit).ok_or_else(malformed)?;
    if number.is_empty() {
        return Err(malformed());
    }
    let span = number.parse::<i64>().ok().and_then(|number| number.checked_mul(micros));
    Ok(Duration(span.unwrap_or(i64::MAX)))
}
