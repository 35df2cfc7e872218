//! Stored events into what the engine folds.

use std::sync::Arc;

use longtake_engine::definition::{Version, Workflow};
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{RequestId, RunId, SecretHash, SessionId, StepNo};
use longtake_engine::money::Money;
use longtake_engine::run::{Cause, Checkpoint, NewRun, Outcome, ReportKind, StepError};
use longtake_engine::time::Timestamp;
use longtake_proto::v1 as pb;
use longtake_proto::v1::event::Kind;
use prost::Message;
use uuid::Uuid;

use super::parts;

/// A stored event cannot be read: the database holds something that this binary does not know.
#[derive(Debug, thiserror::Error)]
#[error(
    "event {number} cannot be read ({what}): it was written by a newer binary, or the history is damaged"
)]
pub struct DecodeError {
    /// The event's number, as far as it is known.
    pub number: i64,
    /// What is wrong.
    pub what: &'static str,
}

/// The messages of one stored row.
pub fn decode_events(mut bytes: &[u8]) -> Result<Vec<pb::Event>, DecodeError> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let number = events.last().map_or(0, |event: &pb::Event| event.number);
        let event = pb::Event::decode_length_delimited(&mut bytes)
            .map_err(|_| DecodeError { number: number + 1, what: "not an Event message" })?;
        events.push(event);
    }
    Ok(events)
}

/// An event as the engine folds it. The data of a checkpoint is not in it: see the store.
pub fn event_from_proto(workflow: &Workflow, event: pb::Event) -> Result<Event, DecodeError> {
    let number = event.number;
    let at = event.time.as_ref().and_then(parts::time_from).ok_or(DecodeError { number, what: "no time" })?;
    let reader = Reader { workflow, number, at };
    let kind = reader.kind(reader.need(event.kind, "unknown kind")?)?;
    Ok(Event { number, at, kind })
}

/// The version of the workflow that a history belongs to: its first event names it.
pub fn version_of(first: &pb::Event) -> Result<Version, DecodeError> {
    let broken = DecodeError { number: first.number, what: "the first event is not RunCreated" };
    match &first.kind {
        Some(Kind::RunCreated(created)) => created.workflow_version.parse().map_err(|_| broken),
        _ => Err(broken),
    }
}

struct Reader<'a> {
    workflow: &'a Workflow,
    number: i64,
    at: Timestamp,
}

