//! The session: the leases that this process holds, and until when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use longtake_proto::convert::std_from_duration;
use longtake_proto::v1;

use crate::config::{PACE_FIRST, PACE_MAX, PACE_MIN};
use crate::lease::{Lease, Pacing, Stop};

pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) pacing: Pacing,
    leases: Mutex<BTreeMap<String, Arc<Lease>>>,
    /// The newest committed end, on this process's monotonic clock.
    end: watch::Sender<Option<Instant>>,
    pace: Mutex<Duration>,
    /// A lease was added.
    added: Notify,
    /// A lease has something to deliver; shared with all leases.
    due: Arc<Notify>,
}

impl Session {
    pub(crate) fn new(id: String, pacing: Pacing) -> Session {
        Session {
            id,
            pacing,
            leases: Mutex::default(),
            end: watch::Sender::default(),
            pace: Mutex::new(PACE_FIRST),
            added: Notify::new(),
            due: Arc::default(),
        }
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a lease in; none when it is held already.
    pub(crate) fn add(&self, token: &str) -> Option<Arc<Lease>> {
        let mut leases = self.leases();
        if leases.contains_key(token) {
            return None;
        }
        let lease = Arc::new(Lease::new(token.to_owned(), Arc::clone(&self.due)));
        leases.insert(token.to_owned(), Arc::clone(&lease));
        drop(leases);
        self.added.notify_one();
        Some(lease)
    }

    /// Lets a lease go: it is reported, or lost.
    pub(crate) fn remove(&self, token: &str) {
        self.leases().remove(token);
    }

    /// All leases, as of now.
    pub(crate) fn held(&self) -> Vec<Arc<Lease>> {
        self.leases().values().cloned().collect()
    }

    /// Resolves when there is a lease that the server should have heard of, but not before `earliest`.
    pub(crate) async fn newcomer(&self, earliest: Instant) {
        loop {
            let first = self.leases().values().filter_map(|lease| lease.first_due(self.pacing)).min();
            match first {
                None => self.added.notified().await,
                // The leases that are added while it waits are due later than this one.
                Some(first) => return tokio::time::sleep_until(first.max(earliest)).await,
            }
        }
    }

    /// Takes in what a reply says of the session. `sent_at` is when its call was sent: counting from then, the end is never too late.
    pub(crate) fn renewed(
        &self,
        sent_at: Instant,
        remaining: Option<&prost_types::Duration>,
        pace: Option<&prost_types::Duration>,
    ) {
        if let Some(pace) = pace.and_then(std_from_duration) {
            *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace.clamp(PACE_MIN, PACE_MAX);
        }
        if let Some(end) = remaining.and_then(std_from_duration).and_then(|span| sent_at.checked_add(span)) {
            self.extend(end);
        }
    }

    /// A lease came without the session's end: until the first heartbeat is answered, its own timeout stands in.
    pub(crate) fn assume(&self, lease: &v1::StepLease) {
        let timeout = lease.heartbeat_timeout.as_ref().and_then(std_from_duration);
        if let Some(end) = timeout.and_then(|span| Instant::now().checked_add(span)) {
            self.extend(end);
        }
    }

    fn extend(&self, end: Instant) {
        self.end.send_if_modified(|current| {
            let later = current.is_none_or(|current| current < end);
            if later {
                *current = Some(end);
            }
            later
        });
    }

    /// How long after a renewal the next one is sent.
    pub(crate) fn pace(&self) -> Duration {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first lease has something to deliver.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.leases().values().filter_map(|lease| lease.due_at()).min()
    }

    /// Resolves when that may have changed.
    pub(crate) async fn due_changed(&self) {
        self.due.notified().await;
    }

    /// Stops all work when the session could not be renewed before its end.
    pub(crate) async fn watch_end(&self) {
        let mut ends = self.end.subscribe();
        loop {
            let end = *ends.borrow_and_update();
            let over = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = ends.changed() => if changed.is_err() { return },
                () = over => {
                    self.stop_all();
                    if ends.changed().await.is_err() { return }
                }
            }
        }
    }

    fn stop_all(&self) {
        let held = self.held();
        if !held.is_empty() {
            tracing::warn!(
                leases = held.len(),
                "the session could not be renewed before its end: stopping all work"
            );
        }
        for lease in held {
            lease.stop(Stop::SessionEnded);
        }
    }
}
