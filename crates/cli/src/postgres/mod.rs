//! A private PostgreSQL: the server programs that are installed, run as a child process on a folder of our own.
//!
//! `longtake dev`, `longtake run` and the whole-process tests use it when nobody gave a database URL. It is a real
//! server with its durability on; only its reach is small: one folder, one Unix socket, no network, one user.
//!
//! ```text
//! <dir>/lock            held by the living supervisor; names its process
//! <dir>/cluster/        the data; made as cluster.new and renamed when it is whole
//! <dir>/postgres.log    what the server says; postgres.log.1 is the one before
//! <dir>/socket/         the Unix socket, or a short folder in the temporary directory where <dir> is too long for one
//! ```
//!
//! The server stays in the foreground as our child, so its end is seen and it is never left behind by a stop. When
//! this process is killed the server lives on; the lock is then free, and the next start stops that server before it
//! starts its own. `programs` finds what is installed, `account` is whom
//! it runs as, `home` is the folder, `server` the process.

mod account;
mod home;
mod programs;
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use home::Home;
use programs::Programs;
use server::Server;

/// What a [`PrivatePostgres`] is started with.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The folder that everything lives in; made when absent.
    pub dir: PathBuf,
    /// Where `postgres`, `initdb` and `pg_ctl` are. Absent: the usual places are searched.
    pub bin_dir: Option<PathBuf>,
    /// Used in place of `dir` when we are root and the unprivileged user that must own the data cannot reach
    /// `dir` (it is under `/root`, say): a folder named after `dir` is made in here.
    pub fallback_dir: PathBuf,
    /// How long a start may take, recovery after a crash included.
    pub start_timeout: Duration,
    /// How long a stop may take before the server is told to drop everything (which loses nothing).
    pub stop_timeout: Duration,
}

impl PostgresOptions {
    /// The usual bounds, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            bin_dir: None,
            fallback_dir: PathBuf::from("/var/lib/longtake"),
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// A running server that belongs to this process. [`stop`](Self::stop) it: a server that is merely dropped is killed.
#[derive(Debug)]
pub struct PrivatePostgres {
    // Declared before `home`: the server goes before the lock does.
    server: Server,
    home: Home,
    stop_timeout: Duration,
}

impl PrivatePostgres {
    /// Starts the server, making its data folder first where there is none. It accepts connections when this returns.
    ///
    /// # Errors
    /// No usable programs are installed; another process has the folder; the data is of another PostgreSQL version;
    /// the server did not come up (the message carries the end of its log).
    pub async fn start(options: PostgresOptions) -> Result<Self> {
        let home = Home::open(&options.dir, &options.fallback_dir).await?;
        let programs = Programs::find(options.bin_dir.as_deref(), home.cluster_major()?).await?;
        if !home.has_cluster() {
            home.create_cluster(&programs).await?;
        }
        server::end_predecessor(&home, &programs, options.stop_timeout).await?;
        home.clear_remains()?;
        let server = Server::start(&home, programs, options.start_timeout).await?;
        Ok(Self { server, home, stop_timeout: options.stop_timeout })
    }

    /// Where to connect, as a superuser, over the Unix socket. It is the same after every restart on this folder.
    pub fn url(&self) -> String {
        self.home.url()
    }

    /// The folder in use, which is not the one asked for where that was out of the server's reach.
    pub fn dir(&self) -> &Path {
        self.home.dir()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Waits until the server ends without having been asked to, and says how it ended, with the end of its log.
    /// Cancel-safe.
    pub async fn exited(&mut self) -> anyhow::Error {
        self.server.exited(&self.home).await
    }

    /// Stops the server: clients are cut off, everything committed is kept.
    ///
    /// # Errors
    /// The server could not be signalled, or did not go although it was killed.
    pub async fn stop(self) -> Result<()> {
        self.server.stop(&self.home, self.stop_timeout).await
    }

    /// Kills the server outright, as a power failure would, for tests of what survives. Everything committed does:
    /// start again on the same folder.
    ///
    /// # Errors
    /// The operating system refused.
    pub async fn kill(self) -> Result<()> {
        self.server.kill().await
    }
}
