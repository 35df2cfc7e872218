//! Runs and ready steps, as a lane asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::lane::work::{Head, Load, ReadyStep};
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use crate::columns::Columns;
use crate::error::Error;
use crate::rows::{RunRows, assemble};
use crate::stamp::Stamp;

use super::LaneConnection;

pub(crate) const LOCK: &str = include_str!("../sql/lock.sql");
pub(crate) const LOAD: &str = include_str!("../sql/load.sql");

const DOING: &str = "reading runs for a lane";

/// What was read for a lane, not decoded yet.
#[derive(Debug, Default)]
pub struct LoadedRows {
    /// The runs that exist, of those that were asked for.
    pub runs: Vec<RunRows>,
    /// Ready steps by queue, in dispatch order.
    pub ready: BTreeMap<Arc<str>, Vec<ReadyStep>>,
}

impl LaneConnection {
    /// Reads what `load` asks for, in one snapshot. Where it asks for a lock, commits that are on their way are waited for
    /// first, so that the snapshot holds what became of them.
    pub async fn load(&mut self, load: &Load) -> Result<LoadedRows, Error> {
        let locked: Vec<Uuid> = load.runs.iter().filter(|(_, lock)| **lock).map(|(run, _)| run.0).collect();
        if !locked.is_empty() {
            let statement = sqlx::query(LOCK).bind(&locked);
            self.line.rows(DOING, statement).await.map_err(|error| Error::new(DOING, &error))?;
        }
        let runs: Vec<Uuid> = load.runs.keys().map(|run| run.0).collect();
        let ready: Vec<(&str, Head)> = load.ready.iter().map(|(queue, head)| (&**queue, *head)).collect();
        let rows = self.line.rows(DOING, bind(&runs, &ready, false)).await;
        let loaded = rows.and_then(|rows| assemble(&rows)).map_err(|error| Error::new(DOING, &error))?;
        Ok(LoadedRows { runs: loaded.0, ready: loaded.1 })
    }
}

/// `load.sql` for these runs and heads of queues.
pub(crate) fn bind<'q>(
    runs: &'q [Uuid],
    ready: &'q [(&'q str, Head)],
    progress: bool,
) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(LOAD)
        .bind(runs)
        .column(ready, |(queue, _)| *queue)
        .column(ready, |(_, head)| i64::try_from(head.count).unwrap_or(i64::MAX))
        .bind(progress)
        .column(ready, |(_, head)| head.from.priority.0)
        .column(ready, |(_, head)| Stamp(head.from.since))
}
