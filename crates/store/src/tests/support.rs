//! A database for each test, and runs to store in it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use longtake_engine::command::{Command, Operation, Report, Timer};
use longtake_engine::decide::apply;
use longtake_engine::definition::Workflow;
use longtake_engine::event::{Event, EventKind};
use longtake_engine::ids::{RequestId, RunId, RunNo, Secret, SessionId, StepNo};
use longtake_engine::lane::work::{Committed, Fence, HotRow, Over, RunWrite, SessionWrite, Write};
use longtake_engine::rows::Rows;
use longtake_engine::run::{NewRun, Output, Run};
use longtake_engine::time::{Duration, Timestamp};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use uuid::Uuid;

use crate::{LaneConnection, Store};

/// 2026-01-01: tests begin here and move time themselves.
pub(super) const START: Timestamp = Timestamp(1_767_225_600_000_000);

pub(super) fn seconds(count: i64) -> Duration {
    Duration::from_secs(count)
}

pub(super) fn after(count: i64) -> Timestamp {
    START + seconds(count)
}

fn server() -> PgConnectOptions {
    let url = std::env::var("LONGTAKE_TEST_DATABASE_URL")
        .expect("these tests need a Postgres: run them with bin/test, which starts one and sets LONGTAKE_TEST_DATABASE_URL");
    PgConnectOptions::from_str(&url)
        .expect("LONGTAKE_TEST_DATABASE_URL is a postgresql:// URL")
        .disable_statement_logging()
}

/// A connection to the test server, to no test's database.
pub(super) async fn server_connection() -> PgConnection {
    server().connect().await.expect("the test server answers")
}

/// A database that is gone when this is.
pub(super) struct Database {
    pub store: Store,
    name: String,
}

impl Database {
    /// A migrated database.
    pub async fn new() -> Database {
        let database = Database::empty().await;
        database.store.migrate().await.expect("the schema migrates");
        database
    }

    /// A database without a schema.
    pub async fn empty() -> Database {
        let name = format!("longtake_test_{}", Uuid::new_v4().simple());
        let mut admin = server_connection().await;
        admin
            .execute(AssertSqlSafe(format!("create database {name}")))
            .await
            .expect("a database can be made");
        admin.close().await.expect("the connection closes");
        let url = server().database(&name).to_url_lossy().to_string();
        let store = Store::connect(&url, 4).await.expect("the new database answers");
        Database { store, name }
    }

    pub fn url(&self) -> String {
        server().database(&self.name).to_url_lossy().to_string()
    }

    /// A connection of nobody's.
    pub async fn connect(&self) -> PgConnection {
        self.store.options().connect().await.expect("the database answers")
    }

    /// A lane of a replica of its own, at [`START`].
    pub async fn lane(&self) -> Client {
        self.lane_of(Uuid::new_v4()).await
    }

    pub async fn lane_of(&self, replica: Uuid) -> Client {
        let mut lane = self.store.lane(replica, 1).await.pop().expect("a lane connects");
        lane.set_clock(START);
        Client { lane, replica }
    }

    /// A workflow of `steps` steps that follow each other, stored.
    pub async fn workflow(&self, steps: usize) -> Arc<Workflow> {
        let mut source = format!("format = 1\nname = \"chain{steps}\"\n");
        for step in 0..steps {
            source.push_str(&format!("[[step]]\nname = \"s{step}\"\nprice_usd = \"0.01\"\n"));
            if step > 0 {
                source.push_str(&format!("needs = [\"s{}\"]\n", step - 1));
            }
        }
        let workflow = Arc::new(Workflow::parse(source.as_bytes()).expect("the workflow parses"));
        let reads = self.store.reads();
        reads.save_workflow(&workflow.version, &workflow.name, &workflow.source).await.expect("it is stored");
        workflow
    }

