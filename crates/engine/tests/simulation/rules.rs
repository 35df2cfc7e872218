//! What must hold of every commit (DESIGN §7).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use longtake_engine::definition::Workflow;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::evolve;
use longtake_engine::ids::{RunId, RunNo, SessionId, StepNo};
use longtake_engine::lane::DISPATCH_TIMEOUT;
use longtake_engine::lane::work::{Fence, HotRow, RunWrite};
use longtake_engine::rows::Rows;
use longtake_engine::run::{Cause, Outcome, Run, RunState, Step, StepState};
use longtake_engine::time::{Duration, Timestamp};

use crate::db::{Row, SessionRow, kept};
use crate::stats::{Hit, Stats};

/// What a write is judged by.
pub struct Judge<'a> {
    pub id: RunId,
    pub workflow: &'a Workflow,
    pub now: Timestamp,
    pub sessions: &'a BTreeMap<SessionId, SessionRow>,
    pub ended: &'a BTreeSet<SessionId>,
    /// Outages: when they began and how much time they gave.
    pub outages: &'a [(Timestamp, Duration)],
    pub left_out: &'a BTreeMap<(RunId, StepNo, u32), u32>,
}

impl Judge<'_> {
    /// The rows after a write whose fence held: every event must be allowed where it stands, and the rows must be what the
    /// state, which is the fold of the events, asks for.
    pub fn with_events(
        &self,
        row: Option<Row>,
        write: &RunWrite,
        numbers: &mut i64,
        stats: &mut Stats,
    ) -> Row {
        let now = self.now;
        let (mut row, mut run) = match (row, &write.fence) {
            (Some(row), _) => {
                let run = (*row.run).clone();
                (row, Some(run))
            }
            (None, Fence::Absent(request)) => {
                assert_eq!(write.id, request.id, "the fence names another run");
                *numbers += 1;
                (new_row(RunNo(*numbers), write, now), None)
            }
            (None, Fence::Version { .. }) => panic!("a fence on a run that does not exist held"),
        };
        assert!(!write.events.is_empty(), "a write that changes nothing");
        for event in &write.events {
            let before = run.take();
            let last = before.as_ref().map_or(0, |run| run.last_event);
            assert_eq!(event.number, last + 1, "events have a gap");
            self.check(before.as_ref(), event, stats);
            if let EventKind::StepLeased { step, .. } = &event.kind {
                stats.hit(if row.ready.contains_key(step) { Hit::BacklogGrant } else { Hit::DirectGrant });
            }
            let event = kept(event);
            run = evolve(before, &event);
            row.events.push(event);
        }
        let run = run.expect("events make a run");
        assert_eq!(write.row, HotRow::of(&run), "the hot row is not the fold of the events");
        for step in &write.changes.unready {
            assert!(row.ready.remove(step).is_some(), "a ready row was to be deleted that is not there");
        }
        for (step, since) in &write.changes.ready {
            assert!(row.ready.insert(*step, *since).is_none(), "a ready row was there already");
        }
        for timer in &write.changes.unset {
            assert!(row.timers.remove(timer).is_some(), "a timer was to be deleted that is not there");
        }
        row.timers.extend(write.changes.set.iter().copied());
        row.checkpoints.extend(write.checkpoints.iter().cloned());
        let wanted = Rows::of(&run);
        assert_eq!(
            (&row.ready, &row.timers),
            (&wanted.ready, &wanted.timers),
            "rows are not what the state asks for"
        );
        row.hot = write.row.clone();
        row.run = Rc::new(run);
        row.history.push((now, row.run.clone()));
        row
    }

    fn check(&self, before: Option<&Run>, event: &Event, stats: &mut Stats) {
        let Some(run) = before else {
            return assert!(matches!(event.kind, EventKind::RunCreated { .. }), "the first event");
        };
        if run.is_terminal() {
            let allowed = matches!(
                event.kind,
                EventKind::RunRetried { .. } | EventKind::ReportRefused { .. } | EventKind::CostBooked { .. }
            );
            assert!(allowed, "{:?} after the end", event.kind);
        }
        match event.kind.step() {
            Some(step) => self.check_step(run, step, &run.steps[step], &event.kind, stats),
            None => self.check_run(run, &event.kind, stats),
        }
    }

    fn check_run(&self, run: &Run, kind: &EventKind, stats: &mut Stats) {
        match kind {
            EventKind::RunCreated { .. } => panic!("created twice"),
            EventKind::RunStopping { outcome, .. } => {
                let timed_out = run.steps.iter().any(|step| step.state == StepState::TimedOut);
                if *outcome == Outcome::TimedOut && !timed_out {
                    assert!(
                        run.deadline.is_some_and(|deadline| deadline <= self.now),
                        "stopped before its deadline"
                    );
                    stats.hit(Hit::RunTimedOut);
                }
                if *outcome == Outcome::Cancelled {
                    stats.hit(Hit::Cancelled);
                }
            }
            EventKind::RunEnded { outcome, .. } => {
                assert!(!run.steps.iter().any(|step| step.state.is_open()), "ended with an open step");
                let succeeded = *outcome == Outcome::Succeeded;
                assert!(
                    !succeeded || run.steps.iter().all(|step| step.state.is_done()),
                    "SUCCEEDED without its steps"
                );
                stats.hit(if succeeded { Hit::Succeeded } else { Hit::Failed });
            }
            EventKind::RunPaused { .. } => stats.hit(Hit::Paused),
            EventKind::RunResumed { .. } => stats.hit(Hit::Resumed),
            EventKind::RunRetried { .. } => {
                assert!(run.is_terminal(), "retried before its end");
                stats.hit(Hit::Retried);
            }
            EventKind::RunDeadlineSet { .. } => stats.hit(Hit::Extended),
            _ => panic!("an event of a step without a step"),
        }
    }

    fn check_step(&self, run: &Run, number: StepNo, step: &Step, kind: &EventKind, stats: &mut Stats) {
        let live = step.live();
        match kind {
            EventKind::StepReady { .. } => match step.state {
                StepState::Pending => {
                    assert!(run.needs_done(self.workflow, number), "ready before its needs");
                }
                StepState::BackingOff(until) => {
                    assert!(until <= self.now, "ready before its backoff is over");
                }
                state => panic!("{state:?} became ready"),
            },
            EventKind::StepLeased { .. } => {
                assert!(matches!(step.state, StepState::Ready(_)), "leased, but {:?}", step.state);
                assert!(
                    live.is_none() && run.state == RunState::Running,
                    "leased twice, or in a run that does not run"
                );
                assert!(run.needs_done(self.workflow, number), "leased before its needs");
            }
            EventKind::StepStarted { .. } => assert_eq!(step.state, StepState::Leased),
            EventKind::CheckpointCommitted { checkpoint, .. } => {
                assert_eq!(
                    live.map(|(attempt, _)| attempt),
                    Some(checkpoint.attempt),
                    "a checkpoint without a lease"
                );
                let known = step.checkpoint.as_ref().map(|known| (known.attempt, known.sequence));
                assert!(known < Some((checkpoint.attempt, checkpoint.sequence)), "the checkpoint went back");
            }
            EventKind::StepSucceeded { .. } => assert!(live.is_some(), "completed without a lease"),
            EventKind::StepSkipped { .. } => {
                assert!(step.state == StepState::Pending && step.attempts.is_empty(), "skipped too late");
                stats.hit(Hit::Skipped);
            }
            EventKind::StepBackedOff { cause, .. } | EventKind::StepReturned { cause, .. } => {
                self.check_end(number, step, *cause, stats);
            }
            EventKind::StepFailed { cause: Some(cause), .. } => self.check_end(number, step, *cause, stats),
            EventKind::StepFailed { cause: None, .. } => assert_eq!(step.state, StepState::Pending),
            EventKind::StepTimedOut { .. } => {
                assert!(
                    step.state.is_open() && step.deadline.is_some_and(|deadline| deadline <= self.now),
                    "timed out early"
                );
                stats.hit(Hit::StepTimedOut);
            }
            EventKind::StepCancelled { cause, .. } => {
                assert!(
                    matches!(run.state, RunState::Stopping(_)) && step.state.is_open(),
                    "cancelled in a run that goes on"
                );
                if *cause == Some(Cause::Stopped) {
                    stats.hit(Hit::StopGrace);
                }
            }
            EventKind::StepDeadlineSet { .. } | EventKind::AttemptDeadlineSet { .. } => {
                stats.hit(Hit::Extended);
            }
            EventKind::ReportRefused { .. } => {}
            EventKind::CostBooked { attempt, .. } => {
                let booked = step.numbered(*attempt).and_then(|attempt| attempt.cost);
                assert!(booked.is_none(), "a cost was booked twice");
            }
            _ => panic!("an event of a run with a step"),
        }
    }

    /// The server may end an attempt only for a reason that is one by the database's clock.
    fn check_end(&self, number: StepNo, step: &Step, cause: Cause, stats: &mut Stats) {
        let Some((attempt, lease)) = step.live() else { panic!("an attempt ended that was not live") };
        let after = self.outages.iter().filter(|(began, _)| *began >= lease.leased_at);
        let moved = after.fold(Duration::ZERO, |sum, (_, credit)| sum + *credit);
        match cause {
            Cause::LeaseLost => {
                let lives =
                    self.sessions.contains_key(&lease.session) && !self.ended.contains(&lease.session);
                let left_out =
                    self.left_out.get(&(self.id, number, attempt)).is_some_and(|times| *times >= 2);
                assert!(!lives || left_out, "a lease was lost, but its session lives and names it");
                stats.hit(if lives { Hit::LeftOut } else { Hit::LeaseLost });
            }
            Cause::DispatchTimeout => {
                assert_eq!(step.state, StepState::Leased, "undelivered, but heard of");
                let early = lease.leased_at + DISPATCH_TIMEOUT + moved > self.now;
                stats.hit(if early { Hit::HandBack } else { Hit::DispatchTimeout });
            }
            Cause::NoProgress => {
                let timeout = self.workflow.steps[number].progress_timeout.expect("a progress timeout");
                assert!(lease.leased_at + timeout <= self.now, "no progress, too early");
                stats.hit(Hit::NoProgress);
            }
            Cause::AttemptTimeout => {
                assert!(
                    lease.deadline.is_some_and(|deadline| deadline + moved <= self.now),
                    "the attempt timed out too early"
                );
                stats.hit(Hit::AttemptTimeout);
            }
            Cause::Completed | Cause::Failed | Cause::Yielded | Cause::StepTimeout | Cause::Stopped => {}
        }
    }
}

fn new_row(no: RunNo, write: &RunWrite, now: Timestamp) -> Row {
    let Some(EventKind::RunCreated { .. }) = write.events.first().map(|event| &event.kind) else {
        panic!("a history that does not begin with RunCreated");
    };
    let run = evolve(None, &write.events[0]).expect("a run");
    assert!(write.events[0].at <= now + Duration::from_secs(2), "an event of the future");
    Row {
        no,
        workflow: write.workflow.clone(),
        run: Rc::new(run),
        hot: write.row.clone(),
        events: Vec::new(),
        ready: BTreeMap::new(),
        timers: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
        history: Vec::new(),
        by: 0,
    }
}
