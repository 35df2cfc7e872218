//! The bounds of a server's connections, against clients that no library would be. Each server has small limits, in this process.

mod raw;

use std::time::Duration;

use longtake_e2e::{Client, Database, eventually, free_port, http_status, pass, shipped_definitions};
use longtake_orchestrator::{Config, Limits, ServeError, serve};
use longtake_proto::v1::{self, watch_run_response::Update};
use raw::{ACK, END_STREAM, Frame, GO_AWAY, HEADERS, PING, Peer, RESET, SETTINGS, begin, empty_message};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const SOON: Duration = Duration::from_secs(20);
const POLL: &str = "/longtake.v1.ExecutorService/PollSteps";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// SETTINGS_MAX_CONCURRENT_STREAMS.
const MAX_STREAMS: u16 = 3;

/// A server in this process.
struct Here {
    grpc: u16,
    http: u16,
    stop: DropGuard,
    serving: JoinHandle<Result<(), ServeError>>,
    _database: Database,
}

impl Here {
    async fn serve(limits: Limits) -> Here {
        let database = Database::create().await;
        let (grpc, http) = (free_port(), free_port());
        let local = |port| (std::net::Ipv4Addr::LOCALHOST, port).into();
        let config = Config {
            database_url: database.url().to_owned(),
            grpc_listen: local(grpc),
            http_listen: Some(local(http)),
            workflows: shipped_definitions(),
            limits: Limits { read_connections: 2, ..limits },
            ..Config::default()
        };
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(config, stop.clone()));
        eventually(SOON, async || match http_status(http, "/readyz").await {
            Ok(200) => Ok(()),
            other => Err(format!("/readyz: {other:?}")),
        })
        .await;
        Here { grpc, http, stop: stop.drop_guard(), serving, _database: database }
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.grpc))
    }

    /// Somebody else is served.
    async fn serves(&self) {
        self.client().create("noop", json!({})).await;
    }

    async fn stop(self) {
        drop(self.stop);
        tokio::time::timeout(SOON, self.serving)
            .await
            .expect("in time")
            .expect("no panic")
            .expect("no error");
    }
}

fn on(stream: u32) -> impl Fn(&Frame) -> bool {
    move |frame| frame.stream == stream && (frame.kind == HEADERS || frame.kind == RESET)
}

#[tokio::test]
async fn a_connection_has_so_many_calls_under_way_and_no_more() {
    let here = Here::serve(Limits { streams_per_connection: 2, ..Limits::default() }).await;
    let mut peer = Peer::connect(here.grpc).await;
    let settings = peer.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await;
    assert_eq!(settings.expect("what the server allows").setting(MAX_STREAMS), Some(2));
    peer.write(&[begin(1, POLL), begin(3, POLL), begin(5, POLL)].concat()).await;
    let refused = peer.until(on(5)).await.expect("an answer");
    assert_eq!((refused.kind, refused.code()), (RESET, raw::REFUSED_STREAM), "{refused:?}");
    here.serves().await;
    // Once one is over, another may begin.
    peer.write(&raw::reset(1)).await;
    peer.write(&[begin(7, HEALTH), empty_message(7)].concat()).await;
    assert_eq!(peer.until(on(7)).await.expect("an answer").kind, HEADERS);
    drop(peer);
    here.stop().await;
}

#[tokio::test]
async fn a_rapid_reset_ends_its_connection_and_no_other() {
    let here = Here::serve(Limits { pending_resets: 4, ..Limits::default() }).await;
    let client = here.client();
    let run_id = client.create("noop", json!({})).await;
    let mut watched = watch(&client, &run_id).await;
    let mut peer = Peer::connect(here.grpc).await;
    let flood = (0..64).flat_map(|call| [begin(call * 2 + 1, POLL), raw::reset(call * 2 + 1)].concat());
    peer.write(&flood.collect::<Vec<u8>>()).await;
    let end = peer.until(|frame| frame.kind == GO_AWAY).await.expect("it is told why");
    assert_eq!(end.code(), raw::ENHANCE_YOUR_CALM, "{end:?}");
    peer.closed().await;
    cancel(&client, &run_id).await;
    assert!(ends(&mut watched).await, "a stream of another connection goes on");
    here.serves().await;
    here.stop().await;
}

