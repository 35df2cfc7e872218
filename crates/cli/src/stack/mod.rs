//! The whole system on one machine: a private PostgreSQL, the server, and one executor process per content queue.
//!
//! `longtake dev` and `longtake run` start it. Each part is a process of its own that is started again when it dies, except that
//! PostgreSQL's supervisor lives in here. Parts are stopped in the order in which they need each other: executors drain, then the
//! server, then the database. The children's standard input is held open by us: when we are killed, they see its end, and stop.

mod args;
mod backoff;
mod child;
mod database;
mod ports;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::connect::{Server, ServerUrl};
use crate::exit::Ended;
use crate::format;
use crate::signals::Stop;
use crate::worker::MediaOptions;
pub(crate) use args::StackArgs;
use child::{Child, LogTo};
use database::Database;

/// How long the server may take to answer for the first time.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a stopped part is given on top of its own grace before it is killed.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// How long the server takes at most to finish what is under way.
const SERVER_GRACE: Duration = Duration::from_secs(45);
/// The workflow of `submit`, for where there is no folder of definitions.
const CONTENT_WORKFLOW: &str = include_str!("../../../../workflows/content.toml");

/// What the stack is started with.
#[derive(Clone, Debug)]
pub(crate) struct StackOptions {
    /// Where everything that has to last is kept.
    pub(crate) data_dir: PathBuf,
    /// An existing database instead of a private one.
    pub(crate) database_url: Option<String>,
    /// Where gRPC listens; absent for any free port of this machine.
    pub(crate) grpc_listen: Option<SocketAddr>,
    /// Where HTTP listens.
    pub(crate) http_listen: Option<SocketAddr>,
    /// The folder of definitions; absent for the one that ships.
    pub(crate) workflows: Option<PathBuf>,
    /// Where artifacts are stored.
    pub(crate) artifacts: String,
    /// How many steps each executor works on at a time.
    pub(crate) slots: usize,
    /// How many segments the video executor renders at a time; absent for as many as there are cores.
    pub(crate) video_jobs: Option<usize>,
    /// The queues, each with an executor process of its own.
    pub(crate) queues: Vec<String>,
    /// What a drain leaves to running steps.
    pub(crate) grace: Duration,
    /// How long runs are kept after they ended; absent for ever.
    pub(crate) retention: Option<Duration>,
    /// Write what the parts log into files in `data_dir`, instead of handing it on.
    pub(crate) quiet: bool,
}

impl StackOptions {
    /// What the executors tell the content steps.
    pub(crate) fn media(&self) -> MediaOptions {
        MediaOptions { artifacts: Some(self.artifacts.clone()), video_jobs: self.video_jobs }
    }
}

/// Something that happened to a part of the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A part logged a line.
    Logged {
        /// The part.
        part: String,
        /// The line.
        line: String,
    },
    /// A part runs.
    Started {
        /// The part.
        part: String,
        /// Its process.
        pid: u32,
    },
    /// A part died and is started again.
    Restarting {
        /// The part.
        part: String,
        /// How it ended.
        why: String,
        /// After how long it is started again.
        delay: Duration,
        /// How often in a row it has died young.
        in_row: u32,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Logged { part, line } => write!(f, "{part}: {line}"),
            Notice::Started { part, pid } => write!(f, "{part} is process {pid}"),
            Notice::Restarting { part, why, delay, .. } => {
                write!(f, "{part} died and is started again in {}: {why}", format::span(*delay))
            }
        }
    }
}

/// A running stack. [`stop`](Stack::stop) it.
pub(crate) struct Stack {
    /// Where gRPC is.
    pub(crate) url: ServerUrl,
    /// The folder of definitions in use.
    pub(crate) workflows: PathBuf,
    /// The database's URL.
    pub(crate) database_url: String,
    /// Everything that has to last, as an absolute path.
    pub(crate) data_dir: PathBuf,
    database: Database,
    server: Part,
    executors: Vec<Part>,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// What was said while everything was starting.
    early: VecDeque<Notice>,
}

/// A supervised child and how to stop it.
struct Part {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Part {
    fn start(child: Child, now: CancellationToken, notices: mpsc::UnboundedSender<Notice>) -> Part {
        let stop = CancellationToken::new();
        let task = tokio::spawn(child.supervise(stop.clone(), now, notices));
        Part { stop, task }
    }

    async fn stopped(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a supervisor broke");
        }
    }
}

