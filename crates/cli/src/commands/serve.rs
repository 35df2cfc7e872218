//! `longtake serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap::builder::FalseyValueParser;
use longtake_orchestrator::Config;

use crate::exit::{Ended, Exit};
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
