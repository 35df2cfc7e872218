//! One run's history, followed event by event: what may come after what, and whether it adds up to the stored row (G1). The events
//! of steps are in `steps`.

mod steps;

pub use self::steps::own_report;

use longtake_proto::v1::event::Kind;
use longtake_proto::v1::run::State as Outcome;
use longtake_proto::v1::{self, attempt::Cause};
use prost_types::{Struct, Timestamp};

use super::{Definition, Stored, World};

/// What a history told, for the comparison with the journals.
pub struct History<'a> {
    pub run_id: &'a str,
    pub created: &'a v1::RunCreated,
    /// In the definition's order.
    pub steps: Vec<Step<'a>>,
    /// What operators had done to the run, once at least: `cancel`, `pause`, `resume`, `retry`, `extend`.
    pub ordered: Vec<&'static str>,
}

/// A step, as far as its history is followed.
pub struct Step<'a> {
    pub name: &'a str,
    pub attempts: Vec<Attempt<'a>>,
    state: StepState,
    /// `done` of the committed checkpoint.
    checkpoint: Option<i64>,
    /// When its latest backoff was to end.
    until: Option<i64>,
    /// When `step_timeout` ends it.
    deadline: Option<i64>,
    recovery: Option<Recovery>,
}

/// An attempt whose executor was killed: the step is to go on.
struct Recovery {
    killed: i64,
    ready: Option<i64>,
}

/// An attempt, as far as its history is followed.
pub struct Attempt<'a> {
    pub executor: &'a str,
    /// `done` of the checkpoint that its executor was to be handed.
    pub handed: Option<i64>,
    /// `done` of each of its checkpoints.
    pub dones: Vec<i64>,
    /// What it made, if it completed.
    pub output: Option<&'a Struct>,
    /// How it ended; none while it is live.
    pub cause: Option<Cause>,
    leased_at: i64,
    deadline: Option<i64>,
    started: bool,
    /// Its newest checkpoint.
    sequence: i64,
    cost: Option<i64>,
    refused: Vec<i32>,
}

/// The numbers are those of the stored row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepState {
    Pending,
    Ready,
    Leased,
    Running,
    BackingOff,
    Succeeded,
    Skipped,
    Failed,
    TimedOut,
    Cancelled,
}

impl StepState {
    fn done(self) -> bool {
        matches!(self, StepState::Succeeded | StepState::Skipped)
    }

    fn leased(self) -> bool {
        matches!(self, StepState::Leased | StepState::Running)
    }

    fn open(self) -> bool {
        (self as i16) < StepState::Succeeded as i16
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunState {
    Running,
    Paused,
    Stopping(Outcome),
    Ended(Outcome),
}

/// Follows the events of `stored`, the first of which is `created`.
pub fn follow<'a>(
    stored: &'a Stored,
    created: &'a v1::RunCreated,
    definition: &'a Definition,
    world: &mut World<'a>,
) -> History<'a> {
    let steps = definition.steps.iter().map(|step| Step {
        name: &step.name,
        attempts: Vec::new(),
        state: StepState::Pending,
        checkpoint: None,
        until: None,
        deadline: None,
        recovery: None,
    });
    let mut fold = Fold {
        stored,
        definition,
        world,
        run: RunState::Running,
        number: 0,
        at: 0,
        deadline: micros(created.deadline.as_ref()),
        spent: 0,
        saved: 0,
        must_stop: false,
        history: History { run_id: &stored.run_id, created, steps: steps.collect(), ordered: Vec::new() },
    };
    for event in &stored.events {
        fold.follow(event);
    }
    fold.finish();
    fold.history
}

struct Fold<'a, 'w> {
    stored: &'a Stored,
    definition: &'a Definition,
    world: &'w mut World<'a>,
    run: RunState,
    /// The event that is being followed, and its time.
    number: i64,
    at: i64,
    /// The run's.
    deadline: Option<i64>,
    spent: i64,
    saved: i64,
    /// A step has just failed for good: nothing else may come before run_stopping.
    must_stop: bool,
    history: History<'a>,
}

