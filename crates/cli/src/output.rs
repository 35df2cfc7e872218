//! What goes to standard output: the only module that writes there.
//!
//! Standard output carries what was asked for, standard error everything about how it is going. A terminal gets aligned tables;
//! a pipe gets the same columns separated by tabs, without a heading, so that `cut` and `while read` work.

use std::io::{self, IsTerminal, Write};

use prost::Message;

use crate::json;

/// One line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// A message as one JSON document over several lines.
pub(crate) fn json<M: Message>(message: &M) -> io::Result<()> {
    line(&json::document(message))
}

/// Any JSON as one document over several lines.
pub(crate) fn json_value(value: &serde_json::Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}

/// A message as JSON in one line, for streams.
pub(crate) fn json_line<M: Message>(message: &M) -> io::Result<()> {
    line(&json::line(message))
}

/// Whether a person reads standard output.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// A table for people, or tab-separated lines for programs.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let text = if is_terminal() { aligned(headings, rows) } else { separated(rows) };
    io::stdout().lock().write_all(text.as_bytes())
}

/// Names with their values, without a heading.
pub(crate) fn pairs(pairs: &[(String, String)]) -> io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let width = if is_terminal() { width } else { 0 };
    for (name, value) in pairs {
        let gap = if width == 0 { "\t" } else { "  " };
        line(&format!("{:<width$}{gap}{}", printable(name), printable(value)))?;
    }
    Ok(())
}

/// A line about how it is going, to standard error.
pub(crate) fn note(text: &str) {
    // Where standard error is gone, nobody can be told that it is.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person reads standard error.
pub(crate) fn notes_to_terminal() -> bool {
    io::stderr().is_terminal()
}

fn aligned<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&headings.map(String::from)).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Not {cell:<width$}: control characters in a cell must not reach the terminal.
            let cell = printable(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', pad));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn separated<const N: usize>(rows: &[[String; N]]) -> String {
    rows.iter().map(|row| row.each_ref().map(|cell| printable(cell)).join("\t") + "\n").collect()
}

/// Text from elsewhere without line ends and escape sequences.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [[String; 3]; 2] {
        [["a", "1", "first\nand \u{1b}[31mmore"], ["längst", "", ""]].map(|row| row.map(String::from))
    }

    #[test]
    fn a_table_is_aligned_for_people_and_tabbed_for_programs() {
        assert_eq!(
            aligned(["NAME", "N", "WHAT"], &rows()),
            "NAME    N  WHAT\na       1  first and  [31mmore\nlängst\n"
        );
        assert_eq!(separated(&rows()), "a\t1\tfirst and  [31mmore\nlängst\t\t\n");
        assert_eq!(separated::<2>(&[]), "");
    }
}
