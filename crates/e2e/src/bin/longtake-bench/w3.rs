//! W3: what it costs to keep long steps alive, and whether others feel it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::Effort;
use crate::report::Table;
use crate::roles::holders::{Held, Plan};
use crate::roles::load::Quantiles;
use crate::stage::{Role, Scene, Stage, create_runs, with_definition};
use crate::w2;

/// A step that lasts: held by an executor for as long as the measurement takes.
pub const HOLD: &str =
    "format = 1\nname = \"hold\"\n\n[[step]]\nname = \"hold\"\nheartbeat_timeout = \"30s\"\n";
/// Steps that one executor holds.
const EACH: usize = 100;

/// So many steps that heartbeat every five seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub steps: usize,
    pub beats: u64,
    /// Cores in use while nothing but heartbeats happens.
    pub server_cores: f64,
    pub postgres_cores: f64,
    pub wal_bytes_per_beat: f64,
    pub without: Quantiles,
    pub with: Quantiles,
}

pub async fn run(stage: &Stage, many: &[usize], effort: &Effort) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for steps in many.iter().copied() {
        for _ in 0..effort.repeats {
            points.push(measure(stage, steps, effort).await?);
        }
    }
    Ok(points)
}

async fn measure(stage: &Stage, steps: usize, effort: &Effort) -> Result<Point> {
    let definitions = with_definition(stage, "hold", HOLD)?;
    let mut scene = stage.scene_with(1, &definitions).await?;
    let window = effort.window.max(Duration::from_secs(15));
    let (without, _) = w2::at(&mut scene, 100.0, effort.warm_up, window).await?;
    let mut holders = hold(&mut scene, steps).await?;
    let (before, spent) = (holders.ask::<Held>("look").await?, scene.spent().await?);
    tokio::time::sleep(window).await;
    let (after, spent) = (holders.ask::<Held>("look").await?, scene.spent().await?.since(&spent));
    let (with, _) = w2::at(&mut scene, 100.0, effort.warm_up, window).await?;
    let lost = holders.ask::<Held>("look").await?.lost;
    ensure!(lost == 0, "{lost} steps were taken from executors that were alive");
    let beats = after.beats - before.beats;
    let seconds = window.as_secs_f64();
    Ok(Point {
        steps,
        beats,
        server_cores: spent.cpu.servers / seconds,
        postgres_cores: spent.cpu.postgres / seconds,
        wal_bytes_per_beat: spent.wal_bytes / (beats as f64).max(1.0),
        without,
        with,
    })
}

/// So many steps in the hands of executors that heartbeat every five seconds.
pub async fn hold(scene: &mut Scene<'_>, steps: usize) -> Result<Role> {
    create_runs(&scene.servers[0], "hold", steps).await?;
    let plan = Plan {
        server: scene.servers[0].url(),
        queue: "hold".to_owned(),
        executors: steps.div_ceil(EACH),
        steps: steps.min(EACH),
        every: 5.0,
    };
    let mut holders = Role::start("holders", &plan)?;
    until(&mut holders, "the steps were not all leased", |held| held.leases >= steps as u64).await?;
    // Every executor is in its rhythm.
    tokio::time::sleep(Duration::from_secs(6)).await;
    Ok(holders)
}

/// Waits, for a minute at most, until holders are where they should be.
pub async fn until(holders: &mut Role, else_said: &str, there: impl Fn(&Held) -> bool) -> Result<()> {
    for _ in 0..600 {
        if there(&holders.ask("look").await?) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{else_said} within a minute")
}

pub fn tables(points: &[Point]) -> Vec<Table> {
    let head = [
        "running steps",
        "heartbeats",
        "server cores",
        "postgres cores",
        "WAL B a heartbeat",
        "W2 p50 / p99 without, ms",
        "with, ms",
        "p99 ratio",
    ];
    let mut table = Table::new("W3: steps that heartbeat every 5 s, 100 to an executor", &head);
    for point in points {
        let pair = |latency: &Quantiles| format!("{:.2} / {:.2}", latency.p50, latency.p99);
        table.row([
            point.steps.to_string(),
            point.beats.to_string(),
            format!("{:.3}", point.server_cores),
            format!("{:.3}", point.postgres_cores),
            format!("{:.2}", point.wal_bytes_per_beat),
            pair(&point.without),
            pair(&point.with),
            format!("{:.2}", point.with.p99 / point.without.p99),
        ]);
    }
    vec![table]
}
