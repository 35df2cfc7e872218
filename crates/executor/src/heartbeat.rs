//! The two loops that speak for live leases. Both run on the link's own thread: no step can starve them.
//!
//! [`renew`] names every lease, at the server's pace and when a new one has to be heard of, and lets the server hold the reply so that
//! directives arrive at once; it never carries a checkpoint, so that any number of leases fits. [`deliver`] sends what cannot wait
//! for that (checkpoints, progress), for the leases that have it, in calls that are split by bytes.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, sleep_until};

use longtake_proto::convert::duration_from_std;
use longtake_proto::v1;

use crate::batch::take_call;
use crate::client::{Answer, Failure};
use crate::lease::{Heard, Lease};
use crate::link::Link;
use crate::retry::Retry;

type Said = (Arc<Lease>, v1::LeaseHeartbeat);

/// Between a reply that came early with a directive and the next renewal.
const NEWS_PAUSE: Duration = Duration::from_millis(50);

/// Renews the session for as long as it has leases.
pub(crate) async fn renew(link: Arc<Link>) {
    let session = &link.session;
    let mut retry = Retry::new();
    // By the last reply; nothing is due before the first lease is.
    let mut next = None;
    let mut sent_at = Instant::now();
    loop {
        // Newcomers are answered at once. If they were not, a stream of them could drop every held call before its reply.
        let wait = tokio::select! {
            biased;
            () = session.newcomer(sent_at + session.pacing.first_heartbeat) => Duration::ZERO,
            () = until(next) => session.pace(),
        };
        next = None;
        let said = everything(&link);
        if said.is_empty() {
            continue;
        }
        sent_at = Instant::now();
        let heard = tokio::select! {
            heard = say(&link, said, wait, false) => heard,
            // A held call that does not name it brings no directive for it. All of a call counts when it is received, so that
            // nothing is lost by dropping it.
            () = session.newcomer(sent_at + session.pacing.first_heartbeat), if !wait.is_zero() => continue,
        };
        match heard {
            Ok(heard) => {
                let again_at = after(heard, wait, sent_at + session.pace());
                next = Some(again_at);
                if heard.again {
                    retry.wait().await;
                } else {
                    retry.reset();
                }
            }
            Err(failure) => {
                tracing::warn!(%failure, "the session could not be renewed; trying again");
                retry.after(&failure).await;
                next = Some(Instant::now());
            }
        }
    }
}

/// When the renewal after this one is due. A reply that was held for a whole pace asks for the next one at once.
fn after(heard: Heard, wait: Duration, paced: Instant) -> Instant {
    if wait.is_zero() {
        // To be held: from now on every lease has a call that brings its directives.
        Instant::now()
    } else if heard.news {
        paced.min(Instant::now() + NEWS_PAUSE)
    } else {
        paced
    }
}

fn everything(link: &Link) -> Vec<Said> {
    link.session.held().into_iter().map(|lease| (Arc::clone(&lease), lease.renewal())).collect()
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Sends what cannot wait for the next renewal.
pub(crate) async fn deliver(link: Arc<Link>) {
    let mut retry = Retry::new();
    loop {
        due(&link).await;
        let now = Instant::now();
        let held = link.session.held().into_iter();
        let mut said: Vec<Said> = held
            .filter(|lease| lease.due_at().is_some_and(|at| at <= now))
            .map(|lease| (Arc::clone(&lease), lease.take_due()))
            .collect();
        while !said.is_empty() {
            let call = take_call(&mut said, |(_, heartbeat)| heartbeat.encoded_len());
            match say(&link, call, Duration::ZERO, true).await {
                Ok(heard) if heard.again => retry.wait().await,
                Ok(_) => retry.reset(),
                Err(failure) => {
                    tracing::warn!(%failure, "checkpoints could not be delivered; trying again");
                    retry.after(&failure).await;
                }
            }
        }
    }
}

/// Resolves when a lease has something to deliver.
async fn due(link: &Link) {
    loop {
        let next = link.session.due_at();
        let changed = link.session.due_changed();
        match next {
            None => changed.await,
            Some(at) if at <= Instant::now() => return,
            Some(at) => {
                tokio::select! {
                    () = sleep_until(at) => return,
                    () = changed => {}
                }
            }
        }
    }
}

/// One HeartbeatSteps.
async fn say(link: &Link, said: Vec<Said>, wait: Duration, partial: bool) -> Result<Heard, Failure> {
    let (leases, heartbeats): (Vec<_>, Vec<_>) = said.into_iter().unzip();
    let sequences: Vec<i64> = heartbeats
        .iter()
        .map(|it| it.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.sequence))
        .collect();
    let request = v1::HeartbeatStepsRequest {
        session_id: link.session.id.clone(),
        leases: heartbeats,
        wait: (!wait.is_zero()).then(|| duration_from_std(wait)),
        partial,
    };
    match link.client.heartbeat(request, wait).await {
        Ok(answer) => Ok(take_in(link, &leases, &sequences, &answer)),
        Err(failure) => {
            leases.iter().for_each(|lease| lease.undelivered());
            Err(failure)
        }
    }
}

fn take_in(
    link: &Link,
    leases: &[Arc<Lease>],
    sequences: &[i64],
    answer: &Answer<v1::HeartbeatStepsResponse>,
) -> Heard {
    let reply = &answer.message;
    let (remaining, pace) = (reply.session_remaining.as_ref(), reply.next_heartbeat_delay.as_ref());
    link.session.renewed(answer.sent_at, remaining, pace);
    let mut all = Heard::default();
    for ((lease, sequence), status) in leases.iter().zip(sequences).zip(&reply.leases) {
        let heard = lease.apply(status, *sequence);
        all.again |= heard.again;
        all.news |= heard.news;
    }
    all
}
