//! Events in words.

use longtake_proto::v1::attempt::Cause;
use longtake_proto::v1::event::Kind;
use longtake_proto::v1::{Money, ReportKind, StepError, run};

use crate::{format, output};

/// Why an attempt ended, in words.
pub(crate) fn cause(number: i32) -> &'static str {
    match Cause::try_from(number).unwrap_or_default() {
        Cause::Unspecified => "ended",
        Cause::Completed => "completed",
        Cause::Failed => "failed",
        Cause::Yielded => "given back",
        Cause::LeaseLost => "its executor was not heard of any more",
        Cause::DispatchTimeout => "its executor was never heard of",
        Cause::NoProgress => "it did not get on",
        Cause::AttemptTimeout => "it took too long",
        Cause::StepTimeout => "the step's time was up",
        Cause::Stopped => "the run was stopped",
    }
}

/// What an event is about: a step's name, or `run`.
pub(crate) fn subject(kind: &Kind) -> &str {
    match kind {
        Kind::RunCreated(_)
        | Kind::RunPaused(_)
        | Kind::RunResumed(_)
        | Kind::RunStopping(_)
        | Kind::RunRetried(_)
        | Kind::RunEnded(_) => "run",
        Kind::DeadlineExtended(event) if event.step.is_empty() => "run",
        Kind::DeadlineExtended(event) => &event.step,
        Kind::StepReady(event) => &event.step,
        Kind::StepSkipped(event) => &event.step,
        Kind::StepLeased(event) => &event.step,
        Kind::StepStarted(event) => &event.step,
        Kind::CheckpointCommitted(event) => &event.step,
        Kind::StepSucceeded(event) => &event.step,
        Kind::StepBackedOff(event) => &event.step,
        Kind::StepReturned(event) => &event.step,
        Kind::StepFailed(event) => &event.step,
        Kind::StepTimedOut(event) => &event.step,
        Kind::StepCancelled(event) => &event.step,
        Kind::ReportRefused(event) => &event.step,
        Kind::CostBooked(event) => &event.step,
    }
}

/// What happened, in one line.
pub(crate) fn sentence(kind: &Kind) -> String {
    let text = match kind {
        Kind::RunCreated(event) => {
            format!("accepted: {} with {} steps", event.workflow, event.step_count)
        }
        Kind::RunPaused(event) => with("paused", &event.reason),
        Kind::RunResumed(_) => "resumed".to_owned(),
        Kind::RunStopping(event) => {
            with(&format!("stopping, will be {}", run_state_word(event.outcome)), &event.reason)
        }
        Kind::RunRetried(_) => "taken up again".to_owned(),
        Kind::RunEnded(event) => with(run_state_word(event.state), &event.reason),
        Kind::DeadlineExtended(event) => {
            let deadline = event.deadline.as_ref().map(format::moment).unwrap_or_default();
            match (event.step.as_str(), event.attempt) {
                ("", _) | (_, 0) => format!("deadline is now {deadline}"),
                (_, attempt) => format!("deadline of attempt {attempt} is now {deadline}"),
            }
        }
        _ => step_sentence(kind),
    };
    output::printable(&text)
}

fn step_sentence(kind: &Kind) -> String {
    match kind {
        Kind::StepReady(_) => "ready".to_owned(),
        Kind::StepSkipped(_) => "skipped".to_owned(),
        Kind::StepLeased(event) => format!("attempt {} leased to {}", event.attempt, event.executor),
        Kind::StepStarted(event) => format!("attempt {} started", event.attempt),
        Kind::CheckpointCommitted(event) => {
            format!("checkpoint {}", super::step_line::units(event.done, event.total))
        }
        Kind::StepSucceeded(event) => paid("done".to_owned(), event.cost.as_ref()),
        Kind::StepBackedOff(event) => {
            let what = ended("ended", event.attempt, event.cause, event.error.as_ref());
            let until = event.until.as_ref().map(format::clock).unwrap_or_default();
            paid(format!("{what}; again at {until}"), event.cost.as_ref())
        }
        Kind::StepReturned(event) => {
            paid(ended("back", event.attempt, event.cause, event.error.as_ref()), event.cost.as_ref())
        }
        Kind::StepFailed(event) => paid(
            format!("FAILED: {}", ended("", event.attempt, event.cause, event.error.as_ref())),
            event.cost.as_ref(),
        ),
        Kind::StepTimedOut(event) => {
            with("TIMED_OUT", event.error.as_ref().map_or("", |error| error.message.as_str()))
        }
        Kind::StepCancelled(event) => paid("CANCELLED".to_owned(), event.cost.as_ref()),
        Kind::ReportRefused(event) => {
            let report = ReportKind::try_from(event.kind).unwrap_or_default().as_str_name();
            let report = report.strip_prefix("REPORT_KIND_").unwrap_or(report);
            format!("late {report} of attempt {} refused", event.attempt)
        }
        Kind::CostBooked(event) => {
            paid(format!("late cost of attempt {}", event.attempt), event.cost.as_ref())
        }
        // The rest is about runs.
        _ => String::new(),
    }
}

