//! A call that was not answered with OK: what happened, to what, and what to do.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::exit::Exit;
use crate::format;

/// A refused or failed call.
#[derive(Debug)]
pub(crate) struct CallFailed {
    /// What was tried: "submit", "read run 0192…".
    doing: String,
    status: Status,
}

impl CallFailed {
    /// `status` is how the server, or the way to it, answered when we tried `doing`.
    pub(crate) fn new(doing: impl Into<String>, status: Status) -> CallFailed {
        CallFailed { doing: doing.into(), status }
    }

    /// What it means for a script.
    pub(crate) fn exit(&self) -> Exit {
        if broken_way(&self.status) { Exit::Unavailable } else { Exit::of_code(self.status.code()) }
    }

    /// What was answered, in a few words.
    pub(crate) fn reason(&self) -> String {
        match (self.status.message(), innermost(&self.status)) {
            (_, Some(cause)) => format!("the connection to the server broke ({cause})"),
            ("", None) => self.status.code().to_string(),
            (message, None) => message.to_owned(),
        }
    }

    /// Whether asking again, perhaps another server, can help.
    pub(crate) fn is_passing(&self) -> bool {
        self.exit() == Exit::Unavailable
    }
}

/// Whether no server answered: the connection broke, or there was none.
fn broken_way(status: &Status) -> bool {
    status.code() == Code::Unavailable || status.source().is_some()
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = self.status.get_error_details();
        let bad = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        let reason = self.reason();
        // Where the message says them all, they are said once, one per line.
        let said = !bad.is_empty() && bad.iter().all(|violation| reason.contains(&violation.description));
        write!(f, "cannot {}: {}", self.doing, if said { "these fields are refused" } else { &reason })?;
        for violation in bad {
            write!(f, "\n  {}: {}", violation.field, violation.description)?;
        }
        for violation in details.precondition_failure().iter().flat_map(|failure| &failure.violations) {
            write!(f, "\n  {}: {}", violation.subject, violation.description)?;
        }
        if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
            write!(f, "\n  try again in {}", format::span(delay))?;
        }
        if let Some(info) = details.error_info() {
            write!(f, "\n  ({})", info.reason)?;
        }
        Ok(())
    }
}

/// What broke the connection, in the words of whoever noticed first.
fn innermost(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

impl Error for CallFailed {}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_names_every_field_and_its_bound() {
        let mut details = ErrorDetails::new();
        details
            .add_bad_request_violation("student_query", "5 to 500 characters; it has 3")
            .add_bad_request_violation("grade_level", "1 to 12; it is 40")
            .set_error_info("FIELD_INVALID", "longtake", [("fields".to_owned(), "2".to_owned())])
            .set_retry_info(Some(std::time::Duration::from_secs(2)));
        let status = Status::with_error_details(Code::InvalidArgument, "2 fields are out of bounds", details);
        let failed = CallFailed::new("submit", status);
        assert_eq!(
            failed.to_string(),
            "cannot submit: 2 fields are out of bounds\n  \
             student_query: 5 to 500 characters; it has 3\n  \
             grade_level: 1 to 12; it is 40\n  \
             try again in 2.0 s\n  \
             (FIELD_INVALID)"
        );
        assert_eq!((failed.exit(), failed.is_passing()), (Exit::Refused, false));
    }

    #[test]
    fn a_broken_connection_is_worth_another_try() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let failed = CallFailed::new("list runs", Status::from_error(Box::new(refused)));
        assert!(failed.is_passing(), "{failed:?}");
        assert_eq!(
            failed.to_string(),
            "cannot list runs: the connection to the server broke (connection refused)"
        );
        let stopping = CallFailed::new("list runs", Status::unavailable("the server is stopping"));
        assert_eq!(stopping.to_string(), "cannot list runs: the server is stopping");
        assert!(stopping.is_passing());
    }

    #[test]
    fn an_empty_message_is_its_code() {
        let failed = CallFailed::new("read run 7", Status::new(Code::Unimplemented, ""));
        assert!(failed.to_string().starts_with("cannot read run 7: "), "{failed}");
        assert_eq!(failed.exit(), Exit::Fault);
    }
}
