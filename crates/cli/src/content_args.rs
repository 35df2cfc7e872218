//! A request for content on the command line: what `run` and `submit` share.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use longtake_proto::v1::{Modality, SubmitContentRequest};

use crate::args::{ModalityArg, parse_label};
use crate::exit::Ended;
use crate::format::{self, When, parse_when};

/// The bounds of `student_query`, in characters.
const QUERY_CHARS: std::ops::RangeInclusive<usize> = 5..=500;

/// A request for content.
#[derive(Clone, Debug, Args)]
pub(crate) struct ContentArgs {
    /// What to explain; 5 to 500 characters.
    #[arg(value_name = "QUERY")]
    pub(crate) query: Option<String>,
    /// The same, for scripts that prefer to name it.
    #[arg(long = "query", value_name = "QUERY", conflicts_with = "query")]
    pub(crate) named_query: Option<String>,
    /// A text file to turn into a script, instead of writing one from the query; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// What to make; may be given several times. Video when absent.
    #[arg(long = "modality", value_enum, value_delimiter = ',')]
    pub(crate) modalities: Vec<ModalityArg>,
    /// What to show first; the richest that was requested when absent.
    #[arg(long, value_enum)]
    pub(crate) prefer: Option<ModalityArg>,
    /// What the student likes, to choose examples by; up to 100 characters.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) interest: String,
    /// The student's grade, 1 to 12.
    #[arg(long, value_name = "N")]
    pub(crate) grade: Option<i32>,
    /// Whose request it is.
    #[arg(long, env = "LONGTAKE_STUDENT", default_value = "me", value_name = "ID")]
    pub(crate) student: String,
    /// Free text for filters; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Larger goes first; -100 to 100.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, hide_default_value = true)]
    pub(crate) priority: i32,
    /// When it has to have ended: a span from now such as 2h, or a time such as 2027-01-15T08:00:00Z.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    pub(crate) deadline: Option<When>,
}

impl ContentArgs {
    /// Whether neither a query nor a text was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.query.is_none() && self.named_query.is_none() && self.file.is_none()
    }

    /// The request, without an id. Bounds are the server's to judge.
    ///
    /// # Errors
    /// Nothing was asked for, or the file cannot be read or is empty.
    pub(crate) fn request(&self) -> anyhow::Result<SubmitContentRequest> {
        let source_text = match &self.file {
            Some(file) => something(file, read_text(file)?)?,
            None => String::new(),
        };
        let query = match (self.query.as_ref().or(self.named_query.as_ref()), &self.file) {
            (Some(query), _) => query.clone(),
            (None, Some(file)) => query_of(file, &source_text),
            (None, None) => {
                return Err(Ended::usage(
                    "nothing to explain: give a QUERY such as \"How do plants turn light into sugar?\", or --file notes.md",
                ));
            }
        };
        Ok(SubmitContentRequest {
            student_id: self.student.clone(),
            student_query: query,
            grade_level: self.grade,
            interest: self.interest.clone(),
            source_text,
            requested_modalities: self.modalities.iter().map(|m| Modality::from(*m).into()).collect(),
            preferred_modality: self.prefer.map_or(Modality::Unspecified, Modality::from).into(),
            labels: self.labels.iter().cloned().collect(),
            priority: self.priority,
            deadline: self.deadline.map(|when| when.resolve(&format::now())),
            ..Default::default()
        })
    }
}

fn read_text(file: &Path) -> anyhow::Result<String> {
    if file != Path::new("-") {
        return std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// A text, unless there is nothing in it: out of that, a script would be made up from the file's name.
fn something(file: &Path, text: String) -> anyhow::Result<String> {
    if !text.trim().is_empty() {
        return Ok(text);
    }
    let what = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    Err(Ended::refused(format!(
        "{what} is empty: there is nothing to make a script of; give it a text, or leave --file out and ask a QUERY"
    )))
}

/// What a text is about: its first heading or line, else the file's name.
pub(crate) fn query_of(file: &Path, text: &str) -> String {
    let title = |line: &str| line.trim().trim_start_matches('#').trim().to_owned();
    let cut = |line: String| line.chars().take(*QUERY_CHARS.end()).collect::<String>();
    let first = text.lines().map(title).find(|line| !line.is_empty()).map(cut);
    let name = || file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let query = first.filter(|line| QUERY_CHARS.contains(&line.chars().count())).unwrap_or_else(name);
    if QUERY_CHARS.contains(&query.chars().count()) { query } else { format!("The text in {query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_its_query() {
        for (file, text, query) in [
            ("notes.md", "\n\n## How bees dance\n\nThey do.", "How bees dance"),
            ("notes.md", "", "notes"),
            ("bees.md", "Hi\nmore", "The text in bees"),
            ("-", "", "The text in -"),
        ] {
            assert_eq!(query_of(Path::new(file), text), query);
        }
        assert_eq!(query_of(Path::new("x"), &"é".repeat(900)).chars().count(), 500);
    }
}
