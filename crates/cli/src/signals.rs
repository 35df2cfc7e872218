//! Being asked to stop: once for in order, twice for now.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
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
        // The terminal was closed. Under nohup that is not to be heard, and listening would undo it.
        let mut hang_up = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        let heard = stop.clone();
        tokio::spawn(async move {
            for token in [&heard.gently, &heard.now] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = heard_from(&mut hang_up) => {}
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

async fn heard_from(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether this process was started with SIGHUP ignored. Where the system does not say so, it was not.
fn hang_up_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hang_up(&status))
}

/// By the mask of ignored signals, whose lowest bit is SIGHUP's.
fn ignores_hang_up(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::ignores_hang_up;

    #[test]
    fn what_nohup_did_is_read_from_the_mask() {
        assert!(ignores_hang_up("Name:\tlongtake\nSigIgn:\t0000000000000001\n"));
        assert!(ignores_hang_up("SigIgn:\t0000000000001001"));
        assert!(!ignores_hang_up("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001"));
        assert!(!ignores_hang_up(""));
    }
}
