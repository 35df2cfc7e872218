//! Removes what is past its retention, beside the lane: on a connection of its own, a little at a time, and never in a hurry.

use std::time::Duration;

use longtake_engine::time;
use longtake_store::{Retention, Store, Swept};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Limits;

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(100);

/// Ticks until `stop`. What fails is tried again at the next tick, for as long as it takes: nothing depends on it but the space
/// that is used.
pub async fn run(store: Store, keep: Duration, limits: Limits, stop: CancellationToken) {
    let retention = store.retention(time::Duration::from_std(keep), limits.removal_runs);
    tokio::select! {
        () = tick(retention, keep, &limits) => {}
        // A tick that is cut off is rolled back with its connection.
        () = stop.cancelled() => {}
    }
}

async fn tick(mut retention: Retention, keep: Duration, limits: &Limits) {
    let interval = (keep / 60).clamp(SHORTEST, limits.removal_interval);
    let (mut pass, mut began) = (Swept::default(), Instant::now());
    loop {
        let ticked = Instant::now();
        let rest = match retention.tick().await {
            Ok(swept) => {
                pass = pass.and(swept);
                // A rest that is as many times as long leaves the database to the lane for most of the time.
                if swept.more { (ticked.elapsed() * limits.removal_rests).min(interval) } else { interval }
            }
            Err(error) => {
                tracing::warn!(%error, "what is past its retention stays until the next try");
                interval
            }
        };
        if !pass.more || began.elapsed() > limits.removal_interval {
            report(pass, began.elapsed());
            (pass, began) = (Swept::default(), Instant::now() + rest);
        }
        tokio::time::sleep(rest).await;
    }
}

fn report(pass: Swept, took: Duration) {
    if pass.is_something() {
        let Swept { runs, made, begun, dropped, more } = pass;
        let (ranges_made, ranges_begun, partitions_dropped) = (made, begun, dropped);
        tracing::info!(runs, ranges_made, ranges_begun, partitions_dropped, more, ?took, "runs removed");
    }
}
