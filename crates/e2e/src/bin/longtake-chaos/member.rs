//! A process of the run that is killed, frozen and started again, under one name over all its lives.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use longtake_e2e::{Process, Signal, http_status};
use tokio::process::Command;

/// How long a member may take to be ready, whatever else goes on.
const READY: Duration = Duration::from_secs(90);

type Make = Box<dyn Fn(&str, u32) -> Command + Send + Sync>;

/// See the module.
pub struct Member {
    pub name: String,
    /// Which life it is in, from 1.
    pub life: u32,
    folder: PathBuf,
    make: Make,
    /// The port on which `/readyz` says whether it is ready; none for those that need not say.
    ready: Option<u16>,
    process: Option<Process>,
}

impl Member {
    pub fn new(
        name: &str,
        folder: PathBuf,
        ready: Option<u16>,
        make: impl Fn(&str, u32) -> Command + Send + Sync + 'static,
    ) -> Member {
        Member { name: name.to_owned(), life: 0, folder, make: Box::new(make), ready, process: None }
    }

    /// What its present life is called.
    pub fn alias(&self) -> String {
        format!("{}.{}", self.name, self.life)
    }

    /// Begins another life, and waits until it is ready. One that ends before is begun again: whoever starts servers for real does
    /// so too, for example when they start before their database.
    pub async fn start(&mut self) -> Result<()> {
        let until = Instant::now() + READY;
        'life: loop {
            self.life += 1;
            let command = (self.make)(&self.alias(), self.life);
            let process = self.process.insert(Process::start(&self.name, command, &self.folder));
            let Some(port) = self.ready else { return Ok(()) };
            while Instant::now() < until {
                if process.end().is_some() {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue 'life;
                }
                let asked = tokio::time::timeout(Duration::from_secs(2), http_status(port, "/readyz"));
                if matches!(asked.await, Ok(Ok(200))) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bail!("{} is not ready after {READY:?}", self.name);
        }
    }

    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// SIGTERM; killed if that is not enough.
    pub async fn terminate(&mut self, within: Duration) {
        let Some(process) = &mut self.process else { return };
        if process.end().is_none() {
            process.signal(Signal::Terminate);
        }
        let _ = tokio::time::timeout(within, async {
            while process.end().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        self.kill().await;
    }

    pub async fn freeze(&mut self, span: Duration) {
        let Some(process) = &mut self.process else { return };
        if process.end().is_none() {
            process.signal(Signal::Stop);
            tokio::time::sleep(span).await;
            process.signal(Signal::Continue);
        }
    }

    /// Whether it ended though nobody ended it.
    pub fn fell(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let end = process.end()?;
        Some(format!("{} ended by itself: {end}", self.name))
    }

    /// How often its log says something, over all lives.
    pub fn said(&self, what: &str) -> usize {
        let log = self.folder.join(format!("{}.log", self.name));
        std::fs::read_to_string(log).map_or(0, |text| text.matches(what).count())
    }
}
