//! The commands of a row.
//!
//! ```text
//! submit [other] [by 60s] [requested text,video] [input {…}]     other: with another content hash
//! lease a [again]                                                again: the same dispatch once more
//! beat a   [ckpt 2:30/100]                                       sequence:done/total
//! complete a [cost 0.2] [artifact] [output {…}]
//! fail a   [fatal] [code X] [after 5s] [cost 0.2] [ckpt 2:30] [jitter N]
//! yield a  [mute] [cost 0.2] [ckpt 2:30] [jitter N]              mute: without a reason
//! lost a | undelivered a | stalled a | overdue a | revoke a STOPPED   [jitter N]
//! due backoff a | due step a | due run | due grace               a timer fires
//! cancel | pause | resume | retry [to 60s] | extend run|step a|attempt a to 60s   [id 7] [why text]
//! ```
//!
//! `a` names the step's latest attempt, `a#2` its second one; `forged` sends a wrong proof. Jitter is the largest unless given,
//! so that a backoff takes its full time.

use std::sync::Arc;

use longtake_engine::command::{Command, Deadline, Lease, NewCheckpoint, Operation, Report, Timer};
use longtake_engine::definition::Modality;
use longtake_engine::ids::{RequestId, SessionId, StepNo};
use longtake_engine::money::Money;
use longtake_engine::run::{Artifact, Cause, CheckpointData, NewRun, Output, StepError};
use longtake_engine::time::{Duration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::stage::{RUN, Stage, secret};

/// A command's words, taken one by one.
struct Words<'t> {
    text: &'t str,
    rest: Vec<&'t str>,
}

pub fn command(stage: &mut Stage, text: &str) -> Command {
    let mut words = Words { text, rest: crate::flow::split(text, ' ') };
    let command = match words.next() {
        "submit" => Command::Create(Arc::new(submit(stage, &mut words))),
        "lease" => lease(stage, &mut words),
        "due" => Command::Fire(timer(stage, &mut words)),
        verb @ ("beat" | "complete" | "fail" | "yield") => {
            let (step, attempt) = words.attempt(stage);
            let proof =
                if words.flag("forged") { secret(step, attempt ^ 0xffff) } else { secret(step, attempt) };
            let lease = Lease { step, attempt, secret: proof.hash() };
            Command::Report { lease, report: report(verb, &mut words) }
        }
        verb @ ("lost" | "undelivered" | "stalled" | "overdue" | "revoke") => {
            let (step, attempt) = words.attempt(stage);
            let name = if verb == "revoke" { words.next() } else { verb };
            Command::Revoke { step, attempt, cause: cause(name), jitter: words.jitter() }
        }
        verb => {
            stage.calls += 1;
            let call = words.option("id").map_or(stage.calls, |id| id.parse().expect("an id is a number"));
            let operation = operation(stage, verb, &mut words);
            Command::Operate { call: RequestId(Uuid::from_u128(call)), operation }
        }
    };
    assert!(words.rest.is_empty(), "{text:?}: not understood: {:?}", words.rest);
    command
}

fn submit(stage: &Stage, words: &mut Words<'_>) -> NewRun {
    let input = words.option("input").map_or_else(|| serde_json::json!({}), json);
    let requested = words.option("requested").unwrap_or_default();
    let requested: Vec<Modality> = requested
        .split(',')
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().expect("a modality"))
        .collect();
    let when = stage.workflow.steps.iter().enumerate().filter_map(|(number, step)| {
        let when = step.when.as_ref().filter(|when| when.reads_only_input())?;
        Some((number, when.evaluate(&input, &std::collections::BTreeMap::new())))
    });
    NewRun {
        id: RUN,
        tenant: "t".to_owned(),
        version: stage.workflow.version,
        when: when.collect(),
        input: Arc::new(input),
        requested,
        labels: std::collections::BTreeMap::new(),
        priority: 0,
        deadline: words.option("by").map(|time| Timestamp(micros(time))),
        content_hash: [u8::from(words.flag("other")); 32],
        trace: std::collections::BTreeMap::new(),
    }
}

fn lease(stage: &Stage, words: &mut Words<'_>) -> Command {
    let (step, attempt) = words.attempt(stage);
    let attempt = if words.flag("again") { attempt } else { attempt.saturating_add(1) };
    let session = SessionId(Uuid::from_u128(7));
    Command::Dispatch { step, secret: secret(step, attempt), session, executor: "executor-1".into() }
}

fn timer(stage: &Stage, words: &mut Words<'_>) -> Timer {
    match words.next() {
        "backoff" => Timer::Backoff(words.step(stage)),
        "step" => Timer::StepDeadline(words.step(stage)),
        "run" => Timer::RunDeadline,
        "grace" => Timer::StopGrace,
        other => panic!("no timer: {other}"),
    }
}

