//! What a lane knows that is not state: who was heard of when, and who waits. For explanations to people.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{RunId, StepNo};
use crate::time::Timestamp;

use super::Lane;

/// What is known of a run's leases and of its queues, by this replica.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// When the executors that hold the run's steps last called.
    pub heard: BTreeMap<StepNo, Timestamp>,
    /// How many units of work they said are done.
    pub done: BTreeMap<StepNo, i64>,
    /// How many polls wait on each queue that was asked about.
    pub waiting: BTreeMap<Arc<str>, usize>,
}

impl Lane {
    /// Looks, and changes nothing.
    pub fn inspect(&self, run: RunId, queues: &[Arc<str>]) -> Inspection {
        let (heard, done) = self.sessions.inspect(run);
        let waiting = queues.iter().map(|queue| (queue.clone(), self.dispatch.waiting(queue))).collect();
        Inspection { heard, done, waiting }
    }
}
