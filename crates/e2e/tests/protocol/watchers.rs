//! Looking at running work.

use longtake_e2e::{Hand, kinds};
use longtake_proto::v1::step_explanation::WaitingFor;
use serde_json::json;

use super::{bench, explain, explanation, next_event, watch};

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
    let bench = bench().await;
    let run_id = bench.client.create("fork", json!({})).await;
    let explained = explain(&bench.client, &run_id).await;
    let left = explanation(&explained, "left");
    assert_eq!(
        (left.waiting_for(), left.queue.as_str(), left.queue_executors),
        (WaitingFor::Executor, "fork", 0)
    );
    assert!(
        left.actions.iter().any(|action| action.sentence.contains("longtake executor --queues fork")),
        "{left:?}"
    );
    let join = explanation(&explained, "join");
    assert_eq!(
        (join.waiting_for(), join.open_needs.as_slice()),
        (WaitingFor::Needs, &["left".to_owned(), "right".to_owned()][..])
    );
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
