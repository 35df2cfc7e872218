//! The contract, as a client speaks it.

use std::collections::BTreeMap;
use std::time::Duration;

use longtake_proto::v1::content_service_client::ContentServiceClient;
use longtake_proto::v1::executor_service_client::ExecutorServiceClient;
use longtake_proto::v1::run_service_client::RunServiceClient;
use longtake_proto::v1::workflow_service_client::WorkflowServiceClient;
use longtake_proto::v1::{self, run, step};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::eventually;

const REPLY_BYTES: usize = 64 << 20;

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// A client that connects when it first calls, and again after the connection broke.
    pub fn new(url: &str) -> Client {
        let endpoint =
            Endpoint::from_shared(url.to_owned()).expect("a URL").connect_timeout(Duration::from_secs(5));
        Client { channel: endpoint.connect_lazy() }
    }

    /// ContentService.
    pub fn content(&self) -> ContentServiceClient<Channel> {
        ContentServiceClient::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES)
    }

    /// RunService.
    pub fn runs(&self) -> RunServiceClient<Channel> {
        RunServiceClient::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES)
    }

    /// ExecutorService.
    pub fn executors(&self) -> ExecutorServiceClient<Channel> {
        ExecutorServiceClient::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES)
    }

    /// WorkflowService.
    pub fn workflows(&self) -> WorkflowServiceClient<Channel> {
        WorkflowServiceClient::new(self.channel.clone()).max_decoding_message_size(REPLY_BYTES)
    }

    /// Submits a request for content and returns the run's id.
    pub async fn submit(&self, request: v1::SubmitContentRequest) -> String {
        let answer =
            self.content().submit_content(request).await.expect("the submit is accepted").into_inner();
        assert!(answer.created, "the submit made no run");
        answer.run_id
    }

    /// Starts a run of a workflow and returns its id.
    pub async fn create(&self, workflow: &str, input: serde_json::Value) -> String {
        let request = v1::CreateRunRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            workflow: workflow.to_owned(),
            input: longtake_proto::convert::struct_from_json(input),
            ..v1::CreateRunRequest::default()
        };
        let answer = self.runs().create_run(request).await.expect("the run is accepted").into_inner();
        answer.run.expect("the run").run_id
    }

    /// A run with everything, or why it could not be read.
    pub async fn try_run(&self, run_id: &str) -> Result<v1::Run, Status> {
        let view = v1::RunView::Full.into();
        let answer = self.runs().get_run(v1::GetRunRequest { run_id: run_id.to_owned(), view }).await?;
        Ok(answer.into_inner().run.expect("the run"))
    }

    /// A run with everything.
    pub async fn run(&self, run_id: &str) -> v1::Run {
        self.try_run(run_id).await.expect("the run can be read")
    }

    /// A run's whole history.
    pub async fn events(&self, run_id: &str) -> Vec<v1::Event> {
        let request =
            v1::ListRunEventsRequest { run_id: run_id.to_owned(), page_size: 1_000, ..Default::default() };
        let answer =
            self.runs().list_run_events(request).await.expect("the history can be read").into_inner();
        assert_eq!(answer.next_page_token, "", "the history is longer than a page");
        let numbers: Vec<i64> = answer.events.iter().map(|event| event.number).collect();
        assert!(
            numbers.iter().copied().eq(1..=numbers.len() as i64),
            "events are not numbered 1, 2, 3: {numbers:?}"
        );
        answer.events
    }

    /// Waits until the run is as `is` wants it; a server that is away is waited for.
    pub async fn until(&self, run_id: &str, within: Duration, is: impl Fn(&v1::Run) -> bool) -> v1::Run {
        eventually(within, async || match self.try_run(run_id).await {
            Ok(run) if is(&run) => Ok(run),
            Ok(run) => Err(shown(&run)),
            Err(status) if passing(&status) => Err(status.to_string()),
            Err(status) => panic!("the run cannot be read: {status}"),
        })
        .await
    }

    /// Waits until the run has ended.
    pub async fn ended(&self, run_id: &str, within: Duration) -> v1::Run {
        self.until(run_id, within, |run| run.end_time.is_some()).await
    }

    /// Waits until the run has succeeded.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub async fn succeeded(&self, run_id: &str, within: Duration) -> v1::Run {
        let run = self.ended(run_id, within).await;
        assert_eq!(run.state(), run::State::Succeeded, "{}", shown(&run));
        run
    }

    /// Waits until a step is in this state.
    pub async fn until_step(
        &self,
        run_id: &str,
        name: &str,
        within: Duration,
        state: step::State,
    ) -> v1::Run {
        self.until(run_id, within, |run| crate::step(run, name).state() == state).await
    }
}

/// Whether the server is merely away.
fn passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
}

/// A run in a few lines.
fn shown(run: &v1::Run) -> String {
    let mut text = format!("run {:?} {}", run.state(), run.state_reason);
    for step in &run.steps {
        let done =
            step.checkpoint.as_ref().and_then(|stored| stored.checkpoint.as_ref()).map_or(0, |it| it.done);
        let causes: Vec<_> = step.attempts.iter().map(v1::Attempt::cause).collect();
        text.push_str(&format!("\n  {} {:?}, {done} done, attempts {causes:?}", step.name, step.state()));
        if let Some(error) = &step.error {
            text.push_str(&format!(", {}: {}", error.code, error.message));
        }
    }
    text
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The code.
    pub code: Code,
    /// `ErrorInfo.reason`.
    pub reason: String,
    /// The message.
    pub message: String,
    /// `BadRequest`: what is wrong with which field.
    pub fields: BTreeMap<String, String>,
    /// `ErrorInfo.metadata`.
    pub metadata: BTreeMap<String, String>,
}

/// What no answer may speak of: the database's own words.
const SECRETS: [&str; 14] = [
    "select ",
    "insert ",
    "update ",
    "delete from",
    "relation",
    "pg_",
    "sqlx",
    "sqlstate",
    "constraint",
    "violates",
    "unnest",
    "column",
    "postgres",
    "panicked",
];

impl Refusal {
    /// Reads it from a status.
    ///
    /// # Panics
    /// When the status speaks of the database.
    pub fn of(status: &Status) -> Refusal {
        let details = status.get_error_details();
        let info = details.error_info();
        let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        let refusal = Refusal {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            fields: violations
                .into_iter()
                .map(|violation| (violation.field, violation.description))
                .collect(),
            metadata: info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default(),
        };
        let said = format!("{refusal:?}").to_lowercase();
        let leaked: Vec<&str> = SECRETS.into_iter().filter(|secret| said.contains(secret)).collect();
        assert!(leaked.is_empty(), "an answer tells of the database ({leaked:?}): {refusal:?}");
        refusal
    }
}
