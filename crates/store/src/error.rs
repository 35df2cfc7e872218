//! What can go wrong with the database, by what it means.

use std::fmt;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// The database did not do what was asked. No message carries the text of a statement or a stored value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another writer was in the way; trying again may help.
    #[error("{doing}: another writer was in the way ({answer}); try again")]
    Conflict {
        /// What was being done.
        doing: &'static str,
        /// What the database said.
        answer: Answer,
    },
    /// The database cannot be reached, or cannot work at the moment.
    #[error("{doing}: the database does not answer ({answer}); trying again helps once it does")]
    Outage {
        /// What was being done.
        doing: &'static str,
        /// What the database, or the network, said.
        answer: Answer,
    },
    /// The database will not do this however often it is asked: its schema, its settings, or what was asked are wrong.
    #[error("{0}")]
    Refused(String),
}

/// What the database said, without the text of statements and without stored values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer(String);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known of a statement that ended with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not done, and asking again gives the same answer.
    Refused,
    /// Not done because of other writers; asking again may help.
    Conflict,
    /// Not done, because it took too long or too much.
    Late,
    /// Not done, because the connection's prepared statements are of no use any more; a new connection helps.
    Stale,
    /// Not done, because the database cannot write at the moment: it is read-only, or its disk is full.
    Passing,
    /// Nobody knows whether it was done.
    Unknown,
}

/// What `error` says of the statement that it ended.
pub(crate) fn outcome(error: &sqlx::Error) -> Outcome {
    let sqlx::Error::Database(database) = error else {
        return match error {
            // Nothing was sent.
            sqlx::Error::Encode(_) | sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
                Outcome::Refused
            }
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Outcome::Late,
            _ => Outcome::Unknown,
        };
    };
    let severity = database.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    // An ERROR rolls the statement back. FATAL ends the connection, perhaps after the commit.
    if matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic)) {
        return Outcome::Unknown;
    }
    match database.code().unwrap_or_default().as_ref() {
        "57P01" | "57P02" | "57P03" => Outcome::Unknown,
        code if code.starts_with("08") => Outcome::Unknown,
        "25006" | "53100" => Outcome::Passing,
        "0A000" | "26000" => Outcome::Stale,
        "55P03" | "57014" => Outcome::Late,
        code if code.starts_with("53") || code.starts_with("58") => Outcome::Late,
        "23505" => Outcome::Conflict,
        code if code.starts_with("40") => Outcome::Conflict,
        _ => Outcome::Refused,
    }
}

impl Error {
    /// What `error` means when it came while `doing` something.
    pub(crate) fn new(doing: &'static str, error: &sqlx::Error) -> Error {
        let answer = Answer::of(error);
        match outcome(error) {
            Outcome::Conflict => Error::Conflict { doing, answer },
            Outcome::Late | Outcome::Stale | Outcome::Passing | Outcome::Unknown => {
                Error::Outage { doing, answer }
            }
            Outcome::Refused => {
                let missing = matches!(code(error).as_deref(), Some("42P01" | "42703" | "3F000"));
                let hint = if missing {
                    ": the schema is missing or older than this binary; run its migrations"
                } else {
                    ""
                };
                Error::Refused(format!("{doing}: the database refused ({answer}){hint}"))
            }
        }
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

impl Answer {
    /// The part of an error that may stand in a log.
    pub(crate) fn of(error: &sqlx::Error) -> Answer {
        let Some(database) = error.as_database_error() else {
            return Answer(match error {
                sqlx::Error::Io(error) => error.to_string(),
                sqlx::Error::Tls(_) => "TLS could not be set up".to_owned(),
                sqlx::Error::PoolTimedOut => "no connection became free in time".to_owned(),
                sqlx::Error::Configuration(_) => "the connection is not configured well".to_owned(),
                sqlx::Error::Encode(error) => format!("a value cannot be sent: {error}"),
                _ => "the connection broke".to_owned(),
            });
        };
        let mut text = format!("SQLSTATE {}", database.code().unwrap_or_default());
        let place = [("constraint", database.constraint()), ("table", database.table())];
        for (what, name) in place.into_iter().filter_map(|(what, name)| Some((what, name?))) {
            text.push_str(&format!(", {what} {name}"));
        }
        // Messages of these classes speak of the server, never of a statement or a value.
        let speaks_of_server = ["08", "28", "3D", "53", "57", "58"];
        if database.code().is_some_and(|code| speaks_of_server.iter().any(|class| code.starts_with(class))) {
            text.push_str(&format!(": {}", database.message()));
        }
        Answer(text)
    }
}
