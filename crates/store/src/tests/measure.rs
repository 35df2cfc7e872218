//! What a run costs: WAL and time of the write statement. Printed, not asserted.
//!
//! `cargo test -p longtake-store measure -- --ignored --nocapture --test-threads=1`

use std::time::{Duration, Instant};

use longtake_engine::ids::SessionId;
use longtake_engine::lane::work::{Committed, Load, RunWrite, Write};
use sqlx::Row;

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
    // Statistics of a backend are a second late, and are reported when it becomes idle.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.lane.load(&Load::default()).await.expect("the lane answers");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sql = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, wal_records::float8, wal_fpi::float8,
        (select pid from pg_stat_activity where application_name = 'longtake lane' and datname = current_database())
        from pg_stat_wal";
    let row = sqlx::query(sql).fetch_one(database.store.pool()).await.expect("statistics are on");
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

/// The commits of a 4-step run whose steps are leased as soon as they can be.
fn advance(model: &mut Model, commit: usize, holder: SessionId) -> RunWrite {
    let now = after(i64::try_from(commit).unwrap());
    match commit {
        0 => model.create(now).lease(0, holder, now),
        1..=3 => model.complete(commit - 1, now).lease(commit, holder, now),
        _ => model.complete(3, now),
    };
    model.write()
}

async fn round(client: &mut Client, models: &mut [Model], holder: SessionId) -> (f64, usize) {
    let (mut took, mut bytes) = (0.0, 0);
    for commit in 0..5 {
        let write: Write = batch(models.iter_mut().map(|model| advance(model, commit, holder)));
        let encoded = encoded(&write);
        bytes += encoded.iter().map(Vec::len).sum::<usize>();
        let began = Instant::now();
        let (outcome, _) = client.lane.write(&write, &encoded).await;
        took += began.elapsed().as_secs_f64();
        let Committed::Done { written, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(written.len(), models.len());
        models.iter_mut().for_each(|model| model.no = Some(written[&model.id]));
    }
    (took, bytes)
}

#[tokio::test]
#[ignore = "a measurement: run it alone, with --nocapture"]
async fn measure_a_run() {
    let database = Database::new().await;
    // The disk is not what is measured.
    let sql = "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$";
    sqlx::query(sql).execute(database.store.pool()).await.expect("the setting is taken");
    let workflow = database.workflow(4).await;
    let mut client = database.lane().await;
    let holder = session();
    client.done(&renewal(holder, seconds(30))).await;
    for size in [1, 10, 100, 500] {
        let rounds = (5000 / size).min(1000);
        let mut all: Vec<Vec<Model>> =
            (0..rounds + 1).map(|_| (0..size).map(|_| Model::new(&workflow)).collect()).collect();
        round(&mut client, &mut all.pop().unwrap(), holder).await;
        let before = spent(&database, &mut client).await;
        let (mut took, mut payload) = (0.0, 0);
        for models in &mut all {
            let (time, bytes) = round(&mut client, models, holder).await;
            took += time;
            payload += bytes;
        }
        let after = spent(&database, &mut client).await;
        let runs = (rounds * size) as f64;
        println!(
            "batch {size:>3}: {:>5.0} B of WAL a run ({:.0} B of it events), {:.1} records, {} page images in all; \
             {:.0} us of the server's CPU a run, {:.0} us a write; {:.0} us a write as the lane sees it",
            (after.wal_bytes - before.wal_bytes) / runs,
            payload as f64 / runs,
            (after.wal_records - before.wal_records) / runs,
            after.page_images - before.page_images,
            (after.cpu_seconds - before.cpu_seconds) * 1e6 / runs,
            (after.cpu_seconds - before.cpu_seconds) * 1e6 / (rounds as f64 * 5.0),
            took * 1e6 / (rounds as f64 * 5.0),
        );
    }
    let sql = "select relname::text, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where n_tup_upd > 0 order by 1";
    for row in sqlx::query(sql).fetch_all(database.store.pool()).await.unwrap() {
        let (table, all, hot): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        println!("{table}: {all} updates, {:.1} % of them on their page", 100.0 * hot as f64 / all as f64);
    }
}
