//! Lists of runs.

use std::collections::BTreeMap;

use longtake_engine::ids::{RunId, RunNo};
use longtake_engine::time::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Error;
use crate::stamp::Stamp;

use super::Reads;

/// Which runs a list holds, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListFilter {
    /// Only runs of the workflow of this name, whatever its version.
    pub workflow: Option<String>,
    /// Only runs in one of these states; all when empty.
    pub states: Vec<String>,
    /// Only runs that have all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only runs created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Only runs created before this time.
    pub created_before: Option<Timestamp>,
    /// Only runs with a smaller number: the last one of the page before.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: usize,
}

/// The statement over the runs of a `from` clause: what narrows a list most is looked through first.
macro_rules! list {
    ($from:literal) => {
        concat!("select run.run_no, run.run_id ", $from, include_str!("../sql/list.sql"))
    };
}

pub(crate) const ALL: &str = list!("from run where true ");
/// Runs that are under way.
pub(crate) const OPEN: &str = list!("from open_run join run using (run_no) where true ");
/// Runs with the first of the labels.
pub(crate) const LABELLED: &str = list!(
    "from run_label as label join run on run.run_no = label.run_no
     where label.key = ($3::text[])[1] and label.value = ($4::text[])[1] "
);

impl Reads {
    /// Runs, newest first.
    pub async fn list_runs(&self, filter: &ListFilter) -> Result<Vec<(RunNo, RunId)>, Error> {
        let open = |state: &String| matches!(state.as_str(), "RUNNING" | "PAUSED" | "STOPPING");
        let statement = if !filter.labels.is_empty() {
            LABELLED
        } else if !filter.states.is_empty() && filter.states.iter().all(open) {
            OPEN
        } else {
            ALL
        };
        let (keys, values): (Vec<&str>, Vec<&str>) =
            filter.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).unzip();
        let rows = sqlx::query(statement)
            .bind(&filter.workflow)
            .bind(&filter.states)
            .bind(keys)
            .bind(values)
            .bind(filter.created_after.map(Stamp))
            .bind(filter.created_before.map(Stamp))
            .bind(filter.before)
            .bind(i64::try_from(filter.limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await;
        let row =
            |row: &PgRow| -> Result<_, sqlx::Error> { Ok((RunNo(row.try_get(0)?), RunId(row.try_get(1)?))) };
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.map_err(|error| Error::new("listing runs", &error))
    }
}
