//! A server that does as a test tells it, and remembers what it was told. It lives on a thread of its own, so that steps that block
//! the test's runtime do not block it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use longtake_proto::convert::{duration_from_std, std_from_duration, struct_from_json};
use longtake_proto::v1;
use longtake_proto::v1::executor_service_server::{ExecutorService, ExecutorServiceServer};
use longtake_proto::v1::step_report::Report;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

use crate::eventually;

/// A server and its memory; the memory outlives restarts.
pub struct Fake {
    told: Arc<Told>,
    address: SocketAddr,
    server: Option<(CancellationToken, JoinHandle<()>)>,
}

struct Told {
    state: Mutex<State>,
    changed: Notify,
}

/// What the server does, and what it has seen.
pub struct State {
    /// Steps to hand out, in this order.
    pub ready: VecDeque<v1::StepLease>,
    /// Whether it hands out whatever it has, asked for or not.
    pub careless: bool,
    /// What the session has left after every call.
    pub session_remaining: Duration,
    /// The next heartbeat.
    pub pace: Duration,
    /// Whether checkpoints are committed.
    pub committing: bool,
    /// What heartbeats of a lease are answered with, other than OK.
    pub verdicts: BTreeMap<String, v1::Verdict>,
    /// What heartbeats of a lease bring back.
    pub directives: BTreeMap<String, v1::Directive>,
    /// What a report is answered with; none for OK.
    pub judge: fn(&Report) -> Option<v1::Verdict>,
    /// What polls are refused with.
    pub refuse_polls: Option<Code>,
    /// All polls.
    pub polls: Vec<v1::PollStepsRequest>,
    /// All heartbeats.
    pub heartbeats: Vec<v1::HeartbeatStepsRequest>,
    /// All reports.
    pub reports: Vec<Report>,
    /// Polls that came with reports.
    pub next_polls: Vec<v1::NextPoll>,
    /// The newest committed checkpoint of each lease.
    pub checkpoints: BTreeMap<String, v1::Checkpoint>,
}

impl Fake {
    /// A server that takes everything.
    pub fn start() -> Fake {
        let state = State {
            ready: VecDeque::new(),
            careless: false,
            session_remaining: Duration::from_secs(30),
            pace: Duration::from_millis(20),
            committing: true,
            verdicts: BTreeMap::new(),
            directives: BTreeMap::new(),
            judge: |_| None,
            refuse_polls: None,
            polls: Vec::new(),
            heartbeats: Vec::new(),
            reports: Vec::new(),
            next_polls: Vec::new(),
            checkpoints: BTreeMap::new(),
        };
        let told = Arc::new(Told { state: Mutex::new(state), changed: Notify::new() });
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut fake = Fake { told, address: any_port, server: None };
        fake.come_back();
        fake
    }

    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what it does, or reads what it has seen.
    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.told.state());
        self.told.changed.notify_waiters();
        result
    }

    /// Hands out a step.
    pub fn offer(&self, lease: v1::StepLease) {
        self.with(|state| state.ready.push_back(lease));
    }

    /// Waits until it has seen something.
    pub async fn seen<T>(&self, what: &str, look: impl Fn(&State) -> Option<T>) -> T {
        eventually(what, || look(&self.told.state())).await
    }

    /// Waits for the report numbered `index` from 0.
    pub async fn report(&self, index: usize) -> Report {
        self.seen("a report", |state| state.reports.get(index).cloned()).await
    }

    /// Goes away in the middle of everything: connections are cut.
    pub fn go_away(&mut self) {
        if let Some((stop, thread)) = self.server.take() {
            stop.cancel();
            thread.join().expect("the server's thread");
        }
    }

    /// Listens again, on the same port.
    pub fn come_back(&mut self) {
        let stop = CancellationToken::new();
        let (told, stopped, address) = (Arc::clone(&self.told), stop.clone(), self.address);
        let (listening, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
                listening.send(listener.local_addr().expect("an address")).expect("the test");
                let service = ExecutorServiceServer::new(Service(told));
                let server = tonic::transport::Server::builder().add_service(service);
                tokio::select! {
                    served = server.serve_with_incoming(TcpListenerStream::new(listener)) => served.expect("a server"),
                    () = stopped.cancelled() => {}
                }
            });
            // Dropping the runtime cuts the connections.
            drop(runtime);
        });
        self.address = listens.recv().expect("a listening server");
        self.server = Some((stop, thread));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.server.take() {
            stop.cancel();
        }
    }
}

