//! `longtake watch`.

use std::time::Duration;

use clap::Args;

use crate::args::{Global, RunArg};
use crate::attend::{Attend, Attended, exit_of, no_notes};
use crate::exit::Exit;
use crate::format::{self, parse_span};
use crate::progress::Style;
use crate::signals::Stop;
use crate::{output, report};

/// `longtake watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    run: RunArg,
    /// Show events after this number; all that happened so far when absent (from now on, on a terminal).
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// One line per event, on a terminal too.
    #[arg(long)]
    lines: bool,
    /// For how long to look for a server that has gone away.
    #[arg(long, env = "LONGTAKE_PATIENCE", value_name = "SPAN", default_value = "5m", value_parser = parse_span)]
    patience: Duration,
}

pub(super) async fn execute(args: WatchArgs, global: &Global) -> anyhow::Result<Exit> {
    let bars = !args.lines && args.after.is_none() && output::is_terminal() && output::notes_to_terminal();
    let style = match (global.json, bars) {
        (true, _) => Style::Json,
        (false, true) => Style::Bars,
        (false, false) => Style::Lines { to_output: true, all: true },
    };
    let stop = Stop::on_signals()?;
    let attend = Attend {
        urls: &global.server,
        run_id: &args.run.id(),
        style,
        after: if bars { None } else { Some(args.after.unwrap_or(0)) },
        patience: args.patience,
        stop: &stop,
    };
    match attend.to_end(no_notes()).await? {
        Attended::Detached => {
            output::note(&format!(
                "Detached; the run goes on. Look again with: {} watch {}",
                format::program(),
                attend.run_id
            ));
            Ok(Exit::Interrupted)
        }
        Attended::Ended(run) => {
            if bars {
                output::line(&report::ending(&run))?;
            }
            Ok(exit_of(&run))
        }
    }
}
