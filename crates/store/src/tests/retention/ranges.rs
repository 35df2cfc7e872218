//! Ranges of history: begun, left, past, and dropped.

use longtake_engine::command::Operation;
use longtake_engine::lane::work::Committed;
use sqlx::{Connection, Executor};

use super::super::support::{Database, Model, START, after, batch, encoded, session};
use super::{
    AGE, KEEP, PAST, counted, end, ended, is_stored, open, partitions, pass, retention, retry, start, stored,
    strays, written,
};
use crate::Error;
use crate::retention::Swept;
use crate::retention::thin::{Left, copy, replace};

#[tokio::test]
async fn ranges_are_left_when_they_are_old_and_were_used() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let first = open(&mut client, &workflow, 0).await;
    assert_eq!(partitions(&database).await, counted(&[("0", 1), ("1", 0), ("2", 0)]));
    assert_eq!(pass(&mut retention, AGE - 1).await, Swept::default());
    assert_eq!(pass(&mut retention, AGE).await, Swept { begun: 1, ..Swept::default() });
    assert_eq!(pass(&mut retention, AGE).await, Swept { made: 1, ..Swept::default() });
    // Nothing came to it.
    assert_eq!(pass(&mut retention, 9 * AGE).await, Swept::default());
    let second = open(&mut client, &workflow, 9 * AGE).await;
    assert_eq!((first.no.unwrap().0, second.no.unwrap().0), (1, 10_000_000_001));
    assert_eq!(partitions(&database).await, counted(&[("0", 1), ("1", 1), ("2", 0), ("3", 0)]));
    assert_eq!(pass(&mut retention, 9 * AGE).await, Swept { begun: 1, ..Swept::default() });
    for model in [&first, &second] {
        assert_eq!(stored(&database, model).await.unwrap().history.len(), 1);
    }
}

#[tokio::test]
async fn numbers_that_fill_a_range_go_on_in_the_next_one() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    database.connect().await.execute("select setval('run_no', 9999999998)").await.unwrap();
    for no in [9_999_999_999, 10_000_000_000, 10_000_000_001] {
        assert_eq!(open(&mut client, &workflow, 0).await.no.unwrap().0, no);
    }
    assert_eq!(partitions(&database).await, counted(&[("0", 1), ("1", 2), ("2", 0)]));
    // Nobody moved the sequence: it is noted all the same, and there are two ahead again.
    assert_eq!(pass(&mut retention, 5).await, Swept { made: 1, begun: 1, ..Swept::default() });
    assert_eq!(pass(&mut retention, 5).await, Swept::default());
    assert_eq!(partitions(&database).await.len(), 4);
}

#[tokio::test]
async fn numbers_beyond_every_range_are_refused_until_the_next_tick() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let early = open(&mut client, &workflow, 0).await;
    // What it takes: thirty thousand million runs without one tick of any server.
    database.connect().await.execute("select setval('run_no', 39999999999)").await.unwrap();
    let mut model = Model::new(&workflow);
    model.create(START);
    let write = batch([model.write()]);
    let (outcome, _) = client.lane.write(&write, &encoded(&write)).await;
    assert!(matches!(outcome, Committed::Failed(_)), "{outcome:?}");
    assert_eq!(database.count("select count(*) from run_key").await, 1, "nothing of it is there");
    let mut early = early;
    early.lease(0, session(), START);
    assert_eq!(client.commit(&mut [&mut early]).await, [early.id], "all others go on");
    assert_eq!(pass(&mut retention, 0).await, Swept { made: 4, ..Swept::default() });
    let late = open(&mut client, &workflow, 0).await;
    assert_eq!(late.no.unwrap().0, 40_000_000_001);
    assert_eq!(pass(&mut retention, 0).await, Swept { begun: 4, ..Swept::default() });
}

#[tokio::test]
async fn history_is_dropped_when_its_range_is_past() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    for now in 0..5 {
        ended(&mut client, &workflow, now).await;
    }
    pass(&mut retention, AGE).await;
    let young = ended(&mut client, &workflow, AGE).await;
    // The runs go when each has been kept for long enough; their history, where nobody finds it, when its range is past.
    let swept = pass(&mut retention, KEEP + 5).await;
    assert_eq!((swept.runs, swept.dropped), (5, 0));
    assert_eq!(pass(&mut retention, PAST - 1).await.dropped, 0);
    assert_eq!(partitions(&database).await[..2], counted(&[("0", 5), ("1", 1)]));
    assert_eq!(pass(&mut retention, PAST).await.dropped, 1);
    assert_eq!(partitions(&database).await[..2], counted(&[("0", 0), ("1", 1)]));
    assert!(!is_stored(&database, &young).await);
    assert_eq!(pass(&mut retention, PAST).await.dropped, 0, "it is as it should be");
    // The next ones join it.
    assert_eq!(pass(&mut retention, KEEP + 5 + PAST).await.dropped, 2);
    assert_eq!(partitions(&database).await, counted(&[("1", 0), ("2", 0), ("3", 0), ("4", 0)]));
    assert_eq!(strays(&database).await, 0);
}

