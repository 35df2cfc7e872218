//! Asks for steps for as long as there are free slots.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use longtake_proto::convert::duration_from_std;
use longtake_proto::v1;

use crate::Error;
use crate::attempt;
use crate::client::{Answer, Failure};
use crate::config::POLL_STEPS;
use crate::link::Link;
use crate::retry::Retry;

/// Polls that are held at once: a server gives one poll [`POLL_STEPS`] at most, and what finds no poll waiting has to go through its
/// table of ready steps.
const POLLS: usize = 8;

/// Polls until the drain begins, for all of `slots`; fails when the server refuses to be polled.
pub(crate) async fn run(link: &Arc<Link>, slots: usize) -> Result<(), Error> {
    let polls = slots.div_ceil(POLL_STEPS).clamp(1, POLLS);
    let mut polling: JoinSet<Result<(), Error>> = (0..polls).map(|_| poll_on(Arc::clone(link))).collect();
    while let Some(ended) = polling.join_next().await {
        ended.unwrap_or(Err(Error::Panicked))?;
    }
    Ok(())
}

async fn poll_on(link: Arc<Link>) -> Result<(), Error> {
    let mut retry = Retry::new();
    loop {
        let polled = async {
            let slots = free_slots(&link).await;
            let answer = poll(&link, slots.len(), &mut retry).await?;
            Ok((answer, slots))
        };
        // Dropping a poll that is held cancels it; what it was granted just then goes back by the dispatch timeout.
        let (answer, slots) = tokio::select! {
            biased;
            () = link.drain.cancelled() => return Ok(()),
            polled = polled => polled?,
        };
        let empty = answer.message.leases.is_empty();
        let early = answer.sent_at + link.poll_wait / 2 > Instant::now();
        attempt::receive(&link, answer.message, answer.sent_at, slots);
        if empty && early {
            // The server stops, or does not hold polls: asking it without a pause would be all that it does.
            tokio::select! {
                () = link.drain.cancelled() => return Ok(()),
                () = retry.wait() => {}
            }
        } else {
            retry.reset();
        }
    }
}

/// Waits for a free slot, and takes what else is free.
async fn free_slots(link: &Link) -> Vec<OwnedSemaphorePermit> {
    let mut slots = Vec::new();
    // The semaphore is never closed.
    slots.extend(Arc::clone(&link.slots).acquire_owned().await);
    while slots.len() < POLL_STEPS {
        let Ok(slot) = Arc::clone(&link.slots).try_acquire_owned() else { break };
        slots.push(slot);
    }
    slots
}

/// One poll, repeated under its id until it is answered.
async fn poll(link: &Link, steps: usize, retry: &mut Retry) -> Result<Answer<v1::PollStepsResponse>, Error> {
    let request_id = Uuid::new_v4().to_string();
    loop {
        let request = v1::PollStepsRequest {
            session_id: link.session.id.clone(),
            executor: Some(link.info.clone()),
            queues: link.queues(),
            max_steps: i32::try_from(steps).unwrap_or(i32::MAX),
            wait: Some(duration_from_std(link.poll_wait)),
            request_id: request_id.clone(),
        };
        match link.client.poll(request, link.poll_wait).await {
            Ok(answer) => return Ok(answer),
            Err(failure @ Failure::Transient(_)) => {
                tracing::warn!(%failure, "no server could be polled; trying again");
                retry.after(&failure).await;
            }
            Err(Failure::Refused(status)) => return Err(Error::Refused(Box::new(status))),
        }
    }
}
