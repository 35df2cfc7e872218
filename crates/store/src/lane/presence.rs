//! The start and the end of a replica's service.

use longtake_engine::time::Timestamp;
use sqlx::postgres::PgPool;
use uuid::Uuid;

use crate::error::{Answer, Error};
use crate::stamp::Stamp;

/// Presence, and the time.
pub(crate) const BEGIN: &str = concat!(include_str!("../sql/presence.sql"), "select now from clock");

/// No executor may work on under a lease of a past that was lost, and nobody of that past is present.
pub(crate) const RESTORED: &str = "
    with gone as (delete from replica)
    update session set ended = true where not ended";

const END: &str = "
    update replica set gone = true, seen_at = coalesce($1::timestamptz, clock_timestamp())
    where replica_id = $2::uuid";

/// See [`Store::begin_service`](crate::Store::begin_service).
pub(crate) async fn begin(
    pool: &PgPool,
    replica: Uuid,
    after_restore: bool,
    now: Option<Timestamp>,
) -> Result<Timestamp, Error> {
    const DOING: &str = "beginning service";
    let failed = |error| Error::new(DOING, &error);
    if after_restore {
        let ended = sqlx::query(RESTORED).execute(pool).await.map_err(failed)?.rows_affected();
        tracing::warn!(sessions = ended, "the database was restored: every session was ended");
    }
    let statement = sqlx::query_scalar(BEGIN).bind(now.map(Stamp)).bind(replica).bind(true);
    let now: Vec<Stamp> = statement.fetch_all(pool).await.map_err(failed)?;
    now.first().map(|now| now.0).ok_or_else(|| failed(sqlx::Error::RowNotFound))
}

/// See [`Store::end_service`](crate::Store::end_service).
pub(crate) async fn end(pool: &PgPool, replica: Uuid, now: Option<Timestamp>) {
    let statement = sqlx::query(END).bind(now.map(Stamp)).bind(replica);
    if let Err(error) = statement.execute(pool).await {
        tracing::warn!(reason = %Answer::of(&error), "could not say goodbye; other replicas take over a little later");
    }
}
