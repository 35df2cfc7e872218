//! `longtake events`.

use clap::Args;
use longtake_proto::v1::{ListRunEventsRequest, ListRunEventsResponse};

use crate::args::{Global, RunArg};
use crate::call::CallFailed;
use crate::connect::Server;
use crate::exit::Exit;
use crate::progress::{sentence, subject};
use crate::{format, output};

/// The largest page that a server gives.
const PAGE: i32 = 1_000;

/// `longtake events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    run: RunArg,
    /// Only events after this number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
}

pub(super) async fn execute(args: EventsArgs, global: &Global) -> anyhow::Result<Exit> {
    let server = Server::connect(&global.server).await?;
    let mut all = ListRunEventsResponse::default();
    loop {
        let request = ListRunEventsRequest {
            run_id: args.run.id(),
            page_size: PAGE,
            page_token: std::mem::take(&mut all.next_page_token),
            after_event: args.after,
        };
        let page = server.runs().list_run_events(request).await;
        let doing = || format!("list the events of run {}", args.run.id());
        let page = page.map_err(|status| CallFailed::new(doing(), status))?.into_inner();
        all.events.extend(page.events);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            break;
        }
    }
    if global.json {
        output::json(&all)?;
        return Ok(Exit::Done);
    }
    let row = |event: &longtake_proto::v1::Event| {
        let kind = event.kind.as_ref();
        [
            event.number.to_string(),
            event
                .time
                .as_ref()
                .map(|time| format!("{} {}", date(time), format::clock(time)))
                .unwrap_or_default(),
            kind.map(subject).unwrap_or_default().to_owned(),
            kind.map_or_else(|| "an event that this program does not know".to_owned(), sentence),
        ]
    };
    let rows: Vec<_> = all.events.iter().map(row).collect();
    output::table(["EVENT", "TIME (UTC)", "OF", "WHAT"], &rows)?;
    Ok(Exit::Done)
}

fn date(time: &prost_types::Timestamp) -> String {
    format::moment(time).split(' ').next().unwrap_or_default().to_owned()
}
