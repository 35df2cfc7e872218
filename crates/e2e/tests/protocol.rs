//! The executor's side of the contract against the real server, call by call, and what operators do to running work.

use std::time::{Duration, Instant};

use longtake_e2e::{
    Client, Hand, Refusal, Server, World, causes, definitions, eventually, kinds, pass, span, step,
};
use longtake_proto::v1::{self, Directive, Reason, StepLease, attempt::Cause, run, step::State};
use serde_json::{Value, json};
use tonic::Code;

const SOON: Duration = Duration::from_secs(10);
/// One step with every limit tight, and short backoffs.
const TIGHT: &str = r#"
format = 1
name = "tight"

[[step]]
name = "work"
price_usd = "0.25"
heartbeat_timeout = "3s"
retry = { initial_delay = "20ms", max_delay = "50ms" }
budgets = { failures = 2, losses = 2, yields = 3 }
"#;
/// Two steps in one queue, then one that needs both.
const FORK: &str = r#"
format = 1
name = "fork"

[[step]]
name = "left"
queue = "fork"

[[step]]
name = "right"
queue = "fork"

[[step]]
name = "join"
queue = "fork"
needs = ["left", "right"]
when = "steps.left.output.wanted"
"#;
/// One step that pauses its run instead of failing.
const PAUSING: &str = r#"
format = 1
name = "pausing"

[[step]]
name = "work"
on_exhausted = "pause"
retry = { initial_delay = "20ms", max_delay = "50ms" }
budgets = { failures = 2 }
"#;
/// One step with a clock of its own each.
const TIMED: &str = r#"
format = 1
name = "timed"

[[step]]
name = "progress"
progress_timeout = "1s"
retry = { initial_delay = "20ms", max_delay = "50ms" }

[[step]]
name = "attempt"
attempt_timeout = "1s"
retry = { initial_delay = "20ms", max_delay = "50ms" }

[[step]]
name = "whole"
step_timeout = "2s"
"#;

struct Bench {
    world: World,
    server: Server,
    client: Client,
}

async fn bench() -> Bench {
    let world = World::new().await;
    let files = [("tight", TIGHT), ("fork", FORK), ("pausing", PAUSING), ("timed", TIMED)];
    let folder = definitions(world.folder("definitions"), &files);
    let server = world.server_with(&folder).await;
    let client = server.client();
    Bench { world, server, client }
}

impl Bench {
    /// A run of `tight` whose step a hand works on.
    async fn working(&self) -> (Hand, String, StepLease) {
        let run_id = self.client.create("tight", json!({"topic": "light"})).await;
        let hand = Hand::new(&self.client, "hand", &["work"]);
        let lease = hand.take().await;
        (hand, run_id, lease)
    }

    async fn operate(&self, what: Operation, run_id: &str) -> Result<v1::Run, tonic::Status> {
        self.operate_as(what, run_id, "").await
    }

