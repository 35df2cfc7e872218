//! The schema and the binaries that may serve on it.
//!
//! Binaries n and n − 1 run side by side: a newer schema is no reason to refuse. Each migration records the oldest binary that
//! still understands what it leaves behind, and only a binary older than that is turned away.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::error::Error;

/// This binary's own release.
const BINARY: &str = env!("CARGO_PKG_VERSION");
const DOING: &str = "migrating the schema";

/// Where a database's schema stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The last migration that was applied; 0 when there is none.
    pub version: i64,
    /// The newest one that this binary knows.
    pub newest: i64,
    /// The oldest release that may serve on it; none when there is no schema.
    pub oldest_binary: Option<String>,
    /// This binary's own release.
    pub binary: &'static str,
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("../../migrations");
    // A newer binary may have been here.
    migrator.set_ignore_missing(true);
    migrator
}

/// The newest schema that this binary knows.
fn newest() -> i64 {
    migrator().iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Applies what is missing. Several processes may do this at once: they wait for each other.
pub(crate) async fn migrate(options: &PgConnectOptions) -> Result<(), Error> {
    let pool = connect(options).await?;
    let done = migrator().run(&pool).await.map_err(|error| failed(&error));
    // The connection's end releases the advisory lock, whatever happened.
    pool.close().await;
    done
}

/// Takes migrations newer than `target` back; 0 leaves nothing, and loses all that is stored.
pub(crate) async fn migrate_down(options: &PgConnectOptions, target: i64) -> Result<(), Error> {
    let pool = connect(options).await?;
    let done = undo(&pool, target).await;
    pool.close().await;
    done
}

async fn undo(pool: &PgPool, target: i64) -> Result<(), Error> {
    let Schema { version, newest, .. } = read(pool).await?;
    if target > version {
        return Err(Error::Refused(format!(
            "the database's schema is at version {version}: it cannot be taken down to {target}"
        )));
    }
    if version > newest {
        return Err(Error::Refused(format!(
            "the database's schema is at version {version}, and this binary knows none above {newest}: take it down with \
             the release that brought it there"
        )));
    }
    migrator().undo(pool, target).await.map_err(|error| failed(&error))
}

/// One connection, without the limits of others: a migration takes as long as it takes.
async fn connect(options: &PgConnectOptions) -> Result<PgPool, Error> {
    let options = options.clone().application_name("longtake migration");
    PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .map_err(|error| Error::new(DOING, &error))
}

fn failed(error: &MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Error::new(DOING, error),
        // These speak of version numbers only.
        other => Error::Refused(format!("{DOING}: {other}")),
    }
}

/// Refuses a schema that this binary cannot serve on: one that is not there yet, or that excludes it.
pub(crate) async fn check(pool: &PgPool) -> Result<(), Error> {
    judge(&stored(pool).await?, newest(), BINARY)
}

/// Where the schema stands.
pub(crate) async fn read(pool: &PgPool) -> Result<Schema, Error> {
    let stored = stored(pool).await?;
    let oldest_binary = oldest_binary(&stored).map(str::to_owned);
    Ok(Schema { version: version(&stored), newest: newest(), oldest_binary, binary: BINARY })
}

/// Each migration that was applied, with the oldest release that may serve after it.
async fn stored(pool: &PgPool) -> Result<Vec<(i32, String)>, Error> {
    const DOING: &str = "reading the schema's version";
    let there: bool = sqlx::query_scalar("select to_regclass('schema_version') is not null")
        .fetch_one(pool)
        .await
        .map_err(|error| Error::new(DOING, &error))?;
    if !there {
        return Ok(Vec::new());
    }
    sqlx::query_as("select version, oldest_binary from schema_version order by version")
        .fetch_all(pool)
        .await
        .map_err(|error| Error::new(DOING, &error))
}

fn version(stored: &[(i32, String)]) -> i64 {
    stored.iter().map(|(version, _)| i64::from(*version)).max().unwrap_or_default()
}

fn oldest_binary(stored: &[(i32, String)]) -> Option<&str> {
    stored.iter().map(|(_, oldest)| oldest.as_str()).max_by_key(|oldest| release(oldest))
}

fn judge(stored: &[(i32, String)], known: i64, binary: &str) -> Result<(), Error> {
    let version = version(stored);
    if version < known {
        return Err(Error::Refused(format!(
            "the database's schema is at version {version} and this binary needs {known}: run its migrations first"
        )));
    }
    match oldest_binary(stored).filter(|oldest| release(oldest) > release(binary)) {
        None => Ok(()),
        Some(oldest) => Err(Error::Refused(format!(
            "the database's schema is at version {version}, which releases older than {oldest} cannot serve, and this \
             binary is {binary}: start a newer one"
        ))),
    }
}

/// A release's numbers; what follows them is ignored.
fn release(text: &str) -> [u64; 3] {
    let mut numbers = [0; 3];
    for (number, part) in numbers.iter_mut().zip(text.split(['.', '-', '+'])) {
        *number = part.parse().unwrap_or_default();
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_schema_that_excludes_the_binary_is_refused() {
        let one = (1, "0.1.0".to_owned());
        for (stored, known, binary, refused) in [
            (vec![one.clone()], 1, "0.1.0", None),
            (vec![one.clone()], 1, "1.0.0-rc.1", None),
            (vec![], 1, "0.1.0", Some("needs 1")),
            (vec![one.clone()], 2, "0.2.0", Some("needs 2")),
            (vec![one.clone(), (2, "0.1.0".to_owned())], 1, "0.1.9", None),
            (vec![one.clone(), (2, "0.2.0".to_owned())], 1, "0.1.9", Some("older than 0.2.0")),
            (vec![one.clone(), (2, "0.9.0".to_owned())], 1, "0.10.0", None),
            (vec![one, (2, "0.10.0".to_owned())], 1, "0.9.0", Some("older than 0.10.0")),
        ] {
            match (judge(&stored, known, binary), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(said)) => assert!(error.to_string().contains(said), "{error}"),
                (judged, _) => panic!("{stored:?}, {binary}: {judged:?}"),
            }
        }
    }
}
