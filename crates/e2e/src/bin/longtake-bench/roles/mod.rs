//! What the benchmark runs as processes of their own, beside the server: this same program under a hidden command.
//!
//! A role gets its plan as JSON on the command line and its orders as lines on standard input; to each order it answers with one
//! line of JSON. It ends with its input, so that nothing outlives the benchmark.

pub mod echo;
pub mod executors;
pub mod holders;
pub mod load;
pub mod signals;

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::Serialize;
use tonic::transport::{Channel, Endpoint};

/// Replies may be as large as a batch of leases.
pub const REPLY_BYTES: usize = 64 << 20;

/// A connection to a server, made when it is first used.
pub fn channel(url: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).context("a server's URL")?;
    Ok(endpoint.tcp_nodelay(true).connect_lazy())
}

/// Microseconds since 1970: one clock for every process of the machine.
pub fn micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Runs a role on one thread: on a shared machine that costs the least.
pub fn run(role: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(tokio::task::LocalSet::new().run_until(role));
    // Polls that are held and the reader of standard input must not hold up the end.
    runtime.shutdown_background();
    done
}

/// Follows orders until the input ends.
pub async fn orders<T: Serialize>(mut follow: impl AsyncFnMut(&str) -> Result<T>) -> Result<()> {
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    // On a thread of its own: reading blocks.
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|it| sender.send(it))
    });
    while let Some(order) = lines.recv().await {
        let answer = follow(&order).await?;
        answer_line(&answer)?;
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // the answer to an order
fn answer_line(answer: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}
