//! An executor of the library, as an author would write one, that keeps a journal.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use longtake_executor::{Config, Context, Executor, Output, StepError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::{Chance, Plan};
use crate::journal::{Journal, Line};

#[derive(Debug, Serialize, Deserialize)]
struct Reached {
    unit: i64,
}

struct Author {
    name: String,
    journal: Journal,
}

/// Works until it is told to end, or killed.
pub async fn run(plan: Plan) -> Result<()> {
    let author = Arc::new(Author { name: plan.name.clone(), journal: Journal::open(&plan.journal)? });
    let mut config = Config::new(String::new()).slots(plan.many).name(plan.name);
    config.servers = plan.servers;
    config.poll_wait = Duration::from_secs(5);
    config.call_timeout = Duration::from_secs(3);
    config.connect_timeout = Duration::from_secs(1);
    config.drain_grace = Duration::from_secs(3);
    let (quick, long) = (author.clone(), author);
    let executor = Executor::new(config)
        .step("quick", move |ctx| work(quick.clone(), ctx, false))
        .step("long", move |ctx| work(long.clone(), ctx, true));
    Ok(executor.run().await?)
}

async fn work(author: Arc<Author>, ctx: Context, long: bool) -> Result<Output, StepError> {
    let previous = ctx.previous_checkpoint::<Reached>()?;
    let (run, step, attempt) = (ctx.run_id().to_owned(), ctx.step().to_owned(), ctx.attempt());
    author.journal.write(&Line::Started {
        executor: author.name.clone(),
        run: run.clone(),
        step: step.clone(),
        attempt,
        previous: previous.as_ref().map(|previous| previous.done),
    });
    // What an attempt does follows from what it is, so that a repetition is the same and a retry is not.
    let seed =
        Uuid::parse_str(&run).map_or(0, |id| id.as_u64_pair().1) ^ (u64::from(attempt.unsigned_abs()) << 8);
    let mut chance = Chance::new(seed ^ step.len() as u64);
    if long {
        let units = ctx.input_json().get("units").and_then(serde_json::Value::as_i64).unwrap_or(5);
        for unit in previous.map_or(0, |previous| previous.data.unit)..units {
            tokio::time::sleep(chance.millis(5, 60)).await;
            ctx.checkpoint(Reached { unit: unit + 1 }, Vec::new(), unit + 1, units).await?;
            let (run, step) = (run.clone(), step.clone());
            author.journal.write(&Line::Checkpointed { run, step, attempt, done: unit + 1 });
            ctx.yield_if_asked()?;
        }
    } else {
        tokio::time::sleep(chance.millis(0, 5)).await;
    }
    if chance.permille(20) {
        return Err(StepError::retryable("UNLUCKY", "this attempt had no luck"));
    }
    if chance.permille(3) {
        return Err(StepError::permanent("HOPELESS", "no attempt will have luck"));
    }
    let nonce = Uuid::new_v4().to_string();
    author.journal.write(&Line::Made { run, step, attempt, nonce: nonce.clone() });
    Ok(Output::new(json!({ "nonce": nonce })))
}
