//! The library that executor authors use: poll, heartbeat, checkpoint, report, drain.
//!
//! A step is an async function. This one adds up the numbers to the one in the input; killed at any point, another executor carries on
//! from the last checkpoint:
//!
//! ```no_run
//! use longtake_executor::{Config, Context, Executor, Output, StepError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Input {
//!     to: i64,
//! }
//!
//! #[derive(Serialize, Deserialize, Default)]
//! struct Sum {
//!     sum: i64,
//! }
//!
//! async fn add_up(ctx: Context) -> Result<Output, StepError> {
//!     let Input { to } = ctx.input()?;
//!     let previous = ctx.previous_checkpoint::<Sum>()?;
//!     let (mut sum, done) = previous.map_or_else(Default::default, |it| (it.data, it.done));
//!     for number in done + 1..=to {
//!         sum.sum += number; // the work
//!         ctx.checkpoint(&sum, vec![], number, to).await?;
//!         ctx.yield_if_asked()?;
//!     }
//!     Ok(Output::new(sum))
//! }
//!
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let config = Config::new("http://127.0.0.1:50051").slots(2);
//!     Executor::new(config).step("add_up", add_up).run().await?;
//!     Ok(())
//! }
//! ```
//!
//! What the library sees to, so that steps need not:
//!
//! - The session and its leases are renewed from a thread of their own: a step that blocks cannot starve them.
//! - Work stops at once when the lease is gone, and by itself when the session could not be renewed in time. Stopping means that the
//!   step's future is dropped.
//! - On SIGTERM no new work is taken, and running steps are asked to yield; those that do not end in time are dropped and given back.
//! - Reports are delivered through outages. A panic is a failure that is retried; an output that cannot be stored is one that is not.
//! - A CANCEL that a step does not follow drops it after a grace. PAUSE and YIELD are left to the step: see [`Context::directive`] and
//!   [`Context::yield_if_asked`].
//!
//! Inside: `executor` starts the `link` on its thread; `poll` and `reporter` bring leases in; `attempt` drives each of them, and
//! meets `heartbeat` in `lease`. Calls go through `client` and wait through `retry`.

mod attempt;
mod batch;
mod client;
mod config;
mod context;
mod executor;
mod heartbeat;
mod lease;
mod link;
mod poll;
mod report;
mod reporter;
mod retry;
mod ruling;
mod session;
mod step;
mod trace;
mod types;

pub use config::Config;
pub use context::Context;
pub use executor::{Error, Executor};
pub use step::{Output, Step, StepError};
pub use types::{Artifact, Directive, Need, Previous};
