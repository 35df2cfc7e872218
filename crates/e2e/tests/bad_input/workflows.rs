//! Definitions, and the lists of them.

use longtake_proto::v1::{self, Modality};
use tonic::Code;

use super::{Scene, names, no_such_page, refused};

/// Five mistakes: a format of the future, a need that is no step, a duration that is none, an unknown key and CEL that is none.
const FIVE: &str = r#"format = 2
name = "five"

[[step]]
name = "one"
needs = ["zero"]
heartbeat_timeout = "soon"

[[step]]
name = "two"
colour = "red"
when = "input. =="
"#;

#[tokio::test]
async fn a_definition_with_five_mistakes_is_told_of_all_five() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    let request = v1::ValidateWorkflowRequest { source: FIVE.to_owned() };
    let answer = scene.client.workflows().validate_workflow(request).await.expect("judged").into_inner();
    let told: Vec<(i32, &str)> = answer.problems.iter().map(|it| (it.line, it.key.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, "format"),
            (6, "step.one.needs"),
            (7, "step.one.heartbeat_timeout"),
            (11, "step.two.colour"),
            (12, "step.two.when"),
        ],
        "{:?}",
        answer.problems
    );
    assert!(answer.problems.iter().all(|problem| !problem.message.is_empty()) && answer.workflow.is_none());
    assert_eq!(scene.rows().await, before, "nothing is stored");
}

#[tokio::test]
async fn what_is_no_definition_is_told_so() {
    let scene = Scene::new().await;
    let validate = async |source: String| {
        scene.client.workflows().validate_workflow(v1::ValidateWorkflowRequest { source }).await
    };
    for source in ["", "no toml at all [", "format = 1", "\0", "[[step]]\n"] {
        let answer = validate(source.to_owned()).await.expect("judged").into_inner();
        assert!(!answer.problems.is_empty(), "{source:?}");
        assert!(answer.problems.iter().all(|problem| problem.line >= 1), "{source:?}");
    }
    let deep = "a = ".to_owned() + &"[".repeat(100_000);
    assert!(!validate(deep).await.expect("judged").into_inner().problems.is_empty());
    match validate("x".repeat(256 * 1024 + 1)).await {
        Ok(answer) => assert!(!answer.into_inner().problems.is_empty()),
        Err(status) => names(&longtake_e2e::Refusal::of(&status), "source", "a text that is too long"),
    }
    let nested = "(".repeat(100) + "true" + &")".repeat(100);
    let source = format!("format = 1\nname = \"n\"\n[[step]]\nname = \"s\"\nwhen = \"{nested}\"\n");
    let answer = validate(source).await.expect("judged").into_inner();
    assert_eq!(answer.problems.iter().map(|it| it.key.as_str()).collect::<Vec<_>>(), ["step.s.when"]);
}

#[tokio::test]
async fn workflows_are_listed_and_read_and_those_that_are_not_there_are_not_found() {
    let scene = Scene::new().await;
    let mut workflows = scene.client.workflows();
    let list = |page_size, page_token: &str| v1::ListWorkflowsRequest {
        page_size,
        page_token: page_token.to_owned(),
    };
    let listed = workflows.list_workflows(list(0, "")).await.expect("listed").into_inner().workflows;
    let names_listed: Vec<&str> = listed.iter().map(|workflow| workflow.name.as_str()).collect();
    assert!(names_listed.is_sorted() && names_listed.contains(&"content"), "{names_listed:?}");
    let mut paged = Vec::new();
    let mut token = String::new();
    loop {
        let page = workflows.list_workflows(list(2, &token)).await.expect("listed").into_inner();
        assert!(page.workflows.len() <= 2);
        paged.extend(page.workflows);
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    assert_eq!(paged, listed);
    names(
        &refused(workflows.list_workflows(list(-1, "")).await, Code::InvalidArgument, "FIELD_INVALID"),
        "page_size",
        "-1",
    );
    for foreign in ["x", "a\0b", &"A".repeat(22)] {
        no_such_page(workflows.list_workflows(list(2, foreign)).await);
    }

    let get = |name: &str, version: &str| v1::GetWorkflowRequest {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    let content =
        workflows.get_workflow(get("content", "")).await.expect("read").into_inner().workflow.expect("it");
    assert!(content.source.contains("[[step]]"));
    let video = content.steps.iter().find(|step| step.name == "video").expect("the video step");
    assert_eq!((video.produces(), video.price), (Modality::Video, Some(v1::Money { nano_usd: 183_000_000 })));
    let same =
        workflows.get_workflow(get("content", &content.version)).await.expect("read").into_inner().workflow;
    assert_eq!(same.map(|workflow| workflow.source), Some(content.source.clone()));
    for (name, version) in [("nope", String::new()), ("content", "0".repeat(64)), ("noop", content.version)] {
        refused(workflows.get_workflow(get(name, &version)).await, Code::NotFound, "WORKFLOW_UNKNOWN");
    }
    let answer = workflows.get_workflow(get("content", "latest")).await;
    names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "version", "latest");
}
