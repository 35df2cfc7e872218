//! How executors tell the load that a step began or a run is done: past the server, so that the load need not ask it.
//!
//! A closed loop has to know when a run is done. Asking the server for each would be measured too; the executor knows, because
//! the last step's completion was acknowledged to it. Records of 25 bytes over a Unix socket: run, what, microseconds.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use uuid::Uuid;

const BYTES: usize = 25;
/// The last step's completion was acknowledged; other numbers are steps that an executor was given, from 1.
pub const DONE: u8 = 0;

/// Something that an executor saw.
#[derive(Debug, Clone, Copy)]
pub struct Signal {
    pub run: Uuid,
    pub what: u8,
    pub at: i64,
}

impl Signal {
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.run.as_bytes());
        bytes.push(self.what);
        bytes.extend_from_slice(&self.at.to_le_bytes());
    }

    fn read(bytes: &[u8; BYTES]) -> Signal {
        let (run, rest) = bytes.split_at(16);
        let mut id = [0; 16];
        id.copy_from_slice(run);
        let mut at = [0; 8];
        at.copy_from_slice(&rest[1..]);
        Signal { run: Uuid::from_bytes(id), what: rest[0], at: i64::from_le_bytes(at) }
    }
}

/// Where an executor process sends its signals; nowhere without a socket.
pub async fn sender(socket: Option<&Path>) -> Result<UnboundedSender<Signal>> {
    let (sender, mut queue): (_, UnboundedReceiver<Signal>) = unbounded_channel();
    let Some(path) = socket else {
        tokio::task::spawn_local(async move { while queue.recv().await.is_some() {} });
        return Ok(sender);
    };
    let mut stream = UnixStream::connect(path).await.context("the load's socket")?;
    tokio::task::spawn_local(async move {
        let mut bytes = Vec::new();
        while let Some(first) = queue.recv().await {
            bytes.clear();
            first.write(&mut bytes);
            while let Ok(more) = queue.try_recv() {
                more.write(&mut bytes);
            }
            // A load that is gone wants no signals.
            let _ = stream.write_all(&bytes).await;
        }
    });
    Ok(sender)
}

/// Calls `take` with every signal that comes in.
pub fn receive(socket: &Path, take: impl Fn(Signal) + Clone + 'static) -> Result<()> {
    let listener = UnixListener::bind(socket).context("the load's socket")?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let take = take.clone();
            tokio::task::spawn_local(async move {
                let mut stream = BufReader::with_capacity(64 << 10, stream);
                let mut bytes = [0; BYTES];
                while stream.read_exact(&mut bytes).await.is_ok() {
                    take(Signal::read(&bytes));
                }
            });
        }
    });
    Ok(())
}
