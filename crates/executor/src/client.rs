//! Calls to the server: several addresses, one of them in use, the next one after a failure.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use longtake_proto::v1;
use longtake_proto::v1::executor_service_client::ExecutorServiceClient;

use crate::Error;
use crate::config::{CALL_BYTES, Config, REPLY_BYTES};

type Stub = ExecutorServiceClient<Channel>;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// However quick the pace is.
const HEARTBEAT_MARGIN_MIN: Duration = Duration::from_secs(1);
/// Polls are held: their replies are late by so much at most.
const HELD_MARGIN: Duration = Duration::from_secs(10);

pub(crate) struct Client {
    stubs: Vec<Stub>,
    current: AtomicUsize,
    call_timeout: Duration,
}

/// A reply, and when its call was sent: durations of the reply count from then.
pub(crate) struct Answer<T> {
    pub(crate) message: T,
    pub(crate) sent_at: Instant,
}

/// Why a call has no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again may help; whether the call took effect is unknown.
    Transient(Status),
    /// The server read the call and refused it.
    Refused(Status),
}

impl Client {
    /// Connects when first used; call it within the runtime that is to drive the connections.
    pub(crate) fn new(config: &Config) -> Result<Client, Error> {
        let stubs = config.servers.iter().map(|address| stub(address, config)).collect::<Result<_, _>>()?;
        Ok(Client { stubs, current: AtomicUsize::new(0), call_timeout: config.call_timeout })
    }

    pub(crate) async fn poll(
        &self,
        request: v1::PollStepsRequest,
        wait: Duration,
    ) -> Result<Answer<v1::PollStepsResponse>, Failure> {
        let request = within(request, wait + HELD_MARGIN);
        self.call(wait + HELD_MARGIN, async move |mut stub| stub.poll_steps(request).await).await
    }

    pub(crate) async fn heartbeat(
        &self,
        request: v1::HeartbeatStepsRequest,
        wait: Duration,
    ) -> Result<Answer<v1::HeartbeatStepsResponse>, Failure> {
        // A renewal that hangs must leave time to try another server.
        let late = wait.max(HEARTBEAT_MARGIN_MIN);
        let limit = if wait.is_zero() { self.call_timeout } else { wait + self.call_timeout.min(late) };
        let request = within(request, limit);
        self.call(limit, async move |mut stub| stub.heartbeat_steps(request).await).await
    }

    pub(crate) async fn report(
        &self,
        request: v1::ReportStepsRequest,
    ) -> Result<Answer<v1::ReportStepsResponse>, Failure> {
        let request = within(request, self.call_timeout);
        self.call(self.call_timeout, async move |mut stub| stub.report_steps(request).await).await
    }

    async fn call<T, F>(&self, limit: Duration, call: F) -> Result<Answer<T>, Failure>
    where
        F: AsyncFnOnce(Stub) -> Result<Response<T>, Status>,
    {
        let used = self.current.load(Ordering::Relaxed);
        let stub = self.stubs[used % self.stubs.len()].clone();
        let sent_at = Instant::now();
        let late = || Status::deadline_exceeded(format!("no answer within {limit:?}"));
        let reply = tokio::time::timeout(limit, call(stub)).await.unwrap_or_else(|_| Err(late()));
        match reply.map_err(Failure::from) {
            Ok(response) => Ok(Answer { message: response.into_inner(), sent_at }),
            Err(failure) => {
                if matches!(failure, Failure::Transient(_)) {
                    // Another call may have moved on from this server already.
                    let next = used.wrapping_add(1);
                    let _ = self.current.compare_exchange(used, next, Ordering::Relaxed, Ordering::Relaxed);
                }
                Err(failure)
            }
        }
    }
}

fn stub(address: &str, config: &Config) -> Result<Stub, Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| Error::Config(format!("servers: {address:?} is no address: {error}")))?
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE_INTERVAL))
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let stub = ExecutorServiceClient::new(endpoint.connect_lazy());
    Ok(stub.max_decoding_message_size(REPLY_BYTES).max_encoding_message_size(CALL_BYTES + 64 * 1024))
}

fn within<T>(message: T, limit: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

impl Failure {
    /// The delay that the server asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.status().get_details_retry_info()?.retry_delay
    }

    pub(crate) fn status(&self) -> &Status {
        match self {
            Failure::Transient(status) | Failure::Refused(status) => status,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        match status.code() {
            // What connections that break and servers that stop come out as, besides UNAVAILABLE itself.
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Failure::Transient(status),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Failure::Refused(status),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.status().code(), self.status().message())
    }
}
