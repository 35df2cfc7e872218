//! What PostgreSQL holds at the end, read as anyone could.

use anyhow::Result;
use longtake_proto::v1;
use prost::Message as _;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio_stream::StreamExt as _;

use crate::checker::Stored;

/// How many runs have not ended.
pub async fn open(connection: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("select count(*) from run where ended_at is null").fetch_one(connection).await?)
}

/// Every run with its history.
pub async fn read(connection: &mut PgConnection) -> Result<Vec<Stored>> {
    let mut runs = Vec::new();
    let text = "select run_no, run_id::text, state, version, spent, saved, step_states, attempts from run order by run_no";
    let mut rows = sqlx::query(text).fetch(&mut *connection);
    while let Some(row) = rows.next().await {
        let row = row?;
        runs.push(Stored {
            run_no: row.try_get(0)?,
            run_id: row.try_get(1)?,
            state: row.try_get(2)?,
            version: row.try_get(3)?,
            spent: row.try_get(4)?,
            saved: row.try_get(5)?,
            step_states: row.try_get(6)?,
            attempts: row.try_get(7)?,
            events: Vec::new(),
        });
    }
    drop(rows);
    let mut next = 0;
    let mut rows =
        sqlx::query("select run_no, events from history order by run_no, first_event").fetch(connection);
    while let Some(row) = rows.next().await {
        let row = row?;
        let (no, mut events): (i64, Vec<u8>) = (row.try_get(0)?, row.try_get(1)?);
        while runs.get(next).is_some_and(|run| run.run_no < no) {
            next += 1;
        }
        let Some(run) = runs.get_mut(next).filter(|run| run.run_no == no) else {
            anyhow::bail!("there is history of run number {no}, and no run");
        };
        let mut bytes = &events[..];
        while !bytes.is_empty() {
            run.events.push(v1::Event::decode_length_delimited(&mut bytes)?);
        }
        events.clear();
    }
    Ok(runs)
}

/// What should not be there when every run has ended: rows that drive runs.
pub async fn rest(connection: &mut PgConnection) -> Result<Vec<String>> {
    let mut rest = Vec::new();
    for table in ["open_run", "ready", "timer"] {
        let text = AssertSqlSafe(format!("select count(*) from {table}"));
        let count: i64 = sqlx::query_scalar(text).fetch_one(&mut *connection).await?;
        if count > 0 {
            rest.push(format!("{count} rows are left in {table}"));
        }
    }
    let text = "select count(*) from run where cardinality(lease_sessions) > 0";
    let leases: i64 = sqlx::query_scalar(text).fetch_one(&mut *connection).await?;
    if leases > 0 {
        rest.push(format!("{leases} runs still hold leases"));
    }
    let text = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
    let idle: i64 = sqlx::query_scalar(text).fetch_one(connection).await?;
    if idle > 0 {
        rest.push(format!("{idle} sessions are idle in a transaction"));
    }
    Ok(rest)
}
