//! A granted lease as its executor sees it.

use std::collections::HashMap;

use longtake_engine::lane::{Grant, Standing};
use longtake_engine::time::{Duration, Timestamp};
use longtake_proto::v1 as pb;

use super::parts;

/// The lease, with durations counted from `now`.
pub fn step_lease(grant: &Grant, now: Timestamp) -> pb::StepLease {
    let definition = grant.definition();
    let run = &grant.run;
    let left = |deadline: Timestamp| parts::span(deadline.since(now));
    pb::StepLease {
        lease_token: grant.token.to_string(),
        run_id: grant.token.run.to_string(),
        workflow: grant.workflow.name.clone(),
        workflow_version: grant.workflow.version.to_string(),
        step: definition.name.clone(),
        queue: definition.queue.clone(),
        attempt: parts::number(grant.token.attempt),
        input: Some(parts::object(&run.request.input)),
        needs: needs(grant),
        checkpoint: run.checkpoint.as_ref().map(|checkpoint| parts::checkpoint(checkpoint, true)),
        heartbeat_timeout: Some(parts::span(definition.heartbeat_timeout)),
        progress_timeout: definition.progress_timeout.map(parts::span),
        attempt_remaining: run.attempt_deadline.map(left),
        deadline_remaining: run.earliest_deadline.map(left),
        effect_key: run.effect_key.clone(),
        trace_context: parts::map(&run.request.trace),
        previous_end: run.previous.as_ref().map(|end| pb::AttemptEnd {
            cause: parts::cause(end.cause).into(),
            message: end.error.as_ref().map(|error| error.message.clone()).unwrap_or_default(),
        }),
        tenant: run.request.tenant.clone(),
    }
}

fn needs(grant: &Grant) -> HashMap<String, pb::StepOutput> {
    let needs = grant.run.needs.iter().map(|(step, output)| {
        let name = grant.workflow.steps[*step].name.clone();
        let made = match output {
            Some(output) => pb::StepOutput {
                state: pb::step::State::Succeeded.into(),
                output: Some(parts::object(&output.data)),
                artifacts: parts::artifacts(&output.artifacts),
            },
            None => pb::StepOutput { state: pb::step::State::Skipped.into(), ..pb::StepOutput::default() },
        };
        (name, made)
    });
    needs.collect()
}

/// What is left of a session, and when to heartbeat; both from when the call was received, `held` ago. Nothing when it has ended.
pub(crate) fn session(
    standing: Option<Standing>,
    held: std::time::Duration,
) -> (Option<prost_types::Duration>, Option<prost_types::Duration>) {
    match standing {
        Some(Standing::Lives { remaining, delay }) => {
            let committed =
                (remaining > Duration::ZERO).then(|| parts::span(remaining + Duration::from_std(held)));
            (committed, Some(parts::span(delay)))
        }
        Some(Standing::Ended) | None => (None, None),
    }
}
