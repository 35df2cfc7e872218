//! The video step against ffmpeg by itself: how long a minute of video takes, and what its checkpoints cost.
//!
//! Script and narration are made once. Then, by turns:
//!
//! - **ours**: the whole video step, directly on the media crate, storing into a local folder: slides drawn, a segment a scene on
//!   all cores, each hashed, fsynced and named by a checkpoint, then joined, with poster and captions. No orchestrator takes part;
//!   a checkpoint is a file that is written and fsynced.
//! - **plain**: one start of ffmpeg that encodes the same slides, drawn beforehand, and the same speech with the same settings into
//!   one file, with as many threads as it likes. It draws nothing, hashes nothing, fsyncs nothing and cannot be resumed.
//!
//! Every video is looked at with ffprobe. One that is not as long as its scenes, or is not H.264 with AAC, ends the measurement.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use longtake_media::{
    Artifact, Ended, Finished, Job, Media, MediaConfig, MediaError, Need, Reports, Saved, Step, VIDEO_COLORS,
    VIDEO_ENCODING,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;

/// What is filmed: the shipped example.
const TEXT: &str = include_str!("../../../../../examples/photosynthesis.md");
/// So many times over, for a lesson of about five minutes.
const COPIES: usize = 3;
/// Frames per second, as all our videos have.
const FRAME_RATE: f64 = 25.0;
/// How far the two videos may be apart, in frames.
const FRAMES_APART: f64 = 2.0;
/// Ours may take so much of what plain takes.
const BAR: f64 = 1.15;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct MediaReport {
    /// Cores of this machine: the jobs of ours.
    pub cores: usize,
    /// `ffmpeg version …`.
    pub ffmpeg: String,
    pub scenes: usize,
    /// How long the video plays.
    pub video_seconds: f64,
    pub ours: Series,
    pub plain: Series,
    /// Of the medians.
    pub ratio: f64,
    /// Ours to plain of each repeat, which shared the machine's weather.
    pub ratios: Spread,
    pub bar: f64,
    pub checkpoints: Checkpoints,
}

/// One way to make the video, measured several times.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Real seconds, as they were measured.
    pub seconds: Vec<f64>,
    /// Real seconds per minute of video.
    pub per_minute: Spread,
    /// Seconds of processor time per minute of video, children included.
    pub cpu_per_minute: Spread,
}

/// Several measurements of one thing.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What a checkpoint after every segment costs.
#[derive(Debug, Clone, Serialize)]
pub struct Checkpoints {
    /// Of one video.
    pub count: usize,
    pub segment_bytes: u64,
    /// Hashing and storing one segment, with nothing beside it.
    pub store_ms: Spread,
    /// One checkpoint, while segments are rendered.
    pub call_ms: Spread,
    /// All of both to the whole video step, as if nothing went on beside them.
    pub share: f64,
}

/// Measures `repeats` times each.
///
/// # Errors
/// A program is missing, something fails, or a video is not what it should be: then there is no number.
pub async fn run(repeats: usize) -> Result<MediaReport> {
    ensure!(repeats > 0, "nothing is measured in no repeats");
    let mut stage = Stage::set().await?;
    let (mut ours, mut plain, mut costs) = (Vec::new(), Vec::new(), Costs::default());
    for repeat in 0..repeats {
        // By turns also in which comes first.
        if repeat % 2 == 0 {
            ours.push(stage.ours(&mut costs).await?);
        }
        plain.push(stage.plain().await?);
        if repeat % 2 == 1 {
            ours.push(stage.ours(&mut costs).await?);
        }
    }
    let seconds = stage.seconds;
    let (ours, plain) = (Series::of(&ours, seconds), Series::of(&plain, seconds));
    let ratios: Vec<f64> =
        ours.seconds.iter().zip(&plain.seconds).map(|(ours, plain)| ours / plain).collect();
    Ok(MediaReport {
        cores: stage.cores,
        ffmpeg: version().await?,
        scenes: stage.scenes,
        video_seconds: seconds,
        ratio: ours.per_minute.median / plain.per_minute.median,
        ratios: Spread::of(&ratios),
        bar: BAR,
        checkpoints: costs.report(stage.scenes, &ours),
        ours,
        plain,
    })
}

