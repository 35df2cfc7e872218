//! One mistake in a definition.

use std::fmt;

/// Something wrong with a definition, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line that it is about, from 1.
    pub line: usize,
    /// The key that it is about, such as `step.video.when`, or `step[2].name` while the step has no usable name; empty when
    /// the text is no TOML.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    /// `line 7: step.video.when: …`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// How much of a text a message repeats.
const QUOTED_CHARS: usize = 60;

/// `text` in quotes and escaped, cut when it is long: messages stay small whatever the file holds.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The first line of a foreign message, cut when it is long, without ever writing the rest of it.
pub(super) fn brief(message: &dyn fmt::Display) -> String {
    struct Bounded(String);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = (4 * QUOTED_CHARS).saturating_sub(self.0.len());
            let fits = text.char_indices().find(|(at, char)| at + char.len_utf8() > room || *char == '\n');
            self.0.push_str(&text[..fits.map_or(text.len(), |(at, _)| at)]);
            if fits.is_some() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut brief = Bounded(String::new());
    if fmt::write(&mut brief, format_args!("{message}")).is_err() {
        brief.0.push('…');
    }
    brief.0
}
