//! ContentService: requests of students, as runs of the workflow `content`.

use std::collections::BTreeMap;
use std::sync::Arc;

use longtake_engine::definition::{Modality, Workflow};
use longtake_engine::ids::RunId;
use longtake_engine::run::{NewRun, StepState};
use longtake_engine::time::Timestamp;
use longtake_proto::v1::content_service_server::ContentService;
use longtake_proto::v1::{self as pb, Reason};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use crate::codec::{self, Detail};
use crate::errors::Refused;
use crate::stored::ReadRun;
use crate::telemetry::trace_of;
use crate::validate::{self, INPUT_BYTES, Problems};

use super::{Shared, answer_when, check_produced};

/// The workflow that requests for content run.
pub const WORKFLOW: &str = "content";
/// Requests in one batch.
const BATCH: usize = 1_000;
/// Everybody's tenant, until there are several.
pub(crate) const TENANT: &str = "default";

/// The service.
#[derive(Clone)]
pub struct Content(pub Shared);

/// A request within every bound that is the same for all workflows.
#[derive(Debug)]
pub struct CheckedContent {
    /// The run's.
    pub id: RunId,
    /// What the steps are given.
    pub input: Value,
    /// What must exist in the end; never empty.
    pub requested: Vec<Modality>,
    /// The one of them to show first.
    pub preferred: Modality,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// In the future.
    pub deadline: Option<Timestamp>,
}

/// Checks a request at `now` by itself.
pub fn check_content(request: &pb::SubmitContentRequest, now: Timestamp) -> Result<CheckedContent, Refused> {
    let mut problems = Problems::default();
    let id = RunId(problems.request_id(&request.request_id).0);
    problems.text("student_id", &request.student_id, 1, 200);
    problems.text("student_query", &request.student_query, 5, 500);
    problems.text("interest", &request.interest, 0, 100);
    problems.text("source_text", &request.source_text, 0, INPUT_BYTES);
    if let Some(grade) = request.grade_level {
        problems.check((1..=12).contains(&grade), "grade_level", "must be between 1 and 12");
    }
    problems.priority(request.priority);
    let labels = problems.labels(request.labels.clone());
    let deadline = problems.deadline(request.deadline.as_ref(), now);
    let (requested, preferred) = modalities(&mut problems, request);
    let input = input(request, &requested, preferred);
    let size = input.to_string().len();
    if size > INPUT_BYTES {
        problems.add("source_text", format!("the request must be at most {INPUT_BYTES} bytes, has {size}"));
    }
    problems.finish()?;
    Ok(CheckedContent { id, input, requested, preferred, labels, deadline })
}

/// A request that passed every check.
struct Accepted {
    workflow: Arc<Workflow>,
    run: NewRun,
    preferred: Modality,
    validate_only: bool,
    /// Empty where none was given and none is needed.
    shown_id: String,
}

impl Content {
    fn accept(
        &self,
        request: &pb::SubmitContentRequest,
        trace: &BTreeMap<String, String>,
    ) -> Result<Accepted, Refused> {
        let workflow = self.0.workflows.current(WORKFLOW).ok_or_else(|| {
            Refused::new(
                Reason::WorkflowUnknown,
                "this server has no workflow named content: start it with one",
            )
        })?;
        let checked = check_content(request, self.0.now())?;
        check_produced(&workflow, &checked.requested)?;
        let given = !request.request_id.is_empty() || !request.validate_only;
        let shown_id = if given { checked.id.to_string() } else { String::new() };
        let run = NewRun {
            id: checked.id,
            tenant: TENANT.to_owned(),
            version: workflow.version,
            when: answer_when(&workflow, &checked.input),
            input: Arc::new(checked.input),
            requested: checked.requested,
            labels: checked.labels,
            priority: request.priority,
            deadline: checked.deadline,
            content_hash: content_hash(request),
            trace: trace.clone(),
        };
        let (preferred, validate_only) = (checked.preferred, request.validate_only);
        Ok(Accepted { workflow, run, preferred, validate_only, shown_id })
    }

