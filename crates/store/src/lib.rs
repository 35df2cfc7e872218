//! The store remembers. It is the only crate that knows SQL.
//!
//! [`Store`] is where a server starts: settings and schema are checked, presence begins. Then there are two ways in:
//!
//! - a [`LaneConnection`] does a lane's [`Work`](longtake_engine::lane::work::Work), one piece at a time; a lane has two of them.
//!   [`LaneConnection::write`] is the only statement that changes a run;
//! - [`Reads`] reads past the lanes, on a small pool. What it returns may be old the moment it arrives: nothing is decided on it.
//!
//! [`Retention`] removes runs that ended long enough ago, on a connection of its own; it changes none.
//!
//! What has to be true of the rows is said three times: by the engine's types, by constraints in `migrations/`, and by the
//! fences in `sql/write.sql`. Events are opaque here: encoded and decoded by whoever calls.

mod columns;
mod error;
mod lane;
mod line;
mod reads;
mod retention;
mod rows;
mod schema;
mod settings;
mod stamp;
mod store;
#[cfg(test)]
mod tests;

pub use error::{Answer, Error};
pub use lane::{LaneConnection, LoadedRows};
pub use reads::{CurrentWorkflow, ListFilter, QueueRow, Reads, SessionRow, TableSize};
pub use retention::{Retention, Swept};
pub use rows::{CheckpointRow, ProgressRow, RunRows};
pub use schema::Schema;
pub use store::Store;
