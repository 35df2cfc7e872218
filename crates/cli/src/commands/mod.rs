//! One file per command.

mod cancel;
mod dev;
mod events;
mod executor;
mod explain;
mod extend_deadline;
mod get;
mod list;
mod migrate;
mod pause;
mod resume;
mod retry;
mod run;
mod serve;
mod submit;
mod watch;
mod workflows;

use anyhow::Context as _;
use clap::Subcommand;
use longtake_proto::v1::Run;

use crate::args::Global;
use crate::exit::Exit;
use crate::progress::run_state;
use crate::{format, output};
pub(crate) use serve::{Kept, parse_retention};

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a video of a question or a text on this machine: starts all that it needs, and stops it afterwards.
    Run(run::RunArgs),
    /// Keep the whole stack up on this machine: a private PostgreSQL, the server and executors.
    Dev(dev::DevArgs),
    /// Serve the API over a database.
    Serve(serve::ServeArgs),
    /// Work on the content steps for a server.
    Executor(executor::ExecutorArgs),
    /// Bring a database's schema up to date, or down to a version.
    Migrate(migrate::MigrateArgs),
    /// Submit a request for content, or a run of any workflow.
    Submit(submit::SubmitArgs),
    /// Show one run.
    Get(get::GetArgs),
    /// List runs, the newest first.
    List(list::ListArgs),
    /// Follow a run to its end.
    Watch(watch::WatchArgs),
    /// Say why a run is not finished yet, or why it ended as it did.
    Explain(explain::ExplainArgs),
    /// Show a run's history.
    Events(events::EventsArgs),
    /// Stop a run: it will be CANCELLED.
    Cancel(cancel::CancelArgs),
    /// Dispatch nothing more of a run until it is resumed.
    Pause(pause::PauseArgs),
    /// Let a paused run go on, with fresh retry budgets.
    Resume(resume::ResumeArgs),
    /// Take up a run that FAILED, TIMED_OUT or was CANCELLED, from its checkpoints.
    Retry(retry::RetryArgs),
    /// Set the deadline of a run, a step or a live attempt.
    ExtendDeadline(extend_deadline::ExtendDeadlineArgs),
    /// Workflow definitions.
    Workflows(workflows::WorkflowsArgs),
}

impl Command {
    /// What is logged when nobody says otherwise.
    pub(crate) fn default_log(&self) -> &'static str {
        match self {
            Command::Serve(_) | Command::Executor(_) | Command::Migrate(_) => "info",
            _ => "warn",
        }
    }

    /// What this process is called in traces: `longtake-<role>`.
    pub(crate) fn role(&self) -> &'static str {
        match self {
            Command::Serve(_) => "server",
            Command::Executor(_) => "executor",
            _ => "cli",
        }
    }

    /// The command as a whole, the parent of the calls that it makes. Processes that live on have no such span.
    pub(crate) fn span(&self) -> tracing::Span {
        match self {
            Command::Serve(_) | Command::Executor(_) | Command::Dev(_) => tracing::Span::none(),
            _ => tracing::info_span!("longtake"),
        }
    }

    /// Does it.
    pub(crate) async fn execute(self, global: &Global) -> anyhow::Result<Exit> {
        match self {
            Command::Run(args) => run::execute(args, global).await,
            Command::Dev(args) => dev::execute(args, global).await,
            Command::Serve(args) => serve::execute(args).await,
            Command::Executor(args) => executor::execute(args, global).await,
            Command::Migrate(args) => migrate::execute(args, global).await,
            Command::Submit(args) => submit::execute(args, global).await,
            Command::Get(args) => get::execute(args, global).await,
            Command::List(args) => list::execute(args, global).await,
            Command::Watch(args) => watch::execute(args, global).await,
            Command::Explain(args) => explain::execute(args, global).await,
            Command::Events(args) => events::execute(args, global).await,
            Command::Cancel(args) => cancel::execute(args, global).await,
            Command::Pause(args) => pause::execute(args, global).await,
            Command::Resume(args) => resume::execute(args, global).await,
            Command::Retry(args) => retry::execute(args, global).await,
            Command::ExtendDeadline(args) => extend_deadline::execute(args, global).await,
            Command::Workflows(args) => workflows::execute(args, global).await,
        }
    }
}

/// What an operator's call came to: the answer as JSON, or the run in one line.
fn print_operated<M: prost::Message>(global: &Global, answer: &M, run: Option<&Run>) -> anyhow::Result<Exit> {
    if global.json {
        output::json(answer)?;
        return Ok(Exit::Done);
    }
    let run = run.context("the server answered without a run")?;
    let state = format::state(run_state(run.state).as_str_name());
    let outcome = match run_state(run.outcome).as_str_name() {
        "STATE_UNSPECIFIED" => String::new(),
        outcome => format!(", will be {}", format::state(outcome)),
    };
    output::line(&format!("{}  {state}{outcome}", run.run_id))?;
    Ok(Exit::Done)
}
