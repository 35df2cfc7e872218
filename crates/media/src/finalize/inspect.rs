//! Opens a stored file and looks whether it is what its media type says.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::artifact::Kind;
use crate::error::MediaError;
use crate::job::is_of_kind;
use crate::script::Script;
use crate::timing::{Slot, seconds};
use crate::tool::Call;
use crate::wav::Wav;
use crate::{Artifact, Media, Need};

/// Containers round to their own units; more than this is a scene that is missing or cut.
const TOLERANCE_SECONDS: f64 = 0.1;

/// What the files of a step should be like.
pub(super) struct Expected<'a> {
    slots: &'a [Slot],
    /// Whether the step is one of ours, whose files last as long as all scenes together.
    ours: bool,
}

/// What a file turned out to be.
#[derive(Debug, Default)]
pub(super) struct Found {
    codecs: Vec<String>,
    seconds: Option<f64>,
    frames: Option<u64>,
    size: Option<(u64, u64)>,
}

impl<'a> Expected<'a> {
    pub(super) fn of(need: &Need, slots: &'a [Slot]) -> Self {
        let ours = |output| is_of_kind(output, "audio") || is_of_kind(output, "video");
        Self { slots, ours: need.output.as_ref().is_some_and(ours) && !slots.is_empty() }
    }

    fn all_ms(&self) -> u64 {
        self.slots.iter().map(|slot| slot.length_ms).sum()
    }
}

impl Found {
    pub(super) fn to_json(&self) -> Value {
        let mut found = json!({ "hash": true });
        if !self.codecs.is_empty() {
            found["codecs"] = json!(self.codecs);
        }
        if let Some(seconds) = self.seconds {
            found["seconds"] = json!(seconds);
        }
        if let Some(frames) = self.frames {
            found["frames"] = json!(frames);
        }
        if let Some((width, height)) = self.size {
            found["width"] = json!(width);
            found["height"] = json!(height);
        }
        found
    }
}

/// Verifies size and hash, then the content.
pub(super) async fn inspect(
    media: &Media,
    artifact: &Artifact,
    expected: &Expected<'_>,
    work: &Path,
) -> Result<Found, MediaError> {
    let invalid = |problem: String| MediaError::MediaInvalid { name: artifact.name.clone(), problem };
    let file = media.store.fetch(artifact, work).await?;
    let found = match artifact.media_type.as_str() {
        "audio/wav" => speech(&file, artifact, expected),
        kind if kind.starts_with("audio/") || kind.starts_with("video/") => {
            played(media, &file, artifact, expected).await
        }
        kind if kind.starts_with("image/") => probe(media, &file, artifact).await.map(Found::from),
        kind if kind == Kind::Vtt.media_type() => {
            let text = tokio::fs::read_to_string(&file).await.map_err(MediaError::io("reading", &file))?;
            let begins = text.starts_with("WEBVTT");
            begins.then(Found::default).ok_or_else(|| invalid("it does not begin with WEBVTT".to_owned()))
        }
        _ if artifact.name == "script.json" => {
            let bytes = media.store.read(artifact, media.config.limits.json_bytes).await?;
            Script::parse(&bytes).map(|_| Found::default())
        }
        _ => Ok(Found::default()),
    }?;
    // Copies of remote files go as soon as they were looked at: all of them together may be more than the disk holds.
    if file.starts_with(work) {
        tokio::fs::remove_file(&file).await.map_err(MediaError::io("removing", &file))?;
    }
    Ok(found)
}

