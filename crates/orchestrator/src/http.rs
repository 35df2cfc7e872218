//! The HTTP port: liveness and readiness.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use longtake_store::Reads;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::util::MapResponseLayer;

use crate::accept::Http1;

#[derive(Clone)]
struct Health {
    reads: Reads,
    stop: CancellationToken,
}

/// Serves until `stop`. `/healthz`: the process answers. `/readyz`: it takes calls and the database answers. A connection
/// carries one request, within `connection`.
pub async fn serve(
    listener: TcpListener,
    reads: Reads,
    connection: Duration,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let health = Health { reads, stop: stop.clone() };
    let app = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(health)
        .layer(MapResponseLayer::new(last));
    axum::serve(Http1 { listener, whole: connection }, app)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// Says that no other answer follows on this connection, and has it closed.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    match health.reads.ping().await {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")
        }
    }
}
