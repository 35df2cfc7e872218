//! The same rules once more, read from the history alone: DESIGN §5, budgets and deadlines. What the engine keeps while it goes
//! along is counted anew here, event by event.

use longtake_engine::definition::{Step as Definition, Workflow};
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::StepNo;
use longtake_engine::run::{Cause, Run, Used};
use longtake_engine::time::Timestamp;

/// What is known of a step.
#[derive(Clone, Default)]
struct Known {
    best_done: i64,
    /// How its attempts came back since it got on, or since an operator gave a fresh budget.
    back: Vec<Cause>,
    /// Attempts that ended since an operator gave a fresh budget.
    attempts: u32,
    live: bool,
    deadline: Option<Timestamp>,
    first_ready: bool,
}

/// Checks a run against its history.
pub fn check(workflow: &Workflow, history: &[Event], run: &Run) {
    let mut steps = vec![Known::default(); run.steps.len()];
    for event in history {
        if let EventKind::RunResumed { .. } | EventKind::RunRetried { .. } = event.kind {
            for known in &mut steps {
                (known.back, known.attempts) = (Vec::new(), 0);
                known.first_ready &= matches!(event.kind, EventKind::RunResumed { .. });
            }
        }
        if let Some(step) = event.kind.step() {
            steps[step].follow(&workflow.steps[step], step, event);
        }
    }
    for (number, (known, step)) in steps.iter().zip(&run.steps).enumerate() {
        // A step that is done has no use for a budget.
        assert!(
            step.state.is_done() || step.used == known.used(),
            "{:?} of step {number}: {:?}",
            step.used,
            known.used()
        );
        assert_eq!(step.best_done, known.best_done, "the best done of step {number}");
        let waits = step.state.is_open() && known.first_ready;
        assert!(!waits || step.deadline == known.deadline, "the deadline of step {number}");
    }
}

impl Known {
    fn follow(&mut self, definition: &Definition, step: StepNo, event: &Event) {
        match &event.kind {
            EventKind::StepReady { deadline, .. } => {
                if !self.first_ready {
                    self.first_ready = true;
                    self.deadline = definition.step_timeout.map(|timeout| event.at + timeout);
                }
                assert_eq!(*deadline, self.deadline, "step_timeout counts from the first READY");
            }
            EventKind::StepDeadlineSet { deadline, .. } => self.deadline = Some(*deadline),
            EventKind::StepLeased { deadline, .. } => {
                self.live = true;
                let wanted = definition.attempt_timeout.map(|timeout| event.at + timeout);
                assert_eq!(*deadline, wanted, "attempt_timeout counts from the lease");
            }
            EventKind::CheckpointCommitted { checkpoint, .. } if checkpoint.done > self.best_done => {
                self.best_done = checkpoint.done;
                self.back.clear();
            }
            EventKind::StepReturned { cause, .. } => {
                self.end(*cause);
                assert!(
                    self.is_spent(definition) || self.comes_back_at_once(*cause) || is_fatal(event),
                    "{event:?}"
                );
            }
            EventKind::StepBackedOff { cause, until, error, .. } => {
                self.end(*cause);
                assert!(
                    error.as_ref().is_none_or(|error| error.retryable),
                    "step {step} cannot go on: {event:?}"
                );
                assert!(!self.is_spent(definition), "step {step} goes on with a spent budget: {event:?}");
                assert!(*until >= event.at);
                let asked = *cause == Cause::Failed;
                assert!(
                    asked || !self.comes_back_at_once(*cause),
                    "step {step} waits for nothing: {event:?}"
                );
                assert!(asked || *until <= event.at + definition.retry.max);
            }
            EventKind::StepFailed { cause: Some(cause), error, .. } => {
                self.end(*cause);
                assert!(
                    self.is_spent(definition) || !error.retryable,
                    "step {step} had budget left: {event:?}"
                );
            }
            EventKind::StepCancelled { cause: Some(cause), .. } => self.end(*cause),
            EventKind::StepSucceeded { .. } => self.end(Cause::Completed),
            EventKind::StepTimedOut { .. } if self.live => self.end(Cause::StepTimeout),
            _ => {}
        }
    }

    fn end(&mut self, cause: Cause) {
        assert!(std::mem::replace(&mut self.live, false), "an attempt ended that was not live");
        self.back.push(cause);
        self.attempts += 1;
    }

    fn count(&self, causes: &[Cause]) -> u32 {
        u32::try_from(self.back.iter().filter(|cause| causes.contains(cause)).count()).unwrap_or(u32::MAX)
    }

    fn used(&self) -> Used {
        Used {
            failures: self.count(&[Cause::Failed, Cause::NoProgress, Cause::AttemptTimeout]),
            losses: self.count(&[Cause::LeaseLost, Cause::DispatchTimeout]),
            undelivered: self.count(&[Cause::DispatchTimeout]),
            yields: self.count(&[Cause::Yielded]),
        }
    }

    fn is_spent(&self, definition: &Definition) -> bool {
        let (used, budgets) = (self.used(), definition.budgets);
        used.failures >= budgets.failures
            || used.losses >= budgets.losses
            || used.yields >= budgets.yields
            || definition.max_attempts.is_some_and(|max| self.attempts >= max)
    }

    /// The first yield and the first dispatch timeout without progress; from the second on they back off.
    fn comes_back_at_once(&self, cause: Cause) -> bool {
        matches!(cause, Cause::Yielded | Cause::DispatchTimeout) && self.count(&[cause]) == 1
    }
}

/// A failure that is not retryable, of a step that pauses its run.
fn is_fatal(event: &Event) -> bool {
    matches!(&event.kind, EventKind::StepReturned { error: Some(error), .. } if !error.retryable)
}
