//! Reading runs and their history.

use longtake_proto::v1::event::Kind;
use longtake_proto::v1::{Event, ReportRefused, Run, Step, attempt};

/// The step of this name.
///
/// # Panics
/// When the run has none.
pub fn step<'a>(run: &'a Run, name: &str) -> &'a Step {
    let found = run.steps.iter().find(|step| step.name == name);
    found.unwrap_or_else(|| panic!("run {} has no step {name}", run.run_id))
}

/// Why each attempt of a step ended; unspecified for a live one.
pub fn causes(step: &Step) -> Vec<attempt::Cause> {
    step.attempts.iter().map(longtake_proto::v1::Attempt::cause).collect()
}

/// What kind of event it is, by its name in the contract.
pub fn kind(event: &Event) -> &'static str {
    match &event.kind {
        None => "none",
        Some(Kind::RunCreated(_)) => "run_created",
        Some(Kind::RunPaused(_)) => "run_paused",
        Some(Kind::RunResumed(_)) => "run_resumed",
        Some(Kind::RunStopping(_)) => "run_stopping",
        Some(Kind::RunRetried(_)) => "run_retried",
        Some(Kind::DeadlineExtended(_)) => "deadline_extended",
        Some(Kind::RunEnded(_)) => "run_ended",
        Some(Kind::StepReady(_)) => "step_ready",
        Some(Kind::StepSkipped(_)) => "step_skipped",
        Some(Kind::StepLeased(_)) => "step_leased",
        Some(Kind::StepStarted(_)) => "step_started",
        Some(Kind::CheckpointCommitted(_)) => "checkpoint_committed",
        Some(Kind::StepSucceeded(_)) => "step_succeeded",
        Some(Kind::StepBackedOff(_)) => "step_backed_off",
        Some(Kind::StepReturned(_)) => "step_returned",
        Some(Kind::StepFailed(_)) => "step_failed",
        Some(Kind::StepTimedOut(_)) => "step_timed_out",
        Some(Kind::StepCancelled(_)) => "step_cancelled",
        Some(Kind::ReportRefused(_)) => "report_refused",
        Some(Kind::CostBooked(_)) => "cost_booked",
    }
}

/// What happened, in order.
pub fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(kind).collect()
}

/// The reports that were refused.
pub fn refused_reports(events: &[Event]) -> Vec<&ReportRefused> {
    let refused = events.iter().filter_map(|event| match &event.kind {
        Some(Kind::ReportRefused(refused)) => Some(refused),
        _ => None,
    });
    refused.collect()
}
