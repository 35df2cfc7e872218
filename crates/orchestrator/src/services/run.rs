//! RunService: start runs of any workflow, look at them, and operate them.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::definition::{Version, Workflow};
use longtake_engine::ids::RunId;
use longtake_engine::run::NewRun;
use longtake_proto::v1::run_service_server::RunService;
use longtake_proto::v1::{self as pb, Reason};
use longtake_store::ListFilter;
use serde_json::json;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use crate::codec::{self, Detail};
use crate::errors::Refused;
use crate::page;
use crate::stored;
use crate::telemetry::trace_of;
use crate::validate::{self, INPUT_BYTES, Problems};

use super::content::TENANT;
use super::watch::WatchStream;
use super::{Shared, answer_when, check_produced};

/// The service.
#[derive(Clone)]
pub struct Runs(pub Shared);

impl Runs {
    async fn workflow(&self, name: &str, version: &str) -> Result<Arc<Workflow>, Refused> {
        let unknown = |what: String| {
            Refused::new(
                Reason::WorkflowUnknown,
                format!("{what} is not loaded: see ListWorkflows for what is"),
            )
        };
        if version.is_empty() {
            return self.0.workflows.current(name).ok_or_else(|| unknown(format!("workflow {name}")));
        }
        let mut problems = Problems::default();
        let parsed = version.parse::<Version>();
        problems.check(parsed.is_ok(), "workflow_version", "must be 64 hexadecimal digits");
        problems.finish()?;
        let found = match parsed {
            Ok(version) => self.0.workflows.version(version).await?,
            Err(_) => None,
        };
        let found = found.filter(|workflow| workflow.name == name);
        found.ok_or_else(|| unknown(format!("version {version} of workflow {name}")))
    }

    async fn create(
        &self,
        request: pb::CreateRunRequest,
        trace: BTreeMap<String, String>,
    ) -> Result<pb::CreateRunResponse, Refused> {
        if !request.validate_only {
            self.0.lane.check_room(1)?;
        }
        let content_hash = content_hash(&request);
        let mut problems = Problems::default();
        let id = RunId(problems.request_id(&request.request_id).0);
        problems.text("workflow", &request.workflow, 1, 63);
        let requested = problems.modalities("requested_modalities", &request.requested_modalities);
        let input = problems.json("input", request.input, INPUT_BYTES);
        problems.priority(request.priority);
        let labels = problems.labels(request.labels);
        let deadline = problems.deadline(request.deadline.as_ref(), self.0.now());
        problems.finish()?;
        let workflow = self.workflow(&request.workflow, &request.workflow_version).await?;
        check_produced(&workflow, &requested)?;
        let run = NewRun {
            id,
            tenant: TENANT.to_owned(),
            version: workflow.version,
            when: answer_when(&workflow, &input),
            input: Arc::new(input),
            requested,
            labels,
            priority: request.priority,
            deadline,
            content_hash,
            trace,
        };
        if request.validate_only {
            return Ok(pb::CreateRunResponse { run: Some(self.preview(&workflow, run)), created: true });
        }
        let mut created = self.0.create(vec![(workflow, run)]).await?;
        let created = created
            .pop()
            .unwrap_or_else(|| Err(Refused::new(Reason::Internal, "the request was not answered")))?;
        Ok(pb::CreateRunResponse { run: Some(self.0.basic(id).await?), created })
    }

    /// The run as it would be: decided, and thrown away.
    fn preview(&self, workflow: &Arc<Workflow>, run: NewRun) -> pb::Run {
        let (id, now) = (run.id, self.0.now());
        let command = longtake_engine::Command::Create(Arc::new(run));
        let mut made = None;
        longtake_engine::decide::apply(workflow, id, &mut made, &command, now);
        made.map(|made| codec::run_to_proto(workflow, &made, &BTreeMap::new(), Detail::Basic))
            .unwrap_or_default()
    }

