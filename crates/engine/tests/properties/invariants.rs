//! What must hold: the numbers are those of DESIGN §7.

use std::collections::{BTreeMap, BTreeSet};

use longtake_engine::command::{Answer, Command, Decision, Timer};
use longtake_engine::decide::STOP_GRACE;
use longtake_engine::definition::Workflow;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::evolve;
use longtake_engine::ids::StepNo;
use longtake_engine::money::Money;
use longtake_engine::rows::{Changes, Rows};
use longtake_engine::run::{REMEMBERED_CALLS, Run, RunState, Step, StepState};

/// 9: the state is the fold of its events, numbered on from the last one; 4 and 7 on the way.
pub fn events(workflow: &Workflow, before: &Run, events: &[Event], after: &Run) {
    let mut run = before.clone();
    for event in events {
        assert_eq!(event.number, run.last_event + 1, "a gap before {event:?}");
        assert!(event.at >= run.updated_at, "time stepped back: {event:?}");
        match &event.kind {
            EventKind::StepLeased { step, .. } => {
                assert!(run.needs_done(workflow, *step), "leased before its needs are done: {event:?}");
                assert!(
                    matches!(run.steps[*step].state, StepState::Ready(_)),
                    "leased, but not ready: {event:?}"
                );
                assert_eq!(run.state, RunState::Running, "leased while the run is not running");
            }
            EventKind::ReportRefused { .. } | EventKind::CostBooked { .. } | EventKind::RunRetried { .. } => {
            }
            _ => assert!(!run.is_terminal(), "after the end: {event:?}"),
        }
        let was = run.state;
        run = evolve(Some(run), event).unwrap_or_else(|| panic!("{event:?} lost the run"));
        if let RunState::Stopping(outcome) = was {
            let kept = [RunState::Stopping(outcome), RunState::Ended(outcome)];
            assert!(kept.contains(&run.state), "the first cause wins: {was:?} became {:?}", run.state);
        }
        if matches!((was, run.state), (RunState::Ended(_), state) if state != was) {
            assert!(matches!(event.kind, EventKind::RunRetried { .. }), "terminal is final: {event:?}");
        }
    }
    assert_eq!(&run, after, "the state is not the fold of its events");
}

/// What holds for any state, however it came about.
pub fn state(workflow: &Workflow, run: &Run) {
    for (number, step) in run.steps.iter().enumerate() {
        one_step(workflow, run, number, step);
    }
    let spent = run.steps.iter().fold(Money::ZERO, |sum, step| sum + step.cost);
    assert_eq!(run.spent, spent, "8: what was spent is the sum of what the steps cost");
    if run.is_terminal() {
        assert!(run.steps.iter().all(|step| !step.state.is_open()), "a terminal run has an open step");
        assert!(run.ended_at.is_some());
    } else {
        assert!(run.steps.iter().any(|step| step.state.is_open()), "an open run has no open step");
        assert!(run.ended_at.is_none());
    }
    let calls: BTreeSet<_> = run.calls.iter().collect();
    assert!(run.calls.len() <= REMEMBERED_CALLS && calls.len() == run.calls.len());
    rows(run);
}

fn one_step(workflow: &Workflow, run: &Run, number: StepNo, step: &Step) {
    let live = step.attempts.iter().filter(|attempt| attempt.end.is_none()).count();
    assert_eq!(
        live,
        usize::from(step.state.is_leased()),
        "3: live leases of step {number}, {:?}",
        step.state
    );
    assert_eq!(step.live().is_some(), step.state.is_leased(), "the live attempt is the last one");
    let cost = step.attempts.iter().fold(Money::ZERO, |sum, attempt| sum + attempt.cost.unwrap_or_default());
    assert_eq!(step.cost, cost, "8: what step {number} cost is the sum of what its attempts cost");
    assert!(step.attempts.iter().all(|attempt| attempt.cost >= Some(Money::ZERO) || attempt.cost.is_none()));
    assert_eq!(step.output.is_some(), step.state == StepState::Succeeded, "outputs are of SUCCEEDED steps");
    assert_eq!(step.ended_at.is_some(), !step.state.is_open());
    if let Some(checkpoint) = &step.checkpoint {
        assert!(checkpoint.sequence >= 1 && checkpoint.done >= 0 && checkpoint.total >= 0);
        assert!(step.best_done >= checkpoint.done && checkpoint.attempt <= step.attempt());
    }
    let needs_done = run.needs_done(workflow, number);
    match step.state {
        StepState::Pending => {
            assert!(!needs_done, "6: PENDING has an open need");
            assert!(matches!(run.state, RunState::Running | RunState::Paused), "cancelled with its run");
        }
        StepState::Ready(_) | StepState::BackingOff(_) => {
            assert!(needs_done, "4: its needs are done");
            assert!(matches!(run.state, RunState::Running | RunState::Paused), "cancelled with its run");
        }
        StepState::Leased | StepState::Running | StepState::Succeeded => {
            assert!(needs_done, "4: its needs are done");
        }
        StepState::Skipped => assert!(step.attempts.is_empty(), "3: a skipped step is never leased"),
        StepState::Failed | StepState::TimedOut | StepState::Cancelled => {
            let stopped = matches!(run.state, RunState::Stopping(_) | RunState::Ended(_));
            assert!(stopped, "a step that failed stops its run");
        }
    }
    let budgets = workflow.steps[number].budgets;
    let spent = step.used.failures >= budgets.failures
        || step.used.losses >= budgets.losses
        || step.used.yields >= budgets.yields;
    assert!(!spent || !step.state.is_open() || run.state != RunState::Running, "a spent budget goes on");
    assert!(step.used.undelivered <= step.used.losses);
}

