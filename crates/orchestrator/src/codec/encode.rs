//! Decisions into stored events.

use longtake_engine::definition::Workflow;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{RequestId, StepNo};
use longtake_engine::run::{Checkpoint, CheckpointData, NewRun, Outcome, ReportKind};
use longtake_engine::time::Timestamp;
use longtake_proto::v1 as pb;
use longtake_proto::v1::event::Kind;
use prost::Message;
use sha2::{Digest, Sha256};

use super::parts;

/// The events of one commit as they are stored. `attempts` are the steps' latest attempts after them.
pub fn encode_events(workflow: &Workflow, attempts: &[i32], events: &[Event]) -> Vec<u8> {
    let mut writer = Writer { workflow, attempts: attempts.to_vec() };
    for event in events {
        if let EventKind::StepLeased { step, .. } = event.kind {
            writer.attempts[step] -= 1;
        }
    }
    let mut bytes = Vec::new();
    for event in events {
        // Writing into a Vec cannot fail.
        let _ = writer.event(event).encode_length_delimited(&mut bytes);
    }
    bytes
}

struct Writer<'a> {
    workflow: &'a Workflow,
    /// The steps' latest attempts at the event being written: events of the engine leave them to the fold.
    attempts: Vec<i32>,
}

impl Writer<'_> {
    fn event(&mut self, event: &Event) -> pb::Event {
        if let EventKind::StepLeased { step, .. } = event.kind {
            self.attempts[step] += 1;
        }
        pb::Event {
            number: event.number,
            time: Some(parts::time(event.at)),
            kind: Some(self.kind(&event.kind)),
        }
    }

    fn name(&self, step: StepNo) -> String {
        self.workflow.steps[step].name.clone()
    }

    fn kind(&self, kind: &EventKind) -> Kind {
        match kind {
            EventKind::RunCreated { request, steps } => Kind::RunCreated(self.created(request, *steps)),
            EventKind::RunPaused { reason, call } => {
                Kind::RunPaused(pb::RunPaused { reason: reason.clone(), request_id: request_id(*call) })
            }
            EventKind::RunResumed { call } => {
                Kind::RunResumed(pb::RunResumed { request_id: call.to_string() })
            }
            EventKind::RunStopping { outcome, reason, call } => Kind::RunStopping(pb::RunStopping {
                outcome: state(*outcome).into(),
                reason: reason.clone(),
                request_id: request_id(*call),
            }),
            EventKind::RunRetried { deadline, call } => Kind::RunRetried(pb::RunRetried {
                deadline: deadline.map(parts::time),
                request_id: call.to_string(),
            }),
            EventKind::RunDeadlineSet { deadline, call } => extended(*deadline, String::new(), 0, *call),
            EventKind::StepDeadlineSet { step, deadline, call } => {
                extended(*deadline, self.name(*step), 0, *call)
            }
            EventKind::AttemptDeadlineSet { step, deadline, call } => {
                extended(*deadline, self.name(*step), self.attempts[*step], *call)
            }
            EventKind::RunEnded { outcome, reason, saved } => Kind::RunEnded(pb::RunEnded {
                state: state(*outcome).into(),
                reason: reason.clone().unwrap_or_default(),
                saved: Some(parts::money(*saved)),
            }),
            _ => self.step_kind(kind),
        }
    }

    fn step_kind(&self, kind: &EventKind) -> Kind {
        let attempt = kind.step().map_or(0, |step| self.attempts[step]);
        let step = kind.step().map(|step| self.name(step)).unwrap_or_default();
        match kind {
            EventKind::StepReady { deadline, .. } => {
                Kind::StepReady(pb::StepReady { step, deadline: deadline.map(parts::time) })
            }
            EventKind::StepSkipped { .. } => Kind::StepSkipped(pb::StepSkipped { step }),
            EventKind::StepLeased { secret, session, executor, deadline, .. } => {
                Kind::StepLeased(pb::StepLeased {
                    step,
                    attempt,
                    session_id: session.to_string(),
                    executor: executor.to_string(),
                    token_hash: secret.0.to_vec(),
                    deadline: deadline.map(parts::time),
                })
            }
            EventKind::StepStarted { .. } => Kind::StepStarted(pb::StepStarted { step, attempt }),
            EventKind::CheckpointCommitted { checkpoint, .. } => {
                Kind::CheckpointCommitted(committed(step, checkpoint))
            }
            EventKind::StepSucceeded { output, cost, .. } => Kind::StepSucceeded(pb::StepSucceeded {
                step,
                attempt,
                output: Some(parts::object(&output.data)),
                artifacts: parts::artifacts(&output.artifacts),
                cost: Some(parts::money(*cost)),
            }),
            EventKind::StepBackedOff { cause, error, cost, until, .. } => {
                Kind::StepBackedOff(pb::StepBackedOff {
                    step,
                    attempt,
                    cause: parts::cause(*cause).into(),
                    error: error.as_ref().map(parts::error_to_proto),
                    cost: cost.map(parts::money),
                    until: Some(parts::time(*until)),
                })
            }
            EventKind::StepReturned { cause, error, cost, .. } => Kind::StepReturned(pb::StepReturned {
                step,
                attempt,
                cause: parts::cause(*cause).into(),
                error: error.as_ref().map(parts::error_to_proto),
                cost: cost.map(parts::money),
            }),
            EventKind::StepFailed { cause, error, cost, .. } => Kind::StepFailed(pb::StepFailed {
                step,
                attempt: cause.map_or(0, |_| attempt),
                cause: cause.map_or(0, |cause| parts::cause(cause).into()),
                error: Some(parts::error_to_proto(error)),
                cost: cost.map(parts::money),
            }),
            EventKind::StepTimedOut { error, .. } => Kind::StepTimedOut(pb::StepTimedOut {
                step,
                attempt,
                error: Some(parts::error_to_proto(error)),
            }),
            EventKind::StepCancelled { cause, error, cost, .. } => Kind::StepCancelled(pb::StepCancelled {
                step,
                attempt: cause.map_or(0, |_| attempt),
                cause: cause.map_or(0, |cause| parts::cause(cause).into()),
                error: error.as_ref().map(parts::error_to_proto),
                cost: cost.map(parts::money),
            }),
            EventKind::ReportRefused { attempt, report, .. } => Kind::ReportRefused(pb::ReportRefused {
                step,
                attempt: parts::number(*attempt),
                kind: report_kind(*report).into(),
            }),
            EventKind::CostBooked { attempt, cost, .. } => Kind::CostBooked(pb::CostBooked {
                step,
                attempt: parts::number(*attempt),
                cost: Some(parts::money(*cost)),
            }),
            EventKind::RunCreated { .. }
            | EventKind::RunPaused { .. }
            | EventKind::RunResumed { .. }
            | EventKind::RunStopping { .. }
            | EventKind::RunRetried { .. }
            | EventKind::RunDeadlineSet { .. }
            | EventKind::StepDeadlineSet { .. }
            | EventKind::AttemptDeadlineSet { .. }
            | EventKind::RunEnded { .. } => unreachable!("run events are written above"),
        }
    }

    fn created(&self, request: &NewRun, steps: usize) -> pb::RunCreated {
        let when = request.when.iter().map(|(step, answer)| {
            let answer = match answer {
                Ok(value) => pb::when_answer::Answer::Value(*value),
                Err(problem) => pb::when_answer::Answer::Error(problem.clone()),
            };
            (self.name(*step), pb::WhenAnswer { answer: Some(answer) })
        });
        pb::RunCreated {
            run_id: request.id.to_string(),
            tenant: request.tenant.clone(),
            workflow: self.workflow.name.clone(),
            workflow_version: request.version.to_string(),
            input: Some(parts::object(&request.input)),
            requested_modalities: request
                .requested
                .iter()
                .map(|modality| parts::modality_to_proto(*modality).into())
                .collect(),
            labels: parts::map(&request.labels),
            priority: request.priority,
            deadline: request.deadline.map(parts::time),
            content_hash: request.content_hash.to_vec(),
            trace_context: parts::map(&request.trace),
            when: when.collect(),
            step_count: i32::try_from(steps).unwrap_or(i32::MAX),
        }
    }
}

