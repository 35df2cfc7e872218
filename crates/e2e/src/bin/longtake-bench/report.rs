//! Figures of several repeats, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

/// What every repeat of one measurement gave for one figure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figure {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub repeats: usize,
}

impl Figure {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Figure {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let (Some(min), Some(max)) = (values.first(), values.last()) else { return Figure::default() };
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Figure { median, min: *min, max: *max, repeats: values.len() }
    }

    /// The median and, behind it, the spread.
    pub fn show(&self, decimals: usize) -> String {
        let Figure { median, min, max, repeats } = self;
        match repeats {
            0 => "–".to_owned(),
            1 => format!("{median:.decimals$}"),
            _ => format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})"),
        }
    }
}

/// A table in Markdown.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// What a reader has to know of it.
    pub notes: Vec<String>,
}

impl Table {
    pub fn new(title: impl Into<String>, head: &[&str]) -> Table {
        let head = head.iter().copied().map(str::to_owned).collect();
        Table { title: title.into(), head, ..Table::default() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n| {} |\n|", self.title, self.head.join(" | "));
        self.head.iter().for_each(|_| text.push_str("---|"));
        text.push('\n');
        for row in &self.rows {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }
}
