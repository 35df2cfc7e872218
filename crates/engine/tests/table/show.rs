//! How events, answers and states are written in rows.
//!
//! Times are counted from the beginning of the row. A state shows only what is there:
//! `RUNNING spent $0.10 by 60s | a BACKING_OFF(1s)#2 $0.10 used 1/0/0 done 30 ckpt 1.2:30 by 30s | b PENDING`, where `used` counts
//! failures, losses and yields, `done` is the best one, and `ckpt` is attempt.sequence:done.

use longtake_engine::command::{Answer, Refusal, Timer};
use longtake_engine::definition::Workflow;
use longtake_engine::event::EventKind;
use longtake_engine::ids::StepNo;
use longtake_engine::money::Money;
use longtake_engine::rows::Rows;
use longtake_engine::run::{Cause, Directive, ReportKind, Run, RunState, Step, StepError, StepState, Used};
use longtake_engine::time::{Duration, Timestamp};

pub fn event(workflow: &Workflow, before: Option<&Run>, after: Option<&Run>, kind: &EventKind) -> String {
    let latest = |step: &StepNo| {
        let attempt = after.and_then(|run| run.steps.get(*step)).map_or(0, Step::attempt);
        format!("{}#{attempt}", name(workflow, *step))
    };
    // An attempt is named only if the event ended it.
    let ended = |step: &StepNo| {
        let live = before.and_then(|run| run.steps.get(*step)).is_some_and(|step| step.live().is_some());
        if live { latest(step) } else { name(workflow, *step) }
    };
    match kind {
        EventKind::RunCreated { .. } => "created".to_owned(),
        EventKind::StepReady { step, deadline } => {
            format!("ready {}{}", name(workflow, *step), by(*deadline))
        }
        EventKind::StepSkipped { step } => format!("skipped {}", name(workflow, *step)),
        EventKind::StepLeased { step, deadline, .. } => format!("leased {}{}", latest(step), by(*deadline)),
        EventKind::StepStarted { step } => format!("started {}", latest(step)),
        EventKind::CheckpointCommitted { step, checkpoint } => {
            let total = if checkpoint.total == 0 { String::new() } else { format!("/{}", checkpoint.total) };
            format!("checkpoint {} {}:{}{total}", latest(step), checkpoint.sequence, checkpoint.done)
        }
        EventKind::StepSucceeded { step, cost, .. } => format!("succeeded {} {cost}", latest(step)),
        EventKind::StepBackedOff { step, cause, error, cost, until } => {
            format!(
                "backed off {} {} until {}{}",
                latest(step),
                why(*cause, error.as_ref()),
                time(*until),
                paid(*cost)
            )
        }
        EventKind::StepReturned { step, cause, error, cost } => {
            format!("returned {} {}{}", latest(step), why(*cause, error.as_ref()), paid(*cost))
        }
        EventKind::StepFailed { step, cause, error, cost } => {
            let why = cause.map_or_else(|| error.code.clone(), |cause| why(cause, Some(error)));
            format!("failed {} {why}{}", ended(step), paid(*cost))
        }
        EventKind::StepTimedOut { step, .. } => format!("timed out {}", ended(step)),
        EventKind::StepCancelled { step, cause, error, cost } => {
            let why = cause.map_or_else(String::new, |cause| format!(" {}", why(cause, error.as_ref())));
            format!("cancelled {}{why}{}", ended(step), paid(*cost))
        }
        EventKind::RunPaused { call, .. } => {
            if call.is_some() { "paused" } else { "paused by itself" }.to_owned()
        }
        EventKind::RunResumed { .. } => "resumed".to_owned(),
        EventKind::RunStopping { outcome, .. } => format!("stopping {}", outcome.as_str()),
        EventKind::RunRetried { deadline, .. } => format!("retried{}", by(*deadline)),
        EventKind::RunDeadlineSet { deadline, .. } => format!("deadline of run {}", time(*deadline)),
        EventKind::StepDeadlineSet { step, deadline, .. } => {
            format!("deadline of {} {}", name(workflow, *step), time(*deadline))
        }
        EventKind::AttemptDeadlineSet { step, deadline, .. } => {
            format!("deadline of {} {}", latest(step), time(*deadline))
        }
        EventKind::ReportRefused { step, attempt, report } => {
            format!("refused {}#{attempt} {}", name(workflow, *step), kind_of(*report))
        }
        EventKind::CostBooked { step, attempt, cost } => {
            format!("booked {}#{attempt} {cost}", name(workflow, *step))
        }
        EventKind::RunEnded { outcome, saved, .. } => {
            let saved = if *saved == Money::ZERO { String::new() } else { format!(" saved {saved}") };
            format!("ended {}{saved}", outcome.as_str())
        }
    }
}

