//! The folder of a private PostgreSQL: who owns it, who has it now, where its parts are, and how its data is first made.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;

use super::account::{self, Account};
use super::programs::Programs;

/// The superuser and the database that [`Home::create_cluster`] makes.
const NAME: &str = "longtake";
pub(super) const PORT: &str = "5432";
/// A Unix socket's path with its closing NUL fits `sun_path`: 108 bytes on Linux, 104 on the BSDs and macOS.
const SOCKET_PATH_MAX_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
const LOG_MAX_BYTES: u64 = 8 << 20;
const LOG_TAIL_MAX_BYTES: u64 = 8 << 10;
const LOG_TAIL_MAX_LINES: usize = 20;

#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    socket_dir: PathBuf,
    pub(super) account: Option<Account>,
    _lock: Lock,
}

/// Unlocks by itself: a child that is just being spawned may still hold a copy of the descriptor.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // An error leaves it to the closing of the file.
        let _ = self.0.unlock();
    }
}

impl Home {
    /// Takes the folder for this process.
    pub(super) async fn open(asked: &Path, fallback: &Path) -> Result<Self> {
        let uid = account::own_uid().await?;
        let mut dir = make_folder(asked)?;
        let mut account = None;
        if uid == 0 {
            let mut chosen = Account::choose(&[&dir.join("cluster"), &dir])?;
            if !chosen.reaches(&dir) {
                make_folder(fallback)?;
                dir = make_folder(&fallback.join(as_file_name(&dir)))?;
                chosen = Account::choose(&[&dir.join("cluster"), &dir])?;
                ensure!(
                    chosen.reaches(&dir),
                    "PostgreSQL refuses to run as root, and an unprivileged user can reach neither {} nor {}: choose \
                     a folder whose parents everybody may enter",
                    asked.display(),
                    dir.display()
                );
                tracing::info!(asked = %asked.display(), used = %dir.display(),
                    "PostgreSQL cannot run as root: its data goes where an unprivileged user can reach it");
            }
            account = Some(chosen);
        }
        let lock = take_lock(&dir)?;
        let socket_dir = socket_folder(&dir)?;
        account::private_folder(&socket_dir, account, uid)?;
        let home = Self { dir, socket_dir, account, _lock: lock };
        if uid != 0 && home.has_cluster() {
            let owner = fs::metadata(home.cluster())?.uid();
            ensure!(
                owner == uid,
                "{} belongs to user {owner}: run as that user or as root, or choose another folder",
                home.cluster().display()
            );
        }
        Ok(home)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// The server's own note of its process, state and socket.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster().join("postmaster.pid")
    }

    pub(super) fn has_cluster(&self) -> bool {
        self.cluster().join("PG_VERSION").is_file()
    }

    /// The major version that made the data, where there is data.
    pub(super) fn cluster_major(&self) -> Result<Option<u32>> {
        if !self.has_cluster() {
            return Ok(None);
        }
        let path = self.cluster().join("PG_VERSION");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.trim().parse().map(Some).with_context(|| format!("{} holds {text:?}", path.display()))
    }

    pub(super) fn url(&self) -> String {
        format!("postgresql://{NAME}@{}:{PORT}/{NAME}?sslmode=disable", percent_encode(&self.socket_dir))
    }

    /// Makes the data aside and renames it when it is whole: a start that is killed half-way leaves nothing that
    /// looks like data.
    pub(super) async fn create_cluster(&self, programs: &Programs) -> Result<()> {
        let fresh = self.dir.join("cluster.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
        }
        account::private_folder(&fresh, self.account, account::own_uid().await?)?;
        let mut initdb = account::command(&programs.path("initdb"), self.account);
        initdb.arg("-D").arg(&fresh).args(["-U", NAME, "-E", "UTF8", "--locale=C"]);
        initdb.args(["--auth-local=trust", "--auth-host=reject", "--data-checksums", "--no-instructions"]);
        succeeded("initdb", initdb.stdin(Stdio::null()).output().await)?;

        let mut single = account::command(&programs.path("postgres"), self.account);
        single.arg("--single").arg("-D").arg(&fresh).args(["-c", "exit_on_error=on", "postgres"]);
        single.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = single.spawn().context("cannot run postgres --single")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(format!("CREATE DATABASE {NAME};\n").as_bytes()).await?;
        }
        succeeded("postgres --single", child.wait_with_output().await)?;

