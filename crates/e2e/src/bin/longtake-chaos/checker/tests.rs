//! Two runs with nearly everything that may happen to one, of which nothing is said; and each of them spoiled in one way, which is.

use std::collections::BTreeMap;

use longtake_proto::v1::event::Kind;
use longtake_proto::v1::run::State;
use longtake_proto::v1::{self, ReportKind, attempt::Cause};
use prost_types::{Struct, Timestamp, Value, value};
use serde_json::json;

use super::{DefinedStep, Definition, Stored, Verdict, check};
use crate::journal::Line;

struct Case {
    runs: Vec<Stored>,
    lines: Vec<Line>,
}

impl Case {
    fn check(&self) -> Verdict {
        let step = |name: &str, needs: &[&str], price| DefinedStep {
            name: name.to_owned(),
            needs: needs.iter().copied().map(str::to_owned).collect(),
            price,
        };
        let steps = vec![
            step("draft", &[], 10),
            step("left", &["draft"], 100),
            step("right", &["draft"], 20),
            step("join", &["left", "right"], 10),
        ];
        check(&self.runs, &[Definition { name: "relay".to_owned(), steps }], &self.lines)
    }

    fn kind(&mut self, run: usize, number: usize) -> &mut Kind {
        self.runs[run].events[number - 1].kind.as_mut().expect("a kind")
    }

    /// Puts an event behind the one of this number; those after it are numbered anew.
    fn insert(&mut self, run: usize, number: usize, kind: Kind) {
        let run = &mut self.runs[run];
        let time = run.events[number - 1].time;
        run.events.insert(number, v1::Event { number: 0, time, kind: Some(kind) });
        for (event, number) in run.events.iter_mut().zip(1..) {
            event.number = number;
        }
        run.version += 1;
    }

    fn repeat(&mut self, run: usize, number: usize) {
        let kind = self.kind(run, number).clone();
        self.insert(run, number, kind);
    }

    fn note(&mut self, line: Line) {
        self.lines.push(line);
    }
}

fn good() -> Case {
    let first = Stored {
        run_no: 1,
        run_id: "run-1".to_owned(),
        state: "SUCCEEDED".to_owned(),
        version: 21,
        spent: 125,
        saved: 20,
        step_states: vec![5, 5, 6, 5],
        attempts: vec![2, 1, 0, 1],
        events: numbered(vec![
            created("run-1", "ask-1"),
            ready("draft"),
            leased("draft", 1, "e.1", 1),
            started("draft", 1),
            checkpoint("draft", 1, 1, 3),
            backed_off("draft", 1, 6_900_000),
            ready("draft"),
            leased("draft", 2, "e.2", 2),
            started("draft", 2),
            checkpoint("draft", 2, 1, 4),
            succeeded("draft", 2, "n1", 10),
            ready("left"),
            skipped("right"),
            leased("left", 1, "e.2", 3),
            succeeded("left", 1, "n2", 100),
            ready("join"),
            refused("draft", 1, ReportKind::Complete),
            booked("draft", 1, 5),
            leased("join", 1, "e.2", 4),
            succeeded("join", 1, "n3", 10),
            ended(State::Succeeded, 20),
        ]),
    };
    let second = Stored {
        run_no: 2,
        run_id: "run-2".to_owned(),
        state: "FAILED".to_owned(),
        version: 24,
        spent: 1,
        saved: 0,
        step_states: vec![7, 9, 9, 9],
        attempts: vec![3, 0, 0, 0],
        events: numbered(vec![
            created("run-2", "ask-2"),
            ready("draft"),
            leased("draft", 1, "e.2", 5),
            stopping(State::Cancelled, "call"),
            cancelled("left", 0, Cause::Unspecified),
            cancelled("right", 0, Cause::Unspecified),
            cancelled("join", 0, Cause::Unspecified),
            cancelled("draft", 1, Cause::Stopped),
            ended(State::Cancelled, 0),
            refused("draft", 1, ReportKind::Heartbeat),
            Kind::RunRetried(v1::RunRetried::default()),
            ready("draft"),
            leased("draft", 2, "e.2", 6),
            started("draft", 2),
            Kind::RunPaused(v1::RunPaused::default()),
            returned("draft", 2),
            Kind::RunResumed(v1::RunResumed::default()),
            leased("draft", 3, "e.2", 7),
            failed("draft", 3, 1),
            stopping(State::Failed, ""),
            cancelled("left", 0, Cause::Unspecified),
            cancelled("right", 0, Cause::Unspecified),
            cancelled("join", 0, Cause::Unspecified),
            ended(State::Failed, 0),
        ]),
    };
    Case { runs: vec![first, second], lines: journals() }
}