    async fn operate_as(&self, what: Operation, run_id: &str, request_id: &str) -> Result<v1::Run, tonic::Status> {
        let (run_id, request_id, reason) = (run_id.to_owned(), request_id.to_owned(), "a test".to_owned());
        let mut runs = self.client.runs();
        let run = match what {
            Operation::Cancel => {
                runs.cancel_run(v1::CancelRunRequest { run_id, request_id, reason }).await?.into_inner().run
            }
            Operation::Pause => {
                runs.pause_run(v1::PauseRunRequest { run_id, request_id, reason }).await?.into_inner().run
            }
            Operation::Resume => runs.resume_run(v1::ResumeRunRequest { run_id, request_id }).await?.into_inner().run,
            Operation::Retry => {
                let request = v1::RetryRunRequest { run_id, request_id, deadline: None };
                runs.retry_run(request).await?.into_inner().run
            }
        };
        Ok(run.expect("the run"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Cancel,
    Pause,
    Resume,
    Retry,
}

// --- polls ---

#[tokio::test]
async fn a_lease_brings_everything_that_the_work_needs() {
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({"topic": "light"})).await;
    let hand = Hand::new(&bench.client, "hand", &["fork"]);
    let (left, right) = (hand.take().await, hand.take().await);
    assert_eq!((left.step.as_str(), right.step.as_str()), ("left", "right"));
    for lease in [&left, &right] {
        assert_eq!((lease.run_id.as_str(), lease.workflow.as_str(), lease.queue.as_str()), (run_id.as_str(), "fork", "fork"));
        assert_eq!((lease.attempt, lease.previous_end.as_ref(), lease.checkpoint.as_ref()), (1, None, None));
        assert_eq!(plain(lease.input.as_ref()), json!({"topic": "light"}));
        assert_eq!(lease.workflow_version.len(), 64);
        assert!(lease.heartbeat_timeout.is_some() && lease.progress_timeout.is_none(), "{lease:?}");
        assert!(lease.lease_token.chars().all(|c| c.is_ascii_graphic()) && !lease.lease_token.is_empty());
    }
    assert_ne!(left.effect_key, right.effect_key);
    assert_ne!(left.lease_token, right.lease_token);
    hand.complete(&left, json!({"wanted": true, "n": 7})).await.expect("accepted");
    hand.complete(&right, json!({})).await.expect("accepted");
    let join = hand.take().await;
    let needed: Vec<&str> = {
        let mut names: Vec<&str> = join.needs.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    };
    assert_eq!((join.step.as_str(), needed), ("join", vec!["left", "right"]));
    assert_eq!(plain(join.needs["left"].output.as_ref()), json!({"wanted": true, "n": 7}));
    assert_eq!(join.needs["left"].state(), State::Succeeded);
    hand.complete(&join, json!({})).await.expect("accepted");
    bench.client.succeeded(&run_id, SOON).await;
}

#[tokio::test]
async fn a_condition_on_an_output_skips_and_a_broken_one_fails() {
    let bench = bench().await;
    let hand = Hand::new(&bench.client, "hand", &["fork"]);
    for (output, state) in [(json!({"wanted": false}), State::Skipped), (json!({}), State::Failed)] {
        let run_id = bench.client.create("fork", json!({})).await;
        for _ in 0..2 {
            let lease = hand.take().await;
            hand.complete(&lease, output.clone()).await.expect("accepted");
        }
        let run = bench.client.ended(&run_id, SOON).await;
        assert_eq!(step(&run, "join").state(), state, "{output}");
        let failed = state == State::Failed;
        assert_eq!(run.state(), if failed { run::State::Failed } else { run::State::Succeeded });
        if failed {
            assert_eq!(run.error.as_ref().map(|error| error.code.as_str()), Some("WHEN_FAILED"), "{run:?}");
        }
    }
}

#[tokio::test]
async fn a_repeated_poll_gets_the_same_lease() {
    let bench = bench().await;
    let run_id = bench.client.create("tight", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let request = hand.poll_request(Duration::from_secs(5));
    let mut executors = bench.client.executors();
    let first = executors.poll_steps(request.clone()).await.expect("answered").into_inner();
    let again = executors.poll_steps(request.clone()).await.expect("answered").into_inner();
    assert_eq!(first.leases.len(), 1);
    assert_eq!(first.leases[0].lease_token, again.leases[0].lease_token);
    assert_eq!(bench.client.run(&run_id).await.steps[0].attempt, 1, "it is one attempt");
    // Once its executor was heard of it is not granted again.
    hand.beat(&first.leases[0]).await;
    let request = v1::PollStepsRequest { wait: None, ..request };
    let later = executors.poll_steps(request).await.expect("answered").into_inner();
    assert!(later.leases.is_empty(), "{later:?}");
}

#[tokio::test]
async fn a_poll_is_held_until_there_is_a_step_or_its_time_is_up() {
    let bench = bench().await;
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let began = Instant::now();
    let empty = hand.poll(Duration::from_secs(1)).await.expect("answered");
    assert!(empty.leases.is_empty() && began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let held = tokio::spawn({
        let hand = hand.clone();
        async move { hand.poll(Duration::from_secs(30)).await }
    });
    pass(Duration::from_millis(300)).await;
    let began = Instant::now();
    bench.client.create("tight", json!({})).await;
    let granted = held.await.expect("no panic").expect("answered");
    assert_eq!(granted.leases.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(2), "a step that becomes ready is given away at once");
    assert!(granted.next_heartbeat_delay.is_some());
}

#[tokio::test]
async fn a_poller_that_goes_away_loses_nothing() {
    let bench = bench().await;
    let gone = Hand::new(&bench.client, "gone", &["work"]);
    for _ in 0..20 {
        let held = tokio::spawn({
            let gone = gone.clone();
            async move { gone.poll(Duration::from_secs(30)).await }
        });
        pass(Duration::from_millis(30)).await;
        held.abort();
    }
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(bench.client.create("tight", json!({})).await);
    }
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let began = Instant::now();
    for _ in &runs {
        let lease = hand.take().await;
        hand.complete(&lease, json!({})).await.expect("accepted");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "no step waits for a dispatch timeout: {:?}", began.elapsed());
    for run_id in runs {
        bench.client.succeeded(&run_id, SOON).await;
    }
}

#[tokio::test]
async fn a_poller_that_goes_away_just_when_it_is_given_a_step_hands_it_back() {
    let bench = bench().await;
    for _ in 0..20 {
        let gone = Hand::new(&bench.client, "gone", &["work"]);
        let held = tokio::spawn(async move { gone.poll(Duration::from_secs(30)).await });
        let run_id = bench.client.create("tight", json!({})).await;
        held.abort();
        let hand = Hand::new(&bench.client, "hand", &["work"]);
        let lease = hand.take().await;
        assert_eq!(lease.run_id, run_id);
        hand.complete(&lease, json!({})).await.expect("accepted");
        let run = bench.client.succeeded(&run_id, SOON).await;
        let attempts = causes(&run.steps[0]);
        assert!(
            matches!(attempts.as_slice(), [Cause::Completed] | [Cause::DispatchTimeout, Cause::Completed]),
            "{attempts:?}"
        );
    }
}

#[tokio::test]
async fn what_nobody_is_heard_of_goes_back_after_the_dispatch_timeout() {
    let bench = bench().await;
    let run_id = bench.client.create("tight", json!({})).await;
    let silent = Hand::new(&bench.client, "silent", &["work"]);
    let lost = silent.lease().await;
    let began = Instant::now();
    let run = bench.client.until(&run_id, Duration::from_secs(16), |run| run.steps[0].state() != State::Leased).await;
    let took = began.elapsed();
    // The session of three seconds ends first where it was committed; a lease that was never taken up has ten.
    assert!(took < Duration::from_secs(13), "{took:?}");
    let cause = causes(&run.steps[0])[0];
    assert!(matches!(cause, Cause::DispatchTimeout | Cause::LeaseLost), "{cause:?}");
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let lease = hand.take().await;
    assert_eq!(lease.attempt, 2);
    let late = silent.beat(&lost).await;
    assert_eq!(late.verdict.unwrap_or_default().reason(), Reason::LeaseSuperseded);
    hand.complete(&lease, json!({})).await.expect("accepted");
    bench.client.succeeded(&run_id, SOON).await;
}

#[tokio::test]
async fn larger_priorities_and_older_steps_go_first() {
    let bench = bench().await;
    let mut ids = Vec::new();
    for priority in [0, 5, -5, 5, 0] {
        let request = v1::CreateRunRequest { workflow: "tight".to_owned(), priority, ..Default::default() };
        let run = bench.client.runs().create_run(request).await.expect("accepted").into_inner().run.expect("the run");
        ids.push(run.run_id);
    }
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let mut order = Vec::new();
    for _ in &ids {
        let lease = hand.take().await;
        order.push(ids.iter().position(|id| *id == lease.run_id).expect("one of them"));
    }
    assert_eq!(order, [1, 3, 0, 4, 2]);
}

// --- heartbeats and checkpoints ---

#[tokio::test]
async fn checkpoints_are_acknowledged_in_order_and_a_bare_heartbeat_leaves_them_alone() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    assert_eq!(hand.beat(&lease).await.committed_sequence, 0);
    for (sent, committed) in [(1, 1), (4, 4), (4, 4), (2, 4), (5, 5)] {
        let status = hand.checkpoint(&lease, Hand::at(sent, sent, 9)).await;
        assert_eq!(status.committed_sequence, committed, "after {sent}");
        assert_eq!(stored(&bench.client.run(&run_id).await).sequence, committed);
    }
    assert_eq!(hand.beat(&lease).await.committed_sequence, 5);
    let kept = stored(&bench.client.run(&run_id).await);
    assert_eq!((kept.sequence, kept.done, kept.total), (5, 5, 9));
    assert_eq!(plain(kept.data.as_ref()), json!({"reached": 5}));
    let events = bench.client.events(&run_id).await;
    assert_eq!(kinds(&events).iter().filter(|kind| **kind == "checkpoint_committed").count(), 3);

    // The next attempt gets it, and numbers its own from 1 again.
    hand.fail(&lease, "OOPS", true).await.expect("accepted");
    let second = hand.take().await;
    let handed = second.checkpoint.clone().expect("the checkpoint");
    assert_eq!((second.attempt, handed.attempt), (2, 1));
    assert_eq!(handed.checkpoint, Some(kept));
    assert_eq!(second.effect_key, lease.effect_key, "the same for every attempt");
    let end = second.previous_end.as_ref().expect("the previous end");
    assert_eq!((end.cause(), end.message.is_empty()), (Cause::Failed, false));
    assert_eq!(hand.beat(&second).await.committed_sequence, 0, "of this attempt");
    assert_eq!(hand.checkpoint(&second, Hand::at(1, 6, 9)).await.committed_sequence, 1);
    let kept = stored(&bench.client.run(&run_id).await);
    assert_eq!((kept.sequence, kept.done), (1, 6));
}

#[tokio::test]
async fn a_checkpoint_that_is_too_large_is_refused_and_the_lease_stays() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;
    let data = longtake_proto::convert::struct_from_json(json!({"big": "x".repeat(65_536)}));
    let status = hand.checkpoint(&lease, v1::Checkpoint { data, ..Hand::at(2, 2, 9) }).await;
    let verdict = status.verdict.expect("a verdict");
    assert_eq!((verdict.reason(), Code::from(verdict.code)), (Reason::CheckpointTooLarge, Code::InvalidArgument));
    assert_eq!(status.committed_sequence, 1);
    assert_eq!(stored(&bench.client.run(&run_id).await).sequence, 1);
    let verdict = hand.complete(&lease, json!({})).await.expect("the lease is good");
    assert_eq!(verdict.reason(), Reason::Unspecified);
}

#[tokio::test]
async fn a_session_that_ends_loses_its_leases_and_a_poll_opens_it_again() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;
    let began = Instant::now();
    let run = bench.client.until(&run_id, SOON, |run| run.steps[0].state() != State::Running).await;
    let took = began.elapsed();
    assert!((2_500..6_000).contains(&took.as_millis()), "three seconds after it was last heard of: {took:?}");
    assert_eq!(causes(&run.steps[0])[0], Cause::LeaseLost);
    assert_eq!(stored(&run).done, 1, "the checkpoint is kept");
    let status = hand.beat(&lease).await;
    assert_eq!(status.verdict.unwrap_or_default().reason(), Reason::LeaseSuperseded);
    let again = hand.take().await;
    assert_eq!((again.attempt, again.checkpoint.is_some()), (2, true));
    hand.complete(&again, json!({})).await.expect("accepted");
    bench.client.succeeded(&run_id, SOON).await;
}

