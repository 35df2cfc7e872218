//! Runs: what goes with them, and who may still come in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use longtake_engine::ids::RunId;
use longtake_engine::lane::work::{Housekeep, Load, ProgressWrite};
use longtake_engine::run::NewRun;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::super::support::{Database, Model, START, after, session};
use super::{
    AGE, KEEP, PAST, end, ended, is_stored, open, partitions, pass, retention, retry, start, stored, strays,
    written,
};
use crate::Error;
use crate::reads::ListFilter;
use crate::retention::Swept;

#[tokio::test]
async fn a_run_goes_with_all_that_belongs_to_it() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let mut runs = Vec::new();
    for index in 0..7 {
        let mut model = Model::new(&workflow);
        let labels = BTreeMap::from([("index".to_owned(), index.to_string())]);
        model.create_as(NewRun { labels, ..model.request() }, START);
        model.lease(0, session(), START);
        client.commit(&mut [&mut model]).await;
        let no = model.no.unwrap();
        let message = "frame".to_owned();
        let progress = vec![ProgressWrite { run: no, step: 0, attempt: 1, done: 1, total: 2, message }];
        client.lane.housekeep(&Housekeep { progress, ..Housekeep::default() }).await.unwrap();
        let checkpoint =
            format!("insert into checkpoint values ({}, 0, 1, 1, 1, 1, now(), '{{}}', '[]')", no.0);
        database.connect().await.execute(AssertSqlSafe(checkpoint)).await.unwrap();
        // One is still open, one ended a second later.
        if index != 2 {
            end(&mut model, i64::from(index == 4));
            model.complete(0, after(i64::from(index == 4)));
            client.commit(&mut [&mut model]).await;
        }
        runs.push(model);
    }
    let before = database.dump().await;
    let nothing = Swept::default();
    assert_eq!(pass(&mut retention, 0).await, nothing);
    assert_eq!(database.dump().await, before);
    // Of pages of two runs, only what has ended for longer goes, and the pass goes on over what stays.
    assert_eq!(pass(&mut retention, KEEP).await, Swept { begun: 1, made: 0, ..nothing });
    assert_eq!(pass(&mut retention, KEEP + 1).await, Swept { runs: 5, made: 1, ..nothing });
    let mut left = Vec::new();
    for (index, model) in runs.iter().enumerate() {
        if is_stored(&database, model).await {
            left.push(index);
        }
        let events = database.store.reads().events(model.id, 0, 9).await.unwrap();
        assert_eq!(events.is_some(), left.contains(&index));
    }
    assert_eq!(left, [2, 4]);
    for table in ["run", "run_key", "run_label", "checkpoint", "progress"] {
        let sql = AssertSqlSafe(format!("select count(*) from {table}"));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(database.store.pool()).await.unwrap();
        assert_eq!(count, 2, "{table}");
    }
    assert_eq!(strays(&database).await, 0);
    assert_eq!(pass(&mut retention, KEEP + 2).await.runs, 1);
    assert!(is_stored(&database, &runs[2]).await);
    // The same id makes another run.
    let mut again = Model::new(&workflow);
    again.id = runs[0].id;
    again.create(after(KEEP));
    assert_eq!(client.commit(&mut [&mut again]).await, [runs[0].id]);
    assert!(again.no > runs[6].no);
}

