//! `longtake executor`.

use std::time::Duration;

use clap::Args;

use crate::args::Global;
use crate::exit::{Ended, Exit};
use crate::format::parse_span;
use crate::signals::Stop;
use crate::worker::{self, MediaOptions, QUEUES, WorkerOptions};
use crate::{format, output};

/// `longtake executor`.
#[derive(Debug, Args)]
pub(crate) struct ExecutorArgs {
    /// The queues to take steps from.
    #[arg(
        long,
        env = "LONGTAKE_QUEUES",
        value_name = "QUEUE,…",
        value_delimiter = ',',
        default_value = "script,audio,video,finalize"
    )]
    queues: Vec<String>,
    /// How many steps to work on at a time.
    #[arg(long, env = "LONGTAKE_SLOTS", value_name = "N", default_value_t = 1, value_parser = worker::parse_slots)]
    slots: usize,
    /// A name that people recognise; the machine's name and the process id when absent.
    #[arg(long, env = "LONGTAKE_NAME")]
    name: Option<String>,
    /// Where artifacts are stored: a folder, file://, s3:// or gs://; the same for all executors.
    #[arg(long, env = "LONGTAKE_ARTIFACTS", value_name = "URL")]
    artifacts: Option<String>,
    /// How many segments of videos to render at a time, those of all slots together; as many as there are cores when absent.
    #[arg(long, env = "LONGTAKE_VIDEO_JOBS", value_name = "N", value_parser = worker::parse_video_jobs)]
    video_jobs: Option<usize>,
    /// How long running steps may take to come to a checkpoint on SIGTERM, before they are dropped and given back.
    #[arg(long, env = "LONGTAKE_GRACE", value_name = "SPAN", default_value = "20s", value_parser = parse_span)]
    grace: Duration,
    /// Say whether this machine has what the steps need, and end.
    #[arg(long)]
    check: bool,
    /// Drain when standard input ends: for a parent that holds it open.
    #[arg(long, hide = true)]
    while_input_is_open: bool,
}

pub(super) async fn execute(args: ExecutorArgs, global: &Global) -> anyhow::Result<Exit> {
    let queues: Vec<&str> = args.queues.iter().map(String::as_str).collect();
    if let Some(unknown) = queues.iter().find(|queue| !QUEUES.contains(queue)) {
        return Err(Ended::usage(format!(
            "no step of this program serves the queue {unknown:?}: it has {}",
            QUEUES.join(", ")
        )));
    }
    let media = MediaOptions { artifacts: args.artifacts, video_jobs: args.video_jobs };
    if args.check {
        return check(&media, &queues, global).await;
    }
    tokio::spawn(complain(media.clone(), args.queues.clone()));
    let stop = Stop::on_signals()?;
    if args.while_input_is_open {
        stop.also_when_input_ends();
    }
    let options = WorkerOptions {
        servers: global.server.iter().map(ToString::to_string).collect(),
        queues: args.queues.clone(),
        slots: args.slots,
        name: args.name,
        media,
        grace: args.grace,
    };
    tracing::info!(
        queues = args.queues.join(","),
        slots = args.slots,
        grace = format::span(args.grace),
        "executor starting"
    );
    tokio::select! {
        worked = worker::work(options, stop.gently.clone()) => worked.map(|()| Exit::Done),
        () = stop.now.cancelled() => Ok(Exit::Interrupted),
    }
}

/// Says what is missing here, beside the work: steps that need it fail, and say so too.
async fn complain(media: MediaOptions, queues: Vec<String>) {
    let queues: Vec<&str> = queues.iter().map(String::as_str).collect();
    for problem in worker::problems(&media, &queues).await {
        tracing::error!("this machine cannot do all of its work: {problem}");
    }
}

async fn check(media: &MediaOptions, queues: &[&str], global: &Global) -> anyhow::Result<Exit> {
    let findings = worker::check(media, queues).await?;
    let complete = findings.iter().all(|finding| finding.found.is_ok());
    if global.json {
        let documents: Vec<_> = findings.iter().map(worker::finding_json).collect();
        output::json_value(&serde_json::json!({ "complete": complete, "findings": documents }))?;
    } else {
        let rows: Vec<_> = findings.iter().map(worker::finding_row).collect();
        output::table(["", "WHAT", "FOR", "FOUND"], &rows)?;
    }
    Ok(if complete { Exit::Done } else { Exit::Failed })
}
