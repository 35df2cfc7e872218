//! Nothing is ever stuck: executors that do their work, timers that fire, and an operator who resumes end every run.

use longtake_engine::command::{Command, Operation, Report, Timer};
use longtake_engine::ids::{RequestId, SessionId, StepNo};
use longtake_engine::rows::Rows;
use longtake_engine::run::{Cause, RunState};
use longtake_engine::time::Timestamp;
use uuid::Uuid;

use crate::commands::{lease, made_of, secret};
use crate::world::World;

/// More rounds than any run can need: each ends an attempt, fires a timer, or resumes.
const ROUNDS: usize = 1_000;

/// Brings the run to its end. Executors that hold leases now have survived where a bit of `survivors` is set.
pub fn finish(world: &mut World, survivors: u64) {
    world.now = world.now.max(world.run.updated_at);
    for step in 0..world.run.steps.len() {
        let Some((attempt, _)) = world.run.steps[step].live() else { continue };
        if survivors >> step & 1 == 0 {
            let cause = Cause::LeaseLost;
            world.give(&Command::Revoke { step, attempt, cause, jitter: survivors });
        }
    }
    for round in 0..ROUNDS {
        if world.run.is_terminal() {
            return;
        }
        let last = world.run.last_event;
        work(world);
        if world.run.state == RunState::Paused {
            let call = RequestId(Uuid::from_u128(1_000_000 + round as u128));
            world.give(&Command::Operate { call, operation: Operation::Resume });
        }
        if world.run.last_event == last {
            fire_next(world);
        }
        assert!(world.run.last_event > last, "stuck: {:#?}", world.run);
    }
    panic!("goes round for ever: {:#?}", world.run);
}

/// Leases what is ready, and completes what is leased.
fn work(world: &mut World) {
    for step in 0..world.run.steps.len() {
        if Rows::of(&world.run).ready.contains_key(&step) {
            lease_step(world, step);
        }
        if let Some((attempt, _)) = world.run.steps[step].live() {
            let output = made_of(serde_json::json!({ "ok": true }), true);
            let decision = world.give(&Command::Report {
                lease: lease(&world.run, step, attempt),
                report: Report::Complete { output, cost: None },
            });
            assert!(decision.answer.is_ok(), "an honest completion is refused: {:?}", decision.answer);
        }
    }
}

fn lease_step(world: &mut World, step: StepNo) {
    let attempt = world.run.steps[step].attempt() + 1;
    let session = SessionId(Uuid::from_u128(9));
    let decision = world.give(&Command::Dispatch {
        step,
        secret: secret(step, attempt),
        session,
        executor: "honest".into(),
    });
    assert!(decision.answer.is_ok(), "a ready row is no ready step: {:?}", decision.answer);
}

fn fire_next(world: &mut World) {
    let mut timers: Vec<(Timestamp, Timer)> =
        Rows::of(&world.run).timers.iter().map(|(timer, due)| (*due, *timer)).collect();
    timers.sort_unstable();
    if let Some((due, timer)) = timers.first() {
        world.now = world.now.max(*due);
        world.give(&Command::Fire(*timer));
    }
}
