//! The conclusions after a command: successors become ready, a failed step stops the run, the last step ends it.

use crate::definition::Step as Definition;
use crate::event::EventKind;
use crate::ids::{RequestId, StepNo};
use crate::money::Money;
use crate::run::{Outcome, Run, RunState, StepError, StepState};

use super::Deciding;

impl Deciding<'_> {
    /// Draws every conclusion that follows. Ends: each round records an event that takes a step or the run further.
    pub(super) fn settle(&mut self) {
        loop {
            let concluded = match self.run.state {
                RunState::Running | RunState::Paused => {
                    self.stop_if_failed() || self.open_a_step() || self.end_if_done()
                }
                RunState::Stopping(outcome) => self.cancel_a_step() || self.end_if_stopped(outcome),
                RunState::Ended(_) => false,
            };
            if !concluded {
                return;
            }
        }
    }

    /// Settles the run's outcome; the steps follow in [`Deciding::settle`].
    pub(super) fn stop(&mut self, outcome: Outcome, reason: String, call: Option<RequestId>) {
        self.record(EventKind::RunStopping { outcome, reason, call });
    }

    fn stop_if_failed(&mut self) -> bool {
        let failed = self.run.steps.iter().position(|step| step.state.outcome().is_some());
        let Some(step) = failed else { return false };
        let outcome = self.run.steps[step].state.outcome().unwrap_or(Outcome::Failed);
        let why = self.run.steps[step].error.as_ref().map_or("", |error| &error.message);
        let reason = format!("step {} {}: {why}", self.workflow.steps[step].name, outcome.as_str());
        self.stop(outcome, reason, None);
        true
    }

    fn open_a_step(&mut self) -> bool {
        let next = (0..self.run.steps.len()).find(|step| {
            self.run.steps[*step].state == StepState::Pending && self.run.needs_done(self.workflow, *step)
        });
        let Some(step) = next else { return false };
        let definition = &self.workflow.steps[step];
        let kind = match self.wanted(step, definition) {
            Ok(true) => EventKind::StepReady {
                step,
                deadline: definition.step_timeout.map(|timeout| self.now + timeout),
            },
            Ok(false) => EventKind::StepSkipped { step },
            Err(problem) => {
                let message = format!("`when` of step {} could not be evaluated: {problem}", definition.name);
                let error = StepError::new("WHEN_FAILED", message, false);
                EventKind::StepFailed { step, cause: None, error, cost: None }
            }
        };
        self.record(kind);
        true
    }

    fn wanted(&self, step: StepNo, definition: &Definition) -> Result<bool, String> {
        let Some(when) = &definition.when else { return Ok(true) };
        match self.run.request.when.get(&step) {
            Some(answer) => answer.clone(),
            None => when.evaluate(&self.run.request.input, &self.run.outputs(self.workflow)),
        }
    }

    fn end_if_done(&mut self) -> bool {
        if self.run.steps.iter().any(|step| step.state.is_open()) {
            return false;
        }
        let missing = missing(&self.run, &self.workflow.steps);
        let kind = if missing.is_empty() {
            EventKind::RunEnded { outcome: Outcome::Succeeded, reason: None, saved: self.saved() }
        } else {
            let reason = format!("OUTPUT_MISSING: no artifact was made for {}", missing.join(", "));
            EventKind::RunEnded { outcome: Outcome::Failed, reason: Some(reason), saved: Money::ZERO }
        };
        self.record(kind);
        true
    }

    fn saved(&self) -> Money {
        let skipped = self.run.steps.iter().zip(&self.workflow.steps);
        skipped
            .filter(|(step, _)| step.state == StepState::Skipped)
            .fold(Money::ZERO, |sum, (_, definition)| sum + definition.price)
    }

    fn cancel_a_step(&mut self) -> bool {
        let idle = self.run.steps.iter().position(|step| step.state.is_open() && !step.state.is_leased());
        let Some(step) = idle else { return false };
        self.record(EventKind::StepCancelled { step, cause: None, error: None, cost: None });
        true
    }

    fn end_if_stopped(&mut self, outcome: Outcome) -> bool {
        if self.run.steps.iter().any(|step| step.state.is_open()) {
            return false;
        }
        let reason = self.run.reason.clone();
        self.record(EventKind::RunEnded { outcome, reason, saved: Money::ZERO });
        true
    }
}

impl StepState {
    /// What this step's end makes of its run, if it stops it.
    fn outcome(self) -> Option<Outcome> {
        match self {
            StepState::Failed => Some(Outcome::Failed),
            StepState::TimedOut => Some(Outcome::TimedOut),
            StepState::Cancelled => Some(Outcome::Cancelled),
            StepState::Pending
            | StepState::Ready(_)
            | StepState::Leased
            | StepState::Running
            | StepState::BackingOff(_)
            | StepState::Succeeded
            | StepState::Skipped => None,
        }
    }
}

/// The requested modalities that no SUCCEEDED step has made an artifact for.
fn missing(run: &Run, definitions: &[Definition]) -> Vec<&'static str> {
    let made = |step: StepNo| {
        let step = &run.steps[step];
        step.state == StepState::Succeeded
            && step.output.as_ref().is_some_and(|output| !output.artifacts.is_empty())
    };
    let requested = run.request.requested.iter().filter(|modality| {
        !(0..definitions.len()).any(|step| definitions[step].produces == Some(**modality) && made(step))
    });
    requested.map(|modality| modality.as_str()).collect()
}
