//! `longtake resume`.

use clap::Args;
use longtake_proto::v1::ResumeRunRequest;

use crate::args::{Global, OperateArgs};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;

/// `longtake resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    call: OperateArgs,
}

pub(super) async fn execute(args: ResumeArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.call.run.id();
    let doing = format!("resume run {run_id}");
    let request_id = args.call.request_id();
    let request = ResumeRunRequest { run_id, request_id };
    let server = Server::connect(&global.server).await?;
    let answer = server
        .runs()
        .resume_run(request)
        .await
        .map_err(|status| CallFailed::new(doing, status))?
        .into_inner();
    super::print_operated(global, &answer, answer.run.as_ref())
}
