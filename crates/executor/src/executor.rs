//! The executor as its author sees it.

use std::collections::BTreeMap;
use std::future::Future;
use std::{io, thread};

use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::link::{self, Orders};
use crate::step::{AnyStep, forget_type};
use crate::{Config, Step};

/// Works on the steps of some queues.
pub struct Executor {
    config: Config,
    steps: BTreeMap<String, AnyStep>,
}

/// Why an executor could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// There is nothing that it could work on.
    #[error("the executor serves no queue: give it at least one step")]
    NoStep,
    /// The operating system refused a thread, a signal handler or a socket.
    #[error("the executor could not start: {0}")]
    Start(#[source] io::Error),
    /// The server refused to be polled: trying again would not help.
    #[error("the server refused the poll: {}: {}", .0.code(), .0.message())]
    Refused(Box<tonic::Status>),
    /// A fault of this library.
    #[error("the executor's own thread panicked")]
    Panicked,
}

impl Executor {
    /// An executor that serves no queue yet.
    pub fn new(config: Config) -> Executor {
        Executor { config, steps: BTreeMap::new() }
    }

    /// Serves `queue` with `step`; a step's queue is its own name unless its definition says otherwise. Of two for the same queue the last
    /// one counts.
    #[must_use]
    pub fn step(mut self, queue: impl Into<String>, step: impl Step) -> Executor {
        self.steps.insert(queue.into(), forget_type(step));
        self
    }

    /// Works until SIGTERM or SIGINT, then drains. A second signal ends the drain at once: steps are dropped and given back.
    ///
    /// Call it within a tokio runtime: steps run there.
    pub async fn run(self) -> Result<(), Error> {
        self.work(|orders: Orders| {
            let mut terminate = signal(SignalKind::terminate()).map_err(Error::Start)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Start)?;
            Ok(async move {
                either(&mut terminate, &mut interrupt).await;
                orders.drain.cancel();
                either(&mut terminate, &mut interrupt).await;
                orders.kill.cancel();
            })
        })
        .await
    }

    /// Works until `drain` resolves, then drains: takes no new steps, asks the running ones to yield, and drops those that have not ended
    /// within [`Config::drain_grace`]. Returns when all is reported.
    ///
    /// Call it within a tokio runtime: steps run there. `drain` is polled on the library's own runtime, so that steps that block do not hold
    /// it up. Dropping the future ends the executor without the grace.
    pub async fn run_until(self, drain: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        self.work(|orders: Orders| {
            Ok(async move {
                drain.await;
                orders.drain.cancel();
            })
        })
        .await
    }

    async fn work<F, L>(self, listen: F) -> Result<(), Error>
    where
        F: FnOnce(Orders) -> Result<L, Error> + Send + 'static,
        L: Future<Output = ()> + Send + 'static,
    {
        self.config.check()?;
        if self.steps.is_empty() {
            return Err(Error::NoStep);
        }
        let orders = Orders::default();
        let _ends_with_this_future = orders.kill.clone().drop_guard();
        let (ended, end) = oneshot::channel();
        let runtime = Handle::current();
        let link = move || {
            let _ = ended.send(link::run(&self.config, self.steps, runtime, orders, listen));
        };
        thread::Builder::new().name("longtake-link".to_owned()).spawn(link).map_err(Error::Start)?;
        end.await.unwrap_or(Err(Error::Panicked))
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
