//! How attempts end.

use std::time::Duration;

use longtake_e2e::{Hand, causes, span, step};
use longtake_proto::v1::{self, Directive, Reason, attempt::Cause, run, step::State};
use serde_json::json;

use super::{SOON, bench, plain};

#[tokio::test]
async fn a_repeated_completion_is_no_error_and_changes_nothing() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let first = hand.complete(&lease, json!({"made": 1})).await.expect("accepted");
    assert_eq!(first, v1::Verdict::default());
    let events = bench.client.events(&run_id).await;
    for output in [json!({"made": 1}), json!({"made": 2})] {
        let again = hand.complete(&lease, output).await.expect("no error");
        assert_eq!((again.reason(), again.code), (Reason::LeaseEnded, 0));
    }
    let failed = hand.fail(&lease, "OOPS", true).await.expect("no error");
    assert_eq!(failed.reason(), Reason::LeaseEnded, "the first verdict stands");
    let status = hand.beat(&lease).await;
    assert_eq!(status.verdict.unwrap_or_default().reason(), Reason::LeaseEnded);
    let run = bench.client.succeeded(&run_id, SOON).await;
    assert_eq!(plain(run.steps[0].output.as_ref()), json!({"made": 1}));
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 250_000_000 }), "booked once");
    assert_eq!(bench.client.events(&run_id).await, events);
}

#[tokio::test]
async fn a_completion_may_bring_the_next_step_along() {
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["fork"]);
    let mut lease = hand.take().await;
    let mut executors = bench.client.executors();
    for expected in ["right", "join"] {
        let mut request = hand.completion(&lease, json!({"wanted": true}));
        let next = v1::NextPoll {
            queues: vec!["fork".to_owned()],
            max_steps: 1,
            request_id: uuid::Uuid::new_v4().to_string(),
            executor: None,
        };
        request.next = Some(next);
        let answer = executors.complete_step(request.clone()).await.expect("accepted").into_inner();
        assert_eq!(answer.verdict.clone().unwrap_or_default().reason(), Reason::Unspecified);
        let next = answer.next.expect("an answer to `next`");
        assert_eq!(next.leases.iter().map(|lease| lease.step.as_str()).collect::<Vec<_>>(), [expected]);
        // A repetition gets the same verdict and the same lease.
        let again = executors.complete_step(request).await.expect("no error").into_inner();
        assert_eq!(again.verdict.unwrap_or_default().reason(), Reason::LeaseEnded);
        let again = again.next.expect("an answer to `next`");
        assert_eq!(again.leases[0].lease_token, next.leases[0].lease_token);
        lease = next.leases[0].clone();
        hand.beat(&lease).await;
    }
    hand.complete(&lease, json!({})).await.expect("accepted");
    let run = bench.client.succeeded(&run_id, SOON).await;
    assert!(run.steps.iter().all(|step| step.attempt == 1), "{run:?}");
    assert_eq!(run.steps[2].attempts[0].executor, "hand", "who got it along with a completion is known, too");
}

#[tokio::test]
async fn a_batch_of_reports_is_judged_one_by_one() {
    let bench = bench().await;
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let mut leases = Vec::new();
    for _ in 0..3 {
        bench.client.create("tight", json!({})).await;
        leases.push(hand.take().await);
    }
    use v1::step_report::Report;
    let forged = v1::CompleteStepRequest { lease_token: "0".repeat(74), ..Default::default() };
    let bad = v1::FailStepRequest { error: None, ..hand.failure(&leases[2], "X", true) };
    let back = v1::YieldStepRequest { lease_token: leases[2].lease_token.clone(), ..Default::default() };
    let reports = [
        Some(Report::Complete(hand.completion(&leases[0], json!({})))),
        Some(Report::Complete(forged)),
        Some(Report::Fail(hand.failure(&leases[1], "BROKEN", false))),
        Some(Report::Fail(bad)),
        None,
        Some(Report::Yield(back)),
    ];
    let request = v1::ReportStepsRequest {
        session_id: hand.session().to_owned(),
        reports: reports.into_iter().map(|report| v1::StepReport { report }).collect(),
        next: None,
    };
    let answer = bench.client.executors().report_steps(request).await.expect("answered").into_inner();
    let reasons: Vec<Reason> = answer.verdicts.iter().map(v1::Verdict::reason).collect();
    let ok = Reason::Unspecified;
    let invalid = Reason::FieldInvalid;
    assert_eq!(reasons, [ok, Reason::LeaseUnknown, ok, invalid, invalid, ok]);
    let states: Vec<run::State> = {
        let mut states = Vec::new();
        for lease in &leases {
            states.push(bench.client.run(&lease.run_id).await.state());
        }
        states
    };
    assert_eq!(states, [run::State::Succeeded, run::State::Failed, run::State::Running]);
}

