//! The script step: from a request to scenes, each with a title and what is said.
//!
//! Who writes is a [`Provider`], named by the configuration. `template` works offline and knows nothing: it divides the text that
//! came with the request, or helps to look for an answer, and says so.

pub(crate) mod pack;
mod question;
mod source;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::artifact::{Kind, Label};
use crate::config::Limits;
use crate::error::MediaError;
use crate::job::{Ended, Finished, Job, Reports};
use crate::text;
use crate::{Media, store::Place};

/// What every script of the template says of itself: in the output, in the manifest and on the last slide.
pub(crate) const NO_MODEL: &str = "No language model was used.";

/// What the script step reads of a run's input.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Request {
    #[serde(default)]
    pub student_query: String,
    #[serde(default)]
    pub grade_level: Option<u32>,
    #[serde(default)]
    pub interest: Option<String>,
    #[serde(default)]
    pub source_text: Option<String>,
}

/// A script: what is shown and said, in order. Stored as `script.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Script {
    pub format: u32,
    pub title: String,
    pub query: String,
    pub grade_level: Option<u32>,
    pub interest: Option<String>,
    pub provider: String,
    pub model: Option<String>,
    /// What a reader must know of how it was made.
    pub note: String,
    /// How much of `source_text` is in it; absent without one.
    pub source: Option<SourceUse>,
    pub scenes: Vec<Scene>,
}

/// One scene: one slide, spoken in one go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scene {
    pub title: String,
    /// Which part of its section it is, when the section takes several: from 1, and of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<(u32, u32)>,
    pub narration: String,
}

/// How much of the given text a script covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceUse {
    pub words: usize,
    pub words_used: usize,
    pub complete: bool,
    /// What was left out, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// Who writes scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Offline, without a model.
    Template,
}

impl Provider {
    const ALL: [Self; 1] = [Self::Template];

    pub(crate) fn named(name: &str) -> Result<Self, MediaError> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|provider| provider.name() == name);
        found.ok_or_else(|| MediaError::ProviderUnknown {
            step: "script",
            name: name.to_owned(),
            known: known(),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Template => "template",
        }
    }
}

/// Runs the script step. Its output has the kind `script`.
pub(crate) async fn run(media: &Media, job: &Job, reports: &impl Reports) -> Result<Ended, MediaError> {
    let request = Request::parse(&job.input)?;
    reports.progress(0, 1, "writing the script");
    let script = match Provider::named(&media.config.script_provider)? {
        Provider::Template => template(&request, &media.config.limits),
    };
    let place = Place { run: &job.run_id, step: &job.step };
    let stored = serde_json::to_vec_pretty(&script).unwrap_or_default();
    let data = media.store.put_bytes(place, Label::new("script.json", Kind::Json), stored).await?;
    let readable = Label::new("script.md", Kind::Markdown);
    let text = media.store.put_bytes(place, readable, script.markdown()).await?;
    reports.progress(1, 1, "");
    Ok(Ended::Finished(Finished { output: script.output(), artifacts: vec![data, text] }))
}

impl Request {
    pub(crate) fn parse(input: &Value) -> Result<Self, MediaError> {
        let request = Self::deserialize(input).map_err(|error| MediaError::InputInvalid {
            field: "input",
            problem: format!("does not have the shape of a request for content: {error}"),
        })?;
        let blank = |text: Option<String>| text.filter(|text| !text::clean(text).is_empty());
        let request =
            Self { source_text: blank(request.source_text), interest: blank(request.interest), ..request };
        if text::clean(&request.student_query).is_empty() && request.source_text.is_none() {
            return Err(MediaError::InputInvalid {
                field: "student_query",
                problem: "has no printable character, and there is no `source_text`".to_owned(),
            });
        }
        Ok(request)
    }
}

/// The offline script: the given text in scenes, or help with finding an answer. Never pretends to know one.
fn template(request: &Request, limits: &Limits) -> Script {
    let query = text::clean(&request.student_query);
    let interest = request.interest.as_deref().map(text::clean);
    let (title, mut scenes, source) = match &request.source_text {
        Some(source_text) => {
            let told = source::scenes(source_text, &query, limits);
            (told.title, told.scenes, Some(told.used))
        }
        None => {
            let (title, scenes) = question::scenes(&query, request.grade_level, interest.as_deref(), limits);
            (title, scenes, None)
        }
    };
    let note = note(source.as_ref());
    scenes.push(Scene { title: "How this was made".to_owned(), part: None, narration: note.clone() });
    Script {
        format: 1,
        title,
        query,
        grade_level: request.grade_level,
        interest,
        provider: Provider::Template.name().to_owned(),
        model: None,
        note,
        source,
        scenes,
    }
}

fn note(source: Option<&SourceUse>) -> String {
    let Some(source) = source else {
        return format!(
            "{NO_MODEL} A template made these slides from the question alone. They help to look for an answer; they do not know it."
        );
    };
    let made =
        format!("{NO_MODEL} A template divided the given text into slides and did not change its words.");
    if source.complete {
        return format!("{made} Nobody has checked what it says.");
    }
    format!("{made} It used {} of {} words: the rest is not here.", source.words_used, source.words)
}

impl Script {
    /// What later steps and readers get; the text itself is in the artifacts.
    fn output(&self) -> Value {
        let words: usize = self.scenes.iter().map(|scene| text::word_count(&scene.narration)).sum();
        let opening: Vec<_> = self.scenes.iter().take(3).map(|scene| scene.narration.as_str()).collect();
        json!({
            "kind": "script",
            "makes": { "text": "script.md" },
            "title": self.title,
            "scenes": self.scenes.len(),
            "words": words,
            "opening": opening,
            "provider": self.provider,
            "model": self.model,
            "note": self.note,
            "source": self.source,
        })
    }

    /// The script to read.
    fn markdown(&self) -> String {
        let mut out = format!("# {}\n", self.title);
        let mut section = "";
        for scene in &self.scenes {
            if scene.title != section && scene.title != self.title {
                out.push_str(&format!("\n## {}\n", scene.title));
            }
            section = &scene.title;
            out.push_str(&format!("\n{}\n", scene.narration));
        }
        out
    }

    /// Reads a stored script.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, MediaError> {
        let invalid = |problem: String| MediaError::NeedInvalid { kind: "script", problem };
        let script: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if script.scenes.is_empty() {
            return Err(invalid("it has no scene".to_owned()));
        }
        Ok(script)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