/// One scene's speech: as long as its slot.
fn speech(file: &Path, artifact: &Artifact, expected: &Expected<'_>) -> Result<Found, MediaError> {
    let wav = Wav::read(file).map_err(MediaError::io("reading", file))?;
    let number = artifact.name.strip_prefix("scene-").and_then(|name| name.strip_suffix(".wav"));
    let index =
        number.and_then(|number| number.parse::<usize>().ok()).and_then(|number| number.checked_sub(1));
    let slot = index.and_then(|index| expected.slots.get(index)).filter(|_| expected.ours);
    if let Some(slot) = slot.filter(|slot| slot.length_ms != wav.millis()) {
        return Err(MediaError::MediaInvalid {
            name: artifact.name.clone(),
            problem: format!("it lasts {} ms, its scene {} ms", wav.millis(), slot.length_ms),
        });
    }
    Ok(Found {
        codecs: vec!["pcm_s16le".to_owned()],
        seconds: Some(seconds(wav.millis())),
        ..Found::default()
    })
}

/// Sound or video, decoded to its end: the codecs that everybody plays, and the length of all scenes together.
async fn played(
    media: &Media,
    file: &Path,
    artifact: &Artifact,
    expected: &Expected<'_>,
) -> Result<Found, MediaError> {
    let invalid = |problem: String| Err(MediaError::MediaInvalid { name: artifact.name.clone(), problem });
    let found = Found::from(probe(media, file, artifact).await?);
    if !expected.ours {
        return Ok(found);
    }
    let video = artifact.media_type.starts_with("video/");
    let codecs: &[&str] = if video { &["h264", "aac"] } else { &["aac"] };
    if found.codecs != codecs {
        return invalid(format!("its streams are {:?}, not {codecs:?}", found.codecs));
    }
    let (is, should) = (found.seconds.unwrap_or_default(), seconds(expected.all_ms()));
    if (is - should).abs() > TOLERANCE_SECONDS {
        return invalid(format!("it lasts {is:.2} s, its scenes {should:.2} s together"));
    }
    let frames = expected.all_ms() * crate::video::FRAMES_PER_SECOND / 1_000;
    if video && found.frames != Some(frames) {
        return invalid(format!("{} of {frames} pictures can be decoded", found.frames.unwrap_or_default()));
    }
    Ok(found)
}

/// What ffprobe prints.
#[derive(Debug, Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Default, Deserialize)]
struct Format {
    duration: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    codec_name: Option<String>,
    codec_type: Option<String>,
    width: Option<u64>,
    height: Option<u64>,
    nb_read_frames: Option<String>,
}

impl From<Probe> for Found {
    fn from(probe: Probe) -> Self {
        let video = probe.streams.iter().find(|stream| stream.codec_type.as_deref() == Some("video"));
        Self {
            codecs: probe.streams.iter().filter_map(|stream| stream.codec_name.clone()).collect(),
            seconds: probe.format.duration.and_then(|duration| duration.parse().ok()),
            frames: video.and_then(|video| video.nb_read_frames.as_ref()?.parse().ok()),
            size: video.and_then(|video| Some((video.width?, video.height?))),
        }
    }
}

/// Decodes every stream to its end.
async fn probe(media: &Media, file: &Path, artifact: &Artifact) -> Result<Probe, MediaError> {
    let invalid = |problem: String| MediaError::MediaInvalid { name: artifact.name.clone(), problem };
    let Some(path) = file.to_str() else { return Err(invalid("its path is not valid Unicode".to_owned())) };
    let mut arguments: Vec<String> = "-v error -count_frames -of json -show_entries \
        format=duration:stream=codec_name,codec_type,width,height,nb_read_frames"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    arguments.push(format!("file:{path}"));
    let call = Call {
        tool: &media.ffprobe(),
        doing: format!("to decode {}", artifact.name),
        folder: Path::new("."),
        arguments,
        stdin: None,
    };
    let printed = call.output().await.map_err(|error| match error {
        // The bytes are those that were stored, so another attempt would read the same.
        MediaError::ToolFailed { stderr, .. } => invalid(format!("it cannot be decoded: {stderr}")),
        other => other,
    })?;
    let probe: Probe = serde_json::from_str(&printed)
        .map_err(|error| invalid(format!("ffprobe printed what is not understood: {error}")))?;
    if probe.streams.is_empty() {
        return Err(invalid("it holds neither sound nor pictures".to_owned()));
    }
    Ok(probe)
}