        fs::rename(&fresh, self.cluster()).context("cannot name the new data folder")?;
        File::open(&self.dir)?.sync_all().context("cannot write the new data folder's name to disk")
    }

    /// Removes what a server that is gone left behind: the files that name its process, which may be another
    /// program's by now, and for which the next server would refuse to start.
    pub(super) fn clear_remains(&self) -> Result<()> {
        let socket = self.socket_dir.join(format!(".s.PGSQL.{PORT}"));
        for path in [self.pid_file(), socket.with_extension(format!("{PORT}.lock")), socket] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", path.display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Opens the log for a server that is about to start, and says how long it is already.
    pub(super) fn open_log(&self) -> Result<(File, u64)> {
        let path = self.log_path();
        let failed = || format!("cannot write {}", path.display());
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_MAX_BYTES) {
            fs::rename(&path, self.dir.join("postgres.log.1")).with_context(failed)?;
        }
        let file = File::options().append(true).create(true).open(&path).with_context(failed)?;
        give_to_owner_of(&self.dir, &file).with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        Ok((file, length))
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// The last lines that the log gained since it was `from` bytes long.
    pub(super) fn log_tail(&self, from: u64) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(length.saturating_sub(LOG_TAIL_MAX_BYTES))))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            Ok(lines[lines.len().saturating_sub(LOG_TAIL_MAX_LINES)..].join("\n"))
        };
        read().unwrap_or_else(|error| format!("(cannot read {}: {error})", self.log_path().display()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Succeeds once the socket is gone. A folder that stays is used again by the next start.
        let _ = fs::remove_dir(&self.socket_dir);
    }
}

/// Makes `dir` if needed, and everybody may enter it: what is private lies deeper. Returns its real path.
fn make_folder(dir: &Path) -> Result<PathBuf> {
    let failed = || format!("cannot make the folder {}", dir.display());
    if !dir.exists() {
        fs::create_dir_all(dir).with_context(failed)?;
        fs::set_permissions(dir, Permissions::from_mode(0o755)).with_context(failed)?;
    }
    dir.canonicalize().with_context(failed)
}

fn take_lock(dir: &Path) -> Result<Lock> {
    let path = dir.join("lock");
    let failed = || format!("cannot lock {}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(failed)?;
    give_to_owner_of(dir, &file).with_context(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).with_context(failed)?;
            bail!(
                "{} is in use by process {}: stop that one first, or choose another data folder",
                dir.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).with_context(failed)?;
    Ok(Lock(file))
}

/// What root writes into somebody's folder stays usable for them when they come back without root.
fn give_to_owner_of(dir: &Path, file: &File) -> io::Result<()> {
    let owner = fs::metadata(dir)?;
    if file.metadata()?.uid() != owner.uid() {
        fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// `<dir>/socket`, or a short folder in the temporary directory that is always the same one for `dir`.
fn socket_folder(dir: &Path) -> Result<PathBuf> {
    let fits =
        |folder: &Path| folder.as_os_str().len() + "/.s.PGSQL.".len() + PORT.len() <= SOCKET_PATH_MAX_BYTES;
    let beside = dir.join("socket");
    if fits(&beside) {
        return Ok(beside);
    }
    let meta = fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let name = format!("longtake-{:x}-{:x}", meta.dev(), meta.ino());
    let short = [std::env::temp_dir(), PathBuf::from("/tmp")]
        .into_iter()
        .map(|temp| temp.join(&name))
        .find(|f| fits(f));
    short.with_context(|| {
        format!("{} is too long for a Unix socket, and so is the temporary directory", dir.display())
    })
}

fn succeeded(what: &str, output: io::Result<Output>) -> Result<()> {
    let output = output.with_context(|| format!("cannot run {what}"))?;
    ensure!(
        output.status.success(),
        "{what} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// `/root/my project` as `root~my%20project`; no other path has that name.
fn as_file_name(path: &Path) -> String {
    percent_encode(path).trim_start_matches("%2F").replace("%2F", "~")
}

/// For a path in a URL's authority: every byte but letters, digits and `-._`.
fn percent_encode(path: &Path) -> String {
    let encode = |&byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(encode).collect()
}
