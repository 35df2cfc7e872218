//! Rows into runs, and decisions into bytes: where the engine's types meet what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::definition::Workflow;
use longtake_engine::ids::{RunId, StepNo};
use longtake_engine::lane::work::{Loaded, Stored, Write};
use longtake_engine::run::{Artifact, CheckpointData, Run};
use longtake_proto::v1 as pb;
use longtake_store::{CheckpointRow, LoadedRows, Reads, RunRows};
use serde_json::Value;

use crate::codec::{self, DecodeError};
use crate::errors::Refused;
use crate::workflows::{Workflows, WorkflowsError};

/// What is stored cannot be turned into runs.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] longtake_store::Error),
    /// A definition is missing or does not parse.
    #[error(transparent)]
    Workflows(#[from] WorkflowsError),
    /// An event does not decode.
    #[error("run {run}: {error}")]
    Event {
        /// Whose.
        run: RunId,
        /// Why.
        error: DecodeError,
    },
    /// No definition of this version is stored.
    #[error("run {0} belongs to a workflow version that is not stored")]
    VersionMissing(RunId),
    /// The rows do not make a run.
    #[error("run {0} has no history")]
    HistoryMissing(RunId),
}

/// A run as readers see it.
#[derive(Debug)]
pub struct ReadRun {
    /// Its definition.
    pub workflow: Arc<Workflow>,
    /// Its state.
    pub run: Run,
    /// What running steps last said of their progress.
    pub progress: BTreeMap<StepNo, pb::Progress>,
}

/// What the lane's read returned, as the lane takes it.
pub async fn decode_loaded(
    rows: Result<LoadedRows, longtake_store::Error>,
    workflows: &Workflows,
) -> Result<Loaded, StoredError> {
    let LoadedRows { runs, ready } = rows?;
    let mut loaded = Loaded { runs: Vec::with_capacity(runs.len()), ready };
    for rows in runs {
        let no = rows.no;
        let (workflow, run) = decode_run(rows, workflows).await?;
        loaded.runs.push(Stored { no, run, workflow });
    }
    Ok(loaded)
}

/// The bytes of each run's new events, in the order of the write.
pub fn encode(write: &Write) -> Vec<Vec<u8>> {
    let runs = write.runs.iter();
    runs.map(|run| codec::encode_events(&run.workflow, &run.row.attempts, &run.events)).collect()
}

/// Folds a stored run. Data of checkpoints is attached where it belongs to the checkpoint that the history names.
async fn decode_run(rows: RunRows, workflows: &Workflows) -> Result<(Arc<Workflow>, Run), StoredError> {
    let id = rows.id;
    let damaged = |error| StoredError::Event { run: id, error };
    let mut events = Vec::new();
    for bytes in &rows.history {
        events.extend(codec::decode_events(bytes).map_err(damaged)?);
    }
    let version =
        codec::fold::version_of(events.first().ok_or(StoredError::HistoryMissing(id))?).map_err(damaged)?;
    let workflow = workflows.version(version).await?.ok_or(StoredError::VersionMissing(id))?;
    let mut run = None;
    for event in events {
        let event = codec::fold::event(&workflow, event).map_err(damaged)?;
        run = longtake_engine::evolve(run, &event);
    }
    let mut run = run.ok_or(StoredError::HistoryMissing(id))?;
    for row in rows.checkpoints {
        attach(&mut run, &row);
    }
    Ok((workflow, run))
}

fn attach(run: &mut Run, row: &CheckpointRow) {
    let checkpoint = run.steps.get_mut(row.step).and_then(|step| step.checkpoint.as_mut());
    if let Some(checkpoint) = checkpoint
        .filter(|checkpoint| (checkpoint.attempt, checkpoint.sequence) == (row.attempt, row.sequence))
    {
        let data = serde_json::from_str(&row.data).unwrap_or(Value::Null);
        checkpoint.data = Arc::new(CheckpointData { data, artifacts: artifacts_from_json(&row.artifacts) });
    }
}

fn artifacts_from_json(text: &str) -> Vec<Artifact> {
    let stored: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let artifacts = stored.iter().map(|value| Artifact {
        name: text(value, "name"),
        uri: text(value, "uri"),
        sha256: text(value, "sha256"),
        size_bytes: value["size_bytes"].as_i64().unwrap_or_default(),
        media_type: text(value, "media_type"),
    });
    artifacts.collect()
}

/// Reads runs past the lane. Those that do not exist are left out.
pub async fn read_runs(reads: &Reads, workflows: &Workflows, ids: &[RunId]) -> Result<Vec<ReadRun>, Refused> {
    let mut found = Vec::new();
    for mut rows in reads.runs(ids).await? {
        let progress = std::mem::take(&mut rows.progress);
        let (workflow, run) = decode_run(rows, workflows).await?;
        // What an earlier attempt said of itself is over.
        let current = progress
            .into_iter()
            .filter(|row| run.steps.get(row.step).is_some_and(|s| s.attempt() == row.attempt));
        let progress = current
            .map(|row| (row.step, pb::Progress { done: row.done, total: row.total, message: row.message }))
            .collect();
        found.push(ReadRun { workflow, run, progress });
    }
    Ok(found)
}

/// A run's events after a number, at most so many; none when there is no such run.
pub async fn read_events(
    reads: &Reads,
    id: RunId,
    after: i64,
    limit: usize,
) -> Result<Option<Vec<pb::Event>>, Refused> {
    let Some(rows) = reads.events(id, after, limit).await? else { return Ok(None) };
    let mut events = Vec::new();
    for bytes in rows {
        events.extend(codec::decode_events(&bytes)?);
    }
    // Rows hold whole commits: the first may begin before, the last may end behind.
    events.retain(|event| event.number > after);
    events.truncate(limit);
    Ok(Some(events))
}

impl From<StoredError> for Refused {
    fn from(error: StoredError) -> Refused {
        match error {
            StoredError::Store(error) => error.into(),
            StoredError::Workflows(error) => error.into(),
            StoredError::Event { error, .. } => error.into(),
            StoredError::VersionMissing(_) | StoredError::HistoryMissing(_) => {
                tracing::error!(%error, "a stored run cannot be read");
                Refused::new(pb::Reason::Internal, error.to_string())
            }
        }
    }
}
