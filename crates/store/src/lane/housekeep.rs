//! The round of every few seconds.

use longtake_engine::ids::{RunId, SessionId};
use longtake_engine::lane::work::{AdoptedSession, Found, Housekeep, Own, ProgressWrite};
use longtake_engine::time::{Duration, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use uuid::Uuid;

use crate::columns::Columns;
use crate::error::Error;
use crate::line::Delays;
use crate::stamp::Stamp;

use super::LaneConnection;
use super::batch::{attempt, number, timer};

/// Presence, and what other replicas may have done.
pub(crate) const HOUSEKEEP: &str =
    concat!(include_str!("../sql/presence.sql"), include_str!("../sql/housekeep.sql"));

const DOING: &str = "housekeeping";

impl LaneConnection {
    /// One round: this replica's presence and its steps' progress are written, an outage that this ends is credited, and what
    /// is to be done soon or was done by others is found. With it comes the database's time.
    pub async fn housekeep(&mut self, round: &Housekeep) -> Result<(Found, Timestamp), Error> {
        let Read { mut found, now, .. } = loop {
            let statement = bind(round, self.now(), self.replica);
            let rows = self.line.rows(DOING, statement).await;
            let read = rows.and_then(|rows| read(&rows)).map_err(|error| Error::new(DOING, &error))?;
            // What a round sees of the sessions that it moves is old. It made this replica present: the next one moves none.
            if !read.credited {
                break read;
            }
            tracing::warn!("an outage has ended: sessions that lived when it began were given more time");
        };
        let strays = round.own == Own::All;
        if strays || !found.adopted.is_empty() {
            self.find_leases(&mut found, strays, now).await;
        }
        Ok((found, now))
    }

    /// Adds the leases of the sessions that were found and, if asked, those of sessions that do not exist.
    ///
    /// A session is taken over once: its leases are looked for until they are found.
    async fn find_leases(&mut self, found: &mut Found, strays: bool, now: Timestamp) {
        let sessions: Vec<Uuid> = found.adopted.iter().map(|session| session.id.0).collect();
        let mut delays = Delays::new();
        let mut leases = loop {
            match self.leases(&sessions, strays).await {
                Ok(leases) => break leases,
                Err(error) => tracing::warn!(%error, "housekeeping goes on when this is done"),
            }
            delays.wait().await;
        };
        for session in &mut found.adopted {
            session.runs = leases.remove(&session.id).unwrap_or_default();
        }
        let stray = |(id, runs)| AdoptedSession { id, executor: "".into(), until: now, ended: true, runs };
        found.adopted.extend(leases.into_iter().map(stray));
    }
}

pub(crate) fn bind(round: &Housekeep, now: Option<Stamp>, replica: Uuid) -> Query<'_, Postgres, PgArguments> {
    let progress: &[ProgressWrite] = &round.progress;
    sqlx::query(HOUSEKEEP)
        .bind(now)
        .bind(replica)
        .bind(false)
        .column(progress, |progress| progress.run.0)
        .column(progress, |progress| number(progress.step))
        .column(progress, |progress| attempt(progress.attempt))
        .column(progress, |progress| progress.done)
        .column(progress, |progress| progress.total)
        .column(progress, |progress| progress.message.as_str())
        .bind(round.own == Own::All)
        .bind(round.horizon.micros())
        .column(&round.queues, |queue| &**queue)
        .column(&round.watched, |(run, _, _)| run.0)
        .column(&round.watched, |(_, no, _)| no.0)
        .column(&round.watched, |(_, _, version)| *version)
        .bind(round.own != Own::Known)
}

#[derive(Default)]
struct Read {
    found: Found,
    now: Timestamp,
    credited: bool,
}

fn read(rows: &[PgRow]) -> Result<Read, sqlx::Error> {
    let Read { mut found, mut now, mut credited } = Read::default();
    for row in rows {
        let id = || row.try_get::<Uuid, _>("id");
        let at = || row.try_get::<Stamp, _>("at").map(|at| at.0);
        let number = || row.try_get::<i64, _>("number");
        match row.try_get::<i32, _>("kind")? {
            0 => (now, credited) = (at()?, row.try_get("flag")?),
            1 => found.others = usize::try_from(number()?).unwrap_or_default(),
            2 => found.outages.push((at()?, Duration(number()?))),
            3 => {
                let key = (i16::try_from(number()?).unwrap_or(i16::MAX), row.try_get("step")?);
                // A newer binary sees to the timers that only it knows.
                if let Some(timer) = timer(key) {
                    found.timers.push((at()?, RunId(id()?), timer));
                }
            }
            4 => found.ready.push(row.try_get::<&str, _>("text")?.into()),
            5 => found.changed.push(RunId(id()?)),
            _ => found.adopted.push(AdoptedSession {
                id: SessionId(id()?),
                executor: row.try_get::<&str, _>("text")?.into(),
                until: at()?,
                ended: row.try_get("flag")?,
                runs: Vec::new(),
            }),
        }
    }
    found.outages.sort_unstable();
    found.timers.sort_unstable();
    Ok(Read { found, now, credited })
}
