//! What a command does to a run.
//!
//! | from | command | to | where |
//! |---|---|---|---|
//! | PENDING | all needs done, `when` true | READY | `settle` |
//! | PENDING | `when` false | SKIPPED | `settle` |
//! | PENDING | `when` cannot be evaluated | FAILED | `settle` |
//! | READY | dispatch | LEASED | `dispatch` |
//! | LEASED | first heartbeat | RUNNING | `report` |
//! | LEASED | dispatch timeout | READY, from the second on BACKING_OFF | `report::end_attempt` |
//! | LEASED, RUNNING | heartbeat with a newer checkpoint | same | `report` |
//! | LEASED, RUNNING | complete | SUCCEEDED | `report` |
//! | LEASED, RUNNING | fail, retryable, budget left | BACKING_OFF | `report::end_attempt` |
//! | LEASED, RUNNING | fail otherwise | FAILED, or READY and the run PAUSED | `report::exhaust` |
//! | LEASED, RUNNING | lease lost, no progress, attempt timeout | BACKING_OFF | `report::end_attempt` |
//! | LEASED, RUNNING | yield | READY, from the second on BACKING_OFF | `report::end_attempt` |
//! | LEASED, RUNNING | any end while STOPPING | CANCELLED; SUCCEEDED if complete | `report` |
//! | BACKING_OFF | time | READY | `fire` |
//! | any open | `step_timeout` | TIMED_OUT | `fire` |
//!
//! After every command `settle` draws the conclusions: successors, stopping, the end of the run.

mod operate;
mod report;
mod settle;

use std::sync::Arc;

use crate::command::{Answer, Command, Decision, Refusal, Timer};
use crate::definition::Workflow;
use crate::event::{Event, EventKind};
use crate::evolve::evolve;
use crate::ids::{RunId, SecretHash, SessionId, StepNo};
use crate::run::{Cause, NewRun, Run, RunState, StepError, StepState};
use crate::time::{Duration, Timestamp};

/// How long executors have to acknowledge CANCEL before their leases are taken back.
pub const STOP_GRACE: Duration = Duration::from_secs(60);

/// Decides what `command` does to `run` (none at creation) at `now`. Total: no I/O, clock, randomness, panic on any input.
///
/// `id` is the run that is meant, for the refusal when it does not exist.
pub fn decide(
    workflow: &Workflow,
    id: RunId,
    run: Option<&Run>,
    command: &Command,
    now: Timestamp,
) -> Decision {
    apply(workflow, id, &mut run.cloned(), command, now)
}

/// As [`decide`], and `run` has evolved by the decision's events when it returns: the lane's way, without a copy.
pub fn apply(
    workflow: &Workflow,
    id: RunId,
    run: &mut Option<Run>,
    command: &Command,
    now: Timestamp,
) -> Decision {
    let Some(current) = run.take() else {
        return match command {
            Command::Create(request) => create(workflow, request, run, now),
            Command::Report { .. } => Decision { events: Vec::new(), answer: Err(Refusal::LeaseUnknown) },
            _ => Decision { events: Vec::new(), answer: Err(Refusal::RunUnknown(id)) },
        };
    };
    if current.steps.len() != workflow.steps.len() {
        let refusal =
            Refusal::WrongState(format!("run {id} is driven by another version of {}", workflow.name));
        *run = Some(current);
        return Decision { events: Vec::new(), answer: Err(refusal) };
    }
    let now = now.max(current.updated_at);
    let mut deciding = Deciding { workflow, run: current, now, events: Vec::new() };
    let answer = deciding.follow(command);
    if !deciding.events.is_empty() {
        deciding.settle();
    }
    *run = Some(deciding.run);
    Decision { events: deciding.events, answer }
}

fn create(workflow: &Workflow, request: &Arc<NewRun>, run: &mut Option<Run>, now: Timestamp) -> Decision {
    let kind = EventKind::RunCreated { request: request.clone(), steps: workflow.steps.len() };
    let event = Event { number: 1, at: now, kind };
    let Some(fresh) = evolve(None, &event) else {
        return Decision { events: Vec::new(), answer: Err(Refusal::RunUnknown(request.id)) };
    };
    let mut deciding = Deciding { workflow, run: fresh, now, events: vec![event] };
    deciding.settle();
    *run = Some(deciding.run);
    Decision { events: deciding.events, answer: Ok(Answer::Created { created: true }) }
}

