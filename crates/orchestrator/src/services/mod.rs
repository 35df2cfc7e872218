//! The services of the contract. A handler validates, asks the lane or reads, and answers: it decides nothing.

mod content;
mod executor;
mod explain;
mod operate;
mod run;
mod watch;
mod workflow;

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::command::{Answer, Command};
use longtake_engine::definition::{Modality, Workflow};
use longtake_engine::ids::RunId;
use longtake_engine::lane::Asked;
use longtake_engine::run::NewRun;
use longtake_engine::time::Timestamp;
use longtake_proto::v1::{self as pb, Reason};
use longtake_store::Reads;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::codec::{self, Detail};
use crate::errors::Refused;
use crate::lane::{Hubs, LaneHandle};
use crate::stored::{self, ReadRun};
use crate::workflows::Workflows;

pub use content::{CheckedContent, Content, check_content};
pub use executor::Executors;
pub use run::Runs;
pub use workflow::WorkflowCatalog;

/// What every service holds.
#[derive(Clone)]
pub struct Shared {
    /// The one path on which runs change.
    pub lane: LaneHandle,
    /// Reads past the lane.
    pub reads: Reads,
    /// Definitions.
    pub workflows: Workflows,
    /// Postgres's clock.
    pub clock: Arc<Clock>,
    /// Hints about changes.
    pub hubs: Hubs,
    /// Cancelled when the server is to stop: held calls are answered early.
    pub stop: CancellationToken,
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A stored run, or RUN_UNKNOWN.
    async fn read(&self, id: RunId) -> Result<ReadRun, Refused> {
        let found = stored::read_runs(&self.reads, &self.workflows, &[id]).await?;
        found.into_iter().next().ok_or_else(|| run_unknown(id))
    }

    /// A run as the answer to a mutation shows it.
    async fn basic(&self, id: RunId) -> Result<pb::Run, Refused> {
        let found = self.read(id).await?;
        Ok(codec::run_to_proto(&found.workflow, &found.run, &found.progress, Detail::Basic))
    }

    /// Submits runs that were validated; each is answered on its own.
    async fn create(
        &self,
        runs: Vec<(Arc<Workflow>, NewRun)>,
    ) -> Result<Vec<Result<bool, Refused>>, Refused> {
        let commands = runs.into_iter().map(|(workflow, run)| Asked {
            run: run.id,
            workflow: Some(workflow),
            command: Command::Create(Arc::new(run)),
        });
        let reply = self.lane.submit(commands.collect()).await?;
        let answers = reply.answers.into_iter().map(|answer| match answer {
            Ok(Answer::Created { created }) => Ok(created),
            Ok(Answer::Leased { .. } | Answer::Reported { .. } | Answer::Done { .. }) => Ok(false),
            Err(failure) => Err(failure.into()),
        });
        Ok(answers.collect())
    }
}

fn run_unknown(id: RunId) -> Refused {
    Refused::new(
        Reason::RunUnknown,
        format!("run {id} does not exist: check the id, or list runs with ListRuns"),
    )
}

/// Refuses modalities that no step of the workflow makes.
fn check_produced(workflow: &Workflow, requested: &[Modality]) -> Result<(), Refused> {
    let missing: Vec<String> = requested
        .iter()
        .filter(|modality| workflow.produces(**modality).is_none())
        .map(|modality| modality.as_str().to_uppercase())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let able: Vec<String> = Modality::ALL
        .iter()
        .filter(|modality| workflow.produces(**modality).is_some())
        .map(|modality| modality.as_str().to_uppercase())
        .collect();
    let able = if able.is_empty() { "nothing that can be requested".to_owned() } else { able.join(", ") };
    let message =
        format!("no step of workflow {} produces {}: it can make {able}", workflow.name, missing.join(", "));
    let field = ("requested_modalities".to_owned(), message.clone());
    Err(Refused::new(Reason::ModalityNotProduced, message).with_fields(vec![field]))
}

/// The answers of the conditions that read only the input, taken at submit and kept.
fn answer_when(workflow: &Workflow, input: &serde_json::Value) -> BTreeMap<usize, Result<bool, String>> {
    let conditions = workflow.steps.iter().enumerate().filter_map(|(number, step)| {
        let when = step.when.as_ref().filter(|when| when.reads_only_input())?;
        Some((number, when.evaluate(input, &BTreeMap::new())))
    });
    conditions.collect()
}
