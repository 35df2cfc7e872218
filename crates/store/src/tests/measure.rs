//! What a run costs: WAL and time of the write statement, of reading it again, and of removing it. Printed, not asserted.
//!
//! `cargo test -p longtake-store measure -- --ignored --nocapture --test-threads=1`

use std::time::{Duration, Instant};

use longtake_engine::ids::SessionId;
use longtake_engine::lane::work::{Committed, Load, RunWrite, Write};
use sqlx::Row;

use super::plans::extend_to;
use super::support::{Client, Database, Model, after, batch, encoded, renewal, seconds, session};

/// What the server has done so far.
struct Spent {
    wal_bytes: f64,
    wal_records: f64,
    page_images: f64,
    /// Of the lane's own backend.
    cpu_seconds: f64,
}

async fn spent(database: &Database, client: &mut Client) -> Spent {
    spent_by(database, client, "longtake lane").await
}

/// What the backend of this name has, too.
async fn spent_by(database: &Database, client: &mut Client, backend: &'static str) -> Spent {
    // Statistics of a backend are a second late, and are reported when it becomes idle.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.lane.load(&Load::default()).await.expect("the lane answers");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sql = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, wal_records::float8, wal_fpi::float8,
        (select pid from pg_stat_activity where application_name = $1 and datname = current_database())
        from pg_stat_wal";
    let row =
        sqlx::query(sql).bind(backend).fetch_one(database.store.pool()).await.expect("statistics are on");
    let pid: i32 = row.get(3);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = stat.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>();
    Spent {
        wal_bytes: row.get(0),
        wal_records: row.get(1),
        page_images: row.get(2),
        cpu_seconds: ticks / 100.0,
    }
}

/// How steps come to executors.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Leased in the commit that makes them ready.
    Direct,
    /// Stored as ready, and leased by a commit of its own.
    Stored,
}

/// The commits of a 4-step run.
fn advance(model: &mut Model, way: Way, commit: usize, holder: SessionId) -> Option<RunWrite> {
    let now = after(i64::try_from(commit).unwrap());
    match (way, commit) {
        (_, 0) => model.create(now),
        (Way::Direct, 1..=4) => model.complete(commit - 1, now),
        (Way::Stored, 1..=8) if commit % 2 == 1 => model.lease(commit / 2, holder, now),
        (Way::Stored, 1..=8) => model.complete(commit / 2 - 1, now),
        _ => return None,
    };
    if matches!(way, Way::Direct) && commit < 4 {
        model.lease(commit, holder, now);
    }
    Some(model.write())
}

#[derive(Default)]
struct Round {
    took: f64,
    event_bytes: usize,
    writes: usize,
}