impl MediaReport {
    /// As a table.
    pub fn to_markdown(&self) -> String {
        let mut out = format!(
            "A video of {:.1} s in {} scenes, {} cores, {}, {} repeats by turns.\n\n\
             | | real seconds per minute of video: median (min–max) | processor seconds |\n|---|---|---|\n",
            self.video_seconds,
            self.scenes,
            self.cores,
            self.ffmpeg,
            self.ours.seconds.len(),
        );
        let rows = [("our video step", &self.ours), ("plain ffmpeg, one start", &self.plain)];
        for (name, series) in rows {
            let (real, cpu) = (series.per_minute.show(3), series.cpu_per_minute.show(3));
            let _ = writeln!(out, "| {name} | {real} | {cpu} |");
        }
        let (verdict, checkpoints) = (self.ratio <= self.bar, &self.checkpoints);
        let _ = write!(
            out,
            "\nOurs to plain: {:.3} of the medians (bar {:.2}: {}); by repeat {}.\n\
             Checkpoints: {} of segments of {} KiB on average; {} ms to hash and store one, {} ms for the call; \
             together {:.1} % of the step if nothing went on beside them.\n",
            self.ratio,
            self.bar,
            if verdict { "met" } else { "MISSED" },
            self.ratios.show(3),
            checkpoints.count,
            checkpoints.segment_bytes / 1024,
            checkpoints.store_ms.show(2),
            checkpoints.call_ms.show(2),
            checkpoints.share * 100.0,
        );
        out
    }
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        // The two in the middle are one where their number is odd.
        let median = f64::midpoint(at(last / 2), at(sorted.len() / 2));
        Self { median, min: at(0), max: at(last) }
    }

    fn show(&self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.min, self.max)
    }
}

