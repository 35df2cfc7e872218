//! What a step is given, and what its checkpoints and progress become.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longtake_executor::{Artifact, Config, Context, Directive, Executor, Output, StepError};
use longtake_proto::convert::{json_from_struct, struct_from_json};
use longtake_proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

use crate::fake::{Fake, State, completion, failure, lease, stored, superseded, verdict, yielded};
use crate::{OnDrop, Running, eventually, quick, soon};

#[derive(Deserialize)]
struct Input {
    to: i64,
}

#[derive(Serialize, Deserialize, Default)]
struct Sum {
    sum: i64,
}

async fn add_up(ctx: Context) -> Result<Output, StepError> {
    let Input { to } = ctx.input()?;
    let previous = ctx.previous_checkpoint::<Sum>()?;
    let (mut sum, done) = previous.map_or_else(Default::default, |it| (it.data, it.done));
    for number in done + 1..=to {
        sum.sum += number;
        ctx.checkpoint(&sum, vec![], number, to).await?;
        ctx.yield_if_asked()?;
    }
    Ok(Output::new(sum).cost_nano_usd(5))
}

#[tokio::test]
async fn a_step_gets_its_input_and_carries_on_from_the_checkpoint() {
    let fake = Fake::start();
    fake.offer(v1::StepLease {
        input: struct_from_json(json!({ "to": 4 })),
        checkpoint: Some(stored(json!({ "sum": 3 }), 2)),
        ..lease("a")
    });
    let running = Running::start(Executor::new(quick(&fake)).step("work", add_up));
    let done = completion(fake.report(0).await);
    assert_eq!(done.lease_token, "a");
    assert_eq!(done.output.map(json_from_struct).map(Value::Object), Some(json!({ "sum": 10 })));
    assert_eq!(done.cost, Some(v1::Money { nano_usd: 5 }));
    fake.with(|state| {
        let checkpoint = &state.checkpoints["a"];
        assert_eq!((checkpoint.sequence, checkpoint.done, checkpoint.total), (2, 4, 4));
        let poll = &state.polls[0];
        assert_eq!((poll.queues.as_slice(), poll.max_steps), (["work".to_owned()].as_slice(), 1));
        assert_eq!(poll.executor.as_ref().map(|info| info.name.as_str()), Some("test"));
    });
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_step_gets_what_it_needs() {
    let file = Artifact {
        name: "a.txt".into(),
        uri: "file:///a.txt".into(),
        sha256: "00".repeat(32),
        size_bytes: 3,
        media_type: "text/plain".into(),
    };
    let made = v1::StepOutput {
        state: v1::step::State::Succeeded.into(),
        output: struct_from_json(json!({ "sum": 6 })),
        artifacts: vec![file.clone().into()],
    };
    let skipped = v1::StepOutput { state: v1::step::State::Skipped.into(), ..Default::default() };
    let fake = Fake::start();
    fake.offer(v1::StepLease {
        needs: [("first".to_owned(), made), ("second".to_owned(), skipped)].into(),
        previous_end: Some(v1::AttemptEnd {
            cause: v1::attempt::Cause::LeaseLost.into(),
            message: String::new(),
        }),
        ..lease("a")
    });
    let expected = file.clone();
    let step = move |ctx: Context| {
        let expected = expected.clone();
        async move {
            let first = ctx.need("first")?;
            assert_eq!(first.parse::<Sum>()?.map(|it| it.sum), Some(6));
            assert_eq!(first.artifact("a.txt"), Some(&expected));
            assert!(ctx.need("second")?.is_skipped());
            assert!(ctx.need("third").is_err());
            assert_eq!((ctx.effect_key(), ctx.previous_end()), ("run/work", Some("LEASE_LOST")));
            Ok(Output::new(()).artifacts([expected]))
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    assert_eq!(completion(fake.report(0).await).artifacts, [v1::Artifact::from(file)]);
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_checkpoint_resolves_when_the_server_has_it() {
    let fake = Fake::start();
    fake.with(|state| state.committing = false);
    fake.offer(lease("a"));
    let (said, mut says) = mpsc::unbounded_channel();
    let step = move |ctx: Context| {
        let said = said.clone();
        async move {
            ctx.checkpoint(json!({ "n": 1 }), vec![], 1, 2).await?;
            let _ = said.send(());
            Ok(Output::new(()))
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    let sent = |state: &State| {
        state
            .heartbeats
            .iter()
            .any(|it| it.leases.iter().any(|lease| lease.checkpoint.is_some()))
            .then_some(())
    };
    fake.seen("the checkpoint", sent).await;
    // Two more renewals pass without an acknowledgement.
    let renewals = |state: &State| state.heartbeats.iter().filter(|it| !it.partial).count();
    let before = fake.with(|state| renewals(state));
    fake.seen("renewals", |state| (renewals(state) >= before + 2).then_some(())).await;
    assert!(says.try_recv().is_err(), "it was not acknowledged yet");
    // The newest one wins when the server did not take it: a later heartbeat says so.
    fake.with(|state| {
        let checkpoint = v1::Checkpoint { sequence: 1, ..Default::default() };
        state.checkpoints.insert("a".to_owned(), checkpoint);
    });
    soon("the acknowledgement", says.recv()).await;
    completion(fake.report(0).await);
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_refused_checkpoint_fails_the_step_for_good() {
    let fake = Fake::start();
    let refusal = verdict(Code::InvalidArgument, v1::Reason::CheckpointTooLarge);
    fake.with(|state| state.verdicts.insert("a".to_owned(), refusal));
    fake.offer(lease("a"));
    fake.offer(lease("b"));
    let step = async |ctx: Context| {
        // The second one is refused without a call.
        let size = if ctx.attempt() == 1 { 10 } else { 70_000 };
        ctx.checkpoint(json!({ "data": "x".repeat(size) }), vec![], 1, 2).await?;
        Ok(Output::new(()))
    };
    fake.with(|state| state.ready[1].attempt = 2);
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    for index in 0..2 {
        let (error, fail) = failure(fake.report(index).await);
        assert_eq!((error.code.as_str(), error.retryable), ("CHECKPOINT_INVALID", false));
        assert_eq!(fail.checkpoint, None, "what was refused is not sent again");
    }
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_superseded_lease_stops_work_at_once_and_is_not_reported() {
    let fake = Fake::start();
    fake.offer(lease("a"));
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let step = move |ctx: Context| {
        let guard = OnDrop(dropped.clone());
        async move {
            if ctx.input_json().is_empty() {
                std::future::pending::<()>().await;
            }
            drop(guard);
            Ok(Output::new(()))
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    fake.seen("a heartbeat", |state| state.heartbeats.first().map(|_| ())).await;
    fake.with(|state| state.verdicts.insert("a".to_owned(), superseded()));
    soon("the end of the work", drops.recv()).await;
    // The slot is free again, and the next report is that of the next step.
    fake.offer(v1::StepLease { input: struct_from_json(json!({ "go": true })), ..lease("b") });
    assert_eq!(completion(fake.report(0).await).lease_token, "b");
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn directives_reach_the_step_and_an_ignored_cancel_drops_it() {
    let fake = Fake::start();
    // Longer than the test's patience: only held replies bring directives in time.
    fake.with(|state| state.pace = Duration::from_secs(40));
    fake.offer(lease("a"));
    let (said, mut says) = mpsc::unbounded_channel();
    let step = move |ctx: Context| {
        let said = said.clone();
        async move {
            let _ = said.send(ctx.directed().await);
            std::future::pending().await
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    // Once the long-held renewal is out, directives come at once.
    let held = |state: &State| state.heartbeats.iter().any(|it| it.wait.is_some()).then_some(());
    fake.seen("a renewal", held).await;
    fake.with(|state| state.directives.insert("a".to_owned(), v1::Directive::Pause));
    assert_eq!(soon("the directive", says.recv()).await, Some(Directive::Pause));
    assert!(fake.with(|state| state.reports.is_empty()), "a pause is left to the step");
    fake.with(|state| state.directives.insert("a".to_owned(), v1::Directive::Cancel));
    assert_eq!(yielded(fake.report(0).await).lease_token, "a");
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn progress_is_sent_between_renewals() {
    let fake = Fake::start();
    fake.with(|state| state.pace = Duration::from_secs(60));
    fake.offer(lease("a"));
    let step = async |ctx: Context| {
        ctx.progress(1, 3);
        ctx.progress_with(2, 3, "rendering\0");
        std::future::pending().await
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    let wanted = v1::Progress { done: 2, total: 3, message: "rendering".to_owned() };
    let said = |state: &State| {
        let mut leases = state.heartbeats.iter().flat_map(|it| &it.leases);
        leases.any(|lease| lease.progress.as_ref() == Some(&wanted)).then_some(())
    };
    fake.seen("progress", said).await;
    running.end.abort();
}

#[tokio::test]
async fn checkpoints_of_many_steps_are_split_into_calls_that_fit() {
    const STEPS: usize = 100;
    let fake = Fake::start();
    let offered = (0..STEPS).map(|number| lease(&format!("lease-{number}")));
    fake.with(|state| state.ready.extend(offered));
    let arrived = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&arrived);
    let step = move |ctx: Context| {
        let gate = Arc::clone(&gate);
        async move {
            gate.add_permits(1);
            // All of them at once.
            let _all = gate.acquire_many(STEPS as u32).await?;
            drop(_all);
            ctx.checkpoint(json!({ "data": "x".repeat(60_000) }), vec![], 1, 1).await?;
            Ok(Output::new(()))
        }
    };
    let running = Running::start(Executor::new(Config { slots: STEPS, ..quick(&fake) }).step("work", step));
    fake.seen("all reports", |state| (state.reports.len() == STEPS).then_some(())).await;
    fake.with(|state| {
        assert_eq!(state.checkpoints.len(), STEPS);
        let renewals = state.heartbeats.iter().filter(|it| !it.partial);
        let carried = renewals.flat_map(|it| &it.leases).filter(|lease| lease.checkpoint.is_some()).count();
        assert_eq!(carried, 0, "renewals carry no checkpoints");
    });
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn steps_that_block_are_renewed_keep_their_slots_and_hold_up_no_drain() {
    let fake = Fake::start();
    for token in ["a", "b", "c"] {
        fake.offer(lease(token));
    }
    let most = Arc::new(AtomicUsize::new(0));
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let working = Arc::new(AtomicUsize::new(0));
    let (at_work, peak) = (Arc::clone(&working), Arc::clone(&most));
    let (started, mut starts) = mpsc::unbounded_channel();
    let step = move |ctx: Context| {
        let (at_work, peak, gate) = (Arc::clone(&at_work), Arc::clone(&peak), Arc::clone(&gate));
        let started = started.clone();
        async move {
            let _ = started.send(ctx);
            peak.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Blocks a worker of the runtime, as a computation would.
            let _ = gate.lock().map(|gate| gate.recv());
            at_work.fetch_sub(1, Ordering::SeqCst);
            Ok(Output::new(()))
        }
    };
    let blocked = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let config = Config { slots: 2, drain_grace: Duration::from_millis(20), ..quick(&fake) };
    let running = Running::start_on(blocked.handle(), Executor::new(config).step("work", step));
    let renewals =
        |state: &State| state.heartbeats.iter().filter(|it| !it.partial && it.leases.len() == 2).count();
    fake.seen("renewals of both", |state| (renewals(state) > 3).then_some(())).await;
    // Both leases are lost, but nobody can take the slots from steps that do not come back.
    fake.with(|state| state.verdicts.extend(["a", "b"].map(|token| (token.to_owned(), superseded()))));
    for _ in 0..2 {
        let ctx = soon("a start", starts.recv()).await.expect("a context");
        soon("the word of it", ctx.stopped()).await;
    }
    assert_eq!(fake.with(|state| (state.polls.len(), state.ready.len())), (1, 1));
    for _ in 0..3 {
        open.send(()).expect("a step that waits");
    }
    assert_eq!(completion(fake.report(0).await).lease_token, "c");
    assert_eq!(most.load(Ordering::SeqCst), 2);
    // All three are let go, in whatever order, so that the next one waits.
    eventually("the end of all", || (working.load(Ordering::SeqCst) == 0).then_some(())).await;
    fake.offer(lease("d"));
    for _ in ["c", "d"] {
        soon("a start", starts.recv()).await;
    }
    running.drain.cancel();
    assert_eq!(yielded(fake.report(1).await).lease_token, "d");
    open.send(()).expect("a step that waits");
    running.drain().await.expect("a clean end");
    blocked.shutdown_background();
}
