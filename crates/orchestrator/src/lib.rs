//! The orchestrator runs: it drives the engine's lane against Postgres and serves the contract.
//!
//! [`lane`] is the one path on which runs change; [`services`] validate, ask and answer; [`stored`] turns rows into runs;
//! [`serve()`](serve) puts it together. What a run may do is decided in `longtake-engine`, never here.

mod accept;
pub mod clock;
pub mod codec;
pub mod config;
mod deadline;
pub mod errors;
mod http;
pub mod hub;
pub mod lane;
pub mod page;
mod retention;
mod serve;
pub mod services;
pub mod stored;
pub mod telemetry;
mod unreadable;
pub mod validate;
pub mod workflows;

pub use config::{Config, Limits, RETENTION};
pub use longtake_store::Schema;
pub use serve::{ServeError, migrate, migrate_down, schema, serve};
