//! ContentService.

use longtake_proto::v1::{self, Modality, SubmitContentRequest};
use prost_types::Timestamp;
use tonic::Code;

use super::{IMPOSSIBLE, Mistake, Scene, each, good, names, refused, text, verdict};

const MISTAKES: &[Mistake<SubmitContentRequest>] = &[
    ("request_id", |it| it.request_id = "17".to_owned()),
    ("request_id", |it| it.request_id = "x".repeat(100_000)),
    ("student_id", |it| it.student_id = String::new()),
    ("student_id", |it| it.student_id = text(201)),
    ("student_id", |it| it.student_id = "a\0b".to_owned()),
    ("student_query", |it| it.student_query = String::new()),
    ("student_query", |it| it.student_query = text(4)),
    ("student_query", |it| it.student_query = text(501)),
    ("student_query", |it| it.student_query = text(1_000_000)),
    ("student_query", |it| it.student_query = "Why \0 is it?".to_owned()),
    ("grade_level", |it| it.grade_level = Some(0)),
    ("grade_level", |it| it.grade_level = Some(13)),
    ("grade_level", |it| it.grade_level = Some(i32::MIN)),
    ("interest", |it| it.interest = text(101)),
    ("interest", |it| it.interest = "\0".to_owned()),
    ("source_text", |it| it.source_text = "x".repeat(256 * 1024 + 1)),
    ("source_text", |it| it.source_text = "a\0b".to_owned()),
    ("requested_modalities", |it| it.requested_modalities = vec![0]),
    ("requested_modalities", |it| it.requested_modalities = vec![99]),
    ("requested_modalities", |it| it.requested_modalities = vec![-1]),
    ("requested_modalities", |it| it.requested_modalities = vec![1, 2, 1]),
    ("preferred_modality", |it| it.preferred_modality = 99),
    ("labels", |it| it.labels = (0..33).map(|n| (format!("key-{n}"), String::new())).collect()),
    ("labels", |it| it.labels = [(String::new(), String::new())].into()),
    ("labels", |it| it.labels = [(text(64), String::new())].into()),
    ("labels", |it| it.labels = [("key".to_owned(), text(201))].into()),
    ("labels", |it| it.labels = [("a\0b".to_owned(), String::new())].into()),
    ("labels", |it| it.labels = [("key".to_owned(), "a\0b".to_owned())].into()),
    ("priority", |it| it.priority = 101),
    ("priority", |it| it.priority = -101),
    ("priority", |it| it.priority = i32::MIN),
];

#[tokio::test]
async fn every_field_of_a_submit_has_its_bound() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    each(&good(), MISTAKES, async |request| scene.client.content().submit_content(request).await).await;
    for deadline in IMPOSSIBLE {
        let request = SubmitContentRequest { deadline: Some(deadline), ..good() };
        let status = scene.client.content().submit_content(request).await.expect_err("it is refused");
        names(&longtake_e2e::Refusal::of(&status), "deadline", &format!("{deadline:?}"));
    }
    assert_eq!(scene.rows().await, before, "nothing is stored");
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() {
    let scene = Scene::new().await;
    let mut request = good();
    request.student_id = String::new();
    request.student_query = "why".to_owned();
    request.grade_level = Some(40);
    request.interest = text(101);
    request.requested_modalities = vec![77];
    request.priority = 1_000;
    let refusal =
        refused(scene.client.content().submit_content(request).await, Code::InvalidArgument, "FIELD_INVALID");
    let named: Vec<&str> = refusal.fields.keys().map(String::as_str).collect();
    let all = ["grade_level", "interest", "priority", "requested_modalities", "student_id", "student_query"];
    assert_eq!(named, all);
    assert!(refusal.fields["student_query"].contains("5 to 500"), "{refusal:?}");
}

