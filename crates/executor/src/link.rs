//! The link to the server: everything that must go on while steps work, on a thread of its own.
//!
//! Polling, heartbeats and reports share one single-threaded runtime that runs no author's code. A step that blocks its own runtime
//! (a long computation in an async function) therefore still heartbeats, is still told to stop, and still counts against its slot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use longtake_proto::v1;

use crate::client::Client;
use crate::config::{Config, POLL_STEPS};
use crate::lease::Pacing;
use crate::reporter::Outgoing;
use crate::session::Session;
use crate::step::AnyStep;
use crate::{Error, heartbeat, poll, reporter};

/// A taken slot. Shared while a dropped step is reported but has not come back yet.
pub(crate) type Slot = Arc<OwnedSemaphorePermit>;

pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) client: Client,
    pub(crate) info: v1::ExecutorInfo,
    pub(crate) steps: BTreeMap<String, AnyStep>,
    /// Where steps run.
    pub(crate) runtime: Handle,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) poll_wait: Duration,
    pub(crate) cancel_grace: Duration,
    /// No new work.
    pub(crate) drain: CancellationToken,
    /// No more work.
    pub(crate) abort: CancellationToken,
    reports: UnboundedSender<Outgoing>,
}

/// What the caller of an executor can ask of its link.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    /// Take no new work, and end when the rest is done.
    pub(crate) drain: CancellationToken,
    /// End now.
    pub(crate) kill: CancellationToken,
}

impl Link {
    /// Hands a report over for delivery. There are never more of them than leases.
    pub(crate) fn report(&self, outgoing: Outgoing) {
        // The reporter ends only with the link.
        let _ = self.reports.send(outgoing);
    }

    pub(crate) fn queues(&self) -> Vec<String> {
        self.steps.keys().cloned().collect()
    }

    pub(crate) fn next_poll(&self, slots: usize, request_id: Uuid) -> v1::NextPoll {
        let max_steps = i32::try_from(slots.min(POLL_STEPS)).unwrap_or(i32::MAX);
        let executor = Some(self.info.clone());
        v1::NextPoll { queues: self.queues(), max_steps, request_id: request_id.to_string(), executor }
    }
}

/// Runs a link until it has drained. Blocks its thread. `runtime` is where steps run; what `listen` returns gives the orders.
pub(crate) fn run<L>(
    config: &Config,
    steps: BTreeMap<String, AnyStep>,
    runtime: Handle,
    orders: Orders,
    listen: impl FnOnce(Orders) -> Result<L, Error>,
) -> Result<(), Error>
where
    L: Future<Output = ()> + Send + 'static,
{
    let own = Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
    own.block_on(async {
        let listener = listen(orders.clone())?;
        let (reports, queue) = unbounded_channel();
        let pacing =
            Pacing { first_heartbeat: config.first_heartbeat, progress_interval: config.progress_interval };
        let link = Arc::new(Link {
            session: Session::new(config.session_id.clone(), pacing),
            client: Client::new(config)?,
            info: info(config),
            steps,
            runtime,
            slots: Arc::new(Semaphore::new(config.slots)),
            poll_wait: config.poll_wait,
            cancel_grace: config.cancel_grace,
            drain: orders.drain,
            abort: CancellationToken::new(),
            reports,
        });
        let mut loops = JoinSet::new();
        loops.spawn(listener);
        loops.spawn(reporter::run(Arc::clone(&link), queue));
        loops.spawn(heartbeat::renew(Arc::clone(&link)));
        loops.spawn(heartbeat::deliver(Arc::clone(&link)));
        let watched = Arc::clone(&link);
        loops.spawn(async move { watched.session.watch_end().await });
        let ended = work(config, &link, orders.kill).await;
        loops.shutdown().await;
        ended
    })
}

fn info(config: &Config) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        name: config.name.clone(),
        host: config.host.clone(),
        pid: i32::try_from(std::process::id()).unwrap_or_default(),
        version: config.version.clone(),
    }
}

/// Polls until the drain, then sees to it that every step ends.
async fn work(config: &Config, link: &Arc<Link>, kill: CancellationToken) -> Result<(), Error> {
    let polled = tokio::select! {
        biased;
        () = kill.cancelled() => Ok(()),
        polled = poll::run(link, config.slots) => polled,
    };
    link.drain.cancel();
    tracing::info!("draining: no new steps are taken");
    link.session.held().iter().for_each(|lease| lease.drain());
    let drained = tokio::select! {
        biased;
        () = all_free(config, link) => true,
        () = kill.cancelled() => false,
        () = tokio::time::sleep(config.drain_grace) => false,
    };
    if !drained {
        link.abort.cancel();
        if tokio::time::timeout(config.report_grace, all_free(config, link)).await.is_err() {
            tracing::error!(
                "not every step could be given back in time: their leases will end with the session"
            );
        }
    }
    polled
}

/// Resolves when every step has ended and every report is delivered: a slot is held until both.
async fn all_free(config: &Config, link: &Link) {
    let slots = u32::try_from(config.slots).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    let _ = link.slots.acquire_many(slots).await;
}
