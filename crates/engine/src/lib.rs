//! The engine decides. It is pure: no async, no clock, no randomness, no I/O; `now` and every random number are arguments.
//!
//! Read in this order: [`run`] (the state), [`event`] (what can happen to it), [`mod@decide`] (what a command does), [`mod@evolve`]
//! (the state is the fold of its events), [`rows`] (what the store must hold for a state), and then [`lane`], which batches
//! commands, commits their decisions as one write, and answers only what is committed.

pub mod command;
pub mod decide;
pub mod definition;
pub mod event;
pub mod evolve;
pub mod ids;
pub mod lane;
pub mod money;
pub mod retry;
pub mod rows;
pub mod run;
pub mod time;

pub use command::{Answer, Command, Decision, Refusal};
pub use decide::decide;
pub use event::{Event, EventKind};
pub use evolve::evolve;
pub use run::Run;
