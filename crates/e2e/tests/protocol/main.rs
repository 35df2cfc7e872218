//! The executor's side of the contract against the real server, call by call, and what operators do to running work.

mod beats;
mod clocks;
mod explains;
mod operators;
mod polls;
mod replicas;
mod reports;
mod set_clock;
mod watchers;

use std::time::Duration;

use longtake_e2e::{Client, Hand, Server, World, definitions};
use longtake_proto::v1::{self, StepLease};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);
/// One step with every limit tight, and short backoffs.
const TIGHT: &str = r#"
format = 1
name = "tight"

[[step]]
name = "work"
price_usd = "0.25"
heartbeat_timeout = "3s"
retry = { initial_delay = "20ms", max_delay = "50ms" }
budgets = { failures = 2, losses = 2, yields = 3 }
"#;
/// Two steps in one queue, then one that needs both.
const FORK: &str = r#"
format = 1
name = "fork"

[[step]]
name = "left"
queue = "fork"

[[step]]
name = "right"
queue = "fork"

[[step]]
name = "join"
queue = "fork"
needs = ["left", "right"]
when = "steps.left.output.wanted"
"#;
/// One step that pauses its run instead of failing.
const PAUSING: &str = r#"
format = 1
name = "pausing"

[[step]]
name = "work"
on_exhausted = "pause"
retry = { initial_delay = "20ms", max_delay = "50ms" }
budgets = { failures = 2 }
"#;
/// One step each whose time is up soon, in its own way.
const PROGRESS: &str = r#"
format = 1
name = "progress"

[[step]]
name = "progress"
progress_timeout = "1s"
retry = { initial_delay = "20ms", max_delay = "50ms" }
"#;
const ATTEMPT: &str = r#"
format = 1
name = "attempt"

[[step]]
name = "attempt"
attempt_timeout = "1s"
retry = { initial_delay = "20ms", max_delay = "50ms" }
"#;
const WHOLE: &str = r#"
format = 1
name = "whole"

[[step]]
name = "whole"
step_timeout = "2s"
"#;

struct Bench {
    world: World,
    server: Server,
    client: Client,
}

async fn bench() -> Bench {
    let world = World::new().await;
    let files = [
        ("tight", TIGHT),
        ("fork", FORK),
        ("pausing", PAUSING),
        ("progress", PROGRESS),
        ("attempt", ATTEMPT),
        ("whole", WHOLE),
    ];
    let folder = definitions(world.folder("definitions"), &files);
    let server = world.server_with(&folder).await;
    let client = server.client();
    Bench { world, server, client }
}

impl Bench {
    /// A run of `tight` whose step a hand works on.
    async fn working(&self) -> (Hand, String, StepLease) {
        let run_id = self.client.create("tight", json!({"topic": "light"})).await;
        let hand = Hand::new(&self.client, "hand", &["work"]);
        let lease = hand.take().await;
        (hand, run_id, lease)
    }

    async fn operate(&self, what: Operation, run_id: &str) -> Result<v1::Run, tonic::Status> {
        self.operate_as(what, run_id, "").await
    }

    async fn operate_as(
        &self,
        what: Operation,
        run_id: &str,
        request_id: &str,
    ) -> Result<v1::Run, tonic::Status> {
        let (run_id, request_id, reason) = (run_id.to_owned(), request_id.to_owned(), "a test".to_owned());
        let mut runs = self.client.runs();
        let run = match what {
            Operation::Cancel => {
                runs.cancel_run(v1::CancelRunRequest { run_id, request_id, reason }).await?.into_inner().run
            }
            Operation::Pause => {
                runs.pause_run(v1::PauseRunRequest { run_id, request_id, reason }).await?.into_inner().run
            }
            Operation::Resume => {
                runs.resume_run(v1::ResumeRunRequest { run_id, request_id }).await?.into_inner().run
            }
            Operation::Retry => {
                let request = v1::RetryRunRequest { run_id, request_id, deadline: None };
                runs.retry_run(request).await?.into_inner().run
            }
        };
        Ok(run.expect("the run"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Cancel,
    Pause,
    Resume,
    Retry,
}

fn beat(lease: &StepLease) -> v1::LeaseHeartbeat {
    v1::LeaseHeartbeat { lease_token: lease.lease_token.clone(), ..v1::LeaseHeartbeat::default() }
}

fn plain(fields: Option<&prost_types::Struct>) -> Value {
    Value::Object(longtake_proto::convert::json_from_struct(fields.cloned().unwrap_or_default()))
}

/// The committed checkpoint of the first step.
fn stored(run: &v1::Run) -> v1::Checkpoint {
    run.steps[0].checkpoint.clone().and_then(|stored| stored.checkpoint).unwrap_or_default()
}

fn in_seconds(seconds: i64) -> Option<prost_types::Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time after 1970");
    Some(prost_types::Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or_default() + seconds,
        nanos: 0,
    })
}

async fn explain(client: &Client, run_id: &str) -> v1::ExplainRunResponse {
    let request = v1::ExplainRunRequest { run_id: run_id.to_owned() };
    client.runs().explain_run(request).await.expect("explained").into_inner()
}

fn explanation<'a>(explained: &'a v1::ExplainRunResponse, name: &str) -> &'a v1::StepExplanation {
    explained.steps.iter().find(|step| step.step == name).unwrap_or_else(|| panic!("{name}: {explained:?}"))
}

async fn watch(client: &Client, run_id: &str, after_event: i64) -> tonic::Streaming<v1::WatchRunResponse> {
    let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_event };
    client.runs().watch_run(request).await.expect("a stream").into_inner()
}

/// The next event of a stream; none at its end.
async fn next_event(stream: &mut tonic::Streaming<v1::WatchRunResponse>) -> Option<v1::Event> {
    use v1::watch_run_response::Update;
    loop {
        let update = tokio::time::timeout(SOON, stream.message()).await.expect("an update in time");
        match update.expect("no error")?.update {
            Some(Update::Event(event)) => return Some(event),
            Some(Update::Progress(_)) => {}
            None => panic!("an update without anything"),
        }
    }
}
