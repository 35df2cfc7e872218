//! Against a server that ends streams in every way there is.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::stream;
use longtake_proto::v1::run_service_server::{RunService, RunServiceServer};
use longtake_proto::v1::{self, run};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;
use crate::attend::{Attend, Attended, exit_of, no_notes};
use crate::progress::Style;
use crate::signals::Stop;

type Updates = Pin<Box<dyn futures_util::Stream<Item = Result<WatchRunResponse, Status>> + Send>>;

/// How one call of WatchRun goes: so many events, then an end.
#[derive(Clone)]
struct Call {
    events: usize,
    end: End,
}

#[derive(Clone)]
enum End {
    Well,
    Status(Code),
    Never,
}

/// A run with five events, the last of which ends it. Remembers what it was asked for.
#[derive(Clone, Default)]
struct Scripted {
    calls: Arc<Mutex<Vec<Call>>>,
    asked: Arc<Mutex<Vec<i64>>>,
}

const EVENTS: i64 = 5;

fn event(number: i64) -> WatchRunResponse {
    let ended = v1::RunEnded { state: run::State::Succeeded.into(), ..Default::default() };
    let kind =
        if number == EVENTS { Kind::RunEnded(ended) } else { Kind::RunResumed(v1::RunResumed::default()) };
    let event = Event { number, time: None, kind: Some(kind) };
    WatchRunResponse { update: Some(Update::Event(event)) }
}

impl Scripted {
    fn new(calls: &[Call]) -> Scripted {
        let reversed = calls.iter().rev().cloned().collect();
        Scripted { calls: Arc::new(Mutex::new(reversed)), asked: Arc::default() }
    }

    /// On a runtime of its own: shut down, it takes the connections along, as a dead process does.
    async fn serve(&self, address: SocketAddr) -> (SocketAddr, Running) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let script = self.clone();
        let address = runtime.spawn(async move { script.listen(address).await }).await.unwrap();
        (address, Running(Some(runtime)))
    }

    async fn listen(&self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = RunServiceServer::new(self.clone());
        let serving = async move {
            let router = tonic::transport::Server::builder().add_service(service);
            router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        };
        tokio::spawn(serving);
        address
    }
}

struct Running(Option<tokio::runtime::Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of the script"))
}

#[tonic::async_trait]
impl RunService for Scripted {
    type WatchRunStream = Updates;

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Result<Response<Updates>, Status> {
        let after = request.into_inner().after_event;
        self.asked.lock().unwrap().push(after);
        let Call { events, end } =
            self.calls.lock().unwrap().pop().ok_or_else(|| Status::not_found("the script is over"))?;
        let updates = (after + 1..=EVENTS).take(events).map(|number| Ok(event(number)));
        let end: Updates = match end {
            End::Well => Box::pin(stream::empty()),
            End::Status(code) => Box::pin(stream::iter([Err(Status::new(code, "scripted"))])),
            End::Never => Box::pin(stream::pending()),
        };
        Ok(Response::new(Box::pin(futures_util::StreamExt::chain(
            stream::iter(updates.collect::<Vec<_>>()),
            end,
        ))))
    }

    async fn create_run(
        &self,
        _: Request<v1::CreateRunRequest>,
    ) -> Result<Response<v1::CreateRunResponse>, Status> {
        unused()
    }
    async fn get_run(&self, _: Request<v1::GetRunRequest>) -> Result<Response<v1::GetRunResponse>, Status> {
        let over = self.calls.lock().unwrap().is_empty();
        let state = if over { run::State::Succeeded } else { run::State::Running };
        let run = Run { run_id: "r".into(), state: state.into(), ..Default::default() };
        Ok(Response::new(v1::GetRunResponse { run: Some(run) }))
    }
    async fn list_runs(
        &self,
        _: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        unused()
    }
    async fn list_run_events(
        &self,
        _: Request<v1::ListRunEventsRequest>,
    ) -> Result<Response<v1::ListRunEventsResponse>, Status> {
        unused()
    }
    async fn explain_run(
        &self,
        _: Request<v1::ExplainRunRequest>,
    ) -> Result<Response<v1::ExplainRunResponse>, Status> {
        unused()
    }
    async fn cancel_run(
        &self,
        _: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        unused()
    }
    async fn pause_run(
        &self,
        _: Request<v1::PauseRunRequest>,
    ) -> Result<Response<v1::PauseRunResponse>, Status> {
        unused()
    }
    async fn resume_run(
        &self,
        _: Request<v1::ResumeRunRequest>,
    ) -> Result<Response<v1::ResumeRunResponse>, Status> {
        unused()
    }
    async fn retry_run(
        &self,
        _: Request<v1::RetryRunRequest>,
    ) -> Result<Response<v1::RetryRunResponse>, Status> {
        unused()
    }
    async fn extend_deadline(
        &self,
        _: Request<v1::ExtendDeadlineRequest>,
    ) -> Result<Response<v1::ExtendDeadlineResponse>, Status> {
        unused()
    }
}

