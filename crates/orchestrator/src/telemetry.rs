//! Spans of calls, and the trace context that a run carries to its executors. Nothing here can fail a call.

use std::collections::BTreeMap;

use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt as _;
use tonic::metadata::MetadataMap;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Pairs(BTreeMap<String, String>);

impl Injector for Pairs {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }
}

/// The name of a call's span.
pub const CALL_SPAN: &str = "rpc";

/// The span of a call; its parent is what the caller's `traceparent` names.
/// Names: OpenTelemetry semantic conventions for RPC, 1.45.
pub fn call_span(request: &http::Request<()>) -> tracing::Span {
    let method = request.uri().path().trim_start_matches('/');
    let span = tracing::info_span!(
        CALL_SPAN,
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method
    );
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&Headers(request.headers()))
    });
    // Without an exporter there is nothing to hang a parent on.
    let _ = span.set_parent(parent);
    span
}

/// The trace context to be stored with the run that a call submits: `traceparent` and `tracestate`. That of the call's own span,
/// else (spans are made only where they are exported) what the caller sent, so that executors continue its trace in any case.
pub fn trace_of(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let mut pairs = Pairs(BTreeMap::new());
    let own = tracing::Span::current().context();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        let context = match own.span().span_context().is_valid() {
            true => own.clone(),
            false => propagator.extract(&Headers(metadata.as_ref())),
        };
        propagator.inject_context(&context, &mut pairs);
    });
    pairs.0.retain(|_, value| !value.is_empty());
    pairs.0
}
