//! `longtake retry`.

use clap::Args;
use longtake_proto::v1::RetryRunRequest;

use crate::args::{Global, OperateArgs};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;
use crate::format::{self, When, parse_when};

/// `longtake retry`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    call: OperateArgs,
    /// A new deadline: a span from now such as 2h, or a time. Needed when the old one has passed.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    deadline: Option<When>,
}

pub(super) async fn execute(args: RetryArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.call.run.id();
    let doing = format!("retry run {run_id}");
    let request_id = args.call.request_id();
    let deadline = args.deadline.map(|when| when.resolve(&format::now()));
    let request = RetryRunRequest { run_id, request_id, deadline };
    let server = Server::connect(&global.server).await?;
    let answer =
        server.runs().retry_run(request).await.map_err(|status| CallFailed::new(doing, status))?.into_inner();
    super::print_operated(global, &answer, answer.run.as_ref())
}
