//! Reads: for lanes and past them.

use std::collections::BTreeMap;

use longtake_engine::command::Operation;
use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::{Head, Housekeep, Load, Place};
use longtake_engine::run::NewRun;
use uuid::Uuid;

use super::support::{Client, Database, Model, START, after, batch, encoded, renewal, seconds, session};
use crate::ListFilter;

/// A run with this priority, made at this time.
async fn run(database: &Database, client: &mut Client, priority: i32, created: i64) -> Model {
    let workflow = database.workflow(2).await;
    let mut model = Model::new(&workflow);
    model.create_as(NewRun { priority, ..model.request() }, after(created));
    client.commit(&mut [&mut model]).await;
    model
}

#[tokio::test]
async fn heads_of_queues_come_in_dispatch_order() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let late = run(&database, &mut client, 0, 9).await;
    let early = run(&database, &mut client, 0, 1).await;
    let urgent = run(&database, &mut client, 5, 20).await;
    let last = run(&database, &mut client, -5, 0).await;
    let order = [urgent.id, early.id, late.id, last.id];
    for wanted in [1, 2, 4, 9] {
        let head = Head { from: Place::FIRST, count: wanted };
        let ready = [("s0".into(), head), ("s1".into(), head), ("nobody's".into(), head)].into();
        let loaded = client.lane.load(&Load { runs: [(last.id, false)].into(), ready }).await.unwrap();
        let heads: Vec<RunId> = loaded.ready["s0"].iter().map(|row| row.run).collect();
        assert_eq!(heads, order[..wanted.min(4)]);
        assert_eq!(loaded.ready.len(), 1);
        let read: Vec<RunId> = loaded.runs.iter().map(|run| run.id).collect();
        assert_eq!(read, [last.id], "only what was asked for");
        assert!(loaded.runs.iter().all(|run| run.history.len() == 1 && run.progress.is_empty()));
    }
    let ready = [("s0".into(), Head { from: Place::FIRST, count: 4 })].into();
    let all = client.lane.load(&Load { ready, ..Load::default() }).await.unwrap().ready;
    for (skipped, first) in all["s0"].iter().enumerate() {
        for count in 1..5 {
            let ready = [("s0".into(), Head { from: first.place, count })].into();
            let loaded = client.lane.load(&Load { ready, ..Load::default() }).await.unwrap();
            let rest: Vec<_> = all["s0"].iter().skip(skipped).take(count).copied().collect();
            assert_eq!(loaded.ready["s0"], rest, "{count} from the place of {first:?} on");
        }
    }
    let none = client
        .lane
        .load(&Load { runs: [(RunId(Uuid::new_v4()), true)].into(), ready: [].into() })
        .await
        .unwrap();
    assert!(none.runs.is_empty() && none.ready.is_empty());
    let reads = database.store.reads();
    for (ahead, run) in order.iter().enumerate() {
        assert_eq!(reads.ready_ahead(*run, 0).await.unwrap(), i64::try_from(ahead).unwrap());
        assert_eq!(reads.ready_ahead(*run, 1).await.unwrap(), 0);
    }
    let queues = reads.queues().await.unwrap();
    assert_eq!(
        (queues.len(), queues[0].queue.as_str(), queues[0].depth, queues[0].oldest),
        (1, "s0", 4, START)
    );
}

