//! What operators do to running work.

use std::time::Duration;

use longtake_e2e::{Hand, Refusal};
use longtake_proto::v1::{self, Directive, run, step::State};
use serde_json::json;
use tonic::Code;

use super::{Operation, SOON, bench, explain};

#[tokio::test]
async fn a_cancelled_run_tells_its_executors_and_keeps_what_they_still_finish() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let request_id = uuid::Uuid::new_v4().to_string();
    let run = bench.operate_as(Operation::Cancel, &run_id, &request_id).await.expect("accepted");
    assert_eq!((run.state(), run.outcome()), (run::State::Stopping, run::State::Cancelled));
    let events = bench.client.events(&run_id).await.len();
    let run =
        bench.operate_as(Operation::Cancel, &run_id, &request_id).await.expect("a repetition is no error");
    assert_eq!(run.state(), run::State::Stopping);
    let run = bench.operate(Operation::Cancel, &run_id).await.expect("nor is asking again");
    assert_eq!(run.state(), run::State::Stopping);
    assert_eq!(bench.client.events(&run_id).await.len(), events, "it changes nothing");
    assert_eq!(hand.beat(&lease).await.directive(), Directive::Cancel);
    // A completion is still taken until the executor has acknowledged.
    hand.complete(&lease, json!({"made": "after all"})).await.expect("accepted");
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), run.steps[0].state()), (run::State::Cancelled, State::Succeeded));
    bench.operate(Operation::Cancel, &run_id).await.expect("it is what was asked for");
    let status = bench.operate(Operation::Resume, &run_id).await.expect_err("it has ended");
    assert_eq!(Refusal::of(&status).reason, "RUN_STATE");
}

#[tokio::test]
async fn a_run_that_stops_for_another_cause_is_not_cancelled() {
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["fork"]);
    let (left, right) = (hand.take().await, hand.take().await);
    hand.fail(&left, "NO_LICENCE", false).await.expect("accepted");
    let status = bench.operate(Operation::Cancel, &run_id).await.expect_err("it will be FAILED");
    let refusal = Refusal::of(&status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "RUN_STATE"));
    assert!(refusal.message.contains("FAILED"), "{refusal:?}");
    hand.give_back(&right, None).await.expect("accepted");
    assert_eq!(bench.client.ended(&run_id, SOON).await.state(), run::State::Failed);
}

#[tokio::test]
async fn a_run_that_nobody_works_on_is_cancelled_at_once_and_can_be_retried() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    hand.give_back(&lease, Some(Hand::at(1, 4, 9))).await.expect("accepted");
    let run = bench.operate(Operation::Cancel, &run_id).await.expect("accepted");
    assert_eq!(run.state(), run::State::Cancelled);
    assert!(hand.poll(Duration::ZERO).await.expect("answered").leases.is_empty(), "it is not dispatched");
    let run = bench.operate(Operation::Retry, &run_id).await.expect("accepted");
    assert_eq!((run.state(), run.steps[0].state()), (run::State::Running, State::Ready));
    assert_eq!(run.steps[0].budgets.map(|budgets| budgets.yields_used), Some(0), "a fresh budget");
    let again = hand.take().await;
    assert_eq!((again.attempt, &again.effect_key), (2, &lease.effect_key));
    let kept = again.checkpoint.as_ref().and_then(|stored| stored.checkpoint.as_ref());
    assert_eq!(kept.map(|checkpoint| checkpoint.done), Some(4), "the old checkpoint");
    hand.complete(&again, json!({})).await.expect("accepted");
    let run = bench.client.succeeded(&run_id, SOON).await;
    assert_eq!(run.saved, Some(v1::Money { nano_usd: 0 }));
    for operation in [Operation::Cancel, Operation::Pause, Operation::Resume, Operation::Retry] {
        let status = bench.operate(operation, &run_id).await.expect_err("it has succeeded");
        let refusal = Refusal::of(&status);
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::FailedPrecondition, "RUN_STATE"),
            "{operation:?}"
        );
    }
}

#[tokio::test]
async fn a_paused_run_is_not_dispatched_until_it_is_resumed() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let run = bench.operate(Operation::Pause, &run_id).await.expect("accepted");
    assert_eq!((run.state(), run.state_reason.as_str()), (run::State::Paused, "a test"));
    assert_eq!(hand.beat(&lease).await.directive(), Directive::Pause);
    hand.give_back(&lease, Some(Hand::at(1, 2, 9))).await.expect("accepted");
    assert_eq!(bench.client.run(&run_id).await.steps[0].state(), State::Ready);
    assert!(hand.poll(Duration::from_millis(500)).await.expect("answered").leases.is_empty());
    let explained = explain(&bench.client, &run_id).await;
    let waiting = explained.steps[0].waiting_for();
    assert_eq!(waiting, v1::step_explanation::WaitingFor::Resume, "{explained:?}");
    assert!(explained.actions.iter().any(|action| action.method == "longtake.v1.RunService/ResumeRun"));
    let held = tokio::spawn({
        let hand = hand.clone();
        async move { hand.poll(Duration::from_secs(20)).await }
    });
    let run = bench.operate(Operation::Resume, &run_id).await.expect("accepted");
    assert_eq!(run.state(), run::State::Running);
    let again = held.await.expect("no panic").expect("answered").leases.remove(0);
    assert_eq!((again.attempt, again.checkpoint.is_some()), (2, true));
}

#[tokio::test]
async fn a_spent_budget_may_pause_the_run_instead() {
    let bench = bench().await;
    let run_id = bench.client.create("pausing", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    for _ in 0..2 {
        let lease = hand.take().await;
        hand.fail(&lease, "DISK_FULL", true).await.expect("accepted");
    }
    let run = bench.client.until(&run_id, SOON, |run| run.state() == run::State::Paused).await;
    assert_eq!(run.steps[0].state(), State::Ready);
    assert!(
        run.state_reason.contains("work") && run.state_reason.contains("2 failures"),
        "{}",
        run.state_reason
    );
    bench.operate(Operation::Resume, &run_id).await.expect("accepted");
    let lease = hand.take().await;
    let budgets = bench.client.run(&run_id).await.steps[0].budgets;
    assert_eq!((lease.attempt, budgets.map(|budgets| budgets.failures_used)), (3, Some(0)));
    // What cannot be retried needs a look, too.
    hand.fail(&lease, "NO_LICENCE", false).await.expect("accepted");
    let run = bench.client.run(&run_id).await;
    assert_eq!((run.state(), run.steps[0].state()), (run::State::Paused, State::Ready));
}
