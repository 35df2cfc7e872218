//! What the machine allows: the same Postgres without Longtake, and gRPC without Postgres.
//!
//! Five figures, taken with `pgbench` (which is in every PostgreSQL) and with an echo:
//!
//! - **F2**: runs of four steps as the smallest rows that could hold them, 100 runs to a statement, five commits a run;
//! - **F2h**: the same with our history rows, keys, tokens and sizes;
//! - **t_commit**: one prepared insert at a time;
//! - **t_rpc**: one call at a time, with our sizes;
//! - **paced**: five such commits and six such calls in a row, as often a second as runs come.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use longtake_e2e::{Database, eventually};
use longtake_proto::v1 as pb;
use longtake_proto::v1::content_service_client::ContentServiceClient;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

use crate::gauges;
use crate::roles::load::Quantiles;
use crate::roles::{channel, echo, micros};
use crate::stage::Stage;

/// What one script did.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Floor {
    pub runs_per_second: f64,
    pub clients: u32,
    /// Seconds of the database's CPU for a run.
    pub cpu: f64,
    pub wal_bytes: f64,
}

const SCHEMA: &str = "
    create table f_hot (id bigint primary key, step smallint, epoch int, worker bigint, lease timestamptz, done timestamptz)
        with (fillfactor = 50);
    create table f_cold (id bigint primary key, ext uuid, input bytea);
    create table f_res (id bigint, step smallint, at timestamptz, output bytea, primary key (id, step));
    create table h_key (run_id uuid primary key, run_no bigint, tenant text, content_hash bytea);
    create table h_hot (id bigint primary key, run_id uuid, version bigint, step smallint, token bytea, worker uuid,
        lease timestamptz, done timestamptz) with (fillfactor = 50);
    create table h_open (id bigint primary key);
    create table h_history (id bigint, first_event bigint, at timestamptz, events bytea, primary key (id, first_event));
    create table c_one (id bigint primary key, at timestamptz, payload bytea);";

/// One run's numbers in its client's own range: 100 to a transaction.
const NUMBERS: &str = "\\set b :b + 1\n";
const IDS: &str = "generate_series(:client_id * 1000000000::bigint + :b * 100 + 1, :client_id * 1000000000::bigint + :b * 100 + 100)";

fn f2() -> String {
    let between = "id between :client_id * 1000000000::bigint + :b * 100 + 1 and :client_id * 1000000000::bigint + :b * 100 + 100";
    let mut script = format!(
        "{NUMBERS}with n as materialized (select i from {IDS} as i), \
         c as (insert into f_cold select i, gen_random_uuid(), decode(repeat('78', 210), 'hex') from n) \
         insert into f_hot select i, 1, 1, 7, now() + interval '30s', null from n;\n"
    );
    for step in 1..=4 {
        let set = match step {
            4 => "step = 5, worker = null, lease = null, done = now()".to_owned(),
            _ => format!("step = {}, lease = now() + interval '30s'", step + 1),
        };
        script.push_str(&format!(
            "with u as (update f_hot set {set} where {between} and epoch = 1 and step = {step} returning id) \
             insert into f_res select id, {step}, now(), decode(repeat('79', 66), 'hex') from u;\n"
        ));
    }
    script
}

/// `events` holds the bytes of history that each of the five commits writes.
fn f2h(events: [i64; 5]) -> String {
    let between = "id between :client_id * 1000000000::bigint + :b * 100 + 1 and :client_id * 1000000000::bigint + :b * 100 + 100";
    let mut script = format!(
        "{NUMBERS}with n as materialized (select i, gen_random_uuid() as u from {IDS} as i), \
         k as (insert into h_key select u, i, 'default', decode(repeat('78', 32), 'hex') from n on conflict do nothing), \
         o as (insert into h_open select i from n), \
         h as (insert into h_history select i, 1, now(), decode(repeat('78', {}), 'hex') from n) \
         insert into h_hot select i, u, 1, 1, decode(repeat('74', 16), 'hex'), gen_random_uuid(), now(), null from n;\n",
        events[0]
    );
    for (step, bytes) in events.iter().enumerate().skip(1) {
        let (set, closed) = match step {
            4 => (
                "step = 5, worker = null, token = null, lease = null, done = now()",
                ", o as (delete from h_open where id in (select id from u))",
            ),
            _ => ("step = step + 1, token = decode(repeat('75', 16), 'hex'), lease = now()", ""),
        };
        script.push_str(&format!(
            "with u as (update h_hot set version = version + 3, {set} where {between} and version = {} returning id, version){closed} \
             insert into h_history select id, version, now(), decode(repeat('79', {}), 'hex') from u;\n",
            step * 3 - 2,
            bytes
        ));
    }
    script
}

const COMMIT: &str = "\\set b :b + 1\n\
    insert into c_one values (:client_id * 1000000000::bigint + :b, now(), decode(repeat('78', 210), 'hex'));\n";

/// A database for the floor's scripts.
pub struct Floors<'a> {
    stage: &'a Stage,
    database: Database,
    pgbench: PathBuf,
}

