//! Measures Longtake.

mod media;

use std::io::Write as _;

use clap::{Parser, Subcommand};

/// Measures Longtake on this machine.
#[derive(Debug, Parser)]
#[command(name = "longtake-bench", version)]
struct Cli {
    #[command(subcommand)]
    workload: Workload,
    /// How often everything is measured, interleaved; medians and spread are shown.
    #[arg(long, global = true, default_value_t = 5)]
    repeats: usize,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// The video step against one plain start of ffmpeg.
    Media,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.workload {
        Workload::Media => {
            let report = media::run(cli.repeats).await?;
            writeln!(std::io::stdout(), "{}", report.to_markdown())?;
        }
    }
    Ok(())
}
