//! What this machine has of what the content steps need, and the command that installs what it lacks.

use std::path::Path;

use crate::font::Fonts;
use crate::tool::{Call, Tool};
use crate::{Media, MediaConfig, MediaError, Step};

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
    let media = match Media::open(config.clone()) {
        Ok(media) => media,
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
        found: Ok(media.store().root().to_owned()),
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

/// Speaks nothing, with the configured voice.
async fn voice(media: &Media) -> Result<String, MediaError> {
    let voice = media.config.voice.as_str();
    ask(&media.espeak(), &["-v", voice, "-q", "--stdin"]).await.map(|_| voice.to_owned())
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
