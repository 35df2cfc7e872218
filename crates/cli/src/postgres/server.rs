//! The server as a process: started and waited for, watched, stopped; and the end of one that was left behind.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::account;
use super::home::{Home, PORT};
use super::programs::Programs;

const LOOK_AGAIN: Duration = Duration::from_millis(20);
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How long what is left of a killed server may block the next one.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may take to drop everything.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Marks our servers in the process list, for people and for [`end_predecessor`].
const MARK: &str = "cluster_name=longtake";
/// What a server says that found remains of the one before.
const LEFTOVERS: [&str; 2] = ["already exists", "is still in use"];

/// On the command line, where they overrule what somebody wrote into the data folder's files.
const SETTINGS: [&str; 11] = [
    MARK,
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=128MB",
    "max_connections=100",
    "logging_collector=off",
    "log_timezone=UTC",
    "timezone=UTC",
];

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pid: u32,
    programs: Programs,
    log_start: u64,
}

enum Ended {
    OnLeftovers,
    Otherwise,
}

impl Server {
    /// Starts a server and returns when it accepts connections.
    pub(super) async fn start(home: &Home, programs: Programs, start_timeout: Duration) -> Result<Self> {
        let first = Instant::now();
        let mut server = Self::spawn(home, programs)?;
        loop {
            let ready = timeout(start_timeout, server.ready(home)).await;
            let Ok(ended) = ready else {
                let tail = home.log_tail(server.log_start);
                server.kill().await?;
                bail!("PostgreSQL was not ready within {start_timeout:?}; the end of its log:\n{tail}");
            };
            match ended? {
                None => return Ok(server),
                Some(Ended::OnLeftovers) if first.elapsed() < LEFTOVERS_TIMEOUT => {
                    sleep(TRY_AGAIN).await;
                    server = Self::spawn(home, server.programs)?;
                }
                Some(Ended::OnLeftovers | Ended::Otherwise) => return Err(server.exited(home).await),
            }
        }
    }

    fn spawn(home: &Home, programs: Programs) -> Result<Self> {
        let (log, log_start) = home.open_log()?;
        let socket_dir = home.socket_dir().to_str().context("the socket's folder is not UTF-8")?;
        let mut command = account::command(&programs.path("postgres"), home.account);
        command.arg("-D").arg(home.cluster()).args(["-p", PORT]);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        // A list: quoted, so that a comma in the path does not divide it.
        let quoted = socket_dir.replace('"', "\"\"");
        command.arg("-c").arg(format!("unix_socket_directories=\"{quoted}\""));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Its own process group: Ctrl-C is for us, who stop it last.
        let child = command.process_group(0).kill_on_drop(true).spawn().context("cannot run postgres")?;
        let pid = child.id().context("postgres ended before it began")?;
        Ok(Self { child, pid, programs, log_start })
    }

