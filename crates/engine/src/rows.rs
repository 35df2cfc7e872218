//! What the store must hold for a state.
//!
//! The rows beside a run (ready steps, timers) are a function of its state, and a write carries the difference between two
//! states: no rule has to remember to add or remove one, and nothing can be silently stuck.

use std::collections::BTreeMap;

use crate::command::Timer;
use crate::ids::StepNo;
use crate::run::{Run, RunState, StepState};
use crate::time::Timestamp;

/// The rows that a state asks for, beside its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Steps that wait for an executor, and since when.
    pub ready: BTreeMap<StepNo, Timestamp>,
    /// When which timer is due.
    pub timers: BTreeMap<Timer, Timestamp>,
}

/// The difference between two [`Rows`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ready steps to insert; one whose time changed is deleted and inserted.
    pub ready: Vec<(StepNo, Timestamp)>,
    /// Ready steps to delete.
    pub unready: Vec<StepNo>,
    /// Timers to set.
    pub set: Vec<(Timer, Timestamp)>,
    /// Timers to delete.
    pub unset: Vec<Timer>,
}

impl Rows {
    /// What `run` asks for.
    pub fn of(run: &Run) -> Rows {
        let mut rows = Rows::default();
        let dispatching = run.state == RunState::Running;
        let running = matches!(run.state, RunState::Running | RunState::Paused);
        for (number, step) in run.steps.iter().enumerate() {
            match step.state {
                StepState::Ready(since) if dispatching => {
                    rows.ready.insert(number, since);
                }
                StepState::BackingOff(until) => {
                    rows.timers.insert(Timer::Backoff(number), until);
                }
                _ => {}
            }
            if let Some(deadline) = step.deadline.filter(|_| running && step.state.is_open()) {
                rows.timers.insert(Timer::StepDeadline(number), deadline);
            }
        }
        if let Some(deadline) = run.deadline.filter(|_| running) {
            rows.timers.insert(Timer::RunDeadline, deadline);
        }
        if let (RunState::Stopping(_), Some(end)) = (run.state, run.stop_grace_ends()) {
            rows.timers.insert(Timer::StopGrace, end);
        }
        rows
    }

    /// What has to be written to get from here to `after`.
    pub fn changes(&self, after: &Rows) -> Changes {
        let fresh = |step: &StepNo, since: &Timestamp| self.ready.get(step) != Some(since);
        let stale = |step: &StepNo, since: &Timestamp| after.ready.get(step) != Some(since);
        Changes {
            ready: after
                .ready
                .iter()
                .filter(|(step, at)| fresh(step, at))
                .map(|(step, at)| (*step, *at))
                .collect(),
            unready: self.ready.iter().filter(|(step, at)| stale(step, at)).map(|(step, _)| *step).collect(),
            set: after
                .timers
                .iter()
                .filter(|(timer, due)| self.timers.get(timer) != Some(due))
                .map(|(timer, due)| (*timer, *due))
                .collect(),
            unset: self.timers.keys().filter(|timer| !after.timers.contains_key(timer)).copied().collect(),
        }
    }
}
