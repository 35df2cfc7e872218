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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::command::Command;
    use crate::decide::apply;
    use crate::run::NewRun;
    use crate::time::Timestamp;

    use super::*;

    /// A run with a text of so many bytes as its input.
    fn cached(number: u8, bytes: usize) -> (RunId, Cached) {
        let id = RunId(uuid::Uuid::from_bytes([number; 16]));
        let source = b"format = 1\nname = \"only\"\n[[step]]\nname = \"one\"\n";
        let workflow = Arc::new(Workflow::parse(source).expect("it parses"));
        let request = NewRun {
            id,
            tenant: String::new(),
            version: workflow.version,
            input: Arc::new(Value::from("x".repeat(bytes))),
            requested: Vec::new(),
            labels: BTreeMap::new(),
            priority: 0,
            deadline: None,
            content_hash: [0; 32],
            trace: BTreeMap::new(),
            when: BTreeMap::new(),
        };
        let mut run = None;
        apply(&workflow, id, &mut run, &Command::Create(Arc::new(request)), Timestamp(0));
        (id, Cached { no: RunNo(0), run: run.expect("it was made"), workflow, fresh: 0 })
    }

    /// Puts runs of these sizes in, trims, and says which are left.
    fn left(mut cache: Cache, sizes: &[usize]) -> Vec<usize> {
        let runs: Vec<_> = (0..).zip(sizes).map(|(number, bytes)| cached(number, *bytes)).collect();
        let ids: Vec<RunId> = runs.iter().map(|(id, _)| *id).collect();
        runs.into_iter().for_each(|(id, cached)| cache.put(id, cached));
        cache.trim();
        assert_eq!(cache.runs.len(), ids.iter().filter(|id| cache.holds(**id)).count());
        assert_eq!(cache.bytes, cache.runs.values().map(|(cached, ..)| weight(&cached.run)).sum::<usize>());
        (0..ids.len()).filter(|number| cache.holds(ids[*number])).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        assert_eq!(left(Cache::new(2, usize::MAX), &[0, 0, 0]), [1, 2]);
        assert_eq!(
            left(Cache::new(9, 30_000), &[0, 20_000, 0, 20_000]),
            [2, 3],
            "two of them are too many bytes"
        );
        assert_eq!(left(Cache::new(9, 100_000), &[20_000; 4]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_run_that_is_put_again_counts_once_and_as_new() {
        let mut cache = Cache::new(2, usize::MAX);
        for number in [0, 1, 0, 2] {
            let (id, cached) = cached(number, 0);
            cache.put(id, cached);
        }
        cache.trim();
        let holds = [0, 1, 2].map(|number| cache.holds(cached(number, 0).0));
        assert_eq!((holds, cache.len()), ([true, false, true], 2));
    }
}