    /// Waits until the server says that it is ready (`None`) or ends.
    async fn ready(&mut self, home: &Home) -> Result<Option<Ended>> {
        loop {
            if self.child.try_wait()?.is_some() {
                let said = home.log_tail(self.log_start);
                let leftovers = LEFTOVERS.iter().any(|phrase| said.contains(phrase));
                return Ok(Some(if leftovers { Ended::OnLeftovers } else { Ended::Otherwise }));
            }
            // The pid file's first line is the process, its eighth the state.
            let note = fs::read_to_string(home.pid_file()).unwrap_or_default();
            let mut lines = note.lines().map(str::trim);
            let (process, state) = (lines.next(), lines.nth(6));
            if process == Some(self.pid.to_string().as_str()) && state == Some("ready") {
                return Ok(None);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) async fn exited(&mut self, home: &Home) -> anyhow::Error {
        let ended = match self.child.wait().await {
            Ok(status) => describe(status),
            Err(error) => format!("cannot wait for it: {error}"),
        };
        anyhow!(
            "PostgreSQL (process {}) ended by itself: {ended}. The end of {}:\n{}",
            self.pid,
            home.log_path().display(),
            home.log_tail(self.log_start)
        )
    }

    pub(super) async fn stop(mut self, home: &Home, patience: Duration) -> Result<()> {
        for (name, patience) in [("INT", patience), ("QUIT", QUIT_TIMEOUT)] {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            signal(home, &self.programs, name, self.pid).await?;
            if let Ok(status) = timeout(patience, self.child.wait()).await {
                status?;
                return Ok(());
            }
            tracing::warn!(process = self.pid, signal = name, ?patience, "PostgreSQL did not stop in time");
        }
        self.kill().await
    }

    pub(super) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill PostgreSQL (process {})", self.pid))
    }
}

fn describe(status: ExitStatus) -> String {
    status.signal().map_or_else(|| status.to_string(), |signal| format!("killed by signal {signal}"))
}

/// Ends the server that a killed supervisor left behind. We hold the folder's lock, so no living supervisor has one.
///
/// # Errors
/// A server runs on the data that somebody started by hand, or ours does not go.
pub(super) async fn end_predecessor(home: &Home, programs: &Programs, patience: Duration) -> Result<()> {
    let Ok(note) = fs::read_to_string(home.pid_file()) else { return Ok(()) };
    let Some(pid) = note.lines().next().and_then(|line| line.trim().parse().ok()) else { return Ok(()) };
    for (name, patience) in [("INT", patience), ("QUIT", QUIT_TIMEOUT)] {
        match occupant(pid, &home.cluster()).await {
            Occupant::Other => break,
            Occupant::Stranger => bail!(
                "PostgreSQL is already running on {} (process {pid}), and it was not started by Longtake: stop it first",
                home.cluster().display()
            ),
            Occupant::Ours => {}
        }
        tracing::warn!(
            process = pid,
            signal = name,
            "stopping the PostgreSQL that a killed process left behind"
        );
        signal(home, programs, name, pid).await?;
        let deadline = Instant::now() + patience;
        while matches!(occupant(pid, &home.cluster()).await, Occupant::Ours) && Instant::now() < deadline {
            sleep(LOOK_AGAIN).await;
        }
    }
    let left = matches!(occupant(pid, &home.cluster()).await, Occupant::Ours);
    ensure!(
        !left,
        "PostgreSQL (process {pid}) was left behind on {} and does not stop",
        home.cluster().display()
    );
    Ok(())
}

/// Who has the process id that a pid file names.
enum Occupant {
    /// A server that a supervisor started on this data.
    Ours,
    /// A server that somebody else started on this data.
    Stranger,
    /// Nobody, or a process that has nothing to do with this data.
    Other,
}

async fn occupant(pid: u32, cluster: &Path) -> Occupant {
    let command_line = command_line(pid).await;
    let program = command_line.split([' ', '\0']).next().unwrap_or_default();
    let is_server = matches!(program.rsplit('/').next(), Some("postgres" | "postmaster"));
    let names_data = command_line.contains(&*cluster.to_string_lossy());
    let works_there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == cluster);
    match is_server && (names_data || works_there) {
        true if command_line.contains(MARK) => Occupant::Ours,
        true => Occupant::Stranger,
        false => Occupant::Other,
    }
}

/// Empty when there is no such process, or only the entry of one that has ended.
async fn command_line(pid: u32) -> String {
    if Path::new("/proc/self/cmdline").exists() {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    let listed = Command::new("ps").args(["-ww", "-o", "command=", "-p"]).arg(pid.to_string()).output().await;
    listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

/// Signals through `pg_ctl kill`: the standard library can only send SIGKILL.
async fn signal(home: &Home, programs: &Programs, name: &str, pid: u32) -> Result<()> {
    let mut command = account::command(&programs.path("pg_ctl"), home.account);
    command.args(["kill", name]).arg(pid.to_string()).stdin(Stdio::null());
    let output = command.output().await.context("cannot run pg_ctl")?;
    if !output.status.success() {
        // It may have ended in between; who waits for it sees whether it did.
        let said = String::from_utf8_lossy(&output.stderr);
        tracing::debug!(process = pid, signal = name, %said, "pg_ctl kill");
    }
    Ok(())
}
