//! `longtake dev`.

use std::net::SocketAddr;
use std::path::Path;

use clap::Args;
use serde_json::json;

use super::serve::{HttpListen, parse_http_listen};
use crate::args::Global;
use crate::exit::Exit;
use crate::signals::Stop;
use crate::stack::{Notice, Stack, StackArgs, StackOptions};
use crate::{format, output, worker};

/// `longtake dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    stack: StackArgs,
    /// Where gRPC listens.
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
}

pub(super) async fn execute(args: DevArgs, global: &Global) -> anyhow::Result<Exit> {
    let options = StackOptions {
        grpc_listen: Some(args.grpc_listen),
        http_listen: args.http_listen,
        quiet: false,
        ..args.stack.options()
    };
    let stop = Stop::on_signals()?;
    let problems = worker::problems(&options.media(), &worker::QUEUES).await;
    for problem in problems {
        output::note(&format!("warning: {problem}"));
    }
    let mut stack = match Stack::start(options.clone(), &stop).await {
        Ok(stack) => stack,
        Err(_) if stop.gently.is_cancelled() => return Ok(Exit::Interrupted),
        Err(error) => return Err(error),
    };
    if global.json {
        print_json(&stack, &options)?;
    } else {
        print(&stack, &options)?;
    }
    while let Some(notice) = tokio::select! {
        notice = stack.next_notice() => notice,
        () = stop.gently.cancelled() => None,
    } {
        show(notice);
    }
    output::note("Stopping; Ctrl-C again kills what is left.");
    stack.stop(show).await?;
    output::note("Stopped. Unfinished runs go on at the next start.");
    Ok(Exit::Done)
}

fn show(notice: Notice) {
    match notice {
        Notice::Logged { part, line } => output::note(&format!("{part:<8} | {}", output::printable(&line))),
        Notice::Started { .. } | Notice::Restarting { .. } => output::note(&notice.to_string()),
    }
}

fn print(stack: &Stack, options: &StackOptions) -> std::io::Result<()> {
    let http =
        options.http_listen.map_or_else(|| "off".to_owned(), |address| format!("http://{address}/readyz"));
    let database = match &options.database_url {
        Some(_) => "the one that was named".to_owned(),
        None => stack.database_url.clone(),
    };
    let executors = format!("{}, {} slots each, a process each", options.queues.join(" "), options.slots);
    let pairs = [
        ("gRPC", stack.url.to_string()),
        ("HTTP", http),
        ("database", database),
        ("artifacts", options.artifacts.clone()),
        ("workflows", stack.workflows.display().to_string()),
        ("executors", executors),
        ("kept in", format!("{} (remove it to begin afresh)", stack.data_dir.display())),
    ];
    let longtake = format!("{}{}", format::program(), stack.url.flag());
    let grpcurl = grpcurl(&stack.data_dir);
    output::line("Longtake is up. Ctrl-C stops it.\n")?;
    output::pairs(&pairs.map(|(name, value)| (name.to_owned(), value)))?;
    output::line(&format!(
        "\nTry, in another terminal:\n  \
         {longtake} submit \"How do plants turn light into sugar?\" --wait\n  \
         {longtake} list\n  \
         {grpcurl} -plaintext {} list\n",
        stack.url.authority()
    ))
}

/// Where grpcurl is: on PATH, or where `bin/setup` puts it.
fn grpcurl(data_dir: &Path) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = data_dir.join("tools/bin/grpcurl");
    let on_path = std::env::split_paths(&path).any(|folder| folder.join("grpcurl").is_file());
    if !on_path && own.is_file() { format::quoted(&own.display().to_string()) } else { "grpcurl".to_owned() }
}

fn print_json(stack: &Stack, options: &StackOptions) -> std::io::Result<()> {
    output::json_value(&json!({
        "grpc": stack.url.to_string(),
        "http": options.http_listen.map(|address| format!("http://{address}")),
        "databaseUrl": stack.database_url,
        "artifacts": options.artifacts,
        "workflows": stack.workflows,
        "dataDir": stack.data_dir,
        "queues": options.queues,
        "slots": options.slots,
        "startTime": format::moment(&format::now()),
    }))
}
