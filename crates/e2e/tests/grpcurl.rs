//! Inspection with `grpcurl` alone: what an operator has at three in the morning.

use std::io::Write as _;
use std::time::Duration;

use longtake_e2e::{Outcome, Server, World, grpcurl as program, run};
use serde_json::{Value, json};
use tokio::process::Command;

const CALL: Duration = Duration::from_secs(20);
const RUN: Duration = Duration::from_secs(90);

/// Calls `server`; arguments come before its address, `what` after.
async fn grpcurl(server: &Server, arguments: &[&str], what: &[&str]) -> Outcome {
    let mut command = Command::new(program());
    command.arg("--plaintext").args(arguments).arg(server.address()).args(what);
    run(command, RUN).await
}

/// One call with this request; its answers.
async fn call(server: &Server, method: &str, request: Value) -> Vec<Value> {
    let outcome = grpcurl(server, &["-d", &request.to_string()], &[method]).await;
    assert_eq!(outcome.code, Some(0), "{method}: {}{}", outcome.out, outcome.err);
    let answers = serde_json::Deserializer::from_str(&outcome.out).into_iter::<Value>();
    answers.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error} in {}", outcome.out))
}

async fn call_one(server: &Server, method: &str, request: Value) -> Value {
    let mut answers = call(server, method, request).await;
    assert_eq!(answers.len(), 1, "{method}: {answers:?}");
    answers.remove(0)
}

#[tokio::test]
async fn which_implementation_this_is() {
    let mut version = Command::new(program());
    version.arg("--version");
    let outcome = run(version, CALL).await;
    // Straight to standard error: what the macros print is swallowed where a test passes.
    let said = format!("grpcurl: {} says {}{}", program().display(), outcome.out.trim(), outcome.err.trim());
    writeln!(std::io::stderr(), "{said}").expect("somebody listens");
    assert_eq!(outcome.code, Some(0));
}

#[tokio::test]
async fn services_and_messages_are_listed_and_described() {
    let world = World::new().await;
    let server = world.server().await;
    let listed = grpcurl(&server, &[], &["list"]).await;
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let services: Vec<&str> = listed.out.split_whitespace().collect();
    for service in [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "longtake.v1.ContentService",
        "longtake.v1.ExecutorService",
        "longtake.v1.RunService",
        "longtake.v1.WorkflowService",
    ] {
        assert!(services.contains(&service), "{service} is not in {services:?}");
    }
    let methods = grpcurl(&server, &[], &["list", "longtake.v1.RunService"]).await.out;
    for method in
        ["CreateRun", "GetRun", "ListRuns", "WatchRun", "ListRunEvents", "ExplainRun", "ExtendDeadline"]
    {
        assert!(methods.contains(&format!("longtake.v1.RunService.{method}")), "{methods}");
    }
    let service = grpcurl(&server, &[], &["describe", "longtake.v1.ContentService"]).await;
    assert_eq!(service.code, Some(0), "{}", service.err);
    assert!(service.out.contains("rpc SubmitContent"), "{}", service.out);
    let message = grpcurl(&server, &[], &["describe", "longtake.v1.SubmitContentRequest"]).await;
    assert_eq!(message.code, Some(0), "{}", message.err);
    assert!(message.out.contains("student_query") && message.out.contains("Modality"), "{}", message.out);
    let detail = grpcurl(&server, &[], &["describe", "google.rpc.BadRequest"]).await;
    assert_eq!(detail.code, Some(0), "error details can be read: {}", detail.err);
}

#[tokio::test]
async fn reflection_is_there_in_both_versions() {
    let world = World::new().await;
    let server = world.server().await;
    for version in ["v1", "v1alpha"] {
        let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answer = call_one(&server, &method, json!({"list_services": ""})).await;
        let listed = answer["listServicesResponse"]["service"].as_array().expect("services");
        assert!(listed.contains(&json!({"name": "longtake.v1.RunService"})), "{version}: {answer}");
    }
}

#[tokio::test]
async fn health_can_be_asked() {
    let world = World::new().await;
    let server = world.server().await;
    for service in ["", "longtake.v1.ContentService", "longtake.v1.ExecutorService"] {
        let answer = call_one(&server, "grpc.health.v1.Health/Check", json!({ "service": service })).await;
        assert_eq!(answer["status"], "SERVING", "{service:?}");
    }
}

