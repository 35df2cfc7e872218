//! Executors whose steps do nothing, so that what is left is the price of orchestration.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use longtake_executor::{Config, Context, Executor, Output, StepError};
use longtake_proto::v1::executor_service_client::ExecutorServiceClient;
use longtake_proto::v1::step_report::Report;
use longtake_proto::v1::{self as pb, StepLease};
use prost_types::value::Kind;
use prost_types::{Duration, Struct, Value};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::Channel;
use uuid::Uuid;

use super::signals::{self, DONE, Signal};
use super::{REPLY_BYTES, channel, micros, orders};

/// What an executor process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub servers: Vec<String>,
    /// Where the load hears of finished runs.
    pub socket: Option<PathBuf>,
    pub way: Way,
    /// The steps of the workflow, in their order: the queues that are served.
    pub steps: Vec<String>,
    /// Whether the load also wants to hear of every step that begins.
    pub legs: bool,
}

/// How steps are polled for and reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// CompleteStep with `next`, one call a step: what the plainest executor does. So many slots.
    Single(usize),
    /// ReportSteps with `next`, up to 100 steps a call. So many loops.
    Batch(usize),
    /// The executor library, with so many slots.
    Library(usize),
}

/// Calls so far.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counted {
    pub calls: u64,
}

struct Worker {
    client: ExecutorServiceClient<Channel>,
    session: String,
    steps: Vec<String>,
    signals: UnboundedSender<Signal>,
    legs: bool,
    calls: Arc<AtomicU64>,
}

/// Works until its input ends.
pub async fn run(plan: Plan) -> Result<()> {
    let signals = signals::sender(plan.socket.as_deref()).await?;
    let calls = Arc::new(AtomicU64::new(0));
    match plan.way {
        Way::Library(slots) => library(&plan, slots, &signals),
        Way::Single(many) | Way::Batch(many) => {
            // A session for each server, as the processes of a fleet would have; a connection for each 100 loops.
            for server in &plan.servers {
                let session = Uuid::new_v4().to_string();
                let share = many.div_ceil(plan.servers.len());
                for first in (0..share).step_by(100) {
                    let client =
                        ExecutorServiceClient::new(channel(server)?).max_decoding_message_size(REPLY_BYTES);
                    let worker = Rc::new(Worker {
                        client,
                        session: session.clone(),
                        steps: plan.steps.clone(),
                        signals: signals.clone(),
                        legs: plan.legs,
                        calls: calls.clone(),
                    });
                    let most = if matches!(plan.way, Way::Single(_)) { 1 } else { 100 };
                    (first..share.min(first + 100)).for_each(|_| {
                        tokio::task::spawn_local(worker.clone().work(most));
                    });
                }
            }
        }
    }
    orders(async |_| Ok(Counted { calls: calls.load(Ordering::Relaxed) })).await
}

impl Worker {
    /// Polls, completes all that it got, and takes what comes with the answer.
    async fn work(self: Rc<Self>, most: i32) {
        let mut leases = Vec::new();
        loop {
            let answered = match leases.is_empty() {
                true => self.poll(most).await,
                false if most == 1 => self.complete(&leases[0]).await,
                false => self.report(&leases, most).await,
            };
            leases = match answered {
                Ok(leases) => leases,
                Err(status) => {
                    // What this loses is leased again; then the completeness check will not let the figure pass.
                    eprintln!("an executor's call failed: {status}");
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                    Vec::new()
                }
            };
            if self.legs {
                leases.iter().for_each(|lease| self.signal(lease, self.place(lease)));
            }
        }
    }

    fn place(&self, lease: &StepLease) -> u8 {
        let place = self.steps.iter().position(|name| *name == lease.step).unwrap_or_default();
        u8::try_from(place + 1).unwrap_or(u8::MAX)
    }

    fn signal(&self, lease: &StepLease, what: u8) {
        let run = Uuid::parse_str(&lease.run_id).unwrap_or_default();
        // The sender ends with the process.
        let _ = self.signals.send(Signal { run, what, at: micros() });
    }

    fn finished(&self, lease: &StepLease) {
        if self.steps.last() == Some(&lease.step) {
            self.signal(lease, DONE);
        }
    }

