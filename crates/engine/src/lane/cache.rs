//! Runs that were read or written lately. Their version is the fence, so a stale entry costs a reload, never a wrong write.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::definition::Workflow;
use crate::ids::{RunId, RunNo};
use crate::run::Run;

/// A run in memory.
#[derive(Debug)]
pub(super) struct Cached {
    pub no: RunNo,
    pub run: Run,
    pub workflow: Arc<Workflow>,
    /// The number of the work that read or wrote it ([`super::Lane::issued`]).
    pub fresh: u64,
}

/// Least recently used goes first; bounded by count and by bytes of payload.
#[derive(Debug, Default)]
pub(super) struct Cache {
    runs: HashMap<RunId, (Cached, u64, usize)>,
    order: VecDeque<(RunId, u64)>,
    uses: u64,
    bytes: usize,
    max_runs: usize,
    max_bytes: usize,
}

impl Cache {
    pub fn new(max_runs: usize, max_bytes: usize) -> Cache {
        Cache { max_runs, max_bytes, ..Cache::default() }
    }

    pub fn holds(&self, id: RunId) -> bool {
        self.runs.contains_key(&id)
    }

    pub fn get(&self, id: RunId) -> Option<&Cached> {
        self.runs.get(&id).map(|(cached, ..)| cached)
    }

    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Takes a run out: what a failed write leaves behind is never seen.
    pub fn take(&mut self, id: RunId) -> Option<Cached> {
        let (cached, _, weight) = self.runs.remove(&id)?;
        self.bytes -= weight;
        Some(cached)
    }

    pub fn put(&mut self, id: RunId, cached: Cached) {
        self.take(id);
        self.uses += 1;
        let weight = weight(&cached.run);
        self.bytes += weight;
        self.order.push_back((id, self.uses));
        self.runs.insert(id, (cached, self.uses, weight));
    }

    /// Forgets what is over the bounds. Called between batches, so that what was read for a batch is there for it.
    pub fn trim(&mut self) {
        while self.runs.len() > self.max_runs
            || self.bytes > self.max_bytes
            || self.order.len() > 4 * self.max_runs
        {
            let Some((oldest, used)) = self.order.pop_front() else { return };
            if self.runs.get(&oldest).is_some_and(|(_, last, _)| *last == used) {
                self.take(oldest);
            }
        }
    }
}

/// Roughly how many bytes a run takes in memory.
fn weight(run: &Run) -> usize {
    let outputs = run.steps.iter().filter_map(|step| step.output.as_ref()).map(|output| size(&output.data));
    let checkpoints = run.steps.iter().filter_map(|step| step.checkpoint.as_ref());
    let attempts: usize = run.steps.iter().map(|step| step.attempts.len() * 256).sum();
    1024 + size(&run.request.input)
        + outputs.sum::<usize>()
        + checkpoints.map(|checkpoint| size(&checkpoint.data.data)).sum::<usize>()
        + attempts
}

/// Roughly how many bytes a value takes in memory.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 16,
        Value::String(text) => 24 + text.len(),
        Value::Array(items) => 24 + items.iter().map(size).sum::<usize>(),
        Value::Object(fields) => {
            24 + fields.iter().map(|(key, value)| 48 + key.len() + size(value)).sum::<usize>()
        }
    }
}