async fn follow(address: SocketAddr) -> Follow {
    let url = [ServerUrl::local(address.port())];
    let server = Server::connect(&url).await.unwrap();
    let run = Run { run_id: "r".into(), state: run::State::Running.into(), ..Default::default() };
    Follow::start(&server, &url, &run, 0, Duration::from_secs(20)).await.unwrap()
}

/// What came, in short: event numbers, `lost` and `back`.
async fn all(follow: &mut Follow) -> anyhow::Result<Vec<String>> {
    let mut seen = Vec::new();
    while let Some(next) = follow.next().await? {
        seen.push(match next {
            Seen::Update(response) => match response.update {
                Some(Update::Event(event)) => event.number.to_string(),
                _ => "progress".to_owned(),
            },
            Seen::Lost(_) => "lost".to_owned(),
            Seen::Back => "back".to_owned(),
        });
    }
    Ok(seen)
}

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[tokio::test]
async fn each_event_comes_once_however_streams_end() {
    let script = Scripted::new(&[
        Call { events: 2, end: End::Status(Code::Unavailable) },
        Call { events: 0, end: End::Status(Code::Unknown) },
        Call { events: 1, end: End::Well },
        Call { events: 9, end: End::Well },
    ]);
    let (address, _serving) = script.serve(ANYWHERE).await;
    let seen = all(&mut follow(address).await).await.unwrap();
    assert_eq!(seen.join(" "), "1 2 lost back 3 lost back 4 5");
    assert_eq!(*script.asked.lock().unwrap(), [0, 2, 2, 3]);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let script = Scripted::new(&[Call { events: 3, end: End::Never }, Call { events: 9, end: End::Well }]);
    let (address, serving) = script.serve(ANYWHERE).await;
    let mut follow = follow(address).await;
    for _ in 0..3 {
        assert!(matches!(follow.next().await.unwrap(), Some(Seen::Update(_))));
    }
    drop(serving);
    assert!(matches!(follow.next().await.unwrap(), Some(Seen::Lost(_))));
    let (again, _serving) = script.serve(address).await;
    assert_eq!(again, address);
    assert_eq!(all(&mut follow).await.unwrap().join(" "), "back 4 5");
}

#[tokio::test]
async fn a_refusal_ends_it() {
    let script = Scripted::new(&[Call { events: 1, end: End::Status(Code::NotFound) }]);
    let (address, _serving) = script.serve(ANYWHERE).await;
    let error = all(&mut follow(address).await).await.unwrap_err();
    assert_eq!(Exit::of_error(&error), Exit::NotFound);
}

#[tokio::test]
async fn a_screen_does_not_keep_a_lost_server_from_being_found() {
    let gone = Call { events: 0, end: End::Status(Code::Unavailable) };
    let script =
        Scripted::new(&[gone.clone(), gone.clone(), gone.clone(), gone, Call { events: 9, end: End::Well }]);
    let (address, _serving) = script.serve(ANYWHERE).await;
    let attend = Attend {
        urls: &[ServerUrl::local(address.port())],
        run_id: "r",
        style: Style::Quiet,
        after: None,
        patience: Duration::from_secs(20),
        stop: &Stop::never(),
    };
    let Attended::Ended(run) = attend.to_end(no_notes()).await.unwrap() else { panic!("nobody stopped it") };
    assert_eq!(exit_of(&run), Exit::Done);
}
