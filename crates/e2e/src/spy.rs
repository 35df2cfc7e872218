//! A stand-in for ffmpeg: it notes what is rendered and holds what a test wants held.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{World, eventually};

/// A program that is ffmpeg, but that each start of a segment is noted first, and waits for as long as its scene is held.
#[derive(Debug)]
pub struct Spy {
    folder: PathBuf,
}

impl Spy {
    /// The variable that tells the stand-in who started it.
    pub(crate) const EXECUTOR: &str = "E2E_EXECUTOR";

    /// One for this world's runs, of which only one makes a video.
    ///
    /// # Panics
    /// When there is no ffmpeg.
    pub fn new(world: &World) -> Spy {
        let folder = world.folder("spy");
        let ffmpeg = find("ffmpeg");
        // A segment is rendered in a folder that is named after its scene. A stand-in whose executor was killed ends, as nobody
        // else tells it to; so does one whose test is over.
        let script = format!(
            r#"#!/bin/sh
for last; do :; done
if [ "$last" = segment.mp4 ]; then
    scene=${{PWD##*/}}
    echo "${executor} $scene" >>'{folder}/renders'
    while [ -e '{folder}'/"hold-$scene" ]; do
        kill -0 "$PPID" 2>/dev/null || exit 1
        sleep 0.05
    done
    [ -d '{folder}' ] || exit 1
fi
exec '{ffmpeg}' "$@"
"#,
            executor = Spy::EXECUTOR,
            folder = folder.display(),
            ffmpeg = ffmpeg.display(),
        );
        let spy = Spy { folder };
        fs::write(spy.program(), script).expect("the stand-in");
        fs::set_permissions(spy.program(), fs::Permissions::from_mode(0o755)).expect("a program");
        spy
    }

    /// The stand-in.
    pub fn program(&self) -> PathBuf {
        self.folder.join("ffmpeg")
    }

    fn gate(&self, scene: usize) -> PathBuf {
        self.folder.join(format!("hold-scene-{scene:03}"))
    }

    /// From now on, rendering this scene (from 1) does not get on until it is released.
    pub fn hold(&self, scene: usize) {
        fs::write(self.gate(scene), "").expect("a gate");
    }

    /// Rendering this scene goes on.
    pub fn release(&self, scene: usize) {
        fs::remove_file(self.gate(scene)).expect("a scene that is held");
    }

    /// Which executor began to render which scene, in this order.
    pub fn renders(&self) -> Vec<(String, usize)> {
        let noted = fs::read_to_string(self.folder.join("renders")).unwrap_or_default();
        let parsed = noted.lines().map(|line| {
            let (executor, scene) = line.split_once(" scene-").expect("an executor and a scene");
            (executor.to_owned(), scene.parse().expect("a number"))
        });
        parsed.collect()
    }

    /// The scenes that this executor began to render.
    pub fn renders_of(&self, executor: &str) -> Vec<usize> {
        self.renders().into_iter().filter(|(name, _)| name == executor).map(|(_, scene)| scene).collect()
    }

    /// Waits until this executor has begun to render this scene.
    pub async fn rendering(&self, executor: &str, scene: usize) {
        eventually(Duration::from_secs(60), async || {
            let found = self.renders();
            if found.contains(&(executor.to_owned(), scene)) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| Path::is_file(path));
    found.unwrap_or_else(|| panic!("{program} is not installed: bin/setup installs it"))
}