    fn call(&self) -> ExecutorServiceClient<Channel> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.client.clone()
    }

    async fn poll(&self, max_steps: i32) -> Result<Vec<StepLease>, tonic::Status> {
        let request = pb::PollStepsRequest {
            session_id: self.session.clone(),
            executor: Some(pb::ExecutorInfo { name: "bench".to_owned(), ..pb::ExecutorInfo::default() }),
            queues: self.steps.clone(),
            max_steps,
            wait: Some(Duration { seconds: 45, nanos: 0 }),
            request_id: Uuid::new_v4().to_string(),
        };
        Ok(self.call().poll_steps(request).await?.into_inner().leases)
    }

    fn next(&self, max_steps: i32) -> Option<pb::NextPoll> {
        let request_id = Uuid::new_v4().to_string();
        Some(pb::NextPoll { queues: self.steps.clone(), max_steps, request_id, executor: None })
    }

    async fn complete(&self, lease: &StepLease) -> Result<Vec<StepLease>, tonic::Status> {
        let request = pb::CompleteStepRequest {
            session_id: self.session.clone(),
            next: self.next(1),
            ..completion(lease)
        };
        let answer = self.call().complete_step(request).await?.into_inner();
        self.finished(lease);
        Ok(answer.next.map(|next| next.leases).unwrap_or_default())
    }

    async fn report(&self, leases: &[StepLease], most: i32) -> Result<Vec<StepLease>, tonic::Status> {
        let completed = |lease| pb::StepReport { report: Some(Report::Complete(completion(lease))) };
        let request = pb::ReportStepsRequest {
            session_id: self.session.clone(),
            reports: leases.iter().map(completed).collect(),
            next: self.next(most),
        };
        let answer = self.call().report_steps(request).await?.into_inner();
        leases.iter().for_each(|lease| self.finished(lease));
        Ok(answer.next.map(|next| next.leases).unwrap_or_default())
    }
}

/// What each step gives: 66 bytes as JSON, as in the floor's script.
pub const OUTPUT: (&str, &str) = ("text", "a few words that stand for what a step has made here");

fn completion(lease: &StepLease) -> pb::CompleteStepRequest {
    let text = Value { kind: Some(Kind::StringValue(OUTPUT.1.to_owned())) };
    let output = Struct { fields: [(OUTPUT.0.to_owned(), text)].into_iter().collect() };
    pb::CompleteStepRequest {
        lease_token: lease.lease_token.clone(),
        output: Some(output),
        artifacts: if lease.step == "video" { vec![artifact(&lease.run_id)] } else { Vec::new() },
        ..pb::CompleteStepRequest::default()
    }
}

/// The video that a run has to have made in order to succeed.
fn artifact(run: &str) -> pb::Artifact {
    pb::Artifact {
        name: "video.mp4".to_owned(),
        uri: format!("file:///bench/{run}/video.mp4"),
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        size_bytes: 1,
        media_type: "video/mp4".to_owned(),
    }
}

/// The library tells nobody when a report was acknowledged: a run counts as done when its last step is handed in.
fn library(plan: &Plan, slots: usize, signals: &UnboundedSender<Signal>) {
    let share = slots.div_ceil(plan.servers.len().max(slots.div_ceil(1_000)));
    for (number, first) in (0..slots).step_by(share).enumerate() {
        let server = &plan.servers[number % plan.servers.len()];
        let config = Config::new(server).slots(share.min(slots - first)).name(format!("bench-{number}"));
        let last = plan.steps.last().cloned().unwrap_or_default();
        let mut executor = Executor::new(config);
        for name in &plan.steps {
            let signals = (*name == last).then(|| signals.clone());
            executor = executor.step(name, move |ctx: Context| nothing(ctx, signals.clone()));
        }
        tokio::task::spawn_local(executor.run_until(std::future::pending()));
    }
}

async fn nothing(ctx: Context, signals: Option<UnboundedSender<Signal>>) -> Result<Output, StepError> {
    if let Some(signals) = signals {
        let run = Uuid::parse_str(ctx.run_id()).unwrap_or_default();
        let _ = signals.send(Signal { run, what: DONE, at: micros() });
    }
    let output = Output::new(std::collections::BTreeMap::from([OUTPUT]));
    let video = ctx.step() == "video";
    let artifact = artifact(ctx.run_id());
    Ok(output.artifacts(video.then(|| longtake_executor::Artifact {
        name: artifact.name,
        uri: artifact.uri,
        sha256: artifact.sha256,
        size_bytes: artifact.size_bytes.unsigned_abs(),
        media_type: artifact.media_type,
    })))
}
