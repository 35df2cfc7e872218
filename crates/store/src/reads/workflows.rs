//! Stored definitions.

use longtake_engine::definition::Version;
use longtake_engine::time::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::Error;
use crate::rows::unreadable;
use crate::stamp::Stamp;

use super::Reads;

/// The version of a workflow that new runs use.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentWorkflow {
    /// The workflow's name.
    pub name: String,
    /// The version.
    pub version: Version,
    /// When the version was first loaded.
    pub loaded_at: Timestamp,
}

impl Reads {
    /// Stores a definition, unless it is stored, and makes it what new runs of that name use. Returns when it was first loaded.
    pub async fn save_workflow(
        &self,
        version: &Version,
        name: &str,
        source: &str,
    ) -> Result<Timestamp, Error> {
        // The conflict's update changes nothing: it is there for the row that it returns.
        const SAVE: &str = "
            with saved as (
                insert into workflow (version, name, source) values ($1::bytea, $2::text, $3::text)
                on conflict (version) do update set name = workflow.name
                returning loaded_at
            ),
            used as (
                insert into current_workflow (name, version) values ($2::text, $1::bytea)
                on conflict (name) do update set version = excluded.version
                where current_workflow.version <> excluded.version
            )
            select loaded_at from saved";
        let statement = sqlx::query_scalar(SAVE).bind(&version.as_bytes()[..]).bind(name).bind(source);
        // All rows: only at the end of the answer is it committed.
        let rows: Vec<Stamp> = statement
            .fetch_all(&self.pool)
            .await
            .map_err(|error| Error::new("storing a workflow", &error))?;
        let missing = || Error::new("storing a workflow", &sqlx::Error::RowNotFound);
        rows.first().map(|at| at.0).ok_or_else(missing)
    }

    /// The text of a version, if it was ever stored.
    pub async fn workflow_source(&self, version: &Version) -> Result<Option<String>, Error> {
        let statement = sqlx::query_scalar("select source from workflow where version = $1::bytea");
        let source = statement.bind(&version.as_bytes()[..]).fetch_optional(&self.pool).await;
        source.map_err(|error| Error::new("reading a workflow", &error))
    }

    /// What new runs use, by name.
    pub async fn current_workflows(&self) -> Result<Vec<CurrentWorkflow>, Error> {
        const CURRENT: &str = "
            select c.name, c.version, w.loaded_at
            from current_workflow as c join workflow as w using (version)
            order by c.name";
        let row = |row: &PgRow| -> Result<CurrentWorkflow, sqlx::Error> {
            let version: &[u8] = row.try_get(1)?;
            let version = version.try_into().map_err(|_| unreadable("a workflow's version"))?;
            let loaded_at: Stamp = row.try_get(2)?;
            Ok(CurrentWorkflow {
                name: row.try_get(0)?,
                version: Version::from_bytes(version),
                loaded_at: loaded_at.0,
            })
        };
        let rows = sqlx::query(CURRENT).fetch_all(&self.pool).await;
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.map_err(|error| Error::new("reading workflows", &error))
    }
}