#[tokio::test]
async fn a_lease_that_two_complete_heartbeats_leave_out_is_lost() {
    let bench = bench().await;
    let (hand, left_out, lost) = bench.working().await;
    let kept_run = bench.client.create("tight", json!({})).await;
    let kept = hand.take().await;
    let only_kept = || vec![v1::LeaseHeartbeat { lease_token: kept.lease_token.clone(), ..Default::default() }];
    // Partial ones say nothing of the others. `take` has sent one complete heartbeat that left the first lease out.
    hand.beat(&lost).await;
    for _ in 0..3 {
        hand.heartbeat(only_kept(), Duration::ZERO, true).await.expect("answered");
        hand.heartbeat(vec![beat(&lost)], Duration::ZERO, true).await.expect("answered");
    }
    assert_eq!(bench.client.run(&left_out).await.steps[0].state(), State::Running);
    for _ in 0..2 {
        hand.heartbeat(only_kept(), Duration::ZERO, false).await.expect("answered");
    }
    let run = bench.client.until(&left_out, SOON, |run| run.steps[0].state() != State::Running).await;
    assert_eq!(causes(&run.steps[0])[0], Cause::LeaseLost);
    assert_eq!(bench.client.run(&kept_run).await.steps[0].state(), State::Running, "the other one is held");
}