#[tokio::test]
async fn a_list_goes_on_from_a_run_that_is_gone() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let old = open(&mut client, &workflow, 0).await;
    ended(&mut client, &workflow, 0).await;
    let at = ended(&mut client, &workflow, 0).await;
    let page = ListFilter { limit: 1, before: at.no.map(|no| no.0), ..ListFilter::default() };
    pass(&mut retention, AGE).await;
    let young = open(&mut client, &workflow, AGE).await;
    let swept = pass(&mut retention, PAST).await;
    assert_eq!((swept.runs, swept.dropped), (2, 1));
    let reads = database.store.reads();
    assert_eq!(reads.list_runs(&page).await.unwrap(), [(old.no.unwrap(), old.id)]);
    let first = ListFilter { before: None, ..page };
    assert_eq!(reads.list_runs(&first).await.unwrap(), [(young.no.unwrap(), young.id)]);
    let end = ListFilter { before: old.no.map(|no| no.0), ..first };
    assert_eq!(reads.list_runs(&end).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_whole_runs_while_others_go() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(2).await);
    let mut model = open(&mut client, &workflow, 0).await;
    model.lease(0, session(), START);
    client.commit(&mut [&mut model]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let reading = {
        let (reads, stop, id) = (database.store.reads(), stop.clone(), model.id);
        tokio::spawn(async move {
            let all = ListFilter { limit: 100, ..ListFilter::default() };
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let run = reads.runs(&[id]).await.unwrap().remove(0);
                assert_eq!(run.history.len(), 2);
                assert_eq!(reads.events(id, 0, 9).await.unwrap().unwrap(), run.history);
                let listed: Vec<RunId> =
                    reads.list_runs(&all).await.unwrap().into_iter().map(|(_, id)| id).collect();
                assert!(listed.contains(&id));
                // Those that went in between are left out; no other is without its history.
                let found = reads.runs(&listed).await.unwrap();
                assert!(found.iter().all(|run| !run.history.is_empty()));
                rounds += 1;
            }
            rounds
        })
    };
    let mut dropped = 0;
    for round in 1..=40 {
        for _ in 0..3 {
            ended(&mut client, &workflow, round * AGE).await;
        }
        // A reader that is in the way is let go first.
        retention.set_clock(after(round * AGE));
        while match retention.tick().await {
            Ok(swept) => {
                dropped += swept.dropped;
                swept.more
            }
            Err(Error::Outage { .. }) => true,
            Err(error) => panic!("{error}"),
        } {}
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reading.await.expect("every read was whole") > 0);
    assert!(dropped > 5, "{dropped}");
    assert!(partitions(&database).await.len() < 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_comes_first_keeps_its_run() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let mut model = ended(&mut client, &workflow, 0).await;
    // A row in the place of the next one in the run's history holds the commit up when it is half done.
    let mut rival = database.connect().await;
    let mut transaction = rival.begin().await.unwrap();
    let next = model.run.as_ref().unwrap().last_event + 1;
    let row = format!("insert into history select run_no, {next}, now(), '' from run");
    transaction.execute(AssertSqlSafe(row)).await.unwrap();
    let writing = start(client, retry(&mut model, KEEP + 1));
    database.until_waiting(1).await;
    assert_eq!(pass(&mut retention, KEEP + 1).await.runs, 0, "it is passed over, and not waited for");
    transaction.rollback().await.unwrap();
    assert_eq!(written(&writing.await.unwrap().1), [model.id]);
    assert_eq!(pass(&mut retention, 9 * KEEP).await.runs, 0);
    assert_eq!(stored(&database, &model).await.unwrap().row.state, "RUNNING");
    assert_eq!(stored(&database, &model).await.unwrap().history.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_comes_second_finds_no_run() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let workflow = database.workflow(1).await;
    for removed in [true, false] {
        let mut client = database.lane().await;
        let mut model = ended(&mut client, &workflow, 0).await;
        retention.set_clock(after(KEEP + 1));
        let mut connection = retention.connect().await;
        let mut transaction = connection.begin().await.unwrap();
        assert_eq!(retention.remove(&mut transaction).await.unwrap().0, 1);
        let writing = start(client, retry(&mut model, KEEP + 1));
        database.until_waiting(1).await;
        if removed {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let (mut client, outcome) = writing.await.unwrap();
        assert_eq!(written(&outcome).is_empty(), removed, "its fence is the row that went");
        // The lane reads it again, under lock, and answers.
        let load = Load { runs: [(model.id, true)].into(), ready: [].into() };
        assert_eq!(client.lane.load(&load).await.unwrap().runs.is_empty(), removed);
        assert_eq!(strays(&database).await, 0);
    }
}