impl Told {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn polled(
        &mut self,
        request: &v1::PollStepsRequest,
        waited: Duration,
    ) -> Result<v1::PollStepsResponse, Status> {
        if let Some(code) = self.refuse_polls {
            return Err(Status::new(code, "told to refuse"));
        }
        // The contract counts from when the call was received.
        let session_remaining = Some(duration_from_std(self.session_remaining + waited));
        Ok(v1::PollStepsResponse { session_remaining, ..self.grant(&request.queues, request.max_steps) })
    }

    fn heard(&mut self, request: &v1::HeartbeatStepsRequest) -> v1::HeartbeatStepsResponse {
        v1::HeartbeatStepsResponse {
            leases: request.leases.iter().map(|lease| self.status(lease)).collect(),
            session_remaining: Some(duration_from_std(self.session_remaining)),
            next_heartbeat_delay: Some(duration_from_std(self.pace)),
        }
    }

    fn grant(&mut self, queues: &[String], max_steps: i32) -> v1::PollStepsResponse {
        let mut leases = Vec::new();
        if self.careless {
            leases.extend(self.ready.drain(..));
        }
        while leases.len() < max_steps as usize {
            let Some(found) = self.ready.iter().position(|lease| queues.contains(&lease.queue)) else {
                break;
            };
            leases.extend(self.ready.remove(found));
        }
        let session_remaining = Some(duration_from_std(self.session_remaining));
        let next_heartbeat_delay = Some(duration_from_std(self.pace));
        v1::PollStepsResponse { leases, session_remaining, next_heartbeat_delay }
    }

    fn status(&mut self, heartbeat: &v1::LeaseHeartbeat) -> v1::LeaseStatus {
        let token = &heartbeat.lease_token;
        let verdict = self.verdicts.get(token).cloned().unwrap_or_default();
        if let Some(checkpoint) =
            heartbeat.checkpoint.clone().filter(|_| self.committing && verdict.code == 0)
        {
            self.checkpoints.insert(token.clone(), checkpoint);
        }
        v1::LeaseStatus {
            lease_token: token.clone(),
            verdict: Some(verdict),
            committed_sequence: self.checkpoints.get(token).map_or(0, |checkpoint| checkpoint.sequence),
            directive: self.directives.get(token).copied().unwrap_or_default().into(),
        }
    }
}

struct Service(Arc<Told>);

#[tonic::async_trait]
impl ExecutorService for Service {
    async fn poll_steps(
        &self,
        request: Request<v1::PollStepsRequest>,
    ) -> Result<Response<v1::PollStepsResponse>, Status> {
        let request = request.into_inner();
        self.0.state().polls.push(request.clone());
        let wait = request.wait.as_ref().and_then(std_from_duration).unwrap_or_default();
        let received = std::time::Instant::now();
        loop {
            let changed = self.0.changed.notified();
            let waited = received.elapsed();
            let granted = self.0.state().polled(&request, waited)?;
            if !granted.leases.is_empty() || waited >= wait {
                return Ok(Response::new(granted));
            }
            let _ = tokio::time::timeout(wait - waited, changed).await;
        }
    }

