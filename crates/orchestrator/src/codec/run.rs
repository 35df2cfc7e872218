//! A run as readers see it.

use std::collections::BTreeMap;

use longtake_engine::definition::{Step as Definition, Workflow};
use longtake_engine::ids::StepNo;
use longtake_engine::run::{Attempt, Outcome, Run, RunState, Step, StepState};
use longtake_proto::v1 as pb;

use super::parts;

/// How much of a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Without steps: lists.
    Summary,
    /// Without input, outputs, checkpoint data and attempts.
    Basic,
    /// Everything.
    Full,
}

/// The run in the contract.
pub fn run_to_proto(
    workflow: &Workflow,
    run: &Run,
    progress: &BTreeMap<StepNo, pb::Progress>,
    detail: Detail,
) -> pb::Run {
    let request = &run.request;
    let full = detail == Detail::Full;
    let first_lease =
        run.steps.iter().filter_map(|step| step.attempts.first()).map(|attempt| attempt.leased_at).min();
    let failed = run.steps.iter().find(|step| matches!(step.state, StepState::Failed | StepState::TimedOut));
    let steps = run.steps.iter().enumerate().map(|(number, step)| {
        let view = StepView { workflow, run, step, definition: &workflow.steps[number] };
        view.to_proto(progress.get(&number), full)
    });
    pb::Run {
        run_id: request.id.to_string(),
        workflow: workflow.name.clone(),
        workflow_version: workflow.version.to_string(),
        state: run_state(run.state).into(),
        outcome: match run.state {
            RunState::Stopping(outcome) => run_state(RunState::Ended(outcome)).into(),
            RunState::Running | RunState::Paused | RunState::Ended(_) => 0,
        },
        state_reason: run.reason.clone().unwrap_or_default(),
        create_time: Some(parts::time(run.created_at)),
        start_time: first_lease.map(parts::time),
        update_time: Some(parts::time(run.updated_at)),
        end_time: run.ended_at.map(parts::time),
        deadline: run.deadline.map(parts::time),
        priority: request.priority,
        labels: parts::map(&request.labels),
        input: full.then(|| parts::object(&request.input)),
        requested_modalities: request.requested.iter().map(|m| parts::modality_to_proto(*m).into()).collect(),
        spent: Some(parts::money(run.spent)),
        saved: Some(parts::money(run.saved)),
        steps_done: count(run.steps.iter().filter(|step| step.state.is_done()).count()),
        steps_total: count(run.steps.len()),
        steps: if detail == Detail::Summary { Vec::new() } else { steps.collect() },
        error: failed.and_then(|step| step.error.as_ref()).map(parts::error_to_proto),
        event_number: run.last_event,
        tenant: request.tenant.clone(),
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

struct StepView<'a> {
    workflow: &'a Workflow,
    run: &'a Run,
    step: &'a Step,
    definition: &'a Definition,
}

impl StepView<'_> {
    fn to_proto(&self, progress: Option<&pb::Progress>, full: bool) -> pb::Step {
        let (step, definition) = (self.step, self.definition);
        let retry = match step.state {
            StepState::BackingOff(until) => Some(parts::time(until)),
            _ => None,
        };
        let live = step.live().map(|(number, attempt)| self.attempt(number, attempt));
        pb::Step {
            name: definition.name.clone(),
            queue: definition.queue.clone(),
            state: step_state(step.state).into(),
            needs: definition.needs.iter().map(|need| self.workflow.steps[*need].name.clone()).collect(),
            attempt: parts::number(step.attempt()),
            live_attempt: live,
            ready_time: step.ready_at.map(parts::time),
            start_time: step.attempts.last().map(|attempt| parts::time(attempt.leased_at)),
            end_time: step.ended_at.map(parts::time),
            next_retry_time: retry,
            deadline: step.deadline.map(parts::time),
            price: Some(parts::money(definition.price)),
            cost: Some(parts::money(step.cost)),
            progress: self.progress(progress),
            checkpoint: step.checkpoint.as_ref().map(|checkpoint| parts::checkpoint(checkpoint, full)),
            output: step.output.as_ref().filter(|_| full).map(|output| parts::object(&output.data)),
            artifacts: step
                .output
                .as_ref()
                .map(|output| parts::artifacts(&output.artifacts))
                .unwrap_or_default(),
            error: step.error.as_ref().map(parts::error_to_proto),
            skip_reason: self.skip_reason(),
            produces: definition.produces.map_or(0, |modality| parts::modality_to_proto(modality).into()),
            directive: parts::directive(self.run.directive().filter(|_| step.state.is_leased())).into(),
            budgets: Some(self.budgets()),
            attempts: if full { self.attempts() } else { Vec::new() },
        }
    }

    /// The newest of checkpoint and progress.
    fn progress(&self, stored: Option<&pb::Progress>) -> Option<pb::Progress> {
        let checkpoint = self.step.checkpoint.as_ref();
        let committed = checkpoint.map(|checkpoint| pb::Progress {
            done: checkpoint.done,
            total: checkpoint.total,
            message: String::new(),
        });
        let told =
            stored.filter(|told| committed.as_ref().is_none_or(|committed| told.done >= committed.done));
        told.cloned().or(committed)
    }

    fn skip_reason(&self) -> String {
        let skipped = self.step.state == StepState::Skipped;
        let when = self.definition.when.as_ref().filter(|_| skipped);
        when.map(|when| format!("`when` is false: {}", when.text())).unwrap_or_default()
    }

    fn budgets(&self) -> pb::step::Budgets {
        let (used, allowed) = (self.step.used, self.definition.budgets);
        pb::step::Budgets {
            failures_used: parts::number(used.failures),
            failures_allowed: parts::number(allowed.failures),
            losses_used: parts::number(used.losses),
            losses_allowed: parts::number(allowed.losses),
            yields_used: parts::number(used.yields),
            yields_allowed: parts::number(allowed.yields),
        }
    }

    fn attempts(&self) -> Vec<pb::Attempt> {
        (1..).zip(&self.step.attempts).map(|(number, attempt)| self.attempt(number, attempt)).collect()
    }

    fn attempt(&self, number: u32, attempt: &Attempt) -> pb::Attempt {
        let own = self.step.checkpoint.as_ref().filter(|checkpoint| checkpoint.attempt == number);
        let end = attempt.end.as_ref();
        pb::Attempt {
            number: parts::number(number),
            executor: attempt.executor.to_string(),
            session_id: attempt.session.to_string(),
            lease_time: Some(parts::time(attempt.leased_at)),
            start_time: attempt.started_at.map(parts::time),
            end_time: end.map(|end| parts::time(end.at)),
            cause: end.map_or(0, |end| parts::cause(end.cause).into()),
            error: end.and_then(|end| end.error.as_ref()).map(parts::error_to_proto),
            cost: attempt.cost.map(parts::money),
            checkpoint_sequence: own.map_or(0, |checkpoint| checkpoint.sequence),
            deadline: attempt.deadline.map(parts::time),
            silence: None,
        }
    }
}

