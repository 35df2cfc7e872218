//! The stack's database: a private PostgreSQL that is started again when it dies, or one that is there already.

use std::path::Path;

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::backoff::Deaths;
use super::{Notice, StackOptions};
use crate::postgres::{PostgresOptions, PrivatePostgres};

/// A database.
pub(super) struct Database {
    url: String,
    /// The private one's supervisor; it ends with the outcome of the stop.
    private: Option<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
}

impl Database {
    /// Starts the private one, unless there is another to use.
    pub(super) async fn start(
        options: &StackOptions,
        data_dir: &Path,
        notices: UnboundedSender<Notice>,
    ) -> anyhow::Result<Database> {
        if let Some(url) = &options.database_url {
            return Ok(Database { url: url.clone(), private: None });
        }
        let options = PostgresOptions::new(data_dir.join("postgres"));
        let postgres =
            PrivatePostgres::start(options.clone()).await.context("the private PostgreSQL did not start")?;
        let url = postgres.url();
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(postgres, options, stop.clone(), notices));
        Ok(Database { url, private: Some((stop, task)) })
    }

    /// Where to connect; the same after every restart.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Stops the private one.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Some((stop, task)) = self.private else { return Ok(()) };
        stop.cancel();
        task.await.context("PostgreSQL's supervisor broke")?.context("PostgreSQL did not stop")
    }
}

async fn supervise(
    mut postgres: PrivatePostgres,
    options: PostgresOptions,
    stop: CancellationToken,
    notices: UnboundedSender<Notice>,
) -> anyhow::Result<()> {
    let mut deaths = Deaths::default();
    let mut start = Instant::now();
    loop {
        let mut died = tokio::select! {
            () = stop.cancelled() => return postgres.stop().await,
            died = postgres.exited() => died,
        };
        // The folder's lock goes with it.
        drop(postgres);
        postgres = loop {
            let (delay, in_row) = deaths.another(start.elapsed());
            let notice =
                Notice::Restarting { part: "postgres".to_owned(), why: format!("{died:#}"), delay, in_row };
            // Nobody listens any more only when everything is being stopped.
            let _ = notices.send(notice);
            tokio::select! {
                () = sleep(delay) => {}
                () = stop.cancelled() => return Ok(()),
            }
            start = Instant::now();
            match PrivatePostgres::start(options.clone()).await {
                Ok(postgres) => break postgres,
                Err(error) => died = error,
            }
        };
    }
}