#[tokio::test]
async fn a_held_heartbeat_goes_out_at_once_when_a_directive_comes() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let held = tokio::spawn({
        let (hand, lease) = (hand.clone(), lease.clone());
        async move { hand.heartbeat(vec![beat(&lease)], Duration::from_millis(900), false).await }
    });
    pass(Duration::from_millis(100)).await;
    let began = Instant::now();
    bench.operate(Operation::Pause, &run_id).await.expect("accepted");
    let answer = held.await.expect("no panic").expect("answered");
    assert_eq!(answer.leases[0].directive(), Directive::Pause);
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
}

// --- reports ---

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
    assert!(error.message.contains("checkpoint 1 of attempt 2"), "the checkpoint is named: {}", error.message);
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
    let retry = run.steps[0].next_retry_time.as_ref().and_then(longtake_proto::convert::micros_from_timestamp);
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
    assert_eq!((budgets.failures_used, budgets.losses_used, budgets.yields_used, budgets.yields_allowed), (0, 0, 1, 3));
    for _ in 0..2 {
        let lease = hand.take().await;
        hand.give_back(&lease, None).await.expect("accepted");
    }
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), causes(&run.steps[0])), (run::State::Failed, vec![Cause::Yielded; 3]));
}

// --- clocks ---

#[tokio::test]
async fn alive_is_not_the_same_as_getting_on() {
    let bench = bench().await;
    let run_id = bench.client.create("timed", json!({})).await;
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
        if verdict.reason() == Reason::LeaseSuperseded { Ok(began.elapsed()) } else { Err(format!("{verdict:?}")) }
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
    let run_id = bench.client.create("timed", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["attempt"]);
    let lease = hand.take().await;
    assert!(lease.attempt_remaining.is_some() && lease.deadline_remaining.is_some(), "{lease:?}");
    let run = bench.client.until(&run_id, SOON, |run| step(run, "attempt").attempts[0].end_time.is_some()).await;
    assert_eq!(causes(step(&run, "attempt"))[0], Cause::AttemptTimeout);

    let second = hand.take().await;
    let request = v1::ExtendDeadlineRequest {
        run_id: run_id.clone(),
        target: v1::extend_deadline_request::Target::Attempt.into(),
        step: "attempt".to_owned(),
        deadline: in_seconds(60),
        ..Default::default()
    };
    bench.client.runs().extend_deadline(request.clone()).await.expect("accepted");
    pass(Duration::from_millis(1_500)).await;
    hand.complete(&second, json!({})).await.expect("its time is not up");
    let status = bench.client.runs().extend_deadline(request).await.expect_err("no attempt is live");
    let refusal = Refusal::of(&status);
    assert_eq!(refusal.code, Code::FailedPrecondition);
    assert!(["DEADLINE_PASSED", "RUN_STATE"].contains(&refusal.reason.as_str()), "{refusal:?}");
}