impl Floors<'_> {
    pub async fn new(stage: &Stage) -> Result<Floors<'_>> {
        let database = Database::create_on(stage.url()).await;
        stage.execute(database.url(), SCHEMA).await?;
        Ok(Floors { stage, database, pgbench: pgbench()? })
    }

    /// The best of 1, 2 and 4 clients.
    pub async fn f2(&self, each: Duration) -> Result<Floor> {
        self.best(&f2(), each).await
    }

    /// The same with rows like ours.
    pub async fn f2h(&self, events: [i64; 5], each: Duration) -> Result<Floor> {
        self.best(&f2h(events), each).await
    }

    async fn best(&self, script: &str, each: Duration) -> Result<Floor> {
        let mut best = Floor::default();
        for clients in [1, 2, 4] {
            let floor = self.measure(script, clients, each).await?;
            if floor.runs_per_second > best.runs_per_second {
                best = floor;
            }
        }
        Ok(best)
    }

    async fn measure(&self, script: &str, clients: u32, span: Duration) -> Result<Floor> {
        let truncate = "truncate f_hot, f_cold, f_res, h_key, h_hot, h_open, h_history; checkpoint";
        self.stage.execute(self.database.url(), truncate).await?;
        // Warm: relations get their first pages, statements their plans.
        self.pgbench(script, clients, Duration::from_secs(1), 1_000_000).await?;
        let before = (gauges::database(self.database.url()).await?, self.cpu());
        let said = self.pgbench(script, clients, span, 0).await?;
        let after = (gauges::database(self.database.url()).await?, self.cpu());
        let transactions: f64 = figure(&said, "number of transactions actually processed: ")?;
        let runs = transactions * 100.0;
        ensure!(runs > 0.0, "pgbench did nothing:\n{said}");
        Ok(Floor {
            runs_per_second: figure(&said, "tps = ")? * 100.0,
            clients,
            cpu: (after.1 - before.1) / runs,
            wal_bytes: (after.0.wal_bytes - before.0.wal_bytes) / runs,
        })
    }

    fn cpu(&self) -> f64 {
        gauges::cpu_of(&[self.stage.postgres_pid()])
    }

    /// Milliseconds of one prepared insert after the other.
    pub async fn t_commit(&self, span: Duration) -> Result<f64> {
        self.stage.execute(self.database.url(), "truncate c_one").await?;
        let said = self.pgbench(COMMIT, 1, span, 0).await?;
        figure(&said, "latency average = ")
    }

    /// Milliseconds of six calls and five commits one after the other, so many times a second, as the median: the cores, the
    /// caches and the disk rest between two of them as they do between two runs at that rate.
    pub async fn paced(&self, per_second: f64, span: Duration) -> Result<f64> {
        let mut echo = Echo::start().await?;
        let mut connection = PgConnection::connect(self.database.url()).await?;
        self.stage.execute(self.database.url(), "truncate c_one").await?;
        let payload = vec![b'x'; 210];
        let mut took = Vec::new();
        let mut due = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
        let began = Instant::now();
        while began.elapsed() < span {
            due.tick().await;
            let started = micros();
            echo.call().await?;
            for _ in 0..5 {
                let insert = sqlx::query("insert into c_one values ($1, now(), $2)");
                insert.bind(micros()).bind(&payload).execute(&mut connection).await?;
                echo.call().await?;
            }
            took.push(micros() - started);
        }
        Ok(Quantiles::of(took).p50)
    }

    async fn pgbench(&self, script: &str, clients: u32, span: Duration, from: i64) -> Result<String> {
        let file = self.stage.dir().join("floor.sql");
        std::fs::write(&file, script)?;
        let mut command = Command::new(&self.pgbench);
        command.args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", "1"]);
        command
            .args(["-T", &span.as_secs().max(1).to_string()])
            .arg(format!("--define=b={from}"))
            .arg("-f")
            .arg(file);
        let output = command.arg(self.database.url()).output().await.context("pgbench")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pgbench failed:\n{said}{errors}");
        Ok(said)
    }
}

/// Milliseconds of one call after the other to an echo in a process of its own, as the median.
pub async fn t_rpc(span: Duration) -> Result<f64> {
    let mut echo = Echo::start().await?;
    let mut took = Vec::new();
    let began = Instant::now();
    while began.elapsed() < span {
        let sent = micros();
        echo.call().await?;
        took.push(micros() - sent);
    }
    Ok(Quantiles::of(took).p50)
}

/// A server in a process of its own that only answers.
struct Echo {
    client: ContentServiceClient<Channel>,
    request: pb::SubmitContentRequest,
    _process: Child,
}

impl Echo {
    async fn start() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", "echo", &format!("\"127.0.0.1:{port}\"")]).kill_on_drop(true);
        let process = command.spawn()?;
        let client = ContentServiceClient::new(channel(&format!("http://127.0.0.1:{port}"))?);
        let request = pb::SubmitContentRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            student_query: "How do plants turn light into sugar, and what do they do with it at night?"
                .to_owned(),
            source_text: "x".repeat(100),
            ..pb::SubmitContentRequest::default()
        };
        let mut echo = Self { client, request, _process: process };
        let answered = async || echo.call().await.map_err(|error| error.to_string());
        eventually(Duration::from_secs(10), answered).await;
        Ok(echo)
    }

    async fn call(&mut self) -> Result<()> {
        self.client.submit_content(self.request.clone()).await?;
        Ok(())
    }
}

/// The echo's role.
pub async fn serve_echo(address: &str) -> Result<()> {
    echo::run(serde_json::from_str(address)?).await
}

/// The number behind some words.
fn figure(said: &str, words: &str) -> Result<f64> {
    let rest = said.split(words).nth(1).with_context(|| format!("pgbench did not say {words:?}:\n{said}"))?;
    let number: String = rest.chars().take_while(|it| it.is_ascii_digit() || *it == '.').collect();
    number.parse().with_context(|| format!("{words}{rest}"))
}

/// Where pgbench is: on the path, or beside the server programs.
fn pgbench() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = packaged.map(|version| version.path().join("bin")).collect();
    places.sort();
    let found = std::env::split_paths(&path).chain(places.into_iter().rev()).map(|it| it.join("pgbench"));
    found
        .into_iter()
        .find(|it: &PathBuf| Path::is_file(it))
        .context("pgbench is missing: it comes with PostgreSQL's server package")
}