#[tokio::test]
async fn what_is_just_within_the_bounds_is_taken() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    let within: [fn(&mut SubmitContentRequest); 10] = [
        |it| it.student_id = text(200),
        |it| it.student_query = text(5),
        |it| it.student_query = text(500),
        |it| it.interest = text(100),
        |it| it.grade_level = Some(12),
        |it| it.priority = -100,
        |it| it.labels = (0..32).map(|n| (format!("{n:02}{}", text(61)), text(200))).collect(),
        |it| it.requested_modalities = vec![3, 1, 2],
        |it| it.deadline = Some(Timestamp { seconds: 4_000_000_000, nanos: 999_999_999 }),
        |it| it.source_text = "x".repeat(250_000),
    ];
    for (number, make) in within.into_iter().enumerate() {
        let mut request = SubmitContentRequest { validate_only: true, ..good() };
        make(&mut request);
        let answer = scene.client.content().submit_content(request).await;
        answer.unwrap_or_else(|status| panic!("request {number} is refused: {status}"));
    }
    let unnamed = SubmitContentRequest { validate_only: true, request_id: String::new(), ..good() };
    let answer = scene.client.content().submit_content(unnamed).await.expect("accepted").into_inner();
    assert_eq!((answer.run_id.as_str(), answer.created), ("", true));
    assert_eq!(scene.rows().await, before, "checking stores nothing");
}

#[tokio::test]
async fn defaults_are_applied_and_shown() {
    let scene = Scene::new().await;
    use Modality::{Audio, Text, Unspecified, Video};
    for (requested, preferred, made, shown) in [
        (vec![], Unspecified, vec![Video], Video),
        (vec![], Text, vec![Video], Video),
        (vec![Text], Unspecified, vec![Text], Text),
        (vec![Text, Audio], Video, vec![Text, Audio], Audio),
        (vec![Text, Video], Text, vec![Text, Video], Text),
        (vec![Audio, Video], Unspecified, vec![Audio, Video], Video),
    ] {
        let request = SubmitContentRequest {
            requested_modalities: requested.iter().map(|modality: &Modality| i32::from(*modality)).collect(),
            preferred_modality: preferred.into(),
            validate_only: true,
            ..good()
        };
        let answer = scene.client.content().submit_content(request).await.expect("accepted").into_inner();
        let answered: Vec<Modality> = answer.requested_modalities().collect();
        assert_eq!((answered, answer.preferred_modality()), (made, shown), "{requested:?} {preferred:?}");
    }
}

#[tokio::test]
async fn pictures_cannot_be_asked_of_a_workflow_that_makes_none() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    for requested_modalities in [vec![4], vec![1, 4]] {
        let request = SubmitContentRequest { requested_modalities, ..good() };
        let answer = scene.client.content().submit_content(request).await;
        let refusal = refused(answer, Code::InvalidArgument, "MODALITY_NOT_PRODUCED");
        assert!(refusal.message.contains("IMAGES"), "{refusal:?}");
        assert!(refusal.fields.contains_key("requested_modalities"), "{refusal:?}");
    }
    assert_eq!(scene.rows().await, before, "nothing is stored");
}