/// A plain yes is `created`, `leased n`, `fine` or `done`; rows leave it out.
pub fn answer(answer: &Result<Answer, Refusal>) -> String {
    match answer {
        Ok(Answer::Created { created }) => if *created { "created" } else { "exists" }.to_owned(),
        Ok(Answer::Leased { attempt }) => format!("leased {attempt}"),
        Ok(Answer::Reported { fresh, sequence, directive }) => {
            let sequence = if *sequence == 0 { String::new() } else { format!(" {sequence}") };
            let directive = match directive {
                None => "",
                Some(Directive::Cancel) => " CANCEL",
                Some(Directive::Pause) => " PAUSE",
                Some(Directive::Yield) => " YIELD",
            };
            format!("{}{sequence}{directive}", if *fresh { "fine" } else { "again" })
        }
        Ok(Answer::Done { changed }) => if *changed { "done" } else { "same" }.to_owned(),
        Err(Refusal::RunUnknown(_)) => "RUN_UNKNOWN".to_owned(),
        Err(Refusal::ContentDiffers(_)) => "CONTENT_DIFFERS".to_owned(),
        Err(Refusal::NotReady) => "NOT_READY".to_owned(),
        Err(Refusal::LeaseSuperseded { attempt, current, cause, since }) => {
            format!("SUPERSEDED {attempt} by {current}, {} at {}", cause.as_str(), time(*since))
        }
        Err(Refusal::LeaseUnknown) => "LEASE_UNKNOWN".to_owned(),
        Err(Refusal::RunStopped) => "RUN_STOPPED".to_owned(),
        Err(Refusal::WrongState(_)) => "WRONG_STATE".to_owned(),
        Err(Refusal::DeadlinePassed(_)) => "DEADLINE_PAST".to_owned(),
        Err(Refusal::DeadlineMissing(_)) => "NO_DEADLINE".to_owned(),
        Err(Refusal::StepUnknown(_)) => "STEP_UNKNOWN".to_owned(),
    }
}

/// Whether the answer says no more than the events do.
pub fn is_plain_yes(answer: &str, events: &str) -> bool {
    let leased =
        answer.strip_prefix("leased ").is_some_and(|attempt| events.contains(&format!("#{attempt}")));
    leased || matches!(answer, "created" | "fine" | "done")
}

/// Why a step failed, or waits for its next attempt; without a step, why the run stands where it does.
pub fn reason(run: Option<&Run>, step: Option<StepNo>) -> String {
    let Some(run) = run else { return "none".to_owned() };
    match step.map(|step| run.steps[step].error.as_ref()) {
        Some(Some(error)) => format!("{}: {}", error.code, error.message),
        Some(None) => "none".to_owned(),
        None => run.reason.clone().unwrap_or_else(|| "none".to_owned()),
    }
}

pub fn state(workflow: &Workflow, run: Option<&Run>) -> String {
    let Some(run) = run else { return "none".to_owned() };
    let mut parts = vec![run_state(run.state)];
    parts.extend(Some(run.spent).filter(|spent| *spent != Money::ZERO).map(|spent| format!("spent {spent}")));
    parts.extend(Some(run.saved).filter(|saved| *saved != Money::ZERO).map(|saved| format!("saved {saved}")));
    parts.extend(run.deadline.map(|deadline| format!("by {}", time(deadline))));
    let steps = run.steps.iter().enumerate().map(|(number, step)| {
        let attempts = if step.attempts.is_empty() { String::new() } else { format!("#{}", step.attempt()) };
        let mut parts = vec![format!("{} {}{attempts}", name(workflow, number), step_state(step.state))];
        parts.extend(details(step));
        parts.join(" ")
    });
    std::iter::once(parts.join(" ")).chain(steps).collect::<Vec<_>>().join(" | ")
}

