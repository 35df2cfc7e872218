//! What executors could send.

use longtake_e2e::{Hand, Refusal};
use longtake_proto::v1::{
    self, Artifact, Checkpoint, CompleteStepRequest, FailStepRequest, PollStepsRequest, Progress,
};
use prost_types::value::Kind;
use serde_json::json;
use tonic::Code;

use super::{ABSURD, Mistake, Scene, each, names, nested, object, refused, seconds, text, unfit, verdict};

const POLLS: &[Mistake<PollStepsRequest>] = &[
    ("session_id", |it| it.session_id = String::new()),
    ("session_id", |it| it.session_id = "x".to_owned()),
    ("executor.name", |it| it.executor = None),
    ("executor.name", |it| info(it).name = String::new()),
    ("executor.name", |it| info(it).name = text(201)),
    ("executor.name", |it| info(it).name = "a\0b".to_owned()),
    ("executor.host", |it| info(it).host = text(254)),
    ("executor.version", |it| info(it).version = text(101)),
    ("queues", |it| it.queues = Vec::new()),
    ("queues", |it| it.queues = (0..65).map(|n| format!("queue-{n}")).collect()),
    ("queues", |it| it.queues = vec![String::new()]),
    ("queues", |it| it.queues = vec!["a\0b".to_owned()]),
    ("queues", |it| it.queues = vec![text(100_000)]),
    ("max_steps", |it| it.max_steps = 0),
    ("max_steps", |it| it.max_steps = -1),
    ("max_steps", |it| it.max_steps = 101),
    ("wait", |it| it.wait = seconds(51)),
    ("request_id", |it| it.request_id = "x".to_owned()),
];

const ARTIFACTS: &[Mistake<Artifact>] = &[
    ("artifacts.name", |it| it.name = String::new()),
    ("artifacts.name", |it| it.name = text(201)),
    ("artifacts.name", |it| it.name = "a\0b".to_owned()),
    ("artifacts.uri", |it| it.uri = String::new()),
    ("artifacts.uri", |it| it.uri = text(2_049)),
    ("artifacts.sha256", |it| it.sha256 = "ab".to_owned()),
    ("artifacts.sha256", |it| it.sha256 = "A".repeat(64)),
    ("artifacts.size_bytes", |it| it.size_bytes = -1),
    ("artifacts.media_type", |it| it.media_type = String::new()),
];

fn info(poll: &mut PollStepsRequest) -> &mut v1::ExecutorInfo {
    poll.executor.get_or_insert_default()
}

fn artifact() -> Artifact {
    Artifact {
        name: "a.txt".to_owned(),
        uri: "file:///a.txt".to_owned(),
        sha256: "0".repeat(64),
        size_bytes: 1,
        media_type: "text/plain".to_owned(),
    }
}

#[tokio::test]
async fn every_field_of_a_poll_has_its_bound() {
    let scene = Scene::new().await;
    let before = scene.rows().await;
    let good = Hand::new(&scene.client, "hand", &["noop"]).poll_request(std::time::Duration::ZERO);
    each(&good, POLLS, async |request| scene.client.executors().poll_steps(request).await).await;
    for wait in ABSURD {
        let answer =
            scene.client.executors().poll_steps(PollStepsRequest { wait: Some(wait), ..good.clone() }).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "wait", &format!("{wait:?}"));
    }
    assert_eq!(scene.rows().await, before, "nothing is stored");
    let most =
        PollStepsRequest { queues: (0..64).map(|n| format!("queue-{n}")).collect(), max_steps: 100, ..good };
    scene.client.executors().poll_steps(most).await.expect("what is just within the bounds is taken");
}

