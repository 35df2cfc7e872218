//! The orchestrator as a process.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::{Client, Process, eventually, process};

/// How long a server may take until it is ready, on a busy machine and in a debug build.
const START: Duration = Duration::from_secs(30);

/// `longtake serve`, ready when this exists. It keeps its ports over its lives.
#[derive(Debug)]
pub struct Server {
    name: String,
    folder: PathBuf,
    database: String,
    definitions: PathBuf,
    more: More,
    grpc: u16,
    http: u16,
    process: Process,
}

/// What a server is told beside what every server is.
#[derive(Debug, Default)]
struct More {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Server {
    /// Starts one on free ports; its log is in `folder`.
    pub async fn start(name: &str, folder: &Path, database: &str, definitions: &Path) -> Server {
        Server::begin(name, folder, database, definitions, More::default()).await
    }

    /// Starts one that is told `arguments` on its command line.
    pub async fn start_told(
        name: &str,
        folder: &Path,
        database: &str,
        definitions: &Path,
        arguments: &[&str],
    ) -> Server {
        let arguments = arguments.iter().copied().map(str::to_owned).collect();
        Server::begin(name, folder, database, definitions, More { arguments, ..More::default() }).await
    }

    /// Starts one with these variables in its environment.
    pub async fn start_in(
        name: &str,
        folder: &Path,
        database: &str,
        definitions: &Path,
        environment: &[(&str, &str)],
    ) -> Server {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Server::begin(name, folder, database, definitions, More { environment, ..More::default() }).await
    }

    async fn begin(name: &str, folder: &Path, database: &str, definitions: &Path, more: More) -> Server {
        let (grpc, http) = (free_port(), free_port());
        let command = command(database, definitions, &more, grpc, http);
        let mut server = Server {
            name: name.to_owned(),
            folder: folder.to_owned(),
            database: database.to_owned(),
            definitions: definitions.to_owned(),
            more,
            grpc,
            http,
            process: Process::start(name, command, folder),
        };
        server.ready().await;
        server
    }

    /// Starts another life of it, on the same ports and database; returns when it is ready.
    ///
    /// # Panics
    /// When it has not ended, or does not become ready.
    pub async fn restart(&mut self) {
        assert!(self.process.end().is_some(), "{} still runs", self.name);
        let command = command(&self.database, &self.definitions, &self.more, self.grpc, self.http);
        self.process = Process::start(&self.name, command, &self.folder);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let (http, process) = (self.http, &mut self.process);
        eventually(START, async || {
            if let Some(end) = process.end() {
                panic!("the server ended before it was ready: {end}\n{}", process.said());
            }
            match http_status(http, "/readyz").await {
                Ok(200) => Ok(()),
                other => Err(format!("/readyz: {other:?}")),
            }
        })
        .await;
    }

    /// The status of an HTTP page of it.
    pub async fn http(&self, path: &str) -> std::io::Result<u16> {
        http_status(self.http, path).await
    }

    /// Where it serves gRPC, as `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.grpc)
    }

    /// Where it serves gRPC, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// A client of it, which finds it again after a restart.
    pub fn client(&self) -> Client {
        Client::new(&self.url())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn command(database: &str, definitions: &Path, more: &More, grpc: u16, http: u16) -> Command {
    let mut command = process::binary();
    command.arg("serve").args(["--database-url", database]);
    command.arg("--grpc-listen").arg(format!("127.0.0.1:{grpc}"));
    command.arg("--http-listen").arg(format!("127.0.0.1:{http}"));
    command.arg("--workflows").arg(definitions).args(&more.arguments).envs(more.environment.iter().cloned());
    command
}

/// A port that nobody listens on. Below the range that systems take the ends of outgoing connections from, and never the same
/// one twice: what was free a moment ago still is.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 18_000;
    const MANY: u16 = 14_000;
    // Test programs that run at the same time begin elsewhere.
    let begin = u16::try_from(std::process::id() * 97 % u32::from(MANY)).unwrap_or_default();
    for _ in 0..MANY {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % MANY) % MANY;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// The status of an HTTP page on a port of this machine.
pub async fn http_status(port: u16, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other(format!("no HTTP: {answer}")))
}
