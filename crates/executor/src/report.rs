//! The last word on an attempt, in a form that the server takes.

use prost::Message as _;
use serde_json::{Map, Value};

use longtake_proto::convert::{duration_from_std, struct_from_map};
use longtake_proto::v1;
use longtake_proto::v1::step_report::Report;

use crate::config::{CALL_BYTES, DATA_BYTES, ERROR_BYTES};
use crate::ruling::Flaw;
use crate::step::{Kind, Output, StepError};

const CODE_CHARS: usize = 63;
const REASON_CHARS: usize = 1_000;
/// What is left of an error that was refused.
const SHORT_ERROR_BYTES: usize = 512;

/// A completion, or a failure when the output cannot be stored.
pub(crate) fn completed(token: &str, output: Output) -> Report {
    let cost = output.cost_nano_usd;
    match storable(output) {
        Ok((data, artifacts)) => Report::Complete(v1::CompleteStepRequest {
            lease_token: token.to_owned(),
            output: Some(struct_from_map(&data)),
            artifacts,
            cost: cost.map(money),
            ..Default::default()
        }),
        Err(why) => output_invalid(token, &why, cost.map(money)),
    }
}

fn storable(output: Output) -> Result<(Map<String, Value>, Vec<v1::Artifact>), String> {
    let data = output.data?;
    let size = serde_json::to_string(&data).map_or(0, |text| text.len());
    if size > DATA_BYTES {
        return Err(format!("it has {size} bytes as JSON; {DATA_BYTES} are allowed"));
    }
    let artifacts: Vec<v1::Artifact> = output.artifacts.into_iter().map(v1::Artifact::from).collect();
    let size: usize = artifacts.iter().map(v1::Artifact::encoded_len).sum();
    if size > CALL_BYTES / 2 {
        return Err(format!("its artifacts have {size} bytes; no call could carry them"));
    }
    Ok((data, artifacts))
}

fn output_invalid(token: &str, why: &str, cost: Option<v1::Money>) -> Report {
    let message = format!("the step's output cannot be stored: {why}");
    fail(token, error("OUTPUT_INVALID", false, &message, &Map::new()), cost)
}

/// A failure or a yield, as the step says.
pub(crate) fn ended(token: &str, why: StepError, checkpoint: Option<v1::Checkpoint>) -> Report {
    let why = *why.0;
    let cost = why.cost_nano_usd.map(money);
    match why.kind {
        Kind::Yielded => yielded_at(token, &why.message, checkpoint, cost),
        Kind::Failed { code, retryable } => Report::Fail(v1::FailStepRequest {
            lease_token: token.to_owned(),
            error: Some(error(&code, retryable, &why.message, &why.details)),
            retry_after: why.retry_after.map(duration_from_std),
            checkpoint,
            cost,
            ..Default::default()
        }),
    }
}

/// A yield by the library.
pub(crate) fn yielded(token: &str, reason: &str, checkpoint: Option<v1::Checkpoint>) -> Report {
    yielded_at(token, reason, checkpoint, None)
}

fn yielded_at(
    token: &str,
    reason: &str,
    checkpoint: Option<v1::Checkpoint>,
    cost: Option<v1::Money>,
) -> Report {
    let reason = reason.chars().filter(|char| *char != '\0').take(REASON_CHARS).collect();
    Report::Yield(v1::YieldStepRequest {
        lease_token: token.to_owned(),
        checkpoint,
        reason,
        cost,
        ..Default::default()
    })
}

fn fail(token: &str, error: v1::StepError, cost: Option<v1::Money>) -> Report {
    Report::Fail(v1::FailStepRequest {
        lease_token: token.to_owned(),
        error: Some(error),
        cost,
        ..Default::default()
    })
}

/// `refused` again, without what was wrong with it: a lease must not be lost over the form of its report.
pub(crate) fn amended(refused: Report, flaw: Flaw, why: &str) -> Report {
    match (refused, flaw) {
        (Report::Complete(complete), Flaw::Output | Flaw::Other | Flaw::Checkpoint | Flaw::Error) => {
            // A cost that was what was wrong with it would be refused again.
            let cost = complete.cost.filter(|_| flaw == Flaw::Output);
            output_invalid(&complete.lease_token, why, cost)
        }
        (Report::Fail(fail), Flaw::Checkpoint) => {
            Report::Fail(v1::FailStepRequest { checkpoint: None, ..fail })
        }
        (Report::Yield(yielded), Flaw::Checkpoint) => {
            Report::Yield(v1::YieldStepRequest { checkpoint: None, ..yielded })
        }
        (Report::Fail(refused), Flaw::Error | Flaw::Output | Flaw::Other) => {
            let said = refused.error.unwrap_or_default();
            let message = cut(&said.message, SHORT_ERROR_BYTES);
            fail(&refused.lease_token, error(&said.code, said.retryable, message, &Map::new()), None)
        }
        (Report::Yield(refused), Flaw::Error | Flaw::Output | Flaw::Other) => {
            yielded_at(&refused.lease_token, "", None, None)
        }
    }
}