#[tokio::test]
async fn a_step_and_a_run_have_deadlines_that_nothing_refills() {
    let bench = bench().await;
    let run_id = bench.client.create("timed", json!({})).await;
    let hand = Hand::new(&bench.client, "hand", &["whole"]);
    let lease = hand.take().await;
    let run = bench.client.until(&run_id, SOON, |run| step(run, "whole").state() == State::TimedOut).await;
    assert!(matches!(run.state(), run::State::Stopping | run::State::TimedOut), "{run:?}");
    let status = hand.complete(&lease, json!({})).await.expect_err("too late");
    assert_eq!(Refusal::of(&status).reason, "RUN_STOPPED");
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), run.error.expect("an error").code), (run::State::TimedOut, "STEP_TIMEOUT".to_owned()));

    let request =
        v1::CreateRunRequest { workflow: "tight".to_owned(), deadline: in_seconds(2), ..Default::default() };
    let run = bench.client.runs().create_run(request).await.expect("accepted").into_inner().run.expect("the run");
    let ended = bench.client.ended(&run.run_id, SOON).await;
    assert_eq!((ended.state(), ended.steps[0].state()), (run::State::TimedOut, State::Cancelled));
    let status = bench.operate(Operation::Retry, &run.run_id).await.expect_err("its deadline has passed");
    let refusal = Refusal::of(&status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "FIELD_INVALID"), "{refusal:?}");
    assert!(refusal.fields.contains_key("deadline"), "{refusal:?}");
    let request = v1::RetryRunRequest { run_id: run.run_id.clone(), deadline: in_seconds(60), ..Default::default() };
    bench.client.runs().retry_run(request).await.expect("with a new one it goes on");
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let lease = hand.take().await;
    hand.complete(&lease, json!({})).await.expect("accepted");
    bench.client.succeeded(&run.run_id, SOON).await;
}

