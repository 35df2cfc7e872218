//! What a step is given: its lease, in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::Instant;

use longtake_proto::convert::{json_from_struct, std_from_duration, struct_from_map};
use longtake_proto::v1;

use crate::config::{CALL_BYTES, DATA_BYTES, MESSAGE_CHARS};
use crate::lease::{Lease, Pacing};
use crate::step::object;
use crate::{Artifact, Directive, Need, Previous, StepError};

/// Everything that an attempt needs. Cheap to clone; clones may go to other tasks and threads.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    lease: Arc<Lease>,
    pacing: Pacing,
    run_id: String,
    workflow: String,
    workflow_version: String,
    step: String,
    attempt: i32,
    input: Map<String, Value>,
    needs: BTreeMap<String, Need>,
    previous: Option<Previous<Map<String, Value>>>,
    previous_end: Option<String>,
    effect_key: String,
    trace_context: BTreeMap<String, String>,
    deadline: Option<Instant>,
}

impl Context {
    pub(crate) fn new(lease: Arc<Lease>, granted: v1::StepLease, pacing: Pacing) -> Context {
        let remaining = granted.deadline_remaining.as_ref().and_then(std_from_duration);
        let inner = Inner {
            lease,
            pacing,
            run_id: granted.run_id,
            workflow: granted.workflow,
            workflow_version: granted.workflow_version,
            step: granted.step,
            attempt: granted.attempt,
            input: granted.input.map(json_from_struct).unwrap_or_default(),
            needs: granted.needs.into_iter().map(|(name, output)| (name, Need::from(output))).collect(),
            previous: granted.checkpoint.and_then(previous),
            previous_end: granted.previous_end.map(|end| in_words(&end)),
            effect_key: granted.effect_key,
            trace_context: granted.trace_context.into_iter().collect(),
            deadline: remaining.and_then(|span| Instant::now().checked_add(span)),
        };
        Context { inner: Arc::new(inner) }
    }

    /// The run.
    pub fn run_id(&self) -> &str {
        &self.inner.run_id
    }

    /// The workflow's name.
    pub fn workflow(&self) -> &str {
        &self.inner.workflow
    }

    /// The workflow's version: 64 hexadecimal digits.
    pub fn workflow_version(&self) -> &str {
        &self.inner.workflow_version
    }

    /// The step's name.
    pub fn step(&self) -> &str {
        &self.inner.step
    }

    /// The attempt's number, from 1.
    pub fn attempt(&self) -> i32 {
        self.inner.attempt
    }

    /// The same for every attempt of this step: hand it to systems that recognise repetitions, so that nothing is paid twice.
    pub fn effect_key(&self) -> &str {
        &self.inner.effect_key
    }

    /// W3C trace context (`traceparent`, `tracestate`) for what the step starts.
    pub fn trace_context(&self) -> &BTreeMap<String, String> {
        &self.inner.trace_context
    }

