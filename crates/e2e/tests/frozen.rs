//! An executor that was frozen past its lease and goes on as if nothing had happened: what it says does not count any more, is kept
//! in history, and changes nothing.

use std::time::Duration;

use longtake_e2e::{
    Hand, Refusal, Signal, Spy, World, causes, content_request, content_with_short_leases, definitions,
    eventually, kinds, refused_reports, step,
};
use longtake_proto::v1::{self, Modality, Reason, ReportKind, attempt::Cause, step::State};
use serde_json::json;
use tonic::Code;

const RUN: Duration = Duration::from_secs(90);
const LOST: Duration = Duration::from_secs(15);
const SINGLE: &str = r#"
format = 1
name = "single"

[[step]]
name = "work"
heartbeat_timeout = "3s"
price_usd = "0.5"
"#;

#[tokio::test]
async fn a_thawed_executor_is_told_that_it_is_late() {
    let world = World::new().await;
    let server = world.server_with(&content_with_short_leases(world.folder("definitions"))).await;
    let client = server.client();
    let spy = Spy::new(&world);
    spy.hold(2);
    spy.hold(3);
    let _writer = world.executor(&server, "writer", &["script", "audio", "finalize"]).start();
    let frozen = world.executor(&server, "frozen", &["video"]).watched_by(&spy).start();
    let run_id = client.submit(content_request(&[Modality::Video], 3)).await;
    spy.rendering("frozen", 2).await;
    let committed = |run: &v1::Run| {
        let stored = step(run, "video").checkpoint.clone();
        stored.and_then(|stored| stored.checkpoint).unwrap_or_default()
    };
    client.until(&run_id, RUN, |run| committed(run).done == 1).await;

    frozen.signal(Signal::Stop);
    let _second = world.executor(&server, "second", &["video"]).watched_by(&spy).start();
    client.until(&run_id, LOST, |run| step(run, "video").attempts.len() == 2).await;
    // Both render scene 2 now; the frozen one is done with it, and does not know.
    spy.release(2);
    let before = client.until(&run_id, RUN, |run| committed(run).done == 2).await;
    let history = client.events(&run_id).await;

    frozen.signal(Signal::Continue);
    let late = eventually(LOST, async || {
        let events = client.events(&run_id).await;
        let refused: Vec<v1::ReportRefused> = refused_reports(&events).into_iter().cloned().collect();
        if refused.is_empty() { Err(format!("{:?}", kinds(&events))) } else { Ok(refused) }
    })
    .await;
    assert!(late.iter().all(|refused| (refused.step.as_str(), refused.attempt) == ("video", 1)), "{late:?}");
    eventually(LOST, async || {
        let said = frozen.said();
        if said.contains("LEASE_SUPERSEDED") { Ok(()) } else { Err(said) }
    })
    .await;

    // The second executor is held: whatever else had changed would be the late one's doing.
    let after = client.run(&run_id).await;
    let (video_before, video_after) = (step(&before, "video"), step(&after, "video"));
    assert_eq!(committed(&before), committed(&after));
    assert_eq!(video_before.attempts.len(), video_after.attempts.len());
    assert_eq!(video_before.attempts[0].end_time, video_after.attempts[0].end_time);
    assert_eq!((video_after.state(), video_after.budgets), (video_before.state(), video_before.budgets));
    assert_eq!(after.spent, before.spent);
    let events = client.events(&run_id).await;
    assert_eq!(events[..history.len()], history[..]);
    let since = kinds(&events[history.len()..]);
    assert!(since.iter().all(|kind| *kind == "report_refused"), "{since:?}");

    spy.release(3);
    let run = client.succeeded(&run_id, RUN).await;
    assert_eq!(causes(step(&run, "video")), [Cause::LeaseLost, Cause::Completed]);
    assert_eq!(spy.renders_of("second"), [2, 3]);
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 200_000_000 }));
}