fn journals() -> Vec<Line> {
    let mut lines = vec![
        Line::Refused { ask: "ask-2".to_owned(), code: "OVERLOADED".to_owned() },
        Line::Unknown { ask: "ask-2".to_owned() },
        Line::Asked {
            ask: "ask-3".to_owned(),
            workflow: "relay".to_owned(),
            input: json!({ "ask": "ask-3" }),
        },
        Line::Unknown { ask: "ask-3".to_owned() },
        Line::Reused { ask: "ask-1".to_owned(), refused: true },
        begun("e.1", "run-1", "draft", 1, None),
        begun("e.2", "run-1", "draft", 2, Some(3)),
        begun("e.2", "run-1", "left", 1, None),
        begun("e.2", "run-1", "join", 1, None),
        begun("e.2", "run-2", "draft", 1, None),
        checkpointed("draft", 1, 3),
        checkpointed("draft", 2, 4),
        made("draft", 1, "late"),
        made("draft", 2, "n1"),
        made("left", 1, "n2"),
        made("left", 1, "again"),
        made("join", 1, "n3"),
        reported("draft", 1, "late", "LEASE_SUPERSEDED"),
        reported("left", 1, "n2", "OK"),
        reported("left", 1, "n2", "LEASE_ENDED"),
        reported("left", 1, "again", "LEASE_ENDED"),
        fault("kill_executor", "e.1", 5_500_000),
        fault("drop_call", "ask-3", 6_950_000),
    ];
    for (ask, run) in [("ask-1", "run-1"), ("ask-2", "run-2")] {
        let (ask, run) = (ask.to_owned(), run.to_owned());
        let input = json!({ "units": 3, "ask": ask });
        lines.push(Line::Asked { ask: ask.clone(), workflow: "relay".to_owned(), input });
        lines.push(Line::Acked { ask: ask.clone(), run: run.clone(), created: true });
        lines.push(Line::Acked { ask, run, created: false });
    }
    for order in ["cancel", "retry", "pause", "resume"] {
        lines.push(ordered("run-2", order));
    }
    lines
}

#[test]
fn a_good_case_is_silent_and_measured() {
    let verdict = good().check();
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert_eq!(verdict.recovered_ms, [2_500.0]);
    assert_eq!(verdict.backoff_late_ms, [100.0]);
    let count = |what: &str| verdict.counts.get(what).copied().unwrap_or_default();
    assert_eq!(count("runs"), 2);
    assert_eq!(count("run.FAILED"), 1);
    assert_eq!(count("attempts"), 7);
    assert_eq!(count("attempt_end.LEASE_LOST"), 1);
    assert_eq!(count("refused.complete"), 1);
    assert_eq!(count("event.checkpoint_committed"), 2);
    assert_eq!(count("fault.kill_executor"), 1);
    assert_eq!(count("reported.LEASE_ENDED"), 2);
    assert_eq!(count("unanswered.not_stored"), 1);
}

#[test]
fn nothing_is_measured_beside_a_fault_that_explains_it() {
    let mut case = good();
    case.note(fault("cut", "server-1/client", 6_950_000));
    let verdict = case.check();
    assert_eq!((verdict.recovered_ms.len(), verdict.backoff_late_ms.len()), (1, 0));
    case.note(fault("cut", "server-1/postgres", 6_950_000));
    let verdict = case.check();
    assert_eq!(verdict.violations, Vec::<String>::new());
    assert!(verdict.recovered_ms.is_empty() && verdict.backoff_late_ms.is_empty());
    assert_eq!(verdict.counts.get("not_measured"), Some(&2));
}

#[test]
fn the_rest_of_many_violations_is_counted() {
    let mut case = good();
    for number in 0..200 {
        case.note(Line::Reused { ask: format!("ask-{number}"), refused: false });
    }
    let verdict = case.check();
    assert_eq!(verdict.violations.len(), 9, "{:#?}", verdict.violations);
    assert!(verdict.violations[8].starts_with("and 192 more"), "{:#?}", verdict.violations);
    assert_eq!(verdict.counts.get("violation.A3"), Some(&200));
}

/// A way to spoil the good case; the violation that it must bring, of this rule and with these words.
type Bad = (&'static str, &'static str, fn(&mut Case));

