//! The state of a run. Built only by [`crate::evolve()`]; nothing else changes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::definition::{Modality, Version, Workflow};
use crate::ids::{RequestId, RunId, SecretHash, SessionId, StepNo};
use crate::money::Money;
use crate::time::Timestamp;

/// How many operator calls a run remembers, so that their repetition changes nothing.
pub const REMEMBERED_CALLS: usize = 16;

/// One durable execution of one version of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What was asked for; never changes.
    pub request: Arc<NewRun>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// The number of the last event folded in: the run's version, and the fence of every write.
    pub last_event: i64,
    /// When the last event happened.
    pub updated_at: Timestamp,
    /// Where it stands.
    pub state: RunState,
    /// Why it is stopping or has ended otherwise than SUCCEEDED; why it is paused.
    pub reason: Option<String>,
    /// The time by which it must have ended, if there is one.
    pub deadline: Option<Timestamp>,
    /// Since when it is stopping.
    pub stopping_since: Option<Timestamp>,
    /// When it reached a terminal state.
    pub ended_at: Option<Timestamp>,
    /// Its steps, in the workflow's order.
    pub steps: Vec<Step>,
    /// What its attempts cost.
    pub spent: Money,
    /// The price of the steps that it skipped; booked when it SUCCEEDED.
    pub saved: Money,
    /// Requests of the latest operator calls, oldest first; at most [`REMEMBERED_CALLS`].
    pub calls: VecDeque<RequestId>,
}

/// What a run is asked to be. Every default is already applied.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// The run's name.
    pub id: RunId,
    /// Whose it is.
    pub tenant: String,
    /// The version that drives it.
    pub version: Version,
    /// What the steps are given; a JSON object.
    pub input: Arc<Value>,
    /// What must exist in the end; empty for workflows that do not speak of modalities.
    pub requested: Vec<Modality>,
    /// Free text for filters, at most 32.
    pub labels: BTreeMap<String, String>,
    /// Larger is dispatched first; 0 is ordinary.
    pub priority: i32,
    /// The time by which it must have ended.
    pub deadline: Option<Timestamp>,
    /// SHA-256 of the request as sent, to tell a repetition from a clash.
    pub content_hash: [u8; 32],
    /// W3C trace context of the call that submitted it (`traceparent`, `tracestate`).
    pub trace: BTreeMap<String, String>,
    /// Answers of the `when` conditions that read only the input, by step; taken at submit.
    pub when: BTreeMap<StepNo, Result<bool, String>>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunState {
    /// Steps are dispatched.
    Running,
    /// Nothing is dispatched until somebody resumes it; deadlines run on.
    Paused,
    /// Its outcome is settled; leased steps are still being told.
    Stopping(Outcome),
    /// It has ended.
    Ended(Outcome),
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Every step is done and what was requested exists.
    Succeeded,
    /// A step failed, or something requested is missing.
    Failed,
    /// A deadline passed.
    TimedOut,
    /// Somebody cancelled it.
    Cancelled,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where it stands.
    pub state: StepState,
    /// Every attempt, the first one first; the attempt numbered n is at n − 1. The last may be live.
    pub attempts: Vec<Attempt>,
    /// The newest committed checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The largest `done` that was ever committed; budgets are refilled when it grows.
    pub best_done: i64,
    /// Ways back since `best_done` last grew, or since an operator gave a fresh budget.
    pub used: Used,
    /// How many attempts had ended when an operator last gave a fresh budget: `max_attempts` counts from there.
    pub attempts_before: u32,
    /// When it was first READY.
    pub ready_at: Option<Timestamp>,
    /// When `step_timeout` ends it; set when it is first READY.
    pub deadline: Option<Timestamp>,
    /// What it made.
    pub output: Option<Output>,
    /// What its attempts cost.
    pub cost: Money,
    /// Why it FAILED, TIMED_OUT or was CANCELLED; the last failure while it backs off.
    pub error: Option<StepError>,
    /// When it reached a terminal state.
    pub ended_at: Option<Timestamp>,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepState {
    /// A need is still open.
    Pending,
    /// It waits for an executor since then.
    Ready(Timestamp),
    /// An executor was given it and has not been heard of yet.
    Leased,
    /// Its executor heartbeats.
    Running,
    /// It waits for a retry until then.
    BackingOff(Timestamp),
    /// Done, with an output.
    Succeeded,
    /// Its `when` was false; done, without an output.
    Skipped,
    /// It failed for good.
    Failed,
    /// Its time was up.
    TimedOut,
    /// Its run was stopped.
    Cancelled,
}

/// One try of a step by one executor.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// What proves the lease.
    pub secret: SecretHash,
    /// The executor's session.
    pub session: SessionId,
    /// The executor's name, for people.
    pub executor: Arc<str>,
    /// When the lease was granted.
    pub leased_at: Timestamp,
    /// When the executor was first heard of.
    pub started_at: Option<Timestamp>,
    /// When `attempt_timeout` ends it.
    pub deadline: Option<Timestamp>,
    /// How it ended; `None` while it is live.
    pub end: Option<AttemptEnd>,
    /// What it cost, once booked.
    pub cost: Option<Money>,
    /// Kinds of stale reports that the history already names.
    pub refused: Vec<ReportKind>,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptEnd {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub cause: Cause,
    /// What the executor or the server said of it.
    pub error: Option<StepError>,
}

/// Why an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Its executor completed it.
    Completed,
    /// Its executor reported a failure.
    Failed,
    /// Its executor gave it back.
    Yielded,
    /// Its executor's session ended, or two heartbeats left it out.
    LeaseLost,
    /// Nobody was heard of within the dispatch timeout.
    DispatchTimeout,
    /// `done` did not grow for `progress_timeout`.
    NoProgress,
    /// It took longer than `attempt_timeout`.
    AttemptTimeout,
    /// The step's time was up.
    StepTimeout,
    /// The run was stopped and its executor did not say so in time.
    Stopped,
}

