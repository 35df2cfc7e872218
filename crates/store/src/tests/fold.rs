//! The rows equal the fold of what was decided, whatever happens to runs.

use std::collections::BTreeMap;

use longtake_engine::command::{Command, Deadline, NewCheckpoint, Operation, Report, Timer};
use longtake_engine::ids::RequestId;
use longtake_engine::lane::work::{HotRow, Load};
use longtake_engine::rows::Rows;
use longtake_engine::run::{CheckpointData, Outcome, Run, RunState, StepError, StepState};
use longtake_engine::time::Timestamp;
use serde_json::{Value, json};
use sqlx::Row;
use uuid::Uuid;

use super::support::{Client, Database, Model, after, seconds, session};
use crate::lane::timer;
use crate::stamp::Stamp;

/// A small generator of numbers below a bound, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }
}

/// Does something that the run's state allows.
fn step(model: &mut Model, dice: &mut Dice, now: Timestamp) {
    let run = model.run.clone().expect("it exists");
    let number = dice.roll(run.steps.len());
    let reason = "test".to_owned();
    let command = match (run.steps[number].state, run.state) {
        (_, RunState::Ended(Outcome::Succeeded)) => return,
        (_, RunState::Ended(_)) => operation(Operation::Retry { deadline: Some(now + seconds(50)) }),
        (StepState::Ready(_), RunState::Running) => {
            model.lease(number, session(), now);
            return;
        }
        (StepState::Leased | StepState::Running, _) => return report(model, dice, number, now),
        (StepState::BackingOff(_), _) => Command::Fire(Timer::Backoff(number)),
        (_, RunState::Paused) => operation(Operation::Resume),
        (_, RunState::Running) => match dice.roll(12) {
            0 => operation(Operation::Cancel { reason }),
            1 => operation(Operation::Pause { reason }),
            2 => operation(Operation::ExtendDeadline { which: Deadline::Run, to: now + seconds(100) }),
            _ => return,
        },
        _ => return,
    };
    // A backoff is over when it is over.
    let StepState::BackingOff(until) = run.steps[number].state else {
        model.command(&command, now);
        return;
    };
    model.command(&command, until.max(now));
}

fn operation(operation: Operation) -> Command {
    Command::Operate { call: RequestId(Uuid::new_v4()), operation }
}

fn report(model: &mut Model, dice: &mut Dice, number: usize, now: Timestamp) {
    let steps = &model.run.as_ref().expect("it exists").steps;
    let attempt = steps[number].attempt();
    let last = steps[number]
        .checkpoint
        .as_ref()
        .filter(|last| last.attempt == attempt)
        .map_or(0, |last| last.sequence);
    let checkpoint = NewCheckpoint {
        sequence: last + 1,
        done: i64::try_from(dice.roll(100)).unwrap(),
        total: 100,
        data: std::sync::Arc::new(CheckpointData { data: json!({"at": last}), artifacts: Vec::new() }),
    };
    let checkpoint = (dice.roll(2) == 0).then_some(checkpoint);
    let error =
        StepError { code: "T".to_owned(), message: "t".to_owned(), retryable: true, details: Value::Null };
    match dice.roll(5) {
        0 => model.report(
            number,
            Report::Fail { error, retry_after: None, checkpoint, cost: None, jitter: 7 },
            now,
        ),
        1 => model.report(
            number,
            Report::Yield { reason: "t".to_owned(), checkpoint, cost: None, jitter: 7 },
            now,
        ),
        2 => model.complete(number, now),
        _ => model.report(number, Report::Heartbeat { checkpoint }, now),
    };
}

/// Compares everything that is stored with what it should be.
async fn compare(database: &Database, client: &mut Client, models: &[Model]) {
    let runs = models.iter().map(|model| (model.id, false)).collect();
    let loaded = client.lane.load(&Load { runs, ready: BTreeMap::new() }).await.unwrap();
    assert_eq!(loaded.runs.len(), models.len());
    for stored in loaded.runs {
        let model = models.iter().find(|model| model.id == stored.id).unwrap();
        let run = model.run.as_ref().unwrap();
        assert_eq!(Some(stored.no), model.no);
        assert_eq!(stored.workflow, model.workflow.version);
        assert_eq!(stored.row, HotRow::of(run));
        let events: usize = stored.history.iter().map(Vec::len).sum();
        assert_eq!(i64::try_from(events / 150).unwrap(), run.last_event, "events without gaps");
        assert_eq!(rows(database, stored.no.0).await, Rows::of(run));
        assert_eq!(
            stored.checkpoints.len(),
            run.steps.iter().filter(|step| step.checkpoint.is_some()).count()
        );
        for row in stored.checkpoints {
            let checkpoint = run.steps[row.step].checkpoint.as_ref().unwrap();
            assert_eq!(
                (row.attempt, row.sequence, row.done, row.at),
                (checkpoint.attempt, checkpoint.sequence, checkpoint.done, checkpoint.at)
            );
            assert_eq!(row.data, checkpoint.data.data.to_string());
        }
    }
    let open = models.iter().filter(|model| !model.run.as_ref().is_some_and(Run::is_terminal)).count();
    let stored = "select count(*) from open_run join run using (run_no) where ended_at is null";
    assert_eq!(usize::try_from(database.count(stored).await).unwrap(), open);
    assert_eq!(usize::try_from(database.count("select count(*) from open_run").await).unwrap(), open);
}

/// The rows beside a run, as they are stored.
async fn rows(database: &Database, run: i64) -> Rows {
    let mut rows = Rows::default();
    let sql = "select step, since from ready where run_no = $1";
    for row in sqlx::query(sql).bind(run).fetch_all(database.store.pool()).await.unwrap() {
        rows.ready.insert(row.get::<i16, _>(0).try_into().unwrap(), row.get::<Stamp, _>(1).0);
    }
    let sql = "select kind, step, due from timer where run_no = $1";
    for row in sqlx::query(sql).bind(run).fetch_all(database.store.pool()).await.unwrap() {
        rows.timers.insert(timer((row.get(0), row.get(1))).unwrap(), row.get::<Stamp, _>(2).0);
    }
    rows
}

#[tokio::test]
async fn the_rows_equal_the_fold_of_what_was_decided() {
    let database = Database::new().await;
    let workflows = [database.workflow(1).await, database.workflow(3).await, database.workflow(6).await];
    let mut client = database.lane().await;
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let mut models: Vec<Model> = (0..9).map(|index| Model::new(&workflows[index % 3])).collect();
        for model in &mut models {
            model.create(after(0));
        }
        client.commit(&mut models.iter_mut().collect::<Vec<_>>()).await;
        for round in 0..25 {
            for model in &mut models {
                for _ in 0..dice.roll(4) {
                    step(model, &mut dice, after(round));
                }
            }
            let mut changed: Vec<&mut Model> = models.iter_mut().filter(|model| model.has_news()).collect();
            let count = changed.len();
            assert_eq!(client.commit(&mut changed).await.len(), count, "every fence holds");
        }
        compare(&database, &mut client, &models).await;
        sqlx::query("truncate run_key, run, open_run, history, ready, timer, checkpoint")
            .execute(database.store.pool())
            .await
            .unwrap();
    }
}
