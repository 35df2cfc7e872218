//! Migrations, and who may serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::command::Operation;
use longtake_engine::definition::Workflow;
use longtake_engine::run::NewRun;
use sqlx::Executor;

use super::support::{Client, Database, Model, after, seconds, session};
use crate::Error;

const TABLES: &str =
    "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'S')
    and relname <> '_sqlx_migrations'";

#[tokio::test]
async fn the_schema_goes_up_and_down_and_up() {
    let database = Database::empty().await;
    let store = &database.store;
    for _ in 0..2 {
        let refused = store.check_schema().await.expect_err("there is no schema");
        assert!(refused.to_string().contains("run its migrations"), "{refused}");
        store.migrate().await.expect("up");
        store.check_schema().await.expect("the schema is there");
        assert!(database.count(TABLES).await > 10);
        store.migrate().await.expect("up again changes nothing");
        store.migrate_down(0).await.expect("down");
        assert_eq!(database.count(TABLES).await, 0);
    }
}

/// Runs in three states, in the order of their numbers.
async fn runs(client: &mut Client, workflow: &Arc<Workflow>, now: i64) -> Vec<Model> {
    let mut models: Vec<Model> = (0..3).map(|_| Model::new(workflow)).collect();
    for (index, model) in models.iter_mut().enumerate() {
        let labels = BTreeMap::from([("index".to_owned(), index.to_string())]);
        model.create_as(NewRun { labels, ..model.request() }, after(now));
        client.commit(&mut [model]).await;
        model.lease(0, session(), after(now));
        if index > 0 {
            model.complete(0, after(now + 1));
        }
        if index > 1 {
            model.operate(Operation::Cancel { reason: "test".to_owned() }, after(now + 2));
        }
        client.commit(&mut [model]).await;
    }
    models
}

async fn read(database: &Database, models: &[Model]) -> String {
    let ids: Vec<_> = models.iter().map(|model| model.id).collect();
    let runs = database.store.reads().runs(&ids).await.expect("runs can be read");
    assert_eq!(runs.len(), models.len());
    format!("{runs:?}")
}

#[tokio::test]
async fn runs_outlive_the_way_to_ranges_of_history_and_back() {
    let database = Database::new().await;
    let workflow = database.workflow(2).await;
    let mut models = Vec::new();
    for round in 0..3 {
        database.store.migrate_down(1).await.expect("down");
        assert_eq!(database.count("select count(*) from pg_inherits").await, 0);
        // The same lane, over the change: what it has prepared is still good.
        let mut client = database.lane().await;
        let before = read(&database, &models).await;
        let new = runs(&mut client, &workflow, round * 100).await;
        assert_eq!(read(&database, &models).await, before);
        models.extend(new);
        let before = read(&database, &models).await;
        database.store.migrate().await.expect("up");
        assert_eq!(read(&database, &models).await, before);
        let open = &mut models[usize::try_from(round).unwrap() * 3];
        open.complete(0, after(round * 100 + 9));
        assert_eq!(client.commit(&mut [open]).await.len(), 1);
        models.extend(runs(&mut client, &workflow, round * 100 + 50).await);
        // Some ranges further.
        let mut retention = database.store.retention(seconds(30), 100);
        let mut connection = retention.connect().await;
        for _ in 0..2 {
            let next = "select min(ends_before) from history_range where ends_before > (select last_value from run_no)";
            crate::retention::begin(&mut connection, database.count(next).await).await.unwrap();
            retention.see_to_ranges(&mut connection).await.unwrap();
            models.extend(runs(&mut client, &workflow, round * 100 + 50).await);
        }
    }
    let partitions = "select count(distinct tableoid) from history";
    assert_eq!(database.count(partitions).await, 3);
    assert_eq!(models.len(), 36);
    let before = read(&database, &models).await;
    database.store.migrate_down(1).await.expect("down");
    assert_eq!(read(&database, &models).await, before);
    database.store.migrate().await.expect("up");
    assert_eq!(read(&database, &models).await, before);
}

