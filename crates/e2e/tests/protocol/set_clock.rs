//! The database's clock is set while work is under way: by somebody, or because a standby took over whose clock is another.

use std::time::Duration;

use longtake_e2e::{
    Client, Database, Hand, SETTABLE_CLOCK, Server, World, causes, definitions, eventually, pass, step,
};
use longtake_proto::v1::{Reason, StepLease, attempt::Cause};
use serde_json::json;
use sqlx::Executor as _;

use super::{SOON, TIGHT};

/// A run whose step a hand works on.
struct Begun {
    world: World,
    _server: Server,
    client: Client,
    run_id: String,
    hand: Hand,
    lease: StepLease,
}

async fn begin() -> Begun {
    let world = World::new().await;
    world.database().connect().await.execute(SETTABLE_CLOCK).await.expect("a clock that can be set");
    let folder = definitions(world.folder("definitions"), &[("tight", TIGHT)]);
    let server = world.server_with(&folder).await;
    let client = server.client();
    let run_id = client.create("tight", json!({})).await;
    let hand = Hand::new(&client, "hand", &["work"]);
    let lease = hand.take().await;
    Begun { world, _server: server, client, run_id, hand, lease }
}

async fn set(database: &Database, forward: &str) {
    let sql = "update settable.forward set by = $1::text::interval";
    sqlx::query(sql).bind(forward).execute(&mut database.connect().await).await.expect("the clock is set");
}

/// Heartbeats until one is refused, or the time is over. Returns why.
async fn beat_for(span: Duration, hand: &Hand, lease: &StepLease) -> Reason {
    let began = std::time::Instant::now();
    eventually(span * 2, async || {
        let reason = hand.beat(lease).await.verdict.unwrap_or_default().reason();
        let goes_on = reason == Reason::Unspecified && began.elapsed() < span;
        if goes_on { Err("it goes on".to_owned()) } else { Ok(reason) }
    })
    .await
}

#[tokio::test]
async fn a_clock_that_is_set_back_disturbs_nobody_who_is_alive() {
    let Begun { world, _server, client, run_id, hand, lease } = begin().await;
    set(world.database(), "-1 hour").await;
    // Three times the step's heartbeat timeout, and two rounds of the server's own look at the database.
    assert_eq!(beat_for(Duration::from_secs(11), &hand, &lease).await, Reason::Unspecified);
    hand.complete(&lease, json!({})).await.expect("accepted");
    let run = client.succeeded(&run_id, SOON).await;
    assert_eq!(causes(step(&run, "work")), [Cause::Completed], "nobody was charged");
    // What begins now is timed by the clock as it is now: who falls silent is noticed, and a backoff ends.
    let run_id = client.create("tight", json!({})).await;
    let silent = Hand::new(&client, "silent", &["work"]);
    silent.take().await;
    let second = hand.take().await;
    assert_eq!((second.run_id.as_str(), second.attempt), (run_id.as_str(), 2));
    hand.fail(&second, "TRANSIENT", true).await.expect("accepted");
    let third = hand.take().await;
    hand.complete(&third, json!({})).await.expect("accepted");
    let run = client.succeeded(&run_id, SOON).await;
    assert_eq!(causes(step(&run, "work")), [Cause::LeaseLost, Cause::Failed, Cause::Completed]);
}

/// What was to last until then is over: as after a silence, work goes on with another attempt.
#[tokio::test]
async fn a_clock_that_is_set_forward_costs_an_attempt_at_most() {
    let Begun { world, _server, client, run_id, hand, lease } = begin().await;
    hand.checkpoint(&lease, Hand::at(1, 1, 9)).await;
    set(world.database(), "1 hour").await;
    let lease = match beat_for(Duration::from_secs(11), &hand, &lease).await {
        Reason::Unspecified => lease,
        _ => hand.take().await,
    };
    assert!(lease.attempt <= 2, "{lease:?}");
    if lease.attempt == 2 {
        let stored = lease.checkpoint.clone().and_then(|stored| stored.checkpoint).unwrap_or_default();
        assert_eq!(stored.done, 1, "it resumes");
    }
    // And set right again, with the same lease.
    set(world.database(), "0").await;
    assert_eq!(beat_for(Duration::from_secs(11), &hand, &lease).await, Reason::Unspecified);
    hand.complete(&lease, json!({})).await.expect("accepted");
    client.succeeded(&run_id, SOON).await;
    let run_id = client.create("tight", json!({})).await;
    let lease = hand.take().await;
    pass(Duration::from_secs(1)).await;
    hand.complete(&lease, json!({})).await.expect("accepted");
    client.succeeded(&run_id, SOON).await;
}
