//! What a verdict means for an executor.

use longtake_proto::v1;
use tonic::Code;

/// What a verdict means for the lease that it is about.
#[derive(Debug, PartialEq)]
pub(crate) enum Ruling {
    /// Accepted.
    Accepted,
    /// This attempt's own report was in before.
    Ended,
    /// The lease is gone: stop.
    Gone(String),
    /// What was sent cannot be taken as it is; the lease stands.
    Refused(Flaw, String),
    /// The server could not see to it: send it again.
    Again(String),
}

/// What is wrong with what was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    Checkpoint,
    Output,
    Error,
    Other,
}

impl Ruling {
    pub(crate) fn of(verdict: Option<&v1::Verdict>) -> Ruling {
        use v1::Reason;
        let Some(verdict) = verdict else { return Ruling::Accepted };
        let message = || verdict.message.clone();
        let Ok(reason) = Reason::try_from(verdict.reason) else { return Ruling::by_code(verdict) };
        match reason {
            Reason::LeaseEnded => Ruling::Ended,
            Reason::LeaseSuperseded => Ruling::Gone(format!("LEASE_SUPERSEDED: {}", verdict.message)),
            Reason::LeaseUnknown => Ruling::Gone(format!("LEASE_UNKNOWN: {}", verdict.message)),
            Reason::RunStopped => Ruling::Gone(format!("RUN_STOPPED: {}", verdict.message)),
            Reason::RunUnknown => Ruling::Gone(format!("RUN_UNKNOWN: {}", verdict.message)),
            Reason::CheckpointTooLarge => Ruling::Refused(Flaw::Checkpoint, message()),
            Reason::OutputInvalid => Ruling::Refused(Flaw::Output, message()),
            Reason::ErrorTooLarge => Ruling::Refused(Flaw::Error, message()),
            Reason::Overloaded | Reason::Unavailable | Reason::Internal => Ruling::Again(message()),
            Reason::Unspecified
            | Reason::FieldInvalid
            | Reason::PageTokenInvalid
            | Reason::ModalityNotProduced
            | Reason::RequestIdReused
            | Reason::WorkflowUnknown
            | Reason::StepUnknown
            | Reason::RunState
            | Reason::DeadlinePassed => Ruling::by_code(verdict),
        }
    }

    /// For reasons that no report is answered with today, and for those of later servers.
    fn by_code(verdict: &v1::Verdict) -> Ruling {
        match Code::from_i32(verdict.code) {
            Code::Ok => Ruling::Accepted,
            Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Ruling::Again(verdict.message.clone()),
            Code::NotFound | Code::FailedPrecondition => Ruling::Gone(verdict.message.clone()),
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Ruling::Refused(Flaw::Other, verdict.message.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        use v1::Reason;
        let rows: [(Code, i32, Ruling); 9] = [
            (Code::Ok, 0, Ruling::Accepted),
            (Code::Ok, Reason::LeaseEnded.into(), Ruling::Ended),
            (
                Code::FailedPrecondition,
                Reason::LeaseSuperseded.into(),
                Ruling::Gone("LEASE_SUPERSEDED: m".into()),
            ),
            (Code::NotFound, Reason::LeaseUnknown.into(), Ruling::Gone("LEASE_UNKNOWN: m".into())),
            (Code::InvalidArgument, Reason::OutputInvalid.into(), Ruling::Refused(Flaw::Output, "m".into())),
            (Code::InvalidArgument, Reason::FieldInvalid.into(), Ruling::Refused(Flaw::Other, "m".into())),
            (Code::ResourceExhausted, Reason::Overloaded.into(), Ruling::Again("m".into())),
            (Code::Unavailable, 9_999, Ruling::Again("m".into())),
            (Code::FailedPrecondition, 9_999, Ruling::Gone("m".into())),
        ];
        for (code, reason, ruling) in rows {
            let verdict =
                v1::Verdict { code: code.into(), reason, message: "m".into(), ..Default::default() };
            assert_eq!(Ruling::of(Some(&verdict)), ruling, "{code:?} {reason}");
        }
        assert_eq!(Ruling::of(None), Ruling::Accepted);
    }
}
