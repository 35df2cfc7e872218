//! `longtake get`.

use clap::Args;
use longtake_proto::v1::{GetRunRequest, RunView};

use crate::args::{Global, RunArg};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;
use crate::{output, report};

/// `longtake get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    run: RunArg,
    /// With --json: leave out input, outputs, checkpoint data and attempts.
    #[arg(long)]
    basic: bool,
}

pub(super) async fn execute(args: GetArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.run.id();
    let server = Server::connect(&global.server).await?;
    let view = if args.basic { RunView::Basic } else { RunView::Full };
    let request = GetRunRequest { run_id: run_id.clone(), view: view.into() };
    let answer = server.runs().get_run(request).await;
    let answer = answer.map_err(|status| CallFailed::new(format!("read run {run_id}"), status))?.into_inner();
    match answer.run {
        Some(run) if !global.json => report::whole(&run)?,
        _ => output::json(&answer)?,
    }
    Ok(Exit::Done)
}
