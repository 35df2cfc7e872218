//! Draining: no new work, running steps yield with a checkpoint, and the executor ends.

use std::time::Duration;

use longtake_executor::{Config, Context, Executor, Output, StepError};
use serde_json::json;
use tokio::sync::mpsc;

use crate::fake::{Fake, lease, yielded};
use crate::{Running, quick, soon};

async fn renders(ctx: Context) -> Result<Output, StepError> {
    for frame in 1.. {
        ctx.checkpoint(json!({ "frame": frame }), vec![], frame, 0).await?;
        ctx.yield_if_asked()?;
    }
    Ok(Output::new(()))
}

#[tokio::test]
async fn a_drain_asks_steps_to_yield_and_takes_no_new_ones() {
    let fake = Fake::start();
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", renders));
    fake.seen("a checkpoint", |state| state.checkpoints.get("a").map(|_| ())).await;
    running.drain().await.expect("a clean end");
    let report = yielded(fake.report(0).await);
    assert_eq!((report.lease_token.as_str(), report.checkpoint), ("a", None));
    fake.offer(lease("b"));
    fake.with(|state| {
        assert_eq!(state.reports.len(), 1);
        assert!(state.next_polls.is_empty(), "no poll rides on the last report");
    });
}

#[tokio::test]
async fn what_does_not_yield_in_the_grace_is_dropped_and_given_back_with_its_checkpoint() {
    let fake = Fake::start();
    fake.with(|state| state.committing = false);
    fake.offer(lease("a"));
    let (started, mut starts) = mpsc::unbounded_channel();
    let step = move |ctx: Context| {
        let started = started.clone();
        async move {
            ctx.checkpoint_later(json!({ "frame": 7 }), vec![], 7, 9)?;
            let _ = started.send(());
            std::future::pending().await
        }
    };
    let config = Config { drain_grace: Duration::from_millis(50), ..quick(&fake) };
    let running = Running::start(Executor::new(config).step("work", step));
    soon("the start", starts.recv()).await;
    running.drain().await.expect("a clean end");
    let report = yielded(fake.report(0).await);
    assert_eq!(report.checkpoint.map(|it| (it.sequence, it.done, it.total)), Some((1, 7, 9)));
}

#[tokio::test]
async fn a_dropped_executor_gives_its_steps_back() {
    let fake = Fake::start();
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", renders));
    fake.seen("a checkpoint", |state| state.checkpoints.get("a").map(|_| ())).await;
    running.end.abort();
    yielded(fake.report(0).await);
}

#[tokio::test]
async fn sigterm_drains() {
    let fake = Fake::start();
    fake.offer(lease("a"));
    let executor = Executor::new(quick(&fake)).step("work", renders);
    let end = tokio::spawn(executor.run());
    // By its first poll it listens for signals.
    fake.seen("a checkpoint", |state| state.checkpoints.get("a").map(|_| ())).await;
    let kill = std::process::Command::new("kill").args(["-TERM", &std::process::id().to_string()]).status();
    assert!(kill.expect("the kill program").success());
    soon("the end", end).await.expect("no panic").expect("a clean end");
    yielded(fake.report(0).await);
}
