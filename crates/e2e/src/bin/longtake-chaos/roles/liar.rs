//! Executors that do what no library would: late, twice, with other payloads, for leases of long ago, or never.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use longtake_e2e::{Client, Hand, Refusal};
use longtake_proto::v1::{Reason, StepLease};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Chance, Plan};
use crate::journal::{Journal, Line};

/// Longer than a silent session lasts.
const LATE: Duration = Duration::from_millis(4_500);

struct Liar {
    name: String,
    journal: Arc<Journal>,
    client: Client,
    hand: Hand,
    chance: Chance,
    /// A lease that it had before.
    old: Option<StepLease>,
}

/// Lies until it is killed.
pub async fn run(plan: Plan) -> Result<()> {
    let journal = Arc::new(Journal::open(&plan.journal)?);
    let mut liars = JoinSet::new();
    for number in 0..plan.many {
        let client = Client::new(&plan.servers[number % plan.servers.len()]);
        let name = format!("{}-{number}", plan.name);
        let hand = Hand::new(&client, &name, &["quick"]);
        let seed = plan.seed ^ ((number as u64) << 32);
        let mut liar =
            Liar { name, journal: journal.clone(), client, hand, chance: Chance::new(seed), old: None };
        liars.spawn(async move {
            loop {
                liar.lie().await;
            }
        });
    }
    // For ever.
    liars.join_all().await;
    Ok(())
}

impl Liar {
    async fn lie(&mut self) {
        let polled =
            tokio::time::timeout(Duration::from_secs(10), self.hand.poll(Duration::from_secs(3))).await;
        let Some(lease) =
            polled.ok().and_then(Result::ok).and_then(|answer| answer.leases.into_iter().next())
        else {
            return tokio::time::sleep(Duration::from_millis(200)).await;
        };
        self.journal.write(&Line::Started {
            executor: self.name.clone(),
            run: lease.run_id.clone(),
            step: lease.step.clone(),
            attempt: lease.attempt,
            previous: lease
                .checkpoint
                .as_ref()
                .map(|stored| stored.checkpoint.as_ref().map_or(0, |it| it.done)),
        });
        match self.chance.below(5) {
            // Silent for longer than its lease, and then done after all.
            0 | 1 => {
                tokio::time::sleep(LATE).await;
                self.complete(&lease).await;
            }
            // Done twice: the same again, then something else.
            2 => {
                if let Some(first) = self.complete(&lease).await {
                    self.report(&lease, &first).await;
                    self.complete(&lease).await;
                }
            }
            // After another lease, which is over by now as a rule.
            3 => {
                if let Some(old) = self.old.take() {
                    self.complete(&old).await;
                }
                self.complete(&lease).await;
            }
            // Never heard of again.
            _ => {}
        }
        self.old = Some(lease);
        if self.chance.permille(100) {
            // As a process that was started anew.
            self.hand = Hand::new(&self.client, &self.name, &["quick"]);
        }
    }

    /// Completes with a fresh output, which is returned.
    async fn complete(&self, lease: &StepLease) -> Option<String> {
        let nonce = Uuid::new_v4().to_string();
        let (run, step, attempt) = (lease.run_id.clone(), lease.step.clone(), lease.attempt);
        self.journal.write(&Line::Made { run, step, attempt, nonce: nonce.clone() });
        self.report(lease, &nonce).await.then_some(nonce)
    }

    /// Completes with this output, and notes the verdict.
    async fn report(&self, lease: &StepLease, nonce: &str) -> bool {
        let Some(verdict) = self.send(lease, nonce).await else { return false };
        let ok = verdict == "OK";
        let (run, step, attempt) = (lease.run_id.clone(), lease.step.clone(), lease.attempt);
        self.journal.write(&Line::Reported { run, step, attempt, nonce: nonce.to_owned(), verdict });
        ok
    }

    /// The verdict; nothing when there was none, so that it may count or not.
    async fn send(&self, lease: &StepLease, nonce: &str) -> Option<String> {
        let told = self.hand.complete(lease, json!({ "nonce": nonce }));
        match tokio::time::timeout(Duration::from_secs(5), told).await.ok()? {
            Ok(verdict) if verdict.reason() == Reason::Unspecified => Some("OK".to_owned()),
            Ok(verdict) => Some(verdict.reason().as_str_name().trim_start_matches("REASON_").to_owned()),
            Err(status) => Some(Refusal::of(&status).reason).filter(|reason| reason.starts_with("LEASE_")),
        }
    }
}
