//! What the machine and the database spent between two looks.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection, Row as _};

/// Seconds of CPU, by what they were spent on.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cpu {
    pub postgres: f64,
    pub servers: f64,
    pub executors: f64,
    pub load: f64,
}

/// Counters that only rise.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Spent {
    pub cpu: Cpu,
    pub wal_bytes: f64,
    pub wal_records: f64,
    pub page_images: f64,
    pub commits: f64,
    pub updates: f64,
    pub hot_updates: f64,
}

impl Spent {
    /// What was spent since `before`.
    pub fn since(&self, before: &Spent) -> Spent {
        let cpu = Cpu {
            postgres: self.cpu.postgres - before.cpu.postgres,
            servers: self.cpu.servers - before.cpu.servers,
            executors: self.cpu.executors - before.cpu.executors,
            load: self.cpu.load - before.cpu.load,
        };
        Spent {
            cpu,
            wal_bytes: self.wal_bytes - before.wal_bytes,
            wal_records: self.wal_records - before.wal_records,
            page_images: self.page_images - before.page_images,
            commits: self.commits - before.commits,
            updates: self.updates - before.updates,
            hot_updates: self.hot_updates - before.hot_updates,
        }
    }
}

/// Seconds of CPU that a process, and its children that have ended, have used so far; 0 when it is gone.
fn used(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: f64 = fields.skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// The processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// Of some processes, each with its children.
pub fn cpu_of(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| used(*pid) + children(*pid).into_iter().map(used).sum::<f64>()).sum()
}

/// Bytes of memory that a process has in use.
pub fn memory_of(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// What the database has done so far, all but CPU. Each backend reports once a second at most: counts (not bytes of WAL) of a
/// window of five seconds may be off by a fifth.
pub async fn database(url: &str) -> Result<Spent> {
    let mut connection = PgConnection::connect(url).await.context("a connection for the gauges")?;
    let sql = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8, wal_records::float8, wal_fpi::float8,
            (select xact_commit from pg_stat_database where datname = current_database())::float8,
            (select coalesce(sum(n_tup_upd), 0) from pg_stat_user_tables)::float8,
            (select coalesce(sum(n_tup_hot_upd), 0) from pg_stat_user_tables)::float8
        from pg_stat_wal";
    let row = sqlx::query(sql).fetch_one(&mut connection).await?;
    let spent = Spent {
        wal_bytes: row.get(0),
        wal_records: row.get(1),
        page_images: row.get(2),
        commits: row.get(3),
        updates: row.get(4),
        hot_updates: row.get(5),
        ..Spent::default()
    };
    connection.close().await?;
    Ok(spent)
}

/// Cores, memory and the version of the kernel, for whoever reads figures later.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores,{}, Linux {}", model.replace("\t", "").replacen(':', "", 1), kernel.trim())
}
