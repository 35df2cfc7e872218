//! Where a server starts: the database that it keeps everything in.

use std::str::FromStr;
use std::time::Duration;

use longtake_engine::time::{self, Timestamp};
use sqlx::ConnectOptions;
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::error::{Answer, Error};
use crate::lane::{LaneConnection, presence};
use crate::line::Delays;
use crate::reads::Reads;
use crate::retention::Retention;
use crate::schema::{self, Schema};
use crate::settings;

/// How long a database that is not up yet is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a read waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(5);

/// The database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    options: PgConnectOptions,
    pool: PgPool,
}

impl Store {
    /// Connects to a `postgresql://` URL, with at most so many connections for reads; each lane has one of its own.
    ///
    /// A database that does not answer yet is waited for, for ten seconds.
    pub async fn connect(url: &str, read_connections: u32) -> Result<Store, Error> {
        let malformed = |_| {
            Error::Refused("the database URL is malformed: write postgresql://user@host:5432/name".to_owned())
        };
        let options = PgConnectOptions::from_str(url).map_err(malformed)?.disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(read_connections)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .idle_timeout(Duration::from_secs(600))
            .max_lifetime(Duration::from_secs(3600))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    const SETTINGS: &str = "
                        set statement_timeout = '10s';
                        set lock_timeout = '5s';
                        set idle_in_transaction_session_timeout = '10s';
                        set jit = off;
                        set timezone = 'UTC';";
                    sqlx::Executor::execute(connection, SETTINGS).await.map(drop)
                })
            })
            .connect_lazy_with(options.clone().application_name("longtake reads"));
        let store = Store { options, pool };
        store.wait_until_up(PATIENCE).await?;
        Ok(store)
    }

    async fn wait_until_up(&self, patience: Duration) -> Result<(), Error> {
        let began = tokio::time::Instant::now();
        let mut delays = Delays::new();
        loop {
            let Err(error) = self.options.connect().await else { return Ok(()) };
            // Starting, stopping, or out of connections: that passes. A wrong password or name does not.
            let passes = match error.as_database_error().and_then(DatabaseError::code) {
                Some(code) => code.starts_with("57") || code.starts_with("53"),
                None => matches!(error, sqlx::Error::Io(_)),
            };
            if !passes || began.elapsed() > patience {
                return Err(Error::new("connecting to the database", &error));
            }
            tracing::warn!(reason = %Answer::of(&error), "the database does not answer yet; trying again");
            delays.wait().await;
        }
    }

    /// Refuses a server that could lose what it acknowledged.
    pub async fn check_settings(&self) -> Result<(), Error> {
        settings::check(&self.pool).await
    }

    /// Brings the schema up to date. Several processes may do this at once.
    pub async fn migrate(&self) -> Result<(), Error> {
        schema::migrate(&self.options).await
    }

    /// Where the schema stands.
    pub async fn schema(&self) -> Result<Schema, Error> {
        schema::read(&self.pool).await
    }

    /// Takes the schema down to a version; 0 removes everything, and all that is stored with it. One that the schema is not above
    /// is refused.
    pub async fn migrate_down(&self, to: i64) -> Result<(), Error> {
        schema::migrate_down(&self.options, to).await
    }

    /// Refuses a schema that is not there yet, or that excludes this binary.
    pub async fn check_schema(&self) -> Result<(), Error> {
        schema::check(&self.pool).await
    }

    /// Makes this replica present, and credits the outage that it ends, if there was one. Returns the database's time.
    ///
    /// `after_restore` is for the first server on a database that was restored or has lost commits: every session is ended, so
    /// that no executor works on under a lease of a lost past, and no outage is credited.
    pub async fn begin_service(&self, replica: Uuid, after_restore: bool) -> Result<Timestamp, Error> {
        presence::begin(&self.pool, replica, after_restore, None).await
    }

    /// Says goodbye: other replicas need not wait before they take over. Failing to is harmless.
    pub async fn end_service(&self, replica: Uuid) {
        presence::end(&self.pool, replica, None).await;
    }

    /// So many connections for a lane.
    pub async fn lane(&self, replica: Uuid, connections: usize) -> Vec<LaneConnection> {
        let mut lane = Vec::new();
        for _ in 0..connections {
            let mut connection = LaneConnection::new(&self.options, replica);
            connection.open().await;
            lane.push(connection);
        }
        lane
    }

    /// Reads past the lanes.
    pub fn reads(&self) -> Reads {
        Reads::new(self.pool.clone())
    }

    /// What removes runs that ended so long ago, so many in a statement.
    pub fn retention(&self, keep: time::Duration, runs_at_once: usize) -> Retention {
        Retention::new(&self.options, keep, runs_at_once)
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    #[cfg(test)]
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}