#[tokio::test]
async fn tokens_that_were_never_granted_are_unknown() {
    let scene = Scene::new().await;
    let run_id = scene.client.create("noop", json!({})).await;
    let hand = Hand::new(&scene.client, "hand", &["noop"]);
    let lease = hand.take().await;
    let before = (scene.rows().await, scene.client.events(&run_id).await);
    let token = lease.lease_token.clone();
    let mut forged = token.clone();
    let last = if forged.pop() == Some('0') { '1' } else { '0' };
    forged.push(last);
    let foreign = token.replace(&token[..32], &uuid::Uuid::new_v4().simple().to_string());
    let tokens =
        [String::new(), "x".to_owned(), "é".repeat(37), "0".repeat(74), token.clone() + "0", forged, foreign];
    for lease_token in tokens {
        let other = v1::StepLease { lease_token, ..lease.clone() };
        let complete = scene.client.executors().complete_step(hand.completion(&other, json!({}))).await;
        refused(complete, Code::NotFound, "LEASE_UNKNOWN");
        let fail = scene.client.executors().fail_step(hand.failure(&other, "OOPS", true)).await;
        refused(fail, Code::NotFound, "LEASE_UNKNOWN");
        let back = v1::YieldStepRequest { lease_token: other.lease_token.clone(), ..Default::default() };
        refused(scene.client.executors().yield_step(back).await, Code::NotFound, "LEASE_UNKNOWN");
        let beat = v1::LeaseHeartbeat { lease_token: other.lease_token, ..Default::default() };
        let own = v1::LeaseHeartbeat { lease_token: token.clone(), ..Default::default() };
        let answer =
            hand.heartbeat(vec![beat, own], std::time::Duration::ZERO, false).await.expect("answered");
        let reasons: Vec<String> =
            answer.leases.iter().map(|it| verdict(it.verdict.as_ref()).reason).collect();
        assert_eq!(reasons, ["LEASE_UNKNOWN", "UNSPECIFIED"], "one bad token harms no other lease");
    }
    assert_eq!((scene.rows().await, scene.client.events(&run_id).await), before, "nothing has changed");
    hand.complete(&lease, json!({})).await.expect("the real one is good");
}

#[tokio::test]
async fn a_report_that_cannot_be_stored_leaves_the_lease_as_it_was() {
    let scene = Scene::new().await;
    let run_id = scene.client.create("noop", json!({})).await;
    let hand = Hand::new(&scene.client, "hand", &["noop"]);
    let lease = hand.take().await;
    let before = (scene.rows().await, scene.client.events(&run_id).await);
    let good = hand.completion(&lease, json!({}));
    let complete = async |request| scene.client.executors().complete_step(request).await;

    let mut outputs = unfit();
    outputs.push(("larger than an output may be", Some(object("a", Kind::StringValue("x".repeat(65_536))))));
    for (what, output) in outputs {
        let refusal = refused(
            complete(CompleteStepRequest { output, ..good.clone() }).await,
            Code::InvalidArgument,
            "OUTPUT_INVALID",
        );
        assert!(refusal.fields.keys().any(|field| field.starts_with("output")), "{what}: {refusal:?}");
    }
    for (field, spoil) in ARTIFACTS {
        let mut bad = artifact();
        spoil(&mut bad);
        let request = CompleteStepRequest { artifacts: vec![artifact(), bad], ..good.clone() };
        let refusal = refused(complete(request).await, Code::InvalidArgument, "OUTPUT_INVALID");
        assert!(refusal.fields.contains_key(*field), "{field}: {refusal:?}");
    }
    for artifacts in [vec![artifact(); 2], vec![artifact(); 1_001]] {
        let request = CompleteStepRequest { artifacts, ..good.clone() };
        refused(complete(request).await, Code::InvalidArgument, "OUTPUT_INVALID");
    }
    for nano_usd in [-1, i64::MIN, i64::MAX] {
        let request = CompleteStepRequest { cost: Some(v1::Money { nano_usd }), ..good.clone() };
        names(&refused(complete(request).await, Code::InvalidArgument, "FIELD_INVALID"), "cost", "an amount");
    }
    for (field, spoil) in NEXT {
        let mut next =
            v1::NextPoll { queues: vec!["noop".to_owned()], max_steps: 1, ..v1::NextPoll::default() };
        spoil(&mut next);
        let request = CompleteStepRequest { next: Some(next), ..good.clone() };
        names(&refused(complete(request).await, Code::InvalidArgument, "FIELD_INVALID"), field, "next");
    }
    assert_eq!((scene.rows().await, scene.client.events(&run_id).await), before, "nothing has changed");
    // What is within the bounds is taken, and reaches the next step and every reader.
    let next = v1::NextPoll { queues: vec!["noop".to_owned()], max_steps: 1, ..v1::NextPoll::default() };
    let within =
        CompleteStepRequest { output: nested(32), artifacts: vec![artifact()], next: Some(next), ..good };
    let answer = complete(within).await.expect("it is taken").into_inner();
    let next = answer.next.expect("an answer to `next`").leases.remove(0);
    assert_eq!(next.needs["step-1"].output, nested(32));
    let checkpoint = Checkpoint { data: nested(32), ..Hand::at(1, 1, 1) };
    assert_eq!(hand.checkpoint(&next, checkpoint).await.committed_sequence, 1);
    hand.fail(&next, "OOPS", true).await.expect("it is taken");
    let again = hand.take().await;
    assert_eq!(again.checkpoint.and_then(|stored| stored.checkpoint).and_then(|it| it.data), nested(32));
    assert_eq!(scene.client.run(&run_id).await.steps[0].output, nested(32));
    assert!(scene.client.events(&run_id).await.len() > before.1.len());
}

