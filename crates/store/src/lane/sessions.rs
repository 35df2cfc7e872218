//! The end of sessions.

use std::collections::BTreeMap;

use longtake_engine::ids::{RunId, SessionId};
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Error;

use super::LaneConnection;

pub(crate) const END_SESSIONS: &str = include_str!("../sql/end_sessions.sql");
pub(crate) const LEASES: &str = include_str!("../sql/leases.sql");
pub(crate) const FORGET_SESSIONS: &str = include_str!("../sql/forget_sessions.sql");

impl LaneConnection {
    /// Ends those of the sessions whose time is up by the database's clock. Returns all of them that have ended, now or before,
    /// each with the runs in which it holds leases.
    pub async fn end_sessions(&mut self, ids: &[SessionId]) -> Result<Vec<(SessionId, Vec<RunId>)>, Error> {
        const DOING: &str = "ending sessions";
        let asked: Vec<Uuid> = ids.iter().map(|session| session.0).collect();
        let statement = sqlx::query(END_SESSIONS).bind(self.now()).bind(&asked);
        let rows = self.line.rows(DOING, statement).await;
        let over =
            rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, _>>());
        let over = over.map_err(|error| Error::new(DOING, &error))?;
        let mut leases = self.leases(&over).await?;
        let over = over.into_iter().map(SessionId);
        Ok(over.map(|session| (session, leases.remove(&session).unwrap_or_default())).collect())
    }

    /// The runs in which sessions hold leases. A snapshot of its own: it holds every lease that was granted before the sessions
    /// were ended.
    pub(super) async fn leases(
        &mut self,
        sessions: &[Uuid],
    ) -> Result<BTreeMap<SessionId, Vec<RunId>>, Error> {
        const DOING: &str = "looking for the leases of sessions";
        let mut leases: BTreeMap<SessionId, Vec<RunId>> = BTreeMap::new();
        if sessions.is_empty() {
            return Ok(leases);
        }
        let rows = self.line.rows(DOING, sqlx::query(LEASES).bind(sessions)).await;
        let pair = |row: &PgRow| Ok((SessionId(row.try_get(0)?), RunId(row.try_get(1)?)));
        let pairs = rows.and_then(|rows| rows.iter().map(pair).collect::<Result<Vec<_>, sqlx::Error>>());
        for (session, run) in pairs.map_err(|error| Error::new(DOING, &error))? {
            leases.entry(session).or_default().push(run);
        }
        Ok(leases)
    }

    /// Forgets those of the sessions that are over and hold no lease. One that is not, or does, is found again by
    /// [`housekeep`](LaneConnection::housekeep).
    pub async fn forget_sessions(&mut self, ids: &[SessionId]) -> Result<(), Error> {
        const DOING: &str = "forgetting sessions";
        let asked: Vec<Uuid> = ids.iter().map(|session| session.0).collect();
        let statement = sqlx::query(FORGET_SESSIONS).bind(self.now()).bind(&asked);
        self.line.rows(DOING, statement).await.map_err(|error| Error::new(DOING, &error))?;
        Ok(())
    }
}
