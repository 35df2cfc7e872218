//! What can go wrong in a content step, whether another attempt could help, and the stable code that operators see.

use std::path::PathBuf;

/// Why a content step failed.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The run's input cannot be worked on.
    #[error("the run's input: `{field}` {problem}")]
    InputInvalid {
        /// The field, as it is called in the input.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The configuration cannot be used.
    #[error("configuration: `{setting}` {problem}")]
    ConfigInvalid {
        /// The environment variable or setting.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The configuration names a provider that this build does not have.
    #[error("the {step} step has no provider `{name}`; known: {known}")]
    ProviderUnknown {
        /// The step.
        step: &'static str,
        /// What the configuration asks for.
        name: String,
        /// What there is, separated by commas.
        known: String,
    },
    /// The definition runs this step without the step that it works from.
    #[error("this step needs the output of a {kind} step: add it to `needs` in the workflow's definition")]
    NeedMissing {
        /// The kind of step: script, audio or video.
        kind: &'static str,
    },
    /// A needed step's output is there, but not as this version writes it.
    #[error("the output of the {kind} step cannot be read: {problem}")]
    NeedInvalid {
        /// The kind of step.
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A program is not installed where the configuration says.
    #[error("cannot start `{program}`: {source}; install it with `{install}`, or set {variable}")]
    ToolMissing {
        /// The program, as configured.
        program: PathBuf,
        /// The environment variable that names it.
        variable: &'static str,
        /// The command that installs it.
        install: &'static str,
        /// Why it cannot be started.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{tool} failed {doing} ({status}): {stderr}")]
    ToolFailed {
        /// ffmpeg, ffprobe or espeak-ng.
        tool: &'static str,
        /// What it was doing.
        doing: String,
        /// How it ended.
        status: String,
        /// The end of what it said, bounded.
        stderr: String,
    },
    /// No font was found, or it cannot be read.
    #[error("no usable font: {problem}; install one with `{install}`, or set LONGTAKE_FONT")]
    FontMissing {
        /// What was tried.
        problem: String,
        /// The command that installs one.
        install: &'static str,
    },
    /// A stored file is not there.
    #[error("artifact `{name}` is missing: nothing is stored at {uri}")]
    ArtifactMissing {
        /// Its name within its step.
        name: String,
        /// Where it should be.
        uri: String,
    },
    /// A stored file is not what was stored.
    #[error("artifact `{name}` at {uri} is damaged: {problem}")]
    ArtifactDamaged {
        /// Its name within its step.
        name: String,
        /// Where it is.
        uri: String,
        /// What differs.
        problem: String,
    },
    /// An artifact lies outside the storage of this executor.
    #[error(
        "artifact `{name}` at {uri} is not in this executor's storage {root}; give all executors the same one"
    )]
    ArtifactForeign {
        /// Its name within its step.
        name: String,
        /// Where it is.
        uri: String,
        /// What this executor stores to.
        root: String,
    },
    /// A file is what was stored, but it is not the media that it should be.
    #[error("artifact `{name}` is not valid: {problem}")]
    MediaInvalid {
        /// Its name within its step.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that was requested was not made.
    #[error("`{modality}` was requested, but no finished step made it: the workflow's steps made {made}")]
    ModalityMissing {
        /// The modality.
        modality: String,
        /// What was made, separated by commas.
        made: String,
    },
    /// The storage refused or could not be reached.
    #[error("storage, {doing}: {source}")]
    Storage {
        /// What was tried.
        doing: String,
        /// What it answered.
        source: object_store::Error,
    },
    /// A local file or folder.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The server refused a checkpoint, for example because it is too large.
    #[error("the checkpoint was not accepted: {0}")]
    Checkpoint(String),
}

impl MediaError {
    /// A stable name of this kind of failure, for programs and statistics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InputInvalid { .. } => "INPUT_INVALID",
            Self::ConfigInvalid { .. } => "CONFIG_INVALID",
            Self::ProviderUnknown { .. } => "PROVIDER_UNKNOWN",
            Self::NeedMissing { .. } => "NEED_MISSING",
            Self::NeedInvalid { .. } => "NEED_INVALID",
            Self::ToolMissing { .. } => "TOOL_MISSING",
            Self::ToolFailed { .. } => "TOOL_FAILED",
            Self::FontMissing { .. } => "FONT_MISSING",
            Self::ArtifactMissing { .. } => "ARTIFACT_MISSING",
            Self::ArtifactDamaged { .. } => "ARTIFACT_DAMAGED",
            Self::ArtifactForeign { .. } => "ARTIFACT_FOREIGN",
            Self::MediaInvalid { .. } => "MEDIA_INVALID",
            Self::ModalityMissing { .. } => "MODALITY_MISSING",
            Self::Storage { .. } => "STORAGE_FAILED",
            Self::Io { .. } => "IO_FAILED",
            Self::Checkpoint(_) => "CHECKPOINT_INVALID",
        }
    }

    /// Whether another attempt, here or on another machine, could succeed without anybody changing the run's input or the
    /// definition. What a machine lacks (a program, a font, a mount, a provider) another machine may have.
    pub fn retryable(&self) -> bool {
        match self {
            Self::InputInvalid { .. }
            | Self::NeedMissing { .. }
            | Self::NeedInvalid { .. }
            | Self::ArtifactDamaged { .. }
            | Self::MediaInvalid { .. }
            | Self::ModalityMissing { .. }
            | Self::Checkpoint(_) => false,
            Self::ConfigInvalid { .. }
            | Self::ProviderUnknown { .. }
            | Self::ToolMissing { .. }
            | Self::ToolFailed { .. }
            | Self::FontMissing { .. }
            | Self::ArtifactMissing { .. }
            | Self::ArtifactForeign { .. }
            | Self::Storage { .. }
            | Self::Io { .. } => true,
        }
    }

    pub(crate) fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