#[tokio::test]
async fn a_call_whose_request_never_ends_is_ended_and_a_stream_is_not() {
    let call = Duration::from_millis(300);
    let here = Here::serve(Limits { call, ..Limits::default() }).await;
    let client = here.client();
    let run_id = client.create("noop", json!({})).await;
    let mut watched = watch(&client, &run_id).await;
    let mut peer = Peer::connect(here.grpc).await;
    // Without any message, and in the middle of one.
    peer.write(&[begin(1, POLL), begin(3, POLL), raw::frame(raw::DATA, 0, 3, &[0, 0, 0, 0, 9, 1])].concat())
        .await;
    for stream in [1, 3] {
        let ended = peer.until(|frame| on(stream)(frame)).await.expect("an answer");
        assert_eq!((ended.kind, ended.flags & END_STREAM), (HEADERS, END_STREAM), "{ended:?}");
    }
    peer.write(&[begin(5, HEALTH), empty_message(5)].concat()).await;
    assert_eq!(peer.until(on(5)).await.expect("an answer").kind, HEADERS, "the connection is still good");
    pass(call * 2).await;
    cancel(&client, &run_id).await;
    assert!(ends(&mut watched).await, "a stream outlives the deadline of calls");
    drop(peer);
    here.stop().await;
}

#[tokio::test]
async fn a_peer_that_is_dead_or_never_spoke_is_dropped() {
    let quick = Duration::from_millis(200);
    let limits =
        Limits { hello: quick, keepalive_interval: quick, keepalive_timeout: quick, ..Limits::default() };
    let here = Here::serve(limits).await;
    let mut silent = Peer::silent(here.grpc).await;
    let mut slow = Peer::silent(here.grpc).await;
    slow.write(b"PRI * HTTP").await;
    let mut dead = Peer::connect(here.grpc).await;
    assert!(dead.until(|frame| frame.kind == PING && frame.flags & ACK == 0).await.is_some(), "it is asked");
    for peer in [&mut silent, &mut slow, &mut dead] {
        peer.closed().await;
    }
    // One that answers stays, for longer than it had to say hello.
    let mut alive = Peer::connect(here.grpc).await;
    for _ in 0..3 {
        let asked =
            alive.until(|frame| frame.kind == PING && frame.flags & ACK == 0).await.expect("it stays");
        alive.write(&raw::frame(PING, ACK, 0, &asked.payload)).await;
    }
    drop(alive);
    here.stop().await;
}

#[tokio::test]
async fn a_connection_for_http_carries_one_request_and_has_a_time_for_it() {
    let here = Here::serve(Limits { http_connection: Duration::from_millis(500), ..Limits::default() }).await;
    for said in ["", "GET /healthz HTTP/1.1\r\nHost: a\r\n", "GET /healthz HT"] {
        let mut stream = TcpStream::connect(("127.0.0.1", here.http)).await.expect("somebody listens");
        stream.write_all(said.as_bytes()).await.expect("the connection stands");
        closed(stream, said).await;
    }
    // A client that would send more is told not to.
    let mut stream = TcpStream::connect(("127.0.0.1", here.http)).await.expect("somebody listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("the connection stands");
    let answer = closed(stream, "a whole request").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(http_status(here.http, "/readyz").await.expect("an answer"), 200);
    here.stop().await;
}

/// All that comes until the server closes the connection.
async fn closed(mut stream: TcpStream, what: &str) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    // Closed or reset, it is gone.
    let _ = read.unwrap_or_else(|_| panic!("{what:?}: the connection is kept"));
    String::from_utf8_lossy(&answer).into_owned()
}

async fn watch(client: &Client, run_id: &str) -> tonic::Streaming<v1::WatchRunResponse> {
    let request = v1::WatchRunRequest { run_id: run_id.to_owned(), after_event: 0 };
    client.runs().watch_run(request).await.expect("a stream").into_inner()
}

async fn cancel(client: &Client, run_id: &str) {
    let request = v1::CancelRunRequest { run_id: run_id.to_owned(), ..Default::default() };
    client.runs().cancel_run(request).await.expect("cancelled");
}

/// Whether the stream comes to the event that ends the run.
async fn ends(watched: &mut tonic::Streaming<v1::WatchRunResponse>) -> bool {
    while let Some(update) =
        tokio::time::timeout(SOON, watched.message()).await.expect("in time").expect("no error")
    {
        if let Some(Update::Event(v1::Event { kind: Some(v1::event::Kind::RunEnded(_)), .. })) = update.update
        {
            return true;
        }
    }
    false
}
