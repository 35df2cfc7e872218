//! The small things that many messages share.

use std::collections::{BTreeMap, HashMap};

use longtake_engine::definition::Modality;
use longtake_engine::money::Money;
use longtake_engine::run::{Artifact, Cause, Checkpoint, CheckpointData, Directive, Output, StepError};
use longtake_engine::time::{Duration, Timestamp};
use longtake_proto::convert as wire;
use longtake_proto::v1 as pb;
use prost_types::Struct;
use serde_json::{Map, Value};

pub(crate) fn time(at: Timestamp) -> prost_types::Timestamp {
    wire::timestamp_from_micros(at.micros())
}

pub(crate) fn time_from(at: &prost_types::Timestamp) -> Option<Timestamp> {
    wire::micros_from_timestamp(at).map(Timestamp)
}

pub(crate) fn span(span: Duration) -> prost_types::Duration {
    wire::duration_from_micros(span.micros())
}

pub(crate) fn money(amount: Money) -> pb::Money {
    pb::Money { nano_usd: amount.0 }
}

pub(crate) fn money_from(amount: &pb::Money) -> Money {
    Money(amount.nano_usd)
}

/// A JSON object as a Struct; anything else is an empty one.
pub(crate) fn object(value: &Value) -> Struct {
    value.as_object().map(wire::struct_from_map).unwrap_or_default()
}

pub(crate) fn json(fields: Option<Struct>) -> Value {
    Value::Object(fields.map_or_else(Map::new, wire::json_from_struct))
}

/// A modality in the contract.
pub fn modality_to_proto(modality: Modality) -> pb::Modality {
    match modality {
        Modality::Text => pb::Modality::Text,
        Modality::Audio => pb::Modality::Audio,
        Modality::Video => pb::Modality::Video,
        Modality::Images => pb::Modality::Images,
    }
}

/// A modality of the contract; none when unspecified or unknown.
pub fn modality_from_proto(modality: i32) -> Option<Modality> {
    match pb::Modality::try_from(modality).ok()? {
        pb::Modality::Unspecified => None,
        pb::Modality::Text => Some(Modality::Text),
        pb::Modality::Audio => Some(Modality::Audio),
        pb::Modality::Video => Some(Modality::Video),
        pb::Modality::Images => Some(Modality::Images),
    }
}

/// An artifact in the contract.
pub fn artifact_to_proto(artifact: &Artifact) -> pb::Artifact {
    pb::Artifact {
        name: artifact.name.clone(),
        uri: artifact.uri.clone(),
        sha256: artifact.sha256.clone(),
        size_bytes: artifact.size_bytes,
        media_type: artifact.media_type.clone(),
    }
}

/// An artifact of the contract, as it is.
pub fn artifact_from_proto(artifact: pb::Artifact) -> Artifact {
    let pb::Artifact { name, uri, sha256, size_bytes, media_type } = artifact;
    Artifact { name, uri, sha256, size_bytes, media_type }
}

pub(crate) fn artifacts(artifacts: &[Artifact]) -> Vec<pb::Artifact> {
    artifacts.iter().map(artifact_to_proto).collect()
}

pub(crate) fn artifacts_from(artifacts: Vec<pb::Artifact>) -> Vec<Artifact> {
    artifacts.into_iter().map(artifact_from_proto).collect()
}

/// A step's error in the contract.
pub fn error_to_proto(error: &StepError) -> pb::StepError {
    pb::StepError {
        code: error.code.clone(),
        message: error.message.clone(),
        retryable: error.retryable,
        details: wire::struct_from_json(error.details.clone()),
    }
}

/// A step's error of the contract.
pub fn step_error(error: pb::StepError) -> StepError {
    let pb::StepError { code, message, retryable, details } = error;
    let details = details.map_or(Value::Null, |details| Value::Object(wire::json_from_struct(details)));
    StepError { code, message, retryable, details }
}

pub(crate) fn output_from(output: Option<Struct>, artifacts: Vec<pb::Artifact>) -> Output {
    Output { data: json(output).into(), artifacts: artifacts_from(artifacts).into() }
}

pub(crate) fn checkpoint_data(checkpoint: &CheckpointData) -> (Struct, Vec<pb::Artifact>) {
    (object(&checkpoint.data), artifacts(&checkpoint.artifacts))
}

pub(crate) fn checkpoint(checkpoint: &Checkpoint, with_data: bool) -> pb::StoredCheckpoint {
    let (data, artifacts) = if with_data { checkpoint_data(&checkpoint.data) } else { Default::default() };
    pb::StoredCheckpoint {
        attempt: number(checkpoint.attempt),
        commit_time: Some(time(checkpoint.at)),
        checkpoint: Some(pb::Checkpoint {
            sequence: checkpoint.sequence,
            done: checkpoint.done,
            total: checkpoint.total,
            data: with_data.then_some(data),
            artifacts,
        }),
    }
}

pub(crate) fn directive(directive: Option<Directive>) -> pb::Directive {
    match directive {
        None => pb::Directive::Unspecified,
        Some(Directive::Cancel) => pb::Directive::Cancel,
        Some(Directive::Pause) => pb::Directive::Pause,
        Some(Directive::Yield) => pb::Directive::Yield,
    }
}

pub(crate) fn cause(cause: Cause) -> pb::attempt::Cause {
    match cause {
        Cause::Completed => pb::attempt::Cause::Completed,
        Cause::Failed => pb::attempt::Cause::Failed,
        Cause::Yielded => pb::attempt::Cause::Yielded,
        Cause::LeaseLost => pb::attempt::Cause::LeaseLost,
        Cause::DispatchTimeout => pb::attempt::Cause::DispatchTimeout,
        Cause::NoProgress => pb::attempt::Cause::NoProgress,
        Cause::AttemptTimeout => pb::attempt::Cause::AttemptTimeout,
        Cause::StepTimeout => pb::attempt::Cause::StepTimeout,
        Cause::Stopped => pb::attempt::Cause::Stopped,
    }
}

pub(crate) fn cause_from(cause: i32) -> Option<Cause> {
    Some(match pb::attempt::Cause::try_from(cause).ok()? {
        pb::attempt::Cause::Unspecified => return None,
        pb::attempt::Cause::Completed => Cause::Completed,
        pb::attempt::Cause::Failed => Cause::Failed,
        pb::attempt::Cause::Yielded => Cause::Yielded,
        pb::attempt::Cause::LeaseLost => Cause::LeaseLost,
        pb::attempt::Cause::DispatchTimeout => Cause::DispatchTimeout,
        pb::attempt::Cause::NoProgress => Cause::NoProgress,
        pb::attempt::Cause::AttemptTimeout => Cause::AttemptTimeout,
        pb::attempt::Cause::StepTimeout => Cause::StepTimeout,
        pb::attempt::Cause::Stopped => Cause::Stopped,
    })
}

/// Attempts and counts in messages.
pub(crate) fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(crate) fn map(pairs: &BTreeMap<String, String>) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}