#[tokio::test]
async fn a_history_is_read_in_commits() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let mut model = run(&database, &mut client, 0, 0).await;
    let mut commits = Vec::new();
    for commit in 1..4 {
        let (step, now) = (usize::from(commit > 1), after(commit));
        match commit {
            1 => model.lease(0, session(), now).complete(0, now),
            2 => model.lease(step, session(), now),
            _ => model.complete(step, now),
        };
        let write = batch([model.write()]);
        let encoded = encoded(&write);
        assert_eq!(client.lane.write(&write, &encoded).await.1, Some(START));
        commits.extend(encoded);
    }
    let reads = database.store.reads();
    let all = reads.runs(&[model.id]).await.unwrap().remove(0);
    assert_eq!(all.history[1..], commits);
    assert_eq!(all.row.state, "SUCCEEDED");
    // Commits hold events 1-2, 3-5, 6, 7-8.
    for (after, limit, first, count) in [
        (0, 9, 0, 4),
        (1, 9, 0, 4),
        (2, 9, 1, 3),
        (3, 9, 1, 3),
        (4, 9, 1, 3),
        (5, 9, 2, 2),
        (6, 9, 3, 1),
        (0, 2, 0, 2),
        (7, 9, 3, 1),
    ] {
        let page = reads.events(model.id, after, limit).await.unwrap().unwrap();
        assert_eq!(page, all.history[first..first + count], "after {after}, {limit}");
    }
    // The last commit, in which nothing is new.
    assert_eq!(reads.events(model.id, 8, 9).await.unwrap().unwrap().len(), 1);
    assert_eq!(reads.events(RunId(Uuid::new_v4()), 0, 9).await.unwrap(), None);
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let short = database.workflow(1).await;
    let long = database.workflow(2).await;
    let mut models = Vec::new();
    for index in 0..12_i64 {
        let mut model = Model::new(if index % 2 == 0 { &short } else { &long });
        let label = |key: &str, value: i64| (key.to_owned(), value.to_string());
        let labels = [label("third", index % 3), label("quarter", index % 4)].into();
        model.create_as(NewRun { labels, ..model.request() }, after(index));
        if index >= 8 {
            model.operate(Operation::Cancel { reason: "test".to_owned() }, after(index));
        }
        client.commit(&mut [&mut model]).await;
        models.push(model);
    }
    let reads = database.store.reads();
    let all = ListFilter { limit: 100, ..ListFilter::default() };
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let states = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (what, filter, expected) in [
        ("all", all.clone(), (0..12).rev().collect::<Vec<usize>>()),
        ("a page", ListFilter { limit: 3, ..all.clone() }, vec![11, 10, 9]),
        (
            "a later page",
            ListFilter { before: Some(models[9].no.unwrap().0), limit: 3, ..all.clone() },
            vec![8, 7, 6],
        ),
        (
            "a workflow",
            ListFilter { workflow: Some("chain1".to_owned()), ..all.clone() },
            vec![10, 8, 6, 4, 2, 0],
        ),
        ("no workflow", ListFilter { workflow: Some("chain9".to_owned()), ..all.clone() }, vec![]),
        ("ended", ListFilter { states: states(&["CANCELLED", "FAILED"]), ..all.clone() }, vec![11, 10, 9, 8]),
        ("open", ListFilter { states: states(&["RUNNING", "PAUSED"]), limit: 2, ..all.clone() }, vec![7, 6]),
        (
            "either",
            ListFilter { states: states(&["RUNNING", "CANCELLED"]), limit: 2, ..all.clone() },
            vec![11, 10],
        ),
        ("a label", ListFilter { labels: labels(&[("third", "1")]), ..all.clone() }, vec![10, 7, 4, 1]),
        (
            "labels",
            ListFilter { labels: labels(&[("third", "1"), ("quarter", "2")]), ..all.clone() },
            vec![10],
        ),
        ("no label", ListFilter { labels: labels(&[("third", "9")]), ..all.clone() }, vec![]),
        ("since", ListFilter { created_after: Some(after(10)), ..all.clone() }, vec![11, 10]),
        ("until", ListFilter { created_before: Some(after(2)), ..all.clone() }, vec![1, 0]),
        (
            "everything at once",
            ListFilter {
                workflow: Some("chain2".to_owned()),
                states: states(&["RUNNING"]),
                labels: labels(&[("third", "1")]),
                created_after: Some(after(1)),
                created_before: Some(after(7)),
                before: None,
                limit: 5,
            },
            vec![1],
        ),
    ] {
        let listed = reads.list_runs(&filter).await.unwrap();
        let expected: Vec<_> =
            expected.into_iter().map(|index| (models[index].no.unwrap(), models[index].id)).collect();
        assert_eq!(listed, expected, "{what}");
    }
}

#[tokio::test]
async fn workflows_are_kept_by_version_and_used_by_name() {
    let database = Database::new().await;
    let reads = database.store.reads();
    let one = database.workflow(1).await;
    let other = longtake_engine::definition::Version::of(b"other");
    assert_eq!(reads.workflow_source(&one.version).await.unwrap().as_ref(), Some(&one.source));
    assert_eq!(reads.workflow_source(&other).await.unwrap(), None);
    let current = async || {
        let current = reads.current_workflows().await.unwrap();
        current
            .into_iter()
            .map(|workflow| (workflow.name, workflow.version, workflow.loaded_at))
            .collect::<Vec<_>>()
    };
    let first = current().await;
    assert_eq!((first.len(), first[0].0.as_str(), first[0].1), (1, "chain1", one.version));
    let at = reads.save_workflow(&other, "chain1", "other").await.unwrap();
    assert_eq!(current().await, [("chain1".to_owned(), other, at)]);
    // Back to the first one: it is used again, and as old as it was.
    let again = reads.save_workflow(&one.version, "chain1", &one.source).await.unwrap();
    assert_eq!(again, first[0].2);
    assert_eq!(current().await, first);
}

#[tokio::test]
async fn the_rest_can_be_read() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let reads = database.store.reads();
    reads.ping().await.unwrap();
    assert!(reads.now().await.unwrap() > START);
    let mut sessions: Vec<SessionId> = (0..5).map(|_| session()).collect();
    for session in &sessions {
        client.done(&renewal(*session, seconds(30))).await;
    }
    sessions.sort_unstable();
    let page = |rows: Vec<crate::SessionRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(page(reads.sessions(None, 3).await.unwrap()), sessions[..3]);
    assert_eq!(page(reads.sessions(Some(sessions[2]), 3).await.unwrap()), sessions[3..]);
    let sizes = reads.sizes().await.unwrap();
    for table in ["session", "history"] {
        let size = sizes.iter().filter(|size| size.table.starts_with(table) && size.table != "history_range");
        assert_eq!(size.map(|size| size.bytes > 0).collect::<Vec<_>>(), [true], "{table}");
    }
    client.lane.housekeep(&Housekeep::default()).await.unwrap();
    assert!(reads.runs(&[]).await.unwrap().is_empty());
    assert!(reads.runs(&[RunId(Uuid::new_v4())]).await.unwrap().is_empty());
}
