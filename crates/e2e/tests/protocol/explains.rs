//! What ExplainRun says of executors: nothing that it does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longtake_e2e::{Hand, eventually};
use longtake_proto::v1::step_explanation::WaitingFor;
use serde_json::json;

use super::{Operation, SOON, bench, explain};

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_speaks_of_no_other_while_attempts_come_and_go() {
    let bench = bench().await;
    let run_id = bench.client.create("tight", json!({})).await;
    let over = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let (client, run_id, over) = (bench.server.client(), run_id.clone(), over.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let explained = explain(&client, &run_id).await;
                    let said = format!("{} {}", explained.summary, explained.steps[0].sentence);
                    assert!(!said.contains("another replica") && !said.contains("not heard of"), "{said}");
                }
            })
        })
        .collect();
    let hand = Hand::new(&bench.client, "hand", &["work"]);
    for done in 1..=30 {
        let lease = hand.take().await;
        bench.operate(Operation::Pause, &run_id).await.expect("paused");
        hand.give_back(&lease, Some(Hand::at(1, done, 100))).await.expect("accepted");
        bench.operate(Operation::Resume, &run_id).await.expect("resumed");
    }
    over.store(true, Ordering::Relaxed);
    for asking in asking {
        asking.await.expect("it says what it knows");
    }
}

#[tokio::test]
async fn a_server_that_was_started_again_says_whom_it_has_not_heard_of_yet() {
    let mut bench = bench().await;
    let (hand, run_id, lease) = bench.working().await;
    bench.server.process().kill().await;
    bench.server.restart().await;
    let explained = explain(&bench.client, &run_id).await;
    let said = &explained.steps[0].sentence;
    assert!(
        said.contains("hand has worked on work") && said.contains("not heard of by this server yet"),
        "{said}"
    );
    assert_eq!(explained.steps[0].last_heartbeat_time, None);
    eventually(SOON, async || {
        hand.beat(&lease).await;
        let said = explain(&bench.client, &run_id).await.steps[0].sentence.clone();
        if said.contains(" ms ago") { Ok(()) } else { Err(said) }
    })
    .await;
}

#[tokio::test]
async fn a_busy_executor_is_not_free_and_nobody_says_that_there_is_none() {
    let bench = bench().await;
    let (hand, _, lease) = bench.working().await;
    let run_id = bench.client.create("tight", json!({})).await;
    let step = explain(&bench.client, &run_id).await.steps.remove(0);
    assert_eq!((step.waiting_for(), step.queue_executors), (WaitingFor::Executor, 0), "{step:?}");
    assert!(step.sentence.contains("0 executors free for it now"), "{step:?}");
    let advice: Vec<&str> = step.actions.iter().map(|action| action.sentence.as_str()).collect();
    assert!(advice.len() == 1 && advice[0].contains("wait for a busy one"), "{advice:?}");

    // Once it asks for more it is free: the run is paused, or the step would be given to it.
    bench.operate(Operation::Pause, &run_id).await.expect("paused");
    hand.complete(&lease, json!({})).await.expect("accepted");
    let held = tokio::spawn({
        let hand = hand.clone();
        async move { hand.poll(Duration::from_secs(20)).await }
    });
    eventually(SOON, async || {
        let step = explain(&bench.client, &run_id).await.steps.remove(0);
        if step.queue_executors == 1 && step.actions.is_empty() { Ok(()) } else { Err(format!("{step:?}")) }
    })
    .await;
    bench.operate(Operation::Resume, &run_id).await.expect("resumed");
    assert_eq!(held.await.expect("no panic").expect("answered").leases[0].run_id, run_id);
}
