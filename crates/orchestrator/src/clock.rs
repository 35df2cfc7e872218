//! Postgres's clock, as far as this process knows it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use longtake_engine::time::Timestamp;

/// The last `clock_timestamp()` that a statement returned, plus the monotonic time since. It steps only when the database's does.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Postgres's time when `started` was taken, in microseconds.
    offset: AtomicI64,
}

impl Clock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Clock {
        Clock { started: Instant::now(), offset: AtomicI64::new(now.micros()) }
    }

    /// From the start of this clock until `moment`.
    fn until(&self, moment: Instant) -> i64 {
        i64::try_from(moment.saturating_duration_since(self.started).as_micros()).unwrap_or(i64::MAX)
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.offset.load(Ordering::Relaxed).saturating_add(self.until(Instant::now())))
    }

    /// A statement that was sent at `sent` or later said what time it was: `database`, at some moment between then and now.
    pub fn sync(&self, database: Timestamp, sent: Instant) {
        self.sync_at(database, sent, Instant::now());
    }

    /// Moves as little as what was said allows: a slow answer moves nothing, and a clock that was set back is followed.
    fn sync_at(&self, database: Timestamp, sent: Instant, answered: Instant) {
        let least = database.micros().saturating_sub(self.until(answered));
        let most = database.micros().saturating_sub(self.until(sent));
        self.offset.fetch_max(least, Ordering::Relaxed);
        self.offset.fetch_min(most, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn follows_the_database_in_both_directions_and_no_slow_answer() {
        let clock = Clock::new(Timestamp(1_000_000_000));
        let at = |seconds| clock.started + Duration::from_secs(seconds);
        let sync = |database: i64, sent, answered| {
            clock.sync_at(Timestamp(database * 1_000_000), at(sent), at(answered));
            clock.offset.load(Ordering::Relaxed) / 1_000_000
        };
        // Sent at 10 and answered at 14, it may have been 1010 to 1014.
        for said in 1010..=1014 {
            assert_eq!(sync(said, 10, 14), 1000, "{said}");
        }
        assert_eq!(sync(1015, 10, 14), 1001, "it is late");
        assert_eq!(sync(1010, 10, 14), 1000, "it is early");
        assert_eq!(sync(4614, 10, 14), 4600, "the database's was set forward");
        assert_eq!(sync(1010, 10, 14), 1000, "and back");
    }
}
