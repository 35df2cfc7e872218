//! WorkflowService: what definitions the server knows, and whether a text is one.

use longtake_engine::definition::{Version, Workflow};
use longtake_engine::time::Timestamp;
use longtake_proto::v1::workflow_service_server::WorkflowService;
use longtake_proto::v1::{self as pb, Reason};
use tonic::{Request, Response, Status};

use crate::codec;
use crate::errors::Refused;
use crate::page;
use crate::validate::Problems;

use super::Shared;

/// The service.
#[derive(Clone)]
pub struct WorkflowCatalog(pub Shared);

fn to_proto(workflow: &Workflow, loaded: Option<Timestamp>, with_source: bool) -> pb::Workflow {
    let steps = workflow.steps.iter().map(|step| pb::WorkflowStep {
        name: step.name.clone(),
        queue: step.queue.clone(),
        needs: step.needs.iter().map(|need| workflow.steps[*need].name.clone()).collect(),
        produces: step.produces.map_or(0, |modality| codec::modality_to_proto(modality).into()),
        when: step.when.as_ref().map(|when| when.text().to_owned()).unwrap_or_default(),
        price: Some(codec::money(step.price)),
    });
    pb::Workflow {
        name: workflow.name.clone(),
        version: workflow.version.to_string(),
        source: if with_source { workflow.source.clone() } else { String::new() },
        load_time: loaded.map(codec::time),
        steps: steps.collect(),
    }
}

#[tonic::async_trait]
impl WorkflowService for WorkflowCatalog {
    async fn list_workflows(
        &self,
        request: Request<pb::ListWorkflowsRequest>,
    ) -> Result<Response<pb::ListWorkflowsResponse>, Status> {
        let request = request.into_inner();
        let mut problems = Problems::default();
        let limit = problems.page_size(request.page_size, 50);
        problems.finish()?;
        // The name of the last workflow of the page before is all that a page needs to know.
        let all = self.0.workflows.all();
        let known = request.page_token.is_empty()
            || all.iter().any(|(workflow, _)| workflow.name == request.page_token);
        if !known {
            return Err(page::invalid("is not one of this list: start again without one").into());
        }
        let rest = all.iter().filter(|(workflow, _)| workflow.name > request.page_token);
        let page: Vec<_> =
            rest.clone().take(limit).map(|(workflow, at)| to_proto(workflow, Some(*at), false)).collect();
        let more = rest.count() > page.len();
        let next_page_token = page.last().filter(|_| more).map(|last| last.name.clone()).unwrap_or_default();
        Ok(Response::new(pb::ListWorkflowsResponse { workflows: page, next_page_token }))
    }

    async fn get_workflow(
        &self,
        request: Request<pb::GetWorkflowRequest>,
    ) -> Result<Response<pb::GetWorkflowResponse>, Status> {
        let request = request.into_inner();
        let mut problems = Problems::default();
        problems.text("name", &request.name, 1, 63);
        let version =
            Some(&request.version).filter(|version| !version.is_empty()).map(|text| text.parse::<Version>());
        problems.check(!matches!(version, Some(Err(_))), "version", "must be 64 hexadecimal digits");
        problems.finish()?;
        let current = self.0.workflows.all().into_iter().find(|(workflow, _)| workflow.name == request.name);
        let found = match version {
            Some(Ok(version)) => {
                let found = self.0.workflows.version(version).await.map_err(Refused::from)?;
                found.filter(|workflow| workflow.name == request.name).map(|workflow| {
                    let loaded = current.filter(|(current, _)| current.version == version).map(|(_, at)| at);
                    to_proto(&workflow, loaded, true)
                })
            }
            _ => current.map(|(workflow, at)| to_proto(&workflow, Some(at), true)),
        };
        let unknown = || {
            let message =
                format!("workflow {} (or this version of it) is not loaded: see ListWorkflows", request.name);
            Refused::new(Reason::WorkflowUnknown, message)
        };
        Ok(Response::new(pb::GetWorkflowResponse { workflow: Some(found.ok_or_else(unknown)?) }))
    }

    async fn validate_workflow(
        &self,
        request: Request<pb::ValidateWorkflowRequest>,
    ) -> Result<Response<pb::ValidateWorkflowResponse>, Status> {
        let source = request.into_inner().source;
        let response = match Workflow::parse(source.as_bytes()) {
            Ok(workflow) => {
                let workflow = Some(to_proto(&workflow, None, true));
                pb::ValidateWorkflowResponse { problems: Vec::new(), workflow }
            }
            Err(problems) => {
                let problems = problems.into_iter().map(|problem| pb::WorkflowProblem {
                    line: i32::try_from(problem.line).unwrap_or(i32::MAX),
                    key: problem.key,
                    message: problem.message,
                });
                pb::ValidateWorkflowResponse { problems: problems.collect(), workflow: None }
            }
        };
        Ok(Response::new(response))
    }
}
