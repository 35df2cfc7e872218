//! What every workload plays on: a private PostgreSQL with its durability on, and for each measurement a database, servers,
//! executors and a load of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use longtake::postgres::{PostgresOptions, PrivatePostgres};
use longtake_e2e::{Database, Server, shipped_definitions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::gauges::{self, Cpu, Spent};
use crate::roles::{executors, load};

/// The steps of the shipped `content`.
pub const STEPS: [&str; 4] = ["script", "audio", "video", "finalize"];

/// Not left to chance: no checkpoint of the database falls into one measurement and not into the next. Durability is untouched,
/// and all settings are the same for the floor.
const SETTINGS: [&str; 3] =
    ["max_wal_size = '16GB'", "checkpoint_timeout = '1h'", "track_activity_query_size = 4096"];

/// How long what was acknowledged may take to be found complete.
const PATIENCE: Duration = Duration::from_secs(20);

/// The PostgreSQL, and a folder for all that is written.
pub struct Stage {
    postgres: PrivatePostgres,
    dir: TempDir,
}

impl Stage {
    /// Starts a new cluster.
    pub async fn start() -> Result<Stage> {
        let dir = tempfile::Builder::new().prefix("longtake-bench-").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let postgres = PrivatePostgres::start(PostgresOptions::new(dir.path().join("postgres"))).await?;
        let stage = Stage { postgres, dir };
        for setting in SETTINGS {
            stage.execute(&stage.url(), &format!("alter system set {setting}")).await?;
        }
        stage.execute(&stage.url(), "select pg_reload_conf()").await?;
        Ok(stage)
    }

    /// A superuser's URL.
    pub fn url(&self) -> String {
        self.postgres.url()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn postgres_pid(&self) -> u32 {
        self.postgres.pid()
    }

    /// Runs statements whose text is ours.
    pub async fn execute(&self, url: &str, sql: &str) -> Result<()> {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.with_context(|| sql.to_owned())?;
        Ok(connection.close().await?)
    }

    /// A number that a query returns.
    pub async fn number(&self, url: &str, sql: &str) -> Result<f64> {
        let mut connection = PgConnection::connect(url).await?;
        let number = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await;
        connection.close().await?;
        number.with_context(|| sql.to_owned())
    }

    /// A fresh database, and servers on it with the definitions that ship.
    pub async fn scene(&self, servers: usize) -> Result<Scene<'_>> {
        self.scene_with(servers, &shipped_definitions()).await
    }

    /// The same with the definitions of a folder.
    pub async fn scene_with(&self, servers: usize, definitions: &Path) -> Result<Scene<'_>> {
        // What the database before has left to be written is not this one's.
        self.execute(&self.url(), "checkpoint").await?;
        let database = Database::create_on(self.url()).await;
        let mut running = Vec::new();
        for number in 0..servers {
            let name = format!("server-{number}");
            running.push(Server::start(&name, self.dir(), database.url(), definitions).await);
        }
        Ok(Scene { servers: running, database, stage: self, executors: Vec::new(), load: None, accepted: 0 })
    }

    pub async fn stop(self) -> Result<()> {
        self.postgres.stop().await
    }
}

/// A database with servers, and whoever speaks to them.
pub struct Scene<'a> {
    // Who calls goes before who is called, and the servers before their database.
    executors: Vec<Role>,
    load: Option<Role>,
    /// What loads before this one were acknowledged.
    accepted: u64,
    pub servers: Vec<Server>,
    pub database: Database,
    pub stage: &'a Stage,
}

