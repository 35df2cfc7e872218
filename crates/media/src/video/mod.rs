//! The video step: a slide and a segment for each scene, then all of them joined.
//!
//! Segments are rendered side by side, one on each core, and finish in any order; a checkpoint follows every one and names all that
//! are finished, whatever is missing between them. The next attempt renders what is missing and nothing else; because a segment's
//! bytes depend on nothing but its recipe, a video that was interrupted is the same file as one that was not.

mod captions;
mod join;
mod segment;
mod slide;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures_util::future::{Fuse, FusedFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::SemaphorePermit;

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
pub use segment::{VIDEO_COLORS, VIDEO_ENCODING};
use slide::Slide;

/// Raised whenever the same scene is drawn or encoded otherwise: stored segments of another version do not join with new ones.
const RENDERER: &str = "slides 1";

/// For every segment that is rendered, one more may be on its way into storage: slow storage neither idles a core nor fills the disk.
const UNDER_WAY_PER_JOB: usize = 2;

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
    copy_fonts(&fonts, work.path()).await?;
    let place = Place { run: &job.run_id, step: &job.step };
    let (script, speech, slides, work) = (&script, &speech, &slides, work.path());
    let done = AtomicU64::new(ledger.done());
    let attempt = Attempt { media, reports, place, work, script, speech, slides, done };
    if !attempt.render_missing(&mut ledger).await? {
        return Ok(Ended::Yielded);
    }
    Ok(Ended::Finished(attempt.finish(&ledger).await?))
}

/// Draws the slides of a video step's job into a folder, one PNG a scene, in their order.
pub(crate) async fn slides(media: &Media, job: &Job, into: &Path) -> Result<Vec<PathBuf>, MediaError> {
    let script = script_of(media, job).await?;
    let speech = speech_of(job.need("audio")?, script.scenes.len())?;
    let fonts = Fonts::find(media)?;
    copy_fonts(&fonts, into).await?;
    let mut drawn = Vec::new();
    for (index, (slide, speech)) in slide::lay_out(&script, &fonts).iter().zip(&speech).enumerate() {
        let folder = scene_folder(into, index).await?;
        let segment = Segment { number: index + 1, folder: &folder, speech: into, slot: speech.slot };
        drawn.push(segment.draw(slide, &media.ffmpeg()).await?);
    }
    Ok(drawn)
}

/// Puts the fonts next to the scenes' folders, under names that a filter can hold.
async fn copy_fonts(fonts: &Fonts, work: &Path) -> Result<(), MediaError> {
    for (font, name) in [(&fonts.regular, "regular.font"), (&fonts.bold, "bold.font")] {
        let into = work.join(name);
        tokio::fs::copy(&font.path, &into).await.map_err(MediaError::io("copying a font to", &into))?;
    }
    Ok(())
}

async fn scene_folder(work: &Path, index: usize) -> Result<PathBuf, MediaError> {
    let folder = work.join(format!("scene-{:03}", index + 1));
    tokio::fs::create_dir(&folder).await.map_err(MediaError::io("creating", &folder))?;
    Ok(folder)
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
    /// Renders what the ledger lacks, as many segments at a time as there are jobs. False when it gave way. Whether it gave way or
    /// failed: what was finished by then is in the checkpoint, too.
    async fn render_missing(&self, ledger: &mut Ledger) -> Result<bool, MediaError> {
        let under_way_max = self.media.config.video_jobs * UNDER_WAY_PER_JOB;
        let mut waiting = VecDeque::from(ledger.missing());
        let mut rendering = FuturesUnordered::new();
        // One at a time, so that they arrive in order; rendering goes on beside it.
        let mut checkpoint = pin!(Fuse::terminated());
        let (mut named, total) = (ledger.done(), ledger.total());
        let mut failed = None;
        self.reports.progress(ledger.done(), total, "rendering");
        loop {
            if checkpoint.is_terminated() && ledger.done() > named {
                named = ledger.done();
                checkpoint.set(self.reports.checkpoint(ledger.saved()).fuse());
            }
            let room = !waiting.is_empty() && rendering.len() < under_way_max;
            tokio::select! {
                biased;
                committed = &mut checkpoint, if !checkpoint.is_terminated() => {
                    committed?;
                    self.reports.progress(self.done.load(Relaxed), total, "rendering");
                }
                Some(rendered) = rendering.next() => match rendered {
                    Ok((index, artifact)) => self.record(ledger, index, artifact),
                    Err(error) => {
                        failed = Some(error);
                        waiting.clear();
                        rendering.clear();
                    }
                },
                () = self.reports.yield_asked(), if !waiting.is_empty() => waiting.clear(),
                Ok(job) = self.media.video_jobs.acquire(), if room => {
                    rendering.extend(waiting.pop_front().map(|index| self.render(index, job)));
                }
                else => break,
            }
        }
        failed.map_or(Ok(ledger.done() == total), Err)
    }

    fn record(&self, ledger: &mut Ledger, index: usize, artifact: Artifact) {
        tracing::debug!(scene = index + 1, bytes = artifact.size_bytes, "segment stored");
        ledger.record(index, self.speech[index].slot, artifact);
        self.done.store(ledger.done(), Relaxed);
    }

    /// Renders one segment and stores it. Its job ends with ffmpeg: storing needs no core.
    async fn render(&self, index: usize, job: SemaphorePermit<'_>) -> Result<(usize, Artifact), MediaError> {
        let speech = &self.speech[index];
        let folder = scene_folder(self.work, index).await?;
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
        drop(job);
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
        join::link(&segments, self.work).await?;
        let (video, poster) =
            tokio::try_join!(join::join(self.work, &ffmpeg), join::poster(self.work, &ffmpeg))?;
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
