//! W5: does it stay as fast when the tables hold millions of finished runs?

use anyhow::Result;
use serde::Serialize;

use crate::Effort;
use crate::report::Table;
use crate::stage::Stage;
use crate::w4;

/// One fill of the tables.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub finished: usize,
    pub runs_per_second: f64,
    pub gib: f64,
}

pub async fn run(stage: &Stage, fills: &[usize], effort: &Effort) -> Result<Vec<Point>> {
    let mut scene = stage.scene(1).await?;
    let mut points = Vec::new();
    let mut there = 0;
    for finished in fills.iter().copied() {
        if finished > there {
            scene.clone_runs("content", finished - there).await?;
            there = finished;
        }
        let runs_per_second = w4::w1(&mut scene, effort).await?;
        let size = "select pg_database_size(current_database())::float8 / 1073741824";
        let gib = stage.number(scene.database.url(), size).await?;
        eprintln!("{finished} finished: {runs_per_second:.0} runs/s, {gib:.1} GiB");
        points.push(Point { finished, runs_per_second, gib });
    }
    Ok(points)
}

pub fn tables(points: &[Point]) -> Vec<Table> {
    let head = ["finished runs", "GiB", "runs/s", "of the first"];
    let mut table = Table::new("W5: W1 (256 in flight, batches) over the number of finished runs", &head);
    for point in points {
        table.row([
            point.finished.to_string(),
            format!("{:.1}", point.gib),
            format!("{:.0}", point.runs_per_second),
            format!("{:.2}", point.runs_per_second / points[0].runs_per_second),
        ]);
    }
    vec![table]
}
