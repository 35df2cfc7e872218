//! W1: how many four-step runs a second, with everything on the same cores, against what Postgres can do with these cores alone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::Effort;
use crate::floor::{self, Floor, Floors};
use crate::report::{Figure, Table};
use crate::roles::executors::Way;
use crate::roles::load::Pace;
use crate::stage::{Measured, Stage};

/// One way of speaking to the server, at one number of runs under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Level {
    pub in_flight: usize,
    /// BatchSubmitContent and ReportSteps in place of a call a request and a call a step.
    pub batched: bool,
    /// The executor library in place of bare calls.
    pub by_library: bool,
}

/// A repeat at one level.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    pub level: Level,
    pub runs_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub cpu_us: BTreeMap<&'static str, f64>,
    pub wal_bytes: f64,
    pub wal_records: f64,
    pub commits: f64,
    pub calls: Option<f64>,
    pub hot_share: f64,
}

/// All that W1 measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct W1 {
    pub points: Vec<Point>,
    pub f2: Vec<Floor>,
    pub f2h: Vec<Floor>,
    pub t_commit_ms: Vec<f64>,
    pub t_rpc_ms: Vec<f64>,
}

/// The levels of the table.
pub fn levels(most: &[usize]) -> Vec<Level> {
    let mut levels = Vec::new();
    for in_flight in most.iter().copied() {
        levels.push(Level { in_flight, batched: false, by_library: false });
        if in_flight >= 64 {
            levels.push(Level { in_flight, batched: true, by_library: false });
            levels.push(Level { in_flight, batched: true, by_library: true });
        }
    }
    levels
}

/// Floors and levels, one after the other, as often as asked for.
pub async fn run(stage: &Stage, levels: &[Level], effort: &Effort) -> Result<W1> {
    let mut all = W1::default();
    let floors = Floors::new(stage).await?;
    for repeat in 0..effort.repeats {
        all.f2.push(floors.f2(effort.floor).await?);
        all.t_commit_ms.push(floors.t_commit(effort.floor).await?);
        all.t_rpc_ms.push(floor::t_rpc(effort.floor).await?);
        let mut events = [0; 5];
        for level in levels {
            let (point, sizes) = measure(stage, *level, effort.warm_up, effort.window).await?;
            eprintln!(
                "repeat {}: {level:?}: {:.0} runs/s, p50 {:.2} ms, {:.0} us of CPU a run",
                repeat + 1,
                point.runs_per_second,
                point.p50_ms,
                point.cpu_us.values().sum::<f64>()
            );
            events = sizes;
            all.points.push(point);
        }
        all.f2h.push(floors.f2h(events, effort.floor).await?);
    }
    Ok(all)
}

/// One level once; with it, how many bytes of history each commit of a run wrote.
pub async fn measure(
    stage: &Stage,
    level: Level,
    warm_up: Duration,
    window: Duration,
) -> Result<(Point, [i64; 5])> {
    let mut scene = stage.scene(1).await?;
    let Level { in_flight, batched, by_library } = level;
    scene.load(Pace::InFlight(in_flight), if batched { (in_flight / 2).clamp(2, 1_000) } else { 1 }).await?;
    let way = match (by_library, batched) {
        // As a fleet that is not full: a step that becomes ready finds a free slot.
        (true, _) => Way::Library(in_flight * 3 / 2),
        (false, true) => Way::Batch(in_flight.div_ceil(100) + 1),
        (false, false) => Way::Single(in_flight),
    };
    scene.executors(way, false).await?;
    let measured = scene.measure(warm_up, window).await?;
    scene.complete().await?;
    let sizes = "select array(select (avg(octet_length(events)))::bigint from history \
        where run_no in (select run_no from run order by run_no desc limit 100) group by first_event order by first_event limit 5)";
    let mut connection = scene.database.connect().await;
    let sizes: Vec<i64> = sqlx::query_scalar(sizes).fetch_one(&mut connection).await?;
    let mut events = [400; 5];
    events.iter_mut().zip(sizes).for_each(|(event, size)| *event = size);
    Ok((point(level, &measured), events))
}