/// A run while a command is decided: it evolves with each event, so that later rules see earlier ones.
struct Deciding<'a> {
    workflow: &'a Workflow,
    run: Run,
    now: Timestamp,
    events: Vec<Event>,
}

const CHANGED: Result<Answer, Refusal> = Ok(Answer::Done { changed: true });
const UNCHANGED: Result<Answer, Refusal> = Ok(Answer::Done { changed: false });

impl Deciding<'_> {
    fn record(&mut self, kind: EventKind) {
        let event = Event { number: self.run.last_event.saturating_add(1), at: self.now, kind };
        self.run.fold(&event);
        self.events.push(event);
    }

    fn follow(&mut self, command: &Command) -> Result<Answer, Refusal> {
        match command {
            Command::Create(request) if request.content_hash == self.run.request.content_hash => {
                Ok(Answer::Created { created: false })
            }
            Command::Create(request) => Err(Refusal::ContentDiffers(request.id)),
            Command::Dispatch { step, secret, session, executor } => {
                self.dispatch(*step, secret.hash(), *session, executor)
            }
            Command::Report { lease, report } => self.report(lease, report),
            Command::Revoke { step, attempt, cause, jitter } => self.revoke(*step, *attempt, *cause, *jitter),
            Command::Fire(timer) => self.fire(*timer),
            Command::Operate { call, operation } => self.operate(*call, operation),
        }
    }

    /// READY → LEASED. A repetition after an unknown commit finds its own lease.
    fn dispatch(
        &mut self,
        step: StepNo,
        secret: SecretHash,
        session: SessionId,
        executor: &Arc<str>,
    ) -> Result<Answer, Refusal> {
        let Some(current) = self.run.steps.get(step) else { return Err(Refusal::StepUnknown(step)) };
        if let Some((attempt, _)) = current.live().filter(|(_, live)| live.secret == secret) {
            return Ok(Answer::Leased { attempt });
        }
        // One whose lease is over must not lease again: a proof is good for one attempt.
        let used = current.attempts.iter().any(|attempt| attempt.secret == secret);
        if used || !matches!(current.state, StepState::Ready(_)) || self.run.state != RunState::Running {
            return Err(Refusal::NotReady);
        }
        let attempt = current.attempt() + 1;
        let deadline = self.workflow.steps[step].attempt_timeout.map(|timeout| self.now + timeout);
        self.record(EventKind::StepLeased { step, secret, session, executor: executor.clone(), deadline });
        Ok(Answer::Leased { attempt })
    }

    /// Takes a lease back, if that attempt is still live and the reason holds for it.
    fn revoke(&mut self, step: StepNo, attempt: u32, cause: Cause, jitter: u64) -> Result<Answer, Refusal> {
        let Some(current) = self.run.steps.get(step) else { return Err(Refusal::StepUnknown(step)) };
        let Some((_, live)) = current.live().filter(|(number, _)| *number == attempt) else {
            return UNCHANGED;
        };
        let holds = match cause {
            Cause::LeaseLost | Cause::NoProgress => true,
            Cause::DispatchTimeout => current.state == StepState::Leased,
            // It may have been extended since whoever revokes last looked.
            Cause::AttemptTimeout => live.deadline.is_some_and(|deadline| deadline <= self.now),
            Cause::Completed | Cause::Failed | Cause::Yielded | Cause::StepTimeout | Cause::Stopped => false,
        };
        if !holds {
            return UNCHANGED;
        }
        let error = revoked(cause, &live.executor);
        self.end_attempt(step, cause, Some(error), None, None, jitter);
        CHANGED
    }

    fn fire(&mut self, timer: Timer) -> Result<Answer, Refusal> {
        match timer {
            Timer::Backoff(step) => match self.run.steps.get(step).map(|step| step.state) {
                Some(StepState::BackingOff(until)) if until <= self.now => {
                    let deadline = self.run.steps[step].deadline;
                    self.record(EventKind::StepReady { step, deadline });
                    CHANGED
                }
                _ => UNCHANGED,
            },
            Timer::StepDeadline(step) => self.time_out_step(step),
            Timer::RunDeadline => {
                let due = self.run.deadline.is_some_and(|deadline| deadline <= self.now);
                if !due || !matches!(self.run.state, RunState::Running | RunState::Paused) {
                    return UNCHANGED;
                }
                self.stop(crate::run::Outcome::TimedOut, "the run's deadline passed".to_owned(), None);
                CHANGED
            }
            Timer::StopGrace => {
                let over = self.run.stop_grace_ends().is_some_and(|end| end <= self.now);
                if !over {
                    return UNCHANGED;
                }
                for step in 0..self.run.steps.len() {
                    let Some((_, live)) = self.run.steps[step].live() else { continue };
                    let (cause, error) =
                        (Some(Cause::Stopped), Some(revoked(Cause::Stopped, &live.executor)));
                    self.record(EventKind::StepCancelled { step, cause, error, cost: None });
                }
                CHANGED
            }
        }
    }

    fn time_out_step(&mut self, step: StepNo) -> Result<Answer, Refusal> {
        let Some(current) = self.run.steps.get(step) else { return UNCHANGED };
        let due = current.deadline.is_some_and(|deadline| deadline <= self.now);
        if !due || !current.state.is_open() || matches!(self.run.state, RunState::Stopping(_)) {
            return UNCHANGED;
        }
        let kept = checkpoint_kept(current);
        let error = StepError::new("STEP_TIMEOUT", format!("the step's deadline passed{kept}"), false);
        self.record(EventKind::StepTimedOut { step, error });
        CHANGED
    }
}

