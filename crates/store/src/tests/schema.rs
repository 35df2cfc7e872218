//! Migrations, and who may serve.

use sqlx::Executor;

use super::support::Database;
use crate::Error;

const TABLES: &str =
    "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'S')
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
    let silent = "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'
        and relname <> '_sqlx_migrations' and obj_description(oid) is null";
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
