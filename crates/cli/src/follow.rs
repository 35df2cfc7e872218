//! Following a run to its end, across restarts of the server: each event once and in order, from the last one seen.

use std::time::Duration;

use longtake_proto::v1::event::Kind;
use longtake_proto::v1::watch_run_response::Update;
use longtake_proto::v1::{Event, Run, WatchRunRequest, WatchRunResponse};
use tokio::time::{Instant, sleep};
use tonic::{Code, Streaming};

use crate::call::CallFailed;
use crate::connect::{Server, ServerUrl};
use crate::exit::Exit;
use crate::progress::{is_terminal_state, run_state};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What following brings.
pub(crate) enum Seen {
    /// The next event, or progress.
    Update(Box<WatchRunResponse>),
    /// The server is gone; it is being looked for.
    Lost(String),
    /// It is there again.
    Back,
}

/// A run that is being followed.
pub(crate) struct Follow {
    urls: Vec<ServerUrl>,
    run_id: String,
    after: i64,
    /// The run had ended when we last heard of it. A stream that ends otherwise was cut.
    ended: bool,
    patience: Duration,
    stream: Option<Streaming<WatchRunResponse>>,
    lost: Option<Lost>,
}

struct Lost {
    since: Instant,
    delay: Duration,
    /// It was said that the server is back. If it is lost again before it has brought anything, nothing is said.
    told_back: bool,
}

impl Follow {
    /// Follows `run` from the event after `after`, and looks for a lost server for as long as `patience`.
    ///
    /// # Errors
    /// No server can be reached, or it does not know the run.
    pub(crate) async fn start(
        server: &Server,
        urls: &[ServerUrl],
        run: &Run,
        after: i64,
        patience: Duration,
    ) -> anyhow::Result<Follow> {
        let mut follow = Follow {
            urls: urls.to_vec(),
            run_id: run.run_id.clone(),
            after,
            ended: is_terminal_state(run_state(run.state)),
            patience,
            stream: None,
            lost: None,
        };
        follow.stream = Some(follow.open(server).await?);
        Ok(follow)
    }

    /// What comes next; `None` once the run has ended.
    ///
    /// # Errors
    /// The server refused, or was gone for too long.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Seen>> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(back) = self.look_again().await? {
                    return Ok(Some(back));
                }
                continue;
            };
            let why = match stream.message().await {
                Ok(Some(response)) => {
                    self.lost = None;
                    if let Some(Update::Event(event)) = &response.update {
                        self.heard(event);
                    }
                    return Ok(Some(Seen::Update(Box::new(response))));
                }
                Ok(None) if self.ended => return Ok(None),
                Ok(None) => "it ended the stream".to_owned(),
                Err(status) => {
                    let code = status.code();
                    let failed = CallFailed::new(format!("watch run {}", self.run_id), status);
                    // Breaks look different, depending on where they happen.
                    let broke =
                        matches!(code, Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted);
                    if !failed.is_passing() && !broke {
                        return Err(failed.into());
                    }
                    failed.reason()
                }
            };
            self.stream = None;
            let first = self.lost.is_none();
            self.lost.get_or_insert(Lost { since: Instant::now(), delay: RETRY_FIRST, told_back: false });
            if first {
                return Ok(Some(Seen::Lost(why)));
            }
        }
    }

    fn heard(&mut self, event: &Event) {
        self.after = event.number;
        match event.kind {
            Some(Kind::RunEnded(_)) => self.ended = true,
            Some(Kind::RunRetried(_)) => self.ended = false,
            _ => {}
        }
    }

    /// Waits, then tries once.
    async fn look_again(&mut self) -> anyhow::Result<Option<Seen>> {
        let Some(lost) = &mut self.lost else { return Ok(None) };
        sleep(lost.delay).await;
        lost.delay = (lost.delay * 2).min(RETRY_MAX);
        let patient = lost.since.elapsed() < self.patience;
        let opened = match Server::connect(&self.urls).await {
            Ok(server) => self.open(&server).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
                let told = self.lost.as_mut().map(|lost| std::mem::replace(&mut lost.told_back, true));
                Ok((told == Some(false)).then_some(Seen::Back))
            }
            Err(error) if patient && Exit::of_error(&error) == Exit::Unavailable => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn open(&self, server: &Server) -> anyhow::Result<Streaming<WatchRunResponse>> {
        let request = WatchRunRequest { run_id: self.run_id.clone(), after_event: self.after };
        let answer = server.runs().watch_run(request).await;
        let answer =
            answer.map_err(|status| CallFailed::new(format!("watch run {}", self.run_id), status))?;
        Ok(answer.into_inner())
    }
}

#[cfg(test)]
mod tests;
