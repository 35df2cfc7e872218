//! The state is the fold of its events, by construction: this is the only code that builds or changes a [`Run`].

use std::collections::VecDeque;

use crate::definition::limits;
use crate::event::{Event, EventKind};
use crate::ids::{RequestId, StepNo};
use crate::money::Money;
use crate::run::{
    Attempt, AttemptEnd, Cause, Checkpoint, Outcome, REMEMBERED_CALLS, Run, RunState, Step, StepError,
    StepState, Used,
};
use crate::time::Timestamp;

/// The run after `event`. Total: nothing but [`EventKind::RunCreated`] makes a run, and what is said of a step or an attempt
/// that is not there changes none.
pub fn evolve(run: Option<Run>, event: &Event) -> Option<Run> {
    if let (None, EventKind::RunCreated { request, steps }) = (&run, &event.kind) {
        return Some(Run {
            request: request.clone(),
            created_at: event.at,
            last_event: event.number,
            updated_at: event.at,
            state: RunState::Running,
            reason: None,
            deadline: request.deadline,
            stopping_since: None,
            ended_at: None,
            steps: vec![Step::new(); (*steps).min(limits::STEPS)],
            spent: Money::ZERO,
            saved: Money::ZERO,
            calls: VecDeque::new(),
        });
    }
    let mut run = run?;
    run.fold(event);
    Some(run)
}

impl Run {
    /// Folds an event into this run in place.
    pub(crate) fn fold(&mut self, event: &Event) {
        self.last_event = event.number;
        self.updated_at = event.at;
        self.follow(&event.kind, event.at);
    }

    fn follow(&mut self, kind: &EventKind, at: Timestamp) {
        match kind {
            EventKind::RunCreated { .. } => {}
            EventKind::RunPaused { reason, call } => {
                self.state = RunState::Paused;
                self.reason = Some(reason.clone());
                self.remember(*call);
            }
            EventKind::RunResumed { call } => {
                self.state = RunState::Running;
                self.reason = None;
                self.steps.iter_mut().for_each(Step::refill);
                self.remember(Some(*call));
            }
            EventKind::RunStopping { outcome, reason, call } => {
                self.state = RunState::Stopping(*outcome);
                self.stopping_since = Some(at);
                self.reason = Some(reason.clone());
                self.remember(*call);
            }
            EventKind::RunRetried { deadline, call } => self.retry(*deadline, *call),
            EventKind::RunDeadlineSet { deadline, call } => {
                self.deadline = Some(*deadline);
                self.remember(Some(*call));
            }
            EventKind::StepDeadlineSet { call, .. } | EventKind::AttemptDeadlineSet { call, .. } => {
                self.remember(Some(*call));
            }
            EventKind::RunEnded { outcome, reason, saved } => {
                self.state = RunState::Ended(*outcome);
                self.reason.clone_from(reason);
                self.saved = *saved;
                self.ended_at = Some(at);
            }
            EventKind::StepReady { .. }
            | EventKind::StepSkipped { .. }
            | EventKind::StepLeased { .. }
            | EventKind::StepStarted { .. }
            | EventKind::CheckpointCommitted { .. }
            | EventKind::StepSucceeded { .. }
            | EventKind::StepBackedOff { .. }
            | EventKind::StepReturned { .. }
            | EventKind::StepFailed { .. }
            | EventKind::StepTimedOut { .. }
            | EventKind::StepCancelled { .. }
            | EventKind::ReportRefused { .. }
            | EventKind::CostBooked { .. } => {}
        }
        if let Some(step) = kind.step().and_then(|step| self.steps.get_mut(step)) {
            step.follow(kind, at);
            self.spent = self.steps.iter().fold(Money::ZERO, |sum, step| sum + step.cost);
        }
    }

    fn remember(&mut self, call: Option<RequestId>) {
        self.calls.extend(call);
        while self.calls.len() > REMEMBERED_CALLS {
            self.calls.pop_front();
        }
    }

    fn retry(&mut self, deadline: Option<Timestamp>, call: RequestId) {
        self.state = RunState::Running;
        self.reason = None;
        self.deadline = deadline;
        self.stopping_since = None;
        self.ended_at = None;
        self.saved = Money::ZERO;
        self.remember(Some(call));
        for step in self.steps.iter_mut().filter(|step| !step.state.is_done()) {
            step.state = StepState::Pending;
            step.refill();
            step.ready_at = None;
            step.deadline = None;
            step.error = None;
            step.ended_at = None;
        }
    }
}

