//! A write as rows of parameters.

use std::collections::BTreeMap;

use longtake_engine::command::Timer;
use longtake_engine::ids::StepNo;
use longtake_engine::lane::work::{Fence, RunWrite, Write};
use longtake_engine::run::{Artifact, Checkpoint, NewRun};
use longtake_engine::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

/// What a batch is to the statement.
#[derive(Default)]
pub(super) struct Batch<'a> {
    pub new: Vec<(Hot<'a>, &'a NewRun)>,
    /// Ascending by number: the statement searches them.
    pub changed: Vec<(Hot<'a>, Expected)>,
    /// Steps of all runs in a row; each run knows which are its own.
    pub attempts: Vec<i32>,
    pub states: Vec<i16>,
    pub leases: Vec<Uuid>,
    pub labels: Vec<(i32, &'a str, &'a str)>,
    pub ready: Vec<Ready<'a>>,
    pub unready: Vec<(i64, i16)>,
    pub timers: Vec<(i64, TimerKey, Timestamp)>,
    pub no_timers: Vec<(i64, TimerKey)>,
    pub checkpoints: Vec<Stored<'a>>,
}

/// The hot row of a run, and what its commit adds to the history.
pub(super) struct Hot<'a> {
    pub write: &'a RunWrite,
    pub events: &'a [u8],
    pub at: Timestamp,
    /// Its part of the batch's steps, as Postgres counts: from 1, both ends included.
    pub steps: (i32, i32),
    pub leases: (i32, i32),
}

/// The fence of a change.
pub(super) struct Expected {
    pub no: i64,
    pub version: i64,
}

pub(super) struct Ready<'a> {
    pub run: i64,
    pub step: i16,
    pub queue: &'a str,
    pub priority: i32,
    pub since: Timestamp,
}

pub(super) struct Stored<'a> {
    pub run: i64,
    pub step: i16,
    pub checkpoint: &'a Checkpoint,
    pub data: String,
    pub artifacts: String,
}

/// A timer's kind and step, as stored.
pub(crate) type TimerKey = (i16, i16);

pub(super) fn timer_key(timer: Timer) -> TimerKey {
    match timer {
        Timer::Backoff(step) => (0, number(step)),
        Timer::StepDeadline(step) => (1, number(step)),
        Timer::RunDeadline => (2, -1),
        Timer::StopGrace => (3, -1),
    }
}

/// The timer that is stored as this; none for what a newer binary has stored.
pub(crate) fn timer((kind, step): TimerKey) -> Option<Timer> {
    let step = StepNo::try_from(step);
    match (kind, step) {
        (0, Ok(step)) => Some(Timer::Backoff(step)),
        (1, Ok(step)) => Some(Timer::StepDeadline(step)),
        (2, _) => Some(Timer::RunDeadline),
        (3, _) => Some(Timer::StopGrace),
        _ => None,
    }
}

/// A step as stored; a workflow has at most 64.
pub(crate) fn number(step: StepNo) -> i16 {
    i16::try_from(step).unwrap_or(i16::MAX)
}

/// An attempt as stored.
pub(crate) fn attempt(attempt: u32) -> i32 {
    i32::try_from(attempt).unwrap_or(i32::MAX)
}

impl<'a> Batch<'a> {
    /// The rows of `write`; `encoded` holds the events of each run.
    pub fn new(write: &'a Write, encoded: &'a [Vec<u8>]) -> Batch<'a> {
        let mut batch = Batch::default();
        for (run, events) in write.runs.iter().zip(encoded) {
            batch.add(run, events);
        }
        batch.changed.sort_unstable_by_key(|(_, expected)| expected.no);
        batch
    }

    /// Whether there is any row beside runs and history.
    pub fn has_rows_beside(&self) -> bool {
        let Batch { labels, ready, unready, timers, no_timers, checkpoints, .. } = self;
        !(labels.is_empty()
            && ready.is_empty()
            && unready.is_empty()
            && timers.is_empty()
            && no_timers.is_empty()
            && checkpoints.is_empty())
    }

    fn add(&mut self, write: &'a RunWrite, events: &'a [u8]) {
        let first_step = end(&self.states) + 1;
        self.states.extend(&write.row.steps);
        self.attempts.extend(&write.row.attempts);
        let first_lease = end(&self.leases) + 1;
        self.leases.extend(write.row.sessions.iter().flatten().map(|session| session.0));
        let hot = Hot {
            write,
            events,
            at: write.events.last().map_or_else(Timestamp::default, |event| event.at),
            steps: (first_step, end(&self.states)),
            leases: (first_lease, end(&self.leases)),
        };
        let run = match &write.fence {
            Fence::Absent(request) => {
                self.new.push((hot, request));
                let run = -end(&self.new);
                self.labels
                    .extend(request.labels.iter().map(|(key, value)| (run, key.as_str(), value.as_str())));
                i64::from(run)
            }
            Fence::Version { no, version } => {
                self.changed.push((hot, Expected { no: no.0, version: *version }));
                no.0
            }
        };
        self.add_rows(run, write);
    }

    fn add_rows(&mut self, run: i64, write: &'a RunWrite) {
        let changes = &write.changes;
        let ready: BTreeMap<StepNo, Timestamp> = changes.ready.iter().copied().collect();
        self.ready.extend(ready.iter().map(|(step, since)| {
            let queue = write.workflow.steps[*step].queue.as_str();
            Ready { run, step: number(*step), queue, priority: write.priority, since: *since }
        }));
        // A row whose time changed is overwritten: deleting and inserting it in one statement would be a race with itself.
        let gone = changes.unready.iter().filter(|step| !ready.contains_key(step));
        self.unready.extend(gone.map(|step| (run, number(*step))));
        self.timers.extend(changes.set.iter().map(|(timer, due)| (run, timer_key(*timer), *due)));
        self.no_timers.extend(changes.unset.iter().map(|timer| (run, timer_key(*timer))));
        self.checkpoints.extend(write.checkpoints.iter().map(|(step, checkpoint)| Stored {
            run,
            step: number(*step),
            checkpoint,
            data: checkpoint.data.data.to_string(),
            artifacts: artifacts(&checkpoint.data.artifacts).to_string(),
        }));
    }
}

fn end<T>(list: &[T]) -> i32 {
    i32::try_from(list.len()).unwrap_or(i32::MAX)
}

fn artifacts(artifacts: &[Artifact]) -> Value {
    let artifact = |artifact: &Artifact| {
        json!({
            "name": artifact.name,
            "uri": artifact.uri,
            "sha256": artifact.sha256,
            "size_bytes": artifact.size_bytes,
            "media_type": artifact.media_type,
        })
    };
    artifacts.iter().map(artifact).collect()
}