/// `ready a 0s, backoff b 1s, deadline b 10s, deadline of run 60s, grace 60s`, or `none`.
pub fn rows(workflow: &Workflow, run: Option<&Run>) -> String {
    let rows = run.map(Rows::of).unwrap_or_default();
    let ready =
        rows.ready.iter().map(|(step, since)| format!("ready {} {}", name(workflow, *step), time(*since)));
    let timers = rows.timers.iter().map(|(timer, due)| match timer {
        Timer::Backoff(step) => format!("backoff {} {}", name(workflow, *step), time(*due)),
        Timer::StepDeadline(step) => format!("deadline {} {}", name(workflow, *step), time(*due)),
        Timer::RunDeadline => format!("deadline of run {}", time(*due)),
        Timer::StopGrace => format!("grace {}", time(*due)),
    });
    let all: Vec<String> = ready.chain(timers).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

fn details(step: &Step) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(Some(step.cost).filter(|cost| *cost != Money::ZERO).map(|cost| cost.to_string()));
    if step.used != Used::default() {
        parts.push(format!("used {}/{}/{}", step.used.failures, step.used.losses, step.used.yields));
    }
    if step.best_done != 0 {
        parts.push(format!("done {}", step.best_done));
    }
    parts.extend(
        step.checkpoint.as_ref().map(|at| format!("ckpt {}.{}:{}", at.attempt, at.sequence, at.done)),
    );
    parts.extend(step.deadline.map(|deadline| format!("by {}", time(deadline))));
    parts
}

pub fn run_state(state: RunState) -> String {
    match state {
        RunState::Stopping(outcome) => format!("STOPPING {}", outcome.as_str()),
        RunState::Running | RunState::Paused | RunState::Ended(_) => state.as_str().to_owned(),
    }
}

pub fn step_state(state: StepState) -> String {
    match state {
        StepState::Pending => "PENDING".to_owned(),
        StepState::Ready(_) => "READY".to_owned(),
        StepState::Leased => "LEASED".to_owned(),
        StepState::Running => "RUNNING".to_owned(),
        StepState::BackingOff(until) => format!("BACKING_OFF({})", time(until)),
        StepState::Succeeded => "SUCCEEDED".to_owned(),
        StepState::Skipped => "SKIPPED".to_owned(),
        StepState::Failed => "FAILED".to_owned(),
        StepState::TimedOut => "TIMED_OUT".to_owned(),
        StepState::Cancelled => "CANCELLED".to_owned(),
    }
}

fn kind_of(report: ReportKind) -> &'static str {
    match report {
        ReportKind::Heartbeat => "beat",
        ReportKind::Complete => "complete",
        ReportKind::Fail => "fail",
        ReportKind::Yield => "yield",
    }
}

/// The cause, and the error's code where that says something else.
fn why(cause: Cause, error: Option<&StepError>) -> String {
    match error {
        Some(error) if error.code != cause.as_str() => format!("{}({})", cause.as_str(), error.code),
        Some(_) => cause.as_str().to_owned(),
        None => format!("{}(-)", cause.as_str()),
    }
}

fn name(workflow: &Workflow, step: StepNo) -> String {
    workflow.steps.get(step).map_or_else(|| step.to_string(), |step| step.name.clone())
}

fn time(at: Timestamp) -> String {
    match at.0 {
        i64::MAX => "MAX".to_owned(),
        micros => Duration(micros).to_string(),
    }
}

fn by(deadline: Option<Timestamp>) -> String {
    deadline.map_or_else(String::new, |deadline| format!(" by {}", time(deadline)))
}

fn paid(cost: Option<Money>) -> String {
    cost.map_or_else(String::new, |cost| format!(" {cost}"))
}
