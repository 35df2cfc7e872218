//! What is past its retention goes, with all that belongs to it, and nothing else does.

mod ranges;
mod runs;
mod ticks;

use std::sync::Arc;

use longtake_engine::command::Operation;
use longtake_engine::definition::Workflow;
use longtake_engine::ids::RunId;
use longtake_engine::lane::work::{Committed, Write};
use sqlx::{AssertSqlSafe, Executor};

use super::support::{Client, Database, Model, START, after, batch, encoded, seconds};
use crate::RunRows;
use crate::retention::{Retention, Swept};

/// How long runs are kept, in seconds; a range then lasts for twenty.
pub(super) const KEEP: i64 = 300;
pub(super) const AGE: i64 = 20;
/// When a range that was left at [`AGE`] is past.
pub(super) const PAST: i64 = AGE + KEEP + AGE + 1;

/// A retention at [`START`], which is when the first range began.
pub(super) async fn retention(database: &Database) -> Retention {
    let statement = "update history_range set began_at = '2026-01-01Z' where began_at is not null";
    database.connect().await.execute(statement).await.expect("the range is set back");
    another(database)
}

pub(super) fn another(database: &Database) -> Retention {
    let mut retention = database.store.retention(seconds(KEEP), 2);
    retention.set_clock(START);
    retention
}

/// Ticks to the end of a pass; what they did together.
pub(super) async fn pass(retention: &mut Retention, now: i64) -> Swept {
    retention.set_clock(after(now));
    let mut swept = Swept { more: true, ..Swept::default() };
    while swept.more {
        swept = swept.and(retention.tick().await.expect("the tick does its work"));
    }
    swept
}

pub(super) async fn open(client: &mut Client, workflow: &Arc<Workflow>, now: i64) -> Model {
    let mut model = Model::new(workflow);
    model.create(after(now));
    client.commit(&mut [&mut model]).await;
    model
}

/// A run that was cancelled as it was made.
pub(super) async fn ended(client: &mut Client, workflow: &Arc<Workflow>, now: i64) -> Model {
    let mut model = Model::new(workflow);
    model.create(after(now));
    end(&mut model, now);
    client.commit(&mut [&mut model]).await;
    model
}

pub(super) fn end(model: &mut Model, now: i64) {
    model.operate(Operation::Cancel { reason: "test".to_owned() }, after(now));
}

pub(super) fn retry(model: &mut Model, now: i64) -> Write {
    batch([model.operate(Operation::Retry { deadline: None }, after(now)).write()])
}

pub(super) async fn stored(database: &Database, model: &Model) -> Option<RunRows> {
    database.store.reads().runs(&[model.id]).await.expect("runs can be read").pop()
}

pub(super) async fn is_stored(database: &Database, model: &Model) -> bool {
    stored(database, model).await.is_some()
}

/// The partitions of history with how many rows each has, and which ranges they are said to be.
pub(super) async fn partitions(database: &Database) -> Vec<(String, i64)> {
    let mut connection = database.connect().await;
    let names = "select c.relname::text from pg_inherits join pg_class as c on c.oid = inhrelid
        where inhparent = 'history'::regclass order by substring(c.relname from 9)::bigint";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut connection).await.unwrap();
    let said = "select 'history_' || range_no from history_range order by range_no";
    let said: Vec<String> = sqlx::query_scalar(said).fetch_all(&mut connection).await.unwrap();
    assert_eq!(names, said);
    let mut partitions = Vec::new();
    for name in names {
        let count = AssertSqlSafe(format!("select count(*) from {name}"));
        partitions.push((name, sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap()));
    }
    partitions
}

pub(super) fn counted(partitions: &[(&str, i64)]) -> Vec<(String, i64)> {
    partitions.iter().map(|(name, rows)| (format!("history_{name}"), *rows)).collect()
}

/// Rows that belong to no run.
pub(super) async fn strays(database: &Database) -> i64 {
    let strays = "
        select (select count(*) from run_key where run_no not in (select run_no from run))
            + (select count(*) from run where run_no not in (select run_no from run_key))
            + (select count(*) from run where run_no not in (select run_no from history))
            + (select count(*) from run_label where run_no not in (select run_no from run))
            + (select count(*) from checkpoint where run_no not in (select run_no from run))
            + (select count(*) from progress where run_no not in (select run_no from run))
            + (select count(*) from open_run where run_no not in (select run_no from run))";
    database.count(strays).await
}

/// A write that goes on while the test does.
pub(super) fn start(mut client: Client, write: Write) -> tokio::task::JoinHandle<(Client, Committed)> {
    tokio::spawn(async move {
        let (outcome, _) = client.lane.write(&write, &encoded(&write)).await;
        (client, outcome)
    })
}

pub(super) fn written(outcome: &Committed) -> Vec<RunId> {
    match outcome {
        Committed::Done { written, .. } => written.keys().copied().collect(),
        other => panic!("{other:?}"),
    }
}