#[tokio::test]
async fn a_schema_says_where_it_stands_and_goes_down_only() {
    let database = Database::empty().await;
    let store = &database.store;
    let none = store.schema().await.expect("read");
    assert_eq!((none.version, &none.oldest_binary, none.binary), (0, &None, env!("CARGO_PKG_VERSION")));
    store.migrate_down(0).await.expect("it is there already");
    let refused = store.migrate_down(1).await.expect_err("that would be up");
    assert!(refused.to_string().contains("at version 0: it cannot be taken down to 1"), "{refused}");
    store.migrate().await.expect("up");
    let up = store.schema().await.expect("read");
    assert_eq!((up.version, up.oldest_binary.as_deref()), (up.newest, Some("0.1.0")));
    let refused = store.migrate_down(up.newest + 7).await.expect_err("there is no such version");
    assert!(
        matches!(refused, Error::Refused(_)) && refused.to_string().contains("cannot be taken down to"),
        "{refused}"
    );
    store.migrate_down(up.newest).await.expect("nothing to do");
    assert_eq!(store.schema().await.expect("read"), up);

    // What a newer binary brought, only that one can take back.
    let newer = "insert into schema_version (version, oldest_binary) values (1000, '0.0.1');
        insert into _sqlx_migrations select 1000, 'from a newer binary', now(), true, '\\x00', 0";
    database.connect().await.execute(newer).await.expect("a newer binary migrates");
    assert_eq!(store.schema().await.expect("read").version, 1000);
    let refused = store.migrate_down(0).await.expect_err("it is not known how");
    assert!(refused.to_string().contains("with the release that brought it there"), "{refused}");
    store.check_schema().await.expect("nothing was taken back");
}

#[tokio::test]
async fn several_processes_may_migrate_at_once() {
    let database = Database::empty().await;
    let tasks: Vec<_> = (0..5)
        .map(|_| {
            let store = database.store.clone();
            tokio::spawn(async move { store.migrate().await })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("each finds the schema there");
    }
    database.store.check_schema().await.expect("the schema is there");
}

#[tokio::test]
async fn a_schema_refuses_only_the_binaries_that_it_excludes() {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    let newer = "insert into schema_version (version, oldest_binary) values (1000, '0.0.1');
        insert into _sqlx_migrations select 1000, 'from a newer binary', now(), true, '\\x00', 0";
    connection.execute(newer).await.expect("a newer binary migrates");
    database.store.check_schema().await.expect("it still serves this one");
    database.store.migrate().await.expect("there is nothing left to do for this one");
    connection
        .execute("update schema_version set oldest_binary = '99.0.0' where version = 1000")
        .await
        .expect("it is stored");
    let refused = database.store.check_schema().await.expect_err("it does not serve this one");
    assert!(matches!(refused, Error::Refused(_)));
    assert!(refused.to_string().contains("older than 99.0.0"), "{refused}");
}

#[tokio::test]
async fn every_table_says_what_it_is_for_and_every_migration_whom_it_serves() {
    let database = Database::new().await;
    let silent =
        "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
        and not relispartition and relname <> '_sqlx_migrations' and obj_description(oid) is null";
    assert_eq!(database.count(silent).await, 0);
    let unmarked = "select count(*) from _sqlx_migrations as m
        where not exists (select from schema_version as s where s.version = m.version)";
    assert_eq!(database.count(unmarked).await, 0);
}

#[tokio::test]
async fn a_database_that_may_lose_commits_is_refused() {
    let database = Database::new().await;
    database.store.check_settings().await.expect("the test server is durable");
    let sql = "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$";
    database.connect().await.execute(sql).await.expect("the setting is taken");
    let store = crate::Store::connect(database.url().as_str(), 1).await.expect("the database answers");
    let refused = store.check_settings().await.expect_err("it is not durable");
    assert!(refused.to_string().contains("synchronous_commit = off"), "{refused}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_refused_at_once() {
    let database = Database::empty().await;
    let url = database.url().replace("longtake_test_", "longtake_nowhere_");
    let refused = crate::Store::connect(&url, 1).await.expect_err("there is no such database");
    assert!(refused.to_string().contains("does not exist"), "{refused}");
    let refused = crate::Store::connect("nonsense", 1).await.expect_err("this is no URL");
    assert!(refused.to_string().contains("malformed"), "{refused}");
}
