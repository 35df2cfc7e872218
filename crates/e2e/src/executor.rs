//! An executor of the content steps as a process.

use std::path::PathBuf;

use tokio::process::Command;

use crate::{Process, Spy, World, process};

/// `longtake executor`, before it is started.
#[derive(Debug)]
pub struct Executor {
    name: String,
    folder: PathBuf,
    command: Command,
}

impl Executor {
    /// One slot on these queues. It speaks fast, so that videos are short, and renders one segment at a time, so that a test can say
    /// which one is under way.
    pub(crate) fn new(world: &World, server: &str, name: &str, queues: &[&str]) -> Executor {
        let mut command = process::binary();
        command.arg("executor").args(["--server", server, "--queues", &queues.join(","), "--name", name]);
        command.arg("--artifacts").arg(format!("file://{}", world.artifacts().display()));
        command.env("LONGTAKE_WORK_DIR", world.folder("work")).env("LONGTAKE_WORDS_PER_MINUTE", "450");
        command.env("LONGTAKE_VIDEO_JOBS", "1");
        Executor { name: name.to_owned(), folder: world.dir().to_owned(), command }
    }

    /// With one more argument or option.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Executor {
        self.command.arg(arg);
        self
    }

    /// With a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Executor {
        self.command.env(name, value);
        self
    }

    /// With this many slots.
    #[must_use]
    pub fn slots(self, slots: usize) -> Executor {
        self.arg("--slots").arg(&slots.to_string())
    }

    /// Rendering so many segments at a time.
    #[must_use]
    pub fn video_jobs(self, jobs: usize) -> Executor {
        self.arg("--video-jobs").arg(&jobs.to_string())
    }

    /// With a [`Spy`] in place of ffmpeg.
    #[must_use]
    pub fn watched_by(self, spy: &Spy) -> Executor {
        let name = self.name.clone();
        self.env("LONGTAKE_FFMPEG", &spy.program().to_string_lossy()).env(Spy::EXECUTOR, &name)
    }

    /// Starts it.
    pub fn start(self) -> Process {
        Process::start(&self.name, self.command, &self.folder)
    }
}
