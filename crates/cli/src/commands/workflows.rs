//! `longtake workflows validate|list|get`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use longtake_engine::definition::Workflow;
use longtake_proto::v1::{GetWorkflowRequest, ListWorkflowsRequest, ListWorkflowsResponse, WorkflowProblem};
use serde_json::{Value, json};

use crate::args::Global;
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;
use crate::{format, json, output};

/// The largest page that a server gives.
const PAGE: i32 = 1_000;
/// How much of a version people are shown.
const VERSION_CHARS: usize = 12;

/// `longtake workflows`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowsArgs {
    #[command(subcommand)]
    command: WorkflowsCommand,
}

#[derive(Debug, Subcommand)]
enum WorkflowsCommand {
    /// Check definition files and report everything that is wrong with them. Needs no server.
    Validate {
        /// TOML files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// The workflows that the server knows.
    List,
    /// One workflow, with its text.
    Get {
        /// Its name.
        name: String,
        /// A version of it; the current one when absent.
        #[arg(default_value = "", hide_default_value = true)]
        version: String,
    },
}

pub(super) async fn execute(args: WorkflowsArgs, global: &Global) -> anyhow::Result<Exit> {
    match args.command {
        WorkflowsCommand::Validate { files } => validate(&files, global),
        WorkflowsCommand::List => list(global).await,
        WorkflowsCommand::Get { name, version } => get(name, version, global).await,
    }
}

fn validate(files: &[PathBuf], global: &Global) -> anyhow::Result<Exit> {
    let mut valid = true;
    let mut documents = Vec::new();
    for path in files {
        let source = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = Workflow::parse(&source);
        valid &= parsed.is_ok();
        let file = path.display();
        if global.json {
            documents.push(document(&file.to_string(), &parsed));
            continue;
        }
        match parsed {
            Ok(workflow) => output::line(&format!(
                "{file}: workflow {} with {} steps, version {}",
                workflow.name,
                workflow.steps.len(),
                short(&workflow.version.to_string())
            ))?,
            Err(problems) => {
                for problem in problems {
                    output::line(&format!("{file}: {problem}"))?;
                }
            }
        }
    }
    if global.json {
        output::json_value(&json!({ "files": documents }))?;
    }
    Ok(if valid { Exit::Done } else { Exit::Refused })
}

/// One file's verdict; `problems` as ValidateWorkflow gives them.
fn document(file: &str, parsed: &Result<Workflow, Vec<longtake_engine::definition::Problem>>) -> Value {
    let line = |line: usize| i32::try_from(line).unwrap_or(i32::MAX);
    match parsed {
        Ok(workflow) => json!({
            "file": file,
            "problems": [],
            "workflow": { "name": workflow.name, "version": workflow.version.to_string() },
        }),
        Err(problems) => {
            let problems = problems.iter().map(|problem| {
                json::value(&WorkflowProblem {
                    line: line(problem.line),
                    key: problem.key.clone(),
                    message: problem.message.clone(),
                })
            });
            json!({ "file": file, "problems": problems.collect::<Vec<_>>() })
        }
    }
}

fn short(version: &str) -> &str {
    version.get(..VERSION_CHARS).unwrap_or(version)
}

async fn list(global: &Global) -> anyhow::Result<Exit> {
    let server = Server::connect(&global.server).await?;
    let mut all = ListWorkflowsResponse::default();
    loop {
        let page_token = std::mem::take(&mut all.next_page_token);
        let page =
            server.workflows().list_workflows(ListWorkflowsRequest { page_size: PAGE, page_token }).await;
        let page = page.map_err(|status| CallFailed::new("list workflows", status))?.into_inner();
        all.workflows.extend(page.workflows);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            break;
        }
    }
    if global.json {
        output::json(&all)?;
        return Ok(Exit::Done);
    }
    let now = format::now();
    let row = |workflow: &longtake_proto::v1::Workflow| {
        let steps: Vec<&str> = workflow.steps.iter().map(|step| step.name.as_str()).collect();
        [
            workflow.name.clone(),
            short(&workflow.version).to_owned(),
            workflow.load_time.as_ref().map(|time| format::relative(time, &now)).unwrap_or_default(),
            steps.join(" "),
        ]
    };
    let rows: Vec<_> = all.workflows.iter().map(row).collect();
    output::table(["WORKFLOW", "VERSION", "LOADED", "STEPS"], &rows)?;
    Ok(Exit::Done)
}

async fn get(name: String, version: String, global: &Global) -> anyhow::Result<Exit> {
    let server = Server::connect(&global.server).await?;
    let doing = format!("read workflow {name}");
    let answer = server.workflows().get_workflow(GetWorkflowRequest { name, version }).await;
    let answer = answer.map_err(|status| CallFailed::new(doing, status))?.into_inner();
    match answer.workflow {
        Some(workflow) if !global.json => output::line(workflow.source.trim_end())?,
        _ => output::json(&answer)?,
    }
    Ok(Exit::Done)
}