#[tokio::test]
async fn a_failure_that_can_be_retried_is_until_the_budget_is_spent() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let mut failure = hand.failure(&lease, "FLAKY", true);
    failure.cost = Some(v1::Money { nano_usd: 10 });
    failure.checkpoint = Some(Hand::at(1, 3, 9));
    bench.client.executors().fail_step(failure).await.expect("accepted");
    let run = bench.client.run(&run_id).await;
    let budgets = run.steps[0].budgets.expect("budgets");
    assert_eq!((budgets.failures_used, budgets.failures_allowed), (1, 2), "after the checkpoint refilled it");
    assert_eq!(run.steps[0].error.as_ref().map(|error| error.code.as_str()), Some("FLAKY"));
    let second = hand.take().await;
    assert_eq!(second.checkpoint.as_ref().and_then(|it| it.checkpoint.as_ref()).map(|it| it.done), Some(3));
    // Progress refills the budget: this failure is the first again.
    hand.checkpoint(&second, Hand::at(1, 4, 9)).await;
    hand.fail(&second, "FLAKY", true).await.expect("accepted");
    let third = hand.take().await;
    assert_eq!(third.attempt, 3);
    hand.fail(&third, "FLAKY", true).await.expect("accepted");
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), run.steps[0].state()), (run::State::Failed, State::Failed));
    let error = run.error.expect("an error");
    assert_eq!(error.code, "FLAKY");
    assert!(
        error.message.contains("checkpoint 1 of attempt 2"),
        "the checkpoint is named: {}",
        error.message
    );
    assert_eq!(run.spent, Some(v1::Money { nano_usd: 10 }), "what was reported, and no price");
}

#[tokio::test]
async fn an_executor_may_say_when_a_retry_makes_sense() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let mut failure = hand.failure(&lease, "RATE_LIMITED", true);
    failure.retry_after = span(Duration::from_secs(3_600));
    bench.client.executors().fail_step(failure).await.expect("accepted");
    let run = bench.client.run(&run_id).await;
    assert_eq!(run.steps[0].state(), State::BackingOff);
    let retry =
        run.steps[0].next_retry_time.as_ref().and_then(longtake_proto::convert::micros_from_timestamp);
    let now = run.update_time.as_ref().and_then(longtake_proto::convert::micros_from_timestamp);
    let delay = retry.zip(now).map(|(retry, now)| retry - now);
    assert_eq!(delay, Some(3_600_000_000));
}

#[tokio::test]
async fn a_failure_that_cannot_be_retried_ends_the_run_and_stops_what_runs_beside_it() {
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["fork"]);
    let (left, right) = (hand.take().await, hand.take().await);
    hand.fail(&left, "NO_SUCH_FILE", false).await.expect("accepted");
    let run = bench.client.run(&run_id).await;
    assert_eq!((run.state(), run.outcome()), (run::State::Stopping, run::State::Failed));
    assert_eq!(step(&run, "join").state(), State::Cancelled, "what had not begun is cancelled at once");
    let status = hand.beat(&right).await;
    assert_eq!(status.directive(), Directive::Cancel);
    hand.give_back(&right, None).await.expect("accepted");
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), step(&run, "right").state()), (run::State::Failed, State::Cancelled));
    assert_eq!(run.error.expect("an error").code, "NO_SUCH_FILE", "the first cause");
    let late = hand.complete(&right, json!({})).await.expect("no error");
    assert_eq!(late.reason(), Reason::LeaseEnded);
}

#[tokio::test]
async fn yields_without_progress_spend_their_own_budget() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    hand.give_back(&lease, Some(Hand::at(1, 1, 9))).await.expect("accepted");
    let run = bench.client.run(&run_id).await;
    assert_eq!(run.steps[0].state(), State::Ready, "the first yield needs no backoff");
    let budgets = run.steps[0].budgets.expect("budgets");
    assert_eq!(
        (budgets.failures_used, budgets.losses_used, budgets.yields_used, budgets.yields_allowed),
        (0, 0, 1, 3)
    );
    for _ in 0..2 {
        let lease = hand.take().await;
        hand.give_back(&lease, None).await.expect("accepted");
    }
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), causes(&run.steps[0])), (run::State::Failed, vec![Cause::Yielded; 3]));
}
