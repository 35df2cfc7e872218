//! Every bound of the contract, checked before anything is stored. A call with five mistakes is told of all five.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use longtake_engine::command::NewCheckpoint;
use longtake_engine::definition::Modality;
use longtake_engine::ids::{BadLeaseToken, LeaseToken, RequestId, RunId, SessionId};
use longtake_engine::lane::Progress;
use longtake_engine::money::Money;
use longtake_engine::retry::MAX_RETRY_AFTER;
use longtake_engine::run::{CheckpointData, Output, StepError};
use longtake_engine::time::{Duration, Timestamp};
use longtake_proto::convert as wire;
use longtake_proto::v1::{self as pb, Reason};
use prost_types::Struct;
use serde_json::Value;
use uuid::Uuid;

use crate::codec;
use crate::errors::Refused;

/// Bytes of a run's input, as JSON.
pub const INPUT_BYTES: usize = 256 * 1024;
/// Bytes of an output or a checkpoint, with its artifacts, as JSON.
pub const OUTPUT_BYTES: usize = 64 * 1024;
/// Bytes of a step's error.
pub const ERROR_BYTES: usize = 8 * 1024;
/// Nesting of JSON.
pub const DEPTH: usize = 32;
/// Labels of a run.
pub const LABELS: usize = 32;
/// Artifacts of an output or a checkpoint.
pub const ARTIFACTS: usize = 1_000;
/// The farthest deadline: a hundred years of microseconds.
const FARTHEST: i64 = 100 * 366 * 86_400 * 1_000_000;

/// What is wrong with a request, gathered.
#[derive(Debug, Default)]
pub struct Problems {
    fields: Vec<(String, String)>,
}

impl Problems {
    /// Notes a field that is out of its bounds.
    pub fn add(&mut self, field: impl Into<String>, bound: impl Into<String>) {
        self.fields.push((field.into(), bound.into()));
    }

    /// Notes the field unless `holds`.
    pub fn check(&mut self, holds: bool, field: &str, bound: &str) {
        if !holds {
            self.add(field, bound);
        }
    }

    /// Refuses if anything was noted.
    pub fn finish(self) -> Result<(), Refused> {
        self.finish_as(Reason::FieldInvalid)
    }

    fn finish_as(self, reason: Reason) -> Result<(), Refused> {
        if self.fields.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> =
            self.fields.iter().map(|(field, bound)| format!("{field}: {bound}")).collect();
        Err(Refused::new(reason, listed.join("; ")).with_fields(self.fields))
    }

    /// Text of `min` to `max` characters, without U+0000.
    pub fn text(&mut self, field: &str, text: &str, min: usize, max: usize) {
        let length = text.chars().count();
        if length < min || length > max {
            self.add(field, format!("must have {min} to {max} characters, has {length}"));
        }
        self.check(!text.contains('\0'), field, "must not contain U+0000");
    }

