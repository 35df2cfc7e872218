//! Stored history says the same when it is read back: every kind of event, with every part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::definition::{Modality, Version, Workflow};
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{RequestId, RunId, Secret, SessionId};
use longtake_engine::money::Money;
use longtake_engine::run::{
    Artifact, Cause, Checkpoint, CheckpointData, NewRun, Outcome, Output, ReportKind, StepError,
};
use longtake_engine::time::Timestamp;
use longtake_orchestrator::codec::{decode_events, encode_events, fold};
use serde_json::json;
use uuid::Uuid;

const WORKFLOW: &str = r#"
format = 1
name = "two"
[[step]]
name = "one"
[[step]]
name = "two"
needs = ["one"]
"#;

fn call() -> RequestId {
    RequestId(Uuid::from_u128(77))
}

fn at(micros: i64) -> Timestamp {
    Timestamp(1_800_000_000_000_000 + micros)
}

fn error() -> StepError {
    StepError { code: "OOPS".into(), message: "it broke".into(), retryable: true, details: json!({"at": 3}) }
}

fn artifact() -> Artifact {
    Artifact {
        name: "a.wav".into(),
        uri: "file:///a.wav".into(),
        sha256: "0".repeat(64),
        size_bytes: 12,
        media_type: "audio/wav".into(),
    }
}

fn request(version: Version) -> Arc<NewRun> {
    Arc::new(NewRun {
        id: RunId(Uuid::from_u128(5)),
        tenant: "default".into(),
        version,
        input: Arc::new(json!({"query": "why?", "n": 3, "deep": {"list": [1, 0.5, null, true]}})),
        requested: vec![Modality::Video, Modality::Text],
        labels: BTreeMap::from([("team".into(), "x".into())]),
        priority: -7,
        deadline: Some(at(9)),
        content_hash: [9; 32],
        trace: BTreeMap::from([("traceparent".into(), "00-a-b-01".into())]),
        when: BTreeMap::from([(0, Ok(true)), (1, Err("no such key".into()))]),
    })
}

/// One of each kind, with the attempt of step 1 rising to 2.
fn kinds(version: Version) -> Vec<EventKind> {
    let checkpoint = Checkpoint {
        attempt: 1,
        sequence: 4,
        done: 2,
        total: 5,
        at: at(5),
        data: Arc::new(CheckpointData { data: json!({"x": 1}), artifacts: vec![artifact()] }),
    };
    let leased = |secret: u8| EventKind::StepLeased {
        step: 1,
        secret: Secret([secret; 16]).hash(),
        session: SessionId(Uuid::from_u128(6)),
        executor: Arc::from("video-7"),
        deadline: Some(at(90)),
    };
    vec![
        EventKind::RunCreated { request: request(version), steps: 2 },
        EventKind::StepReady { step: 0, deadline: Some(at(50)) },
        EventKind::StepSkipped { step: 0 },
        leased(1),
        EventKind::StepStarted { step: 1 },
        EventKind::CheckpointCommitted { step: 1, checkpoint },
        EventKind::StepBackedOff {
            step: 1,
            cause: Cause::NoProgress,
            error: Some(error()),
            cost: Some(Money(5)),
            until: at(60),
        },
        leased(2),
        EventKind::StepReturned { step: 1, cause: Cause::Yielded, error: None, cost: None },
        EventKind::StepSucceeded {
            step: 1,
            output: Output { data: Arc::new(json!({"ok": true})), artifacts: vec![artifact()].into() },
            cost: Money(183),
        },
        EventKind::StepFailed { step: 1, cause: Some(Cause::Failed), error: error(), cost: None },
        EventKind::StepFailed { step: 0, cause: None, error: error(), cost: None },
        EventKind::StepTimedOut { step: 1, error: error() },
        EventKind::StepCancelled { step: 1, cause: Some(Cause::Stopped), error: None, cost: Some(Money(1)) },
        EventKind::RunPaused { reason: "lunch".into(), call: Some(call()) },
        EventKind::RunPaused { reason: "spent".into(), call: None },
        EventKind::RunResumed { call: call() },
        EventKind::RunStopping { outcome: Outcome::Cancelled, reason: "no".into(), call: None },
        EventKind::RunRetried { deadline: None, call: call() },
        EventKind::RunDeadlineSet { deadline: at(70), call: call() },
        EventKind::StepDeadlineSet { step: 0, deadline: at(71), call: call() },
        EventKind::AttemptDeadlineSet { step: 1, deadline: at(72), call: call() },
        EventKind::ReportRefused { step: 1, attempt: 1, report: ReportKind::Complete },
        EventKind::CostBooked { step: 1, attempt: 1, cost: Money(8) },
        EventKind::RunEnded { outcome: Outcome::TimedOut, reason: Some("late".into()), saved: Money(3) },
    ]
}

#[test]
fn every_event_survives_being_stored() {
    let workflow = Workflow::parse(WORKFLOW.as_bytes()).unwrap();
    let events: Vec<Event> = (1..)
        .zip(kinds(workflow.version))
        .map(|(number, kind)| Event { number, at: at(number), kind })
        .collect();
    let bytes = encode_events(&workflow, &[0, 2], &events);
    let stored = decode_events(&bytes).unwrap();
    assert_eq!(stored.len(), events.len());
    for (event, stored) in events.iter().zip(&stored) {
        let read = fold::event(&workflow, stored.clone()).unwrap();
        // Data of checkpoints is stored beside the run; the event keeps its size and hash.
        let expected = match event.kind.clone() {
            EventKind::CheckpointCommitted { step, mut checkpoint } => {
                checkpoint.data = Arc::default();
                checkpoint.at = event.at;
                EventKind::CheckpointCommitted { step, checkpoint }
            }
            kind => kind,
        };
        assert_eq!(read, Event { kind: expected, ..event.clone() });
    }
}

#[test]
fn events_name_the_attempt_that_they_speak_of() {
    use longtake_proto::v1::event::Kind;
    let workflow = Workflow::parse(WORKFLOW.as_bytes()).unwrap();
    let events: Vec<Event> = (1..)
        .zip(kinds(workflow.version))
        .map(|(number, kind)| Event { number, at: at(number), kind })
        .collect();
    let stored = decode_events(&encode_events(&workflow, &[0, 2], &events)).unwrap();
    let attempts: Vec<i32> = stored
        .iter()
        .filter_map(|event| match event.kind.as_ref()? {
            Kind::StepLeased(event) => Some(event.attempt),
            Kind::StepStarted(event) => Some(event.attempt),
            Kind::StepBackedOff(event) => Some(event.attempt),
            Kind::StepReturned(event) => Some(event.attempt),
            Kind::StepSucceeded(event) => Some(event.attempt),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [1, 1, 1, 2, 2, 2]);
}

#[test]
fn damaged_history_is_an_error_that_says_where() {
    let workflow = Workflow::parse(WORKFLOW.as_bytes()).unwrap();
    let event = Event { number: 1, at: at(1), kind: EventKind::StepReady { step: 0, deadline: None } };
    let mut bytes = encode_events(&workflow, &[0, 0], &[event]);
    bytes.truncate(bytes.len() - 1);
    assert!(decode_events(&bytes).unwrap_err().to_string().contains("event 1"));
    assert_eq!(decode_events(&[]).unwrap(), []);
}
