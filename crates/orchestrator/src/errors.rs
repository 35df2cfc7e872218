//! What callers are told when something was refused: one place that maps reasons to gRPC codes and details.

use longtake_engine::command::Refusal;
use longtake_engine::lane::Failure;
use longtake_proto::v1::{self as pb, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::codec::DecodeError;

/// Names this service in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "longtake";
/// When an overloaded server wants to be asked again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(500);
/// Errors travel in headers, of which clients read 8 KiB: bytes of the message, and fields that are named.
const MESSAGE_BYTES: usize = 1_024;
const FIELDS: usize = 16;

/// A refusal on its way to a caller, as an error of the call or as the verdict on one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Which of the closed set.
    pub reason: Reason,
    /// What happened, to what, and what to do.
    pub message: String,
    /// Fields that are out of their bounds, and the bounds.
    pub fields: Vec<(String, String)>,
    superseded: Option<(u32, longtake_engine::time::Timestamp)>,
}

impl Refused {
    /// A refusal without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Refused {
        Refused { reason, message: message.into(), fields: Vec::new(), superseded: None }
    }

    /// A refusal for one field and what is wrong with it.
    pub fn field(reason: Reason, field: &str, bound: impl Into<String>) -> Refused {
        let bound = bound.into();
        Refused::new(reason, format!("{field}: {bound}")).with_fields(vec![(field.to_owned(), bound)])
    }

    /// The same, naming fields and their bounds.
    pub fn with_fields(self, fields: Vec<(String, String)>) -> Refused {
        Refused { fields, ..self }
    }

    /// The gRPC code of its reason.
    pub fn code(&self) -> Code {
        match self.reason {
            Reason::Unspecified | Reason::LeaseEnded => Code::Ok,
            Reason::LeaseSuperseded | Reason::RunStopped | Reason::RunState | Reason::DeadlinePassed => {
                Code::FailedPrecondition
            }
            Reason::LeaseUnknown | Reason::RunUnknown | Reason::WorkflowUnknown | Reason::StepUnknown => {
                Code::NotFound
            }
            Reason::CheckpointTooLarge
            | Reason::OutputInvalid
            | Reason::ErrorTooLarge
            | Reason::FieldInvalid
            | Reason::PageTokenInvalid
            | Reason::ModalityNotProduced => Code::InvalidArgument,
            Reason::RequestIdReused => Code::AlreadyExists,
            Reason::Overloaded => Code::ResourceExhausted,
            Reason::Unavailable => Code::Unavailable,
            Reason::Internal => Code::Internal,
        }
    }

    /// The verdict on one item.
    pub fn verdict(&self) -> pb::Verdict {
        pb::Verdict {
            code: self.code().into(),
            reason: self.reason.into(),
            message: self.message.clone(),
            current_attempt: self
                .superseded
                .map_or(0, |(attempt, _)| i32::try_from(attempt).unwrap_or(i32::MAX)),
            superseded_time: self.superseded.map(|(_, since)| crate::codec::time(since)),
        }
    }
}

/// A verdict that accepts: `fresh` is false when the attempt's own report was in before.
pub fn accepted(fresh: bool) -> pb::Verdict {
    if fresh {
        return pb::Verdict::default();
    }
    Refused::new(Reason::LeaseEnded, "this attempt's report is in already; the first verdict stands")
        .verdict()
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        let mut details = ErrorDetails::new();
        let reason = refused.reason.as_str_name().trim_start_matches("REASON_");
        let mut metadata = std::collections::HashMap::new();
        if let Some((attempt, since)) = refused.superseded {
            metadata.insert("current_attempt".to_owned(), attempt.to_string());
            metadata.insert("superseded_micros".to_owned(), since.micros().to_string());
        }
        details.set_error_info(reason, DOMAIN, metadata);
        for (field, bound) in refused.fields.iter().take(FIELDS) {
            details.add_bad_request_violation(field, bound);
        }
        if refused.reason == Reason::Overloaded {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        Status::with_error_details(refused.code(), shortened(&refused.message), details)
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(MESSAGE_BYTES);
    format!("{}…", &message[..end])
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        let message = refusal.to_string();
        let (reason, superseded) = match refusal {
            Refusal::RunUnknown(_) => (Reason::RunUnknown, None),
            Refusal::ContentDiffers(_) => (Reason::RequestIdReused, None),
            Refusal::NotReady => (Reason::RunState, None),
            Refusal::LeaseSuperseded { current, since, .. } => {
                (Reason::LeaseSuperseded, Some((current, since)))
            }
            Refusal::LeaseUnknown => (Reason::LeaseUnknown, None),
            Refusal::RunStopped => (Reason::RunStopped, None),
            Refusal::WrongState(_) => (Reason::RunState, None),
            Refusal::DeadlinePassed(_) => (Reason::DeadlinePassed, None),
            Refusal::DeadlineMissing(_) => {
                let field = ("deadline".to_owned(), message.clone());
                return Refused::new(Reason::FieldInvalid, message).with_fields(vec![field]);
            }
            Refusal::StepUnknown(_) => (Reason::StepUnknown, None),
        };
        Refused { superseded, ..Refused::new(reason, message) }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Overloaded => Refused::new(
                Reason::Overloaded,
                "too many submits are waiting: try again after the delay in RetryInfo",
            ),
            Failure::Storage(why) => {
                // The text names tables and constraints: for the log, not for callers.
                tracing::error!(%why, "the database refused a write");
                Refused::new(
                    Reason::Internal,
                    "the database refused to store this; nothing was done, and the server's log says why",
                )
            }
        }
    }
}

impl From<longtake_store::Error> for Refused {
    fn from(error: longtake_store::Error) -> Refused {
        tracing::error!(%error, "a read from the database failed");
        Refused::new(Reason::Unavailable, "the database cannot be reached: try again in a moment")
    }
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Refused {
        tracing::error!(%error, "a stored run cannot be read");
        Refused::new(Reason::Internal, error.to_string())
    }
}

/// The server is stopping.
pub fn stopping() -> Refused {
    Refused::new(
        Reason::Unavailable,
        "this server is stopping: try again, on another address if there is one",
    )
}
