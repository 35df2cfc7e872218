//! Attending a run: from where it stands to its end, on a screen.

use std::time::Duration;

use anyhow::Context as _;
use longtake_proto::v1::{GetRunRequest, Run, RunView, run};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use crate::call::CallFailed;
use crate::connect::{Server, ServerUrl};
use crate::exit::Exit;
use crate::follow::{Follow, Seen};
use crate::progress::{Screen, Style, is_terminal_state, run_state};
use crate::signals::Stop;

/// How often the clocks on the screen move.
const REDRAW: Duration = Duration::from_millis(250);

/// How many updates wait for a slow terminal.
const UPDATES_WAITING_MAX: usize = 64;

/// How it ended.
pub(crate) enum Attended {
    /// The run has ended: this is how it is now, FULL.
    Ended(Box<Run>),
    /// We were asked to stop; the run goes on.
    Detached,
}

/// For those who have nothing to say beside a run.
pub(crate) fn no_notes() -> UnboundedReceiver<String> {
    mpsc::unbounded_channel().1
}

/// What is attended, and how.
pub(crate) struct Attend<'a> {
    /// Where to look for the server when it is lost.
    pub(crate) urls: &'a [ServerUrl],
    /// The run.
    pub(crate) run_id: &'a str,
    /// How to show it.
    pub(crate) style: Style,
    /// The events to show: those after this number; those that are still to come when absent.
    pub(crate) after: Option<i64>,
    /// For how long a lost server is looked for.
    pub(crate) patience: Duration,
    /// Detaches: gently, or at once where something does not answer.
    pub(crate) stop: &'a Stop,
}

impl Attend<'_> {
    /// Shows the run until it has ended, and what `notes` bring beside it.
    ///
    /// # Errors
    /// No server can be reached, it does not know the run, or it was gone for too long.
    pub(crate) async fn to_end(&self, notes: UnboundedReceiver<String>) -> anyhow::Result<Attended> {
        tokio::select! {
            attended = self.shown(notes) => attended,
            () = self.stop.now.cancelled() => Ok(Attended::Detached),
        }
    }

    async fn shown(&self, mut notes: UnboundedReceiver<String>) -> anyhow::Result<Attended> {
        let server = Server::connect(self.urls).await?;
        let run = read_run(&server, self.run_id, RunView::Basic).await?;
        let after = self.after.unwrap_or(run.event_number);
        let follow = Follow::start(&server, self.urls, &run, after, self.patience).await?;
        let (tell, mut told) = mpsc::channel(UPDATES_WAITING_MAX);
        let _following = AbortOnDropHandle::new(tokio::spawn(hand_on(follow, tell)));
        let mut screen = Screen::new(self.style, &run);
        let mut tick = interval(REDRAW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = self.stop.gently.cancelled() => {
                    screen.leave();
                    return Ok(Attended::Detached);
                }
                Some(note) = notes.recv() => screen.note(&note),
                _ = tick.tick() => screen.redraw(),
                seen = told.recv() => match seen {
                    Some(seen) => screen.see(&seen?)?,
                    None => break,
                },
            }
        }
        screen.finish();
        self.final_run().await
    }

    /// The run as it ended. The server may have gone away just now.
    async fn final_run(&self) -> anyhow::Result<Attended> {
        let since = Instant::now();
        loop {
            let read = match Server::connect(self.urls).await {
                Ok(server) => read_run(&server, self.run_id, RunView::Full).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(run) => return Ok(Attended::Ended(Box::new(run))),
                Err(error)
                    if Exit::of_error(&error) != Exit::Unavailable || since.elapsed() > self.patience =>
                {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(REDRAW).await,
            }
        }
    }
}

/// Follows in a task of its own: looking for a lost server must not begin anew with every tick of the screen.
async fn hand_on(mut follow: Follow, tell: mpsc::Sender<anyhow::Result<Seen>>) {
    while let Some(seen) = follow.next().await.transpose() {
        let failed = seen.is_err();
        if tell.send(seen).await.is_err() || failed {
            return;
        }
    }
}

/// Reads one run.
///
/// # Errors
/// The server refused or is gone.
pub(crate) async fn read_run(server: &Server, run_id: &str, view: RunView) -> anyhow::Result<Run> {
    let request = GetRunRequest { run_id: run_id.to_owned(), view: view.into() };
    let answer = server.runs().get_run(request).await;
    let answer = answer.map_err(|status| CallFailed::new(format!("read run {run_id}"), status))?;
    answer.into_inner().run.context("the server answered without a run")
}

/// What a run's end means for a script.
pub(crate) fn exit_of(run: &Run) -> Exit {
    match run_state(run.state) {
        run::State::Succeeded => Exit::Done,
        state if is_terminal_state(state) => Exit::Failed,
        _ => Exit::Fault,
    }
}
