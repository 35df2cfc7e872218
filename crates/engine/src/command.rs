//! What a call, a timer or the dispatcher asks of a run, and what it is told.

use std::sync::Arc;

use crate::event::Event;
use crate::ids::{RequestId, RunId, Secret, SecretHash, SessionId, StepNo};
use crate::money::Money;
use crate::run::{Cause, CheckpointData, Directive, NewRun, Output, ReportKind, StepError};
use crate::time::{Duration, Timestamp};

/// What is asked of one run. It carries the randomness that it needs.
#[derive(Clone, Debug)]
pub enum Command {
    /// Make the run, unless it exists.
    Create(Arc<NewRun>),
    /// Give a ready step to an executor.
    Dispatch {
        /// The step.
        step: StepNo,
        /// The lease's proof, fresh and random.
        secret: Secret,
        /// The executor's session.
        session: SessionId,
        /// The executor's name.
        executor: Arc<str>,
    },
    /// A report of the executor that holds, or held, a lease.
    Report {
        /// The lease.
        lease: Lease,
        /// What it says.
        report: Report,
    },
    /// The server takes a lease back.
    Revoke {
        /// The step.
        step: StepNo,
        /// The attempt that is meant; another one is left alone.
        attempt: u32,
        /// Why: LeaseLost, DispatchTimeout, NoProgress or AttemptTimeout.
        cause: Cause,
        /// Random bits for the backoff.
        jitter: u64,
    },
    /// A stored timer is due.
    Fire(Timer),
    /// An operator asks.
    Operate {
        /// The call, so that its repetition changes nothing.
        call: RequestId,
        /// What for.
        operation: Operation,
    },
}

/// A lease within its run: [`crate::ids::LeaseToken`] without the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The step.
    pub step: StepNo,
    /// The attempt.
    pub attempt: u32,
    /// The proof.
    pub secret: SecretHash,
}

/// What an executor says of its attempt.
#[derive(Clone, Debug)]
pub enum Report {
    /// It is at it.
    Heartbeat {
        /// A newer checkpoint; absent leaves the stored one alone.
        checkpoint: Option<NewCheckpoint>,
    },
    /// It is done.
    Complete {
        /// What it made.
        output: Output,
        /// What it cost; the step's price when absent.
        cost: Option<Money>,
    },
    /// It failed.
    Fail {
        /// Why.
        error: StepError,
        /// The delay that the executor asks for.
        retry_after: Option<Duration>,
        /// A last checkpoint, committed before the budget is judged.
        checkpoint: Option<NewCheckpoint>,
        /// What it cost.
        cost: Option<Money>,
        /// Random bits for the backoff.
        jitter: u64,
    },
    /// It gives the step back.
    Yield {
        /// Why, for people.
        reason: String,
        /// A last checkpoint, committed before the budget is judged.
        checkpoint: Option<NewCheckpoint>,
        /// What it cost.
        cost: Option<Money>,
        /// Random bits for the backoff.
        jitter: u64,
    },
}

/// A checkpoint as its executor sends it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCheckpoint {
    /// Its number within the attempt, from 1.
    pub sequence: i64,
    /// How many units of work it holds.
    pub done: i64,
    /// How many there are in all; 0 when nobody knows.
    pub total: i64,
    /// What it holds.
    pub data: Arc<CheckpointData>,
}

/// A stored timer. It exists as a row for as long as the state asks for it ([`crate::rows`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A step's backoff is over.
    Backoff(StepNo),
    /// `step_timeout`.
    StepDeadline(StepNo),
    /// The run's deadline.
    RunDeadline,
    /// Executors were told to stop and have not said that they did.
    StopGrace,
}

/// What operators ask for.
#[derive(Clone, Debug)]
pub enum Operation {
    /// End it as CANCELLED.
    Cancel {
        /// Why, for people.
        reason: String,
    },
    /// Dispatch nothing until resumed.
    Pause {
        /// Why, for people.
        reason: String,
    },
    /// Dispatch again.
    Resume,
    /// Run again what failed, timed out or was cancelled.
    Retry {
        /// Required when the old one has passed.
        deadline: Option<Timestamp>,
    },
    /// Set a deadline.
    ExtendDeadline {
        /// Which.
        which: Deadline,
        /// To when; never added.
        to: Timestamp,
    },
}

