//! ExplainRun: why a run is not finished yet, or why it ended as it did.

use std::sync::Arc;

use longtake_engine::definition::Step as Definition;
use longtake_engine::ids::{RunId, StepNo};
use longtake_engine::lane::Inspection;
use longtake_engine::run::{Directive, Outcome, Run, RunState, Step, StepState};
use longtake_engine::time::{Duration, Timestamp};
use longtake_proto::v1 as pb;
use longtake_proto::v1::step_explanation::WaitingFor;
use serde_json::json;

use crate::codec::{self, Detail};
use crate::errors::Refused;
use crate::stored::ReadRun;

use super::run::Runs;

/// How often a run that changes meanwhile is read again.
const LOOKS: usize = 3;

impl Runs {
    pub(super) async fn explain(&self, id: RunId) -> Result<pb::ExplainRunResponse, Refused> {
        let (found, known) = self.look(id).await?;
        let mut ahead = std::collections::BTreeMap::new();
        for (number, step) in found.run.steps.iter().enumerate() {
            if matches!(step.state, StepState::Ready(_)) {
                ahead.insert(number, self.0.reads.ready_ahead(id, number).await?);
            }
        }
        let now = self.0.clock.now();
        let shown = codec::run_to_proto(&found.workflow, &found.run, &found.progress, Detail::Full);
        let steps = found.run.steps.iter().enumerate().filter(|(_, step)| {
            step.state.is_open() || matches!(step.state, StepState::Failed | StepState::TimedOut)
        });
        let steps = steps.map(|(number, step)| {
            let definition = &found.workflow.steps[number];
            let waiting = known.waiting.get(definition.queue.as_str()).copied().unwrap_or(0);
            let ahead = ahead.get(&number).copied().unwrap_or(0);
            let about = About { found: &found, known: &known, number, step, definition, waiting, ahead, now };
            about.explain(&shown.steps[number])
        });
        let steps: Vec<pb::StepExplanation> = steps.collect();
        Ok(pb::ExplainRunResponse {
            summary: summary(&found, &steps, now),
            state: codec::run_state(found.run.state).into(),
            steps,
            actions: actions(&found.run),
        })
    }

    /// A run, and what this replica knows of its leases. An attempt that ended after the one was read and before the other was
    /// asked is none that nobody was heard of: then the run is read again.
    async fn look(&self, id: RunId) -> Result<(ReadRun, Inspection), Refused> {
        let mut found = self.0.read(id).await?;
        let queues: Vec<Arc<str>> =
            found.workflow.steps.iter().map(|step| step.queue.as_str().into()).collect();
        let mut known = self.0.lane.inspect(id, queues.clone()).await?;
        for _ in 0..LOOKS {
            if all_known(&found, &known) {
                break;
            }
            let again = self.0.read(id).await?;
            let changed = again.run.last_event != found.run.last_event;
            found = again;
            if !changed {
                break;
            }
            known = self.0.lane.inspect(id, queues.clone()).await?;
        }
        Ok((found, known))
    }
}

/// Whether this replica looks after every live attempt of the run.
fn all_known(found: &ReadRun, known: &Inspection) -> bool {
    let mut steps = found.run.steps.iter().enumerate();
    steps.all(|(number, step)| !step.state.is_leased() || known.heard.contains_key(&number))
}

struct About<'a> {
    found: &'a ReadRun,
    known: &'a Inspection,
    number: StepNo,
    step: &'a Step,
    definition: &'a Definition,
    waiting: usize,
    ahead: i64,
    now: Timestamp,
}

