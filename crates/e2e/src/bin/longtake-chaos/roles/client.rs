//! Clients: they ask for runs, again and again until they are answered, and order runs about.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use longtake_e2e::Client;
use longtake_proto::convert::struct_from_json;
use longtake_proto::v1;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{Chance, Plan};
use crate::journal::{Journal, Line};
use crate::stage::micros;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Clone)]
struct Asker {
    clients: Arc<Vec<Client>>,
    journal: Arc<Journal>,
    /// Nothing fails any more: what is open is brought to its end.
    healed: Arc<AtomicBool>,
}

/// Asks at its rate until a line comes in, then finishes what it has begun.
pub async fn run(plan: Plan) -> Result<()> {
    let asker = Asker {
        clients: Arc::new(plan.servers.iter().map(|url| Client::new(url)).collect()),
        journal: Arc::new(Journal::open(&plan.journal)?),
        healed: Arc::default(),
    };
    let mut chance = Chance::new(plan.seed);
    let mut asking = JoinSet::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / u32::try_from(plan.many.max(1))?);
    // Not a burst after each time that it was frozen.
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // On a thread of its own: reading blocks.
    let (sender, mut stop) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        sender.send(())
    });
    loop {
        tokio::select! {
            _ = pace.tick() => {
                let (asker, seed) = (asker.clone(), chance.next());
                asking.spawn(async move { asker.one(&mut Chance::new(seed)).await });
            }
            _ = &mut stop => break,
            Some(ended) = asking.join_next() => ended?,
        }
    }
    asker.healed.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended?;
    }
    Ok(())
}

impl Asker {
    /// One run, from its request to whatever this client does with it.
    async fn one(&self, chance: &mut Chance) {
        let ask = Uuid::new_v4().to_string();
        let input = json!({ "ask": ask, "right": chance.permille(500), "units": 1 + chance.below(12) });
        self.journal.write(&Line::Asked {
            ask: ask.clone(),
            workflow: "relay".to_owned(),
            input: input.clone(),
        });
        // A third is cancelled by its caller in the middle of things, of which some give up.
        if chance.permille(330) {
            let given = chance.millis(1, 50);
            match tokio::time::timeout(given, self.ask(&ask, &input, chance)).await {
                Ok(Some(run)) => return self.order_about(&run, chance).await,
                Ok(None) => {}
                Err(_) => self.dropped(&ask, given),
            }
            if chance.permille(300) {
                return;
            }
        }
        let run = self.until_answered(&ask, &input, chance).await;
        if chance.permille(50) {
            self.reuse(&ask, chance).await;
        }
        self.order_about(&run, chance).await;
    }

    async fn until_answered(&self, ask: &str, input: &Value, chance: &mut Chance) -> String {
        // As any client should: who is not answered asks less and less often.
        for tries in 0_u32.. {
            match tokio::time::timeout(PATIENCE, self.ask(ask, input, chance)).await {
                Ok(Some(run)) => return run,
                Ok(None) => {}
                Err(_) => self.dropped(ask, PATIENCE),
            }
            tokio::time::sleep(chance.millis(20, 100 << tries.min(5))).await;
        }
        unreachable!("it asks until it is answered")
    }

    /// A call was cancelled before it was answered, after so long.
    fn dropped(&self, ask: &str, after: Duration) {
        self.journal.write(&Line::Unknown { ask: ask.to_owned() });
        let to = micros();
        let from = to - i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        let kind = "drop_call".to_owned();
        self.journal.write(&Line::Fault { kind, target: ask.to_owned(), from, to });
    }