impl Reader<'_> {
    fn need<T>(&self, value: Option<T>, what: &'static str) -> Result<T, DecodeError> {
        value.ok_or(DecodeError { number: self.number, what })
    }

    fn step(&self, name: &str) -> Result<StepNo, DecodeError> {
        self.need(self.workflow.step(name).map(|(number, _)| number), "unknown step")
    }

    fn uuid(&self, text: &str) -> Result<Uuid, DecodeError> {
        self.need(text.parse().ok(), "not a UUID")
    }

    fn call(&self, text: &str) -> Result<Option<RequestId>, DecodeError> {
        if text.is_empty() { Ok(None) } else { Ok(Some(RequestId(self.uuid(text)?))) }
    }

    fn time(&self, time: Option<&prost_types::Timestamp>) -> Result<Timestamp, DecodeError> {
        self.need(time.and_then(parts::time_from), "no time")
    }

    fn outcome(&self, state: i32) -> Result<Outcome, DecodeError> {
        match pb::run::State::try_from(state) {
            Ok(pb::run::State::Succeeded) => Ok(Outcome::Succeeded),
            Ok(pb::run::State::Failed) => Ok(Outcome::Failed),
            Ok(pb::run::State::TimedOut) => Ok(Outcome::TimedOut),
            Ok(pb::run::State::Cancelled) => Ok(Outcome::Cancelled),
            _ => Err(DecodeError { number: self.number, what: "unknown outcome" }),
        }
    }

    fn cause(&self, cause: i32) -> Result<Cause, DecodeError> {
        self.need(parts::cause_from(cause), "unknown cause")
    }

    fn error(&self, error: Option<pb::StepError>) -> Result<StepError, DecodeError> {
        self.need(error.map(parts::step_error), "no error")
    }

    fn kind(&self, kind: Kind) -> Result<EventKind, DecodeError> {
        let optional = |time: &Option<prost_types::Timestamp>| time.as_ref().and_then(parts::time_from);
        let money = |money: &Option<pb::Money>| money.as_ref().map(parts::money_from);
        Ok(match kind {
            Kind::RunCreated(created) => self.created(created)?,
            Kind::RunPaused(event) => {
                EventKind::RunPaused { call: self.call(&event.request_id)?, reason: event.reason }
            }
            Kind::RunResumed(event) => {
                EventKind::RunResumed { call: RequestId(self.uuid(&event.request_id)?) }
            }
            Kind::RunStopping(event) => EventKind::RunStopping {
                outcome: self.outcome(event.outcome)?,
                call: self.call(&event.request_id)?,
                reason: event.reason,
            },
            Kind::RunRetried(event) => EventKind::RunRetried {
                deadline: optional(&event.deadline),
                call: RequestId(self.uuid(&event.request_id)?),
            },
            Kind::DeadlineExtended(event) => self.deadline(&event)?,
            Kind::RunEnded(event) => EventKind::RunEnded {
                outcome: self.outcome(event.state)?,
                reason: Some(event.reason).filter(|reason| !reason.is_empty()),
                saved: money(&event.saved).unwrap_or(Money::ZERO),
            },
            Kind::StepReady(event) => {
                EventKind::StepReady { step: self.step(&event.step)?, deadline: optional(&event.deadline) }
            }
            Kind::StepSkipped(event) => EventKind::StepSkipped { step: self.step(&event.step)? },
            Kind::StepLeased(event) => EventKind::StepLeased {
                step: self.step(&event.step)?,
                secret: SecretHash(
                    self.need(event.token_hash.try_into().ok(), "token hash of another length")?,
                ),
                session: SessionId(self.uuid(&event.session_id)?),
                executor: Arc::from(event.executor),
                deadline: optional(&event.deadline),
            },
            Kind::StepStarted(event) => EventKind::StepStarted { step: self.step(&event.step)? },
            Kind::CheckpointCommitted(event) => self.committed(&event)?,
            Kind::StepSucceeded(event) => EventKind::StepSucceeded {
                step: self.step(&event.step)?,
                cost: money(&event.cost).unwrap_or(Money::ZERO),
                output: parts::output_from(event.output, event.artifacts),
            },
            Kind::StepBackedOff(event) => EventKind::StepBackedOff {
                step: self.step(&event.step)?,
                cause: self.cause(event.cause)?,
                cost: money(&event.cost),
                until: self.time(event.until.as_ref())?,
                error: event.error.map(parts::step_error),
            },
            Kind::StepReturned(event) => EventKind::StepReturned {
                step: self.step(&event.step)?,
                cause: self.cause(event.cause)?,
                cost: money(&event.cost),
                error: event.error.map(parts::step_error),
            },
            Kind::StepFailed(event) => EventKind::StepFailed {
                step: self.step(&event.step)?,
                cause: parts::cause_from(event.cause),
                cost: money(&event.cost),
                error: self.error(event.error)?,
            },
            Kind::StepTimedOut(event) => {
                EventKind::StepTimedOut { step: self.step(&event.step)?, error: self.error(event.error)? }
            }
            Kind::StepCancelled(event) => EventKind::StepCancelled {
                step: self.step(&event.step)?,
                cause: parts::cause_from(event.cause),
                cost: money(&event.cost),
                error: event.error.map(parts::step_error),
            },
            Kind::ReportRefused(event) => EventKind::ReportRefused {
                step: self.step(&event.step)?,
                attempt: self.attempt(event.attempt)?,
                report: self.report(event.kind)?,
            },
            Kind::CostBooked(event) => EventKind::CostBooked {
                step: self.step(&event.step)?,
                attempt: self.attempt(event.attempt)?,
                cost: money(&event.cost).unwrap_or(Money::ZERO),
            },
        })
    }

    fn attempt(&self, attempt: i32) -> Result<u32, DecodeError> {
        self.need(u32::try_from(attempt).ok(), "attempt below zero")
    }

    fn report(&self, kind: i32) -> Result<ReportKind, DecodeError> {
        match pb::ReportKind::try_from(kind) {
            Ok(pb::ReportKind::Heartbeat) => Ok(ReportKind::Heartbeat),
            Ok(pb::ReportKind::Complete) => Ok(ReportKind::Complete),
            Ok(pb::ReportKind::Fail) => Ok(ReportKind::Fail),
            Ok(pb::ReportKind::Yield) => Ok(ReportKind::Yield),
            Ok(pb::ReportKind::Unspecified) | Err(_) => {
                Err(DecodeError { number: self.number, what: "unknown report" })
            }
        }
    }

    fn deadline(&self, event: &pb::DeadlineExtended) -> Result<EventKind, DecodeError> {
        let call = RequestId(self.uuid(&event.request_id)?);
        let deadline = self.time(event.deadline.as_ref())?;
        Ok(if event.step.is_empty() {
            EventKind::RunDeadlineSet { deadline, call }
        } else if event.attempt > 0 {
            EventKind::AttemptDeadlineSet { step: self.step(&event.step)?, deadline, call }
        } else {
            EventKind::StepDeadlineSet { step: self.step(&event.step)?, deadline, call }
        })
    }

    fn committed(&self, event: &pb::CheckpointCommitted) -> Result<EventKind, DecodeError> {
        let checkpoint = Checkpoint {
            attempt: self.attempt(event.attempt)?,
            sequence: event.sequence,
            done: event.done,
            total: event.total,
            at: self.at,
            // Stored beside the run: see `crate::stored`.
            data: Arc::default(),
        };
        Ok(EventKind::CheckpointCommitted { step: self.step(&event.step)?, checkpoint })
    }

    fn created(&self, created: pb::RunCreated) -> Result<EventKind, DecodeError> {
        let when = created.when.into_iter().map(|(step, answer)| {
            let answer = match self.need(answer.answer, "no answer to `when`")? {
                pb::when_answer::Answer::Value(value) => Ok(value),
                pb::when_answer::Answer::Error(problem) => Err(problem),
            };
            Ok((self.step(&step)?, answer))
        });
        let requested = created
            .requested_modalities
            .iter()
            .map(|modality| self.need(parts::modality_from_proto(*modality), "unknown modality"));
        let request = NewRun {
            id: RunId(self.uuid(&created.run_id)?),
            tenant: created.tenant,
            version: self.need(created.workflow_version.parse().ok(), "not a version")?,
            requested: requested.collect::<Result<_, _>>()?,
            input: Arc::new(parts::json(created.input)),
            labels: created.labels.into_iter().collect(),
            priority: created.priority,
            deadline: created.deadline.as_ref().and_then(parts::time_from),
            content_hash: self
                .need(created.content_hash.try_into().ok(), "content hash of another length")?,
            trace: created.trace_context.into_iter().collect(),
            when: when.collect::<Result<_, DecodeError>>()?,
        };
        let steps = self.need(usize::try_from(created.step_count).ok(), "step count below zero")?;
        Ok(EventKind::RunCreated { request: Arc::new(request), steps })
    }
}