#[test]
fn bad_histories_are_reported() {
    let table: &[Bad] = &[
        ("B1", "event 12: step draft, attempt 2: Succeeded, and it was Succeeded", |it| it.repeat(0, 11)),
        ("B2", "attempt 1: ended, and attempt 2 is live", |it| {
            *it.kind(0, 11) = succeeded("draft", 1, "n1", 10);
        }),
        ("B2", "a checkpoint was committed, and no attempt is live", |it| {
            it.insert(0, 6, checkpoint("draft", 1, 2, 9));
        }),
        ("B2", "told a second time", |it| it.repeat(0, 17)),
        ("B3", "it follows attempt 1", |it| *it.kind(0, 8) = leased("draft", 3, "e.2", 2)),
        ("B3", "its token was used before, in run run-1", |it| *it.kind(1, 3) = leased("draft", 1, "e.2", 3)),
        ("B3", "the attempts are [2, 1, 0, 1]", |it| it.runs[0].attempts[0] = 1),
        ("B4", "attempt 3: leased, and it was Leased", |it| it.insert(0, 8, leased("draft", 3, "e.1", 9))),
        ("B6", "leased while left, which it needs, is Ready", |it| {
            it.insert(0, 13, leased("join", 1, "e.1", 9));
        }),
        ("B6", "ready while draft, which it needs, is Running", |it| it.insert(0, 10, ready("left"))),
        ("B10", "checkpoint 1 was committed after checkpoint 1", |it| it.repeat(0, 10)),
        ("B12", "ready, and it was Ready", |it| it.repeat(0, 2)),
        ("B12", "step_ready while the run is SUCCEEDED", |it| it.insert(0, 21, ready("left"))),
        ("B12", "run_retried while the run is SUCCEEDED", |it| {
            it.insert(0, 21, Kind::RunRetried(v1::RunRetried::default()));
        }),
        ("B12", "the run has ended, and step draft is Leased", |it| drop(it.runs[1].events.remove(7))),
        ("C1", "stuck: RUNNING", |it| {
            it.runs[0].events.pop();
            (it.runs[0].version, it.runs[0].saved) = (20, 0);
            it.runs[0].state = "RUNNING".to_owned();
        }),
        ("C4", "ready 93000000 µs early", |it| *it.kind(0, 6) = backed_off("draft", 1, 100_000_000)),
        ("C4", "step_timeout is not over yet", |it| {
            *it.kind(1, 19) = Kind::StepTimedOut(v1::StepTimedOut {
                step: "draft".to_owned(),
                attempt: 3,
                ..Default::default()
            });
        }),
        ("C4", "TIMED_OUT, and nothing says why", |it| *it.kind(1, 4) = stopping(State::TimedOut, "")),
        ("D1", "step_leased while the run is STOPPING", |it| it.insert(1, 4, leased("draft", 2, "e.1", 9))),
        ("D1", "step_cancelled after a step failed", |it| drop(it.runs[1].events.remove(19))),
        ("E1", "the costs come to 125", |it| it.runs[0].spent = 126),
        ("E1", "booked twice: 5, then 5", |it| it.repeat(0, 18)),
        ("E1", "booked twice: 10, then 5", |it| *it.kind(0, 18) = booked("draft", 2, 5)),
        ("E1", "saved 100, and the steps that it skipped cost 20", |it| {
            *it.kind(0, 21) = ended(State::Succeeded, 100);
        }),
        ("G1", "and its row says CANCELLED", |it| it.runs[1].state = "CANCELLED".to_owned()),
        ("G1", "and their row says [5, 5, 5, 5]", |it| it.runs[0].step_states[2] = 5),
        ("G2", "event 11: it follows event 9", |it| drop(it.runs[0].events.remove(9))),
        ("G2", "version is 22", |it| it.runs[0].version = 22),
        ("G2", "its time is before", |it| it.runs[0].events[4].time = None),
        ("G2", "does not begin with run_created", |it| drop(it.runs[0].events.remove(0))),
        ("§5", "step_leased while the run is PAUSED", |it| drop(it.runs[1].events.remove(16))),
    ];
    reported_each(table);
}

