//! When a step may try again, and after how long.

use crate::definition::{Retry, Step as Definition};
use crate::run::{Cause, Step, Used};
use crate::time::Duration;

/// The longest delay that an executor may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What the budgets say about one more way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ready at once.
    Now,
    /// Ready after a delay.
    After(Duration),
    /// This was the last try; says which bound was reached.
    Spent(Spent),
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// So many failures without progress.
    Failures(u32),
    /// So many lost leases without progress.
    Losses(u32),
    /// So many yields without progress.
    Yields(u32),
    /// The definition's `max_attempts`.
    Attempts(u32),
}

/// Judges the end of the live attempt of `step` by `cause`, which is not yet counted.
pub fn judge(
    definition: &Definition,
    step: &Step,
    cause: Cause,
    asked: Option<Duration>,
    jitter: u64,
) -> Verdict {
    let mut used = step.used;
    used.count(cause);
    if let Some(spent) = spent(definition, &used, step.attempt().saturating_sub(step.attempts_before)) {
        return Verdict::Spent(spent);
    }
    let tries = match cause {
        Cause::Yielded => used.yields.saturating_sub(1),
        Cause::DispatchTimeout => used.undelivered.saturating_sub(1),
        Cause::LeaseLost => used.losses,
        Cause::Failed
        | Cause::NoProgress
        | Cause::AttemptTimeout
        | Cause::Completed
        | Cause::StepTimeout
        | Cause::Stopped => used.failures,
    };
    match asked {
        Some(delay) => Verdict::After(delay.clamp(Duration::ZERO, MAX_RETRY_AFTER)),
        None if tries == 0 => Verdict::Now,
        None => Verdict::After(backoff(&definition.retry, tries, jitter)),
    }
}

fn spent(definition: &Definition, used: &Used, attempts: u32) -> Option<Spent> {
    let budgets = &definition.budgets;
    if used.failures >= budgets.failures {
        Some(Spent::Failures(used.failures))
    } else if used.losses >= budgets.losses {
        Some(Spent::Losses(used.losses))
    } else if used.yields >= budgets.yields {
        Some(Spent::Yields(used.yields))
    } else {
        definition.max_attempts.filter(|max| attempts >= *max).map(Spent::Attempts)
    }
}

/// Exponential backoff with full jitter: anything from nothing to `initial × multiplier^(tries − 1)`, at most `max`.
/// Full jitter: Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
fn backoff(retry: &Retry, tries: u32, jitter: u64) -> Duration {
    let factor = i64::from(retry.multiplier).saturating_pow(tries.saturating_sub(1).min(62));
    let ceiling = retry.initial.0.saturating_mul(factor).min(retry.max.0).max(0);
    let share = (u128::from(jitter) * (ceiling as u128 + 1)) >> 64;
    Duration(i64::try_from(share).unwrap_or(ceiling))
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Spent::Failures(n) => write!(f, "{n} failures without progress"),
            Spent::Losses(n) => write!(f, "{n} lost leases without progress"),
            Spent::Yields(n) => write!(f, "{n} yields without progress"),
            Spent::Attempts(n) => write!(f, "all {n} attempts that max_attempts allows"),
        }
    }
}
