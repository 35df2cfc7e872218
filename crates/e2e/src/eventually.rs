//! Waiting for what will happen.

use std::time::Duration;

use tokio::time::Instant;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Looks until it sees what it waits for and returns that; each time else, `look` says what it saw instead.
///
/// # Panics
/// When that is not so `within` the time: with what was seen last.
pub async fn eventually<T>(within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + within;
    loop {
        let seen = match look().await {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(Instant::now() < end, "not within {within:?}; the last look saw: {seen}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Lets time pass, where that it passes is the fault: an absence, a silence.
pub async fn pass(time: Duration) {
    let began = Instant::now();
    eventually(time * 2, async || if began.elapsed() < time { Err("it passes".to_owned()) } else { Ok(()) })
        .await;
}