const NEXT: &[Mistake<v1::NextPoll>] = &[
    ("queues", |it| it.queues = Vec::new()),
    ("max_steps", |it| it.max_steps = 0),
    ("request_id", |it| it.request_id = "x".to_owned()),
];

const FAILURES: &[Mistake<FailStepRequest>] = &[
    ("error.code", |it| it.error = None),
    ("error.code", |it| error(it).code = String::new()),
    ("error.code", |it| error(it).code = "lower_case".to_owned()),
    ("error.code", |it| error(it).code = "A".repeat(64)),
    ("error.code", |it| error(it).code = "1ST".to_owned()),
    ("error.message", |it| error(it).message = "a\0b".to_owned()),
    ("error.details", |it| error(it).details = nested(33)),
    ("retry_after", |it| it.retry_after = seconds(24 * 3_600 + 1)),
    ("retry_after", |it| it.retry_after = seconds(-1)),
    ("retry_after", |it| it.retry_after = seconds(i64::MAX)),
    ("cost", |it| it.cost = Some(v1::Money { nano_usd: -1 })),
    ("checkpoint.sequence", |it| it.checkpoint = Some(Checkpoint::default())),
];

fn error(failure: &mut FailStepRequest) -> &mut v1::StepError {
    failure.error.get_or_insert_default()
}

#[tokio::test]
async fn every_field_of_a_failure_and_a_yield_has_its_bound() {
    let scene = Scene::new().await;
    let run_id = scene.client.create("noop", json!({})).await;
    let hand = Hand::new(&scene.client, "hand", &["noop"]);
    let lease = hand.take().await;
    let before = (scene.rows().await, scene.client.events(&run_id).await);
    let good = hand.failure(&lease, "OOPS", true);
    each(&good, FAILURES, async |request| scene.client.executors().fail_step(request).await).await;
    let mut large = good.clone();
    error(&mut large).message = "x".repeat(8 * 1_024);
    let answer = scene.client.executors().fail_step(large).await;
    let refusal = refused(answer, Code::InvalidArgument, "ERROR_TOO_LARGE");
    assert!(refusal.fields.keys().eq(["error"]), "{refusal:?}");
    let checkpoint = Some(Checkpoint { data: nested(33), ..Hand::at(1, 1, 1) });
    let deep = FailStepRequest { checkpoint, ..good };
    refused(scene.client.executors().fail_step(deep).await, Code::InvalidArgument, "CHECKPOINT_TOO_LARGE");
    let back = v1::YieldStepRequest { lease_token: lease.lease_token.clone(), ..Default::default() };
    for reason in [text(1_001), "a\0b".to_owned()] {
        let answer =
            scene.client.executors().yield_step(v1::YieldStepRequest { reason, ..back.clone() }).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "reason", "a yield");
    }
    for many in [0, 1_001] {
        let report = v1::step_report::Report::Yield(back.clone());
        let reports = vec![v1::StepReport { report: Some(report) }; many];
        let request = v1::ReportStepsRequest { reports, ..Default::default() };
        let answer = scene.client.executors().report_steps(request).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), "reports", &many.to_string());
    }
    assert_eq!((scene.rows().await, scene.client.events(&run_id).await), before, "nothing has changed");
    hand.complete(&lease, json!({})).await.expect("the lease is good");
}

