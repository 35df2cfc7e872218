//! The write statement, and its fences.

use std::sync::Arc;

use longtake_engine::command::{Deadline, Operation, Report, Timer};
use longtake_engine::lane::work::{Committed, HotRow, RunWrite};
use longtake_engine::run::{Artifact, Checkpoint, CheckpointData, NewRun, StepError};
use longtake_engine::time::Timestamp;
use serde_json::{Value, json};
use sqlx::Row;

use super::support::{Client, Database, Model, START, after, batch, encoded, renewal, seconds, session};

/// Fails a step in a way that lets it try again.
fn fail() -> Report {
    let error = StepError {
        code: "TEST".to_owned(),
        message: "again".to_owned(),
        retryable: true,
        details: Value::Null,
    };
    Report::Fail { error, retry_after: Some(seconds(60)), checkpoint: None, cost: None, jitter: 1 }
}

#[tokio::test]
async fn a_new_run_has_all_its_rows() {
    let database = Database::new().await;
    let workflow = database.workflow(3).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    let labels = [("team".to_owned(), "blue".to_owned()), ("kind".to_owned(), "test".to_owned())].into();
    let request = NewRun { labels, priority: 5, deadline: Some(after(3600)), ..model.request() };
    model.create_as(request, START);
    assert_eq!(client.commit(&mut [&mut model]).await, [model.id]);

    let sql = "select r.run_id, r.tenant, r.created_at, r.priority, r.state, r.version, r.step_states, w.name, k.content_hash
        from run as r join run_key as k using (run_no) join workflow as w using (workflow_no)";
    let row = sqlx::query(sql).fetch_one(database.store.pool()).await.unwrap();
    assert_eq!(row.get::<uuid::Uuid, _>("run_id"), model.id.0);
    assert_eq!(row.get::<&str, _>("tenant"), "default");
    assert_eq!(row.get::<crate::stamp::Stamp, _>("created_at").0, START);
    assert_eq!(row.get::<i32, _>("priority"), 5);
    assert_eq!(row.get::<&str, _>("state"), "RUNNING");
    assert_eq!(row.get::<i64, _>("version"), 2);
    assert_eq!(row.get::<Vec<i16>, _>("step_states"), [1, 0, 0]);
    assert_eq!(row.get::<&str, _>("name"), "chain3");
    assert_eq!(row.get::<&[u8], _>("content_hash"), [7; 32]);
    for (sql, expected) in [
        ("select count(*) from open_run", 1),
        ("select count(*) from run_label where (key, value) in (('team', 'blue'), ('kind', 'test'))", 2),
        ("select count(*) from history where first_event = 1 and octet_length(events) = 300", 1),
        ("select count(*) from ready where queue = 's0' and step = 0 and priority = 5", 1),
        (
            "select count(*) from timer where kind = 2 and step = -1 and due = timestamptz '2026-01-01 01:00Z'",
            1,
        ),
        ("select count(*) from timer", 1),
    ] {
        assert_eq!(database.count(sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn one_id_makes_one_run() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let mut client = database.lane().await;
    let (mut first, mut other) = (Model::new(&workflow), Model::new(&workflow));
    let labels = [("a".to_owned(), "b".to_owned())].into();
    first.create_as(NewRun { labels, ..first.request() }, START);
    let mut same = first.clone();
    client.commit(&mut [&mut first]).await;
    let before = database.dump().await;

    // The same again, and the same id with other content, beside a run that is really new.
    assert!(client.commit(&mut [&mut same]).await.is_empty());
    assert_eq!(database.dump().await, before);
    let mut clash = Model::new(&workflow);
    clash.id = first.id;
    clash.create_as(NewRun { content_hash: [8; 32], deadline: Some(after(60)), ..clash.request() }, after(5));
    other.create(after(5));
    assert_eq!(client.commit(&mut [&mut clash, &mut other]).await, [other.id]);
    assert_eq!(database.count("select count(*) from run_key").await, 2);
    assert_eq!(database.count("select count(*) from run").await, 2);
    assert_eq!(database.count("select count(*) from timer").await, 0, "the clash's deadline is not stored");
    assert_eq!(database.count("select count(*) from ready").await, 2);
}

#[tokio::test]
async fn a_lost_fence_writes_nothing_and_holds_nobody_else_up() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let mut client = database.lane().await;
    let holder = session();
    let mut stale = Model::new(&workflow);
    stale.create(START);
    client.commit(&mut [&mut stale]).await;
    let mut winner = stale.clone();
    winner.lease(0, holder, after(1));
    client.commit(&mut [&mut winner]).await;
    let before = database.dump().await;

    // Everything that a write can bring, decided on the version before.
    stale
        .lease(0, holder, after(2))
        .report(0, fail(), after(3))
        .operate(Operation::ExtendDeadline { which: Deadline::Run, to: after(600) }, after(3));
    assert!(client.commit(&mut [&mut stale.clone()]).await.is_empty());
    assert_eq!(database.dump().await, before);

    let (mut fresh, mut open) = (Model::new(&workflow), Model::new(&workflow));
    fresh.create(after(4));
    open.create(after(4));
    let written = client.commit(&mut [&mut stale, &mut fresh, &mut open]).await;
    assert_eq!(written.len(), 2);
    assert!(!written.contains(&stale.id));
    assert_eq!(database.count("select count(*) from timer").await, 0);
    assert_eq!(database.count("select count(*) from ready").await, 2);
}

#[tokio::test]
async fn a_write_does_not_happen_before_its_time() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    model.create(START).lease(0, session(), START).report(0, fail(), START);
    client.commit(&mut [&mut model]).await;
    let before = database.dump().await;
    model.fire(Timer::Backoff(0), after(60));
    let mut write = batch([model.write()]);
    write.runs[0].not_before = Some(after(60));
    for (now, happens) in [(after(59), false), (Timestamp(after(60).0 - 1), false), (after(60), true)] {
        client.lane.set_clock(now);
        let (written, _) = client.done(&write).await;
        assert_eq!(!written.is_empty(), happens);
        assert_eq!(database.dump().await != before, happens);
    }
    assert_eq!(database.count("select count(*) from ready").await, 1);
    assert_eq!(database.count("select count(*) from timer").await, 0);
}

#[tokio::test]
async fn open_runs_are_those_that_have_not_ended() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    let open = "select count(*) from open_run";
    model.create(START);
    client.commit(&mut [&mut model]).await;
    assert_eq!(database.count(open).await, 1);
    model.operate(Operation::Cancel { reason: "test".to_owned() }, after(1));
    client.commit(&mut [&mut model]).await;
    assert_eq!(database.count(open).await, 0);
    assert_eq!(database.count("select count(*) from ready").await, 0);
    model.operate(Operation::Retry { deadline: None }, after(2));
    client.commit(&mut [&mut model]).await;
    assert_eq!(database.count(open).await, 1);
    // Ended and going on again in one commit.
    model.operate(Operation::Cancel { reason: "test".to_owned() }, after(3));
    model.operate(Operation::Retry { deadline: None }, after(4));
    client.commit(&mut [&mut model]).await;
    assert_eq!(database.count(open).await, 1);
    // Ended, going on, and ended for good in one commit.
    model.operate(Operation::Cancel { reason: "test".to_owned() }, after(5));
    client.commit(&mut [&mut model]).await;
    model.operate(Operation::Retry { deadline: None }, after(6));
    model.operate(Operation::Cancel { reason: "test".to_owned() }, after(7));
    client.commit(&mut [&mut model]).await;
    assert_eq!(database.count(open).await, 0);
    // Over before it was ever open.
    let mut over = Model::new(&workflow);
    over.create(START).operate(Operation::Cancel { reason: "test".to_owned() }, START);
    client.commit(&mut [&mut over]).await;
    assert_eq!(database.count(open).await, 0);
    assert_eq!(database.count("select count(*) from run where state = 'CANCELLED'").await, 2);
}

