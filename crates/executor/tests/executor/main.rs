//! The library against a fake server on loopback: what it sends, when it stops work, and what survives an outage.

mod drain;
mod fake;
mod outage;
mod reports;
mod work;

use std::future::Future;
use std::time::Duration;

use fake::Fake;
use longtake_executor::{Config, Error, Executor};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer.
async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for a signal, but not for ever.
async fn soon<T>(what: &str, signal: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, signal).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// A configuration in which everything is quick.
fn quick(fake: &Fake) -> Config {
    Config {
        name: "test".to_owned(),
        poll_wait: Duration::from_secs(30),
        drain_grace: Duration::from_secs(10),
        cancel_grace: Duration::from_millis(20),
        report_grace: Duration::from_secs(5),
        first_heartbeat: Duration::from_millis(5),
        progress_interval: Duration::from_millis(5),
        call_timeout: Duration::from_secs(5),
        ..Config::new(fake.address())
    }
}

/// Tells when it is dropped, as the future that holds it is.
struct OnDrop(mpsc::UnboundedSender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// An executor at work.
struct Running {
    drain: CancellationToken,
    end: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(executor: Executor) -> Running {
        Running::start_on(&Handle::current(), executor)
    }

    /// Steps run on `runtime`.
    fn start_on(runtime: &Handle, executor: Executor) -> Running {
        let drain = CancellationToken::new();
        let end = runtime.spawn(executor.run_until(drain.clone().cancelled_owned()));
        Running { drain, end }
    }

    async fn drain(self) -> Result<(), Error> {
        self.drain.cancel();
        soon("the drain", self.end).await.expect("no panic")
    }
}