fn report(verb: &str, words: &mut Words<'_>) -> Report {
    let checkpoint = words.option("ckpt").map(checkpoint);
    let cost = words.option("cost").map(cost);
    match verb {
        "beat" => Report::Heartbeat { checkpoint },
        "complete" => Report::Complete { output: output(words), cost },
        "fail" => {
            let code = words.option("code").unwrap_or("BOOM");
            let error = StepError::new(code, "it broke", !words.flag("fatal"));
            let retry_after = words.option("after").map(|span| Duration(micros(span)));
            Report::Fail { error, retry_after, checkpoint, cost, jitter: words.jitter() }
        }
        _ => {
            let reason = if words.flag("mute") { "" } else { "drained" };
            Report::Yield { reason: reason.to_owned(), checkpoint, cost, jitter: words.jitter() }
        }
    }
}

fn checkpoint(text: &str) -> NewCheckpoint {
    let (sequence, done) = text.split_once(':').expect("sequence:done");
    let (done, total) = done.split_once('/').unwrap_or((done, "0"));
    let data = CheckpointData { data: serde_json::json!({ "at": sequence }), artifacts: Vec::new() };
    NewCheckpoint {
        sequence: number(sequence),
        done: number(done),
        total: number(total),
        data: Arc::new(data),
    }
}

fn output(words: &mut Words<'_>) -> Output {
    let artifact = words.flag("artifact").then(|| Artifact {
        name: "file".to_owned(),
        uri: "file:///file".to_owned(),
        sha256: "00".repeat(32),
        size_bytes: 1,
        media_type: "text/plain".to_owned(),
    });
    let data = words.option("output").map_or_else(|| serde_json::json!({}), json);
    Output { data: Arc::new(data), artifacts: artifact.into_iter().collect() }
}

fn operation(stage: &Stage, verb: &str, words: &mut Words<'_>) -> Operation {
    let reason = words.option("why").unwrap_or_default().to_owned();
    let to = words.option("to").map(|time| Timestamp(micros(time)));
    match verb {
        "cancel" => Operation::Cancel { reason },
        "pause" => Operation::Pause { reason },
        "resume" => Operation::Resume,
        "retry" => Operation::Retry { deadline: to },
        "extend" => {
            let which = match words.next() {
                "run" => Deadline::Run,
                "step" => Deadline::Step(words.step(stage)),
                "attempt" => Deadline::Attempt(words.step(stage)),
                other => panic!("no deadline: {other}"),
            };
            Operation::ExtendDeadline { which, to: to.expect("extend … to …") }
        }
        other => panic!("no command: {other}"),
    }
}

pub fn cause(name: &str) -> Cause {
    match name {
        "lost" => Cause::LeaseLost,
        "undelivered" => Cause::DispatchTimeout,
        "stalled" => Cause::NoProgress,
        "overdue" => Cause::AttemptTimeout,
        "COMPLETED" => Cause::Completed,
        "FAILED" => Cause::Failed,
        "YIELDED" => Cause::Yielded,
        "STEP_TIMEOUT" => Cause::StepTimeout,
        "STOPPED" => Cause::Stopped,
        other => panic!("no cause: {other}"),
    }
}

/// `10s`, `2m`, `MAX`, `MIN`, `-5s`: microseconds.
pub fn micros(text: &str) -> i64 {
    if matches!(text, "MAX" | "MIN") {
        return number(text);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        unit => panic!("no unit of time: {unit:?} in {text:?}"),
    };
    number(digits) * unit
}

fn number(text: &str) -> i64 {
    match text {
        "MAX" => i64::MAX,
        "MIN" => i64::MIN,
        _ => text.parse().unwrap_or_else(|_| panic!("no number: {text:?}")),
    }
}

fn cost(text: &str) -> Money {
    match text {
        "MAX" | "MIN" => Money(number(text)),
        _ => match text.strip_prefix('-') {
            Some(owed) => Money::ZERO - Money::parse(owed).expect("an amount"),
            None => Money::parse(text).expect("an amount"),
        },
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

impl<'t> Words<'t> {
    fn next(&mut self) -> &'t str {
        assert!(!self.rest.is_empty(), "{:?} ends too early", self.text);
        self.rest.remove(0)
    }

    fn flag(&mut self, name: &str) -> bool {
        let at = self.rest.iter().position(|word| *word == name);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    fn option(&mut self, name: &str) -> Option<&'t str> {
        let at = self.rest.iter().position(|word| *word == name)?;
        self.rest.remove(at);
        Some(self.rest.remove(at))
    }

    fn step(&mut self, stage: &Stage) -> StepNo {
        stage.step(self.next())
    }

    fn attempt(&mut self, stage: &Stage) -> (StepNo, u32) {
        let word = self.next();
        let (name, attempt) = word.split_once('#').unwrap_or((word, ""));
        let step = stage.step(name);
        (step, attempt.parse().unwrap_or_else(|_| stage.attempt(step)))
    }

    fn jitter(&mut self) -> u64 {
        self.option("jitter").map_or(u64::MAX, |jitter| jitter.parse().expect("jitter is a number"))
    }
}
