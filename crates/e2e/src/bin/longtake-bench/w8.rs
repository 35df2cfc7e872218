//! W8: a transaction that stays open holds back the clean-up of dead rows: does the rate hold, and does it come back?

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sqlx::{Connection as _, Executor as _};

use crate::Effort;
use crate::report::{Figure, Table};
use crate::roles::executors::Way;
use crate::roles::load::{Pace, Quantiles};
use crate::stage::Stage;
use crate::w4;

/// A stretch of time.
#[derive(Debug, Clone, Serialize)]
pub struct Stretch {
    pub what: String,
    pub per_second: f64,
    pub latency: Quantiles,
    pub dead_rows: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct W8 {
    pub offered: f64,
    pub stretches: Vec<Stretch>,
    /// The most that it does: before, and once the transaction has ended.
    pub knee_before: Figure,
    pub knee_after: Figure,
}

pub async fn run(stage: &Stage, minutes: u64, effort: &Effort) -> Result<W8> {
    let mut scene = stage.scene(1).await?;
    let knee_before = w4::w1(&mut scene, effort).await?;
    let offered = (knee_before.median / 2.0).round();
    scene.load(Pace::PerSecond(offered), 20).await?;
    scene.executors(Way::Batch(4), false).await?;
    scene.order("go").await?;
    tokio::time::sleep(effort.warm_up).await;
    let mut stretches = Vec::new();
    let minute = Duration::from_secs(60);
    let mut holder = scene.database.connect().await;
    for number in 0..minutes + 2 {
        if number == 1 {
            holder.execute("begin isolation level repeatable read; select count(*) from replica").await?;
        }
        if number == minutes + 1 {
            holder.execute("commit").await?;
        }
        scene.order("look").await?;
        tokio::time::sleep(minute).await;
        let seen = scene.order("look").await?;
        let what = match number {
            0 => "before".to_owned(),
            _ if number <= minutes => format!("held, minute {number}"),
            _ => "after".to_owned(),
        };
        let dead = "select sum(n_dead_tup)::float8 from pg_stat_user_tables";
        let dead_rows = stage.number(scene.database.url(), dead).await?;
        let per_second = seen.done as f64 / seen.seconds;
        eprintln!("{what}: {per_second:.0} runs/s, p99 {:.1} ms, {dead_rows:.0} dead rows", seen.latency.p99);
        stretches.push(Stretch { what, per_second, latency: seen.latency, dead_rows });
    }
    holder.close().await?;
    scene.order("stop").await?;
    scene.dismiss_executors();
    let knee_after = w4::w1(&mut scene, effort).await?;
    Ok(W8 { offered, stretches, knee_before, knee_after })
}

pub fn tables(w8: &W8) -> Vec<Table> {
    let title = format!("W8: {:.0} runs/s offered while a transaction is held open", w8.offered);
    let mut table = Table::new(title, &["when", "runs/s", "p50 ms", "p99 ms", "dead rows"]);
    for stretch in &w8.stretches {
        table.row([
            stretch.what.clone(),
            format!("{:.0}", stretch.per_second),
            format!("{:.1}", stretch.latency.p50),
            format!("{:.1}", stretch.latency.p99),
            format!("{:.0}", stretch.dead_rows),
        ]);
    }
    let ratio = w8.knee_after.median / w8.knee_before.median;
    table.note(format!(
        "W1 at its knee: {} runs/s before, {} after ({ratio:.2}).",
        w8.knee_before.show(0),
        w8.knee_after.show(0)
    ));
    vec![table]
}
