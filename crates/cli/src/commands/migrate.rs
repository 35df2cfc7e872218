//! `longtake migrate`.

use clap::Args;

use crate::exit::{Ended, Exit};
use crate::output;

/// `longtake migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The database: a postgresql:// URL.
    #[arg(long, env = "LONGTAKE_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Take the schema down to this version instead; 0 removes everything that is stored.
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i64).range(0..))]
    down_to: Option<i64>,
}

pub(super) async fn execute(args: MigrateArgs) -> anyhow::Result<Exit> {
    let Some(url) = args.database_url else {
        return Err(Ended::usage(
            "migrate needs a database: name it with --database-url postgresql://… or LONGTAKE_DATABASE_URL",
        ));
    };
    match args.down_to {
        Some(version) => {
            longtake_orchestrator::migrate_down(&url, version).await?;
            output::note(&format!("The schema is down to version {version}."));
        }
        None => {
            longtake_orchestrator::migrate(&url).await?;
            output::note("The schema is up to date.");
        }
    }
    Ok(Exit::Done)
}
