//! The end of sessions.

use std::collections::BTreeMap;

use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::Over;
use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::Error;

use super::LaneConnection;

pub(crate) const END_SESSIONS: &str = include_str!("../sql/end_sessions.sql");
pub(crate) const LEASES: &str = include_str!("../sql/leases.sql");
pub(crate) const FORGET_SESSIONS: &str = include_str!("../sql/forget_sessions.sql");

/// How many open runs are looked through at a time: about a quarter of a second's work. Few in tests, so that they turn pages.
const PAGE: i64 = if cfg!(test) { 2 } else { 50_000 };

/// Sessions, each with the runs in which it holds leases.
pub type Leases = BTreeMap<SessionId, Vec<RunId>>;

impl LaneConnection {
    /// Ends those of the sessions whose time is up by the database's clock. Returns all of them that have ended, now or before,
    /// each with the runs in which it holds leases, if these are to be looked for.
    pub async fn end_sessions(&mut self, asked: &Over) -> Result<Leases, Error> {
        const DOING: &str = "ending sessions";
        let look = asked.look;
        let asked: Vec<Uuid> = asked.ids.iter().map(|session| session.0).collect();
        let statement = sqlx::query(END_SESSIONS).bind(self.now()).bind(&asked);
        let rows = self.line.rows(DOING, statement).await;
        let over =
            rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, _>>());
        let over = over.map_err(|error| Error::new(DOING, &error))?;
        // Read after they were ended: it holds every lease that was granted before.
        let mut leases = if look { self.leases(&over, false).await? } else { Leases::new() };
        let over = over.into_iter().map(SessionId);
        Ok(over.map(|session| (session, leases.remove(&session).unwrap_or_default())).collect())
    }

    /// Forgets those of the sessions that are over and hold no lease; one that does is kept if leases are to be looked for. One that
    /// is kept is found again by [`housekeep`](LaneConnection::housekeep).
    pub async fn forget_sessions(&mut self, asked: &Over) -> Result<(), Error> {
        const DOING: &str = "forgetting sessions";
        let ids: Vec<Uuid> = asked.ids.iter().map(|session| session.0).collect();
        let leases = if asked.look { self.leases(&ids, false).await? } else { Leases::new() };
        let free: Vec<Uuid> = ids.into_iter().filter(|id| !leases.contains_key(&SessionId(*id))).collect();
        let statement = sqlx::query(FORGET_SESSIONS).bind(self.now()).bind(&free);
        self.line.rows(DOING, statement).await.map_err(|error| Error::new(DOING, &error))?;
        Ok(())
    }

    /// The leases of sessions and, if asked, of those that are not known. Looks through the open runs, a page at a time.
    pub(super) async fn leases(&mut self, sessions: &[Uuid], strays: bool) -> Result<Leases, Error> {
        const DOING: &str = "looking for the leases of sessions";
        let mut leases = Leases::new();
        let mut after = Some(0).filter(|_| strays || !sessions.is_empty());
        while let Some(start) = after {
            let statement = sqlx::query(LEASES).bind(sessions).bind(strays).bind(start).bind(PAGE);
            let rows = self.line.rows(DOING, statement).await;
            let page = rows.and_then(|rows| read_leases(&rows, &mut leases));
            after = page.map_err(|error| Error::new(DOING, &error))?;
        }
        Ok(leases)
    }
}

/// Takes the leases of a page in; returns where the next one begins, if there may be one.
fn read_leases(rows: &[PgRow], leases: &mut Leases) -> Result<Option<i64>, sqlx::Error> {
    let mut next = None;
    for row in rows {
        let (session, run): (Option<Uuid>, Option<Uuid>) =
            (row.try_get("session_id")?, row.try_get("run_id")?);
        match session.zip(run) {
            Some((session, run)) => leases.entry(SessionId(session)).or_default().push(RunId(run)),
            None => {
                next = row
                    .try_get::<Option<i64>, _>("last")?
                    .filter(|_| matches!(row.try_get("runs"), Ok(PAGE)));
            }
        }
    }
    Ok(next)
}
