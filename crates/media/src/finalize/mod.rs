//! The finalize step: trusts nobody. Every file that the needed steps name is fetched, hashed and opened; what was requested must
//! be among them; then the manifest says what there is, how it was made, and what was skipped.

mod inspect;
mod manifest;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::{Kind, Label, Modality};
use crate::error::MediaError;
use crate::job::{Ended, Finished, Job, Reports};
use crate::store::Place;
use crate::timing::seconds;
use crate::video::slots_of;
use crate::{Artifact, Media};
use inspect::Expected;
use manifest::Manifest;

/// What finalize reads of a run's input, beside the request for a script.
#[derive(Debug, Deserialize)]
struct Wishes {
    #[serde(default)]
    requested_modalities: Vec<Modality>,
    #[serde(default)]
    preferred_modality: Option<Modality>,
}

/// Runs the finalize step. Its output has the kind `final`, and the URIs of what was made.
pub(crate) async fn run(media: &Media, job: &Job, reports: &impl Reports) -> Result<Ended, MediaError> {
    let wishes: Wishes = Deserialize::deserialize(&job.input).map_err(|error| MediaError::InputInvalid {
        field: "requested_modalities",
        problem: error.to_string(),
    })?;
    require(&wishes.requested_modalities, job)?;
    let slots = job.find("audio").map(slots_of).transpose()?.unwrap_or_default();
    let work = media.work_folder()?;
    let total = job.needs.values().map(|need| need.artifacts.len() as u64).sum();
    let mut done = 0;
    let mut facts = Vec::new();
    for (step, need) in &job.needs {
        let expected = Expected::of(need, &slots);
        for artifact in &need.artifacts {
            if reports.should_yield() {
                return Ok(Ended::Yielded);
            }
            reports.progress(done, total, &format!("verifying {}", artifact.name));
            let found = inspect::inspect(media, artifact, &expected, work.path()).await?;
            facts.push((step.as_str(), artifact, found));
            done += 1;
        }
    }
    reports.progress(total, total, "writing the manifest");
    let script = match job.find("script") {
        Some(_) => Some(crate::audio::script_of(media, job).await?),
        None => None,
    };
    let manifest = Manifest { job, wishes: &wishes, script: script.as_ref(), slots: &slots, facts: &facts };
    let place = Place { run: &job.run_id, step: &job.step };
    let label = Label::new("manifest.json", Kind::Json);
    let stored = media.store.put_bytes(place, label, manifest.written()).await?;
    let output = output(&manifest, &stored);
    Ok(Ended::Finished(Finished { output, artifacts: vec![stored] }))
}

/// What was requested must have been made.
fn require(requested: &[Modality], job: &Job) -> Result<(), MediaError> {
    let made: Vec<Modality> =
        Modality::ALL.into_iter().filter(|&modality| made(job, modality).is_some()).collect();
    let Some(missing) = requested.iter().find(|modality| !made.contains(modality)) else { return Ok(()) };
    let made: Vec<&str> = made.into_iter().map(Modality::name).collect();
    Err(MediaError::ModalityMissing {
        modality: missing.name().to_owned(),
        made: if made.is_empty() { "nothing".to_owned() } else { made.join(", ") },
    })
}

/// The file that is what was asked for. Our steps say which one it is; of others' files the media type decides.
fn made(job: &Job, modality: Modality) -> Option<&Artifact> {
    job.needs.values().find_map(|need| match need.output.as_ref()?.get("makes") {
        Some(makes) => need.artifact(makes.get(modality.name())?.as_str()?),
        None => need.artifacts.iter().find(|artifact| artifact.media_type.starts_with(type_of(modality))),
    })
}

fn type_of(modality: Modality) -> &'static str {
    match modality {
        Modality::Text => "text/",
        Modality::Audio => "audio/",
        Modality::Images => "image/",
        Modality::Video => "video/",
    }
}

fn output(manifest: &Manifest<'_>, stored: &Artifact) -> Value {
    let named = |name: &str| {
        let found = manifest.facts.iter().find(|(_, artifact, _)| artifact.name == name);
        found.map(|(_, artifact, _)| &artifact.uri)
    };
    let made = |modality| made(manifest.job, modality).map(|artifact| &artifact.uri);
    json!({
        "kind": "final",
        "title": manifest.script.map(|script| &script.title),
        "scenes": manifest.slots.len(),
        "seconds": seconds(manifest.slots.iter().map(|slot| slot.length_ms).sum()),
        "manifest": stored.uri,
        "text": made(Modality::Text),
        "audio": made(Modality::Audio),
        "images": made(Modality::Images),
        "video": made(Modality::Video),
        "captions": named("captions.vtt"),
        "poster": named("poster.png"),
        "provider": manifest.script.map(|script| &script.provider),
        "model": manifest.script.and_then(|script| script.model.as_ref()),
        "note": manifest.script.map(|script| &script.note),
        "skipped": manifest.skipped(),
        "artifacts_verified": manifest.facts.len(),
    })
}
