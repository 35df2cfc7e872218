//! The command line as a whole: what every command takes, and the values that several of them read.

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, ValueEnum};
use longtake_proto::v1::Modality;
use uuid::Uuid;

use crate::commands::Command;
use crate::connect::ServerUrl;
use crate::exit;
use crate::telemetry::LogFormat;

/// Longtake carries long renders through to their end: durable workflows over Postgres, gRPC and stateless executors.
#[derive(Debug, Parser)]
#[command(name = "longtake", version, after_help = exit::HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where the server is; with several, the first that can be reached.
    #[arg(
        long,
        global = true,
        env = "LONGTAKE_SERVER",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    pub(crate) server: Vec<ServerUrl>,
    /// Print data as JSON: one document, or one object per line for streams.
    #[arg(long, global = true, env = "LONGTAKE_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// What to log to standard error, such as `debug` or `info,longtake_store=trace`.
    #[arg(long, global = true, env = "LONGTAKE_LOG", value_name = "FILTER", hide_env_values = true)]
    pub(crate) log: Option<String>,
    /// How to log it.
    #[arg(
        long,
        global = true,
        env = "LONGTAKE_LOG_FORMAT",
        value_enum,
        default_value = "text",
        hide_possible_values = true,
        value_name = "text|json"
    )]
    pub(crate) log_format: LogFormat,
}

/// Which run.
#[derive(Debug, Args)]
pub(crate) struct RunArg {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: Uuid,
}

impl RunArg {
    /// As the contract has it.
    pub(crate) fn id(&self) -> String {
        self.run.to_string()
    }
}

/// An operator's call.
#[derive(Debug, Args)]
pub(crate) struct OperateArgs {
    #[command(flatten)]
    pub(crate) run: RunArg,
    /// The call's id: a repetition with the same one changes nothing. Made up when absent.
    #[arg(long, value_name = "UUID")]
    request_id: Option<Uuid>,
}

impl OperateArgs {
    /// The call's id.
    pub(crate) fn request_id(&self) -> String {
        self.request_id.unwrap_or_else(Uuid::now_v7).to_string()
    }
}

/// What can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModalityArg {
    /// Something to read.
    Text,
    /// Something to hear.
    Audio,
    /// Moving pictures.
    Video,
    /// Still pictures.
    Images,
}

impl From<ModalityArg> for Modality {
    fn from(modality: ModalityArg) -> Modality {
        match modality {
            ModalityArg::Text => Modality::Text,
            ModalityArg::Audio => Modality::Audio,
            ModalityArg::Video => Modality::Video,
            ModalityArg::Images => Modality::Images,
        }
    }
}

/// Reads `key=value`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no label: write key=value")),
    }
}

#[cfg(test)]
mod tests;