// --- operators ---

#[tokio::test]
async fn a_cancelled_run_tells_its_executors_and_keeps_what_they_still_finish() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let request_id = uuid::Uuid::new_v4().to_string();
    let run = bench.operate_as(Operation::Cancel, &run_id, &request_id).await.expect("accepted");
    assert_eq!((run.state(), run.outcome()), (run::State::Stopping, run::State::Cancelled));
    let events = bench.client.events(&run_id).await.len();
    let run = bench.operate_as(Operation::Cancel, &run_id, &request_id).await.expect("a repetition is no error");
    assert_eq!(run.state(), run::State::Stopping);
    assert_eq!(bench.client.events(&run_id).await.len(), events, "it changes nothing");
    assert_eq!(hand.beat(&lease).await.directive(), Directive::Cancel);
    // A completion is still taken until the executor has acknowledged.
    hand.complete(&lease, json!({"made": "after all"})).await.expect("accepted");
    let run = bench.client.ended(&run_id, SOON).await;
    assert_eq!((run.state(), run.steps[0].state()), (run::State::Cancelled, State::Succeeded));
    let status = bench.operate(Operation::Resume, &run_id).await.expect_err("it has ended");
    assert_eq!(Refusal::of(&status).reason, "RUN_STATE");
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
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "RUN_STATE"), "{operation:?}");
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
    assert!(run.state_reason.contains("work") && run.state_reason.contains("2 failures"), "{}", run.state_reason);
    bench.operate(Operation::Resume, &run_id).await.expect("accepted");
    let lease = hand.take().await;
    let budgets = bench.client.run(&run_id).await.steps[0].budgets;
    assert_eq!((lease.attempt, budgets.map(|budgets| budgets.failures_used)), (3, Some(0)));
    // What cannot be retried needs a look, too.
    hand.fail(&lease, "NO_LICENCE", false).await.expect("accepted");
    let run = bench.client.run(&run_id).await;
    assert_eq!((run.state(), run.steps[0].state()), (run::State::Paused, State::Ready));
}

