//! Servers that go away, come back, or never were there.

use std::time::Duration;

use longtake_executor::{Config, Context, Executor, Output, StepError};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::fake::{Fake, completion, lease, yielded};
use crate::{OnDrop, Running, quick, soon};

#[tokio::test]
async fn a_completion_is_delivered_when_the_server_is_back() {
    let mut fake = Fake::start();
    fake.offer(lease("a"));
    let (finished, mut finishes) = mpsc::unbounded_channel();
    let (go, gone) = watch::channel(false);
    let step = move |_: Context| {
        let (finished, mut gone) = (finished.clone(), gone.clone());
        async move {
            gone.wait_for(|gone| *gone).await?;
            let _ = finished.send(());
            Ok(Output::new(json!({ "made": "while nobody listened" })))
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    fake.seen("a heartbeat", |state| state.heartbeats.first().map(|_| ())).await;
    fake.go_away();
    go.send_replace(true);
    soon("the end of the work", finishes.recv()).await;
    fake.come_back();
    assert_eq!(completion(fake.report(0).await).lease_token, "a");
    // And so is the next poll.
    fake.offer(lease("b"));
    assert_eq!(completion(fake.report(1).await).lease_token, "b");
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_checkpoint_waits_through_an_outage() {
    let mut fake = Fake::start();
    fake.offer(lease("a"));
    let (ready, mut readies) = mpsc::unbounded_channel();
    let (go, gone) = watch::channel(false);
    let step = move |ctx: Context| {
        let (ready, mut gone) = (ready.clone(), gone.clone());
        async move {
            let _ = ready.send(());
            gone.wait_for(|gone| *gone).await?;
            ctx.checkpoint(json!({ "n": 1 }), vec![], 1, 1).await?;
            Ok(Output::new(()))
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    soon("the start", readies.recv()).await;
    fake.go_away();
    go.send_replace(true);
    fake.come_back();
    completion(fake.report(0).await);
    assert_eq!(fake.with(|state| state.checkpoints["a"].done), 1);
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn work_stops_when_the_session_could_not_be_renewed() {
    let mut fake = Fake::start();
    fake.with(|state| state.session_remaining = Duration::from_millis(400));
    fake.offer(lease("a"));
    let (dropped, mut drops) = mpsc::unbounded_channel::<()>();
    let step = move |ctx: Context| {
        let dropped = dropped.clone();
        async move {
            let _dropped = OnDrop(dropped);
            ctx.checkpoint(json!({ "frame": 2 }), vec![], 2, 9).await?;
            std::future::pending().await
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    fake.seen("a checkpoint", |state| state.checkpoints.get("a").map(|_| ())).await;
    assert!(drops.try_recv().is_err(), "it is renewed");
    fake.go_away();
    soon("the end of the work", drops.recv()).await;
    // The lease may have outlived the outage: then it is given back at once.
    fake.come_back();
    assert_eq!(yielded(fake.report(0).await).lease_token, "a");
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn the_next_server_is_taken_when_one_fails() {
    async fn nothing(_: Context) -> Result<Output, StepError> {
        Ok(Output::new(()))
    }
    let mut gone = Fake::start();
    let there = Fake::start();
    let servers = vec![gone.address(), there.address()];
    gone.go_away();
    let executor = Executor::new(Config { servers, ..quick(&there) }).step("work", nothing);
    let running = Running::start(executor);
    there.seen("a poll", |state| state.polls.first().map(|_| ())).await;
    there.offer(lease("a"));
    completion(there.report(0).await);
    running.drain().await.expect("a clean end");
}
