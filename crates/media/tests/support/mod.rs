//! What the tests with real programs share: a folder with storage, a recorder of reports, and a wrapper that counts ffmpeg's runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use longtake_media::{
    Artifact, Ended, Finished, Job, Media, MediaConfig, MediaError, Need, Reports, Saved, Step,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Takes reports, and can ask the step to give way: after so many checkpoints, or when a test does.
#[derive(Default)]
pub struct Recorder {
    pub checkpoints: Mutex<Vec<Saved>>,
    pub progress: Mutex<Vec<(u64, u64, String)>>,
    yield_after: Option<usize>,
    asked: watch::Sender<bool>,
    seen: watch::Sender<usize>,
    begun: watch::Sender<bool>,
}

impl Reports for Recorder {
    async fn checkpoint(&self, saved: Saved) -> Result<(), MediaError> {
        self.checkpoints.lock().unwrap().push(saved);
        self.seen.send_modify(|seen| *seen += 1);
        if self.yield_after == Some(*self.seen.borrow()) {
            self.ask_to_yield();
        }
        Ok(())
    }

    fn progress(&self, done: u64, total: u64, message: &str) {
        self.progress.lock().unwrap().push((done, total, message.to_owned()));
        self.begun.send_replace(true);
    }

    fn should_yield(&self) -> bool {
        *self.asked.borrow()
    }

    async fn yield_asked(&self) {
        self.asked.subscribe().wait_for(|asked| *asked).await.unwrap();
    }
}

impl Recorder {
    pub fn yielding_after(checkpoints: usize) -> Self {
        Self { yield_after: Some(checkpoints), ..Self::default() }
    }

    pub fn ask_to_yield(&self) {
        self.asked.send_replace(true);
    }

    /// Resolves at the first report.
    pub async fn begun(&self) {
        self.begun.subscribe().wait_for(|begun| *begun).await.unwrap();
    }

    /// Resolves when there are so many checkpoints.
    pub async fn saved(&self, checkpoints: usize) {
        self.seen.subscribe().wait_for(|seen| *seen >= checkpoints).await.unwrap();
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

    /// From now on ffmpeg does this with this scene (from 1): nothing, for ever, or fail. `None` mends it.
    pub fn spoil(&self, scene: usize, how: Option<&str>) {
        let file = self.folder.path().join(format!("spoil-scene-{scene:03}"));
        match how {
            Some(command) => std::fs::write(file, command).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
    }

    pub fn work_is_empty(&self) -> bool {
        std::fs::read_dir(self.folder.path().join("wörk 'in' 50%: x")).unwrap().count() == 0
    }
}

/// A script that writes down its last argument and becomes ffmpeg, or what the scene's segment is spoiled with.
fn counting_ffmpeg(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("ffmpeg");
    let log = folder.join("ffmpeg.log");
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\necho \"$last\" >> '{}'\n\
         spoil='{}'/\"spoil-${{PWD##*/}}\"\n[ ! -e \"$spoil\" ] || . \"$spoil\"\nexec ffmpeg \"$@\"\n",
        log.display(),
        folder.display(),
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
