//! Logs to standard error, and spans to a collector when one is configured.
//!
//! Logs are chosen by `--log` (`LONGTAKE_LOG`), else `RUST_LOG`. Spans leave over OTLP only when `OTEL_EXPORTER_OTLP_ENDPOINT` is
//! set; the W3C propagator is there in any case, so that a caller's trace context passes through. Nothing in here can fail a
//! command: an exporter that cannot be built is said, and done without.

use std::io;

use opentelemetry::propagation::Injector;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::{Request, Status};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// What is exported: not what the exporter itself does, or every export would make the next one.
const EXPORTED: &str = "info,h2=off,hyper=off,hyper_util=off,tonic=off,tower=off,opentelemetry=off";

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What was set up; [`shut_down`](Telemetry::shut_down) sends what has not left yet.
#[must_use]
pub(crate) struct Telemetry {
    spans: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logs and spans for this process. Call once, inside the tokio runtime. `filter` is what was asked for, `default`
    /// what this command logs when nothing was, `role` the name of the service in traces.
    pub(crate) fn set_up(filter: Option<&str>, default: &str, format: LogFormat, role: &str) -> Telemetry {
        global::set_text_map_propagator(TraceContextPropagator::new());
        let chosen = filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok());
        let (filter, problem) = match EnvFilter::try_new(chosen.as_deref().unwrap_or(default)) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(default), Some(error)),
        };
        let terminal = io::IsTerminal::is_terminal(&io::stderr());
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(terminal);
        let lines = match format {
            LogFormat::Text => lines.with_target(false).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let (spans, unbuilt) = match exporter(role) {
            Ok(spans) => (spans, None),
            Err(error) => (None, Some(error)),
        };
        let exported = spans.as_ref().map(|provider| {
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("longtake"));
            layer.with_filter(EnvFilter::new(EXPORTED))
        });
        // Calls have spans only where these are exported: ten thousand polls may be held.
        let filter = filter
            .and(filter_fn(|of| of.is_event() || of.name() != longtake_orchestrator::telemetry::CALL_SPAN));
        // A second call in one process (tests) keeps the first.
        let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(exported).try_init();
        if let Some(error) = problem {
            tracing::warn!(%error, "the log filter is not understood: logging {default}");
        }
        if let Some(error) = unbuilt {
            tracing::warn!(%error, "no spans are exported: {ENDPOINT} cannot be used");
        }
        Telemetry { spans }
    }

    /// Sends the spans that are still here. Call outside the runtime's workers, while the runtime lives.
    pub(crate) fn shut_down(self) {
        let Some(spans) = self.spans else { return };
        if let Err(error) = spans.shutdown() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// The way to the collector, if there is one.
fn exporter(role: &str) -> Result<Option<SdkTracerProvider>, opentelemetry_otlp::ExporterBuildError> {
    if std::env::var_os(ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    let mut resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if std::env::var_os(SERVICE_NAME).is_none() {
        resource = resource.with_service_name(format!("longtake-{role}"));
    }
    let provider =
        SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    global::set_tracer_provider(provider.clone());
    Ok(Some(provider))
}

/// Puts the current span's context into a call's metadata, as `traceparent`.
#[allow(clippy::result_large_err)] // tonic's type
pub(crate) fn carry_context(mut request: Request<()>) -> Result<Request<()>, Status> {
    let context = tracing::Span::current().context();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut Metadata(request.metadata_mut()));
    });
    Ok(request)
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}