impl About<'_> {
    fn explain(&self, shown: &pb::Step) -> pb::StepExplanation {
        let (waiting_for, since, until, sentence) = self.standing();
        let heard = self.heard();
        let open = self.definition.needs.iter().filter(|need| !self.found.run.steps[**need].state.is_done());
        let attempt =
            shown.live_attempt.clone().or_else(|| shown.attempts.last().cloned()).map(|mut attempt| {
                let silent = heard.filter(|_| self.step.state.is_leased()).map(|heard| self.now.since(heard));
                attempt.silence = silent.map(codec::span);
                attempt
            });
        pb::StepExplanation {
            step: self.definition.name.clone(),
            state: shown.state,
            sentence,
            waiting_for: waiting_for.into(),
            since: since.map(codec::time),
            until: until.map(codec::time),
            open_needs: open.map(|need| self.found.workflow.steps[*need].name.clone()).collect(),
            queue: self.definition.queue.clone(),
            queue_executors: i32::try_from(self.waiting).unwrap_or(i32::MAX),
            queue_ahead: self.ahead,
            attempt,
            last_heartbeat_time: heard.map(codec::time),
            directive: shown.directive,
            progress: shown.progress.clone(),
            actions: self.actions(),
        }
    }

    /// When the executor that holds the step was last heard of here, if it was: not at all by a server that only just found its
    /// session in the database.
    fn heard(&self) -> Option<Timestamp> {
        self.known.heard.get(&self.number).copied().filter(|heard| *heard > Timestamp::default())
    }

    fn standing(&self) -> (WaitingFor, Option<Timestamp>, Option<Timestamp>, String) {
        let name = &self.definition.name;
        let paused = self.found.run.state == RunState::Paused;
        match self.step.state {
            StepState::Pending => {
                (WaitingFor::Needs, None, None, format!("{name} waits for the steps that it needs"))
            }
            StepState::Ready(since) if paused => {
                let sentence = format!("{name} is ready, but the run is paused: ResumeRun lets it go on");
                (WaitingFor::Resume, Some(since), self.step.deadline, sentence)
            }
            StepState::Ready(since) => {
                let sentence = format!(
                    "{name} has waited {} for an executor on queue {}: {} ahead of it, {} executors free for it now",
                    human(self.now.since(since)),
                    self.definition.queue,
                    self.ahead,
                    self.waiting
                );
                (WaitingFor::Executor, Some(since), self.step.deadline, sentence)
            }
            StepState::BackingOff(until) => {
                let why = self.step.error.as_ref().map_or("", |error| error.message.as_str());
                let ended =
                    self.step.attempts.last().and_then(|attempt| attempt.end.as_ref()).map(|end| end.at);
                let sentence = format!(
                    "{name} is tried again in {} (attempt {} ended: {why})",
                    human(until.since(self.now)),
                    self.step.attempt()
                );
                (WaitingFor::Backoff, ended, Some(until), sentence)
            }
            StepState::Leased | StepState::Running => self.leased(),
            StepState::Failed | StepState::TimedOut => {
                let why = self.step.error.as_ref().map_or("", |error| error.message.as_str());
                let sentence = format!("{name} {}: {why}", ended_how(self.step.state));
                (WaitingFor::Unspecified, self.step.ended_at, None, sentence)
            }
            StepState::Succeeded | StepState::Skipped | StepState::Cancelled => {
                (WaitingFor::Unspecified, self.step.ended_at, None, format!("{name} has ended"))
            }
        }
    }

    fn leased(&self) -> (WaitingFor, Option<Timestamp>, Option<Timestamp>, String) {
        let name = &self.definition.name;
        let Some((number, attempt)) = self.step.live() else {
            return (WaitingFor::Work, None, None, format!("{name} is being worked on"));
        };
        let executor = &attempt.executor;
        let since = attempt.leased_at;
        let deadline =
            [attempt.deadline, self.step.deadline, self.found.run.deadline].into_iter().flatten().min();
        let heard = match self.heard() {
            Some(heard) => format!("last heard of {} ago", human(self.now.since(heard))),
            None if self.known.others > 0 && !self.known.heard.contains_key(&self.number) => {
                "looked after by another replica".to_owned()
            }
            None => "not heard of by this server yet".to_owned(),
        };
        let progress = self.step.checkpoint.as_ref().map_or(String::new(), |checkpoint| {
            format!(", checkpoint at {} of {} done", checkpoint.done, checkpoint.total)
        });
        match (self.found.run.directive(), self.step.state) {
            (Some(directive), _) => {
                let sentence = format!(
                    "{name}: {executor} was told to {} and has not said yet that it did ({heard})",
                    told(directive)
                );
                (WaitingFor::Acknowledgement, Some(since), deadline, sentence)
            }
            (None, StepState::Leased) => {
                let sentence = format!(
                    "{name} was given to {executor} {} ago as attempt {number} and waits for its first heartbeat",
                    human(self.now.since(since))
                );
                let end = since + longtake_engine::lane::DISPATCH_TIMEOUT;
                (WaitingFor::FirstHeartbeat, Some(since), Some(end), sentence)
            }
            (None, _) => {
                let sentence = format!(
                    "{executor} has worked on {name} for {} (attempt {number}, {heard}{progress})",
                    human(self.now.since(since))
                );
                (WaitingFor::Work, Some(since), deadline, sentence)
            }
        }
    }

    fn actions(&self) -> Vec<pb::SuggestedAction> {
        let starving = matches!(self.step.state, StepState::Ready(_))
            && self.found.run.state == RunState::Running
            && self.waiting == 0;
        if !starving {
            return Vec::new();
        }
        let queue = &self.definition.queue;
        vec![pb::SuggestedAction {
            sentence: format!(
                "no executor is free for it: wait for a busy one, or start another: longtake executor --queues {queue}"
            ),
            ..pb::SuggestedAction::default()
        }]
    }
}

