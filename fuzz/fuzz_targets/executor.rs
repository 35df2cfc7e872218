//! Any message as reports and heartbeats of an executor: each part is refused with a reason, or can be asked of a run.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longtake_orchestrator::validate;
use longtake_proto::v1::{self as pb, step_report::Report};
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = pb::ReportStepsRequest::decode(bytes) {
        let _ = validate::session_id(&request.session_id);
        request.reports.into_iter().filter_map(|report| report.report).for_each(report);
    }
    if let Ok(request) = pb::HeartbeatStepsRequest::decode(bytes) {
        for lease in request.leases {
            token(&lease.lease_token);
            let _ = lease.progress.map(validate::progress);
            lease.checkpoint.into_iter().for_each(checkpoint);
        }
    }
});

fn report(report: Report) {
    match report {
        Report::Complete(request) => {
            token(&request.lease_token);
            let _ = validate::output(request.output, request.artifacts);
            let _ = validate::cost(request.cost.as_ref());
        }
        Report::Fail(request) => {
            token(&request.lease_token);
            let _ = validate::error(request.error);
            let _ = validate::retry_after(request.retry_after.as_ref());
            request.checkpoint.into_iter().for_each(checkpoint);
        }
        Report::Yield(request) => {
            token(&request.lease_token);
            let _ = validate::reason(&request.reason);
            request.checkpoint.into_iter().for_each(checkpoint);
        }
    }
}

fn token(text: &str) {
    if let Ok(token) = validate::lease_token(text) {
        assert_eq!(validate::lease_token(&token.to_string()).ok(), Some(token), "{text}");
    }
}

fn checkpoint(checkpoint: pb::Checkpoint) {
    if let Ok(accepted) = validate::checkpoint(checkpoint) {
        assert!(accepted.sequence > 0 && accepted.done >= 0 && accepted.total >= 0);
    }
}
