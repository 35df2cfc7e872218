//! How long to wait before a call is tried again. The only module that names the `backoff` crate: it has no maintainer, so
//! that replacing it must stay a matter of one file.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

use crate::client::Failure;

const FIRST: Duration = Duration::from_millis(100);
/// Short enough that a server that is back is found again while its leases still live.
const LONGEST: Duration = Duration::from_secs(2);

/// The delays of one series of tries: exponential, half of each at random, without end.
pub(crate) struct Retry {
    delays: ExponentialBackoff,
}

impl Retry {
    pub(crate) fn new() -> Retry {
        let delays = ExponentialBackoffBuilder::new()
            .with_initial_interval(FIRST)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_interval(LONGEST)
            .with_max_elapsed_time(None)
            .build();
        Retry { delays }
    }

    /// Waits for the next try; at least as long as the server asked for.
    pub(crate) async fn after(&mut self, failure: &Failure) {
        let asked = failure.retry_after().unwrap_or_default();
        tokio::time::sleep(self.next().max(asked)).await;
    }

    /// Waits for the next try.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next()).await;
    }

    /// The last try succeeded.
    pub(crate) fn reset(&mut self) {
        self.delays.reset();
    }

    fn next(&mut self) -> Duration {
        self.delays.next_backoff().unwrap_or(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_their_bound_and_never_end() {
        let mut retry = Retry::new();
        let delays: Vec<Duration> = (0..200).map(|_| retry.next()).collect();
        assert!(delays[0] <= FIRST * 3 / 2, "{:?}", delays[0]);
        assert!(delays.iter().all(|delay| *delay <= LONGEST * 3 / 2), "{delays:?}");
        assert!(delays[100..].iter().all(|delay| *delay >= LONGEST / 2), "{delays:?}");
        retry.reset();
        assert!(retry.next() <= FIRST * 3 / 2);
    }
}
