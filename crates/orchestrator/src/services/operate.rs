//! The operator calls of RunService.

use longtake_engine::command::{Command, Deadline, Operation};
use longtake_engine::ids::{RequestId, RunId};
use longtake_engine::lane::Asked;
use longtake_proto::v1::extend_deadline_request::Target;
use longtake_proto::v1::{self as pb, Reason};

use crate::errors::Refused;
use crate::validate::{self, Problems};

use super::run::Runs;

impl Runs {
    async fn operate(&self, run: RunId, call: RequestId, operation: Operation) -> Result<pb::Run, Refused> {
        let command = Command::Operate { call, operation };
        let reply = self.0.lane.command(vec![Asked { run, workflow: None, command }], None).await?;
        for answer in reply.answers {
            answer?;
        }
        self.0.basic(run).await
    }

    pub(super) async fn cancel(&self, request: pb::CancelRunRequest) -> Result<pb::Run, Refused> {
        let (run, call) = ids(&request.run_id, &request.request_id)?;
        let reason = validate::reason(&request.reason)?;
        self.operate(run, call, Operation::Cancel { reason }).await
    }

    pub(super) async fn pause(&self, request: pb::PauseRunRequest) -> Result<pb::Run, Refused> {
        let (run, call) = ids(&request.run_id, &request.request_id)?;
        let reason = validate::reason(&request.reason)?;
        self.operate(run, call, Operation::Pause { reason }).await
    }

    pub(super) async fn resume(&self, request: pb::ResumeRunRequest) -> Result<pb::Run, Refused> {
        let (run, call) = ids(&request.run_id, &request.request_id)?;
        self.operate(run, call, Operation::Resume).await
    }

    pub(super) async fn retry(&self, request: pb::RetryRunRequest) -> Result<pb::Run, Refused> {
        let (run, call) = ids(&request.run_id, &request.request_id)?;
        let mut problems = Problems::default();
        let deadline = problems.deadline(request.deadline.as_ref(), self.0.clock.now());
        problems.finish()?;
        self.operate(run, call, Operation::Retry { deadline }).await
    }

    pub(super) async fn extend(&self, request: pb::ExtendDeadlineRequest) -> Result<pb::Run, Refused> {
        let (run, call) = ids(&request.run_id, &request.request_id)?;
        let mut problems = Problems::default();
        problems.check(request.deadline.is_some(), "deadline", "must be set");
        let to = problems.deadline(request.deadline.as_ref(), self.0.clock.now());
        let target = Target::try_from(request.target).unwrap_or(Target::Unspecified);
        problems.check(
            target != Target::Unspecified,
            "target",
            "must be TARGET_RUN, TARGET_STEP or TARGET_ATTEMPT",
        );
        problems.finish()?;
        let Some(to) = to else {
            return Err(Refused::field(Reason::FieldInvalid, "deadline", "must be set"));
        };
        let which = match target {
            Target::Unspecified | Target::Run => Deadline::Run,
            Target::Step => Deadline::Step(self.step(run, &request.step).await?),
            Target::Attempt => Deadline::Attempt(self.step(run, &request.step).await?),
        };
        self.operate(run, call, Operation::ExtendDeadline { which, to }).await
    }

    /// A step of a run's workflow, by name.
    async fn step(&self, run: RunId, name: &str) -> Result<usize, Refused> {
        let found = self.0.read(run).await?;
        found.workflow.step(name).map(|(number, _)| number).ok_or_else(|| {
            let known: Vec<&str> = found.workflow.steps.iter().map(|step| step.name.as_str()).collect();
            let message =
                format!("workflow {} has no step {name:?}: it has {}", found.workflow.name, known.join(", "));
            Refused::new(Reason::StepUnknown, message)
        })
    }
}

fn ids(run_id: &str, request_id: &str) -> Result<(RunId, RequestId), Refused> {
    let mut problems = Problems::default();
    let run = RunId(problems.uuid("run_id", run_id).unwrap_or_default());
    let call = problems.request_id(request_id);
    problems.finish()?;
    Ok((run, call))
}