    /// Everything that runs are, as text: for saying that something changed nothing.
    pub async fn dump(&self) -> String {
        const TABLES: [&str; 9] =
            ["run_key", "run", "open_run", "run_label", "history", "checkpoint", "ready", "timer", "session"];
        let mut dump = String::new();
        for table in TABLES {
            let sql = format!(
                "select coalesce(string_agg(t::text, E'\\n' order by t::text), '') from {table} as t"
            );
            let rows: String = sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_one(self.store.pool())
                .await
                .expect("tables can be read");
            dump.push_str(&format!("{table}\n{rows}\n"));
        }
        dump
    }

    /// Waits until so many of the lanes' statements wait for a lock.
    pub async fn until_waiting(&self, lanes: i64) {
        const WAITING: &str = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'longtake lane' and wait_event_type = 'Lock'";
        eventually("lanes wait for locks", async || self.count(WAITING).await == lanes).await;
    }

    /// One number.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.store.pool()).await.expect("the count is a number")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database if exists {} with (force)", self.name);
        // A runtime of its own: this one may be shutting down.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = server().connect().await?;
                admin.execute(AssertSqlSafe(sql)).await?;
                admin.close().await
            })?;
            anyhow::Ok(())
        });
        match dropped.join() {
            Ok(Ok(())) => {}
            problem => println!("a test database was left behind: {problem:?}"),
        }
    }
}

/// Waits until something is so, and insists on it within ten seconds.
pub(super) async fn eventually(what: &str, so: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("in ten seconds, it did not come about that {what}");
}

/// A lane's connection, and whose.
pub(super) struct Client {
    pub lane: LaneConnection,
    pub replica: Uuid,
}

impl Client {
    /// Commits what these runs have not written yet, together; returns those whose fences held.
    pub async fn commit(&mut self, models: &mut [&mut Model]) -> Vec<RunId> {
        let write = batch(models.iter_mut().map(|model| model.write()));
        let (written, _) = self.done(&write).await;
        models.iter_mut().for_each(|model| model.no = model.no.or(written.get(&model.id).copied()));
        written.into_keys().collect()
    }

    /// Writes, and insists on an answer.
    pub async fn done(&mut self, write: &Write) -> (BTreeMap<RunId, RunNo>, BTreeMap<SessionId, Timestamp>) {
        match self.lane.write(write, &encoded(write)).await {
            (Committed::Done { written, sessions }, Some(_)) => (written, sessions),
            other => panic!("the write did not happen: {other:?}"),
        }
    }
}

