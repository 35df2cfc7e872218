//! Polls, and what they bring.

use std::time::{Duration, Instant};

use longtake_e2e::{Hand, causes, pass, step};
use longtake_proto::v1::{self, Reason, attempt::Cause, run, step::State};
use serde_json::json;

use super::{SOON, bench, plain};

#[tokio::test]
async fn a_lease_brings_everything_that_the_work_needs() {
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({"topic": "light"})).await;
    let hand = Hand::new(&bench.client, "hand", &["fork"]);
    let (left, right) = (hand.take().await, hand.take().await);
    assert_eq!((left.step.as_str(), right.step.as_str()), ("left", "right"));
    for lease in [&left, &right] {
        assert_eq!(
            (lease.run_id.as_str(), lease.workflow.as_str(), lease.queue.as_str()),
            (run_id.as_str(), "fork", "fork")
        );
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
    assert!(
        empty.leases.is_empty() && began.elapsed() >= Duration::from_millis(950),
        "{:?}",
        began.elapsed()
    );
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
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "no step waits for a dispatch timeout: {:?}",
        began.elapsed()
    );
    for run_id in runs {
        bench.client.succeeded(&run_id, SOON).await;
    }
}

#[tokio::test]
async fn a_poller_that_goes_away_just_when_it_is_given_a_step_loses_nothing() {
    const MANY: usize = 20;
    let bench = bench().await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let gone = Hand::new(&bench.client, "gone", &["work"]);
        held.spawn(async move { gone.poll(Duration::from_secs(30)).await });
    }
    pass(Duration::from_millis(200)).await;
    let mut creates = tokio::task::JoinSet::new();
    for _ in 0..MANY {
        let client = bench.client.clone();
        creates.spawn(async move { client.create("tight", json!({})).await });
    }
    // The first answers are under way.
    let mut runs = vec![creates.join_next().await.expect("a run").expect("no panic")];
    held.abort_all();
    while let Some(run_id) = creates.join_next().await {
        runs.push(run_id.expect("no panic"));
    }
    // What was not handed back at once is after the dispatch timeout.
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    for _ in 0..MANY {
        let lease = hand.lease().await;
        hand.complete(&lease, json!({})).await.expect("accepted");
    }
    for run_id in runs {
        let run = bench.client.succeeded(&run_id, SOON).await;
        let attempts = causes(&run.steps[0]);
        let lost = matches!(attempts[0], Cause::DispatchTimeout | Cause::LeaseLost);
        assert!(attempts.len() <= 2 && (attempts.len() == 1 || lost), "{attempts:?}");
    }
}

#[tokio::test]
async fn what_nobody_is_heard_of_goes_back_after_the_dispatch_timeout() {
    let bench = bench().await;
    let run_id = bench.client.create("tight", json!({})).await;
    let silent = Hand::new(&bench.client, "silent", &["work"]);
    let lost = silent.lease().await;
    let began = Instant::now();
    let run = bench
        .client
        .until(&run_id, Duration::from_secs(16), |run| run.steps[0].state() != State::Leased)
        .await;
    let took = began.elapsed();
    assert!((9_000..13_000).contains(&took.as_millis()), "after ten seconds: {took:?}");
    assert_eq!(causes(&run.steps[0]), [Cause::DispatchTimeout]);
    assert_eq!(run.steps[0].state(), State::Ready, "the first time needs no backoff");
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
        let run = bench
            .client
            .runs()
            .create_run(request)
            .await
            .expect("accepted")
            .into_inner()
            .run
            .expect("the run");
        ids.push(run.run_id);
    }
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    let mut order = Vec::new();
    for _ in &ids {
        let lease = hand.take().await;
        order.push(ids.iter().position(|id| *id == lease.run_id).expect("one of them"));
        // One that is held would be lost to the heartbeats of the next ones, and come again.
        hand.complete(&lease, json!({})).await.expect("accepted");
    }
    assert_eq!(order, [1, 3, 0, 4, 2]);
}
