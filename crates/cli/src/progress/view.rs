//! A run as far as a screen needs it: a snapshot, moved on by events and progress.

use longtake_proto::v1::attempt::Cause;
use longtake_proto::v1::event::Kind;
use longtake_proto::v1::{Event, Money, Progress, Run, RunProgress, Step, run, step};
use prost_types::Timestamp;

/// A run.
#[derive(Debug)]
pub(crate) struct View {
    /// Where it stands.
    pub(crate) state: run::State,
    /// Its latest event that is in here.
    pub(crate) event_number: i64,
    /// In the definition's order.
    pub(crate) steps: Vec<StepView>,
}

/// One of its steps.
#[derive(Clone, Debug)]
pub(crate) struct StepView {
    pub(crate) name: String,
    pub(crate) state: step::State,
    pub(crate) needs: Vec<String>,
    pub(crate) attempt: i32,
    pub(crate) done: i64,
    /// What of it is in a checkpoint: progress that comes late never lowers it.
    pub(crate) committed: i64,
    pub(crate) total: i64,
    pub(crate) doing: String,
    pub(crate) price: Option<Money>,
    /// When the latest attempt began.
    pub(crate) start: Option<Timestamp>,
    pub(crate) end: Option<Timestamp>,
    /// While it backs off: until when.
    pub(crate) until: Option<Timestamp>,
    /// Why the latest attempt ended, or the step.
    pub(crate) trouble: String,
}

/// A state as the contract has it; what this program does not know is unspecified.
pub(crate) fn run_state(number: i32) -> run::State {
    run::State::try_from(number).unwrap_or_default()
}

/// As [`run_state`].
pub(crate) fn step_state(number: i32) -> step::State {
    step::State::try_from(number).unwrap_or_default()
}

/// Whether a run in this state has ended.
pub(crate) fn is_terminal_state(state: run::State) -> bool {
    match state {
        run::State::Succeeded | run::State::Failed | run::State::TimedOut | run::State::Cancelled => true,
        run::State::Unspecified | run::State::Running | run::State::Paused | run::State::Stopping => false,
    }
}

impl View {
    /// The run as it is.
    pub(crate) fn new(run: &Run) -> View {
        View {
            state: run_state(run.state),
            event_number: run.event_number,
            steps: run.steps.iter().map(StepView::new).collect(),
        }
    }

    /// What it needs that is still open.
    pub(crate) fn open_needs<'a>(&self, step: &'a StepView) -> Vec<&'a str> {
        let open = |need: &&String| self.steps.iter().any(|other| other.name == **need && !other.is_done());
        step.needs.iter().filter(open).map(String::as_str).collect()
    }

    /// Moves on by one event. Events that are in the snapshot already change nothing.
    pub(crate) fn apply(&mut self, event: &Event) {
        if event.number <= self.event_number {
            return;
        }
        self.event_number = event.number;
        let Some(kind) = &event.kind else { return };
        match kind {
            Kind::RunPaused(_) => self.state = run::State::Paused,
            Kind::RunCreated(_) | Kind::RunResumed(_) => self.state = run::State::Running,
            Kind::RunStopping(_) => self.state = run::State::Stopping,
            Kind::RunEnded(ended) => self.state = run_state(ended.state),
            Kind::RunRetried(_) => self.retry(),
            Kind::DeadlineExtended(_) | Kind::ReportRefused(_) | Kind::CostBooked(_) => {}
            Kind::StepReady(_)
            | Kind::StepSkipped(_)
            | Kind::StepLeased(_)
            | Kind::StepStarted(_)
            | Kind::CheckpointCommitted(_)
            | Kind::StepSucceeded(_)
            | Kind::StepBackedOff(_)
            | Kind::StepReturned(_)
            | Kind::StepFailed(_)
            | Kind::StepTimedOut(_)
            | Kind::StepCancelled(_) => {
                let name = super::subject(kind);
                if let Some(step) = self.steps.iter_mut().find(|step| step.name == name) {
                    step.apply(kind, event.time);
                }
            }
        }
    }

    fn retry(&mut self) {
        self.state = run::State::Running;
        for step in self.steps.iter_mut().filter(|step| !step.is_done()) {
            step.state = step::State::Pending;
            step.trouble.clear();
        }
    }

    /// Takes in how far running steps are.
    pub(crate) fn progress(&mut self, progress: &RunProgress) {
        for step in &mut self.steps {
            if let Some(progress) = progress.steps.get(&step.name) {
                step.progress(progress);
            }
        }
    }
}