    /// A UUID; `None` is noted.
    pub fn uuid(&mut self, field: &str, text: &str) -> Option<Uuid> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.add(field, "must be a UUID such as 0190a3c2-8f3a-7c52-9d1e-0242ac120002");
        }
        parsed
    }

    /// A request id: a UUID, or a fresh one when empty.
    pub fn request_id(&mut self, text: &str) -> RequestId {
        if text.is_empty() {
            return RequestId(Uuid::now_v7());
        }
        RequestId(self.uuid("request_id", text).unwrap_or_default())
    }

    /// Labels within their bounds.
    pub fn labels(&mut self, labels: HashMap<String, String>) -> BTreeMap<String, String> {
        self.check(labels.len() <= LABELS, "labels", "at most 32");
        for (key, value) in &labels {
            self.text("labels.key", key, 1, 63);
            self.text("labels.value", value, 0, 200);
        }
        labels.into_iter().collect()
    }

    /// A priority within its bounds.
    pub fn priority(&mut self, priority: i32) {
        self.check((-100..=100).contains(&priority), "priority", "must be between -100 and 100");
    }

    /// A time that lies ahead, if there is one.
    pub fn deadline(&mut self, time: Option<&prost_types::Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let time = time?;
        let Some(at) = codec::time_from(time) else {
            self.add("deadline", "is not a valid time");
            return None;
        };
        self.check(at > now, "deadline", "must lie ahead");
        self.check(at.micros() - now.micros() < FARTHEST, "deadline", "must be within 100 years");
        Some(at)
    }

    /// A span of zero to `max`; absent is zero.
    pub fn span(&mut self, field: &str, span: Option<&prost_types::Duration>, max: Duration) -> Duration {
        let Some(span) = span else { return Duration::ZERO };
        match wire::micros_from_duration(span) {
            Some(micros) if (0..=max.micros()).contains(&micros) => Duration(micros),
            _ => {
                self.add(field, format!("must be between 0s and {max}"));
                Duration::ZERO
            }
        }
    }

    /// A page size: the default for 0, cut at 1,000.
    pub fn page_size(&mut self, size: i32, default: usize) -> usize {
        self.check(size >= 0, "page_size", "must not be negative");
        match usize::try_from(size) {
            Ok(0) | Err(_) => default,
            Ok(size) => size.min(1_000),
        }
    }

    /// Modalities without repetition; unspecified and unknown ones are noted.
    pub fn modalities(&mut self, field: &str, modalities: &[i32]) -> Vec<Modality> {
        let mut known = Vec::new();
        for modality in modalities {
            match codec::modality_from_proto(*modality) {
                None => {
                    self.add(field, format!("{modality} is no modality: use TEXT, AUDIO, VIDEO or IMAGES"));
                }
                Some(modality) if known.contains(&modality) => {
                    self.add(field, format!("{} is named twice", modality.as_str().to_uppercase()));
                }
                Some(modality) => known.push(modality),
            }
        }
        known
    }

    /// A JSON object within its bounds.
    pub fn json(&mut self, field: &str, value: Option<Struct>, max: usize) -> Value {
        let value = value.unwrap_or_default();
        if let Some(problem) = struct_problem(&value) {
            self.add(field, problem);
            return Value::Object(serde_json::Map::new());
        }
        let bytes = prost::Message::encoded_len(&value);
        let value = Value::Object(wire::json_from_struct(value));
        // JSON is at most six times as long as the message (an escaped character): most need not be written to be measured.
        let size = if bytes <= max / 6 { 0 } else { value.to_string().len() };
        if size > max {
            self.add(field, format!("must be at most {max} bytes as JSON, has {size}"));
        }
        value
    }

    fn artifacts(&mut self, artifacts: &[pb::Artifact]) {
        self.check(artifacts.len() <= ARTIFACTS, "artifacts", "at most 1000");
        let mut names = std::collections::BTreeSet::new();
        for artifact in artifacts {
            self.text("artifacts.name", &artifact.name, 1, 200);
            self.text("artifacts.uri", &artifact.uri, 1, 2_048);
            self.text("artifacts.media_type", &artifact.media_type, 1, 200);
            let hash = artifact.sha256.len() == 64
                && artifact.sha256.bytes().all(|b| b"0123456789abcdef".contains(&b));
            self.check(hash, "artifacts.sha256", "must be 64 lower-case hexadecimal digits");
            self.check(artifact.size_bytes >= 0, "artifacts.size_bytes", "must not be negative");
            self.check(names.insert(&artifact.name), "artifacts.name", "must be unique within one list");
        }
    }

    fn money(&mut self, cost: Option<&pb::Money>) -> Option<Money> {
        let cost = codec::money_from(cost?);
        self.check(
            (Money::ZERO..=Money::MAX).contains(&cost),
            "cost",
            "must be between 0 and a million dollars (10^15 nano_usd)",
        );
        Some(cost)
    }
}

/// What makes a Struct unfit to be stored as JSON.
fn struct_problem(value: &Struct) -> Option<&'static str> {
    const TOO_DEEP: Option<&str> = Some("must not be nested deeper than 32");
    /// A value in so many objects and lists.
    fn within(value: &prost_types::Value, depth: usize) -> Option<&'static str> {
        use prost_types::value::Kind;
        match value.kind.as_ref()? {
            Kind::NullValue(_) | Kind::BoolValue(_) => None,
            Kind::NumberValue(number) => {
                (!number.is_finite()).then_some("must not contain NaN or infinities")
            }
            Kind::StringValue(text) => text.contains('\0').then_some("must not contain U+0000"),
            Kind::StructValue(_) | Kind::ListValue(_) if depth >= DEPTH => TOO_DEEP,
            Kind::StructValue(fields) => object(fields, depth),
            Kind::ListValue(list) => list.values.iter().find_map(|value| within(value, depth + 1)),
        }
    }
    fn object(fields: &Struct, depth: usize) -> Option<&'static str> {
        fields.fields.iter().find_map(|(key, value)| {
            let nul = key.contains('\0').then_some("must not contain U+0000");
            nul.or_else(|| within(value, depth + 1))
        })
    }
    object(value, 0)
}

/// A run's id.
pub fn run_id(text: &str) -> Result<RunId, Refused> {
    let mut problems = Problems::default();
    let id = problems.uuid("run_id", text);
    problems.finish()?;
    Ok(RunId(id.unwrap_or_default()))
}

/// A session's id.
pub fn session_id(text: &str) -> Result<SessionId, Refused> {
    let mut problems = Problems::default();
    let id = problems.uuid("session_id", text);
    problems.finish()?;
    Ok(SessionId(id.unwrap_or_default()))
}

