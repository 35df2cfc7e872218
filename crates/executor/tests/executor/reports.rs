//! How attempts end, and what becomes of reports that the server does not take as they are.

use longtake_executor::{Config, Context, Error, Executor, Output, StepError};
use longtake_proto::v1;
use longtake_proto::v1::step_report::Report;
use serde_json::json;
use std::time::Duration;
use tonic::Code;

use crate::fake::{Fake, completion, failure, lease, superseded, verdict, yielded};
use crate::{Running, quick, soon};

async fn nothing(_: Context) -> Result<Output, StepError> {
    Ok(Output::new(()))
}

#[tokio::test]
async fn a_panic_is_a_failure_that_is_retried() {
    async fn panics(_: Context) -> Result<Output, StepError> {
        panic!("the {} is on fire", "printer");
    }
    let fake = Fake::start();
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", panics));
    let (error, _) = failure(fake.report(0).await);
    assert_eq!((error.code.as_str(), error.retryable), ("PANIC", true));
    assert_eq!(error.message, "the step panicked: the printer is on fire");
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_failure_says_everything_that_it_knows() {
    async fn fails(ctx: Context) -> Result<Output, StepError> {
        ctx.checkpoint_later(json!({ "kept": true }), vec![], 1, 2)?;
        let error = StepError::retryable("RATE_LIMITED", "too many requests")
            .retry_after(Duration::from_secs(90))
            .details(json!({ "limit": 5 }))
            .cost_nano_usd(7);
        Err(error)
    }
    let fake = Fake::start();
    fake.with(|state| state.committing = false);
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", fails));
    let (error, fail) = failure(fake.report(0).await);
    assert_eq!((error.code.as_str(), error.retryable), ("RATE_LIMITED", true));
    assert!(error.details.is_some());
    assert_eq!(fail.retry_after, Some(prost_types::Duration { seconds: 90, nanos: 0 }));
    assert_eq!(fail.cost, Some(v1::Money { nano_usd: 7 }));
    assert_eq!(
        fail.checkpoint.map(|it| (it.sequence, it.done)),
        Some((1, 1)),
        "the unacknowledged checkpoint"
    );
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn any_error_becomes_a_failure_with_its_causes() {
    async fn fails(_: Context) -> Result<Output, StepError> {
        let number: u32 = "seven".parse()?;
        Ok(Output::new(json!({ "number": number })))
    }
    let fake = Fake::start();
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", fails));
    let (error, _) = failure(fake.report(0).await);
    assert_eq!((error.code.as_str(), error.message.as_str()), ("FAILED", "invalid digit found in string"));
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn an_output_that_the_server_cannot_store_is_a_failure_for_good() {
    let fake = Fake::start();
    fake.with(|state| {
        state.judge = |report| match report {
            Report::Complete(_) => Some(verdict(Code::InvalidArgument, v1::Reason::OutputInvalid)),
            Report::Fail(_) | Report::Yield(_) => None,
        };
    });
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", nothing));
    completion(fake.report(0).await);
    let (error, fail) = failure(fake.report(1).await);
    assert_eq!(
        (error.code.as_str(), error.retryable, fail.lease_token.as_str()),
        ("OUTPUT_INVALID", false, "a")
    );
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_report_that_is_refused_for_its_form_is_shortened_and_then_given_up() {
    async fn fails(_: Context) -> Result<Output, StepError> {
        Err(StepError::retryable("FAILED", "m".repeat(100_000)))
    }
    let fake = Fake::start();
    fake.with(|state| {
        state.judge = |report| match report {
            Report::Fail(_) => Some(verdict(Code::InvalidArgument, v1::Reason::ErrorTooLarge)),
            Report::Complete(_) | Report::Yield(_) => None,
        };
    });
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", fails));
    let (first, _) = failure(fake.report(0).await);
    assert!(first.message.len() < 8 * 1024, "cut before it was sent");
    let (second, _) = failure(fake.report(1).await);
    assert!(second.message.len() < 1024, "cut further when it was refused");
    running.drain().await.expect("given up, not tried for ever");
    assert_eq!(fake.with(|state| state.reports.len()), 4);
}

#[tokio::test]
async fn verdicts_on_late_reports_free_the_slot() {
    let fake = Fake::start();
    fake.with(|state| {
        state.judge = |report| match report {
            Report::Complete(done) if done.lease_token == "a" => Some(superseded()),
            Report::Complete(done) if done.lease_token == "b" => {
                Some(verdict(Code::Ok, v1::Reason::LeaseEnded))
            }
            Report::Complete(_) | Report::Fail(_) | Report::Yield(_) => None,
        };
    });
    for token in ["a", "b", "c"] {
        fake.offer(lease(token));
    }
    let running = Running::start(Executor::new(quick(&fake)).step("work", nothing));
    for (index, token) in ["a", "b", "c"].into_iter().enumerate() {
        assert_eq!(completion(fake.report(index).await).lease_token, token);
    }
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_report_asks_for_the_next_step() {
    let fake = Fake::start();
    for token in ["a", "b", "c"] {
        fake.offer(lease(token));
    }
    let running = Running::start(Executor::new(quick(&fake)).step("work", nothing));
    completion(fake.report(2).await);
    fake.with(|state| {
        assert_eq!(state.polls.iter().filter(|poll| poll.max_steps == 1).count(), state.polls.len());
        let ids: std::collections::BTreeSet<_> =
            state.next_polls.iter().map(|next| &next.request_id).collect();
        assert_eq!((ids.len(), state.next_polls.len()), (3, 3), "each with its own id");
        assert!(state.next_polls.iter().all(|next| next.max_steps == 1 && next.queues == ["work"]));
    });
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn steps_that_were_not_asked_for_are_given_back() {
    let fake = Fake::start();
    fake.with(|state| {
        state.careless = true;
        state.ready.extend([
            v1::StepLease { queue: "other".to_owned(), ..lease("stray") },
            lease("wanted"),
            lease("surplus"),
        ]);
    });
    let (go, gone) = tokio::sync::watch::channel(false);
    let step = move |_: Context| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|gone| *gone).await?;
            Ok(Output::new(()))
        }
    };
    let running = Running::start(Executor::new(quick(&fake)).step("work", step));
    assert_eq!(yielded(fake.report(0).await).lease_token, "stray");
    assert_eq!(yielded(fake.report(1).await).lease_token, "surplus");
    go.send_replace(true);
    assert_eq!(completion(fake.report(2).await).lease_token, "wanted");
    running.drain().await.expect("a clean end");
}

#[tokio::test]
async fn a_poll_that_is_refused_ends_the_executor_with_the_reason() {
    let fake = Fake::start();
    fake.with(|state| state.refuse_polls = Some(Code::InvalidArgument));
    let running = Running::start(Executor::new(quick(&fake)).step("work", nothing));
    let end = soon("the end", running.end).await.expect("no panic");
    assert!(matches!(&end, Err(Error::Refused(status)) if status.code() == Code::InvalidArgument), "{end:?}");
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let fake = Fake::start();
    let rows: [(Config, &str); 4] = [
        (Config { servers: vec![], ..quick(&fake) }, "servers"),
        (Config { servers: vec!["no address".to_owned()], ..quick(&fake) }, "servers"),
        (Config { slots: 0, ..quick(&fake) }, "slots"),
        (Config { poll_wait: Duration::from_secs(51), ..quick(&fake) }, "poll_wait"),
    ];
    for (config, key) in rows {
        let end = Executor::new(config).step("work", nothing).run_until(std::future::pending()).await;
        assert!(matches!(&end, Err(Error::Config(what)) if what.starts_with(key)), "{key}: {end:?}");
    }
    let end = Executor::new(quick(&fake)).run_until(std::future::pending()).await;
    assert!(matches!(end, Err(Error::NoStep)), "{end:?}");
}

#[tokio::test]
async fn a_step_may_yield_by_itself() {
    async fn yields(ctx: Context) -> Result<Output, StepError> {
        ctx.checkpoint(json!({ "page": 3 }), vec![], 3, 9).await?;
        Err(StepError::yielded("the licence server is busy"))
    }
    let fake = Fake::start();
    fake.offer(lease("a"));
    let running = Running::start(Executor::new(quick(&fake)).step("work", yields));
    let report = yielded(fake.report(0).await);
    assert_eq!(report.reason, "the licence server is busy");
    assert_eq!(report.checkpoint, None, "it is committed already");
    running.drain().await.expect("a clean end");
}
