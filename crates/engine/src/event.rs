//! What can happen to a run. History is a list of these; the state is their fold ([`crate::evolve()`]).
//!
//! An event states a decision with everything that following it needs: no reader has to know the definition, the clock or
//! the rules of the day on which it was decided.

use std::sync::Arc;

use crate::ids::{RequestId, SecretHash, SessionId, StepNo};
use crate::money::Money;
use crate::run::{Cause, Checkpoint, NewRun, Outcome, Output, ReportKind, StepError};
use crate::time::Timestamp;

/// One entry of a run's history.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counted from 1, without gaps.
    pub number: i64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// The first event of every run.
    RunCreated {
        /// What was asked for.
        request: Arc<NewRun>,
        /// How many steps the workflow has.
        steps: usize,
    },
    /// A step waits for an executor: its needs are done, or its backoff is over.
    StepReady {
        /// The step.
        step: StepNo,
        /// When `step_timeout` will end it.
        deadline: Option<Timestamp>,
    },
    /// `when` was false.
    StepSkipped {
        /// The step.
        step: StepNo,
    },
    /// An executor was given a lease.
    StepLeased {
        /// The step.
        step: StepNo,
        /// What proves the lease.
        secret: SecretHash,
        /// The executor's session.
        session: SessionId,
        /// The executor's name.
        executor: Arc<str>,
        /// When `attempt_timeout` will end it.
        deadline: Option<Timestamp>,
    },
    /// The executor was heard of.
    StepStarted {
        /// The step.
        step: StepNo,
    },
    /// A newer checkpoint is stored.
    CheckpointCommitted {
        /// The step.
        step: StepNo,
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// The step is done.
    StepSucceeded {
        /// The step.
        step: StepNo,
        /// What it made.
        output: Output,
        /// What the attempt cost.
        cost: Money,
    },
    /// An attempt ended and the step waits for the next one.
    StepBackedOff {
        /// The step.
        step: StepNo,
        /// How the attempt ended.
        cause: Cause,
        /// What was said of it.
        error: Option<StepError>,
        /// What the attempt cost, if it said so.
        cost: Option<Money>,
        /// When the step is ready again.
        until: Timestamp,
    },
    /// An attempt ended and the step is ready again at once.
    StepReturned {
        /// The step.
        step: StepNo,
        /// How the attempt ended.
        cause: Cause,
        /// What was said of it.
        error: Option<StepError>,
        /// What the attempt cost, if it said so.
        cost: Option<Money>,
    },
    /// The step failed for good.
    StepFailed {
        /// The step.
        step: StepNo,
        /// How the attempt ended; none when `when` could not be evaluated.
        cause: Option<Cause>,
        /// Why.
        error: StepError,
        /// What the attempt cost, if it said so.
        cost: Option<Money>,
    },
    /// `step_timeout` passed.
    StepTimedOut {
        /// The step.
        step: StepNo,
        /// In words, with what was left undone.
        error: StepError,
    },
    /// The run was stopped before the step was done.
    StepCancelled {
        /// The step.
        step: StepNo,
        /// How its live attempt ended, if it had one.
        cause: Option<Cause>,
        /// What was said of it.
        error: Option<StepError>,
        /// What the attempt cost, if it said so.
        cost: Option<Money>,
    },
    /// Nothing is dispatched until the run is resumed.
    RunPaused {
        /// Why.
        reason: String,
        /// The call that asked for it; none when a spent budget did.
        call: Option<RequestId>,
    },
    /// Steps are dispatched again, with fresh budgets.
    RunResumed {
        /// The call that asked for it.
        call: RequestId,
    },
    /// The run's outcome is settled.
    RunStopping {
        /// What it will be.
        outcome: Outcome,
        /// Why.
        reason: String,
        /// The call that asked for it, if one did.
        call: Option<RequestId>,
    },
    /// A run that had ended goes on; steps that had failed start afresh from their checkpoints.
    RunRetried {
        /// The new deadline, if it has one.
        deadline: Option<Timestamp>,
        /// The call that asked for it.
        call: RequestId,
    },
    /// The run's deadline was set.
    RunDeadlineSet {
        /// To when.
        deadline: Timestamp,
        /// The call that asked for it.
        call: RequestId,
    },
    /// A step's deadline was set.
    StepDeadlineSet {
        /// The step.
        step: StepNo,
        /// To when.
        deadline: Timestamp,
        /// The call that asked for it.
        call: RequestId,
    },
    /// The deadline of a step's live attempt was set.
    AttemptDeadlineSet {
        /// The step.
        step: StepNo,
        /// To when.
        deadline: Timestamp,
        /// The call that asked for it.
        call: RequestId,
    },
    /// A report under a lease that had ended was refused; told once per attempt and kind.
    ReportRefused {
        /// The step.
        step: StepNo,
        /// The attempt that reported.
        attempt: u32,
        /// What it reported.
        report: ReportKind,
    },
    /// A late report said what its attempt had cost.
    CostBooked {
        /// The step.
        step: StepNo,
        /// The attempt that reported.
        attempt: u32,
        /// What it cost.
        cost: Money,
    },
    /// The run has ended: no step is open.
    RunEnded {
        /// How.
        outcome: Outcome,
        /// Why, unless it succeeded.
        reason: Option<String>,
        /// The price of what it skipped, if it succeeded.
        saved: Money,
    },
}
