//! What time does to work.

use std::time::{Duration, Instant};

use longtake_e2e::{Hand, Refusal, causes, eventually, kinds, pass, span, step};
use longtake_proto::v1::{self, Reason, attempt::Cause, extend_deadline_request::Target, run, step::State};
use serde_json::json;
use tonic::Code;

use super::{Operation, SOON, beat, bench, in_seconds};

#[tokio::test]
async fn alive_is_not_the_same_as_getting_on() {
    let bench = bench().await;
    let run_id = bench.client.create("progress", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["progress"]);
    let lease = hand.take().await;
    assert_eq!(lease.progress_timeout, span(Duration::from_secs(1)));
    // It heartbeats, and for a while it also gets on.
    let began = Instant::now();
    let lost = eventually(SOON, async || {
        let done = i64::try_from(began.elapsed().as_millis() / 100).unwrap_or_default().min(20);
        let progress = Some(v1::Progress { done, total: 20, message: "working".to_owned() });
        let heartbeat = v1::LeaseHeartbeat { progress, ..beat(&lease) };
        let answer = hand.heartbeat(vec![heartbeat], Duration::ZERO, false).await.expect("answered");
        let verdict = answer.leases[0].verdict.clone().unwrap_or_default();
        if verdict.reason() == Reason::LeaseSuperseded {
            Ok(began.elapsed())
        } else {
            Err(format!("{verdict:?}"))
        }
    })
    .await;
    assert!((2_900..5_000).contains(&lost.as_millis()), "a second after it stood still: {lost:?}");
    let run = bench.client.run(&run_id).await;
    let progress = step(&run, "progress");
    assert_eq!(causes(progress)[0], Cause::NoProgress);
    assert_eq!(progress.budgets.map(|budgets| budgets.failures_used), Some(1));
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_taken_back_unless_its_deadline_is_moved() {
    let bench = bench().await;
    let run_id = bench.client.create("attempt", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["attempt"]);
    let lease = hand.take().await;
    assert!(lease.attempt_remaining.is_some() && lease.deadline_remaining.is_some(), "{lease:?}");
    let run =
        bench.client.until(&run_id, SOON, |run| step(run, "attempt").attempts[0].end_time.is_some()).await;
    assert_eq!(causes(step(&run, "attempt"))[0], Cause::AttemptTimeout);

    let second = hand.take().await;
    let request = v1::ExtendDeadlineRequest {
        run_id: run_id.clone(),
        target: Target::Attempt.into(),
        step: "attempt".to_owned(),
        deadline: in_seconds(60),
        ..Default::default()
    };
    bench.client.runs().extend_deadline(request.clone()).await.expect("accepted");
    pass(Duration::from_millis(1_500)).await;
    hand.complete(&second, json!({})).await.expect("its time is not up");
    let status = bench.client.runs().extend_deadline(request).await.expect_err("the run has ended");
    let refusal = Refusal::of(&status);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::FailedPrecondition, "RUN_STATE"),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn a_step_and_a_run_have_deadlines_that_nothing_refills() {
    let bench = bench().await;
    let run_id = bench.client.create("whole", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["whole"]);
    let lease = hand.take().await;
    let run = bench.client.until(&run_id, SOON, |run| step(run, "whole").state() == State::TimedOut).await;
    assert!(matches!(run.state(), run::State::Stopping | run::State::TimedOut), "{run:?}");
    let status = hand.complete(&lease, json!({})).await.expect_err("too late");
    assert_eq!(Refusal::of(&status).reason, "RUN_STOPPED");
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!(
        (run.state(), run.error.expect("an error").code),
        (run::State::TimedOut, "STEP_TIMEOUT".to_owned())
    );

    let request =
        v1::CreateRunRequest { workflow: "tight".to_owned(), deadline: in_seconds(2), ..Default::default() };
    let run =
        bench.client.runs().create_run(request).await.expect("accepted").into_inner().run.expect("the run");
    let ended = bench.client.ended(&run.run_id, SOON).await;
    assert_eq!((ended.state(), ended.steps[0].state()), (run::State::TimedOut, State::Cancelled));
    let request =
        v1::RetryRunRequest { run_id: run.run_id.clone(), deadline: in_seconds(60), ..Default::default() };
    bench.client.runs().retry_run(request).await.expect("with a new one it goes on");
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let lease = hand.take().await;
    hand.complete(&lease, json!({})).await.expect("accepted");
    bench.client.succeeded(&run.run_id, SOON).await;
}

#[tokio::test]
async fn a_deadline_that_has_fired_is_past_and_so_is_that_of_an_attempt_that_is_not_live() {
    let bench = bench().await;
    let extend = async |run_id: &str, target: Target, step: &str| {
        let request = v1::ExtendDeadlineRequest {
            run_id: run_id.to_owned(),
            target: target.into(),
            step: step.to_owned(),
            deadline: in_seconds(60),
            ..Default::default()
        };
        let status = bench.client.runs().extend_deadline(request).await.expect_err("it is refused");
        let refusal = Refusal::of(&status);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::FailedPrecondition, "DEADLINE_PASSED"),
            "{refusal:?}"
        );
    };
    let waiting = bench.client.create("attempt", json!({})).await;
    extend(&waiting, Target::Attempt, "attempt").await;
    let (hand, run_id, lease) = bench.working().await;
    hand.give_back(&lease, None).await.expect("accepted");
    extend(&run_id, Target::Attempt, "work").await;
}

#[tokio::test]
async fn a_retry_after_the_deadline_needs_a_new_one() {
    let bench = bench().await;
    let request =
        v1::CreateRunRequest { workflow: "tight".to_owned(), deadline: in_seconds(2), ..Default::default() };
    let run =
        bench.client.runs().create_run(request).await.expect("accepted").into_inner().run.expect("the run");
    bench.client.ended(&run.run_id, SOON).await;
    let status = bench.operate(Operation::Retry, &run.run_id).await.expect_err("its deadline has passed");
    let refusal = Refusal::of(&status);
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::InvalidArgument, "FIELD_INVALID"),
        "{refusal:?}"
    );
    assert!(refusal.fields.contains_key("deadline"), "{refusal:?}");
}

#[tokio::test]
async fn deadlines_of_steps_and_runs_can_be_set_anew() {
    let bench = bench().await;
    let request =
        v1::CreateRunRequest { workflow: "whole".to_owned(), deadline: in_seconds(3), ..Default::default() };
    let run = bench.client.runs().create_run(request).await.expect("accepted").into_inner().run;
    let run_id = run.expect("the run").run_id;
    let hand = Hand::new(&bench.client, "hand", &["whole"]);
    let lease = hand.take().await;
    for (target, step) in [(Target::Run, ""), (Target::Step, "whole")] {
        let request = v1::ExtendDeadlineRequest {
            run_id: run_id.clone(),
            target: target.into(),
            step: step.to_owned(),
            deadline: in_seconds(60),
            ..Default::default()
        };
        bench.client.runs().extend_deadline(request).await.expect("accepted");
    }
    pass(Duration::from_millis(3_500)).await;
    let run = bench.client.run(&run_id).await;
    assert_eq!((run.state(), step(&run, "whole").state()), (run::State::Running, State::Running));
    hand.complete(&lease, json!({})).await.expect("accepted");
    bench.client.succeeded(&run_id, SOON).await;
    let events = bench.client.events(&run_id).await;
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "deadline_extended").count(), 2);
}
