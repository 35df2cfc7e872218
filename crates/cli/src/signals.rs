//! Being asked to stop: once for in order, twice for now.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancelled as signals come in.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    /// Ctrl-C, SIGTERM or SIGHUP came: stop in order.
    pub(crate) gently: CancellationToken,
    /// It came again: stop now.
    pub(crate) now: CancellationToken,
}

impl Stop {
    /// Nobody asks.
    #[cfg(test)]
    pub(crate) fn never() -> Stop {
        Stop { gently: CancellationToken::new(), now: CancellationToken::new() }
    }

    /// Listens from now on; these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The operating system refused.
    pub(crate) fn on_signals() -> anyhow::Result<Stop> {
        let stop = Stop { gently: CancellationToken::new(), now: CancellationToken::new() };
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // The terminal was closed.
        let mut hang_up = signal(SignalKind::hangup())?;
        let heard = stop.clone();
        tokio::spawn(async move {
            for token in [&heard.gently, &heard.now] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(stop)
    }

    /// Stops gently when standard input ends too: so a process that dies takes along the children that it holds open, whatever
    /// killed it.
    pub(crate) fn also_when_input_ends(&self) {
        let gently = self.gently.clone();
        // A thread of its own: a read that never returns must not keep the runtime from ending.
        std::thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            let mut unread = [0; 64];
            while matches!(input.read(&mut unread), Ok(1..)) {}
            gently.cancel();
        });
    }
}
