//! A batch, as one statement.

use longtake_engine::ids::{RunId, RunNo, SessionId};
use longtake_engine::lane::work::{Committed, SessionWrite, Write};
use longtake_engine::run::NewRun;
use longtake_engine::time::Timestamp;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::columns::Columns;
use crate::error::{Answer, Outcome, outcome};
use crate::line::Delays;
use crate::stamp::Stamp;

use super::LaneConnection;
use super::batch::{Batch, Expected, Hot, attempt};
use super::shape::Shape;

/// How often a write is tried that was rolled back for a reason that may not come again, such as a deadlock.
const TRIES: usize = 3;

type Statement<'q> = Query<'q, Postgres, PgArguments>;

impl LaneConnection {
    /// Commits a batch as one statement; `encoded` holds the events of each run, in the order of `write.runs`. With what
    /// became of it comes the database's time, if it said so.
    ///
    /// Waits for as long as the database cannot be reached or cannot write: until something was sent, nothing is unknown.
    pub async fn write(&mut self, write: &Write, encoded: &[Vec<u8>]) -> (Committed, Option<Timestamp>) {
        if encoded.len() != write.runs.len() {
            let why = format!("{} runs came with the events of {}", write.runs.len(), encoded.len());
            return (Committed::Failed(why), None);
        }
        let batch = Batch::new(write, encoded);
        let mut delays = Delays::new();
        let mut tries = 1;
        loop {
            let statement = bind(&batch, &write.sessions, self.now(), self.replica);
            let error = match self.line.rows("writing a batch", statement).await {
                Ok(rows) => return self.done(&rows),
                Err(error) => error,
            };
            match outcome(&error) {
                Outcome::Conflict | Outcome::Stale if tries < TRIES => tries += 1,
                Outcome::Passing => {
                    tracing::warn!(reason = %Answer::of(&error), "the database cannot write; trying again");
                    delays.wait().await;
                }
                Outcome::Unknown => {
                    tracing::warn!(reason = %Answer::of(&error), "the outcome of a write is unknown");
                    return (Committed::Unknown, None);
                }
                Outcome::Refused | Outcome::Conflict | Outcome::Late | Outcome::Stale => {
                    return (Committed::Failed(Answer::of(&error).to_string()), None);
                }
            }
        }
    }

    fn done(&mut self, rows: &[PgRow]) -> (Committed, Option<Timestamp>) {
        match read(rows) {
            Ok(done) => {
                let Done { written, sessions, time } = done;
                (Committed::Done { written, sessions }, time)
            }
            Err(error) => {
                tracing::error!(reason = %Answer::of(&error), "a write was answered with what cannot be read");
                self.line.hang_up();
                (Committed::Unknown, None)
            }
        }
    }
}

#[derive(Default)]
struct Done {
    written: std::collections::BTreeMap<RunId, RunNo>,
    sessions: std::collections::BTreeMap<SessionId, Timestamp>,
    time: Option<Timestamp>,
}

fn read(rows: &[PgRow]) -> Result<Done, sqlx::Error> {
    let mut done = Done::default();
    for row in rows {
        let (id, no, time): (Option<Uuid>, Option<i64>, Option<Stamp>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        match (id, no, time) {
            (Some(id), Some(no), _) => drop(done.written.insert(RunId(id), RunNo(no))),
            (Some(id), None, Some(until)) => drop(done.sessions.insert(SessionId(id), until.0)),
            (_, _, time) => done.time = time.map(|time| time.0),
        }
    }
    Ok(done)
}

/// The statement with everything that it needs, in the order of its parameters.
pub(crate) fn bind<'q>(
    batch: &'q Batch<'q>,
    sessions: &'q [SessionWrite],
    now: Option<Stamp>,
    replica: Uuid,
) -> Statement<'q> {
    // The text is put together from one file of this crate.
    let text = AssertSqlSafe(Shape::of(batch, sessions).statement());
    let statement = sqlx::query(text).bind(now).bind(replica);
    let statement = bind_new(statement, &batch.new);
    let statement = statement.bind(&batch.attempts).bind(&batch.states).bind(&batch.leases);
    let statement = bind_changed(statement, &batch.changed);
    bind_rows(statement, batch)
        .column(sessions, |session| session.id.0)
        .column(sessions, |session| &*session.executor)
        .column(sessions, |session| session.lasts.micros())
}

