//! The database is another one than it was: a backup that was restored, or a standby that was promoted.

mod backup;
mod failover;

use std::time::Duration;

use longtake_e2e::Refusal;
use longtake_proto::v1::{self, Reason};

const SOON: Duration = Duration::from_secs(20);
const SINGLE: &str = r#"
format = 1
name = "single"

[[step]]
name = "work"
heartbeat_timeout = "3s"
"#;

/// Why a report was refused; nothing when it counts.
fn refused(told: Result<v1::Verdict, tonic::Status>) -> Option<String> {
    match told {
        Ok(verdict) if verdict.reason() == Reason::Unspecified => None,
        Ok(verdict) => Some(verdict.reason().as_str_name().trim_start_matches("REASON_").to_owned()),
        Err(status) => Some(Refusal::of(&status).reason),
    }
}

/// A request for a run that can be sent again.
fn creation(workflow: &str) -> v1::CreateRunRequest {
    v1::CreateRunRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        workflow: workflow.to_owned(),
        ..v1::CreateRunRequest::default()
    }
}
