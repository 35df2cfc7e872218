//! What an executor of the content steps can be told, and the bounds that it works within.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::error::MediaError;

/// What [`MediaConfig::video_jobs`] may be.
pub const VIDEO_JOBS: RangeInclusive<usize> = 1..=256;

/// How an executor makes content. [`MediaConfig::default`] works offline, with what a Debian machine installs.
#[derive(Debug, Clone)]
pub struct MediaConfig {
    /// `LONGTAKE_ARTIFACTS`: where artifacts are stored: a folder, `s3://…` or `gs://…`. The same for all executors.
    pub artifacts: String,
    /// `LONGTAKE_WORK_DIR`: where attempts keep files while they work; removed when they end.
    pub work_dir: PathBuf,
    /// `LONGTAKE_FFMPEG`: the program.
    pub ffmpeg: PathBuf,
    /// `LONGTAKE_FFPROBE`: the program.
    pub ffprobe: PathBuf,
    /// `LONGTAKE_ESPEAK`: the program, espeak-ng.
    pub espeak: PathBuf,
    /// `LONGTAKE_FONT`: a TrueType file for slides; DejaVu Sans is looked for when absent.
    pub font: Option<PathBuf>,
    /// `LONGTAKE_FONT_BOLD`: a TrueType file for titles; DejaVu Sans Bold is looked for when absent.
    pub font_bold: Option<PathBuf>,
    /// `LONGTAKE_SCRIPT_PROVIDER`: who writes scripts: `template`.
    pub script_provider: String,
    /// `LONGTAKE_AUDIO_PROVIDER`: who speaks: `espeak`.
    pub audio_provider: String,
    /// `LONGTAKE_VOICE`: the voice, by the audio provider's name for it.
    pub voice: String,
    /// `LONGTAKE_WORDS_PER_MINUTE`: how fast it speaks; 80 to 450.
    pub words_per_minute: u32,
    /// `LONGTAKE_VIDEO_JOBS`: how many segments this process renders at the same time, those of all its video steps together, each
    /// on one core; 1 to 256, as many as there are cores when absent.
    pub video_jobs: usize,
    /// What no input can exceed.
    pub limits: Limits,
}

/// Bounds on what one run can ask for. Checkpoints hold one artifact per scene and at most 64 KiB: that, with room for long
/// URIs, bounds the scenes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Scenes of one script, the closing one included.
    pub scenes: usize,
    /// Words of one scene: what fits on a slide and is spoken in some 17 seconds.
    pub words_per_scene: usize,
    /// Characters of one scene, for languages and texts without spaces.
    pub characters_per_scene: usize,
    /// Characters of a title.
    pub characters_per_title: usize,
    /// Bytes of a program's messages that an error quotes.
    pub stderr_bytes: usize,
    /// Bytes of a script or manifest that is read into memory.
    pub json_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            scenes: 80,
            words_per_scene: 45,
            characters_per_scene: 330,
            characters_per_title: 90,
            stderr_bytes: 2_000,
            json_bytes: 8 << 20,
        }
    }
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            artifacts: "artifacts".to_owned(),
            work_dir: std::env::temp_dir(),
            ffmpeg: "ffmpeg".into(),
            ffprobe: "ffprobe".into(),
            espeak: "espeak-ng".into(),
            font: None,
            font_bold: None,
            script_provider: "template".to_owned(),
            audio_provider: "espeak".to_owned(),
            voice: "en-us".to_owned(),
            words_per_minute: 155,
            video_jobs: cores().min(*VIDEO_JOBS.end()),
            limits: Limits::default(),
        }
    }
}

