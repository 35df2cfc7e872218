//! What executors report, and how attempts end.

use std::sync::Arc;

use crate::command::{Answer, Lease, NewCheckpoint, Refusal, Report};
use crate::event::EventKind;
use crate::ids::StepNo;
use crate::money::Money;
use crate::retry::{Verdict, judge};
use crate::run::{Attempt, Cause, Checkpoint, RunState, Step, StepError, StepState};
use crate::time::{Duration, Timestamp};

use super::{Deciding, checkpoint_kept, revoked};

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
            Standing::Reported => {
                self.book_late(lease, report);
                Ok(self.reported(lease, false))
            }
            Standing::TakenBack(cause, since) => {
                self.note_stale(lease, report);
                self.book_late(lease, report);
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

    /// The newest checkpoint sequence that this attempt has committed, as far as it is still stored; 0 for none.
    fn committed(&self, lease: &Lease) -> i64 {
        let stored = self.run.steps[lease.step].checkpoint.as_ref();
        stored.filter(|stored| stored.attempt == lease.attempt).map_or(0, |own| own.sequence)
    }

    fn reported(&self, lease: &Lease, fresh: bool) -> Answer {
        let step = &self.run.steps[lease.step];
        Answer::Reported {
            fresh,
            sequence: self.committed(lease),
            directive: self
                .run
                .directive()
                .filter(|_| step.live().is_some_and(|(live, _)| live == lease.attempt)),
        }
    }

    fn live_report(&mut self, lease: &Lease, report: &Report) {
        let (step, cost) = (lease.step, report.cost());
        if matches!(report, Report::Heartbeat { .. }) && self.run.steps[step].state == StepState::Leased {
            self.record(EventKind::StepStarted { step });
        }
        if let Some(checkpoint) = report.checkpoint() {
            self.keep(lease, checkpoint);
        }
        match report {
            Report::Heartbeat { .. } => {}
            Report::Complete { output, .. } => {
                let cost = cost.unwrap_or(self.workflow.steps[step].price);
                self.record(EventKind::StepSucceeded { step, output: output.clone(), cost });
            }
            Report::Fail { error, retry_after, jitter, .. } => {
                self.end_attempt(step, Cause::Failed, Some(error.clone()), cost, *retry_after, *jitter);
            }
            Report::Yield { reason, jitter, .. } => {
                let error = Some(reason).filter(|reason| !reason.is_empty());
                let error = error.map(|reason| StepError::new(Cause::Yielded.as_str(), reason, true));
                self.end_attempt(step, Cause::Yielded, error, cost, None, *jitter);
            }
        }
    }

    /// Commits a checkpoint of the live attempt if it is newer than what this attempt has committed, counting from 1.
    fn keep(&mut self, lease: &Lease, new: &NewCheckpoint) {
        if new.sequence <= self.committed(lease) {
            return;
        }
        let checkpoint = Checkpoint {
            attempt: lease.attempt,
            sequence: new.sequence,
            done: new.done.max(0),
            total: new.total.max(0),
            at: self.now,
            data: Arc::clone(&new.data),
        };
        self.record(EventKind::CheckpointCommitted { step: lease.step, checkpoint });
    }

    /// Notes a stale report, the first of each kind.
    fn note_stale(&mut self, lease: &Lease, report: &Report) {
        let (step, attempt, report) = (lease.step, lease.attempt, report.kind());
        let known = self.run.steps[step].numbered(attempt);
        if known.is_some_and(|known| !known.refused.contains(&report)) {
            self.record(EventKind::ReportRefused { step, attempt, report });
        }
    }

    /// Books what a late report says that its attempt has cost, unless something is booked for it already.
    fn book_late(&mut self, lease: &Lease, report: &Report) {
        let (step, attempt) = (lease.step, lease.attempt);
        let unbooked = self.run.steps[step].numbered(attempt).is_some_and(|known| known.cost.is_none());
        if let Some(cost) = report.cost().filter(|_| unbooked) {
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
        let mut error = error.unwrap_or_else(|| revoked(cause, "the executor"));
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
