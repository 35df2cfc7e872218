//! Bounded tables: runs that ended long enough ago are removed, and history goes by ranges of their numbers.
//!
//! A run is removed by one statement (`remove.sql`) that takes its row away first: a lane that retries it at the same time either
//! has the row before, and the run stays, or does not find it any more, and answers that there is no such run. All that is found
//! by the run's id goes in the same commit. History is found through the run only, and is far larger than everything else: it
//! stays until its range is over, and then goes with a whole partition.
//!
//! - A range is left for the next one when it is old, not when it is full: its numbers do not run out, so that nothing stops
//!   when nobody does this. The number of partitions depends on how long runs are kept, and not on how many there are.
//! - A range is *past* when everything that was made in it can have ended and been removed. What is left of it, mostly nothing,
//!   is copied into a small partition that takes the place of all that are past ([`thin`](Retention::thin)): a run that is paused
//!   for months keeps its own history, and nobody else's.
//!
//! Every step is a transaction of its own and leaves what the others can begin with: after a crash between any two of them the
//! next tick goes on. An advisory lock lets one replica at a time do it.

pub(crate) mod plan;
pub(crate) mod thin;

use std::time::Duration as StdDuration;

use longtake_engine::time::{Duration, Timestamp};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};

use crate::error::Error;
use crate::stamp::Stamp;

use plan::{Plan, Range, Ranges};

const RANGES: &str = include_str!("../sql/retention/ranges.sql");
const EXTEND: &str = include_str!("../sql/retention/extend.sql");
const BEGIN: &str = include_str!("../sql/retention/begin.sql");
const MARK: &str = include_str!("../sql/retention/mark.sql");
pub(crate) const REMOVE: &str = include_str!("../sql/retention/remove.sql");

/// By key, as on a lane's connection, whatever the planner makes of tables that have just grown or shrunk. Locks are waited for
/// in vain rather than for long: whoever comes later waits behind this.
pub(crate) const SETTINGS: &str = "
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set jit = off;
    set lock_timeout = '100ms';
    set statement_timeout = '5min';
    set idle_in_transaction_session_timeout = '10s';
    set timezone = 'UTC';";

/// "longtake": held by the replica that removes.
const LOCK: i64 = 0x6c6f_6e67_7461_6b65;
/// How long a tick may take: longer than any of its statements.
const PATIENCE: StdDuration = StdDuration::from_secs(900);

const DOING: &str = "removing what is past its retention";

/// Removes what is past its retention, on a connection of its own. A tick that is dropped takes the connection with it.
#[derive(Debug)]
pub struct Retention {
    options: PgConnectOptions,
    live: Option<PgConnection>,
    keep: Duration,
    runs_at_once: usize,
    /// The run up to which this pass has looked.
    looked_at: i64,
    /// Stands in for Postgres's clock in tests.
    now: Option<Timestamp>,
}

/// What a tick did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Runs that were removed.
    pub runs: u64,
    /// Ranges of history that were made, ahead.
    pub made: u64,
    /// Ranges of history that new runs have come to.
    pub begun: u64,
    /// Ranges of history that are past and were dropped.
    pub dropped: u64,
    /// There may be more to remove: the pass is not at its end.
    pub more: bool,
}

impl Swept {
    /// Together with what another tick did, after this one.
    pub fn and(self, next: Swept) -> Swept {
        Swept {
            runs: self.runs + next.runs,
            made: self.made + next.made,
            begun: self.begun + next.begun,
            dropped: self.dropped + next.dropped,
            more: next.more,
        }
    }

    /// Whether anything was done.
    pub fn is_something(self) -> bool {
        self.runs + self.made + self.begun + self.dropped > 0
    }
}

impl Retention {
    /// Keeps runs for so long after they ended, and removes so many in a statement.
    pub(crate) fn new(options: &PgConnectOptions, keep: Duration, runs_at_once: usize) -> Retention {
        let options = options.clone().application_name("longtake retention").disable_statement_logging();
        Retention { options, live: None, keep, runs_at_once, looked_at: i64::MIN, now: None }
    }

    /// Sees to the ranges of history, and removes a page of runs; at the end of a pass, history that is past. Does nothing while
    /// another replica is at it.
    pub async fn tick(&mut self) -> Result<Swept, Error> {
        let ticking = tokio::time::timeout(PATIENCE, self.tick_once()).await;
        ticking.unwrap_or_else(|_| {
            let late = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
            Err(failed(&sqlx::Error::Io(late)))
        })
    }

    async fn tick_once(&mut self) -> Result<Swept, Error> {
        // An error, too, ends the connection, and with it the lock.
        let mut connection = self.connection().await?;
        let swept = if lock(&mut connection).await? {
            let swept = self.work(&mut connection).await?;
            unlock(&mut connection).await?;
            swept
        } else {
            Swept::default()
        };
        self.live = Some(connection);
        Ok(swept)
    }

    async fn work(&mut self, connection: &mut PgConnection) -> Result<Swept, Error> {
        let mut swept = self.see_to_ranges(connection).await?;
        (swept.runs, swept.more) = self.remove(connection).await?;
        if !swept.more {
            swept.dropped = self.drop_past(connection).await?;
        }
        Ok(swept)
    }

    async fn connection(&mut self) -> Result<PgConnection, Error> {
        if let Some(connection) = self.live.take() {
            return Ok(connection);
        }
        let mut connection = self.options.connect().await.map_err(|error| failed(&error))?;
        connection.execute(SETTINGS).await.map_err(|error| failed(&error))?;
        Ok(connection)
    }

