//! The video step: a slide and a segment for each scene, then all of them joined.
//!
//! A checkpoint follows every segment. The next attempt renders what is missing and nothing else; because a segment's bytes depend
//! on nothing but its recipe, a video that was interrupted is the same file as one that was not.

mod captions;
mod join;
mod segment;
mod slide;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::json;

use crate::artifact::{Kind, Label};
use crate::audio::{scene_file, script_of};
use crate::error::MediaError;
use crate::font::Fonts;
use crate::job::{Ended, Finished, Job, Reports};
use crate::ledger::{Ledger, recipe};
use crate::script::Script;
use crate::store::Place;
use crate::timing::{Slot, seconds};
use crate::{Artifact, Media, Need, job};
pub(crate) use segment::FRAMES_PER_SECOND;
use segment::Segment;
use slide::Slide;

/// Raised whenever the same scene is drawn or encoded otherwise: stored segments of another version do not join with new ones.
const RENDERER: &str = "slides 1";

/// One attempt.
struct Attempt<'a, R> {
    media: &'a Media,
    reports: &'a R,
    place: Place<'a>,
    work: &'a Path,
    script: &'a Script,
    speech: &'a [Speech],
    slides: &'a [Slide],
    /// Scenes that are stored, for those that report while others finish.
    done: AtomicU64,
}

/// The speech of one scene.
struct Speech {
    slot: Slot,
    artifact: Artifact,
}

/// Runs the video step. Its output has the kind `video`.
pub(crate) async fn run(media: &Media, job: &Job, reports: &impl Reports) -> Result<Ended, MediaError> {
    let script = script_of(media, job).await?;
    let speech = speech_of(job.need("audio")?, script.scenes.len())?;
    let fonts = Fonts::find(media)?;
    let slides: Vec<Slide> = slide::lay_out(&script, &fonts);
    let recipes =
        slides.iter().zip(&speech).map(|(slide, speech)| recipe_of(slide, speech, &fonts)).collect();
    let mut ledger = Ledger::resume(&media.store, job.checkpoint.as_ref(), recipes).await?;
    let work = media.work_folder()?;
    for (font, name) in [(&fonts.regular, "regular.font"), (&fonts.bold, "bold.font")] {
        let into = work.path().join(name);
        tokio::fs::copy(&font.path, &into).await.map_err(MediaError::io("copying a font to", &into))?;
    }
    let place = Place { run: &job.run_id, step: &job.step };
    let (script, speech, slides, work) = (&script, &speech, &slides, work.path());
    let done = AtomicU64::new(ledger.done());
    let attempt = Attempt { media, reports, place, work, script, speech, slides, done };
    if !attempt.render_missing(&mut ledger).await? {
        return Ok(Ended::Yielded);
    }
    Ok(Ended::Finished(attempt.finish(&ledger).await?))
}

/// The speech of every scene, from the audio step.
fn speech_of(audio: &Need, scenes: usize) -> Result<Vec<Speech>, MediaError> {
    let slots = slots_of(audio)?;
    if slots.len() != scenes {
        let problem = format!("it has {} scenes, the script has {scenes}", slots.len());
        return Err(MediaError::NeedInvalid { kind: "audio", problem });
    }
    let speech = |(index, slot)| {
        let artifact = job::artifact(audio, "audio", &scene_file(index))?.clone();
        Ok(Speech { slot, artifact })
    };
    slots.into_iter().enumerate().map(speech).collect()
}

/// When each scene begins and ends, as the audio step decided.
pub(crate) fn slots_of(audio: &Need) -> Result<Vec<Slot>, MediaError> {
    let slots = audio.output.as_ref().and_then(|output| output.get("slots"));
    Deserialize::deserialize(slots.unwrap_or(&serde_json::Value::Null))
        .map_err(|error| MediaError::NeedInvalid { kind: "audio", problem: format!("`slots`: {error}") })
}

fn recipe_of(slide: &Slide, speech: &Speech, fonts: &Fonts) -> String {
    recipe(&json!([
        RENDERER,
        format!("{:?}", slide.drawings),
        speech.artifact.sha256,
        speech.slot,
        fonts.regular.path.file_name().map(|name| name.to_string_lossy()),
        fonts.bold.path.file_name().map(|name| name.to_string_lossy()),
    ]))
}