/// A run's state in the contract.
pub fn run_state(state: RunState) -> pb::run::State {
    match state {
        RunState::Running => pb::run::State::Running,
        RunState::Paused => pb::run::State::Paused,
        RunState::Stopping(_) => pb::run::State::Stopping,
        RunState::Ended(Outcome::Succeeded) => pb::run::State::Succeeded,
        RunState::Ended(Outcome::Failed) => pb::run::State::Failed,
        RunState::Ended(Outcome::TimedOut) => pb::run::State::TimedOut,
        RunState::Ended(Outcome::Cancelled) => pb::run::State::Cancelled,
    }
}

/// A step's state in the contract.
pub fn step_state(state: StepState) -> pb::step::State {
    match state {
        StepState::Pending => pb::step::State::Pending,
        StepState::Ready(_) => pb::step::State::Ready,
        StepState::Leased => pb::step::State::Leased,
        StepState::Running => pb::step::State::Running,
        StepState::BackingOff(_) => pb::step::State::BackingOff,
        StepState::Succeeded => pb::step::State::Succeeded,
        StepState::Skipped => pb::step::State::Skipped,
        StepState::Failed => pb::step::State::Failed,
        StepState::TimedOut => pb::step::State::TimedOut,
        StepState::Cancelled => pb::step::State::Cancelled,
    }
}
