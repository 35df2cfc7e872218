//! `longtake run`: what `bin/run` calls.

use anyhow::Context as _;
use clap::Args;
use longtake_proto::v1::{ListRunsRequest, Modality, Run, SubmitContentRequest, run};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::args::Global;
use crate::attend::{Attend, Attended, exit_of};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::content_args::{ContentArgs, query_of};
use crate::exit::Exit;
use crate::progress::Style;
use crate::signals::Stop;
use crate::stack::{Notice, Stack, StackArgs};
use crate::{format, output, report, results, worker};

/// What is shown to somebody who asks for nothing.
const EXAMPLE: &str = include_str!("../../../../examples/photosynthesis.md");
/// Marks a run with what was asked for, so that the same request finds it again after an interruption.
const REQUEST_LABEL: &str = "longtake-run";
/// A part that died young so often in a row will not come up.
const DEATHS_MAX: u32 = 5;
/// The server is ours: it is started again when it dies, so it is waited for as long as that is tried.
const PATIENCE: Duration = Duration::from_secs(600);

/// `longtake run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    content: ContentArgs,
    #[command(flatten)]
    stack: StackArgs,
    /// Keep everything up afterwards, until Ctrl-C, to look at it.
    #[arg(long)]
    keep: bool,
}

pub(super) async fn execute(args: RunArgs, global: &Global) -> anyhow::Result<Exit> {
    let request = request(&args.content)?;
    let options = args.stack.options();
    let stop = Stop::on_signals()?;
    let problems = worker::problems(&options.media(), &worker::QUEUES).await;
    if !problems.is_empty() {
        output::note(&format!(
            "This machine lacks something that the steps need:\n  {}",
            problems.join("\n  ")
        ));
        return Ok(Exit::Failed);
    }
    output::note("Starting PostgreSQL, the server and the executors");
    let mut stack = match Stack::start(options, &stop).await {
        Ok(stack) => stack,
        Err(_) if stop.gently.is_cancelled() => return Ok(Exit::Interrupted),
        Err(error) => return Err(error),
    };
    let outcome = produce(&mut stack, request, &stop, global).await;
    if args.keep && outcome.is_ok() && !stop.gently.is_cancelled() {
        output::note(&format!(
            "Everything stays up until Ctrl-C: {} --server {} list",
            format::program(),
            stack.url.authority()
        ));
        stop.gently.cancelled().await;
    }
    let stopped = stack.stop(|_| {}).await;
    let exit = outcome?;
    stopped?;
    Ok(exit)
}

fn request(args: &ContentArgs) -> anyhow::Result<SubmitContentRequest> {
    let mut request = if args.is_empty() {
        output::note("No question and no file: taking the example, examples/photosynthesis.md");
        let query = query_of(Path::new("photosynthesis.md"), EXAMPLE);
        let example = ContentArgs { query: Some(query), ..args.clone() };
        SubmitContentRequest { source_text: EXAMPLE.to_owned(), ..example.request()? }
    } else {
        args.request()?
    };
    // A deadline is another one each time, and labels have no order: neither is part of what was asked for.
    let asked = SubmitContentRequest { deadline: None, labels: [].into(), ..request.clone() };
    let hash = Sha256::digest(asked.encode_to_vec());
    let mark: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    request.labels.insert(REQUEST_LABEL.to_owned(), mark);
    Ok(request)
}