impl Step {
    fn follow(&mut self, kind: &EventKind, at: Timestamp) {
        match kind {
            EventKind::StepReady { deadline, .. } => {
                self.state = StepState::Ready(at);
                self.ready_at = self.ready_at.or(Some(at));
                self.deadline = *deadline;
            }
            EventKind::StepSkipped { .. } => self.close(StepState::Skipped, None, at),
            EventKind::StepLeased { secret, session, executor, deadline, .. } => {
                self.state = StepState::Leased;
                self.attempts.push(Attempt {
                    secret: *secret,
                    session: *session,
                    executor: executor.clone(),
                    leased_at: at,
                    started_at: None,
                    deadline: *deadline,
                    end: None,
                    cost: None,
                    refused: Vec::new(),
                });
            }
            EventKind::StepStarted { .. } => {
                self.state = StepState::Running;
                self.live_mut(|attempt| attempt.started_at = Some(at));
            }
            EventKind::CheckpointCommitted { checkpoint, .. } => self.keep(checkpoint),
            EventKind::StepSucceeded { output, cost, .. } => {
                self.end_attempt(Some(Cause::Completed), None, Some(*cost), at);
                self.output = Some(output.clone());
                self.close(StepState::Succeeded, None, at);
            }
            EventKind::StepBackedOff { cause, error, cost, until, .. } => {
                self.end_attempt(Some(*cause), error.clone(), *cost, at);
                self.error.clone_from(error);
                self.state = StepState::BackingOff(*until);
            }
            EventKind::StepReturned { cause, error, cost, .. } => {
                self.end_attempt(Some(*cause), error.clone(), *cost, at);
                self.error.clone_from(error);
                self.state = StepState::Ready(at);
            }
            EventKind::StepFailed { cause, error, cost, .. } => {
                self.end_attempt(*cause, Some(error.clone()), *cost, at);
                self.close(StepState::Failed, Some(error.clone()), at);
            }
            EventKind::StepTimedOut { error, .. } => {
                self.end_attempt(Some(Cause::StepTimeout), Some(error.clone()), None, at);
                self.close(StepState::TimedOut, Some(error.clone()), at);
            }
            EventKind::StepCancelled { cause, error, cost, .. } => {
                self.end_attempt(*cause, error.clone(), *cost, at);
                let error = error.clone().or_else(|| self.error.take());
                self.close(StepState::Cancelled, error, at);
            }
            EventKind::StepDeadlineSet { deadline, .. } => self.deadline = Some(*deadline),
            EventKind::AttemptDeadlineSet { deadline, .. } => {
                self.live_mut(|attempt| attempt.deadline = Some(*deadline));
            }
            EventKind::ReportRefused { attempt, report, .. } => {
                self.attempt_mut(*attempt, |attempt| attempt.refused.push(*report));
            }
            EventKind::CostBooked { attempt, cost, .. } => {
                self.cost += *cost;
                self.attempt_mut(*attempt, |attempt| attempt.cost = Some(*cost));
            }
            EventKind::RunCreated { .. }
            | EventKind::RunPaused { .. }
            | EventKind::RunResumed { .. }
            | EventKind::RunStopping { .. }
            | EventKind::RunRetried { .. }
            | EventKind::RunDeadlineSet { .. }
            | EventKind::RunEnded { .. } => {}
        }
    }

    fn close(&mut self, state: StepState, error: Option<StepError>, at: Timestamp) {
        self.state = state;
        self.error = error;
        self.ended_at = Some(at);
    }

    /// A fresh budget, by an operator.
    fn refill(&mut self) {
        self.used = Used::default();
        self.attempts_before = self.attempt() - u32::from(self.live().is_some());
    }

    fn keep(&mut self, checkpoint: &Checkpoint) {
        if checkpoint.done > self.best_done {
            self.best_done = checkpoint.done;
            self.used = Used::default();
        }
        self.checkpoint = Some(checkpoint.clone());
    }

    /// Ends the live attempt, books its cost, and counts the way back.
    fn end_attempt(
        &mut self,
        cause: Option<Cause>,
        error: Option<StepError>,
        cost: Option<Money>,
        at: Timestamp,
    ) {
        let Some(cause) = cause else { return };
        let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.end.is_none()) else { return };
        attempt.end = Some(AttemptEnd { at, cause, error });
        attempt.cost = cost;
        self.cost += cost.unwrap_or_default();
        self.used.count(cause);
    }

    fn live_mut(&mut self, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.end.is_none()) {
            change(attempt);
        }
    }

    fn attempt_mut(&mut self, number: u32, change: impl FnOnce(&mut Attempt)) {
        let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        if let Some(attempt) = index.and_then(|index| self.attempts.get_mut(index)) {
            change(attempt);
        }
    }
}

impl Used {
    /// Counts one way back, in the budget that `cause` draws on.
    pub fn count(&mut self, cause: Cause) {
        let count = |counter: &mut u32| *counter = counter.saturating_add(1);
        match cause {
            Cause::Failed | Cause::NoProgress | Cause::AttemptTimeout => count(&mut self.failures),
            Cause::LeaseLost => count(&mut self.losses),
            Cause::DispatchTimeout => {
                count(&mut self.losses);
                count(&mut self.undelivered);
            }
            Cause::Yielded => count(&mut self.yields),
            Cause::Completed | Cause::StepTimeout | Cause::Stopped => {}
        }
    }
}

impl EventKind {
    /// The step that it speaks of.
    pub fn step(&self) -> Option<StepNo> {
        match self {
            EventKind::StepReady { step, .. }
            | EventKind::StepSkipped { step }
            | EventKind::StepLeased { step, .. }
            | EventKind::StepStarted { step }
            | EventKind::CheckpointCommitted { step, .. }
            | EventKind::StepSucceeded { step, .. }
            | EventKind::StepBackedOff { step, .. }
            | EventKind::StepReturned { step, .. }
            | EventKind::StepFailed { step, .. }
            | EventKind::StepTimedOut { step, .. }
            | EventKind::StepCancelled { step, .. }
            | EventKind::StepDeadlineSet { step, .. }
            | EventKind::AttemptDeadlineSet { step, .. }
            | EventKind::ReportRefused { step, .. }
            | EventKind::CostBooked { step, .. } => Some(*step),
            EventKind::RunCreated { .. }
            | EventKind::RunPaused { .. }
            | EventKind::RunResumed { .. }
            | EventKind::RunStopping { .. }
            | EventKind::RunRetried { .. }
            | EventKind::RunDeadlineSet { .. }
            | EventKind::RunEnded { .. } => None,
        }
    }
}

/// The outcome's name in the API, in SQL and on pages.
impl Outcome {
    /// UPPER_SNAKE_CASE.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Succeeded => "SUCCEEDED",
            Outcome::Failed => "FAILED",
            Outcome::TimedOut => "TIMED_OUT",
            Outcome::Cancelled => "CANCELLED",
        }
    }
}