fn point(level: Level, measured: &Measured) -> Point {
    let Measured { seen, spent, calls } = measured;
    let runs = (seen.done as f64).max(1.0);
    let micros = |seconds: f64| seconds * 1e6 / runs;
    Point {
        level,
        runs_per_second: seen.done as f64 / seen.seconds,
        p50_ms: seen.latency.p50,
        p99_ms: seen.latency.p99,
        cpu_us: BTreeMap::from([
            ("postgres", micros(spent.cpu.postgres)),
            ("server", micros(spent.cpu.servers)),
            ("executors", micros(spent.cpu.executors)),
            ("load", micros(spent.cpu.load)),
        ]),
        wal_bytes: spent.wal_bytes / runs,
        wal_records: spent.wal_records / runs,
        commits: spent.commits / runs,
        calls: (!level.by_library).then_some(calls / runs),
        hot_share: spent.hot_updates / spent.updates.max(1.0),
    }
}

impl W1 {
    fn of(&self, level: Level, figure: impl Fn(&Point) -> f64) -> Figure {
        Figure::of(self.points.iter().filter(|point| point.level == level).map(figure))
    }

    /// Ratio of each repeat to the floor of the same repeat.
    fn against(&self, level: Level, figure: impl Fn(&Point, usize) -> f64) -> Figure {
        let points = self.points.iter().filter(|point| point.level == level).enumerate();
        Figure::of(points.map(|(repeat, point)| figure(point, repeat)))
    }

    fn levels(&self) -> Vec<Level> {
        let mut levels: Vec<Level> = Vec::new();
        for point in &self.points {
            if !levels.contains(&point.level) {
                levels.push(point.level);
            }
        }
        levels
    }

    pub fn tables(&self) -> Vec<Table> {
        vec![self.floors(), self.rates(), self.costs()]
    }

    fn floors(&self) -> Table {
        let mut table = Table::new("The floor", &["what", "figure"]);
        let rate = |floors: &[Floor]| Figure::of(floors.iter().map(|it| it.runs_per_second)).show(0);
        let cpu = |floors: &[Floor]| Figure::of(floors.iter().map(|it| it.cpu * 1e6)).show(1);
        let wal = |floors: &[Floor]| Figure::of(floors.iter().map(|it| it.wal_bytes)).show(0);
        for (name, floors) in [("F2", &self.f2), ("F2h", &self.f2h)] {
            table.row([format!("{name}, runs/s"), rate(floors)]);
            table.row([format!("{name}, us of the database's CPU a run"), cpu(floors)]);
            table.row([format!("{name}, bytes of WAL a run"), wal(floors)]);
        }
        table.row(["t_commit, ms".to_owned(), Figure::of(self.t_commit_ms.iter().copied()).show(3)]);
        table.row(["t_rpc, ms".to_owned(), Figure::of(self.t_rpc_ms.iter().copied()).show(3)]);
        table
    }

    fn rates(&self) -> Table {
        let head = ["in flight", "calls", "runs/s", "of F2", "p50 ms", "p99 ms"];
        let mut table = Table::new("W1: runs of four steps, everything on the same cores", &head);
        for level in self.levels() {
            let ratio =
                self.against(level, |point, repeat| point.runs_per_second / self.f2[repeat].runs_per_second);
            table.row([
                level.in_flight.to_string(),
                level.name().to_owned(),
                self.of(level, |point| point.runs_per_second).show(0),
                ratio.show(3),
                self.of(level, |point| point.p50_ms).show(2),
                self.of(level, |point| point.p99_ms).show(2),
            ]);
        }
        table
    }

    fn costs(&self) -> Table {
        let head = [
            "in flight",
            "calls",
            "postgres us",
            "of F2h",
            "server us",
            "executors us",
            "load us",
            "WAL B",
            "WAL records",
            "commits",
            "RPCs",
            "HOT %",
        ];
        let mut table = Table::new("W1: what a run costs", &head);
        for level in self.levels() {
            let cpu = |name: &'static str| self.of(level, move |point| point.cpu_us[name]).show(0);
            let ratio =
                self.against(level, |point, repeat| point.cpu_us["postgres"] / (self.f2h[repeat].cpu * 1e6));
            let calls =
                self.points.iter().filter(|point| point.level == level).filter_map(|point| point.calls);
            table.row([
                level.in_flight.to_string(),
                level.name().to_owned(),
                cpu("postgres"),
                ratio.show(2),
                cpu("server"),
                cpu("executors"),
                cpu("load"),
                self.of(level, |point| point.wal_bytes).show(0),
                self.of(level, |point| point.wal_records).show(1),
                self.of(level, |point| point.commits).show(3),
                Figure::of(calls).show(2),
                self.of(level, |point| point.hot_share * 100.0).show(1),
            ]);
        }
        table
    }
}

impl Level {
    pub fn name(self) -> &'static str {
        match (self.by_library, self.batched) {
            (true, _) => "batch submits, executor library",
            (false, true) => "batches",
            (false, false) => "single",
        }
    }
}
