//! W2: how long one run takes when there is room: an open loop at low rates, against the calls and commits that it cannot do without.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Effort;
use crate::floor::{self, Floors};
use crate::report::{Figure, Table};
use crate::roles::executors::Way;
use crate::roles::load::{Pace, Quantiles};
use crate::stage::{Scene, Stage};

/// One rate, once.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub per_second: f64,
    pub latency: Quantiles,
    pub legs: BTreeMap<String, Quantiles>,
    /// Five commits and six calls, as measured just before.
    pub floor_ms: f64,
    /// The same in a row at this rate, with pauses as long as between two runs.
    pub paced_ms: f64,
}

/// Every rate, as often as asked for; the highest for so long that it has ten thousand samples.
pub async fn run(stage: &Stage, rates: &[f64], effort: &Effort) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    let floors = Floors::new(stage).await?;
    for repeat in 0..effort.repeats {
        let t_commit = floors.t_commit(effort.floor).await?;
        let floor_ms = 5.0 * t_commit + 6.0 * floor::t_rpc(effort.floor).await?;
        for rate in rates.iter().copied() {
            let paced_ms = floors.paced(rate, effort.floor.max(Duration::from_secs_f64(20.0 / rate))).await?;
            let mut scene = stage.scene(1).await?;
            let window = window(rate, effort);
            let (latency, legs) = at(&mut scene, rate, effort.warm_up, window).await?;
            scene.complete().await?;
            eprintln!(
                "repeat {}: {rate}/s: p50 {:.2} ms of {floor_ms:.2} ms, {paced_ms:.2} at this pace",
                repeat + 1,
                latency.p50
            );
            points.push(Point { per_second: rate, latency, legs, floor_ms, paced_ms });
        }
    }
    Ok(points)
}

fn window(rate: f64, effort: &Effort) -> Duration {
    if rate < 100.0 {
        effort.window.max(Duration::from_secs(20))
    } else {
        effort.window.max(Duration::from_secs_f64(10_100.0 / rate))
    }
}

/// What a load at this rate sees.
pub async fn at(
    scene: &mut Scene<'_>,
    rate: f64,
    warm_up: Duration,
    window: Duration,
) -> Result<(Quantiles, BTreeMap<String, Quantiles>)> {
    scene.load(Pace::PerSecond(rate), 1).await?;
    scene.executors(Way::Single(64), true).await?;
    let measured = scene.measure(warm_up, window).await?;
    scene.dismiss_executors();
    Ok((measured.seen.latency, measured.seen.legs))
}

pub fn tables(points: &[Point]) -> Vec<Table> {
    let head = [
        "runs/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "samples",
        "floor ms",
        "p50 of floor",
        "floor at this pace, ms",
        "p50 of that",
    ];
    let mut table = Table::new("W2: one run from submit to its last acknowledgement, at low load", &head);
    let mut legs = Table::new("W2 by leg, p50 and p99 in ms", &["runs/s", "leg", "p50", "p99"]);
    let mut rates: Vec<f64> = points.iter().map(|point| point.per_second).collect();
    rates.sort_unstable_by(f64::total_cmp);
    rates.dedup();
    for rate in rates {
        let at = || points.iter().filter(|point| point.per_second == rate);
        let figure = |of: &dyn Fn(&Point) -> f64| Figure::of(at().map(of));
        table.row([
            format!("{rate}"),
            figure(&|point| point.latency.p50).show(2),
            figure(&|point| point.latency.p90).show(2),
            figure(&|point| point.latency.p99).show(2),
            figure(&|point| point.latency.max).show(1),
            figure(&|point| point.latency.count as f64).show(0),
            figure(&|point| point.floor_ms).show(2),
            figure(&|point| point.latency.p50 / point.floor_ms).show(2),
            figure(&|point| point.paced_ms).show(2),
            figure(&|point| point.latency.p50 / point.paced_ms).show(2),
        ]);
        for name in at().next().into_iter().flat_map(|point| point.legs.keys()) {
            let leg = |of: &dyn Fn(&Quantiles) -> f64| {
                Figure::of(at().filter_map(|point| point.legs.get(name)).map(of)).show(2)
            };
            legs.row([format!("{rate}"), name.clone(), leg(&|it| it.p50), leg(&|it| it.p99)]);
        }
    }
    vec![table, legs]
}