/// Submits, or finds the same request unfinished; attends it; prints what it made.
async fn produce(
    stack: &mut Stack,
    request: SubmitContentRequest,
    stop: &Stop,
    global: &Global,
) -> anyhow::Result<Exit> {
    let server = Server::connect(std::slice::from_ref(&stack.url)).await?;
    let query = request.student_query.clone();
    let run_id = submit_or_find(&server, request).await?;
    let (say, notes) = mpsc::unbounded_channel();
    let urls = [stack.url.clone()];
    let attend = Attend {
        urls: &urls,
        run_id: &run_id,
        style: Style::beside(global.json),
        after: (!output::notes_to_terminal()).then_some(0),
        patience: PATIENCE,
        stop,
    };
    let attended = tokio::select! {
        attended = attend.to_end(notes) => attended?,
        broken = watch_parts(stack, say) => return Err(broken),
    };
    match attended {
        Attended::Detached => {
            output::note(&format!("Stopping. Run {run_id} is kept: the next `longtake run` carries it on."));
            Ok(Exit::Interrupted)
        }
        Attended::Ended(run) => {
            let exit = exit_of(&run);
            if exit != Exit::Done {
                output::note(&format!("What the parts said is in {}", stack.data_dir.join("logs").display()));
            }
            if global.json {
                super::submit::print_content(&run_id, &urls).await?;
            } else {
                let folder = stack.data_dir.join("results").join(results::folder_name(&query, &run_id));
                report::result(&results::copy_out(*run, &report::content_names(), &folder)?)?;
            }
            Ok(exit)
        }
    }
}

/// Says when a part is started again; ends when one will not come up.
async fn watch_parts(stack: &mut Stack, say: mpsc::UnboundedSender<String>) -> anyhow::Error {
    while let Some(notice) = stack.next_notice().await {
        match &notice {
            Notice::Restarting { part, why, in_row, .. } if *in_row >= DEATHS_MAX => {
                return anyhow::anyhow!("{part} died {in_row} times in a row: {why}");
            }
            Notice::Restarting { .. } => {
                // Nobody listens any more only when all is over.
                let _ = say.send(notice.to_string());
            }
            Notice::Logged { .. } | Notice::Started { .. } => {}
        }
    }
    anyhow::anyhow!("every part of the stack is gone")
}

async fn submit_or_find(server: &Server, request: SubmitContentRequest) -> anyhow::Result<String> {
    let unfinished = unfinished(server).await?;
    let mark = request.labels.get(REQUEST_LABEL);
    let same = unfinished.iter().find(|run| run.labels.get(REQUEST_LABEL) == mark);
    let others = unfinished.len() - usize::from(same.is_some());
    if others > 0 {
        let runs = if others == 1 { "run is" } else { "runs are" };
        output::note(&format!(
            "{others} unfinished {runs} carried on as well, for as long as this one takes"
        ));
    }
    if let Some(run) = same {
        let age =
            run.create_time.as_ref().map(|time| format::relative(time, &format::now())).unwrap_or_default();
        output::note(&format!(
            "Carrying on run {}, submitted {age}: nothing that is done is done again",
            run.run_id
        ));
        return Ok(run.run_id.clone());
    }
    let query = request.student_query.clone();
    let request = SubmitContentRequest { request_id: Uuid::now_v7().to_string(), ..request };
    let answer = server.content().submit_content(request).await;
    let answer = answer.map_err(|status| CallFailed::new("submit", status))?.into_inner();
    let made: Vec<String> = answer
        .requested_modalities
        .iter()
        .filter_map(|modality| Modality::try_from(*modality).ok())
        .map(|modality| modality.as_str_name().trim_start_matches("MODALITY_").to_lowercase())
        .collect();
    output::note(&format!(
        "Run {} makes {} of: {}",
        answer.run_id,
        made.join(" and "),
        output::printable(&query)
    ));
    Ok(answer.run_id)
}

/// Runs that an earlier stop interrupted.
async fn unfinished(server: &Server) -> anyhow::Result<Vec<Run>> {
    let states = [run::State::Running, run::State::Paused, run::State::Stopping];
    let request =
        ListRunsRequest { page_size: 1_000, states: states.map(i32::from).to_vec(), ..Default::default() };
    let answer = server.runs().list_runs(request).await;
    let answer = answer
        .map_err(|status| CallFailed::new("list runs", status))
        .context("looking for unfinished runs")?;
    Ok(answer.into_inner().runs)
}
