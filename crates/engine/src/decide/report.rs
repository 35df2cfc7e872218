//! What executors report, and how attempts end.

use std::sync::Arc;

use crate::command::{Answer, Lease, NewCheckpoint, Refusal, Report};
use crate::event::EventKind;
use crate::ids::StepNo;
use crate::money::Money;
use crate::retry::{Verdict, judge};
use crate::run::{Attempt, Cause, Checkpoint, RunState, Step, StepError, StepState};
use crate::time::{Duration, Timestamp};

use super::{Deciding, checkpoint_kept};

/// Where the lease of a report stands.
enum Standing {
    Live,
    /// The attempt's own report is in.
    Reported,
    /// The server took it back.
    TakenBack(Cause, Timestamp),
}

impl Deciding<'_> {
    pub(super) fn report(&mut self, lease: &Lease, report: &Report) -> Result<Answer, Refusal> {
        let standing = self.standing(lease).ok_or(Refusal::LeaseUnknown)?;
        match standing {
            Standing::Live => {
                self.live_report(lease, report);
                Ok(self.reported(lease, true))
            }
            Standing::Reported => Ok(self.reported(lease, false)),
            Standing::TakenBack(cause, since) => {
                self.note_stale(lease, report);
                Err(match cause {
                    Cause::Stopped | Cause::StepTimeout => Refusal::RunStopped,
                    _ => {
                        let current = self.run.steps[lease.step].attempt();
                        Refusal::LeaseSuperseded { attempt: lease.attempt, current, cause, since }
                    }
                })
            }
        }
    }

    /// Where the lease stands; none if it was never granted.
    fn standing(&self, lease: &Lease) -> Option<Standing> {
        let step = self.run.steps.get(lease.step)?;
        let attempt = step.numbered(lease.attempt).filter(|attempt| attempt.secret == lease.secret)?;
        Some(match &attempt.end {
            None => Standing::Live,
            Some(end) => match end.cause {
                Cause::Completed | Cause::Failed | Cause::Yielded => Standing::Reported,
                Cause::LeaseLost
                | Cause::DispatchTimeout
                | Cause::NoProgress
                | Cause::AttemptTimeout
                | Cause::StepTimeout
                | Cause::Stopped => Standing::TakenBack(end.cause, end.at),
            },
        })
    }

    fn reported(&self, lease: &Lease, fresh: bool) -> Answer {
        let step = &self.run.steps[lease.step];
        let own = step.checkpoint.as_ref().filter(|checkpoint| checkpoint.attempt == lease.attempt);
        Answer::Reported {
            fresh,
            sequence: own.map_or(0, |checkpoint| checkpoint.sequence),
            directive: self.run.directive().filter(|_| step.state.is_leased()),
        }
    }

    fn live_report(&mut self, lease: &Lease, report: &Report) {
        let step = lease.step;
        if let Some(checkpoint) = report.checkpoint() {
            self.keep(lease, checkpoint);
        }
        match report {
            Report::Heartbeat { .. } => {
                if self.run.steps[step].state == StepState::Leased {
                    self.record(EventKind::StepStarted { step });
                }
            }
            Report::Complete { output, cost } => {
                let cost = cost.unwrap_or(self.workflow.steps[step].price);
                self.record(EventKind::StepSucceeded { step, output: output.clone(), cost });
            }
            Report::Fail { error, retry_after, cost, jitter, .. } => {
                self.end_attempt(step, Cause::Failed, Some(error.clone()), *cost, *retry_after, *jitter);
            }
            Report::Yield { reason, cost, jitter, .. } => {
                let error = Some(reason).filter(|reason| !reason.is_empty());
                let error = error.map(|reason| StepError::new("YIELDED", reason, true));
                self.end_attempt(step, Cause::Yielded, error, *cost, None, *jitter);
            }
        }
    }

    /// Commits a checkpoint if it is newer than what this attempt has committed.
    fn keep(&mut self, lease: &Lease, new: &NewCheckpoint) {
        let stored = self.run.steps[lease.step].checkpoint.as_ref();
        if stored.is_some_and(|stored| (stored.attempt, stored.sequence) >= (lease.attempt, new.sequence)) {
            return;
        }
        let checkpoint = Checkpoint {
            attempt: lease.attempt,
            sequence: new.sequence,
            done: new.done,
            total: new.total,
            at: self.now,
            data: Arc::clone(&new.data),
        };
        self.record(EventKind::CheckpointCommitted { step: lease.step, checkpoint });
    }

    /// Notes a stale report, the first of each kind, and what it says its attempt has cost.
    fn note_stale(&mut self, lease: &Lease, report: &Report) {
        let (step, attempt, report, cost) = (lease.step, lease.attempt, report.kind(), report.cost());
        let Some(known) = self.run.steps[step].numbered(attempt) else { return };
        let (noted, booked) = (known.refused.contains(&report), known.cost.is_some());
        if !noted {
            self.record(EventKind::ReportRefused { step, attempt, report });
        }
        if let Some(cost) = cost.filter(|_| !booked) {
            self.record(EventKind::CostBooked { step, attempt, cost });
        }
    }

    /// The live attempt of `step` ends without an output.
    pub(super) fn end_attempt(
        &mut self,
        step: StepNo,
        cause: Cause,
        error: Option<StepError>,
        cost: Option<Money>,
        asked: Option<Duration>,
        jitter: u64,
    ) {
        if matches!(self.run.state, RunState::Stopping(_)) {
            let cause = match cause {
                Cause::Failed | Cause::Yielded => cause,
                _ => Cause::Stopped,
            };
            return self.record(EventKind::StepCancelled { step, cause: Some(cause), error, cost });
        }
        if error.as_ref().is_some_and(|error| !error.retryable) {
            return self.exhaust(step, cause, error, cost, None);
        }
        match judge(&self.workflow.steps[step], &self.run.steps[step], cause, asked, jitter) {
            Verdict::Now => self.record(EventKind::StepReturned { step, cause, error, cost }),
            Verdict::After(delay) => {
                let until = self.now + delay;
                self.record(EventKind::StepBackedOff { step, cause, error, cost, until });
            }
            Verdict::Spent(spent) => self.exhaust(step, cause, error, cost, Some(spent.to_string())),
        }
    }

    /// No further attempt: the step FAILED, or waits in a PAUSED run for somebody to look.
    fn exhaust(
        &mut self,
        step: StepNo,
        cause: Cause,
        error: Option<StepError>,
        cost: Option<Money>,
        spent: Option<String>,
    ) {
        let definition = &self.workflow.steps[step];
        let mut error = error.unwrap_or_else(|| StepError::new(cause.as_str(), cause.as_str(), true));
        if let Some(spent) = spent {
            let kept = checkpoint_kept(&self.run.steps[step]);
            error.message = format!("{} ({spent}{kept})", error.message);
        }
        match definition.on_exhausted {
            crate::definition::OnExhausted::Fail => {
                self.record(EventKind::StepFailed { step, cause: Some(cause), error, cost });
            }
            crate::definition::OnExhausted::Pause => {
                let reason = format!("step {} needs a look: {}", definition.name, error.message);
                self.record(EventKind::StepReturned { step, cause, error: Some(error), cost });
                if self.run.state == RunState::Running {
                    self.record(EventKind::RunPaused { reason, call: None });
                }
            }
        }
    }
}

impl Step {
    /// The attempt with this number.
    pub fn numbered(&self, attempt: u32) -> Option<&Attempt> {
        let index = usize::try_from(attempt).ok()?.checked_sub(1)?;
        self.attempts.get(index)
    }
}
