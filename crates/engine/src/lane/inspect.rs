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
    /// How many other replicas were present when that was last looked at.
    pub others: usize,
}

/// How much a lane holds: all of it is bounded, and nearly all of it is nothing when nobody asks for anything.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Commands that wait to be decided.
    pub commands: usize,
    /// Calls that are not answered.
    pub calls: usize,
    /// Polls that wait for steps.
    pub polls: usize,
    /// Runs in memory.
    pub runs: usize,
    /// Sessions that are known.
    pub sessions: usize,
    /// Leases whose clocks are kept.
    pub leases: usize,
    /// Timers that are due soon.
    pub timers: usize,
}

impl Lane {
    /// Counts what is held.
    pub fn counts(&self) -> Counts {
        let (sessions, leases) = self.sessions.count();
        let waiting = self.flights.iter().map(|flight| flight.waiting.len());
        Counts {
            commands: self.reports.len() + self.submits.len() + waiting.sum::<usize>(),
            calls: self.calls.len(),
            polls: self.dispatch.count(),
            runs: self.cache.len(),
            sessions,
            leases,
            timers: self.timers.len(),
        }
    }

    /// Looks, and changes nothing.
    pub fn inspect(&self, run: RunId, queues: &[Arc<str>]) -> Inspection {
        let (heard, done) = self.sessions.inspect(run);
        let waiting = queues.iter().map(|queue| (queue.clone(), self.dispatch.waiting(queue))).collect();
        Inspection { heard, done, waiting, others: self.others }
    }
}