    /// Until when the attempt makes sense: the earliest of its deadlines, as of its start.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.inner.deadline.map(Instant::into_std)
    }

    /// The run's input as `T`; the permanent failure INPUT_INVALID when it is none.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        serde_json::from_value(Value::Object(self.inner.input.clone()))
            .map_err(|error| StepError::permanent("INPUT_INVALID", format!("the run's input: {error}")))
    }

    /// The run's input as it is.
    pub fn input_json(&self) -> &Map<String, Value> {
        &self.inner.input
    }

    /// What the needed steps made, by name.
    pub fn needs(&self) -> &BTreeMap<String, Need> {
        &self.inner.needs
    }

    /// What the step `name` made; the permanent failure NEED_MISSING when the workflow does not need it.
    pub fn need(&self, name: &str) -> Result<&Need, StepError> {
        let missing =
            || StepError::permanent("NEED_MISSING", format!("step {:?} does not need {name:?}", self.step()));
        self.inner.needs.get(name).ok_or_else(missing)
    }

    /// The committed checkpoint to carry on from, its data as `T`; the permanent failure CHECKPOINT_UNREADABLE when it is none.
    pub fn previous_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<Previous<T>>, StepError> {
        let Some(previous) = self.inner.previous.clone() else { return Ok(None) };
        let data = serde_json::from_value(Value::Object(previous.data)).map_err(|error| {
            let made = format!("{} of attempt {}", previous.sequence, previous.attempt);
            StepError::permanent("CHECKPOINT_UNREADABLE", format!("checkpoint {made}: {error}"))
        })?;
        Ok(Some(Previous {
            data,
            artifacts: previous.artifacts,
            done: previous.done,
            total: previous.total,
            attempt: previous.attempt,
            sequence: previous.sequence,
        }))
    }

    /// How the attempt before this one ended, in words; none for the first.
    pub fn previous_end(&self) -> Option<&str> {
        self.inner.previous_end.as_deref()
    }

    /// Stores what the next attempt would need, and resolves when the server has acknowledged it: work before it is then never repeated.
    ///
    /// `data` is anything that serialises to a JSON object of at most 64 KiB; `done` of `total` units of work are in it (`total` is 0 when
    /// nobody knows). Through an outage it waits. The failure CHECKPOINT_INVALID is permanent: the server has refused it.
    pub async fn checkpoint(
        &self,
        data: impl Serialize,
        artifacts: Vec<Artifact>,
        done: i64,
        total: i64,
    ) -> Result<(), StepError> {
        let sequence = self.checkpoint_later(data, artifacts, done, total)?;
        let mut committed = self.inner.lease.committed();
        let settled = committed.wait_for(|it| it.sequence >= sequence || it.refused >= sequence).await;
        // The sender lives in the lease that `self` holds.
        let Ok(settled) = settled.map(|it| it.clone()) else { return std::future::pending().await };
        if settled.sequence >= sequence {
            return Ok(());
        }
        Err(StepError::permanent("CHECKPOINT_INVALID", settled.refusal))
    }

    /// [`Context::checkpoint`] without waiting, also for threads: returns its sequence number. A newer one replaces one that is not sent
    /// yet.
    pub fn checkpoint_later(
        &self,
        data: impl Serialize,
        artifacts: Vec<Artifact>,
        done: i64,
        total: i64,
    ) -> Result<i64, StepError> {
        let invalid = |why: String| StepError::permanent("CHECKPOINT_INVALID", why);
        let data = object(data).map_err(invalid)?;
        let size = serde_json::to_string(&data).map_or(0, |text| text.len());
        if size > DATA_BYTES {
            return Err(invalid(format!("its data has {size} bytes as JSON; {DATA_BYTES} are allowed")));
        }
        let artifacts = artifacts.into_iter().map(v1::Artifact::from).collect();
        let data = Some(struct_from_map(&data));
        let checkpoint = v1::Checkpoint { sequence: 0, done, total, data, artifacts };
        let size = checkpoint.encoded_len();
        if size > CALL_BYTES / 2 {
            return Err(invalid(format!("it has {size} bytes with its artifacts; no call could carry it")));
        }
        Ok(self.inner.lease.put_checkpoint(checkpoint))
    }

    /// Says how far the attempt is: `done` of `total` units (0 when nobody knows). Sent about once a second; what must survive belongs into a
    /// checkpoint.
    pub fn progress(&self, done: i64, total: i64) {
        self.progress_with(done, total, "");
    }

    /// [`Context::progress`] with a few words on what it is doing; cut after 200 characters.
    pub fn progress_with(&self, done: i64, total: i64, message: &str) {
        let message = message.chars().filter(|char| *char != '\0').take(MESSAGE_CHARS).collect();
        self.inner.lease.put_progress(v1::Progress { done, total, message }, self.inner.pacing);
    }

    /// What the executor is asked to do with this step, if anything.
    pub fn directive(&self) -> Option<Directive> {
        *self.inner.lease.directive().borrow()
    }

    /// Resolves when there is a directive.
    pub async fn directed(&self) -> Directive {
        let mut directive = self.inner.lease.directive();
        match directive.wait_for(Option::is_some).await.map(|found| *found) {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// For loops: the yield to return when there is a directive. Call it after a checkpoint.
    pub fn yield_if_asked(&self) -> Result<(), StepError> {
        match self.directive() {
            None => Ok(()),
            Some(Directive::Yield) => Err(StepError::yielded("the executor was asked to give the step back")),
            Some(Directive::Pause) => Err(StepError::yielded("the run is paused")),
            Some(Directive::Cancel) => Err(StepError::yielded("the run is stopping")),
        }
    }

    /// Resolves when nobody wants the work any more. Steps need not look, since their future is dropped; what they started elsewhere should.
    pub async fn stopped(&self) {
        self.inner.lease.closed().cancelled().await;
    }

    /// Whether nobody wants the work any more: for threads.
    pub fn is_stopped(&self) -> bool {
        self.inner.lease.closed().is_cancelled()
    }
}

fn previous(stored: v1::StoredCheckpoint) -> Option<Previous<Map<String, Value>>> {
    let checkpoint = stored.checkpoint?;
    Some(Previous {
        data: checkpoint.data.map(json_from_struct).unwrap_or_default(),
        artifacts: checkpoint.artifacts.into_iter().map(Artifact::from).collect(),
        done: checkpoint.done,
        total: checkpoint.total,
        attempt: stored.attempt,
        sequence: checkpoint.sequence,
    })
}

fn in_words(end: &v1::AttemptEnd) -> String {
    let cause = end.cause().as_str_name().trim_start_matches("CAUSE_");
    if end.message.is_empty() { cause.to_owned() } else { format!("{cause}: {}", end.message) }
}