/// A lease token: text that is none was never granted.
pub fn lease_token(text: &str) -> Result<LeaseToken, Refused> {
    text.parse().map_err(|error: BadLeaseToken| Refused::new(Reason::LeaseUnknown, error.to_string()))
}

/// An output with its artifacts; what cannot be stored is OUTPUT_INVALID.
pub fn output(output: Option<Struct>, artifacts: Vec<pb::Artifact>) -> Result<Output, Refused> {
    let mut problems = Problems::default();
    let data = problems.json("output", output, OUTPUT_BYTES);
    problems.artifacts(&artifacts);
    let size = data.to_string().len() + artifact_bytes(&artifacts);
    problems.check(
        size <= OUTPUT_BYTES,
        "output",
        "output and artifacts must be at most 65536 bytes together",
    );
    problems.finish_as(Reason::OutputInvalid)?;
    let artifacts = artifacts.into_iter().map(codec::artifact_from_proto).collect::<Vec<_>>();
    Ok(Output { data: Arc::new(data), artifacts: artifacts.into() })
}

fn artifact_bytes(artifacts: &[pb::Artifact]) -> usize {
    artifacts.iter().map(|a| a.name.len() + a.uri.len() + a.sha256.len() + a.media_type.len() + 32).sum()
}

/// A checkpoint; one above its bounds is CHECKPOINT_TOO_LARGE.
pub fn checkpoint(checkpoint: pb::Checkpoint) -> Result<NewCheckpoint, Refused> {
    let pb::Checkpoint { sequence, done, total, data, artifacts } = checkpoint;
    let mut problems = Problems::default();
    problems.check(sequence >= 1, "checkpoint.sequence", "must be at least 1");
    problems.check(done >= 0, "checkpoint.done", "must not be negative");
    problems.check(total >= 0, "checkpoint.total", "must not be negative");
    problems.finish()?;
    let mut problems = Problems::default();
    let data = problems.json("checkpoint.data", data, OUTPUT_BYTES);
    problems.artifacts(&artifacts);
    let size = data.to_string().len() + artifact_bytes(&artifacts);
    problems.check(
        size <= OUTPUT_BYTES,
        "checkpoint",
        "data and artifacts must be at most 65536 bytes together",
    );
    problems.finish_as(Reason::CheckpointTooLarge)?;
    let artifacts = artifacts.into_iter().map(codec::artifact_from_proto).collect();
    Ok(NewCheckpoint { sequence, done, total, data: Arc::new(CheckpointData { data, artifacts }) })
}

/// Progress within its bounds.
pub fn progress(progress: pb::Progress) -> Result<Progress, Refused> {
    let pb::Progress { done, total, message } = progress;
    let mut problems = Problems::default();
    problems.check(done >= 0, "progress.done", "must not be negative");
    problems.check(total >= 0, "progress.total", "must not be negative");
    problems.text("progress.message", &message, 0, 200);
    problems.finish()?;
    Ok(Progress { done, total, message })
}

/// A step's error; one above its bounds is ERROR_TOO_LARGE.
pub fn error(error: Option<pb::StepError>) -> Result<StepError, Refused> {
    let error = error.unwrap_or_default();
    let mut problems = Problems::default();
    let code = !error.code.is_empty()
        && error.code.len() <= 63
        && error.code.starts_with(|c: char| c.is_ascii_uppercase())
        && error.code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    problems.check(code, "error.code", "must be 1 to 63 characters of UPPER_SNAKE_CASE");
    problems.check(!error.message.contains('\0'), "error.message", "must not contain U+0000");
    if let Some(problem) = error.details.as_ref().and_then(struct_problem) {
        problems.add("error.details", problem);
    }
    problems.finish()?;
    let details = error.details.clone().map_or(0, |details| codec::json(Some(details)).to_string().len());
    if error.code.len() + error.message.len() + details > ERROR_BYTES {
        let bound = format!("must be at most {ERROR_BYTES} bytes: send a shorter message or fewer details");
        return Err(Refused::field(Reason::ErrorTooLarge, "error", bound));
    }
    Ok(codec::step_error(error))
}

/// A reported cost.
pub fn cost(cost: Option<&pb::Money>) -> Result<Option<Money>, Refused> {
    let mut problems = Problems::default();
    let cost = problems.money(cost);
    problems.finish()?;
    Ok(cost)
}

/// The delay that an executor asks for.
pub fn retry_after(span: Option<&prost_types::Duration>) -> Result<Option<Duration>, Refused> {
    let mut problems = Problems::default();
    let asked = problems.span("retry_after", span, MAX_RETRY_AFTER);
    problems.finish()?;
    Ok(span.map(|_| asked))
}

/// Why, for people.
pub fn reason(text: &str) -> Result<String, Refused> {
    let mut problems = Problems::default();
    problems.text("reason", text, 0, 1_000);
    problems.finish()?;
    Ok(text.to_owned())
}