#[tokio::test]
async fn a_ready_step_whose_time_changed_keeps_one_row() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    model.create(START);
    client.commit(&mut [&mut model]).await;
    // Ready, leased, given back, ready again: one commit.
    model.lease(0, session(), after(10));
    model.report(
        0,
        Report::Yield { reason: "test".to_owned(), checkpoint: None, cost: None, jitter: 0 },
        after(20),
    );
    let write = batch([model.write()]);
    assert_eq!((write.runs[0].changes.ready.len(), write.runs[0].changes.unready.len()), (1, 1));
    client.done(&write).await;
    let sql = "select count(*) from ready where since = timestamptz '2026-01-01 00:00:20Z'";
    assert_eq!(database.count(sql).await, 1);
}

#[tokio::test]
async fn rows_that_no_state_allows_are_refused() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    model.create(START).lease(0, session(), START);
    client.commit(&mut [&mut model]).await;
    let before = database.dump().await;
    model.complete(0, after(1));
    let write = model.write();
    for (what, constraint, spoil) in [
        ("an unknown state", "run_state", (|row| row.state = "SLEEPING") as fn(&mut HotRow)),
        ("an end without an outcome", "run_state", |row| {
            (row.steps, row.ended_at) = (vec![5, 5], Some(START));
        }),
        ("an outcome without an end", "run_state", |row| row.state = "FAILED"),
        ("an ended run with an open step", "run_open_step", |row| {
            (row.state, row.ended_at) = ("FAILED", Some(START));
        }),
        ("an open run without an open step", "run_open_step", |row| row.steps = vec![5, 5]),
        ("a step in an unknown state", "run_steps", |row| row.steps = vec![10, 1]),
        ("a step without attempts", "run_steps", |row| row.attempts = vec![0]),
        ("a lease without a session", "run_leases", |row| row.steps = vec![2, 0]),
        ("a session without a lease", "run_leases", |row| row.sessions = vec![Some(session()), None]),
    ] {
        let mut write = batch([RunWrite {
            fence: write.fence.clone(),
            workflow: write.workflow.clone(),
            row: write.row.clone(),
            events: write.events.clone(),
            changes: write.changes.clone(),
            checkpoints: Vec::new(),
            ..write
        }]);
        spoil(&mut write.runs[0].row);
        let (outcome, _) = client.lane.write(&write, &encoded(&write)).await;
        let Committed::Failed(why) = outcome else { panic!("{what}: {outcome:?}") };
        assert!(why.contains(constraint), "{what}: {why}");
        assert_eq!(database.dump().await, before, "{what}");
    }
    // Nothing of it harms the connection.
    assert_eq!(client.done(&batch([write])).await.0.len(), 1);
}