/// Which deadline is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// The run's.
    Run,
    /// A step's.
    Step(StepNo),
    /// That of a step's live attempt.
    Attempt(StepNo),
}

/// What was decided: what happened, and what the caller is told once it is committed.
#[derive(Clone, Debug)]
pub struct Decision {
    /// In order, numbered on from the run's last event. A refusal may still record one.
    pub events: Vec<Event>,
    /// For the caller.
    pub answer: Result<Answer, Refusal>,
}

/// What a caller is told when its command was followed, now or before.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The run exists.
    Created {
        /// False when an earlier call with the same content made it.
        created: bool,
    },
    /// The step is leased as this attempt.
    Leased {
        /// The attempt.
        attempt: u32,
    },
    /// The report is in.
    Reported {
        /// False when the attempt's own report was in before.
        fresh: bool,
        /// The newest committed checkpoint sequence of this attempt; 0 for none.
        sequence: i64,
        /// What the executor is asked to do.
        directive: Option<Directive>,
    },
    /// A timer, a revocation or an operator call was seen to.
    Done {
        /// False when there was nothing to change.
        changed: bool,
    },
}

/// Why a command was not followed. Nothing changed, but that it may be noted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No run has this id.
    #[error("run {0} does not exist")]
    RunUnknown(RunId),
    /// The request id was used for something else.
    #[error("request_id {0} was used before with other content: send a new request_id, or the same content")]
    ContentDiffers(RunId),
    /// The step is not ready: another executor has it, or nothing needs doing.
    #[error("the step is not ready")]
    NotReady,
    /// The server took the lease back and the step went on, or will go on, without this attempt.
    #[error(
        "the lease of attempt {attempt} ended ({}), and the latest attempt is {current}: stop work, it has no effect",
        .cause.as_str()
    )]
    LeaseSuperseded {
        /// The attempt that reported.
        attempt: u32,
        /// The attempt that is now the latest one.
        current: u32,
        /// Why the lease ended.
        cause: Cause,
        /// Since when it is not held any more.
        since: Timestamp,
    },
    /// No such lease was ever granted.
    #[error("no lease has this token: it was never granted by this installation, or its run is gone")]
    LeaseUnknown,
    /// The run, or this step of it, was stopped.
    #[error("the run has stopped: stop work, its results are not wanted")]
    RunStopped,
    /// The operation does not fit the run's state.
    #[error("{0}")]
    WrongState(String),
    /// The deadline has passed already, or it is that of an attempt that is not live.
    #[error("{0}")]
    DeadlinePassed(String),
    /// A run is to be retried after its deadline, without a new one that lies ahead.
    #[error("the deadline of run {0} has passed: set a new one, which lies ahead, in this call")]
    DeadlineMissing(RunId),
    /// The operation names a step that the workflow does not have.
    #[error("the workflow has no step number {0}")]
    StepUnknown(StepNo),
}

impl Report {
    /// Its kind.
    pub fn kind(&self) -> ReportKind {
        match self {
            Report::Heartbeat { .. } => ReportKind::Heartbeat,
            Report::Complete { .. } => ReportKind::Complete,
            Report::Fail { .. } => ReportKind::Fail,
            Report::Yield { .. } => ReportKind::Yield,
        }
    }

    /// The checkpoint that it carries.
    pub fn checkpoint(&self) -> Option<&NewCheckpoint> {
        match self {
            Report::Heartbeat { checkpoint }
            | Report::Fail { checkpoint, .. }
            | Report::Yield { checkpoint, .. } => checkpoint.as_ref(),
            Report::Complete { .. } => None,
        }
    }

    /// What it says that the attempt cost; never negative, and never more than [`Money::MAX`], so that sums stay exact.
    pub fn cost(&self) -> Option<Money> {
        match self {
            Report::Heartbeat { .. } => None,
            Report::Complete { cost, .. } | Report::Fail { cost, .. } | Report::Yield { cost, .. } => {
                cost.map(|cost| cost.clamp(Money::ZERO, Money::MAX))
            }
        }
    }
}
