//! Reads past the lanes, on a small pool. They see what is committed, and decide nothing.

mod list;
mod workflows;

use longtake_engine::ids::{RunId, SessionId, StepNo};
use longtake_engine::time::Timestamp;
use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};
use uuid::Uuid;

use crate::error::Error;
use crate::lane::bind_load;
use crate::rows::{RunRows, assemble};
use crate::stamp::Stamp;

pub use list::ListFilter;
pub use workflows::CurrentWorkflow;

/// Reads past the lanes. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Reads {
    pool: PgPool,
}

/// An executor's session, as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    /// The session.
    pub id: SessionId,
    /// The executor's name.
    pub executor: String,
    /// The replica that looks after it.
    pub replica: Uuid,
    /// Its committed end.
    pub until: Timestamp,
    /// Whether it has ended.
    pub ended: bool,
}

/// The steps that wait in a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueRow {
    /// The queue.
    pub queue: String,
    /// How many steps wait.
    pub depth: i64,
    /// Since when the one waits that waits longest.
    pub oldest: Timestamp,
}

/// What a table takes on disk, with its indexes.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSize {
    /// The table.
    pub table: String,
    /// Its size in bytes.
    pub bytes: i64,
    /// How many rows it has, roughly: as of its last vacuum or analyse.
    pub rows: i64,
}

impl Reads {
    pub(crate) fn new(pool: PgPool) -> Reads {
        Reads { pool }
    }

    /// Whether any run holds a lease.
    pub async fn any_lease(&self) -> Result<bool, Error> {
        const ANY: &str =
            "select exists (select from open_run join run using (run_no) where lease_sessions <> '{}')";
        sqlx::query_scalar(ANY)
            .fetch_one(&self.pool)
            .await
            .map_err(|error| Error::new("looking for leases", &error))
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), Error> {
        self.now().await.map(drop)
    }

    /// The database's time.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        let now: Result<Stamp, _> =
            sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await;
        now.map(|now| now.0).map_err(|error| Error::new("asking for the time", &error))
    }

    /// Runs as they are stored, each in one snapshot with all that belongs to it. Those that do not exist are left out.
    pub async fn runs(&self, ids: &[RunId]) -> Result<Vec<RunRows>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|run| run.0).collect();
        let rows = bind_load(&ids, &[], true).fetch_all(&self.pool).await;
        let runs = rows.and_then(|rows| assemble(&rows));
        runs.map(|(runs, _)| runs).map_err(|error| Error::new("reading runs", &error))
    }

    /// The encoded events of the commits that hold a run's events after a number, oldest first; at most so many commits. The
    /// first may begin before that number. None when there is no such run.
    pub async fn events(&self, id: RunId, after: i64, limit: usize) -> Result<Option<Vec<Vec<u8>>>, Error> {
        const EVENTS: &str = "
            select h.events
            from run_key as k
            left join lateral (
                select first_event, events
                from history
                where history.run_no = k.run_no and first_event >= coalesce(
                    (select max(first_event) from history where history.run_no = k.run_no and first_event <= $2::bigint + 1), 0)
                order by first_event
                limit $3::bigint
            ) as h on true
            where k.run_id = $1::uuid
            order by h.first_event";
        let statement =
            sqlx::query_scalar(EVENTS).bind(id.0).bind(after).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Result<Vec<Option<Vec<u8>>>, _> = statement.fetch_all(&self.pool).await;
        let rows = rows.map_err(|error| Error::new("reading a run's history", &error))?;
        Ok((!rows.is_empty()).then(|| rows.into_iter().flatten().collect()))
    }

    /// How many steps are before this one in its queue; counted up to 10,000. 0 also when it does not wait.
    pub async fn ready_ahead(&self, id: RunId, step: StepNo) -> Result<i64, Error> {
        const AHEAD: &str = "
            select count(*)
            from run_key as k
            join ready as own on own.run_no = k.run_no and own.step = $2::smallint
            cross join lateral (
                select from ready as other
                where other.queue = own.queue and other.priority >= own.priority
                    and (
                        other.priority > own.priority
                        or (other.since, other.run_no, other.step) < (own.since, own.run_no, own.step)
                    )
                limit 10000
            ) as ahead
            where k.run_id = $1::uuid";
        let statement = sqlx::query_scalar(AHEAD).bind(id.0).bind(crate::lane::number(step));
        statement.fetch_one(&self.pool).await.map_err(|error| Error::new("reading a queue", &error))
    }

    /// Queues in which steps wait.
    pub async fn queues(&self) -> Result<Vec<QueueRow>, Error> {
        const QUEUES: &str = "select queue, count(*), min(since) from ready group by queue order by queue";
        let row = |row: &PgRow| -> Result<QueueRow, sqlx::Error> {
            let oldest: Stamp = row.try_get(2)?;
            Ok(QueueRow { queue: row.try_get(0)?, depth: row.try_get(1)?, oldest: oldest.0 })
        };
        let rows = sqlx::query(QUEUES).fetch_all(&self.pool).await;
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.map_err(|error| Error::new("reading queues", &error))
    }

    /// Sessions of executors after one, by id; at most so many.
    pub async fn sessions(&self, after: Option<SessionId>, limit: usize) -> Result<Vec<SessionRow>, Error> {
        const SESSIONS: &str = "
            select session_id, executor, replica, until, ended
            from session
            where $1::uuid is null or session_id > $1::uuid
            order by session_id
            limit $2::bigint";
        let row = |row: &PgRow| -> Result<SessionRow, sqlx::Error> {
            let until: Stamp = row.try_get(3)?;
            Ok(SessionRow {
                id: SessionId(row.try_get(0)?),
                executor: row.try_get(1)?,
                replica: row.try_get(2)?,
                until: until.0,
                ended: row.try_get(4)?,
            })
        };
        let statement = sqlx::query(SESSIONS).bind(after.map(|session| session.0));
        let rows = statement.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&self.pool).await;
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.map_err(|error| Error::new("reading sessions", &error))
    }

    /// What each table takes on disk.
    pub async fn sizes(&self) -> Result<Vec<TableSize>, Error> {
        // Partitions count as the table that they are of.
        const SIZES: &str = "
            select whole.relname::text, sum(pg_total_relation_size(part.oid))::bigint,
                sum(greatest(part.reltuples, 0))::bigint
            from pg_class as part
            left join pg_inherits on inhrelid = part.oid
            join pg_class as whole on whole.oid = coalesce(inhparent, part.oid)
            where part.relkind = 'r'
                and part.relnamespace = (select relnamespace from pg_class where oid = 'run'::regclass)
            group by whole.relname
            order by whole.relname";
        let row = |row: &PgRow| -> Result<TableSize, sqlx::Error> {
            Ok(TableSize { table: row.try_get(0)?, bytes: row.try_get(1)?, rows: row.try_get(2)? })
        };
        let rows = sqlx::query(SIZES).fetch_all(&self.pool).await;
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.map_err(|error| Error::new("reading sizes", &error))
    }
}
