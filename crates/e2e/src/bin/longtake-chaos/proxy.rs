//! A link between two processes that can be cut, stalled and delayed, and that can lose a single reply.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Open,
    /// Connections are closed, and new ones at once.
    Cut,
    /// Nothing gets through, and nobody is told: what a pulled cable looks like.
    Stalled,
    /// Everything is so much later.
    Slow(Duration),
}

/// See the module. The link lives until this is dropped.
#[derive(Debug)]
pub struct Proxy {
    mode: watch::Sender<Mode>,
    losses: Arc<Losses>,
    task: tokio::task::JoinHandle<()>,
}

/// Single messages that are to be lost, with their connection.
#[derive(Debug, Default)]
struct Losses {
    /// Statements of a lane that do not arrive.
    requests: AtomicUsize,
    /// Answers to statements of a lane, which are done and committed by then.
    replies: AtomicUsize,
}

/// How a Postgres connection of a lane says so in its first message.
const LANE: &[u8] = b"longtake lane";
/// A statement that carries less changes no run.
const WRITE_BYTES: usize = 1500;

impl Proxy {
    /// A link from a port of this machine to another.
    pub async fn tcp(port: u16, to: String) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("a port for a link")?;
        let (mode, losses) = (watch::Sender::new(Mode::Open), Arc::new(Losses::default()));
        let (modes, shared) = (mode.subscribe(), losses.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (modes, losses, to) = (modes.clone(), shared.clone(), to.clone());
                tokio::spawn(async move {
                    if *modes.borrow() != Mode::Cut
                        && let Ok(far) = TcpStream::connect(&to).await
                    {
                        let _ = (near.set_nodelay(true), far.set_nodelay(true));
                        link(near, far, modes, losses).await;
                    }
                });
            }
        });
        Ok(Proxy { mode, losses, task })
    }

    /// A link from a Unix socket to another.
    pub fn unix(socket: &Path, to: PathBuf) -> Result<Proxy> {
        let listener = UnixListener::bind(socket).context("a socket for a link")?;
        let (mode, losses) = (watch::Sender::new(Mode::Open), Arc::new(Losses::default()));
        let (modes, shared) = (mode.subscribe(), losses.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (modes, losses, to) = (modes.clone(), shared.clone(), to.clone());
                tokio::spawn(async move {
                    if *modes.borrow() != Mode::Cut
                        && let Ok(far) = UnixStream::connect(&to).await
                    {
                        link(near, far, modes, losses).await;
                    }
                });
            }
        });
        Ok(Proxy { mode, losses, task })
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Loses the reply to the next write of a lane: it is committed, and the lane does not learn it.
    pub fn lose_a_reply(&self) {
        self.losses.replies.fetch_add(1, Ordering::Relaxed);
    }

    /// Loses the next write of a lane on its way.
    pub fn lose_a_request(&self) {
        self.losses.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// What is still to be lost is not.
    pub fn heal(&self) {
        self.losses.requests.store(0, Ordering::Relaxed);
        self.losses.replies.store(0, Ordering::Relaxed);
        self.set(Mode::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether one of so many that are to be lost is lost now.
fn strikes(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Carries bytes both ways until one end closes, the link is cut, or a message is lost.
async fn link<S>(near: S, far: S, mut modes: watch::Receiver<Mode>, losses: Arc<Losses>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut from_near, mut to_near) = tokio::io::split(near);
    let (mut from_far, mut to_far) = tokio::io::split(far);
    // What was last sent up, for as long as nothing came down.
    let sent = AtomicUsize::new(0);
    let lane = AtomicBool::new(false);
    let modes_up = modes.clone();
    let modes_down = modes.clone();
    let up = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
            if buffer[..count].windows(LANE.len()).any(|part| part == LANE) {
                lane.store(true, Ordering::Relaxed);
            }
            let size = sent.fetch_add(count, Ordering::Relaxed) + count;
            let write = lane.load(Ordering::Relaxed) && size >= WRITE_BYTES;
            if write && strikes(&losses.requests) {
                return;
            }
            pass(modes_up.clone()).await;
            if to_far.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from_far.read(&mut buffer).await {
            let write = lane.load(Ordering::Relaxed) && sent.swap(0, Ordering::Relaxed) >= WRITE_BYTES;
            if write && strikes(&losses.replies) {
                return;
            }
            pass(modes_down.clone()).await;
            if to_near.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = modes.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Waits until a message may go on.
async fn pass(mut modes: watch::Receiver<Mode>) {
    let mode = modes.wait_for(|mode| *mode != Mode::Stalled).await.map_or(Mode::Open, |mode| *mode);
    if let Mode::Slow(by) = mode {
        tokio::time::sleep(by).await;
    }
}
