//! Puts a server together, and takes it apart in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use longtake_proto::v1::content_service_server::ContentServiceServer;
use longtake_proto::v1::executor_service_server::ExecutorServiceServer;
use longtake_proto::v1::run_service_server::RunServiceServer;
use longtake_proto::v1::workflow_service_server::WorkflowServiceServer;
use longtake_store::{Reads, Schema, Store};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tower::layer::util::{Identity, Stack};
use tower::util::MapResponseLayer;
use uuid::Uuid;

use crate::accept;
use crate::clock::Clock;
use crate::config::{Config, Limits};
use crate::deadline::Deadline;
use crate::lane::{self, Hubs};
use crate::services::{Content, Executors, Runs, Shared, WorkflowCatalog};
use crate::telemetry::call_span;
use crate::unreadable;
use crate::workflows::{Workflows, WorkflowsError};

/// A server could not start, or broke.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database: not reachable, not set up for durability, or with a schema that excludes this binary.
    #[error(transparent)]
    Store(#[from] longtake_store::Error),
    /// The definitions.
    #[error(transparent)]
    Workflows(#[from] WorkflowsError),
    /// An address is taken, or not this machine's.
    #[error("cannot listen on {address}: {error}: choose another with --grpc-listen or --http-listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The gRPC server broke.
    #[error("the gRPC server broke: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Reflection could not be built from the contract's descriptors.
    #[error("the contract's descriptors are broken: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The lane ended though the server did not.
    #[error("the lane broke down; nothing that was acknowledged is lost: restart the server")]
    Lane,
}

impl ServeError {
    /// Whether the database, or what is in it, does not fit: its schema, its settings, what was asked of it.
    pub fn is_refusal(&self) -> bool {
        let (Self::Store(error) | Self::Workflows(WorkflowsError::Store(error))) = self else { return false };
        matches!(error, longtake_store::Error::Refused(_))
    }

    /// Whether the database could not be reached: trying again helps once it can.
    pub fn is_outage(&self) -> bool {
        let (Self::Store(error) | Self::Workflows(WorkflowsError::Store(error))) = self else { return false };
        matches!(error, longtake_store::Error::Outage { .. })
    }
}

/// Serves until `stop` is cancelled; then answers held calls early, finishes what is under way, and returns.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<(), ServeError> {
    let limits = config.limits.clone();
    let store = Store::connect(&config.database_url, limits.read_connections).await?;
    store.check_settings().await?;
    if config.migrate {
        store.migrate().await?;
    }
    store.check_schema().await?;
    let grpc = listen(config.grpc_listen).await?;
    let http = match config.http_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let replica = replica_id(&config);
    let now = store.begin_service(replica, config.after_restore).await?;
    let reads = store.reads();
    let workflows = Workflows::new(reads.clone());
    let count = workflows.load(&config.workflows).await?;
    tracing::info!(count, folder = %config.workflows.display(), "workflows loaded");

    let clock = Arc::new(Clock::new(now));
    let hubs = Hubs::default();
    let bounds = lane::config(limits.waiting_submits);
    let connections = store.lane(replica, bounds.writes_at_once).await;
    let (handle, driver) = lane::lane(bounds, connections, &workflows, clock.clone(), hubs.clone());
    let abandon = CancellationToken::new();
    let driving = tokio::spawn(driver.run(abandon.clone()));
    // The driver ends when the last handle is gone: none may be kept here.
    let shared = Shared { lane: handle, reads: reads.clone(), workflows, clock, hubs, stop: stop.clone() };
    if config.after_restore {
        tokio::select! {
            () = no_lease_is_left(&shared.reads) => {}
            () = stop.cancelled() => {}
        }
    }
    if let Some(http) = http {
        announce("HTTP", &http);
        tokio::spawn(crate::http::serve(http, reads, limits.http_connection, stop.clone()));
    }
    if let Some(keep) = config.retention {
        tokio::spawn(crate::retention::run(store.clone(), keep, limits.clone(), stop.clone()));
    }
    announce("gRPC", &grpc);
    let served = serve_grpc(grpc, shared, &limits, stop, driving, abandon).await;
    store.end_service(replica).await;
    served
}

