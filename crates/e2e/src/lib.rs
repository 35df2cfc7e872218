//! Whole-process tests: the real binary, a real PostgreSQL, real ffmpeg and espeak-ng, and faults that are no pretence.
//!
//! This library is the harness; the tests are in `tests/`, one topic a file. What they are made of:
//!
//! - [`World`]: everything that one test owns: a folder and, usually, a [`Database`] of its own.
//! - [`Server`] and [`Executor`]: processes of the binary, on loopback ports that nobody else uses. Their logs go to files of the
//!   world; when a test fails, the end of each is printed.
//! - [`Client`] speaks the contract; [`Hand`] is an executor driven by hand, call by call, for what a well-behaved one never does.
//! - [`Spy`] stands in for ffmpeg: it notes each segment that is rendered, and holds the ones that a test wants held, so that a
//!   fault hits at an exact moment.
//! - [`eventually`] is the only thing that waits: no test sleeps.
//!
//! What is needed: `LONGTAKE_TEST_DATABASE_URL` (a superuser's URL; `bin/test` sets it) and the built binary, which is looked for
//! in `LONGTAKE_BIN` and then next to the test programs.

mod client;
mod database;
mod definitions;
mod eventually;
mod executor;
mod files;
mod grpcurl;
mod hand;
mod history;
mod proc;
mod process;
mod requests;
mod server;
mod spy;
mod world;

pub use client::{Client, Refusal};
pub use database::{Database, SETTABLE_CLOCK};
pub use definitions::{content_with_short_leases, definitions, shipped_definitions};
pub use eventually::{eventually, pass};
pub use executor::Executor;
pub use files::{Probe, artifact, bytes_of, path_of, probe};
pub use grpcurl::grpcurl;
pub use hand::Hand;
pub use history::{causes, kind, kinds, refused_reports, step};
pub use proc::processes_that_name;
pub use process::{Outcome, Process, Signal, binary, run};
pub use requests::{content_request, span};
pub use server::{Server, free_port, http_status};
pub use spy::Spy;
pub use world::World;
