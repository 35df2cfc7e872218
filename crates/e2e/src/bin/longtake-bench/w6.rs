//! W6: what it costs when executors wait and nothing happens.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Effort;
use crate::gauges;
use crate::report::Table;
use crate::roles::holders::Plan;
use crate::stage::{Role, Stage};
use crate::w3;

/// So many polls that are held.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub pollers: usize,
    pub server_cores: f64,
    pub memory_bytes: f64,
    pub statements_per_minute: f64,
}

pub async fn run(stage: &Stage, many: &[usize], effort: &Effort) -> Result<Vec<Point>> {
    // Its workers' transactions are counted like ours, and come when they like.
    stage.execute(&stage.url(), "alter system set autovacuum = off").await?;
    stage.execute(&stage.url(), "select pg_reload_conf()").await?;
    let mut points = Vec::new();
    for pollers in many.iter().copied() {
        let mut scene = stage.scene(1).await?;
        let plan = Plan {
            server: scene.servers[0].url(),
            queue: "hold".to_owned(),
            executors: pollers,
            steps: 0,
            every: 5.0,
        };
        let mut role = Role::start("holders", &plan)?;
        w3::until(&mut role, "the polls were not all parked", |held| held.parked >= pollers as u64).await?;
        // A backend that has become idle reports what it did before within ten seconds.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let window = effort.window.max(Duration::from_secs(60));
        let before = scene.spent().await?;
        tokio::time::sleep(window).await;
        let spent = scene.spent().await?.since(&before);
        let minutes = window.as_secs_f64() / 60.0;
        points.push(Point {
            pollers,
            server_cores: spent.cpu.servers / window.as_secs_f64(),
            memory_bytes: gauges::memory_of(scene.servers[0].process().pid()),
            // One is the gauge's own.
            statements_per_minute: (spent.commits - 1.0).max(0.0) / minutes,
        });
    }
    Ok(points)
}

pub fn tables(points: &[Point]) -> Vec<Table> {
    let head = ["parked polls", "server cores", "server MiB", "KiB a poll", "transactions a minute"];
    let mut table = Table::new("W6: executors that wait, no work", &head);
    for point in points {
        let more = point.memory_bytes - points[0].memory_bytes;
        let each = if point.pollers == 0 { 0.0 } else { more / 1024.0 / point.pollers as f64 };
        table.row([
            point.pollers.to_string(),
            format!("{:.4}", point.server_cores),
            format!("{:.1}", point.memory_bytes / 1_048_576.0),
            format!("{each:.1}"),
            format!("{:.0}", point.statements_per_minute),
        ]);
    }
    vec![table]
}