#[tokio::test]
async fn an_open_run_keeps_its_own_history_and_no_other() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(2).await);
    for now in 0..3 {
        ended(&mut client, &workflow, now).await;
    }
    let mut paused = open(&mut client, &workflow, 3).await;
    paused.operate(Operation::Pause { reason: "test".to_owned() }, after(3));
    client.commit(&mut [&mut paused]).await;
    pass(&mut retention, AGE).await;
    ended(&mut client, &workflow, AGE).await;
    pass(&mut retention, 2 * AGE).await;
    let before = format!("{:?}", stored(&database, &paused).await);
    // One range after the other becomes part of the one that holds what is left.
    for (now, dropped) in [(PAST, 1), (PAST + AGE, 2)] {
        let swept = pass(&mut retention, now).await;
        assert_eq!(swept.dropped, dropped, "{now}");
        assert_eq!(partitions(&database).await[0].1, 2);
        assert_eq!(format!("{:?}", stored(&database, &paused).await), before);
    }
    // It goes on where it is, ends there, and takes its history with it when its time has come.
    paused.operate(Operation::Resume, after(PAST + 20));
    client.commit(&mut [&mut paused]).await;
    assert_eq!(partitions(&database).await[0].1, 3);
    end(&mut paused, PAST + 30);
    client.commit(&mut [&mut paused]).await;
    assert_eq!(stored(&database, &paused).await.unwrap().history.len(), 4);
    assert_eq!(pass(&mut retention, PAST + 30 + KEEP).await.runs, 0);
    assert_eq!(pass(&mut retention, PAST + 31 + KEEP).await.runs, 1);
    assert!(!is_stored(&database, &paused).await);
    assert_eq!(partitions(&database).await[0].1, 0);
}

#[tokio::test]
async fn too_many_open_runs_keep_their_range() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let mut runs = Vec::new();
    for _ in 0..7 {
        runs.push(open(&mut client, &workflow, 0).await);
    }
    pass(&mut retention, AGE).await;
    assert_eq!(pass(&mut retention, PAST).await.dropped, 0);
    end(&mut runs[0], 0);
    client.commit(&mut [&mut runs[0]]).await;
    let swept = pass(&mut retention, PAST).await;
    assert_eq!((swept.runs, swept.dropped), (1, 1));
    assert_eq!(partitions(&database).await[0].1, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_history_is_copied_is_there() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(2).await);
    let (mut still, mut moves) =
        (open(&mut client, &workflow, 0).await, open(&mut client, &workflow, 0).await);
    let mut over = ended(&mut client, &workflow, 100).await;
    // This one was given its number before the range was left, and is committed late.
    let mut late = database.connect().await;
    let mut making = late.begin().await.unwrap();
    let mut model = Model::new(&workflow);
    let id = model.create(START).id;
    let row = sqlx::query("insert into run_key values ($1, 0, '', '')").bind(id.0);
    making.execute(row).await.unwrap();
    let creating = start(database.lane().await, batch([model.write()]));
    database.until_waiting(1).await;

    pass(&mut retention, AGE).await;
    retention.set_clock(after(PAST));
    let mut connection = retention.connect().await;
    let past = retention.plan(&mut connection).await.unwrap().past;
    let last = past.last().unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let left = Left::read(&mut transaction, last.ends_before).await.unwrap();
    copy(&mut transaction, &left, last).await.unwrap();
    moves.lease(0, session(), after(PAST)).complete(0, after(PAST));
    client.commit(&mut [&mut moves]).await;
    client.done(&retry(&mut over, PAST)).await;
    making.rollback().await.unwrap();
    assert_eq!(written(&creating.await.unwrap().1), [id]);
    replace(&mut transaction, &left, &past, last).await.unwrap();
    transaction.commit().await.unwrap();

    for (model, commits) in [(&still, 1), (&moves, 2), (&over, 2), (&model, 1)] {
        let run = stored(&database, model).await.unwrap();
        assert_eq!(run.history.len(), commits);
        assert_eq!(run.row.version, model.run.as_ref().unwrap().last_event);
    }
    assert_eq!(partitions(&database).await[0], ("history_0".to_owned(), 6));
    still.lease(0, session(), after(PAST));
    client.commit(&mut [&mut still]).await;
    assert_eq!(stored(&database, &still).await.unwrap().history.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_uses_history_is_not_waited_for_long() {
    let database = Database::new().await;
    let mut retention = retention(&database).await;
    let (mut client, workflow) = (database.lane().await, database.workflow(1).await);
    let open = open(&mut client, &workflow, 0).await;
    ended(&mut client, &workflow, 0).await;
    pass(&mut retention, AGE).await;
    pass(&mut retention, KEEP + 1).await;
    let before = (partitions(&database).await, database.dump().await);
    let mut reader = database.connect().await;
    let mut reading = reader.begin().await.unwrap();
    reading.execute("select from history limit 1").await.unwrap();
    retention.set_clock(after(PAST));
    let refused = retention.tick().await.expect_err("it is read");
    assert!(matches!(refused, Error::Outage { .. }), "{refused}");
    assert_eq!((partitions(&database).await, database.dump().await), before, "all is as it was");
    reading.rollback().await.unwrap();
    assert_eq!(pass(&mut retention, PAST).await.dropped, 1);
    assert_eq!(stored(&database, &open).await.unwrap().history.len(), 1);
}
