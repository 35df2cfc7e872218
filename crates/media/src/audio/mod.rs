//! The audio step: one file of speech per scene, then all of them joined. When each scene begins and ends is decided here.
//!
//! Who speaks is a [`Provider`], named by the configuration. `espeak` works offline.

mod espeak;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::artifact::{Kind, Label};
use crate::error::MediaError;
use crate::job::{Ended, Finished, Job, Reports};
use crate::ledger::{Ledger, recipe};
use crate::script::{Scene, Script};
use crate::store::Place;
use crate::timing::{Slot, Timing, seconds};
use crate::tool::Call;
use crate::{Artifact, Media, job, text, wav};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    /// espeak-ng, offline.
    Espeak,
}

impl Provider {
    const ALL: [Self; 1] = [Self::Espeak];

    pub(crate) fn named(name: &str) -> Result<Self, MediaError> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|provider| provider.name() == name);
        found.ok_or_else(|| MediaError::ProviderUnknown {
            step: "audio",
            name: name.to_owned(),
            known: known(),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Espeak => "espeak",
        }
    }

    /// Everything that decides what a scene sounds like.
    fn recipe(self, media: &Media, scene: &Scene) -> String {
        let Self::Espeak = self;
        recipe(&json!([
            "espeak 1",
            media.config.voice,
            media.config.words_per_minute,
            text::speakable(&scene.narration),
        ]))
    }
}

/// The script behind a needed script step.
pub(crate) async fn script_of(media: &Media, job: &Job) -> Result<Script, MediaError> {
    let artifact = job::artifact(job.need("script")?, "script", "script.json")?;
    Script::parse(&media.store.read(artifact, media.config.limits.json_bytes).await?)
}

/// Runs the audio step. Its output has the kind `audio`, and the slots of all scenes.
pub(crate) async fn run(media: &Media, job: &Job, reports: &impl Reports) -> Result<Ended, MediaError> {
    let provider = Provider::named(&media.config.audio_provider)?;
    let script = script_of(media, job).await?;
    let recipes = script.scenes.iter().map(|scene| provider.recipe(media, scene)).collect();
    let mut ledger = Ledger::resume(&media.store, job.checkpoint.as_ref(), recipes).await?;
    let work = Arc::new(media.work_folder()?);
    let place = Place { run: &job.run_id, step: &job.step };
    reports.progress(ledger.done(), ledger.total(), "speaking");
    for index in ledger.missing() {
        if reports.should_yield() {
            return Ok(Ended::Yielded);
        }
        let Provider::Espeak = provider;
        let spoken = espeak::speak(media, &work, &script.scenes[index].narration).await?;
        let file = work.path().join("scene.wav");
        let slot = place_in_time(spoken, &work, &file).await?;
        let label = Label::new(scene_file(index), Kind::Wav);
        ledger.record(index, slot, media.store.put_file(place, label, &file).await?);
        reports.checkpoint(ledger.saved()).await?;
        reports.progress(ledger.done(), ledger.total(), "speaking");
    }
    let narration = join(media, place, &work, &ledger).await?;
    Ok(Ended::Finished(finished(media, provider, &ledger, narration)))
}

/// The name of a scene's speech among the artifacts of the audio step.
pub(crate) fn scene_file(index: usize) -> String {
    format!("scene-{:03}.wav", index + 1)
}

async fn place_in_time(spoken: wav::Wav, work: &Arc<TempDir>, file: &Path) -> Result<Slot, MediaError> {
    let path = file.to_owned();
    let written = blocking(work, move || {
        let (placed, slot) = spoken.trimmed().normalized().in_slot(&Timing::default());
        placed.write(&path).map(|()| slot)
    });
    written.await.map_err(MediaError::io("writing", file))
}

async fn join(
    media: &Media,
    place: Place<'_>,
    work: &Arc<TempDir>,
    ledger: &Ledger,
) -> Result<Artifact, MediaError> {
    let mut files = Vec::new();
    for entry in ledger.entries() {
        files.push(media.store.fetch(&entry.artifact, work.path()).await?);
    }
    let joined = work.path().join("narration.wav");
    let into = joined.clone();
    blocking(work, move || wav::join(&files, &into)).await.map_err(MediaError::io("joining", &joined))?;
    let options = "-hide_banner -nostdin -loglevel error -y -i narration.wav -c:a aac -b:a 80k -ar 48000 -ac 1 \
        -map_metadata -1 -fflags +bitexact -flags:a +bitexact -movflags +faststart narration.m4a";
    let call = Call {
        tool: &media.ffmpeg(),
        doing: "to encode the narration".to_owned(),
        folder: work.path(),
        arguments: options.split_whitespace().map(str::to_owned).collect(),
        stdin: None,
    };
    call.output().await?;
    let label = Label::new("narration.m4a", Kind::M4a);
    media.store.put_file(place, label, &work.path().join("narration.m4a")).await
}

fn finished(media: &Media, provider: Provider, ledger: &Ledger, narration: Artifact) -> Finished {
    let slots: Vec<Slot> = ledger.entries().map(|entry| entry.slot).collect();
    let output: Value = json!({
        "kind": "audio",
        "makes": { "audio": narration.name },
        "provider": provider.name(),
        "model": null,
        "voice": media.config.voice,
        "note": "A synthetic voice reads the script.",
        "scenes": slots.len(),
        "seconds": seconds(slots.iter().map(|slot| slot.length_ms).sum()),
        "slots": slots,
    });
    let mut artifacts = vec![narration];
    artifacts.extend(ledger.entries().map(|entry| entry.artifact.clone()));
    Finished { output, artifacts }
}

/// Runs blocking work on files in `folder` off the async threads. Such work is short and cannot be cancelled: an attempt that is
/// dropped meanwhile leaves the folder to it, which goes when it ends. Removed under it, the folder could be made to stay.
async fn blocking<T: Send + 'static>(
    folder: &Arc<TempDir>,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let kept = Arc::clone(folder);
    let work = move || {
        let done = work();
        drop(kept);
        done
    };
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_dropped_attempts_folder_goes_after_the_work_in_it() {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let path = folder.path().to_owned();
        let (go, gone) = (mpsc::channel(), tokio::sync::oneshot::channel());
        let file = path.join("scene.wav");
        let writing = blocking(&folder, move || {
            go.1.recv().unwrap();
            let written = std::fs::write(&file, "late");
            gone.0.send(written.is_ok()).unwrap();
            Ok(())
        });
        // Begun, and dropped with its attempt.
        tokio::select! {
            biased;
            _ = writing => panic!("it waits"),
            () = std::future::ready(()) => {}
        }
        drop(folder);
        assert!(path.exists());
        go.0.send(()).unwrap();
        assert!(gone.1.await.unwrap(), "it still has its folder");
        while path.exists() {
            tokio::task::yield_now().await;
        }
    }
}