#[test]
fn histories_that_the_journals_deny_are_reported() {
    let table: &[Bad] = &[
        ("A1", "ask ask-1: run run-1 was acknowledged, and is lost", |it| drop(it.runs.remove(0))),
        ("A1", "run run-1 is not stored, and a journal has Started", |it| drop(it.runs.remove(0))),
        ("A1", "its input is not the one that was sent", |it| {
            if let Kind::RunCreated(created) = it.kind(0, 1) {
                created.input = Some(fields(&[("ask", "ask-1")]));
            }
        }),
        ("A2", "ask ask-1 has two runs: run-1 and run-3", |it| {
            let mut twin = it.runs[0].clone();
            twin.run_id = "run-3".to_owned();
            it.runs.push(twin);
        }),
        ("A2", "answered with runs run-1 and run-9", |it| {
            it.note(Line::Acked { ask: "ask-1".to_owned(), run: "run-9".to_owned(), created: false });
        }),
        ("A2", "it was created twice", |it| {
            it.note(Line::Acked { ask: "ask-1".to_owned(), run: "run-1".to_owned(), created: true });
        }),
        ("A3", "accepted a second time", |it| {
            it.note(Line::Reused { ask: "ask-1".to_owned(), refused: false });
        }),
        ("A5", "nobody asked for it", |it| {
            it.lines.retain(|line| !matches!(line, Line::Asked { ask, .. } if ask == "ask-2"));
        }),
        ("A5", "ask ask-2 was refused with OVERLOADED, and run run-2 is stored", |it| {
            it.lines.retain(|line| match line {
                Line::Acked { ask, .. } | Line::Unknown { ask } => ask != "ask-2",
                _ => true,
            });
        }),
        ("B2", "\"late\", which attempt 1 of step draft made", |it| {
            *it.kind(0, 11) = succeeded("draft", 2, "late", 10);
        }),
        ("B2", "\"forged\", which nobody made", |it| *it.kind(0, 20) = succeeded("join", 1, "forged", 10)),
        ("B2", "report again was accepted, and is not", |it| it.note(reported("left", 1, "again", "OK"))),
        ("B2", "report n3 was refused with RUN_STOPPED", |it| {
            it.note(reported("join", 1, "n3", "RUN_STOPPED"));
        }),
        ("B2", "told LEASE_ENDED, and its attempt's end is Some(LeaseLost)", |it| {
            it.note(reported("draft", 1, "late", "LEASE_ENDED"));
        }),
        ("B4", "begun twice, by e.2 and by e.3", |it| it.note(begun("e.3", "run-1", "join", 1, None))),
        ("B4", "e.3 began it, and it was leased to e.2", |it| {
            it.note(begun("e.3", "run-2", "draft", 2, None));
        }),
        ("B5", "report n2 was accepted and refused", |it| {
            it.note(reported("left", 1, "n2", "LEASE_SUPERSEDED"));
        }),
        ("B6", "e.3 began it, and it was never leased", |it| {
            it.note(begun("e.3", "run-1", "right", 1, None));
        }),
        ("B10", "handed checkpoint None, and Some(3) was committed", |it| {
            it.lines.retain(|line| !matches!(line, Line::Started { attempt: 2, .. }));
            it.note(begun("e.2", "run-1", "draft", 2, None));
        }),
        ("B10", "checkpoint 5 was acknowledged", |it| it.note(checkpointed("draft", 2, 5))),
        ("D2", "run run-1: cancel was acknowledged", |it| it.note(ordered("run-1", "cancel"))),
    ];
    reported_each(table);
}

fn reported_each(table: &[Bad]) {
    for (rule, words, spoil) in table {
        let mut case = good();
        spoil(&mut case);
        let violations = case.check().violations;
        let found = violations.iter().any(|it| it.starts_with(&format!("{rule}: ")) && it.contains(words));
        assert!(found, "{rule}, {words}: not among {violations:#?}");
    }
}

fn numbered(kinds: Vec<Kind>) -> Vec<v1::Event> {
    let second = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let events = kinds.into_iter().zip(1..);
    events.map(|(kind, number)| v1::Event { number, time: second(number), kind: Some(kind) }).collect()
}

fn fields(texts: &[(&str, &str)]) -> Struct {
    let value = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let fields: BTreeMap<String, Value> =
        texts.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
    Struct { fields }
}

fn money(nano_usd: i64) -> Option<v1::Money> {
    Some(v1::Money { nano_usd })
}

fn created(run: &str, ask: &str) -> Kind {
    let mut input = fields(&[("ask", ask)]);
    input.fields.insert("units".to_owned(), Value { kind: Some(value::Kind::NumberValue(3.0)) });
    Kind::RunCreated(v1::RunCreated {
        run_id: run.to_owned(),
        workflow: "relay".to_owned(),
        input: Some(input),
        step_count: 4,
        ..Default::default()
    })
}

fn ready(step: &str) -> Kind {
    let deadline = Some(Timestamp { seconds: 3_600, nanos: 0 });
    Kind::StepReady(v1::StepReady { step: step.to_owned(), deadline })
}

