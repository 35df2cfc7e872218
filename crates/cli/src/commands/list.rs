//! `longtake list`.

use clap::{Args, ValueEnum};
use longtake_proto::v1::{ListRunsRequest, ListRunsResponse, Run, run};

use crate::args::{Global, parse_label};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;
use crate::format::{self, When, parse_when};
use crate::output;
use crate::progress::run_state;

/// The largest page that a server gives.
const PAGE_MAX: usize = 1_000;

/// `longtake list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only runs in this state; may be given several times.
    #[arg(long = "state", value_enum, value_delimiter = ',')]
    states: Vec<StateArg>,
    /// Only runs of this workflow.
    #[arg(long, default_value = "", hide_default_value = true)]
    workflow: String,
    /// Only runs with this label; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Only runs created since then: a span back from now such as 2h, or a time.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    since: Option<When>,
    /// Only runs created before then.
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    before: Option<When>,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = parse_limit)]
    limit: usize,
    /// Carry on from `nextPageToken` of an earlier --json list with the same filters.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    page_token: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum StateArg {
    Running,
    Paused,
    Stopping,
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
}

impl From<StateArg> for run::State {
    fn from(state: StateArg) -> run::State {
        match state {
            StateArg::Running => run::State::Running,
            StateArg::Paused => run::State::Paused,
            StateArg::Stopping => run::State::Stopping,
            StateArg::Succeeded => run::State::Succeeded,
            StateArg::Failed => run::State::Failed,
            StateArg::TimedOut => run::State::TimedOut,
            StateArg::Cancelled => run::State::Cancelled,
        }
    }
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..) => Ok(limit),
        _ => Err(format!("{text:?} is no number of runs: 1 or more")),
    }
}

pub(super) async fn execute(args: ListArgs, global: &Global) -> anyhow::Result<Exit> {
    let server = Server::connect(&global.server).await?;
    let now = format::now();
    let mut all = ListRunsResponse { runs: Vec::new(), next_page_token: args.page_token.clone() };
    loop {
        let page = (args.limit - all.runs.len()).min(PAGE_MAX);
        let request = ListRunsRequest {
            page_size: i32::try_from(page).unwrap_or(i32::MAX),
            page_token: std::mem::take(&mut all.next_page_token),
            workflow: args.workflow.clone(),
            states: args.states.iter().map(|state| run::State::from(*state).into()).collect(),
            labels: args.labels.iter().cloned().collect(),
            created_after: args.since.map(|when| when.resolve_back(&now)),
            created_before: args.before.map(|when| when.resolve_back(&now)),
        };
        let page = server.runs().list_runs(request).await;
        let page = page.map_err(|status| CallFailed::new("list runs", status))?.into_inner();
        all.runs.extend(page.runs);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.runs.len() >= args.limit {
            break;
        }
    }
    if global.json {
        output::json(&all)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = all.runs.iter().map(|run| row(run, &now)).collect();
    output::table(["RUN", "WORKFLOW", "STATE", "STEPS", "CREATED", "TOOK", "SPENT", "WHY"], &rows)?;
    if !all.next_page_token.is_empty() {
        output::note(&format!("There are more: --limit {} shows them too.", args.limit.saturating_mul(2)));
    }
    Ok(Exit::Done)
}

fn row(run: &Run, now: &prost_types::Timestamp) -> [String; 8] {
    let took =
        run.create_time.as_ref().zip(run.end_time.as_ref()).map(|(from, to)| format::between(from, to));
    [
        run.run_id.clone(),
        run.workflow.clone(),
        format::state(run_state(run.state).as_str_name()).to_owned(),
        format!("{}/{}", run.steps_done, run.steps_total),
        run.create_time.as_ref().map(|time| format::relative(time, now)).unwrap_or_default(),
        took.map_or_else(|| format::NOTHING.to_owned(), format::span),
        format::money(run.spent.as_ref()),
        run.state_reason.clone(),
    ]
}