impl<R: Reports> Attempt<'_, R> {
    /// Renders what the ledger lacks, as many at a time as configured; a checkpoint follows each. False when it gave way: what was
    /// under way is in the checkpoint, too.
    async fn render_missing(&self, ledger: &mut Ledger) -> Result<bool, MediaError> {
        let mut waiting = ledger.missing().into_iter();
        let mut rendering = FuturesUnordered::new();
        let total = ledger.total();
        self.reports.progress(ledger.done(), total, "rendering");
        loop {
            while rendering.len() < self.media.config.parallel && !self.reports.should_yield() {
                let Some(index) = waiting.next() else { break };
                rendering.push(self.render(index));
            }
            let Some(rendered) = rendering.next().await else { break };
            let (index, artifact) = rendered?;
            tracing::debug!(scene = index + 1, bytes = artifact.size_bytes, "segment stored");
            ledger.record(index, self.speech[index].slot, artifact);
            self.done.store(ledger.done(), Relaxed);
            self.reports.checkpoint(ledger.saved()).await?;
            self.reports.progress(ledger.done(), total, "rendering");
        }
        Ok(ledger.done() == total)
    }

    async fn render(&self, index: usize) -> Result<(usize, Artifact), MediaError> {
        let speech = &self.speech[index];
        let folder = self.work.join(format!("scene-{:03}", index + 1));
        tokio::fs::create_dir(&folder).await.map_err(MediaError::io("creating", &folder))?;
        let source = self.media.store.fetch(&speech.artifact, &folder).await?;
        let number = index + 1;
        let segment = Segment { number, folder: &folder, speech: &source, slot: speech.slot };
        let (frames, total) = (segment.frames().max(1), self.slides.len() as u64);
        let file = segment
            .render(&self.slides[index], &self.media.ffmpeg(), |frame| {
                let percent = (frame * 100 / frames).min(100);
                self.reports.progress(
                    self.done.load(Relaxed),
                    total,
                    &format!("scene {number} of {total}: {percent} %"),
                );
            })
            .await?;
        let label = Label::new(format!("segment-{number:03}.mp4"), Kind::Mp4);
        let artifact = self.media.store.put_file(self.place, label, &file).await?;
        tokio::fs::remove_dir_all(&folder).await.map_err(MediaError::io("removing", &folder))?;
        Ok((index, artifact))
    }

    /// Joins the segments and makes what belongs beside the video.
    async fn finish(&self, ledger: &Ledger) -> Result<Finished, MediaError> {
        let total = ledger.total();
        self.reports.progress(total, total, "joining the segments");
        let mut segments: Vec<PathBuf> = Vec::new();
        for entry in ledger.entries() {
            segments.push(self.media.store.fetch(&entry.artifact, self.work).await?);
        }
        let ffmpeg = self.media.ffmpeg();
        let video = join::join(&segments, self.work, &ffmpeg).await?;
        let poster = join::poster(&video, self.work, &ffmpeg).await?;
        let slots: Vec<Slot> = self.speech.iter().map(|speech| speech.slot).collect();
        let captions = captions::captions(&self.script.scenes, &slots);
        let store = &self.media.store;
        let label = Label::new("video.mp4", Kind::Mp4);
        let video = store.put_file(self.place, label, &video).await?;
        let poster = store.put_file(self.place, Label::new("poster.png", Kind::Png), &poster).await?;
        let label = Label::new("captions.vtt", Kind::Vtt);
        let captions = store.put_bytes(self.place, label, captions).await?;
        let letters_missing = self.slides.iter().map(|slide| slide.letters_missing).sum();
        let output = json!({
            "kind": "video",
            "makes": { "video": video.name },
            "provider": "slides",
            "model": null,
            "note": note(letters_missing),
            "scenes": total,
            "seconds": seconds(slots.iter().map(|slot| slot.length_ms).sum()),
            "width": slide::WIDTH,
            "height": slide::HEIGHT,
            "letters_without_glyph": letters_missing,
        });
        Ok(Finished { output, artifacts: vec![video, captions, poster] })
    }
}

/// What a reader must know of how the video was made.
fn note(letters_missing: usize) -> String {
    let slides = "Slides show what is said; there are no pictures.";
    match letters_missing {
        0 => slides.to_owned(),
        letters => format!("{slides} {letters} letters are not in the font and are drawn as boxes."),
    }
}