impl MediaConfig {
    /// The default, with what the environment says instead.
    ///
    /// # Errors
    /// [`MediaError::ConfigInvalid`], naming the variable, when a value cannot be used.
    pub fn from_env() -> Result<Self, MediaError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// The default, with what `lookup` knows instead. Empty values count as absent.
    ///
    /// # Errors
    /// As [`MediaConfig::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, MediaError> {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str, default: PathBuf| get(name).map_or(default, PathBuf::from);
        let base = Self::default();
        let config = Self {
            artifacts: get("LONGTAKE_ARTIFACTS").unwrap_or(base.artifacts),
            work_dir: path("LONGTAKE_WORK_DIR", base.work_dir),
            ffmpeg: path("LONGTAKE_FFMPEG", base.ffmpeg),
            ffprobe: path("LONGTAKE_FFPROBE", base.ffprobe),
            espeak: path("LONGTAKE_ESPEAK", base.espeak),
            font: get("LONGTAKE_FONT").map(PathBuf::from),
            font_bold: get("LONGTAKE_FONT_BOLD").map(PathBuf::from),
            script_provider: get("LONGTAKE_SCRIPT_PROVIDER").unwrap_or(base.script_provider),
            audio_provider: get("LONGTAKE_AUDIO_PROVIDER").unwrap_or(base.audio_provider),
            voice: get("LONGTAKE_VOICE").unwrap_or(base.voice),
            words_per_minute: number(
                "LONGTAKE_WORDS_PER_MINUTE",
                get("LONGTAKE_WORDS_PER_MINUTE"),
                base.words_per_minute,
            )?,
            video_jobs: number("LONGTAKE_VIDEO_JOBS", get("LONGTAKE_VIDEO_JOBS"), base.video_jobs)?,
            limits: base.limits,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks the values that types cannot.
    pub(crate) fn validate(&self) -> Result<(), MediaError> {
        let invalid = |setting, problem: String| Err(MediaError::ConfigInvalid { setting, problem });
        if !(80..=450).contains(&self.words_per_minute) {
            return invalid(
                "LONGTAKE_WORDS_PER_MINUTE",
                format!("is {}; 80 to 450 make sense", self.words_per_minute),
            );
        }
        if !VIDEO_JOBS.contains(&self.video_jobs) {
            return invalid(
                "LONGTAKE_VIDEO_JOBS",
                format!("is {}; it must be {} to {}", self.video_jobs, VIDEO_JOBS.start(), VIDEO_JOBS.end()),
            );
        }
        let letters = |c: char| c.is_ascii_alphanumeric() || "-+_".contains(c);
        if self.voice.is_empty() || self.voice.starts_with('-') || !self.voice.chars().all(letters) {
            return invalid("LONGTAKE_VOICE", format!("is `{}`; a voice is a name like `en-us`", self.voice));
        }
        Ok(())
    }
}

/// The cores that this process may use: what a container or an affinity mask leaves it.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn number<T: std::str::FromStr>(
    setting: &'static str,
    value: Option<String>,
    default: T,
) -> Result<T, MediaError> {
    let Some(value) = value else { return Ok(default) };
    value.parse().map_err(|_| MediaError::ConfigInvalid {
        setting,
        problem: format!("is `{value}`; it must be a whole number"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_the_defaults_and_bad_values_are_named() {
        let config = MediaConfig::from_lookup(|name| match name {
            "LONGTAKE_FFMPEG" => Some("/opt/ffmpeg".to_owned()),
            "LONGTAKE_VIDEO_JOBS" => Some("4".to_owned()),
            "LONGTAKE_VOICE" => Some(String::new()),
            _ => None,
        })
        .unwrap();
        assert_eq!(
            (config.ffmpeg, config.video_jobs, config.voice.as_str()),
            ("/opt/ffmpeg".into(), 4, "en-us")
        );

        let bad = [
            ("LONGTAKE_VIDEO_JOBS", "many"),
            ("LONGTAKE_VIDEO_JOBS", "0"),
            ("LONGTAKE_VIDEO_JOBS", "257"),
            ("LONGTAKE_WORDS_PER_MINUTE", "7"),
            ("LONGTAKE_VOICE", "-v evil"),
            ("LONGTAKE_VOICE", "../../etc/passwd"),
        ];
        for (setting, value) in bad {
            let error =
                MediaConfig::from_lookup(|name| (name == setting).then(|| value.to_owned())).unwrap_err();
            assert!(error.to_string().contains(setting), "{error}");
        }
    }
}
