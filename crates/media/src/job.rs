//! What a step is given and what it gives back: the seam between the content steps and whatever runs them.

use std::collections::BTreeMap;
use std::future::Future;

use serde_json::{Map, Value};

use crate::error::MediaError;
use crate::{Artifact, Need};

/// The work of one attempt.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The run.
    pub run_id: String,
    /// The step's name in its workflow: the folder of its artifacts.
    pub step: String,
    /// The run's input.
    pub input: Value,
    /// What the needed steps made, by their names.
    pub needs: BTreeMap<String, Need>,
    /// The last committed checkpoint, of an earlier attempt.
    pub checkpoint: Option<Saved>,
}

/// A checkpoint: what the next attempt needs to carry on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// Scenes done.
    pub done: u64,
    /// Scenes in all.
    pub total: u64,
    /// What belongs to the files.
    pub data: Value,
    /// The files that it stands on.
    pub artifacts: Vec<Artifact>,
}

/// How an attempt ended well.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The step is done.
    Finished(Finished),
    /// It was asked to give way: everything up to here is in the last checkpoint.
    Yielded,
}

/// What a finished step made.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// A JSON object for later steps and readers.
    pub output: Value,
    /// Its files.
    pub artifacts: Vec<Artifact>,
}

/// Where a step reports to while it works.
pub trait Reports: Sync {
    /// Stores a checkpoint; returns once it is committed.
    fn checkpoint(&self, saved: Saved) -> impl Future<Output = Result<(), MediaError>> + Send;
    /// Says how far the step is. Cheap, may be called often.
    fn progress(&self, done: u64, total: u64, message: &str);
    /// Whether the step should give way once what is under way is done.
    fn should_yield(&self) -> bool;
    /// Resolves once [`Reports::should_yield`] holds, for a step that waits for something else.
    fn yield_asked(&self) -> impl Future<Output = ()> + Send;
}

impl Job {
    /// The needed step whose output has this kind. Steps are found by what they made, so that a definition may name them freely.
    pub(crate) fn need(&self, kind: &'static str) -> Result<&Need, MediaError> {
        self.find(kind).ok_or(MediaError::NeedMissing { kind })
    }

    /// As [`Job::need`], for a step that may have been skipped.
    pub(crate) fn find(&self, kind: &str) -> Option<&Need> {
        self.needs.values().find(|need| need.output.as_ref().is_some_and(|output| is_of_kind(output, kind)))
    }
}

/// Whether an output is of this kind: `script`, `audio`, `video` or `final`.
pub(crate) fn is_of_kind(output: &Map<String, Value>, kind: &str) -> bool {
    output.get("kind").is_some_and(|found| found == kind)
}

/// The artifact of this name of a needed step.
pub(crate) fn artifact<'a>(
    need: &'a Need,
    kind: &'static str,
    name: &str,
) -> Result<&'a Artifact, MediaError> {
    let missing = || MediaError::NeedInvalid { kind, problem: format!("it has no artifact `{name}`") };
    need.artifact(name).ok_or_else(missing)
}
