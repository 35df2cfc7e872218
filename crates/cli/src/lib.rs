//! The Longtake command line: one binary for every role.
//!
//! `main` parses the command line ([`args`]), sets up [`telemetry`], and hands over to one file in [`commands`] per command. Clients
//! talk to a server through [`connect`]; [`attend`] follows a run over [`follow`] and shows it with [`progress`]; [`stack`] starts the
//! whole system on this machine over [`postgres`]. Only [`output`] writes to standard output, and every way to end has its code in
//! [`exit`].

mod args;
mod attend;
mod call;
mod commands;
mod connect;
mod content_args;
mod exit;
mod follow;
mod format;
mod json;
mod output;
pub mod postgres;
mod progress;
mod report;
mod results;
mod signals;
mod stack;
mod telemetry;
mod worker;

use std::io;
use std::process::ExitCode;

use clap::Parser as _;

use args::Cli;
use exit::Exit;
use telemetry::Telemetry;
use tracing::Instrument as _;

/// The whole program.
pub fn main() -> ExitCode {
    // Before anything opens a TLS connection: reqwest and object_store look for it. Somebody else's is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::from(error).context("cannot start threads")).into(),
    };
    let telemetry = {
        let _inside = runtime.enter();
        let Cli { global, command } = &cli;
        Telemetry::set_up(global.log.as_deref(), command.default_log(), global.log_format, command.role())
    };
    let span = cli.command.span();
    let executed = runtime.block_on(cli.command.execute(&cli.global).instrument(span));
    let exit = executed.unwrap_or_else(|error| fail(&error));
    telemetry.shut_down();
    // What is still running, such as a thread that reads standard input, must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}

fn fail(error: &anyhow::Error) -> Exit {
    // Whoever read our output has seen enough, as in `longtake list | head -1`.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return Exit::Done;
    }
    output::note(&format!("error: {error:#}"));
    Exit::of_error(error)
}