#[tokio::test]
async fn each_kind_of_late_report_is_refused_and_noted_once() {
    let world = World::new().await;
    let single = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let server = world.server_with(&single).await;
    let client = server.client();
    let (late, live) = (Hand::new(&client, "late", &["work"]), Hand::new(&client, "live", &["work"]));
    let run_id = client.create("single", json!({})).await;
    let lost = late.take().await;
    late.checkpoint(&lost, Hand::at(1, 3, 9)).await;
    client.until(&run_id, LOST, |run| step(run, "work").state() != State::Running).await;
    let held = live.take().await;
    assert_eq!(
        (held.attempt, held.previous_end.as_ref().map(v1::AttemptEnd::cause)),
        (2, Some(Cause::LeaseLost))
    );
    let before = (client.run(&run_id).await, client.events(&run_id).await);

    for _ in 0..2 {
        let status = late.complete(&lost, json!({"late": true})).await.expect_err("it is late");
        superseded(&Refusal::of(&status));
        let status = late.fail(&lost, "TOO_LATE", false).await.expect_err("it is late");
        superseded(&Refusal::of(&status));
        let status = late.give_back(&lost, Some(Hand::at(2, 9, 9))).await.expect_err("it is late");
        superseded(&Refusal::of(&status));
        let status = late.checkpoint(&lost, Hand::at(3, 9, 9)).await;
        let verdict = status.verdict.expect("a verdict");
        assert_eq!(verdict.reason(), Reason::LeaseSuperseded, "{verdict:?}");
        assert_eq!((Code::from(verdict.code), verdict.current_attempt), (Code::FailedPrecondition, 2));
        assert!(verdict.superseded_time.is_some() && !verdict.message.is_empty());
    }

    let (run, events) = (client.run(&run_id).await, client.events(&run_id).await);
    let fresh = &events[before.1.len()..];
    assert!(kinds(fresh).iter().all(|kind| *kind == "report_refused"), "{:?}", kinds(fresh));
    let noted: Vec<(i32, ReportKind)> =
        refused_reports(fresh).into_iter().map(|refused| (refused.attempt, refused.kind())).collect();
    let kinds = [ReportKind::Complete, ReportKind::Fail, ReportKind::Yield, ReportKind::Heartbeat];
    assert_eq!(noted, kinds.map(|kind| (1, kind)), "the first of each kind");
    let (work_before, work_after) = (step(&before.0, "work"), step(&run, "work"));
    assert_eq!(
        work_before.checkpoint, work_after.checkpoint,
        "the checkpoint is the one that was committed in time"
    );
    assert_eq!(
        (work_after.state(), work_after.attempt, work_after.cost),
        (State::Running, 2, work_before.cost)
    );
    assert_eq!(work_after.budgets, work_before.budgets);

    live.complete(&held, json!({"late": false})).await.expect("the live one is accepted");
    let run = client.succeeded(&run_id, LOST).await;
    let output = step(&run, "work").output.clone().map(longtake_proto::convert::json_from_struct);
    assert_eq!(output, json!({"late": false}).as_object().cloned());
    // The verdict on a late report stays for as long as the run is stored.
    let status = late.complete(&lost, json!({"late": true})).await.expect_err("it is late still");
    superseded(&Refusal::of(&status));
}

#[tokio::test]
async fn a_late_report_may_say_once_what_its_attempt_cost() {
    let world = World::new().await;
    let single = definitions(world.folder("definitions"), &[("single", SINGLE)]);
    let server = world.server_with(&single).await;
    let client = server.client();
    let (late, live) = (Hand::new(&client, "late", &["work"]), Hand::new(&client, "live", &["work"]));
    let run_id = client.create("single", json!({})).await;
    let lost = late.take().await;
    client.until(&run_id, LOST, |run| step(run, "work").state() != State::Running).await;
    let held = live.take().await;
    for nano_usd in [70_000_000, 90_000_000] {
        let mut request = late.completion(&lost, json!({}));
        request.cost = Some(v1::Money { nano_usd });
        let status = client.executors().complete_step(request).await.expect_err("it is late");
        superseded(&Refusal::of(&status));
    }
    live.complete(&held, json!({})).await.expect("the live one is accepted");
    let run = client.succeeded(&run_id, LOST).await;
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 570_000_000 }), "what was said first, and the price");
    let events = client.events(&run_id).await;
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "cost_booked").count(), 1);
}

fn superseded(refusal: &Refusal) {
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::FailedPrecondition, "LEASE_SUPERSEDED"),
        "{refusal:?}"
    );
    assert_eq!(refusal.metadata.get("current_attempt").map(String::as_str), Some("2"), "{refusal:?}");
}
