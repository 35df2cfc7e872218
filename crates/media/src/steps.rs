//! The content steps on the executor library: the one place where the two meet.

use std::sync::Arc;

use longtake_executor::{Context, Directive, Executor, Output, StepError};
use serde_json::{Map, Value};

use crate::job::{Ended, Job, Reports, Saved};
use crate::{Media, MediaError, Step};

/// Lets an executor serve those of these queues that the content steps have: script, audio, video, finalize.
pub fn register(executor: Executor, media: Media, queues: &[&str]) -> Executor {
    let media = Arc::new(media);
    let served = Step::ALL.into_iter().filter(|step| queues.contains(&step.queue()));
    served.fold(executor, |executor, step| {
        let media = Arc::clone(&media);
        executor.step(step.queue(), move |ctx| work(Arc::clone(&media), step, ctx))
    })
}

async fn work(media: Arc<Media>, step: Step, ctx: Context) -> Result<Output, StepError> {
    let job = job(&ctx)?;
    let lease = Lease(&ctx);
    tokio::select! {
        ended = media.run(step, &job, &lease) => match ended {
            // No cost is reported: the providers here are free, and the definition's price is what is booked.
            Ok(Ended::Finished(finished)) => Ok(Output::new(finished.output).artifacts(finished.artifacts)),
            Ok(Ended::Yielded) => Err(StepError::yielded("asked to give way; what was done is in the checkpoint")),
            Err(error) => Err(failure(&error)),
        },
        // A yield is for the step itself, which finishes the scene that it is at; these are not worth that.
        reason = stopped(&ctx) => Err(StepError::yielded(reason)),
    }
}

async fn stopped(ctx: &Context) -> &'static str {
    match ctx.directed().await {
        Directive::Cancel => "the run is stopping",
        Directive::Pause => "the run is paused",
        Directive::Yield => std::future::pending().await,
    }
}

fn job(ctx: &Context) -> Result<Job, StepError> {
    let previous = ctx.previous_checkpoint::<Map<String, Value>>()?;
    Ok(Job {
        run_id: ctx.run_id().to_owned(),
        step: ctx.step().to_owned(),
        input: Value::Object(ctx.input_json().clone()),
        needs: ctx.needs().clone(),
        checkpoint: previous.map(|previous| Saved {
            done: u64::try_from(previous.done).unwrap_or_default(),
            total: u64::try_from(previous.total).unwrap_or_default(),
            data: Value::Object(previous.data),
            artifacts: previous.artifacts,
        }),
    })
}

fn failure(error: &MediaError) -> StepError {
    if error.retryable() {
        return StepError::retryable(error.code(), error);
    }
    StepError::permanent(error.code(), error)
}

/// Reports to whoever leased the attempt.
struct Lease<'a>(&'a Context);

impl Reports for Lease<'_> {
    async fn checkpoint(&self, saved: Saved) -> Result<(), MediaError> {
        let stored =
            self.0.checkpoint(saved.data, saved.artifacts, whole(saved.done), whole(saved.total)).await;
        stored.map_err(|error| MediaError::Checkpoint(error.to_string()))
    }

    fn progress(&self, done: u64, total: u64, message: &str) {
        self.0.progress_with(whole(done), whole(total), message);
    }

    fn should_yield(&self) -> bool {
        self.0.directive().is_some()
    }

    async fn yield_asked(&self) {
        self.0.directed().await;
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
