//! Histories that no decision made.

use std::sync::Arc;

use longtake_engine::decide::apply;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{RequestId, SecretHash, SessionId, StepNo};
use longtake_engine::money::Money;
use longtake_engine::rows::Rows;
use longtake_engine::run::{Cause, Checkpoint, CheckpointData, Outcome, ReportKind, StepError};
use longtake_engine::time::Timestamp;
use longtake_engine::{decide, evolve};
use proptest::prelude::*;
use uuid::Uuid;

use crate::commands::{Asked, Clock, made_of};
use crate::workflows::{Plan, RUN};

/// Any event but the first.
pub fn kind() -> impl Strategy<Value = EventKind> {
    let step = prop_oneof![20 => 0..8usize, 1 => any::<StepNo>()];
    (0..21u8, step, any::<(i64, u32, u64)>(), any::<(bool, u8)>())
        .prop_map(|(kind, step, numbers, bits)| make(kind, step, numbers, bits))
}

fn make(
    kind: u8,
    step: StepNo,
    (number, attempt, bits): (i64, u32, u64),
    (flag, few): (bool, u8),
) -> EventKind {
    let call = RequestId(Uuid::from_u128(u128::from(few % 32)));
    let deadline = Timestamp(number);
    let (some_deadline, some_call) = (flag.then_some(deadline), flag.then_some(call));
    let (cost, some_cost) = (Money(number), flag.then_some(Money(number)));
    let attempt = if flag { u32::from(few % 4) } else { attempt };
    let cause = [Cause::Failed, Cause::Yielded, Cause::LeaseLost, Cause::Completed, Cause::Stopped]
        [usize::from(few % 5)];
    let outcome =
        [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::Cancelled][usize::from(few % 4)];
    let error = StepError::new("BOOM", "it broke", flag);
    let some_error = (few % 2 == 0).then(|| error.clone());
    let reason = String::new();
    match kind {
        0 => EventKind::StepReady { step, deadline: some_deadline },
        1 => EventKind::StepSkipped { step },
        2 | 3 => EventKind::StepLeased {
            step,
            secret: SecretHash([few; 16]),
            session: SessionId(Uuid::from_u128(u128::from(bits))),
            executor: "garbage".into(),
            deadline: some_deadline,
        },
        4 => EventKind::StepStarted { step },
        5 => {
            let data = Arc::new(CheckpointData::default());
            let checkpoint =
                Checkpoint { attempt, sequence: number, done: number, total: number, at: deadline, data };
            EventKind::CheckpointCommitted { step, checkpoint }
        }
        6 => {
            EventKind::StepSucceeded { step, output: made_of(serde_json::json!({ "ok": flag }), flag), cost }
        }
        7 => EventKind::StepBackedOff { step, cause, error: some_error, cost: some_cost, until: deadline },
        8 => EventKind::StepReturned { step, cause, error: some_error, cost: some_cost },
        9 => EventKind::StepFailed { step, cause: flag.then_some(cause), error, cost: some_cost },
        10 => EventKind::StepTimedOut { step, error },
        11 => EventKind::StepCancelled {
            step,
            cause: flag.then_some(cause),
            error: some_error,
            cost: some_cost,
        },
        12 => EventKind::RunPaused { reason, call: some_call },
        13 => EventKind::RunResumed { call },
        14 => EventKind::RunStopping { outcome, reason, call: some_call },
        15 => EventKind::RunRetried { deadline: some_deadline, call },
        16 => EventKind::RunDeadlineSet { deadline, call },
        17 => EventKind::StepDeadlineSet { step, deadline, call },
        18 => EventKind::AttemptDeadlineSet { step, deadline, call },
        19 => EventKind::ReportRefused { step, attempt, report: ReportKind::Fail },
        _ if flag => EventKind::CostBooked { step, attempt, cost },
        _ => EventKind::RunEnded { outcome, reason: Some(reason), saved: cost },
    }
}

/// Folds the events and gives the commands; under another workflow too.
pub fn play(plan: &Plan, kinds: &[(EventKind, i64, i64)], asked: &[Asked], other: &Plan) {
    let workflow = plan.workflow();
    let request = Arc::new(plan.request());
    let created = EventKind::RunCreated { request: request.clone(), steps: workflow.steps.len() };
    let again = EventKind::RunCreated { request, steps: usize::MAX };
    let first = Event { number: 1, at: Timestamp(0), kind: created };
    assert_eq!(
        kinds.iter().fold(None, |run, (kind, number, at)| evolve(run, &event(kind, *number, *at))),
        None
    );

    let run = evolve(None, &first);
    let steps = run.as_ref().map(|run| run.steps.clone());
    let run = evolve(run, &event(&again, 2, 0));
    assert_eq!(run.as_ref().map(|run| run.steps.clone()), steps, "a run is created once");
    let mut run = kinds.iter().fold(run, |run, (kind, number, at)| evolve(run, &event(kind, *number, *at)));
    for asked in asked {
        let Some(current) = &run else { panic!("the run is lost") };
        let _ = Rows::of(current).changes(&Rows::default());
        let Some(command) = asked.what.command(current) else { continue };
        let now = match asked.clock {
            Clock::Stays | Clock::ToTimer => Timestamp(0),
            Clock::Moves(to) | Clock::Jumps(to) => Timestamp(to),
        };
        let _ = decide(&other.workflow(), RUN, Some(current), &command, now);
        let _ = decide(&workflow, RUN, None, &command, now);
        let _ = apply(&workflow, RUN, &mut run, &command, now);
    }
}

fn event(kind: &EventKind, number: i64, at: i64) -> Event {
    Event { number, at: Timestamp(at), kind: kind.clone() }
}