impl Stack {
    /// Starts everything and waits until the server answers.
    ///
    /// # Errors
    /// A part does not come up; what was started is stopped again.
    pub(crate) async fn start(options: StackOptions, stop: &Stop) -> anyhow::Result<Stack> {
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("cannot make the folder {}", options.data_dir.display()))?;
        let data_dir = options.data_dir.canonicalize()?;
        let grpc = ports::choose(options.grpc_listen, "--grpc-listen")?;
        if let Some(http) = options.http_listen {
            ports::choose(Some(http), "--http-listen")?;
        }
        let workflows = match &options.workflows {
            Some(folder) => folder.clone(),
            None => shipped_workflows(&data_dir)?,
        };
        let (tell, notices) = mpsc::unbounded_channel();
        let database = Database::start(&options, &data_dir, tell.clone()).await?;
        let database_url = database.url().to_owned();
        let url = ServerUrl::local(grpc.port());
        let plan = Plan { options: &options, data_dir: &data_dir, url: &url };
        let server =
            Part::start(plan.server(grpc, &database_url, &workflows)?, stop.now.clone(), tell.clone());
        let mut stack = Stack {
            url: url.clone(),
            workflows,
            database_url,
            data_dir: data_dir.clone(),
            database,
            server,
            executors: Vec::new(),
            notices,
            early: VecDeque::new(),
        };
        if let Err(error) = stack.ready(stop).await {
            stack.stop(|_| {}).await?;
            return Err(error);
        }
        for queue in &options.queues {
            stack.executors.push(Part::start(plan.executor(queue)?, stop.now.clone(), tell.clone()));
        }
        Ok(stack)
    }

    /// Waits until the server takes calls.
    async fn ready(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let since = Instant::now();
        while !serving(&self.url).await {
            while let Ok(notice) = self.notices.try_recv() {
                self.early.push_back(notice);
            }
            // The first start decides whether it can work at all.
            if let Some(Notice::Restarting { part, why, .. }) =
                self.early.iter().find(|notice| matches!(notice, Notice::Restarting { .. }))
            {
                let said: String =
                    self.early.iter().filter_map(Notice::line).map(|line| format!("\n  {line}")).collect();
                bail!("{part} did not start: {why}{said}");
            }
            if stop.gently.is_cancelled() {
                bail!("interrupted");
            }
            if since.elapsed() > READY_TIMEOUT {
                return Err(Ended::unavailable(format!(
                    "the server did not answer within {READY_TIMEOUT:?}"
                )));
            }
            sleep(READY_LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// What happens to a part next.
    pub(crate) async fn next_notice(&mut self) -> Option<Notice> {
        match self.early.pop_front() {
            Some(notice) => Some(notice),
            None => self.notices.recv().await,
        }
    }

    /// Stops everything in order; `show` is given what the parts still say.
    ///
    /// # Errors
    /// The database did not stop.
    pub(crate) async fn stop(self, mut show: impl FnMut(Notice)) -> anyhow::Result<()> {
        let Stack { executors, server, database, mut notices, early, .. } = self;
        early.into_iter().for_each(&mut show);
        for executor in &executors {
            executor.stop.cancel();
        }
        let stopping = async {
            for executor in executors {
                executor.stopped().await;
            }
            server.stopped().await;
            database.stop().await
        };
        tokio::pin!(stopping);
        let stopped = loop {
            tokio::select! {
                biased;
                Some(notice) = notices.recv() => show(notice),
                stopped = &mut stopping => break stopped,
            }
        };
        while let Ok(notice) = notices.try_recv() {
            show(notice);
        }
        stopped
    }
}

impl Notice {
    fn line(&self) -> Option<&str> {
        match self {
            Notice::Logged { line, .. } => Some(line),
            Notice::Started { .. } | Notice::Restarting { .. } => None,
        }
    }
}

async fn serving(url: &ServerUrl) -> bool {
    let Ok(server) = Server::connect(std::slice::from_ref(url)).await else { return false };
    let asked =
        HealthClient::new(server.channel()).check(HealthCheckRequest { service: String::new() }).await;
    asked.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}

/// The definitions that this program carries, as a folder.
fn shipped_workflows(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let folder = data_dir.join("workflows");
    let write = || {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("content.toml"), CONTENT_WORKFLOW)
    };
    write().with_context(|| format!("cannot write the workflows to {}", folder.display()))?;
    Ok(folder)
}

/// What the children are told.
struct Plan<'a> {
    options: &'a StackOptions,
    data_dir: &'a Path,
    url: &'a ServerUrl,
}

impl Plan<'_> {
    fn child(&self, name: &str, grace: Duration, arguments: Vec<String>) -> anyhow::Result<Child> {
        let log = if self.options.quiet {
            LogTo::File(self.data_dir.join("logs").join(format!("{name}.log")))
        } else {
            LogTo::Notices
        };
        Child::new(name, arguments, log, grace + STOP_MARGIN)
    }

    fn server(&self, grpc: SocketAddr, database_url: &str, workflows: &Path) -> anyhow::Result<Child> {
        let http = self.options.http_listen.map_or_else(|| "off".to_owned(), |address| address.to_string());
        let retention =
            self.options.retention.map_or_else(|| "off".to_owned(), |span| format!("{}ms", span.as_millis()));
        let arguments = vec![
            "serve".to_owned(),
            "--while-input-is-open".to_owned(),
            format!("--grpc-listen={grpc}"),
            format!("--http-listen={http}"),
            format!("--workflows={}", workflows.display()),
            format!("--retention={retention}"),
        ];
        // Not on the command line, which everybody on this machine can read.
        let child = self.child("server", SERVER_GRACE, arguments)?;
        Ok(child.env("LONGTAKE_DATABASE_URL", database_url))
    }

    fn executor(&self, queue: &str) -> anyhow::Result<Child> {
        let options = self.options;
        let mut arguments = vec![
            "executor".to_owned(),
            "--while-input-is-open".to_owned(),
            format!("--server={}", self.url),
            format!("--queues={queue}"),
            format!("--name={queue}-1"),
            format!("--slots={}", options.slots),
            format!("--artifacts={}", options.artifacts),
            format!("--grace={}ms", options.grace.as_millis()),
        ];
        arguments.extend(options.video_jobs.map(|jobs| format!("--video-jobs={jobs}")));
        self.child(queue, options.grace, arguments)
    }
}
