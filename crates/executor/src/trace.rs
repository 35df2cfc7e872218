//! One span per attempt, as a child of the call that submitted the run.

use longtake_proto::v1;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The span of the attempt that `lease` allows.
pub(crate) fn span(lease: &v1::StepLease) -> Span {
    let span = tracing::info_span!(
        "step.run",
        otel.name = format!("step.run {}", lease.step),
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        longtake.run_id = lease.run_id,
        longtake.workflow = lease.workflow,
        longtake.step = lease.step,
        longtake.attempt = lease.attempt,
    );
    // The contract says W3C, whatever the process has set as its global propagator.
    let parent = TraceContextPropagator::new().extract(&lease.trace_context);
    if parent.span().span_context().is_valid() {
        // Without an OpenTelemetry layer there is nothing to be a child in; the work goes on all the same.
        let _ = span.set_parent(parent);
    }
    span
}

/// Marks the attempt's span as failed.
pub(crate) fn failed(span: &Span) {
    span.record("otel.status_code", "ERROR");
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn lease(traceparent: &str) -> v1::StepLease {
        let trace_context = [("traceparent".to_owned(), traceparent.to_owned())].into();
        v1::StepLease { trace_context, ..Default::default() }
    }

    #[test]
    fn the_lease_brings_the_parent() {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let subscriber =
            tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
        tracing::subscriber::with_default(subscriber, || {
            let trace_of = |traceparent: &str| {
                let context = span(&lease(traceparent)).context();
                context.span().span_context().trace_id().to_string()
            };
            assert_eq!(trace_of(&format!("00-{TRACE}-b7ad6b7169203331-01")), TRACE);
            for malformed in ["", "00-xyz", "00-00000000000000000000000000000000-0000000000000000-01"] {
                assert_ne!(trace_of(malformed), TRACE, "{malformed}");
            }
        });
    }

    #[test]
    fn without_telemetry_nothing_fails() {
        let span = span(&lease(&format!("00-{TRACE}-b7ad6b7169203331-01")));
        failed(&span);
    }
}
