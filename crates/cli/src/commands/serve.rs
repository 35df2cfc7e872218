//! `longtake serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use longtake_orchestrator::Config;

use crate::exit::{Ended, Exit};
use crate::format::parse_span;
use crate::signals::Stop;

/// `longtake serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The database: a postgresql:// URL.
    #[arg(long, env = "LONGTAKE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Where gRPC listens; port 0 takes a free one.
    #[arg(long, env = "LONGTAKE_GRPC_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    grpc_listen: SocketAddr,
    /// Where HTTP listens, for /healthz and /readyz; `off` for nowhere.
    #[arg(
        long,
        env = "LONGTAKE_HTTP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080",
        value_parser = parse_http_listen
    )]
    http_listen: HttpListen,
    /// The folder of workflow definitions.
    #[arg(long, env = "LONGTAKE_WORKFLOWS", value_name = "DIR", default_value = "workflows")]
    workflows: PathBuf,
    /// How long runs are kept after they ended, such as 30d; `off` keeps them for ever.
    ///
    /// Then they are removed with all that belongs to them, and their request ids may be used again; stored artifacts are not
    /// touched. A run that has not ended is never removed. Say the same to every server on a database; its user has to own the
    /// tables, as the one does that migrates.
    #[arg(
        long,
        env = "LONGTAKE_RETENTION",
        value_name = "SPAN",
        default_value = "30d",
        value_parser = parse_retention
    )]
    retention: Kept,
    /// Leave the schema as it is: `longtake migrate` is run on its own.
    #[arg(long, env = "LONGTAKE_NO_MIGRATE", value_parser = FalseyValueParser::new())]
    no_migrate: bool,
    /// The database was restored from a backup, or lost its last commits: end every session first.
    #[arg(long)]
    after_restore: bool,
    /// Drain when standard input ends: for a parent that holds it open.
    #[arg(long, hide = true)]
    while_input_is_open: bool,
}

/// How long runs are kept after they ended; absent for ever.
pub(crate) type Kept = Option<Duration>;

/// What is longer is no retention, and beyond the times that a database knows.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads a span, or `off`.
pub(crate) fn parse_retention(text: &str) -> Result<Kept, String> {
    match text {
        "off" => Ok(None),
        _ => match parse_span(text)? {
            span if span > LONGEST => {
                Err("more than a hundred years: write off to keep runs for ever".to_owned())
            }
            span => Ok(Some(span)),
        },
    }
}

/// Where HTTP listens, if it does.
pub(crate) type HttpListen = Option<SocketAddr>;

/// Reads an address, or `off`.
pub(crate) fn parse_http_listen(text: &str) -> Result<HttpListen, String> {
    match text {
        "off" => Ok(None),
        _ => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is no address: write for example 127.0.0.1:8080, or off")),
    }
}

pub(super) async fn execute(args: ServeArgs) -> anyhow::Result<Exit> {
    let Some(database_url) = args.database_url else {
        return Err(Ended::usage(
            "serve needs a database: name it with --database-url postgresql://… or LONGTAKE_DATABASE_URL; \
             `longtake dev` starts one of its own",
        ));
    };
    let config = Config {
        database_url,
        grpc_listen: args.grpc_listen,
        http_listen: args.http_listen,
        workflows: args.workflows,
        migrate: !args.no_migrate,
        after_restore: args.after_restore,
        retention: args.retention,
        ..Config::default()
    };
    let stop = Stop::on_signals()?;
    if args.while_input_is_open {
        stop.also_when_input_ends();
    }
    tokio::select! {
        served = longtake_orchestrator::serve(config, stop.gently.clone()) => {
            served.context("the server could not start, or broke")?;
            Ok(Exit::Done)
        }
        () = stop.now.cancelled() => Ok(Exit::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_a_span_or_off() {
        assert_eq!(parse_retention("off"), Ok(None));
        assert_eq!(parse_retention("30d"), Ok(Some(longtake_orchestrator::RETENTION)));
        assert_eq!(parse_retention("90s"), Ok(Some(Duration::from_secs(90))));
        for text in ["", "0s", "30", "never", "36501d"] {
            assert!(parse_retention(text).is_err(), "{text}");
        }
    }
}
