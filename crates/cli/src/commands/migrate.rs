//! `longtake migrate`.

use clap::Args;
use longtake_orchestrator::Schema;
use serde_json::json;

use crate::args::Global;
use crate::exit::{Ended, Exit};
use crate::{format, output};

/// `longtake migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The database: a postgresql:// URL.
    #[arg(long, env = "LONGTAKE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Take the schema down to this version instead; 0 removes everything that is stored.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    down_to: Option<i64>,
    /// Change nothing, and say where the schema stands and who may serve on it.
    #[arg(long, conflicts_with = "down_to")]
    status: bool,
}

pub(super) async fn execute(args: MigrateArgs, global: &Global) -> anyhow::Result<Exit> {
    let Some(url) = args.database_url else {
        return Err(Ended::usage(
            "migrate needs a database: name it with --database-url postgresql://… or LONGTAKE_DATABASE_URL",
        ));
    };
    let (schema, done) = match args.down_to {
        _ if args.status => (longtake_orchestrator::schema(&url).await?, None),
        Some(version) => (longtake_orchestrator::migrate_down(&url, version).await?, Some("is down to")),
        None => (longtake_orchestrator::migrate(&url).await?, Some("is up to date, at")),
    };
    if let Some(done) = done {
        output::note(&format!("The schema {done} version {}.", schema.version));
    }
    if global.json {
        output::json_value(&document(&schema))?;
    } else if args.status {
        output::pairs(&pairs(&schema))?;
    }
    Ok(Exit::Done)
}

fn document(schema: &Schema) -> serde_json::Value {
    json!({
        "version": schema.version,
        "newest": schema.newest,
        "oldestBinary": schema.oldest_binary,
        "binary": schema.binary,
    })
}

fn pairs(schema: &Schema) -> [(String, String); 4] {
    let oldest = schema.oldest_binary.clone().unwrap_or_else(|| format::NOTHING.to_owned());
    let version = match schema.version {
        0 => "0 (there is no schema)".to_owned(),
        version => version.to_string(),
    };
    [
        ("version", version),
        ("newest known", schema.newest.to_string()),
        ("oldest binary that may serve", oldest),
        ("this binary", schema.binary.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}
