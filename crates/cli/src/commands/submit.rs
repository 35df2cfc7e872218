//! `longtake submit`.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use longtake_proto::convert::struct_from_json;
use longtake_proto::v1::{
    CreateRunRequest, CreateRunResponse, GetContentRequest, GetRunResponse, SubmitContentResponse,
};
use uuid::Uuid;

use crate::args::Global;
use crate::attend::{Attend, Attended, exit_of, no_notes};
use crate::call::CallFailed;
use crate::connect::{Server, ServerUrl};
use crate::content_args::ContentArgs;
use crate::exit::{Ended, Exit};
use crate::format::{self, parse_span};
use crate::progress::{Style, run_state};
use crate::signals::Stop;
use crate::{output, report};

/// `longtake submit`.
#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    content: ContentArgs,
    /// Start a run of this workflow, with --input, instead of a request for content.
    #[arg(long, conflicts_with_all = ["query", "named_query", "file", "prefer", "interest", "grade"])]
    workflow: Option<String>,
    /// The run's input: a JSON object, or @FILE.
    #[arg(
        long,
        requires = "workflow",
        conflicts_with_all = ["query", "named_query", "file"],
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true
    )]
    input: String,
    /// The run's id: the same one with the same content returns the same run. Made up when absent.
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
    /// Check everything and store nothing.
    #[arg(long, conflicts_with = "wait")]
    validate_only: bool,
    /// Show the run's progress, and return when it has ended.
    #[arg(long)]
    wait: bool,
    /// With --wait: for how long to look for a server that has gone away.
    #[arg(long, env = "LONGTAKE_PATIENCE", value_name = "SPAN", default_value = "5m", value_parser = parse_span)]
    patience: Duration,
}

pub(super) async fn execute(args: SubmitArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = match &args.workflow {
        Some(workflow) => create_run(&args, workflow, global).await?,
        None => submit_content(&args, global).await?,
    };
    if args.wait { wait(&args, &run_id, global).await } else { Ok(Exit::Done) }
}

fn request_id(args: &SubmitArgs) -> String {
    args.request_id.unwrap_or_else(Uuid::now_v7).to_string()
}

async fn submit_content(args: &SubmitArgs, global: &Global) -> anyhow::Result<String> {
    let mut request = args.content.request()?;
    request.request_id = request_id(args);
    request.validate_only = args.validate_only;
    let server = Server::connect(&global.server).await?;
    let answer = server.content().submit_content(request).await;
    let answer = answer.map_err(|status| CallFailed::new("submit", status))?.into_inner();
    if !args.wait {
        print_submitted(args, &answer, global)?;
    }
    Ok(answer.run_id)
}

fn print_submitted(args: &SubmitArgs, answer: &SubmitContentResponse, global: &Global) -> anyhow::Result<()> {
    if global.json {
        output::json(answer)?;
        return Ok(());
    }
    print_accepted(args, &answer.run_id, answer.created, answer.state)
}

async fn create_run(args: &SubmitArgs, workflow: &str, global: &Global) -> anyhow::Result<String> {
    let content = &args.content;
    let request = CreateRunRequest {
        request_id: request_id(args),
        workflow: workflow.to_owned(),
        workflow_version: String::new(),
        input: Some(parse_input(&args.input)?),
        requested_modalities: content
            .modalities
            .iter()
            .map(|modality| longtake_proto::v1::Modality::from(*modality).into())
            .collect(),
        labels: content.labels.iter().cloned().collect(),
        priority: content.priority,
        deadline: content.deadline.map(|when| when.resolve(&format::now())),
        validate_only: args.validate_only,
    };
    let server = Server::connect(&global.server).await?;
    let answer: CreateRunResponse = server
        .runs()
        .create_run(request)
        .await
        .map_err(|status| CallFailed::new(format!("start a run of {workflow}"), status))?
        .into_inner();
    if !args.wait && global.json {
        output::json(&answer)?;
    }
    let run = answer.run.context("the server answered without a run")?;
    if !args.wait && !global.json {
        print_accepted(args, &run.run_id, answer.created, run.state)?;
    }
    Ok(run.run_id)
}

/// The id alone where a program reads it.
fn print_accepted(args: &SubmitArgs, run_id: &str, created: bool, state: i32) -> anyhow::Result<()> {
    if args.validate_only {
        output::note("The request is valid; nothing was stored.");
        return Ok(());
    }
    output::line(run_id)?;
    let state = format::state(run_state(state).as_str_name());
    match created {
        true => output::note(&format!("Accepted. Follow it with: {} watch {run_id}", format::program())),
        false => output::note(&format!("Accepted before; it is {state}.")),
    }
    Ok(())
}

fn parse_input(text: &str) -> anyhow::Result<prost_types::Struct> {
    let read;
    let json = match text.strip_prefix('@') {
        Some(file) => {
            read = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            read.as_str()
        }
        None => text,
    };
    let value =
        serde_json::from_str(json).map_err(|error| Ended::usage(format!("--input is no JSON: {error}")))?;
    struct_from_json(value).ok_or_else(|| Ended::usage("--input must be a JSON object"))
}

async fn wait(args: &SubmitArgs, run_id: &str, global: &Global) -> anyhow::Result<Exit> {
    let stop = Stop::on_signals()?;
    let attend = Attend {
        urls: &global.server,
        run_id,
        style: Style::beside(global.json),
        after: Some(0),
        patience: args.patience,
        stop: &stop,
    };
    match attend.to_end(no_notes()).await? {
        Attended::Detached => {
            output::note(&format!(
                "Detached; the run goes on. Look again with: {} watch {run_id}",
                format::program()
            ));
            Ok(Exit::Interrupted)
        }
        Attended::Ended(run) => {
            match (global.json, &args.workflow) {
                (false, _) => report::result(&run)?,
                (true, None) => print_content(run_id, &global.server).await?,
                (true, Some(_)) => output::json(&GetRunResponse { run: Some((*run).clone()) })?,
            }
            Ok(exit_of(&run))
        }
    }
}

/// What a request for content made, as one JSON document.
///
/// # Errors
/// The server refused or is gone.
pub(super) async fn print_content(run_id: &str, servers: &[ServerUrl]) -> anyhow::Result<()> {
    let server = Server::connect(servers).await?;
    let answer = server.content().get_content(GetContentRequest { run_id: run_id.to_owned() }).await;
    let answer =
        answer.map_err(|status| CallFailed::new(format!("read the content of run {run_id}"), status))?;
    output::json(&answer.into_inner())?;
    Ok(())
}