#[tokio::test]
async fn a_watcher_sees_each_event_once_and_can_resume() {
    let bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    let mut first = watch(&bench.client, &run_id, 0).await;
    let begun: Vec<i64> = {
        let mut numbers = Vec::new();
        while numbers.len() < 4 {
            numbers.extend(next_event(&mut first).await.map(|event| event.number));
        }
        numbers
    };
    assert_eq!(begun, [1, 2, 3, 4]);
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;
    hand.complete(&lease, json!({})).await.expect("accepted");
    let mut rest = Vec::new();
    while let Some(event) = next_event(&mut first).await {
        rest.push(event);
    }
    let mut resumed = watch(&bench.client, &run_id, 4).await;
    let mut again = Vec::new();
    while let Some(event) = next_event(&mut resumed).await {
        again.push(event);
    }
    assert_eq!(rest, again);
    assert_eq!(kinds(&rest), ["checkpoint_committed", "step_succeeded", "run_ended"]);
    let all = bench.client.events(&run_id).await;
    assert_eq!(all[4..], rest[..], "ListRunEvents returns the same messages");
}

#[tokio::test]
async fn explain_says_who_is_waited_for() {
    use v1::step_explanation::WaitingFor;
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({})).await;
    let explained = explain(&bench.client, &run_id).await;
    let left = explanation(&explained, "left");
    assert_eq!((left.waiting_for(), left.queue.as_str(), left.queue_executors), (WaitingFor::Executor, "fork", 0));
    assert!(left.actions.iter().any(|action| action.sentence.contains("longtake executor --queues fork")), "{left:?}");
    let join = explanation(&explained, "join");
    assert_eq!((join.waiting_for(), join.open_needs.as_slice()), (WaitingFor::Needs, &["left".to_owned(), "right".to_owned()][..]));
    let hand = Hand::new(&bench.client, "painter", &["fork"]);
    let lease = hand.lease().await;
    let explained = explain(&bench.client, &run_id).await;
    assert_eq!(explanation(&explained, "left").waiting_for(), WaitingFor::FirstHeartbeat);
    hand.beat(&lease).await;
    let explained = explain(&bench.client, &run_id).await;
    let left = explanation(&explained, "left");
    assert_eq!(left.waiting_for(), WaitingFor::Work);
    assert!(left.sentence.contains("painter") && left.last_heartbeat_time.is_some(), "{left:?}");
    hand.fail(&lease, "FLAKY", true).await.expect("accepted");
    let explained = explain(&bench.client, &run_id).await;
    let left = explanation(&explained, "left");
    assert!(matches!(left.waiting_for(), WaitingFor::Backoff | WaitingFor::Executor), "{left:?}");
    assert!(!explained.summary.is_empty());
}

// --- replicas ---

