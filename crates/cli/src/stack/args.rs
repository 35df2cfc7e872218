//! What `dev` and `run` are both told about the stack.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::StackOptions;
use crate::commands::{Kept, parse_retention};
use crate::format::parse_span;
use crate::worker;

/// The stack on the command line.
#[derive(Debug, Args)]
pub(crate) struct StackArgs {
    /// Where everything that has to last is kept: database, artifacts, logs.
    #[arg(long, env = "LONGTAKE_DATA_DIR", value_name = "DIR", default_value = ".longtake")]
    data_dir: PathBuf,
    /// How many steps each executor works on at a time.
    #[arg(long, env = "LONGTAKE_SLOTS", value_name = "N", default_value_t = 2, value_parser = worker::parse_slots)]
    slots: usize,
    /// How many segments of videos to render at a time; as many as there are cores when absent.
    #[arg(long, env = "LONGTAKE_VIDEO_JOBS", value_name = "N", value_parser = worker::parse_video_jobs)]
    video_jobs: Option<usize>,
    /// The folder of workflow definitions; ./workflows, or else what ships in this program.
    #[arg(long, env = "LONGTAKE_WORKFLOWS", value_name = "DIR")]
    workflows: Option<PathBuf>,
    /// Where artifacts are stored: a folder, file://, s3:// or gs://; a folder in the data folder when absent.
    #[arg(long, env = "LONGTAKE_ARTIFACTS", value_name = "URL")]
    artifacts: Option<String>,
    /// Use this database instead of a private PostgreSQL.
    #[arg(long, env = "LONGTAKE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// How long running steps may take to come to a checkpoint when everything is stopped.
    #[arg(long, env = "LONGTAKE_GRACE", value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    grace: Duration,
    /// How long runs are kept after they ended, such as 30d; `off` keeps them for ever. Artifacts are not touched.
    #[arg(
        long,
        env = "LONGTAKE_RETENTION",
        value_name = "SPAN",
        default_value = "30d",
        value_parser = parse_retention
    )]
    retention: Kept,
}

impl StackArgs {
    /// A stack on a free port, with one executor process per content queue, whose parts log into files.
    pub(crate) fn options(&self) -> StackOptions {
        let beside = self.data_dir.join("artifacts");
        let beside = std::path::absolute(&beside).unwrap_or(beside).display().to_string();
        let usual = Path::new("workflows");
        let here = || usual.join("content.toml").is_file().then(|| usual.to_owned());
        StackOptions {
            data_dir: self.data_dir.clone(),
            database_url: self.database_url.clone(),
            grpc_listen: None,
            http_listen: None,
            workflows: self.workflows.clone().or_else(here),
            artifacts: self.artifacts.clone().unwrap_or(beside),
            slots: self.slots,
            video_jobs: self.video_jobs,
            queues: worker::QUEUES.map(str::to_owned).to_vec(),
            grace: self.grace,
            retention: self.retention,
            quiet: true,
        }
    }
}