/// 6: every open step has what brings it on, and no other has it.
fn rows(run: &Run) {
    let rows = Rows::of(run);
    let open = matches!(run.state, RunState::Running | RunState::Paused);
    for (number, step) in run.steps.iter().enumerate() {
        let ready = match step.state {
            StepState::Ready(since) if run.state == RunState::Running => Some(since),
            _ => None,
        };
        assert_eq!(rows.ready.get(&number).copied(), ready, "the ready row of step {number}");
        let backoff = match step.state {
            StepState::BackingOff(until) => Some(until),
            _ => None,
        };
        assert_eq!(
            rows.timers.get(&Timer::Backoff(number)).copied(),
            backoff,
            "the backoff of step {number}"
        );
        let deadline = step.deadline.filter(|_| open && step.state.is_open());
        assert_eq!(rows.timers.get(&Timer::StepDeadline(number)).copied(), deadline);
    }
    assert_eq!(rows.timers.get(&Timer::RunDeadline).copied(), run.deadline.filter(|_| open));
    let grace = match run.state {
        RunState::Stopping(_) => run.stopping_since.map(|since| since + STOP_GRACE),
        RunState::Running | RunState::Paused | RunState::Ended(_) => None,
    };
    assert_eq!(rows.timers.get(&Timer::StopGrace).copied(), grace);
    assert!(rows.ready.keys().all(|step| *step < run.steps.len()));
    let known = 2 * run.steps.len() + 2;
    assert!(rows.timers.len() <= known);
}

/// What holds between two states.
pub fn steps(before: &Run, events: &[Event], after: &Run) {
    let mut leased: BTreeMap<StepNo, usize> = BTreeMap::new();
    for event in events {
        if let EventKind::StepLeased { step, .. } = &event.kind {
            *leased.entry(*step).or_default() += 1;
        }
    }
    for (number, (was, is)) in before.steps.iter().zip(&after.steps).enumerate() {
        let granted = leased.get(&number).copied().unwrap_or_default();
        assert_eq!(
            is.attempts.len(),
            was.attempts.len() + granted,
            "3: attempts rise by one with each lease"
        );
        if was.state.is_done() {
            assert_eq!((was.state, &was.output), (is.state, &is.output), "3: done is final");
        }
        let at = |step: &Step| step.checkpoint.as_ref().map(|kept| (kept.attempt, kept.sequence));
        assert!(at(is) >= at(was), "5: the committed checkpoint never goes back");
        assert!(is.best_done >= was.best_done);
        for (old, new) in was.attempts.iter().zip(&is.attempts) {
            assert_eq!((old.secret, old.session, old.leased_at), (new.secret, new.session, new.leased_at));
            assert!(old.end.is_none() || old.end == new.end, "the end of an attempt is final");
            assert!(old.cost.is_none() || old.cost == new.cost, "8: booked once");
            assert!(new.refused.starts_with(&old.refused), "noted once");
            let kinds: BTreeSet<_> = new.refused.iter().collect();
            assert_eq!(kinds.len(), new.refused.len(), "noted once per kind");
        }
    }
}

/// What holds between a command and its answer.
pub fn answer(before: &Run, command: &Command, decision: &Decision, after: &Run) {
    if decision.events.is_empty() {
        assert_eq!(before, after, "a change without an event");
    }
    match &decision.answer {
        Err(_) => {
            let noted = |event: &Event| {
                matches!(event.kind, EventKind::ReportRefused { .. } | EventKind::CostBooked { .. })
            };
            assert!(decision.events.iter().all(noted), "refused, and yet {:?}", decision.events);
        }
        Ok(Answer::Done { changed }) => assert_eq!(*changed, !decision.events.is_empty(), "{command:?}"),
        Ok(Answer::Reported { fresh, directive, sequence }) => {
            let Command::Report { lease, report } = command else { panic!("{command:?} is no report") };
            let step = &after.steps[lease.step];
            let live = step.live().is_some_and(|(attempt, _)| attempt == lease.attempt);
            assert_eq!(*directive, after.directive().filter(|_| live), "the directive is the run's");
            assert!(*sequence >= 0 && (*fresh || !live));
            let sent = report.checkpoint().map_or(0, |checkpoint| checkpoint.sequence);
            assert!(!fresh || *sequence >= sent, "a checkpoint was not committed");
        }
        Ok(Answer::Created { .. } | Answer::Leased { .. }) => {}
    }
}

/// What is written for the way from one set of rows to another leads there.
pub fn leads_to(before: &Rows, after: &Rows) {
    let mut rows = before.clone();
    apply(&mut rows, &before.changes(after));
    assert_eq!(&rows, after, "what is written does not lead to the rows");
}

/// Does with rows what the store does.
fn apply(rows: &mut Rows, changes: &Changes) {
    for step in &changes.unready {
        assert!(rows.ready.remove(step).is_some(), "deletes a ready row that is not there");
    }
    for (step, since) in &changes.ready {
        assert_eq!(rows.ready.insert(*step, *since), None, "inserts a ready row that is there");
    }
    for timer in &changes.unset {
        assert!(rows.timers.remove(timer).is_some(), "deletes a timer that is not there");
    }
    rows.timers.extend(changes.set.iter().copied());
}

/// What holds for a whole history.
pub fn history(events: &[Event]) {
    let mut succeeded = BTreeSet::new();
    let mut ended = false;
    for event in events {
        match &event.kind {
            EventKind::StepSucceeded { step, .. } => {
                assert!(succeeded.insert(*step), "3: succeeded twice: {event:?}");
            }
            EventKind::RunEnded { .. } => assert!(!std::mem::replace(&mut ended, true), "7: ended twice"),
            EventKind::RunRetried { .. } => {
                assert!(std::mem::replace(&mut ended, false), "7: retried before its end");
            }
            _ => {}
        }
    }
}