impl<'a> Fold<'a, '_> {
    fn wrong(&mut self, rule: &str, what: &str) {
        let (run, number) = (&self.stored.run_id, self.number);
        self.world.findings.wrong(rule, || format!("run {run}, event {number}: {what}"));
    }

    fn follow(&mut self, event: &'a v1::Event) {
        let (number, at) = (self.number, self.at);
        (self.number, self.at) = (event.number, micros(event.time.as_ref()).unwrap_or(i64::MIN));
        if event.number != number + 1 {
            self.wrong("G2", &format!("it follows event {number}"));
        }
        if self.at < at {
            self.wrong("G2", "its time is before that of the event before it");
        }
        let Some(kind) = &event.kind else {
            return self.wrong("G1", "its kind is unknown");
        };
        self.world.findings.count("events");
        self.world.findings.count(name(kind));
        if !allowed(self.run, kind) {
            // D1: nothing new after run_stopping. B12: nothing after the end. §5: nothing is leased from a paused run.
            let rule = match self.run {
                RunState::Running | RunState::Paused => "§5",
                RunState::Stopping(_) => "D1",
                RunState::Ended(_) => "B12",
            };
            self.wrong(rule, &format!("{} while the run is {}", name(kind), self.state()));
        }
        if std::mem::take(&mut self.must_stop) && !matches!(kind, Kind::RunStopping(_)) {
            self.wrong("D1", &format!("{} after a step failed for good, not run_stopping", name(kind)));
        }
        match steps::subject(kind) {
            None => self.run_event(kind),
            Some((step, attempt)) => match self.definition.steps.iter().position(|it| it.name == step) {
                Some(step) => self.step_event(kind, step, attempt),
                None => self.wrong("G1", &format!("{} of step {step:?}, which is not defined", name(kind))),
            },
        }
    }

    fn run_event(&mut self, kind: &'a Kind) {
        match kind {
            Kind::RunCreated(created) => self.created(created),
            Kind::RunPaused(_) => {
                self.run = RunState::Paused;
                self.history.ordered.push("pause");
            }
            Kind::RunResumed(_) => {
                self.run = RunState::Running;
                self.history.ordered.push("resume");
            }
            Kind::RunStopping(stopping) => self.stopping(stopping),
            Kind::RunRetried(retried) => {
                self.deadline = micros(retried.deadline.as_ref());
                self.retried();
            }
            Kind::DeadlineExtended(extended) => {
                // Steps and attempts are told apart by their names.
                self.deadline = micros(extended.deadline.as_ref());
                self.history.ordered.push("extend");
            }
            Kind::RunEnded(ended) => self.ended(ended),
            _ => self.wrong("G1", "it names no step"),
        }
    }

    fn created(&mut self, created: &v1::RunCreated) {
        if self.number > 1 {
            self.wrong("G2", "the run is created a second time");
        }
        if created.run_id != self.stored.run_id {
            self.wrong("G1", &format!("it creates run {}", created.run_id));
        }
        if usize::try_from(created.step_count) != Ok(self.definition.steps.len()) {
            self.wrong("A4", &format!("{} steps are not those of the definition", created.step_count));
        }
    }

    /// The first cause wins; which one is there must show.
    fn stopping(&mut self, stopping: &v1::RunStopping) {
        let outcome = stopping.outcome();
        let any = |state| self.history.steps.iter().any(|step| step.state == state);
        let due = self.deadline.is_some_and(|deadline| deadline <= self.at);
        let (caused, rule) = match outcome {
            Outcome::Failed => (any(StepState::Failed), "D1"),
            // C4: a deadline is no earlier than it says.
            Outcome::TimedOut => (any(StepState::TimedOut) || due, "C4"),
            Outcome::Cancelled => (!stopping.request_id.is_empty(), "D1"),
            _ => (false, "D1"),
        };
        if !caused {
            self.wrong(rule, &format!("it will be {}, and nothing says why", outcome.as_str_name()));
        }
        if outcome == Outcome::Cancelled {
            self.history.ordered.push("cancel");
        }
        self.run = RunState::Stopping(outcome);
    }

    /// What had failed starts afresh, with its checkpoint.
    fn retried(&mut self) {
        self.run = RunState::Running;
        self.saved = 0;
        self.history.ordered.push("retry");
        for step in self.history.steps.iter_mut().filter(|step| !step.state.done()) {
            step.state = StepState::Pending;
            step.until = None;
            step.deadline = None;
        }
    }

    fn ended(&mut self, ended: &v1::RunEnded) {
        let state = ended.state();
        if let Some(step) = self.history.steps.iter().find(|step| step.state.open()) {
            let what = format!("the run has ended, and step {} is {:?}", step.name, step.state);
            self.wrong("B12", &what);
        }
        let expected = match self.run {
            RunState::Stopping(outcome) => state == outcome,
            // FAILED without a failed step: what was requested is missing.
            _ => {
                let done = self.history.steps.iter().all(|step| step.state.done());
                done && matches!(state, Outcome::Succeeded | Outcome::Failed)
            }
        };
        if !expected {
            self.wrong("D1", &format!("{} is not what the run had come to", state.as_str_name()));
        }
        // E1: what was saved is the price of what was skipped, of runs that succeeded.
        let skipped = self.history.steps.iter().zip(&self.definition.steps);
        let skipped =
            skipped.filter(|(step, _)| step.state == StepState::Skipped && state == Outcome::Succeeded);
        let price: i64 = skipped.map(|(_, defined)| defined.price).sum();
        self.saved = ended.saved.as_ref().map_or(0, |saved| saved.nano_usd);
        if self.saved != price {
            self.wrong("E1", &format!("saved {}, and the steps that it skipped cost {price}", self.saved));
        }
        self.run = RunState::Ended(state);
    }

    fn state(&self) -> &'static str {
        match self.run {
            RunState::Running => "RUNNING",
            RunState::Paused => "PAUSED",
            RunState::Stopping(_) => "STOPPING",
            RunState::Ended(outcome) => outcome.as_str_name().trim_start_matches("STATE_"),
        }
    }

    /// G1, G2, E1: the row is the fold. C1: nothing is stuck.
    fn finish(&mut self) {
        for step in &mut self.history.steps {
            step.give_up(&mut self.world.measures);
        }
        let stored = self.stored;
        let states: Vec<i16> = self.history.steps.iter().map(|step| step.state as i16).collect();
        let attempts: Vec<usize> = self.history.steps.iter().map(|step| step.attempts.len()).collect();
        let kept: Vec<usize> =
            stored.attempts.iter().map(|number| usize::try_from(*number).unwrap_or(usize::MAX)).collect();
        let total = attempts.iter().sum::<usize>();
        self.world.findings.add("attempts", total as u64);
        if stored.version != self.number {
            self.wrong("G2", &format!("it is the last one, and the row's version is {}", stored.version));
        }
        if stored.state != self.state() {
            let what = format!("the run is {}, and its row says {}", self.state(), stored.state);
            self.wrong("G1", &what);
        }
        if stored.step_states != states {
            self.wrong(
                "G1",
                &format!("the steps are {states:?}, and their row says {:?}", stored.step_states),
            );
        }
        if kept != attempts {
            self.wrong("B3", &format!("the attempts are {attempts:?}, and their row says {kept:?}"));
        }
        if stored.spent != self.spent {
            let what = format!("the costs come to {}, and the row says spent {}", self.spent, stored.spent);
            self.wrong("E1", &what);
        }
        if stored.saved != self.saved {
            let what = format!("the run saved {}, and its row says {}", self.saved, stored.saved);
            self.wrong("E1", &what);
        }
        if !matches!(self.run, RunState::Ended(_)) {
            let open = self.history.steps.iter().filter(|step| step.state.open());
            let open: Vec<String> = open.map(|step| format!("{} {:?}", step.name, step.state)).collect();
            let what = format!("the run is stuck: {}, with {}", self.state(), open.join(", "));
            self.wrong("C1", &what);
        }
    }
}

