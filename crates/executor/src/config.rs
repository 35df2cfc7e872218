//! What an executor can be told, with every bound in one place.

use std::time::Duration;

use crate::Error;

/// How an executor works. [`Config::new`] has the values that suit most.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses such as `http://127.0.0.1:50051`: replicas of one server, at least one. The next one is taken when one fails.
    pub servers: Vec<String>,
    /// A name that people recognise; 1 to 200 characters.
    pub name: String,
    /// The machine; at most 253 characters.
    pub host: String,
    /// The executor's own version; at most 100 characters.
    pub version: String,
    /// How many steps it works on at a time; 1 to 1,000.
    pub slots: usize,
    /// How long a poll is held while there is nothing to do; at most 50 s.
    pub poll_wait: Duration,
    /// What a drain leaves to steps before they are dropped and given back. Add [`Config::report_grace`] for the time from the signal to
    /// the end.
    pub drain_grace: Duration,
    /// What a CANCEL leaves to a step before it is dropped and given back.
    pub cancel_grace: Duration,
    /// How long the last reports are tried when everything else has ended.
    pub report_grace: Duration,
    /// When the server first hears of a lease. Steps that are done by then cost no heartbeat.
    pub first_heartbeat: Duration,
    /// How often progress is sent at most.
    pub progress_interval: Duration,
    /// When a call that is not held counts as failed.
    pub call_timeout: Duration,
    /// When a connection that is being made counts as failed.
    pub connect_timeout: Duration,
    /// The session: a UUID that is new with every start of the process.
    pub session_id: String,
}

/// The server's bound on a call, less what framing and the call's own fields take.
pub(crate) const CALL_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;
/// How large a reply may be: one lease always comes whole.
pub(crate) const REPLY_BYTES: usize = 16 * 1024 * 1024;
/// How many leases a poll asks for at most.
pub(crate) const POLL_STEPS: usize = 100;
/// How many items a call carries at most.
pub(crate) const CALL_ITEMS: usize = 1_000;
/// The server's bound on output and checkpoint data, as JSON.
pub(crate) const DATA_BYTES: usize = 64 * 1024;
/// The length of a progress message.
pub(crate) const MESSAGE_CHARS: usize = 200;
/// How far errors are cut before they are sent; the server's bound is 8 KiB.
pub(crate) const ERROR_BYTES: usize = 6 * 1024;
/// However fast a server asks for heartbeats.
pub(crate) const PACE_MIN: Duration = Duration::from_millis(10);
/// However slow: renewals are held for as long as their pace, and no call may be held longer.
pub(crate) const PACE_MAX: Duration = Duration::from_secs(50);
/// The pace until the server has set one.
pub(crate) const PACE_FIRST: Duration = Duration::from_secs(1);

const POLL_WAIT_MAX: Duration = Duration::from_secs(50);
const SLOTS_MAX: usize = 1_000;

impl Config {
    /// One slot at one server.
    pub fn new(server: impl Into<String>) -> Config {
        let host = host();
        Config {
            servers: vec![server.into()],
            name: format!("{host}-{}", std::process::id()),
            host,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: 1,
            poll_wait: Duration::from_secs(45),
            drain_grace: Duration::from_secs(20),
            cancel_grace: Duration::from_secs(5),
            report_grace: Duration::from_secs(5),
            first_heartbeat: Duration::from_millis(250),
            progress_interval: Duration::from_secs(1),
            call_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            session_id: uuid::Uuid::new_v4().to_string(),
        }
    }

    /// With so many slots.
    #[must_use]
    pub fn slots(self, slots: usize) -> Config {
        Config { slots, ..self }
    }

    /// With this name.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Config {
        Config { name: name.into(), ..self }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |what: String| Err(Error::Config(what));
        if self.servers.is_empty() {
            return invalid("servers: name at least one address, such as http://127.0.0.1:50051".to_owned());
        }
        if !(1..=SLOTS_MAX).contains(&self.slots) {
            return invalid(format!("slots: {} is not within 1 to {SLOTS_MAX}", self.slots));
        }
        if self.poll_wait > POLL_WAIT_MAX {
            return invalid(format!("poll_wait: {:?} is above {POLL_WAIT_MAX:?}", self.poll_wait));
        }
        Ok(())
    }
}

fn host() -> String {
    let named = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    let asked = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    named.or_else(asked).map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}
