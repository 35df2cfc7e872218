//! The heartbeat timeouts of a session's leases.

use std::collections::BTreeMap;

use crate::time::Duration;

/// How many leases have which heartbeat timeout: a session with a thousand leases is asked for the shortest all the time.
#[derive(Debug, Default)]
pub(super) struct Timeouts(BTreeMap<Duration, usize>);

impl Timeouts {
    pub fn add(&mut self, timeout: Duration) {
        *self.0.entry(timeout).or_default() += 1;
    }

    pub fn take(&mut self, timeout: Duration) {
        if let Some(count) = self.0.get_mut(&timeout) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&timeout);
            }
        }
    }

    pub fn shortest(&self) -> Option<Duration> {
        self.0.first_key_value().map(|(timeout, _)| *timeout)
    }
}
