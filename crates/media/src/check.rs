//! What this machine has of what the content steps need, and the command that installs what it lacks.
//!
//! What is said to work was tried; nothing that was made for it stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use url::Url;

use crate::font::Fonts;
use crate::tool::{Call, Tool};
use crate::{ArtifactStore, Media, MediaConfig, MediaError, Step};

/// How long the storage may take to write, read and delete a few bytes.
const STORAGE_PATIENCE: Duration = Duration::from_secs(20);

/// One thing that steps need, and whether it is here.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What it is.
    pub what: &'static str,
    /// The queues whose steps need it.
    pub queues: Vec<&'static str>,
    /// What was found (a version, a path), or what is wrong.
    pub found: Result<String, String>,
    /// The command that installs it on Debian; none where nothing can be installed.
    pub install: Option<&'static str>,
}

/// Looks for everything that the steps of these queues need; queues that are not of content steps need nothing.
pub async fn check(config: &MediaConfig, queues: &[&str]) -> Vec<Finding> {
    let wanted: Vec<Step> = Step::ALL.into_iter().filter(|step| queues.contains(&step.queue())).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let Rehearsal { media, stored_in, _folders } = match rehearse(config) {
        Ok(rehearsal) => rehearsal,
        Err(error) => {
            return vec![Finding {
                what: "configuration and storage",
                queues: wanted.iter().map(|step| step.queue()).collect(),
                found: Err(error.to_string()),
                install: None,
            }];
        }
    };
    let queues_of = |steps: &[Step]| -> Vec<&'static str> {
        wanted.iter().filter(|step| steps.contains(step)).map(|step| step.queue()).collect()
    };
    let mut findings = vec![Finding {
        what: "artifact storage",
        queues: queues_of(&Step::ALL),
        found: works(media.store()).await.map(|()| stored_in),
        install: None,
    }];
    let (audio, video, finalize) = ([Step::Audio], [Step::Video], [Step::Finalize]);
    let (ffmpeg, ffprobe) = (media.ffmpeg(), media.ffprobe());
    let mut add = |what, steps: &[Step], found: Result<String, MediaError>, install| {
        let found = found.map_err(|error| in_short(&error));
        findings.push(Finding { what, queues: queues_of(steps), found, install: Some(install) });
    };
    let sound_and_video = [Step::Audio, Step::Video];
    let install = crate::INSTALL_FFMPEG;
    let started = version(&ffmpeg).await;
    let starts = started.is_ok();
    add("ffmpeg", &sound_and_video, started, install);
    if starts {
        add("ffmpeg encoder aac", &sound_and_video, lists(&ffmpeg, "-encoders", "aac").await, install);
        add("ffmpeg encoder libx264", &video, lists(&ffmpeg, "-encoders", "libx264").await, install);
        add("ffmpeg filter drawtext", &video, lists(&ffmpeg, "-filters", "drawtext").await, install);
    }
    add("ffprobe", &finalize, version(&ffprobe).await, install);
    add("espeak-ng with its voice", &audio, voice(&media).await, crate::INSTALL_ESPEAK);
    let fonts = Fonts::find(&media).map(|fonts| fonts.regular.path.display().to_string());
    add("font for slides", &video, fonts, crate::INSTALL_FONT);
    findings.retain(|finding| !finding.queues.is_empty());
    findings
}

/// The content steps as they will work, but for the folders that are not there yet.
struct Rehearsal {
    media: Media,
    /// Where artifacts will be.
    stored_in: String,
    /// They stand in for folders that are not there, and go with this.
    _folders: Vec<TempDir>,
}

fn rehearse(config: &MediaConfig) -> Result<Rehearsal, MediaError> {
    let mut config = config.clone();
    let mut folders = Vec::new();
    let absent = local_folder(&config.artifacts).filter(|folder| !folder.exists());
    if let Some(folder) = &absent {
        let stand_in = stand_in("creating the artifact folder", folder)?;
        config.artifacts = stand_in.path().display().to_string();
        folders.push(stand_in);
    }
    if !config.work_dir.exists() {
        let stand_in = stand_in("creating the work folder", &config.work_dir)?;
        config.work_dir = stand_in.path().to_owned();
        folders.push(stand_in);
    }
    let media = Media::open(config)?;
    media.work_folder()?;
    let stored_in = match absent {
        Some(folder) => format!("{} (not there yet)", folder.display()),
        None => media.store().root().to_owned(),
    };
    Ok(Rehearsal { media, stored_in, _folders: folders })
}

/// The folder of a location, if it is one; what makes no sense is none.
fn local_folder(location: &str) -> Option<PathBuf> {
    if !location.contains("://") {
        return Some(location.into());
    }
    Url::parse(location).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok()
}

/// An empty folder in the nearest place to a folder that is not there: where the one can be made, the other can.
fn stand_in(doing: &'static str, folder: &Path) -> Result<TempDir, MediaError> {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let above = whole.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let made = tempfile::Builder::new().prefix("longtake-check-").tempdir_in(above);
    made.map_err(MediaError::io(doing, folder))
}

async fn works(store: &ArtifactStore) -> Result<(), String> {
    match tokio::time::timeout(STORAGE_PATIENCE, store.probe()).await {
        Ok(probed) => probed.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{} did not answer within {} s", store.root(), STORAGE_PATIENCE.as_secs())),
    }
}

