//! A lane's own connection: one statement at a time, and reconnected for as long as it takes.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::error::{Answer, Outcome, outcome};
use crate::lane::presence::BEGIN;
use crate::stamp::Stamp;

/// What a lane's connection is set to.
///
/// A statement over UNNEST is planned for ten rows and, while a table is small, with a hash join over all of it; that plan is
/// then kept while the table grows. Lanes run only statements that are meant to go by index, so the other ways are switched
/// off, and with them the compiler that those ways' invented costs would call.
pub(crate) const SETTINGS: &str = "
    set enable_seqscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set enable_bitmapscan = off;
    set enable_memoize = off;
    set plan_cache_mode = force_generic_plan;
    set jit = off;
    set statement_timeout = '10s';
    set lock_timeout = '5s';
    set idle_in_transaction_session_timeout = '10s';
    set timezone = 'UTC';";

/// How long an answer is waited for: longer than the server's own `statement_timeout`.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection may take to be opened.
const OPENING: Duration = Duration::from_secs(5);
/// The first and the longest wait between two tries to connect.
const DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A statement that takes longer is worth a line in the log.
const SLOW: Duration = Duration::from_secs(1);

/// Waits that double, up to a bound.
pub(crate) struct Delays(Duration);

impl Delays {
    pub(crate) fn new() -> Delays {
        Delays(DELAYS.0)
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(DELAYS.1);
    }
}

/// See the module. A call that is dropped takes its connection with it: the next one starts afresh.
#[derive(Debug)]
pub(crate) struct Line {
    options: PgConnectOptions,
    replica: Uuid,
    live: Option<PgConnection>,
    /// It was connected before: what it finds next may be a database that was away.
    met: bool,
}

impl Line {
    pub(crate) fn new(options: &PgConnectOptions, replica: Uuid) -> Line {
        let options = options.clone().application_name("longtake lane").disable_statement_logging();
        Line { options, replica, live: None, met: false }
    }

    /// Runs a statement to its very end: only then is it committed. The connection is kept if it is known to be in order.
    pub(crate) async fn rows(
        &mut self,
        doing: &'static str,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut connection = match self.live.take() {
            Some(connection) => connection,
            None => self.connect_for_ever().await,
        };
        let began = Instant::now();
        let done = timeout(PATIENCE, statement.fetch_all(&mut connection)).await.unwrap_or_else(|_| {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
            Err(sqlx::Error::Io(late))
        });
        if began.elapsed() > SLOW {
            tracing::warn!(doing, took = ?began.elapsed(), "the database was slow");
        }
        match done.as_ref().map_err(outcome) {
            Ok(_) | Err(Outcome::Refused | Outcome::Conflict | Outcome::Late) => self.live = Some(connection),
            Err(Outcome::Stale | Outcome::Passing | Outcome::Unknown) => drop(connection),
        }
        done
    }

    /// What came back cannot be trusted: start afresh.
    pub(crate) fn hang_up(&mut self) {
        self.live = None;
    }

    /// Makes sure that there is a connection.
    pub(crate) async fn open(&mut self) {
        if self.live.is_none() {
            self.live = Some(self.connect_for_ever().await);
        }
    }

    async fn connect_for_ever(&mut self) -> PgConnection {
        let mut delays = Delays::new();
        loop {
            let returning = self.met.then_some(self.replica);
            match timeout(OPENING, connect(&self.options, returning)).await {
                Ok(Ok(connection)) => {
                    self.met = true;
                    return connection;
                }
                Ok(Err(reason)) => {
                    tracing::warn!(%reason, "a lane cannot connect to the database; trying again");
                }
                Err(_) => tracing::warn!("a lane cannot connect to the database in time; trying again"),
            }
            delays.wait().await;
        }
    }
}

/// A connection on which nothing was asked yet. If a replica is `returning`, its presence begins anew before anything else: while
/// the database was away no heartbeat could be kept, and that outage has to be credited before a lease is judged by it.
async fn connect(options: &PgConnectOptions, returning: Option<Uuid>) -> Result<PgConnection, String> {
    let said = |error: sqlx::Error| Answer::of(&error).to_string();
    let mut connection = options.connect().await.map_err(said)?;
    connection.execute(SETTINGS).await.map_err(said)?;
    let standby: bool =
        sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut connection).await.map_err(said)?;
    if standby {
        // Best effort: it is dropped anyway.
        let _ = connection.close().await;
        return Err("it is a standby".to_owned());
    }
    if let Some(replica) = returning {
        let statement = sqlx::query(BEGIN).bind(None::<Stamp>).bind(replica).bind(true);
        statement.fetch_all(&mut connection).await.map_err(said)?;
    }
    Ok(connection)
}
