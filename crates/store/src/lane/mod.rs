//! The SQL behind [`Work`](longtake_engine::lane::work::Work): one method for each kind.
//!
//! A lane has connections of its own and does one piece of work at a time on each. No method holds a transaction open between
//! two statements, and none is harmed by being dropped half-way: the connection goes with it, and what the statement did is
//! found by reading again.

mod batch;
mod housekeep;
mod load;
pub(crate) mod presence;
mod sessions;
mod shape;
mod write;

use longtake_engine::time::Timestamp;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::line::Line;
use crate::stamp::Stamp;

pub(crate) use batch::number;
pub use load::LoadedRows;
pub(crate) use load::bind as bind_load;
#[cfg(test)]
pub(crate) use {
    batch::timer,
    housekeep::HOUSEKEEP,
    load::{LOAD, LOCK},
    sessions::{END_SESSIONS, FORGET_SESSIONS, LEASES},
    shape::Shape,
};

/// A lane's way to the database.
#[derive(Debug)]
pub struct LaneConnection {
    line: Line,
    replica: Uuid,
    /// Stands in for Postgres's clock in tests.
    now: Option<Timestamp>,
}

impl LaneConnection {
    pub(crate) fn new(options: &PgConnectOptions, replica: Uuid) -> LaneConnection {
        LaneConnection { line: Line::new(options, replica), replica, now: None }
    }

    /// Connects, for as long as it takes.
    pub(crate) async fn open(&mut self) {
        self.line.open().await;
    }

    fn now(&self) -> Option<Stamp> {
        self.now.map(Stamp)
    }

    /// From here on it is `now`.
    #[cfg(test)]
    pub(crate) fn set_clock(&mut self, now: Timestamp) {
        self.now = Some(now);
    }
}
