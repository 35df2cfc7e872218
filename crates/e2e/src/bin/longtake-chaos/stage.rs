//! The stage of a chaos run: a private PostgreSQL, servers over it, executors, a liar and a client, and a link between any two.
//!
//! ```text
//!   client ──link──▶ server-0 ──link──▶ PostgreSQL
//!          ──link──▶ server-1 ──link──▶
//!   executor-n, liar ──link──▶ both servers
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use longtake::postgres::{PostgresOptions, PrivatePostgres};
use longtake_e2e::{SETTABLE_CLOCK, binary, definitions, free_port};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::journal::{Journal, Line};
use crate::member::Member;
use crate::proxy::Proxy;
use crate::roles::Plan;
use crate::workflows::RELAY;

/// How much there is of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub servers: usize,
    pub executors: usize,
    pub slots: usize,
    pub liars: usize,
    /// Runs a second.
    pub rate: usize,
    pub seed: u64,
}

/// A server with its links.
pub struct Server {
    pub member: Mutex<Member>,
    pub to_postgres: Proxy,
    pub from_client: Proxy,
    pub from_executors: Proxy,
}

/// See the module.
pub struct Stage {
    pub servers: Vec<Server>,
    pub executors: Vec<Mutex<Member>>,
    pub liar: Mutex<Member>,
    pub journal: Journal,
    pub journals: PathBuf,
    pub postgres: Mutex<Option<PrivatePostgres>>,
    /// PostgreSQL is on a file system of its own, that may be filled up.
    pub has_small_disk: bool,
    url: String,
    client_urls: Vec<String>,
    dir: TempDir,
    /// Where PostgreSQL is.
    postgres_dir: TempDir,
}