    /// The ranges as they are, and what is to be done with them.
    pub(crate) async fn plan(&self, connection: &mut PgConnection) -> Result<Plan, Error> {
        let rows = sqlx::query(RANGES).bind(self.now.map(Stamp)).fetch_all(connection).await;
        let ranges = rows.and_then(|rows| read(&rows)).map_err(|error| failed(&error))?;
        Ok(ranges.plan(self.keep))
    }

    /// Ranges are made ahead, and begun when the present one is old.
    pub(crate) async fn see_to_ranges(&self, connection: &mut PgConnection) -> Result<Swept, Error> {
        let plan = self.plan(connection).await?;
        for range in &plan.missing {
            extend(connection, range).await?;
        }
        if let Some(at) = plan.leave_at {
            begin(connection, at).await?;
        }
        // Also what a tick has left that ended between the two.
        let begun = if plan.leave_at.is_some() || plan.unmarked { self.mark(connection).await? } else { 0 };
        let made = plan.missing.len().try_into().unwrap_or(u64::MAX);
        Ok(Swept { made, begun, ..Swept::default() })
    }

    pub(crate) async fn mark(&self, connection: &mut PgConnection) -> Result<u64, Error> {
        let marked = sqlx::query(MARK).bind(self.now.map(Stamp)).execute(connection).await;
        marked.map(|done| done.rows_affected()).map_err(|error| failed(&error))
    }

    /// Removes what is past its retention of the next page of runs; how many that were, and whether the pass goes on.
    pub(crate) async fn remove(&mut self, connection: &mut PgConnection) -> Result<(u64, bool), Error> {
        let page = i64::try_from(self.runs_at_once).unwrap_or(i64::MAX);
        let statement = sqlx::query(REMOVE).bind(self.now.map(Stamp)).bind(self.keep.micros());
        // All rows: only at the end of the answer is it committed.
        let rows = statement.bind(self.looked_at).bind(page).fetch_all(connection).await;
        let read = |row: &PgRow| -> Result<(i64, Option<i64>, Option<bool>), sqlx::Error> {
            Ok((row.try_get("removed")?, row.try_get("last")?, row.try_get("more")?))
        };
        let row = rows.and_then(|rows| rows.first().map_or(Err(sqlx::Error::RowNotFound), read));
        let (removed, last, more) = row.map_err(|error| failed(&error))?;
        let more = more.unwrap_or(false);
        self.looked_at = last.filter(|_| more).unwrap_or(i64::MIN);
        Ok((u64::try_from(removed).unwrap_or_default(), more))
    }

    /// From here on it is `now`.
    #[cfg(test)]
    pub(crate) fn set_clock(&mut self, now: Timestamp) {
        self.now = Some(now);
    }

    /// A connection as ticks use it.
    #[cfg(test)]
    pub(crate) async fn connect(&mut self) -> PgConnection {
        self.connection().await.expect("the database answers")
    }
}

fn failed(error: &sqlx::Error) -> Error {
    Error::new(DOING, error)
}

pub(crate) async fn lock(connection: &mut PgConnection) -> Result<bool, Error> {
    let locked = sqlx::query_scalar("select pg_try_advisory_lock($1::bigint)").bind(LOCK);
    locked.fetch_one(connection).await.map_err(|error| failed(&error))
}

async fn unlock(connection: &mut PgConnection) -> Result<(), Error> {
    let unlocked = sqlx::query("select pg_advisory_unlock($1::bigint)").bind(LOCK);
    unlocked.execute(connection).await.map(drop).map_err(|error| failed(&error))
}

pub(crate) async fn extend(connection: &mut PgConnection, range: &Range) -> Result<(), Error> {
    let numbers = [("no", range.no), ("starts_at", range.starts_at), ("ends_before", range.ends_before)];
    run(connection, EXTEND, &numbers).await
}

pub(crate) async fn begin(connection: &mut PgConnection, at: i64) -> Result<(), Error> {
    let begun = sqlx::query(BEGIN).bind(at).execute(connection).await;
    begun.map(drop).map_err(|error| failed(&error))
}

/// Several statements as one transaction, unless in one already. Names of tables and bounds of partitions are no parameters:
/// numbers take their places in the text.
async fn run(connection: &mut PgConnection, text: &str, numbers: &[(&str, i64)]) -> Result<(), Error> {
    let mut text = text.to_owned();
    for (name, number) in numbers {
        text = text.replace(&format!("{{{name}}}"), &number.to_string());
    }
    connection.execute(AssertSqlSafe(text)).await.map(drop).map_err(|error| failed(&error))
}

fn read(rows: &[PgRow]) -> Result<Ranges, sqlx::Error> {
    let mut ranges = Ranges::default();
    let mut starts_at = i64::MIN;
    for row in rows {
        (ranges.last, ranges.now) = (row.try_get("last")?, row.try_get::<Stamp, _>("now")?.0);
        let ends_before = row.try_get("ends_before")?;
        ranges.all.push(Range {
            no: row.try_get("range_no")?,
            starts_at,
            ends_before,
            began_at: row.try_get::<Option<Stamp>, _>("began_at")?.map(|at| at.0),
            thinned: row.try_get("thinned")?,
        });
        starts_at = ends_before;
    }
    Ok(ranges)
}
