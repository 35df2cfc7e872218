//! `longtake cancel`.

use clap::Args;
use longtake_proto::v1::CancelRunRequest;

use crate::args::{Global, OperateArgs};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;

/// `longtake cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    call: OperateArgs,
    /// Why, for people; kept in the history.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn execute(args: CancelArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.call.run.id();
    let doing = format!("cancel run {run_id}");
    let request_id = args.call.request_id();
    let request = CancelRunRequest { run_id, request_id, reason: args.reason };
    let server = Server::connect(&global.server).await?;
    let answer = server
        .runs()
        .cancel_run(request)
        .await
        .map_err(|status| CallFailed::new(doing, status))?
        .into_inner();
    super::print_operated(global, &answer, answer.run.as_ref())
}
