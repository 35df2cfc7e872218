//! Measures Longtake against what the same machine's Postgres can do by itself. docs/BENCHMARKS.md explains method and figures.
//!
//! `bin/bench` builds and runs it. Every workload starts its own private PostgreSQL with its durability on; server, executors and
//! load are processes of their own; each ends with a check that every acknowledged run succeeded exactly once, or has no number.

mod floor;
mod gauges;
mod media;
mod overload;
mod report;
mod roles;
mod stage;
mod w1;
mod w2;
mod w3;
mod w4;
mod w5;
mod w6;
mod w7;
mod w8;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use report::Table;
use stage::Stage;

/// Measures Longtake against the floor that Postgres sets on this machine.
#[derive(Debug, Parser)]
#[command(name = "longtake-bench", version)]
struct Cli {
    #[command(subcommand)]
    workload: Workload,
    /// How often everything is measured, interleaved; medians and spread are shown.
    #[arg(long, global = true, default_value_t = 5)]
    repeats: usize,
    /// Seconds that one measurement takes.
    #[arg(long, global = true, default_value_t = 10)]
    seconds: u64,
    /// Seconds before it begins.
    #[arg(long, global = true, default_value_t = 3)]
    warm_up: u64,
    /// Where the JSON goes.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Saturation: runs a second over runs in flight, against the floor.
    W1 {
        /// Runs in flight.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256, 1024])]
        in_flight: Vec<usize>,
    },
    /// Latency of single runs at low rates, and by leg.
    W2 {
        /// Runs a second.
        #[arg(long, value_delimiter = ',', default_values_t = [1.0, 10.0, 100.0])]
        rates: Vec<f64>,
    },
    /// Steps that run for long and heartbeat, and what others feel of it.
    W3 {
        /// Running steps.
        #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
        steps: Vec<usize>,
    },
    /// A deep backlog, and one beside.
    W4 {
        /// Runs that wait.
        #[arg(long, default_value_t = 1_000_000)]
        backlog: usize,
    },
    /// Saturation over the number of finished runs in the tables.
    W5 {
        /// Finished runs.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000_000, 5_000_000])]
        finished: Vec<usize>,
    },
    /// Executors that wait while nothing happens.
    W6 {
        /// Polls that are held.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 10_000])]
        pollers: Vec<usize>,
    },
    /// Several servers over one database.
    W7 {
        /// Servers.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
        servers: Vec<usize>,
    },
    /// Half the knee while a transaction is held open.
    W8 {
        /// For how long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Five times what it can do.
    Overload,
    /// The video step against one plain start of ffmpeg.
    Media,
    /// Another process of the benchmark itself.
    #[command(hide = true)]
    Role { name: String, plan: String },
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// How often.
    pub repeats: usize,
    /// Before each measurement.
    pub warm_up: Duration,
    /// Each measurement.
    pub window: Duration,
    /// For each part of the floor.
    pub floor: Duration,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.workload {
        Workload::Role { name, plan } => role(name, plan),
        _ => bench(&cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn role(name: &str, plan: &str) -> Result<()> {
    match name {
        "load" => roles::run(roles::load::run(serde_json::from_str(plan)?)),
        "executors" => roles::run(roles::executors::run(serde_json::from_str(plan)?)),
        "holders" => roles::run(roles::holders::run(serde_json::from_str(plan)?)),
        // As the server: on every core.
        "echo" => tokio::runtime::Runtime::new()?.block_on(floor::serve_echo(plan)),
        other => anyhow::bail!("there is no role {other:?}"),
    }
}

fn bench(cli: &Cli) -> Result<()> {
    let effort = Effort {
        repeats: cli.repeats,
        warm_up: Duration::from_secs(cli.warm_up),
        window: Duration::from_secs(cli.seconds),
        floor: Duration::from_secs(cli.seconds.min(5)),
    };
    let (text, figures) = tokio::runtime::Runtime::new()?.block_on(measure(&cli.workload, &effort))?;
    show(&text);
    if let Some(path) = &cli.json {
        let all = json!({ "machine": gauges::machine(), "figures": figures });
        std::fs::write(path, serde_json::to_vec_pretty(&all)?).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The result for people, and for programs.
async fn measure(workload: &Workload, effort: &Effort) -> Result<(String, Value)> {
    if let Workload::Media = workload {
        let report = media::run(effort.repeats).await?;
        return Ok((report.to_markdown(), serde_json::to_value(&report)?));
    }
    let stage = Stage::start().await?;
    let (tables, figures) = play(&stage, workload, effort).await?;
    stage.stop().await?;
    let tables: Vec<String> = tables.iter().map(Table::markdown).collect();
    Ok((tables.join("\n"), figures))
}

async fn play(stage: &Stage, workload: &Workload, effort: &Effort) -> Result<(Vec<Table>, Value)> {
    Ok(match workload {
        Workload::W1 { in_flight } => {
            let w1 = w1::run(stage, &w1::levels(in_flight), effort).await?;
            (w1.tables(), serde_json::to_value(&w1)?)
        }
        Workload::W2 { rates } => {
            let points = w2::run(stage, rates, effort).await?;
            (w2::tables(&points), serde_json::to_value(&points)?)
        }
        Workload::W3 { steps } => {
            let points = w3::run(stage, steps, effort).await?;
            (w3::tables(&points), serde_json::to_value(&points)?)
        }
        Workload::W4 { backlog } => {
            let w4 = w4::run(stage, *backlog, effort).await?;
            (w4::tables(&w4), serde_json::to_value(&w4)?)
        }
        Workload::W5 { finished } => {
            let points = w5::run(stage, finished, effort).await?;
            (w5::tables(&points), serde_json::to_value(&points)?)
        }
        Workload::W6 { pollers } => {
            let points = w6::run(stage, pollers, effort).await?;
            (w6::tables(&points), serde_json::to_value(&points)?)
        }
        Workload::W7 { servers } => {
            let points = w7::run(stage, servers, effort).await?;
            (w7::tables(&points, servers), serde_json::to_value(&points)?)
        }
        Workload::W8 { minutes } => {
            let w8 = w8::run(stage, *minutes, effort).await?;
            (w8::tables(&w8), serde_json::to_value(&w8)?)
        }
        Workload::Overload => {
            let stretches = overload::run(stage, effort).await?;
            (overload::tables(&stretches), serde_json::to_value(&stretches)?)
        }
        Workload::Media | Workload::Role { .. } => anyhow::bail!("it needs no PostgreSQL"),
    })
}

#[allow(clippy::print_stdout)] // the result
fn show(text: &str) {
    println!("Machine: {}\n\n{text}", gauges::machine());
}