/// DESIGN.md §5: what may happen to a run in a state.
fn allowed(run: RunState, kind: &Kind) -> bool {
    let late = matches!(kind, Kind::ReportRefused(_) | Kind::CostBooked(_));
    match run {
        RunState::Running => {
            !matches!(kind, Kind::RunResumed(_) | Kind::RunRetried(_) | Kind::StepCancelled(_))
        }
        RunState::Paused => !matches!(
            kind,
            Kind::RunPaused(_) | Kind::RunRetried(_) | Kind::StepCancelled(_) | Kind::StepLeased(_)
        ),
        // A live attempt may still start, checkpoint and complete until it is CANCELLED.
        RunState::Stopping(_) => {
            let live =
                matches!(kind, Kind::StepStarted(_) | Kind::CheckpointCommitted(_) | Kind::StepSucceeded(_));
            late || live || matches!(kind, Kind::StepCancelled(_) | Kind::RunEnded(_))
        }
        RunState::Ended(Outcome::Succeeded) => late,
        RunState::Ended(_) => late || matches!(kind, Kind::RunRetried(_)),
    }
}

/// The event's name in the contract, behind `event.`.
fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::RunCreated(_) => "event.run_created",
        Kind::RunPaused(_) => "event.run_paused",
        Kind::RunResumed(_) => "event.run_resumed",
        Kind::RunStopping(_) => "event.run_stopping",
        Kind::RunRetried(_) => "event.run_retried",
        Kind::DeadlineExtended(_) => "event.deadline_extended",
        Kind::RunEnded(_) => "event.run_ended",
        Kind::StepReady(_) => "event.step_ready",
        Kind::StepSkipped(_) => "event.step_skipped",
        Kind::StepLeased(_) => "event.step_leased",
        Kind::StepStarted(_) => "event.step_started",
        Kind::CheckpointCommitted(_) => "event.checkpoint_committed",
        Kind::StepSucceeded(_) => "event.step_succeeded",
        Kind::StepBackedOff(_) => "event.step_backed_off",
        Kind::StepReturned(_) => "event.step_returned",
        Kind::StepFailed(_) => "event.step_failed",
        Kind::StepTimedOut(_) => "event.step_timed_out",
        Kind::StepCancelled(_) => "event.step_cancelled",
        Kind::ReportRefused(_) => "event.report_refused",
        Kind::CostBooked(_) => "event.cost_booked",
    }
}

/// Microseconds since 1970.
fn micros(time: Option<&Timestamp>) -> Option<i64> {
    time.map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000)
}
