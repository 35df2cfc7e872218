//! How the program ends: one small set of exit codes that scripts can use.

use std::fmt;
use std::process::ExitCode;

use longtake_orchestrator::ServeError;
use tonic::Code;

use crate::call::CallFailed;

/// Shown at the end of `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
    0  done
    1  the run FAILED, TIMED_OUT or was CANCELLED (run, watch, submit --wait), or a check found something missing
    2  the command line is wrong
    3  there is no such run, workflow or step
    4  the server or the database cannot be reached, or has too much to do
    5  refused: invalid, exists already, or does not fit the state that the run is in
    6  anything else; the message says what
  130  interrupted

Every flag that configures something is also read from the environment: --server from LONGTAKE_SERVER, and so on.
A switch is off when its variable is empty, 0, n, no, f, false or off, and on when it is anything else.";

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// The run ended otherwise than SUCCEEDED.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Nobody to talk to: worth trying again.
    Unavailable = 4,
    /// Trying again will not help.
    Refused = 5,
    /// Everything else.
    Fault = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

impl Exit {
    /// What a server's answer means for a script.
    pub(crate) fn of_code(code: Code) -> Exit {
        match code {
            Code::NotFound => Exit::NotFound,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => Exit::Unavailable,
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Aborted
            | Code::PermissionDenied
            | Code::Unauthenticated => Exit::Refused,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Exit::Fault,
        }
    }

    /// What an error means for a script.
    pub(crate) fn of_error(error: &anyhow::Error) -> Exit {
        if let Some(Ended { exit, .. }) = error.downcast_ref() {
            return *exit;
        }
        if let Some(error) = error.downcast_ref::<ServeError>() {
            return match () {
                () if error.is_outage() => Exit::Unavailable,
                () if error.is_refusal() => Exit::Refused,
                () => Exit::Fault,
            };
        }
        error.downcast_ref::<CallFailed>().map_or(Exit::Fault, CallFailed::exit)
    }
}

/// An error that knows its exit code.
#[derive(Debug)]
pub(crate) struct Ended {
    exit: Exit,
    message: String,
}

impl Ended {
    /// The command line makes no sense, in a way that only running it could tell.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Ended { exit: Exit::Usage, message: message.into() }.into()
    }

    /// What was asked for cannot be done, however often it is tried.
    pub(crate) fn refused(message: impl Into<String>) -> anyhow::Error {
        Ended { exit: Exit::Refused, message: message.into() }.into()
    }

    /// Somebody cannot be reached.
    pub(crate) fn unavailable(message: impl Into<String>) -> anyhow::Error {
        Ended { exit: Exit::Unavailable, message: message.into() }.into()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_keep_their_code_below_a_context() {
        let missing = || CallFailed::new("read run 1", tonic::Status::not_found("no run 1"));
        for (error, exit) in [
            (missing().into(), Exit::NotFound),
            (Err::<(), _>(missing()).context("while watching").unwrap_err(), Exit::NotFound),
            (CallFailed::new("x", tonic::Status::failed_precondition("ended")).into(), Exit::Refused),
            (CallFailed::new("x", tonic::Status::resource_exhausted("busy")).into(), Exit::Unavailable),
            (Ended::usage("what?"), Exit::Usage),
            (Ended::refused("that is empty"), Exit::Refused),
            (Ended::unavailable("nobody").context("more"), Exit::Unavailable),
            (anyhow::anyhow!("else"), Exit::Fault),
        ] {
            assert_eq!(Exit::of_error(&error), exit, "{error:#}");
        }
    }

    #[test]
    fn the_help_names_every_code() {
        use Exit::*;
        for exit in [Done, Failed, Usage, NotFound, Unavailable, Refused, Fault, Interrupted] {
            let number = (exit as u8).to_string();
            assert!(
                HELP.lines().any(|line| line.trim_start().starts_with(&format!("{number}  "))),
                "{exit:?}"
            );
        }
    }
}