#[tokio::test]
async fn a_run_of_an_unknown_workflow_is_refused() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let elsewhere = Database::new().await;
    let workflow = elsewhere.workflow(1).await;
    let mut model = Model::new(&workflow);
    model.create(START);
    let write = batch([model.write()]);
    let (outcome, _) = client.lane.write(&write, &encoded(&write)).await;
    assert!(matches!(outcome, Committed::Failed(_)), "{outcome:?}");
    assert_eq!(database.count("select count(*) from run_key").await, 0);
    // And so is a batch whose events were not encoded.
    let (outcome, _) = client.lane.write(&write, &[]).await;
    assert!(matches!(outcome, Committed::Failed(_)), "{outcome:?}");
}

/// Writes a checkpoint, whatever the engine would say of its number.
async fn checkpoint(client: &mut Client, model: &mut Model, (attempt, sequence): (u32, i64), data: &Value) {
    let artifact = Artifact {
        name: "part".to_owned(),
        uri: "file:///part".to_owned(),
        sha256: "00".repeat(32),
        size_bytes: 7,
        media_type: "video/mp4".to_owned(),
    };
    let content = CheckpointData { data: data.clone(), artifacts: vec![artifact] };
    let (done, total, data) = (sequence, 10, Arc::new(content));
    model.operate(Operation::ExtendDeadline { which: Deadline::Run, to: after(60) }, START);
    let mut write = batch([model.write()]);
    write.runs[0].checkpoints = vec![(0, Checkpoint { attempt, sequence, done, total, at: START, data })];
    assert_eq!(client.done(&write).await.0.len(), 1);
}

#[tokio::test]
async fn a_checkpoint_never_goes_back() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    let data = json!({"z": 1, "a": {"y": 2, "b": "é\u{0}"}, "m": [1.5, null]});
    model.create(START).lease(0, session(), START);
    client.commit(&mut [&mut model]).await;
    let stored = async || -> (i32, i64, String, String) {
        let sql = "select attempt, sequence, data, artifacts from checkpoint";
        sqlx::query_as(sql).fetch_one(database.store.pool()).await.unwrap()
    };
    checkpoint(&mut client, &mut model, (1, 3), &data).await;
    let (attempt, sequence, text, artifacts) = stored().await;
    assert_eq!((attempt, sequence), (1, 3));
    assert_eq!(text, "{\"a\":{\"b\":\"é\\u0000\",\"y\":2},\"m\":[1.5,null],\"z\":1}", "keys are sorted");
    assert_eq!(
        artifacts,
        format!(
            "[{{\"media_type\":\"video/mp4\",\"name\":\"part\",\"sha256\":\"{}\",\"size_bytes\":7,\"uri\":\"file:///part\"}}]",
            "00".repeat(32)
        ),
    );
    for (attempt, sequence, kept) in
        [(1, 2, (1, 3)), (1, 3, (1, 3)), (2, 1, (2, 1)), (1, 9, (2, 1)), (2, 2, (2, 2))]
    {
        checkpoint(&mut client, &mut model, (attempt, sequence), &json!({"new": true})).await;
        let (attempt, sequence, ..) = stored().await;
        assert_eq!((attempt, sequence), kept);
    }
}

#[tokio::test]
async fn an_empty_write_tells_the_time() {
    let database = Database::new().await;
    let mut client = database.lane().await;
    let (outcome, time) = client.lane.write(&batch([]), &[]).await;
    assert!(
        matches!(outcome, Committed::Done { written, sessions } if written.is_empty() && sessions.is_empty())
    );
    assert_eq!(time, Some(START));
    let holder = session();
    let (_, sessions) = client.done(&renewal(holder, seconds(30))).await;
    assert_eq!(sessions.get(&holder), Some(&after(30)));
}
