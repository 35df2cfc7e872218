//! A look at the text of a `when` before the CEL parser sees it.
//!
//! The parser and the evaluator recurse along brackets, and along chains of operators, fields and ternaries, with nothing but
//! the stack to stop them. So brackets and chains are counted first. The count only holds if both sides agree on what is a
//! string and what is not; where they could differ (an unknown escape, a string without an end, a quote that touches a word),
//! the text is refused.

use super::limits;
use super::problem::quote;

/// Says what in `text` the parser must not be given.
pub(super) fn scan(text: &str) -> Result<(), String> {
    if text.len() > limits::WHEN_BYTES {
        let long = text.len();
        return Err(format!(
            "is {long} bytes long: at most {} are read; move the decision into a step and read its output",
            limits::WHEN_BYTES
        ));
    }
    let mut scanner = Scanner { rest: text, levels: vec![Level::default()], word: "" };
    while let Some(next) = scanner.rest.chars().next() {
        scanner.token(next)?;
    }
    Ok(())
}

struct Scanner<'t> {
    rest: &'t str,
    /// One for the whole text and one for each open bracket.
    levels: Vec<Level>,
    /// The letters and digits that the rest follows immediately.
    word: &'t str,
}

/// How deep the parser goes within one pair of brackets.
#[derive(Default)]
struct Level {
    /// Operators, fields and calls that hang on each other since the last `&&`, `||`, `?` or comma.
    links: usize,
    /// Ternaries since the last comma: each is parsed within the one before, as if it were in brackets.
    ternaries: usize,
}

impl<'t> Scanner<'t> {
    fn token(&mut self, next: char) -> Result<(), String> {
        let word = std::mem::take(&mut self.word);
        match next {
            '"' | '\'' => return self.string(next, word),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => return self.word(),
            '(' | '[' | '{' => {
                self.top().links += 1;
                self.levels.push(Level::default());
            }
            ')' | ']' | '}' => self.close()?,
            '/' if self.rest.starts_with("//") => {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
                return Ok(());
            }
            '&' | '|' => self.top().links = 0,
            ',' => *self.top() = Level::default(),
            '?' => {
                self.top().ternaries += 1;
                self.top().links = 0;
            }
            '.' | '+' | '-' | '*' | '/' | '%' => self.top().links += 1,
            '<' | '>' | '!' | '=' => {
                self.top().links += 1;
                if self.rest[1..].starts_with('=') {
                    self.skip(1);
                }
            }
            ':' | ' ' | '\t' | '\n' | '\r' | '\u{c}' => {}
            _ => {
                return Err(format!(
                    "has {} outside of quotes: CEL knows no such character",
                    quote(&next.to_string())
                ));
            }
        }
        self.skip(next.len_utf8());
        self.check_depth()
    }

    /// A name, a number or a keyword.
    fn word(&mut self) -> Result<(), String> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        self.skip(end);
        self.word = word;
        if word == "in" {
            self.top().links += 1;
        }
        self.check_depth()
    }

    /// A string, from its first quote on; `prefix` is the word that touches it.
    fn string(&mut self, quote_char: char, prefix: &str) -> Result<(), String> {
        let raw = match prefix.to_ascii_lowercase().as_str() {
            "" | "b" => false,
            "r" | "br" => true,
            _ => {
                return Err(format!(
                    "has a quote right after {}: put a space or an operator between",
                    quote(prefix)
                ));
            }
        };
        let triple: String = std::iter::repeat_n(quote_char, 3).collect();
        let long = self.rest.starts_with(&triple);
        self.skip(if long { 3 } else { 1 });
        loop {
            let unterminated = || "has a string without an end: close the quote".to_owned();
            if long && self.rest.starts_with(&triple) {
                self.skip(3);
                return Ok(());
            }
            let next = self.rest.chars().next().ok_or_else(unterminated)?;
            match next {
                '\\' if !raw => {
                    let length = escape_length(self.rest.as_bytes()).ok_or_else(|| {
                        format!("has an unknown escape at {}: write \\\\ for a backslash", quote(self.rest))
                    })?;
                    self.skip(length);
                }
                '\n' | '\r' if !long => return Err(unterminated()),
                _ if next == quote_char && !long => {
                    self.skip(1);
                    return Ok(());
                }
                _ => self.skip(next.len_utf8()),
            }
        }
    }

    fn close(&mut self) -> Result<(), String> {
        if self.levels.len() == 1 {
            return Err("closes a bracket that was not opened".to_owned());
        }
        self.levels.pop();
        Ok(())
    }

    fn check_depth(&self) -> Result<(), String> {
        let ternaries: usize = self.levels.iter().map(|level| level.ternaries).sum();
        if self.levels.len() - 1 + ternaries > limits::WHEN_NESTING {
            return Err(format!(
                "nests deeper than {} brackets and ternaries: split it, or move the decision into a step and read its output",
                limits::WHEN_NESTING
            ));
        }
        let links: usize = self.levels.iter().map(|level| level.links).sum();
        if links > limits::WHEN_CHAIN {
            return Err(format!(
                "chains more than {} operators, fields and calls: join parts with && or ||, or move the decision into a step \
                 and read its output",
                limits::WHEN_CHAIN
            ));
        }
        Ok(())
    }

    fn top(&mut self) -> &mut Level {
        // `close` leaves one, or an error.
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }
}

/// The length of the escape that `text` starts with, by CEL's grammar.
fn escape_length(text: &[u8]) -> Option<usize> {
    let hex = |count: usize| {
        let digits = text.get(2..2 + count)?;
        digits.iter().all(u8::is_ascii_hexdigit).then_some(2 + count)
    };
    match text.get(1)? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => text.get(2..4)?.iter().all(|digit| (b'0'..=b'7').contains(digit)).then_some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What begins and ends strings and comments, and what comes close to it.
    fn quotes() -> impl Strategy<Value = String> {
        let tokens = vec![
            "'", "'", "\"", "'''", "\"\"\"", "r'", "R\"", "br'", "rb'", "1r'", "b'", "r'''", "\\", "\\'",
            "\\\"", "\\\\", "\\q", "\\x", "\\u", "\\x41", "\\u0041", "\\101", "\\8", "a", "\n", "\r", " ",
            "/", "//", "`", "+", "a+", "é",
        ];
        prop::collection::vec(prop::sample::select(tokens), 0..8).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// More brackets than may be are let through only within strings and comments, and there the parser, which gives up at
        /// 96, does not see them either.
        #[test]
        fn both_sides_agree_on_what_is_a_string(before in quotes(), after in quotes(), operator in "[+]?") {
            let text = format!("a{operator}{before}{}{after}", "(".repeat(100));
            if scan(&text).is_ok() && let Err(errors) = cel::Program::compile(&text) {
                prop_assert!(!errors.to_string().contains("Recursion limit"), "{text}: {errors}");
            }
        }
    }
}
