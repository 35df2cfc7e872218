//! The content steps on the executor library: the one place where the two are put together with what the command line says.

use std::time::Duration;

use anyhow::Context as _;
use longtake_executor::{Config, Executor};
use longtake_media::{Finding, Media, MediaConfig, VIDEO_JOBS};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::exit::Ended;

/// The queues that this program has steps for.
pub(crate) const QUEUES: [&str; 4] = ["script", "audio", "video", "finalize"];
/// The library's bound.
const SLOTS: std::ops::RangeInclusive<usize> = 1..=1_000;

/// What the content steps are told on the command line; what is absent, the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct MediaOptions {
    /// Where artifacts are stored.
    pub(crate) artifacts: Option<String>,
    /// How many segments are rendered at a time.
    pub(crate) video_jobs: Option<usize>,
}

/// What an executor is told.
#[derive(Clone, Debug)]
pub(crate) struct WorkerOptions {
    /// Replicas of one server.
    pub(crate) servers: Vec<String>,
    /// Some of [`QUEUES`].
    pub(crate) queues: Vec<String>,
    /// How many steps at a time.
    pub(crate) slots: usize,
    /// For people.
    pub(crate) name: Option<String>,
    /// For the content steps.
    pub(crate) media: MediaOptions,
    /// What a drain leaves to running steps.
    pub(crate) grace: Duration,
}

/// Reads a number of slots.
pub(crate) fn parse_slots(text: &str) -> Result<usize, String> {
    let slots = text.parse().ok().filter(|slots| SLOTS.contains(slots));
    slots.ok_or_else(|| format!("{text:?} is no number of slots: {} to {}", SLOTS.start(), SLOTS.end()))
}

/// Reads a number of segments that are rendered at a time.
pub(crate) fn parse_video_jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse().ok().filter(|jobs| VIDEO_JOBS.contains(jobs));
    jobs.ok_or_else(|| {
        format!("{text:?} is no number of jobs: {} to {}", VIDEO_JOBS.start(), VIDEO_JOBS.end())
    })
}

fn config(options: &MediaOptions) -> anyhow::Result<MediaConfig> {
    let mut config = MediaConfig::from_env().map_err(|error| Ended::usage(error.to_string()))?;
    if let Some(artifacts) = &options.artifacts {
        config.artifacts.clone_from(artifacts);
    }
    if let Some(jobs) = options.video_jobs {
        config.video_jobs = jobs;
    }
    Ok(config)
}

/// Works until `stop` is cancelled, then drains.
///
/// # Errors
/// The configuration cannot be used, or the server refuses this executor.
pub(crate) async fn work(options: WorkerOptions, stop: CancellationToken) -> anyhow::Result<()> {
    let media = Media::open(config(&options.media)?).context("the content steps cannot start")?;
    let [first, ..] = options.servers.as_slice() else {
        return Err(Ended::usage("--server names no server"));
    };
    let mut config = Config::new(first.as_str()).slots(options.slots);
    config.servers = options.servers;
    config.drain_grace = options.grace;
    if let Some(name) = options.name {
        config = config.name(name);
    }
    let queues: Vec<&str> = options.queues.iter().map(String::as_str).collect();
    let executor = longtake_media::register(Executor::new(config), media, &queues);
    executor.run_until(stop.cancelled_owned()).await.context("the executor ended")
}

/// What this machine has of what the steps of these queues need.
///
/// # Errors
/// The environment says something that cannot be used.
pub(crate) async fn check(options: &MediaOptions, queues: &[&str]) -> anyhow::Result<Vec<Finding>> {
    Ok(longtake_media::check(&config(options)?, queues).await)
}

/// What is missing here, in words, with the command that installs it.
pub(crate) async fn problems(options: &MediaOptions, queues: &[&str]) -> Vec<String> {
    match check(options, queues).await {
        Ok(findings) => findings.iter().filter_map(problem).collect(),
        Err(error) => vec![error.to_string()],
    }
}

fn problem(finding: &Finding) -> Option<String> {
    let wrong = finding.found.as_ref().err()?;
    let install = finding.install.map(|command| format!("; install it with `{command}`")).unwrap_or_default();
    Some(format!("{} (for {}): {wrong}{install}", finding.what, finding.queues.join(", ")))
}

/// One row of a table of findings.
pub(crate) fn finding_row(finding: &Finding) -> [String; 4] {
    let (mark, found) = match &finding.found {
        Ok(found) => ("ok", found.clone()),
        Err(_) => ("MISSING", problem(finding).unwrap_or_default()),
    };
    [mark.to_owned(), finding.what.to_owned(), finding.queues.join(","), found]
}

/// The same for programs.
pub(crate) fn finding_json(finding: &Finding) -> Value {
    json!({
        "what": finding.what,
        "queues": finding.queues,
        "ok": finding.found.is_ok(),
        "found": finding.found.as_ref().ok(),
        "problem": finding.found.as_ref().err(),
        "install": finding.install,
    })
}