#[tokio::test]
async fn two_servers_over_one_database_do_each_others_work() {
    let bench = bench().await;
    let folder = bench.world.folder("definitions");
    let second = Server::start("second", bench.world.dir(), bench.world.database().url(), &folder).await;
    let (a, b) = (&bench.client, &second.client());

    // Submitted here, worked on there: by a poller that waits already.
    let hand = Hand::new(b, "hand", &["work"]);
    let held = tokio::spawn({
        let hand = hand.clone();
        async move { hand.poll(Duration::from_secs(30)).await }
    });
    pass(Duration::from_millis(300)).await;
    let run_id = a.create("tight", json!({})).await;
    let lease = held.await.expect("no panic").expect("answered").leases.remove(0);
    assert_eq!(lease.run_id, run_id);
    hand.beat(&lease).await;
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;
    assert_eq!(stored(&a.run(&run_id).await).done, 1, "what is committed is seen by all");

    // Reports may come through either.
    let status = hand.through(a).checkpoint(&lease, Hand::at(2, 2, 9)).await;
    assert_eq!(status.committed_sequence, 2, "{status:?}");
    let status = hand.beat(&lease).await;
    assert_eq!(status.verdict.unwrap_or_default().reason(), Reason::Unspecified);

    // Cancelled here, told there, also to a heartbeat that is held.
    bench.operate(Operation::Cancel, &run_id).await.expect("accepted");
    eventually(SOON, async || {
        let status = hand.beat(&lease).await;
        if status.directive() == Directive::Cancel { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    hand.give_back(&lease, None).await.expect("accepted");
    assert_eq!(a.ended(&run_id, SOON).await.state(), run::State::Cancelled);

    // The same submit to both makes one run.
    let request = v1::CreateRunRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        workflow: "tight".to_owned(),
        ..Default::default()
    };
    let (mut runs_a, mut runs_b) = (a.runs(), b.runs());
    let both = tokio::join!(runs_a.create_run(request.clone()), runs_b.create_run(request));
    let created = [both.0.expect("accepted"), both.1.expect("accepted")].map(|answer| answer.into_inner().created);
    assert_eq!(created.iter().filter(|created| **created).count(), 1);
}

#[tokio::test]
async fn a_replica_looks_after_the_leases_of_one_that_is_gone() {
    let mut bench = bench().await;
    let folder = bench.world.folder("definitions");
    let second = Server::start("second", bench.world.dir(), bench.world.database().url(), &folder).await;
    let client = second.client();
    let (hand, run_id, lease) = bench.working().await;
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;
    let silent_run = bench.client.create("tight", json!({})).await;
    let silent = Hand::new(&bench.client, "silent", &["work"]);
    silent.take().await;
    bench.server.process().kill().await;

    // The executor goes on with the other one.
    let hand = hand.through(&client);
    let status = hand.beat(&lease).await;
    assert_eq!(status.verdict.unwrap_or_default().reason(), Reason::Unspecified);
    let lost = eventually(Duration::from_secs(40), async || {
        let status = hand.beat(&lease).await;
        assert_eq!(status.verdict.unwrap_or_default().reason(), Reason::Unspecified, "the live lease is kept");
        let run = client.run(&silent_run).await;
        if run.steps[0].state() == State::Running { Err("the silent one is held".to_owned()) } else { Ok(run) }
    })
    .await;
    assert_eq!(causes(&lost.steps[0])[0], Cause::LeaseLost);
    hand.complete(&lease, json!({})).await.expect("accepted");
    let run = client.succeeded(&run_id, SOON).await;
    assert_eq!(causes(&run.steps[0]), [Cause::Completed]);
}

// --- what the tests above are made of ---

fn beat(lease: &StepLease) -> v1::LeaseHeartbeat {
    v1::LeaseHeartbeat { lease_token: lease.lease_token.clone(), ..v1::LeaseHeartbeat::default() }
}

fn plain(fields: Option<&prost_types::Struct>) -> Value {
    Value::Object(longtake_proto::convert::json_from_struct(fields.cloned().unwrap_or_default()))
}

/// The committed checkpoint of the first step.
fn stored(run: &v1::Run) -> v1::Checkpoint {
    run.steps[0].checkpoint.clone().and_then(|stored| stored.checkpoint).unwrap_or_default()
}

fn in_seconds(seconds: i64) -> Option<prost_types::Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    Some(prost_types::Timestamp { seconds: i64::try_from(now.as_secs()).unwrap_or_default() + seconds, nanos: 0 })
}

async fn explain(client: &Client, run_id: &str) -> v1::ExplainRunResponse {
    let request = v1::ExplainRunRequest { run_id: run_id.to_owned() };
    client.runs().explain_run(request).await.expect("explained").into_inner()
}

fn explanation<'a>(explained: &'a v1::ExplainRunResponse, name: &str) -> &'a v1::StepExplanation {
    explained.steps.iter().find(|step| step.step == name).unwrap_or_else(|| panic!("{name}: {explained:?}"))
}

async fn watch(client: &Client, run_id: &str, after_event: i64) -> tonic::Streaming<v1::WatchRunResponse> {
    let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_event };
    client.runs().watch_run(request).await.expect("a stream").into_inner()
}

/// The next event of a stream; none at its end.
async fn next_event(stream: &mut tonic::Streaming<v1::WatchRunResponse>) -> Option<v1::Event> {
    use v1::watch_run_response::Update;
    loop {
        let update = tokio::time::timeout(SOON, stream.message()).await.expect("an update in time");
        match update.expect("no error")?.update {
            Some(Update::Event(event)) => return Some(event),
            Some(Update::Progress(_)) => {}
            None => panic!("an update without anything"),
        }
    }
}

