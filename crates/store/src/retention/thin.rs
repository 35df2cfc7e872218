//! History that is past: the partitions go, and what is left of them is kept in a small one.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use crate::error::Error;

use super::plan::Range;
use super::{Retention, failed, run};

pub(crate) const LEFT: &str = include_str!("../sql/retention/left.sql");
const THIN_BEGIN: &str = include_str!("../sql/retention/thin_begin.sql");
pub(crate) const THIN_COPY: &str = include_str!("../sql/retention/thin_copy.sql");
const THIN_LOCK: &str = include_str!("../sql/retention/thin_lock.sql");
const THIN_REST: &str = include_str!("../sql/retention/thin_rest.sql");
const THIN_END: &str = include_str!("../sql/retention/thin_end.sql");

/// How many runs may be left of ranges that are past: while everybody waits, each of them is looked at once.
const LEFT_AT_MOST: usize = if cfg!(test) { 6 } else { 100_000 };

impl Retention {
    /// Drops history that is past, if there is some; returns how many partitions went. At the end of a pass: all runs have been
    /// removed that can be.
    pub(crate) async fn drop_past(&self, connection: &mut PgConnection) -> Result<u64, Error> {
        let past = self.plan(connection).await?.past;
        match past.last() {
            Some(last) => self.thin(connection, &past, last).await,
            None => Ok(0),
        }
    }

    /// Puts a partition with the history of the runs that are left in the place of those of `past`.
    async fn thin(&self, connection: &mut PgConnection, past: &[Range], last: &Range) -> Result<u64, Error> {
        let mut transaction = connection.begin().await.map_err(|error| failed(&error))?;
        let left = Left::read(&mut transaction, last.ends_before).await?;
        if left.runs.len() > LEFT_AT_MOST {
            tracing::warn!(
                more_than = LEFT_AT_MOST,
                "runs that do not end keep the history of others from being removed: end those that nobody needs"
            );
            return transaction.rollback().await.map(|()| 0).map_err(|error| failed(&error));
        }
        copy(&mut transaction, &left, last).await?;
        replace(&mut transaction, &left, past, last).await?;
        transaction.commit().await.map_err(|error| failed(&error))?;
        Ok(past.len().try_into().unwrap_or(u64::MAX))
    }
}

/// Runs that are left, and at which version each was.
pub(crate) struct Left {
    runs: Vec<i64>,
    versions: Vec<i64>,
}

impl Left {
    /// Those with numbers before an end; one more than there may be, if there are so many.
    pub(crate) async fn read(connection: &mut PgConnection, ends_before: i64) -> Result<Left, Error> {
        let limit = i64::try_from(LEFT_AT_MOST + 1).unwrap_or(i64::MAX);
        let rows = sqlx::query(LEFT).bind(ends_before).bind(limit).fetch_all(connection).await;
        let read =
            |row: &PgRow| -> Result<(i64, i64), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        let rows = rows.and_then(|rows| rows.iter().map(read).collect::<Result<Vec<_>, _>>());
        let (runs, versions) = rows.map_err(|error| failed(&error))?.into_iter().unzip();
        Ok(Left { runs, versions })
    }
}

/// Copies their history, while lanes go on.
pub(crate) async fn copy(connection: &mut PgConnection, left: &Left, last: &Range) -> Result<(), Error> {
    run(connection, THIN_BEGIN, &[("ends_before", last.ends_before)]).await?;
    let copy = sqlx::query(THIN_COPY).bind(&left.runs).bind(&left.versions);
    copy.execute(connection).await.map(drop).map_err(|error| failed(&error))
}

/// Lets lanes stand still for what was added meanwhile, mostly nothing, and for the change of tables: then no write is on its
/// way, and none can be lost.
pub(crate) async fn replace(
    connection: &mut PgConnection,
    left: &Left,
    past: &[Range],
    last: &Range,
) -> Result<(), Error> {
    run(connection, THIN_LOCK, &[]).await?;
    let rest = sqlx::query(THIN_REST).bind(&left.runs).bind(&left.versions).bind(last.ends_before);
    rest.execute(&mut *connection).await.map_err(|error| failed(&error))?;
    let partitions: Vec<String> = past.iter().map(|range| format!("history_{}", range.no)).collect();
    let end = THIN_END.replace("{partitions}", &partitions.join(", "));
    run(connection, &end, &[("no", last.no), ("ends_before", last.ends_before)]).await
}