fn told(directive: Directive) -> &'static str {
    match directive {
        Directive::Cancel => "stop",
        Directive::Pause => "pause",
        Directive::Yield => "give the step back",
    }
}

fn ended_how(state: StepState) -> &'static str {
    if state == StepState::TimedOut { "timed out" } else { "failed" }
}

fn human(span: Duration) -> String {
    let seconds = span.micros() / 1_000_000;
    match seconds {
        0 => format!("{} ms", span.micros() / 1_000),
        1..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

fn summary(found: &ReadRun, steps: &[pb::StepExplanation], now: Timestamp) -> String {
    let run = &found.run;
    let reason = run.reason.as_deref().unwrap_or("no reason was given");
    let open: Vec<&str> = steps
        .iter()
        .filter(|step| step.waiting_for != i32::from(WaitingFor::Needs))
        .map(|step| step.sentence.as_str())
        .collect();
    match run.state {
        RunState::Running => format!("running for {}: {}", human(now.since(run.created_at)), open.join("; ")),
        RunState::Paused => format!("paused: {reason}"),
        RunState::Stopping(outcome) => format!("stopping, will be {}: {reason}", outcome.as_str()),
        RunState::Ended(Outcome::Succeeded) => {
            let took = run.ended_at.map_or(Duration::ZERO, |end| end.since(run.created_at));
            format!("succeeded in {}, spent {}, saved {}", human(took), run.spent, run.saved)
        }
        RunState::Ended(outcome) => format!("{}: {reason}", outcome.as_str()),
    }
}

fn actions(run: &Run) -> Vec<pb::SuggestedAction> {
    let id = run.request.id.to_string();
    let act = |method: &str, sentence: &str| {
        vec![pb::SuggestedAction {
            sentence: sentence.to_owned(),
            method: format!("longtake.v1.RunService/{method}"),
            request: Some(codec::object(&json!({ "run_id": id }))),
        }]
    };
    match run.state {
        RunState::Paused => {
            act("ResumeRun", "resume it when its cause is mended: budgets are fresh and checkpoints kept")
        }
        RunState::Ended(Outcome::Failed | Outcome::TimedOut | Outcome::Cancelled) => act(
            "RetryRun",
            "retry it when its cause is mended: finished steps stay, others go on from their checkpoints",
        ),
        RunState::Running | RunState::Stopping(_) | RunState::Ended(Outcome::Succeeded) => Vec::new(),
    }
}