fn run_state_word(number: i32) -> &'static str {
    format::state(run::State::try_from(number).unwrap_or_default().as_str_name())
}

fn with(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}

fn paid(what: String, cost: Option<&Money>) -> String {
    match cost {
        Some(_) => format!("{what} ({})", format::money(cost)),
        None => what,
    }
}

fn ended(how: &str, attempt: i32, number: i32, error: Option<&StepError>) -> String {
    let message = error.map(|error| error.message.as_str()).filter(|message| !message.is_empty());
    let why = message.unwrap_or_else(|| cause(number));
    match (attempt, how) {
        (0, _) => why.to_owned(),
        (_, "") => format!("attempt {attempt}: {why}"),
        (_, _) => format!("attempt {attempt} {how}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use longtake_proto::v1;
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn events_are_told_in_one_line() {
        let step = || "video".to_owned();
        let error = |message: &str| Some(StepError { message: message.into(), ..Default::default() });
        let rows = [
            (
                Kind::RunCreated(v1::RunCreated {
                    workflow: "content".into(),
                    step_count: 4,
                    ..Default::default()
                }),
                "run: accepted: content with 4 steps",
            ),
            (
                Kind::StepLeased(v1::StepLeased {
                    step: step(),
                    attempt: 2,
                    executor: "video-1".into(),
                    ..Default::default()
                }),
                "video: attempt 2 leased to video-1",
            ),
            (
                Kind::CheckpointCommitted(v1::CheckpointCommitted {
                    step: step(),
                    done: 3,
                    total: 7,
                    ..Default::default()
                }),
                "video: checkpoint 3/7",
            ),
            (
                Kind::StepBackedOff(v1::StepBackedOff {
                    step: step(),
                    attempt: 1,
                    cause: Cause::LeaseLost.into(),
                    until: Some(Timestamp { seconds: 5, nanos: 0 }),
                    ..Default::default()
                }),
                "video: attempt 1 ended: its executor was not heard of any more; again at 00:00:05.000",
            ),
            (
                Kind::StepReturned(v1::StepReturned {
                    step: step(),
                    attempt: 1,
                    cause: Cause::Yielded.into(),
                    error: error("drain\nnow"),
                    ..Default::default()
                }),
                "video: attempt 1 back: drain now",
            ),
            (
                Kind::StepFailed(v1::StepFailed {
                    step: step(),
                    error: error("no such key"),
                    ..Default::default()
                }),
                "video: FAILED: no such key",
            ),
            (
                Kind::StepSucceeded(v1::StepSucceeded {
                    step: step(),
                    cost: Some(Money { nano_usd: 183_000_000 }),
                    ..Default::default()
                }),
                "video: done ($0.183)",
            ),
            (
                Kind::ReportRefused(v1::ReportRefused {
                    step: step(),
                    attempt: 1,
                    kind: ReportKind::Complete.into(),
                }),
                "video: late COMPLETE of attempt 1 refused",
            ),
            (
                Kind::RunEnded(v1::RunEnded {
                    state: run::State::TimedOut.into(),
                    reason: "the deadline passed".into(),
                    saved: None,
                }),
                "run: TIMED_OUT: the deadline passed",
            ),
        ];
        for (kind, text) in rows {
            assert_eq!(format!("{}: {}", subject(&kind), sentence(&kind)), text);
        }
    }
}