impl Stage {
    /// Starts everything but the client.
    pub async fn start(size: &Size, small_disk: Option<&Path>) -> Result<Stage> {
        let dir = temporary(&std::env::temp_dir())?;
        let postgres_dir = temporary(small_disk.unwrap_or_else(|| dir.path()))?;
        let folder = |name: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir_all(&folder).map(|()| folder)
        };
        let (logs, journals) = (folder("logs")?, folder("journals")?);
        let workflows = definitions(folder("workflows")?, &[("relay", RELAY)]);
        let postgres = PrivatePostgres::start(options(&postgres_dir)).await?;
        let url = postgres.url();
        let socket = socket_of(&url)?;
        let (mut servers, mut client_urls, mut executor_urls) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..size.servers {
            let near = folder(&format!("socket-{number}"))?;
            let file = socket.file_name().context("the socket has a name")?;
            let to_postgres = Proxy::unix(&near.join(file), socket.clone())?;
            let [grpc, http, clients, executors] = [free_port(), free_port(), free_port(), free_port()];
            let (database, workflows) = (through(&url, &near)?, workflows.clone());
            let make = move |_: &str, _| {
                let mut command = binary();
                command.arg("serve").args(["--database-url", &database]).arg("--workflows").arg(&workflows);
                command.args(["--grpc-listen", &format!("127.0.0.1:{grpc}")]);
                command.args(["--http-listen", &format!("127.0.0.1:{http}")]);
                command
            };
            let name = format!("server-{number}");
            servers.push(Server {
                member: Mutex::new(Member::new(&name, logs.clone(), Some(http), make)),
                to_postgres,
                from_client: Proxy::tcp(clients, format!("127.0.0.1:{grpc}")).await?,
                from_executors: Proxy::tcp(executors, format!("127.0.0.1:{grpc}")).await?,
            });
            client_urls.push(format!("http://127.0.0.1:{clients}"));
            executor_urls.push(format!("http://127.0.0.1:{executors}"));
        }
        let role = |name: &str, role: &'static str, many: usize, first: usize| {
            let mut urls = executor_urls.clone();
            urls.rotate_left(first % size.servers);
            let (journals, seed) = (journals.clone(), size.seed ^ ((first as u64) << 16));
            Member::new(name, logs.clone(), None, move |alias, life| {
                let plan = Plan {
                    name: alias.to_owned(),
                    servers: urls.clone(),
                    journal: journals.join(format!("{alias}.jsonl")),
                    seed: seed ^ u64::from(life),
                    many,
                };
                plan.command(role)
            })
        };
        let executors: Vec<Mutex<Member>> = (0..size.executors)
            .map(|number| Mutex::new(role(&format!("executor-{number}"), "executor", size.slots, number)))
            .collect();
        let liar = Mutex::new(role("liar", "liar", size.liars, 0));
        let stage = Stage {
            servers,
            executors,
            liar,
            journal: Journal::open(&journals.join("supervisor.jsonl"))?,
            journals,
            postgres: Mutex::new(Some(postgres)),
            has_small_disk: small_disk.is_some(),
            url,
            client_urls,
            dir,
            postgres_dir,
        };
        stage.execute(SETTABLE_CLOCK).await?;
        // One after the other: the first one makes the schema.
        for server in &stage.servers {
            server.member.lock().await.start().await?;
        }
        for member in stage.executors.iter().chain([&stage.liar]) {
            member.lock().await.start().await?;
        }
        Ok(stage)
    }

    /// A client, which asks until it is told to stop through its standard input.
    pub fn client(&self, size: &Size) -> Result<Child> {
        let plan = Plan {
            name: "client".to_owned(),
            servers: self.client_urls.clone(),
            journal: self.journals.join("client.jsonl"),
            seed: size.seed,
            many: size.rate,
        };
        let mut command = plan.command("client");
        command.stdin(Stdio::piped()).kill_on_drop(true).spawn().context("the client")
    }

    /// A connection that goes through no link.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// Runs statements whose text is ours.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Kills PostgreSQL as a power failure would, and starts it again on what is there.
    pub async fn restart_postgres(&self, pause: std::time::Duration) -> Result<()> {
        let mut held = self.postgres.lock().await;
        if let Some(postgres) = held.take() {
            postgres.kill().await?;
        }
        tokio::time::sleep(pause).await;
        *held = Some(PrivatePostgres::start(options(&self.postgres_dir)).await?);
        Ok(())
    }

    /// Lets sessions write again, from one that says for itself that it may.
    pub async fn read_write(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        for text in
            ["set default_transaction_read_only = off", "alter system reset default_transaction_read_only"]
        {
            sqlx::raw_sql(text).execute(&mut connection).await?;
        }
        sqlx::raw_sql("select pg_reload_conf()").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Every write of a run fails as if the disk were full: what a real one answers, without filling anybody's disk.
    pub async fn fill_disk(&self, span: std::time::Duration) -> Result<()> {
        self.execute(
            "create function disk_is_full() returns trigger language plpgsql as $$
                begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
             create trigger full_disk before insert or update on run for each row execute function disk_is_full()",
        )
        .await?;
        tokio::time::sleep(span).await;
        self.execute("drop trigger full_disk on run; drop function disk_is_full()").await
    }

    /// Fills up the file system that PostgreSQL is on. It may fall over that; then it is started again once there is room.
    pub async fn fill_small_disk(&self, span: std::time::Duration) -> Result<()> {
        let filler = self.postgres_dir.path().join("filler");
        let filling = filler.clone();
        tokio::task::spawn_blocking(move || fill(&filling)).await??;
        tokio::time::sleep(span).await;
        std::fs::remove_file(&filler)?;
        match self.connect().await {
            Ok(connection) => Ok(connection.close().await?),
            Err(_) => self.restart_postgres(std::time::Duration::ZERO).await,
        }
    }

    /// All of the server's connections are somebody else's, and servers lose theirs.
    pub async fn exhaust_connections(&self, span: std::time::Duration) -> Result<()> {
        let mut held = vec![self.connect().await?];
        while let Ok(more) = self.connect().await {
            held.push(more);
        }
        let text =
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'longtake%'";
        sqlx::raw_sql(text).execute(&mut held[0]).await?;
        while let Ok(more) = self.connect().await {
            held.push(more);
        }
        tokio::time::sleep(span).await;
        for connection in held {
            connection.close().await?;
        }
        Ok(())
    }

    /// PostgreSQL's clock is off by so many seconds for a while, then right again. It is over when what was timed by it is.
    pub async fn set_clock(&self, by: i64, span: std::time::Duration) -> Result<()> {
        self.execute(&format!("update settable.forward set by = '{by} s'")).await?;
        tokio::time::sleep(span).await;
        self.execute("update settable.forward set by = '0'").await?;
        tokio::time::sleep(std::time::Duration::from_secs(by.unsigned_abs())).await;
        Ok(())
    }

    /// Notes a fault that is over.
    pub fn note(&self, kind: &str, target: &str, from: i64) {
        let (kind, target) = (kind.to_owned(), target.to_owned());
        self.journal.write(&Line::Fault { kind, target, from, to: micros() });
    }

    /// Ends everything, in an order in which nobody misses anybody.
    pub async fn stop(self) -> Result<TempDir> {
        let within = std::time::Duration::from_secs(30);
        for member in self.executors.iter().chain([&self.liar]) {
            member.lock().await.terminate(within).await;
        }
        for server in &self.servers {
            server.member.lock().await.terminate(within).await;
        }
        if let Some(postgres) = self.postgres.lock().await.take() {
            postgres.stop().await?;
        }
        Ok(self.dir)
    }
}

impl Plan {
    /// The process that follows the plan.
    fn command(&self, role: &str) -> Command {
        let program = std::env::current_exe().unwrap_or_default();
        let mut command = Command::new(program);
        command.args(["role", role]).arg(serde_json::to_string(self).unwrap_or_default());
        command
    }
}

/// A folder in this one that is gone in the end. PostgreSQL may run as another user.
fn temporary(within: &Path) -> Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("longtake-chaos-").tempdir_in(within)?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(dir)
}

/// A file that takes all that is left.
fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    for size in [1 << 20, 1 << 12] {
        let zeros = vec![0; size];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn options(dir: &TempDir) -> PostgresOptions {
    PostgresOptions::new(dir.path().join("postgres"))
}

/// The Unix socket that a URL of a private PostgreSQL names.
fn socket_of(url: &str) -> Result<PathBuf> {
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    let folder = options.get_socket().context("the private PostgreSQL listens on a Unix socket")?;
    Ok(folder.join(format!(".s.PGSQL.{}", options.get_port())))
}

/// The same database through the socket in another folder.
fn through(url: &str, folder: &Path) -> Result<String> {
    let (before, rest) = url.split_once('@').context("a URL with a user")?;
    let (_, after) = rest.split_once(':').context("a URL with a port")?;
    let folder = folder.to_str().context("a folder in UTF-8")?.replace('/', "%2F");
    Ok(format!("{before}@{folder}:{after}"))
}

/// Microseconds since 1970: one clock for every process of the machine.
pub fn micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
