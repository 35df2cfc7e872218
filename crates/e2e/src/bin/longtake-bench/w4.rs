//! W4: a deep backlog: how fast it drains from its top to its end, and whether one queue's backlog slows another queue.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::Effort;
use crate::report::{Figure, Table};
use crate::roles::executors::Way;
use crate::roles::load::{Pace, Seen};
use crate::stage::{Scene, Stage, create_runs, with_definition};
use crate::w3::HOLD;

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct W4 {
    pub backlog: usize,
    /// Requests a second while nobody works.
    pub filled_per_second: f64,
    /// Runs that were left, and runs a second that ended then.
    pub drain: Vec<(usize, f64)>,
    /// W1 without and with so many steps waiting on another queue.
    pub without: Figure,
    pub with: Figure,
}

const IN_FLIGHT: usize = 256;

pub async fn run(stage: &Stage, backlog: usize, effort: &Effort) -> Result<W4> {
    let mut all = drain(stage, backlog).await?;
    let definitions = with_definition(stage, "hold", HOLD)?;
    let mut scene = stage.scene_with(1, &definitions).await?;
    all.without = w1(&mut scene, effort).await?;
    create_runs(&scene.servers[0], "hold", 1).await?;
    scene.clone_runs("hold", backlog).await?;
    all.with = w1(&mut scene, effort).await?;
    Ok(all)
}

async fn drain(stage: &Stage, backlog: usize) -> Result<W4> {
    let mut scene = stage.scene(1).await?;
    scene.load(Pace::Fill(backlog), 1_000).await?;
    scene.order("go").await?;
    let (mut accepted, mut seconds) = (0, 0.0);
    while accepted < backlog as u64 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Seen { accepted_in_all, seconds: passed, failed, .. } = scene.order("look").await?;
        ensure!(failed == 0, "{failed} submits failed");
        accepted = accepted_in_all;
        seconds += passed;
    }
    scene.executors(Way::Batch(8), false).await?;
    let mut drain = Vec::new();
    let mut done = 0;
    while done < backlog {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let Seen { done: now, seconds, .. } = scene.order("look").await?;
        let left = backlog - done;
        done += usize::try_from(now)?;
        drain.push((left, now as f64 / seconds));
    }
    scene.order("stop").await?;
    scene.complete().await?;
    Ok(W4 { backlog, filled_per_second: accepted as f64 / seconds, drain, ..W4::default() })
}

/// The rate of W1 on this scene, with batches.
pub async fn w1(scene: &mut Scene<'_>, effort: &Effort) -> Result<Figure> {
    let mut rates = Vec::new();
    for _ in 0..effort.repeats {
        scene.load(Pace::InFlight(IN_FLIGHT), IN_FLIGHT / 2).await?;
        scene.executors(Way::Batch(4), false).await?;
        let measured = scene.measure(effort.warm_up, effort.window).await?;
        scene.dismiss_executors();
        rates.push(measured.seen.done as f64 / measured.seen.seconds);
    }
    scene.complete().await?;
    Ok(Figure::of(rates))
}

pub fn tables(w4: &W4) -> Vec<Table> {
    let title = format!("W4: a backlog of {} runs", w4.backlog);
    let mut table = Table::new(title, &["what", "runs/s"]);
    table.row(["submitted, nobody working".to_owned(), format!("{:.0}", w4.filled_per_second)]);
    // The first and the last look are cut by start and end.
    let whole = w4.drain.get(1..w4.drain.len().saturating_sub(1)).unwrap_or_default();
    let near = |left: usize| whole.iter().min_by_key(|(at, _)| at.abs_diff(left));
    for (left, rate) in [w4.backlog, w4.backlog / 2, w4.backlog / 20].into_iter().filter_map(near) {
        table.row([format!("draining, {left} left"), format!("{rate:.0}")]);
    }
    table.row(["W1 (256 in flight, batches) beside an empty queue".to_owned(), w4.without.show(0)]);
    table.row([
        format!("W1 beside {} steps that nobody takes", w4.backlog),
        format!("{}; {:.2} of that", w4.with.show(0), w4.with.median / w4.without.median),
    ]);
    vec![table]
}