impl Scene<'_> {
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    pub fn socket(&self) -> PathBuf {
        self.stage.dir().join("signals")
    }

    /// Starts a load, which waits for its orders.
    pub async fn load(&mut self, pace: load::Pace, batch: usize) -> Result<()> {
        if self.load.is_some() {
            self.accepted += self.order("look").await?.accepted_in_all;
        }
        // Bound anew by each load.
        let _ = std::fs::remove_file(self.socket());
        let plan = load::Plan { servers: self.urls(), socket: self.socket(), pace, batch };
        let mut role = Role::start("load", &plan)?;
        role.ask::<load::Seen>("look").await?;
        self.load = Some(role);
        Ok(())
    }

    /// Starts an executor process that tells the load what it sees, if there is one.
    pub async fn executors(&mut self, way: executors::Way, legs: bool) -> Result<()> {
        let plan = executors::Plan {
            servers: self.urls(),
            socket: self.load.is_some().then(|| self.socket()),
            way,
            steps: STEPS.map(str::to_owned).to_vec(),
            legs,
        };
        let mut role = Role::start("executors", &plan)?;
        role.ask::<executors::Counted>("count").await?;
        self.executors.push(role);
        Ok(())
    }

    /// Ends the executors at once.
    pub fn dismiss_executors(&mut self) {
        self.executors.clear();
    }

    /// Gives the load an order.
    pub async fn order(&mut self, order: &str) -> Result<load::Seen> {
        self.load.as_mut().context("a scene with a load")?.ask(order).await
    }

    /// Calls that executors have made so far.
    pub async fn calls(&mut self) -> Result<f64> {
        let mut calls = 0.0;
        for role in &mut self.executors {
            calls += role.ask::<executors::Counted>("count").await?.calls as f64;
        }
        Ok(calls)
    }

    /// What was spent so far.
    pub async fn spent(&mut self) -> Result<Spent> {
        let servers: Vec<u32> = self.servers.iter_mut().map(|server| server.process().pid()).collect();
        let executors: Vec<u32> = self.executors.iter().map(Role::pid).collect();
        let load: Vec<u32> = self.load.iter().map(Role::pid).collect();
        let cpu = Cpu {
            postgres: gauges::cpu_of(&[self.stage.postgres_pid()]),
            servers: gauges::cpu_of(&servers),
            executors: gauges::cpu_of(&executors),
            load: gauges::cpu_of(&load),
        };
        Ok(Spent { cpu, ..gauges::database(self.database.url()).await? })
    }

    /// Lets the load run, and returns what was seen and spent in a window after a warm-up.
    pub async fn measure(&mut self, warm_up: Duration, window: Duration) -> Result<Measured> {
        self.order("go").await?;
        tokio::time::sleep(warm_up).await;
        let (before, calls) = (self.spent().await?, self.calls().await?);
        self.order("look").await?;
        tokio::time::sleep(window).await;
        let (after, calls) = (self.spent().await?, self.calls().await? - calls);
        let seen = self.order("stop").await?;
        Ok(Measured { calls: calls + seen.calls as f64, spent: after.since(&before), seen })
    }

    /// Every run that was acknowledged has succeeded, each step in its first attempt, and its outputs are stored. Else there is
    /// no number.
    pub async fn complete(&mut self) -> Result<()> {
        let seen = self.order("look").await?;
        let (accepted, failed) = (self.accepted + seen.accepted_in_all, seen.failed);
        ensure!(failed == 0, "{failed} submits failed");
        let all = i64::try_from(accepted)?;
        let expected = (all, all, all, 0, 0);
        let began = Instant::now();
        // The library tells of a last step before its report is delivered.
        while self.counts().await? != expected {
            let counts = self.counts().await?;
            ensure!(
                began.elapsed() < PATIENCE,
                "{accepted} runs were acknowledged; succeeded once, runs, keys, ready, open: {counts:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.outputs().await
    }

    /// Runs that succeeded with each step in its first attempt; runs, keys, ready steps and open runs in all.
    async fn counts(&self) -> Result<(i64, i64, i64, i64, i64)> {
        let sql = "with ours as materialized (
                select run_no, run_id, state = 'SUCCEEDED' and step_states = '{5,5,5,5}' and attempts = '{1,1,1,1}' as well
                from run where tenant <> 'clone' and workflow_no in (select workflow_no from workflow where name = 'content')
            )
            select count(*) filter (where well), count(*), (select count(*) from ours join run_key using (run_id)),
                (select count(*) from ours join ready using (run_no)), (select count(*) from ours join open_run using (run_no))
            from ours";
        let mut connection = self.database.connect().await;
        let counts = sqlx::query_as(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(counts)
    }

    /// Puts a server that is told `more` in the place of those that are there.
    pub async fn serve_told(&mut self, more: &[&str]) {
        self.servers.clear();
        let server = Server::start_told(
            "server-told",
            self.stage.dir(),
            self.database.url(),
            &shipped_definitions(),
            more,
        )
        .await;
        self.servers.push(server);
    }

    /// Copies the newest run of a workflow as it stands, row by row, so many times: what a year ago would have left behind.
    /// Copies count as another tenant's.
    pub async fn clone_runs(&self, workflow: &str, many: usize) -> Result<()> {
        const CHUNK: usize = 100_000;
        let mut connection = self.database.connect().await;
        for first in (0..many).step_by(CHUNK) {
            let chunk = i64::try_from(CHUNK.min(many - first))?;
            sqlx::query(CLONE).bind(workflow).bind(chunk).execute(&mut connection).await?;
        }
        connection.close().await?;
        self.stage.execute(self.database.url(), "vacuum analyze").await?;
        self.stage.execute(self.database.url(), "checkpoint").await
    }

    /// Makes all runs so far a year old, and no more a part of what is measured.
    pub async fn age(&mut self) -> Result<()> {
        let sql = "update run set tenant = 'clone', created_at = created_at - interval '1 year', ended_at = ended_at - interval '1 year'
            where tenant <> 'clone'";
        self.stage.execute(self.database.url(), sql).await?;
        self.load = None;
        self.accepted = 0;
        Ok(())
    }

    /// The outputs of some runs, as the server shows them.
    async fn outputs(&self) -> Result<()> {
        let sql = "select run_id from run where state = 'SUCCEEDED' and tenant <> 'clone' order by run_no desc limit 100";
        let mut connection = self.database.connect().await;
        let ids: Vec<uuid::Uuid> = sqlx::query_scalar(sql).fetch_all(&mut connection).await?;
        connection.close().await?;
        let client = self.servers[0].client();
        for id in ids {
            let run = client.run(&id.to_string()).await;
            for step in &run.steps {
                let stored = step.output.as_ref().and_then(|output| output.fields.get(executors::OUTPUT.0));
                let stored = stored.and_then(|value| value.kind.clone());
                let given = prost_types::value::Kind::StringValue(executors::OUTPUT.1.to_owned());
                ensure!(stored == Some(given), "run {id}: the output of {} is not stored", step.name);
            }
        }
        Ok(())
    }
}

const CLONE: &str = "
    with source as (
        select run.* from run join workflow using (workflow_no)
        where workflow.name = $1 and tenant <> 'clone' order by run_no desc limit 1
    ),
    copies as materialized (
        select nextval('run_no') as copy_no, gen_random_uuid() as copy_id from generate_series(1, $2)
    ),
    keys as (
        insert into run_key (run_id, run_no, tenant, content_hash)
        select copy_id, copy_no, 'clone', sha256('clone') from copies
    ),
    rows as (
        insert into run (
            run_no, run_id, created_at, workflow_no, priority, tenant, state, ended_at, saved, attempts, version, spent, step_states,
            lease_sessions
        )
        select copy_no, copy_id, created_at - interval '1 year', workflow_no, priority, 'clone', state, ended_at - interval '1 year', saved, attempts, version, spent,
            step_states, lease_sessions
        from copies, source
    ),
    open as (insert into open_run (run_no) select copy_no from copies, source where ended_at is null),
    histories as (
        insert into history (run_no, first_event, at, events)
        select copy_no, first_event, at, events from copies, source join history using (run_no)
    )
    insert into ready (run_no, step, queue, priority, since)
    select copy_no, step, queue, ready.priority, since from copies, source join ready using (run_no)";

/// A folder with the definitions that ship and one more.
pub fn with_definition(stage: &Stage, name: &str, text: &str) -> Result<PathBuf> {
    let folder = stage.dir().join("definitions");
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(shipped_definitions().join("content.toml"), folder.join("content.toml"))?;
    std::fs::write(folder.join(format!("{name}.toml")), text)?;
    Ok(folder)
}

/// Starts so many runs of a workflow.
pub async fn create_runs(server: &Server, workflow: &str, many: usize) -> Result<()> {
    let client = server.client();
    let mut creating = tokio::task::JoinSet::new();
    for first in 0..many.min(64) {
        let (client, workflow) = (client.clone(), workflow.to_owned());
        creating.spawn(async move {
            for _ in (first..many).step_by(64) {
                client.create(&workflow, serde_json::json!({})).await;
            }
        });
    }
    while let Some(created) = creating.join_next().await {
        created?;
    }
    Ok(())
}

/// What a load saw, and what that took.
#[derive(Debug)]
pub struct Measured {
    pub seen: load::Seen,
    pub spent: Spent,
    /// Calls of load and executors.
    pub calls: f64,
}

/// A process of this program.
pub struct Role {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Role {
    /// Starts it; it ends when this is dropped.
    pub fn start(name: &str, plan: &impl Serialize) -> Result<Role> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["role", name]).arg(serde_json::to_string(plan)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("a pipe to a role")?;
        let output = BufReader::new(child.stdout.take().context("a pipe from a role")?).lines();
        Ok(Role { child, input, output })
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Gives an order, and returns the answer to it.
    pub async fn ask<T: DeserializeOwned>(&mut self, order: &str) -> Result<T> {
        self.input.write_all(format!("{order}\n").as_bytes()).await.context("a role has ended")?;
        let answer = self.output.next_line().await?.context("a role has ended")?;
        serde_json::from_str(&answer).with_context(|| format!("{order}: {answer}"))
    }
}
