//! An executor: adds up the numbers to the one in the input, with a checkpoint after each of them.

use longtake_executor::{Config, Context, Executor, Output, StepError};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    to: i64,
}

#[derive(Serialize, Deserialize, Default)]
struct Sum {
    sum: i64,
}

async fn add_up(ctx: Context) -> Result<Output, StepError> {
    let Input { to } = ctx.input()?;
    let previous = ctx.previous_checkpoint::<Sum>()?;
    let (mut sum, done) = previous.map_or_else(Default::default, |it| (it.data, it.done));
    for number in done + 1..=to {
        sum.sum += number; // the work
        ctx.checkpoint(&sum, vec![], number, to).await?;
        ctx.yield_if_asked()?;
    }
    Ok(Output::new(sum))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = std::env::var("LONGTAKE_SERVER");
    let config = Config::new(server.unwrap_or("http://127.0.0.1:50051".into())).slots(2);
    Executor::new(config).step("add_up", add_up).run().await?;
    Ok(())
}