    /// Asks any server once; notes the answer.
    async fn ask(&self, ask: &str, input: &Value, chance: &mut Chance) -> Option<String> {
        let request = v1::CreateRunRequest {
            request_id: ask.to_owned(),
            workflow: "relay".to_owned(),
            input: struct_from_json(input.clone()),
            ..v1::CreateRunRequest::default()
        };
        match self.any(chance).runs().create_run(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let run = answer.run.map(|run| run.run_id).unwrap_or_default();
                let created = answer.created;
                self.journal.write(&Line::Acked { ask: ask.to_owned(), run: run.clone(), created });
                Some(run)
            }
            Err(status) if status.code() == Code::ResourceExhausted => {
                self.journal
                    .write(&Line::Refused { ask: ask.to_owned(), code: format!("{:?}", status.code()) });
                None
            }
            Err(_) => {
                self.journal.write(&Line::Unknown { ask: ask.to_owned() });
                None
            }
        }
    }

    /// The same request id for another request: refused for good.
    async fn reuse(&self, ask: &str, chance: &mut Chance) {
        let request = v1::CreateRunRequest {
            request_id: ask.to_owned(),
            workflow: "relay".to_owned(),
            input: struct_from_json(json!({ "ask": ask, "right": true, "units": 99 })),
            ..v1::CreateRunRequest::default()
        };
        if let Ok(answer) = tokio::time::timeout(PATIENCE, self.any(chance).runs().create_run(request)).await
        {
            match answer {
                Ok(_) => self.journal.write(&Line::Reused { ask: ask.to_owned(), refused: false }),
                Err(status) if status.code() == Code::AlreadyExists => {
                    self.journal.write(&Line::Reused { ask: ask.to_owned(), refused: true });
                }
                Err(_) => {}
            }
        }
    }

    async fn order_about(&self, run: &str, chance: &mut Chance) {
        match chance.below(100) {
            0..4 => {
                self.breathe(chance.millis(0, 3_000)).await;
                self.order(run, "cancel", chance).await;
            }
            4..6 => {
                self.breathe(chance.millis(0, 1_000)).await;
                self.order(run, "pause", chance).await;
                self.breathe(chance.millis(0, 2_000)).await;
                // Nobody else would: it is repeated until it is answered.
                self.order(run, "resume", chance).await;
            }
            6..10 => {
                self.breathe(chance.millis(1_000, 8_000)).await;
                self.order(run, "retry", chance).await;
            }
            _ => {}
        }
    }

    /// Waits, unless everything has healed.
    async fn breathe(&self, span: Duration) {
        if !self.healed.load(Ordering::Relaxed) {
            tokio::time::sleep(span).await;
        }
    }

    /// Repeats an operator call under one request id until it is answered.
    async fn order(&self, run: &str, order: &str, chance: &mut Chance) {
        let id = Uuid::new_v4().to_string();
        loop {
            let client = self.any(chance).clone();
            let told = tokio::time::timeout(PATIENCE, tell(&client, run, order, &id)).await;
            let ok = match told {
                Ok(Ok(())) => true,
                Ok(Err(status)) if status.code() == Code::FailedPrecondition => false,
                Ok(Err(_)) | Err(_) => {
                    tokio::time::sleep(chance.millis(20, 300)).await;
                    continue;
                }
            };
            return self.journal.write(&Line::Ordered { run: run.to_owned(), order: order.to_owned(), ok });
        }
    }

    fn any(&self, chance: &mut Chance) -> &Client {
        &self.clients[chance.index(self.clients.len())]
    }
}

async fn tell(client: &Client, run: &str, order: &str, id: &str) -> Result<(), Status> {
    let (run_id, request_id) = (run.to_owned(), id.to_owned());
    let mut runs = client.runs();
    match order {
        "cancel" => {
            let request = v1::CancelRunRequest { run_id, request_id, ..Default::default() };
            runs.cancel_run(request).await.map(drop)
        }
        "pause" => {
            let request = v1::PauseRunRequest { run_id, request_id, ..Default::default() };
            runs.pause_run(request).await.map(drop)
        }
        "resume" => runs.resume_run(v1::ResumeRunRequest { run_id, request_id }).await.map(drop),
        _ => runs.retry_run(v1::RetryRunRequest { run_id, request_id, deadline: None }).await.map(drop),
    }
}
