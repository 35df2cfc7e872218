//! Postgres's clock, as far as this process knows it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use longtake_engine::time::Timestamp;

/// The last `clock_timestamp()` that a statement returned, plus the monotonic time since. Never steps back.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Postgres's time when `started` was taken.
    offset: AtomicI64,
}

impl Clock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Clock {
        Clock { started: Instant::now(), offset: AtomicI64::new(now.micros()) }
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.offset.load(Ordering::Relaxed).saturating_add(self.elapsed()))
    }

    /// A statement said what time it is.
    pub fn sync(&self, database: Timestamp) {
        self.offset.fetch_max(database.micros().saturating_sub(self.elapsed()), Ordering::Relaxed);
    }
}
