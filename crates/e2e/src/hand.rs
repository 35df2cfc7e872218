//! An executor that is driven by hand, call by call.

use std::time::Duration;

use longtake_proto::convert::struct_from_json;
use longtake_proto::v1::{self, PollStepsRequest, StepLease};
use serde_json::{Value, json};
use tonic::Status;
use uuid::Uuid;

use crate::{Client, eventually, span};

/// One session. It does nothing by itself: no heartbeat, no retry.
#[derive(Debug, Clone)]
pub struct Hand {
    client: Client,
    name: String,
    session: String,
    queues: Vec<String>,
}

impl Hand {
    /// A fresh session that asks for steps of these queues.
    pub fn new(client: &Client, name: &str, queues: &[&str]) -> Hand {
        Hand {
            client: client.clone(),
            name: name.to_owned(),
            session: Uuid::new_v4().to_string(),
            queues: queues.iter().copied().map(str::to_owned).collect(),
        }
    }

    /// The same session, speaking to another server.
    pub fn through(&self, client: &Client) -> Hand {
        Hand { client: client.clone(), ..self.clone() }
    }

    /// Its session's id.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// A poll for one step, ready to send.
    pub fn poll_request(&self, wait: Duration) -> PollStepsRequest {
        PollStepsRequest {
            session_id: self.session.clone(),
            executor: Some(v1::ExecutorInfo { name: self.name.clone(), ..v1::ExecutorInfo::default() }),
            queues: self.queues.clone(),
            max_steps: 1,
            wait: span(wait),
            request_id: Uuid::new_v4().to_string(),
        }
    }

    /// Asks for a step, waiting so long.
    pub async fn poll(&self, wait: Duration) -> Result<v1::PollStepsResponse, Status> {
        Ok(self.client.executors().poll_steps(self.poll_request(wait)).await?.into_inner())
    }

    /// Gets a step that is, or will soon be, ready. A session that has ended is told so by an empty answer: the next poll opens it
    /// again.
    ///
    /// # Panics
    /// When there is none.
    pub async fn lease(&self) -> StepLease {
        eventually(Duration::from_secs(20), async || {
            let mut answer = self.poll(Duration::from_secs(10)).await.map_err(|status| status.to_string())?;
            assert!(answer.leases.len() <= 1, "{} asked for one step", self.name);
            answer.leases.pop().ok_or_else(|| "no step is ready".to_owned())
        })
        .await
    }

    /// Gets a step and tells the server that it works on it.
    pub async fn take(&self) -> StepLease {
        let lease = self.lease().await;
        let status = self.beat(&lease).await;
        assert_eq!(reason(status.verdict.as_ref()), v1::Reason::Unspecified, "{status:?}");
        lease
    }

    /// One heartbeat as given.
    pub async fn heartbeat(
        &self,
        leases: Vec<v1::LeaseHeartbeat>,
        wait: Duration,
        partial: bool,
    ) -> Result<v1::HeartbeatStepsResponse, Status> {
        let request =
            v1::HeartbeatStepsRequest { session_id: self.session.clone(), leases, wait: span(wait), partial };
        Ok(self.client.executors().heartbeat_steps(request).await?.into_inner())
    }

    /// A bare heartbeat of one lease; returns where it stands.
    pub async fn beat(&self, lease: &StepLease) -> v1::LeaseStatus {
        self.beat_with(lease, None).await
    }

    /// A heartbeat of one lease with a checkpoint; returns where it stands.
    pub async fn checkpoint(&self, lease: &StepLease, checkpoint: v1::Checkpoint) -> v1::LeaseStatus {
        self.beat_with(lease, Some(checkpoint)).await
    }

    async fn beat_with(&self, lease: &StepLease, checkpoint: Option<v1::Checkpoint>) -> v1::LeaseStatus {
        let lease_token = lease.lease_token.clone();
        let heartbeat = v1::LeaseHeartbeat { lease_token, checkpoint, ..v1::LeaseHeartbeat::default() };
        let mut answer =
            self.heartbeat(vec![heartbeat], Duration::ZERO, false).await.expect("the heartbeat is answered");
        assert_eq!(answer.leases.len(), 1);
        answer.leases.remove(0)
    }

    /// Completes a lease with an output.
    pub async fn complete(&self, lease: &StepLease, output: Value) -> Result<v1::Verdict, Status> {
        let request = self.completion(lease, output);
        Ok(self.client.executors().complete_step(request).await?.into_inner().verdict.unwrap_or_default())
    }

    /// A completion, ready to send.
    pub fn completion(&self, lease: &StepLease, output: Value) -> v1::CompleteStepRequest {
        v1::CompleteStepRequest {
            session_id: self.session.clone(),
            lease_token: lease.lease_token.clone(),
            output: struct_from_json(output),
            ..v1::CompleteStepRequest::default()
        }
    }

    /// Fails a lease.
    pub async fn fail(&self, lease: &StepLease, code: &str, retryable: bool) -> Result<v1::Verdict, Status> {
        let request = self.failure(lease, code, retryable);
        Ok(self.client.executors().fail_step(request).await?.into_inner().verdict.unwrap_or_default())
    }

    /// A failure, ready to send.
    pub fn failure(&self, lease: &StepLease, code: &str, retryable: bool) -> v1::FailStepRequest {
        let message = format!("{} met {code}", self.name);
        let error = v1::StepError { code: code.to_owned(), message, retryable, details: None };
        v1::FailStepRequest {
            session_id: self.session.clone(),
            lease_token: lease.lease_token.clone(),
            error: Some(error),
            ..v1::FailStepRequest::default()
        }
    }

    /// Gives a lease back, with a last checkpoint if there is one.
    pub async fn give_back(
        &self,
        lease: &StepLease,
        checkpoint: Option<v1::Checkpoint>,
    ) -> Result<v1::Verdict, Status> {
        let request = v1::YieldStepRequest {
            session_id: self.session.clone(),
            lease_token: lease.lease_token.clone(),
            checkpoint,
            reason: "the test wants it so".to_owned(),
            ..v1::YieldStepRequest::default()
        };
        Ok(self.client.executors().yield_step(request).await?.into_inner().verdict.unwrap_or_default())
    }

    /// A checkpoint that says how far it is.
    pub fn at(sequence: i64, done: i64, total: i64) -> v1::Checkpoint {
        v1::Checkpoint {
            sequence,
            done,
            total,
            data: struct_from_json(json!({ "reached": done })),
            artifacts: Vec::new(),
        }
    }
}

fn reason(verdict: Option<&v1::Verdict>) -> v1::Reason {
    verdict.map_or(v1::Reason::Unspecified, v1::Verdict::reason)
}