/// Waits until the leases of ended sessions were taken back: until then a report under one of them would count.
async fn no_lease_is_left(reads: &Reads) {
    loop {
        match reads.any_lease().await {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::warn!(%error, "looking for leases of before the restore; trying again"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The same for every life of a replica: a server that comes back knows that its last presence was its own, and that the time
/// since was an outage.
fn replica_id(config: &Config) -> Uuid {
    let name = match &config.replica {
        Some(name) => name.clone(),
        None if config.grpc_listen.port() == 0 => return Uuid::new_v4(),
        None => {
            let host = std::fs::read_to_string("/etc/hostname")
                .or_else(|_| std::env::var("HOSTNAME"))
                .unwrap_or_default();
            format!("{}/{}", host.trim(), config.grpc_listen)
        }
    };
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(format!("longtake replica {name}"))[..16]);
    Uuid::from_bytes(id)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })
}

fn announce(what: &str, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "{what} listening");
    }
}

async fn serve_grpc(
    listener: TcpListener,
    shared: Shared,
    limits: &Limits,
    stop: CancellationToken,
    mut driving: tokio::task::JoinHandle<()>,
    abandon: CancellationToken,
) -> Result<(), ServeError> {
    let router = router(shared, limits, &stop).await?;
    let incoming = accept::http2(listener, limits.hello);
    let serving = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended.map_err(ServeError::from),
        _ = &mut driving => return Err(ServeError::Lane),
        // Streams watch the stop token themselves; this ends the wait for a client that does not read.
        () = late(&stop, limits.drain) => {
            tracing::warn!("some calls did not end in time and were cut off");
            Ok(())
        }
    };
    // Every handle is gone with the services: the driver finishes what it was asked and ends.
    if tokio::time::timeout(limits.drain, &mut driving).await.is_err() {
        abandon.cancel();
        // It was told to end; how it ended changes nothing any more.
        let _ = driving.await;
    }
    ended
}

async fn late(stop: &CancellationToken, drain: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(drain).await;
}

type ToResponse = fn(Response<Body>) -> Response<Body>;
type Layers = Stack<Deadline, Stack<MapResponseLayer<ToResponse>, Identity>>;

async fn router(
    shared: Shared,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<tonic::transport::server::Router<Layers>, ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let names = [
        "",
        "longtake.v1.ContentService",
        "longtake.v1.RunService",
        "longtake.v1.ExecutorService",
        "longtake.v1.WorkflowService",
    ];
    for name in names {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let stopping = stop.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        for name in names {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
    });
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(longtake_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            // Each version brings its own; both are listed.
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
    };
    let bytes = limits.message_bytes;
    let router = tonic::transport::Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_header_list_size(limits.header_bytes)
        .http2_max_pending_accept_reset_streams(Some(limits.pending_resets))
        .http2_max_local_error_reset_streams(Some(limits.local_error_resets))
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        // Without a grace: with one, tonic 0.14 cuts a connection off at its end and never asks the client to leave before.
        .max_connection_age(limits.connection_age)
        .trace_fn(call_span)
        .layer(MapResponseLayer::new(unreadable::refused as ToResponse))
        .layer(Deadline(limits.call))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(ContentServiceServer::new(Content(shared.clone())).max_decoding_message_size(bytes))
        .add_service(RunServiceServer::new(Runs(shared.clone())).max_decoding_message_size(bytes))
        .add_service(
            WorkflowServiceServer::new(WorkflowCatalog(shared.clone())).max_decoding_message_size(bytes),
        )
        .add_service(ExecutorServiceServer::new(Executors(shared)).max_decoding_message_size(bytes));
    Ok(router)
}

/// Where the schema of a database stands.
pub async fn schema(database_url: &str) -> Result<Schema, ServeError> {
    Ok(Store::connect(database_url, 1).await?.schema().await?)
}

/// Brings the schema of a database up to date.
pub async fn migrate(database_url: &str) -> Result<Schema, ServeError> {
    let store = Store::connect(database_url, 1).await?;
    store.migrate().await?;
    Ok(store.schema().await?)
}

/// Takes the schema of a database down to a version; 0 removes everything.
pub async fn migrate_down(database_url: &str, to: i64) -> Result<Schema, ServeError> {
    let store = Store::connect(database_url, 1).await?;
    store.migrate_down(to).await?;
    Ok(store.schema().await?)
}