fn bind_new<'q>(statement: Statement<'q>, new: &'q [(Hot<'q>, &'q NewRun)]) -> Statement<'q> {
    let statement = statement
        .column(new, |(hot, _)| hot.write.id.0)
        .column(new, |(_, request)| request.tenant.as_str())
        .column(new, |(_, request)| &request.content_hash[..])
        .column(new, |(_, request)| &request.version.as_bytes()[..])
        .column(new, |(hot, _)| hot.write.priority)
        .column(new, |(hot, _)| Stamp(hot.write.events.first().map_or(hot.at, |event| event.at)));
    bind_hot(statement, new)
}

fn bind_changed<'q>(statement: Statement<'q>, changed: &'q [(Hot<'q>, Expected)]) -> Statement<'q> {
    let statement = statement
        .column(changed, |(_, expected)| expected.no)
        .column(changed, |(_, expected)| expected.version)
        .column(changed, |(hot, _)| hot.write.not_before.map(Stamp))
        .column(changed, |(hot, _)| hot.write.was_open)
        .column(changed, |(_, expected)| expected.version + 1);
    bind_hot(statement, changed)
}

fn bind_hot<'q, T>(statement: Statement<'q>, runs: &'q [(Hot<'q>, T)]) -> Statement<'q> {
    statement
        .column(runs, |(hot, _)| hot.write.row.version)
        .column(runs, |(hot, _)| hot.write.row.state)
        .column(runs, |(hot, _)| hot.write.row.ended_at.map(Stamp))
        .column(runs, |(hot, _)| hot.write.row.spent)
        .column(runs, |(hot, _)| hot.write.row.saved)
        .column(runs, |(hot, _)| hot.steps.0)
        .column(runs, |(hot, _)| hot.steps.1)
        .column(runs, |(hot, _)| hot.leases.0)
        .column(runs, |(hot, _)| hot.leases.1)
        .column(runs, |(hot, _)| Stamp(hot.at))
        .column(runs, |(hot, _)| hot.events)
}

fn bind_rows<'q>(statement: Statement<'q>, batch: &'q Batch<'q>) -> Statement<'q> {
    let Batch { labels, ready, unready, timers, no_timers, checkpoints, .. } = batch;
    statement
        .column(labels, |(run, _, _)| *run)
        .column(labels, |(_, key, _)| *key)
        .column(labels, |(_, _, value)| *value)
        .column(ready, |ready| ready.run)
        .column(ready, |ready| ready.step)
        .column(ready, |ready| ready.queue)
        .column(ready, |ready| ready.priority)
        .column(ready, |ready| Stamp(ready.since))
        .column(unready, |(run, _)| *run)
        .column(unready, |(_, step)| *step)
        .column(timers, |(run, _, _)| *run)
        .column(timers, |(_, (kind, _), _)| *kind)
        .column(timers, |(_, (_, step), _)| *step)
        .column(timers, |(_, _, due)| Stamp(*due))
        .column(no_timers, |(run, _)| *run)
        .column(no_timers, |(_, (kind, _))| *kind)
        .column(no_timers, |(_, (_, step))| *step)
        .column(checkpoints, |stored| stored.run)
        .column(checkpoints, |stored| stored.step)
        .column(checkpoints, |stored| attempt(stored.checkpoint.attempt))
        .column(checkpoints, |stored| stored.checkpoint.sequence)
        .column(checkpoints, |stored| stored.checkpoint.done)
        .column(checkpoints, |stored| stored.checkpoint.total)
        .column(checkpoints, |stored| Stamp(stored.checkpoint.at))
        .column(checkpoints, |stored| stored.data.as_str())
        .column(checkpoints, |stored| stored.artifacts.as_str())
}
