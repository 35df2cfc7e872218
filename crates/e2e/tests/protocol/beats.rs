//! Heartbeats, checkpoints and sessions.

use std::time::{Duration, Instant};

use longtake_e2e::{Hand, causes, kinds, pass};
use longtake_proto::v1::{self, Directive, Reason, attempt::Cause, step::State};
use serde_json::json;
use tonic::Code;

use super::{Operation, SOON, beat, bench, plain, stored};

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
    assert_eq!(
        (verdict.reason(), Code::from(verdict.code)),
        (Reason::CheckpointTooLarge, Code::InvalidArgument)
    );
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
    let only_kept =
        || vec![v1::LeaseHeartbeat { lease_token: kept.lease_token.clone(), ..Default::default() }];
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
