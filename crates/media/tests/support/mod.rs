//! What the tests with real programs share: a folder with storage, a recorder of reports, and a wrapper that counts ffmpeg's runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use longtake_media::{
    Artifact, Ended, Finished, Job, Media, MediaConfig, MediaError, Need, Reports, Saved, Step,
};
use serde_json::{Value, json};

/// Takes reports, and can ask the step to give way after so many checkpoints.
#[derive(Default)]
pub struct Recorder {
    pub checkpoints: Mutex<Vec<Saved>>,
    pub progress: Mutex<Vec<(u64, u64, String)>>,
    pub yield_after: Option<usize>,
    seen: AtomicUsize,
}

impl Reports for Recorder {
    async fn checkpoint(&self, saved: Saved) -> Result<(), MediaError> {
        self.checkpoints.lock().unwrap().push(saved);
        self.seen.fetch_add(1, SeqCst);
        Ok(())
    }

    fn progress(&self, done: u64, total: u64, message: &str) {
        self.progress.lock().unwrap().push((done, total, message.to_owned()));
    }

    fn should_yield(&self) -> bool {
        self.yield_after.is_some_and(|after| self.seen.load(SeqCst) >= after)
    }
}

impl Recorder {
    pub fn yielding_after(checkpoints: usize) -> Self {
        Self { yield_after: Some(checkpoints), ..Self::default() }
    }

    pub fn last(&self) -> Option<Saved> {
        self.checkpoints.lock().unwrap().last().cloned()
    }
}

/// A run of the content workflow in a folder of its own.
pub struct Stage {
    pub folder: tempfile::TempDir,
    pub media: Media,
    pub input: Value,
    pub needs: BTreeMap<String, Need>,
}

impl Stage {
    pub fn new(input: Value) -> Self {
        Self::with(input, |_| {})
    }

    pub fn with(input: Value, change: impl FnOnce(&mut MediaConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Names that every layer would get wrong if one of them spliced paths into text.
        let mut config = MediaConfig {
            artifacts: folder.path().join("it's 100% [odd]: ü, \\").display().to_string(),
            work_dir: folder.path().join("wörk 'in' 50%: x"),
            ffmpeg: counting_ffmpeg(folder.path()),
            ..MediaConfig::default()
        };
        change(&mut config);
        Self { folder, media: Media::open(config).unwrap(), input, needs: BTreeMap::new() }
    }

    pub fn job(&self, step: Step, checkpoint: Option<Saved>) -> Job {
        Job {
            run_id: "0193-run".to_owned(),
            step: step.queue().to_owned(),
            input: self.input.clone(),
            needs: self.needs.clone(),
            checkpoint,
        }
    }

    /// Runs a step to its end; later steps then have what it made.
    pub async fn finish(&mut self, step: Step) -> Finished {
        let job = self.job(step, None);
        match self.media.run(step, &job, &Recorder::default()).await.unwrap() {
            Ended::Finished(finished) => {
                self.keep(step, &finished);
                finished
            }
            Ended::Yielded => panic!("nobody asked it to yield"),
        }
    }

    pub fn keep(&mut self, step: Step, finished: &Finished) {
        let need =
            Need { output: finished.output.as_object().cloned(), artifacts: finished.artifacts.clone() };
        self.needs.insert(step.queue().to_owned(), need);
    }

    pub fn path_of(&self, artifact: &Artifact) -> PathBuf {
        url::Url::parse(&artifact.uri).unwrap().to_file_path().unwrap()
    }

    /// How often ffmpeg was started to make a file of this name.
    pub fn ffmpeg_runs(&self, made: &str) -> usize {
        let log = std::fs::read_to_string(self.folder.path().join("ffmpeg.log")).unwrap_or_default();
        log.lines().filter(|line| line.ends_with(made)).count()
    }

    pub fn work_is_empty(&self) -> bool {
        std::fs::read_dir(self.folder.path().join("wörk 'in' 50%: x")).unwrap().count() == 0
    }
}

/// A script that writes down its last argument and becomes ffmpeg.
fn counting_ffmpeg(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("ffmpeg");
    let log = folder.join("ffmpeg.log");
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\necho \"$last\" >> '{}'\nexec ffmpeg \"$@\"\n",
        log.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A request whose text makes three scenes, the closing one included.
pub fn three_scenes() -> Value {
    json!({
        "student_query": "How do leaves work?",
        "source_text": "# How leaves work\n\nLeaves catch light.\n\n## What they need\n\nThey need water, too.\n",
        "requested_modalities": ["video"],
        "preferred_modality": "video",
    })
}