impl StepView {
    fn new(step: &Step) -> StepView {
        let mut view = StepView {
            name: step.name.clone(),
            state: step_state(step.state),
            needs: step.needs.clone(),
            attempt: step.attempt,
            done: 0,
            committed: 0,
            total: 0,
            doing: String::new(),
            price: step.price,
            start: step.start_time,
            end: step.end_time,
            until: step.next_retry_time,
            trouble: step.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        };
        if let Some(checkpoint) = step.checkpoint.as_ref().and_then(|stored| stored.checkpoint.as_ref()) {
            view.commit(checkpoint.done, checkpoint.total);
        }
        if let Some(progress) = &step.progress {
            view.progress(progress);
        }
        view
    }

    /// Whether what needs it may begin.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, step::State::Succeeded | step::State::Skipped)
    }

    fn commit(&mut self, done: i64, total: i64) {
        self.committed = self.committed.max(done);
        self.done = self.done.max(done);
        self.total = total;
    }

    fn progress(&mut self, progress: &Progress) {
        self.done = progress.done.max(self.committed);
        self.total = progress.total;
        self.doing.clone_from(&progress.message);
    }

    fn apply(&mut self, kind: &Kind, time: Option<Timestamp>) {
        match kind {
            Kind::StepReady(_) => (self.state, self.until) = (step::State::Ready, None),
            Kind::StepSkipped(_) => (self.state, self.end) = (step::State::Skipped, time),
            Kind::StepLeased(leased) => {
                (self.state, self.attempt, self.start) = (step::State::Leased, leased.attempt, time);
                self.until = None;
                self.done = self.committed;
                self.doing.clear();
            }
            Kind::StepStarted(_) => self.state = step::State::Running,
            Kind::CheckpointCommitted(checkpoint) => {
                self.state = step::State::Running;
                self.commit(checkpoint.done, checkpoint.total);
            }
            Kind::StepSucceeded(_) => (self.state, self.end) = (step::State::Succeeded, time),
            Kind::StepBackedOff(ended) => {
                (self.state, self.until) = (step::State::BackingOff, ended.until);
                self.trouble = trouble(ended.cause, ended.error.as_ref());
            }
            Kind::StepReturned(ended) => {
                self.state = step::State::Ready;
                self.trouble = trouble(ended.cause, ended.error.as_ref());
            }
            Kind::StepFailed(ended) => {
                (self.state, self.end) = (step::State::Failed, time);
                self.trouble = trouble(ended.cause, ended.error.as_ref());
            }
            Kind::StepTimedOut(ended) => {
                (self.state, self.end) = (step::State::TimedOut, time);
                self.trouble = trouble(Cause::StepTimeout.into(), ended.error.as_ref());
            }
            Kind::StepCancelled(_) => (self.state, self.end) = (step::State::Cancelled, time),
            Kind::RunCreated(_)
            | Kind::RunPaused(_)
            | Kind::RunResumed(_)
            | Kind::RunStopping(_)
            | Kind::RunRetried(_)
            | Kind::DeadlineExtended(_)
            | Kind::RunEnded(_)
            | Kind::ReportRefused(_)
            | Kind::CostBooked(_) => {}
        }
    }
}

