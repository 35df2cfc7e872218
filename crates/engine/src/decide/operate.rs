//! What operators ask of a run.

use crate::command::{Answer, Deadline, Operation, Refusal};
use crate::event::EventKind;
use crate::ids::{RequestId, StepNo};
use crate::run::{Outcome, RunState, StepState};
use crate::time::Timestamp;

use super::{CHANGED, Deciding, UNCHANGED};

impl Deciding<'_> {
    pub(super) fn operate(&mut self, call: RequestId, operation: &Operation) -> Result<Answer, Refusal> {
        if self.run.calls.contains(&call) {
            return UNCHANGED;
        }
        match operation {
            Operation::Cancel { reason } => self.cancel(call, reason),
            Operation::Pause { reason } => self.pause(call, reason),
            Operation::Resume => self.resume(call),
            Operation::Retry { deadline } => self.retry(call, *deadline),
            Operation::ExtendDeadline { which, to } => self.extend(call, *which, *to),
        }
    }

    fn cancel(&mut self, call: RequestId, reason: &str) -> Result<Answer, Refusal> {
        match self.run.state {
            RunState::Running | RunState::Paused => {
                let reason = if reason.is_empty() { "cancelled by an operator" } else { reason };
                self.stop(Outcome::Cancelled, reason.to_owned(), Some(call));
                CHANGED
            }
            // What was asked for is so, or will be: not a mistake of whoever asks again.
            RunState::Stopping(Outcome::Cancelled) | RunState::Ended(Outcome::Cancelled) => UNCHANGED,
            RunState::Stopping(outcome) => {
                self.refuse(&format!("is stopping for another cause: it will be {}", outcome.as_str()))
            }
            RunState::Ended(outcome) => self.refuse(&format!("has already {}", past(outcome))),
        }
    }

    fn pause(&mut self, call: RequestId, reason: &str) -> Result<Answer, Refusal> {
        match self.run.state {
            RunState::Running => {
                let reason = if reason.is_empty() { "paused by an operator" } else { reason };
                self.record(EventKind::RunPaused { reason: reason.to_owned(), call: Some(call) });
                CHANGED
            }
            RunState::Paused => UNCHANGED,
            RunState::Stopping(_) => self.refuse("is stopping, which cannot be paused"),
            RunState::Ended(outcome) => self.refuse(&format!("has already {}", past(outcome))),
        }
    }

    fn resume(&mut self, call: RequestId) -> Result<Answer, Refusal> {
        match self.run.state {
            RunState::Paused => {
                self.record(EventKind::RunResumed { call });
                CHANGED
            }
            RunState::Running => UNCHANGED,
            RunState::Stopping(_) => self.refuse("is stopping, which cannot be resumed"),
            RunState::Ended(outcome) => {
                self.refuse(&format!("has already {}; RetryRun makes it go on", past(outcome)))
            }
        }
    }

    fn retry(&mut self, call: RequestId, deadline: Option<Timestamp>) -> Result<Answer, Refusal> {
        match self.run.state {
            RunState::Ended(Outcome::Failed | Outcome::TimedOut | Outcome::Cancelled) => {}
            RunState::Ended(Outcome::Succeeded) => return self.refuse("has succeeded: nothing to retry"),
            RunState::Running | RunState::Paused | RunState::Stopping(_) => {
                return self.refuse("has not ended yet: nothing to retry");
            }
        }
        // Stopped too late, a run with every step done succeeds now; one that FAILED so has something missing.
        let failed = self.run.state == RunState::Ended(Outcome::Failed);
        if failed && self.run.steps.iter().all(|step| step.state.is_done()) {
            return self.refuse("has no step to retry: every step is done, so it would end the same way");
        }
        let deadline = deadline.or(self.run.deadline);
        if deadline.is_some_and(|deadline| deadline <= self.now) {
            return Err(Refusal::DeadlineMissing(self.run.request.id));
        }
        self.record(EventKind::RunRetried { deadline, call });
        CHANGED
    }

    fn extend(&mut self, call: RequestId, which: Deadline, to: Timestamp) -> Result<Answer, Refusal> {
        if !matches!(self.run.state, RunState::Running | RunState::Paused) {
            return self.refuse("is stopping or has ended: its deadlines have no effect any more");
        }
        if to <= self.now {
            return self.refuse("cannot be given a deadline that has passed: set a later time");
        }
        match which {
            Deadline::Run => {
                self.refuse_fired(self.run.deadline)?;
                self.record(EventKind::RunDeadlineSet { deadline: to, call });
            }
            Deadline::Step(step) => {
                let current = self.run.steps.get(step).ok_or(Refusal::StepUnknown(step))?;
                if !current.state.is_open() {
                    return self.refuse_step(step, "has ended: its deadline has no effect any more");
                }
                if current.state == StepState::Pending {
                    return self
                        .refuse_step(step, "has no deadline before it is ready: set the run's instead");
                }
                self.refuse_fired(current.deadline)?;
                self.record(EventKind::StepDeadlineSet { step, deadline: to, call });
            }
            Deadline::Attempt(step) => {
                let current = self.run.steps.get(step).ok_or(Refusal::StepUnknown(step))?;
                // One that has passed need not have fired: after an outage the clocks of attempts are moved.
                if current.live().is_none() {
                    let name = &self.workflow.steps[step].name;
                    let run = self.run.request.id;
                    return Err(Refusal::DeadlinePassed(format!(
                        "step {name} of run {run} has no attempt under way"
                    )));
                }
                self.record(EventKind::AttemptDeadlineSet { step, deadline: to, call });
            }
        }
        CHANGED
    }

    /// A deadline that has passed is as good as fired: its timer may already be on its way.
    fn refuse_fired(&self, deadline: Option<Timestamp>) -> Result<(), Refusal> {
        match deadline {
            Some(deadline) if deadline <= self.now => Err(Refusal::DeadlinePassed(format!(
                "run {}: this deadline has already passed",
                self.run.request.id
            ))),
            _ => Ok(()),
        }
    }

    fn refuse(&self, what: &str) -> Result<Answer, Refusal> {
        Err(Refusal::WrongState(format!("run {} {what}", self.run.request.id)))
    }

    fn refuse_step(&self, step: StepNo, what: &str) -> Result<Answer, Refusal> {
        let name = &self.workflow.steps[step].name;
        Err(Refusal::WrongState(format!("step {name} of run {} {what}", self.run.request.id)))
    }
}

fn past(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Cancelled => "been cancelled",
    }
}