fn extended(deadline: Timestamp, step: String, attempt: i32, call: RequestId) -> Kind {
    Kind::DeadlineExtended(pb::DeadlineExtended {
        deadline: Some(parts::time(deadline)),
        step,
        attempt,
        request_id: call.to_string(),
    })
}

fn committed(step: String, checkpoint: &Checkpoint) -> pb::CheckpointCommitted {
    let text = checkpoint_text(&checkpoint.data);
    pb::CheckpointCommitted {
        step,
        attempt: parts::number(checkpoint.attempt),
        sequence: checkpoint.sequence,
        done: checkpoint.done,
        total: checkpoint.total,
        size_bytes: i64::try_from(text.len()).unwrap_or(i64::MAX),
        sha256: Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// The bytes that a checkpoint's size and hash are taken of: its data and its artifacts' hashes, with sorted keys.
fn checkpoint_text(data: &CheckpointData) -> String {
    let hashes: Vec<&str> = data.artifacts.iter().map(|artifact| artifact.sha256.as_str()).collect();
    format!("{}\n{}", data.data, hashes.join("\n"))
}

fn request_id(call: Option<RequestId>) -> String {
    call.map(|call| call.to_string()).unwrap_or_default()
}

fn state(outcome: Outcome) -> pb::run::State {
    match outcome {
        Outcome::Succeeded => pb::run::State::Succeeded,
        Outcome::Failed => pb::run::State::Failed,
        Outcome::TimedOut => pb::run::State::TimedOut,
        Outcome::Cancelled => pb::run::State::Cancelled,
    }
}

fn report_kind(kind: ReportKind) -> pb::ReportKind {
    match kind {
        ReportKind::Heartbeat => pb::ReportKind::Heartbeat,
        ReportKind::Complete => pb::ReportKind::Complete,
        ReportKind::Fail => pb::ReportKind::Fail,
        ReportKind::Yield => pb::ReportKind::Yield,
    }
}
