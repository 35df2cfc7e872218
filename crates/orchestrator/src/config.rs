//! What a server can be told, and every bound that it keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What an operator who says nothing gets: long enough to look into what went wrong a month ago, as the services do that keep
/// histories for others, and a disk that does not fill up.
pub const RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// A server's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where Postgres is: a `postgresql://` URL.
    pub database_url: String,
    /// Where gRPC listens; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// Where HTTP listens, if it does.
    pub http_listen: Option<SocketAddr>,
    /// The folder of definitions.
    pub workflows: PathBuf,
    /// Bring the schema up to date before serving.
    pub migrate: bool,
    /// Names this replica among those over one database, the same after a restart; by default host and gRPC address.
    pub replica: Option<String>,
    /// The database was restored, or lost commits: delete every session first, and credit no outage.
    pub after_restore: bool,
    /// How long runs are kept after they ended; for ever when absent.
    pub retention: Option<Duration>,
    /// The bounds.
    pub limits: Limits,
}

/// Every bound of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of one message that a client may send.
    pub message_bytes: usize,
    /// Calls that one connection may have under way.
    pub streams_per_connection: u32,
    /// Bytes of a call's headers.
    pub header_bytes: u32,
    /// Streams that a client may have reset before they were looked at; more end the connection (rapid reset).
    pub pending_resets: usize,
    /// Streams that the server may have reset for errors of the client; more end the connection.
    pub local_error_resets: usize,
    /// How long a new connection for gRPC may take to say that it speaks HTTP/2.
    pub hello: Duration,
    /// How long a call may take until its answer begins: longer than the longest that a poll is held (50 s).
    pub call: Duration,
    /// How long a connection for HTTP may last: it carries one request.
    pub http_connection: Duration,
    /// How often a quiet connection is asked whether it lives.
    pub keepalive_interval: Duration,
    /// How long it may take to say so.
    pub keepalive_timeout: Duration,
    /// How old a connection may get, so that clients spread over new replicas.
    pub connection_age: Duration,
    /// Submits that may wait for the lane.
    pub waiting_submits: usize,
    /// Connections for reads.
    pub read_connections: u32,
    /// How long a stop waits for calls under way.
    pub drain: Duration,
    /// Runs that are removed in one statement, at most.
    pub removal_runs: usize,
    /// How many times as long as a removal took nothing is removed: what a backlog leaves to the lane.
    pub removal_rests: u32,
    /// How often it is looked for runs to remove, at the least; more often when they are kept for less than an hour.
    pub removal_interval: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            database_url: String::new(),
            grpc_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_051)),
            http_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8_080))),
            workflows: PathBuf::from("workflows"),
            migrate: true,
            replica: None,
            after_restore: false,
            retention: Some(RETENTION),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            message_bytes: 4 << 20,
            streams_per_connection: 1_024,
            header_bytes: 16 << 10,
            pending_resets: 64,
            local_error_resets: 64,
            hello: Duration::from_secs(10),
            call: Duration::from_secs(70),
            http_connection: Duration::from_secs(15),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(3_600),
            waiting_submits: 8_192,
            read_connections: 8,
            drain: Duration::from_secs(20),
            removal_runs: 1_000,
            removal_rests: 4,
            removal_interval: Duration::from_secs(60),
        }
    }
}
