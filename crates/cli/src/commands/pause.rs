//! `longtake pause`.

use clap::Args;
use longtake_proto::v1::PauseRunRequest;

use crate::args::{Global, OperateArgs};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;

/// `longtake pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    call: OperateArgs,
    /// Why, for people; kept in the history.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn execute(args: PauseArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.call.run.id();
    let doing = format!("pause run {run_id}");
    let request_id = args.call.request_id();
    let request = PauseRunRequest { run_id, request_id, reason: args.reason };
    let server = Server::connect(&global.server).await?;
    let answer =
        server.runs().pause_run(request).await.map_err(|status| CallFailed::new(doing, status))?.into_inner();
    super::print_operated(global, &answer, answer.run.as_ref())
}
