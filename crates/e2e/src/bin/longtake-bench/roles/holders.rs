//! Executors that hold steps for long, and heartbeat.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use longtake_proto::v1 as pb;
use longtake_proto::v1::executor_service_client::ExecutorServiceClient;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{REPLY_BYTES, channel, orders};

/// What a process of holders is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    pub server: String,
    pub queue: String,
    /// Executors, each a session of its own.
    pub executors: usize,
    /// Steps that each takes and keeps; none to only wait for work.
    pub steps: usize,
    /// Seconds between two heartbeats of an executor.
    pub every: f64,
}

/// Where the holders are.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Held {
    /// Leases in hand.
    pub leases: u64,
    /// Leases that heartbeats have named so far, and calls that did it.
    pub beats: u64,
    pub calls: u64,
    /// Leases that the server took back: none may be.
    pub lost: u64,
    /// Polls that are held.
    pub parked: u64,
}

#[derive(Default)]
struct Counts {
    leases: AtomicU64,
    beats: AtomicU64,
    calls: AtomicU64,
    lost: AtomicU64,
    parked: AtomicU64,
}

/// Holds until its input ends; each order is answered with where it is.
pub async fn run(plan: Plan) -> Result<()> {
    let counts = Arc::new(Counts::default());
    let plan = Rc::new(plan);
    // The server's bound on streams of a connection leaves room for 500 executors on one.
    for first in (0..plan.executors).step_by(500) {
        let client =
            ExecutorServiceClient::new(channel(&plan.server)?).max_decoding_message_size(REPLY_BYTES);
        for number in first..plan.executors.min(first + 500) {
            let (plan, client, counts) = (plan.clone(), client.clone(), counts.clone());
            tokio::task::spawn_local(hold(plan, client, counts, number));
        }
    }
    orders(async |_| {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(Held {
            leases: read(&counts.leases),
            beats: read(&counts.beats),
            calls: read(&counts.calls),
            lost: read(&counts.lost),
            parked: read(&counts.parked),
        })
    })
    .await
}

type Client = ExecutorServiceClient<tonic::transport::Channel>;

async fn hold(plan: Rc<Plan>, mut client: Client, counts: Arc<Counts>, number: usize) {
    let session = Uuid::new_v4().to_string();
    let mut leases: Vec<String> = Vec::new();
    loop {
        let free = plan.steps.max(1) - leases.len();
        if free == 0 {
            break;
        }
        counts.parked.fetch_add(1, Ordering::Relaxed);
        let polled = client.poll_steps(poll(&session, &plan.queue, free)).await;
        counts.parked.fetch_sub(1, Ordering::Relaxed);
        match polled {
            Ok(answer) => {
                let granted = answer.into_inner().leases;
                counts.leases.fetch_add(granted.len() as u64, Ordering::Relaxed);
                leases.extend(granted.into_iter().map(|lease| lease.lease_token));
                beat(&mut client, &session, &mut leases, &counts).await;
            }
            Err(status) => {
                eprintln!("a poll failed: {status}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    // Spread over the period, as executors that started at different times are.
    let offset = plan.every * (number as f64 / plan.executors as f64);
    let mut next = Instant::now() + Duration::from_secs_f64(offset);
    loop {
        tokio::time::sleep_until(next).await;
        next += Duration::from_secs_f64(plan.every);
        beat(&mut client, &session, &mut leases, &counts).await;
    }
}

fn poll(session: &str, queue: &str, free: usize) -> pb::PollStepsRequest {
    pb::PollStepsRequest {
        session_id: session.to_owned(),
        executor: Some(pb::ExecutorInfo { name: "holder".to_owned(), ..pb::ExecutorInfo::default() }),
        queues: vec![queue.to_owned()],
        max_steps: i32::try_from(free.min(100)).unwrap_or(100),
        wait: Some(prost_types::Duration { seconds: 50, nanos: 0 }),
        request_id: Uuid::new_v4().to_string(),
    }
}

async fn beat(client: &mut Client, session: &str, leases: &mut Vec<String>, counts: &Counts) {
    let heartbeats = leases
        .iter()
        .map(|token| pb::LeaseHeartbeat { lease_token: token.clone(), ..pb::LeaseHeartbeat::default() });
    let request = pb::HeartbeatStepsRequest {
        session_id: session.to_owned(),
        leases: heartbeats.collect(),
        ..pb::HeartbeatStepsRequest::default()
    };
    match client.heartbeat_steps(request).await {
        Ok(answer) => {
            counts.calls.fetch_add(1, Ordering::Relaxed);
            counts.beats.fetch_add(leases.len() as u64, Ordering::Relaxed);
            for status in answer.into_inner().leases {
                let verdict = status.verdict.unwrap_or_default();
                if verdict.reason() != pb::Reason::Unspecified {
                    counts.lost.fetch_add(1, Ordering::Relaxed);
                    counts.leases.fetch_sub(1, Ordering::Relaxed);
                    leases.retain(|token| *token != status.lease_token);
                }
            }
        }
        Err(status) => eprintln!("a heartbeat failed: {status}"),
    }
}
