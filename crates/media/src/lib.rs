//! The content steps: script, audio, video and finalize, and the storage of what they make.
//!
//! Each step is one async function over a [`Job`] and something that takes [`Reports`]; how an attempt is leased, renewed and
//! reported is not known here, and [`register`] is all that ties the two together. A step that works through scenes keeps a ledger of
//! what it has stored: its checkpoint. The next attempt verifies each entry by its hash and makes only what is missing.
//!
//! - **script** writes scenes (`script.json`, and `script.md` to read);
//! - **audio** speaks one file per scene, decides when each scene begins and ends, and joins the narration;
//! - **video** renders one segment per scene and joins them without encoding again, with captions and a poster;
//! - **finalize** trusts nobody: it verifies every file of the others and writes the manifest.
//!
//! Text from outside is cleaned before it is shown or spoken, and reaches programs only through files and standard input: never as
//! an argument, never inside of a filter.

mod artifact;
mod audio;
mod check;
mod config;
mod error;
mod finalize;
mod font;
mod job;
mod ledger;
mod script;
mod steps;
mod store;
mod text;
mod timing;
mod tool;
mod video;
mod wav;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use artifact::Modality;
pub use check::{Finding, check};
pub use config::{Limits, MediaConfig, VIDEO_JOBS};
pub use error::MediaError;
pub use job::{Ended, Finished, Job, Reports, Saved};
pub use longtake_executor::{Artifact, Need};
pub use steps::register;
pub use store::ArtifactStore;
pub use video::{VIDEO_COLORS, VIDEO_ENCODING};

use tokio::sync::Semaphore;
use tool::Tool;

/// What attempts' folders are called, so that those of killed processes can be told from other people's.
const WORK_PREFIX: &str = "longtake-work-";
/// After this long a folder belongs to nobody any more.
const WORK_ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// The command that installs what the steps need, on Debian and its relatives.
const INSTALL_FFMPEG: &str = "apt-get install -y ffmpeg";
const INSTALL_ESPEAK: &str = "apt-get install -y espeak-ng";
const INSTALL_FONT: &str = "apt-get install -y fonts-dejavu-core";

/// A queue of content steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Writes the scenes.
    Script,
    /// Speaks them.
    Audio,
    /// Shows them.
    Video,
    /// Verifies everything and writes the manifest.
    Finalize,
}

impl Step {
    /// All of them, in the order of the workflow `content`.
    pub const ALL: [Self; 4] = [Self::Script, Self::Audio, Self::Video, Self::Finalize];

    /// Its queue's name.
    pub fn queue(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Finalize => "finalize",
        }
    }
}

/// Everything that the content steps share in one process.
#[derive(Debug)]
pub struct Media {
    config: MediaConfig,
    store: ArtifactStore,
    /// One permit for each segment that may be rendered at the same time. All attempts draw on it, so that slots share the cores
    /// instead of multiplying them, and a step that is alone has all of them.
    video_jobs: Semaphore,
}

impl Media {
    /// Checks the configuration and opens the storage. Programs are looked for when they are needed; [`check`] asks for them
    /// beforehand.
    ///
    /// # Errors
    /// [`MediaError::ConfigInvalid`], [`MediaError::ProviderUnknown`], [`MediaError::Io`].
    pub fn open(config: MediaConfig) -> Result<Self, MediaError> {
        config.validate()?;
        script::Provider::named(&config.script_provider)?;
        audio::Provider::named(&config.audio_provider)?;
        let store = ArtifactStore::open(&config.artifacts)?;
        let doing = "creating the work folder";
        std::fs::create_dir_all(&config.work_dir).map_err(MediaError::io(doing, &config.work_dir))?;
        // Programs work in folders of their own, where a relative path would mean another one.
        let work_dir = config.work_dir.canonicalize().map_err(MediaError::io(doing, &config.work_dir))?;
        let video_jobs = Semaphore::new(config.video_jobs);
        Ok(Self { config: MediaConfig { work_dir, ..config }, store, video_jobs })
    }

    /// Where artifacts are stored.
    pub fn store(&self) -> &ArtifactStore {
        &self.store
    }

    /// Works on one attempt of a step. Dropping the future stops it at once, its programs included.
    ///
    /// # Errors
    /// What stopped it; [`MediaError::retryable`] says whether another attempt could help.
    pub async fn run(&self, step: Step, job: &Job, reports: &impl Reports) -> Result<Ended, MediaError> {
        match step {
            Step::Script => script::run(self, job, reports).await,
            Step::Audio => audio::run(self, job, reports).await,
            Step::Video => video::run(self, job, reports).await,
            Step::Finalize => finalize::run(self, job, reports).await,
        }
    }

    /// Draws the slides of a video step's job into an existing empty folder: one PNG a scene, in their order.
    ///
    /// # Errors
    /// As [`Media::run`].
    pub async fn draw_slides(&self, job: &Job, into: &Path) -> Result<Vec<PathBuf>, MediaError> {
        video::slides(self, job, into).await
    }

    /// A folder for one attempt, removed when it is dropped.
    fn work_folder(&self) -> Result<tempfile::TempDir, MediaError> {
        let parent = &self.config.work_dir;
        remove_abandoned(parent);
        tempfile::Builder::new()
            .prefix(WORK_PREFIX)
            .tempdir_in(parent)
            .map_err(MediaError::io("creating a work folder in", parent))
    }

    fn ffmpeg(&self) -> Tool {
        self.tool("ffmpeg", &self.config.ffmpeg, "LONGTAKE_FFMPEG", INSTALL_FFMPEG)
    }

    fn ffprobe(&self) -> Tool {
        self.tool("ffprobe", &self.config.ffprobe, "LONGTAKE_FFPROBE", INSTALL_FFMPEG)
    }

    fn espeak(&self) -> Tool {
        self.tool("espeak-ng", &self.config.espeak, "LONGTAKE_ESPEAK", INSTALL_ESPEAK)
    }

    fn tool(
        &self,
        name: &'static str,
        program: &Path,
        variable: &'static str,
        install: &'static str,
    ) -> Tool {
        // A relative path with a folder in it means the process's folder, not the one that the program will work in.
        let program: PathBuf = match program.components().count() {
            0 | 1 => program.to_owned(),
            _ => std::path::absolute(program).unwrap_or_else(|_| program.to_owned()),
        };
        Tool { name, program, variable, install, stderr_bytes: self.config.limits.stderr_bytes }
    }
}

/// Removes what killed processes left behind. Nothing depends on it, so nothing fails by it.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(WORK_PREFIX))
    {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_some_and(|age| age > WORK_ABANDONED) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
