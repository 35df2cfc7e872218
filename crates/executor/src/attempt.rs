//! One attempt: from its lease to the report of how it ended.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use longtake_proto::v1;
use longtake_proto::v1::step_report::Report;

use crate::lease::{Lease, Stop};
use crate::link::{Link, Slot};
use crate::report::{completed, ended, yielded};
use crate::reporter::Outgoing;
use crate::step::{Kind, Output, StepError};
use crate::{Context, Directive, trace};

/// How an attempt came to its end.
enum Ending {
    /// The step has ended by itself, or panicked.
    Ended(Result<Result<Output, StepError>, JoinError>),
    /// Its work must stop at once.
    Stopped(Stop),
    /// It did not end in the time that it was given.
    Dropped(&'static str),
}

/// Takes granted leases in and starts them, one in each free slot. `sent_at` is when the call that brought them was sent.
pub(crate) fn receive(
    link: &Arc<Link>,
    granted: v1::PollStepsResponse,
    sent_at: Instant,
    free: Vec<OwnedSemaphorePermit>,
) {
    let (remaining, pace) = (granted.session_remaining.as_ref(), granted.next_heartbeat_delay.as_ref());
    link.session.renewed(sent_at, remaining, pace);
    let mut free = free.into_iter();
    for granted in granted.leases {
        if remaining.is_none() {
            link.session.assume(&granted);
        }
        let Some(lease) = link.session.add(&granted.lease_token) else { continue };
        let permit = free.next().or_else(|| Arc::clone(&link.slots).try_acquire_owned().ok());
        match (permit, link.steps.get(&granted.queue)) {
            _ if link.drain.is_cancelled() => hand_back(link, &lease, "the executor drains"),
            (Some(permit), Some(step)) => {
                let span = trace::span(&granted);
                let context = Context::new(Arc::clone(&lease), granted, link.session.pacing);
                // On the runtime of the author: blocking there cannot hold up what runs here.
                let task = link.runtime.spawn(step(context).instrument(span.clone()));
                tokio::spawn(drive(Arc::clone(link), lease, task, Arc::new(permit)).instrument(span));
            }
            (_, None) => hand_back(link, &lease, "the executor does not serve this queue"),
            (None, Some(_)) => hand_back(link, &lease, "the executor has no free slot"),
        }
    }
}

fn hand_back(link: &Link, lease: &Lease, reason: &str) {
    tracing::warn!(reason, "giving a step back unstarted");
    link.report(Outgoing::new(lease.token.clone(), yielded(&lease.token, reason, None), None));
}

async fn drive(
    link: Arc<Link>,
    lease: Arc<Lease>,
    mut task: JoinHandle<Result<Output, StepError>>,
    slot: Slot,
) {
    tracing::debug!("attempt started");
    let ending = tokio::select! {
        biased;
        // First: what is done is reported, and the lease decides whether it still counts.
        ended = &mut task => Ending::Ended(ended),
        stop = lease.stopped() => Ending::Stopped(stop),
        () = cancel_ignored(&lease, link.cancel_grace) => Ending::Dropped("the run is stopping, and the step did not end in time"),
        () = link.abort.cancelled() => Ending::Dropped("the executor stopped before the step had ended"),
    };
    lease.close();
    match ending {
        Ending::Ended(ended) => {
            let report = conclude(&lease, ended);
            link.report(Outgoing::new(lease.token.clone(), report, Some(slot)));
        }
        Ending::Stopped(Stop::Gone(why)) => {
            tracing::warn!(%why, "attempt stopped: its lease is gone");
            link.session.remove(&lease.token);
            drop_work(task, slot).await;
        }
        Ending::Stopped(Stop::SessionEnded) => {
            give_back(&link, &lease, &slot, "the executor could not renew its session in time");
            drop_work(task, slot).await;
        }
        Ending::Dropped(reason) => {
            give_back(&link, &lease, &slot, reason);
            drop_work(task, slot).await;
        }
    }
}

/// Reports a yield with what the server has not acknowledged; what it has, it keeps by itself.
fn give_back(link: &Link, lease: &Lease, slot: &Slot, reason: &str) {
    tracing::warn!(reason, "attempt dropped");
    let report = yielded(&lease.token, reason, lease.unacknowledged());
    link.report(Outgoing::new(lease.token.clone(), report, Some(Arc::clone(slot))));
}

/// Drops the step's future. A step that blocks its thread keeps its slot until it comes back.
async fn drop_work(task: JoinHandle<Result<Output, StepError>>, slot: Slot) {
    task.abort();
    let _ = task.await;
    drop(slot);
}

/// Resolves when a CANCEL has stood for `grace`.
async fn cancel_ignored(lease: &Lease, grace: Duration) {
    let mut directive = lease.directive();
    if directive.wait_for(|directive| *directive == Some(Directive::Cancel)).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(grace).await;
}

fn conclude(lease: &Lease, ended: Result<Result<Output, StepError>, JoinError>) -> Report {
    match ended {
        Ok(Ok(output)) => {
            tracing::debug!("attempt completed");
            completed(&lease.token, output)
        }
        Ok(Err(why)) => conclude_error(lease, why),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => {
                let message = format!("the step panicked: {}", panic_message(panic.as_ref()));
                conclude_error(lease, StepError::retryable("PANIC", message))
            }
            Err(_) => yielded(
                &lease.token,
                "the executor's runtime stopped before the step had ended",
                lease.unacknowledged(),
            ),
        },
    }
}

fn conclude_error(lease: &Lease, why: StepError) -> Report {
    if matches!(why.0.kind, Kind::Failed { .. }) {
        trace::failed(&Span::current());
        tracing::warn!(error = %why, "attempt failed");
    } else {
        tracing::info!(reason = %why, "attempt yielded");
    }
    ended(&lease.token, why, lease.unacknowledged())
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
