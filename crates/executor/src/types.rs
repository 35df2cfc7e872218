//! Plain forms of the contract's small messages.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use longtake_proto::convert::json_from_struct;
use longtake_proto::v1;

use crate::StepError;

/// A stored file. Serialises, so that checkpoint data may hold it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name within the step's output, such as `video.mp4`; unique there.
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// SHA-256 of its bytes: 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its media type, such as `video/mp4`.
    pub media_type: String,
}

/// What a needed step made.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Its output; none when it was skipped.
    pub output: Option<Map<String, Value>>,
    /// Its files.
    pub artifacts: Vec<Artifact>,
}

/// The committed checkpoint that an attempt starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct Previous<T> {
    /// What it holds.
    pub data: T,
    /// Files that it stands on.
    pub artifacts: Vec<Artifact>,
    /// How many units of work it holds.
    pub done: i64,
    /// How many there are in all; 0 when nobody knows.
    pub total: i64,
    /// The attempt that made it.
    pub attempt: i32,
    /// Its number within that attempt.
    pub sequence: i64,
}

/// What an executor is asked to do with a step. A later one of this list overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Directive {
    /// Checkpoint and give the step back: the executor drains, or another one should have it.
    Yield,
    /// Checkpoint and give the step back: the run is paused.
    Pause,
    /// Stop: the run is stopping.
    Cancel,
}

impl Need {
    /// Whether the step was skipped.
    pub fn is_skipped(&self) -> bool {
        self.output.is_none()
    }

    /// The output as `T`; none when the step was skipped.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<Option<T>, StepError> {
        let Some(output) = &self.output else { return Ok(None) };
        let parsed = serde_json::from_value(Value::Object(output.clone()));
        parsed.map(Some).map_err(|error| {
            StepError::permanent("NEED_INVALID", format!("the output of a needed step: {error}"))
        })
    }

    /// The file of this name.
    pub fn artifact(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == name)
    }
}

impl Directive {
    pub(crate) fn to_proto(self) -> v1::Directive {
        match self {
            Directive::Cancel => v1::Directive::Cancel,
            Directive::Pause => v1::Directive::Pause,
            Directive::Yield => v1::Directive::Yield,
        }
    }

    pub(crate) fn from_proto(directive: v1::Directive) -> Option<Directive> {
        match directive {
            v1::Directive::Unspecified => None,
            v1::Directive::Cancel => Some(Directive::Cancel),
            v1::Directive::Pause => Some(Directive::Pause),
            v1::Directive::Yield => Some(Directive::Yield),
        }
    }
}

impl From<v1::Artifact> for Artifact {
    fn from(artifact: v1::Artifact) -> Artifact {
        Artifact {
            name: artifact.name,
            uri: artifact.uri,
            sha256: artifact.sha256,
            size_bytes: u64::try_from(artifact.size_bytes).unwrap_or_default(),
            media_type: artifact.media_type,
        }
    }
}

impl From<Artifact> for v1::Artifact {
    fn from(artifact: Artifact) -> v1::Artifact {
        v1::Artifact {
            name: artifact.name,
            uri: artifact.uri,
            sha256: artifact.sha256,
            size_bytes: i64::try_from(artifact.size_bytes).unwrap_or(i64::MAX),
            media_type: artifact.media_type,
        }
    }
}

impl From<v1::StepOutput> for Need {
    fn from(output: v1::StepOutput) -> Need {
        let skipped = output.state() == v1::step::State::Skipped;
        let made = output.output.map(json_from_struct).unwrap_or_default();
        Need {
            output: (!skipped).then_some(made),
            artifacts: output.artifacts.into_iter().map(Artifact::from).collect(),
        }
    }
}
