//! What goes wrong: several lanes of faults at a time, so that two faults often meet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Mutex, MutexGuard};

use crate::member::Member;
use crate::proxy::{Mode, Proxy};
use crate::roles::Chance;
use crate::stage::{Server, Stage, micros};

/// Longer than a silent session lasts, which is three seconds at least.
const PAST_THE_LEASE: (u64, u64) = (3_500, 6_000);

/// Until when faults happen.
#[derive(Debug, Default)]
pub struct End(AtomicBool);

impl End {
    pub fn come(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_near(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A lane of faults: whom it strikes.
#[derive(Debug, Clone, Copy)]
pub enum Lane {
    Executors,
    Servers,
    Links,
    Database,
}

/// Lets faults of one lane happen, one after another, until the end.
pub async fn strike(stage: Arc<Stage>, lane: Lane, seed: u64, end: Arc<End>) -> Result<()> {
    let mut chance = Chance::new(seed);
    while !end.is_near() {
        match lane {
            Lane::Executors => executors(&stage, &mut chance).await?,
            Lane::Servers => servers(&stage, &mut chance).await?,
            Lane::Links => links(&stage, &mut chance).await,
            Lane::Database => database(&stage, &mut chance).await?,
        }
    }
    Ok(())
}

/// One that nothing else is being done to.
fn pick<'a>(members: &'a [Mutex<Member>], chance: &mut Chance) -> Option<MutexGuard<'a, Member>> {
    let first = chance.index(members.len());
    let mut order = (0..members.len()).map(|next| &members[(first + next) % members.len()]);
    order.find_map(|member| member.try_lock().ok())
}

async fn executors(stage: &Stage, chance: &mut Chance) -> Result<()> {
    tokio::time::sleep(chance.millis(50, 500)).await;
    let Some(mut member) = pick(&stage.executors, chance) else { return Ok(()) };
    let (from, alias) = (micros(), member.alias());
    match chance.below(10) {
        0..7 => {
            member.kill().await;
            stage.note("kill_executor", &alias, from);
            tokio::time::sleep(chance.millis(0, 300)).await;
            member.start().await?;
        }
        7..9 => {
            member.freeze(chance.millis(PAST_THE_LEASE.0, PAST_THE_LEASE.1)).await;
            stage.note("freeze_executor", &alias, from);
        }
        _ => {
            member.terminate(Duration::from_secs(6)).await;
            stage.note("drain_executor", &alias, from);
            member.start().await?;
        }
    }
    Ok(())
}

async fn servers(stage: &Stage, chance: &mut Chance) -> Result<()> {
    tokio::time::sleep(chance.millis(500, 3_000)).await;
    let server = &stage.servers[chance.index(stage.servers.len())];
    let from = micros();
    match chance.below(20) {
        0..13 => {
            let mut member = server.member.lock().await;
            member.kill().await;
            tokio::time::sleep(chance.millis(0, 500)).await;
            member.start().await?;
            stage.note("kill_server", &member.name, from);
        }
        13..18 => {
            let mut member = server.member.lock().await;
            member.freeze(chance.millis(500, 5_000)).await;
            stage.note("freeze_server", &member.name, from);
        }
        18 => {
            for server in &stage.servers {
                let mut member = server.member.lock().await;
                member.terminate(Duration::from_secs(10)).await;
                member.start().await?;
            }
            stage.note("rolling_restart", "servers", from);
        }
        _ => {
            let mut liar = stage.liar.lock().await;
            liar.kill().await;
            liar.start().await?;
            stage.note("kill_liar", &liar.name, from);
        }
    }
    Ok(())
}

fn link<'a>(server: &'a Server, chance: &mut Chance) -> (&'static str, &'a Proxy) {
    match chance.below(3) {
        0 => ("postgres", &server.to_postgres),
        1 => ("client", &server.from_client),
        _ => ("executors", &server.from_executors),
    }
}

async fn links(stage: &Stage, chance: &mut Chance) {
    tokio::time::sleep(chance.millis(100, 1_000)).await;
    let number = chance.index(stage.servers.len());
    let server = &stage.servers[number];
    let (name, proxy) = link(server, chance);
    let (from, target) = (micros(), format!("server-{number}/{name}"));
    match chance.below(10) {
        0..4 => {
            proxy.set(Mode::Cut);
            tokio::time::sleep(chance.millis(50, 2_000)).await;
            stage.note("cut", &target, from);
        }
        4..6 => {
            proxy.set(Mode::Stalled);
            tokio::time::sleep(chance.millis(500, 6_000)).await;
            stage.note("stall", &target, from);
        }
        6..8 => {
            proxy.set(Mode::Slow(chance.millis(5, 300)));
            tokio::time::sleep(chance.millis(500, 3_000)).await;
            stage.note("slow", &target, from);
        }
        _ => {
            for _ in 0..6 {
                if chance.permille(700) {
                    server.to_postgres.lose_a_reply();
                } else {
                    server.to_postgres.lose_a_request();
                }
                tokio::time::sleep(chance.millis(50, 300)).await;
            }
            // Not saved up: a server that cannot connect for minutes is another fault than this.
            server.to_postgres.heal();
            stage.note("lost_messages", &target, from);
        }
    }
    proxy.set(Mode::Open);
}

async fn database(stage: &Stage, chance: &mut Chance) -> Result<()> {
    static ROUND: AtomicU64 = AtomicU64::new(0);
    tokio::time::sleep(chance.millis(1_000, 5_000)).await;
    let from = micros();
    // While PostgreSQL is started again by this lane, nobody else does anything to it.
    match ROUND.fetch_add(1, Ordering::Relaxed) % 9 {
        0 | 2 | 6 => {
            stage.restart_postgres(chance.millis(0, 1_000)).await?;
            stage.note("kill_postgres", "postgres", from);
        }
        1 => {
            let share = 1 + chance.below(4);
            let text = format!(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where application_name like 'longtake%' and pid % {share} = 0"
            );
            stage.execute(&text).await?;
            stage.note("terminate_sessions", "postgres", from);
        }
        3 => {
            let table = ["run", "history", "ready", "session"][chance.index(4)];
            let seconds = chance.millis(500, 7_000).as_secs_f64();
            stage
                .execute(&format!(
                    "begin; lock table {table} in access exclusive mode; select pg_sleep({seconds}); rollback"
                ))
                .await?;
            stage.note("lock_table", table, from);
        }
        5 if stage.has_small_disk => {
            stage.fill_small_disk(chance.millis(300, 4_000)).await?;
            stage.note("small_disk_full", "postgres", from);
        }
        5 => {
            stage.fill_disk(chance.millis(300, 4_000)).await?;
            stage.note("disk_full", "postgres", from);
        }
        7 => {
            stage.exhaust_connections(chance.millis(300, 3_000)).await?;
            stage.note("connections_exhausted", "postgres", from);
        }
        8 => {
            // More than a heartbeat timeout, so that sessions end by it.
            let by = if chance.permille(500) { 5 } else { -5 };
            stage.set_clock(by, chance.millis(300, 4_000)).await?;
            stage.note("set_clock", "postgres", from);
        }
        _ => {
            stage.execute("alter system set default_transaction_read_only = on").await?;
            stage.execute("select pg_reload_conf()").await?;
            tokio::time::sleep(chance.millis(300, 2_000)).await;
            stage.read_write().await?;
            stage.note("read_only", "postgres", from);
        }
    }
    Ok(())
}
