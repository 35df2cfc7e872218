//! WatchRun: a run's events, each once and in order, and progress between them.
//!
//! The database is looked at again whenever the lane hints that the run changed, and every two seconds in case another replica
//! changed it.

use std::pin::Pin;
use std::time::Duration;

use longtake_engine::ids::RunId;
use longtake_proto::v1 as pb;
use longtake_proto::v1::watch_run_response::Update;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::errors::{Refused, stopping};
use crate::stored;
use crate::validate::{self, Problems};

use super::Shared;
use super::run::Runs;

/// How often a run is looked at without a hint.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Events read at a time, and updates that wait for a slow watcher.
const PAGE: usize = 256;

/// The stream of WatchRun.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchRunResponse, Status>> + Send>>;

impl Runs {
    pub(super) async fn watch(&self, request: pb::WatchRunRequest) -> Result<WatchStream, Refused> {
        let id = validate::run_id(&request.run_id)?;
        let mut problems = Problems::default();
        problems.check(request.after_event >= 0, "after_event", "must not be negative");
        problems.finish()?;
        self.0.read(id).await?;
        let (updates, stream) = mpsc::channel(PAGE);
        let shared = self.0.clone();
        tokio::spawn(async move {
            let ended = follow(&shared, id, request.after_event, &updates).await;
            if let Err(refused) = ended {
                // A watcher that is gone needs no reason.
                let _ = updates.send(Err(refused.into())).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

type Updates = mpsc::Sender<Result<pb::WatchRunResponse, Status>>;

async fn follow(shared: &Shared, id: RunId, mut after: i64, updates: &Updates) -> Result<(), Refused> {
    let mut hints = shared.hubs.runs.wait_for(id);
    let mut told = None;
    loop {
        loop {
            let events = stored::read_events(&shared.reads, id, after, PAGE).await?.unwrap_or_default();
            let full = events.len() == PAGE;
            for event in events {
                after = event.number;
                if !send(updates, Update::Event(event)).await {
                    return Ok(());
                }
            }
            if !full {
                break;
            }
        }
        let found = shared.read(id).await?;
        if found.run.is_terminal() && found.run.last_event <= after {
            return Ok(());
        }
        let steps = found.progress.iter().filter(|(step, _)| found.run.steps[**step].state.is_leased());
        let steps =
            steps.map(|(step, progress)| (found.workflow.steps[*step].name.clone(), progress.clone()));
        let progress = pb::RunProgress { steps: steps.collect() };
        if !progress.steps.is_empty() && told.as_ref() != Some(&progress) {
            if !send(updates, Update::Progress(progress.clone())).await {
                return Ok(());
            }
            told = Some(progress);
        }
        tokio::select! {
            () = hints.hint() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = updates.closed() => return Ok(()),
            () = shared.stop.cancelled() => return Err(stopping()),
        }
    }
}

async fn send(updates: &Updates, update: Update) -> bool {
    updates.send(Ok(pb::WatchRunResponse { update: Some(update) })).await.is_ok()
}