#[tokio::test]
async fn a_heartbeat_is_judged_lease_by_lease() {
    let scene = Scene::new().await;
    scene.client.create("noop", json!({})).await;
    let hand = Hand::new(&scene.client, "hand", &["noop"]);
    let lease = hand.take().await;
    let beat = || v1::LeaseHeartbeat { lease_token: lease.lease_token.clone(), ..Default::default() };
    let request = v1::HeartbeatStepsRequest { session_id: hand.session().to_owned(), ..Default::default() };
    let bad: [(&str, v1::HeartbeatStepsRequest); 4] = [
        ("session_id", v1::HeartbeatStepsRequest { session_id: "x".to_owned(), ..request.clone() }),
        ("leases", v1::HeartbeatStepsRequest { leases: vec![beat(); 1_001], ..request.clone() }),
        ("wait", v1::HeartbeatStepsRequest { wait: seconds(51), ..request.clone() }),
        ("wait", v1::HeartbeatStepsRequest { wait: Some(ABSURD[2]), ..request }),
    ];
    for (field, request) in bad {
        let answer = scene.client.executors().heartbeat_steps(request).await;
        names(&refused(answer, Code::InvalidArgument, "FIELD_INVALID"), field, "a heartbeat");
    }

    let with = |checkpoint| v1::LeaseHeartbeat { checkpoint: Some(checkpoint), ..beat() };
    let telling = |progress| v1::LeaseHeartbeat { progress: Some(progress), ..beat() };
    let progress = || Progress { done: 1, total: 2, message: String::new() };
    let mut foreign = artifact();
    foreign.sha256 = "no".to_owned();
    let large = Some(object("a", Kind::StringValue("x".repeat(65_536))));
    // Too deep for a message to be read at all: the call as a whole is refused.
    let deep = with(Checkpoint { data: nested(60), ..Hand::at(1, 1, 1) });
    let answer = hand.heartbeat(vec![deep], std::time::Duration::ZERO, false).await;
    names(&Refusal::of(&answer.expect_err("it is refused")), "leases", "a checkpoint that is too deep");
    let spoilt: Vec<(&str, v1::LeaseHeartbeat)> = vec![
        ("FIELD_INVALID", with(Checkpoint { sequence: 0, ..Hand::at(1, 1, 1) })),
        ("FIELD_INVALID", with(Checkpoint { sequence: -1, ..Hand::at(1, 1, 1) })),
        ("FIELD_INVALID", with(Checkpoint { done: -1, ..Hand::at(1, 1, 1) })),
        ("FIELD_INVALID", with(Checkpoint { total: -1, ..Hand::at(1, 1, 1) })),
        ("CHECKPOINT_TOO_LARGE", with(Checkpoint { data: large, ..Hand::at(1, 1, 1) })),
        (
            "CHECKPOINT_TOO_LARGE",
            with(Checkpoint { artifacts: vec![artifact(); 1_001], ..Hand::at(1, 1, 1) }),
        ),
        ("CHECKPOINT_TOO_LARGE", with(Checkpoint { artifacts: vec![foreign], ..Hand::at(1, 1, 1) })),
        ("FIELD_INVALID", telling(Progress { done: -1, ..progress() })),
        ("FIELD_INVALID", telling(Progress { total: -1, ..progress() })),
        ("FIELD_INVALID", telling(Progress { message: text(201), ..progress() })),
        ("FIELD_INVALID", telling(Progress { message: "a\0b".to_owned(), ..progress() })),
    ];
    for (reason, heartbeat) in spoilt {
        let shown = format!("{heartbeat:?}");
        let answer =
            hand.heartbeat(vec![heartbeat], std::time::Duration::ZERO, false).await.expect("answered");
        let refusal = verdict(answer.leases[0].verdict.as_ref());
        let expected = Refusal { code: Code::InvalidArgument, reason: reason.to_owned(), ..refusal.clone() };
        assert_eq!(refusal, expected, "{shown}");
        assert_eq!(answer.leases[0].committed_sequence, 0);
        assert!(answer.session_remaining.is_some(), "it renews all the same");
    }
    let status = hand.checkpoint(&lease, Hand::at(1, 1, 1)).await;
    assert_eq!((verdict(status.verdict.as_ref()).code, status.committed_sequence), (Code::Ok, 1));
}
