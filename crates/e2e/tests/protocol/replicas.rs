//! Two servers over one database.

use std::time::Duration;

use longtake_e2e::{Hand, Server, causes, eventually, pass};
use longtake_proto::v1::{self, Directive, Reason, attempt::Cause, run, step::State};
use serde_json::json;

use super::{Operation, SOON, bench, stored};

/// Whoever looks at a lease at night wants to know whose it is, whichever server granted it.
#[tokio::test]
async fn a_server_that_was_never_polled_knows_the_executors_name() {
    let bench = bench().await;
    let folder = bench.world.folder("definitions");
    let second = Server::start("second", bench.world.dir(), bench.world.database().url(), &folder).await;
    let hand = Hand::new(&bench.client, "night-shift", &["fork"]);
    let run_id = bench.client.create("fork", json!({})).await;
    let lease = hand.take().await;
    let mut request = hand.completion(&lease, json!({"wanted": true}));
    let poll = hand.poll_request(Duration::ZERO);
    request.next = Some(v1::NextPoll {
        queues: poll.queues,
        max_steps: 1,
        request_id: poll.request_id,
        executor: poll.executor,
    });
    let answer = second.client().executors().complete_step(request).await.expect("accepted").into_inner();
    assert_eq!(answer.next.expect("an answer to `next`").leases.len(), 1);
    let leased = bench.client.events(&run_id).await.into_iter().filter_map(|event| match event.kind {
        Some(v1::event::Kind::StepLeased(leased)) => Some(leased.executor),
        _ => None,
    });
    assert_eq!(leased.collect::<Vec<_>>(), ["night-shift", "night-shift"]);
}

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
    let created =
        [both.0.expect("accepted"), both.1.expect("accepted")].map(|answer| answer.into_inner().created);
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
        assert_eq!(
            status.verdict.unwrap_or_default().reason(),
            Reason::Unspecified,
            "the live lease is kept"
        );
        let run = client.run(&silent_run).await;
        if run.steps[0].state() == State::Running {
            Err("the silent one is held".to_owned())
        } else {
            Ok(run)
        }
    })
    .await;
    assert_eq!(causes(&lost.steps[0])[0], Cause::LeaseLost);
    hand.complete(&lease, json!({})).await.expect("accepted");
    let run = client.succeeded(&run_id, SOON).await;
    assert_eq!(causes(&run.steps[0]), [Cause::Completed]);
}
