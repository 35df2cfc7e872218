//! Starting, reading and listing runs.

use longtake_e2e::Refusal;
use longtake_proto::v1::{self, CreateRunRequest, ListRunEventsRequest, ListRunsRequest};
use prost_types::Timestamp;
use serde_json::json;
use tonic::Code;

use super::{IMPOSSIBLE, Mistake, Scene, each, names, nested, no_such_page, refused, text, unfit};

const CREATES: &[Mistake<CreateRunRequest>] = &[
    ("request_id", |it| it.request_id = "x".to_owned()),
    ("workflow", |it| it.workflow = String::new()),
    ("workflow", |it| it.workflow = text(64)),
    ("workflow", |it| it.workflow = "no\0op".to_owned()),
    ("workflow_version", |it| it.workflow_version = "latest".to_owned()),
    ("workflow_version", |it| it.workflow_version = "g".repeat(64)),
    ("requested_modalities", |it| it.requested_modalities = vec![0]),
    ("requested_modalities", |it| it.requested_modalities = vec![5]),
    ("labels", |it| it.labels = [(text(64), String::new())].into()),
    ("priority", |it| it.priority = 101),
];

const LISTS: &[Mistake<ListRunsRequest>] = &[
    ("page_size", |it| it.page_size = -1),
    ("page_size", |it| it.page_size = i32::MIN),
    ("workflow", |it| it.workflow = text(64)),
    ("workflow", |it| it.workflow = "a\0b".to_owned()),
    ("states", |it| it.states = vec![0]),
    ("states", |it| it.states = vec![99]),
    ("labels", |it| it.labels = [("a\0b".to_owned(), String::new())].into()),
    ("created_after", |it| it.created_after = Some(Timestamp { seconds: 0, nanos: -1 })),
    ("created_before", |it| it.created_before = Some(Timestamp { seconds: i64::MAX, nanos: 0 })),
];

fn good() -> CreateRunRequest {
    CreateRunRequest { workflow: "noop".to_owned(), ..CreateRunRequest::default() }
}

#[tokio::test]
async fn every_field_of_a_run_has_its_bound() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    each(&good(), CREATES, async |request| scene.client.runs().create_run(request).await).await;
    for (what, input) in unfit() {
        let answer = scene.client.runs().create_run(CreateRunRequest { input, ..good() }).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "input", what);
    }
    for deadline in IMPOSSIBLE {
        let request = CreateRunRequest { deadline: Some(deadline), ..good() };
        let answer = scene.client.runs().create_run(request).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "deadline", &format!("{deadline:?}"));
    }
    assert_eq!(scene.rows().await, before, "nothing is stored");
}

#[tokio::test]
async fn a_struct_may_be_32_deep_and_no_deeper() {
    let scene = Scene::new().await;
    let fits = CreateRunRequest { input: nested(32), ..good() };
    let run = scene.client.runs().create_run(fits).await.expect("32 is within the bound").into_inner().run;
    let stored = scene.client.run(&run.expect("the run").run_id).await;
    assert_eq!(stored.input, nested(32), "it is stored as it was");
    let before = scene.rows().await;
    for depth in [33, 34, 50, 200] {
        let request = CreateRunRequest { input: nested(depth), ..good() };
        let status = scene.client.runs().create_run(request).await.expect_err("it is refused");
        names(&Refusal::of(&status), "input", &format!("nesting {depth}"));
    }
    assert_eq!(scene.rows().await, before, "nothing is stored");
}

