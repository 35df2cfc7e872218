//! Runs ffmpeg, ffprobe and espeak-ng. A child dies with the future that waits for it: dropping the future is how an attempt is
//! cancelled. On Linux it dies with this process, too, when that is killed: nothing then keeps the cores from the next executor. No
//! shell is involved, and text from outside reaches a child only through files and standard input.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;

use crate::error::MediaError;

/// From util-linux, which every Debian has. It asks the kernel for a signal at the death of its parent, then becomes the program.
/// The parent is the thread that starts it; those of a runtime live as long as their tasks do.
const LEASH: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// A program that the content steps need.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    /// What people call it.
    pub name: &'static str,
    /// What is started.
    pub program: PathBuf,
    /// The environment variable that names it.
    pub variable: &'static str,
    /// What installs it on Debian.
    pub install: &'static str,
    /// How much of its messages an error quotes.
    pub stderr_bytes: usize,
}

/// One start of a tool.
pub(crate) struct Call<'a> {
    pub tool: &'a Tool,
    /// What it is for, as it reads after "failed".
    pub doing: String,
    /// Where it works: files are then named without their folders.
    pub folder: &'a Path,
    pub arguments: Vec<String>,
    pub stdin: Option<String>,
}

impl Call<'_> {
    /// Runs it to its end, handing over each line that it prints.
    pub(crate) async fn run(mut self, on_line: impl FnMut(&str)) -> Result<(), MediaError> {
        let mut child = self.start().await?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let ((), (), stderr, status) = tokio::join!(
            feed(stdin, self.stdin.take().unwrap_or_default()),
            read_lines(stdout, on_line),
            tail(stderr, self.tool.stderr_bytes),
            child.wait(),
        );
        let status = status.map_err(MediaError::io("waiting for", &self.tool.program))?;
        if status.success() {
            return Ok(());
        }
        Err(MediaError::ToolFailed {
            tool: self.tool.name,
            doing: self.doing,
            status: status.to_string(),
            stderr,
        })
    }

    /// Runs it to its end and returns what it printed.
    pub(crate) async fn output(self) -> Result<String, MediaError> {
        let mut out = String::new();
        self.run(|line| {
            out.push_str(line);
            out.push('\n');
        })
        .await?;
        Ok(out)
    }

    async fn start(&self) -> Result<Child, MediaError> {
        let mut command = leashed(&self.tool.program).await;
        command
            .args(&self.arguments)
            .current_dir(self.folder)
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().map_err(|source| MediaError::ToolMissing {
            program: self.tool.program.clone(),
            variable: self.tool.variable,
            install: self.tool.install,
            source,
        })
    }
}

/// A program on its leash, where there is one. A program that is not there is started as it is, so that the error is its own.
async fn leashed(program: &Path) -> Command {
    let [leash, options @ ..] = LEASH;
    match find(program) {
        Some(found) if has_leash().await => {
            let mut command = Command::new(leash);
            command.args(options).arg(found);
            command
        }
        Some(_) | None => Command::new(program),
    }
}

/// Whether this machine has the leash. Asked once: the one of busybox, for example, lacks the option.
async fn has_leash() -> bool {
    static FOUND: OnceCell<bool> = OnceCell::const_new();
    let try_it = || async {
        let [leash, options @ ..] = LEASH;
        let mut command = Command::new(leash);
        command.args(options).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    };
    *FOUND.get_or_init(try_it).await
}

/// Where a program is, as the system looks for it.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return is_program(program).then(|| program.to_owned());
    }
    let folders = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|it| is_program(it))?;
    // It will be started in another folder.
    std::path::absolute(found).ok()
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(_: &Path) -> bool {
    false
}

/// A child that ends before it has read everything says why through its status.
async fn feed(stdin: Option<ChildStdin>, text: String) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(text.as_bytes()).await;
        let _ = stdin.shutdown().await;
    }
}

async fn read_lines(stdout: Option<ChildStdout>, mut on_line: impl FnMut(&str)) {
    let Some(stdout) = stdout else { return };
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        on_line(&line);
    }
}

/// The end of what a child says, at most `limit` bytes, without characters that do not print.
async fn tail(stderr: Option<impl AsyncRead + Unpin>, limit: usize) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let mut kept = VecDeque::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        kept.extend(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(limit));
    }
    let kept: Vec<u8> = kept.into();
    crate::text::clean(&String::from_utf8_lossy(&kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(program: &str) -> Tool {
        Tool {
            name: "tool",
            program: program.into(),
            variable: "LONGTAKE_TOOL",
            install: "apt-get install tool",
            stderr_bytes: 20,
        }
    }

    fn call<'a>(tool: &'a Tool, script: &str, stdin: Option<&str>) -> Call<'a> {
        Call {
            tool,
            doing: "testing".to_owned(),
            folder: Path::new("/"),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            stdin: stdin.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn output_and_input_pass_through() {
        let tool = shell("/bin/sh");
        let out = call(&tool, "cat; echo end", Some("-f evil\n")).output().await.unwrap();
        assert_eq!(out, "-f evil\nend\n");
    }

    #[tokio::test]
    async fn an_error_quotes_the_end_of_what_was_said() {
        let tool = shell("/bin/sh");
        let script =
            "i=0; while [ $i -lt 9999 ]; do echo noise >&2; i=$((i+1)); done; echo the last line >&2; exit 3";
        let error = call(&tool, script, Some("")).output().await.unwrap_err();
        let MediaError::ToolFailed { status, stderr, .. } = &error else { panic!("{error}") };
        assert!(status.contains('3') && stderr.ends_with("the last line") && stderr.len() <= 20, "{stderr}");
        assert!(error.retryable());
    }

    #[tokio::test]
    async fn a_missing_program_says_what_installs_it() {
        let tool = shell("/nowhere/tool");
        let error = call(&tool, "", None).output().await.unwrap_err().to_string();
        assert!(error.contains("apt-get install tool") && error.contains("LONGTAKE_TOOL"), "{error}");
    }

    #[tokio::test]
    async fn dropping_the_future_kills_the_child() {
        let tool = shell("/bin/sh");
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let running = call(&tool, "echo $$; exec sleep 600", None).run(move |line| {
            if let Some(tell) = tell.take() {
                let _ = tell.send(line.to_owned());
            }
        });
        let pid = tokio::select! {
            pid = told => pid.unwrap(),
            ended = running => panic!("ended early: {ended:?}"),
        };
        // Gone, or a zombie that nobody has reaped yet: not running either way.
        let gone = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            status.map_or(true, |status| status.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
        };
        for _ in 0..10_000 {
            if gone() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{pid} is still running");
    }

    /// Names the pipe that tells whether a child of the process below lives.
    const PIPE: &str = "LONGTAKE_TEST_PIPE";

    /// Tests nothing: it is the process that the next one starts and kills.
    #[tokio::test]
    async fn waits_for_a_child_until_it_is_killed() {
        if std::env::var_os(PIPE).is_none() {
            return;
        }
        let tool = shell("/bin/sh");
        let script = format!("exec 9>\"${PIPE}\"; sleep 60 9>&-; echo outlived >&9");
        call(&tool, &script, None).output().await.unwrap();
    }

    #[tokio::test]
    async fn a_child_dies_with_a_process_that_is_killed() {
        if !has_leash().await {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tool::tests::waits_for_a_child_until_it_is_killed"])
            .env(PIPE, &pipe)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Opens when the child has it open, and ends when the child does.
        let mut alive = std::fs::File::open(&pipe).unwrap();
        parent.kill().unwrap();
        parent.wait().unwrap();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut alive, &mut said).unwrap();
        assert_eq!(said, "");
    }
}