#[tokio::test]
async fn one_request_id_is_one_request() {
    let scene = Scene::new().await;
    let request = good();
    let first = scene.client.content().submit_content(request.clone()).await.expect("accepted").into_inner();
    assert!(first.created);
    let before = scene.rows().await;
    // The same content: what does not count may differ.
    for again in [
        request.clone(),
        SubmitContentRequest {
            deadline: Some(Timestamp { seconds: 4_000_000_000, nanos: 0 }),
            ..request.clone()
        },
        SubmitContentRequest { request_id: request.request_id.to_uppercase(), ..request.clone() },
    ] {
        let answer = scene.client.content().submit_content(again).await.expect("the same").into_inner();
        assert_eq!((answer.run_id, answer.created), (first.run_id.clone(), false));
    }
    let others: [fn(&mut SubmitContentRequest); 5] = [
        |it| it.student_query.push('!'),
        |it| it.student_id.push('x'),
        |it| it.requested_modalities = vec![1],
        |it| it.priority = 1,
        |it| it.labels = [("a".to_owned(), "b".to_owned())].into(),
    ];
    for change in others {
        let mut other = request.clone();
        change(&mut other);
        refused(scene.client.content().submit_content(other).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
    }
    let create = v1::CreateRunRequest {
        request_id: request.request_id.clone(),
        workflow: "noop".to_owned(),
        ..v1::CreateRunRequest::default()
    };
    refused(scene.client.runs().create_run(create).await, Code::AlreadyExists, "REQUEST_ID_REUSED");
    assert_eq!(scene.rows().await, before, "no repetition changes anything");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_not_read() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    let request = SubmitContentRequest { source_text: "x".repeat(5 << 20), ..good() };
    let status = scene.client.content().submit_content(request).await.expect_err("it is refused");
    let refusal = longtake_e2e::Refusal::of(&status);
    assert_eq!(refusal.code, Code::OutOfRange, "{refusal:?}");
    let mut request = tonic::Request::new(good());
    request.metadata_mut().insert("x-large", "x".repeat(64 << 10).parse().expect("a header"));
    let status = scene.client.content().submit_content(request).await.expect_err("it is refused");
    longtake_e2e::Refusal::of(&status);
    assert_eq!(scene.rows().await, before, "nothing is stored");
    scene.client.submit(good()).await;
}

#[tokio::test]
async fn a_batch_is_judged_one_by_one() {
    let scene = Scene::new().await;
    for many in [0, 1_001] {
        let requests = vec![good(); many];
        let answer =
            scene.client.content().batch_submit_content(v1::BatchSubmitContentRequest { requests }).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "requests", &many.to_string());
    }
    let (first, last) = (good(), good());
    let requests = vec![
        first.clone(),
        SubmitContentRequest { student_query: "why".to_owned(), ..good() },
        SubmitContentRequest { requested_modalities: vec![4], ..good() },
        first.clone(),
        SubmitContentRequest { priority: 1, ..first },
        last,
    ];
    let batch = v1::BatchSubmitContentRequest { requests };
    let answer = scene.client.content().batch_submit_content(batch).await.expect("judged").into_inner();
    let judged: Vec<(Code, String)> = answer
        .results
        .iter()
        .map(|result| {
            let refusal = verdict(result.verdict.as_ref());
            assert_eq!(refusal.code == Code::Ok, result.response.is_some(), "{refusal:?}");
            (refusal.code, refusal.reason)
        })
        .collect();
    let expected = [
        (Code::Ok, "UNSPECIFIED"),
        (Code::InvalidArgument, "FIELD_INVALID"),
        (Code::InvalidArgument, "MODALITY_NOT_PRODUCED"),
        (Code::Ok, "UNSPECIFIED"),
        (Code::AlreadyExists, "REQUEST_ID_REUSED"),
        (Code::Ok, "UNSPECIFIED"),
    ];
    assert_eq!(judged, expected.map(|(code, reason)| (code, reason.to_owned())));
    let created: Vec<bool> =
        answer.results.iter().filter_map(|it| it.response.as_ref()).map(|it| it.created).collect();
    assert_eq!(created, [true, false, true]);
}

#[tokio::test]
async fn content_that_is_none_is_not_found() {
    let scene = Scene::new().await;
    let noop = scene.client.create("noop", serde_json::json!({})).await;
    for run_id in [uuid::Uuid::new_v4().to_string(), noop] {
        let answer = scene.client.content().get_content(v1::GetContentRequest { run_id }).await;
        refused(answer, Code::NotFound, "RUN_UNKNOWN");
    }
    let answer =
        scene.client.content().get_content(v1::GetContentRequest { run_id: "1 or 1=1".to_owned() }).await;
    names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "run_id", "an id that is none");
}
