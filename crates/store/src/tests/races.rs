//! Several writers at once: exactly one of them wins.

use longtake_engine::ids::RunId;
use longtake_engine::lane::work::{Committed, Load, Write};
use sqlx::{Connection, Executor};

use super::support::{Client, Database, Model, START, after, batch, encoded, session};

/// A write that goes on while the test does.
fn start(mut client: Client, write: Write) -> tokio::task::JoinHandle<(Client, Committed)> {
    tokio::spawn(async move {
        let (outcome, _) = client.lane.write(&write, &encoded(&write)).await;
        (client, outcome)
    })
}

fn written(outcome: &Committed) -> Vec<RunId> {
    match outcome {
        Committed::Done { written, .. } => written.keys().copied().collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_on_one_version_one_wins() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let (mut one, mut two) = (database.lane().await, database.lane().await);
    let mut won = [0, 0];
    for _ in 0..50 {
        let mut models: Vec<Model> = (0..8).map(|_| Model::new(&workflow)).collect();
        for model in &mut models {
            model.create(START);
        }
        one.commit(&mut models.iter_mut().collect::<Vec<_>>()).await;
        let mut rivals = models.clone();
        // The same runs, each lease another one.
        let write = |models: &mut Vec<Model>| {
            batch(models.iter_mut().map(|model| model.lease(0, session(), after(1)).write()))
        };
        let (first, second) = (start(one, write(&mut models)), start(two, write(&mut rivals)));
        let (outcomes, both);
        (one, outcomes) = first.await.expect("no panic");
        (two, both) = second.await.expect("no panic");
        let (mut winners, losers) = (written(&outcomes), written(&both));
        won[0] += winners.len();
        won[1] += losers.len();
        winners.extend(losers);
        winners.sort_unstable();
        winners.dedup();
        assert_eq!(winners.len(), 8, "each run was written once");
    }
    assert_eq!(won[0] + won[1], 400, "no run was written twice");
    let doubled = "select count(*) from (select from history where first_event = 3 group by run_no having count(*) > 1) as h";
    assert_eq!(database.count(doubled).await, 0);
    assert_eq!(database.count("select count(*) from history where first_event = 3").await, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_creations_of_one_id_one_wins() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let (mut one, mut two) = (database.lane().await, database.lane().await);
    for _ in 0..50 {
        let mut models: Vec<Model> = (0..8).map(|_| Model::new(&workflow)).collect();
        for model in &mut models {
            model.create(START);
        }
        let mut rivals = models.clone();
        let first = start(one, batch(models.iter_mut().map(Model::write)));
        let second = start(two, batch(rivals.iter_mut().map(Model::write)));
        let (outcome, other);
        (one, outcome) = first.await.expect("no panic");
        (two, other) = second.await.expect("no panic");
        assert_eq!(written(&outcome).len() + written(&other).len(), 8);
    }
    for sql in [
        "select count(*) from run_key",
        "select count(*) from run",
        "select count(*) from history",
        "select count(*) from ready",
        "select count(*) from open_run",
    ] {
        assert_eq!(database.count(sql).await, 400, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_waited_sees_what_it_waited_for() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    for rival_commits in [true, false] {
        let mut client = database.lane().await;
        let mut model = Model::new(&workflow);
        model.create(START);
        client.commit(&mut [&mut model]).await;
        let id = model.id;
        let mut rival = database.connect().await;
        let mut transaction = rival.begin().await.unwrap();
        let bump = sqlx::query("update run set version = version + 1 where run_id = $1").bind(id.0);
        transaction.execute(bump).await.unwrap();
        let waiting = start(client, batch([model.lease(0, session(), after(1)).write()]));
        database.until_waiting(1).await;
        if rival_commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let (_, outcome) = waiting.await.expect("no panic");
        assert_eq!(written(&outcome).is_empty(), rival_commits);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_read_waits_for_a_commit_on_its_way() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let (mut client, mut reader) = (database.lane().await, database.lane().await);
    let mut model = Model::new(&workflow);
    model.create(START);
    client.commit(&mut [&mut model]).await;
    let id = model.id;
    // A row in the place of the next one in the run's history holds the commit up when it is half done.
    let mut rival = database.connect().await;
    let mut transaction = rival.begin().await.unwrap();
    transaction.execute("insert into history select run_no, 3, now(), '' from run").await.unwrap();
    let writing = start(client, batch([model.lease(0, session(), after(1)).write()]));
    database.until_waiting(1).await;

    let plain = reader.lane.load(&Load { runs: [(id, false)].into(), ready: [].into() }).await.unwrap();
    assert_eq!(plain.runs[0].row.version, 2, "a plain read misses the commit");
    let locked = tokio::spawn(async move {
        let loaded = reader.lane.load(&Load { runs: [(id, true)].into(), ready: [].into() }).await;
        loaded.map(|loaded| loaded.runs[0].clone())
    });
    database.until_waiting(2).await;
    transaction.rollback().await.unwrap();
    let run = locked.await.unwrap().unwrap();
    assert_eq!(run.row.version, 3);
    assert_eq!(run.history.len(), 2);
    assert_eq!(written(&writing.await.unwrap().1), [id]);
}
