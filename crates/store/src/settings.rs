//! Whether a server keeps what it acknowledges.

use sqlx::postgres::PgPool;

use crate::error::Error;

/// The oldest server that is supported, as `server_version_num` counts.
const OLDEST_SERVER: i64 = 150_000;

/// What has to be set, and what is said when it is not.
const RULES: [(&str, &[&str], &str); 5] = [
    ("fsync", &["on"], "a crash would damage the database"),
    ("full_page_writes", &["on"], "a crash would damage the database"),
    ("synchronous_commit", &["on", "remote_apply"], "acknowledged work could be lost in a crash"),
    ("data_sync_retry", &["off"], "a write that failed could be taken for one that did not"),
    ("server_encoding", &["UTF8"], "texts could not be stored"),
];

/// Refuses a server that could lose what it acknowledged, with everything that is wrong at once.
pub(crate) async fn check(pool: &PgPool) -> Result<(), Error> {
    const SETTINGS: &str = "
        select name, setting from pg_settings
        where name in ('fsync', 'full_page_writes', 'synchronous_commit', 'data_sync_retry', 'server_encoding', \
        'server_version_num')";
    let settings: Vec<(String, String)> = sqlx::query_as(SETTINGS)
        .fetch_all(pool)
        .await
        .map_err(|error| Error::new("reading the database's settings", &error))?;
    let problems = problems(&settings);
    if problems.is_empty() { Ok(()) } else { Err(Error::Refused(problems.join("; "))) }
}

fn problems(settings: &[(String, String)]) -> Vec<String> {
    let setting =
        |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut problems = Vec::new();
    let version = setting("server_version_num").and_then(|text| text.parse::<i64>().ok()).unwrap_or_default();
    if version < OLDEST_SERVER {
        problems.push(format!("the database is PostgreSQL {}: 15 or newer is needed", version / 10_000));
    }
    for (name, allowed, harm) in RULES {
        // A setting that this server does not have cannot be wrong.
        if let Some(value) = setting(name).filter(|value| !allowed.contains(value)) {
            problems.push(format!(
                "the database has {name} = {value}: {harm}; set it to {}",
                allowed.join(" or ")
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_durable_server_is_accepted() {
        let good = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("data_sync_retry", "off"),
            ("server_encoding", "UTF8"),
            ("server_version_num", "150018"),
        ];
        for (name, value, said) in [
            ("fsync", "on", None),
            ("synchronous_commit", "remote_apply", None),
            ("server_version_num", "180001", None),
            ("fsync", "off", Some("fsync = off")),
            ("full_page_writes", "off", Some("full_page_writes = off")),
            ("synchronous_commit", "off", Some("synchronous_commit = off")),
            ("synchronous_commit", "local", Some("synchronous_commit = local")),
            ("synchronous_commit", "remote_write", Some("synchronous_commit = remote_write")),
            ("data_sync_retry", "on", Some("data_sync_retry = on")),
            ("server_encoding", "SQL_ASCII", Some("server_encoding = SQL_ASCII")),
            ("server_version_num", "140012", Some("PostgreSQL 14")),
        ] {
            let settings = good.map(|(known, usual)| {
                (known.to_owned(), if known == name { value } else { usual }.to_owned())
            });
            let problems = problems(&settings);
            match said {
                None => assert!(problems.is_empty(), "{name} = {value}: {problems:?}"),
                Some(said) => assert!(
                    problems.len() == 1 && problems[0].contains(said),
                    "{name} = {value}: {problems:?}"
                ),
            }
        }
    }
}