impl Run {
    /// When leases of a stopping run are taken back, while there are any.
    pub fn stop_grace_ends(&self) -> Option<Timestamp> {
        let leased = self.steps.iter().any(|step| step.state.is_leased());
        self.stopping_since.filter(|_| leased).map(|since| since + STOP_GRACE)
    }
}

impl StepError {
    /// An error without details.
    pub fn new(code: &str, message: impl Into<String>, retryable: bool) -> StepError {
        StepError {
            code: code.to_owned(),
            message: message.into(),
            retryable,
            details: serde_json::Value::Null,
        }
    }
}

/// What the server says of an attempt of which its executor said nothing.
fn revoked(cause: Cause, executor: &str) -> StepError {
    let message = match cause {
        Cause::LeaseLost => format!("{executor} was not heard of in time"),
        Cause::DispatchTimeout => format!("{executor} was given the step and never reported on it"),
        Cause::NoProgress => {
            format!("{executor} was alive, but its progress stood still for progress_timeout")
        }
        Cause::AttemptTimeout => format!("{executor} took longer than attempt_timeout"),
        Cause::Stopped => format!("{executor} was told to stop and did not say so in time"),
        Cause::StepTimeout => "the step's deadline passed".to_owned(),
        Cause::Yielded => "the executor gave the step back".to_owned(),
        Cause::Completed | Cause::Failed => "the attempt ended".to_owned(),
    };
    StepError::new(cause.as_str(), message, true)
}

/// Names the checkpoint that the next attempt would start from, for error messages.
fn checkpoint_kept(step: &crate::run::Step) -> String {
    match &step.checkpoint {
        Some(checkpoint) => format!(
            "; checkpoint {} of attempt {} ({} done) is kept",
            checkpoint.sequence, checkpoint.attempt, checkpoint.done
        ),
        None => "; there is no checkpoint".to_owned(),
    }
}

impl Cause {
    /// The cause's name in the API, in SQL and on pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Completed => "COMPLETED",
            Cause::Failed => "FAILED",
            Cause::Yielded => "YIELDED",
            Cause::LeaseLost => "LEASE_LOST",
            Cause::DispatchTimeout => "DISPATCH_TIMEOUT",
            Cause::NoProgress => "NO_PROGRESS",
            Cause::AttemptTimeout => "ATTEMPT_TIMEOUT",
            Cause::StepTimeout => "STEP_TIMEOUT",
            Cause::Stopped => "STOPPED",
        }
    }
}