    async fn list(&self, request: pb::ListRunsRequest) -> Result<pb::ListRunsResponse, Refused> {
        let mut problems = Problems::default();
        let limit = problems.page_size(request.page_size, 50);
        problems.text("workflow", &request.workflow, 0, 63);
        let filter_hash = filter_hash(&request);
        let labels = problems.labels(request.labels);
        let states = request.states.iter().filter_map(|state| match pb::run::State::try_from(*state) {
            Ok(pb::run::State::Unspecified) | Err(_) => {
                problems.add("states", format!("{state} is no state of a run"));
                None
            }
            Ok(state) => Some(state.as_str_name().trim_start_matches("STATE_").to_owned()),
        });
        let states = states.collect();
        let created_after = time(&mut problems, "created_after", request.created_after.as_ref());
        let created_before = time(&mut problems, "created_before", request.created_before.as_ref());
        problems.finish()?;
        let before = page::start(&request.page_token, &filter_hash)?;
        let workflow = Some(request.workflow).filter(|name| !name.is_empty());
        let filter =
            ListFilter { workflow, states, labels, created_after, created_before, before, limit: limit + 1 };
        let mut ids = self.0.reads.list_runs(&filter).await?;
        let more = ids.len() > limit;
        ids.truncate(limit);
        let last = ids.last().map(|(no, _)| *no);
        let wanted: Vec<RunId> = ids.iter().map(|(_, id)| *id).collect();
        let mut found: BTreeMap<RunId, stored::ReadRun> =
            stored::read_runs(&self.0.reads, &self.0.workflows, &wanted)
                .await?
                .into_iter()
                .map(|found| (found.run.request.id, found))
                .collect();
        let runs = wanted
            .iter()
            .filter_map(|id| found.remove(id))
            .map(|found| codec::run_to_proto(&found.workflow, &found.run, &found.progress, Detail::Summary));
        let runs = runs.collect();
        let next_page_token = match last.filter(|_| more) {
            Some(last) => page::token(last.0, &filter_hash),
            None => String::new(),
        };
        Ok(pb::ListRunsResponse { runs, next_page_token })
    }

    async fn events(&self, request: pb::ListRunEventsRequest) -> Result<pb::ListRunEventsResponse, Refused> {
        let id = validate::run_id(&request.run_id)?;
        let mut problems = Problems::default();
        let limit = problems.page_size(request.page_size, 100);
        problems.check(request.after_event >= 0, "after_event", "must not be negative");
        problems.finish()?;
        let filter_hash = id.to_string();
        let after = page::start(&request.page_token, &filter_hash)?.unwrap_or(request.after_event);
        let mut events = stored::read_events(&self.0.reads, id, after, limit + 1)
            .await?
            .ok_or_else(|| super::run_unknown(id))?;
        let more = events.len() > limit;
        events.truncate(limit);
        let next_page_token = match events.last().filter(|_| more) {
            Some(last) => page::token(last.number, &filter_hash),
            None => String::new(),
        };
        Ok(pb::ListRunEventsResponse { events, next_page_token })
    }
}

fn time(
    problems: &mut Problems,
    field: &str,
    time: Option<&prost_types::Timestamp>,
) -> Option<longtake_engine::time::Timestamp> {
    let time = time?;
    let parsed = codec::time_from(time);
    problems.check(parsed.is_some(), field, "is not a valid time");
    parsed
}

fn filter_hash(request: &pb::ListRunsRequest) -> String {
    let labels: BTreeMap<&String, &String> = request.labels.iter().collect();
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| (time.seconds, time.nanos));
    json!([
        request.workflow,
        request.states,
        labels,
        time(&request.created_after),
        time(&request.created_before)
    ])
    .to_string()
}