/// What kind of report an executor made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReportKind {
    /// HeartbeatSteps.
    Heartbeat,
    /// CompleteStep.
    Complete,
    /// FailStep.
    Fail,
    /// YieldStep.
    Yield,
}

/// What the next attempt needs to carry on. Its data and artifacts are stored beside the run, not in its history.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The attempt that made it.
    pub attempt: u32,
    /// Its number within that attempt, from 1.
    pub sequence: i64,
    /// How many units of work it holds.
    pub done: i64,
    /// How many there are in all; 0 when nobody knows.
    pub total: i64,
    /// When it was committed.
    pub at: Timestamp,
    /// What it holds.
    pub data: Arc<CheckpointData>,
}

/// The content of a checkpoint.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct CheckpointData {
    /// A JSON object, at most 64 KiB.
    pub data: Value,
    /// Files that it stands on.
    pub artifacts: Vec<Artifact>,
}

/// Ways back since a step last got on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Failures, NO_PROGRESS and attempt timeouts.
    pub failures: u32,
    /// Lost leases and dispatch timeouts.
    pub losses: u32,
    /// The dispatch timeouts among the losses.
    pub undelivered: u32,
    /// Yields.
    pub yields: u32,
}

/// What a step made.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// A JSON object, at most 64 KiB.
    pub data: Arc<Value>,
    /// The files.
    pub artifacts: Arc<[Artifact]>,
}

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its name within the step's output.
    pub name: String,
    /// Where it is.
    pub uri: String,
    /// SHA-256 of its bytes, lower-case hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub size_bytes: i64,
    /// Its media type.
    pub media_type: String,
}

/// What went wrong with a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepError {
    /// A stable code in UPPER_SNAKE_CASE.
    pub code: String,
    /// What happened, to what, and what to do.
    pub message: String,
    /// Whether another attempt could help.
    pub retryable: bool,
    /// More, for programs; a JSON object or null.
    pub details: Value,
}

/// What the server asks of a running attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Directive {
    /// Stop: the run is stopping.
    Cancel,
    /// Checkpoint and give the step back: the run is paused.
    Pause,
    /// Checkpoint and give the step back: somebody else should have it.
    Yield,
}

impl Run {
    /// Whether it has ended.
    pub fn is_terminal(&self) -> bool {
        matches!(self.state, RunState::Ended(_))
    }

    /// What its leased steps are asked to do.
    pub fn directive(&self) -> Option<Directive> {
        match self.state {
            RunState::Stopping(_) => Some(Directive::Cancel),
            RunState::Paused => Some(Directive::Pause),
            RunState::Running | RunState::Ended(_) => None,
        }
    }

    /// Whether everything that `step` needs is done.
    pub fn needs_done(&self, workflow: &Workflow, step: StepNo) -> bool {
        workflow.steps[step].needs.iter().all(|need| self.steps[*need].state.is_done())
    }

    /// The outputs of finished steps by name, null for skipped ones: what CEL sees as `steps.<name>.output`.
    pub fn outputs(&self, workflow: &Workflow) -> BTreeMap<String, Value> {
        let finished = self.steps.iter().zip(&workflow.steps).filter(|(step, _)| step.state.is_done());
        finished
            .map(|(step, definition)| {
                let output = step.output.as_ref().map_or(Value::Null, |output| (*output.data).clone());
                (definition.name.clone(), output)
            })
            .collect()
    }

    /// The same for every attempt of a step: what executors hand to systems that recognise repetitions.
    pub fn effect_key(&self, definition: &crate::definition::Step) -> String {
        format!("{}/{}", self.request.id, definition.name)
    }
}

impl Step {
    /// A step whose needs are open.
    pub fn new() -> Step {
        Step {
            state: StepState::Pending,
            attempts: Vec::new(),
            checkpoint: None,
            best_done: 0,
            used: Used::default(),
            attempts_before: 0,
            ready_at: None,
            deadline: None,
            output: None,
            cost: Money::ZERO,
            error: None,
            ended_at: None,
        }
    }

    /// The live attempt and its number, while the step is LEASED or RUNNING.
    pub fn live(&self) -> Option<(u32, &Attempt)> {
        let last = self.attempts.last().filter(|attempt| attempt.end.is_none())?;
        Some((self.attempt(), last))
    }

    /// The number of the latest attempt; 0 before the first.
    pub fn attempt(&self) -> u32 {
        u32::try_from(self.attempts.len()).unwrap_or(u32::MAX)
    }
}

impl Default for Step {
    fn default() -> Step {
        Step::new()
    }
}

impl StepState {
    /// SUCCEEDED or SKIPPED: what needs it may go on.
    pub fn is_done(self) -> bool {
        matches!(self, StepState::Succeeded | StepState::Skipped)
    }

    /// Not terminal.
    pub fn is_open(self) -> bool {
        match self {
            StepState::Pending
            | StepState::Ready(_)
            | StepState::Leased
            | StepState::Running
            | StepState::BackingOff(_) => true,
            StepState::Succeeded
            | StepState::Skipped
            | StepState::Failed
            | StepState::TimedOut
            | StepState::Cancelled => false,
        }
    }

    /// An executor holds it.
    pub fn is_leased(self) -> bool {
        matches!(self, StepState::Leased | StepState::Running)
    }
}
