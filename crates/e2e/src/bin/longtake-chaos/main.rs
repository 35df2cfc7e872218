//! The chaos run: everything goes wrong, and nothing may be lost, stuck or done twice.
//!
//! Real processes: servers over one PostgreSQL, executors of the library, executors that lie, and clients that are cut off. While the
//! faults last, nobody looks. Then everything heals, every run has to end, and a checker that knows no code of the product compares
//! journals, histories and rows. `bin/chaos` starts it; docs/RELIABILITY.md says what it found.

mod checker;
mod faults;
mod journal;
mod member;
mod proxy;
mod report;
mod roles;
mod stage;
mod stored;
mod workflows;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use faults::{End, Lane};
use report::Report;
use stage::{Size, Stage};

/// What strikes, several at a time.
const LANES: [Lane; 7] = [
    Lane::Executors,
    Lane::Executors,
    Lane::Executors,
    Lane::Servers,
    Lane::Links,
    Lane::Links,
    Lane::Database,
];
/// For which share of the time only executors are struck.
const ALL_ELSE_WELL: f64 = 0.15;
/// How long nothing may end after everything has healed.
const STANDSTILL: Duration = Duration::from_secs(90);

#[derive(Debug, Parser)]
#[command(about = "Lets everything go wrong, and checks that nothing was lost, stuck or done twice")]
struct Cli {
    /// For how long faults happen
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// From which the choice of faults follows, but not their timing
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Servers over one database
    #[arg(long, default_value_t = 2)]
    servers: usize,
    /// Executor processes
    #[arg(long, default_value_t = 6)]
    executors: usize,
    /// Runs that are asked for in a second: more than about this many pile up while everything goes wrong, and take their time at the end
    #[arg(long, default_value_t = 12)]
    rate: usize,
    /// A folder on a small file system of its own, for PostgreSQL: it is really filled up now and then
    #[arg(long, value_name = "FOLDER")]
    small_disk: Option<PathBuf>,
    /// Where the verdict goes as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave logs and journals in their folder
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Another process of the run itself.
    #[command(hide = true)]
    Role { name: String, plan: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.role {
        Some(Role::Role { name, plan }) => role(name, plan).map(|()| true),
        None => tokio::runtime::Runtime::new().map_err(Into::into).and_then(|it| it.block_on(chaos(&cli))),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn role(name: &str, plan: &str) -> Result<()> {
    let plan = serde_json::from_str(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = match name {
        "executor" => runtime.block_on(roles::executor::run(plan)),
        "liar" => runtime.block_on(roles::liar::run(plan)),
        "client" => runtime.block_on(roles::client::run(plan)),
        other => bail!("there is no role {other:?}"),
    };
    // A reader of standard input must not hold up the end.
    runtime.shutdown_background();
    done
}

/// True if everything held.
async fn chaos(cli: &Cli) -> Result<bool> {
    let size = Size {
        servers: cli.servers,
        executors: cli.executors,
        slots: 8,
        liars: 12,
        rate: cli.rate,
        seed: cli.seed,
    };
    let stage = Arc::new(Stage::start(&size, cli.small_disk.as_deref()).await?);
    let mut client = stage.client(&size)?;
    let mut orders = client.stdin.take().context("a pipe to the client")?;

    let end = Arc::new(End::default());
    let mut striking = JoinSet::new();
    let span = Duration::from_secs_f64(cli.minutes * 60.0);
    let (begin, mut next) = (Instant::now(), 0);
    let mut fell = Vec::new();
    while begin.elapsed() < span {
        // What it takes to recover from the death of an executor shows only while all else is well.
        let lanes = if begin.elapsed() < span.mul_f64(ALL_ELSE_WELL) { &LANES[..3] } else { &LANES[..] };
        for (number, lane) in lanes.iter().enumerate().skip(next) {
            let seed = cli.seed ^ ((number as u64 + 1) << 48);
            striking.spawn(faults::strike(stage.clone(), *lane, seed, end.clone()));
        }
        next = lanes.len();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if let Some(ended) = striking.try_join_next() {
            ended??;
        }
        // One that is being struck is not looked at.
        let free = stage.servers.iter().filter_map(|server| server.member.try_lock().ok());
        fell.extend(free.filter_map(|mut member| member.fell()));
        if !fell.is_empty() {
            break;
        }
    }
    end.come();
    while let Some(ended) = striking.join_next().await {
        ended??;
    }
    for server in &stage.servers {
        for link in [&server.to_postgres, &server.from_client, &server.from_executors] {
            link.heal();
        }
    }
    orders.write_all(b"stop\n").await?;
    let stuck = stuck(&stage, &mut client).await?;
    let runs = stored::read(&mut stage.connect().await?).await?;
    let rest = stored::rest(&mut stage.connect().await?).await?;
    let mut unknown = 0;
    let mut panics = 0;
    for server in &stage.servers {
        let member = server.member.lock().await;
        unknown += member.said("the outcome of a write is unknown");
        panics += member.said("panicked at");
    }
    let stage = Arc::try_unwrap(stage).map_err(|_| anyhow::anyhow!("somebody still holds the stage"))?;
    let journals = stage.journals.clone();
    let folder = stage.stop().await?;
    let lines = journal::read(&journals)?;
    let verdict = checker::check(&runs, &workflows::definitions(), &lines);
    let report = Report { verdict, stuck, rest, fell, unknown, panics, minutes: cli.minutes, seed: cli.seed };
    report.show();
    if let Some(path) = &cli.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.json())?)?;
    }
    let held = report.held();
    if cli.keep || !held {
        eprintln!("journals and logs are in {}", folder.keep().display());
    }
    Ok(held)
}

/// How many runs do not end, although everything has healed and time passes.
async fn stuck(stage: &Stage, client: &mut tokio::process::Child) -> Result<i64> {
    let mut connection = stage.connect().await?;
    let (mut least, mut since, mut asked) = (i64::MAX, Instant::now(), false);
    loop {
        asked = asked || client.try_wait()?.is_some();
        let open = stored::open(&mut connection).await?;
        if open == 0 && asked {
            return Ok(0);
        }
        if open < least {
            (least, since) = (open, Instant::now());
        }
        if since.elapsed() > STANDSTILL {
            if !asked {
                bail!("the client is not answered, though everything has healed; {open} runs are open");
            }
            return Ok(open);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
