//! What executor authors write: a step, what it makes, and how it fails.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Artifact, Context};

/// Work that an executor can do. Async functions and closures from [`Context`] to `Result<Output, StepError>` are steps too.
///
/// The future may be dropped at any `.await`: when the lease is lost, when a CANCEL is not followed, at the end of a drain. What it
/// started outside of itself (threads, child processes) should end with it; [`Context::stopped`] tells.
pub trait Step: Send + Sync + 'static {
    /// Works on one attempt.
    fn run(&self, ctx: Context) -> impl Future<Output = Result<Output, StepError>> + Send;
}

impl<F, Work> Step for F
where
    F: Fn(Context) -> Work + Send + Sync + 'static,
    Work: Future<Output = Result<Output, StepError>> + Send,
{
    fn run(&self, ctx: Context) -> impl Future<Output = Result<Output, StepError>> + Send {
        self(ctx)
    }
}

/// The result of an attempt, owned.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Output, StepError>> + Send>>;
/// A [`Step`] whose type is forgotten.
pub(crate) type AnyStep = Arc<dyn Fn(Context) -> Work + Send + Sync>;

pub(crate) fn forget_type(step: impl Step) -> AnyStep {
    let step = Arc::new(step);
    Arc::new(move |ctx| {
        let step = Arc::clone(&step);
        Box::pin(async move { step.run(ctx).await })
    })
}

/// What a step made.
#[derive(Debug)]
pub struct Output {
    pub(crate) data: Result<Map<String, Value>, String>,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) cost_nano_usd: Option<i64>,
}

impl Output {
    /// An output: anything that serialises to a JSON object of at most 64 KiB. Something else becomes the failure OUTPUT_INVALID,
    /// which is not retried.
    pub fn new(data: impl Serialize) -> Output {
        Output { data: object(data), artifacts: Vec::new(), cost_nano_usd: None }
    }

    /// With these files too.
    #[must_use]
    pub fn artifacts(mut self, artifacts: impl IntoIterator<Item = Artifact>) -> Output {
        self.artifacts.extend(artifacts);
        self
    }

    /// With what the attempt cost, in billionths of a dollar. Unsaid, the step's price is booked.
    #[must_use]
    pub fn cost_nano_usd(self, cost: i64) -> Output {
        Output { cost_nano_usd: Some(cost), ..self }
    }
}

/// `data` as a JSON object, or why it is none.
pub(crate) fn object(data: impl Serialize) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(data) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err("it must be a JSON object, or nothing".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Why a step is not done: it failed, or it gives its lease back.
///
/// Every `std::error::Error` turns into a retryable failure with the code FAILED, so `?` works. For that, this type is no
/// `std::error::Error` itself.
pub struct StepError(pub(crate) Box<Reason>);

pub(crate) struct Reason {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) details: Map<String, Value>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) cost_nano_usd: Option<i64>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Failed { code: String, retryable: bool },
    Yielded,
}

impl StepError {
    /// A failure that another attempt may not have. `code` is stable, in UPPER_SNAKE_CASE, at most 63 characters.
    pub fn retryable(code: impl Into<String>, message: impl fmt::Display) -> StepError {
        StepError::new(Kind::Failed { code: code.into(), retryable: true }, message)
    }

    /// A failure that every attempt would have: the step fails at once.
    pub fn permanent(code: impl Into<String>, message: impl fmt::Display) -> StepError {
        StepError::new(Kind::Failed { code: code.into(), retryable: false }, message)
    }

    /// No failure: the step is given back, and another attempt carries on from the last checkpoint.
    pub fn yielded(reason: impl fmt::Display) -> StepError {
        StepError::new(Kind::Yielded, reason)
    }

    /// With facts for programs: anything that serialises to a JSON object.
    #[must_use]
    pub fn details(mut self, details: impl Serialize) -> StepError {
        self.0.details = object(details).unwrap_or_default();
        self
    }

    /// With the delay that makes sense, for example what a rate limit said; at most 24 hours.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> StepError {
        self.0.retry_after = Some(delay);
        self
    }

    /// With what the attempt cost all the same, in billionths of a dollar.
    #[must_use]
    pub fn cost_nano_usd(mut self, cost: i64) -> StepError {
        self.0.cost_nano_usd = Some(cost);
        self
    }

    fn new(kind: Kind, message: impl fmt::Display) -> StepError {
        StepError(Box::new(Reason {
            kind,
            message: message.to_string(),
            details: Map::new(),
            retry_after: None,
            cost_nano_usd: None,
        }))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> StepError {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        StepError::retryable("FAILED", message)
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Failed { code, retryable: true } => write!(f, "{code}: {}", self.0.message),
            Kind::Failed { code, retryable: false } => {
                write!(f, "{code} (not retryable): {}", self.0.message)
            }
            Kind::Yielded => write!(f, "yielded: {}", self.0.message),
        }
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
