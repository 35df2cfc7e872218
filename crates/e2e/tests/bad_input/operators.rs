//! The calls that operate a run.

use longtake_proto::v1::{self, ExtendDeadlineRequest, extend_deadline_request::Target};
use prost_types::Timestamp;
use serde_json::json;
use tonic::Code;

use super::{IMPOSSIBLE, Mistake, Scene, each, names, refused, text};

const LATER: Timestamp = Timestamp { seconds: 4_000_000_000, nanos: 0 };

const CANCELS: &[Mistake<v1::CancelRunRequest>] = &[
    ("run_id", |it| it.run_id = "x".to_owned()),
    ("request_id", |it| it.request_id = "x".to_owned()),
    ("reason", |it| it.reason = text(1_001)),
    ("reason", |it| it.reason = "a\0b".to_owned()),
];

const PAUSES: &[Mistake<v1::PauseRunRequest>] = &[
    ("run_id", |it| it.run_id = String::new()),
    ("request_id", |it| it.request_id = "x".to_owned()),
    ("reason", |it| it.reason = text(1_001)),
];

const RESUMES: &[Mistake<v1::ResumeRunRequest>] =
    &[("run_id", |it| it.run_id = "x".to_owned()), ("request_id", |it| it.request_id = "x".to_owned())];

const RETRIES: &[Mistake<v1::RetryRunRequest>] = &[
    ("run_id", |it| it.run_id = "x".to_owned()),
    ("request_id", |it| it.request_id = "x".to_owned()),
    ("deadline", |it| it.deadline = Some(Timestamp { seconds: 1, nanos: 0 })),
];

const EXTENSIONS: &[Mistake<ExtendDeadlineRequest>] = &[
    ("run_id", |it| it.run_id = "x".to_owned()),
    ("request_id", |it| it.request_id = "x".to_owned()),
    ("target", |it| it.target = 0),
    ("target", |it| it.target = 99),
    ("deadline", |it| it.deadline = None),
];

#[tokio::test]
async fn every_field_of_an_operation_has_its_bound() {
    let scene = Scene::new().await;
    let run_id = scene.client.create("noop", json!({})).await;
    let before = scene.rows().await;
    let history = scene.client.events(&run_id).await;
    let cancel = v1::CancelRunRequest { run_id: run_id.clone(), ..Default::default() };
    each(&cancel, CANCELS, async |request| scene.client.runs().cancel_run(request).await).await;
    let pause = v1::PauseRunRequest { run_id: run_id.clone(), ..Default::default() };
    each(&pause, PAUSES, async |request| scene.client.runs().pause_run(request).await).await;
    let resume = v1::ResumeRunRequest { run_id: run_id.clone(), ..Default::default() };
    each(&resume, RESUMES, async |request| scene.client.runs().resume_run(request).await).await;
    let retry = v1::RetryRunRequest { run_id: run_id.clone(), ..Default::default() };
    each(&retry, RETRIES, async |request| scene.client.runs().retry_run(request).await).await;
    let extend = ExtendDeadlineRequest {
        run_id: run_id.clone(),
        target: Target::Run.into(),
        deadline: Some(LATER),
        ..Default::default()
    };
    each(&extend, EXTENSIONS, async |request| scene.client.runs().extend_deadline(request).await).await;
    for deadline in IMPOSSIBLE {
        let request = ExtendDeadlineRequest { deadline: Some(deadline), ..extend.clone() };
        let answer = scene.client.runs().extend_deadline(request).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "deadline", &format!("{deadline:?}"));
    }
    assert_eq!(scene.rows().await, before, "nothing is stored");
    assert_eq!(scene.client.events(&run_id).await, history, "nothing has changed");
}

#[tokio::test]
async fn operations_that_do_not_fit_say_so() {
    let scene = Scene::new().await;
    let run_id = scene.client.create("noop", json!({})).await;
    let unknown = uuid::Uuid::new_v4().to_string();
    let cancel = v1::CancelRunRequest { run_id: unknown.clone(), ..Default::default() };
    refused(scene.client.runs().cancel_run(cancel).await, Code::NotFound, "RUN_UNKNOWN");
    let retry = v1::RetryRunRequest { run_id: unknown.clone(), ..Default::default() };
    refused(scene.client.runs().retry_run(retry).await, Code::NotFound, "RUN_UNKNOWN");
    let retry = v1::RetryRunRequest { run_id: run_id.clone(), ..Default::default() };
    refused(scene.client.runs().retry_run(retry).await, Code::FailedPrecondition, "RUN_STATE");
    let extend = |run_id: &str, target: Target, step: &str| ExtendDeadlineRequest {
        run_id: run_id.to_owned(),
        target: target.into(),
        step: step.to_owned(),
        deadline: Some(LATER),
        ..Default::default()
    };
    let answer = scene.client.runs().extend_deadline(extend(&unknown, Target::Run, "")).await;
    refused(answer, Code::NotFound, "RUN_UNKNOWN");
    // Errors travel in headers: what they repeat of a request must be short.
    for step in ["", "nope", "step-1 ", "a\0b", &text(100_000)] {
        let answer = scene.client.runs().extend_deadline(extend(&run_id, Target::Step, step)).await;
        refused(answer, Code::NotFound, "STEP_UNKNOWN");
    }
    let answer = scene.client.runs().extend_deadline(extend(&run_id, Target::Run, "")).await;
    answer.expect("a run's deadline can be set");
}