/// Bytes in place of encoded events: about 150 for each.
pub(super) fn encoded(write: &Write) -> Vec<Vec<u8>> {
    let bytes = |event: &Event| {
        let mut bytes = format!("{:>150}", event.number).into_bytes();
        bytes[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        bytes
    };
    write.runs.iter().map(|run| run.events.iter().flat_map(bytes).collect()).collect()
}

/// A run as a lane would hold it: decided by the engine, and written as far as the last [`Model::write`].
#[derive(Clone)]
pub(super) struct Model {
    pub workflow: Arc<Workflow>,
    pub id: RunId,
    pub no: Option<RunNo>,
    pub run: Option<Run>,
    before: Rows,
    was_open: bool,
    version: i64,
    events: Vec<Event>,
    pub secrets: BTreeMap<StepNo, Secret>,
}

impl Model {
    pub fn new(workflow: &Arc<Workflow>) -> Model {
        Model {
            workflow: workflow.clone(),
            id: RunId(Uuid::new_v4()),
            no: None,
            run: None,
            before: Rows::default(),
            was_open: false,
            version: 0,
            events: Vec::new(),
            secrets: BTreeMap::new(),
        }
    }

    pub fn request(&self) -> NewRun {
        NewRun {
            id: self.id,
            tenant: "default".to_owned(),
            version: self.workflow.version,
            input: Arc::new(json!({"topic": "light"})),
            requested: Vec::new(),
            labels: BTreeMap::new(),
            priority: 0,
            deadline: None,
            content_hash: [7; 32],
            trace: BTreeMap::new(),
            when: BTreeMap::new(),
        }
    }

    pub fn command(&mut self, command: &Command, now: Timestamp) -> &mut Model {
        let decision = apply(&self.workflow, self.id, &mut self.run, command, now);
        decision.answer.expect("the command is followed");
        self.events.extend(decision.events);
        self
    }

    pub fn create(&mut self, now: Timestamp) -> &mut Model {
        self.create_as(self.request(), now)
    }

    pub fn create_as(&mut self, request: NewRun, now: Timestamp) -> &mut Model {
        self.command(&Command::Create(Arc::new(request)), now)
    }

    pub fn lease(&mut self, step: StepNo, session: SessionId, now: Timestamp) -> &mut Model {
        let secret = Secret(*Uuid::new_v4().as_bytes());
        self.secrets.insert(step, secret);
        self.command(&Command::Dispatch { step, secret, session, executor: "test".into() }, now)
    }

    pub fn report(&mut self, step: StepNo, report: Report, now: Timestamp) -> &mut Model {
        let attempt = self.run.as_ref().expect("it exists").steps[step].attempt();
        let lease = longtake_engine::command::Lease { step, attempt, secret: self.secrets[&step].hash() };
        self.command(&Command::Report { lease, report }, now)
    }

    pub fn complete(&mut self, step: StepNo, now: Timestamp) -> &mut Model {
        let output = Output { data: Arc::new(json!({"done": true})), artifacts: Arc::new([]) };
        self.report(step, Report::Complete { output, cost: None }, now)
    }

    pub fn fire(&mut self, timer: Timer, now: Timestamp) -> &mut Model {
        self.command(&Command::Fire(timer), now)
    }

    pub fn operate(&mut self, operation: Operation, now: Timestamp) -> &mut Model {
        self.command(&Command::Operate { call: RequestId(Uuid::new_v4()), operation }, now)
    }

    /// Whether there is anything to write.
    pub fn has_news(&self) -> bool {
        !self.events.is_empty()
    }

    /// What is not written yet. From here on it counts as written.
    pub fn write(&mut self) -> RunWrite {
        let run = self.run.clone().expect("it exists");
        let after = Rows::of(&run);
        let events = std::mem::take(&mut self.events);
        let mut checkpoints = BTreeMap::new();
        for event in &events {
            if let EventKind::CheckpointCommitted { step, checkpoint } = &event.kind {
                checkpoints.insert(*step, checkpoint.clone());
            }
        }
        let fence = match self.no {
            Some(no) => Fence::Version { no, version: self.version },
            None => Fence::Absent(run.request.clone()),
        };
        let changes = self.before.changes(&after);
        self.version = run.last_event;
        self.before = after;
        let was_open = std::mem::replace(&mut self.was_open, !run.is_terminal());
        RunWrite {
            id: self.id,
            fence,
            workflow: self.workflow.clone(),
            priority: run.request.priority,
            was_open,
            row: HotRow::of(&run),
            events,
            changes,
            checkpoints: checkpoints.into_iter().collect(),
            not_before: None,
        }
    }
}

/// A write of these runs, in the order that lanes keep.
pub(super) fn batch(runs: impl IntoIterator<Item = RunWrite>) -> Write {
    let mut runs: Vec<RunWrite> = runs.into_iter().collect();
    runs.sort_by_key(|run| run.id);
    Write { number: 0, runs, sessions: Vec::new() }
}

pub(super) fn session() -> SessionId {
    SessionId(Uuid::new_v4())
}

/// These sessions, whose leases are looked for.
pub(super) fn looking(ids: &[SessionId]) -> Over {
    Over { ids: ids.to_vec(), look: true }
}

/// A write of one session.
pub(super) fn renewal(session: SessionId, lasts: Duration) -> Write {
    Write {
        number: 0,
        runs: Vec::new(),
        sessions: vec![SessionWrite { id: session, executor: "test".into(), lasts }],
    }
}
