//! Processes that never outlive their test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, kill_process};
use tokio::process::{Child, Command};

/// What a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Please end: drain first.
    Terminate,
    /// End now.
    Kill,
    /// For PostgreSQL: end now, without a checkpoint.
    Quit,
    /// Freeze.
    Stop,
    /// Thaw.
    Continue,
}

impl Signal {
    /// Sends it to a process.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn send(self, pid: u32) {
        let signal = match self {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
            Signal::Quit => rustix::process::Signal::QUIT,
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
        };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
        if let Err(error) = kill_process(raw, signal) {
            panic!("cannot send {self:?} to process {pid}: {error}");
        }
    }
}

/// A running program whose output goes to a file. Dropped, it is killed; in a test that fails, the end of its output is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    log: PathBuf,
}

/// How many lines of a log a failed test shows.
const TAIL_LINES: usize = 60;

impl Process {
    /// Starts `command`; what it says goes to `<folder>/<name>.log`, behind what is there.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Process {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().append(true).create(true).open(&log).expect("a log file");
        let errors = file.try_clone().expect("a second handle on the log");
        command.stdin(Stdio::null()).stdout(file).stderr(errors).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let pid = child.id().expect("the id of a process that was just started");
        Process { name: name.to_owned(), child, pid, log }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        signal.send(self.pid);
    }

    /// Ends it at once, as a crash would; returns when it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap_or_else(|error| panic!("cannot kill {}: {error}", self.name));
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end `within` the time.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(status) => status.unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.name)),
            Err(_) => panic!("{} did not end within {within:?}", self.name),
        }
    }

    /// How it ended, if it has.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("cannot look at {}: {error}", self.name))
    }

    /// All that it has said.
    pub fn said(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("---- {} (process {}) said last:\n{tail}\n----", self.name, self.pid);
        }
    }
}

/// What a program that ran to its end did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started, or does not end `within` the time.
pub async fn run(mut command: Command, within: Duration) -> Outcome {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = match tokio::time::timeout(within, command.output()).await {
        Ok(output) => output.unwrap_or_else(|error| panic!("cannot run {shown}: {error}")),
        Err(_) => panic!("did not end within {within:?}: {shown}"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The program `longtake`, without the caller's own `LONGTAKE_…` settings: those of a test are the test's alone.
///
/// # Panics
/// When it is not built.
pub fn binary() -> Command {
    let mut command = Command::new(binary_path());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("LONGTAKE_") || text.starts_with("OTEL_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}

fn binary_path() -> PathBuf {
    if let Some(named) = std::env::var_os("LONGTAKE_BIN") {
        return PathBuf::from(named);
    }
    // A test program is in target/<profile>/deps, one folder below the binary; the benchmark is beside it.
    let program = std::env::current_exe().expect("the path of this program");
    let built =
        program.ancestors().skip(1).take(2).map(|folder| folder.join("longtake")).find(|it| it.is_file());
    built.unwrap_or_else(|| {
        panic!(
            "there is no program longtake near {}: `cargo build -p longtake` builds it (bin/test does), or name one with \
             LONGTAKE_BIN",
            program.display()
        )
    })
}