    async fn heartbeat_steps(
        &self,
        request: Request<v1::HeartbeatStepsRequest>,
    ) -> Result<Response<v1::HeartbeatStepsResponse>, Status> {
        let request = request.into_inner();
        let wait = request.wait.as_ref().and_then(std_from_duration).unwrap_or_default();
        self.0.state().heartbeats.push(request.clone());
        let held_until = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.0.changed.notified();
            let response = self.0.state().heard(&request);
            let fine = Some(v1::Verdict::default());
            let mut leases = response.leases.iter().zip(&request.leases);
            let news = leases.any(|(now, then)| now.directive != then.directive || now.verdict != fine);
            if news || tokio::time::Instant::now() >= held_until {
                return Ok(Response::new(response));
            }
            let _ = tokio::time::timeout_at(held_until, changed).await;
        }
    }

    async fn report_steps(
        &self,
        request: Request<v1::ReportStepsRequest>,
    ) -> Result<Response<v1::ReportStepsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.state();
        let judge = state.judge;
        let reports: Vec<Report> = request.reports.into_iter().filter_map(|report| report.report).collect();
        let verdicts = reports.iter().map(|report| judge(report).unwrap_or_default()).collect();
        state.reports.extend(reports);
        let next = request.next.map(|next| {
            let granted = state.grant(&next.queues, next.max_steps);
            state.next_polls.push(next);
            granted
        });
        Ok(Response::new(v1::ReportStepsResponse { verdicts, next }))
    }

    async fn complete_step(
        &self,
        _: Request<v1::CompleteStepRequest>,
    ) -> Result<Response<v1::CompleteStepResponse>, Status> {
        Err(Status::unimplemented("the library reports in batches"))
    }

    async fn fail_step(
        &self,
        _: Request<v1::FailStepRequest>,
    ) -> Result<Response<v1::FailStepResponse>, Status> {
        Err(Status::unimplemented("the library reports in batches"))
    }

    async fn yield_step(
        &self,
        _: Request<v1::YieldStepRequest>,
    ) -> Result<Response<v1::YieldStepResponse>, Status> {
        Err(Status::unimplemented("the library reports in batches"))
    }
}

/// A lease with nothing but a token, on the queue `work`.
pub fn lease(token: &str) -> v1::StepLease {
    v1::StepLease {
        lease_token: token.to_owned(),
        run_id: "run".to_owned(),
        workflow: "test".to_owned(),
        step: "work".to_owned(),
        queue: "work".to_owned(),
        attempt: 1,
        heartbeat_timeout: Some(duration_from_std(Duration::from_secs(30))),
        effect_key: "run/work".to_owned(),
        ..Default::default()
    }
}

/// A committed checkpoint.
pub fn stored(data: Value, done: i64) -> v1::StoredCheckpoint {
    let checkpoint =
        v1::Checkpoint { sequence: done, done, data: struct_from_json(data), ..Default::default() };
    v1::StoredCheckpoint { attempt: 1, commit_time: None, checkpoint: Some(checkpoint) }
}

/// A verdict that refuses.
pub fn verdict(code: Code, reason: v1::Reason) -> v1::Verdict {
    v1::Verdict {
        code: code.into(),
        reason: reason.into(),
        message: "told to refuse".to_owned(),
        ..Default::default()
    }
}

pub fn superseded() -> v1::Verdict {
    verdict(Code::FailedPrecondition, v1::Reason::LeaseSuperseded)
}

pub fn completion(report: Report) -> v1::CompleteStepRequest {
    match report {
        Report::Complete(complete) => complete,
        Report::Fail(_) | Report::Yield(_) => panic!("{report:?} is no completion"),
    }
}

pub fn failure(report: Report) -> (v1::StepError, v1::FailStepRequest) {
    match report {
        Report::Fail(mut fail) => (fail.error.take().expect("an error"), fail),
        Report::Complete(_) | Report::Yield(_) => panic!("{report:?} is no failure"),
    }
}

pub fn yielded(report: Report) -> v1::YieldStepRequest {
    match report {
        Report::Yield(yielded) => yielded,
        Report::Complete(_) | Report::Fail(_) => panic!("{report:?} is no yield"),
    }
}
