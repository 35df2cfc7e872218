//! `longtake extend-deadline`.

use clap::Args;
use longtake_proto::v1::ExtendDeadlineRequest;
use longtake_proto::v1::extend_deadline_request::Target;

use crate::args::{Global, OperateArgs};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;
use crate::format::{self, When, parse_when};

/// `longtake extend-deadline`.
#[derive(Debug, Args)]
pub(crate) struct ExtendDeadlineArgs {
    #[command(flatten)]
    call: OperateArgs,
    /// When it is to be: a span from now such as 2h, or a time such as 2027-01-15T08:00:00Z. It is set, never added to.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    to: When,
    /// The deadline of this step, over all its attempts, instead of that of the run.
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// The deadline of the step's live attempt.
    #[arg(long, requires = "step")]
    attempt: bool,
}

pub(super) async fn execute(args: ExtendDeadlineArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.call.run.id();
    let doing = format!("extend the deadline of run {run_id}");
    let target = match (&args.step, args.attempt) {
        (None, _) => Target::Run,
        (Some(_), false) => Target::Step,
        (Some(_), true) => Target::Attempt,
    };
    let request = ExtendDeadlineRequest {
        run_id,
        request_id: args.call.request_id(),
        target: target.into(),
        step: args.step.unwrap_or_default(),
        deadline: Some(args.to.resolve(&format::now())),
    };
    let server = Server::connect(&global.server).await?;
    let answer = server.runs().extend_deadline(request).await;
    let answer = answer.map_err(|status| CallFailed::new(doing, status))?.into_inner();
    super::print_operated(global, &answer, answer.run.as_ref())
}
