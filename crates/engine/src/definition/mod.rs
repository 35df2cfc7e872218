//! What a workflow is: a TOML file becomes checked types that the rest of the engine trusts.
//!
//! [`Workflow::parse`] is the only way in. It reports every mistake of a file at once, each with its line and key, and what it
//! accepts needs no further check: needs are indices that exist and form no cycle, every span and amount is within its bounds,
//! and every `when` compiled, reads only steps that are done by then, and costs a bounded amount of stack and time.
//!
//! The way of a file: `source` (TOML with lines) → `parse` (keys to fields) → `graph` (needs) → [`When`] (`scan` before the
//! CEL parser sees the text, `reads` after it).

mod graph;
mod modality;
mod parse;
mod problem;
mod reads;
mod scan;
mod source;
mod version;
mod when;

use std::fmt;
use std::str::FromStr;

pub use modality::{Modality, ModalityUnknown};
pub use problem::Problem;
pub use version::{Version, VersionMalformed};
pub use when::When;

use crate::money::Money;
use crate::time::Duration;

/// What a definition may ask for at most. Everything a definition can grow has its bound here.
pub mod limits {
    use crate::time::Duration;

    /// The only `format` so far.
    pub const FORMAT: u32 = 1;
    /// A file's size.
    pub const SOURCE_BYTES: usize = 256 * 1024;
    /// Steps of a workflow; sets of steps are bits of a `u64`.
    pub const STEPS: usize = 64;
    /// The length of the name of a workflow, a step or a queue.
    pub const NAME_BYTES: usize = 63;
    /// How many problems of one file are reported.
    pub const PROBLEMS: usize = 100;
    /// `heartbeat_timeout`, from.
    pub const HEARTBEAT_MIN: Duration = Duration::from_secs(3);
    /// `heartbeat_timeout`, to.
    pub const HEARTBEAT_MAX: Duration = Duration::from_secs(3_600);
    /// `progress_timeout`, `attempt_timeout` and `step_timeout`, from.
    pub const TIMEOUT_MIN: Duration = Duration::from_secs(1);
    /// `progress_timeout`, `attempt_timeout` and `step_timeout`, to.
    pub const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 86_400);
    /// `retry.initial_delay` and `retry.max_delay`, from.
    pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(1);
    /// `retry.initial_delay` and `retry.max_delay`, to.
    pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(86_400);
    /// `retry.multiplier`, from 1.
    pub const RETRY_MULTIPLIER_MAX: u32 = 10;
    /// `max_attempts` and each of `budgets`, from 1.
    pub const ATTEMPTS_MAX: u32 = 10_000;
    /// The length of a `when`.
    pub const WHEN_BYTES: usize = 1024;
    /// Brackets and ternaries within each other in a `when`. Together with [`WHEN_CHAIN`] this keeps the parser of CEL below
    /// 256 KiB of stack where it is built optimised, as the workspace's profiles do; unoptimised it takes 3 MiB.
    pub const WHEN_NESTING: usize = 16;
    /// Operators, fields and calls of a `when` that hang on each other, from its top down to any place in it.
    pub const WHEN_CHAIN: usize = 48;
    /// What one evaluation may cost: the values that it reads (64 bytes of text count as one), times how often it names any,
    /// times one more than it adds. The dearest ones that are let through take about a tenth of a second.
    pub const WHEN_COST: usize = 2_000_000;
    /// How deep values may nest that a `when` reads. What comes in over the API is refused at 32.
    pub const VALUE_DEPTH: usize = 64;
}

/// One version of a workflow: a DAG of steps. Cheap to share, dear to clone: keep it in an `Arc`.
#[derive(Clone, Debug)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// The hash of `source`.
    pub version: Version,
    /// The text that it was parsed from.
    pub source: String,
    /// In the file's order, which is the numbering of steps everywhere; 1 to [`limits::STEPS`] of them.
    pub steps: Vec<Step>,
}

/// One step of a workflow.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name, unique in the workflow.
    pub name: String,
    /// Where it waits for executors; its own name unless the file says otherwise.
    pub queue: String,
    /// The steps that must be done before it, in the file's order of naming; no repetitions.
    pub needs: Vec<usize>,
    /// The steps that name it in their `needs`, ascending.
    pub needed_by: Vec<usize>,
    /// What it makes of what a request may ask for; no two steps make the same.
    pub produces: Option<Modality>,
    /// When it is run; skipped when false.
    pub when: Option<When>,
    /// What it costs when its executor does not say.
    pub price: Money,
    /// For how long its executor may be silent.
    pub heartbeat_timeout: Duration,
    /// For how long `done` may stand still.
    pub progress_timeout: Option<Duration>,
    /// How long an attempt may take, from its lease.
    pub attempt_timeout: Option<Duration>,
    /// How long it may take in all, from when it is first READY.
    pub step_timeout: Option<Duration>,
    /// A hard cap, whatever the progress.
    pub max_attempts: Option<u32>,
    /// What a spent budget does.
    pub on_exhausted: OnExhausted,
    /// How long it backs off.
    pub retry: Retry,
    /// How many ways back it has without progress.
    pub budgets: Budgets,
}

/// How long a step backs off: exponential, full jitter on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `retry.initial_delay`: before the second attempt.
    pub initial: Duration,
    /// `retry.max_delay`: never longer; not shorter than `initial`.
    pub max: Duration,
    /// `retry.multiplier`: from each delay to the next, 1 to 10.
    pub multiplier: u32,
}

/// How often a step may come back without progress, by reason. Each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// Failures, NO_PROGRESS and attempt timeouts.
    pub failures: u32,
    /// Lost leases and dispatch timeouts.
    pub losses: u32,
    /// Yields.
    pub yields: u32,
}

/// What a spent budget does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhausted {
    /// The step FAILED.
    #[default]
    Fail,
    /// The step goes back to READY and the run is PAUSED, for an operator to look.
    Pause,
}

impl Workflow {
    /// Reads a definition, or says everything that is wrong with it, in the order of its lines.
    pub fn parse(source: &[u8]) -> Result<Workflow, Vec<Problem>> {
        parse::parse(source)
    }

    /// The step of this name and its number.
    pub fn step(&self, name: &str) -> Option<(usize, &Step)> {
        self.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    /// The number of the step that makes `modality`.
    pub fn produces(&self, modality: Modality) -> Option<usize> {
        self.steps.iter().position(|step| step.produces == Some(modality))
    }
}

impl Step {
    /// [`Step::heartbeat_timeout`] unless the file says otherwise.
    pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { initial: Duration::from_secs(1), max: Duration::from_secs(300), multiplier: 2 }
    }
}

impl Default for Budgets {
    fn default() -> Budgets {
        Budgets { failures: 3, losses: 10, yields: 100 }
    }
}

impl OnExhausted {
    /// As definitions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            OnExhausted::Fail => "fail",
            OnExhausted::Pause => "pause",
        }
    }
}

impl fmt::Display for OnExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OnExhausted {
    type Err = String;

    fn from_str(text: &str) -> Result<OnExhausted, String> {
        match text {
            "fail" => Ok(OnExhausted::Fail),
            "pause" => Ok(OnExhausted::Pause),
            _ => Err(format!("{} is neither \"fail\" nor \"pause\"", problem::quote(text))),
        }
    }
}