impl Series {
    fn of(takes: &[Take], video_seconds: f64) -> Self {
        let minutes = video_seconds / 60.0;
        let per_minute = |time: fn(&Take) -> Duration| {
            Spread::of(&takes.iter().map(|take| time(take).as_secs_f64() / minutes).collect::<Vec<_>>())
        };
        Self {
            seconds: takes.iter().map(|take| take.real.as_secs_f64()).collect(),
            per_minute: per_minute(|take| take.real),
            cpu_per_minute: per_minute(|take| take.cpu),
        }
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Take {
    real: Duration,
    cpu: Duration,
}

/// Runs from its making to its end.
struct Watch {
    begun: Instant,
    cpu: Duration,
}

impl Watch {
    fn start() -> Result<Self> {
        Ok(Self { cpu: processor_time()?, begun: Instant::now() })
    }

    fn stop(self) -> Result<Take> {
        let real = self.begun.elapsed();
        Ok(Take { real, cpu: processor_time()?.saturating_sub(self.cpu) })
    }
}

/// What this process and its ended children have used; proc(5), in the hundredths of a second that Linux counts in.
fn processor_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("only Linux says how much it worked")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime, stime, cutime, cstime: fields 14 to 17 of all, of which two are before the parenthesis.
    let ticks = fields.skip(11).take(4).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Everything that both ways start from.
struct Stage {
    folder: tempfile::TempDir,
    media: Media,
    cores: usize,
    job: Job,
    scenes: usize,
    seconds: f64,
    runs: usize,
}

impl Stage {
    /// Writes and speaks the lesson, and draws and lists what plain needs.
    async fn set() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = MediaConfig {
            artifacts: folder.path().join("artifacts").display().to_string(),
            work_dir: folder.path().join("work"),
            ..MediaConfig::default()
        };
        let cores = config.video_jobs;
        let media = Media::open(config)?;
        let input = json!({ "student_query": "How do plants work?", "source_text": TEXT.repeat(COPIES) });
        let mut job = Job { run_id: "spoken".to_owned(), input, ..Job::default() };
        for step in [Step::Script, Step::Audio] {
            step.queue().clone_into(&mut job.step);
            let made = finished(&media, step, &job, &Recorder::default()).await?;
            job.needs.insert(step.queue().to_owned(), need(made));
        }
        Step::Video.queue().clone_into(&mut job.step);
        let output = job.needs["audio"].output.clone().unwrap_or_default();
        let scenes = output["scenes"].as_u64().context("the number of scenes")?.try_into()?;
        let seconds = output["seconds"].as_f64().context("the length of all scenes")?;
        let stage = Self { folder, media, cores, job, scenes, seconds, runs: 0 };
        stage.prepare_plain(&output["slots"]).await?;
        Ok(stage)
    }

    fn plain_folder(&self) -> PathBuf {
        self.folder.path().join("plain")
    }

    /// The lists that ffmpeg reads: a slide for as long as its scene lasts, and the speech of every scene.
    async fn prepare_plain(&self, slots: &Value) -> Result<()> {
        let folder = self.plain_folder();
        std::fs::create_dir(&folder)?;
        let slides = self.media.draw_slides(&self.job, &folder).await?;
        let (mut shown, mut said) =
            ("ffconcat version 1.0\n".to_owned(), "ffconcat version 1.0\n".to_owned());
        for (index, slide) in slides.iter().enumerate() {
            let seconds = slots[index]["ms"].as_f64().context("a slot")? / 1_000.0;
            let name = format!("slide-{index:03}.png");
            std::fs::rename(slide, folder.join(&name))?;
            writeln!(shown, "file {name}\nduration {seconds}")?;
            let speech = self.job.needs["audio"].artifact(&format!("scene-{:03}.wav", index + 1));
            let name = format!("speech-{index:03}.wav");
            std::fs::copy(path_of(speech.context("speech")?)?, folder.join(&name))?;
            writeln!(said, "file {name}")?;
        }
        // The last duration counts only when another file follows.
        writeln!(shown, "file slide-{:03}.png", slides.len() - 1)?;
        std::fs::write(folder.join("slides.txt"), shown)?;
        std::fs::write(folder.join("speech.txt"), said)?;
        Ok(())
    }

    /// The video step on all cores.
    async fn ours(&mut self, costs: &mut Costs) -> Result<Take> {
        let (take, recorder, job) = self.step().await?;
        costs.calls.extend(recorder.calls());
        let segments = recorder.last().context("no checkpoint")?.artifacts;
        ensure!(segments.len() == self.scenes, "{} segments of {} scenes", segments.len(), self.scenes);
        let (store, again) = (self.media.store(), again(&job));
        for segment in &segments {
            let (file, begun) = (path_of(segment)?, Instant::now());
            store.put_video(&again, "video", &segment.name, &file).await?;
            costs.stores.push(begun.elapsed());
            costs.bytes.push(segment.size_bytes);
        }
        self.clear(&job)?;
        Ok(take)
    }

    async fn step(&mut self) -> Result<(Take, Recorder, Job)> {
        self.runs += 1;
        // Stored under a run of its own: nothing is there yet.
        let job = Job { run_id: format!("run-{}", self.runs), ..self.job.clone() };
        let recorder =
            Recorder { log: Some(self.folder.path().join("checkpoint.json")), ..Recorder::default() };
        let watch = Watch::start()?;
        let made = finished(&self.media, Step::Video, &job, &recorder).await?;
        let take = watch.stop()?;
        let video =
            made.artifacts.iter().find(|artifact| artifact.name == "video.mp4").context("no video")?;
        self.look_at(&path_of(video)?).await?;
        Ok((take, recorder, job))
    }

    fn clear(&self, job: &Job) -> Result<()> {
        let artifacts = self.folder.path().join("artifacts");
        for run in [job.run_id.clone(), again(job)] {
            let folder = artifacts.join(run);
            if folder.exists() {
                std::fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    }

    /// One start of ffmpeg on all cores. Each slide is converted once, before it is repeated.
    async fn plain(&self) -> Result<Take> {
        let folder = self.plain_folder();
        let arguments = format!(
            "-hide_banner -nostdin -loglevel error -y -f concat -i slides.txt -f concat -i speech.txt \
             -filter_complex [0:v]{VIDEO_COLORS},fps={FRAME_RATE}[picture];[1:a]aresample=48000,aformat=channel_layouts=mono[sound] \
             -map [picture] -map [sound] -t {} {VIDEO_ENCODING} -movflags +faststart plain.mp4",
            self.seconds
        );
        let mut command = Command::new("ffmpeg");
        command.args(arguments.split_whitespace()).current_dir(&folder).stdin(Stdio::null());
        let watch = Watch::start()?;
        let ended = command.status().await.context("ffmpeg")?;
        let take = watch.stop()?;
        ensure!(ended.success(), "plain ffmpeg: {ended}");
        self.look_at(&folder.join("plain.mp4")).await?;
        Ok(take)
    }

    /// A video of H.264 and AAC, as long as all scenes.
    async fn look_at(&self, video: &Path) -> Result<()> {
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-count_packets", "-of", "json", "-show_entries"]);
        command.arg("format=duration:stream=codec_name,nb_read_packets").arg(video);
        let output = command.output().await.context("ffprobe")?;
        ensure!(output.status.success(), "ffprobe: {}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout)?;
        let streams = found["streams"].as_array().context("streams")?;
        let codecs: Vec<&Value> = streams.iter().map(|stream| &stream["codec_name"]).collect();
        ensure!(codecs == ["h264", "aac"], "{}: {codecs:?}", video.display());
        let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
        let (seconds, frames) =
            (number(&found["format"]["duration"]), number(&streams[0]["nb_read_packets"]));
        let close = |frames: f64| (frames - self.seconds * FRAME_RATE).abs() <= FRAMES_APART;
        match (seconds, frames) {
            (Some(seconds), Some(frames)) if close(seconds * FRAME_RATE) && close(frames) => Ok(()),
            other => bail!("{}: {other:?} seconds and frames of {} s", video.display(), self.seconds),
        }
    }
}

/// The run under which segments are stored once more, to see how long that takes.
fn again(job: &Job) -> String {
    format!("{}-again", job.run_id)
}

async fn finished(media: &Media, step: Step, job: &Job, recorder: &Recorder) -> Result<Finished> {
    match media.run(step, job, recorder).await.with_context(|| step.queue().to_owned())? {
        Ended::Finished(finished) => Ok(finished),
        Ended::Yielded => bail!("nobody asked it to yield"),
    }
}

fn need(made: Finished) -> Need {
    Need { output: made.output.as_object().cloned(), artifacts: made.artifacts }
}

fn path_of(artifact: &Artifact) -> Result<PathBuf> {
    let path = url::Url::parse(&artifact.uri)?.to_file_path();
    path.map_err(|()| anyhow::anyhow!("{} is no local file", artifact.uri))
}

async fn version() -> Result<String> {
    let output = Command::new("ffmpeg").arg("-version").output().await.context("ffmpeg")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Keeps checkpoints in a file, as durable as a commit, and how long that took.
#[derive(Debug, Default)]
struct Recorder {
    log: Option<PathBuf>,
    kept: Mutex<(Option<Saved>, Vec<Duration>)>,
}

impl Recorder {
    fn last(&self) -> Option<Saved> {
        self.kept.lock().ok()?.0.clone()
    }

    fn calls(&self) -> Vec<Duration> {
        self.kept.lock().map(|kept| kept.1.clone()).unwrap_or_default()
    }
}

impl Reports for Recorder {
    async fn checkpoint(&self, saved: Saved) -> Result<(), MediaError> {
        let begun = Instant::now();
        if let Some(log) = &self.log {
            let (log, written) = (log.clone(), json!([saved.data, saved.artifacts]).to_string());
            let written = tokio::task::spawn_blocking(move || write_through(&log, &written)).await;
            written
                .map_err(std::io::Error::other)
                .and_then(|written| written)
                .map_err(|error| MediaError::Checkpoint(error.to_string()))?;
        }
        if let Ok(mut kept) = self.kept.lock() {
            kept.0 = Some(saved);
            kept.1.push(begun.elapsed());
        }
        Ok(())
    }

    fn progress(&self, _: u64, _: u64, _: &str) {}

    fn should_yield(&self) -> bool {
        false
    }

    async fn yield_asked(&self) {
        std::future::pending::<()>().await;
    }
}

fn write_through(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What checkpoints cost, over all repeats.
#[derive(Debug, Default)]
struct Costs {
    stores: Vec<Duration>,
    bytes: Vec<u64>,
    calls: Vec<Duration>,
}

impl Costs {
    fn report(&self, scenes: usize, ours: &Series) -> Checkpoints {
        let millis = |times: &[Duration]| {
            Spread::of(&times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect::<Vec<_>>())
        };
        let all: Duration = self.stores.iter().chain(&self.calls).sum();
        let bytes: u64 = self.bytes.iter().sum();
        Checkpoints {
            count: scenes,
            segment_bytes: bytes / self.bytes.len().max(1) as u64,
            store_ms: millis(&self.stores),
            call_ms: millis(&self.calls),
            share: all.as_secs_f64() / ours.seconds.iter().sum::<f64>(),
        }
    }
}