    async fn submit(
        &self,
        requests: Vec<pb::SubmitContentRequest>,
        trace: &BTreeMap<String, String>,
    ) -> Result<Vec<Answered>, Refused> {
        if requests.iter().any(|request| !request.validate_only) {
            self.0.lane.check_room(requests.len())?;
        }
        let accepted: Vec<_> = requests.iter().map(|request| self.accept(request, trace)).collect();
        let real = accepted.iter().flatten().filter(|accepted| !accepted.validate_only);
        let runs: Vec<_> = real.map(|accepted| (accepted.workflow.clone(), accepted.run.clone())).collect();
        let created = if runs.is_empty() { Vec::new() } else { self.0.create(runs).await? };
        let mut created = created.into_iter();
        let mut answers = Vec::with_capacity(accepted.len());
        for accepted in accepted {
            answers.push(match accepted {
                Err(refused) => Err(refused),
                Ok(accepted) if accepted.validate_only => Ok(accepted.answer(true, pb::run::State::Running)),
                Ok(accepted) => match created.next() {
                    Some(Ok(true)) => Ok(accepted.answer(true, pb::run::State::Running)),
                    Some(Ok(false)) => {
                        let state = codec::run_state(self.0.read(accepted.run.id).await?.run.state);
                        Ok(accepted.answer(false, state))
                    }
                    Some(Err(refused)) => Err(refused),
                    None => Err(Refused::new(Reason::Internal, "the request was not answered: try again")),
                },
            });
        }
        Ok(answers)
    }
}

type Answered = Result<pb::SubmitContentResponse, Refused>;

impl Accepted {
    fn answer(self, created: bool, state: pb::run::State) -> pb::SubmitContentResponse {
        pb::SubmitContentResponse {
            run_id: self.shown_id,
            created,
            state: state.into(),
            requested_modalities: self
                .run
                .requested
                .iter()
                .map(|m| codec::modality_to_proto(*m).into())
                .collect(),
            preferred_modality: codec::modality_to_proto(self.preferred).into(),
        }
    }
}

/// Defaults are applied here and nowhere else.
fn modalities(problems: &mut Problems, request: &pb::SubmitContentRequest) -> (Vec<Modality>, Modality) {
    let mut requested = problems.modalities("requested_modalities", &request.requested_modalities);
    if requested.is_empty() {
        requested.push(Modality::Video);
    }
    let preferred = match request.preferred_modality {
        0 => Some(Modality::Video),
        named => codec::modality_from_proto(named),
    };
    problems.check(preferred.is_some(), "preferred_modality", "must be TEXT, AUDIO, VIDEO or IMAGES");
    let preferred = preferred.filter(|preferred| requested.contains(preferred));
    let preferred =
        preferred.or_else(|| Modality::richest(requested.iter().copied())).unwrap_or(Modality::Video);
    (requested, preferred)
}

fn input(request: &pb::SubmitContentRequest, requested: &[Modality], preferred: Modality) -> Value {
    let mut input = Map::new();
    input.insert("student_id".to_owned(), json!(request.student_id));
    input.insert("student_query".to_owned(), json!(request.student_query));
    if let Some(grade) = request.grade_level {
        input.insert("grade_level".to_owned(), json!(grade));
    }
    for (key, text) in [("interest", &request.interest), ("source_text", &request.source_text)] {
        if !text.is_empty() {
            input.insert(key.to_owned(), json!(text));
        }
    }
    let names: Vec<&str> = requested.iter().map(|modality| modality.as_str()).collect();
    input.insert("requested_modalities".to_owned(), json!(names));
    input.insert("preferred_modality".to_owned(), json!(preferred.as_str()));
    Value::Object(input)
}

