//! One child process of this same program, started again when it dies.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{ChildStderr, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Notice;
use super::backoff::Deaths;

/// A log that grew beyond this begins anew; the one before is kept beside it.
const LOG_MAX_BYTES: u64 = 10_000_000;
/// How much of a log tells why its process died.
const TAIL_LINES: usize = 5;
const TAIL_MAX_BYTES: u64 = 4_096;

/// Where a child's log goes.
#[derive(Clone, Debug)]
pub(super) enum LogTo {
    /// Line by line to whoever reads the notices.
    Notices,
    /// Into this file.
    File(PathBuf),
}

/// What is started, again and again.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: LogTo,
    stop_timeout: Duration,
}

impl Child {
    /// This program with `arguments`; `stop_timeout` is how long it may take to stop before it is killed.
    pub(super) fn new(
        name: &str,
        arguments: Vec<String>,
        log: LogTo,
        stop_timeout: Duration,
    ) -> anyhow::Result<Child> {
        if let LogTo::File(path) = &log {
            prepare_log(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let program = std::env::current_exe().context("cannot find the program that this is")?;
        Ok(Child { name: name.to_owned(), program, arguments, environment: Vec::new(), log, stop_timeout })
    }

    /// With this in its environment.
    pub(super) fn env(mut self, name: &str, value: &str) -> Child {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps it running until `stop`, then has it drain; `now` kills it.
    pub(super) async fn supervise(
        self,
        stop: CancellationToken,
        now: CancellationToken,
        notices: UnboundedSender<Notice>,
    ) {
        let mut deaths = Deaths::default();
        loop {
            let start = Instant::now();
            let why = match self.live(&stop, &now, &notices).await {
                _ if stop.is_cancelled() => return,
                Ok(status) => self.describe(status),
                Err(error) => error.to_string(),
            };
            let (delay, in_row) = deaths.another(start.elapsed());
            let notice = Notice::Restarting { part: self.name.clone(), why, delay, in_row };
            // Nobody listens any more only when everything is being stopped.
            let _ = notices.send(notice);
            tokio::select! {
                () = sleep(delay) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One life.
    async fn live(
        &self,
        stop: &CancellationToken,
        now: &CancellationToken,
        notices: &UnboundedSender<Notice>,
    ) -> std::io::Result<ExitStatus> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C is for us, who stop it in order.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null());
        match &self.log {
            LogTo::Notices => command.stderr(Stdio::piped()),
            LogTo::File(path) => command.stderr(File::options().append(true).create(true).open(path)?),
        };
        let mut child = command.spawn()?;
        if let Some(pid) = child.id() {
            let _ = notices.send(Notice::Started { part: self.name.clone(), pid });
        }
        let lines = child.stderr.take().map(|stderr| hand_on(stderr, self.name.clone(), notices.clone()));
        let held_open = child.stdin.take();
        let status = tokio::select! {
            status = child.wait() => status,
            () = stop.cancelled() => {
                drop(held_open);
                tokio::select! {
                    status = child.wait() => status,
                    () = now.cancelled() => kill(&mut child).await,
                    () = sleep(self.stop_timeout) => {
                        tracing::warn!(part = self.name, timeout = ?self.stop_timeout, "did not stop in time: killed");
                        kill(&mut child).await
                    }
                }
            }
        };
        if let Some(lines) = lines {
            // The pipe ends with the process; what it still holds is told before the next life begins.
            let _ = lines.await;
        }
        status
    }

    fn describe(&self, status: ExitStatus) -> String {
        match &self.log {
            LogTo::Notices => status.to_string(),
            LogTo::File(path) => {
                let tail = tail(path).unwrap_or_default();
                format!("{status}; the end of {}:\n{tail}", path.display())
            }
        }
    }
}

async fn kill(child: &mut tokio::process::Child) -> std::io::Result<ExitStatus> {
    child.start_kill()?;
    child.wait().await
}

fn hand_on(
    stderr: ChildStderr,
    part: String,
    notices: UnboundedSender<Notice>,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            // The pipe is read to its end even when nobody listens: a full one would hold up the child.
            let _ = notices.send(Notice::Logged { part: part.clone(), line });
        }
    })
}

fn prepare_log(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_MAX_BYTES) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    Ok(())
}

/// The last lines of a log.
pub(super) fn tail(path: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests;
