//! W7: several servers over one database, on the same cores: what the fences cost when everybody decides.

use anyhow::Result;
use serde::Serialize;

use crate::Effort;
use crate::report::{Figure, Table};
use crate::stage::Stage;
use crate::w4;

/// So many servers.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub servers: usize,
    pub runs_per_second: f64,
}

pub async fn run(stage: &Stage, many: &[usize], effort: &Effort) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    for _ in 0..effort.repeats {
        for servers in many.iter().copied() {
            let mut scene = stage.scene(servers).await?;
            let once = Effort { repeats: 1, ..*effort };
            let runs_per_second = w4::w1(&mut scene, &once).await?.median;
            eprintln!("{servers} servers: {runs_per_second:.0} runs/s");
            points.push(Point { servers, runs_per_second });
        }
    }
    Ok(points)
}

pub fn tables(points: &[Point], many: &[usize]) -> Vec<Table> {
    let mut table = Table::new("W7: servers over one database", &["servers", "runs/s", "of one"]);
    let rates =
        |servers: usize| points.iter().filter(move |it| it.servers == servers).map(|it| it.runs_per_second);
    for servers in many.iter().copied() {
        let ratios = rates(servers).zip(rates(many[0])).map(|(rate, one)| rate / one);
        table.row([servers.to_string(), Figure::of(rates(servers)).show(0), Figure::of(ratios).show(2)]);
    }
    vec![table]
}
