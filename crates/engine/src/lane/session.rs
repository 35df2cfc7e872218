//! One session: one life of an executor process, as far as this replica knows it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{RunId, StepNo};
use crate::time::{Duration, Timestamp};

use super::timeouts::Timeouts;

/// How long a session lasts when the steps that it holds do not say otherwise.
pub const SESSION_LASTS: Duration = Duration::from_secs(30);
/// An executor whose name no call has said yet.
const UNNAMED: &str = "executor";

/// A step of a run, which one session at most holds.
pub(super) type Held = (RunId, StepNo);

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    pub executor: Arc<str>,
    /// When it last called.
    pub heard: Timestamp,
    /// Its committed end; none before the first commit, when another replica renewed it, or since an outage.
    pub until: Option<Timestamp>,
    /// What it holds was read again since then.
    pub verified: bool,
    /// Wants a later end in the next write.
    pub renew: bool,
    /// Ended in the database; its leases are being revoked.
    pub ended: bool,
    pub leases: BTreeSet<Held>,
    /// The heartbeat timeouts of its leases, and of those among them that its executor was heard of.
    pub held: Timeouts,
    pub running: Timeouts,
    /// How many runs are being read for it.
    pub searching: usize,
}

impl Session {
    pub fn new(executor: Arc<str>) -> Session {
        let executor = if executor.is_empty() { Arc::from(UNNAMED) } else { executor };
        Session {
            executor,
            heard: Timestamp::default(),
            until: None,
            verified: false,
            renew: false,
            ended: false,
            leases: BTreeSet::new(),
            held: Timeouts::default(),
            running: Timeouts::default(),
            searching: 0,
        }
    }

    pub fn told(&mut self, until: Timestamp) {
        self.until = Some(until);
        self.verified = false;
    }

    pub fn is_over(&self, now: Timestamp) -> bool {
        !self.renew && self.until.is_some_and(|until| until < now)
    }

    pub fn holds_nothing(&self) -> bool {
        self.leases.is_empty() && self.searching == 0
    }

    /// Renewed when a third of its time has gone, and when it has much more than it should: it holds a stricter lease now.
    pub fn want_time(&mut self, lasts: Duration, now: Timestamp) {
        let left = self.until.map_or(Duration::ZERO, |until| until.since(now));
        self.renew |= !self.ended && (left.0 <= lasts.0 / 3 * 2 || left.0 > lasts.0.saturating_mul(3) / 2);
    }
}
