//! The manifest: what a run made, how, and what it did not make. It holds no time of day, so that the same content has the same
//! manifest.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Wishes;
use super::inspect::Found;
use crate::Artifact;
use crate::artifact::Modality;
use crate::job::Job;
use crate::script::{Scene, Script, SourceUse};
use crate::text;
use crate::timing::{Slot, seconds, starts};

/// What the manifest is written from: everything in it was verified.
pub(super) struct Manifest<'a> {
    pub job: &'a Job,
    pub wishes: &'a Wishes,
    pub script: Option<&'a Script>,
    pub slots: &'a [Slot],
    /// Step, artifact, and what was found in it.
    pub facts: &'a [(&'a str, &'a Artifact, Found)],
}

/// The stored form, in its order.
#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    run_id: &'a str,
    title: Option<&'a str>,
    student_query: Option<&'a str>,
    grade_level: Option<u32>,
    interest: Option<&'a str>,
    requested_modalities: &'a [Modality],
    preferred_modality: Option<Modality>,
    source: Option<&'a SourceUse>,
    made_by: Vec<Value>,
    skipped: Vec<&'a str>,
    seconds: f64,
    scenes: Vec<Value>,
    artifacts: Vec<Value>,
}

impl Manifest<'_> {
    /// The names of needed steps that were skipped.
    pub(super) fn skipped(&self) -> Vec<&str> {
        self.job
            .needs
            .iter()
            .filter(|(_, need)| need.output.is_none())
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// As it is stored: JSON for people, with what matters most on top.
    pub(super) fn written(&self) -> Vec<u8> {
        let (script, wishes) = (self.script, self.wishes);
        let written = Written {
            format: 1,
            run_id: &self.job.run_id,
            title: script.map(|script| script.title.as_str()),
            student_query: script.map(|script| script.query.as_str()),
            grade_level: script.and_then(|script| script.grade_level),
            interest: script.and_then(|script| script.interest.as_deref()),
            requested_modalities: &wishes.requested_modalities,
            preferred_modality: wishes.preferred_modality,
            source: script.and_then(|script| script.source.as_ref()),
            made_by: self.made_by(),
            skipped: self.skipped(),
            seconds: seconds(self.slots.iter().map(|slot| slot.length_ms).sum()),
            scenes: self.scenes(),
            artifacts: self.artifacts(),
        };
        serde_json::to_vec_pretty(&written).unwrap_or_default()
    }

    /// Who made what, and what a reader must know of it: fallbacks say so here.
    fn made_by(&self) -> Vec<Value> {
        let line = |(step, output): (&String, &Map<String, Value>)| {
            json!({
                "step": step,
                "provider": output.get("provider"),
                "model": output.get("model"),
                "note": output.get("note"),
            })
        };
        let outputs = self.job.needs.iter().filter_map(|(step, need)| Some((step, need.output.as_ref()?)));
        outputs.map(line).collect()
    }

    fn scenes(&self) -> Vec<Value> {
        let Some(script) = self.script else { return Vec::new() };
        let starts = starts(self.slots);
        let line = |(index, scene): (usize, &Scene)| {
            json!({
                "number": index + 1,
                "title": scene.title,
                "words": text::word_count(&scene.narration),
                "start_seconds": starts.get(index).copied().map(seconds),
                "seconds": self.slots.get(index).map(|slot| seconds(slot.length_ms)),
            })
        };
        script.scenes.iter().enumerate().map(line).collect()
    }

    fn artifacts(&self) -> Vec<Value> {
        let line = |(step, artifact, found): &(&str, &Artifact, Found)| {
            json!({
                "step": step,
                "name": artifact.name,
                "uri": artifact.uri,
                "sha256": artifact.sha256,
                "size_bytes": artifact.size_bytes,
                "media_type": artifact.media_type,
                "verified": found.to_json(),
            })
        };
        self.facts.iter().map(line).collect()
    }
}