#[tokio::test]
async fn workflows_and_runs_that_do_not_exist_are_not_found() {
    let scene = Scene::new().await;
    let client = &scene.client;
    for (workflow, workflow_version) in [("nope", ""), ("noop", "0"), ("nope", "0")] {
        let request = CreateRunRequest {
            workflow: workflow.to_owned(),
            workflow_version: workflow_version.repeat(64),
            ..CreateRunRequest::default()
        };
        refused(client.runs().create_run(request).await, Code::NotFound, "WORKFLOW_UNKNOWN");
    }
    let run_id = uuid::Uuid::new_v4().to_string();
    let by_id = |run_id: &str| run_id.to_owned();
    let get = client.runs().get_run(v1::GetRunRequest { run_id: by_id(&run_id), view: 0 }).await;
    refused(get, Code::NotFound, "RUN_UNKNOWN");
    let explain = client.runs().explain_run(v1::ExplainRunRequest { run_id: by_id(&run_id) }).await;
    refused(explain, Code::NotFound, "RUN_UNKNOWN");
    let events = ListRunEventsRequest { run_id: by_id(&run_id), ..ListRunEventsRequest::default() };
    refused(client.runs().list_run_events(events).await, Code::NotFound, "RUN_UNKNOWN");
    let watch = client.runs().watch_run(v1::WatchRunRequest { run_id, after_event: 0 }).await;
    refused(watch.map(|_| tonic::Response::new(())), Code::NotFound, "RUN_UNKNOWN");
    for run_id in ["", "x", "' or 1=1 --", "00000000-0000-0000-0000-00000000000g"] {
        let get = client.runs().get_run(v1::GetRunRequest { run_id: by_id(run_id), view: 0 }).await;
        names(&refused(get, Code::InvalidArgument, "FIELD_INVALID"), "run_id", run_id);
    }
    let run_id = client.create("noop", json!({})).await;
    let get = client.runs().get_run(v1::GetRunRequest { run_id: by_id(&run_id), view: 99 }).await;
    names(&refused(get, Code::InvalidArgument, "FIELD_INVALID"), "view", "99");
    let watch = client.runs().watch_run(v1::WatchRunRequest { run_id, after_event: -1 }).await;
    let watch = refused(watch.map(|_| tonic::Response::new(())), Code::InvalidArgument, "FIELD_INVALID");
    names(&watch, "after_event", "-1");
}

#[tokio::test]
async fn lists_have_bounds_and_pages_belong_to_their_list() {
    let scene = Scene::new().await;
    let client = &scene.client;
    each(&ListRunsRequest::default(), LISTS, async |request| client.runs().list_runs(request).await).await;
    let mut runs = Vec::new();
    for number in 0..5 {
        runs.push(client.create("noop", json!({ "number": number })).await);
    }
    runs.reverse();

    let page = |page_size, page_token: &str, workflow: &str| ListRunsRequest {
        page_size,
        page_token: page_token.to_owned(),
        workflow: workflow.to_owned(),
        ..ListRunsRequest::default()
    };
    let first = client.runs().list_runs(page(2, "", "noop")).await.expect("a page").into_inner();
    let second =
        client.runs().list_runs(page(2, &first.next_page_token, "noop")).await.expect("a page").into_inner();
    let third =
        client.runs().list_runs(page(2, &second.next_page_token, "noop")).await.expect("a page").into_inner();
    let seen =
        [&first, &second, &third].into_iter().flat_map(|page| &page.runs).map(|run| run.run_id.clone());
    assert_eq!(seen.collect::<Vec<_>>(), runs, "the newest first, each once");
    assert_eq!(third.next_page_token, "", "the last page");
    assert!(first.runs.iter().all(|run| run.steps.is_empty() && run.input.is_none()), "lists are short");

    // The token of one list is none of another.
    let events =
        ListRunEventsRequest { run_id: runs[0].clone(), page_size: 1, ..ListRunEventsRequest::default() };
    let history = client.runs().list_run_events(events.clone()).await.expect("a page").into_inner();
    assert_ne!(history.next_page_token, "");
    let forged = "A".repeat(40);
    for token in [history.next_page_token.as_str(), "x", "%%%", &forged, &"a".repeat(10_000), "a\0b"] {
        let answer = client.runs().list_runs(page(2, token, "noop")).await;
        no_such_page(answer);
    }
    let answer = client.runs().list_runs(page(2, &first.next_page_token, "content")).await;
    no_such_page(answer);
    let page_token = history.next_page_token.clone();
    let other = ListRunEventsRequest { run_id: runs[1].clone(), page_token, ..events.clone() };
    no_such_page(client.runs().list_run_events(other).await);
    for (field, bad) in [
        ("page_size", ListRunEventsRequest { page_size: -1, ..events.clone() }),
        ("after_event", ListRunEventsRequest { after_event: -1, ..events.clone() }),
        ("run_id", ListRunEventsRequest { run_id: "x".to_owned(), ..events.clone() }),
    ] {
        let answer = client.runs().list_run_events(bad).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), field, field);
    }
    // A page may be asked to be larger than it gets.
    let huge = client.runs().list_runs(page(i32::MAX, "", "")).await.expect("a page").into_inner();
    assert_eq!(huge.runs.len(), 5);
}

#[tokio::test]
async fn a_checked_run_is_not_stored() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    let request = CreateRunRequest { validate_only: true, ..good() };
    let answer = scene.client.runs().create_run(request).await.expect("accepted").into_inner();
    let run = answer.run.expect("the run as it would be");
    assert_eq!((run.workflow.as_str(), run.steps_total), ("noop", 4));
    assert_eq!(scene.rows().await, before, "nothing is stored");
}