/// What is wrong, without the command that installs it: a finding has that by itself.
fn in_short(error: &MediaError) -> String {
    match error {
        MediaError::ToolMissing { program, source, variable, .. } => {
            format!("cannot start `{}` ({variable}): {source}", program.display())
        }
        MediaError::FontMissing { problem, .. } => format!("{problem} (LONGTAKE_FONT)"),
        other => other.to_string(),
    }
}

async fn version(tool: &Tool) -> Result<String, MediaError> {
    let printed = ask(tool, &["-version"]).await?;
    Ok(printed.lines().next().unwrap_or_default().chars().take(100).collect())
}

/// Whether a listing of ffmpeg has a line whose second word is this name.
async fn lists(tool: &Tool, listing: &str, name: &str) -> Result<String, MediaError> {
    let printed = ask(tool, &["-hide_banner", listing]).await?;
    let listed = printed.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
    if listed {
        return Ok(name.to_owned());
    }
    Err(MediaError::ConfigInvalid {
        setting: tool.variable,
        problem: format!("`{}` was built without {name}", tool.program.display()),
    })
}

/// Speaks a word with the configured voice, into a file: without one it would open the sound system, which servers do not have.
async fn voice(media: &Media) -> Result<String, MediaError> {
    let voice = media.config.voice.as_str();
    let folder = media.work_folder()?;
    let call = Call {
        tool: &media.espeak(),
        doing: "to speak a word".to_owned(),
        folder: folder.path(),
        arguments: ["-v", voice, "-w", "word.wav", "--stdin"].map(str::to_owned).to_vec(),
        stdin: Some("one".to_owned()),
    };
    call.output().await?;
    let file = folder.path().join("word.wav");
    std::fs::metadata(&file).map_err(MediaError::io("reading", &file))?;
    Ok(voice.to_owned())
}

async fn ask(tool: &Tool, arguments: &[&str]) -> Result<String, MediaError> {
    let call = Call {
        tool,
        doing: "to answer a question".to_owned(),
        folder: Path::new("."),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        stdin: None,
    };
    call.output().await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A folder, and a configuration of folders in it that are not there.
    fn nowhere() -> (TempDir, MediaConfig) {
        let dir = tempfile::tempdir().unwrap();
        let config = MediaConfig {
            artifacts: dir.path().join("made/later/artifacts").display().to_string(),
            work_dir: dir.path().join("made/later/work"),
            ..MediaConfig::default()
        };
        (dir, config)
    }

    fn found<'a>(findings: &'a [Finding], what: &str) -> &'a Result<String, String> {
        &findings.iter().find(|finding| finding.what == what).unwrap_or_else(|| panic!("{findings:?}")).found
    }

    fn is_empty(folder: &Path) -> bool {
        folder.read_dir().unwrap().next().is_none()
    }

    #[tokio::test]
    async fn a_check_leaves_nothing_behind() {
        let (dir, config) = nowhere();
        let said = found(&check(&config, &["script"]).await, "artifact storage").clone();
        assert!(
            said.as_ref().is_ok_and(|said| said.contains("made/later/artifacts (not there yet)")),
            "{said:?}"
        );
        assert!(is_empty(dir.path()));
        let here = dir.path().join("here");
        std::fs::create_dir(&here).unwrap();
        let config = MediaConfig { artifacts: here.display().to_string(), work_dir: here.clone(), ..config };
        let said = found(&check(&config, &["script"]).await, "artifact storage").clone();
        assert!(
            said.as_ref().is_ok_and(|said| said.starts_with("file://") && said.ends_with("/here")),
            "{said:?}"
        );
        assert!(is_empty(&here));
    }

    #[tokio::test]
    async fn storage_that_cannot_be_written_is_said() {
        // Not even root makes a folder there, or below a file.
        let (dir, config) = nowhere();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for artifacts in ["/proc/longtake".to_owned(), format!("file://{}/artifacts", file.display())] {
            let config = MediaConfig { artifacts, ..config.clone() };
            let said = found(&check(&config, &["script"]).await, "configuration and storage").clone();
            assert!(
                said.as_ref().is_err_and(|said| said.contains("creating the artifact folder")),
                "{said:?}"
            );
        }
        let config = MediaConfig { artifacts: "/proc/self".to_owned(), ..config };
        let said = found(&check(&config, &["script"]).await, "artifact storage").clone();
        assert!(said.as_ref().is_err_and(|said| said.contains("writing")), "{said:?}");
    }

    #[tokio::test]
    async fn the_voice_is_heard_by_a_file_alone() {
        let (dir, config) = nowhere();
        let espeak = dir.path().join("espeak-ng");
        let script = "#!/bin/sh\ncase \" $* \" in *' -w word.wav '*) ;; *) echo 'no sound system' >&2; exit 1 ;; esac\n\
                      [ \"$(cat)\" = one ] && : >word.wav\n";
        std::fs::write(&espeak, script).unwrap();
        std::fs::set_permissions(&espeak, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = MediaConfig { espeak, ..config };
        let said = found(&check(&config, &["audio"]).await, "espeak-ng with its voice").clone();
        assert_eq!(said, Ok("en-us".to_owned()));
        let findings = check(&MediaConfig { espeak: "true".into(), ..config }, &["audio"]).await;
        assert!(found(&findings, "espeak-ng with its voice").is_err(), "it made no file: {findings:?}");
    }
}
