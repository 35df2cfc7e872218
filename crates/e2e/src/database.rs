//! A database for one test.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use url::Url;

/// Makes PostgreSQL's clock settable for those who connect from then on: `settable.forward` says by how much it is off. Names are
/// looked for in PostgreSQL's own schema first, unless the search path names that later.
pub const SETTABLE_CLOCK: &str = "
    create schema settable;
    create table settable.forward (by interval not null);
    insert into settable.forward values ('0');
    create function settable.clock_timestamp() returns timestamptz language sql volatile
        as 'select pg_catalog.clock_timestamp() + by from settable.forward';
    do $$ begin
        execute format('alter database %I set search_path = public, settable, pg_catalog', current_database());
    end $$";

/// A database that is gone when this is dropped.
#[derive(Debug)]
pub struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    /// Makes an empty one.
    ///
    /// # Panics
    /// When `LONGTAKE_TEST_DATABASE_URL` is not set, or its server cannot be used.
    pub async fn create() -> Database {
        let admin = std::env::var("LONGTAKE_TEST_DATABASE_URL").unwrap_or_else(|_| {
            panic!("LONGTAKE_TEST_DATABASE_URL is not set: run the tests with bin/test, or name a superuser's URL")
        });
        Database::create_on(admin).await
    }

    /// Makes an empty one on the server that `admin` names, a superuser's URL.
    ///
    /// # Panics
    /// When that server cannot be used.
    pub async fn create_on(admin: String) -> Database {
        let name = format!("longtake_e2e_{}", uuid::Uuid::new_v4().simple());
        let mut url = Url::parse(&admin).expect("the database's URL is a URL");
        url.set_path(&name);
        execute(&admin, format!("create database {name}")).await.expect("a database for the test");
        Database { admin, name, url: url.into() }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to it.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("a connection to the test's database")
    }

    /// How many rows each table holds that remembers what was asked for. Left out is what comes and goes by itself: sessions,
    /// presence, and the schema's own notes.
    pub async fn rows(&self) -> Vec<(String, i64)> {
        let mut connection = self.connect().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "select format('%I.%I', schemaname, tablename) from pg_tables \
             where schemaname not in ('pg_catalog', 'information_schema') \
             and tablename !~ 'session|presence|replica|migration' order by 1",
        )
        .fetch_all(&mut connection)
        .await
        .expect("the list of tables");
        let mut rows = Vec::new();
        for table in tables {
            let count = AssertSqlSafe(format!("select count(*) from {table}"));
            let count = sqlx::query_scalar(count).fetch_one(&mut connection).await.expect("a count");
            rows.push((table, count));
        }
        assert!(!rows.is_empty(), "the database has no tables: is the schema elsewhere?");
        rows
    }
}

async fn execute(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

impl Drop for Database {
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        // The test's own runtime may be the one that is dropping this.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let statement = format!("drop database if exists {name} with (force)");
            runtime.block_on(execute(&admin, statement)).map_err(std::io::Error::other)
        });
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("cannot drop the test's database {}: {error}", self.name);
        }
    }
}