/// The hash of the request as sent, without what may differ between repetitions.
fn content_hash(request: &pb::SubmitContentRequest) -> [u8; 32] {
    let labels: BTreeMap<&String, &String> = request.labels.iter().collect();
    let fields = json!([
        "SubmitContent",
        request.student_id,
        request.student_query,
        request.grade_level,
        request.interest,
        request.source_text,
        request.requested_modalities,
        request.preferred_modality,
        labels,
        request.priority,
    ]);
    Sha256::digest(fields.to_string()).into()
}

#[tonic::async_trait]
impl ContentService for Content {
    async fn submit_content(
        &self,
        request: Request<pb::SubmitContentRequest>,
    ) -> Result<Response<pb::SubmitContentResponse>, Status> {
        let trace = trace_of(request.metadata());
        let mut answers = self.submit(vec![request.into_inner()], &trace).await?;
        let answer = answers.pop().unwrap_or_else(|| Err(Refused::new(Reason::Internal, "no answer")));
        Ok(Response::new(answer?))
    }

    async fn batch_submit_content(
        &self,
        request: Request<pb::BatchSubmitContentRequest>,
    ) -> Result<Response<pb::BatchSubmitContentResponse>, Status> {
        let trace = trace_of(request.metadata());
        let requests = request.into_inner().requests;
        let mut problems = Problems::default();
        problems.check((1..=BATCH).contains(&requests.len()), "requests", "must be 1 to 1000");
        problems.finish()?;
        let answers = self.submit(requests, &trace).await?;
        let results = answers.into_iter().map(|answer| match answer {
            Ok(response) => {
                pb::SubmitContentResult { verdict: Some(pb::Verdict::default()), response: Some(response) }
            }
            Err(refused) => pb::SubmitContentResult { verdict: Some(refused.verdict()), response: None },
        });
        Ok(Response::new(pb::BatchSubmitContentResponse { results: results.collect() }))
    }

    async fn get_content(
        &self,
        request: Request<pb::GetContentRequest>,
    ) -> Result<Response<pb::GetContentResponse>, Status> {
        let id = validate::run_id(&request.into_inner().run_id)?;
        let found = self.0.read(id).await?;
        if found.workflow.name != WORKFLOW {
            let message = format!("run {id} is a {} run, not content: use GetRun", found.workflow.name);
            return Err(Refused::new(Reason::RunUnknown, message).into());
        }
        let content = Some(content(&found));
        Ok(Response::new(pb::GetContentResponse { content }))
    }
}

fn content(found: &ReadRun) -> pb::Content {
    let shown = codec::run_to_proto(&found.workflow, &found.run, &found.progress, Detail::Basic);
    let input = &found.run.request.input;
    let text = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let preferred = text("preferred_modality").parse::<Modality>().ok();
    let progress = shown.steps.iter().map(|step| pb::ContentProgress {
        step: step.name.clone(),
        state: step.state,
        done: step.progress.as_ref().map_or(0, |progress| progress.done),
        total: step.progress.as_ref().map_or(0, |progress| progress.total),
    });
    pb::Content {
        run_id: shown.run_id.clone(),
        state: shown.state,
        state_reason: shown.state_reason.clone(),
        student_id: text("student_id"),
        student_query: text("student_query"),
        requested_modalities: shown.requested_modalities.clone(),
        preferred_modality: preferred.map_or(0, |modality| codec::modality_to_proto(modality).into()),
        artifacts: artifacts(found),
        progress: progress.collect(),
        spent: shown.spent,
        saved: shown.saved,
        error: shown.error.clone(),
        create_time: shown.create_time,
        end_time: shown.end_time,
        deadline: shown.deadline,
    }
}

/// What the steps have made so far. The last step verifies all of it, so that a run which SUCCEEDED shows nothing else.
fn artifacts(found: &ReadRun) -> Vec<pb::Artifact> {
    let done = found.run.steps.iter().filter(|step| step.state == StepState::Succeeded);
    let outputs = done.filter_map(|step| step.output.as_ref());
    outputs.flat_map(|output| output.artifacts.iter().map(codec::artifact_to_proto)).collect()
}
