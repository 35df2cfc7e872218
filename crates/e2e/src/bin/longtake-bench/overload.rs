//! Overload: five times what it can do is offered for a while, beside steps that heartbeat.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Effort;
use crate::gauges;
use crate::report::Table;
use crate::roles::executors::Way;
use crate::roles::holders::Held;
use crate::roles::load::{Pace, Seen};
use crate::stage::{Stage, with_definition};
use crate::w3::{self, HOLD};
use crate::w4;

/// A stretch of time.
#[derive(Debug, Clone, Serialize)]
pub struct Stretch {
    pub what: &'static str,
    pub offered: f64,
    pub done: f64,
    pub refused: f64,
    pub refused_without_retry_info: u64,
    pub p99_ms: f64,
    pub memory_mib: f64,
    /// Leases of living executors that were taken back meanwhile.
    pub lost: u64,
}

const HELD: usize = 1_000;
const BATCH: usize = 50;

pub async fn run(stage: &Stage, effort: &Effort) -> Result<Vec<Stretch>> {
    let definitions = with_definition(stage, "hold", HOLD)?;
    let mut scene = stage.scene_with(1, &definitions).await?;
    let best = w4::w1(&mut scene, effort).await?.median;
    let mut holders = w3::hold(&mut scene, HELD).await?;
    let mut stretches = Vec::new();
    for (what, share) in [("half", 0.5), ("five times", 5.0), ("half again", 0.5)] {
        let offered = best * share;
        scene.load(Pace::PerSecond(offered), BATCH).await?;
        scene.executors(Way::Batch(4), false).await?;
        scene.order("go").await?;
        // What the time before has left is given 30 s.
        tokio::time::sleep(if what == "half again" { Duration::from_secs(30) } else { effort.warm_up }).await;
        scene.order("look").await?;
        let window = effort.window.max(Duration::from_secs(30));
        tokio::time::sleep(window).await;
        let memory_mib = gauges::memory_of(scene.servers[0].process().pid()) / 1_048_576.0;
        let seen = scene.order("stop").await?;
        scene.dismiss_executors();
        let lost = holders.ask::<Held>("look").await?.lost;
        stretches.push(stretch(what, offered, &seen, memory_mib, lost));
    }
    let best =
        Stretch { what: "best", done: best, offered: best, ..stretch("", 0.0, &Seen::default(), 0.0, 0) };
    stretches.insert(0, best);
    // All that was acknowledged has ended well.
    scene.complete().await?;
    Ok(stretches)
}

fn stretch(what: &'static str, offered: f64, seen: &Seen, memory_mib: f64, lost: u64) -> Stretch {
    let seconds = seen.seconds.max(1e-9);
    Stretch {
        what,
        offered,
        done: seen.done as f64 / seconds,
        refused: seen.refused as f64 / seconds,
        refused_without_retry_info: seen.refused_without_retry_info,
        p99_ms: seen.latency.p99,
        memory_mib,
        lost,
    }
}

pub fn tables(stretches: &[Stretch]) -> Vec<Table> {
    let head = [
        "offered",
        "runs/s offered",
        "done",
        "of the best",
        "refused/s",
        "p99 ms",
        "server MiB",
        "leases lost",
    ];
    let mut table = Table::new("Overload: 1,000 steps heartbeat beside it", &head);
    for stretch in stretches {
        table.row([
            stretch.what.to_owned(),
            format!("{:.0}", stretch.offered),
            format!("{:.0}", stretch.done),
            format!("{:.2}", stretch.done / stretches[0].done),
            format!("{:.0}", stretch.refused),
            format!("{:.0}", stretch.p99_ms),
            format!("{:.0}", stretch.memory_mib),
            stretch.lost.to_string(),
        ]);
    }
    vec![table]
}
