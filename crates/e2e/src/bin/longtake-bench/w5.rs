//! W5: does it stay as fast when the tables hold millions of finished runs?

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::Effort;
use crate::report::{Figure, Table};
use crate::stage::{Scene, Stage};
use crate::w4;

/// One fill of the tables.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub finished: usize,
    /// Whether retention was removing them meanwhile.
    pub removing: bool,
    pub runs_per_second: Figure,
    pub gib: f64,
}

pub async fn run(stage: &Stage, fills: &[usize], effort: &Effort) -> Result<Vec<Point>> {
    let mut scene = stage.scene(1).await?;
    scene.serve_told(&["--retention", "off"]).await;
    let mut points = Vec::new();
    let mut there = 0;
    for finished in fills.iter().copied() {
        if finished > there {
            scene.clone_runs("content", finished - there).await?;
            there = finished;
        }
        points.push(point(&mut scene, finished, false, effort).await?);
    }
    // Everything that is there is a year old now, and is removed a thousand at a time while this is measured. Runs are looked
    // through by their numbers, until one page has none that is old: those of the measurements before come first.
    scene.age().await?;
    scene.serve_told(&["--retention", "30d"]).await;
    points.push(point(&mut scene, there, true, effort).await?);
    Ok(points)
}

async fn point(scene: &mut Scene<'_>, finished: usize, removing: bool, effort: &Effort) -> Result<Point> {
    let url = scene.database.url().to_owned();
    let old = "select count(*)::float8 from run where created_at < now() - interval '30 days'";
    let before = scene.stage.number(&url, old).await?;
    let runs_per_second = w4::w1(scene, effort).await?;
    let size = "select pg_database_size(current_database())::float8 / 1073741824";
    let gib = scene.stage.number(&url, size).await?;
    let left = scene.stage.number(&url, old).await?;
    ensure!(!removing || (1.0..before).contains(&left), "{left} of {before} are left: nothing was measured");
    eprintln!("{finished} finished: {} runs/s, {gib:.1} GiB, {left} left", runs_per_second.show(0));
    Ok(Point { finished, removing, runs_per_second, gib })
}

pub fn tables(points: &[Point]) -> Vec<Table> {
    let head = ["finished runs", "GiB", "runs/s", "of the first"];
    let mut table = Table::new("W5: W1 (256 in flight, batches) over the number of finished runs", &head);
    for point in points {
        table.row([
            format!("{}{}", point.finished, if point.removing { ", being removed" } else { "" }),
            format!("{:.1}", point.gib),
            point.runs_per_second.show(0),
            format!("{:.2}", point.runs_per_second.median / points[0].runs_per_second.median),
        ]);
    }
    vec![table]
}
