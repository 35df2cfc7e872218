//! A caller's trace goes through: into the run, to its executors, and, where there is a collector, into their spans.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use longtake_e2e::{Client, Hand, Server, World, content_request, eventually, shipped_definitions};
use longtake_proto::v1::{BatchSubmitContentRequest, CreateRunRequest, Modality};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const SOON: Duration = Duration::from_secs(30);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const STATE: &str = "vendor=opaque,other=1";

fn traceparent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

/// A call with the caller's trace.
fn traced<T>(message: T, headers: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().expect("a header's value"));
    }
    request
}

/// What the first step of a fresh `noop` run is told of the trace of the call that made it.
async fn handed_on(client: &Client, headers: &[(&'static str, &str)]) -> HashMap<String, String> {
    let request = CreateRunRequest { workflow: "noop".to_owned(), ..CreateRunRequest::default() };
    client.runs().create_run(traced(request, headers)).await.expect("accepted");
    let hand = Hand::new(client, "hand", &["noop"]);
    let lease = hand.take().await;
    hand.fail(&lease, "SEEN", false).await.expect("accepted");
    lease.trace_context
}

#[tokio::test]
async fn the_callers_trace_reaches_executors_without_a_collector() {
    let world = World::new().await;
    let (_server, client) = world.served().await;
    let own = [("traceparent".to_owned(), traceparent()), ("tracestate".to_owned(), STATE.to_owned())];
    let headers: [(&'static str, &str); 2] = [("traceparent", &traceparent()), ("tracestate", STATE)];
    assert_eq!(handed_on(&client, &headers).await, own.clone().into());
    assert_eq!(handed_on(&client, &headers[..1]).await, own[..1].iter().cloned().collect());
    // What is no trace context is not kept.
    for headers in [&[][..], &headers[1..], &[("traceparent", "00-xyz-1-01")], &[("traceparent", TRACE)]] {
        assert_eq!(handed_on(&client, headers).await, HashMap::new(), "{headers:?}");
    }
    // The same for requests for content, also in a batch.
    client.content().submit_content(traced(content_request(&[], 2), &headers)).await.expect("accepted");
    let requests = vec![content_request(&[], 2), content_request(&[], 2)];
    let batch = traced(BatchSubmitContentRequest { requests }, &headers);
    client.content().batch_submit_content(batch).await.expect("accepted");
    for _ in 0..3 {
        let lease = Hand::new(&client, "hand", &["script"]).take().await;
        assert_eq!(lease.trace_context, own.clone().into());
    }
}

#[tokio::test]
async fn calls_and_attempts_are_spans_of_the_callers_trace() {
    let world = World::new().await;
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let (folder, database) = (world.dir(), world.database().url());
    let server = Server::start_in("server", folder, database, &shipped_definitions(), &environment).await;
    let executor = environment
        .iter()
        .fold(world.executor(&server, "writer", &["script"]), |it, (name, value)| it.env(name, value));
    let mut executor = executor.start();
    let headers: [(&'static str, &str); 2] = [("traceparent", &traceparent()), ("tracestate", STATE)];
    let client = server.client();
    let request = content_request(&[Modality::Text], 2);
    let run_id = request.request_id.clone();
    client.content().submit_content(traced(request, &headers)).await.expect("accepted");

    let call = collector.span("longtake.v1.ContentService/SubmitContent").await;
    assert_eq!((hex(&call.trace_id), hex(&call.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!((call.kind(), call.trace_state.as_str()), (SpanKind::Server, STATE));
    let attempt = collector.span("step.run script").await;
    assert_eq!((hex(&attempt.trace_id), &attempt.parent_span_id), (TRACE.to_owned(), &call.span_id));
    assert_eq!((attempt.kind(), text(&attempt, "longtake.run_id")), (SpanKind::Consumer, run_id));
    // The next executor is a child of the call's span, too, whoever it is.
    let lease = Hand::new(&client, "hand", &["audio"]).take().await;
    let parent = format!("00-{TRACE}-{}-01", hex(&call.span_id));
    let expected = [("traceparent".to_owned(), parent), ("tracestate".to_owned(), STATE.to_owned())];
    assert_eq!(lease.trace_context, expected.into());
    let services = collector.services();
    assert!(services.contains(&"longtake-server".to_owned()), "{services:?}");
    assert!(services.contains(&"longtake-executor".to_owned()), "{services:?}");
    executor.signal(longtake_e2e::Signal::Terminate);
    assert!(executor.ended(SOON).await.success());
}

/// What OTLP is sent to.
struct Collector {
    address: SocketAddr,
    received: Received,
}

/// Spans, each with the name of its service.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = self.0.lock().expect("no panic");
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let service = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = service.map(|service| string(service.value.as_ref())).unwrap_or_default();
            let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            received.extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> Collector {
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = incoming.local_addr().expect("its address");
        let received = Received::default();
        let service = TraceServiceServer::new(received.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Collector { address, received }
    }

    /// The span of this name in the caller's trace, of which there is one.
    async fn span(&self, name: &str) -> Span {
        eventually(SOON, async || {
            let received = self.received.0.lock().expect("no panic");
            let of_name: Vec<&Span> = received
                .iter()
                .map(|(_, span)| span)
                .filter(|span| span.name == name && hex(&span.trace_id) == TRACE)
                .collect();
            match of_name.as_slice() {
                [span] => Ok((*span).clone()),
                [] => Err(format!("{:?}", received.iter().map(|(_, span)| &span.name).collect::<Vec<_>>())),
                several => panic!("{name} is there {} times", several.len()),
            }
        })
        .await
    }

    fn services(&self) -> Vec<String> {
        self.received.0.lock().expect("no panic").iter().map(|(service, _)| service.clone()).collect()
    }
}

fn text(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    string(found.and_then(|attribute| attribute.value.as_ref()))
}

fn string(value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("no text: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