/// An error within the server's bounds. Details go first, then the end of the message.
fn error(code: &str, retryable: bool, message: &str, details: &Map<String, Value>) -> v1::StepError {
    let message = message.replace('\0', "\u{fffd}");
    let details = (!details.is_empty()).then(|| struct_from_map(details));
    let code = code_of(code);
    let whole = v1::StepError { code, message, retryable, details };
    if whole.encoded_len() <= ERROR_BYTES {
        return whole;
    }
    let message = cut(&whole.message, ERROR_BYTES - 2 * CODE_CHARS).to_owned();
    v1::StepError { message, details: None, ..whole }
}

/// A code as the contract has it, whatever the step called it.
fn code_of(code: &str) -> String {
    let upper = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' };
    let code: String = code.chars().take(CODE_CHARS).map(upper).collect();
    if code.is_empty() { "FAILED".to_owned() } else { code }
}

/// At most so many bytes of `text`.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn money(nano_usd: i64) -> v1::Money {
    v1::Money { nano_usd }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failed(report: Report) -> v1::FailStepRequest {
        match report {
            Report::Fail(fail) => fail,
            Report::Complete(_) | Report::Yield(_) => panic!("{report:?} is no failure"),
        }
    }

    #[test]
    fn outputs_that_cannot_be_stored_are_failures_that_are_not_retried() {
        let long = "x".repeat(DATA_BYTES);
        for output in [Output::new(json!([1])), Output::new("text"), Output::new(json!({ "long": long }))] {
            let error = failed(completed("token", output.cost_nano_usd(7))).error.expect("an error");
            assert_eq!(
                (error.code.as_str(), error.retryable),
                ("OUTPUT_INVALID", false),
                "{}",
                error.message
            );
        }
        assert!(matches!(completed("token", Output::new(())), Report::Complete(_)));
    }

    #[test]
    fn errors_are_cut_to_their_bounds() {
        let long = "ä\0\"".repeat(10_000);
        let why = StepError::retryable("such code!", &long).details(json!({ "long": long }));
        let error = failed(ended("token", why, None)).error.expect("an error");
        assert_eq!(error.code, "SUCH_CODE_");
        assert!(error.encoded_len() <= ERROR_BYTES && error.details.is_none());
        assert!(!error.message.contains('\0'));

        let why = StepError::permanent("", "short").details(json!({ "of": 3 }));
        let error = failed(ended("token", why, None)).error.expect("an error");
        assert_eq!((error.code.as_str(), error.message.as_str()), ("FAILED", "short"));
        assert!(error.details.is_some());
    }

    #[test]
    fn refused_reports_lose_what_was_wrong_with_them() {
        let complete = completed("token", Output::new(json!({})).cost_nano_usd(5));
        let fail = failed(amended(complete, Flaw::Output, "too deep"));
        assert_eq!(fail.cost, Some(money(5)));
        assert!(fail.error.expect("an error").message.contains("too deep"));

        let checkpoint = Some(v1::Checkpoint::default());
        let why = StepError::retryable("A", "m".repeat(3_000));
        let fail = amended(ended("token", why, checkpoint.clone()), Flaw::Checkpoint, "too large");
        let fail = failed(amended(failed_without_checkpoint(fail), Flaw::Error, "too large"));
        assert_eq!(fail.error.expect("an error").message.len(), SHORT_ERROR_BYTES);

        let Report::Yield(yielded) = amended(yielded("token", "why", checkpoint), Flaw::Checkpoint, "")
        else {
            panic!("no yield");
        };
        assert_eq!((yielded.checkpoint, yielded.reason.as_str()), (None, "why"));
    }

    fn failed_without_checkpoint(report: Report) -> Report {
        let fail = failed(report);
        assert_eq!(fail.checkpoint, None);
        Report::Fail(fail)
    }
}