/// The hash of the request as sent, without what may differ between repetitions.
fn content_hash(request: &pb::CreateRunRequest) -> [u8; 32] {
    let labels: BTreeMap<&String, &String> = request.labels.iter().collect();
    let fields = json!([
        "CreateRun",
        request.workflow,
        request.workflow_version,
        codec::json(request.input.clone()),
        request.requested_modalities,
        labels,
        request.priority,
    ]);
    Sha256::digest(fields.to_string()).into()
}

#[tonic::async_trait]
impl RunService for Runs {
    type WatchRunStream = WatchStream;

    async fn create_run(
        &self,
        request: Request<pb::CreateRunRequest>,
    ) -> Result<Response<pb::CreateRunResponse>, Status> {
        let trace = trace_of(request.metadata());
        Ok(Response::new(self.create(request.into_inner(), trace).await?))
    }

    async fn get_run(
        &self,
        request: Request<pb::GetRunRequest>,
    ) -> Result<Response<pb::GetRunResponse>, Status> {
        let request = request.into_inner();
        let id = validate::run_id(&request.run_id)?;
        let detail = match pb::RunView::try_from(request.view) {
            Ok(pb::RunView::Full) => Detail::Full,
            Ok(pb::RunView::Unspecified | pb::RunView::Basic) => Detail::Basic,
            Err(_) => {
                let mut problems = Problems::default();
                problems.add("view", "must be RUN_VIEW_BASIC or RUN_VIEW_FULL");
                return Err(problems.finish().err().map_or_else(|| Status::internal(""), Status::from));
            }
        };
        let found = self.0.read(id).await?;
        let run = codec::run_to_proto(&found.workflow, &found.run, &found.progress, detail);
        Ok(Response::new(pb::GetRunResponse { run: Some(run) }))
    }

    async fn list_runs(
        &self,
        request: Request<pb::ListRunsRequest>,
    ) -> Result<Response<pb::ListRunsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn watch_run(
        &self,
        request: Request<pb::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        Ok(Response::new(self.watch(request.into_inner()).await?))
    }

    async fn list_run_events(
        &self,
        request: Request<pb::ListRunEventsRequest>,
    ) -> Result<Response<pb::ListRunEventsResponse>, Status> {
        Ok(Response::new(self.events(request.into_inner()).await?))
    }

    async fn explain_run(
        &self,
        request: Request<pb::ExplainRunRequest>,
    ) -> Result<Response<pb::ExplainRunResponse>, Status> {
        let id = validate::run_id(&request.into_inner().run_id)?;
        Ok(Response::new(self.explain(id).await?))
    }

    async fn cancel_run(
        &self,
        request: Request<pb::CancelRunRequest>,
    ) -> Result<Response<pb::CancelRunResponse>, Status> {
        let run = Some(self.cancel(request.into_inner()).await?);
        Ok(Response::new(pb::CancelRunResponse { run }))
    }

    async fn pause_run(
        &self,
        request: Request<pb::PauseRunRequest>,
    ) -> Result<Response<pb::PauseRunResponse>, Status> {
        let run = Some(self.pause(request.into_inner()).await?);
        Ok(Response::new(pb::PauseRunResponse { run }))
    }

    async fn resume_run(
        &self,
        request: Request<pb::ResumeRunRequest>,
    ) -> Result<Response<pb::ResumeRunResponse>, Status> {
        let run = Some(self.resume(request.into_inner()).await?);
        Ok(Response::new(pb::ResumeRunResponse { run }))
    }

    async fn retry_run(
        &self,
        request: Request<pb::RetryRunRequest>,
    ) -> Result<Response<pb::RetryRunResponse>, Status> {
        let run = Some(self.retry(request.into_inner()).await?);
        Ok(Response::new(pb::RetryRunResponse { run }))
    }

    async fn extend_deadline(
        &self,
        request: Request<pb::ExtendDeadlineRequest>,
    ) -> Result<Response<pb::ExtendDeadlineResponse>, Status> {
        let run = Some(self.extend(request.into_inner()).await?);
        Ok(Response::new(pb::ExtendDeadlineResponse { run }))
    }
}
