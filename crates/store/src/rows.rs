//! Runs as they are stored: what `load.sql` returns, put together. Whoever reads them decodes and folds the history.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::definition::Version;
use longtake_engine::ids::{RunId, RunNo, SessionId, StepNo};
use longtake_engine::lane::work::{HotRow, Place, ReadyStep};
use longtake_engine::run::{Outcome, RunState};
use longtake_engine::time::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::stamp::Stamp;

/// A run as it is stored.
#[derive(Debug, Clone)]
pub struct RunRows {
    /// Its key.
    pub no: RunNo,
    /// Its name.
    pub id: RunId,
    /// The version of the workflow that drives it.
    pub workflow: Version,
    /// Where it stands: what its history folds to.
    pub row: HotRow,
    /// Its history: the encoded events of each commit, in order.
    pub history: Vec<Vec<u8>>,
    /// The newest checkpoint of each step that has one.
    pub checkpoints: Vec<CheckpointRow>,
    /// What running steps last said of their progress; not read by lanes.
    pub progress: Vec<ProgressRow>,
}

/// A stored checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointRow {
    /// The step.
    pub step: StepNo,
    /// The attempt that made it.
    pub attempt: u32,
    /// Its number within that attempt.
    pub sequence: i64,
    /// How many units of work it holds.
    pub done: i64,
    /// How many there are in all; 0 when nobody knows.
    pub total: i64,
    /// When it was committed.
    pub at: Timestamp,
    /// A JSON value.
    pub data: String,
    /// A JSON list of objects with `name`, `uri`, `sha256`, `size_bytes` and `media_type`.
    pub artifacts: String,
}

/// What a step last said of its progress.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressRow {
    /// The step.
    pub step: StepNo,
    /// The attempt that said it.
    pub attempt: u32,
    /// Units of work done.
    pub done: i64,
    /// Units in all; 0 when nobody knows.
    pub total: i64,
    /// For people.
    pub message: String,
    /// When it was stored.
    pub at: Timestamp,
}

/// Ready steps by queue, in dispatch order.
pub(crate) type Heads = BTreeMap<Arc<str>, Vec<ReadyStep>>;

/// Puts the rows of `load.sql` together.
pub(crate) fn assemble(rows: &[PgRow]) -> Result<(Vec<RunRows>, Heads), sqlx::Error> {
    let mut runs: BTreeMap<i64, RunRows> = BTreeMap::new();
    for row in rows.iter().filter(|row| matches!(row.try_get(0), Ok(0))) {
        let run = run(row)?;
        runs.insert(run.no.0, run);
    }
    let mut history: Vec<(i64, i64, Vec<u8>)> = Vec::new();
    let mut heads: BTreeMap<Arc<str>, Vec<(i64, ReadyStep)>> = BTreeMap::new();
    for row in rows {
        let (kind, no): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        match (kind, runs.get_mut(&no)) {
            (1, _) => history.push((no, row.try_get("number")?, row.try_get("bytes")?)),
            (2, Some(run)) => run.checkpoints.push(checkpoint(row)?),
            (3, Some(run)) => run.progress.push(progress(row)?),
            (4, _) => {
                let queue: &str = row.try_get("text")?;
                let head = (row.try_get("number")?, ready(row)?);
                heads.entry(queue.into()).or_default().push(head);
            }
            _ => {}
        }
    }
    history.sort_unstable_by_key(|(no, first, _)| (*no, *first));
    for (no, _, events) in history {
        runs.entry(no).and_modify(|run| run.history.push(events));
    }
    let heads = heads.into_iter().map(|(queue, mut heads)| {
        heads.sort_unstable_by_key(|(place, ..)| *place);
        (queue, heads.into_iter().map(|(_, head)| head).collect())
    });
    Ok((runs.into_values().collect(), heads.collect()))
}

fn run(row: &PgRow) -> Result<RunRows, sqlx::Error> {
    let steps: Vec<i16> = row.try_get("step_states")?;
    let sessions: Vec<Uuid> = row.try_get("lease_sessions")?;
    let mut sessions = sessions.into_iter().map(SessionId);
    let leased = steps.iter().map(|state| if matches!(state, 2 | 3) { sessions.next() } else { None });
    let sessions = leased.collect();
    let version: &[u8] = row.try_get("bytes")?;
    let version = version.try_into().map_err(|_| unreadable("a workflow's version"))?;
    Ok(RunRows {
        no: RunNo(row.try_get("run_no")?),
        id: RunId(row.try_get("run_id")?),
        workflow: Version::from_bytes(version),
        row: HotRow {
            version: row.try_get("number")?,
            state: state(row.try_get("text")?)?,
            ended_at: row.try_get::<Option<Stamp>, _>("at")?.map(|at| at.0),
            spent: row.try_get("spent")?,
            saved: row.try_get("saved")?,
            attempts: row.try_get("attempts")?,
            steps,
            sessions,
        },
        history: Vec::new(),
        checkpoints: Vec::new(),
        progress: Vec::new(),
    })
}

/// The engine's name for a stored state.
fn state(text: &str) -> Result<&'static str, sqlx::Error> {
    let outcomes = [Outcome::Succeeded, Outcome::Failed, Outcome::TimedOut, Outcome::Cancelled];
    let known = outcomes.into_iter().map(RunState::Ended).chain([
        RunState::Running,
        RunState::Paused,
        RunState::Stopping(Outcome::Cancelled),
    ]);
    known.map(RunState::as_str).find(|name| *name == text).ok_or_else(|| unreadable("a run's state"))
}

fn checkpoint(row: &PgRow) -> Result<CheckpointRow, sqlx::Error> {
    Ok(CheckpointRow {
        step: step(row)?,
        attempt: attempt(row)?,
        sequence: row.try_get("number")?,
        done: row.try_get("done")?,
        total: row.try_get("total")?,
        at: row.try_get::<Stamp, _>("at")?.0,
        data: row.try_get("text")?,
        artifacts: row.try_get("more")?,
    })
}

fn progress(row: &PgRow) -> Result<ProgressRow, sqlx::Error> {
    Ok(ProgressRow {
        step: step(row)?,
        attempt: attempt(row)?,
        done: row.try_get("done")?,
        total: row.try_get("total")?,
        message: row.try_get("text")?,
        at: row.try_get::<Stamp, _>("at")?.0,
    })
}

fn ready(row: &PgRow) -> Result<ReadyStep, sqlx::Error> {
    let place = Place::new(row.try_get("attempt")?, row.try_get::<Stamp, _>("at")?.0);
    Ok(ReadyStep { run: RunId(row.try_get("run_id")?), step: step(row)?, place })
}

fn step(row: &PgRow) -> Result<StepNo, sqlx::Error> {
    StepNo::try_from(row.try_get::<i16, _>("step")?).map_err(|_| unreadable("a step"))
}

fn attempt(row: &PgRow) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i32, _>("attempt")?).map_err(|_| unreadable("an attempt"))
}

/// A row holds what this binary does not know.
pub(crate) fn unreadable(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what} is stored in a form that this binary does not know").into())
}
