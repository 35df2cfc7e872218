//! Connections that end at the wrong moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longtake_engine::lane::work::{Committed, Housekeep, Load};
use sqlx::{Connection, Executor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

use super::support::{Client, Database, Model, START, after, batch, encoded, eventually, session};
use crate::Store;
use crate::error::{Outcome, outcome};

const KILL: &str = "select count(pg_terminate_backend(pid)) from pg_stat_activity
    where datname = current_database() and application_name = 'longtake lane'";

/// A run, and a transaction of somebody else that holds its row.
async fn held_up(database: &Database) -> (Client, Model, sqlx::PgConnection) {
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut model = Model::new(&workflow);
    model.create(START);
    client.commit(&mut [&mut model]).await;
    let mut rival = database.connect().await;
    rival.execute("begin; select from run for update").await.unwrap();
    (client, model, rival)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_killed_leaves_the_outcome_unknown() {
    let database = Database::new().await;
    let (mut client, mut model, mut rival) = held_up(&database).await;
    let (id, write) = (model.id, batch([model.lease(0, session(), after(1)).write()]));
    let writing = tokio::spawn(async move {
        let outcome = client.lane.write(&write, &encoded(&write)).await;
        (client, outcome, write)
    });
    database.until_waiting(1).await;
    assert_eq!(database.count(KILL).await, 1);
    let (mut client, outcome, write) = writing.await.unwrap();
    assert!(matches!(outcome, (Committed::Unknown, None)), "{outcome:?}");
    rival.execute("commit").await.unwrap();
    // The connection is replaced, and the truth is there to be read: it did not happen, and can happen now.
    let loaded = client.lane.load(&Load { runs: [(id, true)].into(), ready: [].into() }).await.unwrap();
    assert_eq!(loaded.runs[0].row.version, 2);
    assert_eq!(client.done(&write).await.0.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_half_way_harms_nobody() {
    let database = Database::new().await;
    let (mut client, mut model, mut rival) = held_up(&database).await;
    let (id, write) = (model.id, batch([model.lease(0, session(), after(1)).write()]));
    let encoded = encoded(&write);
    let dropped = tokio::time::timeout(Duration::from_millis(200), client.lane.write(&write, &encoded)).await;
    assert!(dropped.is_err(), "the run's row is held");
    // The lane goes on at once, on a connection of its own; the statement may still happen, and whoever asks under lock waits.
    client.lane.housekeep(&Housekeep::default()).await.unwrap();
    let reading = tokio::spawn(async move {
        let loaded = client.lane.load(&Load { runs: [(id, true)].into(), ready: [].into() }).await;
        (client, loaded)
    });
    database.until_waiting(2).await;
    rival.execute("commit").await.unwrap();
    let (mut client, loaded) = reading.await.unwrap();
    let version = loaded.unwrap().runs[0].row.version;
    let (written, _) = client.done(&write).await;
    // Either the dropped statement happened before the read, or it lost its fence, or it was the only one.
    let total = async || database.count("select count(*) from history where first_event = 3").await == 1;
    eventually("the lease is stored once", total).await;
    assert!(matches!((version, written.len()), (3, 0) | (2, 0) | (2, 1)), "{version}, {written:?}");
    assert_eq!(database.count("select count(*) from run where version = 3").await, 1);
}

/// Between a lane and the test server: passes everything on, until it is told to swallow the server's answers.
async fn proxy(socket: String, deaf: Arc<AtomicBool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (socket, deaf) = (socket.clone(), deaf.clone());
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) =
                    UnixStream::connect(socket).await.unwrap().into_split();
                let answers = tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(count) = from_server.read(&mut bytes).await {
                        if count == 0
                            || deaf.load(Ordering::SeqCst)
                            || to_client.write_all(&bytes[..count]).await.is_err()
                        {
                            return;
                        }
                    }
                });
                let asked =
                    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                // When answers end, so does the connection: the client has asked, and is told nothing.
                let _ = answers.await;
                asked.abort();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_unknown_and_is_found_by_reading() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let Some(directory) = database.store.options().get_socket().cloned() else {
        println!("not tested: the test server does not listen on a socket of this machine");
        return;
    };
    let socket = format!("{}/.s.PGSQL.{}", directory.display(), database.store.options().get_port());
    let deaf = Arc::new(AtomicBool::new(false));
    let port = proxy(socket, deaf.clone()).await;
    let user = database.store.options().get_username();
    let name = database.store.options().get_database().unwrap();
    let store = Store::connect(&format!("postgresql://{user}@127.0.0.1:{port}/{name}?sslmode=disable"), 1)
        .await
        .unwrap();
    let mut lane = store.lane(uuid::Uuid::new_v4(), 1).await.pop().unwrap();

    // The first write also prepares the statement, which has an answer of its own.
    let mut first = Model::new(&workflow);
    let write = batch([first.create(START).write()]);
    assert!(matches!(lane.write(&write, &encoded(&write)).await.0, Committed::Done { .. }));

    let mut model = Model::new(&workflow);
    let write = batch([model.create(START).write()]);
    let encoded = encoded(&write);
    deaf.store(true, Ordering::SeqCst);
    let outcome = lane.write(&write, &encoded).await;
    assert!(matches!(outcome, (Committed::Unknown, None)), "{outcome:?}");
    deaf.store(false, Ordering::SeqCst);
    // It had happened. Doing it again does not do it twice, and reading finds it.
    let again = lane.write(&write, &encoded).await.0;
    assert!(matches!(&again, Committed::Done { written, .. } if written.is_empty()), "{again:?}");
    let loaded = lane.load(&Load { runs: [(model.id, true)].into(), ready: [].into() }).await.unwrap();
    assert_eq!(loaded.runs[0].row.version, 2);
    assert_eq!(loaded.runs[0].history, encoded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_waits_for_a_database_that_is_away() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let mut client = database.lane().await;
    let mut admin = super::support::server_connection().await;
    let name = database.store.options().get_database().unwrap().to_owned();
    let allow = |allowed: bool| {
        sqlx::AssertSqlSafe(format!("alter database {name} with allow_connections {allowed}"))
    };
    admin.execute(allow(false)).await.unwrap();
    assert_eq!(database.count(KILL).await, 1);
    let mut model = Model::new(&workflow);
    model.create(START);
    let write = batch([model.write()]);
    let encoded = encoded(&write);
    // This one was sent into a connection that is dead: who knows.
    assert!(matches!(client.lane.write(&write, &encoded).await.0, Committed::Unknown));
    // This one is not sent before there is a connection.
    let writing = tokio::spawn(async move { client.lane.write(&write, &encoded).await.0 });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished());
    admin.execute(allow(true)).await.unwrap();
    let outcome = writing.await.unwrap();
    assert!(matches!(&outcome, Committed::Done { written, .. } if written.len() == 1), "{outcome:?}");
    admin.close().await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_write_is_waited_for() {
    let database = Database::new().await;
    let workflow = database.workflow(1).await;
    let set = |value: &str| {
        let sql = format!(
            "do $$ begin execute format('alter database %I set default_transaction_read_only = {value}', current_database()); end $$"
        );
        sqlx::AssertSqlSafe(sql)
    };
    let mut admin = database.connect().await;
    admin.execute(set("on")).await.unwrap();
    let mut client = database.lane().await;
    admin.execute("set default_transaction_read_only = off").await.unwrap();
    let mut model = Model::new(&workflow);
    model.create(START);
    let write = batch([model.write()]);
    let writing = tokio::spawn(async move {
        let encoded = encoded(&write);
        client.lane.write(&write, &encoded).await.0
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!writing.is_finished());
    admin.execute(set("off")).await.unwrap();
    let outcome = writing.await.unwrap();
    assert!(matches!(&outcome, Committed::Done { written, .. } if written.len() == 1), "{outcome:?}");
}

#[tokio::test]
async fn what_an_error_says_of_its_statement() {
    let database = Database::empty().await;
    let mut connection = database.connect().await;
    for (code, expected) in [
        ("23514", Outcome::Refused),
        ("22021", Outcome::Refused),
        ("54000", Outcome::Refused),
        ("42P01", Outcome::Refused),
        ("23505", Outcome::Conflict),
        ("40001", Outcome::Conflict),
        ("40P01", Outcome::Conflict),
        ("55P03", Outcome::Late),
        ("57014", Outcome::Late),
        ("53200", Outcome::Late),
        ("58030", Outcome::Late),
        ("0A000", Outcome::Stale),
        ("26000", Outcome::Stale),
        ("25006", Outcome::Passing),
        ("53100", Outcome::Passing),
        ("57P01", Outcome::Unknown),
        ("57P03", Outcome::Unknown),
        ("08006", Outcome::Unknown),
    ] {
        let sql = format!("do $$ begin raise exception 'secret value' using errcode = '{code}'; end $$");
        let error = connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap_err();
        assert_eq!(outcome(&error), expected, "{code}");
        let shown = crate::Error::new("testing", &error).to_string();
        let speaks_of_server = ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class));
        assert_eq!(shown.contains("secret value"), speaks_of_server, "{shown}");
        assert!(shown.contains(code), "{shown}");
    }
    let error = connection.execute("select nonsense from nowhere where secret = 1").await.unwrap_err();
    let shown = crate::Error::new("testing", &error).to_string();
    assert!(
        !shown.contains("nonsense") && !shown.contains("secret") && !shown.contains("nowhere"),
        "{shown}"
    );
    // FATAL: whatever its code, the connection is gone.
    let sql = "select pg_terminate_backend(pg_backend_pid())";
    assert_eq!(outcome(&connection.execute(sql).await.unwrap_err()), Outcome::Unknown);
}
