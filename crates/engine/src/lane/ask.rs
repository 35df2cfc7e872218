//! What callers ask of a lane and are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::{Answer, Command, NewCheckpoint, Refusal};
use crate::definition::{Step as Definition, Workflow};
use crate::ids::{LeaseToken, RequestId, RunId, Secret, SessionId, StepNo};
use crate::run::{AttemptEnd, Checkpoint, Output, Run};
use crate::time::{Duration, Timestamp};

/// Names one ask, so that its reply finds its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One call.
#[derive(Debug)]
pub struct Ask {
    /// Names it.
    pub ticket: Ticket,
    /// What it asks of runs; each is answered on its own.
    pub commands: Vec<Asked>,
    /// Whether it may be refused for overload; reports and operator calls may not.
    pub sheddable: bool,
    /// A heartbeat of a session.
    pub beat: Option<Beat>,
    /// A poll for steps, answered with what the same commit can give, or parked.
    pub poll: Option<Poll>,
}

/// One command for one run.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The run.
    pub run: RunId,
    /// The workflow that will drive it; only for [`Command::Create`].
    pub workflow: Option<Arc<Workflow>>,
    /// What is asked.
    pub command: Command,
}

/// A heartbeat. Its leases are answered in order, before the answers to commands.
#[derive(Debug, Clone)]
pub struct Beat {
    /// The session.
    pub session: SessionId,
    /// The executor's name; empty where the call does not say it.
    pub executor: Arc<str>,
    /// The leases that it speaks of.
    pub leases: Vec<LeaseBeat>,
    /// Whether it names every lease that the session holds: only then is a lease missed.
    pub complete: bool,
}

/// What a heartbeat says of one lease.
#[derive(Debug, Clone)]
pub struct LeaseBeat {
    /// The lease.
    pub token: LeaseToken,
    /// A newer checkpoint.
    pub checkpoint: Option<NewCheckpoint>,
    /// How far it is.
    pub progress: Option<Progress>,
}

/// How far an attempt says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Units of work done.
    pub done: i64,
    /// Units in all; 0 when nobody knows.
    pub total: i64,
    /// For people.
    pub message: String,
}

/// A call for steps.
#[derive(Debug, Clone)]
pub struct Poll {
    /// The session that will hold the leases.
    pub session: SessionId,
    /// The executor's name; empty where the call does not say it.
    pub executor: Arc<str>,
    /// The queues that it serves.
    pub queues: Vec<Arc<str>>,
    /// How many steps it can take; at least 1.
    pub max_steps: usize,
    /// Names the call, so that its repetition gets the same leases.
    pub request: Option<RequestId>,
    /// Whether it waits when there is nothing; else it is answered with what the next commit can give.
    pub park: bool,
}

/// What a caller is told.
#[derive(Debug)]
pub struct Reply {
    /// Whose.
    pub ticket: Ticket,
    /// Answers, leases of the beat first.
    pub answers: Vec<Result<Answer, Failure>>,
    /// Steps for the poll.
    pub grants: Vec<Grant>,
    /// The session's standing, for beats and polls.
    pub session: Option<Standing>,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It lives for so long from now, as far as is committed, and should be heard of again after `delay`.
    Lives {
        /// From now.
        remaining: Duration,
        /// When the next heartbeat is wanted.
        delay: Duration,
    },
    /// It has ended, and its leases with it: the executor needs a new session.
    Ended,
}

/// Why a command was not followed.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The engine said no.
    Refused(Refusal),
    /// Too much is waiting; nothing was done.
    Overloaded,
    /// The database refused to store it; nothing was done (unless by an earlier try that the connection was lost in, and that the
    /// database did after all). The text is for the log, never for callers.
    Storage(String),
}

/// A lease that was granted, with what its executor needs.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The lease.
    pub token: LeaseToken,
    /// The workflow.
    pub workflow: Arc<Workflow>,
    /// The run as it was when the lease was granted.
    pub run: Arc<GrantedRun>,
    /// When the lease was granted.
    pub at: Timestamp,
}

/// What a grant shows of its run.
#[derive(Debug, Clone)]
pub struct GrantedRun {
    /// What was asked for.
    pub request: Arc<crate::run::NewRun>,
    /// Outputs of the steps that this one needs; none for skipped ones.
    pub needs: BTreeMap<StepNo, Option<Output>>,
    /// The last checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// How the previous attempt ended.
    pub previous: Option<AttemptEnd>,
    /// The end of this attempt.
    pub attempt_deadline: Option<Timestamp>,
    /// The earliest of the attempt's, the step's and the run's deadlines.
    pub earliest_deadline: Option<Timestamp>,
    /// The same for every attempt.
    pub effect_key: String,
}

impl Grant {
    /// The grant of the live attempt of `step`, whose proof is `secret`.
    pub fn new(workflow: &Arc<Workflow>, run: &Run, step: StepNo, secret: Secret) -> Option<Grant> {
        let held = run.steps.get(step)?;
        let (number, attempt) = held.live()?;
        let token =
            LeaseToken { run: run.request.id, step: u8::try_from(step).ok()?, attempt: number, secret };
        let definition: &Definition = &workflow.steps[step];
        let needs = definition.needs.iter().map(|need| (*need, run.steps[*need].output.clone())).collect();
        let previous = held.attempts.iter().rev().nth(1).and_then(|previous| previous.end.clone());
        let granted = GrantedRun {
            request: run.request.clone(),
            needs,
            checkpoint: held.checkpoint.clone(),
            previous,
            attempt_deadline: attempt.deadline,
            earliest_deadline: [attempt.deadline, held.deadline, run.deadline].into_iter().flatten().min(),
            effect_key: run.effect_key(definition),
        };
        Some(Grant { token, workflow: workflow.clone(), run: Arc::new(granted), at: attempt.leased_at })
    }

    /// The leased step's definition.
    pub fn definition(&self) -> &Definition {
        &self.workflow.steps[self.token.step()]
    }
}