#[tokio::test]
async fn a_run_is_submitted_watched_explained_and_read() {
    let world = World::new().await;
    let server = world.server().await;
    let request = json!({
        "student_id": "student-1",
        "student_query": "How do plants turn light into sugar?",
        "source_text": "A leaf drinks light.",
        "requested_modalities": ["MODALITY_TEXT"],
        "labels": {"class": "7b"},
    });
    let submitted = call_one(&server, "longtake.v1.ContentService/SubmitContent", request).await;
    assert_eq!(
        (&submitted["created"], &submitted["state"]),
        (&json!(true), &json!("STATE_RUNNING")),
        "{submitted}"
    );
    let run_id = submitted["runId"].as_str().expect("an id").to_owned();
    let by_id = || json!({ "run_id": run_id });

    let explained = call_one(&server, "longtake.v1.RunService/ExplainRun", by_id()).await;
    let steps = explained["steps"].as_array().expect("steps");
    let script = steps.iter().find(|step| step["step"] == "script").expect("the script");
    assert_eq!(script["waitingFor"], "WAITING_FOR_EXECUTOR", "{explained}");
    let todo = script["actions"].to_string();
    assert!(todo.contains("longtake executor --queues script"), "what to do is said: {explained}");

    let executor = world.executor(&server, "all", &["script", "audio", "video", "finalize"]).start();
    let updates = call(&server, "longtake.v1.RunService/WatchRun", by_id()).await;
    let numbers: Vec<i64> = updates
        .iter()
        .filter_map(|update| update["event"]["number"].as_str().and_then(|number| number.parse().ok()))
        .collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as i64), "each event once: {numbers:?}");
    let last = updates.iter().rev().find(|update| update["event"].is_object()).expect("events");
    assert_eq!(last["event"]["runEnded"]["state"], "STATE_SUCCEEDED", "{last}");
    drop(executor);

    let read = call_one(
        &server,
        "longtake.v1.RunService/GetRun",
        json!({ "run_id": run_id, "view": "RUN_VIEW_FULL" }),
    )
    .await;
    let run = &read["run"];
    assert_eq!((&run["state"], &run["labels"]["class"]), (&json!("STATE_SUCCEEDED"), &json!("7b")), "{run}");
    assert_eq!(
        (&run["spent"]["nanoUsd"], &run["saved"]["nanoUsd"]),
        (&json!("17000000"), &json!("183000000"))
    );
    assert_eq!(
        run["input"]["student_query"], "How do plants turn light into sugar?",
        "readable, not encoded"
    );
    let states: Vec<&Value> =
        run["steps"].as_array().into_iter().flatten().map(|step| &step["state"]).collect();
    assert_eq!(states, ["STATE_SUCCEEDED", "STATE_SUCCEEDED", "STATE_SKIPPED", "STATE_SUCCEEDED"]);
    let content = call_one(&server, "longtake.v1.ContentService/GetContent", by_id()).await;
    assert_eq!(content["content"]["state"], "STATE_SUCCEEDED");
    let explained = call_one(&server, "longtake.v1.RunService/ExplainRun", by_id()).await;
    assert!(explained["summary"].as_str().is_some_and(|said| said.contains("succeeded")), "{explained}");
}

#[tokio::test]
async fn a_refusal_shows_its_details() {
    let world = World::new().await;
    let server = world.server().await;
    let request = json!({"student_id": "", "student_query": "why", "grade_level": 40}).to_string();
    let refused = grpcurl(&server, &["-d", &request], &["longtake.v1.ContentService/SubmitContent"]).await;
    assert_ne!(refused.code, Some(0));
    for shown in
        ["InvalidArgument", "FIELD_INVALID", "student_id", "student_query", "grade_level", "5 to 500"]
    {
        assert!(refused.err.contains(shown), "{shown} is not in {}", refused.err);
    }
    let request = json!({"run_id": uuid::Uuid::new_v4().to_string()}).to_string();
    let refused = grpcurl(&server, &["-d", &request], &["longtake.v1.RunService/GetRun"]).await;
    assert_ne!(refused.code, Some(0));
    for shown in ["NotFound", "RUN_UNKNOWN"] {
        assert!(refused.err.contains(shown), "{shown} is not in {}", refused.err);
    }
}