async fn round(client: &mut Client, models: &mut [Model], way: Way, holder: SessionId) -> Round {
    let mut round = Round::default();
    loop {
        let writes = models.iter_mut().filter_map(|model| advance(model, way, round.writes, holder));
        let write: Write = batch(writes);
        if write.runs.is_empty() {
            return round;
        }
        let encoded = encoded(&write);
        round.event_bytes += encoded.iter().map(Vec::len).sum::<usize>();
        let began = Instant::now();
        let (outcome, _) = client.lane.write(&write, &encoded).await;
        round.took += began.elapsed().as_secs_f64();
        let Committed::Done { written, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(written.len(), models.len());
        models.iter_mut().for_each(|model| model.no = Some(written[&model.id]));
        round.writes += 1;
    }
}

/// What it costs that a lane has forgotten a run.
async fn read_again(database: &Database, client: &mut Client, models: &[&Model], size: usize) {
    let before = spent(database, client).await;
    let mut loads = 0.0;
    for models in models.chunks(size).take(1000) {
        let runs = models.iter().map(|model| (model.id, false)).collect();
        let loaded = client.lane.load(&Load { runs, ready: [].into() }).await.expect("the lane answers");
        assert_eq!(loaded.runs.len(), models.len());
        loads += 1.0;
    }
    let after = spent(database, client).await;
    println!("  read again: {:.0} us a load", (after.cpu_seconds - before.cpu_seconds) * 1e6 / loads);
}

#[tokio::test]
#[ignore = "a measurement: run it alone, with --nocapture"]
async fn measure_a_removal() {
    for row_by_row in [false, true] {
        let database = database().await;
        let workflow = database.workflow(4).await;
        let mut client = database.lane().await;
        let (size, rounds) = (500, 60);
        for _ in 0..rounds {
            let mut models: Vec<Model> = (0..size).map(|_| Model::new(&workflow)).collect();
            round(&mut client, &mut models, Way::Direct, session()).await;
        }
        // Of what was thinned, history goes with its run.
        let thinned =
            sqlx::query("update history_range set thinned = $1, began_at = '2026-01-01Z' where range_no = 0");
        thinned.bind(row_by_row).execute(database.store.pool()).await.expect("it is stored");
        let mut retention = database.store.retention(seconds(300), 1000);
        retention.set_clock(after(21));
        retention.tick().await.expect("a range is left");
        retention.set_clock(after(343));
        let before = spent_by(&database, &mut client, "longtake retention").await;
        let (mut ticks, mut longest) = (0, Duration::ZERO);
        loop {
            let began = Instant::now();
            let more = retention.tick().await.expect("runs are removed").more;
            ticks += 1;
            if !more {
                println!("  the last tick took {:?}", began.elapsed());
                break;
            }
            longest = longest.max(began.elapsed());
        }
        let after = spent_by(&database, &mut client, "longtake retention").await;
        let runs = f64::from(size * rounds);
        println!(
            "history {}: {:.0} us of the server's CPU a run, {:.0} B of WAL; {ticks} ticks, at most {longest:?} each",
            if row_by_row { "row by row" } else { "by its partition" },
            (after.cpu_seconds - before.cpu_seconds) * 1e6 / runs,
            (after.wal_bytes - before.wal_bytes) / runs,
        );
    }
}

#[tokio::test]
#[ignore = "a measurement: run it alone, with --nocapture"]
async fn measure_a_run() {
    for ranges in [3, 40] {
        println!("{ranges} ranges of history");
        measure_with(ranges).await;
    }
}

async fn database() -> Database {
    let database = Database::new().await;
    // The disk is not what is measured.
    let sql = "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$";
    sqlx::query(sql).execute(database.store.pool()).await.expect("the setting is taken");
    database
}

async fn measure_with(ranges: usize) {
    let database = database().await;
    extend_to(&database, ranges).await;
    let workflow = database.workflow(4).await;
    let mut client = database.lane().await;
    let holder = session();
    client.done(&renewal(holder, seconds(30))).await;
    let direct = [1, 10, 100, 500].map(|size| (Way::Direct, size));
    for (way, size) in direct.into_iter().chain([(Way::Stored, 1), (Way::Stored, 100)]) {
        let rounds = (5000 / size).min(1000);
        let mut all: Vec<Vec<Model>> =
            (0..rounds + 1).map(|_| (0..size).map(|_| Model::new(&workflow)).collect()).collect();
        round(&mut client, &mut all.pop().unwrap(), way, holder).await;
        let before = spent(&database, &mut client).await;
        let (mut sum, mut fastest) = (Round::default(), f64::INFINITY);
        for models in &mut all {
            let Round { took, event_bytes, writes } = round(&mut client, models, way, holder).await;
            sum.took += took;
            fastest = fastest.min(took);
            sum.event_bytes += event_bytes;
            sum.writes += writes;
        }
        let after = spent(&database, &mut client).await;
        let (runs, writes) = ((rounds * size) as f64, sum.writes as f64);
        let cpu = (after.cpu_seconds - before.cpu_seconds) * 1e6;
        println!(
            "{way:?}, batch {size:>3}: {:>5.0} B of WAL a run ({:.0} B of it events), {:.1} records, {} page images in all; \
             {:.0} us of the server's CPU a run, {:.0} us a write; {:.0} us a write as the lane sees it, {:.0} in the fastest round",
            (after.wal_bytes - before.wal_bytes) / runs,
            sum.event_bytes as f64 / runs,
            (after.wal_records - before.wal_records) / runs,
            after.page_images - before.page_images,
            cpu / runs,
            cpu / writes,
            sum.took * 1e6 / writes,
            fastest * 1e6 * rounds as f64 / writes,
        );
        let all: Vec<&Model> = all.iter().flatten().collect();
        read_again(&database, &mut client, &all, size).await;
    }
    let sql = "select relname::text, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where n_tup_upd > 0 order by 1";
    for row in sqlx::query(sql).fetch_all(database.store.pool()).await.unwrap() {
        let (table, all, hot): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        println!("{table}: {all} updates, {:.1} % of them on their page", 100.0 * hot as f64 / all as f64);
    }
}