fn skipped(step: &str) -> Kind {
    Kind::StepSkipped(v1::StepSkipped { step: step.to_owned() })
}

fn leased(step: &str, attempt: i32, executor: &str, token: u8) -> Kind {
    Kind::StepLeased(v1::StepLeased {
        step: step.to_owned(),
        attempt,
        executor: executor.to_owned(),
        token_hash: vec![token; 16],
        ..Default::default()
    })
}

fn started(step: &str, attempt: i32) -> Kind {
    Kind::StepStarted(v1::StepStarted { step: step.to_owned(), attempt })
}

fn checkpoint(step: &str, attempt: i32, sequence: i64, done: i64) -> Kind {
    let step = step.to_owned();
    Kind::CheckpointCommitted(v1::CheckpointCommitted { step, attempt, sequence, done, ..Default::default() })
}

fn backed_off(step: &str, attempt: i32, until: i64) -> Kind {
    let nanos = i32::try_from(until % 1_000_000 * 1_000).expect("below a billion");
    let until = Some(Timestamp { seconds: until / 1_000_000, nanos });
    let (step, cause) = (step.to_owned(), Cause::LeaseLost.into());
    Kind::StepBackedOff(v1::StepBackedOff { step, attempt, cause, until, ..Default::default() })
}

fn returned(step: &str, attempt: i32) -> Kind {
    let (step, cause) = (step.to_owned(), Cause::Yielded.into());
    Kind::StepReturned(v1::StepReturned { step, attempt, cause, ..Default::default() })
}

fn succeeded(step: &str, attempt: i32, nonce: &str, cost: i64) -> Kind {
    Kind::StepSucceeded(v1::StepSucceeded {
        step: step.to_owned(),
        attempt,
        output: Some(fields(&[("nonce", nonce)])),
        cost: money(cost),
        ..Default::default()
    })
}

fn failed(step: &str, attempt: i32, cost: i64) -> Kind {
    let (step, cause) = (step.to_owned(), Cause::Failed.into());
    Kind::StepFailed(v1::StepFailed { step, attempt, cause, cost: money(cost), ..Default::default() })
}

fn cancelled(step: &str, attempt: i32, cause: Cause) -> Kind {
    let (step, cause) = (step.to_owned(), cause.into());
    Kind::StepCancelled(v1::StepCancelled { step, attempt, cause, ..Default::default() })
}

fn refused(step: &str, attempt: i32, kind: ReportKind) -> Kind {
    Kind::ReportRefused(v1::ReportRefused { step: step.to_owned(), attempt, kind: kind.into() })
}

fn booked(step: &str, attempt: i32, cost: i64) -> Kind {
    Kind::CostBooked(v1::CostBooked { step: step.to_owned(), attempt, cost: money(cost) })
}

fn stopping(outcome: State, call: &str) -> Kind {
    let request_id = call.to_owned();
    Kind::RunStopping(v1::RunStopping { outcome: outcome.into(), request_id, ..Default::default() })
}

fn ended(state: State, saved: i64) -> Kind {
    Kind::RunEnded(v1::RunEnded { state: state.into(), saved: money(saved), ..Default::default() })
}

fn begun(executor: &str, run: &str, step: &str, attempt: i32, previous: Option<i64>) -> Line {
    let (executor, run, step) = (executor.to_owned(), run.to_owned(), step.to_owned());
    Line::Started { executor, run, step, attempt, previous }
}

fn checkpointed(step: &str, attempt: i32, done: i64) -> Line {
    Line::Checkpointed { run: "run-1".to_owned(), step: step.to_owned(), attempt, done }
}

fn made(step: &str, attempt: i32, nonce: &str) -> Line {
    let (run, step, nonce) = ("run-1".to_owned(), step.to_owned(), nonce.to_owned());
    Line::Made { run, step, attempt, nonce }
}

fn reported(step: &str, attempt: i32, nonce: &str, verdict: &str) -> Line {
    let (run, step, nonce) = ("run-1".to_owned(), step.to_owned(), nonce.to_owned());
    Line::Reported { run, step, attempt, nonce, verdict: verdict.to_owned() }
}

fn ordered(run: &str, order: &str) -> Line {
    Line::Ordered { run: run.to_owned(), order: order.to_owned(), ok: true }
}

fn fault(kind: &str, target: &str, from: i64) -> Line {
    let (kind, target) = (kind.to_owned(), target.to_owned());
    Line::Fault { kind, target, from, to: from + 100_000 }
}