/// Why an attempt ended: what was said of it, else its cause in words.
fn trouble(cause: i32, error: Option<&longtake_proto::v1::StepError>) -> String {
    match error {
        Some(error) if !error.message.is_empty() => error.message.clone(),
        _ => super::history::cause(cause).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use longtake_proto::v1;

    use super::*;

    fn snapshot() -> View {
        let step = |name: &str, needs: &[&str], state: step::State| Step {
            name: name.into(),
            needs: needs.iter().map(ToString::to_string).collect(),
            state: state.into(),
            ..Default::default()
        };
        View::new(&Run {
            state: run::State::Running.into(),
            event_number: 2,
            steps: vec![
                step("script", &[], step::State::Ready),
                step("audio", &["script"], step::State::Pending),
                step("video", &["script", "audio"], step::State::Pending),
            ],
            ..Default::default()
        })
    }

    fn see(view: &mut View, kind: Kind) {
        let number = view.event_number + 1;
        view.apply(&Event { number, time: Some(Timestamp { seconds: number, nanos: 0 }), kind: Some(kind) });
    }

    fn leased(step: &str, attempt: i32) -> Kind {
        Kind::StepLeased(v1::StepLeased { step: step.into(), attempt, ..Default::default() })
    }

    #[test]
    fn a_step_is_followed_through_failure_and_success() {
        let mut view = snapshot();
        assert_eq!(view.open_needs(&view.steps[2]), ["script", "audio"]);
        see(&mut view, leased("script", 1));
        let error = v1::StepError { message: "rate limit".into(), ..Default::default() };
        see(
            &mut view,
            Kind::StepBackedOff(v1::StepBackedOff {
                step: "script".into(),
                attempt: 1,
                error: Some(error),
                until: Some(Timestamp { seconds: 9, nanos: 0 }),
                ..Default::default()
            }),
        );
        let script = &view.steps[0];
        assert_eq!((script.state, script.trouble.as_str()), (step::State::BackingOff, "rate limit"));
        see(&mut view, leased("script", 2));
        assert_eq!((view.steps[0].attempt, view.steps[0].until), (2, None));
        see(
            &mut view,
            Kind::StepSucceeded(v1::StepSucceeded { step: "script".into(), ..Default::default() }),
        );
        assert_eq!(view.open_needs(&view.steps[2]), ["audio"]);
        see(&mut view, Kind::StepSkipped(v1::StepSkipped { step: "audio".into() }));
        assert_eq!(view.open_needs(&view.steps[2]), [""; 0]);
        assert_eq!(view.event_number, 7);
    }

    #[test]
    fn events_of_the_snapshot_change_nothing_and_committed_work_never_shrinks() {
        let mut view = snapshot();
        view.apply(&Event { number: 2, time: None, kind: Some(leased("script", 9)) });
        assert_eq!((view.steps[0].attempt, view.event_number), (0, 2));
        let checkpoint = |done| {
            Kind::CheckpointCommitted(v1::CheckpointCommitted {
                step: "script".into(),
                done,
                total: 7,
                ..Default::default()
            })
        };
        see(&mut view, checkpoint(3));
        see(&mut view, checkpoint(2));
        assert_eq!((view.steps[0].done, view.steps[0].total), (3, 7));
    }

    #[test]
    fn a_retry_opens_what_had_not_been_done() {
        let mut view = snapshot();
        see(
            &mut view,
            Kind::StepSucceeded(v1::StepSucceeded { step: "script".into(), ..Default::default() }),
        );
        see(&mut view, Kind::StepFailed(v1::StepFailed { step: "audio".into(), ..Default::default() }));
        let ended = v1::RunEnded { state: run::State::Failed.into(), ..Default::default() };
        see(&mut view, Kind::RunEnded(ended));
        assert!(is_terminal_state(view.state));
        see(&mut view, Kind::RunRetried(v1::RunRetried::default()));
        let states: Vec<_> = view.steps.iter().map(|step| step.state).collect();
        assert_eq!(states, [step::State::Succeeded, step::State::Pending, step::State::Pending]);
        assert_eq!(view.state, run::State::Running);
    }
}
